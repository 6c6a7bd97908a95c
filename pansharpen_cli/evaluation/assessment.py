"""How good methods are on the same scenes: against a truth that they have not seen, by Wald's protocol or given, or at
full resolution without one. `compare` is the story of `eval`.

Scenes are held in memory, one at a time with one product: at least 4 (3 bands + 2) bytes a PAN pixel; excerpts stand
for larger ones.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from affine import Affine

from pansharpen_cli import zoo
from pansharpen_cli.backends.backend import Backend
from pansharpen_cli.backends.sharpener import Sharpener
from pansharpen_cli.classical import METHODS
from pansharpen_cli.classical.camera import Camera
from pansharpen_cli.classical.method import Method
from pansharpen_cli.errors import ModelError, PansharpenError, SceneError, UsageError
from pansharpen_cli.evaluation.sources import Source
from pansharpen_cli.evaluation.tables import Comparison, Result
from pansharpen_cli.imaging.geogrid import GeoGrid
from pansharpen_cli.imaging.interpolation import Array, sample
from pansharpen_cli.imaging.mtf import Sensor
from pansharpen_cli.imaging.radiometry import Radiometry
from pansharpen_cli.imaging.wald import Excerpts, FullScene, ReducedScene
from pansharpen_cli.inputs.canvas import ArrayCanvas
from pansharpen_cli.method import choose
from pansharpen_cli.metrics import FULL, OPTIONAL, PRESETS, REDUCED, ArrayImage, Score, full, reduced, units
from pansharpen_cli.metrics.reduced_resolution import ergas, sam
from pansharpen_cli.metrics.streaming import BLOCK
from pansharpen_cli.metrics.units import InDn
from pansharpen_cli.outputs.writer import ProductWriter

log = logging.getLogger(__name__)

Float32 = npt.NDArray[np.float32]
AnyScene = ReducedScene | FullScene

DEFAULT_MODELS = tuple(name for name in ("auto", "exp", "gsa", "mtf-glp-fs", "bdsd-pc") if name in {"auto", *METHODS})
NEED_MAXVAL = ("PSNR", "SSIM")
ON_REQUEST = ("CC", "RMSE")
"""Metrics that make a table wide and tell little."""
TOOLBOX_MAXVAL = 2047.0
"""The largest DN of 11 bits, which the published protocols take."""
TILE = 1024
"""PAN pixels a side of the tiles in which a scene is sharpened."""


@dataclass(frozen=True)
class Scores:
    """Means over scenes."""

    ergas: float
    sam: float

    def as_dict(self) -> dict[str, float]:
        return asdict(self)


@dataclass(frozen=True)
class Measures:
    """What is measured: `metrics` that need a truth, or that need none; `protocol`: the border cut, one of PRESETS;
    `maxval`: the largest DN of the sensor, if known."""

    metrics: tuple[str, ...]
    protocol: str = "none"
    maxval: float | None = None

    @classmethod
    def of(
        cls, names: Sequence[str] | None, *, full: bool = False, protocol: str = "none", maxval: float | None = None
    ) -> Measures:
        """Metrics by their `names`, in any case; None: the usual ones. Raises UsageError for unknown ones."""
        if protocol not in PRESETS:
            raise UsageError(f"--protocol knows {', '.join(PRESETS)}, not {protocol!r}")
        if maxval is None and protocol != "none":
            maxval = TOOLBOX_MAXVAL
        if names is None:
            wide = ON_REQUEST if maxval is not None else (*ON_REQUEST, *NEED_MAXVAL)
            return cls(FULL if full else tuple(name for name in REDUCED if name not in wide), protocol, maxval)
        known = {name.lower(): name for name in ((*FULL, *OPTIONAL) if full else REDUCED)}
        for name in names:
            if name.lower() not in known:
                raise UsageError(f"--metrics knows {', '.join(known.values())} here, not {name!r}")
        metrics = tuple(known[name.lower()] for name in names)
        if maxval is None and set(metrics) & set(NEED_MAXVAL):
            raise UsageError(f"--metrics {', '.join(NEED_MAXVAL)} need --maxval, the largest DN of the sensor")
        return cls(metrics, protocol, maxval)


def compare(
    sources: Sequence[Source],
    models: Sequence[str],
    measures: Measures,
    *,
    device: str = "auto",
    threads: int = 0,
    on_product: Callable[[AnyScene, str, Float32], None] = lambda scene, method, hrms: None,
    on_result: Callable[[int, int], None] = lambda done, total: None,
) -> Comparison:
    """Sharpen every scene with every method, and measure what comes out.

    `models`: what `run` takes as --model, or "all"; this and "auto" are settled on the first scene. A method that was
    not asked for by name is left out, with a warning, if it does not fit a scene; one that was raises ModelError.
    `on_product` is given each scene, the method's name and the HRMS (bands, H, W); `on_result` how many are done, of
    how many. Raises SceneError, UsageError, DeviceError.
    """
    entrants: list[_Entrant] = []
    ratios: set[int] = set()
    excerpts: list[Excerpts | None] = []
    for number, source in enumerate(sources):
        scene = source.load()
        ratios.add(scene.ratio)
        excerpts.append(scene.excerpts)
        if not entrants:
            _warm_up(scene, source.sensor)
            entrants = _entrants(models, scene)
        running = [entrant for entrant in entrants if not entrant.misfit]
        for place, entrant in enumerate(running, start=1):
            try:
                hrms, seconds = entrant.sharpen(scene, source.sensor, device, threads)
            except ModelError as error:
                entrant.drop(error)
                continue
            entrant.add(measure(scene, hrms, source.sensor, measures), seconds, scene.valid.size / 1e6)
            on_product(scene, entrant.name, hrms)
            on_result(number * len(running) + place, len(sources) * len(running))
    kept = [entrant for entrant in entrants if not entrant.misfit]
    if not kept:
        raise ModelError("none of the methods fits these scenes; see `pansharpen models` for what others need")
    return Comparison(
        [source.name for source in sources],
        measures.metrics,
        {entrant.name: entrant.results for entrant in kept},
        terms={
            "resolution": "reduced" if isinstance(scene, ReducedScene) else "full",
            "ratio": ratios.pop() if len(ratios) == 1 else ", ".join(map(str, sorted(ratios))),
            "sensor": ", ".join(sorted({source.sensor.name for source in sources})),
            "protocol": measures.protocol,
            "maxval": measures.maxval,
        },
        left_out={entrant.name: entrant.misfit for entrant in entrants if entrant.misfit},
        reasons={name: reason for entrant in kept for name, reason in entrant.reasons.items()},
        excerpts=excerpts,
    )


def _warm_up(scene: AnyScene, sensor: Sensor) -> None:
    """Load what all methods need: else the first to be timed would pay for it."""
    with suppress(PansharpenError):
        sharpen(scene, METHODS["gsa"](camera(scene, sensor)), None)


class _Entrant:
    """A method in a comparison, what it has scored, and why it was dropped, if it was."""

    def __init__(self, name: str, *, by_name: bool) -> None:
        self.name, self.by_name = name, by_name
        self.results: list[Result] = []
        self.reasons: dict[str, str] = {}
        self.misfit = ""

    def sharpen(self, scene: AnyScene, sensor: Sensor, device: str, threads: int) -> tuple[Float32, float]:
        """HRMS (bands, H, W) and the seconds it took, without those for loading a model. Raises ModelError."""
        method = choose(self.name, scene)
        backend: Backend
        if method.name in METHODS:  # on the CPU whatever the device, in the scene's own geometry
            backend, phase = METHODS[method.name](camera(scene, sensor)), scene.phase
        else:
            backend, phase = method.backend(scene, sensor, device, threads)[0], method.phase
        began = time.perf_counter()
        hrms = sharpen(scene, backend, method.radiometry, method.order, phase)
        return hrms, time.perf_counter() - began

    def add(self, scores: Mapping[str, Score], seconds: float, megapixels: float) -> None:
        self.results.append(Result({name: score.value for name, score in scores.items()}, seconds, megapixels))
        self.reasons |= {name: score.reason for name, score in scores.items() if score.value is None}

    def drop(self, error: ModelError) -> None:
        """Not one that was asked for by its name: it is told of its misfit by the error."""
        if self.by_name:
            raise error
        self.misfit = str(error).partition("; these would")[0]
        log.warning("left out: %s", self.misfit)


def _entrants(models: Sequence[str], scene: AnyScene) -> list[_Entrant]:
    """Those that are asked for, each once, and with "all" also those that do not fit, already dropped."""
    found: dict[str, _Entrant] = {}
    for asked in models:
        if asked == "all":
            names = [*(model.name for model in zoo.models()), *METHODS]
        elif asked == "auto":
            best = choose("auto", scene)
            log.info("%s: %s", best.name, best.reason)
            names = [best.name]
        else:
            names = [asked]
        for name in names:
            entrant = _Entrant(name, by_name=asked not in ("all", "auto"))
            try:
                choose(name, scene)
            except ModelError as error:
                entrant.drop(error)
            found.setdefault(name, entrant)
    return list(found.values())


def measure(scene: AnyScene, hrms: Float32, sensor: Sensor, measures: Measures) -> dict[str, Score]:
    """The metrics of a product (bands, H, W): against the truth of a reduced scene, else by PAN and MS."""
    if isinstance(scene, ReducedScene):
        return _against_truth(scene, hrms, measures)
    if min(scene.valid.shape) < BLOCK:
        raise SceneError(f"{scene.name} is smaller than a block of {BLOCK} PAN pixels; give a larger scene")
    unit = units.factor(scene.ms)
    rows, cols = scene.ms.shape[1:]
    ms_valid = np.asarray(scene.valid.reshape(rows, scene.ratio, cols, scene.ratio).any(axis=(1, 3)))
    found = full(
        InDn(ArrayImage(hrms, scene.valid), unit), InDn(ArrayImage(scene.pan, scene.valid), unit),
        InDn(ArrayImage(scene.ms, ms_valid), unit),
        gains=[sensor.gain(band) for band in scene.band_names], phase=scene.phase,
        exp=None if scene.lms is None else InDn(ArrayImage(scene.lms), unit), metrics=measures.metrics,
    ).scores  # fmt: skip
    return {name: found[name] for name in measures.metrics}


def _against_truth(scene: ReducedScene, hrms: Float32, measures: Measures) -> dict[str, Score]:
    """`maxval` is that of the scene's values, or of the DN of which they are parts; RMSE is of the scene's values."""
    unit = units.factor(scene.gt, measures.maxval)
    maxval = measures.maxval and (measures.maxval if unit == measures.maxval else measures.maxval * unit)
    scores = reduced(
        InDn(ArrayImage(scene.gt, scene.valid), unit), InDn(ArrayImage(hrms, scene.valid), unit), scene.ratio,
        maxval=maxval, cut=PRESETS[measures.protocol], metrics=measures.metrics,
    ).scores  # fmt: skip
    rmse = scores.get("RMSE")
    if rmse and rmse.value is not None:
        scores["RMSE"] = replace(rmse, value=rmse.value / unit, bands=tuple(band / unit for band in rmse.bands))
    return scores


@dataclass(frozen=True, eq=False)
class _GivenExp(Camera):
    """The toolbox's camera for one whole image `ms` whose EXP, `lms`, came with it."""

    ms: Float32
    lms: Float32

    def expand(self, ms: Array) -> Array:
        return self.lms.astype(ms.dtype) if np.array_equal(ms, self.ms) else super().expand(ms)

    def expanded(self, ms: Array) -> Iterator[tuple[slice, Array]]:
        yield slice(None), self.expand(ms)


