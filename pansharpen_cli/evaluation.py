"""Wald's protocol on reduced scenes: how near a method comes to a truth that it has not seen."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from pansharpen_cli.backends.backend import Backend
from pansharpen_cli.backends.sharpener import Sharpener
from pansharpen_cli.canvas import ArrayCanvas
from pansharpen_cli.classical import METHODS
from pansharpen_cli.classical.camera import Camera
from pansharpen_cli.classical.method import Method
from pansharpen_cli.metrics.reduced_resolution import ergas, sam
from pansharpen_cli.mtf import Sensor
from pansharpen_cli.radiometry import Radiometry
from pansharpen_cli.tiling import Span, Tile
from pansharpen_cli.wald import ReducedScene


@dataclass(frozen=True)
class Scores:
    """Means over scenes."""

    ergas: float
    sam: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


def sharpen(
    scene: ReducedScene, backend: Backend, radiometry: Radiometry | None, order: tuple[int, ...] | None = None
) -> npt.NDArray[np.float32]:
    """HRMS of a reduced scene in DN, (bands, H, W): as a product would be made, in one tile.

    `order`: the scene's index of each band that the backend works on.
    """
    canvas = ArrayCanvas.of(scene.pan, scene.ms, scene.valid, backend.reach)
    size = max(canvas.rows.size, canvas.cols.size)
    order = order or tuple(range(len(scene.band_names)))
    sharpener = Sharpener.observing(backend, radiometry, canvas, order, size)
    whole = Tile(*(Span(0, axis.stop, 0, axis.size) for axis in (canvas.rows, canvas.cols)))
    return sharpener(canvas.read(whole))


def score(
    backend: Callable[[ReducedScene], Backend], radiometry: Radiometry | None, scenes: Sequence[ReducedScene]
) -> Scores:
    """Mean ERGAS and SAM (degrees) over scenes; `backend` makes one for each."""
    values = []
    for scene in scenes:
        hrms = sharpen(scene, backend(scene), radiometry)
        values.append((ergas(scene.gt, hrms, scene.ratio, scene.valid), sam(scene.gt, hrms, scene.valid)))
    return Scores(*np.mean(values, axis=0).tolist())


def classical_scores(scenes: Sequence[ReducedScene], sensor: Sensor) -> dict[str, Scores]:
    """The classical methods on the same scenes, to compare with."""

    def made_by(method: type[Method]) -> Callable[[ReducedScene], Backend]:
        return lambda scene: method(Camera.of_scene(scene.ratio, scene.band_names, sensor))

    return {name: score(made_by(method), None, scenes) for name, method in METHODS.items()}
