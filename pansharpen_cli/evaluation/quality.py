"""Judge a product without a truth: `qnr`. PAN and MS come from the product's own tags."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from math import lcm
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from pansharpen_cli.errors import SceneError, UsageError
from pansharpen_cli.imaging.displacement import Displacement
from pansharpen_cli.imaging.geogrid import GeoGrid
from pansharpen_cli.imaging.interpolation import KERNELS, area_phase, toolbox_phase
from pansharpen_cli.imaging.mtf import MEASURED, Sensor, find_sensor
from pansharpen_cli.imaging.registration import NO_SHIFT
from pansharpen_cli.inputs import blocks
from pansharpen_cli.inputs.canvas import SceneCanvas
from pansharpen_cli.inputs.coregistration import Choice, from_tags, measure, sensor_of, to_apply
from pansharpen_cli.inputs.mosaic import files_of
from pansharpen_cli.inputs.raster import Raster
from pansharpen_cli.inputs.scene import MOST_RATIO, Scene
from pansharpen_cli.metrics import units
from pansharpen_cli.metrics.full_resolution import FULL, PRODUCTS, FullReport, full
from pansharpen_cli.metrics.image import Locked
from pansharpen_cli.metrics.streaming import BLOCK
from pansharpen_cli.metrics.units import InDn
from pansharpen_cli.modelspec import canonical_band
from pansharpen_cli.outputs.layout import TAGS
from pansharpen_cli.outputs.writer import ProductWriter
from pansharpen_cli.system import locations, settings
from pansharpen_cli.system.files import digest, redacted, same_file

log = logging.getLogger(__name__)

Mask = npt.NDArray[np.bool_]

READ_AT_ONCE = 640
"""PAN pixels in height that the metrics' tiles read at most."""


@dataclass(frozen=True)
class Judgement:
    """Scores of a product, and by which PAN and MS it was judged."""

    report: FullReport
    pan: str
    ms: tuple[str, ...]
    sensor: str
    grid: GeoGrid
    """Where the measured part lies: its first pixel is that of the first block."""
    shift: Displacement
    """How far the PAN lies off its MS, as the product was made, or as it was measured."""


def judge(
    product: str | Path,
    *,
    pan: str | None = None,
    ms: Sequence[str] = (),
    sensor: str | None = None,
    coregister: Choice | None = None,
    phase: str = "area",
    metrics: Sequence[str] = FULL,
    maps: bool = False,
    threads: int = 1,
    on_tile: Callable[[int, int], None] = lambda done, total: None,
) -> Judgement:
    """Measure `product` on the nested grids it was made on. `pan`, `ms`, `sensor` and `coregister` override its tags;
    what neither says of sensor and shift is measured, as for a run; published numbers, of the toolbox's phase, know
    no shift.

    `phase`: "area", where MS samples lie by the geotransforms, or "toolbox", as published numbers assume.
    Raises SceneError if PAN or MS is not found or does not belong to the product, or if nothing can be measured.
    """
    product = Path(product)
    with ExitStack() as opened:
        fused = opened.enter_context(closing(Raster(product)))
        settings.one_of(phase, ("area", "toolbox"), "phase")
        tags = _sound(fused.tags(TAGS), product)
        made_in = tags.get("FOLDER", "")
        pan = pan or _found("PAN", tags.get("PAN"), tags.get("PAN_SHA256", ""), product, made_in)
        files = list(ms) or _all_found(tags, product, made_in)
        sensor = sensor or _sound_sensor(tags, product)
        scene = opened.enter_context(Scene.open(pan, *files, bands=json.loads(tags.get("BANDS", "null"))))
        mtf = sensor_of(scene) if sensor == MEASURED else find_sensor(sensor)
        if coregister is None and "SHIFT_APPLIED" not in tags:
            coregister = "auto" if phase == "area" else "off"
        canvas = product_canvas(scene, tags, coregister)
        _check(fused, canvas)
        report = _measured(
            product, fused, canvas, mtf,
            phase=area_phase(canvas.ratio) if phase == "area" else toolbox_phase(canvas.ratio),
            metrics=metrics, maps=maps, threads=threads, on_tile=on_tile,
        )  # fmt: skip
        return Judgement(report, pan, tuple(files), mtf.name, canvas.whole_grid, canvas.shift)


def _measured(product: Path, fused: Raster, canvas: SceneCanvas, sensor: Sensor, **how: Any) -> FullReport:
    """The scores of a product, which tell in its own pixels how much was measured: the canvas is filled up to whole MS
    pixels, and may be far larger."""
    unit = _unit(canvas)
    with (
        closing(Raster(product, nodata="none")) as plain,
        blocks.keeping(blocks.of_rows(canvas, fused, READ_AT_ONCE)),
    ):
        placed = _Fused(fused, plain, canvas)
        report = full(
            Locked(InDn(placed, unit), Lock()),
            Locked(InDn(_Placed(canvas.scene.pan, canvas), unit), Lock()),
            Locked(InDn(_Ms(canvas), unit), Lock()),
            gains=[sensor.gain(canonical_band(name)) for name in canvas.scene.band_names],
            **how,
        )
    if not all(score.counted for name, score in report.scores.items() if name not in PRODUCTS):
        raise SceneError(
            f"{product} and {canvas} do not share one block of {BLOCK} x {BLOCK} pixels with data; "
            "check their extents and nodata values"
        )
    return replace(report, given=(fused.grid.height, fused.grid.width), size=placed.within(report.size))


