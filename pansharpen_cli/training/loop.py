"""Training, from the first step to the best weights: read `train` from top to bottom."""

from __future__ import annotations

import math
import os
import pickle
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pansharpen_cli.errors import ModelError, UsageError
from pansharpen_cli.networks.network import Network
from pansharpen_cli.system.concurrency import ahead
from pansharpen_cli.training.dataset import Patches
from pansharpen_cli.training.learner import Learner
from pansharpen_cli.training.parallel import Workers
from pansharpen_cli.training.recipes import Recipe
from pansharpen_cli.training.validation import Scores

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": nn.functional.l1_loss,
    "mse": nn.functional.mse_loss,
}


@dataclass(frozen=True)
class Progress:
    """What `train` tells after every step; `scores` when it has validated."""

    step: int
    steps: int
    loss: float
    lr: float
    images_per_second: float
    scores: Scores | None = None


@dataclass(frozen=True)
class Best:
    """The weights that validated best so far, after so many steps."""

    weights: Mapping[str, Tensor]
    scores: Scores
    step: int


@dataclass(frozen=True)
class Plan:
    """How long and how to train, beside the recipe.

    So many `steps`; or, if they are 0, so many `minutes`: then the schedule follows the clock. Every `every` steps it
    validates and saves its `state`, from which a killed run goes on, exactly if it counts steps; `early_stop`
    validations without improvement end it (0: none do). `crops` neighbours in a batch are of one scene and share their
    global values. `terms`: what a run must have in common with the one that left the state.
    """

    steps: int
    every: int
    seed: int
    state: Path
    minutes: float = 0
    early_stop: int = 0
    crops: int = 1
    compiled: bool = False
    terms: Mapping[str, Any] = field(default_factory=dict)


class Course:
    """How far a run has come: by its steps, or by the clock. `spent`: seconds of the run that it goes on from."""

    def __init__(self, plan: Plan, spent: float) -> None:
        self._steps, self._seconds, self._began = plan.steps, 60 * plan.minutes, time.monotonic() - spent

    @property
    def seconds(self) -> float:
        """Since the first step."""
        return time.monotonic() - self._began

    def done(self, step: int) -> tuple[float, float]:
        """How much is done after so many steps, and of how much: steps, or seconds."""
        return (step, self._steps) if self._steps else (min(self.seconds, self._seconds), self._seconds)

    def steps(self, step: int) -> int:
        """How many there will be; by the clock, a guess."""
        done, whole = self.done(step)
        return self._steps or round(step * whole / max(done, 1e-3))


