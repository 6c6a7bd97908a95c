"""What a training run leaves to follow it by: a line of CSV for every step, and TensorBoard events."""

from __future__ import annotations

import csv
import importlib.util
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pansharpen_cli.training.loop import Progress

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

CSV = "training.csv"
EVENTS = "tensorboard"
COLUMNS = ("step", "loss", "lr", "images_per_second", "seconds", "ergas", "sam", "q2n")


class Log:
    """Writes into `folder`, events only where the package tensorboard is installed.

    A run that goes on where another was cut short also goes on with its log: what that did later is dropped.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / CSV
        self._began, self._before = time.perf_counter(), 0.0
        self._events: SummaryWriter | None = None
        self._open = False

    @property
    def seconds(self) -> float:
        """How long the run has taken, with what it goes on from."""
        return self._before + time.perf_counter() - self._began

    def __call__(self, progress: Progress) -> None:
        if not self._open:
            self._begin(progress.step)
        values = {"loss": progress.loss, "lr": progress.lr, "images_per_second": progress.images_per_second}
        scores = progress.scores.as_dict() if progress.scores else {}
        with open(self.path, "a", encoding="utf-8", newline="") as file:
            csv.DictWriter(file, COLUMNS).writerow(
                {"step": progress.step, **values, "seconds": round(self.seconds, 1), **scores}
            )
        if self._events:
            for name, value in {**values, **scores}.items():
                self._events.add_scalar(name, value, progress.step)
            if scores:
                self._events.flush()

    def _begin(self, step: int) -> None:
        kept = [row for row in read(self.path) if int(row["step"]) < step]
        with open(self.path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(kept)
        self._before = float(kept[-1]["seconds"]) if kept else 0.0
        if importlib.util.find_spec("tensorboard"):
            from torch.utils.tensorboard import SummaryWriter

            self._events = SummaryWriter(self.path.parent / EVENTS, purge_step=step)
        self._open = True


def read(path: Path) -> list[dict[str, str]]:
    """The lines of a log by their columns; what a killed run did not write to its end is left out."""
    if not path.exists():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        return [row for row in csv.DictReader(file) if None not in row.values()]
