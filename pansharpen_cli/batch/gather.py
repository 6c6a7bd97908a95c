"""The jobs of a batch, from what a user names: a manifest or a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from pansharpen_cli.batch.manifest import check_model, read_manifest
from pansharpen_cli.batch.pairing import Unpaired, pair
from pansharpen_cli.errors import SceneError
from pansharpen_cli.pipeline import Job


def gather(scenes: Path, folder: Path, common: Job, root: Path | None = None) -> tuple[list[Job], list[Unpaired]]:
    """The jobs, their products in `folder`, and the files that belong to none. A scene has what it does not say itself
    from `common`. A manifest may name what lies below `root` only. Raises SceneError if there is no scene,
    ModelError if the model of `common` is none."""
    check_model(common.model)
    if not scenes.is_dir():
        return read_manifest(scenes, folder, common, root), []
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
    return jobs, unpaired
