"""Scenes to be compared on, in memory: files degraded by Wald's protocol, with a truth of their own or at full
resolution, and the samples of benchmark files."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pansharpen_cli.errors import SceneError
from pansharpen_cli.evaluation.benchmark import Sample
from pansharpen_cli.evaluation.excerpts import held
from pansharpen_cli.imaging.displacement import Displacement
from pansharpen_cli.imaging.geogrid import ON_GRID, GeoGrid, NestedAxis
from pansharpen_cli.imaging.interpolation import sample, sample_at
from pansharpen_cli.imaging.mtf import Sensor
from pansharpen_cli.imaging.registration import NO_SHIFT
from pansharpen_cli.imaging.tiling import Pixels
from pansharpen_cli.imaging.wald import Excerpts, FullScene, ReducedScene, reduce
from pansharpen_cli.inputs.canvas import ArrayCanvas, Canvas, SceneCanvas
from pansharpen_cli.inputs.coregistration import Choice, measure, to_apply
from pansharpen_cli.inputs.raster import Raster
from pansharpen_cli.inputs.scene import Scene
from pansharpen_cli.modelspec import canonical_band

log = logging.getLogger(__name__)

PLACES_ROUNDS = 3
"""Steps in which a place in a displaced PAN is found, each nearer by as much as the field changes little."""
BENCHMARK_BANDS = {
    4: ("blue", "green", "red", "nir"),
    8: ("coastal", "blue", "green", "yellow", "red", "rededge", "nir", "nir2"),
}
"""Benchmark files name no bands; this is their order, by how many there are."""


def load(
    pan: str | Path,
    *ms: str | Path,
    sensor: Sensor,
    bands: Sequence[str] | None = None,
    band_names: Sequence[str] | None = None,
    ratio: int | None = None,
    name: str = "",
    coregister: Choice = "auto",
    most: int | None = None,
) -> ReducedScene:
    """The scene of these files as a task of `ratio` (default: its own) with these `bands` (default: all).

    Bands are named as models name them; `band_names` replace those of the files. More than `most` pixels of the task's
    PAN are told by excerpts. Raises SceneError if a band is missing or the scene is too small.
    """
    with Scene.open(pan, *ms, names=band_names) as scene:
        names, order = chosen_bands(scene.band_names, bands, ms[0])
        canvas = _canvas(scene, coregister)
        ratio = ratio or scene.ratio
        pixels, grid, excerpts = _held(canvas, most and most * scene.ratio**2, ratio * scene.ratio)
        _check_size(pixels.ms, ratio, ms[0])
        reduced = reduce(
            name or str(pan), pixels.pan, pixels.ms[order], pixels.valid,
            ratio=ratio, sensor=sensor, band_names=names,
        )  # fmt: skip
        if excerpts and not reduced.valid.any():
            raise SceneError(f"none of the excerpts of {pan} holds data to be judged by; cut it to where it has some")
        grid = grid and grid.coarsened(scene.ratio, *reduced.valid.shape)
        return _usable(replace(reduced, grid=grid, excerpts=excerpts))


def load_full(
    pan: str | Path,
    *ms: str | Path,
    bands: Sequence[str] | None = None,
    band_names: Sequence[str] | None = None,
    name: str = "",
    coregister: Choice = "auto",
    most: int | None = None,
) -> FullScene:
    """The scene of these files at its own resolution with these `bands` (default: all), more than `most` PAN pixels in
    excerpts; `band_names` replace those of the files. Raises SceneError."""
    with Scene.open(pan, *ms, names=band_names) as scene:
        names, order = chosen_bands(scene.band_names, bands, ms[0])
        pixels, grid, excerpts = _held(_canvas(scene, coregister), most, scene.ratio)
        return FullScene(
            name or str(pan), names, pixels.pan, pixels.ms[order], pixels.valid, grid=grid, excerpts=excerpts
        )


def load_with_truth(
    pan: str | Path,
    *ms: str | Path,
    truth: str | Path,
    bands: Sequence[str] | None = None,
    name: str = "",
    coregister: Choice = "off",
) -> ReducedScene:
    """The scene of these files, whole and as it is, and its `truth` on the PAN's pixel grid.

    Raises SceneError if the truth has other bands, or lies elsewhere.
    """
    with Scene.open(pan, *ms) as scene:
        names, order = chosen_bands(scene.band_names, bands, ms[0])
        canvas = _canvas(scene, coregister)
        pixels, *_ = _held(canvas)
        gt, known = _on_canvas(truth, canvas, names)
        return _usable(ReducedScene(
            name or str(pan), names, pixels.pan, pixels.ms[order], gt, pixels.valid & known, grid=canvas.whole_grid,
        ))  # fmt: skip


def from_truth(
    pan: str | Path,
    truth: str | Path,
    *,
    sensor: Sensor,
    ratio: int,
    bands: Sequence[str] | None = None,
    name: str = "",
    coregister: Choice = "off",
) -> ReducedScene:
    """A `pan` at reduced resolution and the `truth` on the same pixels, whole; the truth degraded by `ratio` is the MS.

    If they are to be co-registered the PAN is moved: the truth stays as it is. Raises SceneError if the two are not on
    one grid.
    """
    with closing(Raster(pan)) as sharp, closing(Raster(truth)) as exact:
        if len(sharp.indexes) != 1:
            raise SceneError(f"{pan} has {len(sharp.indexes)} bands; a PAN has one")
        if not exact.grid.matches(sharp.grid):
            raise SceneError(f"{truth} is not on the pixel grid of {pan}; give the truth of this PAN, or an MS too")
        names, order = chosen_bands(exact.names, bands, truth)
        everywhere = slice(0, sharp.grid.height), slice(0, sharp.grid.width)
        (image, valid), (gt, known) = sharp.read(*everywhere), exact.read(*everywhere)
        _check_size(gt, ratio, truth)
        make = partial(
            reduce, name or str(pan), ms=gt[order], valid=valid & known, ratio=ratio, sensor=sensor, band_names=names
        )
        reduced = make(pan=image)
        shift = _shift(coregister, lambda: ArrayCanvas.of(reduced.pan, reduced.ms, reduced.valid), str(pan))
        if shift:
            reduced = make(pan=_moved(image, valid, shift))
        rows, cols = (slice(0, size) for size in reduced.valid.shape)
        return _usable(replace(reduced, grid=sharp.grid.crop(rows, cols)))


def of_sample(
    sample: Sample, *, sensor: Sensor, bands: Sequence[str] | None = None, full: bool = False
) -> ReducedScene | FullScene:
    """A sample of a benchmark file: with its truth, without one degraded by Wald's protocol, or as it is with `full`.

    Raises SceneError if a band is missing, or for a ratio that the toolbox does not know.
    """
    if sample.ratio & (sample.ratio - 1):
        raise SceneError(f"{sample.name} has ratio {sample.ratio}; benchmark files have 2, 4 or 8")
    count = len(sample.ms)
    given = BENCHMARK_BANDS.get(count, tuple(f"band {i}" for i in range(1, count + 1)))
    names, order = chosen_bands(given, bands, sample.name)
    lms = None if sample.lms is None else sample.lms[order]
    valid = np.ones(sample.pan.shape[1:], bool)
    if full:
        return FullScene(sample.name, names, sample.pan, sample.ms[order], valid, "toolbox", lms)
    if sample.gt is not None:
        return ReducedScene(
            sample.name, names, sample.pan, sample.ms[order], sample.gt[order], valid, "toolbox", lms
        )  # fmt: skip
    _check_size(sample.ms, sample.ratio, sample.name)
    return reduce(
        sample.name, sample.pan, sample.ms[order], valid,
        ratio=sample.ratio, sensor=sensor, band_names=names, geometry="toolbox",
    )  # fmt: skip


def chosen_bands(
    given: Sequence[str], wanted: Sequence[str] | None, source: str | Path
) -> tuple[tuple[str, ...], list[int]]:
    """The names of the `wanted` bands, default all, as models know them, and where these are among the `given`.

    Raises SceneError for a name that no band has, or several.
    """
    names = [canonical_band(band) for band in given]
    if wanted is None:
        return tuple(names), list(range(len(names)))
    chosen = tuple(canonical_band(band) for band in wanted)
    missing = [band for band in chosen if band not in names]
    if missing:
        raise SceneError(f"{source} has no band {', '.join(missing)}; it has {', '.join(names)}")
    if alike := [band for band in chosen if names.count(band) > 1]:
        raise SceneError(
            f"{source}, with what is beside it, has several bands called {alike[0]}; give each a name of its own"
        )
    return chosen, [names.index(band) for band in chosen]


def _canvas(scene: Scene, coregister: Choice) -> SceneCanvas:
    return SceneCanvas.of(scene, shift=_shift(coregister, lambda: SceneCanvas.of(scene), scene.pan.path))


def _shift(coregister: Choice, canvas: Callable[[], Canvas], pan: str) -> Displacement:
    """How far the PAN lies off, as far as it is to be corrected; says so. On the `canvas` it is measured."""
    if coregister not in ("auto", "report"):
        return to_apply(coregister, NO_SHIFT)
    measured = measure(canvas())
    applied = to_apply(coregister, measured)
    if coregister == "report" or applied:
        log.info(
            "%s lies %s PAN pixels off its MS (confidence %.2f): %s",
            pan, measured.displacement, measured.confidence, "corrected" if applied else "left as it is",
        )  # fmt: skip
    return applied


def _moved(pan: npt.NDArray[np.float32], valid: npt.NDArray[np.bool_], shift: Displacement) -> npt.NDArray[np.float32]:
    """`pan` (1, H, W) where its MS is, of which it lies `shift` off."""
    rows, cols = (np.arange(size, dtype=np.float64) for size in valid.shape)
    if shift.field is None:
        return sample(pan, valid, rows - shift.dy, cols - shift.dx, "sinc").astype(np.float32)
    y, x = np.meshgrid(rows, cols, indexing="ij")
    there = y, x
    for _ in range(PLACES_ROUNDS):  # the field is told by places in the PAN, which are wanted
        dx, dy = shift.at(there[1] + 0.5, there[0] + 0.5)
        there = y - dy, x - dx
    return sample_at(pan, valid, *there, "sinc").astype(np.float32)


def _held(
    canvas: SceneCanvas, most: int | None = None, grain: int = 1
) -> tuple[Pixels, GeoGrid | None, Excerpts | None]:
    """The canvas and its grid, or excerpts of it, which it says."""
    pixels = held(canvas, most, grain)
    grid = canvas.whole_grid
    if pixels.valid.shape == (grid.height, grid.width):
        return pixels, grid, None
    excerpts = Excerpts(pixels.valid.size, grid.height * grid.width)
    log.info(
        "%.0f of the %.0f MPix of %s stand for all: excerpts, spread evenly",
        excerpts.pixels / 1e6, excerpts.of / 1e6, canvas.scene.pan.path,
    )  # fmt: skip
    return pixels, None, excerpts


def _on_canvas(
    path: str | Path, canvas: SceneCanvas, names: Sequence[str]
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """The bands of a truth on all PAN pixels of the canvas, and where it has data."""
    with closing(Raster(path)) as truth:
        pan = canvas.scene.pan.grid
        if not truth.georeferenced and (truth.grid.height, truth.grid.width) != (pan.height, pan.width):
            raise SceneError(f"{path} has not as many pixels as {canvas.scene.pan.path}; give the truth of this PAN")
        own = [canonical_band(band) for band in truth.names]
        if len(set(names)) == len(names) and all(own.count(name) == 1 for name in names):
            order = [own.index(band) for band in names]
        elif len(own) == len(names):
            order = list(range(len(names)))
        else:
            raise SceneError(f"{path} has {len(own)} bands ({', '.join(own)}); the truth has {', '.join(names)}")
        place = truth.grid.origin_in(pan, ON_GRID)
        rows = place and _meeting(canvas.rows, place[0], truth.grid.height)
        cols = place and _meeting(canvas.cols, place[1], truth.grid.width)
        if rows is None or cols is None:
            raise SceneError(
                f"{path} does not lie on the pixels of {canvas.scene.pan.path}; give the truth of this PAN"
            )
        gt = np.zeros((len(names), canvas.rows.size, canvas.cols.size), np.float32)
        known = np.zeros(gt.shape[1:], bool)
        image, known[rows[0], cols[0]] = truth.read(rows[1], cols[1])
        gt[:, rows[0], cols[0]] = image[order]
        return gt, known


def _meeting(canvas: NestedAxis, place: float, size: int) -> tuple[slice, slice] | None:
    """The pixels of the canvas, and those of a truth of this `size` that begins at this `place` of the PAN, where the
    two meet along an axis; None if they do not."""
    first = round(place) - canvas.first
    start, stop = max(first, 0), min(first + size, canvas.size)
    if abs(place - round(place)) > ON_GRID or start >= stop:
        return None
    return slice(start, stop), slice(start - first, stop - first)


def _check_size(ms: npt.NDArray[np.float32], ratio: int, source: str | Path) -> None:
    if min(ms.shape[1:]) < 2 * ratio:
        raise SceneError(f"{source} is too small to be degraded by {ratio}; give a larger scene")


def _usable(scene: ReducedScene) -> ReducedScene:
    if not scene.valid.any():
        raise SceneError(f"{scene.name} has no pixel left to be judged by, away from gaps; give a larger scene")
    return scene
