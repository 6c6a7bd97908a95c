"""Training samples from real scenes by Wald's protocol: each patch has the scene's own MS as its truth."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pansharpen_cli.canvas import ArrayCanvas
from pansharpen_cli.errors import SceneError
from pansharpen_cli.radiometry import Radiometry, Scaling
from pansharpen_cli.wald import ReducedScene

Float32 = npt.NDArray[np.float32]

FLAT = 0.02
"""A patch whose truth varies by less than this (in units of the scene's own deviation) teaches nothing."""

STRIDE = 0.5
"""Patches overlap by half; an epoch draws as many as there are."""


@dataclass(frozen=True, eq=False)
class _Source:
    """A reduced scene in network units, and the upper left corners of its useful patches (in MS pixels)."""

    pan: Float32
    ms: Float32
    gt: Float32
    corners: npt.NDArray[np.intp]


class Patches:
    """Random patches of many scenes. A batch depends on (seed, step) alone, so that a resumed run goes on exactly."""

    def __init__(self, scenes: Iterable[ReducedScene], radiometry: Radiometry, patch: int, seed: int) -> None:
        self.patch, self.seed = patch, seed
        self._sources = [_source(scene, radiometry, patch) for scene in scenes]
        counts = [len(source.corners) for source in self._sources]
        if not sum(counts):
            raise SceneError(
                f"no scene has a usable patch of {patch} PAN pixels; give larger scenes or a smaller patch"
            )
        self._ends = np.cumsum(counts)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def batch(self, step: int, size: int) -> tuple[Float32, Float32, Float32]:
        """pan (size, 1, P, P), ms (size, bands, p, p), gt (size, bands, P, P), each turned and mirrored at random."""
        random = np.random.default_rng((self.seed, step))
        picks = random.integers(len(self), size=size)
        samples = [self._sample(int(pick), random) for pick in picks]
        pan, ms, gt = (np.stack(images) for images in zip(*samples, strict=True))
        return pan, ms, gt

    def _sample(self, index: int, random: np.random.Generator) -> tuple[Float32, Float32, Float32]:
        number = int(np.searchsorted(self._ends, index, side="right"))
        source = self._sources[number]
        ratio = source.pan.shape[-1] // source.ms.shape[-1]
        low = self.patch // ratio
        # any corner near the chosen one: positions are not limited to the stride
        corner = source.corners[index - self._ends[number]] + random.integers(-(low // 4), low // 4 + 1, size=2)
        row, col = np.clip(corner, 0, np.array(source.ms.shape[-2:]) - low)
        fine = slice(row * ratio, (row + low) * ratio), slice(col * ratio, (col + low) * ratio)
        images = (source.pan[:, *fine], source.ms[:, row : row + low, col : col + low], source.gt[:, *fine])
        turns, mirror = random.integers(4, size=2).tolist()
        turned = (np.rot90(image, turns, axes=(1, 2)) for image in images)
        pan, ms, gt = (np.ascontiguousarray(image[:, :, ::-1] if mirror % 2 else image) for image in turned)
        return pan, ms, gt


def _source(scene: ReducedScene, radiometry: Radiometry, patch: int) -> _Source:
    canvas = ArrayCanvas.of(scene.pan, scene.ms, scene.valid)
    scaling = Scaling.of(radiometry, canvas.moments)
    pan, ms = scaling.to_network(scene.pan, scene.ms)
    gt = (scene.gt - scaling.offset) / scaling.scale
    low = patch // scene.ratio
    step = max(1, int(low * STRIDE))
    rows, cols = (range(0, size - low + 1, step) for size in ms.shape[1:])
    corners = [(row, col) for row in rows for col in cols if _useful(scene, gt, row, col, low)]
    return _Source(pan, ms, gt, np.array(corners, dtype=np.intp).reshape(-1, 2))


def _useful(scene: ReducedScene, gt: Float32, row: int, col: int, low: int) -> bool:
    fine = tuple(slice(start * scene.ratio, (start + low) * scene.ratio) for start in (row, col))
    return bool(scene.valid[fine].all() and gt[(slice(None), *fine)].std(axis=(1, 2)).max() > FLAT)
