"""Measured co-registration: how far from its stated place the PAN really lies, seen from the MS.

Phase correlation of the PAN with a synthetic PAN, the combination of the MS bands that fits it best, on windows spread
over the scene. Two choices keep it unbiased:

* The combination is fitted anew at every candidate shift d. With c(d) the cross-covariances of PAN and bands and C the
  bands' own covariances, least squares explains the share R2(d) = c' C^-1 c / var(PAN) of the PAN, and correlations at
  all d are one transform. Bands that the PAN does not see, or sees reversed, need no special case.
* The MS is then moved by the whole pixels found and measured again, so that the taper cannot pull the rest to zero.

Only frequencies below the MS Nyquist frequency, 1 / (2 ratio) cycles a PAN pixel, take part: the interpolated MS holds
nothing beyond. Phase correlation: Kuglin and Hines 1975; its peak by matrix DFT: Guizar-Sicairos et al. 2008.

Arrays in, numbers out. Shifts are in PAN pixels, rows down, columns to the right.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import hypot

import numpy as np
import numpy.typing as npt

from pansharpen_cli.imaging.displacement import AGREEMENT, Displacement, fitted_field
from pansharpen_cli.imaging.polynomial import Polynomial

Array = npt.NDArray[np.floating]
Float64 = npt.NDArray[np.float64]
Complex = npt.NDArray[np.complex128]
Bool = npt.NDArray[np.bool_]

MAX_SHIFT = 8
"""Search range in MS pixels to each side; at most a quarter of the window."""
STEADY = 0.5
"""Spread of the windows, in PAN pixels, that halves the confidence."""

_PAN_GAIN = 0.15  # at the MS Nyquist frequency: the PAN is degraded to what the MS camera sees (mtf's generic sensor)
_LOCAL = 4  # standard deviation, in MS pixels, of the local mean that is taken away
_SMALLEST = 256  # MS pixels, weighed by the taper, below which a window says nothing
_FLAT = 1e-6  # detail, relative to the largest value, that is rounding and not ground
_SINGULAR = 1e-4  # eigenvalues of the bands' covariances, relative to the largest, that carry no information
_PASSES = 4


@dataclass(frozen=True)
class Shift:
    """Where the PAN really lies relative to where the geotransforms put it, seen from the MS: (dx, dy) in PAN pixels,
    right and down positive. The PAN shows at (x, y) what the geotransforms say the MS has at (x + dx, y + dy).

    `confidence` 0..1: see `combine`. `spread`: robust standard deviation per axis, in PAN pixels, of the windows'
    shifts around the result (0 for a single window). `windows`: how many agreed and were used. `field`: what it is at
    every place, if it is not the same all over; (dx, dy) is that of the middle then.
    """

    dx: float
    dy: float
    confidence: float
    spread: float
    windows: int
    field: Polynomial | None = None

    @property
    def displacement(self) -> Displacement:
        return Displacement(self.dx, self.dy, self.field)

    @property
    def length(self) -> float:
        """PAN pixels."""
        return hypot(self.dx, self.dy)


NO_SHIFT = Shift(0.0, 0.0, 0.0, 0.0, 0)


@dataclass(frozen=True)
class WindowShift:
    """The shift that one window shows, as in `Shift`.

    `correlation` 0..1: between the detail of PAN and synthetic PAN at this shift. `distinctness` >= 1: how many times
    higher that is than anywhere in the search range more than 2 MS pixels away.
    """

    dx: float
    dy: float
    correlation: float
    distinctness: float

    @property
    def strength(self) -> float:
        """How far to trust this window alone, 0..1: nothing below a correlation of 0.3 or a distinctness of 1.1, where
        noise lies, fully from 0.7 and 2 on, where ground lies that both cameras see."""
        likeness = np.clip((self.correlation - 0.3) / 0.4, 0, 1)
        uniqueness = np.clip((self.distinctness - 1.1) / 0.9, 0, 1)
        return float(likeness * uniqueness)


def window_shift(pan: Array, exp: Array, valid: Bool, ratio: int) -> WindowShift | None:
    """The shift between `pan` (H, W) and `exp` (B, H, W), the MS interpolated to the PAN grid by the stated geometry.

    `valid` (H, W) is True where both hold data. Units do not matter. Searched up to MAX_SHIFT.
    None if nothing can be said: too little data, flat images, no peak inside the search range.
    """
    valid = valid & np.isfinite(pan) & np.isfinite(exp).all(axis=0)
    if valid.sum() < _SMALLEST * ratio**2:
        return None
    details = _details(np.concatenate([pan[None], exp], dtype=np.float64), valid, _LOCAL * ratio)
    taper = _taper(valid, _LOCAL * ratio / 2)
    reach = min(MAX_SHIFT * ratio, min(valid.shape) // 4)
    dy = dx = 0
    for _ in range(_PASSES):
        weight = taper * _moved(taper, dy, dx)
        if weight.sum() < _SMALLEST * ratio**2:
            return None
        rest = _Spectra.of(details[0] * weight, _moved(details[1:], dy, dx) * weight, ratio).shift(reach)
        if rest is None:
            return None
        if hypot(rest.dx, rest.dy) < 1:
            # where the PAN lies further down, its image of the ground moves up
            return replace(rest, dx=-(dx + rest.dx), dy=-(dy + rest.dy))
        dy, dx = dy + round(rest.dy), dx + round(rest.dx)
    return None  # it wanders about: no true peak


def combine(windows: Iterable[WindowShift | None], places: Sequence[tuple[float, float]] = ()) -> Shift:
    """The shift of a scene from `windows` spread over it: the weighted median of the largest group that agrees, or if
    their `places` (x, y) are told, and they tell it, a field of shifts.

    Confidence is the product of three: the chance that not all of the group are wrong, 1 - prod(1 - strength); the
    group's share of all strength (clouds, ships and water disagree); 1 / (1 + (spread / STEADY)^2). So it is near 1
    if several good windows agree within tenths of a pixel, a single window's strength if there is only one, and near
    0 on noise. Without any evidence: no shift, confidence 0.
    """
    windows = list(windows)
    telling = [index for index, window in enumerate(windows) if window is not None and window.strength > 0]
    if not telling:
        return NO_SHIFT
    found = [window for window in windows if window is not None and window.strength > 0]
    shifts = np.array([(window.dx, window.dy) for window in found])
    strength = np.array([window.strength for window in found])
    x, y = np.transpose([places[index] if places else (0.0, 0.0) for index in telling])
    field = fitted_field(x, y, shifts, strength)
    if field is None:
        support = (_distance(shifts[:, None], shifts) <= AGREEMENT) @ strength
        agree = _distance(shifts, shifts[support.argmax()]) <= AGREEMENT
        dx, dy = (_weighted_median(axis[agree], strength[agree]) for axis in shifts.T)
        one = Displacement(dx, dy)
    else:
        one = Displacement.of(field)
        agree = _distance(shifts, np.stack(one.at(x, y), axis=-1)) <= AGREEMENT
    away = _distance(shifts, np.stack(one.at(x, y), axis=-1))[agree]
    spread = _weighted_median(away, strength[agree]) / 1.177  # a Rayleigh variable's median, in standard deviations
    certain = 1 - np.prod(1 - strength[agree])
    share = strength[agree].sum() / strength.sum()
    confidence = float(certain * share / (1 + (spread / STEADY) ** 2))
    return Shift(one.dx, one.dy, confidence, spread, int(agree.sum()), field)


@dataclass(frozen=True, eq=False)
class _Spectra:
    """What PAN and MS both hold: spectra of the degraded PAN (F, G) and of the bands (B, F, G) below the MS Nyquist
    frequency, at frequencies `fy` (F,) and `fx` (G,), cycles a PAN pixel.

    They are weighed by |f|, because ground has a power spectrum near 1 / f^2: so every scale counts. The images are
    real, so half of the frequencies are enough; the others are 0.
    """

    pan: Complex
    bands: Complex
    fy: Array
    fx: Array
    ratio: int

    @classmethod
    def of(cls, pan: Float64, bands: Float64, ratio: int) -> _Spectra:
        """Of images (H, W) and (B, H, W) that fade to 0 at their borders."""
        fy, fx = (np.fft.fftfreq(size) for size in pan.shape)
        rows, cols = np.abs(fy) < 0.5 / ratio, (fx >= 0) & (fx < 0.5 / ratio)
        along_x = np.fft.rfft(np.concatenate([pan[None], bands]))[..., : cols.sum()]
        both = np.fft.fft(along_x, axis=-2)[:, rows]
        fy, fx = fy[rows], fx[cols]
        frequency = 2 * ratio * np.hypot(fy[:, None], fx)  # 1 at the MS Nyquist frequency
        half_disc = (frequency < 1) & ((fx > 0) | (fy[:, None] > 0))
        both *= np.where(half_disc, frequency, 0)
        mtf = _PAN_GAIN ** (frequency**2)
        return cls(both[0] * mtf, both[1:], fy, fx, ratio)

    def shift(self, reach: int) -> WindowShift | None:
        """Where the bands explain the PAN best, less than `reach` PAN pixels away along each axis."""
        grid = np.arange(-reach, reach + 1.0)
        fits, combinations = self._fits(grid)
        row, col = np.unravel_index(fits.argmax(), fits.shape)
        far = np.hypot(grid[:, None] - grid[row], grid - grid[col]) > 2 * self.ratio
        peak = fits[row, col]
        if not peak > 0 or not far.any() or reach in (abs(grid[row]), abs(grid[col])):
            return None
        synthetic = np.tensordot(combinations[:, row, col], self.bands, 1)
        dy, dx = self._phase_peak(synthetic, grid[row], grid[col])
        return WindowShift(dx, dy, float(peak), float(peak / max(fits[far].max(), 1e-3)))

    def _fits(self, grid: Float64) -> tuple[Float64, Float64]:
        """For shifts `grid` (n,) along both axes: correlation of PAN and best synthetic PAN (n, n), and the
        combination of the bands that makes it (B, n, n). Zeros if PAN or bands are empty."""
        flat = self.bands.reshape(len(self.bands), -1)
        covariances = (flat @ flat.conj().T).real
        cross = self._correlation(self.pan * self.bands.conj(), grid, grid)
        combinations = np.tensordot(np.linalg.pinv(covariances, rcond=_SINGULAR, hermitian=True), cross, 1)
        power = max(float((np.abs(self.pan) ** 2).sum()), np.finfo(float).tiny)
        explained = (combinations * cross).sum(axis=0) / power
        return np.sqrt(np.clip(explained, 0, 1)), combinations

    def _phase_peak(self, synthetic: Complex, dy: float, dx: float) -> tuple[float, float]:
        """The peak (dy, dx) of the phase correlation of the PAN with `synthetic` (F, G), within a pixel of a start."""
        cross = self.pan * synthetic.conj()
        phases = cross / np.maximum(np.abs(cross), np.finfo(float).tiny)
        for step in (0.1, 0.01, 0.001):
            ys, xs = (start + step * np.arange(-10.0, 11) for start in (dy, dx))
            correlation = self._correlation(phases, ys, xs)
            row, col = np.unravel_index(correlation.argmax(), correlation.shape)
            dy, dx = float(ys[row]), float(xs[col])
        return dy, dx

    def _correlation(self, cross: Complex, ys: Float64, xs: Float64) -> Float64:
        """The correlation whose spectrum is `cross` (..., F, G), at shifts `ys` (n,) by `xs` (m,): (..., n, m)."""
        turn_y, turn_x = (np.exp(2j * np.pi * np.outer(s, f)) for s, f in ((ys, self.fy), (xs, self.fx)))
        return np.asarray((turn_y @ cross @ turn_x.T).real)


def _details(images: Float64, valid: Bool, sigma: float) -> Float64:
    """`images` (N, H, W) less their local means over valid pixels, in units of their own scatter; 0 where not valid.

    An image without detail becomes 0 everywhere.
    """
    images = np.where(valid, images, 0.0)
    details = images - _blur(images, sigma) / np.maximum(_blur(valid, sigma), 1e-9)
    details *= valid
    scatter = np.sqrt((details**2).mean(axis=(1, 2), keepdims=True))
    flat = scatter <= _FLAT * np.abs(images).max(axis=(1, 2), keepdims=True)
    details /= np.where(flat, np.inf, scatter)
    return details


def _taper(valid: Bool, sigma: float) -> Float64:
    """(H, W): 0 at the window's border and where data is missing, rising to 1 within about 2 sigma."""
    return np.where(valid, np.clip(2 * _blur(valid, sigma) - 1, 0, 1), 0.0)


