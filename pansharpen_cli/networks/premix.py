"""PreMix: predictive filtering with element-wise feature mixing (Cui et al., ISPRS J. 2025).

Two encoders, for MS and PAN, exchange features wherever a mask says so; from the features a filter is predicted for
every pixel and applied to the image. PreMix-B is one such stage; PreMix-H chains nine, on high-pass, equalised and
original images at a quarter, half and full size. Nothing is global as long as CLAHE has cells of a fixed size.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, lcm
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pansharpen_cli.errors import ModelError
from pansharpen_cli.networks.clahe import Cells, clahe
from pansharpen_cli.networks.layers import (
    Doubling,
    SteadyConv2d,
    Upsample,
    compiled_for,
    filter_adaptively,
    load_exactly,
    neighbours,
    on_cpu,
)
from pansharpen_cli.networks.network import Network, Pooling

MASKS: dict[str, Callable[[Tensor], Tensor]] = {
    "tanh+relu": lambda x: torch.tanh(F.relu6(x)),  # the paper's best, eq. 13; the authors' code caps ReLU at 6
    "tanh+relu-uncapped": lambda x: torch.tanh(F.relu(x)),  # eq. 13 to the letter, at most 1.2e-5 away
    "sigmoid": torch.sigmoid,  # eq. 10
    "tanh+elu": lambda x: torch.tanh(F.elu(x) + 1),  # eq. 11
    "softsign+elu": lambda x: F.softsign(F.elu(x) + 1),  # eq. 12
    "softsign+relu": lambda x: F.softsign(F.relu6(x)),  # eq. 14, capped at 6/7 as in the authors' code
}
"""From the relation of MS and PAN features to how much of them is exchanged, 0 ... 1; names of the authors' code."""

STEEPNESS = 20.0
"""k of eq. 16: how sharply a trainable threshold cuts the mask."""

Pair = tuple[Tensor, Tensor]
"""MS and PAN features, or MS and PAN images."""


@dataclass(frozen=True)
class Layout:
    """The size of a stage and how it mixes. `threshold`: "trainable", "none" or a fixed value 0 ... 1."""

    bands: int
    channels: int
    layers: int
    kernel: int
    filter_kernel: int
    mixing: bool
    threshold: str | float
    activation: str
    guide_bands: int = 1

    def __post_init__(self) -> None:
        if self.activation not in MASKS:
            raise ValueError(f"no activation is called {self.activation!r}; there are {', '.join(MASKS)}")
        fixed = isinstance(self.threshold, int | float) and 0 <= self.threshold <= 1
        if not fixed and self.threshold not in {"trainable", "none"}:
            raise ValueError(f"the threshold is 'trainable', 'none' or a number from 0 to 1, not {self.threshold!r}")

    def reach(self, fronts: Sequence[int], strides: Sequence[int]) -> int:
        """Pixels around a pixel that can change it after one stage a stride for each front end, itself that far off.

        An upper bound; where strides skip pixels, in PreMix-H, it is a few pixels above the truth.
        """
        features = hrms = 0
        for front in fronts:
            for stride in strides:
                layer = (5 if self.mixing else 3) * (self.kernel // 2) * stride
                features = max(front + layer, features) + (self.layers - 1) * layer + stride - 1
                hrms = max(features, hrms) + self.filter_kernel // 2
        return hrms


class PreMix(Network):
    """What both have in common: MS is brought to the PAN grid with fixed taps, then sharpened."""

    def __init__(self, bands: int, ratio: int, interpolation: str, phase: float | None) -> None:
        super().__init__()
        self.bands, self.ratio, self.global_values = bands, ratio, False
        self.upsample = Upsample(ratio, interpolation, phase)

    def fuse(self, pan: Tensor, ms: Tensor, pooling: Pooling) -> Tensor:
        return self.sharpen(pan, self.upsample(ms))

    def sharpen(self, pan: Tensor, exp: Tensor) -> Tensor:
        """PAN (N, 1, H, W) and EXP, the MS on its grid (N, bands, H, W), to HRMS of the same shape."""
        raise NotImplementedError


class PreMixB(PreMix):
    """One stage, HRMS without a skip connection. `phase` of the MS pixels as in `Upsample`; `guide_bands` are the
    channels of the PAN, whose filtered images are added up for each band."""

    def __init__(
        self,
        bands: int,
        ratio: int = 4,
        *,
        channels: int = 32,
        layers: int = 2,
        kernel: int = 3,
        filter_kernel: int = 3,
        mixing: bool = True,
        threshold: str | float = "trainable",
        activation: str = "tanh+relu",
        interpolation: str = "bicubic",
        phase: float | None = None,
        guide_bands: int = 1,
    ) -> None:
        super().__init__(bands, ratio, interpolation, phase)
        layout = Layout(bands, channels, layers, kernel, filter_kernel, mixing, threshold, activation, guide_bands)
        self.halo = layout.reach(fronts=[0], strides=[1]) + self.upsample.halo
        self.multiple_of, self.alignment = 1, 1
        self.stage = Stage(layout)

    def sharpen(self, pan: Tensor, exp: Tensor) -> Tensor:
        hrms: Tensor = self.stage((exp, pan), (exp, pan))[0]
        return hrms

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor], *, ratio: int = 4, activation: str = "tanh+relu") -> Self:
        """The network with weights of the authors' `PreMixModel`; what they do not tell is given here.

        Raises ModelError if they are anything else.
        """
        weights = {f"stage.{_clean_name(name)}": tensor for name, tensor in state.items()}
        options = _options(weights, "stage", "PreMix-B")
        network = cls(ratio=ratio, activation=activation, **options)
        load_exactly(network, weights, "the official PreMix-B")
        return network


