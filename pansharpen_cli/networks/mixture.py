"""Several networks for one scene, each by a share: they err in different places, and none is the best everywhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import lcm
from typing import Any

import torch
from torch import Tensor, nn

from pansharpen_cli.networks.layers import Upsample
from pansharpen_cli.networks.network import Frozen, Jointly, Network, Observing, Pooling


class Mixture(Network):
    """EXP + the sum over networks k of share k * (HRMS of k - EXP); the same images in and out.

    Stacked generalisation (Wolpert 1992): a scene's shares are least squares (training/mixing.py). `members` tells each
    of the `networks`, all for the same bands and ratio, by its name and options.
    """

    def __init__(self, networks: Sequence[Network], members: Sequence[Mapping[str, Any]]) -> None:
        if not networks:
            raise ValueError("a mixture has one network or more")
        super().__init__()
        self.bands, self.ratio = networks[0].bands, networks[0].ratio
        self.options = {"members": list(members)}
        self.networks = nn.ModuleList(networks)
        self.shares = nn.Parameter(torch.full((len(networks),), 1 / len(networks)))
        self.expand = Upsample(self.ratio)
        self.halo = max(self.expand.halo, *(network.halo for network in networks))
        self.multiple_of = lcm(*(network.multiple_of for network in networks))
        self.alignment = lcm(*(network.alignment for network in networks))
        self.global_values = any(network.global_values for network in networks)

    def set_camera(self, gains: Sequence[float]) -> None:
        for network in self.networks:
            network.set_camera(gains)  # type: ignore[operator]

    def fuse(self, pan: Tensor, ms: Tensor, pooling: Pooling) -> Tensor:
        exp: Tensor = self.expand(ms)
        hrms = exp
        skips = isinstance(pooling, Frozen) and not torch.compiler.is_compiling()
        for number, (network, share) in enumerate(zip(self.networks, self.shares, strict=True)):
            if (skips and share == 0) or (isinstance(pooling, Observing) and not network.global_values):
                continue
            own = _of_member(pooling, f"{number}.")
            hrms = hrms + share * (network.fuse(pan, ms, own) - exp)  # type: ignore[operator]
            if isinstance(pooling, Jointly) and isinstance(own, Jointly):
                for name, value in own.statistics.items():
                    pooling.keep(f"{number}.{name}", value)
        return hrms


def _of_member(pooling: Pooling, prefix: str) -> Pooling:
    """The pooling of one network, whose values the mixture knows by names with this `prefix`."""
    if isinstance(pooling, Jointly):
        return type(pooling)()
    if isinstance(pooling, Frozen):
        names = [name for name in pooling.statistics if name.startswith(prefix)]
        return Frozen({name.removeprefix(prefix): pooling.statistics[name] for name in names})
    return pooling
