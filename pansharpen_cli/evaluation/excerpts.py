"""A scene in memory: whole, or where it is too large for that, excerpts that stand for it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pansharpen_cli.imaging.tiling import Pixels, Span, Tile
from pansharpen_cli.inputs.canvas import Canvas

EXCERPTS = 9
MARGIN = 4
"""Grains on both sides of a joint that are not valid: what filters and networks see there is another ground's."""
LOOKS = 24
"""MS pixels along an axis that are looked at to see where a part of a scene holds data: of any scene as many."""

Ints = npt.NDArray[np.int_]


def held(canvas: Canvas, most: int | None, grain: int) -> Pixels:
    """PAN and MS of a canvas, whole, or if that is more than `most` PAN pixels, at most so many in excerpts.

    Excerpts lie in equal parts of the canvas, in the middle or where more is valid, begin on multiples of `grain` PAN
    pixels, themselves a multiple of the ratio, and are put side by side; at their joints nothing is valid.
    """
    height, width = canvas.rows.size, canvas.cols.size
    if most is None or height * width <= most:
        return canvas.read(Tile(Span(0, height, 0, height), Span(0, width, 0, width)))
    down = max(1, min(EXCERPTS, round(math.sqrt(EXCERPTS * height / width))))
    side = max(1, math.isqrt(most // EXCERPTS) // grain) * grain
    rows, cols = (_spread(size, side, count, grain) for size, count in ((height, down), (width, EXCERPTS // down)))
    parts = [[_excerpt(canvas, row, col) for col in cols] for row in rows]
    pan = np.block([[part.pan for part in line] for line in parts])
    ms = np.block([[part.ms for part in line] for line in parts])
    valid = np.block([[part.valid for part in line] for line in parts])
    for axis, count in ((valid, len(rows)), (valid.T, len(cols))):
        for joint in range(side, count * side, side):
            axis[max(0, joint - MARGIN * grain) : joint + MARGIN * grain] = False
    return Pixels(Tile(*(Span(0, size, 0, size) for size in valid.shape)), pan, ms, valid)


@dataclass(frozen=True, eq=False)
class _Places:
    """Along an axis, where an excerpt of `side` pixels may begin in its part: in the middle of it, or elsewhere."""

    side: int
    middle: int
    starts: Ints

    def span(self, start: int) -> Span:
        return Span(start, start + self.side, start, start + self.side)

    def looks(self, ratio: int) -> Ints:
        """Where the MS pixels begin that are looked at, spread evenly over all places."""
        first, last = self.starts.min(), self.starts.max() + self.side
        looks: Ints = np.linspace(first, last, 2 * LOOKS + 1)[1::2].astype(int) // ratio * ratio
        return looks

    def within(self, looks: Ints) -> Ints:
        """1 where an excerpt at a place (rows) holds what is looked at (columns), else 0."""
        return ((looks >= self.starts[:, None]) & (looks < self.starts[:, None] + self.side)).astype(int)


def _spread(size: int, side: int, count: int, grain: int) -> list[_Places]:
    """Places of `side` pixels in at most `count` equal parts of an axis, or the one over all of it."""
    if size <= side:
        return [_Places(size, 0, np.zeros(1, int))]
    count = min(count, size // side)
    found = []
    for number in range(count):
        middle = round((size * (number + 0.5) / count - side / 2) / grain)
        first, last = math.ceil(size * number / count / grain), math.floor((size * (number + 1) / count - side) / grain)
        apart = max(1, (last - first) // LOOKS)
        starts = np.unique([middle, *range(first, last + 1, apart)]) * grain
        found.append(_Places(side, middle * grain, starts))
    return found


def _excerpt(canvas: Canvas, rows: _Places, cols: _Places) -> Pixels:
    """That in the middle of a part, or if it has gaps, the one that seems to have the fewest, if it has fewer."""
    tile = Tile(rows.span(rows.middle), cols.span(cols.middle))
    there = _valid(canvas, tile)
    if there < rows.side * cols.side:
        fullest = _fullest(canvas, rows, cols)
        tile = fullest if _valid(canvas, fullest) > there else tile
    return canvas.read(tile)


def _valid(canvas: Canvas, tile: Tile) -> int:
    return int(np.count_nonzero(canvas.raw(*tile.read).valid))


def _fullest(canvas: Canvas, rows: _Places, cols: _Places) -> Tile:
    """The place with the most valid pixels of those looked at, of several the one nearest to the middle."""
    ratio = canvas.ratio
    y, x = rows.looks(ratio), cols.looks(ratio)
    seen = [[np.count_nonzero(canvas.raw(_pixel(row, ratio), _pixel(col, ratio)).valid) for col in x] for row in y]
    counts = rows.within(y) @ np.array(seen) @ cols.within(x).T
    away = np.abs(rows.starts - rows.middle)[:, None] + np.abs(cols.starts - cols.middle)
    row, col = np.unravel_index(np.lexsort((away.ravel(), -counts.ravel()))[0], counts.shape)
    return Tile(rows.span(int(rows.starts[row])), cols.span(int(cols.starts[col])))


def _pixel(start: int, ratio: int) -> slice:
    """The PAN pixels of an MS pixel."""
    return slice(int(start), int(start) + ratio)
