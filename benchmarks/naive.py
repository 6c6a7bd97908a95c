"""The networks as the papers write them: unfolded images, and a kernel of its own in memory for every pixel.

What `as_in_the_papers` makes of a network computes the same as before; it is what ours is measured against.
"""

from __future__ import annotations

import types

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pansharpen_cli.networks import adknet
from pansharpen_cli.networks.dmaconv import DMAConv
from pansharpen_cli.networks.layers import Doubling, SteadyConv2d, SteadyConvTranspose2d
from pansharpen_cli.networks.network import Pooling
from pansharpen_cli.networks.premix import Mixing, Pair, PredictiveFilter


def as_in_the_papers(network: nn.Module) -> nn.Module:
    """`network` itself, its layers computing in the papers' way from here on."""
    ways = (
        (adknet.ADKNet, "fuse", adknet_fuse),
        (Mixing, "forward", mixing),
        (PredictiveFilter, "_filter", predictive_filter),
        (DMAConv, "_weigh", weigh),
        (DMAConv, "_filter", focus_or_not),
        (SteadyConv2d, "forward", convolution),
        (SteadyConvTranspose2d, "forward", nn.ConvTranspose2d.forward),
        (Doubling, "forward", nn.ConvTranspose2d.forward),
    )
    for module in network.modules():
        for kind, name, way in ways:
            if isinstance(module, kind):
                setattr(module, name, types.MethodType(way, module))
    return network.to(memory_format=torch.contiguous_format)


def convolution(self: SteadyConv2d, image: Tensor, added: Tensor | None = None) -> Tensor:
    """Torch's own, its activation and what is added a pass each."""
    out = nn.Conv2d.forward(self, image)
    if self.slope != 1:
        out = F.leaky_relu(out, self.slope)
    return out if added is None else out + added


def mixing(self: Mixing, ms: Tensor, pan: Tensor, added: Pair | None = None) -> Pair:
    """A pass for every operation (eqs. 3-5)."""
    exchanged = self._mask(self.relation(ms + pan)) * (pan - ms)
    ms, pan = ms + exchanged, pan - exchanged
    return (ms, pan) if added is None else (ms + added[0], pan + added[1])


def patches(image: Tensor, size: int, mode: str = "constant") -> Tensor:
    """(N, C, H, W) -> (N, C, size * size, H, W)."""
    rows, cols = image.shape[2:]
    unfolded = F.unfold(F.pad(image, [size // 2] * 4, mode=mode), size)
    return unfolded.view(*image.shape[:2], size * size, rows, cols)


def adknet_fuse(self: adknet.ADKNet, pan: Tensor, ms: Tensor, pooling: Pooling) -> Tensor:
    """A kernel for every pixel and channel, (N, C, 9, H, W), from a pass over the guide for each layer (eqs. 4-6)."""
    guide = self.activation(self.embed_pan(pan))
    features = self.activation(self.embed_ms(self.activation(self.expand(ms))))
    for layer in self.layers:
        spectral = layer.spectral(pooling(layer.name, lambda pixels: pixels.mean(2), features))
        spectral = normalised(spectral.view(-1, features.shape[1], 9), 2) * layer.gain.view(-1, 9)
        spatial = normalised(layer.spatial(guide), 1) * adknet.KERNEL_GAIN
        kernels = spatial[:, None] * spectral[..., None, None]
        features = (patches(features, 3) * kernels).sum(2)
    hrms: Tensor = self.reconstruct(features) + self.skip(ms)
    return hrms


def normalised(kernels: Tensor, dim: int) -> Tensor:
    return (kernels - kernels.mean(dim, keepdim=True)) / (kernels.std(dim, keepdim=True) + 1e-10)


def predictive_filter(self: PredictiveFilter, features: Tensor, image: Tensor) -> Tensor:
    """Every band with its own kernel at every pixel (eqs. 17-20)."""
    kernels = self.predict(features).unflatten(1, (-1, self.size**2))
    return (patches(image, self.size, "reflect") * kernels).sum(2)


def weigh(self: DMAConv, x: Tensor) -> tuple[Tensor, Tensor]:
    """A pass for every operation."""
    half = torch.tanh(self.mask(x) / 2) / 2
    return x * (half + 0.5), half.mean(1, keepdim=True)


def focus_or_not(self: DMAConv, masked: Tensor, mean: Tensor, focus: Tensor, activity: Tensor) -> Tensor:
    """All pixels by one kernel, then the focused ones by their own."""
    padded = F.pad(masked, (1, 1, 1, 1))
    out = compact(self, padded, mean)
    overwrite(self, out, padded, focus)
    return out


def compact(self: DMAConv, padded: Tensor, mean: Tensor) -> Tensor:
    """All pixels by one kernel, as a matrix product of unfolded patches."""
    gate_in, gate_out, gate_taps = self.compact_gates(mean)
    weight, bias = self.compact_kernel()
    gates = gate_out[:, :, None, None] * gate_in[:, None, :, None] * gate_taps[:, None, None, :]
    kernels = (self.variant.weight_gain * weight * gates).flatten(2)
    rows, cols = padded.shape[2] - 2, padded.shape[3] - 2
    out = kernels @ F.unfold(padded, 3) + self.variant.bias_gain * bias[:, None]
    return out.unflatten(2, (rows, cols))


def overwrite(self: DMAConv, out: Tensor, padded: Tensor, focus: Tensor) -> None:
    """The focused pixels with kernels of their own, (pixels, Co, Ci, 9) (eq. 10)."""
    image, row, col = focus[:, 0].nonzero(as_tuple=True)
    rows, cols = out.shape[2:]
    unfolded = F.unfold(padded, 3).unflatten(1, (-1, 9))[image, :, :, row * cols + col]  # (pixels, Ci, 9)
    windows = F.conv2d(out.new_ones(1, 1, rows, cols), out.new_ones(1, 1, 3, 3), padding=1)[0, 0]
    centre = unfolded[:, :, 4] * windows[row, col, None]
    gate_in, gate_out, gate_taps = self.focused_gates(centre)
    weight, bias = self.focused_kernel()
    kernels = weight * gate_out[:, :, None, None] * gate_in[:, None, :, None] * gate_taps[:, None, None, :]
    values = torch.einsum("poit,pit->po", kernels, unfolded) + bias * gate_out
    out.permute(0, 2, 3, 1)[image, row, col] = values
