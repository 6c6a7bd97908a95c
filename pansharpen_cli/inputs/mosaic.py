"""Mosaics: a VRT that puts local GeoTIFF or JPEG 2000 files side by side, or their bands one over the other.

A VRT may do far more: name URLs, read any file, run code. So GDAL is never given one. What is understood here, and
nothing else, is written anew from the parsed document, with files that were looked at first.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from math import isfinite, nan
from typing import NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import rasterio
from rasterio.errors import RasterioIOError

from pansharpen_cli.errors import SceneError

DRIVERS = ["GTiff", "JP2OpenJPEG"]
"""Formats of the files. Both begin with bytes that make them nothing else: what is opened here is what GDAL opens."""

LARGEST = 64 * 2**20
"""Bytes of a VRT: that of ten thousand files has a tenth of it."""

OFF_GRID = 0.05
"""Pixels by which a file may lie off the mosaic's grid; GDAL puts it on the nearest pixel."""

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
    "SrcRect": {"xOff", "yOff", "xSize", "ySize"},
    "DstRect": {"xOff", "yOff", "xSize", "ySize"},
}


class Blocks(NamedTuple):
    """How a file is stored."""

    height: int
    width: int
    interleaved: bool
    """A block holds all bands."""
    strips: bool
    """A block is as wide as the image."""

    @classmethod
    def of(cls, dataset: rasterio.DatasetReader) -> Blocks:
        height, width = dataset.block_shapes[0]
        interleaved = str(dataset.tags(ns="IMAGE_STRUCTURE").get("INTERLEAVE")) == "PIXEL"
        return cls(int(height), int(width), interleaved, width >= dataset.width)


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
            return b"<VRTDataset" in file.read(1024)
    except OSError:
        return False


def read(path: str | os.PathLike[str]) -> Mosaic:
    """Raises SceneError for whatever is no plain mosaic of local files."""
    document, files = _understood(path)
    return Mosaic(document, tuple(files), tuple(_stored(file, path) for file in files))


def files_of(path: str | os.PathLike[str]) -> list[str]:
    """The files that hold what a raster is: itself, and those of a mosaic. Raises SceneError."""
    return [os.fspath(path), *(_understood(path)[1] if is_vrt(path) else ())]


def _understood(path: str | os.PathLike[str]) -> tuple[str, list[str]]:
    """What counts of the document, and the files that it names, in full."""
    root = _parsed(path)
    folder = os.path.dirname(os.path.realpath(path))
    files = []
    for source in _sources(root, path):
        name = source.find("SourceFilename")
        if name is None:
            raise SceneError(f"{path} has a source without a file")
        name.text = _file(name, folder, path)
        name.attrib.clear()
        files.append(name.text)
    return ElementTree.tostring(root, "unicode"), list(dict.fromkeys(files))


def _parsed(path: str | os.PathLike[str]) -> Element:
    """Of the document what counts, and nothing else."""
    try:
        if os.path.getsize(path) > LARGEST:
            raise SceneError(f"{path} has more than {LARGEST >> 20} MiB, which no mosaic needs")
        with open(path, "rb") as file:
            document = ElementTree.fromstring(file.read())
    except (OSError, ElementTree.ParseError, ValueError) as error:
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
        copy.set("relativeToVRT", element.get("relativeToVRT", "0"))
    for child in element:
        if child.tag in _KEPT.get(element.tag, set()):
            copy.append(_copied(child, path))
        elif child.tag not in _SILENT:
            raise _no_mosaic(path, child.tag)
    if element.tag == "SRS" and not re.match(r"[A-Z_0-9]+\[|EPSG:\d+$", copy.text):  # others may name files or URLs
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
        yield source


def _rectangle(element: Element | None, path: str | os.PathLike[str]) -> list[float]:
    """First column and row, width and height."""
    try:
        found = [float(element.attrib[name]) for name in ("xOff", "yOff", "xSize", "ySize")]  # type: ignore[union-attr]
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


def _stored(file: str, path: str | os.PathLike[str]) -> Blocks:
    for driver in DRIVERS:
        try:
            with rasterio.open(file, driver=driver) as dataset:
                return Blocks.of(dataset)
        except RasterioIOError:
            continue
    raise SceneError(f"{path} is made of {file}, which is not a readable GeoTIFF or JPEG 2000 file")
