"""The blur of an MS camera rounded to whole DN, as D_lambda_K compares it: much faster than a Fourier transform."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from pansharpen_cli.imaging.filters import STEP
from pansharpen_cli.imaging.mtf import TAPS
from pansharpen_cli.metrics import loops
from pansharpen_cli.metrics.formulas import alike
from pansharpen_cli.metrics.loops import LONG, ROOM

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

MOST_PAIRS = 8
"""What is missing after these is less than the errors of single precision."""
AGAIN = 1000
"""Taps of the separable filters that take as long as looking at a pixel again."""


@dataclass(frozen=True, eq=False)
class Separable:
    """A kernel (TAPS, TAPS) as a sum of products of filters `down` the columns and `across` the rows (pairs, taps), the
    taps in its middle, and what they leave: the `rest` (LONG * ROOM), whose magnitudes add up to `missing`.

    Zeros fill up the filters to a multiple of STEP taps, and the rest.
    """

    down: Float32
    across: Float32
    rest: Float32
    missing: float

    @classmethod
    def of(cls, kernel: Float64, pairs: tuple[Float64, Float64], taps: int) -> Separable:
        """From `pairs` of filters (pairs, TAPS), down and across; `taps` of them are kept."""
        left_out = (LONG - taps) // 2
        filters = np.zeros((2, len(pairs[0]), taps), np.float32)
        filters[:, :, : TAPS - 2 * left_out] = np.array(pairs)[:, :, left_out : TAPS - left_out]
        rest, middle = np.zeros((LONG, ROOM)), slice(left_out, left_out + taps)
        rest[:TAPS, :TAPS] = kernel
        rest[middle, middle] -= filters[0].T.astype(np.float64) @ filters[1]
        return cls(filters[0], filters[1], rest.astype(np.float32).ravel(), float(np.abs(rest).sum()))


@dataclass(frozen=True, eq=False)
class Blur:
    """The filter by an MTF kernel (TAPS, TAPS), rounded half up to whole DN.

    The kernel is nearly the product of two filters: these are applied in single precision. Where a pixel then comes so
    near to a half that it may be rounded to the wrong side, it is filtered again; see `loops.blur`. Longer filters, and
    more pairs of them, leave fewer such pixels: `ways` are all there are, and each image takes what costs it least.
    """

    kernel: Float64
    ways: Sequence[Separable]

    @classmethod
    def of(cls, kernel: Float64) -> Blur:
        columns, values, rows = np.linalg.svd(kernel)
        down = (columns * values).T
        sizes = product(range(1, MOST_PAIRS + 1), range(3 * STEP, LONG + 1, STEP))
        ways = [Separable.of(kernel, (down[:pairs], rows[:pairs]), taps) for pairs, taps in sizes]
        return cls(np.ascontiguousarray(kernel), ways)

    def __call__(self, image: npt.NDArray[Any], out: Float64) -> None:
        """`image` (row, col), with half a kernel around, into `out` (row - TAPS + 1, col - TAPS + 1)."""
        (image,) = alike(image)
        low, high = float(image.min()), float(image.max())
        middle = float(np.float32(np.rint((low + high) / 2)))  # a whole number: most images stay exact
        reach = max(high - middle, middle - low)
        way = min(self.ways, key=lambda way: way.down.size + AGAIN * min(2 * way.missing * reach, 1))
        loops.blur(image, self.kernel, middle, way.down, way.across, way.rest, way.missing, out)
