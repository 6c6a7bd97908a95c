"""Fitting a `Mixture` to a scene: what share of each network brings the product nearest to the scene's own MS.

A few numbers for a whole scene, so that even a small one tells them, and no step of learning is taken. A quarter of the
blocks in turn is judged by shares that were found without it; in the end all blocks find them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from pansharpen_cli.backends.torch_backend import TorchBackend
from pansharpen_cli.evaluation.assessment import observing
from pansharpen_cli.imaging.radiometry import Radiometry
from pansharpen_cli.imaging.wald import ReducedScene
from pansharpen_cli.networks.consistency import Consistent
from pansharpen_cli.networks.mixture import Mixture
from pansharpen_cli.training.tasks import QUARTERS, Judged, demand_pixels, judged, quarters
from pansharpen_cli.zoo import Model

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

RIDGE = 0.01
"""Part of what the networks put in that holds the shares near to equal ones: networks resemble each other."""


@dataclass(frozen=True, eq=False)
class Crosswise:
    """Judges products of a scene by all of its blocks."""

    scene: ReducedScene

    def judge(self, hrms: Float32) -> Judged:
        return judged(self.scene, hrms, self.scene.valid)

    def merit(self, judged: Judged) -> float:
        return judged["ergas"]


def mixture_of(models: Sequence[Model], bands: int) -> Consistent:
    """The networks of `models`, each by an equal share. Only the mixture of them is projected onto the MS."""
    networks = [model.load(bands) for model in models]
    members = [
        {"network": model.spec.network, "options": {k: v for k, v in model.spec.options.items() if k != "consistent"}}
        for model in models
    ]
    return Consistent(Mixture([n.network if isinstance(n, Consistent) else n for n in networks], members))


@torch.no_grad()
def mix(
    network: Consistent, scene: ReducedScene, radiometry: Radiometry, crop: int, where: torch.device
) -> tuple[Float32, Float32, list[float]]:
    """Leave the `Mixture` in `network` with the shares that the scene wants. Returns the product of its first network
    alone, the one of shares that were found without the block they are used for, and the shares.

    A product is linear in the shares, so that one by each network alone, and one by none, tell all products.
    Raises SceneError if the scene is too small to be parted.
    """
    mixture = network.network
    assert isinstance(mixture, Mixture)
    quarter = quarters(scene.valid.shape, scene.ratio * 4)
    parts = [part for number in range(QUARTERS) if (part := scene.valid & (quarter == number)).any()]
    demand_pixels(scene.name, *parts)
    product = observing(scene, TorchBackend(network, crop, where), radiometry)

    def by(shares: npt.NDArray[np.floating]) -> Float32:
        mixture.shares.copy_(torch.from_numpy(shares))
        return product()

    none, *alone = (by(shares) for shares in np.eye(len(mixture.networks) + 1)[:, 1:])
    details = np.stack([hrms - none for hrms in alone])
    levels = scene.ms.mean((1, 2))
    sums = [_sums(details, scene.gt - none, levels, part) for part in parts]
    crosswise = none.copy()
    for number, part in enumerate(parts):
        shares = _solution([other for index, other in enumerate(sums) if index != number])
        crosswise[:, part] += np.tensordot(shares, details[:, :, part], 1).astype(np.float32)
    shares = _solution(sums)
    mixture.shares.copy_(torch.from_numpy(shares))
    return alone[0], crosswise, shares.tolist()


def _sums(details: Float32, wanted: Float32, levels: Float32, where: Mask) -> tuple[Float64, Float64]:
    """Of products of `details` (K, B, H, W) with each other (K, K) and with `wanted` (B, H, W) (K,), each band by its
    level, as in ERGAS."""
    count = len(details)
    products, with_wanted = np.zeros((count, count)), np.zeros(count)
    for band, level in enumerate(levels):
        scale = float(level) or 1.0
        x = details[:, band, where].astype(np.float64) / scale
        products += x @ x.T
        with_wanted += x @ (wanted[band, where] / scale)
    return products, with_wanted


def _solution(sums: Sequence[tuple[Float64, Float64]]) -> Float64:
    """The shares of least squares."""
    products, with_wanted = (np.sum(part, axis=0) for part in zip(*sums, strict=True))
    count = len(products)
    ridge = RIDGE * np.trace(products)
    return np.linalg.solve(products + ridge * np.eye(count), with_wanted + ridge / count)
