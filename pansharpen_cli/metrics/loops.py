"""Inner loops of the metrics, compiled for the CPU: one pass over an image where NumPy takes many.

A loop becomes vector code if the rows of its arrays lie close together or a known distance apart; so all arrays are
contiguous, and what a caller has cut out of an image is copied first. Sums run in an order that depends on nothing but
the length of what is added: a block has the same moments whatever tile it is in.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from pansharpen_cli.imaging.filters import STEP
from pansharpen_cli.system.compiled import compiled

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Real = npt.NDArray[np.floating]
Mask = npt.NDArray[np.bool_]
Bytes = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.intp]

LONG = 6 * STEP
"""Rows of a kernel that `blur` takes, ..."""
ROOM = 48
"""... and its columns: more than LONG, so that vectors of eight fill them."""
PIECE = 256
"""Pixels a side that `blur` takes at most."""
WIDE = PIECE + ROOM
"""Pixels from row to row of the image that `blur` takes, and the number of its rows."""
LINES = 4
"""Rows that `blur` makes together."""
SINGLE = 6 * float(np.finfo(np.float32).eps)
"""Several times the rounding errors of those filters in single precision, for an image between -1 and 1."""
LANES = 32
"""Sums that are kept side by side, and added up at the end."""
MOST = 32 * LANES
"""Pixels of the largest block; smaller ones are filled up with zeros."""
TOGETHER = 8
"""Bands whose products with all others are one matrix product: so small that BLAS takes no threads for it."""
UINT16_MAX = 65535.0


@compiled
def blur(
    image: Real, kernel: Float64, middle: float, down: Float32, across: Float32, rest: Float32, missing: float,
    out: Float64,
) -> None:  # fmt: skip
    """An `image` (row, col) through `kernel` (taps, taps), rounded half up to whole numbers, into `out`.

    `middle`, a whole number, is taken off the image first. In single precision the kernel is a sum of products of
    filters `down` the columns and `across` the rows (pairs, taps), those in its middle, and of a small `rest`
    (LONG * ROOM), whose magnitudes add up to `missing`. A pixel that these filters bring so near to a half that it may
    be rounded to the wrong side gets the rest too, and if it is then still in doubt the kernel in double precision.
    """
    rows, cols = out.shape
    level = middle * kernel.sum()
    base = np.rint(level)
    centred, filtered = np.zeros(WIDE * WIDE, np.float32), np.empty(LINES * PIECE, np.float32)
    column, far, doubtful = np.empty(LINES * WIDE, np.float32), np.empty(PIECE, np.uint8), np.empty(PIECE, np.intp)
    lanes, sums = np.empty(ROOM, np.float32), np.empty(len(kernel))
    for top in range(0, rows, PIECE):
        for left in range(0, cols, PIECE):
            height, width = min(PIECE, rows - top), min(PIECE, cols - left)
            _take_off(image, top, left, height + len(kernel) - 1, width + len(kernel) - 1, middle, centred)
            reach = _reach(centred)
            for line in range(height):
                if line % LINES == 0:
                    filtered[:] = level - base
                    _add_filtered(centred[line * WIDE :], down, across, column, filtered)
                values = filtered[line % LINES * PIECE :][:width]
                into = out[top + line][left : left + width]
                for i in range(_round(values, base, 0.5 - (missing + SINGLE) * reach, into, far, doubtful)):
                    x = doubtful[i]
                    value = values[x] + _sum_of_rest(centred[line * WIDE + x :], rest, lanes)
                    if abs(value - np.rint(value)) > 0.5 - SINGLE * reach:
                        value = _exact(image, top + line, left + x, kernel, sums) - base
                    into[x] = np.floor(value + 0.5) + base


@compiled
def _reach(image: Float32) -> float:
    """The largest magnitude in rows of WIDE pixels."""
    largest = np.zeros(WIDE, np.float32)
    for y in range(0, WIDE):
        for x in range(WIDE):
            value = abs(image[y * WIDE + x])
            largest[x] = value if value > largest[x] else largest[x]
    return largest.max()  # type: ignore[no-any-return]


@compiled
def _add_filtered(image: Float32, down: Float32, across: Float32, column: Float32, out: Float32) -> None:
    """LINES rows of PIECE pixels through pairs of filters; `image` begins where the whole kernel does."""
    margin = (LONG - down.shape[1]) // 2
    for pair in range(len(down)):
        column[:] = 0
        for tap in range(0, down.shape[1], STEP):
            _add_lines(image[(margin + tap) * WIDE :], down[pair, tap:], column)
        for line in range(LINES):
            for tap in range(0, down.shape[1], STEP):
                _add_piece(column[line * WIDE + margin + tap :], across[pair, tap:], out[line * PIECE :])


@compiled
def _take_off(image: Real, row: int, col: int, height: int, width: int, middle: float, centred: Float32) -> None:
    """A part of an image less `middle`, into rows of WIDE pixels; what was there before stays around it."""
    top, left = np.uint64(row), np.uint64(col)
    for y in range(np.uint64(height)):
        for x in range(np.uint64(width)):
            centred[y * np.uint64(WIDE) + x] = image[top + y, left + x] - middle


@compiled
def _add_lines(image: Float32, k: Float32, out: Float32) -> None:
    """STEP rows of WIDE pixels, weighted, for LINES rows that follow each other."""
    k0, k1, k2, k3, k4, k5, k6 = k[0], k[1], k[2], k[3], k[4], k[5], k[6]
    for x in range(WIDE):
        a, b, c, d, e = image[x], image[x + WIDE], image[x + 2 * WIDE], image[x + 3 * WIDE], image[x + 4 * WIDE]
        f, g, h, i = image[x + 5 * WIDE], image[x + 6 * WIDE], image[x + 7 * WIDE], image[x + 8 * WIDE]
        j = image[x + 9 * WIDE]
        out[x] += k0 * a + k1 * b + k2 * c + k3 * d + k4 * e + k5 * f + k6 * g
        out[x + WIDE] += k0 * b + k1 * c + k2 * d + k3 * e + k4 * f + k5 * g + k6 * h
        out[x + 2 * WIDE] += k0 * c + k1 * d + k2 * e + k3 * f + k4 * g + k5 * h + k6 * i
        out[x + 3 * WIDE] += k0 * d + k1 * e + k2 * f + k3 * g + k4 * h + k5 * i + k6 * j


@compiled
def _add_piece(row: Float32, k: Float32, out: Float32) -> None:
    """A row moved by 0 ... STEP - 1 pixels, weighted."""
    k0, k1, k2, k3, k4, k5, k6 = k[0], k[1], k[2], k[3], k[4], k[5], k[6]
    for x in range(PIECE):
        out[x] += (
            k0 * row[x] + k1 * row[x + 1] + k2 * row[x + 2] + k3 * row[x + 3] + k4 * row[x + 4] + k5 * row[x + 5]
            + k6 * row[x + 6]
        )  # fmt: skip


@compiled
def _round(values: Float32, base: float, limit: float, out: Float64, far: Bytes, doubtful: Indices) -> int:
    """`values` rounded, plus `base`. `doubtful` tells which were farther than `limit` from a whole number; how many is
    returned. `far` (PIECE) is for this function's own use."""
    single = np.float32(limit)
    for x in range(len(out)):
        out[x] = np.rint(values[x]) + base
    for x in range(len(out)):
        far[x] = abs(values[x] - np.rint(values[x])) > single
    far[len(out) :] = 0
    eights, count = far.view(np.uint64), 0
    for i in range(len(eights)):
        if eights[i]:  # seldom
            for x in range(8 * i, 8 * i + 8):
                doubtful[count] = x
                count += far[x]
    return count


