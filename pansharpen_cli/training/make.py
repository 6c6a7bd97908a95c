"""The verb behind `train`: from scenes to a model folder with its card."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import math
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from pansharpen_cli import zoo
from pansharpen_cli.backends.torch_backend import device
from pansharpen_cli.errors import ModelError, OutputError, SceneError, UsageError, nearest
from pansharpen_cli.evaluation.sources import Terms, listed
from pansharpen_cli.imaging.mtf import find_sensor
from pansharpen_cli.imaging.radiometry import Radiometry
from pansharpen_cli.imaging.wald import PHASES, Geometry
from pansharpen_cli.modelspec import LARGEST_OPTION, WAVELENGTHS, Band, ModelSpec, canonical_band
from pansharpen_cli.networks import NETWORKS, build
from pansharpen_cli.networks.consistency import Consistent
from pansharpen_cli.networks.network import Network
from pansharpen_cli.networks.per_band import PerBand
from pansharpen_cli.system.files import in_words
from pansharpen_cli.training.dataset import Patches
from pansharpen_cli.training.journal import Journal
from pansharpen_cli.training.learner import demand_products
from pansharpen_cli.training.loop import Plan, Progress, train
from pansharpen_cli.training.parallel import Workers
from pansharpen_cli.training.prepare import Prepared, look, prepare
from pansharpen_cli.training.recipes import RECIPES, Recipe
from pansharpen_cli.training.validation import Validation

log = logging.getLogger(__name__)

STATE = "training.state"
WORK = "training.work"
NETWORK = "premix-b"
"""What is trained if nothing is said."""
ANY_BANDS = 4
"""Bands of a sample for a network of any bands, at most."""
MOST_NAMES = 50
"""Scenes that a model's description lists by name."""
UNITS = 100
"""Times by which values may be larger or smaller than the model's scale; reflectances are thousands of times."""


@dataclass(frozen=True)
class Training:
    """What to train on what.

    `bands`: names, as models know them; none: any bands, by a network that treats them alike. `scenes`, `validation`:
    folders with pan.tif and ms.tif, benchmark files or folders of them, manifests. `init`: a model whose weights to
    begin with; it also gives the `network` that is not named and `options` that are not. `steps`, `batch` 0: the
    recipe's; `minutes`: so long instead of `steps`. `baselines`: classical methods are judged on the validation scenes.
    """

    output: Path
    bands: Sequence[str]
    ratio: int
    scenes: Sequence[Path]
    validation: Sequence[Path]
    network: str = ""
    recipe: str = "default"
    steps: int = 0
    minutes: float = 0
    batch: int = 0
    crops_per_scene: int = 1
    validate_every: int = 250
    early_stop: int = 0
    sensor: str = "generic"
    seed: int = 1
    device: str = "auto"
    compiled: bool = False
    baselines: bool = True
    init: str = ""
    licence: str = ""
    data: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


