"""DMANet: a U-Net whose residual blocks are made of DMAConv (arXiv 2512.08331)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pansharpen_cli.errors import ModelError
from pansharpen_cli.imaging.interpolation import toolbox_phase
from pansharpen_cli.networks.dmaconv import SLOPE, DMABlock, VariantName, rename_official
from pansharpen_cli.networks.fusionnet import DetailNetwork
from pansharpen_cli.networks.layers import SteadyConv2d, SteadyConvTranspose2d, load_exactly
from pansharpen_cli.networks.network import Pooling


class Down(nn.Sequential):
    """(N, narrow, H, W) -> (N, wide, H / 2, W / 2)."""

    def __init__(self, narrow: int, wide: int) -> None:
        super().__init__(
            SteadyConv2d(narrow, narrow, 2, stride=2, slope=SLOPE),
            nn.Identity(),
            SteadyConv2d(narrow, narrow, 3, padding=1, groups=narrow, bias=False),
            SteadyConv2d(narrow, wide, 1),
        )


class Up(nn.Module):
    """(N, wide, H, W) and the encoder's `skip` (N, narrow, 2 H, 2 W), which is added -> (N, narrow, 2 H, 2 W)."""

    def __init__(self, wide: int, narrow: int) -> None:
        super().__init__()
        self.expand = SteadyConvTranspose2d(wide, narrow, 2, stride=2)
        self.merge = nn.Sequential(
            SteadyConv2d(narrow, narrow, 3, padding=1, groups=narrow, bias=False),
            SteadyConv2d(narrow, narrow, 1, slope=SLOPE),
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        merged: Tensor = self.merge(F.leaky_relu(self.expand(x), SLOPE) + skip)
        return merged


class DMANet(DetailNetwork):
    """U-Net of three scales, PAN sizes multiples of 4."""

    reach = 76  # 74, rounded up to whole pixels of the coarsest scale
    multiple_of = 4
    alignment = 4

    def __init__(
        self,
        bands: int,
        ratio: int = 4,
        *,
        widths: tuple[int, int, int] = (32, 64, 128),
        variant: VariantName = "official",
        transition: float = 0.0,
        interpolation: str = "bicubic",
        phase: float | None = None,
        guide_bands: int = 1,
        skip: bool = True,
    ) -> None:
        """`widths`: channels at the size of the PAN, at half and at a quarter of it; `guide_bands`: those of the PAN;
        `skip`: the details are added to EXP, else they are all there is; `transition` as in `DMAConv`."""
        super().__init__(bands, ratio, interpolation, phase)
        full, half, quarter = widths
        self.skip = skip
        self.head = SteadyConv2d(bands + guide_bands, full, 3, padding=1)
        self.block1 = DMABlock(full, "block1", variant=variant, transition=transition)
        self.down1 = Down(full, half)
        self.block2 = DMABlock(half, "block2", variant=variant, transition=transition)
        self.down2 = Down(half, quarter)
        self.block3 = DMABlock(quarter, "block3", variant=variant, transition=transition)
        self.up1 = Up(quarter, half)
        self.block4 = DMABlock(half, "block4", variant=variant, transition=transition)
        self.up2 = Up(half, full)
        self.block5 = DMABlock(full, "block5", variant=variant, transition=transition)
        self.tail = SteadyConv2d(full, bands, 3, padding=1)

    def sharpen(self, pan: Tensor, exp: Tensor, pooling: Pooling) -> Tensor:
        return super().sharpen(pan, exp, pooling) if self.skip else self.details(pan, exp, pooling)

    def details(self, pan: Tensor, exp: Tensor, pooling: Pooling) -> Tensor:
        rows, cols = pan.shape[2:]
        if rows % self.multiple_of or cols % self.multiple_of:
            raise ValueError(f"DMANet needs PAN sizes that are multiples of {self.multiple_of}, not {rows} x {cols}")
        at_full = self.block1(self.head(torch.cat([pan, exp], dim=1)), pooling)
        at_half = self.block2(self.down1(at_full), pooling)
        x = self.block3(self.down2(at_half), pooling)
        x = self.block4(self.up1(x, at_half), pooling)
        x = self.block5(self.up2(x, at_full), pooling)
        details: Tensor = self.tail(x)
        return details

    @classmethod
    def from_official(cls, state: Mapping[str, Tensor]) -> Self:
        """The network with the weights of the authors' `MANet`, for MS up-sampled as in its training data.

        Raises ModelError if they are anything else.
        """
        try:
            weights = {_rename(name): value for name, value in rename_official(state).items()}
            full, half, quarter = (len(weights[f"block{i}.conv1.mask.bias"]) for i in (1, 2, 3))
            bands = len(weights["tail.bias"])
        except KeyError as error:
            raise ModelError(f"these are not the weights of the official DMANet: {error} is missing") from error
        network = cls(bands, widths=(full, half, quarter), interpolation="23tap", phase=toolbox_phase(4))
        load_exactly(network, weights, "the official DMANet")
        return network


def _rename(official: str) -> str:
    """Names of the U-Net itself: RB1 -> block1, head_conv -> head, down1.conv -> down1, up1.conv1 -> up1.expand."""
    name = re.sub(r"^RB(\d)\.", r"block\1.", official)
    name = re.sub(r"^(head|tail)_conv\.", r"\1.", name)
    name = re.sub(r"^(down\d)\.conv\.", r"\1.", name)
    return re.sub(r"^(up\d)\.conv([12])\.", lambda m: f"{m[1]}.{'expand' if m[2] == '1' else 'merge'}.", name)
