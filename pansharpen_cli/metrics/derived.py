"""Images that are computed while they are read, at the scale and with the borders of the field's toolbox."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from pansharpen_cli.imaging import mtf
from pansharpen_cli.imaging.filters import in_steps, reduce, with_room
from pansharpen_cli.imaging.interpolation import KERNELS, expand_inside, polyphase
from pansharpen_cli.metrics.formulas import whole
from pansharpen_cli.metrics.image import Float64, Image, Pixels, pixels, pixels_beyond


def exp_kernel(ratio: int) -> str:
    """The interpolation of EXP: the toolbox's 23 taps double, so other ratios than 2, 4, 8, ... take the cubic."""
    return "23tap" if ratio & (ratio - 1) == 0 else "cubic"


@dataclass(frozen=True, eq=False)
class Expanded:
    """EXP: an MS image brought to PAN pixels, MS sample i on PAN index ratio * i + `phase`. It wraps round its borders.

    A PAN pixel is valid if all MS pixels under the filter are.
    """

    image: Image
    ratio: int
    phase: float

    @property
    def bands(self) -> int:
        return self.image.bands

    @property
    def shape(self) -> tuple[int, int]:
        return self.image.shape[0] * self.ratio, self.image.shape[1] * self.ratio

    def read(self, rows: slice, cols: slice) -> Pixels:
        filters = polyphase(exp_kernel(self.ratio), self.ratio, self.phase)
        before, after = filters.margins
        coarse = [slice(s.start // self.ratio, -(-s.stop // self.ratio)) for s in (rows, cols)]
        wide = [slice(s.start - before, s.stop + after) for s in coarse]
        data, valid = pixels_beyond(self.image, wide[0], wide[1], "wrap")
        exp = expand_inside(data.astype(np.float64), filters)
        reached = whole(valid, before + 1 + after).repeat(self.ratio, axis=1).repeat(self.ratio, axis=0)
        first = [self.ratio * s.start for s in coarse]
        inside = tuple(slice(s.start - f, s.stop - f) for s, f in zip((rows, cols), first, strict=True))
        return Pixels(exp[:, inside[0], inside[1]], reached[inside])


@lru_cache(maxsize=8)
def _reduction(ratio: int) -> tuple[int, Float64]:
    """First PAN pixel and taps of the antialiased bicubic for MS pixel 0 (MATLAB's imresize)."""
    pan = np.arange(-2 * ratio, 3 * ratio)
    weights = KERNELS["cubic"][0]((pan - (ratio - 1) / 2) / ratio)
    used = np.flatnonzero(weights)
    return int(pan[used[0]]), weights[used[0] : used[-1] + 1] / weights.sum()


@dataclass(frozen=True, eq=False)
class Reduced:
    """A PAN image at MS scale: the bicubic with antialiasing, borders mirrored."""

    image: Image
    ratio: int

    @property
    def bands(self) -> int:
        return self.image.bands

    @property
    def shape(self) -> tuple[int, int]:
        return self.image.shape[0] // self.ratio, self.image.shape[1] // self.ratio

    def read(self, rows: slice, cols: slice) -> Pixels:
        first, taps = _reduction(self.ratio)
        last = first + len(taps) - self.ratio
        wide = [slice(self.ratio * s.start + first, self.ratio * s.stop + last) for s in (rows, cols)]
        data, valid = pixels_beyond(self.image, wide[0], wide[1], "symmetric")
        low = np.empty((self.bands, rows.stop - rows.start, cols.stop - cols.start))
        reduce(with_room(data), in_steps(taps), self.ratio, low)
        return Pixels(low, whole(valid, len(taps))[:: self.ratio, :: self.ratio])


Filter = Callable[[npt.NDArray[Any], Float64], None]
"""Filters an image (row, col) into another, which has half a kernel less on all sides."""


@dataclass(frozen=True, eq=False)
class Filtered:
    """An image through a filter a band, borders replicated; a pixel is valid if all pixels under the kernel are."""

    image: Image
    filters: Sequence[Filter]

    @property
    def bands(self) -> int:
        return self.image.bands

    @property
    def shape(self) -> tuple[int, int]:
        return self.image.shape

    def read(self, rows: slice, cols: slice) -> Pixels:
        half = mtf.TAPS // 2
        wide = [slice(s.start - half, s.stop + half) for s in (rows, cols)]
        data, valid = pixels_beyond(self.image, wide[0], wide[1], "edge")
        result = np.empty((self.bands, rows.stop - rows.start, cols.stop - cols.start))
        for filtered, band, out in zip(self.filters, data, result, strict=True):
            filtered(band, out)
        return Pixels(result, whole(valid, mtf.TAPS))


PIECE = 256
"""Pixels a side that are transformed at once: few enough to stay in the processor's cache."""
TRANSFORM = PIECE + 44
"""Size of a Fourier transform: there is room for the margin of the kernels, and 300 has small factors."""


def by_fourier(kernel: Float64) -> Filter:
    """The filter by an MTF kernel (TAPS, TAPS)."""
    margin = mtf.TAPS - 1  # what wraps round falls into it
    spectrum = np.fft.rfft2(kernel, s=(TRANSFORM, TRANSFORM))

    def filtered(image: npt.NDArray[Any], out: Float64) -> None:
        for row, col in product(*(range(0, size, PIECE) for size in out.shape)):
            piece = image[row : row + PIECE + margin, col : col + PIECE + margin]
            response = np.fft.rfft2(piece.astype(np.float64), s=(TRANSFORM, TRANSFORM))
            response *= spectrum
            rows_done = np.fft.ifft(response, axis=0)[margin : piece.shape[0]]
            done = np.fft.irfft(rows_done, TRANSFORM, axis=1)[:, margin : piece.shape[1]]
            out[row : row + PIECE, col : col + PIECE] = done

    return filtered


def normalised_kernel(ratio: int, gain: float) -> Float64:
    """The MTF kernel without its negative values, sum 1, as the reprojection indices use it (Scarpa 2022)."""
    positive = np.maximum(mtf.kernel(ratio, gain), 0)
    return np.asarray(positive / positive.sum())


@dataclass(frozen=True, eq=False)
class Phases:
    """A one-band image decimated at all ratio x ratio phases: band ratio * col + row starts at (row, col)."""

    image: Image
    ratio: int

    @property
    def bands(self) -> int:
        return self.ratio**2

    @property
    def shape(self) -> tuple[int, int]:
        return self.image.shape[0] // self.ratio, self.image.shape[1] // self.ratio

    def read(self, rows: slice, cols: slice) -> Pixels:
        data, valid = _fine(self.image, rows, cols, self.ratio)
        height, width = data.shape[1] // self.ratio, data.shape[2] // self.ratio
        cells = (height, self.ratio, width, self.ratio)
        phases = data[0].reshape(cells).transpose(3, 1, 0, 2).reshape(self.bands, height, width)
        return Pixels(phases, np.asarray(valid.reshape(cells).all(axis=(1, 3))))


@dataclass(frozen=True, eq=False)
class Decimated:
    """An image decimated at a phase (row, col) of its own for each band."""

    image: Image
    ratio: int
    phases: Sequence[tuple[int, int]]

    @property
    def bands(self) -> int:
        return self.image.bands

    @property
    def shape(self) -> tuple[int, int]:
        return self.image.shape[0] // self.ratio, self.image.shape[1] // self.ratio

    def read(self, rows: slice, cols: slice) -> Pixels:
        data, valid = _fine(self.image, rows, cols, self.ratio)
        starts = [(slice(row, None, self.ratio), slice(col, None, self.ratio)) for row, col in self.phases]
        bands = np.stack([band[start] for band, start in zip(data, starts, strict=True)])
        return Pixels(bands, np.asarray(np.all([valid[start] for start in starts], axis=0)))


def _fine(image: Image, rows: slice, cols: slice, ratio: int) -> Pixels:
    """The pixels of `image` under a window that is `ratio` times coarser."""
    return pixels(image, *(slice(ratio * s.start, ratio * s.stop) for s in (rows, cols)))
