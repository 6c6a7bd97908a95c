"""A method made ready for one scene: digital numbers in, digital numbers out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from pansharpen_cli.backends.backend import Backend
from pansharpen_cli.errors import NothingSharedError
from pansharpen_cli.imaging.radiometry import Radiometry, Scaling
from pansharpen_cli.imaging.tiling import Pixels, Tile
from pansharpen_cli.inputs.canvas import Canvas
from pansharpen_cli.system.concurrency import ahead, in_order

Float32 = npt.NDArray[np.float32]

MOST_CROPS = 12
"""Crops along an axis from which a network observes a scene."""


@dataclass(frozen=True, eq=False)
class Sharpener:
    """A backend that has observed its scene, with the scaling of that scene.

    `order`: the scene's index of each band the method works on; the product has the scene's order.
    """

    backend: Backend
    scaling: Scaling
    order: tuple[int, ...]

    @classmethod
    def observing(
        cls, backend: Backend, radiometry: Radiometry | None, canvas: Canvas, order: tuple[int, ...], tile: int
    ) -> Sharpener:
        """Freeze what `backend` wants to know of the whole scene; without `radiometry` it works in DN.

        `tile`: size of the tiles in which a method that wants every pixel gets them.
        """
        scaling = Scaling.none()
        if radiometry is not None:
            scaling = Scaling.of(radiometry, canvas.moments.of_bands(order))
        sharpener = cls(backend, scaling, order)
        if backend.crop != 0:
            try:
                backend.observe(_Scene(sharpener, canvas, tile))
            except NothingSharedError as error:
                raise NothingSharedError(error.what, str(canvas)) from error
        return sharpener

    def __call__(self, pixels: Pixels) -> Float32:
        """The core of a tile, sharpened: (bands, rows, cols) in DN, bands as in the scene."""
        scaled = self._scaled(pixels)
        hrms = self.scaling.to_dn(self.backend(scaled.pan, scaled.ms)[(..., *pixels.tile.inner)])
        if self._in_order:
            return hrms
        product = np.empty_like(hrms)
        product[list(self.order)] = hrms
        return product

    @property
    def _in_order(self) -> bool:
        return self.order == tuple(range(len(self.order)))

    def all(self, canvas: Canvas, tiles: Sequence[Tile]) -> Iterator[tuple[Pixels, Float32]]:
        """Tiles of a canvas with their cores, sharpened, in order; reading goes ahead, and as many as the backend can
        are sharpened at the same time."""
        threads = max(1, min(self.backend.at_once, len(tiles)))
        pixels = ahead(map(canvas.read, tiles))
        return in_order(lambda one: (one, self(one)), pixels, threads, partial(self.backend.share, threads))

    def _scaled(self, pixels: Pixels) -> Pixels:
        ms = pixels.ms if self._in_order else pixels.ms[list(self.order)]
        pan, ms = self.scaling.to_network(pixels.pan, ms)
        return replace(pixels, pan=pan, ms=ms)


@dataclass(frozen=True, eq=False)
class _Scene:
    """What a backend wants to see of a scene, in its units, as often as it asks."""

    sharpener: Sharpener
    canvas: Canvas
    tile: int

    def __iter__(self) -> Iterator[Pixels]:
        return map(self.sharpener._scaled, self._pixels())

    def _pixels(self) -> Iterable[Pixels]:
        backend = self.sharpener.backend
        if backend.crop is None:
            return ahead(map(self.canvas.read, self.canvas.tiles(self.tile, backend.reach)))
        # a crop with gaps would teach the network its filling: only where there is no other
        crops = list(self.canvas.crops(backend.crop, MOST_CROPS, backend.reach.alignment))
        return [crop for crop in crops if crop.valid.all()] or crops
