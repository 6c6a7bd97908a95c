"""How a network is trained: loss, optimiser and schedule, ours and those of the papers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Schedule = Callable[[float, float], float]
"""Factor on the learning rate after so many epochs, of so many in all."""


def cosine(epoch: float, epochs: float) -> float:
    """A short warm-up, then half a cosine down to a hundredth."""
    warm = 0.02 * epochs
    if epoch < warm:
        return (epoch + 1e-3) / (warm + 1e-3)
    return 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * (epoch - warm) / (epochs - warm)))


def steps_of(every: float, factor: float) -> Schedule:
    """Times `factor` after each `every` epochs."""
    return lambda epoch, epochs: factor ** (epoch // every)


@dataclass(frozen=True)
class Recipe:
    """Adam with `lr` times the schedule, for `epochs` passes over the training patches.

    `patch`: pixels a side of the truth; `longest_step`: norm to which gradients are clipped; `turns`: patches are
    turned and mirrored at random; `other_pans`: their PAN is now and then that of another camera.
    """

    loss: Literal["l1", "mse"]
    lr: float
    schedule: Schedule
    epochs: int
    batch: int
    patch: int
    longest_step: float = math.inf
    turns: bool = False
    other_pans: bool = False

    @property
    def follows_the_clock(self) -> bool:
        """Its schedule depends on the part of the epochs that is done alone."""
        return self.schedule is cosine


RECIPES: dict[str, Recipe] = {
    # adaptive kernels with random signs take off where gradients are not clipped
    "default": Recipe("l1", 1e-3, cosine, 100, 16, 64, longest_step=1.0, turns=True, other_pans=True),
    "adknet-paper": Recipe("mse", 3e-3, steps_of(100, 0.5), 1000, 32, 64),
    "premix-paper": Recipe("l1", 1e-3, steps_of(50, 0.8), 300, 16, 256),
    "dmanet-paper": Recipe("l1", 6e-4, steps_of(200, 0.8), 600, 32, 64),
}
