"""From MS to PAN pixels: interpolation as explicit taps, used by the reader (any position), the classical methods and
the networks (an integer ratio, a fixed phase).

A position is counted in MS pixels, sample i at i. `phase` says where MS sample i sits among the PAN pixels: on
ratio * i + phase. A georeferenced pair has the *area* phase (ratio - 1) / 2; the field's toolbox and its data sets
have ratio / 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]
Float64 = npt.NDArray[np.float64]


def area_phase(ratio: int) -> float:
    """Phase of pixels as areas, the normal GeoTIFF geometry."""
    return (ratio - 1) / 2


def toolbox_phase(ratio: int) -> float:
    """Phase of the field's toolbox and of data made with it (PanCollection)."""
    return ratio / 2


def _keys(a: float) -> Callable[[Float64], Float64]:
    def cubic(x: Float64) -> Float64:
        x = np.abs(x)
        near = ((a + 2) * x - (a + 3)) * x**2 + 1
        far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
        return np.where(x <= 1, near, np.where(x < 2, far, 0.0))

    return cubic


def _lanczos3(x: Float64) -> Float64:
    return np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)


KERNELS: dict[str, tuple[Callable[[Float64], Float64], int]] = {
    "nearest": (lambda x: np.where((x > -0.5) & (x <= 0.5), 1.0, 0.0), 1),
    "bilinear": (lambda x: np.clip(1 - np.abs(x), 0, 1), 1),
    "cubic": (_keys(-0.5), 2),  # Keys 1981, as GDAL and MATLAB
    "bicubic": (_keys(-0.75), 2),  # torch's and OpenCV's constant, what PreMix was trained with
    "lanczos": (_lanczos3, 3),
}
"""Continuous kernels by name, with their radius in MS pixels."""

_HALF_BAND = (
    0.61066818237,
    0,
    -0.145397186478,
    0,
    0.043619155884,
    0,
    -0.010385513306,
    0,
    0.001615524292,
    0,
    -0.000120162964,
)
"""The 23-tap half-band filter of the toolbox's EXP (Aiazzi et al. 2002), from the tap next to the centre outwards."""


@dataclass(frozen=True, eq=False)
class Polyphase:
    """Expansion by an integer ratio: out[ratio * k + p] = sum over t of weights[p, t] * x[k + first + t]."""

    weights: Float64
    first: int

    @property
    def radius(self) -> int:
        """MS pixels on each side that one output pixel can read."""
        taps = self.weights.shape[1]
        return int(max(-self.first, self.first + taps - 1))


def taps_at(kernel: str, positions: Float64) -> tuple[npt.NDArray[np.intp], Float64]:
    """First sample and normalised weights for each of n `positions`: (n,) and (n, taps)."""
    function, radius = KERNELS[kernel]
    first = np.floor(positions).astype(np.intp) - radius + 1
    samples = first[:, None] + np.arange(2 * radius)
    weights = function(positions[:, None] - samples)
    return first, weights / weights.sum(axis=1, keepdims=True)


@lru_cache(maxsize=32)
def polyphase(kernel: str, ratio: int, phase: float) -> Polyphase:
    """The taps of `kernel` ("23tap" or a name in KERNELS) for MS sample i on PAN index ratio * i + phase.

    "23tap" needs a ratio of 2, 4, 8, ... and a phase that is a multiple of 1/2.
    """
    if kernel == "23tap":
        return _twenty_three_taps(ratio, phase)
    positions = (np.arange(ratio) - phase) / ratio
    first, weights = taps_at(kernel, positions)
    start = int(first.min())
    taps = np.zeros((ratio, int(first.max()) - start + weights.shape[1]))
    for row, offset, values in zip(taps, first - start, weights, strict=True):
        row[offset : offset + len(values)] = values
    return Polyphase(taps, start)


def _twenty_three_taps(ratio: int, phase: float) -> Polyphase:
    steps = int(np.log2(ratio))
    if 2**steps != ratio or (2 * phase) % 1:
        raise ValueError(f"23-tap interpolation has no ratio {ratio} with phase {phase}")
    if phase % 1:  # half a PAN pixel: one more doubling, and every second sample of that
        steps += 1
    step = np.array([*_HALF_BAND[::-1], 1.0, *_HALF_BAND])
    response = np.ones(1)
    for _ in range(steps):  # zeros between the samples, then the filter
        spread = np.zeros(2 * len(response) - 1)
        spread[::2] = response
        response = np.convolve(spread, step)
    fine = 2**steps // ratio  # samples of the fine grid in one PAN pixel
    centre = len(response) // 2
    reach = centre // 2**steps + 1
    samples = np.arange(-reach, reach + 1)
    distance = fine * np.arange(ratio)[:, None] - fine * phase - 2**steps * samples
    index = np.round(distance).astype(int) + centre
    inside = (index >= 0) & (index < len(response))
    taps = np.where(inside, response[np.clip(index, 0, len(response) - 1)], 0.0)
    used = np.flatnonzero(np.abs(taps).max(axis=0) > 0)
    return Polyphase(taps[:, used[0] : used[-1] + 1], int(samples[used[0]]))


def expand(ms: Array, ratio: int, phase: float, kernel: str = "23tap", border: str = "symmetric") -> Array:
    """EXP: `ms` (..., h, w) brought to PAN pixels (..., ratio h, ratio w), same dtype.

    `border` is a mode of numpy.pad; the toolbox uses "wrap".
    """
    filters = polyphase(kernel, ratio, phase)
    for axis in (-2, -1):
        ms = _expand_axis(ms, filters, axis, border)
    return ms


def _expand_axis(image: Array, filters: Polyphase, axis: int, border: str) -> Array:
    ratio, taps = filters.weights.shape
    size = image.shape[axis]
    pad = [(0, 0)] * image.ndim
    pad[axis] = (max(-filters.first, 0), max(filters.first + taps - 1, 0))
    padded = np.pad(image, pad, mode=border)  # type: ignore[call-overload]
    windows = np.lib.stride_tricks.sliding_window_view(padded, taps, axis=axis)  # (..., h, w, taps)
    phases = windows @ filters.weights.T.astype(image.dtype)
    shape = list(image.shape)
    shape[axis] = size * ratio
    return np.asarray((phases if axis == -1 else phases.swapaxes(-1, -2)).reshape(shape))
