"""What lies beside a local raster. GDAL opens masks and overviews there with any driver: one that is a VRT could name
URLs or any other file. So they must be TIFFs, and no metadata may say that overviews are elsewhere. Texts, such as
those with RPCs, must be files: a FIFO would be waited for, and a device has no end."""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator
from functools import lru_cache
from itertools import islice, takewhile

import rasterio

from pansharpen_cli.errors import SceneError

_MASKS, _OVERVIEWS = ".msk", ".ovr"
_RPCS = "_rpc.txt", ".rpb"
_MAKERS = "rpc_", "dim_"
"""What Airbus's begin with."""
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_ELSEWHERE = "OVERVIEW_FILE"


def check(path: str | os.PathLike[str]) -> None:
    """Before it is opened. Raises SceneError."""
    for beside in (*_beside(path, _MASKS), *_beside(path, _OVERVIEWS)):
        check_access(beside)
        with open(beside, "rb") as file:
            if not file.read(4).startswith(_TIFF):
                raise SceneError(f"{beside} is no TIFF, as masks and overviews are; move it away from {path}")
        check(beside)
    for other in _of_its_name(path):
        if not (os.path.isfile(other) or os.path.isdir(other)):
            raise SceneError(f"{other} is no file; move it away from {path}, beside which it would be read")


def check_access(path: str | os.PathLike[str]) -> None:
    """Raises SceneError for a file that this user may not read, which GDAL takes for one of another format."""
    if not os.access(path, os.R_OK, effective_ids=os.access in os.supports_effective_ids):
        raise SceneError(f"{path} may not be read by you; have its owner let you, as chmod does")


def check_metadata(dataset: rasterio.DatasetReader, path: str | os.PathLike[str]) -> None:
    """Of the file and of its .aux.xml, once it is opened. Raises SceneError."""
    bands = (dataset.tags(index, ns="OVERVIEWS") for index in dataset.indexes)
    if any(_ELSEWHERE in tags for tags in (dataset.tags(ns="OVERVIEWS"), *bands)):
        raise SceneError(f"{path} says that its overviews are in another file; remove {_ELSEWHERE} from its metadata")


def files_beside(path: str | os.PathLike[str]) -> list[str]:
    """The files beside a raster that say which of its pixels hold data and where they lie, if there are any."""
    stem = os.path.splitext(path)[0]
    return [*_beside(path, _MASKS), *(file for rpc in _RPCS for file in _beside(stem, rpc))]


def _of_its_name(path: str | os.PathLike[str]) -> list[str]:
    """All others in its folder whose names begin with its own, or as those of a maker's texts do."""
    folder, names = _around(path)
    own = os.path.basename(path)
    begin = os.path.splitext(own)[0].lower(), *_MAKERS
    found = (other for start in begin for low in _beginning(names, start) for other in names[low])
    return [os.path.join(folder, other) for other in found if other != own]


def _beginning(names: dict[str, list[str]], start: str) -> Iterator[str]:
    """Of sorted names those that begin so, without a look at all others: there may be ten thousand."""
    ordered = list(names)
    return takewhile(lambda name: name.startswith(start), islice(ordered, bisect_left(ordered, start), None))


def _around(path: str | os.PathLike[str]) -> tuple[str, dict[str, list[str]]]:
    """The folder of a raster, and all that is in it, by how it is written in small letters."""
    try:
        folder = os.path.dirname(os.path.abspath(path))
        return folder, _names(folder, os.stat(folder).st_mtime_ns)
    except (OSError, ValueError):  # it may not be listed, be gone or have no such name: GDAL finds nothing then either
        return "", {}


def _beside(path: str | os.PathLike[str], suffix: str) -> list[str]:
    """The file that is called as the raster, with a suffix more, in whatever letters."""
    folder, names = _around(path)
    name = os.path.basename(path)
    found = (os.path.join(folder, other) for other in names.get(f"{name}{suffix}".lower(), ()))
    return [other for other in found if os.path.isfile(other)]


@lru_cache(maxsize=16)
def _names(folder: str, changed: int) -> dict[str, list[str]]:
    """Of all that is in a folder, by how they are written in small letters, sorted."""
    names: dict[str, list[str]] = {}
    for name in sorted(os.listdir(folder), key=str.lower):
        names.setdefault(name.lower(), []).append(name)
    return names
