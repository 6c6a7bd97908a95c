"""How good a network is on whole scenes that it does not learn from, beside the classical methods."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pansharpen_cli.backends.backend import Backend
from pansharpen_cli.backends.torch_backend import TorchBackend
from pansharpen_cli.classical import METHODS
from pansharpen_cli.evaluation.assessment import Measures, camera, measure, sharpen
from pansharpen_cli.imaging.radiometry import Radiometry
from pansharpen_cli.imaging.wald import ReducedScene
from pansharpen_cli.networks.network import Network
from pansharpen_cli.training.prepare import Prepared

Float32 = npt.NDArray[np.float32]

METRICS = Measures(("ERGAS", "SAM", "Q2n"))


@dataclass(frozen=True)
class Scores:
    """Means over scenes, SAM in degrees. Q2n is NaN where the data are normalised or smaller than its blocks."""

    ergas: float
    sam: float
    q2n: float

    def as_dict(self) -> dict[str, float]:
        """Those that are numbers."""
        return {name: value for name, value in asdict(self).items() if math.isfinite(value)}


class Validation:
    """Scenes to judge by. `build` makes the network for a number of bands, `crop` is the size of training patches."""

    def __init__(
        self,
        scenes: Sequence[Prepared],
        build: Callable[[int], Network],
        radiometry: Radiometry,
        crop: int,
        where: torch.device,
    ) -> None:
        self.scenes, self._radiometry = scenes, radiometry
        counts = {len(scene.bands) for scene in scenes}
        self._networks = {count: build(count) for count in counts}
        self._backends = {count: TorchBackend(network, crop, where) for count, network in self._networks.items()}

    def classical(self, on_scene: Callable[[int, int], None] = lambda done, total: None) -> dict[str, Scores]:
        """The scores of every classical method."""
        values: dict[str, list[Scores]] = {name: [] for name in METHODS}
        for done, prepared in enumerate(self.scenes, start=1):
            scene = prepared.open()
            for name, method in METHODS.items():
                backend = method(camera(scene, prepared.sensor))
                values[name].append(_scores(prepared, scene, sharpen(scene, backend, None)))
            on_scene(done, len(self.scenes))
        return {name: _mean(scores) for name, scores in values.items()}

    def __call__(self, weights: Mapping[str, Tensor]) -> Scores:
        """The scores of the network with these weights."""
        values = []
        for prepared in self.scenes:
            scene = prepared.open()
            values.append(_scores(prepared, scene, self.sharpen(prepared, scene, weights)))
        return _mean(values)

    def sharpen(self, prepared: Prepared, scene: ReducedScene, weights: Mapping[str, Tensor]) -> Float32:
        """HRMS (bands, H, W) in DN, as a product would be made."""
        network = self._networks[len(prepared.bands)]
        network.load_state_dict(weights)
        network.set_camera([prepared.sensor.gain(band) for band in prepared.bands])
        backend: Backend = self._backends[len(prepared.bands)]
        return sharpen(scene, backend, self._radiometry)


def exp(prepared: Prepared, scene: ReducedScene) -> Float32:
    """The MS interpolated to the PAN grid, (bands, H, W) in DN."""
    return sharpen(scene, METHODS["exp"](camera(scene, prepared.sensor)), None)


def _scores(prepared: Prepared, scene: ReducedScene, hrms: Float32) -> Scores:
    found = measure(scene, hrms, prepared.sensor, METRICS)
    values = (found[name].value for name in METRICS.metrics)
    return Scores(*(math.nan if value is None else value for value in values))


def _mean(scores: Sequence[Scores]) -> Scores:
    q2n = [score.q2n for score in scores if math.isfinite(score.q2n)]
    ergas, sam = (fmean(values) for values in ([s.ergas for s in scores], [s.sam for s in scores]))
    return Scores(ergas, sam, fmean(q2n) if q2n else math.nan)
