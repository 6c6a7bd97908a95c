"""The sensor's modulation transfer function (MTF): low-pass filters that imitate the blur of its MS and PAN cameras.

The kernels are those of the field's toolbox (Aiazzi et al. 2006): a Gaussian with a given gain at the Nyquist frequency
of the MS grid, made finite by the window method. Arrays are (..., row, col).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from pansharpen_cli.errors import UsageError
from pansharpen_cli.imaging.interpolation import taps_at, windows

FloatArray = npt.NDArray[np.floating]

TAPS = 41
"""Taps per axis of every kernel; its reach is 20 pixels."""
KAISER_BETA = 0.5
SMALLEST_PAIR = 1e-8
"""Singular values of a kernel below this part of the largest are dropped."""
TOGETHER = 4
"""MS pixels of a row that one matrix product makes."""


@dataclass(frozen=True)
class Sensor:
    """Gains at the MS Nyquist frequency: per MS band by name, and of the PAN."""

    name: str
    ms_gains: dict[str, float]
    pan_gain: float
    other_gain: float = 0.30  # the toolbox's value for any band or sensor it does not know

    def gain(self, band: str) -> float:
        return self.ms_gains.get(band, self.other_gain)


def _bgrn(*gains: float) -> dict[str, float]:
    return dict(zip(("blue", "green", "red", "nir"), gains, strict=True))


_WV_BANDS = ("coastal", "blue", "green", "yellow", "red", "rededge", "nir", "nir2")

SENSORS: dict[str, Sensor] = {
    sensor.name: sensor
    for sensor in (
        Sensor("generic", {}, 0.15),
        Sensor("QB", _bgrn(0.34, 0.32, 0.30, 0.22), 0.15),
        Sensor("IKONOS", _bgrn(0.26, 0.28, 0.29, 0.28), 0.17),
        Sensor("GeoEye1", _bgrn(0.23, 0.23, 0.23, 0.23), 0.16, other_gain=0.23),
        Sensor("WV4", _bgrn(0.23, 0.23, 0.23, 0.23), 0.16, other_gain=0.23),
        Sensor("WV2", dict(zip(_WV_BANDS, (*[0.35] * 7, 0.27), strict=True)), 0.11),
        Sensor(
            "WV3",
            dict(zip(_WV_BANDS, (0.325, 0.355, 0.360, 0.350, 0.365, 0.360, 0.335, 0.315), strict=True)),
            0.14,
        ),
    )
}
"""Published gains, by the names the field uses."""


MEASURED = "measured"
"""Stands for a sensor whose gain is measured in the scene (sharpness.py)."""


def find_sensor(text: str, what: str = "sensor", also: Sequence[str] = ()) -> Sensor:
    """The sensor of this name, or one whose bands all have this gain. Raises UsageError that begins with `what`, and
    names what the caller takes `also`."""
    if text in SENSORS:
        return SENSORS[text]
    try:
        gain = float(text)
    except ValueError:
        gain = math.nan
    if not 0 < gain < 1:
        raise UsageError(f"{what} takes {', '.join([*also, *SENSORS])} or a gain between 0 and 1, not {text!r}")
    return Sensor(text, {}, SENSORS["generic"].pan_gain, gain)


def gaussian_frequency_sigma(ratio: float, gain: float) -> float:
    """Standard deviation, in samples of a `TAPS`-point spectrum, of the Gaussian that has `gain` at 1/(2 ratio)."""
    return float((TAPS - 1) / (2 * ratio) / np.sqrt(-2 * np.log(gain)))


@lru_cache(maxsize=64)
def kernel(ratio: float, gain: float) -> npt.NDArray[np.float64]:
    """The (41, 41) low-pass filter for an MS that is `ratio` times coarser, `gain` at its Nyquist frequency.

    Not normalised: its sum is 0.9977 ... 0.9997 (the toolbox's kernels are like that, and published numbers with them).
    """
    half = TAPS // 2
    sigma = gaussian_frequency_sigma(ratio, gain)
    y, x = np.mgrid[-half : half + 1, -half : half + 1]
    response = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    response[response < np.finfo(float).eps] = 0
    ideal = np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(response))).real
    # Huang's method: the 1-D Kaiser window turned round its centre
    radius = np.sqrt(x**2 + y**2) / half
    window = np.interp(radius, np.linspace(-1, 1, TAPS), np.kaiser(TAPS, KAISER_BETA), right=0)
    result = ideal * np.where(radius > 1, 0, window)
    result.setflags(write=False)
    return result


def seen(image: FloatArray, ratio: int, gain: float, phase: float) -> FloatArray:
    """`image` (H, W) as a camera `ratio` times coarser sees it: (H / ratio, W / ratio), same dtype.

    The MTF kernel to 1e-8 of the image's maximum, only at positions ratio * i + `phase`; the border is replicated.
    """
    first, down, across = _sampled_kernel(ratio, gain, phase)
    pairs, taps = down.shape
    height, width = (size // ratio for size in image.shape)
    padded = np.pad(image, [(0, 0), (max(-first, 0), max(first + taps - ratio, 0))], mode="edge")
    rows = windows(padded, first, taps, ratio, axis=0) @ down.T.astype(image.dtype)  # (h, W, pairs)
    # the pairs of a pixel lie side by side, so that one filter along the row adds them up
    return _filtered_rows(rows.reshape(height, -1), across.T.ravel(), ratio * pairs, width)


def _filtered_rows(image: FloatArray, taps: npt.NDArray[np.float64], step: int, size: int) -> FloatArray:
    """The rows of `image` through `taps`, `size` values of each, `step` samples apart; what lacks at the end is 0.

    By matrix products on overlapping windows, each of which makes TOGETHER values: most entries of the matrix are 0,
    and BLAS is still several times faster than single taps.
    """
    count = -(-size // TOGETHER)
    length = step * (TOGETHER - 1) + len(taps)
    matrix = np.zeros((length, TOGETHER), image.dtype)
    for i in range(TOGETHER):
        matrix[step * i : step * i + len(taps), i] = taps
    apart = step * TOGETHER
    image = np.pad(image, [(0, 0), (0, max(0, apart * (count - 1) + length - image.shape[1]))])
    every = np.lib.stride_tricks.sliding_window_view(image, length, axis=1)[:, ::apart][:, :count]
    filtered = np.empty((len(image), count, TOGETHER), image.dtype)
    np.matmul(np.moveaxis(every, 1, 0), matrix, out=np.moveaxis(filtered, 1, 0))  # all rows at once
    return filtered.reshape(len(image), -1)[:, :size]


def reach(ratio: int, phase: float) -> int:
    """Pixels around any pixel of an MS pixel's area that `seen` may read for it."""
    first, weights = reading(phase)
    return TAPS // 2 + max(ratio - 1 - first, first + len(weights) - 1)


def reading(phase: float) -> tuple[int, npt.NDArray[np.float64]]:
    """First pixel and weights that read an image at `phase`: a sinc (it hardly blurs), or a single 1 on a pixel."""
    first, weights = taps_at("sinc", np.array([phase]))
    used = np.flatnonzero(np.abs(weights[0]) > 1e-12)
    return int(first[0] + used[0]), weights[0, used[0] : used[-1] + 1]


@lru_cache(maxsize=32)
def _sampled_kernel(
    ratio: int, gain: float, phase: float
) -> tuple[int, npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The MTF kernel and the reading at `phase`, as a sum of outer products.

    Returns the first pixel and the taps (pairs, taps) down the columns and across the rows. Rank one is not enough for
    published numbers; the kernel is symmetric, so its eigenvectors serve both axes.
    """
    values, vectors = np.linalg.eigh(kernel(ratio, gain))
    used = np.abs(values) > SMALLEST_PAIR * values[-1]
    first, weights = reading(phase)
    across = np.stack([np.convolve(vector, weights) for vector in vectors.T[used]])
    return first - TAPS // 2, values[used, None] * across, across
