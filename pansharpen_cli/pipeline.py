"""Sharpen one scene, from its files to its product. Read `sharpen` from top to bottom: that is the whole program."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pansharpen_cli import __version__
from pansharpen_cli.backends.limited import within
from pansharpen_cli.backends.sharpener import Sharpener
from pansharpen_cli.errors import ModelError, OutputError, SceneError, UsageError
from pansharpen_cli.imaging.displacement import Displacement
from pansharpen_cli.imaging.mtf import MEASURED, Sensor, find_sensor
from pansharpen_cli.imaging.radiometry import Clipped, holds, quantise
from pansharpen_cli.imaging.registration import NO_SHIFT, Shift
from pansharpen_cli.imaging.tiling import Pixels, Reach, Tile
from pansharpen_cli.inputs import blocks
from pansharpen_cli.inputs.canvas import Canvas, SceneCanvas
from pansharpen_cli.inputs.coregistration import as_tags, measure, measured_sensor, to_apply
from pansharpen_cli.inputs.mosaic import files_of
from pansharpen_cli.inputs.part import fetch, put_out, seen, window
from pansharpen_cli.inputs.scene import Scene
from pansharpen_cli.job import Job, input_digests, job_digest
from pansharpen_cli.method import Means, Method, choose
from pansharpen_cli.outputs.journal import Claim, JournalingWriter
from pansharpen_cli.outputs.target import check_target
from pansharpen_cli.outputs.writer import ProductWriter
from pansharpen_cli.system import locations, memory
from pansharpen_cli.system.concurrency import Behind, Threads
from pansharpen_cli.system.files import named_from, same_file

log = logging.getLogger(__name__)

Float32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Compute = Callable[[Sharpener, SceneCanvas, Sequence[Tile]], Iterable[tuple[Pixels, Float32]]]
"""Who sharpens tiles: each is given back with its core, in any order."""

SMALL_TILE, LARGE_TILE, GPU_TILE = 512, 1024, 2048
"""PAN pixels a side of a tile: small ones keep a network in a CPU's cache, large ones waste less on a halo. Torch has a
GPU do hundreds of things for a tile, each of which takes its time to be asked for, however small the tile is."""
WIDE_HALO = 40
LEAST_SPREAD = 0.6
"""Standard deviation of a band of which rounding, by up to a half, makes something else."""


@dataclass(frozen=True)
class Product:
    """What was made: the file, by which method and why, on which device, with which shift, how fast."""

    path: Path
    height: int
    width: int
    bands: list[str]
    dtype: str
    method: str
    reason: str
    device: str
    shift: Shift | None
    applied: tuple[float, float]
    seconds: float
    job_sha256: str
    kept: bool = False
    """It was there before, finished."""

    @property
    def megapixels_per_second(self) -> float:
        """PAN pixels."""
        return self.height * self.width / 1e6 / self.seconds


def sharpen(
    job: Job,
    on_tile: Callable[[int, int], None] = lambda done, total: None,
    compute: Compute = Sharpener.all,
    claim: Claim | None = None,
) -> Product:
    """Sharpen a scene and return its product, which exists under its name only when it is complete and valid.

    `on_tile` is told how many tiles are done, of how many; `compute` is who sharpens them, once the scene has been
    observed; `claim`: the caller's, if others may be at the product. Raises PansharpenError in one sentence.
    """
    began = time.perf_counter()
    _check_output(job)
    with (
        Scene.open(job.pan, *job.ms, nodata=job.nodata, bands=job.bands, names=job.band_names) as scene,
        Threads(1, "digest") as beside,
        Threads(1, "load") as loading,
    ):
        _check_nodata(job, scene)
        digests = beside.submit(input_digests, job)
        method = choose(job.model, scene)
        digest_of_job = beside.submit(lambda: job_digest(job, method, scene, digests.result()))
        job_sha256 = partial(beside.result, digest_of_job)
        log.info("%s: %s", method.name, method.reason)
        loaded = loading.submit(method.load, job.device, job.backend)
        shift, applied, sensor = _look(job, method, scene)
        loading.result(loaded)
        backend, means = method.backend(scene, sensor, job.device, job.threads, job.backend)
        whole = SceneCanvas.of(
            scene, ratio=method.ratio, phase=method.phase, shift=applied, resampling=job.resampling, reach=backend.reach
        )
        canvas = put_out(whole, job.part, job.statistics, backend.reach)
        how = {"on_gpu": means.device != "cpu", "by_torch": means.backend == "torch"}
        tile = job.tile or tile_size(method, backend.reach, **how)
        cache = partial(blocks.of_tiles, canvas, tile, backend.reach.halo)
        with (
            blocks.keeping(cache(job.max_memory)),
            _writer(job, scene, canvas, _key(job, job_sha256, means, tile), claim) as writer,
        ):
            sharpener = Sharpener.observing(backend, method.radiometry, canvas.observed, method.order, tile)
            _warn_of_range(method, canvas)
            _check_steps(job, scene, canvas)
            tiles = canvas.tiles(tile, backend.reach)
            if job.max_memory:
                sharpener = within(job.max_memory, sharpener, canvas, tiles, cache)
            _sharpen_tiles(tiles, partial(compute, sharpener, canvas), canvas, writer, on_tile)
            tags = _tags(job, method, means, sensor, shift, applied, canvas, beside.result(digests))
            scene.check_unchanged()
            writer.finish(tags | {"JOB_SHA256": job_sha256()})
    if job.max_memory:
        memory.warn_beyond(job.max_memory)
    return Product(
        job.output, canvas.grid.height, canvas.grid.width, scene.band_names, _dtype(job, scene).name,
        method.name, method.reason, means.device, shift, (applied.dx, applied.dy), time.perf_counter() - began,
        job_sha256(),
    )  # fmt: skip


def _check_output(job: Job) -> None:
    """What can be known of the output before any work."""
    locations.check_output(job.output)
    locations.check_geotiff(job.output)
    for path in chain.from_iterable(map(files_of, (job.pan, *job.ms))):
        if same_file(job.output, path):
            raise OutputError(f"{job.output} is one of the inputs; give the output a name of its own")
    check_target(job.output, job.overwrite)


def _check_nodata(job: Job, scene: Scene) -> None:
    """Raises UsageError if no pixel of the product can have that value."""
    dtype = _dtype(job, scene)
    if isinstance(job.nodata, float | int) and not holds(dtype, job.nodata):
        info = np.iinfo(dtype)  # type: ignore[type-var]
        raise UsageError(f"--nodata {job.nodata:g} is no {dtype}; give a whole number from {info.min} to {info.max}")


def _look(job: Job, method: Method, scene: Scene) -> tuple[Shift | None, Displacement, Sensor]:
    """How PAN and MS lie on each other, if that is measured, what of it is corrected, and how sharp the MS is."""
    canvas = seen(SceneCanvas.of(scene, resampling=job.resampling), job.part, job.statistics)
    if job.part is not None:
        fetch(canvas)
    shift = None if job.coregister == "off" else measure(canvas)
    applied = to_apply(job.coregister, shift or NO_SHIFT)
    _tell(shift, applied)
    return shift, applied, _sensor(job, method, canvas, shift or NO_SHIFT)


def _sensor(job: Job, method: Method, canvas: Canvas, shift: Shift) -> Sensor:
    """The one that is asked for; measured, one by its gain. A model fitted to one scene keeps that of its fitting."""
    if job.sensor != MEASURED:
        return find_sensor(job.sensor)
    if method.model and method.model.spec.of_one_scene:
        return find_sensor(str(method.model.spec.training.get("sensor", "generic")))
    return measured_sensor(canvas, shift)


def _sharpen_tiles(
    tiles: Sequence[Tile],
    sharpened: Callable[[Sequence[Tile]], Iterable[tuple[Pixels, Float32]]],
    canvas: Canvas,
    writer: ProductWriter,
    on_tile: Callable[[int, int], None],
) -> None:
    """Read, sharpen and write tile by tile, the three overlapping. What the writer has already is left out."""

    def place(tile: Tile) -> tuple[slice, slice]:
        rows, cols = (
            slice(core.start - axis.start, core.stop - axis.start)
            for core, axis in zip(tile.core, (canvas.rows, canvas.cols), strict=True)
        )
        return rows, cols

    def write(pixels: Pixels, hrms: Float32) -> None:
        valid = pixels.valid[pixels.tile.inner]
        _demand_numbers(hrms, valid, canvas)
        clipped.look(hrms, valid)
        writer.write(*place(pixels.tile), quantise(hrms, writer.dtype, writer.nodata), valid)

    clipped, written = Clipped(writer.dtype), writer.written
    left = [tile for tile in tiles if tuple(span.start for span in place(tile)) not in written]
    with Behind() as behind:
        for done, (pixels, hrms) in enumerate(sharpened(left), start=1 + len(written)):
            behind(write, pixels, hrms)
            on_tile(done, len(tiles))
    if clipped.most:
        raise SceneError(
            f"most of what {canvas} give is not among what {writer.dtype} holds; give a --dtype that holds it"
        )
    if warning := clipped.warning():
        log.warning(warning)


def _demand_numbers(hrms: Float32, valid: Mask, canvas: Canvas) -> None:
    """Raises ModelError where a pixel that is `valid` became none: as an integer it would be any."""
    if not np.isfinite(hrms.sum()) and not np.isfinite(hrms[:, valid]).all():
        raise ModelError(
            f"pixels of {canvas} come out as no number (NaN or infinite): the model is damaged, or their values are "
            "beyond what it can compute; try another --model"
        )


def _key(job: Job, job_sha256: Callable[[], str], means: Means, tile: int) -> str | None:
    """What finished tiles must have in common to be of one product; None if none are kept."""
    if not job.resume:
        return None
    if not job_sha256():
        log.warning("%s is made anew: it has inputs elsewhere, and nothing tells whether they have changed", job.output)
        return None
    return f"{job_sha256()} {means.backend} {means.device} {tile}"


def _writer(job: Job, scene: Scene, canvas: SceneCanvas, key: str | None, claim: Claim | None) -> ProductWriter:
    """With a `key`, one that has what was written before by that key."""
    dtype = _dtype(job, scene)
    nodata = job.nodata if isinstance(job.nodata, float | int) else scene.nodata_as(dtype)
    masked = nodata is None and scene.may_have_gaps
    if masked and np.issubdtype(dtype, np.floating):
        nodata, masked = float("nan"), False
    make = partial(JournalingWriter, key, claim) if key else ProductWriter
    return make(
        job.output, canvas.grid, scene.band_names, dtype.name, nodata, mask=masked, format=job.format,
        creation_options=job.creation_options, overwrite=job.overwrite, threads=job.threads or os.cpu_count() or 1,
        scaling=scene.scaling,
    )  # fmt: skip


def _dtype(job: Job, scene: Scene) -> np.dtype[np.generic]:
    return np.dtype(job.dtype) if job.dtype else scene.dtype


def tile_size(method: Method, reach: Reach, *, on_gpu: bool, by_torch: bool) -> int:
    """PAN pixels a side of the tiles of a method, where the job does not say."""
    if on_gpu:
        return GPU_TILE if by_torch else LARGE_TILE
    return SMALL_TILE if method.model is not None and reach.halo <= WIDE_HALO else LARGE_TILE


def _tell(shift: Shift | None, applied: Displacement) -> None:
    if shift is None:
        return
    done = f"corrected by {applied}" if applied else "left as it is"
    if not shift.windows:
        log.info("no window shows how PAN and MS lie on each other (too little detail or data): %s", done)
        return
    log.info(
        "PAN lies %s PAN pixels off, right and down (confidence %.2f, spread %.2f, %d window%s): %s",
        shift.displacement, shift.confidence, shift.spread, shift.windows, "" if shift.windows == 1 else "s", done,
    )  # fmt: skip


def _warn_of_range(method: Method, canvas: Canvas) -> None:
    """A model with a fixed scale must see values of the size it was trained with."""
    radiometry = method.radiometry
    if radiometry is None or radiometry.kind != "fixed":
        return
    high = float(canvas.moments.high.max())
    if not 0.1 * radiometry.scale <= high <= 1.2 * radiometry.scale:
        log.warning("%s expects values up to %g, the scene's reach %g", method.name, radiometry.scale, high)


def _check_steps(job: Job, scene: Scene, canvas: Canvas) -> None:
    """Raises UsageError if whole numbers would hold next to nothing of what the MS shows."""
    if _dtype(job, scene).kind == "f" or scene.dtype.kind != "f":
        return
    spread = canvas.moments.std[:-1]
    if spread.any() and (spread < LEAST_SPREAD).all():
        raise UsageError(
            f"--dtype {job.dtype} holds whole numbers, and the values of {scene.ms[0].path} vary by {spread.max():.2g} "
            "only; give --dtype float32, or scale the inputs first"
        )


def _tags(
    job: Job, method: Method, means: Means, sensor: Sensor, shift: Shift | None, applied: Displacement,
    canvas: SceneCanvas, digests: list[str],
) -> dict[str, str]:  # fmt: skip
    """What made the product: enough to make it again, and for `qnr` and `report` to find its inputs.

    Local inputs are named as seen from its folder. FOLDER is that, if inputs were given by absolute paths: a product
    that is moved alone still leads to them.
    """
    folder, inputs = job.output.parent, (job.pan, *job.ms)
    pan, *ms = (named_from(folder, path) for path in inputs)
    tags = {
        "VERSION": __version__,
        "MODEL": method.name,
        "MODEL_SHA256": means.sha256,
        "BACKEND": means.backend,
        "DEVICE": means.device,
        "PRECISION": means.precision,
        "PAN": pan,
        "PAN_SHA256": digests[0],
        "MS": json.dumps(ms),
        "MS_SHA256": json.dumps(digests[1:]),
        "BANDS": json.dumps(job.bands),
        "RATIO": str(method.ratio),
        "PHASE": str(method.phase),
        "SENSOR": sensor.name,
        "COREGISTER": job.coregister if isinstance(job.coregister, str) else "given",
        "MS_INTERPOLATED": job.resampling if canvas.interpolated else "no",
    }
    tags |= as_tags(applied)
    given = job.given or inputs
    if any(os.path.isabs(path) and not os.path.isabs(name) for path, name in zip(given, (pan, *ms), strict=True)):
        tags["FOLDER"] = os.path.abspath(folder)
    if job.part is not None:
        tags |= {"WINDOW": window(canvas), "STATISTICS": job.statistics}
    if shift is not None:
        tags |= {
            "SHIFT": f"{shift.dx:.4f},{shift.dy:.4f}",
            "SHIFT_CONFIDENCE": f"{shift.confidence:.3f}",
            "SHIFT_SPREAD": f"{shift.spread:.3f}",
            "SHIFT_WINDOWS": str(shift.windows),
        }
    return tags
