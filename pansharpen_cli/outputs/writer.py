"""The only writer of products. A product appears under its name only when it is complete and was read back.

GDAL keeps silent about a full disk, and a killed writer leaves a file that opens and reads zeros. So pixels go to a
temporary file in the target's folder, every one of them is read back and compared, and only then the file is renamed.
"""

from __future__ import annotations

import logging
import os
import re
import secrets
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from logging.handlers import BufferingHandler
from math import inf, sqrt
from mmap import mmap
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import rasterio
import rasterio.shutil
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import RasterioError
from rasterio.windows import Window

from pansharpen_cli import __version__
from pansharpen_cli.errors import OutputError
from pansharpen_cli.imaging.geogrid import GeoGrid
from pansharpen_cli.imaging.radiometry import holds
from pansharpen_cli.system.concurrency import Threads

Format = Literal["gtiff", "cog"]
Pixels = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

BLOCK = 512
"""Side of a TIFF block, in pixels. Cores on multiples of it are compressed once."""

TAGS = "PANSHARPEN"
"""Namespace of the tags that say how a product was made."""

_PREDICTED = {"DEFLATE", "LZW", "ZSTD"}
_COLOURS = {"red": ColorInterp.red, "green": ColorInterp.green, "blue": ColorInterp.blue}
_REHEARSED = 300  # pixels: just enough to have an overview


@dataclass(frozen=True)
class BandStatistics:
    """Of the valid pixels of a band, in DN. `squares` is the sum of squared deviations from the mean."""

    count: int = 0
    minimum: float = inf
    maximum: float = -inf
    mean: float = 0.0
    squares: float = 0.0

    @property
    def std(self) -> float:
        """Population standard deviation, as GDAL's."""
        return sqrt(self.squares / self.count) if self.count else 0.0

    @classmethod
    def of(cls, values: Pixels) -> BandStatistics:
        """Of `values` (n,)."""
        if not values.size:
            return cls()
        if values.dtype.kind in "ui" and values.dtype.itemsize <= 2:
            return cls._of_short_integers(values)
        mean = float(values.mean(dtype=np.float64))
        deviations = values - np.float64(mean)
        return cls(values.size, float(values.min()), float(values.max()), mean, float(deviations @ deviations))

    @classmethod
    def _of_short_integers(cls, values: Pixels) -> BandStatistics:
        """Of integers of at most 16 bits: their sums are exact, so one look is enough."""
        from pansharpen_cli.imaging import dn  # half a second, which not every command needs

        count, low = values.size, int(values.min())
        total, squares = map(int, dn.sums_above(values, low))
        mean, deviations = (total + low * count) / count, (squares * count - total**2) / count
        return cls(count, float(low), float(values.max()), mean, deviations)

    def merge(self, other: BandStatistics) -> BandStatistics:
        """Of both sets together (Chan, Golub & LeVeque 1979, eq. 2.1: no cancellation, whatever the sizes)."""
        count = self.count + other.count
        if not count:
            return self
        step = other.mean - self.mean
        return BandStatistics(
            count,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
            self.mean + step * other.count / count,
            self.squares + other.squares + step**2 * self.count * other.count / count,
        )

    def tags(self, pixels: int) -> dict[str, str]:
        """As GDAL's band tags, for a band of `pixels`; none for a band without data."""
        if not self.count:
            return {}
        return {
            "STATISTICS_MINIMUM": repr(self.minimum),
            "STATISTICS_MAXIMUM": repr(self.maximum),
            "STATISTICS_MEAN": repr(self.mean),
            "STATISTICS_STDDEV": repr(self.std),
            "STATISTICS_VALID_PERCENT": f"{100 * self.count / pixels:.4g}",
        }


