"""Component substitution: the PAN takes the place of an intensity made of the MS bands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pansharpen_cli.classical.method import Method, Statistics
from pansharpen_cli.classical.moments import EPS, Moments, quotient
from pansharpen_cli.interpolation import Array


class Brovey(Method):
    """F_b = E_b P' / I: I the mean of the bands, P' the PAN with its mean and standard deviation.

    Where I comes near 0 the quotient explodes, as the method's definition has it; it is finite everywhere.
    """

    title = "Brovey"
    citation = "Gillespie et al. 1987, Remote Sens. Environ. 22(3); Tu et al. 2001, Inf. Fusion 2(3)"

    def at_pan(self, pan: Array, ms: Array) -> Sequence[Array]:
        return [self.camera.expand(ms.mean(axis=0, keepdims=True)), pan]

    def freeze(self, fine: Moments, coarse: Moments) -> Statistics:
        gain = quotient(fine.std[0], fine.std[1])
        return {"gain": gain, "offset": fine.mean[0] - gain * fine.mean[1]}

    def fuse(self, pan: Array, ms: Array, statistics: dict[str, Array]) -> Array:
        exp = self.camera.expand(ms)
        matched = pan * statistics["gain"] + statistics["offset"]
        exp *= matched / (exp.mean(axis=0) + EPS)
        return exp


class Gsa(Method):
    """F_b = E_b + g_b (P - I), both centred: I = sum of alpha_b E_b is the PAN as the MS bands explain it.

    alpha: regression, at MS scale, of the low-passed PAN on the MS bands and a constant; g_b = cov(I, E_b) / var I.
    """

    title = "GSA (Gram-Schmidt adaptive)"
    citation = "Aiazzi et al. 2007, IEEE TGRS 45(10)"

    @property
    def halo(self) -> int:
        return max(self.camera.exp_halo, self.camera.starlet_halo)

    def at_pan(self, pan: Array, ms: Array) -> Sequence[Array]:
        return [self.camera.expand(ms), pan]

    def at_ms(self, pan: Array, ms: Array) -> Sequence[Array]:
        return [ms, self.camera.starlet(pan)]

    def freeze(self, fine: Moments, coarse: Moments) -> Statistics:
        # centred variables: the regression's constant and the intensity's mean drop out
        ms_and_pan = coarse.covariance
        alpha = np.linalg.lstsq(ms_and_pan[:-1, :-1], ms_and_pan[:-1, -1], rcond=None)[0]
        with_intensity = fine.covariance[:-1, :-1] @ alpha
        return {
            "alpha": alpha,
            "gain": quotient(with_intensity, alpha @ with_intensity)[:, None, None],
            "offset": fine.mean[-1] - alpha @ fine.mean[:-1],
        }

    def fuse(self, pan: Array, ms: Array, statistics: dict[str, Array]) -> Array:
        exp = self.camera.expand(ms)
        intensity = np.tensordot(statistics["alpha"], exp, axes=1)
        exp += statistics["gain"] * (pan - intensity - statistics["offset"])
        return exp
