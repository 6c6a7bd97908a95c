"""From windows to scores: how a scene is passed through once, tile by tile, in bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, Protocol

import numpy as np

from pansharpen_cli.errors import UsageError
from pansharpen_cli.imaging.tiling import Span, Tile
from pansharpen_cli.metrics.formulas import Moments
from pansharpen_cli.metrics.image import Float64, Mask, Pixels
from pansharpen_cli.system.concurrency import in_order

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


Sums = tuple[Any, ...]
"""What a metric keeps of a tile, and of all tiles: numbers, arrays and `Scatter`s that are added up."""


class Margins(Protocol):
    """What metrics need around the core of a tile: pixels before and after it."""

    @property
    def before(self) -> int: ...

    @property
    def after(self) -> int: ...


class Family(Margins, Protocol):
    """Metrics that share sums: those of a window, and the scores that their totals give."""

    def measure(self, window: Window) -> Sums: ...

    def scores(self, sums: Sums) -> dict[str, Score]: ...


def gather(
    measure: Callable[[Tile], list[Sums]], todo: Sequence[Tile], threads: int, on_tile: OnTile = lambda *_: None
) -> list[Sums]:
    """The totals of what `measure` keeps of each tile. Tiles are measured in `threads` threads and added in order, so
    that the last digit does not depend on them."""
    _keep_memory()
    totals: list[Sums] = []
    for done, parts in enumerate(in_order(measure, todo, threads), 1):
        totals = [_added(*pair) for pair in zip(totals, parts, strict=True)] if totals else parts
        on_tile(done, len(todo))
    return totals


def _keep_memory() -> None:
    """Let glibc keep the memory of a tile's arrays for those of the next: up to the size of the largest array that was
    given back it does not return them to the system, and faulting them in again takes a third of the time."""
    np.empty(31 * 2**20, np.uint8)  # it goes up to 32 MiB


def _added(total: Sums, part: Sums) -> Sums:
    return tuple(a + b for a, b in zip(total, part, strict=True))


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
    sizes = tile if isinstance(tile, Sequence) else (tile, tile)  # NumPy's integers are no int
    rows, cols = (
        [_widened(span, before, after, n) for span in cores(n, t, grain)] for n, t in zip(size, sizes, strict=True)
    )
    return [Tile(row, col) for row in rows for col in cols]


def margins(families: Iterable[Margins]) -> tuple[int, int]:
    """Pixels to read before and after a core."""
    needs = [(0, 0), *((family.before, family.after) for family in families)]
    return max(before for before, _ in needs), max(after for _, after in needs)


def _widened(span: Span, before: int, after: int, size: int) -> Span:
    return Span(span.start, span.stop, max(0, span.start - before), min(size, span.stop + after))


class BlockMap:
    """One value for each block of an image of `size`, one every `shift` pixels; NaN where there is none."""

    def __init__(self, size: tuple[int, int], shift: int = BLOCK) -> None:
        self._shift = shift
        self.values = np.full([-(-n // shift) for n in size], np.nan)

    def put(self, tile: Tile, values: Float64) -> None:
        """Values of the blocks that start in the core of a tile; tiles may be put by several threads."""
        row, col = (span.start // self._shift for span in (tile.rows, tile.cols))
        self.values[row : row + values.shape[0], col : col + values.shape[1]] = values


@dataclass(frozen=True, eq=False)
class Scatter:
    """Number, mean and scatter matrix of vectors; those of two sets add up to those of both without losing digits
    (Chan et al. 1979)."""

    count: int
    mean: Float64
    matrix: Float64

    @classmethod
    def of(cls, image: Float64, valid: Mask) -> Scatter:
        """Of the spectra of the valid pixels of (bands, row, col)."""
        vectors = image.reshape(len(image), -1) if valid.all() else image[:, valid]
        count = vectors.shape[1]
        mean = vectors.sum(axis=1) / max(count, 1)
        centred = vectors - mean[:, None]
        return cls(count, mean, centred @ centred.T)

    @classmethod
    def of_blocks(cls, moments: Moments) -> Scatter:
        """Of the spectra of all pixels in blocks."""
        counts = moments.pixels.reshape(-1, 1)
        count = int(counts.sum())
        means = moments.mean.reshape(len(counts), -1)
        mean = (counts * means).sum(axis=0) / max(count, 1)
        steps = means - mean
        return cls(count, mean, moments.scatter.sum(axis=(0, 1)) + steps.T @ (counts * steps))

    def __add__(self, other: Scatter) -> Scatter:
        count = self.count + other.count
        step = other.mean - self.mean
        share = other.count / max(count, 1)
        matrix = self.matrix + other.matrix + np.outer(step, step) * (self.count * share)
        return Scatter(count, self.mean + step * share, matrix)
