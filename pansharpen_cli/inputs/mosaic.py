"""Mosaics: a VRT that puts local GeoTIFF or JPEG 2000 files side by side, or their bands one over the other.

A VRT may do far more: name URLs, read any file, run code. So GDAL is never given one. What is understood here, and
nothing else, is written anew from the parsed document, with files that were looked at first.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import isfinite, nan
from typing import NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import rasterio
from rasterio.errors import RasterioIOError

from pansharpen_cli.errors import SceneError
from pansharpen_cli.inputs import sidecars
from pansharpen_cli.system.locations import gdal_name

DRIVERS = ["GTiff", "JP2OpenJPEG"]
"""Formats of the files. Both begin with bytes that no VRT has."""

LARGEST = 64 * 2**20
"""Bytes of a VRT: that of ten thousand files has a tenth of it."""

OFF_GRID = 0.05
"""Pixels by which a file may lie off the mosaic's grid; GDAL puts it on the nearest pixel."""

_SIDES = ("xOff", "yOff", "xSize", "ySize")
_SOURCE = {"SourceFilename", "SourceBand", "SrcRect", "DstRect"}
_KEPT: dict[str, set[str]] = {
    "VRTDataset": {"SRS", "GeoTransform", "VRTRasterBand", "MaskBand"},
    "MaskBand": {"VRTRasterBand"},
    "VRTRasterBand": {
        "Description", "NoDataValue", "HideNoDataValue", "ColorInterp", "Offset", "Scale", "SimpleSource",
        "ComplexSource",
    },
    "SimpleSource": _SOURCE,
    "ComplexSource": _SOURCE | {"NODATA", "UseMaskBand"},
}  # fmt: skip
"""What may stand in an element and counts; elements that are not here hold text alone."""
_SILENT = {
    "Metadata", "OverviewList", "Overview", "UnitType", "CategoryNames", "ColorTable", "Histograms", "SourceProperties",
    "BlockXSize", "BlockYSize",
}  # fmt: skip
"""What may stand anywhere and does not change a pixel: it is left out."""
_ATTRIBUTES = {
    "VRTDataset": {"rasterXSize", "rasterYSize"},
    "SRS": {"dataAxisToSRSAxisMapping", "coordinateEpoch"},
    "VRTRasterBand": {"dataType", "band"},
    "SrcRect": set(_SIDES),
    "DstRect": set(_SIDES),
}


