"""A writer whose finished tiles outlive it: a run that was killed goes on from them.

GDAL cannot: what a killed writer leaves reads as zeros. So the tiles also go, as they are, to a journal beside the
product, written from front to back: first of which job they are, then each with its place and checksum. The first one
that was cut short ends it. It takes as much of the disk as the pixels uncompressed, and goes when the product is there.

The journal is also what keeps two runs of one product apart: a run locks it, and the lock ends with its process.
"""

from __future__ import annotations

import os
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np

from pansharpen_cli.errors import OutputError, SceneError
from pansharpen_cli.outputs.layout import Mask, Pixels
from pansharpen_cli.outputs.writer import ProductWriter
from pansharpen_cli.system.files import in_words, remove_partials
from pansharpen_cli.system.locks import KEEPS_APART, locked

SYNC = 5.0
"""Seconds after which what is in the journal is on the disk; the operating system alone keeps it until then."""

_EDGES = struct.Struct("<4Q")  # rows and columns
_START = struct.Struct("<L4Q")  # of a tile: a checksum of what follows; after it pixels and mask


class Tile(NamedTuple):
    """Of a product: its place, its pixels (bands, h, w) in the product's dtype, and where they are valid (h, w)."""

    rows: slice
    cols: slice
    hrms: Pixels
    valid: Mask


class Claim:
    """The right to make `product`, which one run at a time has: its journal, open and locked.

    What killed runs left of the product is removed. On leaving the journal goes too, unless there is something in it to
    go on with.
    """

    def __init__(self, product: Path) -> None:
        self.product, self._path = product, journal_of(product)
        self.preface = 0
        """Bytes of the journal in front of its tiles, once a Journal has begun with them."""

    def __enter__(self) -> Self:
        """Raises BusyError if another run has it, OutputError if the journal cannot be kept."""
        with _kept(self.product), ExitStack() as life:
            self.file = life.enter_context(locked(self._path, self.product))
            remove_partials(self.product)
            life.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        holds_tiles = os.fstat(self.file.fileno()).st_size > self.preface
        hopeless = isinstance(error, SceneError) and self.preface > 0  # before, an input may be away for a while
        done = error is None or hopeless or not holds_tiles
        if done and KEEPS_APART:  # under the lock: afterwards it may be another run's
            self._remove()
        with suppress(OSError):  # what was written is whole tiles, or it does not count
            self.file.close()
        if done and not KEEPS_APART:  # Windows removes no open file
            self._remove()

    def _remove(self) -> None:
        with suppress(OSError):
            self._path.unlink()


def tidy(product: Path) -> None:
    """Remove what a run that was killed in its last moment left beside a finished product, if no other run is at it."""
    with suppress(OutputError), Claim(product):
        pass


class Journal:
    """The finished tiles of the product `path`, made as `key` says, of so many bands of a dtype, under a `claim` that
    was entered, or one of its own."""

    def __init__(self, path: Path, key: str, bands: int, dtype: np.dtype[Any], claim: Claim | None = None) -> None:
        self._product, self._claim = path, claim
        self._header = f"pansharpen tiles 1 {key}\n".encode()
        self._bands, self._dtype = bands, dtype
        self._synced = time.monotonic()

    def __enter__(self) -> Self:
        """Raises as entering a Claim, without one."""
        with ExitStack() as life:
            claim = self._claim or life.enter_context(Claim(self._product))
            claim.preface = len(self._header)
            self._file, self._life = claim.file, life.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._life.__exit__(kind, error, trace)

    def read(self) -> Iterator[Tile]:
        """The tiles that earlier runs finished; none if they made something else. New ones go behind them.

        Raises OutputError.
        """
        with _kept(self._product):
            yield from self._read()

    def _read(self) -> Iterator[Tile]:
        sound = 0
        if self._file.readline(len(self._header)) == self._header:
            sound = self._file.tell()
            while tile := self._next():
                sound = self._file.tell()
                yield tile
        self._file.seek(sound)
        self._file.truncate()
        if not sound:
            self._file.write(self._header)

    def _next(self) -> Tile | None:
        start = self._file.read(_START.size)
        if len(start) < _START.size:
            return None
        checksum, *edges = _START.unpack(start)
        top, bottom, left, right = edges
        shape = bottom - top, right - left
        size = shape[0] * shape[1]
        lengths = size * self._bands * self._dtype.itemsize, -(-size // 8)
        if min(shape) < 1 or sum(lengths) > os.fstat(self._file.fileno()).st_size:  # not written by `add`
            return None
        hrms, packed = map(self._file.read, lengths)
        if checksum != _checksum(edges, hrms, packed):
            return None
        valid = np.unpackbits(np.frombuffer(packed, np.uint8), count=size).astype(bool).reshape(shape)
        pixels = np.frombuffer(hrms, self._dtype).reshape(self._bands, *shape)
        return Tile(slice(top, bottom), slice(left, right), pixels, valid)

    def add(self, tile: Tile) -> None:
        """Raises OutputError."""
        with _kept(self._product):
            self._add(tile)

    def _add(self, tile: Tile) -> None:
        edges = tile.rows.start, tile.rows.stop, tile.cols.start, tile.cols.stop
        hrms, packed = np.ascontiguousarray(tile.hrms).data.cast("B"), np.packbits(tile.valid).tobytes()
        self._file.write(_START.pack(_checksum(edges, hrms, packed), *edges))
        self._file.write(hrms)
        self._file.write(packed)
        self._file.flush()
        if time.monotonic() - self._synced > SYNC:
            os.fsync(self._file.fileno())
            self._synced = time.monotonic()


class JournalingWriter(ProductWriter):
    """A ProductWriter with a journal: what earlier runs wrote as `key` says is in it when it is entered. `claim`: as of
    its Journal."""

    def __init__(self, key: str, claim: Claim | None, path: Path, *arguments: Any, **options: Any) -> None:
        super().__init__(path, *arguments, **options)
        self._journal = Journal(path, key, len(self._layout.bands), self.dtype, claim)

    def __enter__(self) -> Self:
        with ExitStack() as both:
            both.enter_context(self._journal)
            super().__enter__()
            both.push(super().__exit__)
            for tile in self._journal.read():
                super().write(*tile)
            self._both = both.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._both.__exit__(kind, error, trace)

    def write(self, rows: slice, cols: slice, hrms: Pixels, valid: Mask) -> None:
        super().write(rows, cols, hrms, valid)
        self._journal.add(Tile(rows, cols, hrms, valid))


def _kept(product: Path) -> AbstractContextManager[None]:
    return in_words(f"the journal of {product} cannot be kept")


def _checksum(edges: Sequence[int], hrms: bytes | memoryview, packed: bytes) -> int:
    return zlib.crc32(packed, zlib.crc32(hrms, zlib.crc32(_EDGES.pack(*edges))))


def journal_of(path: Path) -> Path:
    """Where the finished tiles of a product are kept."""
    return path.with_name(f".{path.name}.tiles")


def tiles_size(path: Path) -> int:
    """Bytes that the journal of a product takes; 0 if there is none."""
    try:
        return journal_of(path).stat().st_size
    except OSError:
        return 0
