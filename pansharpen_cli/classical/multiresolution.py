"""Multiresolution analysis: the detail of the PAN that the MS camera would not have seen is added to the bands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pansharpen_cli.classical.method import Method, Statistics
from pansharpen_cli.classical.moments import Moments, matching, quotient
from pansharpen_cli.imaging.interpolation import Array, Float64


class Injection(Method):
    """F_b = E_b + g_b (P - Q_b) + o_b: Q_b the PAN at MS resolution. The methods differ in g_b and o_b."""

    @property
    def halo(self) -> int:
        return self.camera.blur_halo

    def fuse(self, pan: Array, ms: Array, statistics: dict[str, Array]) -> Array:
        detail = pan - self.camera.blur(pan)
        hrms = self.camera.expand(ms)
        for b, look in enumerate(self.camera.look):
            hrms[b] += statistics["gain"][b] * detail[look] + statistics["offset"][b]
        return hrms


class MtfGlp(Injection):
    """g_b = std E_b / std of the low-passed PAN: the PAN is matched to each band before its detail is taken.

    The MTF kernels are not normalised, so the matched PAN leaves a trace of its offset c_b, o_b = c_b (1 - their sum).
    """

    title = "MTF-GLP"
    citation = "Aiazzi et al. 2006, PE&RS 72(5); Vivone et al. 2021, IEEE GRSM 9(1)"

    def at_pan(self, pan: Array, ms: Array) -> Sequence[Array]:
        return [self.camera.expand(ms), pan, self.camera.gaussian(pan)]

    def freeze(self, fine: Moments, coarse: Moments) -> Statistics:
        gain, offset = matched_to_bands(fine, len(self.camera.bands))
        return {"gain": gain, "offset": offset * (1 - self.camera.blur_sum)}


class MtfGlpFs(Injection):
    """g_b = cov(E_b, P) / cov(Q_b, P), at full scale; o_b = 0."""

    title = "MTF-GLP-FS"
    citation = "Vivone, Restaino & Chanussot 2018, IEEE TIP 27(7)"

    def at_pan(self, pan: Array, ms: Array) -> Sequence[Array]:
        return [self.camera.expand(ms), self.camera.blur(pan), pan]

    def freeze(self, fine: Moments, coarse: Moments) -> Statistics:
        bands = len(self.camera.bands)
        with_pan = fine.covariance[-1]
        gain = quotient(with_pan[:bands], with_pan[bands + self.camera.look])
        return {"gain": gain, "offset": np.zeros(bands)}


class MtfGlpCbd(Injection):
    """g_b = cov(E_b, Q_b) / var Q_b over the whole scene; o_b = 0."""

    title = "MTF-GLP-CBD (context-based decision, global)"
    citation = "Alparone et al. 2007, IEEE TGRS 45(10)"

    def at_pan(self, pan: Array, ms: Array) -> Sequence[Array]:
        return [self.camera.expand(ms), self.camera.blur(pan)]

    def freeze(self, fine: Moments, coarse: Moments) -> Statistics:
        gain = regression_on_blurred(fine, self.camera.look)
        return {"gain": gain, "offset": np.zeros(len(gain))}


def matched_to_bands(fine: Moments, bands: int) -> tuple[Float64, Float64]:
    """Gain and offset (B,) of the PAN matched to each band.

    In `fine`: the bands, the PAN, and what stands for the PAN in its standard deviation, if not the PAN itself.
    """
    return matching(fine.mean[bands], fine.std[-1], fine.mean[:bands], fine.std[:bands])


def regression_on_blurred(fine: Moments, look: npt.NDArray[np.intp]) -> Float64:
    """cov(E_b, Q_b) / var Q_b (B,). First in `fine`: the bands, then the looks."""
    band, own = np.arange(len(look)), len(look) + look
    return quotient(fine.covariance[band, own], fine.covariance[own, own])