def make_model(
    job: Training,
    on_step: Callable[[Progress], None] = lambda progress: None,
    on_scene: Callable[[int, int], None] = lambda done, total: None,
) -> zoo.Model:
    """Train and write the model folder `job.output`; a run that was cut short goes on from the state it left there.

    `on_scene` is told of scenes that were made ready, and then of those on which classical methods were judged.
    Raises SceneError, UsageError, ModelError, OutputError, DeviceError.
    """
    workers = Workers()
    job, init = _completed(job)
    recipe = _recipe(job, workers.count)
    state = job.output / STATE
    claim = zoo.claimed(job.output, overwrite=True) if workers.is_first else nullcontext()
    with claim, in_words(f"{job.output} cannot be written"), workers.joined(device(job.device)) as where:
        if zoo.is_taken(job.output) and not state.exists():
            raise OutputError(f"{job.output} already holds a model; give another --output")
        _make_repeatable(where)
        with workers.first_alone():
            scenes, validation = _scenes(job, recipe.patch, on_scene)
        job = _suited(job, scenes[0].geometry)
        bands = len(job.bands) or min(ANY_BANDS, *(len(scene.bands) for scene in scenes))
        radiometry = init.spec.radiometry if init else _radiometry(scenes)
        _check_units(radiometry, [*scenes, *validation])
        if workers.is_first:
            _report(scenes, validation, recipe.patch)
        patches = Patches(
            scenes, radiometry, recipe.patch, job.seed,
            bands=None if job.bands else bands, turns=recipe.turns, crops=job.crops_per_scene,
            other_pans=recipe.other_pans,
        )  # fmt: skip
        steps = 0 if job.minutes else job.steps or recipe.epochs * max(1, len(patches) // recipe.batch)
        job = replace(job, steps=steps, batch=recipe.batch)
        judge = Validation(validation, partial(_build, job), radiometry, recipe.patch, where)
        spec = _spec(job, recipe, radiometry, scenes, validation, len(patches), where)
        journal = Journal(job.output, spec, judge, _build(job, bands))
        if workers.is_first and job.baselines:
            journal.compare(on_scene)

        def told(progress: Progress) -> None:
            if workers.is_first:
                journal.step(progress)
            on_step(progress)

        plan = Plan(
            job.steps, job.validate_every, job.seed, state, job.minutes,
            early_stop=job.early_stop, crops=job.crops_per_scene, compiled=job.compiled,
            terms=_terms(job, [*scenes, *validation]),
        )  # fmt: skip
        best = train(
            _begun(job, bands, init), patches, recipe, plan, judge, where,
            workers=workers, on_step=told, on_best=journal.write,
        )  # fmt: skip
        with workers.first_alone():
            if workers.is_first:
                journal.write(best)
                shutil.rmtree(job.output / WORK, ignore_errors=True)
                state.unlink()
    return zoo.read(job.output)


def _completed(job: Training) -> tuple[Training, zoo.Model | None]:
    """The job with what the model to begin with says, and that model. Raises UsageError for what makes no sense."""
    init = zoo.find(job.init) if job.init else None
    if init:
        job = replace(job, network=job.network or init.spec.network, options={**init.spec.options, **job.options})
        if init.spec.ratio != job.ratio:
            raise UsageError(f"--init {job.init} has ratio {init.spec.ratio}, not {job.ratio}")
    job = replace(job, network=job.network or NETWORK, bands=tuple(canonical_band(band) for band in job.bands))
    if twice := [band for band in job.bands if job.bands.count(band) > 1]:
        raise UsageError(f"--bands names {twice[0]} twice; a model knows its bands by their names")
    find_sensor(job.sensor, "--sensor")
    if job.recipe not in RECIPES:
        raise UsageError(f"--recipe knows {', '.join(RECIPES)}, not {job.recipe!r}")
    if job.minutes and (job.steps or not RECIPES[job.recipe].follows_the_clock or Workers().count > 1):
        raise UsageError("--minutes takes the place of --steps, for one process and --recipe default")
    if not job.bands and not issubclass(NETWORKS.get(job.network, Network), PerBand):
        any_bands = ", ".join(name for name, network in NETWORKS.items() if issubclass(network, PerBand))
        raise UsageError(f"--bands any needs a network that treats all bands alike: {any_bands}, not {job.network}")
    # what cannot be built, or does not work, is said before scenes are read
    _check_options(job)
    demand_products(_begun(job, max(1, len(job.bands)), init), job.network)
    return job, init


def _check_options(job: Training) -> None:
    """Raises ModelError for options that the network does not have, and for sizes that no network can have."""
    if job.network not in NETWORKS:
        return  # `build` tells
    known = {**_parameters(NETWORKS[job.network]), "consistent": "bool"}
    for name, value in job.options.items():
        if name not in known:
            raise ModelError(f"{job.network} has no option {name}; it has {', '.join(known)}{nearest(name, known)}")
        sizes = value if isinstance(value, list | tuple) else [value]
        if re.fullmatch(r"int|tuple\[(int(, )?)+\]", known[name]) and not all(map(_is_size, sizes)):
            raise ModelError(
                f"{job.network} cannot have {name}={json.dumps(value)}; give whole numbers from 1 to {LARGEST_OPTION}"
            )


def _parameters(network: type[Network]) -> dict[str, str]:
    """The options of a network, and the types that they are annotated with."""
    within = _parameters(network.one_band) if issubclass(network, PerBand) else {}
    own = inspect.signature(network.__init__).parameters.values()
    return {**within, **{given.name: str(given.annotation) for given in own if given.kind is given.KEYWORD_ONLY}}


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= LARGEST_OPTION


def _build(job: Training, bands: int) -> Network:
    return build(job.network, bands, job.ratio, job.options)


def _begun(job: Training, bands: int, init: zoo.Model | None) -> Network:
    """The network before its first step."""
    torch.manual_seed(job.seed)
    network = _build(job, bands)
    if init:
        try:
            # projecting onto the MS has no weights
            _core(network).load_state_dict(_core(init.load(bands)).state_dict())
        except RuntimeError as error:
            raise ModelError(
                f"--init {job.init} does not fit a {job.network} of {bands} bands with options {dict(job.options)}"
            ) from error
    return network


def _core(network: Network) -> Network:
    return network.network if isinstance(network, Consistent) else network


def _recipe(job: Training, workers: int) -> Recipe:
    """The job's recipe: patches nest the MS and suit the network, the batch can be shared out."""
    recipe = RECIPES[job.recipe]
    grain = math.lcm(job.ratio, _build(job, max(1, len(job.bands))).multiple_of)
    recipe = replace(recipe, batch=job.batch or recipe.batch, patch=recipe.patch // grain * grain)
    if recipe.batch % (job.crops_per_scene * workers):
        raise UsageError(
            f"--batch {recipe.batch} cannot be shared out to {workers} processes, {job.crops_per_scene} crops a scene; "
            f"take a multiple of {job.crops_per_scene * workers}"
        )
    return recipe


def _make_repeatable(where: torch.device) -> None:
    """Sums in a fixed order on a GPU, as on a CPU; an operation that has none there is warned of by torch."""
    if where.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True, warn_only=True)


def _scenes(job: Training, patch: int, on_scene: Callable[[int, int], None]) -> tuple[list[Prepared], list[Prepared]]:
    """Those to learn from and those to validate on, of one geometry."""
    terms = Terms(ratio=job.ratio, bands=tuple(job.bands) or None, sensor=job.sensor)
    work = job.output / WORK
    given = [listed(paths, terms) for paths in (job.scenes, job.validation)]
    if shared := set.intersection(*({source.pixels for source in sources} for sources in given)):
        raise UsageError(f"{shared.pop()[0]} is trained and validated on; keep it for one of the two")
    look([*given[0], *given[1]])
    learnt, held_out = (prepare(sources, patch, work, on_scene) for sources in given)
    return learnt, held_out


def _suited(job: Training, geometry: Geometry) -> Training:
    """The job with a network that expects MS samples where scenes of this `geometry` have them."""
    phase = PHASES[geometry](job.ratio)
    if geometry == "area" and job.options.get("phase", phase) == phase:
        return job
    for option in ("consistent", "intensity"):
        if job.options.get(option):
            raise UsageError(f"the option {option} is for pixels that are areas; leave it out with benchmark files")
    suited = replace(job, options={**job.options, "phase": phase})
    try:
        _build(suited, max(1, len(job.bands)))
    except ModelError:  # it has no such option: it learns where they are
        return job
    return suited


def _radiometry(scenes: Sequence[Prepared]) -> Radiometry:
    """Scenes are standardised each by itself. Samples of a benchmark are too small for that: DN by the largest one of
    their bit depth, as in the papers."""
    if scenes[0].geometry == "area":
        return Radiometry("scene")
    high = max(float(scene.moments.high.max()) for scene in scenes)
    scale = 1.0 if high <= 1 else 2.0 ** math.ceil(math.log2(high + 1)) - 1
    return Radiometry("fixed", scale=scale, pan_scale=scale)


def _check_units(radiometry: Radiometry, scenes: Sequence[Prepared]) -> None:
    """Raises SceneError if, by a scale that is the same for all, one is in another unit than the others."""
    for scene in scenes:
        high = float(scene.moments.high.max())
        if radiometry.kind == "fixed" and not scene.misfit and not 1 / UNITS < high / radiometry.scale < UNITS:
            raise SceneError(
                f"{scene.name} has values up to {high:.3g}, and the model's go up to {radiometry.scale:g}; give all in "
                "one unit"
            )


def _report(scenes: Sequence[Prepared], validation: Sequence[Prepared], patch: int) -> None:
    """What there is to learn from, and what was left out and why."""
    patches = sum(len(scene.corners) for scene in scenes)
    rejected = ", ".join(f"{count:,} {reason}" for reason, count in _rejected(scenes).items()) or "none"
    log.info(
        "%s scenes, %s patches of %d x %d MS pixels, rejected: %s; %s validation scenes",
        f"{len(scenes):,}", f"{patches:,}", patch, patch, rejected, f"{len(validation):,}",
    )  # fmt: skip
    for name, reason in _left_out(scenes).items():
        log.warning("%s is left out: %s", name, reason)
    learnt = {_seen(scene): scene.name for scene in scenes}
    for scene in validation:
        if scene.misfit:
            log.warning("%s is validated on, but %s", scene.name, scene.misfit)
        if copy := learnt.get(_seen(scene)):  # benchmarks as published may share samples: no reason to refuse
            log.warning("%s is validated on, but has the pixels of %s, which is trained on", scene.name, copy)


def _seen(scene: Prepared) -> bytes:
    """What copies of a scene have in common, and no two scenes else."""
    moments = scene.moments
    return b"".join(values.tobytes() for values in (moments.mean, moments.std, moments.high, scene.corners))


def _rejected(scenes: Sequence[Prepared]) -> dict[str, int]:
    """How many patches were not used, by reason; scenes that are listed twice count twice."""
    return dict(sum((scene.rejected for scene in scenes), Counter()))


def _left_out(scenes: Sequence[Prepared]) -> dict[str, str]:
    return {scene.name: scene.unused for scene in scenes if scene.unused}


def _terms(job: Training, scenes: Sequence[Prepared]) -> dict[str, Any]:
    """What decides the course of a run, the pixels of its scenes by a digest of what was seen of them."""
    pixels = hashlib.sha256()
    for scene in scenes:
        pixels.update(scene.name.encode() + scene.corners.tobytes() + scene.moments.mean.tobytes())
    decides = (
        "network", "options", "bands", "ratio", "recipe", "steps", "minutes", "batch", "crops_per_scene",
        "validate_every", "early_stop", "sensor", "seed", "init",
    )  # fmt: skip
    own = {name.replace("_", "-"): getattr(job, name) for name in decides}
    return {**own, "options": dict(job.options), "bands": list(job.bands), "scenes": pixels.hexdigest()}


def _spec(
    job: Training, recipe: Recipe, radiometry: Radiometry, scenes: Sequence[Prepared],
    validation: Sequence[Prepared], patches: int, where: torch.device,
) -> ModelSpec:  # fmt: skip
    """The model as far as it is known before it has learnt."""
    return ModelSpec(
        name=job.output.name,
        network=job.network,
        options=dict(job.options),
        bands=tuple(Band(name, WAVELENGTHS.get(name, 0.0)) for name in job.bands),
        ratio=job.ratio,
        phase=PHASES[scenes[0].geometry](job.ratio),
        radiometry=radiometry,
        crop=recipe.patch,
        licence=job.licence,
        training={
            "data": job.data,
            "scenes": _names(scene for scene in scenes if not scene.unused),
            "validation": _names(validation),
            "recipe": job.recipe,
            "steps": job.steps,
            "batch": job.batch,
            "crops_per_scene": job.crops_per_scene,
            "patches": patches,
            "rejected": _rejected(scenes),
            "left_out": _left_out(scenes),
            "sensor": job.sensor,
            "init": job.init,
            "seed": job.seed,
            "device": torch.cuda.get_device_name(where) if where.type == "cuda" else "a CPU",
        },
    )


def _names(scenes: Iterable[Prepared]) -> list[str]:
    """Each once, and not thousands of them."""
    names = list(dict.fromkeys(scene.name for scene in scenes))
    rest = len(names) - MOST_NAMES
    return names if rest <= 0 else [*names[:MOST_NAMES], f"{rest:,} more"]
