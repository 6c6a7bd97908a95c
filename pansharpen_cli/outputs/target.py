"""The place of a file to be: whether it may appear there, whether there is room, and how it gets its name."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
from pathlib import Path

from pansharpen_cli.errors import OutputError
from pansharpen_cli.outputs.layout import Layout

log = logging.getLogger(__name__)


LONGEST = 255 - len(".." + "4194304" + "." + 8 * "x" + ".partial")
"""Bytes of a file's name, so that its temporaries, see `partial_beside`, have names that file systems take."""


def partial_beside(path: Path) -> Path:
    """A new name for a temporary file in the folder of `path`: hidden, and on the same disk."""
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")


def publish(partial: Path, path: Path) -> None:
    """Give a complete file its name, for good and at once. What other tools kept beside an older file goes: GDAL would
    take its overviews, mask and statistics for the new file's. Where there was none, whose that was is not known: it is
    told."""
    sync(partial)
    beside = [path.with_name(path.name + suffix) for suffix in (".aux.xml", ".ovr", ".msk")]
    stray = [other for other in beside if os.path.lexists(other)]
    if stray and not os.path.lexists(path):
        log.warning("%s would be read as part of %s, and is removed", ", ".join(map(str, stray)), path)
    for other in stray:
        other.unlink(missing_ok=True)
    os.replace(partial, path)
    sync(path.parent)


def sync(path: Path) -> None:
    """Have a file or folder on the disk, not on its way there."""
    if path.is_dir() and os.name == "nt":
        return  # Windows does not open folders
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_target(path: Path, overwrite: bool) -> None:
    """Raises OutputError unless a file may appear at `path`."""
    if os.path.isdir(path):  # which any name can be asked for
        raise OutputError(f"{path} is a folder; give the name of a file")
    if (length := len(os.fsencode(path.name))) > LONGEST:
        raise OutputError(f"{path} has a name of {length} bytes; give one of {LONGEST} at most")
    if os.path.lexists(path) and not overwrite:
        raise OutputError(f"{path} exists; choose another name or --overwrite it")
    if not os.path.isdir(path.parent):
        raise OutputError(f"{path} cannot be created, as {path.parent} is no folder; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{path} cannot be created, as you may not write to {path.parent}; choose another folder")


def check_room(path: Path, layout: Layout) -> None:
    """What the pixels and their overviews (a third) take if they do not compress; a COG is a second copy."""
    needed = layout.nbytes * 4 // 3 * (2 if layout.format == "cog" else 1)
    free = _free(path)
    if free < needed:
        raise OutputError(
            f"{path} may need {_megabytes(needed)} but {path.parent} has {_megabytes(free)} free; "
            "make room or choose another folder"
        )


def check_still_room(path: Path, nbytes: int) -> None:
    """GDAL would go on for hours on a full disk."""
    free = _free(path)
    if free < nbytes:
        raise OutputError(f"{path} cannot be completed: its disk has only {_megabytes(free)} left; make room and retry")


def _free(path: Path) -> int:
    """Bytes on the disk of a file to be."""
    try:
        return shutil.disk_usage(path.parent).free
    except OSError as error:
        raise OutputError(f"{path} cannot be written, as {path.parent} is not there: {error.strerror}") from error


def _megabytes(nbytes: int) -> str:
    return f"{nbytes / 1e6:,.1f} MB"
