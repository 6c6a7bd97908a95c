"""A PAN as other cameras would have it, so that a network does not count on the one it learned with: another mixture of
the bands, sharper or more blurred. And what a whole scene tells of a patch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pansharpen_cli.imaging.radiometry import Scaling
from pansharpen_cli.imaging.wald import ReducedScene
from pansharpen_cli.networks.per_band import DARK_PART

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]

MIXED, FILTERED = 0.6, 0.5
"""Parts of the patches whose PAN gets another mixture, and another sharpness."""
BLURRED, SHARPENED = 0.3, 1.2
"""How much of a PAN's finest detail is taken away or added at most. PANs of commercial sensors are sharper than their
MTF says, as their makers restore them."""
LOOKED_AT = 2**16
"""Pixels, about, from which a scene's covariances are taken."""


@dataclass(frozen=True, eq=False)
class Facts:
    """Of a whole scene, in DN: `haze` (bands,), the dark quantile of each, and the `covariance` of PAN and bands."""

    haze: Float32
    covariance: Float64

    @classmethod
    def of(cls, scene: ReducedScene) -> Facts:
        step = max(1, int((scene.valid.size / LOOKED_AT) ** 0.5))
        known = scene.valid[::step, ::step]
        layers = [image[:, ::step, ::step][:, known] for image in (scene.pan, scene.gt)]
        dark = np.quantile(scene.ms.reshape(len(scene.ms), -1), DARK_PART, axis=1, method="lower")
        return cls(dark.astype(np.float32), np.cov(np.concatenate(layers)))

    def of_bands(self, order: npt.NDArray[np.intp], scaling: Scaling) -> tuple[Float32, Float64]:
        """Haze and covariance of the bands in `order`, in network units."""
        haze = (self.haze[order] - scaling.offset.ravel()) / scaling.scale.ravel()
        unit = np.concatenate([[scaling.pan_scale], scaling.scale.ravel()]).astype(np.float64)
        chosen = np.concatenate([[0], order + 1])
        return haze, self.covariance[np.ix_(chosen, chosen)] / np.outer(unit, unit)


def other_pan(pan: Float32, gt: Float32, covariance: Float64, random: np.random.Generator) -> Float32:
    """`pan` (1, P, P) as another camera might see it, where the truth is `gt` (bands, P, P): in network units, with the
    same standard deviation over the scene, whose `covariance` of PAN and bands is known."""
    if random.random() < MIXED:
        part = random.random()
        mixture = np.concatenate([[1 - part], part * random.dirichlet(np.ones(len(gt)))])
        mixture *= np.sqrt(covariance[0, 0] / (mixture @ covariance @ mixture))
        pan = np.tensordot(mixture, np.concatenate([pan, gt]), axes=1)[None].astype(np.float32)
    if random.random() < FILTERED:
        pan = pan + np.float32(random.uniform(-BLURRED, SHARPENED)) * (pan - _blurred(pan))
    return pan


def _blurred(image: Float32) -> Float32:
    """The mean of 3 x 3 pixels."""
    padded = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="edge")
    views = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    return np.asarray(views.mean(axis=(3, 4)))
