"""A network as it is trained: its global values taken from each patch, or from several crops of a scene together."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from pansharpen_cli.errors import ModelError
from pansharpen_cli.networks.network import Network, Pooling, Reduction


class OverCrops(Pooling):
    """Every `crops` neighbours in a batch of `images` are of one scene and share their values, as `Jointly` does for
    one scene. What is `known` of their scenes, name -> (images, bands), comes with the batch."""

    def __init__(self, images: int, crops: int, known: Mapping[str, Tensor]) -> None:
        self._scenes, self._crops, self._known = images // crops, crops, known

    def __call__(self, name: str, reduce: Reduction, *maps: Tensor) -> Tensor:
        if name in self._known:
            return self._known[name]
        if self._crops == 1:
            return reduce(*(m.flatten(2) for m in maps))
        count = len(maps[0])
        # in a network per band every image stands once for each of its bands
        scenes, crops, bands = self._scenes, self._crops, count // (self._scenes * self._crops)
        grouped = (m.reshape(scenes, crops, bands, *m.shape[1:]).permute(0, 2, 3, 1, 4, 5) for m in maps)
        values = reduce(*(m.reshape(scenes * bands, m.shape[2], -1) for m in grouped))
        return values.reshape(scenes, 1, bands, -1).expand(-1, crops, -1, -1).reshape(count, -1)


class Learner(nn.Module):
    """Maps a batch of pan (N, 1, H, W), ms (N, bands, h, w), gains and haze (N, bands) to HRMS."""

    def __init__(self, network: Network, crops: int) -> None:
        super().__init__()
        self.network, self.crops = network, crops

    def forward(self, pan: Tensor, ms: Tensor, gains: Tensor, haze: Tensor) -> Tensor:
        return self.network.fuse(pan, ms, OverCrops(len(pan), self.crops, {"gains": gains, "haze": haze}))


TRIED = 64
"""PAN pixels a side, about, of the image that shows whether a network works at all."""


def demand_products(network: Network, name: str) -> None:
    """Raises ModelError unless products of the network, which is called `name`, are as large as their PAN: some expand
    by even ratios alone, and some options do not go together."""
    ratio, grain = network.ratio, math.lcm(network.ratio, network.multiple_of)
    size = max(1, TRIED // grain) * grain
    pan, ms = torch.zeros(1, 1, size, size), torch.zeros(1, network.bands, size // ratio, size // ratio)
    try:
        made = network.eval()(pan, ms).shape[2:]
    except (RuntimeError, ValueError):  # what is too large or too small seldom gets through all layers
        made = None
    if made != pan.shape[2:]:
        raise ModelError(
            f"{name} with the options {dict(network.options)} makes no products of the PAN's size at ratio {ratio}; "
            "take another network, other options, or for adknet an even ratio"
        )
