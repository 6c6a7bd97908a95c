"""Layers that several networks share: the fixed up-sampling of the MS, and convolution with a kernel of its own at
every pixel. Both are local; images are (N, C, H, W)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from importlib import import_module
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pansharpen_cli.errors import DeviceError, ModelError
from pansharpen_cli.imaging.interpolation import Polyphase, area_phase, polyphase

log = logging.getLogger(__name__)

TOLERANCE = 1e-5
"""How far the kernels of a GPU may be off where results are of about 1."""


class Upsample(nn.Module):
    """EXP inside a network: MS (N, B, h, w) -> PAN grid (N, B, ratio h, ratio w), with fixed taps, no weights.

    `kernel` is a name of interpolation.KERNELS or "23tap"; MS pixel i sits on PAN pixel ratio * i + phase, by default
    the centre of its area. The border is replicated. `halo`: PAN pixels around a pixel that hold all it reads.
    """

    def __init__(self, ratio: int, kernel: str = "bicubic", phase: float | None = None) -> None:
        super().__init__()
        filters = polyphase(kernel, ratio, area_phase(ratio) if phase is None else phase)
        samples = filters.first + np.arange(filters.weights.shape[1])
        self.halo = _halo(filters)
        self.pad = int(np.abs(samples).max())
        self.phases = [
            [(int(sample) + self.pad, float(weight)) for sample, weight in zip(samples, weights, strict=True) if weight]
            for weights in filters.weights
        ]

    def forward(self, ms: Tensor) -> Tensor:
        return self._expand(self._expand(ms, 3), 2)  # columns first: they are the cheap ones while the rows are few

    def _expand(self, image: Tensor, axis: int) -> Tensor:
        """Shifted sums rather than a convolution, which a GPU would round to TF32, and differently for each shape.

        Products are rounded before they are added, so that every backend and device has the same EXP to the last bit:
        CLAHE counts in it.
        """
        size = image.shape[axis]
        pad = (self.pad, self.pad, 0, 0) if axis == 3 else (0, 0, self.pad, self.pad)
        padded = F.pad(image, pad, mode="replicate")
        phases = []
        for (first, first_weight), *others in self.phases:
            phase = first_weight * padded.narrow(axis, first, size)
            for start, weight in others:
                phase = phase + weight * padded.narrow(axis, start, size)
            phases.append(phase)
        return torch.stack(phases, axis + 1).flatten(axis, axis + 1)


def steady_conv2d(image: Tensor, weight: Tensor, bias: Tensor | None, padding: int) -> Tensor:
    """A convolution that rounds alike for small and large images."""
    if kernels := on_gpu(image):
        return kernels.convolve(image, weight, bias, padding)  # type: ignore[no-any-return]
    return _steadily(lambda image: F.conv2d(image, weight, bias, padding=padding), image)


class SteadyConv2d(nn.Conv2d):
    """The same with weights of its own; what is negative in its result is multiplied by `slope`, as (leaky) ReLU does.

    `minimal`: on the CPU by minimal filtering, if that is faster (winograd.py); a tile then needs what `grid_of` tells.
    In an nn.Sequential an nn.Identity stands where that would be a layer: their numbers are names of weights.
    """

    def __init__(
        self, inputs: int, outputs: int, size: int, *, stride: int = 1, padding: int = 0, groups: int = 1,
        bias: bool = True, slope: float = 1.0, minimal: bool = False,
    ) -> None:  # fmt: skip
        super().__init__(inputs, outputs, size, stride=stride, padding=padding, groups=groups, bias=bias)
        self.slope, self.minimal = slope, minimal

    def forward(self, image: Tensor, added: Tensor | None = None) -> Tensor:
        """`added`, if given, is added to the result."""
        if kernels := on_gpu(image):
            return kernels.convolve(  # type: ignore[no-any-return]
                image,
                self.ungrouped(),
                self.bias,
                self.padding[0],
                stride=self.stride[0],
                slope=self.slope,
                added=added,
            )
        if winograd := self.minimally(image):
            return winograd.convolve(  # type: ignore[no-any-return]
                image, self.weight, self.bias, self.padding[0], slope=self.slope, added=added
            )
        out = _steadily(super().forward, image)
        if self.slope != 1:
            out = F.leaky_relu(out, self.slope) if self.slope else F.relu(out, inplace=True)
        return out if added is None else added + out

    def minimally(self, image: Tensor) -> ModuleType | None:
        """`winograd`, if that does this convolution of `image`."""
        winograd = on_cpu(image, "winograd") if self.minimal else None
        fits = winograd and winograd.fits(self.weight, self.stride[0], self.padding[0], self.groups)
        return winograd if fits else None

    def ungrouped(self) -> Tensor:
        """The weight of an ordinary convolution that does the same."""
        return ungrouped(self.weight, self.groups)


def ungrouped(weight: Tensor, groups: int) -> Tensor:
    """(Co, Ci / groups, size, size) of a convolution in groups to (Co, Ci, size, size) of one that does the same."""
    if groups == 1:
        return weight
    outputs, inputs, *size = weight.shape
    whole = weight.new_zeros(groups, outputs // groups, groups, inputs, *size)
    group = torch.arange(groups, device=weight.device)
    whole[group, :, group] = weight.view(groups, outputs // groups, inputs, *size)
    return whole.view(outputs, groups * inputs, *size)


def grid_of(network: nn.Module) -> tuple[int, int]:
    """Pixels at the coarsest scale of the network whose multiples tiles are to begin at on a CPU, and how many PAN
    pixels beyond the network's halo they need around them, for minimal filtering to give the same to the last bit.

    What it computes for a pixel is rounded together with others of its grid cell, whose own surroundings may lie beyond
    the halo. That dies away within three cells.
    """
    layers = (module for module in network.modules() if isinstance(module, SteadyConv2d))
    if not any(layer.minimal for layer in layers):
        return 1, 0
    cell: int = import_module("pansharpen_cli.networks.winograd").COLS
    return cell, 3 * cell


class SteadyConvTranspose2d(nn.ConvTranspose2d):
    """The same for a transposed convolution, whose result is `stride` times as large."""

    def forward(self, image: Tensor, output_size: list[int] | None = None) -> Tensor:
        if kernels := on_gpu(image):
            return kernels.convolve(image, *self.by_phases(), ratio=self.stride[0])  # type: ignore[no-any-return]
        return _steadily(super().forward, image)

    def by_phases(self) -> tuple[Tensor, Tensor | None, int]:
        """Weight, bias and padding of an ordinary convolution whose result F.pixel_shuffle makes the same of."""
        ratio, padding = self.stride[0], int(self.padding[0])
        reach = -(-padding // ratio)
        taps = 2 * reach + 1
        weight = F.pad(self.weight, [reach * ratio - padding] * 4)
        phases = weight.view(self.in_channels, self.out_channels, taps, ratio, taps, ratio).flip(2, 4)
        kernel = phases.permute(1, 3, 5, 0, 2, 4).reshape(-1, self.in_channels, taps, taps)
        bias = None if self.bias is None else self.bias.repeat_interleave(ratio**2)
        return kernel, bias, reach


class Doubling(nn.ConvTranspose2d):
    """Transposed convolution 3x3, stride 2: twice the size. As an ordinary one, 2x2, of each pixel's four phases:
    torch's own rounds differently for some sizes."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels, channels, 3, stride=2, padding=1, output_padding=1)

    def forward(self, image: Tensor, output_size: list[int] | None = None) -> Tensor:
        doubling = on_cpu(image, "doubling")
        if doubling and self.bias is not None and doubling.fits(self.weight):
            return doubling.double(image, self.weight, self.bias)  # type: ignore[no-any-return]
        channels = self.out_channels
        phases = self.weight.new_zeros(channels, 2, 2, self.in_channels, 2, 2)
        taps = {(0, 0): 1, (1, 0): 2, (1, 1): 0}  # (parity of the output, input pixel) -> tap
        for (row_parity, row), i in taps.items():
            for (col_parity, col), j in taps.items():
                phases[:, row_parity, col_parity, :, row, col] = self.weight[:, :, i, j].T
        kernel = phases.view(4 * channels, self.in_channels, 2, 2)
        bias = None if self.bias is None else self.bias.repeat_interleave(4)
        padded = F.pad(image, (0, 1, 0, 1))
        if kernels := on_gpu(image):
            return kernels.convolve(padded, kernel, bias, padding=0, ratio=2)  # type: ignore[no-any-return]
        return F.pixel_shuffle(steady_conv2d(padded, kernel, bias, padding=0), 2)


