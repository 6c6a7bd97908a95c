"""Judge a product without a truth: `qnr`. PAN and MS come from the product's own tags."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from affine import Affine

from pansharpen_cli.canvas import SceneCanvas
from pansharpen_cli.errors import SceneError
from pansharpen_cli.files import digest
from pansharpen_cli.geogrid import GeoGrid
from pansharpen_cli.interpolation import area_phase, toolbox_phase
from pansharpen_cli.metrics.full_resolution import FULL, FullReport, full
from pansharpen_cli.metrics.streaming import BLOCK
from pansharpen_cli.modelspec import canonical_band
from pansharpen_cli.mtf import SENSORS
from pansharpen_cli.scene import Raster, Scene
from pansharpen_cli.writer import TAGS, ProductWriter

log = logging.getLogger(__name__)

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Judgement:
    """Scores of a product, and by which PAN and MS it was judged."""

    report: FullReport
    pan: str
    ms: tuple[str, ...]
    sensor: str
    grid: GeoGrid
    """Where the measured part lies: its first pixel is that of the first block."""


def judge(
    product: Path,
    *,
    pan: str | None = None,
    ms: Sequence[str] = (),
    sensor: str | None = None,
    phase: str = "area",
    metrics: Sequence[str] = FULL,
    maps: bool = False,
    on_tile: Callable[[int, int], None] = lambda done, total: None,
) -> Judgement:
    """Measure `product` on the nested grids it was made on. `pan`, `ms` and `sensor` override its tags.

    `phase`: "area", where MS samples lie by the geotransforms, or "toolbox", as published numbers assume.
    Raises SceneError if PAN or MS is not found or does not belong to the product.
    """
    fused = Raster(product)
    try:
        tags = fused.tags(TAGS)
        pan = pan or _found("PAN", tags.get("PAN"), product, tags.get("PAN_SHA256", ""))
        files = list(ms) or _all_found(tags, product)
        sensor = sensor or tags.get("SENSOR", "generic")
        bands = json.loads(tags.get("BANDS", "null"))
        with Scene.open(pan, *files, bands=bands) as scene:
            canvas = _canvas(scene, tags)
            gains = [SENSORS[sensor].gain(canonical_band(name)) for name in scene.band_names]
            view = _Fused(fused, canvas)
            if view.bands != len(gains):
                raise SceneError(f"{product} has {view.bands} bands, its MS {len(gains)}; give the MS it was made of")
            ratio = canvas.ratio
            report = full(
                view, _Pan(canvas), _Ms(canvas),
                gains=gains, phase=area_phase(ratio) if phase == "area" else toolbox_phase(ratio),
                metrics=metrics, maps=maps, on_tile=on_tile,
            )  # fmt: skip
            origin = slice(canvas.rows.first, canvas.rows.first), slice(canvas.cols.first, canvas.cols.first)
            return Judgement(report, pan, tuple(files), sensor, scene.pan_grid.crop(*origin))
    finally:
        fused.close()


def write_maps(judgement: Judgement, folder: Path) -> list[Path]:
    """One GeoTIFF a metric: its value in every block of 32 PAN pixels, NaN where there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, values in judgement.report.maps.items():
        grid = GeoGrid(
            values.shape[0], values.shape[1], judgement.grid.transform @ Affine.scale(BLOCK), judgement.grid.crs
        )
        path = folder / f"{name}.tif"
        with ProductWriter(path, grid, [name], "float32", float("nan"), overwrite=True) as writer:
            everywhere = slice(0, grid.height), slice(0, grid.width)
            writer.write(*everywhere, values[None].astype(np.float32), np.isfinite(values))
            written.append(writer.finish({"BLOCK": str(BLOCK)}))
    return written


def _all_found(tags: dict[str, str], product: Path) -> list[str]:
    names = json.loads(tags.get("MS", "[]"))
    digests = json.loads(tags.get("MS_SHA256", "[]")) or [""] * len(names)
    if not names:
        return [_found("MS", None, product, "")]
    return [_found("MS", name, product, known) for name, known in zip(names, digests, strict=True)]