def _blur(images: Float64 | Bool, sigma: float) -> Float64:
    """Gaussian mean of `images` (..., H, W); outside there are zeros."""
    rows, cols = (_gaussian_matrix(size, sigma) for size in images.shape[-2:])
    if images.dtype == bool and images.all():  # a mask without gaps, as most are
        return np.outer(rows.sum(axis=1), cols.sum(axis=0))
    return np.asarray(rows @ images @ cols)


@lru_cache(maxsize=8)
def _gaussian_matrix(size: int, sigma: float) -> Float64:
    """(size, size): symmetric, rows sum to 1 where the Gaussian lies inside."""
    index = np.arange(size)
    matrix = np.exp(-((index[:, None] - index) ** 2) / (2 * sigma**2)) / (sigma * np.sqrt(2 * np.pi))
    matrix.setflags(write=False)
    return np.asarray(matrix)


def _moved(images: Float64, dy: int, dx: int) -> Float64:
    """`images` (..., H, W) moved down by `dy` and right by `dx`; zeros come in."""
    moved = np.zeros_like(images)
    rows, cols = images.shape[-2:]
    to = slice(max(dy, 0), rows + min(dy, 0)), slice(max(dx, 0), cols + min(dx, 0))
    back = slice(max(-dy, 0), rows + min(-dy, 0)), slice(max(-dx, 0), cols + min(-dx, 0))
    moved[..., *to] = images[..., *back]
    return moved


def _distance(shifts: Float64, centre: Float64) -> Float64:
    return np.asarray(np.linalg.norm(shifts - centre, axis=-1))


def _weighted_median(values: Float64, weights: Float64) -> float:
    """The value below and above which half of the weight of `values` (n,) lies, each spread out to its neighbours."""
    order = np.argsort(values)
    rank = np.cumsum(weights[order]) - weights[order] / 2
    return float(np.interp(weights.sum() / 2, rank, values[order]))
