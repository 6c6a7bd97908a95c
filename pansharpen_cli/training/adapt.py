"""The verb behind `adapt`: a model fitted to one scene, to its own MS or to what PAN and MS say of a product.

Several models are mixed (mixing.py), one goes on learning. Blocks of the scene are held out: they are never learned
from, and say when to stop, and whether the fitted model is better at all.
"""

from __future__ import annotations

import copy
import logging
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from pansharpen_cli import zoo
from pansharpen_cli.backends.torch_backend import TorchBackend, device
from pansharpen_cli.classical import METHODS
from pansharpen_cli.errors import ModelError, SceneError, UsageError
from pansharpen_cli.evaluation.reduced import chosen_bands, load, load_full
from pansharpen_cli.imaging.interpolation import area_phase
from pansharpen_cli.imaging.mtf import MEASURED, Sensor
from pansharpen_cli.imaging.radiometry import Radiometry
from pansharpen_cli.imaging.wald import FullScene, ReducedScene
from pansharpen_cli.inputs.coregistration import Choice, find_or_measure
from pansharpen_cli.inputs.scene import Scene
from pansharpen_cli.method import best_of, choose
from pansharpen_cli.modelspec import WAVELENGTHS, Band, ModelSpec, comparable
from pansharpen_cli.networks import MIXTURE, build
from pansharpen_cli.networks.network import Network
from pansharpen_cli.training import tasks
from pansharpen_cli.training.learner import demand_products
from pansharpen_cli.training.mixing import Crosswise, mix, mixture_of
from pansharpen_cli.training.tasks import PATCH, AtFullResolution, AtReducedResolution, Judge, Judged, Task
from pansharpen_cli.zoo import Model, save

log = logging.getLogger(__name__)

Resolution = Literal["reduced", "full"]

FRESH = 2e-3
"""Learning rate that begins with nothing."""
AVERAGED = 0.95
"""Weight of the past in the average of the weights that is judged and kept: it varies less than the weights."""
RIVALS = ("exp", "gsa", "mtf-glp-fs", "bdsd-pc", "mtf-glp-hpm-h", "pracs")
"""Classical methods to compare with."""
EVERY, PATIENCE = 25, 6
"""Steps between looks at the held-out blocks, and looks without a gain after which it stops."""
HELD = 2**20
"""PAN pixels at the resolution it is fitted at; of larger scenes excerpts stand for the whole."""
OF_THE_IMAGES = ("gains", "haze", "intensity")
"""Global values of a network that come from the scene alone, whatever its weights: learned with as `run` has them."""


@dataclass(frozen=True)
class Adaptation:
    """Which scene to fit at which resolution, from which `model`; or from nothing, a `network`.

    Several models, by commas, or "auto", those of any bands, are mixed at reduced resolution, each by the share that
    the scene wants. Of a single model, and at full resolution, the weights are trained; `minutes` and `steps` are the
    most that may take, 0 steps: as many as it gains from. `band_names` replace those of the MS files; `bands` of these
    are fitted, default all.
    """

    pan: str | Path
    ms: Sequence[str | Path]
    output: Path
    model: str = "auto"
    network: str | None = None
    resolution: Resolution = "reduced"
    bands: Sequence[str] | None = None
    band_names: Sequence[str] | None = None
    sensor: str = MEASURED
    coregister: Choice = "auto"
    minutes: float = 8.0
    steps: int = 0
    seed: int = 1
    device: str = "auto"
    threads: int = 0
    overwrite: bool = False


@dataclass(frozen=True)
class Adapted:
    """The model that was written, and how the held-out blocks judge it: before, after, and classical methods.

    At reduced resolution by "ergas" and "sam" (degrees), at full by "hqnr" and its parts "d_lambda_k" and "d_s".
    `before` is None where it began with nothing. `shares`: of a mixture, the models by name with their shares.
    """

    model: Model
    before: Judged | None
    after: Judged
    classical: dict[str, Judged]
    steps: int
    shares: dict[str, float]
    seconds: float


def adapt(job: Adaptation, on_step: Callable[[int, float], None] = lambda step, gain: None) -> Adapted:
    """Fit and write the model folder `job.output`; by its held-out blocks it is never worse than what it began with.

    `on_step` is told how many steps are done, and the error of the held-out blocks as a part of what it was.
    """
    with zoo.claimed(job.output, job.overwrite):
        return _adapt(job, on_step)


