"""Inner loops of the networks as kernels for a GPU, written in Triton: one pass where torch takes many.
`layers.compiled_for` says when.

Convolutions are matrix products on the tensor cores, and yet of single precision: both factors are split in two parts
that the cores take whole (TF32 keeps ten bits of a factor), and three of the four products are added up. A pixel is
summed in the same order wherever in an image it lies. Images are kept channels last.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

TAPS = tl.constexpr(9)


class Shape(NamedTuple):
    """How a convolution is cut for the GPU: pixels of a program, inputs taken at a time, warps, and steps whose loads
    are under way at the same time."""

    pixels: int
    deep: int
    warps: int
    stages: int


SHAPES = {
    16: Shape(64, 16, 2, 3),
    32: Shape(128, 16, 2, 2),
    64: Shape(64, 16, 2, 3),
    128: Shape(32, 16, 2, 3),
}
"""The fastest on an H200, by the channels of the result."""
ADAPTIVE = (16, 4)
"""The same for adaptive convolution: pixels of a program, and warps."""
FEWEST = 16
"""Rows and columns of the smallest matrix that the tensor cores take."""


def convolve(
    image: Tensor, weight: Tensor, bias: Tensor | None, padding: int, *, stride: int = 1, slope: float = 1.0,
    added: Tensor | None = None, ratio: int = 1,
) -> Tensor:  # fmt: skip
    """Convolution of (N, Ci, H, W) by `weight` (Co, Ci, size, size), zeros beyond the border: (N, Co, H', W').

    What is negative in it is multiplied by `slope`, and `added`, of its shape, is added. With a `ratio` it is shuffled
    to (N, Co / ratio^2, ratio H', ratio W'), as F.pixel_shuffle does.
    """
    image, next_pixel = _channels_last(image)
    channels, inputs, size, _ = weight.shape
    count, _, rows, cols = image.shape
    out_rows, out_cols = ((extent + 2 * padding - size) // stride + 1 for extent in (rows, cols))
    out = _empty(image, (count, channels // ratio**2, ratio * out_rows, ratio * out_cols))
    if ratio > 1:  # what goes to the same pixel next to each other
        weight = weight.view(-1, ratio**2, inputs, size, size).transpose(0, 1).flatten(0, 1)
        bias = None if bias is None else bias.view(-1, ratio**2).T.flatten()
    wide = max(FEWEST, min(128, triton.next_power_of_2(channels)))
    shape = SHAPES[wide]
    # of few channels several taps are taken together
    together = inputs < FEWEST
    depth = size * size * inputs if together else inputs
    deep = min(shape.deep, max(FEWEST, triton.next_power_of_2(depth)))
    steps = (1 if together else size * size) * triton.cdiv(depth, deep)
    factors = torch.empty(2, steps * deep, triton.cdiv(channels, wide) * wide, device=image.device)
    _split_weights[(steps,)](
        weight.contiguous(), factors, depth, triton.cdiv(depth, deep),
        inputs, size * size, channels, together, deep, factors.shape[2], triton.next_power_of_2(factors.shape[2]),
    )  # fmt: skip
    pixels = count * out_rows * out_cols
    _convolve[(triton.cdiv(pixels, shape.pixels), factors.shape[2] // wide)](
        image, factors, out if bias is None else bias, out if added is None else _dense(added), out,
        pixels, rows, cols, out_rows, out_cols, slope,
        inputs, next_pixel, channels, size, stride, padding, bias is not None, added is not None, slope != 1,
        together, steps, ratio, shape.pixels, deep, wide,
        num_warps=shape.warps, num_stages=shape.stages,
    )  # fmt: skip
    return out


def convolve_normalised(features: Tensor, spatial: Tensor, spectral: Tensor) -> Tensor:
    """As `loops.convolve_normalised`: kernels spatial[tap, pixel] * spectral[tap, channel], `spatial` brought to mean 0
    and standard deviation 1 over the taps. Features (N, C, H, W), spatial (N, 9, H, W), spectral (N or 1, 9, C)."""
    features, spatial = _dense(features), _dense(spatial)
    out = torch.empty_like(features)
    count, channels, rows, cols = features.shape
    at_once, warps = ADAPTIVE
    _convolve_normalised[(triton.cdiv(rows * cols, at_once), count)](
        features, spatial, spectral.expand(count, -1, -1).contiguous(), out,
        rows, cols, channels, at_once, triton.next_power_of_2(channels), num_warps=warps,
    )  # fmt: skip
    return out


def filter_pixels(image: Tensor, kernels: Tensor, size: int) -> Tensor:
    """As `loops.filter_pixels`: images (N, bands or 1, H + size - 1, W + size - 1), kernels (N, bands * size * size, H,
    W), one band's after the other, to (N, bands, H, W)."""
    image, kernels = _dense(image), _dense(kernels)
    count, _, rows, cols = kernels.shape
    bands = kernels.shape[1] // size**2
    out = _empty(image, (count, bands, rows, cols))
    pixels = count * rows * cols
    at_once = 64
    _filter_pixels[(triton.cdiv(pixels, at_once),)](
        image, kernels, out, pixels, rows, cols, image.shape[1], bands, size, at_once, triton.next_power_of_2(size**2)
    )
    return out


