"""How an MS lies on its PAN where the axes of neither need run along those of a map: in pixels of the PAN.

Images as a satellite took them are placed by RPCs, or along its track by a rotated geotransform. What has to be known
to sharpen them is only where a PAN pixel lies in the MS, and that is a smooth function of its row and column.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from affine import Affine

from pansharpen_cli.imaging.geogrid import GeoGrid
from pansharpen_cli.imaging.polynomial import Places, Polynomial
from pansharpen_cli.imaging.rpc import Rpc

Float64 = npt.NDArray[np.float64]

SAMPLED = 24
"""Places a side at which two images are compared."""
BEYOND = 0.05
"""Of the PAN's size: how far beyond its edges they lie."""
FITS = 0.02
"""MS pixels by which two images may lie otherwise on each other than a polynomial tells."""
REFINED = 5
"""Steps in which places on the ground are looked for."""
NEAR = 0.5
"""Pixels by which they may miss what was asked for."""
ENOUGH = 50
"""Places that tell a polynomial, with some to spare."""
DEGREE = 3
"""Of the polynomials; RPCs are quotients of such."""


@dataclass(frozen=True)
class Overlay:
    """Edge coordinates (x, y) of a PAN to those of its MS, and back, around the PAN.

    `upright`: the transform of MS pixels to those of the PAN if that is all; `parallax`: PAN pixels that places on
    other heights lie off at most, where RPCs tell.
    """

    to_ms: Polynomial
    to_pan: Polynomial
    upright: Affine | None
    parallax: float = 0.0

    def footprint(self, ms: GeoGrid) -> tuple[float, float, float, float]:
        """Lowest and highest coordinates of what the MS covers around the PAN: left, top, right, bottom."""
        cols, rows = (np.linspace(*ends, SAMPLED) for ends in self._known(ms))
        x, y = self.to_pan(*np.meshgrid(cols, rows))
        return float(x.min()), float(y.min()), float(x.max()), float(y.max())

    def middle(self, ms: GeoGrid) -> tuple[float, float]:
        """Column and row of an MS pixel in the middle of that."""
        cols, rows = self._known(ms)
        return sum(cols) / 2, sum(rows) / 2

    def _known(self, ms: GeoGrid) -> tuple[tuple[float, float], tuple[float, float]]:
        """First and last columns and rows of the MS around the PAN."""
        cols, rows = (
            (max(0.0, middle - half), min(float(size), middle + half))
            for size, middle, half in zip((ms.width, ms.height), self.to_pan.middle, self.to_pan.half, strict=True)
        )
        return cols, rows


def overlay(pan: GeoGrid, ms: GeoGrid, noticeable: float) -> Overlay | None:
    """Where a PAN pixel lies in the MS; None if they are placed in different ways, or by RPCs of different views.

    What is less than `noticeable` PAN pixels off counts as in its place.
    """
    wanted = _around(pan)
    if pan.rpc and ms.rpc and pan.by_rpc and ms.by_rpc:
        return _by_rpc(pan.rpc, ms.rpc, wanted, noticeable)
    if pan.by_rpc or ms.by_rpc or pan.crs != ms.crs:
        return None
    return _fitted(wanted, _applied(~ms.transform @ pan.transform, *wanted), noticeable)


def _by_rpc(pan: Rpc, ms: Rpc, wanted: Places, noticeable: float) -> Overlay | None:
    """By places on the ground, at the PAN's mean height, that both know and that lie about there in the PAN."""
    places = _shared(pan, ms, wanted) if pan.sound and ms.sound else None
    if places is None:
        return None
    level, *others = (_seen(pan, ms, *places, pan.height_off + step * pan.height_scale) for step in (0, -1, 1))
    found = _fitted(*level, noticeable) if np.isfinite(level).all() else None
    if found is None:
        return None
    off = [np.hypot(*np.subtract(found.to_pan(*in_ms), in_pan)).max() for in_pan, in_ms in others]
    return replace(found, parallax=float(max(off)))


