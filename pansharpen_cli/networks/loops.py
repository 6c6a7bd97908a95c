"""Inner loops of the networks, compiled for the CPU: one pass where torch takes many. `layers.compiled_for` says when.

Each has a twin in torch beside where it is called, which serves training, GPUs and exports.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pansharpen_cli.networks.vectors import from_bits
from pansharpen_cli.system.compiled import compiled

Float32 = npt.NDArray[np.float32]

TAPS = 9
CACHED = 2048
"""Numbers of each array that the nearest cache holds."""
LOG2_E, LN2 = np.float32(1 / math.log(2)), math.log(2)
LN2_HIGH = np.float32(0.693359375)
"""ln 2 in nine bits: a multiple of it has no error."""
LN2_LOW = np.float32(LN2 - 0.693359375)
MOST_EXPONENT = np.float32(80)
TAYLOR = tuple(np.float32(1 / math.factorial(n)) for n in range(7, -1, -1))


def convolve_normalised(features: Tensor, spatial: Tensor, spectral: Tensor) -> Tensor:
    """Convolution by kernels spatial[tap, pixel] * spectral[tap, channel], `spatial` first brought to mean 0 and
    standard deviation 1 (unbiased) over the taps; zeros beyond the border.

    Features (N, C, H, W), spatial (N, 9, H, W), spectral (N or 1, 9, C). Returns (N, C, H, W).
    """
    out = torch.empty(features.shape)
    factors = spectral.transpose(1, 2).expand(len(features), -1, -1)
    images = (image.contiguous() for image in (features, spatial, factors))
    for image, kernel, factor, into in zip(*images, out, strict=True):
        _convolve(image.numpy(), kernel.numpy(), factor.numpy(), into.numpy())
    return out


def filter_pixels(padded: Tensor, kernels: Tensor, size: int) -> Tensor:
    """Convolution by kernels of their own at every pixel, alike in nothing.

    Images (N, bands or 1, H + size - 1, W + size - 1), kernels (N, bands * size * size, H, W), one band's after the
    other. Returns (N, bands, H, W).
    """
    count, channels, rows, cols = kernels.shape
    out = torch.empty(count, channels // size**2, rows, cols)
    for image, kernel, into in zip(padded.contiguous(), kernels, out, strict=True):
        _filter(image.numpy(), kernel.numpy(), into.numpy())
    return out


def exchange(
    pair: tuple[Tensor, Tensor], relation: Tensor, threshold: Tensor, steepness: float,
    added: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """MS and PAN features (N, C, H, W), changed places as far as a mask says, and `added` to them.

    The mask is sigmoid(steepness * (tanh(ReLU6(relation)) - threshold)). Given channels last, they are changed where
    they are.
    """
    ms, pan, relation, *others = (
        image.contiguous(memory_format=torch.channels_last) for image in (*pair, relation, *(added or pair))
    )
    numbers = (image.permute(0, 2, 3, 1).view(-1).numpy() for image in (ms, pan, relation, *others))
    _exchange(*numbers, np.float32(threshold.item()), np.float32(steepness), added is not None)
    return ms, pan


@compiled
def _exchange(
    ms: Float32, pan: Float32, relation: Float32, ms_added: Float32, pan_added: Float32, threshold: np.float32,
    steepness: np.float32, adds: bool,
) -> None:  # fmt: skip
    for first in range(0, len(ms), CACHED):
        part = slice(first, first + CACHED)
        _exchange_part(ms[part], pan[part], relation[part], threshold, steepness)
        if adds:
            _add(ms[part], ms_added[part])
            _add(pan[part], pan_added[part])


@compiled
def _exchange_part(ms: Float32, pan: Float32, relation: Float32, threshold: np.float32, steepness: np.float32) -> None:
    one, most = np.float32(1), np.float32(6)
    for i in range(len(ms)):
        decay = _exponential(np.float32(-2) * min(max(relation[i], np.float32(0)), most))
        steps = steepness * (threshold - (one - decay) / (one + decay))
        mask = one / (one + _exponential(min(max(steps, -MOST_EXPONENT), MOST_EXPONENT)))
        exchanged = mask * (pan[i] - ms[i])
        ms[i] += exchanged
        pan[i] -= exchanged


@compiled
def _add(image: Float32, added: Float32) -> None:
    for i in range(len(image)):
        image[i] += added[i]


@compiled
def _exponential(x: np.float32) -> np.float32:
    """exp(x) up to MOST_EXPONENT, in vector code as the C library's is not: 2^k exp(r), |r| <= ln(2) / 2."""
    k = np.floor(x * LOG2_E + np.float32(0.5))
    r = (x - k * LN2_HIGH) - k * LN2_LOW
    total = TAYLOR[0]
    for factor in TAYLOR[1:]:
        total = total * r + factor
    power: np.float32 = from_bits((np.int32(k) + np.int32(127)) << np.int32(23))
    return total * power


