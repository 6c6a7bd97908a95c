"""A PAN and its MS, opened and checked together. canvas.py serves them on nested grids."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt
from affine import Affine

from pansharpen_cli.errors import SceneError
from pansharpen_cli.imaging.geogrid import GeoGrid
from pansharpen_cli.imaging.radiometry import holds
from pansharpen_cli.inputs.placing import Placing, in_one_crs, place
from pansharpen_cli.inputs.raster import Nodata, Raster
from pansharpen_cli.system.files import same_file

log = logging.getLogger(__name__)

Float64 = npt.NDArray[np.float64]

RATIO_TOLERANCE = 0.05
"""Relative misfit between the true ratio and a whole one that the one interpolation of the MS takes up."""

MOST_RATIO = 32
"""MS pixels so many PAN pixels wide say nothing of a PAN pixel's colour, and windows of them fill the memory."""


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
        if any(same_file(raster.source, pan.source) for raster in self.ms):
            raise SceneError(f"{pan.path} is given as PAN and as MS; give it once, then the MS")
        for raster in self.ms[1:]:
            if not raster.grid.matches(first.grid):
                raise SceneError(f"{raster.path} is not on the pixel grid of {first.path}; resample it first")
        if pan.georeferenced != first.georeferenced:
            lone = first if pan.georeferenced else pan
            raise SceneError(f"{lone.path} is not georeferenced but its partner is; georeference both or neither")
        self._placing = self._placed()
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

    def _placed(self) -> Placing:
        names = self.pan.path, self.ms[0].path
        self.pan.grid, ms = in_one_crs(self.pan.grid, self.ms[0].grid, names)
        pan = self.pan.grid
        if self.pan.georeferenced:
            return place(pan, ms, names)
        if self.pan.remote:
            log.warning("%s is placed by nothing in it; RPCs beside a file that is fetched are not seen", self.pan.path)
        # two plain images of the same ground
        ms = replace(ms, transform=Affine.scale(pan.width / ms.width, pan.height / ms.height))
        return Placing(pan, ms, ms)

    @property
    def pan_grid(self) -> GeoGrid:
        """Upright; in pixels of the PAN's file where that is in no map projection."""
        return self._placing.pan

    @property
    def ms_grid(self) -> GeoGrid:
        """Upright, in the coordinates of the PAN's unless it is reprojected."""
        return self._placing.ms

    @property
    def ms_under_pan(self) -> GeoGrid:
        """The MS grid in the PAN's coordinates: itself, or a grid of the same pixel size over its footprint."""
        return self._placing.ms_under_pan

    @property
    def reprojected(self) -> bool:
        """Whether places have other coordinates in the MS."""
        return self._placing.warp is not None

    def to_ms(self, x: Float64, y: Float64) -> tuple[Float64, Float64]:
        """Coordinates of the PAN's grid as those of the MS's."""
        return self._placing.warp.to_ms(x, y) if self._placing.warp else (x, y)

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


def _chosen(
    bands: Sequence[int], paths: Sequence[str | Path], rasters: Sequence[Raster]
) -> Iterator[tuple[str | Path, list[int]]]:
    """The files that hold `bands`, numbered through all files, in this order, and their own band numbers."""
    everything = [(path, index) for path, raster in zip(paths, rasters, strict=True) for index in raster.indexes]
    others = [band for band in bands or [0] if not 1 <= band <= len(everything)]
    if others:
        raise SceneError(f"{rasters[0].path} has bands 1 to {len(everything)}, not {others[0]}")
    for path, group in groupby((everything[band - 1] for band in bands), key=lambda chosen: chosen[0]):
        yield path, [index for _, index in group]