class PreMixH(PreMix):
    """Nine stages in three branches, high-pass to equalised to original; within each from a quarter to full size.

    Image sizes are multiples of 4. `clahe_cell` (even, PAN pixels): cells of that size from the scene's origin on; 32
    is what training on 256 x 256 gives. None: 8 x 8 cells whatever the image, as the authors; then tiles do not match.
    """

    def __init__(
        self,
        bands: int,
        ratio: int = 4,
        *,
        channels: int = 32,
        layers: int = 1,
        kernel: int = 3,
        filter_kernel: int = 3,
        mixing: bool = True,
        threshold: str | float = "trainable",
        activation: str = "tanh+relu",
        interpolation: str = "bicubic",
        phase: float | None = None,
        clahe_cell: int | None = 32,
    ) -> None:
        if clahe_cell is not None and (clahe_cell < 2 or clahe_cell % 2):
            raise ValueError(f"clahe_cell is an even number of pixels, not {clahe_cell}")
        super().__init__(bands, ratio, interpolation, phase)
        layout = Layout(bands, channels, layers, kernel, filter_kernel, mixing, threshold, activation)
        equalised = Cells.fixed(1, clahe_cell).reach if clahe_cell else 0
        self.halo = layout.reach(fronts=[1, equalised, 0], strides=[4, 2, 1]) + self.upsample.halo
        self.multiple_of, self.alignment = 4, lcm(4, clahe_cell or 1)
        self.clahe_cell = clahe_cell
        self.high_pass, self.equalised, self.original = (
            nn.ModuleList(Stage(layout, doublings) for doublings in range(3)) for _ in range(3)
        )

    def sharpen(self, pan: Tensor, exp: Tensor) -> Tensor:
        hrms, features = self._branch(self.high_pass, (high_pass(exp), high_pass(pan)), (exp, pan), None)
        hrms, features = self._branch(self.equalised, (self._equalise(exp), self._equalise(pan)), (hrms, pan), features)
        hrms, features = self._branch(self.original, (exp, pan), (hrms, pan), features)
        return hrms + exp

    def _branch(
        self, stages: nn.ModuleList, inputs: Pair, images: Pair, features: Pair | None
    ) -> tuple[Tensor, Pair | None]:
        """The stages from coarse to fine: each filters the image of the one before and adds its features."""
        hrms, pan = images
        for stage in reversed(stages):
            hrms, features = stage(inputs, (hrms, pan), features)
        return hrms, features

    def _equalise(self, image: Tensor) -> Tensor:
        rows, cols = (
            Cells.fixed(extent, self.clahe_cell) if self.clahe_cell else Cells.grid(extent)
            for extent in image.shape[-2:]
        )
        return clahe(image.clamp(0, 1), rows, cols)

    @classmethod
    def from_official(
        cls,
        state: Mapping[str, Tensor],
        *,
        ratio: int = 4,
        activation: str = "tanh+relu",
        clahe_cell: int | None = 32,
    ) -> Self:
        """The network with weights of the authors' `PreMixHugeModel`, without its unused `postconv`.

        What they do not tell is given here. Raises ModelError if they are anything else.
        """
        used = {name: tensor for name, tensor in state.items() if not name.startswith("postconv.")}
        weights = {_clean_name(name): tensor for name, tensor in used.items()}
        options = _options(weights, "original.0", "PreMix-H")
        network = cls(ratio=ratio, activation=activation, clahe_cell=clahe_cell, **options)
        load_exactly(network, weights, "the official PreMix-H")
        return network