def _adapt(job: Adaptation, on_step: Callable[[int, float], None]) -> Adapted:
    began = time.perf_counter()
    mixed = _look(job)
    where = device(job.device)
    if job.threads:
        torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    sensor = find_or_measure(job.sensor, job.pan, job.ms)
    scene = _scene(job, sensor)
    if mixed and isinstance(scene, ReducedScene):
        fitted = _by_shares(job, scene, mixed, sensor, where)
    else:
        fitted = _by_learning(job, scene, sensor, where, on_step)
    classical = {name: tasks.of_method(fitted.judge, name, sensor) for name in RIVALS}
    seconds = time.perf_counter() - began
    model = _save(job, fitted, scene, sensor, classical, seconds)
    return Adapted(model, fitted.before, fitted.after, classical, fitted.steps, fitted.shares, seconds)


@dataclass(frozen=True)
class _Told:
    """What headers say of the scene."""

    band_names: tuple[str, ...]
    ratio: int

    @property
    def exact_ratio(self) -> float:
        return self.ratio


def _look(job: Adaptation) -> list[Model]:
    """What names and headers tell of a job that cannot be done is said before the scene is measured. Returns the models
    to mix. Raises UsageError, ModelError, SceneError."""
    names = [] if job.network is not None or job.model == "auto" else _names(job)
    if len(names) > 1 and job.resolution == "full":
        raise UsageError(f"at full resolution one model learns, not {job.model}; name one, or none for the best")
    named = [zoo.find(name, besides=METHODS) for name in names if name not in METHODS]
    with Scene.open(job.pan, *job.ms, names=job.band_names) as scene:
        bands, _ = chosen_bands(scene.band_names, job.bands, job.ms[0])
        ratio = scene.ratio
    if job.network is not None:
        demand_products(_new(job.network, len(bands), ratio), job.network)
    for model in named:
        if model.spec.ratio != ratio:
            raise ModelError(
                f"{model.name} is for ratio {model.spec.ratio}, not {ratio}; --network NAME begins with nothing"
            )
    return _to_mix(job, _Told(bands, ratio))


def _names(job: Adaptation) -> list[str]:
    """Of the models that it names, each once."""
    return [job.model] if os.path.exists(job.model) else list(dict.fromkeys(job.model.split(",")))


def _new(network: str, bands: int, ratio: int) -> Network:
    return build(network, bands, ratio, {"consistent": True})


def _scene(job: Adaptation, sensor: Sensor) -> ReducedScene | FullScene:
    if job.resolution == "full":
        return load_full(
            job.pan, *job.ms, bands=job.bands, band_names=job.band_names, coregister=job.coregister, most=HELD
        )  # fmt: skip
    return load(
        job.pan, *job.ms, sensor=sensor, bands=job.bands, band_names=job.band_names, coregister=job.coregister,
        most=HELD,
    )  # fmt: skip


@dataclass(frozen=True)
class _Fitted:
    """What came of it, and how `judge` has it."""

    network: Network
    spec: ModelSpec
    judge: Judge
    before: Judged | None
    after: Judged
    steps: int = 0
    shares: dict[str, float] = field(default_factory=dict)


def _to_mix(job: Adaptation, scene: _Told) -> list[Model]:
    """The models of which the scene takes shares, the best first; none if one is to learn. Raises ModelError."""
    if job.network is not None or job.resolution == "full":
        return []
    if job.model == "auto":
        fitting = [model for model in zoo.models() if not model.spec.bands and model.spec.ratio == scene.ratio]
        best = best_of(fitting)
        return [best, *(m for m in fitting if m != best and _are_alike(m, best))] if best and len(fitting) > 1 else []
    names = _names(job)
    if len(names) < 2:
        return []
    as_they_come = tuple(range(len(scene.band_names)))
    methods = [choose(name, scene) for name in names]
    models = [method.model for method in methods if method.model and method.order == as_they_come]
    if len(models) < len(names) or not all(_are_alike(model, models[0]) for model in models):
        raise ModelError(
            f"{job.model} cannot be mixed: all must be networks for the scene's bands in their order, of the same units"
        )
    return models


def _are_alike(one: Model, other: Model) -> bool:
    """Whether they take the same images."""
    mine, its = one.spec, other.spec
    return (mine.ratio, mine.phase, mine.radiometry, mine.crop) == (its.ratio, its.phase, its.radiometry, its.crop)


