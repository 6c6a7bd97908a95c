"""Everything a report shows, gathered from the product, its PAN and its MS. How it is shown is for page.py."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyproj

from pansharpen_cli.errors import SceneError, UsageError
from pansharpen_cli.evaluation.quality import Judgement, judge
from pansharpen_cli.imaging.geogrid import GeoGrid
from pansharpen_cli.imaging.mtf import find_sensor
from pansharpen_cli.inputs.coregistration import Choice
from pansharpen_cli.inputs.raster import Raster
from pansharpen_cli.metrics.streaming import BLOCK
from pansharpen_cli.modelspec import canonical_band
from pansharpen_cli.outputs.layout import TAGS
from pansharpen_cli.outputs.quicklook import Bytes, picture
from pansharpen_cli.report import alignment, crops
from pansharpen_cli.report.alignment import Alignment
from pansharpen_cli.report.crops import Crop
from pansharpen_cli.report.inputs import Float32, Inputs, Mask, opened
from pansharpen_cli.report.measure import Bias, Histograms, Sample

log = logging.getLogger(__name__)

Float64 = npt.NDArray[np.float64]

OVERVIEW = 1000
"""Pixels on the longer side of the overview."""
CELLS = 128
"""Cells on the longer side of a quality map, at most: blocks of a larger scene are averaged."""
MAPS = ("D_lambda_K", "D_s", "HQNR")
SPAN = 1, 99
"""Percentiles that bound most values of a band."""


@dataclass(frozen=True, eq=False)
class Made:
    """One product: its scores, maps and colours, and what its tags say of how it was made.

    `name` tells it from the others. `maps`: one value a cell of `Report.cell` PAN pixels, NaN where there is none.
    """

    name: str
    path: Path
    grid: GeoGrid
    dtype: str
    judgement: Judgement
    maps: dict[str, Float64]
    bias: list[Bias]
    tags: dict[str, str]


@dataclass(frozen=True, eq=False)
class View:
    """A crop with its pixels in DN: `pan` (h, w), `ms` (bands, h / ratio, w / ratio), of each product (bands, h, w)."""

    crop: Crop
    pan: Float32
    ms: Float32
    hrms: list[Float32]
    pan_valid: Mask
    ms_valid: Mask
    valid: list[Mask]


@dataclass(frozen=True, eq=False)
class Report:
    """A scene and its products. Positions (row, col) are pixels of the first product.

    `unit`: of the CRS, to stand after a number. `origin`: where canvas pixel (0, 0) lies, from which blocks and crops
    are counted. `pan_origin`: where the PAN file's first pixel lies. `sampled`, `ms_pixels`: MS pixels that bias and
    histograms rest on, of how many. `cell`: PAN pixels a side of a cell of the maps. `span` (bands, 2): DN of the MS
    between the percentiles SPAN.
    """

    products: list[Made]
    bands: list[str]
    ratio: int
    unit: str
    overview: Bytes
    views: list[View]
    histograms: list[Histograms]
    sampled: int
    ms_pixels: int
    alignment: Alignment
    origin: tuple[int, int]
    pan_origin: tuple[int, int]
    cell: int
    span: Float64

    @property
    def grid(self) -> GeoGrid:
        return self.products[0].grid


def gather(
    products: Sequence[Path],
    *,
    pan: str | None = None,
    ms: Sequence[str] = (),
    sensor: str | None = None,
    coregister: Choice | None = None,
    threads: int = 1,
    on_tile: Callable[[int, int], None] = lambda done, total: None,
) -> Report:
    """Measure `products` of one scene by the PAN, MS, sensor and shift of the first; `pan`, `ms`, `sensor` and
    `coregister` override its tags.

    Raises SceneError if PAN or MS is not found, does not belong to a product, or the products are not of one scene.
    """
    if len({path.resolve() for path in products}) < len(products):
        raise UsageError(f"{products[0]} or another product is given twice; name each once")
    _check_one_scene(products, given=bool(pan and ms))
    first = judge(
        products[0], pan=pan, ms=ms, sensor=sensor, coregister=coregister, maps=True, threads=threads, on_tile=on_tile
    )
    judgements = [first] + [
        judge(
            path, pan=first.pan, ms=first.ms, sensor=first.sensor, coregister=first.shift, maps=True,
            threads=threads, on_tile=on_tile,
        )
        for path in products[1:]
    ]  # fmt: skip
    with opened(products, first.pan, first.ms, first.shift) as inputs:
        return _gathered(products, judgements, inputs)


def _check_one_scene(products: Sequence[Path], given: bool) -> None:
    """Products that know what they were made of must agree; others are taken for products of the same scene. Of a PAN
    and an MS that are `given` it is the user who says so."""
    origins: dict[tuple[str, str], Path] = {}
    for path in products:
        raster = Raster(path)
        tags = raster.tags(TAGS)
        raster.close()
        if tags.get("PAN_SHA256"):
            origins.setdefault((tags["PAN_SHA256"], tags.get("MS_SHA256", "")), path)
    if len(origins) > 1:
        one, other, *_ = origins.values()
        differ = f"{one} and {other} were made of different files"
        if not given:
            raise SceneError(f"{differ}; compare products of one scene")
        log.warning("%s, whatever --pan and --ms say", differ)


def _gathered(products: Sequence[Path], judgements: Sequence[Judgement], inputs: Inputs) -> Report:
    canvas, first = inputs.canvas, inputs.products[0]
    bands = inputs.scene.band_names
    sample = Sample.of(inputs, [find_sensor(judgements[0].sensor).gain(canonical_band(name)) for name in bands])
    blocks = max(judgements[0].report.maps["HQNR"].shape)
    together = -(-blocks // CELLS)
    made = [
        Made(
            name, path, placed.raster.grid, placed.raster.dtype.name, judgement,
            {key: _coarser(judgement.report.maps[key], together) for key in MAPS},
            sample.bias(index), placed.raster.tags(TAGS),
        )
        for index, (name, path, placed, judgement) in enumerate(
            zip(_names(products), products, inputs.products, judgements, strict=True)
        )
    ]  # fmt: skip
    return Report(
        made, bands, canvas.ratio, _unit(first.raster.grid), picture(products[0], OVERVIEW),
        [_view(inputs, crop) for crop in crops.choose(inputs, judgements[0].report.maps["HQNR"])],
        sample.histograms(), int(sample.known.sum()), sample.scene, alignment.measure(inputs.scene),
        (-first.origin[0], -first.origin[1]),
        (-first.origin[0] - canvas.rows.first, -first.origin[1] - canvas.cols.first),
        together * BLOCK, sample.span(SPAN),
    )  # fmt: skip


def _unit(grid: GeoGrid) -> str:
    if grid.crs is None:
        return " (no CRS)"
    unit = pyproj.CRS.from_wkt(grid.crs).axis_info[0].unit_name
    return {"metre": " m", "degree": "°"}.get(unit, f" {unit}")


def _names(products: Sequence[Path]) -> list[str]:
    """File names without their ends where these tell the products apart, else paths."""
    stems = [path.stem for path in products]
    return stems if len(set(stems)) == len(stems) else [str(path) for path in products]


def _view(inputs: Inputs, crop: Crop) -> View:
    raw = inputs.canvas.raw(crop.rows, crop.cols)
    windows = [product.read(crop.rows, crop.cols) for product in inputs.products]
    return View(
        crop, raw.pan[0], raw.ms, [hrms for hrms, _ in windows], raw.pan_valid, raw.ms_valid, [v for _, v in windows]
    )


def _coarser(values: Float64, factor: int) -> Float64:
    """Means of `factor` x `factor` values, of those that are not NaN; NaN where none is."""
    if factor == 1:
        return values
    pad = [(0, -size % factor) for size in values.shape]
    padded = np.pad(values, pad, constant_values=np.nan)
    cells = padded.reshape(padded.shape[0] // factor, factor, padded.shape[1] // factor, factor)
    count = np.isfinite(cells).sum(axis=(1, 3))
    return np.asarray(np.where(count, np.nansum(cells, axis=(1, 3)) / np.maximum(count, 1), np.nan))
