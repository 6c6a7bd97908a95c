"""How PAN and MS lie on each other, window by window: what coregistration.py makes one shift of."""

from __future__ import annotations

from dataclasses import dataclass

from pansharpen_cli.imaging.registration import Shift
from pansharpen_cli.inputs.canvas import SceneCanvas
from pansharpen_cli.inputs.coregistration import Place, together, windows
from pansharpen_cli.inputs.scene import Scene


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
    places = tuple(windows(SceneCanvas.of(scene)))
    return Alignment(places, together(places))
