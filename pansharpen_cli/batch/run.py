"""Sharpen many scenes. Read `sharpen_all` from top to bottom: that is the whole batch."""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from pansharpen_cli.batch.check import check
from pansharpen_cli.batch.scene import Desk, Failure, Outcome, Task, scene_name
from pansharpen_cli.batch.shards import WHOLE, Shard
from pansharpen_cli.batch.summary import Summary, read_summary
from pansharpen_cli.batch.workers import Death, Workers
from pansharpen_cli.cluster import Cluster, Lost, wants_gpu
from pansharpen_cli.job import Job
from pansharpen_cli.resume import is_seen
from pansharpen_cli.system import locations
from pansharpen_cli.system.files import in_words, remove_partials, remove_passing

log = logging.getLogger(__name__)

Result = Outcome | Failure | Death | Lost

PATIENCE = 60.0
"""Seconds that a batch with nothing else to do waits for a scene which another run is making."""


@dataclass(frozen=True)
class Batch:
    """Which scenes, where to, and how.

    `folder` of all products and of the summary, which is elsewhere if `summaries` says so, as it must be if the
    products go to a store; `shard` of the jobs is done. `devices` are dealt out to `workers` processes, which share
    `threads`; or each scene has so many on a worker of the Dask `scheduler`. `retries` of a scene that failed in a way
    that may pass; `fail_fast`: begin no more scenes after one has failed. `resume` keeps what is finished; `qnr`
    judges every product. `manifest`: what the jobs were read from.
    """

    jobs: Sequence[Job]
    folder: Path
    shard: Shard = WHOLE
    workers: int = 1
    devices: Sequence[str] = ("auto",)
    threads: int = 1
    retries: int = 1
    fail_fast: bool = False
    resume: bool = False
    qnr: bool = False
    scheduler: str | None = None
    summaries: Path | None = None
    manifest: Path | None = None

    @property
    def in_store(self) -> bool:
        return locations.output_url(self.folder / "any") is not None

    @property
    def summary(self) -> Path:
        return self._summaries / f"summary{self.shard.suffix}.jsonl"

    @property
    def folders(self) -> set[Path]:
        """What is written to on this machine."""
        return {self._summaries, *(() if self.in_store else (self.folder,))}

    @property
    def before(self) -> dict[str, Outcome]:
        """What earlier batches said of their scenes."""
        return read_summary(self._summaries.glob("summary*.jsonl"))

    @property
    def _summaries(self) -> Path:
        return self.summaries or self.folder

    @property
    def desks(self) -> list[Desk]:
        share = max(1, self.threads // self.workers)
        return [Desk(self.devices[number % len(self.devices)], share) for number in range(self.workers)]


def sharpen_all(batch: Batch, on_scene: Callable[[int, int, int], None] = lambda done, failed, total: None) -> Summary:
    """Sharpen every scene of the batch's shard, and return the summary that was written.

    `on_scene` is told how many scenes are done, how many of them failed, of how many. A failed scene raises nothing;
    a batch that cannot begin raises SceneError, UsageError, OutputError or, without its cluster, DeviceError.
    """
    tasks = _tasks(batch)
    expected = {task.scene: task.outcome("left") for task in tasks}
    queue, counts = deque(tasks), Counter[str]()
    with (
        _hands(batch) as each,  # first: no folder is made and no summary emptied for a cluster that is not there
        _summary(batch, expected) as summary,
    ):
        for task, result in each(queue):
            if not isinstance(result, Outcome) and (again := _again(result, task, batch.retries)):
                log.info("%s: %s; it is tried again", task.scene, _reason(result))
                queue.append(again)
                continue
            outcome = result if isinstance(result, Outcome) else task.outcome("failed", _reason(result))
            summary.add(outcome)
            counts[outcome.status] += 1
            _tell(outcome)
            on_scene(counts.total(), counts["failed"], len(tasks))
            if outcome.status == "failed" and batch.fail_fast:
                queue.clear()
    return summary


@contextmanager
def _hands(batch: Batch) -> Iterator[Callable[[deque[Task]], Iterator[tuple[Task, Result]]]]:
    """Who does the tasks of a queue: processes of this machine, or the workers of a cluster."""
    if batch.scheduler:
        [device] = batch.devices
        with Cluster(batch.scheduler, wants_gpu(device)) as cluster:
            yield lambda queue: map(_seen_here, cluster.each(queue, Desk(device, batch.threads)))
        return
    level = logging.DEBUG if log.isEnabledFor(logging.DEBUG) else logging.WARNING
    with Workers(batch.desks, level=level, on_log=_log, tidy=_tidy) as workers:
        yield workers.each


def _seen_here(told: tuple[Task, Result]) -> tuple[Task, Result]:
    """What a worker tells of a task, unless its folders are not those that are called so here."""
    task, result = told
    if isinstance(result, Failure) and result.absent and os.path.exists(result.absent.path):
        return task, replace(result, message=str(result.absent.elsewhere))
    if isinstance(result, Outcome) and not is_seen(task.job, result.job_sha256 or ""):
        return task, Failure(
            f"{task.job.output} was made by a worker, but is not here; give a folder that the workers share", False
        )
    return told


def _summary(batch: Batch, expected: Mapping[str, Outcome]) -> Summary:
    """In a folder that is made, as that of the products is."""
    for folder in batch.folders:
        with in_words(f"{folder} cannot be made for products or summary"):
            folder.mkdir(parents=True, exist_ok=True)
    return Summary(batch.summary, expected, keep=batch.resume)


def _tasks(batch: Batch) -> list[Task]:
    """Of the batch's shard, after a look at all that can be known to go wrong."""
    check(batch)
    before = batch.before if batch.resume else {}
    names = [(scene_name(job, batch.folder), job) for job in batch.shard.of(batch.jobs)]
    tasks = [Task(name, job, batch.resume, batch.qnr, before.get(name)) for name, job in names]
    return [task.anywhere() for task in tasks] if batch.scheduler else tasks


def _again(failure: Failure | Death | Lost, task: Task, retries: int) -> Task | None:
    """The next attempt, if it may have better luck. What another run had was not begun: it is looked at once more."""
    if isinstance(failure, Failure) and failure.busy:
        return None if task.patience else replace(task, patience=PATIENCE)
    if task.attempt > retries or (isinstance(failure, Failure) and not failure.may_pass):
        return None
    return replace(task, attempt=task.attempt + 1, resume=True)  # the product may be there


def _reason(failure: Failure | Death | Lost) -> str:
    return failure.message if isinstance(failure, Failure) else str(failure)


def _tell(outcome: Outcome) -> None:
    if outcome.status == "failed":
        log.error("%s failed: %s", outcome.scene, outcome.message)
    elif outcome.status == "kept":
        log.info("%s is finished already", outcome.scene)
    else:
        log.info("%s by %s in %.1f s", outcome.scene, outcome.method, outcome.seconds)


def _log(task: Task, level: int, message: str) -> None:
    log.log(level, "%s: %s", task.scene, message)


def _tidy(task: Task, process: int) -> None:
    if locations.output_url(task.job.output):
        remove_passing(process)
    else:
        remove_partials(task.job.output, process)
