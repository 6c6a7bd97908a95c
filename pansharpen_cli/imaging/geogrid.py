"""Pixel grids on the ground, and how an MS grid is nested in a PAN grid. Values only: no pixels, no files.

One axis at a time: what nests is axis-aligned, so rows and columns are the same problem; overlay.py brings grids that
are not into the pixels of their PAN. A *position* counts samples, sample i at i; an *edge* coordinate counts pixel
borders, pixel i from i to i + 1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from affine import Affine

from pansharpen_cli.imaging.rpc import Rpc

Float64 = npt.NDArray[np.float64]
Number = TypeVar("Number", float, Float64)

ON_GRID = 1e-2
"""Pixels by which the pixels of a grid may miss those of another and still be the same."""
SAME_SIZE = 0.1
"""Pixels by which their sizes may differ over the whole of a grid."""
NESTED_WITHIN = 0.02
"""MS pixels by which an MS grid may miss the nested one and still be read as it is ..."""
UNNOTICED = 0.1
"""... and PAN pixels, which are fewer where the ratio is large."""


@dataclass(frozen=True)
class GeoGrid:
    """A pixel grid: its size, the affine transform of its pixel corners, its CRS as WKT (None: unknown), and where its
    pixels lie by RPCs, if it has any."""

    height: int
    width: int
    transform: Affine
    crs: str | None = None
    rpc: Rpc | None = None

    @property
    def by_rpc(self) -> bool:
        """True if only RPCs say where its pixels lie."""
        return self.rpc is not None and self.transform == Affine.identity()

    @property
    def upright(self) -> bool:
        """True if rows and columns run along the axes of the CRS."""
        t = self.transform
        return bool(abs(t.b) + abs(t.d) <= 1e-9 * (abs(t.a) + abs(t.e)) and t.a != 0 and t.e != 0)

    @property
    def rows(self) -> Axis:
        """Of an upright grid."""
        return Axis(self.height, self.transform.f, self.transform.e)

    @property
    def cols(self) -> Axis:
        """Of an upright grid."""
        return Axis(self.width, self.transform.c, self.transform.a)

    @property
    def gsd(self) -> tuple[float, float]:
        """Pixel size along rows and along columns, units of the CRS."""
        t = self.transform
        return float(np.hypot(t.a, t.d)), float(np.hypot(t.b, t.e))

    @property
    def corners(self) -> list[tuple[float, float]]:
        """Coordinates (x, y), once around from the first pixel's along its row."""
        around = (0, 0), (self.width, 0), (self.width, self.height), (0, self.height)
        return [self.transform @ corner for corner in around]

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """Lowest and highest coordinates: left, bottom, right, top."""
        x, y = zip(*self.corners, strict=True)
        return min(x), min(y), max(x), max(y)

    def matches(self, other: GeoGrid) -> bool:
        """True if both have the same pixels, to a thousandth of one."""
        if (self.height, self.width, self.crs, self.by_rpc) != (other.height, other.width, other.crs, other.by_rpc):
            return False
        if self.by_rpc:
            origin = self.origin_in(other)
            return origin is not None and max(map(abs, origin)) <= 1e-3
        away = np.abs(np.subtract(self.corners, other.corners))
        return bool((away <= 1e-3 * np.array(self.gsd)).all())

    def origin_in(self, other: GeoGrid, tolerance: float = SAME_SIZE) -> tuple[float, float] | None:
        """The place (row, col) of its first pixel among those of `other`, whole or not; None if its pixels are not of
        that size and direction, to a `tolerance` in pixels at its far corner."""
        if self.by_rpc or other.by_rpc:
            both = self.by_rpc and other.by_rpc
            return self.rpc.origin_in(other.rpc) if both and self.rpc and other.rpc else None
        first, across, far, down = (np.array(~other.transform @ corner) for corner in self.corners)
        wanted = [(self.width, 0), (self.width, self.height), (0, self.height)]
        if np.abs(np.subtract([across, far, down], first) - wanted).max() > tolerance:
            return None
        return float(first[1]), float(first[0])

    def crop(self, rows: slice, cols: slice) -> GeoGrid:
        """The grid of a window; `rows` and `cols` may lie outside."""
        origin = Affine.translation(cols.start, rows.start)
        return replace(
            self,
            height=rows.stop - rows.start,
            width=cols.stop - cols.start,
            transform=self.transform if self.by_rpc else self.transform @ origin,
            rpc=self.rpc and self.rpc.crop(rows.start, cols.start),
        )

    def coarsened(self, step: int, height: int, width: int) -> GeoGrid:
        """The grid of so many pixels `step` times as large, from its first one on."""
        return replace(
            self,
            height=height,
            width=width,
            transform=self.transform if self.by_rpc else self.transform @ Affine.scale(step),
            rpc=self.rpc and self.rpc.coarsened(step),
        )


