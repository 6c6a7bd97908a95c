"""What every classical method is: numbers of the whole scene first, then a formula that is local.

A method says which values it wants to know the means and covariances of (`at_pan`, `at_ms`), what it keeps of them
(`freeze`) and how a tile is sharpened with that (`fuse`). One that must look at the scene more than once has an
`observe` of its own, with a `gather` for each look. Reading, masks, tiles and precision are settled here, once. Every
method is a `Backend`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import ClassVar, TypeVar

import numpy as np
import numpy.typing as npt

from pansharpen_cli.classical.camera import Camera
from pansharpen_cli.classical.moments import Moments
from pansharpen_cli.errors import NothingSharedError
from pansharpen_cli.imaging.interpolation import Array, Float64
from pansharpen_cli.imaging.tiling import Pixels, Reach
from pansharpen_cli.system.concurrency import in_order

Real = TypeVar("Real", bound=np.floating)
Mask = npt.NDArray[np.bool_]

Layers = Callable[[Array, Array], Sequence[Array]]
"""From PAN (1, H, W) and MS (B, h, w) to layers (k, H, W)."""

Statistics = dict[str, Float64]
"""Frozen numbers of one scene by name: shapes (), or with axes (band, row, col) that broadcast."""


class Method(ABC):
    """A classical method on scenes of one `camera`. Arrays are pan (1, H, W), ms (B, h, w), H = ratio h, in any units
    that PAN and MS share (digital numbers in the field's tables); nothing is rounded or clipped.
    """

    title: ClassVar[str]
    citation: ClassVar[str]
    at_once: int = 1
    """See `Backend.at_once`; whoever has threads to give sets it."""
    crop: int | None = None
    """See `Backend.crop`: every tile is observed, unless a method sets 0."""
    precision: ClassVar[type[np.floating]] = np.float64
    """Of what `fuse` is given, at least: in float32 the matrix products of a large tile and of a small one round
    differently, and one pixel in some thousand of a 16-bit scene would show it."""
    precision_of_looks: ClassVar[type[np.floating]] = np.float64
    """Of what `at_pan` and `at_ms` are given, at least: regressions on bands that are much alike need all of it."""

    def __init__(self, camera: Camera) -> None:
        self.camera = camera
        self.statistics: Statistics = {}

    @property
    def halo(self) -> int:
        """PAN pixels around a pixel that the method reads, observing or sharpening."""
        return self.camera.exp_halo

    @property
    def reach(self) -> Reach:
        return Reach(halo=self.halo, multiple_of=self.camera.ratio)

    def share(self, threads: int) -> None:  # noqa: B027 - all methods are alike in this
        """Nothing: NumPy does the arithmetic of a tile in the thread that asks."""

    def observe(self, tiles: Iterable[Pixels]) -> None:
        """Freeze the scene's numbers, in float64, from all valid pixels of the cores."""
        self.statistics = self.freeze(*self.gather(tiles, self.at_pan))

    def gather(
        self, tiles: Iterable[Pixels], at_pan: Layers, tell: Callable[[Array, Mask], None] | None = None
    ) -> tuple[Moments, Moments]:
        """One look at the scene: the moments of the layers `at_pan` and of `self.at_ms`.

        `tell` is given the first of the layers on each core, and where they are valid.
        """

        def look(pixels: Pixels) -> tuple[Moments, Moments, tuple[Array, Mask] | None]:
            dtype = np.promote_types(pixels.pan.dtype, self.precision_of_looks)
            pan, ms = pixels.pan.astype(dtype, copy=False), pixels.ms.astype(dtype, copy=False)
            inner, ms_inner = pixels.tile.inner, pixels.tile.coarser(self.camera.ratio).inner
            layers, valid = [layer[:, *inner] for layer in at_pan(pan, ms)], pixels.valid[inner]
            coarse_layers = [layer[:, *ms_inner] for layer in self.at_ms(pan, ms)]
            of_coarse_layers = Moments.of(coarse_layers, pixels.ms_valid[ms_inner])
            return Moments.of(layers, valid), of_coarse_layers, (layers[0], valid) if tell else None

        fine, coarse = Moments(), Moments()
        for of_layers, of_coarse_layers, told in in_order(look, tiles, self.at_once):
            fine.merge(of_layers)
            coarse.merge(of_coarse_layers)
            if tell and told:
                tell(*told)
        if fine.count == 0:
            raise NothingSharedError("no pixel where both hold data")
        if coarse.count == 0 and type(self).at_ms is not Method.at_ms:
            raise NothingSharedError("no whole MS pixel where both hold data")
        return fine, coarse

    def __call__(self, pan: npt.NDArray[Real], ms: npt.NDArray[Real]) -> npt.NDArray[Real]:
        """Sharpen one tile: pan (1, rH, rW) and ms (B, H, W) -> HRMS (B, rH, rW)."""
        dtype = np.promote_types(pan.dtype, self.precision)
        hrms = self.fuse(pan.astype(dtype, copy=False), ms.astype(dtype, copy=False), self._statistics_as(dtype))
        return hrms.astype(pan.dtype, copy=False)

    def _statistics_as(self, dtype: np.dtype[np.floating]) -> dict[str, Array]:
        return {name: value.astype(dtype) for name, value in self.statistics.items()}

    def at_pan(self, pan: Array, ms: Array) -> Sequence[Array]:
        """What to take the moments of, per PAN pixel: layers (k, H, W)."""
        return [pan]

    def at_ms(self, pan: Array, ms: Array) -> Sequence[Array]:
        """What to take the moments of, per MS pixel: layers (k, h, w)."""
        return [ms[:0]]

    def freeze(self, fine: Moments, coarse: Moments) -> Statistics:
        """The numbers that `fuse` needs, from the moments of `at_pan` and `at_ms`."""
        return {}

    @abstractmethod
    def fuse(self, pan: Array, ms: Array, statistics: dict[str, Array]) -> Array:
        """HRMS (B, H, W) of one tile. Local: a pixel depends on nothing farther than the halo."""


class Pointwise(Method):
    """A method that makes a pixel of the PAN's and the EXP's own pixel: `combine`. EXP comes a few rows at a time."""

    precision: ClassVar[type[np.floating]] = np.float32  # no matrix products: alike in every tile

    def __call__(self, pan: npt.NDArray[Real], ms: npt.NDArray[Real]) -> npt.NDArray[Real]:
        dtype = np.promote_types(pan.dtype, self.precision)
        statistics = self._statistics_as(dtype)
        hrms = np.empty((len(ms), *pan.shape[1:]), pan.dtype)
        for rows, exp in self.camera.expanded(ms.astype(dtype, copy=False)):
            hrms[:, rows] = self.combine(pan[:, rows].astype(dtype, copy=False), exp, statistics)
        return hrms

    def fuse(self, pan: Array, ms: Array, statistics: dict[str, Array]) -> Array:
        """The same, all rows at once."""
        return self.combine(pan, self.camera.expand(ms), statistics)

    @abstractmethod
    def combine(self, pan: Array, exp: Array, statistics: dict[str, Array]) -> Array:
        """HRMS (B, H, W) from pan (1, H, W) and its EXP (B, H, W), which may be overwritten."""


def weighted(weights: Array, bands: Array) -> Array:
    """Sum of w_b E_b, (B,) and (B, H, W) to (H, W); one after the other it is alike in every tile."""
    total: Array = weights[0] * bands[0]
    for weight, band in zip(weights[1:], bands[1:], strict=True):
        total += weight * band
    return total


class Exp(Method):
    """The MS interpolated to the PAN grid: what every method starts from, and the baseline to beat."""

    title = "EXP"
    citation = "Aiazzi et al. 2002, IEEE TGRS 40(10) (the 23-tap interpolation)"
    crop = 0
    precision = np.float32  # alike in every tile

    def fuse(self, pan: Array, ms: Array, statistics: dict[str, Array]) -> Array:
        return self.camera.expand(ms)
