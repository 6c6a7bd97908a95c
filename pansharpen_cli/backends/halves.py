"""A tile cut in two, where there is too little memory for a whole one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pansharpen_cli.tiling import Reach, Span, halves

Float32 = npt.NDArray[np.float32]


def cut(pan: Float32, ms: Float32, reach: Reach) -> tuple[int, list[Span]]:
    """The longer axis of a tile, 1 or 2, and the PAN's spans along it: two, each with its halo, or one if that would
    make nothing smaller."""
    axis = 1 if pan.shape[1] >= pan.shape[2] else 2
    return axis, halves(pan.shape[axis], reach, pan.shape[axis] // ms.shape[axis])


def in_halves(
    sharpen: Callable[[Float32, Float32], Float32], pan: Float32, ms: Float32, reach: Reach
) -> Float32 | None:
    """What `sharpen` makes of a tile, half by half; None if the halves would be no smaller."""
    axis, parts = cut(pan, ms, reach)
    if len(parts) == 1:
        return None
    ratio, along = pan.shape[axis] // ms.shape[axis], (slice(None),) * axis
    sharpened = [sharpen(pan[*along, part.read], ms[*along, part.coarser(ratio).read]) for part in parts]
    return np.concatenate([half[*along, part.inner] for half, part in zip(sharpened, parts, strict=True)], axis)
