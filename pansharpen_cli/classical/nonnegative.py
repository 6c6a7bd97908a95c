"""Least squares with coefficients that are not negative."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pansharpen_cli.imaging.interpolation import Float64

_LEVEL = 1e-13
"""Part of the steepest slope at 0 that is no more than rounding."""


def nonnegative(products: Float64, with_target: Float64) -> Float64:
    """x >= 0 (K,) with the least |A x - y|^2, from A'A (K, K) and A'y (K,): exact, by the active sets of Lawson &
    Hanson 1974. A column that is 0 gets 0.
    """
    norm = np.sqrt(np.diag(products))
    norm = np.where(norm > 0, norm, 1)
    products, with_target = products / np.outer(norm, norm), with_target / norm
    x, free = np.zeros(len(norm)), np.zeros(len(norm), bool)
    for _ in range(10 * len(norm)):  # rounding could make it go round and round
        slope = np.where(free, -np.inf, with_target - products @ x)
        if slope.max() <= _LEVEL * np.abs(with_target).max():
            break
        free[slope.argmax()] = True
        best = _solution(products, with_target, free)
        while (best[free] <= 0).any():  # go there until the first becomes 0
            part = np.full(len(x), np.inf)
            blocked = free & (best <= 0)
            part[blocked] = x[blocked] / (x[blocked] - best[blocked])
            x += part.min() * (best - x)
            free &= part > part.min()
            x[~free] = 0
            best = _solution(products, with_target, free)
        x = best
    return np.asarray(x / norm)


def _solution(products: Float64, with_target: Float64, free: npt.NDArray[np.bool_]) -> Float64:
    """Without constraint, all but the `free` ones 0."""
    x = np.zeros(len(free))
    x[free] = np.linalg.lstsq(products[np.ix_(free, free)], with_target[free], rcond=None)[0]
    return x
