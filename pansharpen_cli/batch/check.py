"""What can be known to go wrong with a batch before it begins. Nothing is written."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pansharpen_cli.batch.scene import scene_name
from pansharpen_cli.errors import OutputError, SceneError, UsageError
from pansharpen_cli.inputs.mosaic import files_of
from pansharpen_cli.outputs.writer import check_options
from pansharpen_cli.system import locations
from pansharpen_cli.system.files import check_folder, real, same_file
from pansharpen_cli.upload import is_there

if TYPE_CHECKING:
    from pansharpen_cli.batch.run import Batch


def check(batch: Batch) -> None:
    """Raises SceneError, UsageError or OutputError if the batch cannot begin. Names are looked at of all its shards."""
    _check_places(batch)
    _check_inputs(batch)
    if batch.in_store and not batch.summaries:
        raise UsageError("products go to a store, and what is told of them does not; give --summary-folder")
    if batch.manifest and same_file(batch.summary, batch.manifest):
        raise UsageError(
            f"the summary would take the place of {batch.manifest}; give it another name, or a --summary-folder"
        )
    _check_options(batch)
    _check_absent(batch)
    for folder in batch.folders:
        locations.check_output(folder)
        check_folder(folder)


def _check_places(batch: Batch) -> None:
    """Each product must be a file of its own, and none a folder of another."""
    for name, times in Counter(scene_name(job, batch.folder) for job in batch.jobs).items():
        if times > 1:
            product = locations.told(batch.folder / f"{name}.tif")
            raise SceneError(f"{times} scenes are to become {product}; give each its own out")
    if not batch.in_store:
        _check_links(batch)
    files = {batch.summary, *(job.output for job in batch.jobs)}
    for job in batch.jobs:
        if above := files.intersection(job.output.parents):
            product, folder = locations.told(job.output), locations.told(above.pop())
            raise SceneError(f"{product} would lie in {folder}, which is to be a file; give it another out")


def _check_links(batch: Batch) -> None:
    """A folder may have a second name, by which a product would replace another one."""
    folders = {folder: real(folder) for folder in {job.output.parent for job in batch.jobs}}
    for place, times in Counter(Path(folders[job.output.parent], job.output.name) for job in batch.jobs).items():
        if times > 1:
            raise SceneError(f"{times} scenes are to become {place}; give each its own out")


def _check_inputs(batch: Batch) -> None:
    """No product may take the place of what a scene is made from, or of the manifest."""
    products = {locations.output_url(job.output) or real(job.output): job.output for job in batch.jobs}
    if batch.manifest and (product := products.get(real(batch.manifest))):
        raise SceneError(f"{product} would take the place of the manifest {batch.manifest}; give it another out")
    may_be_parts = any(map(os.path.lexists, products))  # else ten thousand files need not be opened
    for job in batch.jobs:
        for path in (job.pan, *job.ms):
            for file in _files(path) if may_be_parts else [path]:
                if product := products.get(str(file) if locations.is_remote(file) else real(file)):
                    raise SceneError(
                        f"{locations.told(product)} would take the place of an input of "
                        f"{scene_name(job, batch.folder)}; give it another out, or the products another folder"
                    )


def _check_options(batch: Batch) -> None:
    """Creation options, in whatever combination scenes have them, must be such that a product can be written."""
    asked = {(job.format, tuple(job.creation_options.items()), job.dtype) for job in batch.jobs if job.creation_options}
    for format, options, dtype in asked:
        check_options(format, dict(options), dtype)


def _files(path: str | Path) -> Sequence[str | Path]:
    try:
        return files_of(path)
    except SceneError:  # which its scene will tell
        return [path]


def _check_absent(batch: Batch) -> None:
    """Raises OutputError if products are there that may not be replaced. In a store, who sends one looks: to ask for
    ten thousand takes minutes."""
    jobs = batch.shard.of(batch.jobs)
    if batch.in_store:
        if jobs:
            is_there(locations.told(jobs[0].output))  # and the store, and the keys to it
        return
    there = [job.output for job in jobs if os.path.lexists(job.output) and not job.overwrite]
    if there and not batch.resume:
        more = f" and {len(there) - 1} more of its products" if len(there) > 1 else ""
        raise OutputError(f"{there[0]}{more} exist; --resume the batch, --overwrite them, or give another folder")
