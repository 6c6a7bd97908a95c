"""Multiresolution analysis by high-pass modulation: the PAN over its low-passed self multiplies the bands."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from math import ceil, log2

import numpy as np

from pansharpen_cli.classical.method import Method, Statistics
from pansharpen_cli.classical.moments import EPS, Moments
from pansharpen_cli.classical.multiresolution import matched_to_bands, regression_on_blurred
from pansharpen_cli.imaging.interpolation import Array, expand
from pansharpen_cli.imaging.tiling import Reach


class Modulation(Method):
    """F_b = E_b (g_b P + o_b) / (g_b L_b + l_b): L_b a low-passed PAN. The methods differ in L, g, o and l.

    Where the divisor comes near 0 the quotient explodes, as the methods' definitions have it; it is finite everywhere.
    """

    @abstractmethod
    def low_pass(self, pan: Array) -> Sequence[Array]:
        """L_b (H, W), one a band."""

    def at_pan(self, pan: Array, ms: Array) -> Sequence[Array]:
        return [self.camera.expand(ms), pan]

    def freeze(self, fine: Moments, coarse: Moments) -> Statistics:
        gain, offset = matched_to_bands(fine, len(self.camera.bands))
        return {"gain": gain, "offset": offset, "low_offset": offset}

    def fuse(self, pan: Array, ms: Array, statistics: dict[str, Array]) -> Array:
        hrms = self.camera.expand(ms)
        gain, offset, low_offset = (statistics[name] for name in ("gain", "offset", "low_offset"))
        for b, low in enumerate(self.low_pass(pan)):
            hrms[b] *= gain[b] * pan[0] + offset[b]
            hrms[b] /= (gain[b] * low + low_offset[b]) + EPS  # EPS counts where the rest is exactly 0
        return hrms


class Sfim(Modulation):
    """L the mean of a square about as wide as an MS pixel; the PAN is matched to each band."""

    title = "SFIM"
    citation = "Liu 2000, IJRS 21(18)"

    @property
    def halo(self) -> int:
        return max(self.camera.exp_halo, self.camera.ratio // 2)

    def low_pass(self, pan: Array) -> Sequence[Array]:
        half = self.camera.ratio // 2  # so the square has a middle
        padded = np.pad(pan[0], half, mode="edge")
        height, width = pan.shape[1:]
        rows = sum(padded[t : t + height] for t in range(2 * half + 1))
        mean = sum(np.asarray(rows)[:, t : t + width] for t in range(2 * half + 1)) / (2 * half + 1) ** 2
        return [np.asarray(mean)] * len(self.camera.bands)


class Mf(Modulation):
    """L a morphological pyramid with half gradients, brought back bilinearly; the PAN is matched to each band.

    On images that are not square the field's toolbox enlarges the coarsest level to a wrong size first; here not.
    """

    title = "MF (morphological filters, half gradients)"
    citation = "Restaino et al. 2016, IEEE TIP 25(6)"

    @property
    def halo(self) -> int:
        return max(self.camera.exp_halo, 3 * self._grain)

    @property
    def reach(self) -> Reach:
        return Reach(halo=self.halo, alignment=self._grain, multiple_of=self.camera.ratio)

    @property
    def _levels(self) -> int:
        return ceil(log2(self.camera.ratio))

    @property
    def _grain(self) -> int:
        """PAN pixels in one of the coarsest level."""
        return 1 << self._levels

    def low_pass(self, pan: Array) -> Sequence[Array]:
        height, width = pan.shape[1:]
        level = np.pad(pan[0], [(0, -height % self._grain), (0, -width % self._grain)], mode="edge")
        for step in range(self._levels):
            start = 1 if step == 0 else 0  # as the toolbox has it
            level = _half_gradient(level)[start::2, start::2]
        for _ in range(self._levels):
            level = expand(level, 2, 0.5, "bilinear", "edge")
        return [level[:height, :width]] * len(self.camera.bands)


class MtfGlpHpm(Modulation):
    """L_b = Q_b, the PAN at MS resolution; g_b = std E_b / std of the low-passed PAN.

    The MTF kernels are not normalised: l_b is o_b times their sum.
    """

    title = "MTF-GLP-HPM (high-pass modulation)"
    citation = "Vivone et al. 2014, IEEE GRSL 11(5); Vivone et al. 2021, IEEE GRSM 9(1)"

    @property
    def halo(self) -> int:
        return self.camera.blur_halo

    def at_pan(self, pan: Array, ms: Array) -> Sequence[Array]:
        return [self.camera.expand(ms), pan, self.camera.gaussian(pan)]

    def freeze(self, fine: Moments, coarse: Moments) -> Statistics:
        gain, offset = matched_to_bands(fine, len(self.camera.bands))
        return {"gain": gain, "offset": offset, "low_offset": offset * self.camera.blur_sum}

    def low_pass(self, pan: Array) -> Sequence[Array]:
        blurred = self.camera.blur(pan)
        return [blurred[look] for look in self.camera.look]


class MtfGlpHpmR(MtfGlpHpm):
    """L_b = Q_b, the PAN at MS resolution; g_b = cov(E_b, Q_b) / var Q_b, o_b = l_b = mean E_b - g_b mean P."""

    title = "MTF-GLP-HPM-R (regression-based)"
    citation = "Vivone, Restaino & Chanussot 2018, IEEE TGRS 56(2)"

    def at_pan(self, pan: Array, ms: Array) -> Sequence[Array]:
        return [self.camera.expand(ms), self.camera.blur(pan), pan]

    def freeze(self, fine: Moments, coarse: Moments) -> Statistics:
        gain = regression_on_blurred(fine, self.camera.look)
        offset = fine.mean[: len(gain)] - gain * fine.mean[-1]
        return {"gain": gain, "offset": offset, "low_offset": offset}


class Awlp(Method):
    """F_b = E_b + g_b (P - S) E_b / I: S the starlet low-pass of the PAN, I the mean of the bands, so that a band gets
    detail in proportion to its part of I; g_b = std E_b / std of the PAN at MS resolution.

    Where I comes near 0 the quotient explodes, as the method's definition has it; it is finite everywhere.
    """

    title = "AWLP"
    citation = "Otazu et al. 2005, IEEE TGRS 43(10); Vivone et al. 2021, IEEE GRSM 9(1)"

    @property
    def halo(self) -> int:
        return max(self.camera.exp_halo, self.camera.starlet_halo, self.camera.round_trip_halo)

    def at_pan(self, pan: Array, ms: Array) -> Sequence[Array]:
        return [self.camera.expand(ms), pan, self.camera.round_trip(pan)]

    def freeze(self, fine: Moments, coarse: Moments) -> Statistics:
        return {"gain": matched_to_bands(fine, len(self.camera.bands))[0]}

    def fuse(self, pan: Array, ms: Array, statistics: dict[str, Array]) -> Array:
        hrms = self.camera.expand(ms)
        detail = (pan - self.camera.starlet(pan))[0]
        detail /= hrms.mean(axis=0) + EPS
        for b, gain in enumerate(statistics["gain"]):
            hrms[b] *= 1 + gain * detail
        return hrms


def _half_gradient(image: Array) -> Array:
    """Mean of dilation and erosion by a cross of 3 x 3 pixels; pixels outside do not count."""
    high, low = image.copy(), image.copy()
    for a, b in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        for to, by in ((a, b), (b, a)):
            np.maximum(high[to], image[by], out=high[to])
            np.minimum(low[to], image[by], out=low[to])
    return (high + low) / 2
