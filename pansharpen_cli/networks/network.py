"""What every network here promises: a purely local forward pass, with its global values as an explicit argument.

A product must not depend on how the scene was cut into tiles. So whatever a network reads from more than a
neighbourhood (a pooled vector, a threshold) goes through a `Pooling`, which takes it from this very image (the
papers' behaviour), from many crops together (`observe`), or from values frozen before (`run`).
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

SceneStatistics = dict[str, Tensor]
"""Frozen global values of one scene: name of the layer's value -> (1, K), or a row a band in a network per band."""

CHANNELS = 8
"""Of which means over pixels are taken at once."""

Reduction = Callable[..., Tensor]
"""Maps pixels (N, C, P), one or several such tensors, to (N, K): one row of values an image."""


def pixel_mean(pixels: Tensor) -> Tensor:
    """The mean over the pixels, (N, C, P) to (N, C), in single precision at least.

    Added up in double precision: of a scene's million pixels onnxruntime's own sum has five digits right.
    """
    graph = torch.compiler.is_compiling() or torch.is_grad_enabled()
    means = pixels.double().mean(2) if graph else _mean_by_parts(pixels)
    return means.to(torch.promote_types(pixels.dtype, torch.float32))


def _mean_by_parts(pixels: Tensor) -> Tensor:
    """The same, of few channels at once, which are copied to one place: of copies made anew for each, glibc's heap
    keeps as many as there are parts, because the means between two uses lie in the gap that a copy left."""
    n, channels, p = pixels.shape
    copy = pixels.new_empty(n, min(CHANNELS, channels), p, dtype=torch.double)
    parts = torch.split(pixels, CHANNELS, 1)
    return torch.cat([copy[:, : part.shape[1]].copy_(part).mean(2) for part in parts], 1)


class Pooling(ABC):
    """Where a network's global values come from."""

    @abstractmethod
    def __call__(self, name: str, reduce: Reduction, *maps: Tensor) -> Tensor:
        """The value called `name` for the feature `maps`, each (N, C, H, W). Returns (N, K) or (1, K)."""


class PerImage(Pooling):
    """Every image of the batch has its own values, as in the papers."""

    def __call__(self, name: str, reduce: Reduction, *maps: Tensor) -> Tensor:
        return reduce(*(m.flatten(2) for m in maps))


class Jointly(Pooling):
    """All images of the batch are crops of one scene and share values; they are kept in `statistics`."""

    def __init__(self) -> None:
        self.statistics: SceneStatistics = {}

    def __call__(self, name: str, reduce: Reduction, *maps: Tensor) -> Tensor:
        return self.keep(name, reduce(*(m.transpose(0, 1).flatten(1)[None] for m in maps)))

    def keep(self, name: str, value: Tensor) -> Tensor:
        """Remember `value`, and give it back."""
        self.statistics[name] = value
        return value


class Observing(Jointly):
    """The same, where nobody wants the images: a part of a network that has no global values need not compute them."""


class Frozen(Pooling):
    """The values were observed before."""

    def __init__(self, statistics: SceneStatistics) -> None:
        self.statistics = statistics

    def __call__(self, name: str, reduce: Reduction, *maps: Tensor) -> Tensor:
        return self.statistics[name]


class Network(nn.Module):
    """A pansharpening network for `bands` MS bands and one `ratio`, with what a caller must know of it.

    `options`: whatever else its constructor was given; bands, ratio and options build the same network again.
    `halo`: PAN pixels around a pixel that can change it, up-sampling of the MS included.
    `multiple_of`: image sizes, in PAN pixels, are multiples of this.
    `alignment`: a tile's first row and column are multiples of this, counted in PAN pixels from the scene's origin.
    All three hold for frozen statistics, away from the image border, where the network pads by itself.
    `global_values`: whether it asks its pooling for values of the image; if not, a single crop freezes all there is.
    """

    bands: int
    ratio: int
    options: dict[str, Any]
    halo: int
    multiple_of: int
    alignment: int
    global_values: bool = True

    def __new__(cls, *arguments: Any, **options: Any) -> Self:
        network = super().__new__(cls)
        if not arguments and not options:  # a copy is being made, which gets its options with all else
            return network
        given = inspect.signature(cls.__init__).bind(network, *arguments, **options).arguments
        given |= given.pop("options", {})  # of a constructor that passes its options on
        network.__dict__["options"] = {k: v for k, v in given.items() if k not in ("self", "bands", "ratio")}
        return network

    def forward(self, pan: Tensor, ms: Tensor, statistics: SceneStatistics | None = None) -> Tensor:
        """Sharpen `ms` (N, bands, h, w) with `pan` (N, guide bands, ratio h, ratio w), both in network units.

        Without `statistics` every image uses its own (training, the papers); with them any cut gives the same pixels.
        Returns (N, bands, ratio h, ratio w) in network units, unclamped.
        """
        return self.fuse(pan, ms, PerImage() if statistics is None else Frozen(statistics))

    @torch.no_grad()
    def observe(self, pan: Tensor, ms: Tensor) -> SceneStatistics:
        """The global values of a scene, pooled over a batch of its crops together, layer by layer, in one pass."""
        pooling = Observing()
        self.fuse(pan, ms, pooling)
        return pooling.statistics

    def set_camera(self, gains: Sequence[float]) -> None:
        """Tell the network the MTF gain of the scene's camera in each band; only a `Consistent` one wants to know."""

    def fuse(self, pan: Tensor, ms: Tensor, pooling: Pooling) -> Tensor:
        """The network itself; `pooling` gives its global values."""
        raise NotImplementedError
