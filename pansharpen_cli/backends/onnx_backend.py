"""An exported network in onnxruntime, on the CPU or a GPU."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt

from pansharpen_cli.backends.backend import MOST_AT_ONCE
from pansharpen_cli.backends.onnx_file import OnnxFile
from pansharpen_cli.backends.onnx_runtime import Place, brief, onnxruntime, session
from pansharpen_cli.errors import DeviceError, ModelError
from pansharpen_cli.imaging.tiling import Pixels

Float32 = npt.NDArray[np.float32]

IMAGES = ("pan", "ms")
OUTPUT = "hrms"
GAINS = "gains"
"""The scene statistic that is not observed: MTF gains of the scene's camera, (1, bands)."""


class OnnxBackend:
    """Sharpens tiles with an exported network; its global values are frozen by `observe`. Tiles may come from several
    threads.

    `gains`: the camera's MTF gain in each band, as for `Network.set_camera`.
    Raises ModelError if the file does not hold what `pansharpen export` writes.
    """

    def __init__(self, model: OnnxFile, where: Place, gains: Sequence[float]) -> None:
        spec = model.spec
        if model.bands and model.bands != len(gains):
            raise ModelError(
                f"{model.path} was exported for {model.bands} bands, and there are {len(gains)}; export it for these"
            )
        self._model, self._where = model, where
        self._apply = self._session(model.content, where)
        self._observe = None if model.observer is None else self._session(model.observer, where)
        self._sharing, self._lock = 1, Lock()
        self._statistics: dict[str, Any] = {}
        self._freeze({GAINS: np.array([gains], np.float32)})
        self._check()
        self.at_once = min(where.threads, MOST_AT_ONCE) if where.kind == "cpu" else 1
        self.crop: int | None = spec.crop if self._observe else 0
        self.reach = spec.reach

    def share(self, threads: int) -> None:
        """A session has its threads for all who call it: those who share it get one that leaves the work to them."""
        with self._lock:
            if threads != self._sharing:
                own = replace(self._where, threads=max(1, self._where.threads // threads))
                self._apply, self._sharing = self._session(self._model.content, own), threads

    def observe(self, tiles: Iterable[Pixels]) -> None:
        assert self._observe is not None
        pan, ms = (np.stack(images) for images in zip(*((tile.pan, tile.ms) for tile in tiles), strict=True))
        names = [output.name for output in self._observe.get_outputs()]
        try:
            values = self._observe.run(names, dict(zip(IMAGES, (pan, ms), strict=True)))
        except Exception as error:  # it raises many kinds, none of them documented
            raise ModelError(f"{self._model.path} failed to observe the scene: {brief(error)}") from error
        self._freeze(dict(zip(names, values, strict=True)))

    def __call__(self, pan: Float32, ms: Float32) -> Float32:
        apply = self._apply
        binding = apply.io_binding()
        for name, image in zip(IMAGES, (pan, ms), strict=True):
            binding.bind_cpu_input(name, np.ascontiguousarray(image[None], np.float32))
        for name, value in self._statistics.items():
            binding.bind_ortvalue_input(name, value)
        binding.bind_output(OUTPUT)
        try:
            apply.run_with_iobinding(binding)
        except Exception as error:
            raise ModelError(f"{self._model.path} failed on a tile: {brief(error)}") from error
        hrms = binding.copy_outputs_to_cpu()[0]
        wanted = (1, len(ms), *pan.shape[1:])
        if hrms.shape != wanted:
            raise ModelError(
                f"{self._model.path} gives an image of {hrms.shape} for a tile of {wanted}; export the model again"
            )
        tile: Float32 = hrms[0]
        return tile

    def _session(self, content: bytes, where: Place) -> Any:
        try:
            return session(content, where, self._model.path.parent)
        except ModelError as error:
            raise ModelError(f"{self._model.path} cannot be used: {error}; export it again") from error
        except DeviceError as error:
            raise DeviceError(f"{self._model.path} does not run on {where}: {error}") from error

    def _freeze(self, values: dict[str, Float32]) -> None:
        """Put statistics that the graph asks for where it runs, once: they do not travel with every tile."""
        ort = onnxruntime()
        device = "cpu" if self._where.kind == "cpu" else "cuda"
        wanted = {given.name for given in self._apply.get_inputs()}
        for name, value in values.items():
            if name in wanted:
                self._statistics[name] = ort.OrtValue.ortvalue_from_numpy(value, device, self._where.index)

    def _check(self) -> None:
        """The graph takes images and statistics that there will be, and gives HRMS."""
        observed = {output.name for output in self._observe.get_outputs()} if self._observe else set()
        inputs = {given.name: given for given in self._apply.get_inputs()}
        outputs = [(given.name, given.type) for given in self._apply.get_outputs()]
        unknown = inputs.keys() - {*IMAGES, GAINS, *observed}
        images = all(name in inputs and len(inputs[name].shape) == 4 for name in IMAGES)
        if unknown or not images or outputs != [(OUTPUT, "tensor(float)")]:
            raise ModelError(f"{self._model.path} does not take pan and ms and give hrms; export the model again")
