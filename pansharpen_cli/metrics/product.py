"""A product beside what it was made from, and one tile of the four as metrics without a truth see it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import lcm
from typing import Any

import numpy.typing as npt

from pansharpen_cli.errors import UsageError
from pansharpen_cli.imaging import mtf
from pansharpen_cli.imaging.tiling import Span, Tile
from pansharpen_cli.metrics import derived, formulas
from pansharpen_cli.metrics.blur import Blur
from pansharpen_cli.metrics.formulas import Moments
from pansharpen_cli.metrics.image import Cropped, Held, Image, Mask, Pixels, pixels
from pansharpen_cli.metrics.streaming import BLOCK, Window


@dataclass(frozen=True, eq=False)
class Product:
    """A product, its PAN and its MS, cut to whole blocks, and EXP."""

    fused: Image
    pan: Image
    ms: Image
    exp: Image
    ratio: int
    phase: float
    gains: tuple[float, ...]

    @classmethod
    def of(
        cls, fused: Image, pan: Image, ms: Image, gains: Sequence[float], phase: float, exp: Image | None
    ) -> Product:
        ratio = _check(fused, pan, ms, gains, exp)
        grain = lcm(BLOCK, ratio)
        rows, cols = (slice(0, min(n, ratio * m) // grain * grain) for n, m in zip(pan.shape, ms.shape, strict=True))
        if not rows.stop or not cols.stop:
            raise UsageError(f"{pan.shape[0]} x {pan.shape[1]} pixels are less than one block of {grain}")
        ms = Cropped(ms, slice(0, rows.stop // ratio), slice(0, cols.stop // ratio))
        exp = Cropped(exp, rows, cols) if exp else derived.Expanded(ms, ratio, phase)
        return cls(Cropped(fused, rows, cols), Cropped(pan, rows, cols), ms, exp, ratio, phase, tuple(gains))

    @property
    def size(self) -> tuple[int, int]:
        return self.pan.shape

    @cached_property
    def blurs(self) -> list[Blur]:
        """The MS camera's MTF."""
        return [Blur.of(mtf.kernel(self.ratio, gain)) for gain in self.gains]


def _check(fused: Image, pan: Image, ms: Image, gains: Sequence[float], exp: Image | None) -> int:
    """The ratio of a product whose images fit together."""
    ratio = max(1, round(pan.shape[0] / ms.shape[0]))
    images = [("the product", fused, ms.bands), ("the PAN", pan, 1)] + ([("EXP", exp, ms.bands)] if exp else [])
    for name, image, bands in images:
        if image.shape != pan.shape or image.bands != bands:
            raise UsageError(
                f"{name} has {image.bands} bands of {image.shape} pixels; {bands} of {pan.shape} go with PAN and MS"
            )
    if any(abs(n - ratio * m) >= ratio for n, m in zip(pan.shape, ms.shape, strict=True)):
        raise UsageError(f"the MS of {ms.shape} pixels is not nested in the PAN of {pan.shape}")
    if len(gains) != ms.bands:
        raise UsageError(f"{len(gains)} MTF gains for {ms.bands} bands")
    return ratio


@dataclass(eq=False)
class View:
    """One tile of a product as the metrics need it. What several of them need is made once, and only if asked for;
    `size` is the side of the blocks."""

    product: Product
    tile: Tile
    size: int = BLOCK

    def __post_init__(self) -> None:
        self._fused, self._pan = Held(self.product.fused), Held(self.product.pan)

    @cached_property
    def _exp(self) -> Pixels:
        return pixels(self.product.exp, *self.tile.core)

    def consistency(self) -> Window:
        """EXP, and the product as the MS camera sees it."""
        core = Tile(*(Span(s.start, s.stop, s.start, s.stop) for s in (self.tile.rows, self.tile.cols)))
        blurred = derived.Filtered(self._fused, self.product.blurs).read(*self.tile.core)
        return Window.of(core, self.product.size, self._exp, blurred)

    @cached_property
    def low(self) -> Moments:
        """Blocks of EXP, and of the PAN brought down to the MS and up again."""
        reduced_pan = derived.Reduced(self._pan, self.product.ratio)
        pan = derived.Expanded(reduced_pan, self.product.ratio, self.product.phase).read(*self.tile.core)
        return self._moments(self._exp, pan)

    @cached_property
    def high(self) -> Moments:
        """Blocks of the product and the PAN."""
        return self._moments(self._fused.read(*self.tile.core), self._pan.read(*self.tile.core))

    def around(self) -> Window:
        """PAN and product, with the margin of the tile."""
        pan, fused = (pixels(image, *self.tile.read) for image in (self._pan, self._fused))
        return Window.of(self.tile, self.product.size, pan, fused)

    def _moments(self, bands: tuple[npt.NDArray[Any], Mask], pan: tuple[npt.NDArray[Any], Mask]) -> Moments:
        return formulas.block_moments(bands[0], pan[0], bands[1] & pan[1], self.size, self.size)
