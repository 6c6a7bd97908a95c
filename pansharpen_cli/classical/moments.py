"""Means and covariances of a scene that is seen tile by tile, in any order, to rounding the same as of the whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pansharpen_cli.interpolation import Array, Float64

EPS = float(np.finfo(np.float64).eps)
_STRIP = 16
"""Rows taken at once: their copy stays in the cache."""


class Moments:
    """Count, mean (K,) and scatter matrix (K, K) of vectors of K values, float64, merged by Chan's formula
    (Chan, Golub & LeVeque 1979)."""

    def __init__(self) -> None:
        self.count = 0
        self.mean: Float64 = np.zeros(())
        self.scatter: Float64 = np.zeros(())

    def add(self, layers: Sequence[Array], valid: npt.NDArray[np.bool_]) -> None:
        """Take in one vector per `valid` pixel (H, W): its values in `layers`, each (k, H, W), one after the other."""
        for row in range(0, len(valid), _STRIP):
            rows = slice(row, row + _STRIP)
            keep = valid[rows].ravel()
            stack = np.concatenate([layer[:, rows] for layer in layers])
            vectors = stack.reshape(len(stack), keep.size)
            self._merge(vectors if keep.all() else vectors[:, keep])

    def _merge(self, vectors: Float64) -> None:
        """Add `vectors` (K, n); they are centred in place."""
        count = vectors.shape[1]
        if count == 0:
            return
        mean = vectors.mean(axis=1)
        vectors -= mean[:, None]
        total = self.count + count
        shift = mean - self.mean
        self.scatter = self.scatter + vectors @ vectors.T + np.outer(shift, shift) * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total

    @property
    def covariance(self) -> Float64:
        """(K, K), divisor n - 1; exactly 0 for values that vary by no more than rounding."""
        covariance = self.scatter / max(self.count - 1, 1)
        flat = np.diag(covariance) <= EPS * self.mean**2
        covariance[flat] = 0
        covariance[:, flat] = 0
        return covariance

    @property
    def std(self) -> Float64:
        """(K,), divisor n - 1."""
        return np.sqrt(np.diag(self.covariance))


def quotient(numerator: Array, denominator: Array) -> Float64:
    """numerator / denominator, 0 where the denominator is 0: what does not vary gets no detail."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    return np.divide(numerator, denominator, out=np.zeros(numerator.shape), where=denominator != 0)
