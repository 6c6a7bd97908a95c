"""What a metric reads: images that give windows of themselves, from memory here, from files elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Lock
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from pansharpen_cli.errors import UsageError

Float64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


class Image(Protocol):
    """Bands of pixels in digital numbers (DN), readable by windows inside `shape` (rows, cols)."""

    @property
    def bands(self) -> int: ...

    @property
    def shape(self) -> tuple[int, int]: ...

    def read(self, rows: slice, cols: slice) -> tuple[npt.NDArray[Any], Mask]:
        """(bands, row, col), any real type, and `valid` (row, col), True where there is data.

        Where a metric is given several threads, they read at the same time; `Locked` helps an image that cannot.
        """
        ...


class Pixels(NamedTuple):
    """A window that was read: (bands, row, col) with 0 where it is not `valid` (row, col)."""

    data: npt.NDArray[Any]
    valid: Mask


@dataclass(frozen=True, eq=False)
class ArrayImage:
    """An image in memory: `array` (bands, row, col); `valid` (row, col), by default everywhere that it is not masked.
    Numbers for `valid`, as a file's mask has them, say so where they are not 0.

    A NaN where it is valid makes the scores undefined: a product must not hide one. Raises UsageError for other shapes,
    nothing at all, and what is no real number.
    """

    array: npt.NDArray[Any]
    valid: Mask | None = None

    def __post_init__(self) -> None:
        if self.array.ndim != 3:
            raise UsageError(f"an image has the axes bands, row, col; this one has the shape {self.array.shape}")
        if not self.array.size:
            raise UsageError(f"an image has bands and pixels; this one has the shape {self.array.shape}")
        if self.array.dtype.kind not in "buif":
            raise UsageError(f"an image holds real numbers; this one holds {self.array.dtype}")
        if self.valid is not None:
            if self.valid.shape != self.array.shape[1:]:
                raise UsageError(f"where an image of {self.shape} pixels is valid has the shape {self.valid.shape}")
            object.__setattr__(self, "valid", self.valid != 0)
        if np.ma.isMaskedArray(self.array):
            known = ~np.ma.getmaskarray(self.array).any(axis=0)
            object.__setattr__(self, "valid", known if self.valid is None else known & self.valid)
            object.__setattr__(self, "array", self.array.filled(0))

    @property
    def bands(self) -> int:
        return len(self.array)

    @property
    def shape(self) -> tuple[int, int]:
        return int(self.array.shape[1]), int(self.array.shape[2])

    def read(self, rows: slice, cols: slice) -> tuple[npt.NDArray[Any], Mask]:
        window = self.array[:, rows, cols]
        return window, np.ones(window.shape[1:], bool) if self.valid is None else self.valid[rows, cols]


@dataclass(frozen=True, eq=False)
class Cropped:
    """A rectangle of an image as an image of its own."""

    image: Image
    rows: slice
    cols: slice

    @property
    def bands(self) -> int:
        return self.image.bands

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows.stop - self.rows.start, self.cols.stop - self.cols.start

    def read(self, rows: slice, cols: slice) -> tuple[npt.NDArray[Any], Mask]:
        row, col = self.rows.start, self.cols.start
        return self.image.read(
            slice(row + rows.start, row + rows.stop), slice(col + cols.start, col + cols.stop)
        )  # fmt: skip


class Locked:
    """An image that is read by one thread at a time; images of one file share the `lock`."""

    def __init__(self, image: Image, lock: Lock) -> None:
        self._image, self._lock = image, lock
        self.bands, self.shape = image.bands, image.shape

    def read(self, rows: slice, cols: slice) -> tuple[npt.NDArray[Any], Mask]:
        with self._lock:
            return self._image.read(rows, cols)


class Held:
    """An image that answers from the window it read last where it can: metrics of one tile share one read."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.bands, self.shape = image.bands, image.shape
        self._rows = self._cols = slice(0, 0)
        self._window: tuple[npt.NDArray[Any], Mask] = np.empty((0, 0, 0)), np.empty((0, 0), bool)

    def read(self, rows: slice, cols: slice) -> tuple[npt.NDArray[Any], Mask]:
        if not (_inside(rows, self._rows) and _inside(cols, self._cols)):
            self._rows, self._cols, self._window = rows, cols, self.image.read(rows, cols)
        part = _moved(rows, -self._rows.start), _moved(cols, -self._cols.start)
        return self._window[0][:, part[0], part[1]], self._window[1][part]


def _inside(inner: slice, outer: slice) -> bool:
    return bool(outer.start <= inner.start and inner.stop <= outer.stop)


def _moved(span: slice, by: int) -> slice:
    return slice(span.start + by, span.stop + by)


def pixels(image: Image, rows: slice, cols: slice) -> Pixels:
    """A window inside the image, as float64."""
    data, valid = cleared(image, rows, cols)
    return Pixels(np.asarray(data, dtype=np.float64), valid)


def cleared(image: Image, rows: slice, cols: slice) -> Pixels:
    """A window inside the image, in its own type."""
    data, valid = image.read(rows, cols)
    return Pixels(data if valid.all() else np.where(valid, data, 0), valid)


def _mirror(index: npt.NDArray[np.intp], size: int) -> npt.NDArray[np.intp]:
    turn = index % (2 * size)
    return np.minimum(turn, 2 * size - 1 - turn)


BORDERS: dict[str, Callable[[npt.NDArray[np.intp], int], npt.NDArray[np.intp]]] = {
    "wrap": lambda index, size: index % size,
    "edge": lambda index, size: np.clip(index, 0, size - 1),
    "symmetric": _mirror,  # the edge itself is repeated
}
"""Which pixel stands for one beyond the border; the names are those of numpy.pad."""


def pixels_beyond(image: Image, rows: slice, cols: slice, border: str) -> Pixels:
    """A window that may reach beyond the image, in the image's own type; of far edges only the pixels that stand in it
    are read."""
    places = [BORDERS[border](np.arange(s.start, s.stop), n) for s, n in zip((rows, cols), image.shape, strict=True)]
    if all(place[0] == s.start and place[-1] == s.stop - 1 for place, s in zip(places, (rows, cols), strict=True)):
        return cleared(image, rows, cols)  # wholly inside
    used = [np.unique(place) for place in places]
    pieces = [[cleared(image, row, col) for col in _runs(used[1])] for row in _runs(used[0])]
    data = _joined([_joined([piece.data for piece in row], axis=-1) for row in pieces], axis=-2)
    valid = _joined([_joined([piece.valid for piece in row], axis=-1) for row in pieces], axis=-2)
    for axis, (have, place) in enumerate(zip(used, places, strict=True), start=-2):
        runs = _runs(np.searchsorted(have, place))
        data, valid = _taken(data, runs, axis), _taken(valid, runs, axis)
    return Pixels(data, valid)


def _runs(indices: npt.NDArray[np.intp]) -> list[slice]:
    """Indices as stretches of one after the other."""
    breaks = np.flatnonzero(np.diff(indices) != 1) + 1
    return [slice(int(run[0]), int(run[-1]) + 1) for run in np.split(indices, breaks)]


def _taken(image: npt.NDArray[Any], runs: list[slice], axis: int) -> npt.NDArray[Any]:
    """Stretches of an image (..., row, col) put together along `axis`: much faster than index by index."""
    return _joined([image[..., run, :] if axis == -2 else image[..., run] for run in runs], axis)


def _joined(parts: list[npt.NDArray[Any]], axis: int) -> npt.NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=axis)
