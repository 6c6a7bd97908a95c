"""One network for every band: each MS band is fused with the PAN by the same weights.

What it learns is how a band and a PAN belong together, not which bands there are; so it carries over to other sensors
and to any number of bands.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pansharpen_cli.imaging.interpolation import area_phase
from pansharpen_cli.networks.adknet import ADKNet
from pansharpen_cli.networks.consistency import GAIN, Camera
from pansharpen_cli.networks.dmanet import DMANet
from pansharpen_cli.networks.layers import Upsample
from pansharpen_cli.networks.network import Frozen, Jointly, Network, Observing, Pooling, Reduction
from pansharpen_cli.networks.premix import PreMixB


class PerBand(Network):
    """A network of one band, used for each; `options` are that network's.

    With `modulated` it corrects a `Modulation` rather than the expanded band, and is guided by that one too.
    """

    one_band: ClassVar[type[Network]]
    guided: ClassVar[Mapping[str, Any]] = {"guide_bands": 3}
    """Its options where there is a modulation."""

    def __init__(self, bands: int, ratio: int = 4, *, modulated: bool = False, **options: Any) -> None:
        super().__init__()
        self.bands, self.ratio = bands, ratio
        self.network = self.one_band(1, ratio, **(self.guided if modulated else {}), **options)
        self.modulation = Modulation(ratio) if modulated else None
        self.halo, self.multiple_of = self.network.halo, self.network.multiple_of
        self.alignment = self.network.alignment
        self.global_values = modulated or self.network.global_values
        if self.modulation:
            self.halo += self.modulation.halo

    def fuse(self, pan: Tensor, ms: Tensor, pooling: Pooling) -> Tensor:
        bands = ms.shape[1]
        guide = _once_a_band(pan, bands)
        if self.modulation is None:
            return self._each_band(guide, ms, pooling)
        intensity: Tensor
        modulated: Tensor
        intensity, modulated = self.modulation(pan, ms, pooling)
        guide = torch.cat([guide, _once_a_band(intensity, bands), modulated.flatten(0, 1)[:, None]], 1)
        return modulated + self._each_band(guide, ms, pooling)

    def _each_band(self, guide: Tensor, ms: Tensor, pooling: Pooling) -> Tensor:
        """The network on each band: `guide` (N * bands, guide bands, H, W), `ms` and the result (N, bands, ...)."""
        bands = ms.shape[1]
        if isinstance(pooling, Observing) and not self.network.global_values:
            return guide.new_zeros(ms.shape[0], bands, *guide.shape[2:])
        # in training a batch is small, and an exported graph has no loop over bands
        if not torch.is_grad_enabled() and not torch.compiler.is_compiling() and isinstance(pooling, Jointly | Frozen):
            return self._one_by_one(guide.view(-1, bands, *guide.shape[1:]), ms, pooling)
        hrms = self.network.fuse(guide, ms.flatten(0, 1)[:, None], _EachBand(pooling, bands))
        return hrms.reshape(-1, bands, *hrms.shape[2:])

    def _one_by_one(self, guide: Tensor, ms: Tensor, pooling: Jointly | Frozen) -> Tensor:
        """The same in as much less memory as there are bands; `guide` (N, bands, guide bands, H, W)."""
        poolings = [_band_of(pooling, band) for band in range(ms.shape[1])]
        images = zip(guide.unbind(1), torch.split(ms, 1, dim=1), poolings, strict=True)
        hrms = torch.cat([self.network.fuse(*image) for image in images], 1)
        if isinstance(pooling, Jointly):
            for name in poolings[0].statistics:
                pooling.keep(name, torch.cat([own.statistics[name] for own in poolings]))
        return hrms


class Modulation(nn.Module):
    """Where the PAN is brighter than the bands explain, they are brighter in proportion, above a haze of their own:
    L_b + (E_b - L_b) (P - L_P) / (I - L_P), as in haze-corrected Brovey (Lolli et al. 2017, IEEE GRSL 14(12)).

    I is the regression of the PAN on the bands and a constant at MS scale, expanded: here the bands, any number of
    them, work together. L_b is the darkest of a band, L_P what the regression makes of it. Both are global: the
    statistics "intensity", (1, bands + 1) with the constant last, and "haze", (1, bands).
    """

    down: Tensor

    def __init__(self, ratio: int) -> None:
        super().__init__()
        self.expand = Upsample(ratio)
        self.camera = Camera(ratio, area_phase(ratio))
        self.register_buffer("down", self.camera.taps(torch.full((1, 1), GAIN))[0], persistent=False)
        self.halo = self.expand.halo

    def forward(self, pan: Tensor, ms: Tensor, pooling: Pooling) -> tuple[Tensor, Tensor]:
        """I (N, 1, H, W) and the modulated bands (N, B, H, W)."""
        weights = pooling("intensity", _regression, self.camera.see(pan, self.down), ms)
        haze = pooling("haze", _darkest, ms)
        constant = weights[:, -1:]
        pan_haze = (constant + (weights[:, :-1] * haze).sum(1, keepdim=True))[..., None, None]
        haze = haze[..., None, None]
        exp = self.expand(ms)
        intensity = (exp * weights[:, :-1, None, None]).sum(1, keepdim=True) + constant[..., None, None]
        least = DARKEST_INTENSITY * (-pan_haze).clamp(min=1)
        gain = ((pan - pan_haze) / torch.maximum(intensity - pan_haze, least)).clamp(0.0, HIGHEST_GAIN)
        return intensity, haze + (exp - haze) * gain


RIDGE = 1e-3
"""Part of the bands' variance that is added to it in the regression: they may be alike."""
DARK_PART = 0.002
"""Part of a scene's pixels that may be darker than the haze: not the very minimum, which may be a defect."""
DARKEST_INTENSITY = 0.2
"""Part of the mean intensity over haze (in network units, standardised, -L_P), below which none is divided by."""
HIGHEST_GAIN = 3.0
"""Where the bands do not explain the PAN (no near infrared among them, say) quotients explode: with 8 and 0.05, ERGAS
was 7.2 on a Landsat 7 scene in red, green and blue, with these 2.7, and the same to half a percent elsewhere."""


