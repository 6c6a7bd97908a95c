"""CNMF: every pixel a mixture of the same few spectra. The MS tells which spectra, the PAN where they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from pansharpen_cli.classical.camera import Camera
from pansharpen_cli.classical.method import Method
from pansharpen_cli.classical.moments import quotient
from pansharpen_cli.classical.nonnegative import nonnegative
from pansharpen_cli.errors import NothingSharedError
from pansharpen_cli.imaging.interpolation import Array, Float64, area_phase, expand, windows
from pansharpen_cli.imaging.tiling import Pixels

COARSE, ROUNDS, FINE = 225, 74, 149
"""Updates of the coarse abundances; rounds of the spectra, then the coarse abundances; updates of the fine abundances,
and as many of the spectra."""
DIM = 0.7455
"""Mean of a PAN, over `maxval`, at which the sum to one has a weight of 4."""
FWHM = 2.35482
"""Full width at half maximum of a Gaussian, in standard deviations."""
SEED = 0
_STRIP = 1 << 14
"""Pixels unmixed at once: they stay in the cache."""


class Cnmf(Method):
    """F = W A: spectra W (B, B), as many as bands, and abundances A (B, pixels), none negative, that add up to about 1.

    Found by multiplicative updates: W and the coarse A from the MS; the fine A from the PAN, which sees the spectra as
    r W, beginning with the coarse A interpolated; W once more from the MS and the fine A reduced. r: regression of the
    reduced PAN on the MS, not negative. W, all W on the way and r are learnt from crops; with them, A is a matter of
    each pixel for itself, because the number of updates is fixed. (The original also stops where an update lowers the
    error by less than 1e-8 of it. It finds its first spectra by chance; here the seed is fixed.)

    `maxval`: the digital number that stands for 1, on which the weight of the sum depends; None: the largest in sight.
    """

    title = "CNMF (coupled non-negative matrix factorisation)"
    citation = "Yokoya, Yairi & Iwasaki 2012, IEEE TGRS 50(2)"
    crop = 128

    def __init__(self, camera: Camera, maxval: float | None = None) -> None:
        super().__init__(camera)
        self.maxval = maxval

    @property
    def halo(self) -> int:
        return self.camera.ratio

    def observe(self, tiles: Iterable[Pixels]) -> None:
        crops = [(p.pan.astype(np.float64), p.ms.astype(np.float64), p.valid, p.ms_valid) for p in tiles]
        pan = np.concatenate([pan[0, valid] for pan, _, valid, _ in crops])
        coarse_pan = np.concatenate([self._reduced(pan)[0, valid] for pan, _, _, valid in crops])
        ms = np.concatenate([ms[:, valid] for _, ms, _, valid in crops], axis=1)
        if not ms.size:
            raise NothingSharedError("no whole MS pixel where both hold data")
        scale = self.maxval or max(pan.max(), ms.max(), 0.0) or 1.0
        ms = np.maximum(ms / scale, 0)
        response = _response(ms, coarse_pan / scale)
        weight = 4 / DIM * np.maximum(pan / scale - response[-1], 0).mean() or 1.0
        course = _course(ms, self.first_spectra(ms), weight)
        self.statistics = {
            "scale": np.asarray(scale),
            "offset": np.asarray(response[-1]),
            "weight": np.asarray(weight),
            "course": course,
            "pan_spectra": response[:-1] @ course[-1],
        }
        coarse = [self._reduced(self._abundances(pan, ms, self.statistics))[:, valid] for pan, ms, _, valid in crops]
        self.statistics["spectra"] = _remixed(course[-1], np.concatenate(coarse, axis=1), ms, FINE)

    def first_spectra(self, ms: Float64) -> Float64:
        """Pixels (B, B) of `ms` (B, n) at the corners of its cloud, by vertex component analysis (Nascimento &
        Bioucas-Dias 2005): each the farthest in a direction, drawn by chance, that those before do not have.
        """
        random = np.random.default_rng(SEED)
        colour = ms * quotient(np.ones(()), ms.mean(axis=1) @ ms)  # whatever the brightness
        corners: list[int] = []
        for _ in ms:
            known = np.linalg.qr(colour[:, corners])[0]
            direction = random.standard_normal(len(ms))
            direction -= known @ (known.T @ direction)
            corners.append(int(np.abs(direction @ colour).argmax()))
        return ms[:, corners]

    def fuse(self, pan: Array, ms: Array, statistics: dict[str, Array]) -> Array:
        abundances = self._abundances(pan, ms, statistics)
        return np.tensordot(statistics["scale"] * statistics["spectra"], abundances, axes=1)

    def _abundances(self, pan: Array, ms: Array, statistics: Mapping[str, Array]) -> Array:
        """The fine A (B, H, W) of a tile."""
        bands, ratio, weight = len(ms), self.camera.ratio, statistics["weight"]
        mixed = np.maximum(ms / statistics["scale"], 0).reshape(bands, -1)
        abundances = np.full(mixed.shape, 1 / bands)
        for step, spectra in enumerate(statistics["course"]):
            abundances = _unmixed(abundances, spectra, mixed, weight, 1 if step else COARSE)
        fine = expand(abundances.reshape(ms.shape), ratio, area_phase(ratio), "bilinear", "edge")
        mixed = np.maximum(pan / statistics["scale"] - statistics["offset"], 0).reshape(1, -1)
        pan_spectra = statistics["pan_spectra"][None]
        return _unmixed(fine.reshape(bands, -1), pan_spectra, mixed, weight, FINE).reshape(fine.shape)

    def _reduced(self, image: Array) -> Array:
        """`image` (k, H, W) at MS scale, on pixel areas: through Gaussians as wide as an MS pixel at half height, over
        two MS pixels a side; of one on the border, over itself."""
        ratio = self.camera.ratio
        reduced = _through_gaussian(image, ratio, 0)
        reduced[:, 1:-1, 1:-1] = _through_gaussian(image, ratio, ratio // 2)[:, 1:-1, 1:-1]
        return reduced


def _through_gaussian(image: Array, ratio: int, margin: int) -> Array:
    """Means of MS pixels and `margin` more on each side."""
    distance = np.arange(-margin, ratio + margin) - area_phase(ratio)
    weights = np.exp(-(distance**2) / 2 * (FWHM / ratio) ** 2)
    for axis in (1, 2):
        image = windows(image, -margin, len(weights), ratio, axis) @ (weights / weights.sum())
    return image


def _response(ms: Float64, coarse_pan: Float64) -> Float64:
    """r and a constant (B + 1,), none negative: `coarse_pan` (n,) as a sum of `ms` (B, n)."""
    regressors = np.vstack([ms, np.ones(ms.shape[1])])
    return nonnegative(regressors @ regressors.T, regressors @ coarse_pan)


def _course(ms: Float64, spectra: Float64, weight: float) -> Float64:
    """The spectra from the first to the last round (ROUNDS + 1, B, B), on the way to explain `ms` (B, n)."""
    course = [spectra]
    abundances = _unmixed(np.full(ms.shape, 1 / len(ms)), spectra, ms, weight, COARSE)
    for _ in range(ROUNDS):
        course.append(_remixed(course[-1], abundances, ms, 1))
        abundances = _unmixed(abundances, course[-1], ms, weight, 1)
    return np.stack(course)


def _unmixed(abundances: Array, spectra: Array, mixed: Array, weight: Array | float, updates: int) -> Array:
    """`abundances` (p, n) after `updates` towards mixed (m, n) = spectra (m, p) A, and towards a sum of 1."""
    result = np.empty_like(abundances)
    products = spectra.T @ spectra + weight
    for start in range(0, mixed.shape[1], _STRIP):
        strip = slice(start, start + _STRIP)
        part, wanted = abundances[:, strip].copy(), spectra.T @ mixed[:, strip] + weight
        for _ in range(updates):
            part *= wanted / (products @ part)
        result[:, strip] = part
    return result


def _remixed(spectra: Float64, abundances: Array, mixed: Float64, updates: int) -> Float64:
    """`spectra` (m, p) after `updates` towards mixed (m, n) = W abundances (p, n)."""
    wanted, products = mixed @ abundances.T, abundances @ abundances.T
    for _ in range(updates):
        spectra = spectra * quotient(wanted, spectra @ products)
    return spectra