@dataclass(frozen=True)
class Axis:
    """One axis of an upright grid: pixel i covers origin + step * i ... origin + step * (i + 1)."""

    size: int
    origin: float
    step: float

    @property
    def ends(self) -> tuple[float, float]:
        """Lowest and highest coordinate covered."""
        far = self.origin + self.step * self.size
        return min(self.origin, far), max(self.origin, far)

    def edge(self, coordinate: Number) -> Number:
        return (coordinate - self.origin) / self.step

    def coordinate(self, edge: Number) -> Number:
        return self.origin + self.step * edge


@dataclass(frozen=True)
class NestedAxis:
    """One axis of the canvas: PAN pixels, and an MS grid `ratio` times coarser nested in them.

    Canvas pixel 0 is PAN pixel `first`. The canvas has `size` PAN pixels, of which `start` ... `stop` are put out (the
    rest makes up whole MS pixels and multiples of what a network needs). Nested MS sample i sits on canvas position
    ratio * i + phase; in the MS file that is position `scale` * i + `offset`.
    """

    ratio: int
    first: int
    size: int
    start: int
    stop: int
    scale: float
    offset: float

    @property
    def as_is(self) -> bool:
        """True if nested samples are the file's own, one after the other: nothing needs interpolating."""
        last = self.size // self.ratio - 1
        start = round(self.offset)
        end = start + last * np.sign(self.scale)  # not just any sample: the drift may be a whole MS pixel
        misses = self.offset - start, self.offset + last * self.scale - end
        return bool(np.abs(misses).max() <= min(NESTED_WITHIN, UNNOTICED / self.ratio))

    def stretch(self, start: int, stop: int) -> NestedAxis:
        """The canvas pixels start ... stop - 1 alone, which are whole MS pixels."""
        return replace(
            self,
            first=self.first + start,
            size=stop - start,
            start=max(self.start, start) - start,
            stop=min(self.stop, stop) - start,
            offset=self.offset + start // self.ratio * self.scale,
        )

    def ms_positions(self, start: int, stop: int) -> Float64:
        """Positions in the MS file of the nested samples start ... stop - 1."""
        positions = np.arange(start, stop) * self.scale + self.offset
        return np.asarray(np.round(positions) if self.as_is else positions)

    def ms_position_of_pan(self, pan_pixels: Float64, phase: float) -> Float64:
        """Positions in the MS file of canvas `pan_pixels`."""
        return (pan_pixels - phase) / self.ratio * self.scale + self.offset


@dataclass(frozen=True)
class Overlap:
    """Where a PAN and an MS axis meet: PAN pixels start ... stop - 1; MS edge = PAN edge * scale + offset."""

    start: int
    stop: int
    scale: float
    offset: float


def overlap(pan: Axis, ms: Axis, shift: float = 0.0, inwards: tuple[float, float] = (0.0, 0.0)) -> Overlap:
    """The PAN pixels whose centre lies on the MS. Empty (start >= stop) if there are none.

    `shift`: PAN pixels by which the PAN lies further on than its geotransform says (co-registration); `inwards`: PAN
    pixels that must lie between such a centre and either end of the MS.
    """
    scale = pan.step / ms.step
    offset = ms.edge(pan.origin) + scale * shift
    ends = sorted(((0 - offset) / scale, (ms.size - offset) / scale))
    slack = 1e-6
    return Overlap(
        max(0, int(np.ceil(ends[0] + inwards[0] - 0.5 - slack))),
        min(pan.size, int(np.floor(ends[1] - inwards[1] - 0.5 + slack)) + 1),
        scale,
        offset,
    )


def nest(where: Overlap, ratio: int, phase: float, multiple_of: int) -> NestedAxis:
    """Put a nested MS grid under the overlap, as near to the MS file's own samples as whole PAN pixels allow.

    The canvas starts up to ratio - 1 PAN pixels early so that grids a whole number of PAN pixels apart need no
    interpolation, and its size is a multiple of `multiple_of` and `ratio`.
    """
    scale = where.scale * ratio

    def offset(first: int) -> float:
        return where.scale * (first + phase + 0.5) + where.offset - 0.5

    def miss(first: int) -> float:
        middle = scale * ((where.stop - first) // (2 * ratio)) + offset(first)
        return abs(middle - round(middle))

    first = min(range(where.start, where.start - ratio, -1), key=lambda f: round(miss(f), 6))
    grain = int(np.lcm(ratio, multiple_of))
    size = -(-(where.stop - first) // grain) * grain
    return NestedAxis(ratio, first, size, where.start - first, where.stop - first, scale, offset(first))
