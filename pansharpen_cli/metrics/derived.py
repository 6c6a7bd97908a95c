"""Images that are computed while they are read, at the scale and with the borders of the field's toolbox."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pansharpen_cli import mtf
from pansharpen_cli.interpolation import KERNELS, expand, polyphase
from pansharpen_cli.metrics.formulas import whole
from pansharpen_cli.metrics.image import Float64, Image, Pixels, pixels, pixels_beyond


def exp_kernel(ratio: int) -> str:
    """The interpolation of EXP: the toolbox's 23 taps double, so other ratios than 2, 4, 8, ... take the cubic."""
    return "23tap" if ratio & (ratio - 1) == 0 else "cubic"


@dataclass(frozen=True, eq=False)
class Expanded:
    """EXP: an MS image brought to PAN pixels, MS sample i on PAN index ratio * i + `phase`. It wraps round its borders.

    A PAN pixel is valid if all MS pixels within the filter's radius (8 for the toolbox's) are.
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
        kernel = exp_kernel(self.ratio)
        radius = polyphase(kernel, self.ratio, self.phase).radius
        coarse = [slice(s.start // self.ratio, -(-s.stop // self.ratio)) for s in (rows, cols)]
        wide = [slice(s.start - radius, s.stop + radius) for s in coarse]
        data, valid = pixels_beyond(self.image, wide[0], wide[1], "wrap")
        exp = expand(data, self.ratio, self.phase, kernel)
        first = [self.ratio * s.start for s in wide]
        inside = [slice(s.start - f, s.stop - f) for s, f in zip((rows, cols), first, strict=True)]
        reached = whole(valid, 2 * radius + 1).repeat(self.ratio, axis=0).repeat(self.ratio, axis=1)
        skip = radius * self.ratio
        under = [slice(s.start - skip, s.stop - skip) for s in inside]
        return Pixels(np.asarray(exp[:, inside[0], inside[1]], dtype=np.float64), reached[under[0], under[1]])


@lru_cache(maxsize=8)
def _reduction(ratio: int) -> tuple[int, Float64]:
    """First PAN pixel and weights of the antialiased bicubic for MS pixel 0 (MATLAB's imresize)."""
    pan = np.arange(-2 * ratio, 3 * ratio)
    weights = KERNELS["cubic"][0]((pan - (ratio - 1) / 2) / ratio)
    used = np.flatnonzero(weights)
    weights = weights[used[0] : used[-1] + 1]
    return int(pan[used[0]]), weights / weights.sum()


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
        first, weights = _reduction(self.ratio)
        last = first + len(weights) - self.ratio
        wide = [slice(self.ratio * s.start + first, self.ratio * s.stop + last) for s in (rows, cols)]
        data, valid = pixels_beyond(self.image, wide[0], wide[1], "symmetric")
        for axis in (1, 2):
            windows = np.lib.stride_tricks.sliding_window_view(data, len(weights), axis=axis)
            data = (windows[:, :: self.ratio] if axis == 1 else windows[:, :, :: self.ratio]) @ weights
        return Pixels(data, whole(valid, len(weights))[:: self.ratio, :: self.ratio])


class Filtered:
    """An image through a symmetric kernel a band, borders replicated; a pixel is valid if all pixels under it are.

    The whole 41 x 41 kernel is applied by Fourier transform: three times faster than its six separable parts that
    reach 1e-8, and exact.
    """

    def __init__(self, image: Image, kernels: Sequence[Float64]) -> None:
        self.image, self.kernels = image, kernels
        self.bands, self.shape = image.bands, image.shape
        self._size: tuple[int, ...] = ()
        self._spectra: list[npt.NDArray[np.complex128]] = []

    def read(self, rows: slice, cols: slice) -> Pixels:
        taps = len(self.kernels[0])
        half = taps // 2
        data, valid = pixels_beyond(
            self.image, slice(rows.start - half, rows.stop + half), slice(cols.start - half, cols.stop + half), "edge"
        )
        size = data.shape[1:]
        if size != self._size:  # most tiles have the same
            self._size, self._spectra = size, [np.fft.rfft2(kernel, s=size) for kernel in self.kernels]
        result = np.empty((len(data), rows.stop - rows.start, cols.stop - cols.start))
        for band, spectrum in enumerate(self._spectra):
            filtered = np.fft.irfft2(np.fft.rfft2(data[band]) * spectrum, s=size)
            result[band] = filtered[taps - 1 :, taps - 1 :]  # what wraps round falls into the margin
        return Pixels(result, whole(valid, taps))


def blurred(fused: Image, ratio: int, gains: Sequence[float]) -> Filtered:
    """A product as the MS camera sees it, before decimation; `gains` at the MS Nyquist frequency, one a band."""
    return Filtered(fused, [mtf.kernel(ratio, gain) for gain in gains])


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
