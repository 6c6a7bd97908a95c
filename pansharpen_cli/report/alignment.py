"""How PAN and MS lie on each other, window by window: what coregistration.py makes one shift of."""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot

from pansharpen_cli.imaging.registration import AGREEMENT, Shift, WindowShift, combine
from pansharpen_cli.imaging.tiling import Span
from pansharpen_cli.inputs.canvas import SceneCanvas
from pansharpen_cli.inputs.coregistration import windows
from pansharpen_cli.inputs.scene import Scene


@dataclass(frozen=True)
class Place:
    """A window: its centre in PAN pixels of the PAN file, and the shift it shows, None if it shows none."""

    row: float
    col: float
    shift: WindowShift | None

    def agrees(self, shift: Shift) -> bool:
        """True if the window is one of those that speak for `shift`."""
        own = self.shift
        return own is not None and own.strength > 0 and hypot(own.dx - shift.dx, own.dy - shift.dy) <= AGREEMENT


@dataclass(frozen=True)
class Alignment:
    """Windows spread over the scene and the one shift they give; the geotransforms are taken at their word."""

    places: tuple[Place, ...]
    shift: Shift

    @property
    def silent(self) -> int:
        """Windows that say nothing: too little data, no detail, or no peak that stands out."""
        return sum(place.shift is None or not place.shift.strength for place in self.places)


def measure(scene: Scene) -> Alignment:
    """Measure anew, on the scene as its files place it, as `run` does."""
    canvas = SceneCanvas.of(scene)
    places = [
        Place(canvas.rows.first + _middle(tile.rows), canvas.cols.first + _middle(tile.cols), shift)
        for tile, shift in windows(canvas)
    ]
    return Alignment(tuple(places), combine(place.shift for place in places))


def _middle(span: Span) -> float:
    return (span.start + span.stop) / 2
