"""From windows to scores: how a scene is passed through once, tile by tile, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from math import isfinite
from typing import Protocol

import numpy as np

from pansharpen_cli.errors import UsageError
from pansharpen_cli.metrics.image import Float64, Mask, Pixels
from pansharpen_cli.tiling import Span, Tile

BLOCK = 32
"""Pixels a side of the windows and blocks of all Q indices."""
TILE = 256
"""Pixels a side of a tile's core, a multiple of BLOCK: small enough for its sums to stay in the processor's cache."""

OnTile = Callable[[int, int], None]
"""Is told how many tiles are done, of how many."""


@dataclass(frozen=True)
class Score:
    """One metric of one scene.

    `value` is None where there is none, and `reason` says why. `counted`: the pixels, windows or blocks that entered;
    `invalid`: those left out because of missing data; `degenerate`: blocks where the formula has no value (left out)
    or a constant band (Q2n: the toolbox's rule for them is kept). `bands`: the values of the single bands, if any.
    """

    value: float | None
    counted: int
    invalid: int = 0
    degenerate: int = 0
    bands: tuple[float, ...] = ()
    reason: str = ""

    def published(self, strict: bool) -> Score:
        """As it may leave the program: only finite values, unless `strict` asks for the toolbox's NaN and infinity."""
        if strict or self.value is None or isfinite(self.value):
            return self
        reason = "the value is not finite" if self.counted else "no valid pixels to measure"
        return replace(self, value=None, bands=(), reason=self.reason or reason)


@dataclass(frozen=True, eq=False)
class Window:
    """Two images over what a tile reads: (bands, row, col) each, 0 where not `valid`; `size` is the whole image's."""

    tile: Tile
    size: tuple[int, int]
    reference: Float64
    fused: Float64
    valid: Mask

    @classmethod
    def of(cls, tile: Tile, size: tuple[int, int], reference: Pixels, fused: Pixels) -> Window:
        valid = reference.valid & fused.valid
        if valid.all():
            return cls(tile, size, reference.data, fused.data, valid)
        return cls(tile, size, np.where(valid, reference.data, 0), np.where(valid, fused.data, 0), valid)

    @property
    def invalid(self) -> int:
        return int(self.valid.size - np.count_nonzero(self.valid))

    def around(self, before: int = 0, after: int = 0) -> Window:
        """The core and a margin of it, as far as the image goes."""
        old = self.tile.rows, self.tile.cols
        spans = [_widened(span, before, after, n) for span, n in zip(old, self.size, strict=True)]
        rows, cols = (
            slice(new.read_start - was.read_start, new.read_stop - was.read_start)
            for new, was in zip(spans, old, strict=True)
        )
        return Window(
            Tile(*spans), self.size, self.reference[:, rows, cols], self.fused[:, rows, cols], self.valid[rows, cols]
        )


class Family(Protocol):
    """Metrics that share sums. Windows may be added in any order; `before` and `after` are the margins they need."""

    before: int
    after: int

    def add(self, window: Window) -> None: ...

    def scores(self) -> dict[str, Score]: ...


def cores(size: int, tile: int, grain: int) -> list[Span]:
    """An axis cut at multiples of `tile`, itself one of `grain`; a last piece below `grain` joins the one before.

    So a block that is completed by mirroring the last pixels finds them in its own tile.
    """
    if tile < grain or tile % grain:
        raise UsageError(f"tiles of {tile} pixels: the metrics need a multiple of {grain}")
    starts = list(range(0, size, tile))
    if len(starts) > 1 and size - starts[-1] < grain:
        starts.pop()
    return [Span(a, b, a, b) for a, b in zip(starts, [*starts[1:], size], strict=True)]


def tiles(size: tuple[int, int], tile: int | tuple[int, int], grain: int, before: int, after: int) -> list[Tile]:
    """The image cut into tiles, row by row, each reading a margin; `tile` is one size or (rows, cols)."""
    sizes = (tile, tile) if isinstance(tile, int) else tile
    rows, cols = (
        [_widened(span, before, after, n) for span in cores(n, t, grain)] for n, t in zip(size, sizes, strict=True)
    )
    return [Tile(row, col) for row in rows for col in cols]


def margins(families: Iterable[Family]) -> tuple[int, int]:
    """Pixels to read before and after a core."""
    needs = [(0, 0), *((family.before, family.after) for family in families)]
    return max(before for before, _ in needs), max(after for _, after in needs)


def _widened(span: Span, before: int, after: int, size: int) -> Span:
    return Span(span.start, span.stop, max(0, span.start - before), min(size, span.stop + after))


class BlockMap:
    """One value for each block, one every `shift` pixels; NaN where there is none."""

    def __init__(self, shift: int = BLOCK) -> None:
        self._shift = shift
        self.values: Float64 | None = None

    def put(self, tile: Tile, size: tuple[int, int], values: Float64) -> None:
        """Values of the blocks that start in the core of a tile of an image of `size`."""
        if self.values is None:
            self.values = np.full([-(-n // self._shift) for n in size], np.nan)
        row, col = (span.start // self._shift for span in (tile.rows, tile.cols))
        self.values[row : row + values.shape[0], col : col + values.shape[1]] = values


class Scatter:
    """Mean and scatter matrix of vectors, gathered in pieces without losing digits (Chan et al. 1979)."""

    def __init__(self, length: int) -> None:
        self.count = 0
        self.mean = np.zeros(length)
        self.matrix = np.zeros((length, length))

    def add(self, image: Float64, valid: Mask) -> None:
        """The spectra of the valid pixels of (length, row, col)."""
        vectors = image.reshape(len(image), -1) if valid.all() else image[:, valid]
        count = vectors.shape[1]
        if not count:
            return
        mean = vectors.mean(axis=1)
        centred = vectors - mean[:, None]
        step = mean - self.mean
        total = self.count + count
        self.matrix += centred @ centred.T + np.outer(step, step) * (self.count * count / total)
        self.mean += step * (count / total)
        self.count = total
