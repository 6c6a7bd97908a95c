"""Training, from the first step to the model folder: read `train` from top to bottom."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pansharpen_cli.backends.torch_backend import TorchBackend
from pansharpen_cli.errors import ModelError
from pansharpen_cli.evaluation import Scores, score
from pansharpen_cli.networks.network import Network
from pansharpen_cli.radiometry import Radiometry
from pansharpen_cli.training.dataset import Patches
from pansharpen_cli.training.recipes import Recipe
from pansharpen_cli.wald import ReducedScene

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": nn.functional.l1_loss,
    "mse": nn.functional.mse_loss,
}

LONGEST_STEP = 1.0
"""Norm to which gradients are clipped: adaptive kernels with random signs take off otherwise."""


@dataclass(frozen=True)
class Progress:
    """What `train` tells after every step; `scores` when it has validated."""

    step: int
    steps: int
    loss: float
    images_per_second: float
    scores: Scores | None = None


def train(
    network: Network,
    patches: Patches,
    validation: Sequence[ReducedScene],
    radiometry: Radiometry,
    recipe: Recipe,
    *,
    steps: int,
    every: int,
    state: Path,
    where: torch.device,
    on_step: Callable[[Progress], None] = lambda progress: None,
) -> tuple[dict[str, Tensor], Scores]:
    """Train `network` for `steps` batches and return the weights that validated best, with their scores.

    Every `every` steps it validates on whole scenes and saves its `state`, from which a killed run goes on exactly.
    """
    backend = TorchBackend(network, recipe.patch, where)  # also moves the network to its device
    optimizer = torch.optim.Adam(network.parameters(), lr=recipe.lr)
    epochs = steps * recipe.batch / len(patches)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: recipe.schedule(step * recipe.batch / len(patches), epochs)
    )
    first, best = _resume(state, network, optimizer, schedule)
    for step in range(first, steps):
        began = time.perf_counter()
        network.train()
        pan, ms, gt = (torch.from_numpy(images).to(where) for images in patches.batch(step, recipe.batch))
        loss = LOSSES[recipe.loss](network(pan, ms), gt)
        if not torch.isfinite(loss):
            raise ModelError(
                f"the loss is {loss.item()} at step {step}; lower the learning rate ({state} holds the last good state)"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), LONGEST_STEP)
        optimizer.step()
        schedule.step()
        speed = recipe.batch / (time.perf_counter() - began)
        scores = None
        if (step + 1) % every == 0 or step + 1 == steps:
            scores = score(lambda _: backend, radiometry, validation)
            if best is None or scores.ergas < best["scores"]["ergas"]:
                weights = {name: value.detach().cpu().clone() for name, value in network.state_dict().items()}
                best = {"weights": weights, "scores": scores.as_dict(), "step": step + 1}
            _save(state, network, optimizer, schedule, step + 1, best)
        on_step(Progress(step + 1, steps, loss.item(), speed, scores))
    assert best is not None
    return best["weights"], Scores(**best["scores"])


def _save(state: Path, network: Network, optimizer: Any, schedule: Any, step: int, best: dict[str, Any]) -> None:
    content = {
        "network": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "step": step,
        "best": best,
    }
    partial = state.with_suffix(".partial")
    torch.save(content, partial)
    os.replace(partial, state)


def _resume(state: Path, network: Network, optimizer: Any, schedule: Any) -> tuple[int, dict[str, Any] | None]:
    if not state.exists():
        return 0, None
    content = torch.load(state, weights_only=True)
    network.load_state_dict(content["network"])
    optimizer.load_state_dict(content["optimizer"])
    schedule.load_state_dict(content["schedule"])
    return content["step"], content["best"]
