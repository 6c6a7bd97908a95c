"""ADKNet: source-adaptive discriminative kernels (Peng et al., IJCAI 2022).

Features of the MS pass layers whose convolution kernel differs at every pixel and in every channel: the product of a
spatial kernel, made from the PAN at that pixel, and a spectral one, made from the features' mean over the scene. Only
those means are global.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pansharpen_cli.errors import ModelError
from pansharpen_cli.networks.layers import (
    SteadyConv2d,
    SteadyConvTranspose2d,
    compiled_for,
    filter_adaptively,
    load_exactly,
    neighbours,
    on_gpu,
    steady_conv2d,
    ungrouped,
)
from pansharpen_cli.networks.network import Network, Pooling, pixel_mean

TAPS = 9
SLOPE = 0.2
KERNEL_GAIN = nn.init.calculate_gain("leaky_relu", 0.01) / 3
"""Size of a normalised spatial kernel, as in decoupled dynamic filters (Zhou et al. 2021); 0.01, not SLOPE."""
CACHED_PIXELS = 2**18
"""Pixels of one map, all channels counted, that a CPU core keeps in its cache: a layer is 4 times faster for it."""


class ADKNet(Network):
    """Predicts HRMS (N, bands, H, W) from MS at its own GSD and PAN, without an activation at the end.

    Up-sampling is learned, and with it the phase of the training data; `ratio` is even. `guide_bands` are the channels
    of the PAN (3 for an RGB guide).
    """

    def __init__(
        self,
        bands: int,
        ratio: int = 4,
        *,
        guide_bands: int = 1,
        channels: int = 60,
        layers: int = 7,
        squeeze: int = 3,
    ) -> None:
        super().__init__()
        self.bands, self.ratio = bands, ratio
        # PAN: its 5x5, the spatial kernel's three 3x3; MS: its transposed convolution and 5x5, the first layer.
        # Then, for both, the other layers and the last 3x3.
        self.halo = max(2 + 3, ratio // 2 + 2 + 1) + layers
        self.multiple_of, self.alignment = 1, 1
        self.skip = _expansion(bands, ratio)
        self.expand = _expansion(bands, ratio)
        self.activation = nn.PReLU()
        self.embed_ms = SteadyConv2d(bands, channels, 5, padding=2)
        self.embed_pan = SteadyConv2d(guide_bands, channels, 5, padding=2)
        self.layers = nn.ModuleList(AdaptiveLayer(channels, squeeze, f"layer{i}") for i in range(layers))
        self.reconstruct = SteadyConv2d(channels, bands, 3, padding=1)

    def fuse(self, pan: Tensor, ms: Tensor, pooling: Pooling) -> Tensor:
        guide = self._embed(self.embed_pan, pan)
        features = self._embed(self.embed_ms, self.activation(self.expand(ms)))
        layers = cast(Sequence[AdaptiveLayer], self.layers)
        for layer, spatial in zip(layers, spatial_kernels(layers, guide), strict=True):
            features = layer(features, spatial, pooling)
        hrms: Tensor = self.reconstruct(features) + self.skip(ms)
        return hrms

    def _embed(self, layer: SteadyConv2d, image: Tensor) -> Tensor:
        if kernels := on_gpu(image):
            slope = self.activation.weight
            return kernels.convolve(image, layer.weight, layer.bias, layer.padding[0], slope=slope)  # type: ignore[no-any-return]
        return self.activation(layer(image))  # type: ignore[no-any-return]

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> Self:
        """The network with the authors' weights (102 tensors; bands, guide and widths are read from their shapes).

        Raises ModelError if they are anything else.
        """
        weights = {_clean_name(name): _clean_shape(name, tensor) for name, tensor in state.items()}
        try:
            channels, bands = weights["embed_ms.weight"].shape[:2]
            network = cls(
                bands,
                ratio=weights["skip.weight"].shape[-1] // 2,
                guide_bands=weights["embed_pan.weight"].shape[1],
                channels=channels,
                layers=sum(name.endswith(".gain") for name in weights),
                squeeze=len(weights["layers.0.spectral.0.weight"]),
            )
        except (KeyError, IndexError, ValueError) as error:
            raise ModelError(
                "these are not the weights of the official ADKNet: its first layers are missing"
            ) from error
        load_exactly(network, weights, "the official ADKNet")
        return network


class AdaptiveLayer(nn.Module):
    """Depth-wise convolution whose 3x3 kernel is spatial[tap, pixel] * spectral[channel, tap] (section 3.2).

    Both factors are normalised over the taps. Keys `name` in the scene statistics: the mean of the features, (1, C).
    """

    def __init__(self, channels: int, squeeze: int, name: str) -> None:
        super().__init__()
        self.name = name
        self.spatial = nn.Sequential(
            SteadyConv2d(channels, channels, 3, padding=1, groups=channels),
            SteadyConv2d(channels, TAPS, 1),
            SteadyConv2d(TAPS, TAPS, 3, padding=1, slope=SLOPE),
            nn.Identity(),
            SteadyConv2d(TAPS, TAPS, 3, padding=1),
        )
        self.spectral = nn.Sequential(
            nn.Linear(channels, squeeze), nn.LeakyReLU(SLOPE), nn.Linear(squeeze, channels * TAPS)
        )
        self.gain = nn.Parameter(torch.randn(channels * TAPS) * KERNEL_GAIN)

    def first_weights(self) -> tuple[Tensor, Tensor]:
        """Weight (taps, C, 3, 3) and bias of the spatial branch's depth-wise and 1x1 convolutions as one."""
        depthwise, depthwise_bias = self.spatial[0].parameters()
        pointwise, pointwise_bias = self.spatial[1].parameters()
        return pointwise * depthwise.transpose(0, 1), pointwise_bias + pointwise[:, :, 0, 0] @ depthwise_bias

    def forward(self, features: Tensor, spatial: Tensor, pooling: Pooling) -> Tensor:
        """Features (N, C, H, W), and the layer's part of `spatial_kernels`."""
        spectral = self.spectral(pooling(self.name, pixel_mean, features)).view(-1, features.shape[1], TAPS)
        spectral = _normalise(spectral.transpose(1, 2)) * (
            KERNEL_GAIN * self.gain.view(-1, TAPS).T
        )  # (N or 1, taps, C)
        loops = compiled_for(features)
        if loops is not None:
            return loops.convolve_normalised(features, spatial, spectral)  # type: ignore[no-any-return]
        spatial = _normalise(spatial)
        step = _channels_at_once(features)
        parts = zip(torch.split(features, step, dim=1), torch.split(spectral, step, dim=2), strict=True)
        return torch.cat([_convolve(part, spatial, kernel) for part, kernel in parts], dim=1)