@compiled
def _sum_of_rest(image: Float32, rest: Float32, lanes: Float32) -> float:
    """One pixel by `rest` alone; `image` begins where the kernel does."""
    for x in range(ROOM):
        lanes[x] = 0
    for y in range(0, LONG, STEP):
        a, k = image[y * WIDE :], rest[y * ROOM :]
        for x in range(ROOM):
            lanes[x] += (
                k[x] * a[x] + k[x + ROOM] * a[x + WIDE] + k[x + 2 * ROOM] * a[x + 2 * WIDE]
                + k[x + 3 * ROOM] * a[x + 3 * WIDE] + k[x + 4 * ROOM] * a[x + 4 * WIDE]
                + k[x + 5 * ROOM] * a[x + 5 * WIDE] + k[x + 6 * ROOM] * a[x + 6 * WIDE]
            )  # fmt: skip
    return lanes.sum()  # type: ignore[no-any-return]


@compiled
def _exact(piece: Real, row: int, col: int, kernel: Float64, sums: Float64) -> float:
    """One pixel by the whole kernel in double precision; by columns, in `sums`, it becomes vector code."""
    sums[:] = 0
    for i in range(len(kernel)):
        line, taps = piece[row + i][col : col + len(sums)], kernel[i]
        for j in range(len(sums)):
            sums[j] += taps[j] * line[j]
    return sums.sum()  # type: ignore[no-any-return]


