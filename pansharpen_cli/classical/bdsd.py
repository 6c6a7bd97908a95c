"""Band-dependent spatial detail: what the bands and the PAN must add to each band is learnt one scale down."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np

from pansharpen_cli.classical.camera import Camera, low_passed
from pansharpen_cli.classical.method import Method, Statistics
from pansharpen_cli.classical.moments import Moments, regression
from pansharpen_cli.classical.nonnegative import nonnegative
from pansharpen_cli.errors import NothingSharedError
from pansharpen_cli.imaging import mtf
from pansharpen_cli.imaging.interpolation import Array, Float64
from pansharpen_cli.imaging.tiling import Reach


class BandDependent(Method):
    """F_b = E_b + [E_1 ... E_B, P] g_b. g_b (B + 1,): regression of T_b - L_b on [L_1 ... L_B, q], no constant, see
    `lower_scale`.
    """

    @property
    def halo(self) -> int:
        return lower_scale_halo(self.camera)

    def at_ms(self, pan: Array, ms: Array) -> Sequence[Array]:
        return lower_scale(self.camera, pan, ms)

    def freeze(self, fine: Moments, coarse: Moments) -> Statistics:
        if coarse.count == 0:
            raise NothingSharedError("no whole MS pixel where both hold data")
        products, regressors = coarse.products, len(self.camera.bands) + 1
        return {"gains": self.fit(products[:regressors, :regressors], products[:regressors, regressors:])}

    @abstractmethod
    def fit(self, products: Float64, with_lost: Float64) -> Float64:
        """[g_1 ... g_B] from the mean products of the regressors (B + 1, B + 1), and those with T - L (B + 1, B)."""

    def fuse(self, pan: Array, ms: Array, statistics: dict[str, Array]) -> Array:
        of_bands, of_pan = statistics["gains"][:-1], statistics["gains"][-1]
        hrms = self.camera.expand(ms + np.tensordot(of_bands.T, ms, axes=1))  # EXP is linear: mix first
        hrms += of_pan[:, None, None] * pan
        return hrms


class BdsdPc(BandDependent):
    """Physical constraints: the gain of the PAN is not negative, those of the bands are not positive."""

    title = "BDSD-PC (band-dependent spatial detail, physical constraints)"
    citation = "Vivone 2019, IEEE TGRS 57(9)"

    def fit(self, products: Float64, with_lost: Float64) -> Float64:
        sign = np.append(-np.ones(len(products) - 1), 1)
        products = sign[:, None] * products * sign
        return np.stack([sign * nonnegative(products, sign * lost) for lost in with_lost.T], axis=1)


class Bdsd(BandDependent):
    """Without constraints, over the whole scene; or over each of the squares of `block` PAN pixels, a multiple of the
    ratio, that begin at the scene's origin. These are not blended, and gaps count in them as they are filled.
    """

    title = "BDSD (band-dependent spatial detail)"
    citation = "Garzelli, Nencini & Capobianco 2008, IEEE TGRS 46(1)"

    def __init__(self, camera: Camera, block: int | None = None) -> None:
        super().__init__(camera)
        self.block = block
        if block:
            self.crop = 0

    @property
    def reach(self) -> Reach:
        if not self.block:
            return super().reach
        return Reach(halo=self.halo + self.block - 1, alignment=self.block, multiple_of=self.camera.ratio)

    def fit(self, products: Float64, with_lost: Float64) -> Float64:
        return regression(products, with_lost)

    def fuse(self, pan: Array, ms: Array, statistics: dict[str, Array]) -> Array:
        if not self.block:
            return super().fuse(pan, ms, statistics)
        low, seen, lost = lower_scale(self.camera, pan.astype(np.float64), ms.astype(np.float64))
        regressors = np.concatenate([low, seen])
        sources = np.concatenate([self.camera.expand(ms), pan])
        hrms = sources[:-1].copy()
        for coarse, fine in _blocks(ms.shape[1:], self.block // self.camera.ratio, self.camera.ratio):
            known, wanted = (layers[:, *coarse].reshape(len(layers), -1).T for layers in (regressors, lost))
            gains = np.linalg.lstsq(known, wanted, rcond=None)[0].astype(pan.dtype)
            hrms[:, *fine] += np.tensordot(gains.T, sources[:, *fine], axes=1)
        return hrms


def lower_scale(camera: Camera, pan: Array, ms: Array) -> tuple[Array, Array, Array]:
    """PAN (1, H, W) and MS (B, h, w) as if one scale down, but on MS pixels: L (B, h, w), q (1, h, w), T - L (B, h, w).

    T is the EXP reduced to MS pixels, L is T through the MTF of each band, so T - L is what is to be added there. q is
    the PAN through its own MTF, at the MS samples. Where these are not at the middle of MS pixels, as in the toolbox,
    T is not where q is: half a PAN pixel off there.
    """
    bands = camera.down(camera.expand(ms))
    gains = [camera.sensor.gain(name) for name in camera.bands]
    low = np.stack([low_passed(band, camera.ratio, gain) for band, gain in zip(bands, gains, strict=True)])
    seen = mtf.seen(pan[0], camera.ratio, camera.sensor.pan_gain, camera.phase)
    return low, seen[None], bands - low


def lower_scale_halo(camera: Camera) -> int:
    """PAN pixels around the first one of an MS pixel that `lower_scale` reads for it."""
    low_pass, reduction = mtf.TAPS // 2, 3  # MS pixels
    return (low_pass + reduction) * camera.ratio + camera.exp_halo


def _blocks(shape: tuple[int, ...], size: int, ratio: int) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice]]]:
    """Squares of `size` MS pixels that cover (h, w), in MS pixels and in PAN pixels."""
    for row in range(0, shape[0], size):
        for col in range(0, shape[1], size):
            yield (
                (slice(row, row + size), slice(col, col + size)),
                (slice(ratio * row, ratio * (row + size)), slice(ratio * col, ratio * (col + size))),
            )