def camera(scene: AnyScene, sensor: Sensor) -> Camera:
    """The geometry of a scene for classical methods. That of a benchmark's sample is for the whole image only."""
    if scene.geometry == "area":
        return Camera.of_scene(scene.ratio, scene.band_names, sensor)
    toolbox = Camera.of_toolbox(scene.ratio, scene.band_names, sensor)
    if scene.lms is None:
        return toolbox
    known = {entry.name: getattr(toolbox, entry.name) for entry in fields(Camera)}
    return _GivenExp(**known, ms=scene.ms, lms=scene.lms)


def sharpen(
    scene: AnyScene,
    backend: Backend,
    radiometry: Radiometry | None,
    order: tuple[int, ...] | None = None,
    phase: float | None = None,
) -> Float32:
    """HRMS of a scene in DN, (bands, H, W): the pixels of its product before they are rounded.

    `order`: the scene's index of each band that the backend works on; `phase`: the one it was made for, if that may not
    be the scene's.
    """
    return observing(scene, backend, radiometry, order, phase)()


def observing(
    scene: AnyScene,
    backend: Backend,
    radiometry: Radiometry | None,
    order: tuple[int, ...] | None = None,
    phase: float | None = None,
) -> Callable[[], Float32]:
    """Observe a scene once, to `sharpen` it as often as is asked for."""
    canvas = ArrayCanvas.of(scene.pan, _ms_on(scene, phase), scene.valid, backend.reach)
    bands = order or tuple(range(len(scene.band_names)))
    # the toolbox's methods wrap round the border, so they need the whole
    size = TILE if scene.geometry == "area" else max(canvas.rows.size, canvas.cols.size)
    sharpener = Sharpener.observing(backend, radiometry, canvas, bands, size)

    def product() -> Float32:
        hrms = np.empty((len(bands), *scene.valid.shape), np.float32)
        for pixels, core in sharpener.all(canvas, canvas.tiles(size, backend.reach)):
            hrms[:, *pixels.tile.core] = core
        return hrms

    return product


