"""Convolution as matrix products. A pixel is summed in the same order wherever in an image it lies."""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from pansharpen_cli.networks.kernels.images import channels_last, dense, empty, power, quotient, within
from pansharpen_cli.networks.kernels.products import DOWN, FEWEST, UP, UP_WEIGHTS, halves, product


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
"""By the channels of the result."""
IN_ROWS = {16: Shape(64, 32, 4, 2), 32: Shape(64, 32, 4, 2), 64: Shape(64, 32, 4, 2)}
"""The same for `_convolve_rows`."""
LARGEST_KERNEL, LEAST_INPUTS = 3, 5
"""Rows and columns, and channels, that `_convolve_rows` takes."""


def convolve(
    image: Tensor, weight: Tensor, bias: Tensor | None, padding: int, *, stride: int = 1,
    slope: float | Tensor = 1.0, added: Tensor | None = None, ratio: int = 1,
) -> Tensor:  # fmt: skip
    """Convolution of (N, Ci, H, W) by `weight` (Co, Ci, size, size), zeros beyond the border: (N, Co, H', W').

    What is negative in it is multiplied by `slope`, a number or a tensor of one, and `added`, of its shape, is added.
    With a `ratio` it is shuffled to (N, Co / ratio^2, ratio H', ratio W'), as F.pixel_shuffle does.
    """
    image, next_pixel = channels_last(image)
    channels, inputs, size, _ = weight.shape
    count, _, rows, cols = image.shape
    out_rows, out_cols = ((extent + 2 * padding - size) // stride + 1 for extent in (rows, cols))
    out = empty(image, (count, channels // ratio**2, ratio * out_rows, ratio * out_cols))
    if ratio > 1:  # what goes to the same pixel next to each other
        weight = weight.view(-1, ratio**2, inputs, size, size).transpose(0, 1).flatten(0, 1)
        bias = None if bias is None else bias.view(-1, ratio**2).T.flatten()
    in_rows = stride == 1 and inputs >= LEAST_INPUTS and padding < size <= LARGEST_KERNEL and out_cols <= cols
    shapes = IN_ROWS if in_rows else SHAPES
    wide = max(FEWEST, min(max(shapes), power(channels)))
    shape = shapes[wide]
    # of few channels several taps are taken together
    together = inputs < FEWEST and not in_rows
    depth = size * size * inputs if together else inputs
    deep = min(shape.deep, max(FEWEST, power(depth)))
    parts = quotient(depth, deep)
    steps = parts if together else size * size * parts
    blocks = quotient(channels, wide)
    factors = torch.empty(2, steps * deep, blocks * wide, device=image.device, dtype=torch.float16)
    _split_weights[(steps,)](
        weight.contiguous(), factors, depth, parts, inputs, size, channels, together, deep, blocks * wide,
        power(blocks * wide),
    )  # fmt: skip
    images = (image, factors, out if bias is None else bias, out if added is None else dense(added), out)
    extents = (rows, cols, out_rows, out_cols, slope)
    learnt = isinstance(slope, Tensor)
    done = (bias is not None, added is not None, learnt or slope != 1, learnt)
    layer = (inputs, next_pixel, channels, size, padding, *done, ratio)
    cut = (shape.pixels, deep, wide)
    how = {"num_warps": shape.warps, "num_stages": shape.stages}
    if in_rows:
        programs = quotient(out_rows * cols, shape.pixels - size + 1)
        _convolve_rows[(programs, blocks, count)](*images, *extents, *layer, *cut, cols < shape.pixels, **how)
    else:
        pixels = count * out_rows * out_cols
        programs = quotient(pixels, shape.pixels)
        _convolve[(programs, blocks)](*images, pixels, *extents, *layer, *cut, stride, together, steps, **how)
    return out


@triton.jit
def _split_weights(
    weight, factors, depth, parts,
    inputs: tl.constexpr, size: tl.constexpr, channels: tl.constexpr, together: tl.constexpr, deep: tl.constexpr,
    width: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    """Weight (Co, Ci, size, size) to its large and its small parts, (2, steps and inputs, Co), zeros where it has none.

    A step is a part of the inputs of one tap; steps go by the tap's row, the part and the tap's column.
    """
    step = tl.program_id(0)
    one, channel = tl.arange(0, deep)[:, None], tl.arange(0, wide)[None, :]
    if together:
        place = step * deep + one
        tap, source = place // inputs, place % inputs
    else:
        place = step // size % parts * deep + one
        tap, source = step // (size * parts) * size + step % size, place
    known = (channel < channels) & (place < depth)
    values = tl.load(weight + (channel * inputs + source) * (size * size) + tap, mask=known, other=0.0)
    large, small = halves(values * UP_WEIGHTS)
    into = factors + (step * deep + one) * width + channel
    tl.store(into, large, mask=channel < width)
    tl.store(into + tl.num_programs(0) * deep * width, small, mask=channel < width)


@triton.jit(do_not_specialize=["pixels", "rows", "cols", "out_rows", "out_cols", "slope"])
def _convolve(
    image, factors, bias, added, out, pixels, rows, cols, out_rows, out_cols, slope,
    inputs: tl.constexpr, next_pixel: tl.constexpr, channels: tl.constexpr, size: tl.constexpr, padding: tl.constexpr,
    biased: tl.constexpr, adding: tl.constexpr, bent: tl.constexpr, learnt: tl.constexpr, ratio: tl.constexpr,
    at_once: tl.constexpr, deep: tl.constexpr, wide: tl.constexpr, stride: tl.constexpr, together: tl.constexpr,
    steps: tl.constexpr,
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
        else:
            parts: tl.constexpr = (inputs + deep - 1) // deep
            source = step // size % parts * deep + one
            i, j = step // (size * parts), step % size
            y, x = row + i, col + j
            inside = ((y >= 0) & (y < rows) & (x >= 0) & (x < cols) & (pixel < pixels))[:, None]
            if inputs % deep:
                inside = inside & (source < inputs)[None, :]
        values = tl.load(sources + (i * cols + j) * next_pixel + source[None, :], mask=inside, other=0.0)
        large, small = halves(values * UP)
        weighty = tl.load(weights + step * deep * width)
        weightless = tl.load(weights + (steps + step) * deep * width)
        total += product(large, small, weighty, weightless)
    total = _finished(total, bias, slope, channel, channels, biased, bent, learnt)
    known = (pixel < pixels)[:, None] & (channel < channels)[None, :]
    place = _place((pixel // out_cols).to(tl.int64), pixel % out_cols, out_cols, channel, channels, ratio)
    if adding:
        total += tl.load(added + place, mask=known, other=0.0)
    tl.store(out + place, total, mask=known)


@triton.jit(do_not_specialize=["rows", "cols", "out_rows", "out_cols", "slope"])
def _convolve_rows(
    image, factors, bias, added, out, rows, cols, out_rows, out_cols, slope,
    inputs: tl.constexpr, next_pixel: tl.constexpr, channels: tl.constexpr, size: tl.constexpr, padding: tl.constexpr,
    biased: tl.constexpr, adding: tl.constexpr, bent: tl.constexpr, learnt: tl.constexpr, ratio: tl.constexpr,
    at_once: tl.constexpr, deep: tl.constexpr, wide: tl.constexpr, narrow: tl.constexpr,
):  # fmt: skip
    """`at_once` pixels, row after row, times the weights of each row of taps: the image is read and split once for all
    taps of the row. The sum of each column of taps lies beside the pixel that it belongs to, and is brought there last.

    The outermost pixels lack what comes from beyond; other programs make them. `narrow`: a row has fewer pixels.
    """
    whole: tl.constexpr = at_once - size + 1
    parts: tl.constexpr = (inputs + deep - 1) // deep
    line, one = tl.arange(0, at_once), tl.arange(0, deep)
    channel = tl.program_id(1) * wide + tl.arange(0, wide)
    width = tl.num_programs(1) * wide
    number = tl.program_id(2).to(tl.int64)
    first = tl.program_id(0) * whole
    top = first // cols
    col = first % cols - padding + line
    down = (col + cols) // cols - 1 if narrow else (col >= cols).to(tl.int32) - (col < 0).to(tl.int32)
    col -= down * cols
    start = ((number * rows - padding) * cols + first - padding) * next_pixel
    sources = image + start + line[:, None] * next_pixel + one[None, :]
    weights = factors + one[:, None] * width + channel[None, :]
    nothing = tl.zeros((at_once, wide), tl.float32)
    totals = (nothing, nothing, nothing)[:size]  # as many as the largest kernel has columns
    for step in range(size * parts):
        i, part = step // parts, step % parts
        inside = within(top + down + i - padding, rows)[:, None]
        if inputs % deep:
            inside = inside & (part * deep + one < inputs)[None, :]
        values = tl.load(sources + (i * cols * next_pixel + part * deep), mask=inside, other=0.0)
        large, small = halves(values * UP)
        for j in tl.static_range(size):
            those = weights + (step * size + j) * deep * width
            weighty = tl.load(those, cache_modifier=".ca")
            weightless = tl.load(those + size * size * parts * deep * width, cache_modifier=".ca")
            total = totals[0] + product(large, small, weighty, weightless)
            totals = totals[1:] + (total,)  # noqa: RUF005 - Triton knows no star
    total = totals[padding]
    for j in tl.static_range(size):
        if j != padding:
            beside = tl.minimum(tl.maximum(line + (j - padding), 0), at_once - 1)
            moved = tl.gather(totals[j], tl.broadcast_to(beside[:, None], at_once, wide), 0)
            total += tl.where(within(col + (j - padding), cols)[:, None], moved, 0.0)
    total = _finished(total, bias, slope, channel, channels, biased, bent, learnt)
    known = (line >= padding) & (line < padding + whole) & (top + down < out_rows) & (col < out_cols)
    known = known[:, None] & (channel < channels)[None, :]
    place = (number * out_rows + top) * out_cols * channels + _place(down, col, out_cols, channel, channels, ratio)
    if adding:
        total += tl.load(added + place, mask=known, other=0.0)
    tl.store(out + place, total, mask=known)


@triton.jit
def _finished(
    total, bias, slope, channel, channels: tl.constexpr, biased: tl.constexpr, bent: tl.constexpr, learnt: tl.constexpr
):  # fmt: skip
    total *= DOWN
    if biased:
        total += tl.load(bias + channel, mask=channel < channels, other=0.0)[None, :]
    if bent:
        total = tl.where(total < 0, total * (tl.load(slope) if learnt else slope), total)
    return total


@triton.jit
def _place(row, col, cols, channel, channels: tl.constexpr, ratio: tl.constexpr):
    """Where pixels (row, col) of an image of `cols` columns are, once it is shuffled by `ratio`."""
    if ratio == 1:
        return (row * cols + col)[:, None] * channels + channel[None, :]
    each: tl.constexpr = channels // (ratio * ratio)
    phase = channel // each
    line = row[:, None] * ratio + (phase // ratio)[None, :]
    pixel = (line * cols + col[:, None]) * ratio + (phase % ratio)[None, :]
    return pixel * each + (channel % each)[None, :]
