"""What lies beside a local raster. GDAL opens masks and overviews there with any driver: one that is a VRT could name
URLs or any other file. So they must be TIFFs, and no metadata may say that overviews are elsewhere."""

from __future__ import annotations

import os
from functools import lru_cache

import rasterio

from pansharpen_cli.errors import SceneError

_MASKS, _OVERVIEWS = ".msk", ".ovr"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ELSEWHERE = "OVERVIEW_FILE"


def check(path: str | os.PathLike[str]) -> None:
    """Before it is opened. Raises SceneError."""
    for beside in (*_beside(path, _MASKS), *_beside(path, _OVERVIEWS)):
        with open(beside, "rb") as file:
            if not file.read(4).startswith(_TIFF):
                raise SceneError(f"{beside} is no TIFF, as masks and overviews are; move it away from {path}")
        check(beside)


def check_metadata(dataset: rasterio.DatasetReader, path: str | os.PathLike[str]) -> None:
    """Of the file and of its .aux.xml, once it is opened. Raises SceneError."""
    bands = (dataset.tags(index, ns="OVERVIEWS") for index in dataset.indexes)
    if any(_ELSEWHERE in tags for tags in (dataset.tags(ns="OVERVIEWS"), *bands)):
        raise SceneError(f"{path} says that its overviews are in another file; remove {_ELSEWHERE} from its metadata")


def mask_of(path: str | os.PathLike[str]) -> list[str]:
    """The file beside a raster that says which of its pixels hold data, if there is one."""
    return _beside(path, _MASKS)


def _beside(path: str | os.PathLike[str], suffix: str) -> list[str]:
    """The file that is called as the raster, with a suffix more, in whatever letters."""
    try:
        folder, name = os.path.split(os.path.abspath(path))
        names = _names(folder, os.stat(folder).st_mtime_ns)
    except OSError:  # it may not be listed, or be gone: GDAL does not find them then either
        return []
    found = (os.path.join(folder, other) for other in names.get(f"{name}{suffix}".lower(), ()))
    return [other for other in found if os.path.isfile(other)]


@lru_cache(maxsize=16)
def _names(folder: str, changed: int) -> dict[str, list[str]]:
    """Of all that is in a folder, by how they are written in small letters."""
    names: dict[str, list[str]] = {}
    for name in os.listdir(folder):
        names.setdefault(name.lower(), []).append(name)
    return names