def on_ground(rpc: Rpc, x: Float64, y: Float64) -> Places | None:
    """Latitudes and longitudes of edge coordinates x and y, a dozen or more, of an image at its mean height; None if
    none are found that lie there."""
    lat, long = rpc.ground(SAMPLED)
    row, col = rpc.edges(lat, long, rpc.height_off)
    for _ in range(REFINED):  # by what lies ever nearer
        if not np.isfinite([row, col]).all():
            return None
        lat, long = Polynomial.fitted((col, row), (lat, long), DEGREE)(x, y)
        row, col = rpc.edges(lat, long, rpc.height_off)
        if max(np.abs(col - x).max(), np.abs(row - y).max()) < NEAR:
            return lat, long
    return None


def corners_of(rpc: Rpc, height: int, width: int) -> list[tuple[float, float]] | None:
    """Longitudes and latitudes of an image of that size, once around; None if none are found."""
    places = on_ground(rpc, *np.meshgrid(np.linspace(0, width, SAMPLED), np.linspace(0, height, SAMPLED)))
    if places is None:
        return None
    lat, long = places
    return [(float(long[corner]), float(lat[corner])) for corner in ((0, 0), (0, -1), (-1, -1), (-1, 0))]


def _shared(pan: Rpc, ms: Rpc, wanted: Places) -> Places | None:
    """Latitudes and longitudes of places that lie in the PAN about where it is wanted, as far as the MS knows them;
    None if there are few."""
    row, col = pan.edges(*ms.ground(SAMPLED), pan.height_off)
    if not np.isfinite([row, col]).all():
        return None
    ends = [(max(axis.min(), at.min()), min(axis.max(), at.max())) for axis, at in zip(wanted, (col, row), strict=True)]
    if any(start >= stop for start, stop in ends):
        return None
    across, down = np.meshgrid(*(np.linspace(*end, SAMPLED) for end in ends))
    places = on_ground(pan, across, down)
    if places is None:
        return None
    known = pan.knows(*places) & ms.knows(*places)
    return (places[0][known], places[1][known]) if known.sum() >= ENOUGH else None


def _seen(pan: Rpc, ms: Rpc, lat: Float64, long: Float64, height: float) -> tuple[Places, Places]:
    """Edge coordinates of places in PAN and MS."""
    (row, col), (ms_row, ms_col) = (rpc.edges(lat, long, height) for rpc in (pan, ms))
    return (col, row), (ms_col, ms_row)


def _fitted(in_pan: Places, in_ms: Places, noticeable: float) -> Overlay | None:
    """None if no polynomial is so smooth, there and back."""
    if min(map(np.ptp, in_ms)) == 0:
        return None
    to_ms, to_pan = Polynomial.fitted(in_pan, in_ms, DEGREE), Polynomial.fitted(in_ms, in_pan, DEGREE)
    ratio = np.sqrt(np.ptp(in_pan[0]) * np.ptp(in_pan[1]) / (np.ptp(in_ms[0]) * np.ptp(in_ms[1])))
    off = np.hypot(*np.subtract(to_ms(*in_pan), in_ms)).max(), np.hypot(*np.subtract(to_pan(*in_ms), in_pan)).max()
    if not (off[0] <= FITS and off[1] <= FITS * ratio):
        return None
    (across, left), (down, top) = (np.polyfit(m.ravel(), p.ravel(), 1) for m, p in zip(in_ms, in_pan, strict=True))
    upright = Affine(across, 0, left, 0, down, top)
    as_upright = np.abs(np.subtract(_applied(upright, *in_ms), in_pan)).max()
    return Overlay(to_ms, to_pan, upright if as_upright <= noticeable else None)


def _around(pan: GeoGrid) -> Places:
    """Edge coordinates (x, y) all over the PAN and a little beyond."""
    x, y = (np.linspace(-BEYOND, 1 + BEYOND, SAMPLED) * size for size in (pan.width, pan.height))
    across, down = np.meshgrid(x, y)
    return across, down


def _applied(transform: Affine, x: Float64, y: Float64) -> Places:
    a, b, c, d, e, f = transform[:6]
    return a * x + b * y + c, d * x + e * y + f