class Stage(nn.Module):
    """Encodes and mixes MS and PAN at a stride of 2^doublings, and filters images of full size with the features."""

    def __init__(self, layout: Layout, doublings: int = 0) -> None:
        super().__init__()
        self.stride = 2**doublings
        inputs = [(layout.bands, layout.guide_bands)] + [(layout.channels, layout.channels)] * (layout.layers - 1)
        self.blocks = nn.ModuleList(MixingBlock(ms, pan, layout) for ms, pan in inputs)
        self.expand_ms = nn.Sequential(*(Doubling(layout.channels) for _ in range(doublings)))
        self.expand_pan = nn.Sequential(*(Doubling(layout.channels) for _ in range(doublings)))
        self.filter_ms = PredictiveFilter(layout)
        self.filter_pan = PredictiveFilter(layout, layout.guide_bands)
        # so convolutions of 32 channels take two thirds of the time on a CPU
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, inputs: Pair, images: Pair, previous: Pair | None = None) -> tuple[Tensor, Pair]:
        """Filters `images` with features of `inputs`, to which those of the previous stage are added, all (N, ?, H, W).

        Returns the HRMS and the features, both of full size.
        """
        ms, pan = self.blocks[0](*self._sampled(inputs), None if previous is None else self._sampled(previous))
        for block in self.blocks[1:]:
            ms, pan = block(ms, pan)
        ms, pan = self.expand_ms(ms), self.expand_pan(pan)
        return self.filter_ms(ms, images[0]) + self.filter_pan(pan, images[1]), (ms, pan)

    def _sampled(self, pair: Pair) -> Pair:
        """Every stride-th pixel, without a low-pass."""
        ms, pan = pair
        return ms[..., :: self.stride, :: self.stride], pan[..., :: self.stride, :: self.stride]


class MixingBlock(nn.Module):
    """Encodes MS and PAN apart, then mixes their features."""

    def __init__(self, ms_channels: int, pan_channels: int, layout: Layout) -> None:
        super().__init__()
        self.encode_ms = _encoder(ms_channels, layout)
        self.encode_pan = _encoder(pan_channels, layout)
        self.mixing = Mixing(layout) if layout.mixing else None

    def forward(self, ms: Tensor, pan: Tensor, added: Pair | None = None) -> Pair:
        """`added`, if given, is added to the result."""
        ms, pan = self.encode_ms(ms), self.encode_pan(pan)
        if self.mixing is not None:
            return self.mixing(ms, pan, added)  # type: ignore[no-any-return]
        return _with((ms, pan), added)


