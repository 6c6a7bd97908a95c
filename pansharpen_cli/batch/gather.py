"""The jobs of a batch, from what a user names: a manifest or a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pansharpen_cli.batch.manifest import check_below, check_model, read_manifest
from pansharpen_cli.batch.pairing import Unpaired, pair
from pansharpen_cli.errors import SceneError, UsageError
from pansharpen_cli.job import Job
from pansharpen_cli.system.files import real


def gather(scenes: Path, folder: Path, common: Job, root: Path | None = None) -> tuple[list[Job], list[Unpaired]]:
    """The jobs, their products in `folder`, and the files that belong to none. A scene has what it does not say itself
    from `common`. All files must lie below `root`, if there is one. Raises SceneError if there is no scene, or one
    elsewhere, ModelError if the model of `common` is none, UsageError if products would lie among the files."""
    check_model(common.model)
    if not scenes.is_dir():
        return read_manifest(scenes, folder, common, root), []
    if Path(real(scenes)).is_relative_to(real(folder)):
        raise UsageError(f"-o {folder} is the folder that is searched, or holds it; give the products one of their own")
    pairs, unpaired = pair(scenes, leave_out=folder)
    if not pairs:
        reasons = "".join(f"; {lone.path.name}: {lone.reason}" for lone in unpaired[:3])
        raise SceneError(f"{scenes} has no PAN with an MS; name the scenes in a manifest{reasons}")
    jobs = [
        replace(
            common, pan=pair.pan, ms=pair.ms, output=folder / f"{pair.name}.tif",
            band_names=common.band_names or pair.band_names,
        )
        for pair in pairs
    ]  # fmt: skip
    if root is not None:
        for found, job in zip(pairs, jobs, strict=True):
            check_below(root, job, f"{scenes}, scene {found.name},")
    return jobs, unpaired
