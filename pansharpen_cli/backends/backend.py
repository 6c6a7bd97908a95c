"""One way to sharpen a tile, whatever computes it: a network in torch, its ONNX export, a classical method."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pansharpen_cli.imaging.tiling import Pixels, Reach

Float32 = npt.NDArray[np.float32]

MOST_AT_ONCE = 8
"""Tiles that are sharpened at the same time on a CPU: each needs memory of its own."""


class Backend(Protocol):
    """Sharpens the tiles of one scene, after it has observed what it needs to know of the whole scene.

    `reach` is what it needs around a tile. `at_once`: how many tiles it can sharpen at the same time, each in a thread
    of its own that began with `share`. `crop` says what `observe` wants to see: 0 nothing, N crops of N PAN pixels a
    side spread over the scene, None every tile once (each pixel in exactly one core).
    """

    @property
    def reach(self) -> Reach: ...

    @property
    def at_once(self) -> int: ...

    def share(self, threads: int) -> None:
        """The calling thread is one of so many that are going to sharpen tiles at the same time."""
        ...

    @property
    def crop(self) -> int | None: ...

    def observe(self, tiles: Iterable[Pixels]) -> None:
        """Freeze the scene's global values. Called once, before the first tile, unless `crop` is 0.

        `tiles` may be iterated several times; each time they are read anew.
        """
        ...

    def __call__(self, pan: Float32, ms: Float32) -> Float32:
        """pan (1, rH, rW) and ms (B, H, W) -> HRMS (B, rH, rW), all in the same units."""
        ...
