"""Training samples by Wald's protocol: each patch has its scene's own MS as the truth. Drawn when they are needed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from pansharpen_cli.errors import SceneError, UsageError
from pansharpen_cli.imaging.radiometry import Radiometry, Scaling
from pansharpen_cli.imaging.wald import ReducedScene
from pansharpen_cli.training.cameras import Facts, other_pan
from pansharpen_cli.training.prepare import Prepared

Float32 = npt.NDArray[np.float32]


class Sample(NamedTuple):
    """A patch in network units, or a batch of them with one more axis in front.

    `pan` (1, P, P), `ms` (bands, p, p), `gt` (bands, P, P). Known of the whole scene, (bands,) each: `gains`, the MTF
    of its MS camera, and its `haze`.
    """

    pan: Float32
    ms: Float32
    gt: Float32
    gains: Float32
    haze: Float32


class Patches:
    """Random patches of many scenes. A batch depends on (seed, step) alone, so that a resumed run goes on exactly."""

    def __init__(
        self,
        scenes: Sequence[Prepared],
        radiometry: Radiometry,
        patch: int,
        seed: int,
        *,
        bands: int | None = None,
        turns: bool = True,
        crops: int = 1,
        other_pans: bool = False,
    ) -> None:
        """`patch`: pixels a side of the truth, a multiple of the ratio; `bands`: so many of a scene's bands, drawn at
        random, for a sample (None: all); `turns`: turned and mirrored at random; `crops`: so many neighbours in a batch
        are of one scene; `other_pans`: see `cameras.other_pan`."""
        self.patch, self.seed = patch, seed
        self._scenes, self._radiometry = scenes, radiometry
        self._bands, self._turns, self._crops, self._other_pans = bands, turns, crops, other_pans
        self._facts: dict[Prepared, Facts] = {}
        counts = np.array([len(scene.corners) for scene in scenes])
        if not counts.sum():
            raise SceneError(
                f"no scene has a usable patch of {patch} MS pixels a side; give larger scenes or another --recipe"
            )
        small = next((scene for scene in scenes if 0 < len(scene.corners) < crops), None)
        if small:
            raise UsageError(
                f"--crops-per-scene {crops} finds {len(small.corners)} patches in {small.name}; take fewer"
            )
        self._ends = np.cumsum(counts)

    def __len__(self) -> int:
        return int(self._ends[-1])

    def batch(self, step: int, size: int, rank: int = 0, ranks: int = 1) -> Sample:
        """The batch of `size` patches for a `step`; of several `ranks`, each has its share of every batch."""
        groups = range(rank, size // self._crops, ranks)
        randoms = (np.random.default_rng((self.seed, step, group)) for group in groups)
        samples = (sample for random in randoms for sample in self._group(random))
        return Sample(*(np.stack(images) for images in zip(*samples, strict=True)))

    def _group(self, random: np.random.Generator) -> Iterator[Sample]:
        """Patches of one scene: the first one of all patches alike, so that a large scene is drawn more often."""
        first = int(random.integers(len(self)))
        number = int(np.searchsorted(self._ends, first, side="right"))
        prepared = self._scenes[number]
        corners = [prepared.corners[first - self._ends[number]]]
        corners += list(prepared.corners[random.integers(len(prepared.corners), size=self._crops - 1)])
        scene = prepared.open()
        order = np.arange(len(scene.band_names))
        if self._bands:
            order = random.choice(order, self._bands, replace=False)
        scaling = Scaling.of(self._radiometry, prepared.moments.of_bands(order.tolist()))
        gains = np.array([prepared.sensor.gain(scene.band_names[index]) for index in order], np.float32)
        if prepared not in self._facts:
            self._facts[prepared] = Facts.of(scene)
        haze, covariance = self._facts[prepared].of_bands(order, scaling)
        camera = int(random.integers(2**32))  # one for all crops of the scene
        for corner in corners:
            pan, ms, gt = self._cut(scene, self._moved(scene, corner, random), order)
            pan, ms = scaling.to_network(pan, ms)
            gt = (gt - scaling.offset) / scaling.scale
            if self._other_pans:
                pan = other_pan(pan, gt, covariance, np.random.default_rng(camera))
            pan, ms, gt = self._turned((pan, ms, gt), scene, random)
            yield Sample(pan, ms, gt, gains, haze)

    def _moved(
        self, scene: ReducedScene, corner: npt.NDArray[np.int32], random: np.random.Generator
    ) -> tuple[int, int]:
        """A place near a corner: they are not limited to the stride. The corner itself where there would be a gap."""
        low = self.patch // scene.ratio
        near = corner + scene.ratio * random.integers(-(low // 4), low // 4 + 1, size=2)
        row, col = np.clip(near, 0, np.array(scene.valid.shape) - self.patch).tolist()
        if scene.valid[row : row + self.patch, col : col + self.patch].all():
            return row, col
        return int(corner[0]), int(corner[1])

    def _cut(
        self, scene: ReducedScene, corner: tuple[int, int], order: npt.NDArray[np.intp]
    ) -> tuple[Float32, Float32, Float32]:
        fine = tuple(slice(start, start + self.patch) for start in corner)
        coarse = tuple(slice(s.start // scene.ratio, s.stop // scene.ratio) for s in fine)
        return scene.pan[:, *fine], scene.ms[:, *coarse][order], scene.gt[:, *fine][order]

    def _turned(
        self, images: tuple[Float32, Float32, Float32], scene: ReducedScene, random: np.random.Generator
    ) -> Iterator[Float32]:
        turns, mirror = random.integers(4, size=2).tolist()
        for image in images:
            if not self._turns:
                turned = image
            elif scene.geometry == "area":
                turned = np.rot90(image[:, :, :: -1 if mirror % 2 else 1], turns, axes=(1, 2))
            else:  # only this leaves MS sample i on PAN index ratio * i + ratio / 2
                turned = image.swapaxes(1, 2) if mirror % 2 else image
            yield np.ascontiguousarray(turned)
