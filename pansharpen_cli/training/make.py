"""The verb behind `train`: from scenes in folders to a model folder with its card."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from pansharpen_cli.backends.torch_backend import device
from pansharpen_cli.evaluation import classical_scores
from pansharpen_cli.interpolation import area_phase
from pansharpen_cli.modelspec import WAVELENGTHS, Band, ModelSpec
from pansharpen_cli.mtf import SENSORS
from pansharpen_cli.networks import build
from pansharpen_cli.radiometry import Radiometry
from pansharpen_cli.reduced import load
from pansharpen_cli.training.card import card
from pansharpen_cli.training.dataset import Patches
from pansharpen_cli.training.loop import Progress, train
from pansharpen_cli.training.recipes import RECIPES
from pansharpen_cli.wald import ReducedScene
from pansharpen_cli.zoo import Model, save


@dataclass(frozen=True)
class Training:
    """What to train on what. Folders hold pan.tif and ms.tif; `steps` 0 means as many as the recipe's epochs."""

    output: Path
    network: str
    bands: Sequence[str]
    ratio: int
    scenes: Sequence[Path]
    validation: Sequence[Path]
    recipe: str = "default"
    steps: int = 0
    batch: int = 0
    validate_every: int = 250
    sensor: str = "generic"
    seed: int = 1
    device: str = "auto"
    licence: str = ""
    data: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


def make_model(job: Training, on_step: Callable[[Progress], None] = lambda progress: None) -> Model:
    """Train and write the model folder `job.output`; a run that was cut short goes on from the state it left there."""
    where = device(job.device)
    recipe = RECIPES[job.recipe]
    recipe = replace(recipe, batch=job.batch or recipe.batch)
    radiometry = Radiometry("scene")
    scenes, validation = ([_load(folder, job) for folder in folders] for folders in (job.scenes, job.validation))
    patches = Patches(scenes, radiometry, recipe.patch, job.seed)
    steps = job.steps or recipe.epochs * max(1, len(patches) // recipe.batch)
    torch.manual_seed(job.seed)
    network = build(job.network, len(job.bands), job.ratio, job.options)
    job.output.mkdir(parents=True, exist_ok=True)
    began = time.time()
    weights, scores = train(
        network, patches, validation, radiometry, recipe, steps=steps, every=job.validate_every,
        state=job.output / "training.state", where=where, on_step=on_step,
    )  # fmt: skip
    network.load_state_dict(weights)
    table = {**classical_scores(validation, SENSORS[job.sensor]), job.output.name: scores}
    spec = ModelSpec(
        name=job.output.name,
        network=job.network,
        options=dict(job.options),
        bands=tuple(Band(name, WAVELENGTHS.get(name, 0.0)) for name in job.bands),
        ratio=job.ratio,
        phase=area_phase(job.ratio),
        radiometry=radiometry,
        crop=recipe.patch,
        licence=job.licence,
        training={
            "data": job.data,
            "scenes": [folder.name for folder in job.scenes],
            "validation": [folder.name for folder in job.validation],
            "recipe": job.recipe,
            "steps": steps,
            "batch": recipe.batch,
            "patches": len(patches),
            "sensor": job.sensor,
            "seed": job.seed,
            "minutes": round((time.time() - began) / 60, 1),
        },
        scores={name: value.as_dict() for name, value in table.items()},
    )
    model = save(job.output, spec, network, card(spec, sum(p.numel() for p in network.parameters())))
    (job.output / "training.state").unlink()
    return model


def _load(folder: Path, job: Training) -> ReducedScene:
    return load(
        folder / "pan.tif", folder / "ms.tif", name=folder.name,
        sensor=SENSORS[job.sensor], bands=job.bands, ratio=job.ratio,
    )  # fmt: skip
