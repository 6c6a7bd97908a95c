"""FusionNet (Deng et al. 2021, doi:10.1109/TGRS.2020.3031366) and its DMAConv form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Self

import torch.nn.functional as F
from torch import Tensor, nn

from pansharpen_cli.errors import ModelError
from pansharpen_cli.imaging.interpolation import toolbox_phase
from pansharpen_cli.networks.dmaconv import DMABlock, VariantName
from pansharpen_cli.networks.layers import SteadyConv2d, Upsample, load_exactly
from pansharpen_cli.networks.network import Network, Pooling

WIDTH = 32
BLOCKS = 4


class DetailNetwork(Network):
    """A network that adds details to the up-sampled MS: hrms = exp + details(pan, exp).

    `reach`: PAN pixels of pan and exp around a pixel that can change it; the halo adds what the up-sampling reads.
    """

    reach: int
    multiple_of = 1
    alignment = 1

    def __init__(self, bands: int, ratio: int, interpolation: str, phase: float | None) -> None:
        super().__init__()
        self.bands = bands
        self.ratio = ratio
        self.upsample = Upsample(ratio, interpolation, phase)
        self.halo = self.reach + self.upsample.halo

    def fuse(self, pan: Tensor, ms: Tensor, pooling: Pooling) -> Tensor:
        return self.sharpen(pan, self.upsample(ms), pooling)

    def sharpen(self, pan: Tensor, exp: Tensor, pooling: Pooling) -> Tensor:
        """`pan` (N, 1, H, W) and `exp` (N, bands, H, W), the MS up-sampled by whatever means -> (N, bands, H, W)."""
        return exp + self.details(pan, exp, pooling)

    def details(self, pan: Tensor, exp: Tensor, pooling: Pooling) -> Tensor:
        """What is missing in `exp`, (N, bands, H, W)."""
        raise NotImplementedError


class ResidualBlock(nn.Module):
    """x + conv(ReLU(conv(x))); takes a pooling like its adaptive replacements, but everything in it is local."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = SteadyConv2d(width, width, 3, padding=1, minimal=True)
        self.conv2 = SteadyConv2d(width, width, 3, padding=1, minimal=True)

    def forward(self, x: Tensor, pooling: Pooling) -> Tensor:
        details: Tensor = self.conv2(F.relu(self.conv1(x)))
        return x + details


class FusionNet(DetailNetwork):
    """Four residual blocks on the difference between PAN and each MS band."""

    reach = 10  # ten 3x3 convolutions
    global_values = False

    def __init__(
        self, bands: int, ratio: int = 4, *, interpolation: str = "bicubic", phase: float | None = None
    ) -> None:
        super().__init__(bands, ratio, interpolation, phase)
        self.head = SteadyConv2d(bands, WIDTH, 3, padding=1)
        self.blocks = nn.ModuleList(ResidualBlock(WIDTH) for _ in range(BLOCKS))
        self.tail = SteadyConv2d(WIDTH, bands, 3, padding=1)

    def details(self, pan: Tensor, exp: Tensor, pooling: Pooling) -> Tensor:
        x = F.relu(self.head(pan - exp))
        for block in self.blocks:
            x = block(x, pooling)
        details: Tensor = self.tail(x)
        return details

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> Self:
        """The network with the weights of a DLPan-Toolbox checkpoint, for MS up-sampled as in its training data.

        Raises ModelError if they are anything else.
        """
        weights = {_rename(name): value for name, value in state.items() if not name.startswith("backbone.")}
        if "tail.weight" not in weights:
            raise ModelError("these are not the weights of the official FusionNet: its last layer is missing")
        network = cls(len(weights["tail.weight"]), interpolation="23tap", phase=toolbox_phase(4))
        load_exactly(network, weights, "the official FusionNet")
        return network


class DMAFusionNet(FusionNet):
    """FusionNet with DMA blocks in place of its residual blocks (arXiv 2512.08331, table 4b)."""

    reach = 26  # two 3x3 convolutions, eight DMAConv of reach 3
    global_values = True

    def __init__(
        self,
        bands: int,
        ratio: int = 4,
        *,
        variant: VariantName = "official",
        interpolation: str = "bicubic",
        phase: float | None = None,
    ) -> None:
        super().__init__(bands, ratio, interpolation=interpolation, phase=phase)
        self.blocks = nn.ModuleList(DMABlock(WIDTH, f"blocks.{i}", variant=variant) for i in range(BLOCKS))


def _rename(official: str) -> str:
    """res1.conv20.weight -> blocks.0.conv1.weight, conv1 -> head, conv3 -> tail."""
    block = re.fullmatch(r"res(\d)\.conv2([01])\.(.*)", official)
    if block:
        return f"blocks.{int(block[1]) - 1}.conv{int(block[2]) + 1}.{block[3]}"
    return re.sub("^conv3", "tail", re.sub("^conv1", "head", official))
