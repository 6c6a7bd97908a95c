"""From MS to PAN pixels: interpolation as explicit taps, used by the reader (any position), the classical methods and
the networks (an integer ratio, a fixed phase).

A position is counted in MS pixels, sample i at i. `phase` says where MS sample i sits among the PAN pixels: on
ratio * i + phase. A georeferenced pair has the *area* phase (ratio - 1) / 2; the field's toolbox and its data sets
have ratio / 2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

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


def _lanczos(lobes: int) -> Callable[[Float64], Float64]:
    return lambda x: np.where(np.abs(x) < lobes, np.sinc(x) * np.sinc(x / lobes), 0.0)


KERNELS: dict[str, tuple[Callable[[Float64], Float64], int]] = {
    "nearest": (lambda x: np.where((x > -0.5) & (x <= 0.5), 1.0, 0.0), 1),
    "bilinear": (lambda x: np.clip(1 - np.abs(x), 0, 1), 1),
    "cubic": (_keys(-0.5), 2),  # Keys 1981, as GDAL and MATLAB
    "bicubic": (_keys(-0.75), 2),  # torch's and OpenCV's constant, what PreMix was trained with
    "lanczos": (_lanczos(3), 3),
    "sinc": (_lanczos(6), 6),  # long enough to move fine detail as far as the rest: see `SceneCanvas.of`
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

_PHASES = 1024
"""Steps between two samples in a table of taps."""
_IN_CACHE = 16
"""MS rows expanded together by `expanded`."""


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

    @property
    def margins(self) -> tuple[int, int]:
        """MS pixels before and after the first and last ones that their output pixels read."""
        return max(-self.first, 0), max(self.first + self.weights.shape[1] - 1, 0)


def taps_at(kernel: str, positions: Float64) -> tuple[npt.NDArray[np.intp], Float64]:
    """First sample and normalised weights for each of n `positions`: (n,) and (n, taps)."""
    function, radius = KERNELS[kernel]
    first = np.floor(positions).astype(np.intp) - radius + 1
    samples = first[:, None] + np.arange(2 * radius)
    weights = function(positions[:, None] - samples)
    return first, weights / weights.sum(axis=1, keepdims=True)


def _many_taps(kernel: str, positions: Float64, dtype: np.dtype[Any]) -> tuple[npt.NDArray[np.intp], Array]:
    """As `taps_at`, from a table: to 1e-12, and several times faster than sines."""
    from pansharpen_cli.imaging.filters import taps_between

    if kernel == "nearest":  # which is not smooth between two samples
        first, weights = taps_at(kernel, positions)
        return first, weights.astype(dtype)
    whole = np.floor(positions)
    weights = np.empty((len(positions), 2 * KERNELS[kernel][1]), dtype)
    taps_between(_table(kernel), (positions - whole) * _PHASES, weights)
    return whole.astype(np.intp) - KERNELS[kernel][1] + 1, weights


@lru_cache(maxsize=8)
def _table(kernel: str) -> Float64:
    """Taps between two samples, from the one to the other."""
    return taps_at(kernel, np.nextafter(np.linspace(0, 1, _PHASES + 1), 0))[1]


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
    pad = [(0, 0)] * (ms.ndim - 2) + [filters.margins] * 2
    return expand_inside(np.pad(ms, pad, mode=border), filters)  # type: ignore[call-overload]


def expanded(
    ms: Array, ratio: int, phase: float, kernel: str = "23tap", border: str = "symmetric"
) -> Iterator[tuple[slice, Array]]:
    """EXP, as of `expand`, a few rows at a time: (their place, EXP (..., rows, ratio w)), from the top.

    What is made of them finds them in the processor's cache.
    """
    filters = polyphase(kernel, ratio, phase)
    pad = [(0, 0)] * (ms.ndim - 2) + [filters.margins] * 2
    padded = np.pad(ms, pad, mode=border)  # type: ignore[call-overload]
    for start in range(0, ms.shape[-2], _IN_CACHE):
        stop = min(start + _IN_CACHE, ms.shape[-2])
        rows = slice(ratio * start, ratio * stop)
        read = padded[..., start : stop + sum(filters.margins), :]
        yield rows, expand_inside(read, filters)


def expand_inside(ms: Array, filters: Polyphase) -> Array:
    """EXP of the part of `ms` (..., h, w) that has the filters' margins around it on all sides."""
    from pansharpen_cli.imaging.filters import (  # half a second, which not every command needs
        expand,
        in_steps,
        with_room,
    )

    ratio = len(filters.weights)
    rows, cols = (ratio * (size - sum(filters.margins)) for size in ms.shape[-2:])
    exp = np.empty((*ms.shape[:-2], rows, cols), ms.dtype)
    images = with_room(ms.reshape(-1, *ms.shape[-2:]), ms.dtype)
    expand(images, in_steps(filters.weights).astype(ms.dtype), exp.reshape(-1, rows, cols))
    return exp


