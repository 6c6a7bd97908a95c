"""Images as kernels take them, channels last."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

TAPS = tl.constexpr(9)
"""Of a kernel of 3 x 3."""


def dense(image: Tensor) -> Tensor:
    return image.contiguous(memory_format=torch.channels_last)


def channels_last(image: Tensor) -> tuple[Tensor, int]:
    """`image` with its channels next to each other, and the numbers from pixel to pixel: more than it has channels if
    it is a part of another image."""
    rows, cols = image.shape[2:]
    step = image.stride(3)
    if image.stride() == (rows * cols * step, 1, cols * step, step):
        return image, step
    return dense(image), image.shape[1]


def empty(like: Tensor, shape: tuple[int, int, int, int]) -> Tensor:
    return torch.empty(shape, device=like.device, memory_format=torch.channels_last)


def quotient(number: int, divisor: int) -> int:
    """Rounded up, in less time than Triton's own takes."""
    return -(-number // divisor)


def power(number: int) -> int:
    """The power of two that is not smaller."""
    return 1 << (number - 1).bit_length()


@triton.jit
def within(position, size):
    return position.to(tl.uint32) < size.to(tl.uint32)
