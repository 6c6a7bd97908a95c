"""One network for every band: each MS band is fused with the PAN by the same weights.

What it learns is how a band and a PAN belong together, not which bands there are; so it carries over to other sensors
and to any number of bands.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from pansharpen_cli.networks.adknet import ADKNet
from pansharpen_cli.networks.network import Jointly, Network, Pooling, Reduction
from pansharpen_cli.networks.premix import PreMixB


class PerBand(Network):
    """A network of one band, used for each; `options` are that network's."""

    one_band: ClassVar[type[Network]]

    def __init__(self, bands: int, ratio: int = 4, **options: Any) -> None:
        super().__init__()
        self.bands, self.ratio = bands, ratio
        self.network = self.one_band(1, ratio, **options)
        self.halo, self.multiple_of = self.network.halo, self.network.multiple_of
        self.alignment = self.network.alignment

    def fuse(self, pan: Tensor, ms: Tensor, pooling: Pooling) -> Tensor:
        images, bands = ms.shape[:2]
        each_pan = pan.repeat_interleave(bands, dim=0)
        hrms = self.network.fuse(each_pan, ms.reshape(images * bands, 1, *ms.shape[2:]), _EachBand(pooling, bands))
        return hrms.reshape(images, bands, *hrms.shape[2:])


class PerBandADKNet(PerBand):
    one_band = ADKNet


class PerBandPreMixB(PerBand):
    one_band = PreMixB


class _EachBand(Pooling):
    """The global values of a batch in which every image stands once for each of its bands, bands next to each other.

    What crops of a scene share, they share band by band: (bands, K) values, repeated for every image.
    """

    def __init__(self, pooling: Pooling, bands: int) -> None:
        self.pooling, self.bands = pooling, bands

    def __call__(self, name: str, reduce: Reduction, *maps: Tensor) -> Tensor:
        images = len(maps[0]) // self.bands
        if isinstance(self.pooling, Jointly):
            of_bands = [reduce(*(_pixels_of(m, band, self.bands) for m in maps)) for band in range(self.bands)]
            values = self.pooling.keep(name, torch.cat(of_bands))
        else:
            values = self.pooling(name, reduce, *maps)
        return values if len(values) == len(maps[0]) else values.repeat(images, 1)


def _pixels_of(features: Tensor, band: int, bands: int) -> Tensor:
    """(images * bands, C, H, W) -> (1, C, P): all pixels of one band, as those of one image."""
    return features[band::bands].transpose(0, 1).flatten(1)[None]
