"""Is a file what was written? GDAL keeps silent about a full disk, and a killed writer leaves a file that opens and
reads zeros: so every pixel is read back and compared."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.windows import Window

from pansharpen_cli.imaging.rpc import Rpc
from pansharpen_cli.outputs.layout import TAGS, Layout, Mask, Pixels
from pansharpen_cli.outputs.statistics import BandStatistics
from pansharpen_cli.system.concurrency import Threads


class UnsoundError(Exception):
    """A file does not hold what was written to it."""


class Core(NamedTuple):
    """A rectangle that was written, with the checksum of its pixels and mask."""

    rows: slice
    cols: slice
    checksum: int

    def __str__(self) -> str:
        return _place(self.rows, self.cols)


def read_back(
    path: Path, layout: Layout, cores: Sequence[Core], tags: Mapping[str, str], statistics: Sequence[BandStatistics]
) -> None:
    """Raises UnsoundError unless the file holds the layout, all tags, every core bit by bit and whole overviews."""
    with rasterio.open(path, driver="GTiff") as dataset:
        for name, found, wanted in _facts(dataset, layout, tags, statistics):
            if found != wanted:
                raise UnsoundError(f"its {name} reads {found} instead of {wanted}")
        if not np.allclose(tuple(dataset.transform), tuple(layout.grid.transform), rtol=1e-12, atol=0):
            raise UnsoundError(f"its transform reads {dataset.transform!r} instead of {layout.grid.transform!r}")
        rpc = Rpc.of(dataset.rpcs.to_dict()) if dataset.rpcs else None
        if not _same(rpc, layout.grid.rpc):
            raise UnsoundError(f"its RPCs read {rpc} instead of {layout.grid.rpc}")
        overviews = len(dataset.overviews(1))
    with Threads(layout.threads, "validation") as pool:
        readings = [pool.submit(_read_cores, path, layout, cores[i :: layout.threads]) for i in range(layout.threads)]
        readings += [pool.submit(_read_overview, path, layout, level) for level in range(overviews)]
        for reading in readings:
            pool.result(reading)


def _same(one: Rpc | None, other: Rpc | None) -> bool:
    """Whether they place pixels alike, but for what is lost as text."""
    if one is None or other is None:
        return one is other
    origin = one.origin_in(other)
    return origin is not None and bool(np.allclose(origin, 0, atol=1e-6))


def _read_cores(path: Path, layout: Layout, cores: Sequence[Core]) -> None:
    """Raises UnsoundError if one does not hold what was written."""
    with rasterio.open(path, driver="GTiff") as dataset:
        for core in cores:
            window = Window.from_slices(core.rows, core.cols)
            mask = dataset.read_masks(1, window=window) > 0 if layout.mask else None
            if checksum(dataset.read(window=window), mask) != core.checksum:
                raise UnsoundError(f"{core} do not read back as written (a lossy codec?)")


def _facts(
    dataset: Any, layout: Layout, tags: Mapping[str, str], statistics: Sequence[BandStatistics]
) -> Iterator[tuple[str, object, object]]:
    """What must be so: its name, what the file says, and what it should say."""
    nodata = None if dataset.nodata is None else repr(layout.dtype.type(dataset.nodata))
    yield "size", dataset.shape, (layout.grid.height, layout.grid.width)
    yield "data type", dataset.dtypes, (layout.dtype.name,) * len(layout.bands)
    yield "bands", tuple(name or "" for name in dataset.descriptions), layout.bands
    if layout.scaling:
        yield "scale and offset", tuple(zip(dataset.scales, dataset.offsets, strict=True)), layout.scaling
    yield "nodata", nodata, None if layout.nodata is None else repr(layout.fill)
    yield "CRS", dataset.crs, CRS.from_wkt(layout.grid.crs) if layout.grid.crs else None
    yield "tags", set(dataset.tags(ns=TAGS)), set(tags)
    yield "statistics", [dataset.tags(i) for i in dataset.indexes], [band.tags(layout.pixels) for band in statistics]
    if layout.format == "gtiff":
        yield "overviews", len(dataset.overviews(1)), len(layout.factors)
    else:
        yield "layout", dataset.tags(ns="IMAGE_STRUCTURE").get("LAYOUT"), "COG"


def _read_overview(path: Path, layout: Layout, level: int) -> None:
    """Raises UnsoundError if it is of another size, or not whole."""
    found = _read_whole_overview(path, level)
    if layout.format == "gtiff" and found != (size := layout.overview(level)):
        raise UnsoundError(f"its overview {level + 1} has {found} pixels instead of {size}")


def overviews_are_whole(path: Path) -> bool:
    """Of any GeoTIFF, their masks included."""
    try:
        with rasterio.open(path, driver="GTiff") as dataset:
            levels = range(len(dataset.overviews(1)))
        return all(_read_whole_overview(path, level) for level in levels)
    except (UnsoundError, RasterioError, CPLE_BaseError):
        return False


def _read_whole_overview(path: Path, level: int) -> tuple[int, int]:
    """Its rows and columns. Raises UnsoundError if a block is missing (reads as zeros, without an error)."""
    with rasterio.open(path, driver="GTiff", overview_level=level) as overview:
        masked = MaskFlags.per_dataset in overview.mask_flag_enums[0]
        for (row, col), window in overview.block_windows(1):
            overview.read(window=window)
            if masked:
                overview.read_masks(1, window=window)
            if not overview.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=1):
                raise UnsoundError(f"a block of overview {level + 1} is missing")
        height, width = overview.shape
        return height, width


def checksum(pixels: Pixels, mask: Mask | None) -> int:
    """CRC-32 of (bands, h, w) and, where there is one, of the mask (h, w)."""
    checksum = zlib.crc32(np.ascontiguousarray(pixels).data)
    return checksum if mask is None else zlib.crc32(np.ascontiguousarray(mask).data, checksum)


def gap(cores: Sequence[Core], height: int, width: int) -> str | None:
    """Where the cores leave a pixel out or hold it twice, in words; None if they cover (height, width) exactly once.

    Counted on the cells between all edges of cores, a few thousand for any scene, not on pixels.
    """
    rows = sorted({0, height}.union(*((core.rows.start, core.rows.stop) for core in cores)))
    cols = sorted({0, width}.union(*((core.cols.start, core.cols.stop) for core in cores)))
    row_of = {edge: cell for cell, edge in enumerate(rows)}
    col_of = {edge: cell for cell, edge in enumerate(cols)}
    times = np.zeros((len(rows) - 1, len(cols) - 1), int)
    for core in cores:
        times[row_of[core.rows.start] : row_of[core.rows.stop], col_of[core.cols.start] : col_of[core.cols.stop]] += 1
    wrong = np.argwhere(times != 1)
    if not len(wrong):
        return None
    row, col = wrong[0]
    place = _place(slice(rows[row], rows[row + 1]), slice(cols[col], cols[col + 1]))
    return f"{place} were written {times[row, col]} times"


def _place(rows: slice, cols: slice) -> str:
    return f"rows {rows.start}-{rows.stop - 1}, columns {cols.start}-{cols.stop - 1}"