def _by_shares(
    job: Adaptation, scene: ReducedScene, models: Sequence[Model], sensor: Sensor, where: torch.device
) -> _Fitted:
    """The mixture of `models`, or the first of them if that is better."""
    bands, best = _bands(scene), models[0]
    gains = [sensor.gain(band) for band in scene.band_names]
    mixture = mixture_of(models, len(bands))
    mixture.set_camera(gains)
    judge = Crosswise(scene)
    *products, shares = mix(mixture, scene, best.spec.radiometry, best.spec.crop, where)
    before, after = map(judge.judge, products)
    named = {model.name: round(share, 4) for model, share in zip(models, shares, strict=True)}
    training = {"adapted_from": ", ".join(named)}
    spec = replace(best.spec, name=job.output.name, bands=bands, training=training)
    if judge.merit(after) < judge.merit(before):
        licence = "; ".join(dict.fromkeys(model.spec.licence for model in models if model.spec.licence))
        spec = replace(spec, network=MIXTURE, options=mixture.options, licence=licence)
        return _Fitted(mixture, spec, judge, before, after, shares=named)
    network = best.load(len(bands))
    network.set_camera(gains)
    return _Fitted(network, spec, judge, before, before)


def _by_learning(
    job: Adaptation, scene: ReducedScene | FullScene, sensor: Sensor, where: torch.device,
    on_step: Callable[[int, float], None],
) -> _Fitted:  # fmt: skip
    network, spec = _beginning(job, scene)
    network.set_camera([sensor.gain(band) for band in scene.band_names])
    task = _task(scene, spec.radiometry, sensor, where)
    before, after, steps = fit(
        network, task, crop=spec.crop, where=where, fresh=job.network is not None, seconds=60 * job.minutes,
        steps=job.steps, seed=job.seed, on_step=on_step,
    )  # fmt: skip
    return _Fitted(network, spec, task, None if job.network else before, after, steps)


def _bands(scene: ReducedScene | FullScene) -> tuple[Band, ...]:
    """Those of the model. Raises SceneError if two have one name, by which it would know them."""
    names = scene.band_names
    if alike := [name for name in names if names.count(name) > 1]:
        raise SceneError(f"{scene.name} has several bands called {alike[0]}; give each a name of its own")
    return tuple(Band(name, WAVELENGTHS.get(name, 0.0)) for name in names)


def _task(scene: ReducedScene | FullScene, radiometry: Radiometry, sensor: Sensor, where: torch.device) -> Task:
    if isinstance(scene, FullScene):
        return AtFullResolution(scene, radiometry, sensor, where)
    return AtReducedResolution(scene, radiometry, where)


def fit(
    network: Network,
    task: Task,
    *,
    crop: int,
    where: torch.device,
    fresh: bool,
    seconds: float,
    steps: int,
    seed: int,
    on_step: Callable[[int, float], None],
) -> tuple[Judged, Judged, int]:
    """Train `network` in place and leave it with the best weights by the held-out blocks. Returns how these judge it
    before and after, and the steps that were taken.

    It stops when they no longer gain, with the step or look at them in which `seconds` are over, and after `steps`
    unless that is 0. The looks before the first step and after the last one come on top.
    """
    average = copy.deepcopy(network)
    backend = TorchBackend(average, crop, where)
    network.to(where).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=FRESH if fresh else task.rate)
    random = np.random.default_rng(seed)
    before = best = tasks.of_backend(task, backend)
    known = {name: value for name, value in backend.statistics.items() if name in OF_THE_IMAGES}
    kept = copy.deepcopy(average.state_dict())
    step = waited = 0
    end = time.perf_counter() + seconds
    over = time.perf_counter() >= end
    while waited < PATIENCE and not over:
        loss = task.loss(network, known, random)
        if not torch.isfinite(loss):
            break
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        step += 1
        _follow(average, network, min(AVERAGED, step / (step + 10)))
        over = step == steps or time.perf_counter() >= end
        if step % EVERY == 0 or over:
            now = tasks.of_backend(task, backend)
            waited += 1
            if task.merit(now) < task.merit(best):
                waited = 0 if task.merit(now) < 0.999 * task.merit(best) else waited
                best, kept = now, copy.deepcopy(average.state_dict())
            over = over or time.perf_counter() >= end  # a look at a large scene takes as long as many steps
        on_step(step, task.merit(best) / task.merit(before))
    network.load_state_dict(kept)
    return before, best, step


