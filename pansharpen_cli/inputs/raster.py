"""One open file: what may be opened, its grid, its bands, and which of its pixels hold data."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Sequence
from contextlib import closing
from dataclasses import astuple
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import rasterio
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioIOError
from rasterio.windows import Window

from pansharpen_cli.errors import AbsentError, SceneError
from pansharpen_cli.imaging.geogrid import GeoGrid
from pansharpen_cli.imaging.radiometry import holds
from pansharpen_cli.imaging.rpc import Rpc
from pansharpen_cli.inputs import mosaic, sidecars
from pansharpen_cli.inputs.mosaic import Blocks, Mosaic
from pansharpen_cli.system import locations
from pansharpen_cli.system.files import redacted, told_of, why_unseen

log = logging.getLogger(__name__)


Float32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Nodata = float | Literal["file", "none"]
"""The value that means no data; "file": what mask, alpha band or metadata say; "none": every finite pixel is data."""

DRIVERS = ["GTiff", "JP2OpenJPEG", "NITF"]
"""The formats that are opened, besides mosaics. Others can name further files or URLs (WMS, ...)."""

MOST_BANDS = 4096
"""Of a file."""

BLOCK_LIMIT = 2**28
"""Bytes of a block of all bands that are stored together. It is decoded as a whole, and a header can claim any size."""

EXPANSION_LIMIT = 1000
"""Bytes of pixels that a byte of a local file may stand for: DEFLATE comes to that with zeros, images to 10."""
AT_ONCE = 2**13
"""Columns that are read together for a digest."""
HARMLESS = 2**28
"""Bytes of pixels up to which it may be more."""


def _colour(meaning: ColorInterp) -> str:
    """The name of a band that its file calls a primary colour, or ""."""
    return meaning.name if meaning in (ColorInterp.red, ColorInterp.green, ColorInterp.blue) else ""


class Raster:
    """One open file: its grid, its bands, and which pixels hold data."""

    def __init__(self, path: str | Path, nodata: Nodata = "file", bands: Sequence[int] | None = None) -> None:
        self.path = redacted(path)
        self._opened_as = locations.anywhere(path), nodata, bands
        self._reading = Lock()
        parts = mosaic.read(path) if mosaic.is_vrt(path) else None
        if not locations.is_remote(path):
            sidecars.check(path)
        self._files = [self._opened_as[0], *(parts.files if parts else ())]
        self._stamps = [_stamp(file) for file in self._files]
        self._dataset = _open(path, parts)
        self._blocks = parts.blocks if parts else (Blocks.of(self._dataset),)
        try:
            with rasterio.Env():  # GDAL's complaints of what lies beside the file are no one else's
                self.grid = self._placed()
                self._check()
                self._choose(bands)
                self.nodata = self._nodata(nodata)
                self._absent = self._nodata_of_bands(nodata)
                self._masked = nodata == "file" and self.nodata is None and self._has_mask()
        except (SceneError, CPLE_BaseError) as error:
            self.close()
            raise error if isinstance(error, SceneError) else self._unusable(error) from error
        self.dtype = self._common_dtype()
        grid = self.grid
        self.georeferenced = grid.crs is not None or grid.by_rpc or grid.transform != Affine.identity()

    def __reduce__(self) -> tuple[object, ...]:
        """Sent to another process, it is opened there."""
        return Raster, self._opened_as, {"names": self.names}

    def _check(self) -> None:
        dataset = self._dataset
        sidecars.check_metadata(dataset, self.path)
        if dataset.count > MOST_BANDS:
            raise SceneError(f"{self.path} has {dataset.count} bands; at most {MOST_BANDS} can be sharpened together")
        with np.errstate(all="ignore"):
            area = np.float64(dataset.transform.determinant)
        if not (np.isfinite(tuple(dataset.transform)).all() and 0 < abs(area) < np.inf):
            raise SceneError(f"{self.path} has a geotransform that puts it nowhere; georeference it anew")
        if dataset.transform == Affine.identity() and dataset.gcps[0] and not self.grid.by_rpc:
            raise SceneError(f"{self.path} is placed by GCPs only; warp it to a grid first")
        if any("complex" in kind for kind in dataset.dtypes):  # GDAL's complex integers are no NumPy type
            raise SceneError(f"{self.path} holds complex numbers; only real images can be sharpened")
        if any(kind in ("int64", "uint64") for kind in dataset.dtypes):
            raise SceneError(f"{self.path} holds integers of 64 bits; convert it to 32 bits or to float64")
        if dataset.colorinterp[0] == ColorInterp.palette:
            raise SceneError(f"{self.path} holds numbers of palette colours, no radiometry; expand it to RGB first")
        self._check_size()

    def _placed(self) -> GeoGrid:
        """RPCs count where there is no CRS: a transform beside them, as of a part that was cut out, is none then. The
        corners of a NITF in degrees are rounded to seconds, thirty metres, and no match for its RPCs."""
        dataset = self._dataset
        rpc, fault = self._rpc()
        rounded = rpc is not None and dataset.driver == "NITF" and dataset.crs and dataset.crs.is_geographic
        crs = dataset.crs.to_wkt() if dataset.crs and not rounded else None
        if fault and crs is None:
            raise SceneError(f"{self.path} has RPCs that place it nowhere ({fault}); mend or remove them")
        if fault:
            log.warning("%s has RPCs that place it nowhere (%s): they are left out", self.path, fault)
        transform = Affine.identity() if rpc and crs is None else dataset.transform
        return GeoGrid(dataset.height, dataset.width, transform, crs, rpc)

    def _rpc(self) -> tuple[Rpc | None, str]:
        """In whatever way GDAL finds them; or what is wrong with them."""
        try:
            found = self._dataset.rpcs
            rpc = Rpc.of(found.to_dict()) if found else None
        except KeyError as error:
            return None, f"{error.args[0]} is missing"
        except (ValueError, IndexError) as error:
            return None, redacted(str(error))
        return (None, "not all are numbers that mean anything") if rpc and not rpc.sound else (rpc, "")

    def _unusable(self, error: CPLE_BaseError) -> SceneError:
        """Of a file that opens, but of which, or beside which, something is broken."""
        return SceneError(f"{self.path} cannot be used: {told_of(self.path, error.errmsg)}")

    @property
    def source(self) -> str | Path:
        """Its name, as it is opened by: secrets in a URL are in it."""
        return self._opened_as[0]

    @property
    def remote(self) -> bool:
        return locations.is_remote(self.source)

    @property
    def told(self) -> list[object]:
        """What its file, or one beside that, says of its pixels: where they are, which hold data, what DN mean."""
        grid = self.grid
        return [list(grid.transform), grid.crs, grid.rpc and astuple(grid.rpc), self.nodata, self.scaling]

    def content(self) -> str:
        """SHA-256 of all its pixels, and of what masks them: of a file that is fetched, all of it once more."""
        total = hashlib.sha256()
        with closing(Raster(*self._opened_as)) as again:  # who reads this one does not wait
            height, width = again.grid.height, again.grid.width
            step = max(stored.height for stored in again._blocks)
            for row in range(0, height, step):
                for col in range(0, width, AT_ONCE):
                    raw, mask = again._read(Window(col, row, min(AT_ONCE, width - col), min(step, height - row)))
                    total.update(raw.tobytes())
                    total.update(b"" if mask is None else mask.tobytes())
        return total.hexdigest()

    def _check_size(self) -> None:
        """Before anything is read: what is claimed may be all there is."""
        dataset = self._dataset
        pixel = sum(np.dtype(kind).itemsize for kind in dataset.dtypes)
        block = max(stored.height * stored.width for stored in self._blocks)
        interleaved = any(stored.interleaved for stored in self._blocks)
        if block * (pixel if interleaved else pixel // dataset.count) > BLOCK_LIMIT:
            raise SceneError(
                f"{self.path} is stored in blocks of more than {BLOCK_LIMIT >> 20} MiB; rewrite it in tiles, as "
                "gdal_translate -co TILED=YES does"
            )
        claimed = dataset.height * dataset.width * pixel
        size = sum(stamp.size for stamp in self._stamps if stamp)
        if size and claimed > max(HARMLESS, EXPANSION_LIMIT * size):
            raise SceneError(
                f"{self.path} claims {claimed / 1e9:,.1f} GB of pixels in {size / 1e6:,.1f} MB, more than any image "
                "compresses to; it is damaged or made to do harm"
            )

    def check_whole(self) -> None:
        """Raises SceneError if a local TIFF ends before its blocks do: before any is read, which can be hours later."""
        size = self._stamps[0].size if self._stamps[0] else 0
        if self._dataset.driver == "GTiff" and size and self._end_of_blocks() > size:
            raise SceneError(f"{self.path} ends before its pixels do, as after a copy that broke off; copy it again")

    def _end_of_blocks(self) -> int:
        """Of a TIFF: the byte after the last one of a block."""
        dataset, (stored,) = self._dataset, self._blocks
        ends = [0]
        for row in range(-(-dataset.height // stored.height)):
            for col in range(-(-dataset.width // stored.width)):
                for band in [1] if stored.interleaved else dataset.indexes:
                    where = [dataset.get_tag_item(f"BLOCK_{of}_{col}_{row}", "TIFF", band) for of in ("OFFSET", "SIZE")]
                    ends.append(sum(map(int, filter(None, where))))
        return max(ends)

    @property
    def in_strips(self) -> bool:
        """Whether blocks are as wide as their image."""
        return any(stored.strips for stored in self._blocks)

    def bytes_of_blocks(self, height: int, width: int) -> int:
        """Bytes of the blocks, decoded, in which a window of this size lies, wherever it lies."""

        def pixels(stored: Blocks) -> int:
            rows, cols = (
                min(-(-part // side) + 1, -(-size // side)) * side
                for part, side, size in zip((height, width), stored[:2], self._dataset.shape, strict=True)
            )
            return int(rows * cols * (self._dataset.count if stored.interleaved else len(self.indexes)))

        return int(max(map(pixels, self._blocks)) * self.dtype.itemsize)

    def _common_dtype(self) -> np.dtype[Any]:
        """The type that holds all bands, which are of several types only in a mosaic."""
        dtype = np.result_type(*(self._dataset.dtypes[index - 1] for index in self.indexes))
        return np.dtype(np.float64) if dtype.kind in "iu" and dtype.itemsize > 4 else dtype

    def _choose(self, bands: Sequence[int] | None) -> None:
        dataset = self._dataset
        if bands is None:
            alpha = self._alpha
            if self._maybe_alpha and not alpha:
                log.warning(
                    "%s marks band %d as alpha, but it holds more than two values: it is sharpened as a band; "
                    "--bidx 1-%d leaves it out", self.path, dataset.count, dataset.count - 1,
                )  # fmt: skip
            bands = [i for i in dataset.indexes if i != alpha]
        for index in bands:
            if not 1 <= index <= dataset.count:
                raise SceneError(f"{self.path} has no band {index}; it has {dataset.count}")
        self.indexes = list(bands)
        stem = Path(self.path).stem
        scales, offsets = dataset.scales, dataset.offsets
        self.scaling = [_sane(scales[i - 1], offsets[i - 1]) for i in self.indexes]
        names = [dataset.descriptions[i - 1] or _colour(dataset.colorinterp[i - 1]) for i in self.indexes]
        self.names = [n or (stem if len(names) == 1 else f"band {i}") for n, i in zip(names, self.indexes, strict=True)]

    @property
    def _maybe_alpha(self) -> bool:
        """Whether the last band is marked as a mask, as writers do with the fourth one of any image; a named one is
        none."""
        dataset = self._dataset
        marked = dataset.count > 1 and dataset.colorinterp[-1] == ColorInterp.alpha
        return marked and (dataset.descriptions[-1] or "alpha").lower() == "alpha"

    @cached_property
    def _alpha(self) -> int | None:
        """The band that is a mask, which has two values."""
        if not self._maybe_alpha:
            return None
        dataset = self._dataset
        last = dataset.count
        shape = (min(512, dataset.height), min(512, dataset.width))
        try:
            values = np.unique(dataset.read(last, out_shape=shape))
        except RasterioIOError as error:
            raise self._unreadable(slice(0, dataset.height), error) from None
        top = np.iinfo(dataset.dtypes[-1]).max if "int" in dataset.dtypes[-1] else 1
        return last if set(values.tolist()) <= {0, top} else None

    def _nodata(self, option: Nodata) -> float | None:
        if option == "none":
            return None
        if option != "file":
            return float(option)
        value = self._dataset.nodatavals[self.indexes[0] - 1]
        fits = value is not None and holds(np.dtype(self._dataset.dtypes[self.indexes[0] - 1]), value)
        return float(value) if fits and not self._has_mask() else None

    def _nodata_of_bands(self, option: Nodata) -> npt.NDArray[np.float64]:
        """(bands, 1, 1): that of the first one, where a band of a mosaic has none of its own."""
        dataset, values = self._dataset, []
        for index in self.indexes:
            own = dataset.nodatavals[index - 1] if option == "file" else None
            fits = own is not None and holds(np.dtype(dataset.dtypes[index - 1]), own)
            values.append(own if fits else self.nodata)
        return np.array(values, np.float64)[:, None, None]

    def _has_mask(self) -> bool:
        """True if an internal mask or alpha band says where data is; it comes before a nodata value."""
        flags = self._dataset.mask_flag_enums[self.indexes[0] - 1]
        return self._alpha is not None or (MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags)

    def read(self, rows: slice, cols: slice) -> tuple[Float32, Mask]:
        """A window inside the raster: (bands, h, w) in DN, and (h, w) True where there is data.

        No data: all bands hold their nodata value, or any holds NaN or infinity.
        """
        window = Window(cols.start, rows.start, cols.stop - cols.start, rows.stop - rows.start)
        try:
            raw, mask = self._read(window)
            if mask is not None:
                valid = mask > 0
            elif self.nodata is None or np.isnan(self.nodata):
                valid = np.ones(raw.shape[1:], bool)
            elif np.issubdtype(raw.dtype, np.floating):
                with np.errstate(over="ignore"):
                    valid = (raw != self._absent.astype(raw.dtype)).any(axis=0)
            else:  # compared as numbers: the type may not hold the value
                valid = (raw != self._absent).any(axis=0)
        except RasterioIOError as error:
            raise self._unreadable(rows, error) from None
        if np.issubdtype(raw.dtype, np.floating):
            valid &= np.isfinite(raw).all(axis=0)
        with np.errstate(over="ignore"):
            data = raw.astype(np.float32)
        if raw.dtype == np.float64 and (valid & ~np.isfinite(data).all(axis=0)).any():
            raise SceneError(
                f"{self.path} holds values beyond 3.4e38 at rows {rows.start}-{rows.stop}; rescale it, or say by "
                "--nodata that they are no data"
            )
        if not valid.all():
            data[:, ~valid] = 0
        return data, valid

    def _unreadable(self, rows: slice, error: RasterioIOError) -> SceneError:
        """Why, as far as that holds no secrets; rasterio itself says "see previous exception"."""
        reason = getattr(error.__cause__, "errmsg", str(error))
        return SceneError(f"{self.path} cannot be read at rows {rows.start}-{rows.stop}: {told_of(self.path, reason)}")

    def _read(self, window: Window) -> tuple[npt.NDArray[Any], npt.NDArray[Any] | None]:
        """All bands and the mask, if there is one."""
        with self._reading:
            if self._dataset.closed:
                raise SceneError(f"{self.path} was closed before it was read")
            if len(set(self._dataset.dtypes)) == 1:
                raw = self._dataset.read(self.indexes, window=window)
            else:
                raw = np.stack([self._dataset.read(i, window=window) for i in self.indexes]).astype(self.dtype)
            if not self._masked:
                return raw, None
            if self._alpha:
                return raw, self._dataset.read(self._alpha, window=window)
            return raw, self._dataset.read_masks(self.indexes[0], window=window)

    @property
    def by_value(self) -> bool:
        """True if a value says where there is no data, not a mask."""
        return self.nodata is not None and not np.issubdtype(self.dtype, np.floating)

    @property
    def unchanged(self) -> bool:
        """False if a local file, or one of a mosaic, was written to or replaced since it was opened."""
        return self._stamps == [_stamp(file) for file in self._files]

    def tags(self, namespace: str) -> dict[str, str]:
        """The file's tags in a namespace."""
        return dict(self._dataset.tags(ns=namespace))

    def close(self) -> None:
        """After an error another thread may still be reading ahead: that is waited for, GDAL would crash."""
        with self._reading:
            self._dataset.close()


