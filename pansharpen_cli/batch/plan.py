"""What a batch would do, known from the headers of its files, the models' descriptions and earlier summaries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Literal

import numpy as np

from pansharpen_cli.backends.backend import MOST_AT_ONCE
from pansharpen_cli.batch.check import check
from pansharpen_cli.batch.run import Batch
from pansharpen_cli.batch.scene import Outcome, scene_name
from pansharpen_cli.errors import PansharpenError
from pansharpen_cli.imaging.mtf import SENSORS
from pansharpen_cli.imaging.tiling import Reach
from pansharpen_cli.inputs import blocks
from pansharpen_cli.inputs.canvas import SceneCanvas
from pansharpen_cli.inputs.scene import Scene
from pansharpen_cli.job import Job
from pansharpen_cli.method import Method, choose
from pansharpen_cli.pipeline import tile_size
from pansharpen_cli.resume import finished

IN_FLIGHT = 5
"""Tiles that wait to be sharpened or written, besides the one that each thread is at."""


@dataclass(frozen=True)
class Plan:
    """Of a scene. `width` and `height` of the product before co-registration, which may trim some pixels; `tiles` of
    `tile` PAN pixels a side; `memory` for tiles and GDAL's cache, without what a network needs inside; `output`: most
    that the product takes, uncompressed with its overviews. Bytes. `seconds`: None if no earlier scene tells.
    """

    scene: str
    status: Literal["make", "kept", "unusable"]
    method: str = ""
    width: int = 0
    height: int = 0
    bands: int = 0
    tile: int = 0
    tiles: int = 0
    memory: int = 0
    output: int = 0
    seconds: float | None = None
    message: str = ""


def plan(batch: Batch) -> Iterator[Plan]:
    """Of every scene of the batch's shard, in order. Raises what `sharpen_all` raises if the batch cannot begin."""
    check(batch)
    speeds = _speeds(batch.before.values())
    for job in batch.shard.of(batch.jobs):
        name = scene_name(job, batch.folder)
        try:
            kept = batch.resume and finished(job)
            yield _kept(name, job) if kept else _made(name, job, speeds, batch.desks[0].threads)
        except PansharpenError as error:
            yield Plan(name, "unusable", message=str(error))


def _kept(name: str, job: Job) -> Plan:
    return Plan(name, "kept", message=f"{job.output.name} is finished")


def _made(name: str, job: Job, speeds: Mapping[str, float], threads: int) -> Plan:
    with Scene.open(job.pan, *job.ms, nodata=job.nodata, bands=job.bands, names=job.band_names) as scene:
        method = choose(job.model, scene)
        reach = _reach(method, scene, job)
        canvas = SceneCanvas.of(scene, ratio=method.ratio, phase=method.phase, reach=reach)
        itemsize = np.dtype(job.dtype or scene.dtype).itemsize
        bands = len(scene.band_names)
    height, width = canvas.grid.height, canvas.grid.width
    how = {"on_gpu": job.device.startswith("cuda"), "by_torch": job.backend != "onnx"}
    tile = job.tile or tile_size(method, reach, **how)
    speed = speeds.get(method.name)
    return Plan(
        name, "make", method.name, width, height, bands, tile,
        tiles=len(canvas.tiles(tile, reach)),
        memory=blocks.of_tiles(canvas, tile, reach.halo)
        + (IN_FLIGHT + min(threads, MOST_AT_ONCE))
        * _bytes_of_a_tile(min(tile, max(height, width)), reach.halo, bands, method.ratio),
        output=height * width * bands * itemsize * 4 // 3,
        seconds=height * width / 1e6 / speed if speed else None,
    )  # fmt: skip


def _reach(method: Method, scene: Scene, job: Job) -> Reach:
    if method.model is None:
        return method.backend(scene, SENSORS["generic"], "cpu")[0].reach  # all sensors alike
    spec = method.model.spec
    return Reach(spec.halo, spec.alignment, spec.multiple_of)


def _bytes_of_a_tile(size: int, halo: int, bands: int, ratio: int) -> int:
    """PAN, MS and mask with the halo, and the product, in float32 and as it is written."""
    read = (size + 2 * halo) ** 2
    return read * 5 + read * bands * 4 // ratio**2 + size**2 * bands * 8


def _speeds(outcomes: Iterable[Outcome]) -> dict[str, float]:
    """PAN megapixels a second of each method in scenes that were made here before."""
    found: dict[str, list[float]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.method and outcome.megapixels_per_second:
            found[outcome.method].append(outcome.megapixels_per_second)
    return {method: median(speeds) for method, speeds in found.items()}
