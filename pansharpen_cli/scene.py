"""The only reader: a PAN and its MS, opened and checked. canvas.py serves them on nested grids."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cached_property
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyproj
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioIOError
from rasterio.windows import Window

from pansharpen_cli.errors import SceneError
from pansharpen_cli.files import redacted
from pansharpen_cli.geogrid import GeoGrid

Float32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Nodata = float | Literal["file", "none"]
"""The value that means no data; "file": what mask, alpha band or metadata say; "none": every finite pixel is data."""

DRIVERS = ["GTiff", "JP2OpenJPEG", "NITF"]
"""The formats that are opened. Others can name further files or URLs (VRT, WMS, ...)."""

RATIO_TOLERANCE = 0.05
"""Relative misfit between the true ratio and a whole one that the one interpolation of the MS takes up."""


class Raster:
    """One open file: its grid, its bands, and which pixels hold data."""

    def __init__(self, path: str | Path, nodata: Nodata = "file", bands: Sequence[int] | None = None) -> None:
        self.path = redacted(path)
        self._dataset = _open(path)
        try:
            self._check()
            self._choose(bands)
        except SceneError:
            self.close()
            raise
        self.nodata = self._nodata(nodata)
        self._masked = nodata == "file" and self.nodata is None and self._has_mask()
        dataset = self._dataset
        self.dtype = np.dtype(dataset.dtypes[self.indexes[0] - 1])
        self.georeferenced = dataset.crs is not None or dataset.transform != Affine.identity()
        crs = dataset.crs.to_wkt() if dataset.crs else None
        self.grid = GeoGrid(dataset.height, dataset.width, dataset.transform, crs)

    def _check(self) -> None:
        dataset = self._dataset
        if dataset.transform == Affine.identity() and (dataset.gcps[0] or dataset.rpcs):
            raise SceneError(
                f"{self.path} is placed by {'GCPs' if dataset.gcps[0] else 'RPCs'} only; orthorectify it first"
            )
        if not GeoGrid(1, 1, dataset.transform).upright:
            raise SceneError(f"{self.path} has a rotated or sheared geotransform; warp it to an upright grid first")
        if any("complex" in kind for kind in dataset.dtypes):  # GDAL's complex integers are no NumPy type
            raise SceneError(f"{self.path} holds complex numbers; only real images can be sharpened")

    def _choose(self, bands: Sequence[int] | None) -> None:
        dataset = self._dataset
        if bands is None:
            alpha = self._alpha
            bands = [i for i in dataset.indexes if i != alpha]
        for index in bands:
            if index not in dataset.indexes:
                raise SceneError(f"{self.path} has no band {index}; it has {dataset.count}")
        self.indexes = list(bands)
        stem = Path(self.path).stem
        names = [dataset.descriptions[i - 1] or "" for i in self.indexes]
        self.names = [n or (stem if len(names) == 1 else f"band {i}") for n, i in zip(names, self.indexes, strict=True)]

    @cached_property
    def _alpha(self) -> int | None:
        """The band that is a mask. Writers mark the fourth band of any image as alpha: a named band is no mask."""
        dataset = self._dataset
        last = dataset.count
        if last < 2 or dataset.colorinterp[-1] != ColorInterp.alpha:
            return None
        if (dataset.descriptions[-1] or "alpha").lower() != "alpha":
            return None
        shape = (min(512, dataset.height), min(512, dataset.width))
        values = np.unique(dataset.read(last, out_shape=shape))
        top = np.iinfo(dataset.dtypes[-1]).max if "int" in dataset.dtypes[-1] else 1
        return last if set(values.tolist()) <= {0, top} else None

    def _nodata(self, option: Nodata) -> float | None:
        if option == "none":
            return None
        if option != "file":
            return float(option)
        value = self._dataset.nodatavals[self.indexes[0] - 1]
        return None if value is None or self._has_mask() else float(value)

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
            raw = self._dataset.read(self.indexes, window=window)
            if self._masked:
                mask = self._dataset.read(self._alpha, window=window) if self._alpha else None
                mask = self._dataset.read_masks(self.indexes[0], window=window) if mask is None else mask
                valid = mask > 0
            elif self.nodata is None or np.isnan(self.nodata):
                valid = np.ones(raw.shape[1:], bool)
            elif np.issubdtype(raw.dtype, np.floating):
                valid = (raw != raw.dtype.type(self.nodata)).any(axis=0)
            else:  # compared as numbers: the type may not hold the value
                valid = (raw != self.nodata).any(axis=0)
        except RasterioIOError as error:
            raise SceneError(f"{self.path} cannot be read at rows {rows.start}-{rows.stop}: {error}") from error
        if np.issubdtype(raw.dtype, np.floating):
            valid &= np.isfinite(raw).all(axis=0)
        data = raw.astype(np.float32)
        if not valid.all():
            data[:, ~valid] = 0
        return data, valid

    @property
    def by_value(self) -> bool:
        """True if a value says where there is no data, not a mask."""
        return self.nodata is not None and not np.issubdtype(self.dtype, np.floating)

    def tags(self, namespace: str) -> dict[str, str]:
        """The file's tags in a namespace."""
        return dict(self._dataset.tags(ns=namespace))

    def close(self) -> None:
        self._dataset.close()


