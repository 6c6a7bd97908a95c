"""`--max-memory`: as many tiles at once, and as large ones, as the memory allows."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from pansharpen_cli.backends.backend import Backend
from pansharpen_cli.backends.halves import in_halves
from pansharpen_cli.backends.sharpener import Sharpener
from pansharpen_cli.errors import UsageError
from pansharpen_cli.imaging.tiling import Pixels, Tile
from pansharpen_cli.inputs.blocks import MOST
from pansharpen_cli.inputs.canvas import Canvas
from pansharpen_cli.system import memory

log = logging.getLogger(__name__)

Float32 = npt.NDArray[np.float32]

PROBE = 256
"""PAN pixels a side of the core by which a method's appetite is measured."""
SMALLEST = 64
"""PAN pixels a side below which no tile is cut."""
SPARE = 1.15
"""What is measured once is taken for so many times as much."""
WRITING = 64 * 2**20
"""Bytes for GDAL besides its cache: blocks that are being compressed, overviews."""
WAITING = 5
"""Tiles that were read or wait to be written, besides those that are being sharpened."""


class Limited:
    """A backend that sharpens at most `at_once` tiles at the same time, larger ones than `largest` (PAN pixels, halo
    included) in halves. Its pixels are the same."""

    def __init__(self, backend: Backend, largest: float, at_once: int) -> None:
        self._backend, self._largest = backend, largest
        self.at_once, self.reach, self.crop = at_once, backend.reach, backend.crop

    def share(self, threads: int) -> None:
        self._backend.share(threads)

    def observe(self, tiles: Iterable[Pixels]) -> None:
        self._backend.observe(tiles)

    def __call__(self, pan: Float32, ms: Float32) -> Float32:
        halved = in_halves(self, pan, ms, self.reach) if pan.size > self._largest else None
        return self._backend(pan, ms) if halved is None else halved


def within(
    limit: int, sharpener: Sharpener, canvas: Canvas, tiles: Sequence[Tile], cache: Callable[[int], int]
) -> Sharpener:
    """The same sharpener, kept within `limit` bytes for the whole process while it sharpens `tiles`. `cache`: the bytes
    that GDAL keeps of such a limit.

    One part of a tile is sharpened to see what it takes. Raises UsageError if the limit is too low.
    """
    observing = memory.most()
    backend, bands = sharpener.backend, len(sharpener.order)
    probe = canvas.read(canvas.tiles(PROBE, backend.reach)[0])
    sharpener(probe)  # the first time more is loaded and compiled
    memory.give_back()
    before = memory.resident()
    taken = memory.highest(lambda: sharpener(probe)) - before
    appetite = SPARE * max(taken / probe.pan.size, 4 * (1 + bands))  # a PAN pixel
    whole = max(_read_size(tile) for tile in tiles)
    waiting = 4 * (1 + 2 * bands) * whole
    besides = before + WRITING + WAITING * waiting
    room = limit - besides - cache(limit)
    at_once = max(1, min(backend.at_once, int(room / (appetite * whole + waiting))))
    largest = (room - at_once * waiting) / (appetite * at_once)
    smallest = (SMALLEST + 2 * backend.reach.halo) ** 2
    if observing > limit or largest < min(whole, smallest):
        one = besides + waiting + appetite * smallest
        kept = cache(int(SPARE * (one + MOST)))  # GDAL keeps more, the more it may
        least = SPARE * max(observing, one + kept)
        raise UsageError(f"--max-memory {memory.words(limit)} is too little here; {memory.words(least)} should do")
    log.info(
        "%s: %d tile%s at once, %s", memory.words(limit), at_once, "s" if at_once > 1 else "",
        "whole" if largest >= whole else f"cut to {largest**0.5:.0f} PAN pixels a side",
    )  # fmt: skip
    return replace(sharpener, backend=Limited(backend, max(largest, 0), at_once))


def _read_size(tile: Tile) -> int:
    """PAN pixels."""
    rows, cols = (span.read_stop - span.read_start for span in (tile.rows, tile.cols))
    return rows * cols
