"""Transposed 3x3 convolution to twice the size on the CPU: each pixel of the result from the pixels that reach it.

Of a pixel's four phases one sees a single pixel of the image, two see two and one sees four: nine taps in all, as
matrix products over the channels. A pixel is summed in the same order wherever in an image it lies.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from pansharpen_cli.networks.vectors import (
    AT_ONCE,
    BYTES,
    LANES,
    Image,
    channels_last,
    clear,
    copy,
    in_vectors,
    multiply_onto,
    side_by_side,
)
from pansharpen_cli.system.compiled import compiled

TAPS = {(0, 0): 1, (1, 0): 2, (1, 1): 0}
"""Tap of the kernel along an axis by the phase and the pixel there."""


def fits(weight: Tensor) -> bool:
    """Whether `double` can do it: weight (Ci, Co, 3, 3)."""
    return all(channels % LANES == 0 for channels in weight.shape[:2])


def double(image: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """(N, Ci, H, W) to (N, Co, 2 H, 2 W), as torch's transposed convolution with a stride of 2, a padding of 1 and an
    output_padding of 1. Images are best kept channels last, as the result is."""
    depth, width = weight.shape[:2]
    factors, biases = _factors(weight.detach()), in_vectors(bias.detach())
    image = channels_last(image)
    rows, cols = image.shape[1:3]
    out = torch.empty(len(image), 2 * rows, 2 * cols, width)

    def stretch(number: int, first: int, last: int) -> None:
        held, made = torch.zeros(2, cols + AT_ONCE + 1, depth), torch.empty(2, 2 * AT_ONCE, width)
        work = _Work(factors.data_ptr(), biases.data_ptr(), held.data_ptr(), 4 * held[0].numel(), made.data_ptr())
        _double(Image.of(image[number]), Image.of(out[number]), first, last, work)

    for number in range(len(out)):
        side_by_side(partial(stretch, number), rows, 1)
    return out.permute(0, 3, 1, 2)


def _factors(kernel: Tensor) -> Tensor:
    """What the pixels are multiplied by that a phase sees, phase by phase, row by row: (9 * Ci, Co)."""
    seen = [
        kernel[:, :, TAPS[down, row], TAPS[across, col]]
        for down in range(2) for across in range(2) for row in range(down + 1) for col in range(across + 1)
    ]  # fmt: skip
    return torch.cat(seen).float()


class _Work(NamedTuple):
    """Addresses: factors and biases; two rows of the image, so many bytes each, with zeros beyond; a group of pixels of
    the result, at its border."""

    factors: int
    biases: int
    held: int
    row: int
    made: int


@compiled
def _double(image: Image, out: Image, first: int, last: int, work: _Work) -> None:
    """Rows first ... last of `image` to their pixels of `out`, twice its size."""
    here, below = work.held, work.held + work.row
    _hold(image, first, here)
    for y in range(first, last):
        _hold(image, y + 1, below)
        for x in range(0, image.cols, AT_ONCE):
            place = out.address + (2 * y * out.cols + 2 * x) * out.pixel
            source = x * image.pixel
            if x + AT_ONCE <= image.cols:
                _group(here + source, below + source, image.pixel, work, place, out.cols * out.pixel, out.pixel)
                continue
            made = 2 * AT_ONCE * out.pixel
            _group(here + source, below + source, image.pixel, work, work.made, made, out.pixel)
            for row in range(2):
                for at in range(0, 2 * (image.cols - x) * out.pixel, BYTES):
                    copy(work.made + row * made + at, place + row * out.cols * out.pixel + at)
        here, below = below, here


@compiled
def _hold(image: Image, y: int, to: int) -> None:
    """A row of the image, or zeros for the one below the last."""
    line = image.cols * image.pixel
    for at in range(0, line, BYTES):
        if y < image.rows:
            copy(image.address + y * line + at, to + at)
        else:
            clear(to + at)


@compiled
def _group(here: int, below: int, pixel: int, work: _Work, place: int, line: int, width: int) -> None:
    """The four phases of AT_ONCE pixels, at `place`."""
    factors = work.factors
    for down in range(2):
        for across in range(2):
            to = place + down * line + across * width
            length = (across + 1) * pixel
            multiply_onto(work.biases, 0, here, pixel, length, factors, width, to, 2 * width)
            factors += length // 4 * width
            if down:
                multiply_onto(to, 2 * width, below, pixel, length, factors, width, to, 2 * width)
                factors += length // 4 * width
