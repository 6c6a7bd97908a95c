"""LAGNet (Jin et al., AAAI 2022, doi:10.1609/aaai.v36i1.19996) and its DMAConv form."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pansharpen_cli.networks.dmaconv import DMABlock, VariantName
from pansharpen_cli.networks.fusionnet import DetailNetwork
from pansharpen_cli.networks.layers import SteadyConv2d, neighbours
from pansharpen_cli.networks.network import Pooling, pixel_mean

WIDTH = 32
BLOCKS = 5


class LAConv(nn.Module):
    """Local-context adaptive 3x3 convolution, x (N, Ci, H, W) -> (N, Co, H, W), zero padding.

    Every pixel scales the nine taps of one kernel by its own factors; every image has a bias from its global average,
    called `name`.average, (N, Ci).
    """

    def __init__(self, channels_in: int, channels_out: int, name: str) -> None:
        super().__init__()
        self.name = name
        self.weight = nn.Parameter(nn.Conv2d(channels_in, channels_out, 3).weight.detach())  # torch's initial values
        self.attention = nn.Sequential(
            SteadyConv2d(channels_in, 9, 3, padding=1),
            nn.ReLU(),
            SteadyConv2d(9, 9, 1),
            nn.ReLU(),
            SteadyConv2d(9, 9, 1),
            nn.Sigmoid(),
        )
        self.bias = nn.Sequential(
            nn.Linear(channels_in, channels_out), nn.ReLU(), nn.Linear(channels_out, channels_out)
        )

    def forward(self, x: Tensor, pooling: Pooling) -> Tensor:
        average = pooling(f"{self.name}.average", pixel_mean, x)
        bias: Tensor = self.bias(average.to(x.dtype))
        out = bias[:, :, None, None]
        # One tap at a time: the patches of a whole image would take nine times its memory.
        taps = zip(neighbours(F.pad(x, (1, 1, 1, 1)), 3), self.attention(x).split(1, dim=1), strict=True)
        for weight, (shifted, factor) in zip(self.weight.flatten(2).unbind(2), taps, strict=True):
            out = out + F.conv2d(factor * shifted, weight[:, :, None, None])
        return out


class LABlock(nn.Module):
    """Residual block x + LAConv(ReLU(LAConv(x))), (N, width, H, W) -> the same."""

    def __init__(self, width: int, name: str) -> None:
        super().__init__()
        self.conv1 = LAConv(width, width, f"{name}.conv1")
        self.conv2 = LAConv(width, width, f"{name}.conv2")

    def forward(self, x: Tensor, pooling: Pooling) -> Tensor:
        details: Tensor = self.conv2(F.relu(self.conv1(x, pooling)), pooling)
        return x + details


class LAGNet(DetailNetwork):
    """Five residual LAConv blocks between a LAConv head and tail."""

    reach = 12  # twelve LAConv

    def __init__(
        self, bands: int, ratio: int = 4, *, interpolation: str = "bicubic", phase: float | None = None
    ) -> None:
        super().__init__(bands, ratio, interpolation, phase)
        self.head = LAConv(bands + 1, WIDTH, "head")
        self.blocks = nn.ModuleList(LABlock(WIDTH, f"blocks.{i}") for i in range(BLOCKS))
        self.tail = LAConv(WIDTH, bands, "tail")

    def details(self, pan: Tensor, exp: Tensor, pooling: Pooling) -> Tensor:
        x = F.relu(self.head(torch.cat([pan, exp], dim=1), pooling))
        for block in self.blocks:
            x = block(x, pooling)
        details: Tensor = self.tail(x, pooling)
        return details


class DMALAGNet(LAGNet):
    """LAGNet with DMA blocks in place of its residual blocks; head and tail stay (arXiv 2512.08331, table 4b)."""

    reach = 32  # two LAConv, ten DMAConv of reach 3

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
