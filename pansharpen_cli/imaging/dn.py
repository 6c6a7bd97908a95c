"""Loops over digital numbers (DN), compiled for the CPU: every pixel of a product goes through them once."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pansharpen_cli.system.compiled import compiled

Float32 = npt.NDArray[np.float32]

STEP = np.dtype(np.float32).itemsize
"""Bytes from a pixel of `quantise` to the next one of its row."""


@compiled
def quantise(hrms: Float32, low: float, high: float, nodata: float, instead: float, out: npt.NDArray[Any]) -> None:
    """`hrms` (bands, row, col) rounded half to even and clipped, into the integers `out`; what would be `nodata`, which
    may be NaN, becomes `instead`. Computed in the precision of these four numbers."""
    bands, rows, cols = out.shape
    if hrms.strides[2] != STEP:  # known from here on, which makes vector code
        raise ValueError("the pixels of a row must lie side by side")
    for band in range(bands):
        for row in range(rows):
            values, numbers = hrms[band, row], out[band, row]
            for x in range(cols):
                whole = np.rint(low if values[x] < low else high if values[x] > high else values[x])
                numbers[x] = instead if whole == nodata else whole


@compiled
def sums_above(values: npt.NDArray[np.integer], low: int) -> tuple[np.uint64, np.uint64]:
    """Sum and sum of squares of what integers (n,) of at most 16 bits are above the lowest of them; exact, for n up to
    2**32."""
    total = squares = np.uint64(0)
    for i in range(len(values)):
        above = np.uint32(values[i] - low)
        total += above
        squares += np.uint32(above * above)
    return total, squares