def train(
    network: Network,
    patches: Patches,
    recipe: Recipe,
    plan: Plan,
    validate: Callable[[Mapping[str, Tensor]], Scores],
    where: torch.device,
    *,
    workers: Workers | None = None,
    on_step: Callable[[Progress], None] = lambda progress: None,
    on_best: Callable[[Best], None] = lambda best: None,
) -> Best:
    """Train `network` and return the weights that validated best. Of several `workers` the first validates."""
    workers = workers or Workers()
    learner = workers.together(Learner(network.to(where), plan.crops))
    if plan.compiled:
        learner.compile(dynamic=False)
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.lr)
    course = Course(plan, 0)
    epoch = len(patches) / recipe.batch if plan.steps else 1
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: recipe.schedule(*(done / epoch for done in course.done(step)))
    )
    first, best, spent = _resume(plan, network, optimizer, schedule)
    course = Course(plan, spent)
    steps = range(first, plan.steps) if plan.steps else count(first)
    batches = (patches.batch(step, recipe.batch, workers.rank, workers.count) for step in steps)
    began = time.perf_counter()
    for step, batch in enumerate(ahead(batches), start=first):
        if best and plan.early_stop and step - best.step >= plan.early_stop * plan.every:
            break
        # what is random in a step follows from it alone: no state of a generator need be kept
        torch.manual_seed(int(np.random.SeedSequence((plan.seed, step, workers.rank)).generate_state(1)[0]))
        loss, norm = _gradients(learner, recipe, [torch.from_numpy(images).to(where) for images in batch])
        told = workers.mean(loss)
        if not torch.isfinite(told + norm):
            raise _failed(f"the loss is {told.item()} at step {step + 1}, its gradient {norm.item()}", plan, best)
        lr = float(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
        scores = None
        speed = recipe.batch / (time.perf_counter() - began)
        done, whole = course.done(step + 1)
        is_last = done == whole
        if (step + 1) % plan.every == 0 or is_last:
            weights = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
            scores = workers.first_does(partial(validate, weights))
            if not math.isfinite(scores.ergas):
                raise _failed(f"the validation ERGAS is {scores.ergas} at step {step + 1}", plan, best)
            if best is None or scores.ergas < best.scores.ergas:
                best = Best(weights, scores, step + 1)
        # before the state, which is resumed
        on_step(Progress(step + 1, course.steps(step + 1), told.item(), lr, speed, scores))
        if scores and best and workers.is_first:
            _save(plan, network, optimizer, schedule, step + 1, best, course.seconds)
            if best.step == step + 1:
                on_best(best)
        if is_last:
            break
        began = time.perf_counter()
    assert best is not None
    return best


def _gradients(learner: nn.Module, recipe: Recipe, batch: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Leaves them with the parameters; the loss, and the norm that they had."""
    learner.train()
    learner.zero_grad(set_to_none=True)
    pan, ms, gt, gains, haze = batch
    loss = LOSSES[recipe.loss](learner(pan, ms, gains, haze), gt)
    loss.backward()  # type: ignore[no-untyped-call]
    return loss.detach(), nn.utils.clip_grad_norm_(learner.parameters(), recipe.longest_step)


def _failed(what: str, plan: Plan, best: Best | None) -> ModelError:
    kept = f" ({plan.state.parent} holds the model of step {best.step})" if best else ""
    return ModelError(f"{what}; try another recipe or a larger batch{kept}")


def _save(
    plan: Plan, network: Network, optimizer: Any, schedule: Any, step: int, best: Best, seconds: float
) -> None:  # fmt: skip
    content = {
        "terms": dict(plan.terms),
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "step": step,
        "seconds": seconds,
        "best": {"weights": best.weights, "scores": best.scores.__dict__, "step": best.step},
    }
    partial = plan.state.with_suffix(".partial")
    torch.save(content, partial)
    os.replace(partial, plan.state)


def _resume(plan: Plan, network: Network, optimizer: Any, schedule: Any) -> tuple[int, Best | None, float]:
    """Where a run that was cut short goes on, if there was one: step, best, seconds spent. Raises UsageError if it was
    another run."""
    if not plan.state.exists():
        return 0, None, 0.0
    with _reading(plan.state):
        content = torch.load(plan.state, weights_only=True, map_location="cpu")
        other = [name for name, value in plan.terms.items() if content["terms"].get(name) != value]
    if other:
        raise UsageError(
            f"{plan.state} was left by a run with other {', '.join(other)}; give what that had, or another --output"
        )
    with _reading(plan.state):
        network.load_state_dict(content["network"])
        optimizer.load_state_dict(content["optimizer"])
        schedule.load_state_dict(content["schedule"])
        best = content["best"]
        return content["step"], Best(best["weights"], Scores(**best["scores"]), best["step"]), content["seconds"]


@contextmanager
def _reading(state: Path) -> Iterator[None]:
    """Whatever is wrong with a state, which may be any file, as a UsageError."""
    try:
        yield
    except (OSError, MemoryError, torch.OutOfMemoryError):  # no fault of its own
        raise
    except Exception as error:  # of many kinds, and only torch's say something
        told = str(error).strip() if isinstance(error, RuntimeError | pickle.UnpicklingError) else ""
        reason = told.splitlines()[0] if told else "it holds no state of a run"
        raise UsageError(f"{state} cannot be read ({reason}); delete it to begin again") from error
