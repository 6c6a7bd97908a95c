"""Where a PAN and its MS lie on each other: on upright grids of one CRS, on those of two, or, where neither need be
upright, in the pixels of the PAN."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyproj
from affine import Affine
from pyproj.exceptions import ProjError

from pansharpen_cli.errors import SceneError
from pansharpen_cli.imaging.geogrid import GeoGrid
from pansharpen_cli.imaging.overlay import overlay

log = logging.getLogger(__name__)

Float64 = npt.NDArray[np.float64]
Places = tuple[Float64, Float64]
"""Coordinates x and y of many places."""

NOTICEABLE = 0.01
"""PAN pixels: no smaller shift between two CRS, or two images, changes anything."""
PARALLAX = 1.0
"""PAN pixels by which places on other heights may lie off before it is told."""


class Warp(Protocol):
    """Coordinates of the PAN's grid to those of the MS's, and back."""

    def to_ms(self, x: Float64, y: Float64) -> Places: ...

    def to_pan(self, x: Float64, y: Float64) -> Places: ...

    def footprint(self, ms: GeoGrid) -> tuple[float, float, float, float]:
        """Lowest and highest coordinates of what the MS covers, as far as it is known: left, bottom, right, top."""
        ...

    def middle(self, ms: GeoGrid) -> tuple[float, float]:
        """Column and row of a pixel in the middle of that."""
        ...


@dataclass(frozen=True)
class BetweenCrs:
    """A warp by what PROJ knows of two CRS, as WKT. Each call makes its own transformer: threads may not share one.

    `longitude`: what the MS counts its own around, if it has them: PROJ stops at 180 degrees, a scene goes on;
    `pan_longitude`: the same of the PAN.
    """

    pan: str
    ms: str
    longitude: float | None = None
    pan_longitude: float | None = None

    def to_ms(self, x: Float64, y: Float64) -> Places:
        x, y = pyproj.Transformer.from_crs(self.pan, self.ms, always_xy=True).transform(x, y)
        return _counted_around(self.longitude, x), y

    def to_pan(self, x: Float64, y: Float64) -> Places:
        x, y = pyproj.Transformer.from_crs(self.ms, self.pan, always_xy=True).transform(x, y)
        return _counted_around(self.pan_longitude, x), y

    def footprint(self, ms: GeoGrid) -> tuple[float, float, float, float]:
        to_pan = pyproj.Transformer.from_crs(self.ms, self.pan, always_xy=True)
        left, bottom, right, top = to_pan.transform_bounds(*ms.bounds)
        if self.pan_longitude is not None:
            right += 360 * (left > right)  # across 180 degrees
            middle = (left + right) / 2
            turn = float(_counted_around(self.pan_longitude, np.array(middle))) - middle
            left, right = left + turn, right + turn
        return left, bottom, right, top

    def middle(self, ms: GeoGrid) -> tuple[float, float]:
        return ms.width / 2, ms.height / 2


def _counted_around(longitude: float | None, x: Float64) -> Float64:
    """The longitudes `x` as they are counted around `longitude`; None: they are none."""
    return x if longitude is None else x + 360 * np.round((longitude - x) / 360)


@dataclass(frozen=True)
class Placing:
    """Upright grids of a PAN and an MS, each in coordinates of its own if there is a `warp` between them;
    `ms_under_pan` is in those of the PAN: the MS's grid, or one of the same pixel size over its footprint."""

    pan: GeoGrid
    ms: GeoGrid
    ms_under_pan: GeoGrid
    warp: Warp | None = None


def in_one_crs(pan: GeoGrid, ms: GeoGrid, names: tuple[str, str]) -> tuple[GeoGrid, GeoGrid]:
    """Where only one of two maps tells its CRS, it is both's; that is said."""
    if pan.by_rpc or ms.by_rpc or (pan.crs is None) == (ms.crs is None):
        return pan, ms
    silent, telling = names if pan.crs is None else names[::-1]
    log.warning("%s names no CRS; it is taken to have that of %s", silent, telling)
    return replace(pan, crs=pan.crs or ms.crs), replace(ms, crs=ms.crs or pan.crs)


