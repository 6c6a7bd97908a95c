"""Convolution with a kernel of its own at every pixel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from pansharpen_cli.networks.kernels.images import TAPS, channels_last, dense, empty, power, quotient, within

ADAPTIVE = (32, 4)
"""Pixels of a program of adaptive convolution, and its warps."""


def convolve_normalised(features: Tensor, spatial: Tensor, spectral: Tensor) -> Tensor:
    """As `loops.convolve_normalised`: kernels spatial[tap, pixel] * spectral[tap, channel], `spatial` brought to mean 0
    and standard deviation 1 over the taps. Features (N, C, H, W), spatial (N, 9, H, W), spectral (N or 1, 9, C)."""
    features = dense(features)
    spatial, next_pixel = channels_last(spatial)
    out = torch.empty_like(features)
    count, channels, rows, cols = features.shape
    at_once, warps = ADAPTIVE
    wide = power(channels)
    spectral = F.pad(spectral, (0, wide - channels)).expand(count, -1, -1).contiguous()
    _convolve_normalised[(quotient(rows * cols, at_once), count)](
        features, spatial, spectral, out, rows, cols, channels, next_pixel, at_once, wide, cols < at_once,
        num_warps=warps,
    )  # fmt: skip
    return out


def filter_pixels(image: Tensor, kernels: Tensor, size: int) -> Tensor:
    """As `loops.filter_pixels`: images (N, bands or 1, H + size - 1, W + size - 1), kernels (N, bands * size * size, H,
    W), one band's after the other, to (N, bands, H, W)."""
    image, kernels = dense(image), dense(kernels)
    count, _, rows, cols = kernels.shape
    bands = kernels.shape[1] // size**2
    out = empty(image, (count, bands, rows, cols))
    pixels = count * rows * cols
    at_once = 64
    _filter_pixels[(quotient(pixels, at_once),)](
        image, kernels, out, pixels, rows, cols, image.shape[1], bands, size, at_once, power(size**2)
    )
    return out


@triton.jit(do_not_specialize=["rows", "cols"])
def _convolve_normalised(
    features, spatial, spectral, out, rows, cols,
    channels: tl.constexpr, next_pixel: tl.constexpr, at_once: tl.constexpr, wide: tl.constexpr, narrow: tl.constexpr,
):  # fmt: skip
    """`at_once` pixels, row after row. `narrow`: a row has fewer."""
    line, channel = tl.arange(0, at_once), tl.arange(0, wide)
    number = tl.program_id(1).to(tl.int64)
    first = tl.program_id(0) * at_once
    top, left = first // cols, first % cols
    down = (left + line) // cols if narrow else (left + line >= cols).to(tl.int32)
    row, col = top + down, left + line - down * cols
    start = number * rows * cols + first
    kernels = spatial + start * next_pixel + line * next_pixel
    place = line[:, None] * channels + channel[None, :]
    sources = features + start * channels + place
    factors = spectral + number * TAPS * wide + channel
    known = (row < rows)[:, None] & (channel < channels)[None, :]
    # a pixel further than the taps reach, whose channels are read where there are fewer than `wide`
    if (top > 0) & (top < rows - 1) & (left > 0) & (left < cols - at_once - 1):
        total = _taps(sources, kernels, factors, row, col, rows, cols, known, channels, wide, False)
    else:
        total = _taps(sources, kernels, factors, row, col, rows, cols, known, channels, wide, True)
    tl.store(out + start * channels + place, total, mask=known)


@triton.jit
def _taps(
    sources, kernels, factors, row, col, rows, cols, known, channels: tl.constexpr, wide: tl.constexpr,
    edge: tl.constexpr,
):  # fmt: skip
    """Only at an `edge` something has to be masked: elsewhere what is read too much lies within the image."""
    here = row < rows if edge else None
    mean = tl.load(kernels, mask=here)
    for tap in tl.static_range(1, TAPS):
        mean += tl.load(kernels + tap, mask=here)
    mean /= TAPS
    squares = tl.zeros_like(mean)
    total = tl.zeros(known.shape, tl.float32)
    for tap in tl.static_range(TAPS):
        i, j = tap // 3 - 1, tap % 3 - 1
        inside = known & (within(row + i, rows) & within(col + j, cols))[:, None] if edge else None
        weight = tl.load(kernels + tap, mask=here) - mean
        squares += weight * weight
        values = tl.load(sources + (i * cols + j) * channels, mask=inside, other=0.0 if edge else None)
        total += weight[:, None] * (tl.load(factors + tap * wide)[None, :] * values)
    return total * (1 / (tl.sqrt(squares / (TAPS - 1)) + 1e-10))[:, None]


@triton.jit(do_not_specialize=["pixels", "rows", "cols"])
def _filter_pixels(
    image, kernels, out, pixels, rows, cols,
    images: tl.constexpr, bands: tl.constexpr, size: tl.constexpr, at_once: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    pixel = tl.program_id(0) * at_once + tl.arange(0, at_once)
    tap = tl.arange(0, wide)
    here = pixel < pixels
    known = here[:, None] & (tap < size * size)[None, :]
    place = pixel.to(tl.int64)
    row, col = place // cols % rows, place % cols
    corner = (place // (rows * cols) * (rows + size - 1) + row) * (cols + size - 1) + col
    sources = image + (corner[:, None] + (tap // size * (cols + size - 1) + tap % size)[None, :]) * images
    weights = kernels + (place * bands * size * size)[:, None] + tap[None, :]
    for band in tl.static_range(bands):
        value = tl.load(sources + (band if images > 1 else 0), mask=known, other=0.0)
        weight = tl.load(weights + band * size * size, mask=known, other=0.0)
        tl.store(out + place * bands + band, tl.sum(weight * value, axis=1), mask=here)