def _dense(image: Tensor) -> Tensor:
    return image.contiguous(memory_format=torch.channels_last)


def _channels_last(image: Tensor) -> tuple[Tensor, int]:
    """`image` with its channels next to each other, and the numbers from pixel to pixel: more than it has channels if
    it is a part of another image."""
    rows, cols = image.shape[2:]
    step = image.stride(3)
    if image.stride() == (rows * cols * step, 1, cols * step, step):
        return image, step
    return _dense(image), image.shape[1]


def _empty(like: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    return torch.empty(shape, device=like.device, memory_format=torch.channels_last)


@triton.jit
def _large(values):
    """The part of `values` that the tensor cores take whole: their first ten bits, rounded."""
    bits = values.to(tl.int32, bitcast=True)
    return ((bits + 0x1000) & -0x2000).to(tl.float32, bitcast=True)


@triton.jit
def _split_weights(
    weight, factors, depth, parts,
    inputs: tl.constexpr, taps: tl.constexpr, channels: tl.constexpr, together: tl.constexpr, deep: tl.constexpr,
    width: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    """Weight (Co, Ci, taps) to its large and its small parts, (2, taps and inputs, Co), zeros where it has none."""
    step = tl.program_id(0)
    one, channel = tl.arange(0, deep)[:, None], tl.arange(0, wide)[None, :]
    place = step % parts * deep + one
    if together:
        tap, source = place // inputs, place % inputs
    else:
        tap, source = step // parts, place
    known = (channel < channels) & (place < depth)
    values = tl.load(weight + (channel * inputs + source) * taps + tap, mask=known, other=0.0)
    large = _large(values)
    into = factors + (step * deep + one) * width + channel
    tl.store(into, large, mask=channel < width)
    tl.store(into + tl.num_programs(0) * deep * width, _large(values - large), mask=channel < width)


@triton.jit(do_not_specialize=["pixels", "rows", "cols", "out_rows", "out_cols", "slope"])
def _convolve(
    image, factors, bias, added, out, pixels, rows, cols, out_rows, out_cols, slope,
    inputs: tl.constexpr, next_pixel: tl.constexpr, channels: tl.constexpr, size: tl.constexpr, stride: tl.constexpr,
    padding: tl.constexpr, biased: tl.constexpr, adding: tl.constexpr, bent: tl.constexpr, together: tl.constexpr,
    steps: tl.constexpr, ratio: tl.constexpr, at_once: tl.constexpr, deep: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    """`at_once` pixels and `wide` channels of the result: the sum over taps and inputs, `deep` of them at a time."""
    pixel = tl.program_id(0) * at_once + tl.arange(0, at_once)
    channel = tl.program_id(1) * wide + tl.arange(0, wide)
    one = tl.arange(0, deep)
    width = tl.num_programs(1) * wide
    row = pixel // out_cols % out_rows * stride - padding
    col = pixel % out_cols * stride - padding
    corner = ((pixel // (out_rows * out_cols)).to(tl.int64) * rows + row) * cols + col
    sources = image + (corner * next_pixel)[:, None]
    weights = factors + one[:, None] * width + channel[None, :]
    total = tl.zeros((at_once, wide), tl.float32)
    for step in range(steps):
        if together:
            place = step * deep + one
            tap, source = place // inputs, place % inputs
            i, j = (tap // size)[None, :], (tap % size)[None, :]
            y, x = row[:, None] + i, col[:, None] + j
            inside = (y >= 0) & (y < rows) & (x >= 0) & (x < cols) & (pixel < pixels)[:, None] & (tap < size * size)
            values = tl.load(sources + (i * cols + j) * next_pixel + source[None, :], mask=inside, other=0.0)
        else:
            parts: tl.constexpr = (inputs + deep - 1) // deep
            tap = step // parts
            source = step % parts * deep + one
            i, j = tap // size, tap % size
            y, x = row + i, col + j
            inside = ((y >= 0) & (y < rows) & (x >= 0) & (x < cols) & (pixel < pixels))[:, None]
            if inputs % deep:
                inside = inside & (source < inputs)[None, :]
            values = tl.load(sources + (i * cols + j) * next_pixel + source[None, :], mask=inside, other=0.0)
        weighty = tl.load(weights + step * deep * width)
        weightless = tl.load(weights + (steps + step) * deep * width)
        large = _large(values)
        # added up beside the total: the cores' own sums lose bits
        part = tl.dot(_large(values - large), weighty, input_precision="tf32")
        part = tl.dot(large, weightless, part, input_precision="tf32")
        total += tl.dot(large, weighty, part, input_precision="tf32")
    if biased:
        total += tl.load(bias + channel, mask=channel < channels, other=0.0)[None, :]
    if bent:
        total = tl.where(total < 0, total * slope, total)
    known = (pixel < pixels)[:, None] & (channel < channels)[None, :]
    if ratio > 1:
        each: tl.constexpr = channels // (ratio * ratio)
        phase = channel // each
        line = (pixel // out_cols).to(tl.int64)[:, None] * ratio + (phase // ratio)[None, :]
        place = (line * out_cols + (pixel % out_cols)[:, None]) * ratio + (phase % ratio)[None, :]
        place = place * each + (channel % each)[None, :]
    else:
        place = pixel.to(tl.int64)[:, None] * channels + channel[None, :]
    if adding:
        total += tl.load(added + place, mask=known, other=0.0)
    tl.store(out + place, total, mask=known)


@triton.jit(do_not_specialize=["rows", "cols"])
def _convolve_normalised(
    features, spatial, spectral, out, rows, cols, channels: tl.constexpr, at_once: tl.constexpr, wide: tl.constexpr
):
    pixel = tl.program_id(0) * at_once + tl.arange(0, at_once)
    channel = tl.arange(0, wide)
    here, known = pixel < rows * cols, channel < channels
    image = tl.program_id(1)
    place = image.to(tl.int64) * rows * cols + pixel
    row, col = pixel // cols, pixel % cols
    mean = tl.zeros((at_once,), tl.float32)
    for tap in tl.static_range(TAPS):
        mean += tl.load(spatial + place * TAPS + tap, mask=here, other=0.0)
    mean /= TAPS
    squares = tl.zeros((at_once,), tl.float32)
    for tap in tl.static_range(TAPS):
        centred = tl.load(spatial + place * TAPS + tap, mask=here, other=0.0) - mean
        squares += centred * centred
    scale = 1 / (tl.sqrt(squares / (TAPS - 1)) + 1e-10)
    sources = features + (place * channels)[:, None] + channel[None, :]
    total = tl.zeros((at_once, wide), tl.float32)
    for tap in tl.static_range(TAPS):
        i, j = tap // 3 - 1, tap % 3 - 1
        inside = here & (row + i >= 0) & (row + i < rows) & (col + j >= 0) & (col + j < cols)
        values = tl.load(sources + (i * cols + j) * channels, mask=inside[:, None] & known[None, :], other=0.0)
        factor = tl.load(spectral + (image * TAPS + tap) * channels + channel, mask=known, other=0.0)
        weight = (tl.load(spatial + place * TAPS + tap, mask=here, other=0.0) - mean) * scale
        total += weight[:, None] * (factor[None, :] * values)
    tl.store(out + (place * channels)[:, None] + channel[None, :], total, mask=here[:, None] & known[None, :])


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