def _steadily(convolution: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """For a single image of at most 20480 numbers torch takes another kernel on the CPU, whose sums differ in the last
    digits; twice the image is no single one."""
    if torch.compiler.is_compiling():  # compiled and exported, an image may have any size
        return convolution(image)
    small = len(image) == 1 and image.numel() <= 20480  # torch's own limit, in use_mkldnn
    return convolution(image.expand(2, -1, -1, -1))[:1] if small else convolution(image)


def _halo(filters: Polyphase) -> int:
    """PAN pixels from an output pixel to the nearest pixel of the farthest MS pixel with a weight in it."""
    phase, tap = np.nonzero(filters.weights)
    ratio, sample = len(filters.weights), filters.first + tap
    return int(max((phase - ratio * sample - ratio + 1).max(), (ratio * sample - phase).max(), 0))


def neighbours(padded: Tensor, size: int) -> Iterator[Tensor]:
    """The shifted views of images padded by size // 2, row by row: number size * i + j is x[p + (i, j) - size // 2]."""
    rows, cols = padded.shape[-2] - size + 1, padded.shape[-1] - size + 1
    return (padded[..., i : i + rows, j : j + cols] for i in range(size) for j in range(size))


def filter_adaptively(values: Iterable[Tensor], taps: Iterable[Tensor]) -> Tensor:
    """Convolution with a kernel of its own at every pixel: the sum over t of values[t] * taps[t].

    `values` are the shifted images, `taps` the weights of tap t at every pixel; each pair broadcasts to the shape of
    the first one. One tap at a time: no unfolded image, and of values made on the fly only one exists at once.
    """
    pairs = zip(values, taps, strict=True)
    value, tap = next(pairs)
    total = value * tap
    for value, tap in pairs:
        total.addcmul_(value, tap)  # safe for autograd: no sum is needed to go back
    return total


def compiled_for(image: Tensor) -> ModuleType | None:
    """`loops` on a CPU, `kernels` on a GPU of CUDA, if `image` is of single precision and nobody asks how the result
    came."""
    if image.dtype != torch.float32 or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return None
    if image.is_cuda:
        return _kernels(image.device)
    return import_module("pansharpen_cli.networks.loops") if image.device.type == "cpu" else None


def on_gpu(image: Tensor) -> ModuleType | None:
    """`kernels`, on the terms of `compiled_for`."""
    return compiled_for(image) if image.is_cuda else None


def on_cpu(image: Tensor, module: str) -> ModuleType | None:
    """The module of this name in networks/, compiled for the CPU, on the terms of `compiled_for`."""
    return import_module(f"pansharpen_cli.networks.{module}") if not image.is_cuda and compiled_for(image) else None


@cache
def _kernels(gpu: torch.device) -> ModuleType | None:
    try:
        return gpu_kernels(gpu)
    except DeviceError as error:
        log.warning("%s: torch's slower ones serve", error)
        return None


def gpu_kernels(gpu: torch.device) -> ModuleType:
    """The module `kernels`, after its convolutions have been right on `gpu`. Raises DeviceError with the reason if they
    cannot be had, or are wrong there."""
    capability = torch.cuda.get_device_capability(gpu)
    if torch.version.hip or capability < (8, 0):
        raise DeviceError(f"our kernels for a GPU need the tensor cores of Ampere or newer, not {capability}")
    generator = torch.Generator().manual_seed(0)
    error = 0.0
    try:
        kernels = import_module("pansharpen_cli.networks.kernels")
        for inputs in (1, 32):
            image = torch.rand(1, inputs, 8, 100, generator=generator)
            weight = torch.randn(32, inputs, 3, 3, generator=generator) / 3 / inputs**0.5
            exact = F.conv2d(image.double(), weight.double(), padding=1)
            found = kernels.convolve(image.to(gpu), weight.to(gpu), None, 1).cpu()
            error = max(error, float((found - exact).abs().max()))
    except torch.OutOfMemoryError:
        raise
    except Exception as failure:  # whatever Triton and a compiler may say
        reason = str(failure).strip().partition("\n")[0]
        raise DeviceError(f"our kernels for a GPU cannot be compiled here ({reason})") from failure
    if not error < TOLERANCE:
        raise DeviceError(f"our kernels for a GPU compute wrongly here, by {error:.1g}")
    return kernels


def load_exactly(network: nn.Module, weights: Mapping[str, Tensor], origin: str) -> None:
    """Load `weights`, which must have the network's names and shapes; else a ModelError names the first misfit."""
    expected = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    for name in sorted(expected.keys() | found.keys()):
        if found.get(name) != expected.get(name):
            raise ModelError(
                f"these are not the weights of {origin}: {name} should have the shape {expected.get(name)}, "
                f"not {found.get(name)}"
            )
    network.load_state_dict(weights)
