"""The verb behind `adapt`: a model fitted to one scene, with the scene's own MS as its truth.

By Wald's protocol the scene is degraded by its own ratio. Blocks of it are held out: their truth is never learned from,
and says when to stop, and whether the fitted model is better at all.
"""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from pansharpen_cli import zoo
from pansharpen_cli.backends.torch_backend import TorchBackend, device
from pansharpen_cli.canvas import ArrayCanvas
from pansharpen_cli.coregistration import Choice
from pansharpen_cli.errors import ModelError, OutputError, SceneError
from pansharpen_cli.evaluation import Scores, classical_scores, score
from pansharpen_cli.interpolation import area_phase
from pansharpen_cli.method import choose
from pansharpen_cli.modelspec import WAVELENGTHS, Band, ModelSpec
from pansharpen_cli.mtf import SENSORS
from pansharpen_cli.networks import build
from pansharpen_cli.networks.network import Network
from pansharpen_cli.radiometry import Radiometry, Scaling
from pansharpen_cli.reduced import load
from pansharpen_cli.wald import ReducedScene
from pansharpen_cli.zoo import Model, save

log = logging.getLogger(__name__)

Mask = npt.NDArray[np.bool_]

BLOCKS = 8
"""Blocks along an axis of the scene; one in four is held out."""
PATCH, BATCH = 64, 8
FINE, FRESH = 3e-4, 2e-3
"""Learning rates: to fit a trained model, and to begin with nothing."""
AVERAGED = 0.95
"""Weight of the past in the average of the weights that is judged and kept: it varies less than the weights."""
RIVALS = ("exp", "gsa", "mtf-glp-fs", "bdsd-pc", "mtf-glp-hpm-h")
"""Classical methods to compare with."""
EVERY, PATIENCE = 25, 6
"""Steps between looks at the held-out blocks, and looks without a gain after which it stops."""


@dataclass(frozen=True)
class Adaptation:
    """Which scene to fit, from which `model`; or from nothing, a `network`.

    `minutes` and `steps` are the most it may take; 0 steps: as many as it gains from.
    """

    pan: str | Path
    ms: Sequence[str | Path]
    output: Path
    model: str = "auto"
    network: str | None = None
    bands: Sequence[str] | None = None
    sensor: str = "generic"
    coregister: Choice = "auto"
    minutes: float = 8.0
    steps: int = 0
    seed: int = 1
    device: str = "auto"
    threads: int = 0
    overwrite: bool = False


@dataclass(frozen=True)
class Adapted:
    """The model that was written, and its scores on the held-out blocks: before, after, and of classical methods.

    `before` is None where it began with nothing.
    """

    model: Model
    before: Scores | None
    after: Scores
    classical: dict[str, Scores]
    steps: int
    seconds: float


def adapt(job: Adaptation, on_step: Callable[[int, float], None] = lambda step, gain: None) -> Adapted:
    """Fit and write the model folder `job.output`; by its held-out blocks it is never worse than what it began with.

    `on_step` is told how many steps are done, and the ERGAS of the held-out blocks as a part of what it was.
    """
    began = time.perf_counter()
    if (job.output / zoo.SPEC).exists() and not job.overwrite:
        raise OutputError(f"{job.output} is a model already; give --overwrite or another folder")
    where = device(job.device)
    if job.threads:
        torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    sensor = SENSORS[job.sensor]
    scene = load(job.pan, *job.ms, sensor=sensor, bands=job.bands, coregister=job.coregister)
    learned, held_out = split(scene)
    network, spec = _beginning(job, scene)
    network.set_camera([sensor.gain(band) for band in scene.band_names])
    before, after, steps = fit(
        network, spec.radiometry, learned, held_out, crop=spec.crop, where=where, fresh=job.network is not None,
        seconds=60 * job.minutes, steps=job.steps, seed=job.seed, on_step=on_step,
    )  # fmt: skip
    classical = classical_scores([held_out], sensor, RIVALS)
    seconds = time.perf_counter() - began
    model = _save(job, spec, network, scene, {**classical, job.output.name: after}, steps, seconds)
    return Adapted(model, None if job.network else before, after, classical, steps, seconds)


