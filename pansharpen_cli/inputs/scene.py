"""The only reader: a PAN and its MS, opened and checked. canvas.py serves them on nested grids."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cached_property
from itertools import groupby
from pathlib import Path
from threading import Lock
from types import TracebackType
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pyproj
import rasterio
from affine import Affine
from pyproj.exceptions import ProjError
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioIOError
from rasterio.windows import Window

from pansharpen_cli.errors import SceneError
from pansharpen_cli.imaging.geogrid import GeoGrid
from pansharpen_cli.imaging.radiometry import holds
from pansharpen_cli.inputs import mosaic, sidecars
from pansharpen_cli.inputs.mosaic import Blocks, Mosaic
from pansharpen_cli.system import locations
from pansharpen_cli.system.files import redacted

log = logging.getLogger(__name__)

Float32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Nodata = float | Literal["file", "none"]
"""The value that means no data; "file": what mask, alpha band or metadata say; "none": every finite pixel is data."""

DRIVERS = ["GTiff", "JP2OpenJPEG", "NITF"]
"""The formats that are opened, besides mosaics. Others can name further files or URLs (WMS, ...)."""

RATIO_TOLERANCE = 0.05
"""Relative misfit between the true ratio and a whole one that the one interpolation of the MS takes up."""

NOTICEABLE = 0.01
"""PAN pixels: no smaller shift between two CRS changes anything."""

MOST_RATIO = 32
"""MS pixels so many PAN pixels wide say nothing of a PAN pixel's colour, and windows of them fill the memory."""

MOST_BANDS = 4096
"""Of a file."""

BLOCK_LIMIT = 2**28
"""Bytes of a block of all bands that are stored together. It is decoded as a whole, and a header can claim any size."""

EXPANSION_LIMIT = 1000
"""Bytes of pixels that a byte of a local file may stand for: DEFLATE comes to that with zeros, images to 10."""
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
            self._check()
            self._choose(bands)
        except SceneError:
            self.close()
            raise
        self.nodata = self._nodata(nodata)
        self._masked = nodata == "file" and self.nodata is None and self._has_mask()
        dataset = self._dataset
        self.dtype = self._common_dtype()
        self.georeferenced = dataset.crs is not None or dataset.transform != Affine.identity()
        crs = dataset.crs.to_wkt() if dataset.crs else None
        self.grid = GeoGrid(dataset.height, dataset.width, dataset.transform, crs)

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
        if dataset.transform == Affine.identity() and (dataset.gcps[0] or dataset.rpcs):
            raise SceneError(
                f"{self.path} is placed by {'GCPs' if dataset.gcps[0] else 'RPCs'} only; orthorectify it first"
            )
        if not GeoGrid(1, 1, dataset.transform).upright:
            raise SceneError(f"{self.path} has a rotated or sheared geotransform; warp it to an upright grid first")
        if any("complex" in kind for kind in dataset.dtypes):  # GDAL's complex integers are no NumPy type
            raise SceneError(f"{self.path} holds complex numbers; only real images can be sharpened")
        if any(kind in ("int64", "uint64") for kind in dataset.dtypes):
            raise SceneError(f"{self.path} holds integers of 64 bits; convert it to 32 bits or to float64")
        if dataset.colorinterp[0] == ColorInterp.palette:
            raise SceneError(f"{self.path} holds numbers of palette colours, no radiometry; expand it to RGB first")
        self._check_size()

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

    def _has_mask(self) -> bool:
        """True if an internal mask or alpha band says where data is; it comes before a nodata value."""
        flags = self._dataset.mask_flag_enums[self.indexes[0] - 1]
        return self._alpha is not None or (MaskFlags.per_dataset in flags and MaskFlags.alpha not in flags)

    def read(self, rows: slice, cols: slice) -> tuple[Float32, Mask]:
        """A window inside the raster: (bands, h, w) in DN, and (h, w) True where there is data.

        No data: all bands hold the nodata value, or any holds NaN or infinity.
        """
        window = Window(cols.start, rows.start, cols.stop - cols.start, rows.stop - rows.start)
        try:
            raw, mask = self._read(window)
            if mask is not None:
                valid = mask > 0
            elif self.nodata is None or np.isnan(self.nodata):
                valid = np.ones(raw.shape[1:], bool)
            elif np.issubdtype(raw.dtype, np.floating):
                valid = (raw != raw.dtype.type(self.nodata)).any(axis=0)
            else:  # compared as numbers: the type may not hold the value
                valid = (raw != self.nodata).any(axis=0)
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
        return SceneError(f"{self.path} cannot be read at rows {rows.start}-{rows.stop}: {redacted(reason)}")

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
    if parts:
        try:
            return rasterio.open(parts.document, driver="VRT")
        except RasterioIOError as error:  # its message may hold the whole document
            raise SceneError(f"{path} is no mosaic that GDAL can read") from error
    name = locations.gdal_name(path)
    if locations.is_remote(path):
        locations.set_requests()
        with rasterio.Env(**locations.OPENING):
            return _by_some_driver(path, name)
    if not os.path.exists(path):  # which any name can be asked for
        raise SceneError(f"{path} does not exist")
    if not os.path.isfile(path):  # a FIFO would be waited for, and a device has no end
        raise SceneError(f"{path} is {'a folder' if os.path.isdir(path) else 'a device'}, not a raster file")
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
        f"{redacted(path)} is not a readable GeoTIFF, JPEG 2000 or NITF file{more}: {redacted(str(reason))}"
    ) from (None if locations.is_remote(path) else reason)  # whose message may hold secrets


