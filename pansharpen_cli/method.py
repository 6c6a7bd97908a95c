"""Which method sharpens a scene: a model of the zoo or a classical one, and why."""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from pansharpen_cli import zoo
from pansharpen_cli.backends.backend import MOST_AT_ONCE, Backend
from pansharpen_cli.backends.onnx_file import OnnxFile
from pansharpen_cli.classical import METHODS
from pansharpen_cli.classical.camera import Camera
from pansharpen_cli.errors import DeviceError, ModelError
from pansharpen_cli.imaging.interpolation import area_phase
from pansharpen_cli.imaging.mtf import Sensor
from pansharpen_cli.imaging.radiometry import Radiometry
from pansharpen_cli.inputs.scene import RATIO_TOLERANCE
from pansharpen_cli.modelspec import WAVELENGTHS, canonical_band
from pansharpen_cli.system.concurrency import cores

log = logging.getLogger(__name__)

BackendName = Literal["auto", "torch", "onnx"]

FALLBACK = "mtf-glp-fs"
"""The classical method that `auto` takes where no model fits: the best of them on the validation scenes."""


class Subject(Protocol):
    """What must be known of a scene, or of a scene at reduced resolution, to choose a method for it."""

    @property
    def band_names(self) -> Sequence[str]: ...

    @property
    def exact_ratio(self) -> float: ...

    @property
    def ratio(self) -> int: ...


@dataclass(frozen=True)
class Means:
    """What computes a product: the backend's name, its device, the precision, and the SHA-256 of the model's file."""

    backend: str
    device: str
    precision: str = "float32"
    sha256: str = ""


@dataclass(frozen=True)
class Method:
    """A method chosen for a scene; `model` is None for a classical one.

    `order`: the scene's index of each band the method works on.
    """

    name: str
    reason: str
    ratio: int
    phase: float
    order: tuple[int, ...]
    model: zoo.Model | None = None

    @property
    def radiometry(self) -> Radiometry | None:
        """The units it works in; None is DN."""
        return self.model.spec.radiometry if self.model else None

    def _by_onnx(self, name: BackendName) -> bool:
        """Whether the backend called so computes it in onnxruntime."""
        return self.model is not None and (name == "onnx" or (name == "auto" and self.model.lone is not None))

    def onnx(self, name: BackendName) -> OnnxFile | None:
        """The file that the backend called so computes from; None: none, or one that is made for the run."""
        return self.model.onnx() if self.model and self._by_onnx(name) else None

    def load(self, device: str, name: BackendName = "auto") -> None:
        """Loads what `backend` needs and what takes seconds, to be done beside other work. Raises DeviceError."""
        if self.model is None:
            return
        if self._by_onnx(name):
            from pansharpen_cli.backends import onnx_runtime

            onnx_runtime.onnxruntime()
        else:
            from pansharpen_cli.backends import torch_backend

            torch_backend.load(device)

    def backend(
        self, scene: Subject, sensor: Sensor, device: str, threads: int = 0, name: BackendName = "auto"
    ) -> tuple[Backend, Means]:
        """The backend for a scene, and what it is; `threads` of the CPU, 0: as many as there are.

        `name` "auto" is torch where a model has weights for it: on a CPU it is the faster one (docs/onnx.md).
        Raises DeviceError or ModelError if the device or the backend that is asked for cannot be used.
        """
        bands = [canonical_band(name) for name in scene.band_names]
        if self.model is None:
            if device not in ("auto", "cpu") or name != "auto":
                wanted = f"--backend {name}" if name != "auto" else f"--device {device}"
                raise DeviceError(f"{wanted} cannot run {self.name}; classical methods run on the cpu by themselves")
            classical = METHODS[self.name](Camera.of_scene(self.ratio, bands, sensor))
            classical.at_once = min(threads or cores(), MOST_AT_ONCE)
            return classical, Means("classical", "cpu")
        gains = [sensor.gain(bands[index]) for index in self.order]
        if self._by_onnx(name):
            return _in_onnxruntime(self.model, device, threads, gains)
        return _in_torch(self.model, device, threads, gains)


def _in_torch(model: zoo.Model, device: str, threads: int, gains: Sequence[float]) -> tuple[Backend, Means]:
    from pansharpen_cli.backends import torch_backend

    where = torch_backend.device(device)
    network = model.load(len(gains))
    network.set_camera(gains)
    means = Means("torch", str(where), sha256=model.spec.weights_sha256)
    return torch_backend.TorchBackend(network, model.spec.crop, where, threads), means


def _in_onnxruntime(model: zoo.Model, device: str, threads: int, gains: Sequence[float]) -> tuple[Backend, Means]:
    from pansharpen_cli.backends import onnx_backend, onnx_runtime

    where = onnx_runtime.place(device, threads)
    file = model.onnx() or _exported_now(model, len(gains))
    backend = onnx_backend.OnnxBackend(file, where, gains)
    return backend, Means("onnx", str(where), file.precision, file.sha256)


