"""A tile cut in two, where there is too little memory for a whole one."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from pansharpen_cli.imaging.tiling import Reach, halves

Float32 = npt.NDArray[np.float32]


def in_halves(
    sharpen: Callable[[Float32, Float32], Float32], pan: Float32, ms: Float32, reach: Reach
) -> Float32 | None:
    """What `sharpen` makes of a tile cut across its longer side, each half with its halo; None if the halves would be
    no smaller."""
    axis = 1 if pan.shape[1] >= pan.shape[2] else 2
    ratio, along = pan.shape[axis] // ms.shape[axis], (slice(None),) * axis
    parts = halves(pan.shape[axis], reach, ratio)
    if len(parts) == 1:
        return None
    sharpened = [sharpen(pan[*along, part.read], ms[*along, part.coarser(ratio).read]) for part in parts]
    return np.concatenate([half[*along, part.inner] for half, part in zip(sharpened, parts, strict=True)], axis)
