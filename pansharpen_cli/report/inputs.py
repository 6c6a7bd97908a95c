"""The files behind a report, opened once and read by windows of one canvas."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pansharpen_cli.evaluation.quality import product_canvas
from pansharpen_cli.imaging.displacement import Displacement
from pansharpen_cli.inputs.canvas import Raw, SceneCanvas
from pansharpen_cli.inputs.raster import Raster
from pansharpen_cli.inputs.scene import Scene
from pansharpen_cli.outputs.layout import TAGS

Float32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Placed:
    """A product on the canvas: its pixel (0, 0) is canvas pixel `origin` (row, col)."""

    raster: Raster
    origin: tuple[int, int]

    def read(self, rows: slice, cols: slice) -> tuple[Float32, Mask]:
        """A window of the canvas, (bands, h, w) in DN, and where it holds data; none beyond the product."""
        shape = rows.stop - rows.start, cols.stop - cols.start
        data, valid = np.zeros((len(self.raster.indexes), *shape), np.float32), np.zeros(shape, bool)
        sizes = self.raster.grid.height, self.raster.grid.width
        start = [s.start - o for s, o in zip((rows, cols), self.origin, strict=True)]
        there = [slice(max(a, 0), min(a + n, size)) for a, n, size in zip(start, shape, sizes, strict=True)]
        if all(s.start < s.stop for s in there):
            target = tuple(slice(s.start - a, s.stop - a) for s, a in zip(there, start, strict=True))
            data[:, *target], valid[target] = self.raster.read(*there)
        return data, valid


@dataclass(frozen=True, eq=False)
class Inputs:
    """A scene on the canvas that its first product was made on, and all products on the same pixels."""

    canvas: SceneCanvas
    products: list[Placed]

    @property
    def scene(self) -> Scene:
        return self.canvas.scene

    def read(self, rows: slice, cols: slice) -> tuple[Raw, list[Float32], Mask]:
        """A window of the canvas: PAN and MS, every product, and where (h, w) all of them hold data."""
        raw = self.canvas.raw(rows, cols)
        windows = [product.read(rows, cols) for product in self.products]
        return raw, [hrms for hrms, _ in windows], np.logical_and.reduce([raw.valid, *(valid for _, valid in windows)])


@contextmanager
def opened(products: Sequence[Path], pan: str, ms: Sequence[str], shift: Displacement) -> Iterator[Inputs]:
    """Open `products` with the PAN and MS, and the shift between these, they were judged by."""
    with ExitStack() as stack:
        rasters = []
        for path in products:
            rasters.append(Raster(path))
            stack.callback(rasters[-1].close)
        tags = rasters[0].tags(TAGS)
        scene = stack.enter_context(Scene.open(pan, *ms, bands=json.loads(tags.get("BANDS", "null"))))
        canvas = product_canvas(scene, tags, shift)
        yield Inputs(canvas, [Placed(raster, canvas.origin_of(raster)) for raster in rasters])
