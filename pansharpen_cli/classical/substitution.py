"""Component substitution: the PAN takes the place of an intensity made of the MS bands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pansharpen_cli.classical.method import Method, Pointwise, Statistics, weighted
from pansharpen_cli.classical.moments import EPS, Moments, matching, quotient, regression, std_of_sum
from pansharpen_cli.imaging.interpolation import Array, Float64


class Brovey(Method):
    """F_b = E_b P' / I: I the mean of the bands, P' the PAN with its mean and standard deviation.

    Where I comes near 0 the quotient explodes, as the method's definition has it; it is finite everywhere.
    """

    title = "Brovey"
    citation = "Gillespie et al. 1987, Remote Sens. Environ. 22(3); Tu et al. 2001, Inf. Fusion 2(3)"
    precision = np.float32  # alike in every tile
    precision_of_looks = np.float32  # the PAN is looked at as it is

    def at_pan(self, pan: Array, ms: Array) -> Sequence[Array]:
        return [self.camera.expand(ms.mean(axis=0, keepdims=True, dtype=np.float64)), pan]

    def freeze(self, fine: Moments, coarse: Moments) -> Statistics:
        gain, offset = matching(fine.mean[1], fine.std[1], fine.mean[0], fine.std[0])
        return {"gain": gain, "offset": offset}

    def fuse(self, pan: Array, ms: Array, statistics: dict[str, Array]) -> Array:
        from pansharpen_cli.classical.loops import modulate  # half a second, which not every command needs

        hrms, matched = self.camera.expand(ms), pan[0] * statistics["gain"] + statistics["offset"]
        modulate(hrms, matched, hrms.dtype.type(len(hrms)), hrms.dtype.type(EPS))
        return hrms


class Substitution(Pointwise):
    """F_b = E_b + g_b (P' - I): I = sum of w_b E_b, P' = s P + o. The methods differ in w, g, s and o.

    What is subtracted from I and P' alike, as their means, is left out.
    """

    def at_pan(self, pan: Array, ms: Array) -> Sequence[Array]:
        return [self.camera.expand(ms), pan]

    def combine(self, pan: Array, exp: Array, statistics: dict[str, Array]) -> Array:
        detail = pan[0] * statistics["scale"]
        detail += statistics["offset"]
        detail -= weighted(statistics["weights"], exp)
        for b, gain in enumerate(statistics["gain"]):
            exp[b] += gain * detail
        return exp


class Ihs(Substitution):
    """w_b = 1 / B and g_b = 1; P' has mean and standard deviation of I."""

    title = "IHS (generalised)"
    citation = "Carper et al. 1990, PE&RS 56(4); Tu et al. 2001, Inf. Fusion 2(3)"

    def freeze(self, fine: Moments, coarse: Moments) -> Statistics:
        bands = len(fine.mean) - 1
        return _matched(fine, np.full(bands, 1 / bands)) | {"gain": np.ones(bands)}


class Gs(Substitution):
    """w_b = 1 / B and g_b = cov(I, E_b) / var I; P' has mean and standard deviation of I."""

    title = "GS (Gram-Schmidt, mode 1)"
    citation = "Laben & Brower 2000, US patent 6,011,875"

    def freeze(self, fine: Moments, coarse: Moments) -> Statistics:
        bands = len(fine.mean) - 1
        weights = np.full(bands, 1 / bands)
        return _matched(fine, weights) | {"gain": _projections(fine, weights)}


class Pca(Substitution):
    """w the first principal component of the bands, g_b = w_b; P' has mean and standard deviation of I.

    The largest |w_b| is positive. With a PAN that correlates negatively with I the result is nonsense, as the
    definition has it.
    """

    title = "PCA"
    citation = "Chavez & Kwarteng 1989, PE&RS 55(3)"

    def freeze(self, fine: Moments, coarse: Moments) -> Statistics:
        first = np.linalg.eigh(fine.covariance[:-1, :-1])[1][:, -1]
        first = first * np.sign(first[np.argmax(np.abs(first))])
        return _matched(fine, first) | {"gain": first}


class Gsa(Substitution):
    """I is the PAN as the MS bands explain it: w, regression, at MS scale, of the low-passed PAN on the MS bands and a
    constant; g_b = cov(I, E_b) / var I. The PAN is not scaled; P' has the mean of I.
    """

    title = "GSA (Gram-Schmidt adaptive)"
    citation = "Aiazzi et al. 2007, IEEE TGRS 45(10)"

    @property
    def halo(self) -> int:
        return max(self.camera.exp_halo, self.camera.starlet_at_ms_halo)

    def at_ms(self, pan: Array, ms: Array) -> Sequence[Array]:
        return [ms, self.camera.starlet_at_ms(pan)]

    def freeze(self, fine: Moments, coarse: Moments) -> Statistics:
        # centred variables: the regression's constant and the intensity's mean drop out
        ms_and_pan = coarse.covariance
        weights = regression(ms_and_pan[:-1, :-1], ms_and_pan[:-1, -1])
        return {
            "weights": weights,
            "gain": _projections(fine, weights),
            "scale": np.ones(()),
            "offset": weights @ fine.mean[:-1] - fine.mean[-1],
        }


def _matched(fine: Moments, weights: Float64) -> Statistics:
    """The PAN, last in `fine`, matched to the intensity of these `weights`."""
    std = std_of_sum(weights, fine.covariance[:-1, :-1])
    scale, offset = matching(fine.mean[-1], fine.std[-1], weights @ fine.mean[:-1], std)
    return {"weights": weights, "scale": scale, "offset": offset}


def _projections(fine: Moments, weights: Float64) -> Float64:
    """cov(I, E_b) / var I of the intensity of these `weights`."""
    with_intensity = fine.covariance[:-1, :-1] @ weights
    return quotient(with_intensity, weights @ with_intensity)