def split(scene: ReducedScene) -> tuple[ReducedScene, ReducedScene]:
    """The scene twice: valid where it may be learned from, and valid in the blocks that are held out.

    Raises SceneError if one of the two holds no pixel.
    """
    rows, cols = (np.arange(size) * min(BLOCKS, size // scene.ratio // 4) // size for size in scene.valid.shape)
    held: Mask = (rows[:, None] + 2 * cols) % 4 == 0  # a knight's move apart
    parts = scene.valid & ~held, scene.valid & held
    if not all(part.any() for part in parts):
        raise SceneError(f"{scene.name} is too small, or has too little data, to hold out a part of it")
    learned, held_out = (replace(scene, valid=part) for part in parts)
    return learned, held_out


def fit(
    network: Network,
    radiometry: Radiometry,
    learned: ReducedScene,
    held_out: ReducedScene,
    *,
    crop: int,
    where: torch.device,
    fresh: bool,
    seconds: float,
    steps: int,
    seed: int,
    on_step: Callable[[int, float], None],
) -> tuple[Scores, Scores, int]:
    """Train `network` in place and leave it with the best weights by the held-out blocks. Returns the scores of these
    blocks before and after, and the steps that were taken.

    It stops when they no longer gain, after `seconds`, and after `steps` unless that is 0.
    """
    average = copy.deepcopy(network)
    backend = TorchBackend(average, crop, where)
    network.to(where).train()
    patches = _Patches(learned, held_out, radiometry, where)
    rate = FRESH if fresh else FINE
    optimizer = torch.optim.Adam(network.parameters(), lr=rate)
    random = np.random.default_rng(seed)
    before = best = score(lambda _: backend, radiometry, [held_out])
    kept = copy.deepcopy(average.state_dict())
    step = waited = 0
    end = time.perf_counter() + seconds
    while waited < PATIENCE and time.perf_counter() < end and step != (steps or None):
        pan, ms, gt, weight = patches.batch(random)
        loss = (weight * (network(pan, ms) - gt).abs()).sum() / (weight.sum() * gt.shape[1])
        if not torch.isfinite(loss):
            break
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        step += 1
        _follow(average, network, min(AVERAGED, step / (step + 10)))
        if step % EVERY == 0 or step == steps:
            now = score(lambda _: backend, radiometry, [held_out])
            waited += 1
            if now.ergas < best.ergas:
                waited = 0 if now.ergas < 0.999 * best.ergas else waited
                best, kept = now, copy.deepcopy(average.state_dict())
        on_step(step, best.ergas / before.ergas)
    network.load_state_dict(kept)
    return before, best, step


class _Patches:
    """Random patches of one scene in network units, turned and mirrored; `weight` is 1 where the truth may be known."""

    def __init__(
        self, learned: ReducedScene, held_out: ReducedScene, radiometry: Radiometry, where: torch.device
    ) -> None:
        known = learned.valid | held_out.valid
        scaling = Scaling.of(radiometry, ArrayCanvas.of(learned.pan, learned.ms, known).moments)
        pan, ms = scaling.to_network(learned.pan, learned.ms)
        gt = (learned.gt - scaling.offset) / scaling.scale
        images = (pan, ms, gt, learned.valid[None].astype(np.float32))
        self._images = [torch.from_numpy(np.ascontiguousarray(image)).to(where) for image in images]
        self._ratio = learned.ratio
        low = min(PATCH // self._ratio, *ms.shape[1:])
        self._low = low
        # only corners whose patch has something to learn from
        blocks = learned.valid.reshape(ms.shape[1], self._ratio, ms.shape[2], self._ratio).any(axis=(1, 3))
        seen = np.lib.stride_tricks.sliding_window_view(blocks, (low, low)).mean(axis=(2, 3))
        self._corners = np.argwhere(seen >= min(0.25, float(seen.max())))

    def batch(self, random: np.random.Generator) -> list[Tensor]:
        """pan (N, 1, P, P), ms (N, bands, p, p), gt (N, bands, P, P), weight (N, 1, P, P)."""
        samples = [self._sample(random) for _ in range(BATCH)]
        return [torch.stack(images) for images in zip(*samples, strict=True)]

    def _sample(self, random: np.random.Generator) -> list[Tensor]:
        row, col = random.choice(self._corners)
        turns, mirror = random.integers(4), random.integers(2)
        sample = []
        for image, scale in zip(self._images, (self._ratio, 1, self._ratio, self._ratio), strict=True):
            size = scale * self._low
            part = image[:, scale * row : scale * row + size, scale * col : scale * col + size]
            part = torch.rot90(part, int(turns), (1, 2))
            sample.append(part.flip(2) if mirror else part)
        return sample


@torch.no_grad()
def _follow(average: Network, network: Network, past: float) -> None:
    for kept, new in zip(average.parameters(), network.parameters(), strict=True):
        kept.lerp_(new, 1 - past)


def _beginning(job: Adaptation, scene: ReducedScene) -> tuple[Network, ModelSpec]:
    """The network to begin with, and a description of what it will be."""
    bands = tuple(Band(name, WAVELENGTHS.get(name, 0.0)) for name in scene.band_names)
    if job.network is not None:
        network = build(job.network, len(bands), scene.ratio, {"consistent": True})
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
    job: Adaptation, spec: ModelSpec, network: Network, scene: ReducedScene, scores: dict[str, Scores],
    steps: int, seconds: float,
) -> Model:  # fmt: skip
    training = {
        **spec.training,
        "scene": scene.name,
        "sensor": job.sensor,
        "steps": steps,
        "seed": job.seed,
        "minutes": round(seconds / 60, 1),
    }
    spec = replace(spec, training=training, scores={name: value.as_dict() for name, value in scores.items()})
    return save(job.output, spec, network, card(spec))


def card(spec: ModelSpec) -> str:
    """README.md of the model folder."""
    how = spec.training
    rows = [f"| {name} | {value['ergas']:.3f} | {value['sam']:.3f} |" for name, value in spec.scores.items()]
    return "\n".join([
        f"# {spec.name}", "",
        f"{spec.network} for {', '.join(spec.band_names)} at ratio {spec.ratio}, fitted to one scene ({how['scene']}).",
        f"It began as {how['adapted_from']}; {how['steps']} steps, {how['minutes']} minutes, seed {how['seed']}, "
        f"sensor MTF `{how['sensor']}`.", "",
        "| method | ERGAS | SAM (degrees) |", "|---|---|---|", *rows, "",
        "On the blocks of this scene that were held out, at reduced resolution. Lower is better.", "",
    ])  # fmt: skip