def write_maps(judgement: Judgement, folder: Path) -> list[Path]:
    """One GeoTIFF a metric: its value in every block of 32 PAN pixels, NaN where there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, values in judgement.report.maps.items():
        grid = judgement.grid.coarsened(BLOCK, *values.shape)
        path = folder / f"{name}.tif"
        with ProductWriter(path, grid, [name], "float32", float("nan"), overwrite=True) as writer:
            everywhere = slice(0, grid.height), slice(0, grid.width)
            writer.write(*everywhere, values[None].astype(np.float32), np.isfinite(values))
            written.append(writer.finish({"BLOCK": str(BLOCK)}))
    return written


def _sound(tags: dict[str, str], product: Path) -> dict[str, str]:
    """`tags`, which anybody may have written, if they make sense. Raises SceneError."""
    try:
        files, digests = (json.loads(tags.get(name, "[]")) for name in ("MS", "MS_SHA256"))
        bands, ratio = json.loads(tags.get("BANDS", "null")), int(tags.get("RATIO", "2"))
        from_tags(tags)
        sound = (
            all(isinstance(text, str) for text in [*files, *digests])
            and (not files or len(digests) in (0, len(files)))
            and all(isinstance(band, int) for band in bands or ())
            and 1 < ratio <= MOST_RATIO
            and tags.get("MS_INTERPOLATED", "no") in ("no", *KERNELS)
        )
    except (ValueError, TypeError, RecursionError):
        sound = False
    if not sound:
        raise SceneError(f"{product} has tags that make no sense; it is not as it was made")
    return tags


def _sound_sensor(tags: dict[str, str], product: Path) -> str:
    """The sensor that it was made for; measured, if it does not say. Raises SceneError for one that is unknown."""
    sensor = tags.get("SENSOR", MEASURED)
    try:
        return sensor if sensor == MEASURED else find_sensor(sensor).name
    except UsageError:
        raise SceneError(
            f"{product} was made for the sensor {sensor!r}, which is not known here; give --sensor"
        ) from None


def _all_found(tags: dict[str, str], product: Path, made_in: str) -> list[str]:
    names = json.loads(tags.get("MS", "[]"))
    digests = json.loads(tags.get("MS_SHA256", "[]")) or [""] * len(names)
    if not names:
        return [_found("MS", None, "", product, made_in)]
    return [_found("MS", name, known, product, made_in) for name, known in zip(names, digests, strict=True)]


def _found(role: str, name: str | None, known: str, product: Path, made_in: str) -> str:
    """Where the file is that a tag names. A changed one is warned of.

    `known`: its SHA-256 when the product was made, or "". `made_in`: the folder of the product then, or "".
    """
    if not name:
        raise SceneError(f"{product} does not say what its {role} was; give --{role.lower()}")
    if locations.is_remote(name):  # nothing is fetched because of what a file says
        raise SceneError(f"{product} was made of {redacted(name)}; give --{role.lower()} to fetch it from there")
    paths = _places(name, product, made_in)
    if not paths:
        raise SceneError(f"{product} was made of {name}, which is not there; give --{role.lower()}")
    if not known:
        return paths[0]
    for path in paths:  # another file may have its name
        if digest(*files_of(path)) == known:
            return path
    log.warning("%s has changed since %s was made of it", paths[0], product)
    return paths[0]


def _places(name: str, product: Path, made_in: str) -> list[str]:
    """The files that `name` in the tags of `product` may mean, the likeliest first. The product itself is none.

    A name counts from the product's folder: where it lies now, where a link to it leads, where it was made. Those of
    older products count from where somebody stood. At last comes what has this name beside the product.
    """
    folders = product.parent, product.resolve().parent, made_in, ""
    paths = [*(os.path.join(folder, name) for folder in folders), os.path.join(product.parent, Path(name).name)]
    there = filter(os.path.isfile, map(_shortened, paths))
    return list(dict.fromkeys(path for path in there if not same_file(path, product)))


def _shortened(path: str) -> str:
    """Without `..`, unless that leads elsewhere, as behind a link."""
    short = os.path.normpath(path)
    return path if os.path.exists(path) and not same_file(short, path) else short


def product_canvas(scene: Scene, tags: dict[str, str], coregister: Choice | None = None) -> SceneCanvas:
    """The canvas the product was made on, as far as its tags say; else the scene's own. `coregister` overrides them."""
    resampling = tags.get("MS_INTERPOLATED", "no")
    return SceneCanvas.of(
        scene,
        ratio=int(tags["RATIO"]) if "RATIO" in tags else None,
        shift=_shift(scene, tags, coregister),
        resampling="sinc" if resampling == "no" else resampling,
    )