def spatial_kernels(layers: Sequence[AdaptiveLayer], guide: Tensor) -> Iterator[Tensor]:
    """Of each layer at every pixel, (N, taps, H, W), not normalised. What all begin with is one pass over the guide;
    on a GPU what follows is one for all, too."""
    weights, biases = zip(*(layer.first_weights() for layer in layers), strict=True)
    first = steady_conv2d(guide, torch.cat(weights), torch.cat(biases), padding=1)
    if kernels := on_gpu(first):
        for number in (2, 4):
            each = [cast(SteadyConv2d, layer.spatial[number]) for layer in layers]
            weight = ungrouped(torch.cat([convolution.weight for convolution in each]), len(layers))
            bias = torch.cat([cast(Tensor, convolution.bias) for convolution in each])
            first = kernels.convolve(first, weight, bias, padding=1, slope=each[0].slope)
        return iter(torch.split(first, TAPS, dim=1))
    return (layer.spatial[2:](part) for layer, part in zip(layers, torch.split(first, TAPS, dim=1), strict=True))


def _convolve(features: Tensor, spatial: Tensor, spectral: Tensor) -> Tensor:
    """Features (N, C, H, W), spatial (N, taps, H, W), spectral (N or 1, taps, C); zeros beyond the border."""
    shifted = neighbours(F.pad(features, (1, 1, 1, 1)), 3)
    scaled = (view * tap[..., None, None] for view, tap in zip(shifted, spectral.unbind(1), strict=True))
    return filter_adaptively(scaled, torch.split(spatial, 1, dim=1))


def _channels_at_once(features: Tensor) -> int:
    """How many channels a layer takes through all taps together: few on a CPU, all where kernels are launched."""
    if features.is_cuda or torch.compiler.is_compiling():
        return features.shape[1]
    return max(1, CACHED_PIXELS // features[:, 0].numel())


def _normalise(kernels: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 (unbiased) over the taps, dimension 1."""
    centred = kernels - kernels.mean(1, keepdim=True)
    deviation: Tensor = torch.linalg.vector_norm(centred, dim=1, keepdim=True) / (TAPS - 1) ** 0.5
    return centred / (deviation + 1e-10)


def _expansion(bands: int, ratio: int) -> nn.ConvTranspose2d:
    """Learned up-sampling: each output pixel reads 2 x 2 MS pixels of every band."""
    return SteadyConvTranspose2d(bands, bands, 2 * ratio, stride=ratio, padding=ratio // 2)


OFFICIAL_NAMES = {
    r"upsample\.": "skip.",
    r"deconv\.": "expand.",
    r"relu\.": "activation.",
    r"conv1\.": "embed_ms.",
    r"conv3\.": "embed_pan.",
    r"conv2\.": "reconstruct.",
    r"adk(\d+)\.ADKGenerator\.spectral_branch\.1\.": "layers.{}.spectral.0.",
    r"adk(\d+)\.ADKGenerator\.spectral_branch\.3\.": "layers.{}.spectral.2.",
    r"adk(\d+)\.ADKGenerator\.spectral_branch\.4\.std": "layers.{}.gain",
    r"adk(\d+)\.ADKGenerator\.spatial_branch\.": "layers.{}.spatial.",
}


def _clean_name(official: str) -> str:
    for pattern, name in OFFICIAL_NAMES.items():
        match = re.match(pattern, official)
        if match:
            return name.format(*(int(number) - 1 for number in match.groups())) + official[match.end() :]
    return official


def _clean_shape(official: str, tensor: Tensor) -> Tensor:
    """The spectral branch is written as 1x1 convolutions of one pixel: (out, in, 1, 1) -> (out, in)."""
    return tensor.flatten(1) if ".spectral_branch." in official and tensor.ndim == 4 else tensor
