"""What a command may write under the names it was given; asked before any work."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path, PurePath

from pansharpen_cli.errors import UsageError

GEOTIFF = (".tif", ".tiff")
OTHER_IMAGES = (
    ".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".svg", ".pdf", ".jp2", ".j2k", ".vrt", ".img", ".ntf", ".nitf",
    ".hdf", ".h5", ".nc", ".ecw", ".sid",
)  # fmt: skip
"""Extensions that promise another format; one that is not known, or none, promises nothing."""


def geotiff(name: str | Path) -> None:
    """Raises UsageError if the product's name, a path or a URL, is that of another image format."""
    if PurePath(name).suffix.lower() in OTHER_IMAGES:
        raise UsageError(f"{name} is written as GeoTIFF; name it .tif")


def png(path: Path, option: str) -> None:
    """Raises UsageError if `path`, given by `option`, is that of another image format."""
    suffix = path.suffix.lower()
    if suffix != ".png" and suffix in (*GEOTIFF, *OTHER_IMAGES):
        raise UsageError(f"{option} {path} is written as PNG; name it .png")


def maps(folder: Path, names: Iterable[str], overwrite: bool) -> None:
    """Raises UsageError if `folder` is a file, OutputError if it holds one of `names` that may not be replaced."""
    from pansharpen_cli.outputs.writer import check_target

    if os.path.isdir(folder):
        for name in names:
            check_target(folder / name, overwrite)
    elif os.path.lexists(folder):
        raise UsageError(f"--maps {folder} is a file; give a folder")
