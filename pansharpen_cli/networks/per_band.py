"""One network for every band: each MS band is fused with the PAN by the same weights.

What it learns is how a band and a PAN belong together, not which bands there are; so it carries over to other sensors
and to any number of bands.
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pansharpen_cli.interpolation import area_phase
from pansharpen_cli.networks.adknet import ADKNet
from pansharpen_cli.networks.consistency import GAIN, Camera
from pansharpen_cli.networks.layers import Upsample
from pansharpen_cli.networks.network import Jointly, Network, Pooling, Reduction
from pansharpen_cli.networks.premix import PreMixB


class PerBand(Network):
    """A network of one band, used for each; `options` are that network's.

    With `intensity` the bands tell each other how much of the PAN they explain together: beside the PAN, the network
    is guided by the PAN's regression on all bands at MS scale (as GSA's intensity, Aiazzi et al. 2007), expanded. Its
    weights are the scene statistic "intensity", (1, bands + 1), the constant last.
    """

    one_band: ClassVar[type[Network]]

    def __init__(self, bands: int, ratio: int = 4, *, intensity: bool = False, **options: Any) -> None:
        super().__init__()
        self.bands, self.ratio = bands, ratio
        guide = {"guide_bands": 2} if intensity else {}
        self.network = self.one_band(1, ratio, **guide, **options)
        self.intensity = Intensity(ratio) if intensity else None
        self.halo, self.multiple_of = self.network.halo, self.network.multiple_of
        self.alignment = self.network.alignment
        if self.intensity:
            self.halo += self.intensity.halo

    def fuse(self, pan: Tensor, ms: Tensor, pooling: Pooling) -> Tensor:
        images, bands = ms.shape[:2]
        guide = torch.cat([pan, self.intensity(pan, ms, pooling)], 1) if self.intensity else pan
        each_guide = guide.repeat_interleave(bands, dim=0)
        hrms = self.network.fuse(each_guide, ms.reshape(images * bands, 1, *ms.shape[2:]), _EachBand(pooling, bands))
        return hrms.reshape(images, bands, *hrms.shape[2:])


class Intensity(nn.Module):
    """What the MS bands explain of the PAN, at the PAN grid: (N, 1, H, W)."""

    def __init__(self, ratio: int) -> None:
        super().__init__()
        self.expand = Upsample(ratio)
        self.camera = Camera(ratio, area_phase(ratio))
        self.register_buffer("down", self.camera.taps(torch.full((1, 1), GAIN))[0], persistent=False)
        self.halo = self.expand.halo

    def forward(self, pan: Tensor, ms: Tensor, pooling: Pooling) -> Tensor:
        weights = pooling("intensity", _regression, self.camera.see(pan, self.down), ms)
        mixed = (ms * weights[:, :-1, None, None]).sum(1, keepdim=True) + weights[:, -1:, None, None]
        expanded: Tensor = self.expand(mixed)
        return expanded

    down: Tensor


RIDGE = 1e-3
"""Part of the bands' variance that is added to it: they may be alike."""


def _regression(pan: Tensor, ms: Tensor) -> Tensor:
    """Weights of the bands (N, B, P), and a constant, that come nearest to the PAN (N, 1, P): (N, B + 1)."""
    mean, centred = ms.mean(2, keepdim=True), ms - ms.mean(2, keepdim=True)
    pan_mean = pan.mean(2)
    covariance = centred @ centred.transpose(1, 2) / ms.shape[2]
    ridge = RIDGE * torch.diagonal(covariance, dim1=1, dim2=2).mean(1) + 1e-12
    eye = torch.eye(ms.shape[1], dtype=ms.dtype, device=ms.device)
    with_pan = centred @ (pan - pan_mean[..., None]).transpose(1, 2) / ms.shape[2]
    weights = torch.linalg.solve(covariance + ridge[:, None, None] * eye, with_pan)[..., 0]
    return torch.cat([weights, pan_mean - (weights * mean[..., 0]).sum(1, keepdim=True)], 1)


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
