"""Go on with work that was cut short: with a scene from its finished tiles, and not at all with a finished scene.
Finished is not what exists, but what reads whole and says that it was made of the same inputs, by the same model and
with the same parameters."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from time import perf_counter

from pansharpen_cli.backends.sharpener import Sharpener
from pansharpen_cli.errors import OutputError, SceneError
from pansharpen_cli.imaging.registration import Shift
from pansharpen_cli.inputs.coregistration import from_tags
from pansharpen_cli.inputs.raster import Raster
from pansharpen_cli.inputs.scene import Scene
from pansharpen_cli.job import Job, input_digests, job_digest
from pansharpen_cli.method import choose
from pansharpen_cli.outputs.journal import Claim, journal_of, tidy, tiles_size
from pansharpen_cli.outputs.layout import TAGS
from pansharpen_cli.outputs.readback import overviews_are_whole
from pansharpen_cli.pipeline import Compute, Product, sharpen
from pansharpen_cli.system import locations
from pansharpen_cli.system.locks import BusyError
from pansharpen_cli.upload import is_there

ROWS = 512
"""Of a product that are read at once."""


def resume(
    job: Job,
    on_tile: Callable[[int, int], None] = lambda done, total: None,
    compute: Compute = Sharpener.all,
) -> Product:
    """The product of `job`: as it is if it is finished, else made, in the place of an older product of this program.

    Raises PansharpenError as `pipeline.sharpen` does, also if another file is in the way and may not be overwritten;
    BusyError if another run is at it.
    """
    before = _tags(job)
    if made := kept(job):
        return made
    with _naming_the_journal(job), Claim(job.output) as claim:
        # another run may have finished it just before it was claimed
        if _tags(job) != before and (made := finished(job)):
            return made
        return sharpen(replace(replacing_its_own(job), resume=True), on_tile, compute, claim)


@contextmanager
def _naming_the_journal(job: Job) -> Iterator[None]:
    """Who is told that there is no room is told too what takes it."""
    try:
        yield
    except BusyError:
        raise
    except OutputError as error:
        if size := tiles_size(job.output):
            where = f"finished tiles take {size / 1e6:,.1f} MB in {journal_of(job.output)}, which may be deleted"
            error.args = (f"{error}; {where}",)
        raise


def kept(job: Job) -> Product | None:
    """The product of this very job on this machine, if it is finished; what was left beside it by who made it is
    removed. Raises PansharpenError as `resume`."""
    if made := finished(job):
        tidy(job.output)
    return made


def replacing_its_own(job: Job) -> Job:
    """`job`, which may take the place of an older product of this program, and whose own is known again."""
    return replace(job, overwrite=job.overwrite or bool(_tags(job)), remembered=True)


def finished(job: Job) -> Product | None:
    """The product of this very job, if it is there and complete; an object in a store is there when all of it is.
    Raises PansharpenError as `resume`."""
    began = perf_counter()
    tags = _tags(job)
    if not tags:
        return None
    with Scene.open(job.pan, *job.ms, nodata=job.nodata, bands=job.bands, names=job.band_names) as scene:
        method = choose(job.model, scene)
        job_sha256 = job_digest(replace(job, remembered=True), method, scene, input_digests(job))
        if not job_sha256 or tags.get("JOB_SHA256") != job_sha256:
            return None
        bands = scene.band_names
    url = locations.output_url(job.output)
    with closing(Raster(url or job.output)) as product:
        is_cog = product.tags("IMAGE_STRUCTURE").get("LAYOUT") == "COG"
        if is_cog != (job.format == "cog") or not (url or _reads_whole(product, job.output)):
            return None
        try:
            applied, shift = from_tags(tags), _shift(tags)
        except (ValueError, TypeError, KeyError):  # it is not as it was made
            return None
        return Product(
            job.output, product.grid.height, product.grid.width, bands, product.dtype.name,
            method.name, method.reason, tags["DEVICE"], shift, (applied.dx, applied.dy), perf_counter() - began,
            job_sha256, kept=True,
        )  # fmt: skip


def is_seen(job: Job, job_sha256: str) -> bool:
    """Whether the product of this digest, which another machine has made, is to be seen by this one. What was sent to a
    store was looked for there."""
    if locations.output_url(job.output):
        return True
    with suppress(OSError), os.scandir(job.output.parent):  # NFS then asks anew what is in the folder
        pass
    tags = _tags(job)
    return bool(tags) and tags.get("JOB_SHA256", "") == job_sha256


def _tags(job: Job) -> dict[str, str]:
    """Of a product of this program under the job's output; none for any other file."""
    url = locations.output_url(job.output)
    if not (is_there(url) if url else job.output.is_file()):
        return {}
    try:
        with closing(Raster(url or job.output)) as product:
            tags = product.tags(TAGS)
    except SceneError:
        return {}
    return tags if "VERSION" in tags else {}


def _reads_whole(product: Raster, path: Path) -> bool:
    """With its overviews, which are behind the pixels: a copy that broke off may lack nothing else."""
    height, cols = product.grid.height, slice(0, product.grid.width)
    try:
        for row in range(0, height, ROWS):
            product.read(slice(row, min(row + ROWS, height)), cols)
    except SceneError:
        return False
    return overviews_are_whole(path)


def _shift(tags: dict[str, str]) -> Shift | None:
    if "SHIFT" not in tags:
        return None
    dx, dy = map(float, tags["SHIFT"].split(","))
    told = float(tags["SHIFT_CONFIDENCE"]), float(tags["SHIFT_SPREAD"]), int(tags["SHIFT_WINDOWS"])
    return Shift(dx, dy, *told, from_tags(tags).field)