def place(pan: GeoGrid, ms: GeoGrid, names: tuple[str, str]) -> Placing:
    """How they lie on each other; both are placed by something. Raises SceneError, with their `names`, if what places
    them does not say."""
    with _in_words(*names):
        ms = _turned(ms, pan)
        if _upright(pan) and _upright(ms):
            warp = _between_crs(pan, ms)
            return _warped(pan, ms, warp, names) if warp else Placing(pan, ms, ms)
        found = overlay(pan, ms, NOTICEABLE)
        if found is None:
            raise SceneError(_apart(pan, ms, *names))
        if found.parallax > PARALLAX:
            log.warning(
                "%s and %s were seen from different sides: what lies high or low is up to %.1f PAN pixels off; "
                "orthorectified with an elevation model they would match", *names, found.parallax,
            )  # fmt: skip
        pan, ms = (GeoGrid(grid.height, grid.width, Affine.identity()) for grid in (pan, ms))
        if found.upright:
            ms = replace(ms, transform=found.upright)
            return Placing(pan, ms, ms)
        return _warped(pan, ms, found, names)


def _apart(pan: GeoGrid, ms: GeoGrid, pan_name: str, ms_name: str) -> str:
    if pan.by_rpc and ms.by_rpc:
        return f"{pan_name} and {ms_name} have RPCs by which they do not lie on each other; are they of one scene?"
    return (
        f"{pan_name} and {ms_name} are not both on upright grids, and are placed in different ways; warp both to one "
        "map projection first"
    )


def _upright(grid: GeoGrid) -> bool:
    return grid.upright and not grid.by_rpc


def _turned(ms: GeoGrid, pan: GeoGrid) -> GeoGrid:
    """The MS with its longitudes counted around those of the PAN, if both have any: one may have 0 to 360."""
    if any(grid.by_rpc or not grid.crs or not pyproj.CRS.from_wkt(grid.crs).is_geographic for grid in (ms, pan)):
        return ms
    there, here = ((grid.transform @ (grid.width / 2, grid.height / 2))[0] for grid in (ms, pan))
    turn = 360 * round((here - there) / 360)
    return replace(ms, transform=Affine.translation(turn, 0) @ ms.transform) if turn else ms


def _between_crs(pan: GeoGrid, ms: GeoGrid) -> Warp | None:
    """None if places have the same coordinates in both, to NOTICEABLE PAN pixels."""
    if pan.crs is None or ms.crs is None or pan.crs == ms.crs:
        return None
    of_pan, of_ms = pyproj.CRS.from_wkt(pan.crs), pyproj.CRS.from_wkt(ms.crs)
    if of_pan == of_ms:
        return None
    around = (
        grid.cols.coordinate(grid.width / 2) if crs.is_geographic else None
        for grid, crs in ((ms, of_ms), (pan, of_pan))
    )
    warp = BetweenCrs(pan.crs, ms.crs, *around)
    corners = np.transpose(ms.corners)
    moved = np.abs(np.subtract(warp.to_pan(*corners), corners))
    same = (moved < NOTICEABLE * min(pan.gsd)).all()  # nor if PROJ knows no answer
    return None if same else warp


def _warped(pan: GeoGrid, ms: GeoGrid, warp: Warp, names: tuple[str, str]) -> Placing:
    west, south, east, north = warp.footprint(ms)
    col, row = warp.middle(ms)
    x, y = warp.to_pan(ms.cols.coordinate(col + np.array([0.0, 1, 0])), ms.rows.coordinate(row + np.array([0.0, 0, 1])))
    if not np.isfinite([west, south, east, north, *x, *y]).all():
        raise SceneError(f"{names[1]} lies where the CRS of {names[0]} means nothing; check the CRS of both")
    step = np.hypot(x[1] - x[0], y[1] - y[0]), np.hypot(x[2] - x[0], y[2] - y[0])
    height, width = round((north - south) / step[1]), round((east - west) / step[0])
    under_pan = GeoGrid(height, width, Affine(step[0], 0, west, 0, -step[1], north), pan.crs)
    return Placing(pan, ms, under_pan, warp)


@contextmanager
def _in_words(pan: str, ms: str) -> Iterator[None]:
    """PROJ's errors as ours."""
    try:
        yield
    except ProjError as error:
        raise SceneError(f"{ms} has a CRS from which no way leads to that of {pan}; warp it to that first") from error