class Blocks(NamedTuple):
    """How a file is stored."""

    height: int
    width: int
    interleaved: bool
    """A block holds all bands."""
    strips: bool
    """A block is as wide as the image."""
    bands: int

    @classmethod
    def of(cls, dataset: rasterio.DatasetReader) -> Blocks:
        height, width = dataset.block_shapes[0]
        interleaved = str(dataset.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE")) == "PIXEL"
        return cls(int(height), int(width), interleaved, width >= dataset.width, dataset.count)


class Mosaic(NamedTuple):
    """A VRT as GDAL may read it: its document, the files that it names, and how they are stored."""

    document: str
    files: tuple[str, ...]
    blocks: tuple[Blocks, ...]


def is_vrt(path: str | os.PathLike[str]) -> bool:
    """True for a local file that GDAL would take for a VRT."""
    if not os.path.isfile(path):  # which any name can be asked for
        return False
    try:
        with open(path, "rb") as file:
            return b"<VRTDataset" in file.read(1024).partition(b"\0")[0]
    except OSError:
        return False


def read(path: str | os.PathLike[str]) -> Mosaic:
    """Raises SceneError for whatever is no plain mosaic of local files."""
    root, sources = _understood(path)
    stored: dict[str, Blocks] = {}
    for source, file in sources:
        if file not in stored:
            stored[file] = _stored(file, path)
        _check_band(source, stored[file].bands, file, path)
    return Mosaic(ElementTree.tostring(root, "unicode"), tuple(stored), tuple(stored.values()))


def files_of(path: str | os.PathLike[str]) -> list[str]:
    """The files that hold what a raster is: itself, those of a mosaic, and masks and RPCs beside them. Raises
    SceneError."""
    named = [file for _, file in _understood(path)[1]] if is_vrt(path) else []
    files = dict.fromkeys([os.fspath(path), *named])
    return [each for file in files for each in (file, *sidecars.files_beside(file))]


def _understood(path: str | os.PathLike[str]) -> tuple[Element, list[tuple[Element, str]]]:
    """What counts of the document, and its sources with the files that they name, in full. Neither may be changed: they
    are kept, as one of thousands of files takes seconds to read and is asked for several times in a run."""
    try:
        state = os.stat(path)
    except OSError as error:
        raise SceneError(f"{path} is no VRT that can be read: {error.strerror}") from error
    return _understood_once(os.path.abspath(path), os.fspath(path), state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=16)
def _understood_once(whole: str, path: str, changed: int, size: int) -> tuple[Element, list[tuple[Element, str]]]:
    """Of a file in this state; `path` is what it is called."""
    root = _parsed(path)
    folder = os.path.dirname(os.path.realpath(path))
    found = []
    for source in _sources(root, path):
        name = source.find("SourceFilename")
        if name is None:
            raise SceneError(f"{path} has a source without a file")
        file = name.text = _file(name, folder, path)
        name.attrib.clear()
        found.append((source, file))
    return root, found


def _parsed(path: str | os.PathLike[str]) -> Element:
    """Of the document what counts, and nothing else."""
    try:
        if os.path.getsize(path) > LARGEST:
            raise SceneError(f"{path} has more than {LARGEST >> 20} MiB, which no mosaic needs")
        with open(path, "rb") as file:
            document = ElementTree.fromstring(file.read())
    except (OSError, ElementTree.ParseError, ValueError, LookupError) as error:
        raise SceneError(f"{path} is no VRT that can be read: {error}") from error
    if document.tag != "VRTDataset":
        raise SceneError(f"{path} is no VRT")
    return _copied(document, path)


def _copied(element: Element, path: str | os.PathLike[str]) -> Element:
    """With what lies in it, as far as it may; what it only says of itself is left out."""
    if "subClass" in element.attrib:
        raise _no_mosaic(path, f"a {element.attrib['subClass']}")
    allowed = _ATTRIBUTES.get(element.tag, set())
    copy = Element(element.tag, {name: value for name, value in element.attrib.items() if name in allowed})
    copy.text = (element.text or "").strip()
    if element.tag == "SourceFilename":
        copy.text = element.text
        copy.set("relativeToVRT", element.get("relativeToVRT", "0"))
    for child in element:
        if child.tag in _KEPT.get(element.tag, set()):
            copy.append(_copied(child, path))
        elif child.tag == "Metadata" and child.get("domain") == "RPC":  # by which the raster may be placed
            rpc = ElementTree.SubElement(copy, "Metadata", domain="RPC")
            for item in child.iter("MDI"):
                ElementTree.SubElement(rpc, "MDI", key=item.get("key", "")).text = item.text
        elif child.tag not in _SILENT:
            raise _no_mosaic(path, child.tag)
    # what is neither may name a file or a URL
    if element.tag == "SRS" and not re.match(r"[A-Z_0-9]+\[|EPSG:\d+$", copy.text or ""):
        raise SceneError(f"{path} has a CRS that is neither WKT nor an EPSG code")
    return copy


def _no_mosaic(path: str | os.PathLike[str], what: str) -> SceneError:
    return SceneError(
        f"{path} holds {what}; of VRTs only mosaics of local files are read: make a file of it, as gdal_translate does"
    )


def _sources(root: Element, path: str | os.PathLike[str]) -> Iterator[Element]:
    """All of them; each must lie on the mosaic's pixels as they are."""
    for source in (*root.iter("SimpleSource"), *root.iter("ComplexSource")):
        rectangles = source.find("SrcRect"), source.find("DstRect")
        if rectangles != (None, None):  # else it is the whole file, as it is
            taken, put = (_rectangle(rectangle, path) for rectangle in rectangles)
            steps = [a - b for a, b in zip(taken, put, strict=True)]
            off = [abs(step - round(step)) for step in steps[:2]] + [abs(step) for step in steps[2:]]
            if not max(off) <= OFF_GRID:
                raise SceneError(f"{path} resamples one of its files; warp them to one grid first, as gdalwarp does")
            # of rectangles that are not whole GDAL's threads would write the same pixels
            whole = [round(value) for value in put]
            _set(rectangles[0], [a + round(step) for a, step in zip(whole, [*steps[:2], 0, 0], strict=True)])
            _set(rectangles[1], whole)
        yield source


def _set(element: Element | None, values: Sequence[int]) -> None:
    if element is not None:
        element.attrib |= {name: str(value) for name, value in zip(_SIDES, values, strict=True)}


def _rectangle(element: Element | None, path: str | os.PathLike[str]) -> list[float]:
    """First column and row, width and height."""
    try:
        found = [float(element.attrib[name]) for name in _SIDES]  # type: ignore[union-attr]
    except (AttributeError, KeyError, ValueError):
        found = [nan]
    if not all(map(isfinite, found)):
        raise SceneError(f"{path} has a source of which it does not say what part lies where")
    return found


def _file(name: Element, folder: str, path: str | os.PathLike[str]) -> str:
    """What a source names, in full."""
    text = name.text or ""
    file = os.path.abspath(os.path.join(folder, text) if name.get("relativeToVRT") == "1" else text)
    if file.startswith("/vsi") or not os.path.isfile(file):
        raise SceneError(f"{path} is made of {text}, which is no local file")
    return file


def _check_band(source: Element, bands: int, file: str, path: str | os.PathLike[str]) -> None:
    """Raises SceneError unless the file has the band, or the band whose mask is taken."""
    text = source.findtext("SourceBand", "1").strip()
    number = text.removeprefix("mask,")
    if text != "mask" and not (re.fullmatch(r"\d{1,5}", number) and 1 <= int(number) <= bands):
        raise SceneError(f"{path} takes band {text[:20]!r} of {file}, which has {bands}")


def _stored(file: str, path: str | os.PathLike[str]) -> Blocks:
    sidecars.check(file)
    for driver in DRIVERS:
        try:
            with rasterio.open(gdal_name(file), driver=driver) as dataset:
                sidecars.check_metadata(dataset, file)
                return Blocks.of(dataset)
        except RasterioIOError:
            continue
    raise SceneError(f"{path} is made of {file}, which is not a readable GeoTIFF or JPEG 2000 file")