@compiled
def _filter(image: Float32, kernels: Float32, out: Float32) -> None:
    """image (bands or 1, H + size - 1, W + size - 1), kernels (bands * size * size, H, W) into out (bands, H, W)."""
    for y in range(out.shape[1]):
        filter_row(image, kernels[:, y], out, y)


@compiled
def filter_row(image: Float32, kernels: Float32, out: Float32, y: int) -> None:
    """Row y of `out` by the kernels there (bands * size * size, W)."""
    bands, rows, _ = out.shape
    size = image.shape[1] - rows + 1
    for band in range(bands):
        source, into = image[band if len(image) > 1 else 0], out[band, y]
        into[:] = 0
        for tap in range(size**2):
            _add_weighted(source[y + tap // size, tap % size :], kernels[size**2 * band + tap], into)


@compiled
def _add_weighted(line: Float32, weights: Float32, into: Float32) -> None:
    for x in range(len(into)):
        into[x] += weights[x] * line[x]


@compiled
def _convolve(image: Float32, spatial: Float32, spectral: Float32, out: Float32) -> None:
    """image (C, H, W), spatial (9, H, W), spectral (C, 9) into out (C, H, W)."""
    channels, rows, cols = image.shape
    kernel = np.empty((TAPS, cols), np.float32)
    held = np.zeros((3, channels, cols + 2), np.float32)  # the rows around one, with a border of zeros
    held[1, :, 1:-1] = image[:, 0]
    for y in range(rows):
        above, here, below = held[y % 3], held[(y + 1) % 3], held[(y + 2) % 3]
        if y + 1 < rows:
            below[:, 1:-1] = image[:, y + 1]
        else:
            below[:] = 0
        _normalise(spatial[:, y], kernel)
        for c in range(channels):
            _convolve_row(above[c], here[c], below[c], kernel, spectral[c], out[c, y])


@compiled
def _normalise(spatial: Float32, kernel: Float32) -> None:
    """Kernels of a row, (9, W), to mean 0 and standard deviation 1."""
    for x in range(spatial.shape[1]):
        total = np.float32(0)
        for tap in range(TAPS):
            total += spatial[tap, x]
        mean = total / np.float32(TAPS)
        squares = np.float32(0)
        for tap in range(TAPS):
            kernel[tap, x] = spatial[tap, x] - mean
            squares += kernel[tap, x] * kernel[tap, x]
        scale = np.float32(1) / (np.sqrt(squares / np.float32(TAPS - 1)) + np.float32(1e-10))
        for tap in range(TAPS):
            kernel[tap, x] *= scale


@compiled
def _convolve_row(above: Float32, here: Float32, below: Float32, w: Float32, k: Float32, out: Float32) -> None:
    """A row of one channel, from rows that have a pixel more at both ends. Spelled out, it becomes vector code."""
    k0, k1, k2, k3, k4, k5, k6, k7, k8 = k[0], k[1], k[2], k[3], k[4], k[5], k[6], k[7], k[8]
    for x in range(len(out)):
        out[x] = (
            w[0, x] * (k0 * above[x])
            + w[1, x] * (k1 * above[x + 1])
            + w[2, x] * (k2 * above[x + 2])
            + w[3, x] * (k3 * here[x])
            + w[4, x] * (k4 * here[x + 1])
            + w[5, x] * (k5 * here[x + 2])
            + w[6, x] * (k6 * below[x])
            + w[7, x] * (k7 * below[x + 1])
            + w[8, x] * (k8 * below[x + 2])
        )