def _ms_on(scene: AnyScene, phase: float | None) -> Float32:
    """The MS with sample i on PAN index ratio * i + `phase`, interpolated if it is not there."""
    if phase is None or phase == scene.phase:
        return scene.ms
    moved = (phase - scene.phase) / scene.ratio
    rows, cols = (np.arange(size, dtype=np.float64) + moved for size in scene.ms.shape[1:])
    return sample(scene.ms, np.ones(scene.ms.shape[1:], bool), rows, cols, "sinc").astype(np.float32)


def score(
    backend: Callable[[ReducedScene], Backend], radiometry: Radiometry | None, scenes: Sequence[ReducedScene]
) -> Scores:
    """Mean ERGAS and SAM (degrees) over scenes; `backend` makes one for each."""
    values = []
    for scene in scenes:
        hrms = sharpen(scene, backend(scene), radiometry)
        values.append((ergas(scene.gt, hrms, scene.ratio, scene.valid), sam(scene.gt, hrms, scene.valid)))
    return Scores(*np.mean(values, axis=0).tolist())


def classical_scores(
    scenes: Sequence[ReducedScene], sensor: Sensor, names: Sequence[str] = tuple(METHODS)
) -> dict[str, Scores]:
    """The classical methods of these `names` on the same scenes, to compare with."""

    def made_by(method: type[Method]) -> Callable[[ReducedScene], Backend]:
        return lambda scene: method(camera(scene, sensor))

    return {name: score(made_by(METHODS[name]), None, scenes) for name in names}


def error_map_name(scene: str, method: str) -> str:
    return re.sub(r"[^\w.-]+", "_", f"{scene}.{method}").lstrip("._") + ".tif"


def write_error_map(folder: Path, scene: ReducedScene, method: str, hrms: Float32) -> Path:
    """The product minus its truth, a GeoTIFF of float32 DN with the scene's bands, NaN where nothing is known.

    It is called `error_map_name`. Raises OutputError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / error_map_name(scene.name, method)
    height, width = scene.valid.shape
    grid = scene.grid or GeoGrid(height, width, Affine.identity())
    with ProductWriter(path, grid, scene.band_names, "float32", float("nan"), overwrite=True) as writer:
        writer.write(slice(0, height), slice(0, width), hrms - scene.gt, scene.valid)
        return writer.finish({"MODEL": method})
