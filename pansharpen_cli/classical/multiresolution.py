"""Multiresolution analysis: the detail of the PAN that the MS camera would not have seen is added to the bands."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pansharpen_cli.classical.method import Method, Statistics
from pansharpen_cli.classical.moments import Moments, quotient
from pansharpen_cli.interpolation import Array


class MtfGlpFs(Method):
    """F_b = E_b + g_b (P - Q_b): Q_b the PAN at MS resolution, g_b = cov(E_b, P) / cov(Q_b, P) at full scale."""

    title = "MTF-GLP-FS"
    citation = "Vivone, Restaino & Chanussot 2018, IEEE TIP 27(7)"

    @property
    def halo(self) -> int:
        return self.camera.blur_halo

    def at_pan(self, pan: Array, ms: Array) -> Sequence[Array]:
        return [self.camera.expand(ms), self.camera.blur(pan), pan]

    def freeze(self, fine: Moments, coarse: Moments) -> Statistics:
        exp_with_pan, blurred_with_pan = np.split(fine.covariance[-1, :-1], 2)
        return {"gain": quotient(exp_with_pan, blurred_with_pan)[:, None, None]}

    def fuse(self, pan: Array, ms: Array, statistics: dict[str, Array]) -> Array:
        detail = pan - self.camera.blur(pan)
        detail *= statistics["gain"]
        detail += self.camera.expand(ms)
        return detail
