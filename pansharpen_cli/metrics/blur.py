"""The blur of an MS camera rounded to whole DN, as D_lambda_K compares it: much faster than a Fourier transform."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pansharpen_cli.compiled import compiled
from pansharpen_cli.mtf import TAPS

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

STEP = 7
"""Taps that a compiled loop takes at once."""
STEPS = -(-TAPS // STEP)
SINGLE = 6 * float(np.finfo(np.float32).eps)
"""Several times the rounding errors of the sums in single precision, for an image between -1 and 1."""
DOUBT = 0.01
"""DN that the pairs of filters may be off by: one pixel in fifty is then looked at twice."""


@dataclass(frozen=True, eq=False)
class Blur:
    """The filter by an MTF kernel (TAPS, TAPS), rounded half up to whole DN.

    The kernel is nearly the product of a filter `down` the columns and one `across` the rows; n such pairs leave
    `missing`[n] of it. They are applied in single precision. Where a pixel then comes so near to a half that it may be
    rounded to the wrong side, it is filtered again in double precision by the whole kernel.

    `down` and `across` (pairs, STEPS * STEP) hold zeros behind the taps.
    """

    kernel: Float64
    down: Float32
    across: Float32
    missing: Float64

    @classmethod
    def of(cls, kernel: Float64) -> Blur:
        columns, values, rows = np.linalg.svd(kernel)
        missing = [np.abs(kernel - columns[:, :n] * values[:n] @ rows[:n]).sum() for n in range(TAPS)]
        padded = np.zeros((2, TAPS, STEPS * STEP), np.float32)
        padded[:, :, :TAPS] = (columns * values).T, rows
        return cls(np.ascontiguousarray(kernel), padded[0], padded[1], np.array(missing))

    def __call__(self, piece: npt.NDArray[Any]) -> Float64:
        """(row, col) with half a kernel around it -> (row - TAPS + 1, col - TAPS + 1)."""
        low, high = float(piece.min()), float(piece.max())
        middle = float(np.rint((low + high) / 2))  # a whole number: most images stay exact
        reach = max(high - middle, middle - low)
        pairs = 1 + int(np.argmax(self.missing[1:] * reach < DOUBT))  # 1 as well where none is enough
        centred = np.zeros((piece.shape[0] + STEPS * STEP - TAPS, piece.shape[1]), np.float32)
        np.subtract(piece, middle, out=centred[: piece.shape[0]], dtype=np.float64, casting="same_kind")
        result = np.empty((piece.shape[0] - TAPS + 1, piece.shape[1] - TAPS + 1))
        limit = 0.5 - (self.missing[pairs] + SINGLE) * reach
        level = middle * float(self.kernel.sum())
        _blur(piece, centred, self.kernel, self.down[:pairs], self.across[:pairs], level, limit, result)
        return result


@compiled
def _blur(
    piece: npt.NDArray[Any], centred: Float32, kernel: Float64, down: Float32, across: Float32,
    level: float, limit: float, out: Float64,
) -> None:  # fmt: skip
    """Into `out`. `level` is what the kernel makes of that which was taken off `centred`; a pixel farther than `limit`
    from a whole number is looked at twice."""
    rows, cols = out.shape
    whole_level = np.rint(level)
    rest = np.float32(level - whole_level)
    filtered = np.empty(cols, np.float32)
    column = np.zeros(cols + STEPS * STEP, np.float32)
    sums = np.empty(TAPS)
    for y in range(rows):
        filtered[:] = rest
        for pair in range(len(down)):
            column[:] = 0
            for tap in range(0, STEPS * STEP, STEP):
                _add_rows(centred[y + tap :], down[pair, tap:], column[: cols + TAPS - 1])
            for tap in range(0, STEPS * STEP, STEP):
                _add_shifted(column[tap:], across[pair, tap:], filtered)
        for x in range(cols):
            nearest = np.rint(filtered[x])
            out[y, x] = np.float64(nearest) + whole_level
            if abs(filtered[x] - nearest) > limit:
                out[y, x] = np.floor(_exact(piece[y:, x:], kernel, sums) + 0.5)


@compiled
def _add_rows(image: Float32, k: Float32, out: Float32) -> None:
    """STEP rows of an image, weighted; spelled out, it becomes vector code."""
    a, b, c, d, e, f, g = image[0], image[1], image[2], image[3], image[4], image[5], image[6]
    k0, k1, k2, k3, k4, k5, k6 = k[0], k[1], k[2], k[3], k[4], k[5], k[6]
    for x in range(len(out)):
        out[x] += k0 * a[x] + k1 * b[x] + k2 * c[x] + k3 * d[x] + k4 * e[x] + k5 * f[x] + k6 * g[x]


@compiled
def _add_shifted(row: Float32, k: Float32, out: Float32) -> None:
    """A row moved by 0 ... STEP - 1 pixels, weighted."""
    k0, k1, k2, k3, k4, k5, k6 = k[0], k[1], k[2], k[3], k[4], k[5], k[6]
    for x in range(len(out)):
        out[x] += (
            k0 * row[x] + k1 * row[x + 1] + k2 * row[x + 2] + k3 * row[x + 3] + k4 * row[x + 4] + k5 * row[x + 5]
            + k6 * row[x + 6]
        )  # fmt: skip


@compiled
def _exact(window: npt.NDArray[Any], kernel: Float64, sums: Float64) -> float:
    """One pixel by the whole kernel in double precision; by columns, in `sums`, it becomes vector code."""
    sums[:] = 0
    for i in range(TAPS):
        row, taps = window[i], kernel[i]
        for j in range(TAPS):
            sums[j] += taps[j] * np.float64(row[j])
    return sums.sum()  # type: ignore[no-any-return]
