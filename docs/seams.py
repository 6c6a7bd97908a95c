"""Draw docs/pictures/seams.png, the seams of naive tiling, and print their size: `.venv/bin/python docs/seams.py`.

Tiles of the scene in examples/, sharpened twice by the same network: each as a scene of its own, and as `run` does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from pansharpen_cli.backends.sharpener import Sharpener
from pansharpen_cli.backends.torch_backend import TorchBackend
from pansharpen_cli.imaging.tiling import Reach, Tile
from pansharpen_cli.inputs.canvas import ArrayCanvas, Canvas, SceneCanvas
from pansharpen_cli.inputs.scene import Scene
from pansharpen_cli.method import Method, choose

ROOT = Path(__file__).parents[1]
MODEL = "adknet-per-band.x2"
TILE = 256
SHOWN = slice(392, 632), slice(392, 632)
"""The four tiles around (512, 512) meet in it; PAN pixels."""
ZOOM = 2
LARGEST = 100.0
"""DN of a difference that is drawn white."""

Float32 = npt.NDArray[np.float32]


def sharpened(method: Method, canvas: Canvas, tiles: Sequence[Tile] | None = None) -> Float32:
    """The product (bands, H, W) in DN before it is rounded, zero outside `tiles`; what is global comes from all."""
    assert method.model is not None
    backend = TorchBackend(method.model.load(len(method.order)), method.model.spec.crop, torch.device("cpu"))
    sharpener = Sharpener.observing(backend, method.radiometry, canvas, method.order, TILE)
    hrms = np.zeros((len(method.order), canvas.rows.stop, canvas.cols.stop), np.float32)
    for pixels, core in sharpener.all(canvas, tiles or canvas.tiles(TILE, backend.reach)):
        hrms[:, *pixels.tile.core] = core
    return hrms


def naive(method: Method, canvas: Canvas, tiles: Sequence[Tile]) -> Float32:
    """The same, every tile a scene of its own: its mean and deviation, its global values, its border."""
    hrms = np.zeros((len(method.order), canvas.rows.stop, canvas.cols.stop), np.float32)
    for tile in tiles:
        pixels = canvas.read(tile)
        hrms[:, *tile.core] = sharpened(method, ArrayCanvas.of(pixels.pan, pixels.ms))
    return hrms


def meeting(tiles: Sequence[Tile]) -> list[Tile]:
    """Those that have a part in what is shown."""
    rows, cols = SHOWN
    return [
        tile
        for tile in tiles
        if tile.rows.start < rows.stop > rows.start < tile.rows.stop
        and tile.cols.start < cols.stop > cols.start < tile.cols.stop
    ]


def drawn(image: Float32, low: Float32, high: Float32) -> npt.NDArray[np.uint8]:
    """(bands, h, w) as bytes, `low` ... `high` (bands, 1, 1) stretched, pixels repeated."""
    grey = (np.clip((image - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    return grey.repeat(ZOOM, axis=1).repeat(ZOOM, axis=2)


def main() -> None:
    with Scene.open(ROOT / "examples/l8_madrid/pan.tif", ROOT / "examples/l8_madrid/ms.tif") as scene:
        method = choose(MODEL, scene)
        assert method.model is not None
        spec = method.model.spec
        canvas = SceneCanvas.of(scene, ratio=method.ratio, phase=method.phase, reach=spec.reach)
        as_run = sharpened(method, canvas, meeting(canvas.tiles(TILE, spec.reach)))
        cut = naive(method, canvas, meeting(canvas.tiles(TILE, Reach(0, spec.alignment, spec.multiple_of))))
    window = (..., *SHOWN)
    distance = np.abs(cut - as_run)[window]
    row, col = (TILE * (side.stop // TILE) - side.start for side in SHOWN)
    at_seams = np.concatenate([distance[:, row - 1 : row + 1].ravel(), distance[..., col - 1 : col + 1].ravel()])
    print(f"difference at the seams {at_seams.mean():.0f} DN, at most {at_seams.max():.0f}; everywhere", end=" ")
    print(f"{distance.mean():.0f} DN; the bands' deviation is {as_run[window].std(axis=(1, 2)).mean():.0f} DN")

    low, high = np.percentile(as_run[window], (1, 99), axis=(1, 2))[:, :, None, None].astype(np.float32)
    none, most = np.zeros((1, 1, 1), np.float32), np.full((1, 1, 1), LARGEST, np.float32)
    grey = drawn(distance.mean(axis=0, keepdims=True), none, most).repeat(3, axis=0)
    gap = np.full((3, grey.shape[1], 6), 255, np.uint8)
    panels = [drawn(cut[window], low, high), gap, drawn(as_run[window], low, high), gap, grey]
    picture = np.concatenate(panels, axis=2).transpose(1, 2, 0)
    Image.fromarray(picture).save(ROOT / "docs/pictures/seams.png", optimize=True)


if __name__ == "__main__":
    main()