def _chosen(
    bands: Sequence[int], paths: Sequence[str | Path], rasters: Sequence[Raster]
) -> Iterator[tuple[str | Path, list[int]]]:
    """The files that hold `bands`, numbered through all files, in this order, and their own band numbers."""
    everything = [(path, index) for path, raster in zip(paths, rasters, strict=True) for index in raster.indexes]
    if not bands or min(bands) < 1 or max(bands) > len(everything):
        raise SceneError(f"{rasters[0].path} has bands 1 to {len(everything)}, not {', '.join(map(str, bands))}")
    for path, group in groupby((everything[band - 1] for band in bands), key=lambda chosen: chosen[0]):
        yield path, [index for _, index in group]


class Scene:
    """A PAN and its MS, which may be several files on one grid. Use as a context manager, or close it."""

    def __init__(self, pan: Raster, ms: Sequence[Raster]) -> None:
        self.pan = pan
        self.ms = list(ms)
        self._check()

    @classmethod
    def open(
        cls,
        pan: str | Path,
        *ms: str | Path,
        nodata: Nodata = "file",
        bands: Sequence[int] | None = None,
        names: Sequence[str] | None = None,
    ) -> Scene:
        """Open `pan` and one or several `ms` files; `names` replace those of the bands.

        `bands`: the MS bands to use, numbered from 1 through all files.
        Raises SceneError in one sentence for whatever cannot be sharpened.
        """
        if not ms:
            raise SceneError(f"{pan} has no MS with it; give the MS files after the PAN")
        with ExitStack() as opened:

            def keep(path: str | Path, indexes: Sequence[int] | None = None) -> Raster:
                raster = Raster(path, nodata, indexes)
                opened.callback(raster.close)
                return raster

            rasters = [keep(pan), *map(keep, ms)]
            if bands is not None:
                rasters[1:] = [keep(path, indexes) for path, indexes in _chosen(bands, ms, rasters[1:])]
            scene = cls(rasters[0], rasters[1:])
            if names is not None:
                scene._rename(names)
            opened.pop_all()  # from here on the scene closes them
        return scene

    def _rename(self, names: Sequence[str]) -> None:
        if len(names) != len(self.band_names):
            raise SceneError(
                f"{self.ms[0].path} has {len(self.band_names)} bands but {len(names)} names were given; name each once"
            )
        rest = list(names)
        for raster in self.ms:
            raster.names, rest = rest[: len(raster.names)], rest[len(raster.names) :]

    def _check(self) -> None:
        pan, first = self.pan, self.ms[0]
        if len(pan.indexes) != 1:
            raise SceneError(f"{pan.path} has {len(pan.indexes)} bands; a PAN has one (is it the MS?)")
        for raster in self.ms[1:]:
            if not raster.grid.matches(first.grid):
                raise SceneError(f"{raster.path} is not on the pixel grid of {first.path}; resample it first")
        if pan.georeferenced != first.georeferenced:
            lone = first if pan.georeferenced else pan
            raise SceneError(f"{lone.path} is not georeferenced but its partner is; georeference both or neither")
        if not pan.georeferenced:  # two plain images of the same ground
            self.pan_grid = pan.grid
            stretch = Affine.scale(pan.grid.width / first.grid.width, pan.grid.height / first.grid.height)
            self.ms_grid = GeoGrid(first.grid.height, first.grid.width, stretch)
        else:
            self.pan_grid, self.ms_grid = pan.grid, first.grid
        if self.exact_ratio < 1 - RATIO_TOLERANCE:
            raise SceneError(f"{first.path} has smaller pixels than {pan.path}; give the PAN first, then the MS")
        if self.exact_ratio > MOST_RATIO:
            raise SceneError(
                f"{first.path} has pixels {self.exact_ratio:.3g} times those of {pan.path}; sharpen in steps of at "
                f"most {MOST_RATIO}"
            )
        if self.exact_ratio < 1.5:
            raise SceneError(f"{first.path} has pixels as small as {pan.path}'s; there is nothing to sharpen")
        across, down = (m / p for m, p in zip(self.ms_under_pan.gsd, self.pan_grid.gsd, strict=True))
        if abs(across / down - 1) > 2 * RATIO_TOLERANCE:
            raise SceneError(
                f"{first.path} has pixels {across:.3g} times as wide as {pan.path} but {down:.3g} times as high; "
                "resample it to one ratio first"
            )

    @property
    def band_names(self) -> list[str]:
        return [name for raster in self.ms for name in raster.names]

    @property
    def scaling(self) -> list[tuple[float, float]]:
        """Scale and offset of each MS band, which make its DN what was measured."""
        return [pair for raster in self.ms for pair in raster.scaling]

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """The type that holds every MS band."""
        return np.result_type(*(raster.dtype for raster in self.ms))

    @property
    def nodata(self) -> float | None:
        """What the product's nodata value should be: the MS's, else the PAN's."""
        return next((r.nodata for r in (*self.ms, self.pan) if r.nodata is not None), None)

    def nodata_as(self, dtype: np.dtype[np.generic]) -> float | None:
        """... of a product of this type, which may not hold the value: gaps are then told by a mask."""
        return self.nodata if self.nodata is None or holds(dtype, self.nodata) else None

    @property
    def may_have_gaps(self) -> bool:
        """True if some pixels may hold no data (the product then needs a nodata value or a mask)."""
        rasters = (*self.ms, self.pan)
        floating = any(np.issubdtype(r.dtype, np.floating) for r in rasters)
        return floating or self.reprojected or any(r.nodata is not None or r._masked for r in rasters)

    @cached_property
    def reprojected(self) -> bool:
        """Whether the MS has a CRS in which places have other coordinates; by NOTICEABLE PAN pixels or more."""
        pan, ms = self.pan_grid, self.ms_grid
        if pan.crs is None or ms.crs is None or pan.crs == ms.crs:
            return False
        with self._in_words():
            if pyproj.CRS.from_wkt(pan.crs) == pyproj.CRS.from_wkt(ms.crs):
                return False
            corners = np.array(np.meshgrid(ms.cols.ends, ms.rows.ends)).reshape(2, -1)
            moved = pyproj.Transformer.from_crs(ms.crs, pan.crs, always_xy=True).transform(*corners) - corners
        return not (np.abs(moved) < NOTICEABLE * min(pan.gsd)).all()  # nor if PROJ knows no answer

    @contextmanager
    def _in_words(self) -> Iterator[None]:
        """PROJ's errors as ours."""
        try:
            yield
        except ProjError as error:
            raise SceneError(
                f"{self.ms[0].path} has a CRS from which no way leads to that of {self.pan.path}; warp it to that first"
            ) from error

    @cached_property
    def ms_under_pan(self) -> GeoGrid:
        """The MS grid in the PAN's CRS: itself, or a grid of the same pixel size over its footprint."""
        if not self.reprojected:
            return self.ms_grid
        ms = self.ms_grid
        (left, right), (bottom, top) = ms.cols.ends, ms.rows.ends
        with self._in_words():
            to_pan = pyproj.Transformer.from_crs(ms.crs, self.pan_grid.crs, always_xy=True)
            west, south, east, north = to_pan.transform_bounds(left, bottom, right, top)
            x, y = to_pan.transform(
                ms.cols.coordinate(ms.width / 2 + np.array([0, 1, 0])),
                ms.rows.coordinate(ms.height / 2 + np.array([0, 0, 1])),
            )
        if not np.isfinite([west, south, east, north, *x, *y]).all():
            raise SceneError(
                f"{self.ms[0].path} lies where the CRS of {self.pan.path} means nothing; check the CRS of both"
            )
        step = np.hypot(x[1] - x[0], y[1] - y[0]), np.hypot(x[2] - x[0], y[2] - y[0])
        height, width = round((north - south) / step[1]), round((east - west) / step[0])
        return GeoGrid(height, width, Affine(step[0], 0, west, 0, -step[1], north), self.pan_grid.crs)

    @cached_property
    def exact_ratio(self) -> float:
        """MS pixel size over PAN pixel size, mean of the two axes."""
        pan, ms = self.pan_grid.gsd, self.ms_under_pan.gsd
        return float(np.sqrt(ms[0] / pan[0] * ms[1] / pan[1]))

    @property
    def ratio(self) -> int:
        """The nearest whole ratio."""
        return round(self.exact_ratio)

    def check_unchanged(self) -> None:
        """Raises SceneError if a file is not the one that was opened: some of what was read may be of another scene."""
        for raster in (self.pan, *self.ms):
            if not raster.unchanged:
                raise SceneError(f"{raster.path} was changed while it was read; run again when it is complete")

    def close(self) -> None:
        for raster in (self.pan, *self.ms):
            raster.close()

    def __enter__(self) -> Scene:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
