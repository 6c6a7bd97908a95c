"""Inner loops of the networks, compiled for the CPU: one pass where torch takes many. `layers.compiled_for` says when.

Each has a twin in torch beside where it is called, which serves training, GPUs and exports.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pansharpen_cli.compiled import compiled

Float32 = npt.NDArray[np.float32]

TAPS = 9


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
    rows, cols = kernels.shape[2:]
    bands = kernels.shape[1] // size**2
    out = torch.empty(len(padded), bands, rows, cols)
    at_pixels = kernels.permute(0, 2, 3, 1).contiguous().view(len(padded), rows, cols, bands, size**2)
    for image, kernel, into in zip(padded.contiguous(), at_pixels, out, strict=True):
        _filter(image.numpy(), kernel.numpy(), into.numpy())
    return out


@compiled
def _filter(image: Float32, kernels: Float32, out: Float32) -> None:
    """image (bands or 1, H + size - 1, W + size - 1), kernels (H, W, bands, size * size) into out (bands, H, W)."""
    bands, rows, cols = out.shape
    size = image.shape[1] - rows + 1
    for y in range(rows):
        for band in range(bands):
            source = image[band if len(image) > 1 else 0]
            for x in range(cols):
                kernel = kernels[y, x, band]
                total = np.float32(0)
                for i in range(size):
                    for j in range(size):
                        total += kernel[size * i + j] * source[y + i, x + j]
                out[band, y, x] = total


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