@torch.no_grad()
def _follow(average: Network, network: Network, past: float) -> None:
    for kept, new in zip(average.parameters(), network.parameters(), strict=True):
        kept.lerp_(new, 1 - past)


def _beginning(job: Adaptation, scene: ReducedScene | FullScene) -> tuple[Network, ModelSpec]:
    """The network to begin with, and a description of what it will be."""
    bands = _bands(scene)
    if job.network is not None:
        network = _new(job.network, len(bands), scene.ratio)
        spec = ModelSpec(
            name=job.output.name, network=job.network, options=network.options, bands=bands, ratio=scene.ratio,
            phase=area_phase(scene.ratio), radiometry=Radiometry("scene"), crop=PATCH,
            training={"adapted_from": "nothing"},
        )  # fmt: skip
        return network, spec
    try:
        model = choose(job.model, scene).model
    except ModelError:
        model = zoo.find(job.model)  # for other bands: what fits of it
    if model is None or model.spec.ratio != scene.ratio:
        raise ModelError(f"no model for ratio {scene.ratio} to begin with; --network NAME begins with nothing")
    network = build(model.spec.network, len(bands), scene.ratio, model.spec.options)
    _take_over(network, model)
    return network, replace(model.spec, bands=bands, name=job.output.name, training={"adapted_from": model.name})


def _take_over(network: Network, model: Model) -> None:
    """The weights of `model`, as far as they have the same shapes; layers that depend on the bands may not."""
    given = model.load(network.bands).state_dict()
    own = network.state_dict()
    fitting = {name: tensor for name, tensor in given.items() if own[name].shape == tensor.shape}
    network.load_state_dict(own | fitting)
    if len(fitting) < len(own):
        log.warning(
            "%d of %d layers of %s do not fit these bands and begin anew", len(own) - len(fitting), len(own), model.name
        )


def _save(
    job: Adaptation, fitted: _Fitted, scene: ReducedScene | FullScene, sensor: Sensor, classical: dict[str, Judged],
    seconds: float,
) -> Model:  # fmt: skip
    spec = fitted.spec
    training = {
        **spec.training,
        "scene": scene.name,
        "resolution": job.resolution,
        "sensor": sensor.name,
        "steps": fitted.steps,
        "shares": fitted.shares,
        "seed": job.seed,
        "minutes": round(seconds / 60, 1),
        "judged": {name: dict(values) for name, values in {**classical, spec.name: fitted.after}.items()},
    }
    # without a truth nothing is known that compares with the scores of other models
    scores = comparable(training["judged"]) if job.resolution == "reduced" else {}
    spec = replace(spec, training=training, scores=scores)
    return save(job.output, spec, fitted.network, card(spec))


HEADINGS = {
    "ergas": "ERGAS", "sam": "SAM (degrees)", "hqnr": "HQNR", "d_lambda_k": "D_lambda_K", "d_s": "D_s",
}  # fmt: skip


def card(spec: ModelSpec) -> str:
    """README.md of the model folder."""
    how = spec.training
    judged: Mapping[str, Judged] = how["judged"]
    heads = [HEADINGS[name] for name in judged[spec.name]]
    cells = {method: [f"{value:.4g}" for value in values.values()] for method, values in judged.items()}
    rows = [f"| {' | '.join([method, *values])} |" for method, values in cells.items()]
    better = "Lower is better." if how["resolution"] == "reduced" else "Higher HQNR is better."
    shares = [f"{share:.2f} of {name}" for name, share in how["shares"].items()]
    course = f"It takes {', '.join(shares)}" if shares else f"It began as {how['adapted_from']}; {how['steps']} steps"
    return "\n".join([
        f"# {spec.name}", "",
        f"{spec.network} for {', '.join(spec.band_names)} at ratio {spec.ratio}, fitted to one scene ({how['scene']}).",
        f"{course}; {how['minutes']} minutes, seed {how['seed']}, sensor MTF `{how['sensor']}`.", "",
        f"| {' | '.join(['method', *heads])} |", "|---" * (len(heads) + 1) + "|", *rows, "",
        f"On the blocks of this scene that were held out, at {how['resolution']} resolution. {better}", "",
    ])  # fmt: skip