class Mixing(nn.Module):
    """Element-wise feature mixing: where the mask is 1, MS and PAN features change places (eqs. 3-5, 15 and 16).

    A fixed threshold makes the mask 0 or 1, and lets no gradient through to what it is made of.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.relation = ResidualBlock(layout.channels, layout.kernel)
        self.activation = layout.activation
        self.beta: nn.Parameter | float | None = None
        if layout.threshold == "trainable":
            self.beta = nn.Parameter(torch.tensor([0.5]))
        elif layout.threshold != "none":
            self.beta = float(layout.threshold)

    def forward(self, ms: Tensor, pan: Tensor, added: Pair | None = None) -> Pair:
        """`added`, if given, is added to the result."""
        relation = self.relation(ms + pan)
        loops = compiled_for(ms)
        if loops is not None and self.activation == "tanh+relu" and isinstance(self.beta, Tensor):
            return loops.exchange((ms, pan), relation, self.beta, STEEPNESS, added)  # type: ignore[no-any-return]
        exchanged = self._mask(relation) * (pan - ms)
        return _with((ms + exchanged, pan - exchanged), added)

    def _mask(self, relation: Tensor) -> Tensor:
        mask = MASKS[self.activation](relation)
        if self.beta is None:
            return mask
        if isinstance(self.beta, float):
            return (mask > self.beta).to(mask.dtype)
        return torch.sigmoid(STEEPNESS * (mask - self.beta))


class PredictiveFilter(nn.Module):
    """Filters every band with a kernel of its own at every pixel, predicted from features (eqs. 17-20).

    With several `guides` each band is the sum of all of them, each filtered by a kernel of its own. The border is
    reflected, so that an image has at least filter_kernel // 2 + 1 rows and columns.
    """

    def __init__(self, layout: Layout, guides: int = 1) -> None:
        super().__init__()
        self.size, self.bands, self.guides = layout.filter_kernel, layout.bands, guides
        self.predict = _convolution(layout.channels, layout.bands * guides * self.size**2, self.size)

    def forward(self, features: Tensor, image: Tensor) -> Tensor:
        """Features (N, C, H, W), image (N, bands, 1 or guides, H, W) to (N, bands, H, W)."""
        if self.guides == 1:
            return self._filter(features, image)
        filtered = self._filter(features, image.repeat(1, self.bands, 1, 1))
        return filtered.view(-1, self.bands, self.guides, *image.shape[2:]).sum(2)

    def _filter(self, features: Tensor, image: Tensor) -> Tensor:
        """Features (N, C, H, W), image (N, K or 1, H, W), for K * size * size predicted weights, to (N, K, H, W)."""
        padded = F.pad(image, [self.size // 2] * 4, mode="reflect")
        if self.predict.minimally(features) and (predictive := on_cpu(features, "predictive")):
            return predictive.filter_predicted(features, self.predict.weight, self.predict.bias, padded)  # type: ignore[no-any-return]
        kernels = self.predict(features)
        loops = compiled_for(kernels)
        if loops is not None:
            return loops.filter_pixels(padded, kernels, self.size)  # type: ignore[no-any-return]
        count, channels, rows, cols = kernels.shape
        kernels = kernels.view(count, channels // self.size**2, self.size**2, rows, cols)
        return filter_adaptively(neighbours(padded, self.size), kernels.unbind(2))


class ResidualBlock(nn.Module):
    """x + conv(relu(conv(x))), without biases."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.conv1 = _convolution(channels, channels, kernel, bias=False, slope=0)
        self.conv2 = _convolution(channels, channels, kernel, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv2(self.conv1(x), x)
        return result


def _with(features: Pair, added: Pair | None) -> Pair:
    return features if added is None else (features[0] + added[0], features[1] + added[1])


def high_pass(image: Tensor) -> Tensor:
    """(N, C, H, W) less its Gaussian blur: 3 x 3, sigma 1.5, the border reflected."""
    side = exp(-0.5 / 1.5**2)  # next to a centre of 1
    padded = F.pad(image, (1, 1, 1, 1), mode="reflect")
    blurred = padded[..., 1:-1, :] + side * (padded[..., :-2, :] + padded[..., 2:, :])
    blurred = blurred[..., 1:-1] + side * (blurred[..., :-2] + blurred[..., 2:])
    return image - blurred / (1 + 2 * side) ** 2


def _encoder(inputs: int, layout: Layout) -> nn.Sequential:
    return nn.Sequential(
        _convolution(inputs, layout.channels, layout.kernel, slope=0),
        nn.Identity(),
        ResidualBlock(layout.channels, layout.kernel),
    )


def _convolution(inputs: int, outputs: int, kernel: int, *, bias: bool = True, slope: float = 1) -> SteadyConv2d:
    return SteadyConv2d(inputs, outputs, kernel, padding=kernel // 2, bias=bias, slope=slope, minimal=True)


OFFICIAL_NAMES = {
    r"^model1\.": "original.",
    r"^model2\.": "equalised.",
    r"^model3\.": "high_pass.",
    r"\bpreconv\.": "blocks.0.",
    r"\bencoder_(ms|pan)\.encoder\.": r"encode_\1.",
    r"\bewfm\.conv\.": "mixing.relation.",
    r"\bewfm\.beta$": "mixing.beta",
    r"\btransconv_(ms|pan)\.": r"expand_\1.",
    r"\bpf_(ms|pan)\.conv\.": r"filter_\1.predict.",
}


def _clean_name(official: str) -> str:
    name = re.sub(r"\bemix\.(\d+)\.", lambda match: f"blocks.{int(match[1]) + 1}.", official)
    for pattern, replacement in OFFICIAL_NAMES.items():
        name = re.sub(pattern, replacement, name)
    return name


def _options(weights: Mapping[str, Tensor], stage: str, network: str) -> dict[str, Any]:
    """The constructor's options, from the names and shapes of the weights of one stage."""
    try:
        channels, bands, kernel = weights[f"{stage}.blocks.0.encode_ms.0.weight"].shape[:3]
        filter_kernel = weights[f"{stage}.filter_ms.predict.weight"].shape[-1]
    except (KeyError, IndexError, ValueError) as error:
        raise ModelError(f"these are not the weights of the official {network}: its first layer is missing") from error
    blocks = {name.removeprefix(f"{stage}.blocks.").split(".")[0] for name in weights if f"{stage}.blocks." in name}
    return {
        "bands": bands,
        "channels": channels,
        "layers": len(blocks),
        "kernel": kernel,
        "filter_kernel": filter_kernel,
        "mixing": f"{stage}.blocks.0.mixing.relation.conv1.weight" in weights,
        "threshold": "trainable" if f"{stage}.blocks.0.mixing.beta" in weights else "none",
    }
