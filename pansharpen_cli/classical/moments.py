"""Means and covariances of a scene that is seen tile by tile, in any order, to rounding the same as of the whole."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pansharpen_cli.imaging.interpolation import Array, Float64

EPS = float(np.finfo(np.float64).eps)
RCOND = 1e-12
"""A combination of regressors whose square is less than this part of theirs holds no more than rounding."""
_STRIP = 16
"""Rows taken at once: their copy stays in the cache."""


class Moments:
    """Count, mean (K,), minimum (K,) and scatter matrix (K, K) of vectors of K values, float64.

    Pieces are merged by Chan's formula (Chan, Golub & LeVeque 1979).
    """

    def __init__(self) -> None:
        self.count = 0
        self.mean: Float64 = np.zeros(())
        self.minimum: Float64 = np.full((), np.inf)
        self.scatter: Float64 = np.zeros(())

    @classmethod
    def of(cls, layers: Sequence[Array], valid: npt.NDArray[np.bool_]) -> Moments:
        """Of one piece, see `add`."""
        moments = cls()
        moments.add(layers, valid)
        return moments

    def add(self, layers: Sequence[Array], valid: npt.NDArray[np.bool_]) -> None:
        """Take in one vector per `valid` pixel (H, W): its values in `layers`, each (k, H, W), one after the other."""
        for row in range(0, len(valid), _STRIP):
            rows = slice(row, row + _STRIP)
            keep = valid[rows].ravel()
            stack = np.concatenate([layer[:, rows] for layer in layers], dtype=np.float64)
            vectors = stack.reshape(len(stack), keep.size)
            self.merge(Moments._of_vectors(vectors if keep.all() else vectors.compress(keep, axis=1)))

    @classmethod
    def _of_vectors(cls, vectors: Float64) -> Moments:
        """Of `vectors` (K, n)."""
        from pansharpen_cli.classical import loops  # half a second, which not every command needs

        moments, values = cls(), len(vectors)
        if vectors.size:
            moments.count, moments.minimum = vectors.shape[1], vectors.min(axis=1)
            moments.mean, moments.scatter = np.empty(values), np.empty((values, values))
            loops.moments(vectors, moments.mean, moments.scatter)
        return moments

    def merge(self, other: Moments) -> None:
        """Take in what another piece of the scene has."""
        if other.count == 0:
            return
        total = self.count + other.count
        shift = other.mean - self.mean
        self.minimum = np.minimum(self.minimum, other.minimum)
        self.scatter = self.scatter + other.scatter + np.outer(shift, shift) * (self.count * other.count / total)
        self.mean = self.mean + shift * (other.count / total)
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

    @property
    def products(self) -> Float64:
        """(K, K): means of the products of two values, not centred."""
        return self.covariance * ((self.count - 1) / self.count) + np.outer(self.mean, self.mean)


def matching(mean: Array, std: Array, to_mean: Array, to_std: Array) -> tuple[Float64, Float64]:
    """Gain and offset that give values of a `mean` and `std` another mean and standard deviation."""
    gain = quotient(to_std, std)
    return gain, to_mean - gain * mean


def std_of_sum(weights: Float64, covariance: Float64) -> Float64:
    """Standard deviation of the values' sum with `weights` (K,), or of M sums (K, M), from their `covariance`."""
    variance = np.sum(weights * (covariance @ weights), axis=0)
    return np.asarray(np.sqrt(np.maximum(variance, 0)))  # rounding


def regression(products: Float64, with_target: Float64) -> Float64:
    """Coefficients of least squares for one target (K,) or M targets (K, M).

    `products` (K, K) of the regressors, `with_target` those with the targets; covariances if there is a constant.
    Regressors that the others explain to rounding share their coefficients: the solution is the one of least norm.
    """
    scale = np.sqrt(np.diag(products))
    scale = np.where(scale > 0, scale, 1)
    coefficients = np.linalg.lstsq(products / np.outer(scale, scale), (with_target.T / scale).T, rcond=RCOND)[0]
    return np.asarray((coefficients.T / scale).T)


def quotient(numerator: Array, denominator: Array) -> Float64:
    """numerator / denominator, 0 where the denominator is 0: what does not vary gets no detail."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    return np.divide(numerator, denominator, out=np.zeros(numerator.shape), where=denominator != 0)
