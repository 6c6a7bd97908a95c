"""PRACS: partial replacement adaptive component substitution."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from pansharpen_cli.classical.method import Method, Statistics
from pansharpen_cli.classical.moments import Moments, matching, quotient, regression, std_of_sum
from pansharpen_cli.imaging.interpolation import Array
from pansharpen_cli.imaging.tiling import Pixels

BETA = 0.95
"""Normalises the injected detail."""


class Pracs(Method):
    """F_b = E_b + w_b A_b D_b: only a part of each band is replaced, as much as it looks like the PAN.

    m_b = max(E_b matched to the PAN, 0). A fit is a regression on the m_b and a constant. I_l is the fit of the PAN at
    MS resolution, c_b = corr(I_l, m_b), H_b = c_b P + (1 - c_b) m_b, I_b the fit of H_b at MS resolution. D_b is
    H_b - I_b, both centred; A_b = 1 - |1 - corr(I_l, E_b) E_b / I_b|; w_b = BETA corr(I_b, E_b) std E_b, over the mean
    of std E.

    But for the clip all is linear in the m_b, the PAN and these at MS resolution: a second look at the scene gives
    every correlation from one covariance matrix. Where I_b comes near 0 the quotient explodes, as the method's
    definition has it; it is finite everywhere.
    """

    title = "PRACS"
    citation = "Choi, Yu & Kim 2011, IEEE TGRS 49(1)"

    @property
    def halo(self) -> int:
        return self.camera.exp_halo + self.camera.round_trip_halo

    def observe(self, tiles: Iterable[Pixels]) -> None:
        super().observe(tiles)
        self.statistics |= self._freeze_matched(self.gather(tiles, self._matched_at_pan)[0])

    def at_pan(self, pan: Array, ms: Array) -> Sequence[Array]:
        return [self.camera.expand(ms), pan]

    def freeze(self, fine: Moments, coarse: Moments) -> Statistics:
        gain, offset = matching(fine.mean[:-1], fine.std[:-1], fine.mean[-1], fine.std[-1])
        return {"gain": gain[:, None, None], "offset": offset[:, None, None]}

    def _matched_at_pan(self, pan: Array, ms: Array) -> Sequence[Array]:
        exp = self.camera.expand(ms)
        pan_and_matched = np.concatenate([pan, _matched(exp, self.statistics["gain"], self.statistics["offset"])])
        return [exp, pan_and_matched, self.camera.round_trip(pan_and_matched)]

    def _freeze_matched(self, fine: Moments) -> Statistics:
        bands = len(self.camera.bands)
        exp, matched = slice(bands), slice(bands + 1, 2 * bands + 1)
        coarse_pan, coarse_matched = 2 * bands + 1, slice(2 * bands + 2, None)
        covariance, mean, std = fine.covariance, fine.mean, fine.std
        of_matched = covariance[matched, matched]

        of_pan = regression(of_matched, covariance[matched, coarse_pan])
        of_pan_std = std_of_sum(of_pan, of_matched)
        share = quotient(of_pan @ of_matched, of_pan_std * std[matched])
        likeness = quotient(of_pan @ covariance[matched, exp], of_pan_std * std[exp])

        # column b: with the image H_b at MS resolution
        mixed = share * covariance[matched, coarse_pan, None] + (1 - share) * covariance[matched, coarse_matched]
        fit = regression(of_matched, mixed)
        fit_mean = share * mean[coarse_pan] + (1 - share) * mean[coarse_matched]
        with_exp = np.sum(fit * covariance[matched, exp], axis=0)
        return {
            "share": share,
            "likeness": likeness,
            "fit": fit.T,
            "intercept": fit_mean - mean[matched] @ fit,
            "level": share * mean[bands] + (1 - share) * mean[matched] - fit_mean,
            "weight": BETA * quotient(with_exp, std_of_sum(fit, of_matched) * std[exp].mean()),
        }

    def fuse(self, pan: Array, ms: Array, statistics: dict[str, Array]) -> Array:
        hrms = self.camera.expand(ms)
        matched = _matched(hrms, statistics["gain"], statistics["offset"])
        share, likeness, weight = (statistics[name] for name in ("share", "likeness", "weight"))
        for b, fit in enumerate(statistics["fit"]):
            intensity = np.tensordot(fit, matched, axes=1) + statistics["intercept"][b]
            replaced = share[b] * pan[0] + (1 - share[b]) * matched[b]
            detail = replaced - intensity - statistics["level"][b]
            relative = np.divide(hrms[b], intensity, out=np.zeros_like(intensity), where=intensity != 0)
            detail *= 1 - np.abs(1 - likeness[b] * relative)
            hrms[b] += weight[b] * detail
        return hrms


def _matched(exp: Array, gain: Array, offset: Array) -> Array:
    matched = exp * gain
    matched += offset
    return np.maximum(matched, 0, out=matched)
