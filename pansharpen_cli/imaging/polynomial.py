"""Smooth maps of the plane: polynomials of two coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]
Places = tuple[Float64, Float64]
"""Two coordinates of many places."""
MOST = 1e9
"""Pixels that no image has."""


@dataclass(frozen=True)
class Polynomial:
    """Two values for every place (x, y): a pair of `coefficients` for each product of `powers`, in coordinates that
    were brought to -1 ... 1."""

    middle: tuple[float, float]
    half: tuple[float, float]
    coefficients: tuple[tuple[float, float], ...]

    @classmethod
    def fitted(cls, places: Places, values: Places, degree: int) -> Polynomial:
        """The one of that degree that misses these `values` least, by squares."""
        middle, half = box(places)
        targets = np.stack([axis.ravel() for axis in values], axis=1)
        found = np.linalg.lstsq(powers(places, middle, half, degree), targets)[0]
        return cls.made(middle, half, np.asarray(found, np.float64))

    @classmethod
    def made(cls, middle: Float64, half: Float64, coefficients: Float64) -> Polynomial:
        """Of arrays (2,), (2,) and (terms, 2)."""
        return cls(_pair(middle), _pair(half), tuple(map(_pair, coefficients)))

    @classmethod
    def of(cls, middle: Any, half: Any, coefficients: Any) -> Polynomial:
        """From what anybody wrote. Raises ValueError or TypeError if it tells no polynomial of pixels."""
        try:
            made = cls(_pair(middle), _pair(half), tuple(_pair(one) for one in coefficients))
        except OverflowError as error:  # whole numbers know no end
            raise ValueError(error) from error
        numbers = [*made.middle, *made.half, *sum(made.coefficients, ())]
        whole = 0 < 2 * len(made.coefficients) == (made.degree + 1) * (made.degree + 2)
        if not (all(abs(number) < MOST for number in numbers) and min(made.half) > 0 and whole):
            raise ValueError(f"{made} is no polynomial")
        return made

    def __call__(self, x: Float64, y: Float64) -> Places:
        terms = powers((x, y), np.array(self.middle), np.array(self.half), self.degree)
        first, second = (terms @ np.array(self.coefficients)).T
        return first.reshape(np.shape(x)), second.reshape(np.shape(x))

    @property
    def degree(self) -> int:
        return (isqrt(8 * len(self.coefficients) + 1) - 3) // 2


def box(places: Places) -> tuple[Float64, Float64]:
    """The middle of places, and half of their extent, which is not 0."""
    low, high = (np.array([extreme(axis) for axis in places]) for extreme in (np.min, np.max))
    return (low + high) / 2, np.maximum(high - low, np.finfo(float).tiny) / 2


def powers(places: Places, middle: Float64, half: Float64, degree: int) -> Float64:
    """u^i v^j for all i + j up to the degree, u and v being places brought to -1 ... 1: (places, terms)."""
    u, v = ((np.ravel(axis) - m) / h for axis, m, h in zip(places, middle, half, strict=True))
    return np.stack([u**i * v**j for i in range(degree + 1) for j in range(degree + 1 - i)], axis=-1)


def _pair(values: Sequence[float] | Float64) -> tuple[float, float]:
    first, second = map(float, values)
    return first, second
