"""What a command may write under the names it was given; asked before any work."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from pansharpen_cli.errors import UsageError
from pansharpen_cli.system import locations


def png(path: Path, option: str) -> None:
    """Raises UsageError if `path`, given by `option`, is that of another image format."""
    suffix = path.suffix.lower()
    if suffix != ".png" and suffix in (*locations.GEOTIFF, *locations.OTHER_IMAGES):
        raise UsageError(f"{option} {path} is written as PNG; name it .png")


def maps(folder: Path, names: Iterable[str], overwrite: bool) -> None:
    """Raises UsageError if `folder` is a file, OutputError if it holds one of `names` that may not be replaced."""
    from pansharpen_cli.outputs.target import check_target

    if os.path.isdir(folder):
        for name in names:
            check_target(folder / name, overwrite)
    elif os.path.lexists(folder):
        raise UsageError(f"--maps {folder} is a file; give a folder")