def _found(role: str, name: str | None, product: Path, known: str) -> str:
    """Where the file is that a tag names: as it was given, or beside the product. A changed one is warned of."""
    if not name:
        raise SceneError(f"{product} does not say what its {role} was; give --{role.lower()}")
    for path in (Path(name), product.parent / name, product.parent / Path(name).name):
        if path.is_file():
            if known and digest(path) != known:
                log.warning("%s has changed since %s was made of it", path, product)
            return str(path)
    raise SceneError(f"{product} was made of {name}, which is not there; give --{role.lower()}")


def _canvas(scene: Scene, tags: dict[str, str]) -> SceneCanvas:
    """The canvas the product was made on, as far as its tags say; else the scene's own."""
    dx, dy = (float(part) for part in tags.get("SHIFT_APPLIED", "0,0").split(","))
    resampling = tags.get("MS_INTERPOLATED", "no")
    return SceneCanvas.of(
        scene,
        ratio=int(tags["RATIO"]) if "RATIO" in tags else None,
        shift=(dx, dy),
        resampling="sinc" if resampling == "no" else resampling,
    )


@dataclass(frozen=True, eq=False)
class _Pan:
    """The PAN of a canvas, as metrics read images."""

    canvas: SceneCanvas
    bands: int = 1

    @property
    def shape(self) -> tuple[int, int]:
        return self.canvas.rows.size, self.canvas.cols.size

    def read(self, rows: slice, cols: slice) -> tuple[npt.NDArray[Any], Mask]:
        ratio = self.canvas.ratio
        around = [slice(s.start // ratio * ratio, -(-s.stop // ratio) * ratio) for s in (rows, cols)]
        raw = self.canvas.raw(around[0], around[1])
        inside = tuple(slice(s.start - a.start, s.stop - a.start) for s, a in zip((rows, cols), around, strict=True))
        return raw.pan[:, inside[0], inside[1]], raw.pan_valid[inside]


@dataclass(frozen=True, eq=False)
class _Ms:
    """The nested MS of a canvas."""

    canvas: SceneCanvas

    @property
    def bands(self) -> int:
        return len(self.canvas.scene.band_names)

    @property
    def shape(self) -> tuple[int, int]:
        ratio = self.canvas.ratio
        return self.canvas.rows.size // ratio, self.canvas.cols.size // ratio

    def read(self, rows: slice, cols: slice) -> tuple[npt.NDArray[Any], Mask]:
        fine = (slice(s.start * self.canvas.ratio, s.stop * self.canvas.ratio) for s in (rows, cols))
        raw = self.canvas.raw(*fine)
        return raw.ms, raw.ms_valid


class _Fused:
    """A product put on the canvas; where it does not reach, there is no data."""

    def __init__(self, product: Raster, canvas: SceneCanvas) -> None:
        self._product, self.bands = product, len(product.indexes)
        self.shape = canvas.rows.size, canvas.cols.size
        pan, grid = canvas.scene.pan_grid, product.grid
        places = (
            pan.rows.edge(grid.rows.origin) - canvas.rows.first,
            pan.cols.edge(grid.cols.origin) - canvas.cols.first,
        )
        steps = grid.rows.step / pan.rows.step, grid.cols.step / pan.cols.step
        self._origin = round(places[0]), round(places[1])
        if np.abs(np.subtract(places, self._origin)).max() > 1e-2 or np.abs(np.subtract(steps, 1)).max() > 1e-4:
            raise SceneError(f"{product.path} is not on the pixel grid of {canvas.scene.pan.path}")

    def read(self, rows: slice, cols: slice) -> tuple[npt.NDArray[Any], Mask]:
        shape = rows.stop - rows.start, cols.stop - cols.start
        data, valid = np.zeros((self.bands, *shape), np.float32), np.zeros(shape, bool)
        sizes = self._product.grid.height, self._product.grid.width
        wanted = [slice(s.start - o, s.stop - o) for s, o in zip((rows, cols), self._origin, strict=True)]
        there = [slice(max(s.start, 0), min(s.stop, n)) for s, n in zip(wanted, sizes, strict=True)]
        if all(s.start < s.stop for s in there):
            at = tuple(slice(t.start - w.start, t.stop - w.start) for t, w in zip(there, wanted, strict=True))
            data[(slice(None), *at)], valid[at] = self._product.read(there[0], there[1])
        return data, valid