def _open(path: str | Path) -> rasterio.DatasetReader:
    if "://" not in str(path) and not str(path).startswith("/vsi"):
        if not Path(path).exists():
            raise SceneError(f"{path} does not exist")
        if Path(path).is_dir():
            raise SceneError(f"{path} is a folder, not a raster file")
    for driver in DRIVERS:
        try:
            return rasterio.open(path, driver=driver)
        except RasterioIOError as error:
            if driver == DRIVERS[0]:
                reason = error
    raise SceneError(
        f"{redacted(path)} is not a readable GeoTIFF, JPEG 2000 or NITF file: {redacted(str(reason))}"
    ) from reason


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
    def dtype(self) -> np.dtype[np.generic]:
        """The type that holds every MS band."""
        return np.result_type(*(raster.dtype for raster in self.ms))

    @property
    def nodata(self) -> float | None:
        """What the product's nodata value should be: the MS's, else the PAN's."""
        return next((r.nodata for r in (*self.ms, self.pan) if r.nodata is not None), None)

    @property
    def may_have_gaps(self) -> bool:
        """True if some pixels may hold no data (the product then needs a nodata value or a mask)."""
        rasters = (*self.ms, self.pan)
        floating = any(np.issubdtype(r.dtype, np.floating) for r in rasters)
        return floating or self.reprojected or any(r.nodata is not None or r._masked for r in rasters)

    @cached_property
    def reprojected(self) -> bool:
        pan, ms = self.pan_grid.crs, self.ms_grid.crs
        return pan is not None and ms is not None and pyproj.CRS.from_wkt(pan) != pyproj.CRS.from_wkt(ms)

    @cached_property
    def ms_under_pan(self) -> GeoGrid:
        """The MS grid in the PAN's CRS: itself, or a grid of the same pixel size over its footprint."""
        if not self.reprojected:
            return self.ms_grid
        ms = self.ms_grid
        to_pan = pyproj.Transformer.from_crs(ms.crs, self.pan_grid.crs, always_xy=True)
        (left, right), (bottom, top) = ms.cols.ends, ms.rows.ends
        west, south, east, north = to_pan.transform_bounds(left, bottom, right, top)
        x, y = to_pan.transform(
            ms.cols.coordinate(ms.width / 2 + np.array([0, 1, 0])),
            ms.rows.coordinate(ms.height / 2 + np.array([0, 0, 1])),
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

    def close(self) -> None:
        for raster in (self.pan, *self.ms):
            raster.close()

    def __enter__(self) -> Scene:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