def _exported_now(model: zoo.Model, bands: int) -> OnnxFile:
    """The model's ONNX file, made for this run alone."""
    from pansharpen_cli.backends import export

    keep = f"`pansharpen export {model.name} -o {model.folder / zoo.ONNX}`"
    if export.missing():
        raise ModelError(f"{model.name} has no {zoo.ONNX}; make one where the extra `export` is installed: {keep}")
    log.info("%s is exported for this run, which takes some minutes; %s does it once for all", model.name, keep)
    with tempfile.TemporaryDirectory() as folder:
        return export.export_model(model, Path(folder) / zoo.ONNX, bands=bands)


def choose(name: str, scene: Subject) -> Method:
    """The method called `name`, or for "auto" the best that fits the scene.

    Raises ModelError if there is none of that name, or if it does not fit: with the reason and what would fit.
    """
    if name in METHODS:
        return _classical(name, "as asked", scene)
    if name == "auto":
        best = best_of([model for model in _fitting(scene) if _known_to_fit(model, scene)])
        if best is None:
            bands = ", ".join(scene.band_names)
            return _classical(FALLBACK, f"no model fits {bands} at ratio {scene.exact_ratio:.3g}", scene)
        return _model(best, "the best score of the models that fit", scene)
    model = zoo.find(name, besides=METHODS)
    misfit = _misfit(model, scene)
    if misfit is not None:
        others = ", ".join([other.name for other in _fitting(scene)] + list(METHODS))
        raise ModelError(f"{model.name} does not fit this scene: {misfit}; these would: {others}")
    return _model(model, "as asked", scene)


def _fitting(scene: Subject) -> list[zoo.Model]:
    return [model for model in zoo.models() if _misfit(model, scene) is None]


def _classical(name: str, reason: str, scene: Subject) -> Method:
    if abs(scene.exact_ratio / scene.ratio - 1) > RATIO_TOLERANCE:
        log.info("pixels of the MS are %.3g PAN pixels: it is interpolated to %d", scene.exact_ratio, scene.ratio)
    return Method(name, reason, scene.ratio, area_phase(scene.ratio), tuple(range(len(scene.band_names))))


def _model(model: zoo.Model, reason: str, scene: Subject) -> Method:
    order = _order(model, scene) or list(range(len(scene.band_names)))
    if model.spec.bands and (_order(model, scene) is None or not _named(scene)):
        log.warning(
            "the bands %s are taken as %s, in this order; --band-names says otherwise",
            ", ".join(scene.band_names),
            ", ".join(model.spec.band_names),
        )
    return Method(model.name, reason, model.spec.ratio, model.spec.phase, tuple(order), model)


def _misfit(model: zoo.Model, scene: Subject) -> str | None:
    guide = model.spec.options.get("guide_bands", 1)
    if guide != 1:
        return f"it wants a guide of {guide} bands, and a PAN has one"
    return model.spec.misfit(len(scene.band_names), scene.exact_ratio, RATIO_TOLERANCE)


def _known_to_fit(model: zoo.Model, scene: Subject) -> bool:
    """Of bands without names the order would be a guess, and a model fitted to one scene may be worse on another."""
    sure_of_bands = not model.spec.bands or (_named(scene) and _order(model, scene) is not None)
    return sure_of_bands and not model.spec.of_one_scene


def _order(model: zoo.Model, scene: Subject) -> list[int] | None:
    """Where the model's bands stand in the scene; a scene that names no band is taken to have the model's order."""
    if not _named(scene):
        return list(range(len(scene.band_names)))
    return model.spec.order_of([canonical_band(name) for name in scene.band_names])


def _named(scene: Subject) -> bool:
    return any(canonical_band(name) in WAVELENGTHS for name in scene.band_names)


def best_of(fitting: Sequence[zoo.Model]) -> zoo.Model | None:
    """By ERGAS relative to EXP's on the same scenes, which is comparable: in the geometric mean over scenes that all
    were judged on and none learned from. Without such scenes a model for these very bands comes before one of any."""
    judged = {model.name: _relative(model, model.spec.elsewhere) for model in fitting}
    shared = set.intersection(*map(set, judged.values())) if judged else set()

    def score(model: zoo.Model) -> tuple[bool, float]:
        if shared:
            return False, math.prod(judged[model.name][title] for title in shared)
        return not model.spec.bands, _relative(model, {"": model.spec.scores}).get("", math.inf)

    return min(fitting, key=score, default=None)


def _relative(model: zoo.Model, tables: Mapping[str, Mapping[str, Mapping[str, float]]]) -> dict[str, float]:
    """The model's ERGAS by that of EXP, by the titles of tables that have both."""
    return {
        title: table[model.name]["ergas"] / table["exp"]["ergas"]
        for title, table in tables.items()
        if model.name in table and "exp" in table
    }
