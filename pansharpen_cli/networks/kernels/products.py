"""Products on the tensor cores, and yet of single precision: both factors are split in two parts of half precision,
which the cores take whole, and three of the four products are added up."""

from __future__ import annotations

import triton
import triton.language as tl

UP = tl.constexpr(2.0**4)
"""What an image is multiplied by before it is split: half precision can then tell its small part, and has room for
values of up to 4000."""
UP_WEIGHTS = tl.constexpr(2.0**8)
"""The same for weights, of up to 250."""
DOWN = tl.constexpr(2.0**-12)
"""What their products are multiplied by."""
FEWEST = 16
"""Rows and columns of the smallest matrix that the tensor cores take."""


@triton.jit
def halves(values):
    """Two parts of half precision whose sum the values are, but for their last two bits."""
    large = values.to(tl.float16)
    return large, (values - large.to(tl.float32)).to(tl.float16)


@triton.jit
def product(large, small, weighty, weightless):
    """Of an image and weights, both in their two parts. It is to be added up beside others: the cores' own sums lose
    bits."""
    part = tl.dot(small, weighty)
    part = tl.dot(large, weightless, part)
    return tl.dot(large, weighty, part)
