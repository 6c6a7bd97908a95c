"""Consistency with the MS: a product that its camera sees through its own blur must look like the MS it was made of.

What the MS says of the scene is not a guess, so a network should add to it and not bend it. `Consistent` puts the
network's HRMS x in the place that is nearest to it among the images whose view D x (the camera's MTF, then
decimation) is the MS y: x + D' (D D' + regularisation)^-1 (y - D x). If D is the true camera, this cannot take x away
from the truth, which is one of those images; the regularisation keeps noise and a wrong D from being amplified.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pansharpen_cli.imaging.interpolation import area_phase
from pansharpen_cli.networks.network import Network, Pooling

GAIN = 0.3
"""MTF gain at the MS Nyquist frequency where the sensor is not known (`mtf.Sensor.other_gain`)."""
REGULARISATION = 0.1
"""Part of the power at frequency 0. On real scenes 0.03 gains no more, and loses when the gains are wrong by 0.05."""
REACH = 2.5
"""MS pixels to each side that the camera's blur is followed: 4 standard deviations at a gain of 0.15."""
LAGS = 4
"""MS pixels to each side that the inverse of D D' is followed: 1e-3 of its centre is left there."""


class Consistent(Network):
    """`network` and then the projection; the same images in and out.

    The cameras' MTF gains, (1, bands), are the scene statistic "gains".
    """

    gains: Tensor

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.bands, self.ratio, self.global_values = network.bands, network.ratio, network.global_values
        self.options = {**network.options, "consistent": True}
        self.camera = Camera(self.ratio, area_phase(self.ratio))
        self.halo = network.halo + self.camera.halo
        self.multiple_of = math.lcm(network.multiple_of, self.ratio)
        self.alignment = math.lcm(network.alignment, self.ratio)
        self.register_buffer("gains", torch.full((1, self.bands), GAIN), persistent=False)

    def set_camera(self, gains: Sequence[float]) -> None:
        self.gains.copy_(torch.tensor([gains]))
        self.network.set_camera(gains)

    def fuse(self, pan: Tensor, ms: Tensor, pooling: Pooling) -> Tensor:
        hrms = self.network.fuse(pan, ms, pooling)
        gains = pooling("gains", lambda pixels: self.gains.expand(len(pixels), -1), ms)
        down, up = self.camera.taps(gains)
        return hrms + self.camera.spread(ms - self.camera.see(hrms, down), up)


class Camera(nn.Module):
    """A Gaussian MTF and decimation, D, and its regularised inverse, D' (D D' + regularisation)^-1, both separable.

    Sums of shifted images rather than convolutions, which a GPU would round to TF32. The border is replicated.
    """

    def __init__(self, ratio: int, phase: float) -> None:
        super().__init__()
        self.ratio = ratio
        radius = REACH * ratio
        self.first = math.ceil(phase - radius)  # of the PAN pixels that MS pixel 0 sees
        distances = torch.arange(self.first, math.floor(phase + radius) + 1) - phase
        self.register_buffer("distances", distances, persistent=False)
        angles = torch.arange(4 * LAGS, dtype=torch.float64) * (2 * math.pi / (4 * LAGS))
        lags = torch.arange(-LAGS, LAGS + 1, dtype=torch.float64)
        self.register_buffer("waves", torch.cos(lags[:, None] * angles).float(), persistent=False)
        seen = max(-self.first, self.first + len(distances) - ratio)
        spread = seen + (LAGS + 1) * ratio
        self.halo = seen + spread

    distances: Tensor
    waves: Tensor

    def taps(self, gains: Tensor) -> tuple[Tensor, Tensor]:
        """For gains (N, B): the PAN pixels that an MS pixel sees, (N, B, taps), and where it is spread to again."""
        deviations = self.ratio / math.pi * torch.sqrt(-2 * torch.log(gains))[..., None]
        down = torch.exp(-((self.distances / deviations) ** 2) / 2)
        down = down / down.sum(-1, keepdim=True)
        taps, ratio = down.shape[-1], self.ratio
        margin = 2 * LAGS * ratio
        shifted = [
            F.pad(down, (margin, margin)).narrow(-1, margin - lag * ratio, taps) for lag in range(-LAGS, LAGS + 1)
        ]
        power = ratio * (torch.stack([(down * other).sum(-1) for other in shifted], -1) @ self.waves)
        response = (1 + REGULARISATION) / (power + REGULARISATION)
        inverse = response @ self.waves.T / self.waves.shape[1]
        total = taps + 2 * LAGS * ratio
        spread = (
            inverse[..., i, None] * F.pad(down, (i * ratio, total - taps - i * ratio)) for i in range(2 * LAGS + 1)
        )
        return down, ratio * reduce(torch.add, spread)

    def see(self, image: Tensor, down: Tensor) -> Tensor:
        """D: (N, B, ratio h, ratio w) -> (N, B, h, w)."""
        for axis in (2, 3):
            size, taps = image.shape[axis] // self.ratio, down.shape[-1]
            padded = _pad(image, axis, -self.first, self.first + taps - self.ratio)
            stop = (size - 1) * self.ratio + 1
            views = (padded.narrow(axis, tap, stop) for tap in range(taps))
            image = _weighted((_every(view, axis, self.ratio) for view in views), down)
        return image

    def spread(self, ms: Tensor, up: Tensor) -> Tensor:
        """D' (D D' + regularisation)^-1: (N, B, h, w) -> (N, B, ratio h, ratio w)."""
        for axis in (3, 2):
            ms = self._spread(ms, up, axis)
        return ms

    def _spread(self, ms: Tensor, up: Tensor, axis: int) -> Tensor:
        first = self.first - LAGS * self.ratio  # of the PAN pixels that MS pixel 0 is spread to
        phases = []
        for phase in range(self.ratio):
            # PAN pixel ratio * k + phase takes from MS pixel k + m by tap phase - ratio * m - first
            taps = [
                (-(tap + first - phase) // self.ratio, tap)
                for tap in range(up.shape[-1])
                if (tap + first - phase) % self.ratio == 0
            ]
            margin = max(abs(m) for m, _ in taps)
            padded = _pad(ms, axis, margin, margin)
            views = (padded.narrow(axis, margin + m, ms.shape[axis]) for m, _ in taps)
            phases.append(_weighted(views, up[..., [tap for _, tap in taps]]))
        return torch.stack(phases, axis + 1).flatten(axis, axis + 1)


def _every(image: Tensor, axis: int, step: int) -> Tensor:
    return image[:, :, ::step] if axis == 2 else image[..., ::step]


def _pad(image: Tensor, axis: int, before: int, after: int) -> Tensor:
    """Repeats the border; F.pad does the same, but breaks compiled training (torch 2.13)."""
    first, last = image.narrow(axis, 0, 1), image.narrow(axis, -1, 1)
    return torch.cat([first] * before + [image] + [last] * after, axis)


def _weighted(views: Iterable[Tensor], taps: Tensor) -> Tensor:
    """The sum of `views` (N, B, H, W), each times its tap (N or 1, B, taps)."""
    products = (view * tap[..., None, None] for view, tap in zip(views, taps.unbind(-1), strict=True))
    return reduce(torch.add, products)
