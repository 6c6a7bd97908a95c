"""How far a PAN lies from its stated place, all over a scene: by one shift, or by one that changes from place to place.

PAN and MS look at the same ground a moment apart. What the satellite turned meanwhile, and the height of the ground
where it was not taken out, moves them against each other by amounts that change slowly over a scene.

Numbers only. Places are edge coordinates of the PAN's file, (x, y); displacements are PAN pixels, right and down.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from pansharpen_cli.imaging.polynomial import Places, Polynomial, box, powers

Float64 = npt.NDArray[np.float64]
Pair = tuple[float, float]

AGREEMENT = 1.0
"""PAN pixels within which windows tell the same: relief and oblique views spread honest ones by some tenths."""
FEWEST = {1: 12, 2: 20}
"""Windows that must tell something, by the degree of the polynomial that is fitted to them."""
LINES = 3
"""Rows of windows, and columns, that must be among them."""
WIDE = 1.0
"""Twice the area of a triangle of three windows that tell a plane, where all lie between -1 and 1."""
BETTER = 0.7
"""Of what a constant misses windows by that it has not seen, a field may miss at most that share."""
GAIN = 0.05
"""PAN pixels by which it must be nearer to them, too."""
BEYOND = 1.5
"""Of the half of what windows told it by, from the middle on: there a field ends, and goes on as it is at its edge."""
SAMPLED = 17
"""Places a side at which a field is looked at."""
_EXACT = 0.05  # PAN pixels that no window is sure of: nearer ones weigh no more
_ROUNDS = 10
_RIDGE = 1e-9  # for windows none of which are near


@dataclass(frozen=True)
class Displacement:
    """The PAN shows at (x, y) what the geotransforms say the MS has at (x + dx, y + dy). If a `field` tells that of
    every place, (dx, dy) is that of its middle."""

    dx: float = 0.0
    dy: float = 0.0
    field: Polynomial | None = None

    @classmethod
    def of(cls, field: Polynomial) -> Displacement:
        return cls(*field.coefficients[0], field)

    def __bool__(self) -> bool:
        return self.field is not None or bool(self.dx or self.dy)

    def __str__(self) -> str:
        """As PAN pixels; of a field, from where to where they go between the windows that told it."""
        if self.field is None:
            return f"({self.dx:.2f}, {self.dy:.2f})"
        (left, top), (half_width, half_height) = self.field.middle, self.field.half
        x, y = np.meshgrid(*(m + h * np.linspace(-1, 1, SAMPLED) for m, h in ((left, half_width), (top, half_height))))
        dx, dy = self.at(x, y)
        return f"({dx.min():.2f} to {dx.max():.2f}, {dy.min():.2f} to {dy.max():.2f})"

    def at(self, x: Float64, y: Float64) -> Places:
        """(dx, dy) at places of one shape."""
        if self.field is None:
            return np.full_like(x, self.dx), np.full_like(y, self.dy)
        ends = zip((x, y), self.field.middle, self.field.half, strict=True)
        x, y = (np.clip(axis, middle - BEYOND * half, middle + BEYOND * half) for axis, middle, half in ends)
        return self.field(x, y)

    def ranges(self, x: Pair, y: Pair) -> tuple[Pair, Pair]:
        """Lowest and highest dx, and dy, between two places along each axis."""
        if self.field is None:
            return (self.dx, self.dx), (self.dy, self.dy)
        dx, dy = self.at(*np.meshgrid(np.linspace(*x, SAMPLED), np.linspace(*y, SAMPLED)))
        return (float(dx.min()), float(dx.max())), (float(dy.min()), float(dy.max()))


IN_PLACE = Displacement()


def fitted_field(x: Float64, y: Float64, shifts: Float64, strength: Float64) -> Polynomial | None:
    """The field that windows at (x, y) (n,) tell by `shifts` (n, 2) of some `strength` (n,), each above 0; None if one
    shift tells them as well.

    It must foretell windows that it was not fitted to: what it misses them by, in the mean, decides between a
    constant and polynomials of the first and second degree. Windows more than AGREEMENT away have no say.
    """
    if len(x) < FEWEST[1] or min(len(np.unique(axis)) for axis in (x, y)) < LINES:
        return None
    middle, half = box((x, y))
    constant, plane = (powers((x, y), middle, half, degree) for degree in (0, 1))
    start = _near_plane(plane, shifts, strength)
    if start is None:
        return None
    best: Polynomial | None = None
    misses = _foretold(constant, shifts, strength, _near_one(shifts, strength))
    for degree, fewest in FEWEST.items():
        terms = powers((x, y), middle, half, degree)
        if len(x) < fewest:
            break
        of_degree = _foretold(terms, shifts, strength, start)
        if of_degree <= min(BETTER * misses, misses - GAIN):
            misses = of_degree
            coefficients, away = _robust(terms, shifts, strength[None], start[None])
            best, start = Polynomial.made(middle, half, coefficients[0]), away[0]
    return best


def _foretold(terms: Float64, shifts: Float64, strength: Float64, start: Float64) -> float:
    """PAN pixels by which what is fitted to all other windows misses a window, in the weighted mean; none counts for
    more than AGREEMENT."""
    each_left_out = strength * (1 - np.eye(len(strength)))
    _, away = _robust(terms, shifts, each_left_out, np.tile(start, (len(strength), 1)))
    return float(np.average(np.minimum(away.diagonal(), AGREEMENT), weights=strength))


def _robust(terms: Float64, shifts: Float64, strength: Float64, away: Float64) -> tuple[Float64, Float64]:
    """Coefficients (m, terms, 2) of `terms` (n, terms) by several strengths (m, n) of the windows, and how far away (m,
    n) these are then: fitted by distances, not by their squares, beginning with windows that are not far `away`."""
    for _ in range(_ROUNDS):
        weights = np.where(away <= AGREEMENT, strength, 0) / np.maximum(away, _EXACT)
        weighted = (weights[:, :, None] * terms).transpose(0, 2, 1)
        normal = weighted @ terms + _RIDGE * np.eye(terms.shape[1])
        coefficients = np.linalg.solve(normal, weighted @ shifts)
        away = np.linalg.norm(shifts - terms @ coefficients, axis=-1)
    return np.asarray(coefficients, np.float64), away


def _near_one(shifts: Float64, strength: Float64) -> Float64:
    """Distances (n,) of the shifts from the one to which most are near."""
    return _best_supported(np.linalg.norm(shifts[:, None] - shifts, axis=-1), strength)


def _near_plane(terms: Float64, shifts: Float64, strength: Float64) -> Float64 | None:
    """Distances (n,) of the shifts from the plane through three of them to which most are near; None if all lie along
    a line."""
    three = np.array(list(combinations(range(len(terms)), 3)))
    wide = np.abs(np.linalg.det(terms[three])) > WIDE
    if not wide.any():
        return None
    planes = np.linalg.solve(terms[three[wide]], shifts[three[wide]])
    return _best_supported(np.linalg.norm(shifts - terms @ planes, axis=-1), strength)


def _best_supported(away: Float64, strength: Float64) -> Float64:
    """Of several proposals' distances (m, n) those (n,) of the one for which most speaks."""
    return np.asarray(away[(np.clip(1 - away / AGREEMENT, 0, None) @ strength).argmax()])
