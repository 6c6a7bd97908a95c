"""How a scene is cut: each tile owns a core and reads a halo around it.

Everything is one-dimensional; a tile is a pair of spans. Coordinates are PAN pixels of the *canvas*, the scene on which
PAN and MS are nested: MS pixel i covers PAN pixels ratio * i ... ratio * (i + 1) - 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import lcm

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Span:
    """One axis of a tile, in pixels: the core it owns inside the stretch it reads."""

    start: int
    stop: int
    read_start: int
    read_stop: int

    @property
    def core(self) -> slice:
        """The core, on the canvas."""
        return slice(self.start, self.stop)

    @property
    def read(self) -> slice:
        """What is read, on the canvas."""
        return slice(self.read_start, self.read_stop)

    @property
    def inner(self) -> slice:
        """The core inside an array that holds what is read."""
        return slice(self.start - self.read_start, self.stop - self.read_start)

    def coarser(self, ratio: int) -> Span:
        """The same span in MS pixels; a core owns an MS pixel if it holds its first PAN pixel: each has one owner."""
        return Span(-(-self.start // ratio), -(-self.stop // ratio), self.read_start // ratio, self.read_stop // ratio)


@dataclass(frozen=True)
class Tile:
    """A rectangle of the canvas: a span of rows and one of columns."""

    rows: Span
    cols: Span

    @property
    def core(self) -> tuple[slice, slice]:
        return self.rows.core, self.cols.core

    @property
    def read(self) -> tuple[slice, slice]:
        return self.rows.read, self.cols.read

    @property
    def inner(self) -> tuple[slice, slice]:
        return self.rows.inner, self.cols.inner

    def coarser(self, ratio: int) -> Tile:
        return Tile(self.rows.coarser(ratio), self.cols.coarser(ratio))


@dataclass(frozen=True, eq=False)
class Pixels:
    """What is read for one tile: PAN and MS on nested grids, without gaps, and where they really hold data.

    `pan` (1, H, W) and `ms` (bands, H / ratio, W / ratio), float32, cover `tile.read`; `valid` (H, W) is True where
    both have data (elsewhere they are filled from their valid neighbours).
    """

    tile: Tile
    pan: npt.NDArray[np.float32]
    ms: npt.NDArray[np.float32]
    valid: npt.NDArray[np.bool_]

    @property
    def ratio(self) -> int:
        return int(self.pan.shape[-1] // self.ms.shape[-1])

    @property
    def ms_valid(self) -> npt.NDArray[np.bool_]:
        """(H / ratio, W / ratio): True where all PAN pixels of an MS pixel are valid."""
        rows, cols = self.ms.shape[-2:]
        if self.valid.all():
            return np.ones((rows, cols), bool)
        return np.asarray(self.valid.reshape(rows, self.ratio, cols, self.ratio).all(axis=(1, 3)))


@dataclass(frozen=True)
class Reach:
    """What a method needs around a pixel, in PAN pixels, to give the same value however the scene is cut.

    `halo`: how far a pixel's value can depend on its neighbours; `alignment`: tiles are read from multiples of this on;
    `multiple_of`: canvas and tile sizes are multiples of this. Besides, the way in which a machine computes may want
    tiles to begin at multiples of its `grid`, too, and to be read so much further than the halo: its `margin`.
    """

    halo: int = 0
    alignment: int = 1
    multiple_of: int = 1
    grid: int = 1
    margin: int = 0


def cut(start: int, stop: int, size: int, tile: int, reach: Reach, ratio: int) -> list[Span]:
    """Cut the cores [start, stop) of a canvas axis of `size` pixels into spans of `tile` pixels, the last one shorter.

    Reads are widened by the halo and outwards to multiples of alignment and ratio; they end where the canvas ends.
    """
    around = reach.halo + reach.margin
    grain = lcm(reach.alignment, reach.multiple_of, reach.grid, ratio)
    return [
        Span(
            core,
            min(core + tile, stop),
            max(0, (core - around) // grain * grain),
            min(size, -(-(min(core + tile, stop) + around) // grain) * grain),
        )
        for core in range(start, stop, tile)
    ]


def halves(size: int, reach: Reach, ratio: int) -> list[Span]:
    """A tile's axis of `size` pixels cut in two, each half with its halo; one span if that makes nothing smaller."""
    grain = lcm(reach.alignment, reach.multiple_of, reach.grid, ratio)
    spans = cut(0, size, size, -(-size // (2 * grain)) * grain, reach, ratio)
    smaller = all(span.read_stop - span.read_start < size for span in spans)
    return spans if smaller else [Span(0, size, 0, size)]


def spread(size: int, crop: int, count: int, grain: int) -> list[Span]:
    """At most `count` spans of `crop` pixels, evenly over a canvas axis of `size` pixels, from multiples of `grain` on.

    They are cores without a halo. A canvas shorter than a crop gives one span over all of it.
    """
    if size <= crop:
        return [Span(0, size, 0, size)]
    room = (size - crop) // grain
    count = min(count, size // crop, room + 1)
    starts = sorted({round(i * room / (count - 1)) * grain for i in range(count)}) if count > 1 else [room // 2 * grain]
    return [Span(s, s + crop, s, s + crop) for s in starts]