def windows(image: Array, first: int, length: int, step: int, axis: int) -> Array:
    """A view with one more axis at the end: the `length` pixels along `axis` from step * i + `first` on, for each i.

    The border is replicated.
    """
    pad = [(0, 0)] * image.ndim
    pad[axis] = (max(-first, 0), max(first + length - step, 0))
    padded = np.pad(image, pad, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, length, axis=axis)
    every = [slice(None)] * windows.ndim
    every[axis] = slice(max(first, 0), max(first, 0) + image.shape[axis], step)
    return windows[tuple(every)]


def sample(image: Array, valid: npt.NDArray[np.bool_], rows: Float64, cols: Float64, kernel: str) -> Array:
    """`image` (bands, h, w) at the positions rows x cols: (bands, len(rows), len(cols)).

    Pixels that are not `valid` (h, w) take no part; beyond the border the last pixel is repeated. Where nothing valid
    is in reach the value is 0.
    """
    weighted = _weighted(image, valid)
    for axis, positions in ((1, rows), (2, cols)):
        first, weights = taps_at(kernel, positions)
        samples = np.clip(first[:, None] + np.arange(weights.shape[1]), 0, weighted.shape[axis] - 1)
        gathered = np.take(weighted, samples, axis=axis)
        taps = weights.astype(image.dtype)
        weighted = np.einsum("bntw,nt->bnw" if axis == 1 else "bhnt,nt->bhn", gathered, taps)
    found, trusted = _weighted_mean(weighted, kernel)
    return found if trusted.all() else np.where(trusted, found, sample(image, valid, rows, cols, "bilinear"))


def sample_at(image: Array, valid: npt.NDArray[np.bool_], rows: Float64, cols: Float64, kernel: str) -> Array:
    """`image` (bands, h, w) at scattered positions: `rows` and `cols` (n, m) -> (bands, n, m). Else as `sample`."""
    from pansharpen_cli.imaging.filters import STEP, gather, in_steps

    weighted = _weighted(image, valid)
    first, weights = zip(
        *(_many_taps(kernel, positions.ravel(), image.dtype) for positions in (rows, cols)), strict=True
    )
    taps = weights[0].shape[1]
    padded = np.pad(weighted, ((0, 0), (taps, taps), (taps, taps + STEP)), mode="edge")
    corners = (np.clip(f, -taps, size) + taps for f, size in zip(first, image.shape[1:], strict=True))
    total = np.empty((len(weighted), rows.size), image.dtype)
    gather(padded, *corners, weights[0], in_steps(weights[1]), total)
    found, trusted = _weighted_mean(total.reshape(len(weighted), *rows.shape), kernel)
    return found if trusted.all() else np.where(trusted, found, sample_at(image, valid, rows, cols, "bilinear"))


def _weighted(image: Array, valid: npt.NDArray[np.bool_]) -> Array:
    """Values where they are `valid`, and the weights 1 and 0 as a last band."""
    return np.concatenate([np.where(valid, image, 0), valid[None]], dtype=image.dtype)


def _weighted_mean(weighted: Array, kernel: str) -> tuple[Array, npt.NDArray[np.bool_]]:
    """The mean, and where it can be trusted: beside a gap negative lobes can leave little weight, or less than none."""
    total, weight = weighted[:-1], weighted[-1]
    if kernel == "bilinear":  # has none
        return np.asarray(total / np.where(weight > 0, weight, 1)), np.ones(weight.shape, bool)
    trusted = weight > 0.25
    return np.asarray(total / np.where(trusted, weight, 1)), trusted


def grow(image: Array, valid: npt.NDArray[np.bool_], rounds: int, level: Array) -> Array:
    """Fill the gaps of `image` (bands, h, w) from their rim: `rounds` times, each gap pixel that touches filled ones
    takes their mean. What is farther away gets the band's `level` (bands,).

    A filled value depends on `rounds` pixels around it and no more, so tiles that read that much agree.
    """
    known = valid.astype(image.dtype)
    filled = np.where(valid, image, 0)  # not a product: a gap may hold NaN
    for _ in range(rounds):
        if known.all():
            return filled
        near = _sum_of_3x3(np.concatenate([filled, known[None]]))
        rim = (known == 0) & (near[-1] > 0)
        filled[:, rim] = near[:-1, rim] / near[-1, rim]
        known[rim] = 1
    return np.asarray(np.where(known > 0, filled, np.asarray(level, dtype=image.dtype)[:, None, None]))


def _sum_of_3x3(image: Array) -> Array:
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)))
    rows = padded[:, :-2] + padded[:, 1:-1] + padded[:, 2:]
    return np.asarray(rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:])
