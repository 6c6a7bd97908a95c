"""A real scene at reduced resolution: read, co-registered and degraded by Wald's protocol, with its MS as the truth."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pansharpen_cli.canvas import SceneCanvas
from pansharpen_cli.coregistration import measure, to_apply
from pansharpen_cli.errors import SceneError
from pansharpen_cli.modelspec import canonical_band
from pansharpen_cli.mtf import Sensor
from pansharpen_cli.scene import Scene
from pansharpen_cli.tiling import Span, Tile
from pansharpen_cli.wald import ReducedScene, reduce


def load(
    pan: str | Path,
    *ms: str | Path,
    sensor: Sensor,
    bands: Sequence[str] | None = None,
    ratio: int | None = None,
    name: str = "",
) -> ReducedScene:
    """The scene of these files, whole, as a task of `ratio` (default: its own) with these `bands` (default: all).

    Bands are named as models name them. Raises SceneError if one is missing or the scene is too small.
    """
    with Scene.open(pan, *ms) as scene:
        names = [canonical_band(band) for band in scene.band_names]
        wanted = list(bands or names)
        missing = [band for band in wanted if band not in names]
        if missing:
            raise SceneError(f"{ms[0]} has no band {', '.join(missing)}; it has {', '.join(names)}")
        canvas = SceneCanvas.of(scene, shift=to_apply("auto", measure(SceneCanvas.of(scene))))
        whole = Tile(*(Span(axis.start, axis.stop, 0, axis.size) for axis in (canvas.rows, canvas.cols)))
        pixels = canvas.read(whole)
        ratio = ratio or scene.ratio
        if min(pixels.ms.shape[1:]) < 2 * ratio:
            raise SceneError(f"{ms[0]} is too small to be degraded by {ratio}; give a larger scene")
        return reduce(
            name or str(pan), pixels.pan, pixels.ms[[names.index(band) for band in wanted]], pixels.valid,
            ratio=ratio, sensor=sensor, band_names=wanted,
        )  # fmt: skip