@dataclass(frozen=True)
class Layout:
    """All of a product but its pixels. `options` are the user's creation options; `mask`: invalid pixels are marked by
    an internal mask."""

    grid: GeoGrid
    bands: tuple[str, ...]
    dtype: np.dtype[Any]
    nodata: float | None
    mask: bool
    format: Format
    threads: int
    options: Mapping[str, str]
    scaling: tuple[tuple[float, float], ...] = ()
    """(scale, offset) of each band, if its DN are not what was measured."""

    @property
    def pixels(self) -> int:
        return self.grid.height * self.grid.width

    @property
    def nbytes(self) -> int:
        """Size of all bands, uncompressed."""
        return self.pixels * len(self.bands) * self.dtype.itemsize

    @property
    def fill(self) -> Any:
        """What invalid pixels hold."""
        return self.dtype.type(0 if self.nodata is None else self.nodata)

    @property
    def factors(self) -> list[int]:
        """Decimation of each overview; the last one fits into 256 pixels. None if the user says so."""
        if self._overviews == "NONE":
            return []
        size = max(self.grid.height, self.grid.width)
        return [2**level for level in range(1, max(0, (size - 1) // 256).bit_length() + 1)]

    @property
    def _overviews(self) -> str:
        """A creation option of COGs, which is understood for any file here."""
        return self.options.get("OVERVIEWS", "AUTO").upper()

    def overview(self, level: int) -> tuple[int, int]:
        """Rows and columns of an overview, the first of which is level 0."""
        factor = self.factors[level]
        return -(-self.grid.height // factor), -(-self.grid.width // factor)

    @property
    def colours(self) -> list[ColorInterp]:
        return [_COLOURS.get(name.strip().lower(), ColorInterp.undefined) for name in self.bands]

    def gtiff_options(self) -> dict[str, str]:
        """Creation options of the tiled file; a COG is copied from it, with the user's options then.

        Pixel-interleaved: who displays colours, computes an index or classifies reads several bands of one place, and
        one block then is one read. A single band out of eight costs eight; that is the rarer use.
        """
        user = dict(self.options) if self.format == "gtiff" else {}
        if self._overviews in {"AUTO", "NONE"}:
            user.pop("OVERVIEWS", None)
        codec = user.get("COMPRESS", "DEFLATE").upper()  # every reader has DEFLATE
        rgb = self.colours[:3] == list(_COLOURS.values())
        options = {
            "TILED": "YES",
            "BLOCKXSIZE": str(min(BLOCK, -(-self.grid.width // 16) * 16)),
            "BLOCKYSIZE": str(min(BLOCK, -(-self.grid.height // 16) * 16)),
            "INTERLEAVE": "PIXEL",
            "PHOTOMETRIC": "RGB" if rgb else "MINISBLACK",  # GDAL would call a fourth band alpha
            "BIGTIFF": "IF_SAFER",
            "NUM_THREADS": str(self.threads),
            "COMPRESS": codec,
        }
        if codec in _PREDICTED and "NBITS" not in user:
            options["PREDICTOR"] = "3" if self.dtype.kind == "f" else "2"
        if codec == "DEFLATE":
            options["ZLEVEL"] = "1"  # the higher ones gain nothing on the noise of real images
        return options | user

    def cog_options(self) -> dict[str, str]:
        """Creation options of GDAL's COG driver."""
        codec = self.options.get("COMPRESS", "DEFLATE").upper()
        options = {
            "BLOCKSIZE": str(BLOCK),
            "BIGTIFF": "IF_SAFER",
            "NUM_THREADS": str(self.threads),
            "OVERVIEW_RESAMPLING": "AVERAGE",
            "COPY_SRC_MDD": "YES",  # else our tags stay behind
            "COMPRESS": codec,
        }
        if codec in _PREDICTED and "NBITS" not in self.options:
            options["PREDICTOR"] = "YES"
        if codec == "DEFLATE":
            options["LEVEL"] = "1"
        return options | dict(self.options)


class _UnsoundError(Exception):
    """A file does not hold what was written to it."""


class Core(NamedTuple):
    """A rectangle that was written, with the checksum of its pixels and mask."""

    rows: slice
    cols: slice
    checksum: int

    def __str__(self) -> str:
        return _place(self.rows, self.cols)


class ProductWriter:
    """Writes one product, core by core, from any one thread at a time.

        with ProductWriter(path, grid, bands, "uint16", 0) as writer:
            writer.write(rows, cols, hrms, valid)  # every pixel once
            writer.finish(tags)

    All that can be known beforehand is checked in the constructor, which writes, copies and reads back a small product
    of the same layout. Left without `finish`, by an exception or Ctrl-C, nothing remains.
    """

    def __init__(
        self,
        path: Path,
        grid: GeoGrid,
        bands: Sequence[str],
        dtype: str,
        nodata: float | None,
        *,
        format: Format = "gtiff",
        creation_options: Mapping[str, str] | None = None,
        overwrite: bool = False,
        mask: bool = False,
        threads: int = 1,
        scaling: Sequence[tuple[float, float]] = (),
    ) -> None:
        """`bands`: their descriptions, in order; `scaling`: (scale, offset) of each, kept for readers. `nodata` marks
        invalid pixels; without it, `mask` asks for an internal mask, and without either they are 0. Raises OutputError.
        """
        options = {key.upper(): value for key, value in (creation_options or {}).items()}
        mask = mask and nodata is None
        self._path = path
        self._overwrite = overwrite
        scaling = tuple(scaling) if any(pair != (1, 0) for pair in scaling) else ()
        self._layout = Layout(grid, tuple(bands), np.dtype(dtype), nodata, mask, format, threads, options, scaling)
        self._cores: list[Core] = []
        self._statistics = [BandStatistics() for _ in bands]
        check_target(path, overwrite)
        _check_nodata(path, self._layout)
        _check_room(path, self._layout)
        _rehearse(path, self._layout)

    @property
    def dtype(self) -> np.dtype[Any]:
        """What `write` wants."""
        return self._layout.dtype

    @property
    def nodata(self) -> float | None:
        """What invalid pixels hold; None if there is no such value."""
        return self._layout.nodata

    @property
    def written(self) -> set[tuple[int, int]]:
        """First row and column of every core so far."""
        return {(core.rows.start, core.cols.start) for core in self._cores}

    @property
    def statistics(self) -> tuple[BandStatistics, ...]:
        """Of what was written so far, per band."""
        return tuple(self._statistics)

    def __enter__(self) -> Self:
        self._life = ExitStack()
        with _gdal(f"{self._path} cannot be created"):
            self._draft = self._life.enter_context(_Draft(self._path, self._layout))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._life.close()

    def write(self, rows: slice, cols: slice, hrms: Pixels, valid: Mask) -> None:
        """Write one core: `hrms` (bands, h, w) in the product's dtype, `valid` (h, w). Raises OutputError."""
        layout = self._layout
        shape = (rows.stop - rows.start, cols.stop - cols.start)
        if hrms.shape != (len(layout.bands), *shape) or valid.shape != shape or hrms.dtype != layout.dtype:
            raise ValueError(f"{hrms.dtype} {hrms.shape} and {valid.shape} do not fit {layout.dtype} {shape}")
        _check_still_room(self._path, hrms.nbytes)
        everywhere = bool(valid.all())
        for index, band in enumerate(hrms):
            values = band.ravel() if everywhere else band[valid]
            self._statistics[index] = self._statistics[index].merge(BandStatistics.of(values))
        pixels = hrms if everywhere else np.where(valid, hrms, layout.fill)
        with _gdal(f"{self._path} cannot be written"):
            self._draft.write(rows, cols, pixels, valid)
        self._cores.append(Core(rows, cols, _checksum(pixels, valid if layout.mask else None)))

    def finish(self, tags: Mapping[str, str]) -> Path:
        """Complete, validate and publish the product, with `tags` in the namespace TAGS. Raises OutputError."""
        grid = self._layout.grid
        gap = _gap(self._cores, grid.height, grid.width)
        if gap is not None:
            raise OutputError(f"{self._path} is not complete: {gap}")
        tags = {name: text for name, text in tags.items() if text}  # GDAL keeps no empty ones
        with _gdal(f"{self._path} cannot be completed; its disk may be full or failing"):
            draft = self._draft.finish(tags, self._statistics)
            with Threads(1, "sync") as beside:  # the disk and the cores work at the same time
                on_disk = beside.submit(_sync, draft)
                _read_back(draft, self._layout, self._cores, tags, self._statistics)
                beside.result(on_disk)
            check_target(self._path, self._overwrite)
            publish(draft, self._path)
        return self._path


class _Draft:
    """The product under a temporary name. Leaving the context removes what is left of it."""

    def __init__(self, target: Path, layout: Layout) -> None:
        self._layout = layout
        self._tiled = partial_beside(target)
        self._cog = partial_beside(target)

    def __enter__(self) -> Self:
        with ExitStack() as life:
            life.callback(self._remove)
            self._dataset = life.enter_context(self._create())
            self._life = life.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(RasterioError, CPLE_BaseError):  # an unfinished file may fail to close as it likes
            self._life.close()

    def _create(self) -> Any:
        layout, grid = self._layout, self._layout.grid
        dataset = rasterio.open(
            self._tiled,
            "w",
            driver="GTiff",
            height=grid.height,
            width=grid.width,
            count=len(layout.bands),
            dtype=layout.dtype.name,
            nodata=layout.nodata,
            transform=grid.transform,
            crs=CRS.from_wkt(grid.crs) if grid.crs else None,
            **layout.gtiff_options(),
        )
        dataset.colorinterp = layout.colours
        dataset.descriptions = layout.bands
        if layout.scaling:
            dataset.scales, dataset.offsets = zip(*layout.scaling, strict=True)
        if layout.mask:
            # before any pixel: GDAL's compression threads read the header that a new mask changes
            with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
                dataset.write_mask(np.zeros((1, 1), bool), window=Window(0, 0, 1, 1))
        return dataset

    def _remove(self) -> None:
        for path in (self._tiled, self._cog):
            with suppress(OSError):  # the folder may be gone, or a disk fail
                path.unlink()

    def write(self, rows: slice, cols: slice, pixels: Pixels, valid: Mask) -> None:
        window = Window.from_slices(rows, cols)
        self._dataset.write(pixels, window=window)
        if self._layout.mask:
            self._dataset.write_mask(valid, window=window)

    def finish(self, tags: Mapping[str, str], statistics: Sequence[BandStatistics]) -> Path:
        """Tags and overviews; returns the path of the complete file."""
        layout, dataset = self._layout, self._dataset
        dataset.update_tags(
            AREA_OR_POINT="Area",
            TIFFTAG_SOFTWARE=f"pansharpen_cli {__version__}",
            TIFFTAG_DATETIME=f"{datetime.now(UTC):%Y:%m:%d %H:%M:%S}",
        )
        dataset.update_tags(ns=TAGS, **tags)
        band_tags = [band.tags(layout.pixels) for band in statistics]
        for index, texts in enumerate(band_tags, start=1):
            dataset.update_tags(index, **texts)
        place = _PlaceForBandTags(band_tags)
        if layout.format == "cog":
            dataset.update_tags(ns=TAGS, **place.tag)
        dataset.close()
        # overviews are for looking: at its default ZSTD would take a third of the product's time for 5 % of its size
        with rasterio.Env(GDAL_NUM_THREADS=layout.threads, ZLEVEL_OVERVIEW=1, ZSTD_LEVEL_OVERVIEW=1):
            if layout.factors:
                # opened anew: a broken file is refused then; in the dataset that broke it GDAL crashes
                with rasterio.open(self._tiled, "r+", driver="GTiff") as tiled:
                    tiled.build_overviews(layout.factors, Resampling.average)
            if layout.format == "gtiff":
                return self._tiled
            rasterio.shutil.copy(self._tiled, self._cog, driver="COG", **layout.cog_options())
        self._tiled.unlink()
        place.fill(self._cog)
        return self._cog


class _PlaceForBandTags:
    """Brings band tags into a COG. GDAL copies either them or the tags of other namespaces, and tags set later would
    move the header to the end of the file: so a tag in our namespace is copied that takes just as many bytes, and
    theirs are written over it."""

    _NAME = "_place"

    def __init__(self, band_tags: Sequence[Mapping[str, str]]) -> None:
        self._items = "".join(
            f'<Item name="{name}" sample="{sample}">{text}</Item>'
            for sample, tags in enumerate(band_tags)
            for name, text in tags.items()
        )
        self._text = "_" * (len(self._items) - len(self._item("")))

    def _item(self, text: str) -> str:
        return f'<Item name="{self._NAME}" domain="{TAGS}">{text}</Item>'

    @property
    def tag(self) -> dict[str, str]:
        """What to put into our namespace; nothing if there are no band tags."""
        return {self._NAME: self._text} if self._items else {}

    def fill(self, path: Path) -> None:
        if not self._items:
            return
        with path.open("r+b") as file, mmap(file.fileno(), 0) as content:
            place = content.find(self._item(self._text).encode())  # near the start: it is a COG
            if place < 0:
                raise _UnsoundError("its band statistics were not copied")
            content[place : place + len(self._items)] = self._items.encode()


def partial_beside(path: Path) -> Path:
    """A new name for a temporary file in the folder of `path`: hidden, and on the same disk."""
    return path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")


def publish(partial: Path, path: Path) -> None:
    """Give a complete file its name, for good and at once. What other tools kept beside an older file goes: GDAL would
    take its overviews, mask and statistics for the new file's."""
    _sync(partial)
    for suffix in (".aux.xml", ".ovr", ".msk"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    os.replace(partial, path)
    _sync(path.parent)


def _sync(path: Path) -> None:
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
    if os.path.lexists(path) and not overwrite:
        raise OutputError(f"{path} exists; choose another name or --overwrite it")
    if not os.path.isdir(path.parent):
        raise OutputError(f"{path} cannot be created, as {path.parent} is no folder; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise OutputError(f"{path} cannot be created, as you may not write to {path.parent}; choose another folder")


def _check_nodata(path: Path, layout: Layout) -> None:
    nodata, dtype = layout.nodata, layout.dtype
    if nodata is not None and not holds(dtype, nodata):
        info = np.iinfo(dtype)
        raise OutputError(
            f"{path} cannot have nodata {nodata:g} in {dtype}; "
            f"give a whole number from {info.min} to {info.max}, or none"
        )


def _check_room(path: Path, layout: Layout) -> None:
    """What the pixels and their overviews (a third) take if they do not compress; a COG is a second copy."""
    needed = layout.nbytes * 4 // 3 * (2 if layout.format == "cog" else 1)
    free = _free(path)
    if free < needed:
        raise OutputError(
            f"{path} may need {_megabytes(needed)} but {path.parent} has {_megabytes(free)} free; "
            "make room or choose another folder"
        )


def _check_still_room(path: Path, nbytes: int) -> None:
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


def _rehearse(path: Path, layout: Layout) -> None:
    """Write, copy and read back a small product of this layout: what the driver, a codec or the folder cannot do shows
    now and not at the end. Lossy codecs fail too: a product holds what was computed."""
    height, width = min(layout.grid.height, _REHEARSED), min(layout.grid.width, _REHEARSED)
    small = replace(layout, grid=replace(layout.grid, height=height, width=width))
    random = np.random.default_rng(0).random((len(layout.bands), height, width))
    pixels = (random if layout.dtype.kind == "f" else np.rint(random)).astype(layout.dtype)  # 0 and 1 fit any NBITS
    rows, cols, valid = slice(0, height), slice(0, width), np.ones((height, width), bool)
    core = Core(rows, cols, _checksum(pixels, valid if layout.mask else None))
    asked = " ".join(f"{key}={value}" for key, value in layout.options.items())
    failure = f"{path} cannot be written as {layout.dtype} {layout.format}" + (f" with {asked}" if asked else "")
    with _gdal(failure), _gdal_warnings() as warnings, _Draft(path, small) as draft:
        draft.write(rows, cols, pixels, valid)
        tags, statistics = {"rehearsal": "yes"}, [BandStatistics.of(band.ravel()) for band in pixels]
        _read_back(draft.finish(tags, statistics), small, [core], tags, statistics)
    for warning in warnings:
        if any(key in warning for key in layout.options):
            raise OutputError(f"{failure}: {_plain(warning)}")


def _read_back(
    path: Path, layout: Layout, cores: Sequence[Core], tags: Mapping[str, str], statistics: Sequence[BandStatistics]
) -> None:
    """Raises _UnsoundError unless the file holds the layout, all tags, every core bit by bit and whole overviews."""
    with rasterio.open(path, driver="GTiff") as dataset:
        for name, found, wanted in _facts(dataset, layout, tags, statistics):
            if found != wanted:
                raise _UnsoundError(f"its {name} reads {found} instead of {wanted}")
        if not np.allclose(tuple(dataset.transform), tuple(layout.grid.transform), rtol=1e-12, atol=0):
            raise _UnsoundError(f"its transform reads {dataset.transform!r} instead of {layout.grid.transform!r}")
        overviews = len(dataset.overviews(1))
    with Threads(layout.threads, "validation") as pool:
        readings = [pool.submit(_read_cores, path, layout, cores[i :: layout.threads]) for i in range(layout.threads)]
        readings += [pool.submit(_read_overview, path, layout, level) for level in range(overviews)]
        for reading in readings:
            pool.result(reading)


def _read_cores(path: Path, layout: Layout, cores: Sequence[Core]) -> None:
    """Raises _UnsoundError if one does not hold what was written."""
    with rasterio.open(path, driver="GTiff") as dataset:
        for core in cores:
            window = Window.from_slices(core.rows, core.cols)
            mask = dataset.read_masks(1, window=window) > 0 if layout.mask else None
            if _checksum(dataset.read(window=window), mask) != core.checksum:
                raise _UnsoundError(f"{core} do not read back as written (a lossy codec?)")


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
    """Raises _UnsoundError if it is of another size, or a block is missing (reads as zeros, without an error)."""
    with rasterio.open(path, driver="GTiff", overview_level=level) as overview:
        if layout.format == "gtiff" and overview.shape != (size := layout.overview(level)):
            raise _UnsoundError(f"its overview {level + 1} has {overview.shape} pixels instead of {size}")
        for (row, col), window in overview.block_windows(1):
            overview.read(window=window)
            if not overview.get_tag_item(f"BLOCK_OFFSET_{col}_{row}", "TIFF", bidx=1):
                raise _UnsoundError(f"a block of overview {level + 1} is missing")


def _checksum(pixels: Pixels, mask: Mask | None) -> int:
    """CRC-32 of (bands, h, w) and, where there is one, of the mask (h, w)."""
    checksum = zlib.crc32(np.ascontiguousarray(pixels).data)
    return checksum if mask is None else zlib.crc32(np.ascontiguousarray(mask).data, checksum)


def _gap(cores: Sequence[Core], height: int, width: int) -> str | None:
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


@contextmanager
def _gdal(failure: str) -> Iterator[None]:
    """GDAL's environment, in whatever thread; what it, rasterio or the system raises becomes an OutputError that starts
    with `failure`."""
    try:
        with rasterio.Env(GDAL_PAM_ENABLED=False):  # all in one file
            yield
    except (_UnsoundError, RasterioError, CPLE_BaseError, OSError, ValueError) as error:
        reason = error.__cause__ or error  # rasterio says "see previous exception"
        raise OutputError(f"{failure}: {_plain(getattr(reason, 'errmsg', str(reason)))}") from error


def _plain(message: str) -> str:
    """GDAL's message without error classes and temporary names."""
    return re.sub(r"^(CPLE_\w+ in |\S+\.partial: ?)+", "", message)


@contextmanager
def _gdal_warnings() -> Iterator[list[str]]:
    """Collect what GDAL only warns of, such as creation options it does not know."""
    logger = logging.getLogger("rasterio._env")
    handler = BufferingHandler(1000)
    level, propagate = logger.level, logger.propagate
    messages: list[str] = []
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        yield messages
    finally:
        messages += [record.getMessage() for record in handler.buffer]
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
