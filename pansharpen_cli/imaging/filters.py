"""Filters compiled for the CPU: EXP, the reduction of a PAN to MS pixels, and an image between its pixels.

Polyphase taps are taken STEP at a time, spelled out, which becomes vector code. So filters are filled up with zeros to
a multiple of STEP (`in_steps`), and images have zeros at their ends for those taps to meet (`with_room`). Images and
taps are of one type. Every pixel adds in the same order, wherever an image is cut.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pansharpen_cli.system.compiled import compiled

Real = npt.NDArray[np.floating]
Indices = npt.NDArray[np.intp]

STEP = 7
"""Taps that a loop takes at once."""


def in_steps(taps: Real) -> Real:
    """Taps (..., taps) as the loops take them."""
    return np.pad(taps, [(0, 0)] * (taps.ndim - 1) + [(0, -taps.shape[-1] % STEP)])


def with_room(image: npt.NDArray[Any], dtype: npt.DTypeLike = np.float64) -> Real:
    """An image (bands, row, col) as the loops take it."""
    bands, rows, cols = image.shape
    result: Real = np.zeros((bands, rows + STEP - 1, cols + STEP - 1), dtype)
    result[:, :rows, :cols] = image
    return result


@compiled
def expand(ms: Real, weights: Real, out: Real) -> None:
    """out[band, ratio i + p, ratio j + q] = sum over s, t of weights[p, s] weights[q, t] ms[band, i + s, j + t].

    `weights` (ratio, taps); `ms` (bands, h, w) has at least taps - 1 rows and columns more than `out` / ratio.
    """
    bands, rows, cols = out.shape
    ratio, taps = weights.shape
    wide = np.empty((rows // ratio + taps, cols), out.dtype)
    phase = np.empty(cols // ratio, out.dtype)
    for band in range(bands):
        for y in range(rows // ratio + taps - 1):
            for p in range(ratio):
                phase[:] = 0
                for tap in range(0, taps, STEP):
                    _add_shifted(ms[band, y, tap:], weights[p, tap:], phase)
                for x in range(len(phase)):
                    wide[y, ratio * x + p] = phase[x]
        for y in range(0, rows, ratio):
            out[band, y : y + ratio] = 0
            for tap in range(0, taps, STEP):
                for p in range(ratio):  # innermost: they read the same rows, which stay in the nearest cache
                    _add_rows(wide[y // ratio + tap :], weights[p, tap:], out[band, y + p])


@compiled
def reduce(image: Real, taps: Real, ratio: int, out: Real) -> None:
    """out[band, i, j] = sum over s, t of taps[s] taps[t] image[band, ratio i + s, ratio j + t].

    `image` (bands, h, w) has the rows and columns that all `taps` meet.
    """
    bands, rows, cols = out.shape
    low_rows = np.empty(image.shape[2], out.dtype)
    for band in range(bands):
        for y in range(rows):
            low_rows[:] = 0
            for tap in range(0, len(taps), STEP):
                _add_rows(image[band, ratio * y + tap :], taps[tap:], low_rows)
            line = out[band, y]
            line[:] = 0
            for tap in range(len(taps)):
                for x in range(cols):
                    line[x] += taps[tap] * low_rows[ratio * x + tap]


@compiled
def gather(image: Real, rows: Indices, cols: Indices, row_weights: Real, col_weights: Real, out: Real) -> None:
    """out[band, n] = sum over s, t of row_weights[n, s] col_weights[n, t] image[band, rows[n] + s, cols[n] + t].

    `image` (bands, h, w) has all pixels that the taps of all places meet.
    """
    for n in range(len(rows)):
        for band in range(len(image)):
            total = out.dtype.type(0)
            for s in range(row_weights.shape[1]):
                line, part = image[band, rows[n] + s], out.dtype.type(0)
                for t in range(0, col_weights.shape[1], STEP):
                    part += _weighed(line[cols[n] + t :], col_weights[n, t:])
                total += row_weights[n, s] * part
            out[band, n] = total


@compiled
def taps_between(table: Real, places: Real, out: Real) -> None:
    """Taps (n, taps) at `places` (n,) between the rows of a `table` (rows, taps): cubic polynomials through four."""
    last = len(table) - 4
    for n in range(len(places)):
        first = min(max(int(places[n]) - 1, 0), last)
        x = places[n] - first
        a, b, c, d = x, x - 1, x - 2, x - 3
        w0, w1, w2, w3 = -b * c * d / 6, a * c * d / 2, -a * b * d / 2, a * b * c / 6
        for t in range(table.shape[1]):
            out[n, t] = (
                w0 * table[first, t] + w1 * table[first + 1, t] + w2 * table[first + 2, t] + w3 * table[first + 3, t]
            )


@compiled
def _weighed(line: Real, k: Real) -> Any:
    """The sum of STEP pixels, weighed."""
    return (
        k[0] * line[0] + k[1] * line[1] + k[2] * line[2] + k[3] * line[3] + k[4] * line[4] + k[5] * line[5]
        + k[6] * line[6]
    )  # fmt: skip


@compiled
def _add_rows(image: Real, k: Real, out: Real) -> None:
    """STEP rows of an image, weighted; spelled out, it becomes vector code."""
    a, b, c, d, e, f, g = image[0], image[1], image[2], image[3], image[4], image[5], image[6]
    k0, k1, k2, k3, k4, k5, k6 = k[0], k[1], k[2], k[3], k[4], k[5], k[6]
    for x in range(len(out)):
        out[x] += k0 * a[x] + k1 * b[x] + k2 * c[x] + k3 * d[x] + k4 * e[x] + k5 * f[x] + k6 * g[x]


@compiled
def _add_shifted(row: Real, k: Real, out: Real) -> None:
    """A row moved by 0 ... STEP - 1 pixels, weighted."""
    k0, k1, k2, k3, k4, k5, k6 = k[0], k[1], k[2], k[3], k[4], k[5], k[6]
    for x in range(len(out)):
        out[x] += (
            k0 * row[x] + k1 * row[x + 1] + k2 * row[x + 2] + k3 * row[x + 3] + k4 * row[x + 4] + k5 * row[x + 5]
            + k6 * row[x + 6]
        )  # fmt: skip
