"""Processes that do one task after the other. One that dies, killed or out of memory, takes only its task with it."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from threading import Lock, Thread
from types import TracebackType
from typing import Any, Generic, TypeVar

from pansharpen_cli.system import settings
from pansharpen_cli.system.signals import later, listen

Task = TypeVar("Task")
Result = TypeVar("Result")

PATIENCE = 20
"""Seconds that a process has to put down its task and leave."""

KILLED = -9
"""Exit code of a process that was killed."""

PACKAGE = "pansharpen_cli"


@dataclass(frozen=True)
class Death:
    """A process that ended before its task; `code` is its exit code, the negative number of a signal."""

    code: int

    def __str__(self) -> str:
        if self.code == KILLED:
            return "its process was killed, as happens when memory runs out; --workers fewer need less"
        if self.code < 0:
            return f"its process was ended by {signal.Signals(-self.code).name}"
        return f"its process ended with code {self.code}"


class Workers(Generic[Task, Result]):
    """Up to `len(works)` processes, started when they are needed, each with its own of the callables `works`.

    These are pickled, as are tasks and results. `on_log(task, level, message)` takes what a process logs at `level` or
    above; `tidy(task, process id)` is called when a process left a task unfinished. On leaving all processes end.
    """

    def __init__(
        self,
        works: Sequence[Callable[[Task], Result]],
        *,
        level: int = logging.WARNING,
        on_log: Callable[[Task, int, str], None],
        tidy: Callable[[Task, int], None],
    ) -> None:
        self._works = list(reversed(works))  # of processes that do not run, the first one last
        self._idle: list[_Worker] = []
        self._busy: dict[Connection, tuple[_Worker, Task]] = {}
        self._level, self._on_log, self._tidy = level, on_log, tidy

    def each(self, queue: deque[Task]) -> Iterator[tuple[Task, Result | Death]]:
        """Every task of `queue` with its result, as they come; meanwhile tasks may be added to it, or taken away."""
        while queue or self._busy:
            while queue and (self._idle or self._works):
                self._begin(queue.popleft())
            for connection in wait(list(self._busy)):
                yield from self._heard(connection)  # type: ignore[arg-type]

    def _begin(self, task: Task) -> None:
        worker = self._idle.pop() if self._idle else _Worker(self._works.pop(), self._level)
        if not worker.process.is_alive():  # killed while it had nothing to do
            worker = _Worker(worker.work, self._level)
        self._busy[worker.connection] = worker, task
        with suppress(OSError):  # it died just now: its connection tells
            worker.connection.send(task)

    def _heard(self, connection: Connection) -> Iterator[tuple[Task, Result | Death]]:
        worker, task = self._busy[connection]
        try:
            message = connection.recv()
        except (EOFError, OSError):
            yield task, self._buried(connection)
            return
        if isinstance(message, _Log):
            self._on_log(task, message.level, message.text)
            return
        del self._busy[connection]
        self._idle.append(worker)
        yield task, message

    def _buried(self, connection: Connection) -> Death:
        worker, task = self._busy.pop(connection)
        worker.end()
        self._works.append(worker.work)
        self._tidy(task, worker.process.pid or 0)
        return Death(worker.process.exitcode or 0)

    def __enter__(self) -> Workers[Task, Result]:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for worker in (*self._idle, *(worker for worker, _ in self._busy.values())):
            worker.process.terminate()
        for worker in self._idle:
            worker.end()
        for connection in list(self._busy):
            self._buried(connection)


@dataclass(frozen=True)
class _Log:
    level: int
    text: str


class _Worker:
    """A process, and the line to it. It is spawned: threads of this process leave nothing locked in it."""

    def __init__(self, work: Callable[[Any], Any], level: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.work = work
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work, level), daemon=True)
        with later(), _deaf_to_interrupts():  # half started, it would complain
            self.process.start()
        theirs.close()  # else its end would not be seen

    def end(self) -> None:
        """Wait for its end; it is near, or it is brought about."""
        self.process.join(PATIENCE)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.connection.close()


@contextmanager
def _deaf_to_interrupts() -> Iterator[None]:
    """A process that is started here does not hear Ctrl-C: its parent acts on it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _serve(connection: Connection, work: Callable[[Any], Any], level: int) -> None:
    """The life of a process. It ends by SIGTERM, which lets the task remove its temporaries, or with its parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    listen()
    Thread(target=_leave_with_parent, daemon=True).start()
    warnings.filterwarnings("ignore", settings.NOT_GEOREFERENCED)
    lock = Lock()

    def send(message: object) -> None:
        with lock:
            connection.send(message)

    logger = logging.getLogger(PACKAGE)
    logger.handlers, logger.propagate = [_Forward(send)], False
    logger.setLevel(level)
    with suppress(EOFError, OSError):  # the parent is gone
        while True:
            send(work(connection.recv()))


class _Forward(logging.Handler):
    """Sends messages to the parent."""

    def __init__(self, send: Callable[[object], None]) -> None:
        super().__init__()
        self._send = send

    def emit(self, record: logging.LogRecord) -> None:
        with suppress(OSError):
            self._send(_Log(record.levelno, record.getMessage()))


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