def _sane(scale: float, offset: float) -> tuple[float, float]:
    """What DN mean, as the file says: DN * scale + offset; (1, 0) if it says nothing that can be."""
    return (scale, offset) if np.isfinite([scale, offset]).all() and scale else (1.0, 0.0)


class _Stamp(NamedTuple):
    """What changes when a file is written to or replaced."""

    size: int
    time: int
    inode: int


def _stamp(path: str | Path) -> _Stamp | None:
    """Of a local file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return _Stamp(found.st_size, found.st_mtime_ns, found.st_ino)


def _open(path: str | Path, parts: Mosaic | None) -> rasterio.DatasetReader:
    name = locations.gdal_name(path)
    if parts:
        try:
            return rasterio.open(parts.document, driver="VRT")
        except RasterioIOError as error:  # its message may hold the whole document
            raise SceneError(f"{path} is no mosaic that GDAL can read") from error
    if locations.is_remote(path):
        locations.set_requests()
        with rasterio.Env(**locations.OPENING):
            return _by_some_driver(path, name)
    if not str(path):  # as what is not set can be
        raise SceneError("an input has an empty name; give that of a file")
    if not os.path.exists(path):  # which any name can be asked for
        raise AbsentError(str(path), why=why_unseen(path))
    if not os.path.isfile(path):  # a FIFO would be waited for, and a device has no end
        raise SceneError(f"{path} is {'a folder' if os.path.isdir(path) else 'a device'}, not a raster file")
    sidecars.check_access(path)
    return _by_some_driver(path, name)


def _by_some_driver(path: str | Path, name: str) -> rasterio.DatasetReader:
    for driver in DRIVERS:
        try:
            return rasterio.open(name, driver=driver)
        except RasterioIOError as error:
            if failure := locations.network_failure(str(error)):
                raise SceneError(f"{redacted(path)} cannot be fetched: {failure}") from None
            if driver == DRIVERS[0]:
                reason = error
    more = ", or its server cannot send parts of files" if locations.is_remote(path) else ""
    raise SceneError(
        f"{redacted(path)} is not a readable GeoTIFF, JPEG 2000 or NITF file{more}: {told_of(path, str(reason))}"
    ) from (None if locations.is_remote(path) else reason)  # whose message may hold secrets
