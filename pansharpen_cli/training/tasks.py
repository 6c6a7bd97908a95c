"""What a model can be fitted to in a single scene: its own MS as the truth at reduced resolution, or, at its full
resolution, what PAN and MS say of a product. One block in four is held out of it, to judge by.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from pansharpen_cli.backends.backend import Backend
from pansharpen_cli.classical import METHODS
from pansharpen_cli.errors import SceneError
from pansharpen_cli.evaluation.assessment import camera, sharpen
from pansharpen_cli.imaging.mtf import Sensor
from pansharpen_cli.imaging.radiometry import Radiometry, Scaling
from pansharpen_cli.imaging.wald import FullScene, ReducedScene
from pansharpen_cli.inputs.canvas import ArrayCanvas
from pansharpen_cli.metrics import ArrayImage, full
from pansharpen_cli.metrics.derived import Expanded, Reduced
from pansharpen_cli.metrics.reduced_resolution import ergas, sam
from pansharpen_cli.metrics.streaming import BLOCK
from pansharpen_cli.networks.consistency import Camera
from pansharpen_cli.networks.network import Network
from pansharpen_cli.training.learner import OverCrops

Float32 = npt.NDArray[np.float32]
Mask = npt.NDArray[np.bool_]
Judged = Mapping[str, float]
Known = Mapping[str, Tensor]

BLOCKS, QUARTERS = 8, 4
"""Blocks along an axis of the scene, and the parts they are dealt to; one is held out."""
PATCH, BATCH = 64, 8
SPATIAL = 1.0
"""Weight of the similarity with the PAN beside the distance to the MS."""


class Judge(Protocol):
    """Of products of a scene."""

    @property
    def scene(self) -> ReducedScene | FullScene: ...

    def judge(self, hrms: Float32) -> Judged:
        """A product (bands, H, W) in DN, by blocks of the scene that did not make it what it is."""

    def merit(self, judged: Judged) -> float:
        """What is to fall."""


class Task(Judge, Protocol):
    """Something to learn: its pixels in network units by `radiometry`, a trained model learning at `rate`."""

    radiometry: Radiometry
    rate: float

    def loss(self, network: Network, known: Known, random: np.random.Generator) -> Tensor:
        """Of random patches of the other blocks. `known`: values of the whole scene, name -> (1, ...)."""


def of_method(judge: Judge, name: str, sensor: Sensor) -> Judged:
    """A classical method, judged."""
    return judge.judge(sharpen(judge.scene, METHODS[name](camera(judge.scene, sensor)), None))


def of_backend(task: Task, backend: Backend) -> Judged:
    return task.judge(sharpen(task.scene, backend, task.radiometry))


def judged(scene: ReducedScene, hrms: Float32, where: Mask) -> Judged:
    """A product, by the truth."""
    return {"ergas": ergas(scene.gt, hrms, scene.ratio, where), "sam": sam(scene.gt, hrms, where)}


class AtReducedResolution:
    """By Wald's protocol: the nearer to the scene's own MS, the better, by L1 in learning and ERGAS in judging."""

    rate = 3e-4

    def __init__(self, scene: ReducedScene, radiometry: Radiometry, where: torch.device) -> None:
        """Raises SceneError if the scene is too small to hold out a part of it."""
        self._scene, self.radiometry = scene, radiometry
        self.held_out = scene.valid & held_out(scene.valid.shape, scene.ratio * 4)
        learned = scene.valid & ~self.held_out
        demand_pixels(scene.name, self.held_out, learned)
        scaling = Scaling.of(radiometry, ArrayCanvas.of(scene.pan, scene.ms, scene.valid).moments)
        gt = (scene.gt - scaling.offset) / scaling.scale
        self._patches = Patches(scene, scaling, [gt, learned[None]], learned, where)

    @property
    def scene(self) -> ReducedScene:
        return self._scene

    def judge(self, hrms: Float32) -> Judged:
        return judged(self.scene, hrms, self.held_out)

    def merit(self, judged: Judged) -> float:
        return judged["ergas"]

    def loss(self, network: Network, known: Known, random: np.random.Generator) -> Tensor:
        pan, ms, gt, weight = self._patches.batch(random)
        return _mean((_fused(network, pan, ms, known) - gt).abs(), weight)


class AtFullResolution:
    """Seen by the MS camera, a product is to be the MS; and each band is to resemble the PAN as much as the MS
    resembles the blurred PAN, by their mean UIQI in blocks, neither less nor more.

    The first is Khan's consistency (2009), the second Alparone's D_s (2008); HQNR joins the two.
    """

    rate = 1e-3

    def __init__(self, scene: FullScene, radiometry: Radiometry, sensor: Sensor, where: torch.device) -> None:
        """Raises SceneError if the scene is too small to hold out a part of it."""
        self._scene, self.radiometry = scene, radiometry
        self._gains = [sensor.gain(band) for band in scene.band_names]
        rows, cols = (size // BLOCK for size in scene.valid.shape)
        whole = scene.valid[: rows * BLOCK, : cols * BLOCK].reshape(rows, BLOCK, cols, BLOCK).all(axis=(1, 3))
        self._held_out = whole & held_out((rows, cols), 1)
        learned = scene.valid & ~_enlarged(held_out((rows, cols), 1), scene.valid.shape)
        demand_pixels(scene.name, self._held_out, learned)
        scaling = Scaling.of(radiometry, ArrayCanvas.of(scene.pan, scene.ms, scene.valid).moments)
        exp, blurred = _seen_coarsely(scene)
        self._wanted = _resemblance(exp, blurred)
        images = [scene.pan, exp, blurred, learned[None]]
        self._patches = Patches(scene, scaling, images, learned, where)
        self._scale, self._offset = (torch.from_numpy(values).to(where) for values in (scaling.scale, scaling.offset))
        self._camera = Camera(scene.ratio, scene.phase).to(where)
        self._down = self._camera.taps(torch.tensor([self._gains], device=where))[0]

    @property
    def scene(self) -> FullScene:
        return self._scene

    def judge(self, hrms: Float32) -> Judged:
        scene = self.scene
        rows, cols = scene.ms.shape[1:]
        ms_valid = np.asarray(scene.valid.reshape(rows, scene.ratio, cols, scene.ratio).any(axis=(1, 3)))
        maps = full(
            ArrayImage(hrms, scene.valid), ArrayImage(scene.pan, scene.valid), ArrayImage(scene.ms, ms_valid),
            gains=self._gains, phase=scene.phase, metrics=("D_lambda_K",), maps=True,
        ).maps  # fmt: skip
        inconsistent = maps["D_lambda_K"]
        d_lambda_k = float(np.nanmean(inconsistent[self._held_out[: len(inconsistent), : inconsistent.shape[1]]]))
        change = (_resemblance(hrms, scene.pan) - self._wanted)[:, self._held_out]
        d_s = float(np.abs(change.mean(axis=1)).mean())
        return {"hqnr": (1 - d_lambda_k) * (1 - d_s), "d_lambda_k": d_lambda_k, "d_s": d_s}

    def merit(self, judged: Judged) -> float:
        return 1 - judged["hqnr"]

    def loss(self, network: Network, known: Known, random: np.random.Generator) -> Tensor:
        pan, ms, pan_dn, exp, blurred, learned = self._patches.batch(random)
        hrms = _fused(network, pan, ms, known)
        spectral = _mean((self._camera.see(hrms, self._down) - ms).abs(), avg_pool2d(learned, self.scene.ratio))
        change = uiqi(hrms * self._scale + self._offset, pan_dn) - uiqi(exp, blurred)
        return spectral + SPATIAL * _mean(change, avg_pool2d(learned, BLOCK), (0, 2, 3)).abs().mean()


def _seen_coarsely(scene: FullScene) -> tuple[npt.NDArray[np.floating], npt.NDArray[np.floating]]:
    """EXP, and the PAN brought down to the MS and up again, as D_s has them."""
    ratio, phase = scene.ratio, scene.phase
    rows, cols = (slice(0, size) for size in scene.valid.shape)
    exp = Expanded(ArrayImage(scene.ms), ratio, phase).read(rows, cols)[0]
    return exp, Expanded(Reduced(ArrayImage(scene.pan), ratio), ratio, phase).read(rows, cols)[0]


def held_out(shape: tuple[int, ...], least: int) -> Mask:
    """(H, W), True in one quarter of the blocks."""
    return np.asarray(quarters(shape, least) == 0)


def quarters(shape: tuple[int, ...], least: int) -> npt.NDArray[np.intp]:
    """(H, W): which quarter of the blocks a pixel is of; those of one are a knight's move apart. A block is at least so
    many pixels a side."""
    rows, cols = (np.arange(size) * max(1, min(BLOCKS, size // least)) // size for size in shape)
    return np.asarray((rows[:, None] + 2 * cols) % QUARTERS)


def _enlarged(blocks: Mask, shape: tuple[int, ...]) -> Mask:
    """`blocks` as pixels of an image; what lies beyond the last whole block is False."""
    pixels = np.zeros(shape, bool)
    pixels[: len(blocks) * BLOCK, : blocks.shape[1] * BLOCK] = blocks.repeat(BLOCK, 0).repeat(BLOCK, 1)
    return pixels


def demand_pixels(name: str, *parts: Mask) -> None:
    """Raises SceneError unless there are two parts, and something in each."""
    if len(parts) < 2 or not all(part.any() for part in parts):
        raise SceneError(f"{name} is too small, or has too little data, to hold out a part of it")


def _fused(network: Network, pan: Tensor, ms: Tensor, known: Known) -> Tensor:
    count = len(pan)
    return network.fuse(pan, ms, OverCrops(count, 1, {name: v.expand(count, -1) for name, v in known.items()}))


def _mean(values: Tensor, weight: Tensor, axes: tuple[int, ...] = (0, 1, 2, 3)) -> Tensor:
    """Over `axes` of values (N, B, H, W), where the weight (N, 1, H, W) is 1."""
    whole = (weight == 1).to(values.dtype).expand_as(values)
    return (whole * values).sum(axes) / whole.sum(axes).clamp(min=1)


def uiqi(image: Tensor, pan: Tensor) -> Tensor:
    """UIQI (Wang and Bovik 2002) of each band (N, B, H, W) with the PAN (N, 1, H, W), in blocks: (N, B, rows, cols)."""

    x, y = _blocks(image), _blocks(pan)
    mean_x, mean_y = x.mean(-1), y.mean(-1)
    x, y = x - mean_x[..., None], y - mean_y[..., None]
    least = torch.finfo(x.dtype).eps  # where both are flat, or zero
    variances, levels = (x * x).mean(-1) + (y * y).mean(-1), mean_x**2 + mean_y**2
    return 4 * (x * y).mean(-1) * mean_x * mean_y / ((variances + least) * (levels + least))


def _resemblance(image: npt.NDArray[np.floating], pan: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """UIQI of the bands of a whole image with a PAN (1, H, W): (bands, rows, cols) of blocks."""
    found = uiqi(*(torch.from_numpy(pixels.astype(np.float64))[None] for pixels in (image, pan)))
    return np.asarray(found[0].numpy())


def _blocks(image: Tensor) -> Tensor:
    """(N, B, H, W) -> (N, B, rows, cols, pixels of a block)."""
    rows, cols = (size // BLOCK for size in image.shape[2:])
    whole = image[..., : rows * BLOCK, : cols * BLOCK]
    return whole.reshape(*image.shape[:2], rows, BLOCK, cols, BLOCK).transpose(3, 4).flatten(4)


class Patches:
    """Random patches of one scene: PAN and MS in network units, then `more` images on the PAN's grid.

    They are turned and mirrored, and begin on whole MS pixels; at least a part of each is `learned`.
    """

    def __init__(
        self, scene: ReducedScene | FullScene, scaling: Scaling, more: Sequence[npt.NDArray[Any]], learned: Mask,
        where: torch.device,
    ) -> None:  # fmt: skip
        images = (*scaling.to_network(scene.pan, scene.ms), *more)
        self._images = [torch.from_numpy(np.ascontiguousarray(image, np.float32)).to(where) for image in images]
        self._ratio = ratio = scene.ratio
        rows, cols = scene.ms.shape[1:]
        self._low = low = min(PATCH // ratio, rows, cols)
        blocks = learned.reshape(rows, ratio, cols, ratio).any(axis=(1, 3))
        seen = np.lib.stride_tricks.sliding_window_view(blocks, (low, low)).mean(axis=(2, 3))
        self._corners = np.argwhere(seen >= min(0.25, float(seen.max())))

    def batch(self, random: np.random.Generator) -> list[Tensor]:
        """The images in their order, (N, their bands, P, P), the MS (N, bands, p, p)."""
        samples = [self._sample(random) for _ in range(BATCH)]
        return [torch.stack(images) for images in zip(*samples, strict=True)]

    def _sample(self, random: np.random.Generator) -> list[Tensor]:
        row, col = random.choice(self._corners)
        turns, mirror = random.integers(4), random.integers(2)
        sample = []
        for number, image in enumerate(self._images):
            scale = 1 if number == 1 else self._ratio
            size = scale * self._low
            part = image[:, scale * row : scale * row + size, scale * col : scale * col + size]
            part = torch.rot90(part, int(turns), (1, 2))
            sample.append(part.flip(2) if mirror else part)
        return sample