def _shift(scene: Scene, tags: dict[str, str], coregister: Choice | None) -> Displacement:
    if coregister is None:
        return from_tags(tags)
    measured = measure(SceneCanvas.of(scene)) if coregister == "auto" else NO_SHIFT
    applied = to_apply(coregister, measured)
    if coregister == "auto" and applied:
        log.info("%s lies %s PAN pixels off its MS, which is moved for that", scene.pan.path, applied)
    return applied


def _unit(canvas: SceneCanvas) -> float:
    """What makes digital numbers of the scene's values, as windows all over it show them."""
    if canvas.scene.dtype.kind in "iu" and canvas.scene.dtype.itemsize <= 2:
        return 1.0
    crops = canvas.crops(256, 5)
    return units.factor(np.concatenate([crop.ms[:, crop.ms_valid].ravel() for crop in crops]))


def _check(product: Raster, canvas: SceneCanvas) -> None:
    """A product has the bands of its MS and lies on the pixels of its PAN, wherever it begins and ends."""
    bands, needed = len(product.indexes), len(canvas.scene.band_names)
    if bands != needed:
        raise SceneError(f"{product.path} has {bands} bands, its MS {needed}; give the MS it was made of by --ms")
    canvas.origin_of(product)
    least = lcm(BLOCK, canvas.ratio)
    if min(canvas.rows.size, canvas.cols.size) < least:
        raise SceneError(f"{product.path} is smaller than {least} x {least} pixels, the least that can be measured")


class _Placed:
    """A raster on the PAN's pixel grid, put on the canvas; where it does not reach, there is no data."""

    def __init__(self, raster: Raster, canvas: SceneCanvas) -> None:
        self._raster, self.bands = raster, len(raster.indexes)
        self.shape = canvas.rows.size, canvas.cols.size
        self._origin = canvas.origin_of(raster)

    def within(self, size: tuple[int, int]) -> tuple[int, int]:
        """How many of its rows and columns lie in the first `size` of the canvas."""
        own = self._raster.grid.height, self._raster.grid.width
        ends = (min(s, o + n) - max(0, o) for s, o, n in zip(size, self._origin, own, strict=True))
        rows, cols = (max(0, end) for end in ends)
        return rows, cols

    def read(self, rows: slice, cols: slice) -> tuple[npt.NDArray[Any], Mask]:
        shape = rows.stop - rows.start, cols.stop - cols.start
        wanted = [slice(s.start - o, s.stop - o) for s, o in zip((rows, cols), self._origin, strict=True)]
        sizes = self._raster.grid.height, self._raster.grid.width
        there = [slice(max(s.start, 0), min(s.stop, n)) for s, n in zip(wanted, sizes, strict=True)]
        if any(s.start >= s.stop for s in there):
            return np.zeros((self.bands, *shape), np.float32), np.zeros(shape, bool)
        data, valid = self._window(there[0], there[1])
        if valid.shape == shape:
            return data, valid
        around = [(t.start - w.start, w.stop - t.stop) for t, w in zip(there, wanted, strict=True)]
        return np.pad(data, [(0, 0), *around]), np.pad(valid, around)

    def _window(self, rows: slice, cols: slice) -> tuple[npt.NDArray[Any], Mask]:
        """A window inside the raster."""
        return self._raster.read(rows, cols)


class _Fused(_Placed):
    """A product: a NaN that it does not declare as no data is no gap, but a fault that scores must not hide.

    `plain` is the same file, read as if all were data.
    """

    def __init__(self, raster: Raster, plain: Raster, canvas: SceneCanvas) -> None:
        super().__init__(raster, canvas)
        self._plain = plain
        nan_is_a_gap = raster.nodata is not None and np.isnan(raster.nodata)
        self._strict = np.issubdtype(raster.dtype, np.floating) and not nan_is_a_gap

    def _window(self, rows: slice, cols: slice) -> tuple[npt.NDArray[Any], Mask]:
        data, valid = super()._window(rows, cols)
        if self._strict and not valid.all() and not self._plain.read(rows, cols)[1].all():
            raise SceneError(
                f"{self._raster.path} holds NaN or infinity in rows {rows.start}-{rows.stop}, columns "
                f"{cols.start}-{cols.stop}; make it again, or declare NaN as its nodata value if these are gaps"
            )
        return data, valid


class _Ms:
    """The nested MS of a canvas."""

    def __init__(self, canvas: SceneCanvas) -> None:
        self._canvas, self.bands = canvas, len(canvas.scene.band_names)
        self.shape = canvas.rows.size // canvas.ratio, canvas.cols.size // canvas.ratio

    def read(self, rows: slice, cols: slice) -> tuple[npt.NDArray[Any], Mask]:
        return self._canvas.nested_ms(rows, cols)
