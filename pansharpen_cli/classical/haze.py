"""Methods that take the haze off: the light that the air scatters into every pixel of a band, as its darkest ones show
it (Lolli et al. 2017)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence

import numpy as np

from pansharpen_cli.classical.method import Mask, Method, Pointwise, Statistics, weighted
from pansharpen_cli.classical.moments import EPS, Moments, matching, regression, std_of_sum
from pansharpen_cli.classical.percentile import Percentile
from pansharpen_cli.imaging.interpolation import Array, Float64
from pansharpen_cli.imaging.tiling import Pixels

HAZE = {"blue": 0.95, "green": 0.45, "red": 0.40, "nir": 0.05}
"""Parts of these bands' dark level, the first percentile, that are haze."""


class HazeCorrected(Method):
    """The haze L_b of blue, green, red and NIR is a part of their first percentile (`HAZE`), which needs a second look
    at the scene; of any other set of bands it is their minimum. Four bands without these names are taken in this order.
    """

    @property
    def halo(self) -> int:
        return max(self.camera.exp_halo, self.camera.gaussian_halo)

    def at_pan(self, pan: Array, ms: Array) -> Sequence[Array]:
        return [self.camera.expand(ms), self.camera.gaussian(pan)]

    def observe(self, tiles: Iterable[Pixels]) -> None:
        darkest = [Percentile(1.0) for _ in self.camera.bands]

        def count(exp: Array, valid: Mask) -> None:
            for percentile, band in zip(darkest, exp, strict=True):
                percentile.count(band[valid])

        def collect(exp: Array, valid: Mask) -> None:
            for percentile, band in zip(darkest, exp, strict=True):
                percentile.collect(band[valid])

        parts = _haze_parts(self.camera.bands)
        fine, _ = self.gather(tiles, self.at_pan, count if parts else None)
        haze = fine.minimum[:-1]
        if parts:
            self.gather(tiles, lambda pan, ms: [self.camera.expand(ms)], collect)
            haze = np.array([percentile.value for percentile in darkest]) * parts
        self.statistics = {"haze": haze[:, None, None], **self.freeze_with(haze, fine)}

    @abstractmethod
    def freeze_with(self, haze: Float64, fine: Moments) -> Statistics:
        """As `freeze`, the haze (B,) known; `fine` has the bands' EXP and the low-passed PAN."""


class BtH(Pointwise, HazeCorrected):
    """F_b = max(E_b - L_b, 0) P' / I + L_b: I = sum of alpha_b (E_b - L_b), P' the PAN with its mean and standard
    deviation. alpha: regression, without constant, of the low-passed PAN on the bands.

    Where I comes near 0 the quotient explodes, as the method's definition has it; it is finite everywhere.
    """

    title = "BT-H (Brovey with haze correction)"
    citation = "Lolli et al. 2017, IEEE GRSL 14(12)"
    precision = np.float64  # the quotient's rounding explodes with it

    def freeze_with(self, haze: Float64, fine: Moments) -> Statistics:
        alpha = regression(fine.products[:-1, :-1], fine.products[:-1, -1])
        std = std_of_sum(alpha, fine.covariance[:-1, :-1])
        gain, offset = matching(fine.mean[-1], fine.std[-1], alpha @ (fine.mean[:-1] - haze), std)
        return {"alpha": alpha, "gain": gain, "offset": offset}

    def combine(self, pan: Array, exp: Array, statistics: dict[str, Array]) -> Array:
        exp -= statistics["haze"]
        ratio = pan[0] * statistics["gain"] + statistics["offset"]
        ratio /= weighted(statistics["alpha"], exp) + EPS
        np.maximum(exp, 0, out=exp)
        exp *= ratio
        exp += statistics["haze"]
        return exp


class MtfGlpHpmH(HazeCorrected):
    """F_b = (E_b - L_b) (P - L_P) / (Q_b - L_P) + L_b: Q_b the PAN at MS resolution, L_P the haze of the PAN, from the
    regression of the low-passed PAN on the bands.

    Where Q_b comes near L_P the quotient explodes, as the method's definition has it; it is finite everywhere.
    """

    title = "MTF-GLP-HPM-H (haze corrected)"
    citation = "Lolli et al. 2017, IEEE GRSL 14(12)"

    @property
    def halo(self) -> int:
        return self.camera.blur_halo

    def freeze_with(self, haze: Float64, fine: Moments) -> Statistics:
        weights = regression(fine.covariance[:-1, :-1], fine.covariance[:-1, -1])
        return {"pan_haze": fine.mean[-1] + weights @ (haze - fine.mean[:-1])}

    def fuse(self, pan: Array, ms: Array, statistics: dict[str, Array]) -> Array:
        ratio = (pan - statistics["pan_haze"]) / ((self.camera.blur(pan) - statistics["pan_haze"]) + EPS)
        hrms = self.camera.expand(ms)
        hrms -= statistics["haze"]
        for b, look in enumerate(self.camera.look):
            hrms[b] *= ratio[look]
        hrms += statistics["haze"]
        return hrms


def _haze_parts(bands: Sequence[str]) -> list[float] | None:
    """The part of each band's first percentile that is haze; None where the minimum is."""
    if len(bands) != len(HAZE):
        return None
    if set(bands) == set(HAZE):
        return [HAZE[band] for band in bands]
    return None if set(bands) & set(HAZE) else list(HAZE.values())
