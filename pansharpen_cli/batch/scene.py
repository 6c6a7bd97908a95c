"""One scene of a batch: what is to be done, and what came of it."""

from __future__ import annotations

import logging
import time
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from pansharpen_cli import pipeline
from pansharpen_cli.errors import AbsentError, OutputError, PansharpenError
from pansharpen_cli.evaluation.quality import judge
from pansharpen_cli.job import Job
from pansharpen_cli.pipeline import Product
from pansharpen_cli.resume import finished, replacing_its_own, resume
from pansharpen_cli.system import locations
from pansharpen_cli.system.locks import BusyError
from pansharpen_cli.upload import sent

log = logging.getLogger(__name__)

LOOK = 0.2
"""Seconds between two looks at what another run is making."""

Status = Literal["done", "kept", "failed", "left"]
"""Of a scene: made now; finished before, or by another run; not made; not begun."""


@dataclass(frozen=True)
class Outcome:
    """What became of a scene: a line of the summary. What is not known is None.

    `shift`: as measured, `applied`: as corrected, (dx, dy) in PAN pixels. `seconds` and `megapixels_per_second` (of
    the PAN) of making it. `attempts`: how often it was begun. `message`: why it failed, or what is odd about it.
    """

    scene: str
    status: Status
    product: str
    method: str | None = None
    seconds: float | None = None
    megapixels_per_second: float | None = None
    shift: tuple[float, float] | None = None
    applied: tuple[float, float] | None = None
    hqnr: float | None = None
    job_sha256: str | None = None
    attempts: int = 1
    message: str = ""


@dataclass(frozen=True)
class Task:
    """A scene to be done. `before`: what an earlier batch said of it; `qnr`: judge the product too; `patience`: seconds
    that another run is waited for which is making it."""

    scene: str
    job: Job
    resume: bool = False
    qnr: bool = False
    before: Outcome | None = None
    attempt: int = 1
    patience: float = 0

    def anywhere(self) -> Task:
        """For a worker in another folder. It goes on with what another one, that died, has left."""
        job, given = self.job, (self.job.pan, *self.job.ms)
        pan, *ms = map(locations.anywhere, given)
        output = job.output if locations.output_url(job.output) else job.output.absolute()
        return replace(self, job=replace(job, pan=pan, ms=ms, output=output, given=given), resume=True)

    def outcome(self, status: Status, message: str = "") -> Outcome:
        """Of a scene without a product."""
        return Outcome(self.scene, status, locations.told(self.job.output), attempts=self.attempt, message=message)


@dataclass(frozen=True)
class Failure:
    """Of one attempt. `may_pass`: the next one may have better luck; `busy`: another run is making the product;
    `absent`: the input that is not there."""

    message: str
    may_pass: bool
    busy: bool = False
    absent: AbsentError | None = None


@dataclass(frozen=True)
class Desk:
    """Where tasks are done: with a device and a share of the threads. Called in a process of its own."""

    device: str
    threads: int

    def __call__(self, task: Task) -> Outcome | Failure:
        task = replace(task, job=replace(task.job, device=self.device, threads=self.threads))
        try:
            return _sharpened(task)
        except BusyError as error:
            return Failure(str(error), may_pass=False, busy=True)
        except PansharpenError as error:
            # bad input stays bad; what the system or GDAL did not want to write may be written later
            may_pass = isinstance(error, OutputError) and error.__cause__ is not None
            return Failure(str(error), may_pass, absent=error if isinstance(error, AbsentError) else None)
        except (OSError, MemoryError) as error:
            return Failure(f"{type(error).__name__}: {error}", may_pass=True)
        except Exception as error:  # one scene's bug is not the others' end
            log.debug(traceback.format_exc())
            return Failure(f"unexpected {type(error).__name__}: {error} (-v shows where)", may_pass=False)


def _sharpened(task: Task) -> Outcome:
    if locations.output_url(task.job.output):
        return _sharpened_and_sent(task)
    task.job.output.parent.mkdir(parents=True, exist_ok=True)
    return _judged(task, _resumed(task) if task.resume else pipeline.sharpen(task.job))


def _sharpened_and_sent(task: Task) -> Outcome:
    """The product is in the store when it is made and judged here."""
    made = finished(task.job) if task.resume else None
    if made:
        outcome = _judged(replace(task, qnr=False), made)
        if not task.qnr or outcome.hqnr is not None:
            return outcome
        return replace(outcome, message="no HQNR: it was finished, and is not fetched to be judged")
    job = replacing_its_own(task.job) if task.resume else task.job
    with sent(job) as here:
        outcome = _judged(replace(task, job=here), pipeline.sharpen(here))
    return replace(outcome, product=locations.told(job.output))


def _judged(task: Task, product: Product) -> Outcome:
    """What came of a product, with its quality if that is asked for."""
    before = task.before
    known = before if product.kept and before and before.job_sha256 == product.job_sha256 else None
    if known and (known.hqnr is not None or not task.qnr):
        return replace(known, status="kept", product=locations.told(product.path))
    hqnr, message = _hqnr(task, product) if task.qnr else (None, "")
    return Outcome(
        task.scene,
        "kept" if product.kept else "done",
        locations.told(product.path),
        product.method,
        seconds=None if product.kept else round(product.seconds, 3),
        megapixels_per_second=None if product.kept else round(product.megapixels_per_second, 3),
        shift=(product.shift.dx, product.shift.dy) if product.shift else None,
        applied=product.applied,
        hqnr=hqnr,
        job_sha256=product.job_sha256,
        attempts=task.attempt,
        message=message,
    )


def _resumed(task: Task) -> Product:
    """What another run is making is waited for, as long as the task has patience."""
    until = time.monotonic() + task.patience
    while True:
        try:
            return resume(task.job)
        except BusyError:
            if time.monotonic() >= until:
                raise
        time.sleep(LOOK)


def _hqnr(task: Task, product: Product) -> tuple[float | None, str]:
    """HQNR of a product, or why there is none: that does not make it a worse one."""
    job = task.job
    try:
        judgement = judge(
            product.path, pan=str(job.pan), ms=[*map(str, job.ms)], metrics=["HQNR"], threads=job.threads
        )  # fmt: skip
    except PansharpenError as error:
        return None, f"no HQNR: {error}"
    score = judgement.report.scores["HQNR"]
    return score.value, "" if score.value is not None else f"no HQNR: {score.reason}"


def scene_name(job: Job, folder: Path) -> str:
    """What a scene is called: its product's path in the folder of all, without suffix."""
    return job.output.relative_to(folder).with_suffix("").as_posix()
