"""What a training run tells and leaves: messages, logs, pictures, and the model folder from the first validation on."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from pansharpen_cli import zoo
from pansharpen_cli.evaluation.figure import Gallery
from pansharpen_cli.modelspec import ModelSpec, comparable
from pansharpen_cli.networks.network import Network
from pansharpen_cli.training.card import card
from pansharpen_cli.training.logs import Log
from pansharpen_cli.training.loop import Best, Progress
from pansharpen_cli.training.pictures import draw_curves
from pansharpen_cli.training.validation import Scores, Validation, exp

log = logging.getLogger(__name__)

CURVES = "curves.png"
SAMPLE = "sample.png"


class Journal:
    """Of the model that `spec` describes, in `folder`; `network` is there to be saved, another one learns."""

    def __init__(self, folder: Path, spec: ModelSpec, judge: Validation, network: Network) -> None:
        self._folder, self._spec, self._judge, self._network = folder, spec, judge, network
        self._log = Log(folder)
        self._table: dict[str, Scores] = {}
        self._steps = 0
        folder.mkdir(parents=True, exist_ok=True)

    def compare(self, on_scene: Callable[[int, int], None]) -> None:
        """See what has to be beaten."""
        self._table = self._judge.classical(on_scene)
        log.info("on the validation scenes: %s", "; ".join(f"{n} {_told(s)}" for n, s in self._baselines().items()))

    def step(self, progress: Progress) -> None:
        self._log(progress)
        self._steps = progress.step
        if progress.scores:
            draw_curves(self._log.path, self._folder / CURVES, {n: s.ergas for n, s in self._baselines().items()})
            log.info(
                "step %d: loss %.4f, %.1f images/s, %s",
                progress.step, progress.loss, progress.images_per_second, _told(progress.scores),
            )  # fmt: skip

    def write(self, best: Best) -> None:
        """The model folder, with the weights that validated best so far."""
        how = {**self._spec.training, "step": best.step, "minutes": round(self._log.seconds / 60, 1)}
        how["steps"] = self._steps or how["steps"]  # so far: it may end before its time
        table = {**self._table, self._spec.name: best.scores}
        scores = comparable({name: scores.as_dict() for name, scores in table.items()})
        spec = replace(self._spec, training=how, scores=scores)
        self._network.load_state_dict(best.weights)
        prepared = self._judge.scenes[0]
        scene = prepared.open()
        gallery = Gallery(self._folder / SAMPLE)
        gallery.add(scene, "exp", exp(prepared, scene))
        gallery.add(scene, spec.name, self._judge.sharpen(prepared, scene, best.weights))
        gallery.write(["exp", spec.name])
        zoo.save(self._folder, spec, self._network, card(spec, sum(p.numel() for p in self._network.parameters())))

    def _baselines(self) -> dict[str, Scores]:
        """EXP and the best of the others, if they were judged."""
        others = sorted((name for name in self._table if name != "exp"), key=lambda name: self._table[name].ergas)
        return {name: self._table[name] for name in ("exp", *others[:1]) if name in self._table}


def _told(scores: Scores) -> str:
    return f"ERGAS {scores.ergas:.3f}, SAM {scores.sam:.3f}, Q2n {scores.q2n:.4f}"
