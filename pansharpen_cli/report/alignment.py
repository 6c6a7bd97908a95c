"""How PAN and MS lie on each other, window by window: what coregistration.py makes one shift of."""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot

from pansharpen_cli.canvas import SceneCanvas
from pansharpen_cli.coregistration import MOST_WINDOWS, WINDOW
from pansharpen_cli.interpolation import area_phase, expand
from pansharpen_cli.registration import AGREEMENT, Shift, WindowShift, combine, window_shift
from pansharpen_cli.scene import Scene


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
    ratio = canvas.ratio
    kernel = "23tap" if ratio in (2, 4, 8) else "cubic"
    small = min(canvas.rows.size, canvas.cols.size) < 2 * WINDOW
    places = []
    for pixels in canvas.crops(WINDOW // 2 if small else WINDOW, MOST_WINDOWS):
        exp = expand(pixels.ms, ratio, area_phase(ratio), kernel)
        row, col = (
            axis.first + (span.start + span.stop) / 2
            for axis, span in ((canvas.rows, pixels.tile.rows), (canvas.cols, pixels.tile.cols))
        )
        places.append(Place(row, col, window_shift(pixels.pan[0], exp, pixels.valid, ratio)))
    return Alignment(tuple(places), combine(place.shift for place in places))
