"""Inner loops of the classical methods, compiled for the CPU."""

from __future__ import annotations

import numpy as np

from pansharpen_cli.imaging.interpolation import Array, Float64
from pansharpen_cli.system.compiled import compiled

LANES = 512
"""Sums that are kept side by side, and added up at the end: vector code."""


@compiled
def modulate(exp: Array, pan: Array, count: float, eps: float) -> None:
    """exp *= pan / (mean of exp over the bands + eps), exp (bands, row, col), pan (row, col): in one pass, not five.

    `count`, the number of bands, and `eps` are of the images' type. Every pixel is rounded as by NumPy.
    """
    bands, rows, cols = exp.shape
    ratio = np.empty(cols, exp.dtype)
    for row in range(rows):
        ratio[:] = exp[0, row]
        for band in range(1, bands):
            line = exp[band, row]
            for x in range(cols):
                ratio[x] += line[x]
        for x in range(cols):
            ratio[x] = pan[row, x] / (ratio[x] / count + eps)
        for band in range(bands):
            line = exp[band, row]
            for x in range(cols):
                line[x] *= ratio[x]


@compiled
def moments(vectors: Float64, mean: Float64, scatter: Float64) -> None:
    """The mean (K,) of `vectors` (K, n) and the sums of products of their centred values (K, K). BLAS, made for large
    matrices, takes three times as long; and these sums have one order, whatever the processor."""
    lanes = np.empty(LANES)
    for k in range(len(vectors)):
        mean[k] = _sum(vectors[k], lanes) / vectors.shape[1]
        for j in range(k + 1):
            scatter[k, j] = scatter[j, k] = _sum_of_products(vectors[k], mean[k], vectors[j], mean[j], lanes)


@compiled
def _sum(values: Float64, lanes: Float64) -> float:
    lanes[:] = 0
    for start in range(0, len(values), LANES):
        part = values[start : start + LANES]
        for i in range(len(part)):
            lanes[i] += part[i]
    return lanes.sum()  # type: ignore[no-any-return]


@compiled
def _sum_of_products(one: Float64, one_mean: float, other: Float64, other_mean: float, lanes: Float64) -> float:
    lanes[:] = 0
    for start in range(0, len(one), LANES):
        a, b = one[start : start + LANES], other[start : start + LANES]
        for i in range(len(a)):
            lanes[i] += (a[i] - one_mean) * (b[i] - other_mean)
    return lanes.sum()  # type: ignore[no-any-return]