@compiled
def block_moments(
    one: Real, other: Real, valid: Mask, size: int, shift: int, whole: bool,
    pixels: Indices, mean: Float64, scatter: Float64,
) -> None:  # fmt: skip
    """Of the bands of `one` and of `other` (bands, row, col), in blocks of `size` pixels a side, one every `shift`:

    into `pixels` (block row, block col) how many are valid, into `mean` (..., bands) the means over these, and into
    `scatter` (..., bands, bands) the sums of products of deviations from them. A block has at most MOST pixels. If
    `whole`, all is rounded half up and clipped to uint16 first.
    """
    vectors, known, lanes = np.zeros((len(one) + len(other), MOST)), np.zeros(MOST), np.empty(LANES)
    for i in range(pixels.shape[0]):
        for j in range(pixels.shape[1]):
            row, col = shift * i, shift * j
            _take(valid, row, col, size, known)
            count = int(_sum(known, lanes))
            pixels[i, j] = count
            for band in range(len(one)):
                _take(one[band], row, col, size, vectors[band])
            for band in range(len(other)):
                _take(other[band], row, col, size, vectors[len(one) + band])
            for band in range(len(vectors)):
                if count < size * size:
                    _clear(vectors[band], known)
                if whole:
                    _round_half_up(vectors[band])
                mean[i, j, band] = _sum(vectors[band], lanes) / max(count, 1)
                # deviations first, then products: sums of squares would lose small variances
                _centre(vectors[band], known, mean[i, j, band])
            for band in range(0, len(vectors), TOGETHER):
                few = vectors[band : band + TOGETHER]
                np.dot(few, vectors.T, scatter[i, j, band : band + TOGETHER])


@compiled
def _take(image: npt.NDArray[Any], row: int, col: int, size: int, vector: Float64) -> None:
    """A block of an image, row after row."""
    top, left, side = np.uint64(row), np.uint64(col), np.uint64(size)  # unsigned: nothing counts from the end
    for y in range(side):
        for x in range(side):
            vector[y * side + x] = image[top + y, left + x]


@compiled
def _clear(vector: Float64, known: Float64) -> None:
    for k in range(MOST):
        if not known[k]:
            vector[k] = 0


@compiled
def _round_half_up(vector: Float64) -> None:
    """To whole numbers, clipped to uint16; NaN stays."""
    for k in range(MOST):
        value = np.floor(vector[k] + 0.5)
        value = 0.0 if value < 0 else value
        vector[k] = UINT16_MAX if value > UINT16_MAX else value


@compiled
def _centre(vector: Float64, known: Float64, mean: float) -> None:
    for k in range(MOST):
        vector[k] = (vector[k] - mean) * known[k]


@compiled
def _sum(a: Float64, lanes: Float64) -> float:
    for x in range(LANES):
        lanes[x] = 0
    for start in range(0, MOST, 8 * LANES):
        for x in range(LANES):
            k = start + x
            lanes[x] += (
                ((a[k] + a[k + LANES]) + (a[k + 2 * LANES] + a[k + 3 * LANES]))
                + ((a[k + 4 * LANES] + a[k + 5 * LANES]) + (a[k + 6 * LANES] + a[k + 7 * LANES]))
            )  # fmt: skip
    return lanes.sum()  # type: ignore[no-any-return]