def _darkest(ms: Tensor) -> Tensor:
    """The dark quantile of each band: (N, B, P) -> (N, B)."""
    return ms.sort(dim=2).values[:, :, ms.shape[2] // round(1 / DARK_PART)]


def _regression(pan: Tensor, ms: Tensor) -> Tensor:
    """Weights of the bands (N, B, P), and a constant, that come nearest to the PAN (N, 1, P): (N, B + 1).

    In double precision, so that the order of the sums, which is another for each number of threads, leaves no trace.
    """
    dtype = ms.dtype
    pan, ms = pan.double(), ms.double()
    mean, centred = ms.mean(2, keepdim=True), ms - ms.mean(2, keepdim=True)
    pan_mean = pan.mean(2)
    covariance = centred @ centred.transpose(1, 2) / ms.shape[2]
    ridge = RIDGE * torch.diagonal(covariance, dim1=1, dim2=2).mean(1) + 1e-12
    eye = torch.eye(ms.shape[1], dtype=ms.dtype, device=ms.device)
    with_pan = centred @ (pan - pan_mean[..., None]).transpose(1, 2) / ms.shape[2]
    weights = torch.linalg.solve(covariance + ridge[:, None, None] * eye, with_pan)[..., 0]
    return torch.cat([weights, pan_mean - (weights * mean[..., 0]).sum(1, keepdim=True)], 1).to(dtype)


class PerBandADKNet(PerBand):
    one_band = ADKNet


class PerBandPreMixB(PerBand):
    one_band = PreMixB


class PerBandDMANet(PerBand):
    one_band = DMANet
    guided: ClassVar[Mapping[str, Any]] = {"guide_bands": 3, "skip": False}


class _EachBand(Pooling):
    """The global values of a batch in which every image stands once for each of its bands, bands next to each other.

    What crops of a scene share, they share band by band: (bands, K) values, repeated for every image.
    """

    def __init__(self, pooling: Pooling, bands: int) -> None:
        self.pooling, self.bands = pooling, bands

    def __call__(self, name: str, reduce: Reduction, *maps: Tensor) -> Tensor:
        if isinstance(self.pooling, Jointly):
            values = self.pooling.keep(name, reduce(*(_pixels_by_band(m, self.bands) for m in maps)))
        elif isinstance(self.pooling, Frozen):
            values = self.pooling(name, reduce, *maps)
        else:
            return self.pooling(name, reduce, *maps)
        return values.repeat(maps[0].shape[0] // self.bands, 1)


def _band_of(pooling: Jointly | Frozen, band: int) -> Jointly | Frozen:
    """What a single band is asked for, or has of values with a row a band."""
    if isinstance(pooling, Jointly):
        return type(pooling)()
    return Frozen({name: values[band : band + 1] for name, values in pooling.statistics.items()})


def _once_a_band(image: Tensor, bands: int) -> Tensor:
    """(N, C, H, W) -> (N * bands, C, H, W). Tensor.repeat_interleave does the same, but is exported wrongly."""
    return image[:, None].expand(-1, bands, -1, -1, -1).flatten(0, 1)


def _pixels_by_band(features: Tensor, bands: int) -> Tensor:
    """(images * bands, C, H, W) -> (bands, C, P): all pixels of a band, as those of one image."""
    return features.reshape(-1, bands, *features.shape[1:]).permute(1, 2, 0, 3, 4).flatten(2)
