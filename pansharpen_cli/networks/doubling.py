"""Transposed 3x3 convolution to twice the size on the CPU: each pixel of the result from the pixels that reach it.

Of a pixel's four phases one sees a single pixel of the image, two see two and one sees four: nine taps in all, as
matrix products over the channels. A pixel is summed in the same order wherever in an image it lies.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pansharpen_cli.compiled import compiled
from pansharpen_cli.networks.vectors import AT_ONCE, BYTES, LANES, Image, add, channels_last, multiply, side_by_side

RING = ((0, 1), (0, 0), (1, 0), (1, 1))
"""The pixels (row, col) that reach a pixel's phases, in an order in which those of each phase stand in a row."""
SEEN = ((1, 2), (0, 2), (1, 3), (0, 4))
"""For each phase, 2 * row + col, which of them: from ... to."""
TAPS = {(0, 0): 1, (1, 0): 2, (1, 1): 0}
"""Tap of the kernel along an axis by the phase and the pixel there."""


def fits(weight: Tensor) -> bool:
    """Whether `double` can do it: weight (Ci, Co, 3, 3)."""
    return all(channels % LANES == 0 for channels in weight.shape[:2])


def double(image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(N, Ci, H, W) to (N, Co, 2 H, 2 W), as torch's transposed convolution with a stride of 2, a padding of 1 and an
    output_padding of 1. Images are best kept channels last, as the result is."""
    depth, width = weight.shape[:2]
    factors = [_factors(weight.detach(), phase) for phase in range(4)]
    biases = bias.detach().contiguous()
    layer = _Layer(*(array.data_ptr() for array in (*factors, biases)))
    image = channels_last(image)
    rows, cols = image.shape[1:3]
    out = torch.empty(len(image), 2 * rows, 2 * cols, width)
    for pixels, into in zip(image, out, strict=True):

        def stretch(first: int, last: int, pixels: Tensor = pixels, into: Tensor = into) -> None:
            work = [torch.zeros(size) for size in (LANES, AT_ONCE * 4 * depth, 4 * AT_ONCE * width)]
            _double(Image.of(pixels), layer, Image.of(into), first, last, *(array.data_ptr() for array in work))

        side_by_side(stretch, rows, 1)
    return out.permute(0, 3, 1, 2)


class _Layer(NamedTuple):
    """Addresses: what each phase multiplies the pixels by that it sees, (pixels * Ci, Co), and the biases."""

    even: int
    right: int
    below: int
    across: int
    biases: int


def _factors(kernel: Tensor, phase: int) -> Tensor:
    first, last = SEEN[phase]
    row, col = divmod(phase, 2)
    return torch.cat([kernel[:, :, TAPS[row, i], TAPS[col, j]] for i, j in RING[first:last]])


@compiled
def _double(
    image: Image, layer: _Layer, out: Image, first: int, last: int, zeros: int, ring: int, made: int
) -> None:  # fmt: skip
    """Rows first ... last of `image` to their pixels of `out`, twice its size."""
    step, phase = 4 * image.pixel, AT_ONCE * out.pixel
    for y in range(first, last):
        for x in range(0, image.cols, AT_ONCE):
            count = min(AT_ONCE, image.cols - x)
            for t in range(count):
                for p in range(4):
                    row, col = y + RING[p][0], x + t + RING[p][1]
                    within = row < image.rows and col < image.cols
                    source = image.address + (row * image.cols + col) * image.pixel
                    for c in range(0, image.pixel, BYTES):
                        add(source + c if within else zeros, zeros, ring + (4 * t + p) * image.pixel + c)
            single, pair = image.pixel, 2 * image.pixel
            multiply(ring + single, step, single, layer.even, out.pixel, made, out.pixel)
            multiply(ring, step, pair, layer.right, out.pixel, made + phase, out.pixel)
            multiply(ring + single, step, pair, layer.below, out.pixel, made + 2 * phase, out.pixel)
            multiply(ring, step, 2 * pair, layer.across, out.pixel, made + 3 * phase, out.pixel)
            for t in range(count):
                for p in range(4):
                    place = out.address + ((2 * y + p // 2) * out.cols + 2 * (x + t) + p % 2) * out.pixel
                    for c in range(0, out.pixel, BYTES):
                        add(made + p * phase + t * out.pixel + c, layer.biases + c, place + c)
