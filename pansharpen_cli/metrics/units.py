"""Digital numbers for images that hold none: Q2n and D_lambda_K round to whole numbers and clip to 16 bits, as the
field's toolbox does, so they want values as a camera counts them. Other metrics are the same in any unit."""

from __future__ import annotations

from math import ceil, log10
from typing import Any

import numpy as np
import numpy.typing as npt

from pansharpen_cli.metrics.image import Image, Mask

LARGEST = 65535
"""Above it values are clipped."""
FINE = 1000
"""Fractions below it are multiplied: rounding then changes them by less than a thousandth."""
NORMALISED = 1.5
"""Up to it values are parts of the largest DN."""


def factor(values: npt.NDArray[Any], maxval: float | None = None) -> float:
    """By what to multiply an image of such `values`; 1 for whole numbers of 16 bits, and for fractions of that size.

    A power of ten, but `maxval`, the largest DN, for values that are parts of it, as benchmark files may hold them.
    """
    high = float(np.abs(values).max(initial=0))
    if not np.isfinite(high) or high == 0:
        return 1.0
    if high > LARGEST:
        return 10.0 ** -ceil(log10(high / LARGEST))
    if high >= FINE or not (values % 1).any():
        return 1.0
    if maxval and high <= NORMALISED < maxval:
        return maxval
    return 10.0 ** ceil(log10(FINE / high))


class InDn:
    """An image times a `factor`."""

    def __init__(self, image: Image, factor: float) -> None:
        self._image, self._factor = image, factor
        self.bands, self.shape = image.bands, image.shape

    def read(self, rows: slice, cols: slice) -> tuple[npt.NDArray[Any], Mask]:
        data, valid = self._image.read(rows, cols)
        return (data if self._factor == 1 else data * np.float64(self._factor)), valid
