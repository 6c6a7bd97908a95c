"""Reading ahead, working side by side and writing behind, with bounded queues: who computes waits for neither."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Thread, current_thread
from types import TracebackType
from typing import Any, TypeVar

from pansharpen_cli.errors import PansharpenError

Item = TypeVar("Item")
Result = TypeVar("Result")

PULSE = 2.0
"""Seconds after which who waits for a thread looks whether it lives."""


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Threads(ThreadPoolExecutor):
    """Threads whose death is noticed. A thread may end before its work, when memory runs out within Python itself; who
    waits for it would wait for ever."""

    def __init__(self, count: int, name: str, begin: Callable[[], None] = lambda: None) -> None:
        """Each thread starts with `begin`."""
        self._begun: list[Thread] = []

        def started() -> None:
            self._begun.append(current_thread())
            begin()

        super().__init__(count, name, initializer=started)

    def result(self, future: Future[Result]) -> Result:
        """What comes of a call that was submitted here. Raises PansharpenError if nothing can come of it any more."""
        while True:
            done, _ = wait([future], timeout=PULSE)
            if done:
                return future.result()
            if not all(thread.is_alive() for thread in self._begun):
                raise PansharpenError(
                    "a thread of the program died, as happens when memory runs out; give a smaller --tile-size or "
                    "fewer --threads"
                )


def ahead(items: Iterable[Item], depth: int = 2) -> Iterator[Item]:
    """The same `items`, made in one other thread, at most `depth` in advance. Errors come out where they belong."""
    iterator, end = iter(items), object()
    with Threads(1, "reader") as thread:
        pending = deque(thread.submit(next, iterator, end) for _ in range(depth))
        while (item := thread.result(pending.popleft())) is not end:
            pending.append(thread.submit(next, iterator, end))
            yield item  # type: ignore[misc]


def in_order(
    work: Callable[[Item], Result],
    items: Iterable[Item],
    threads: int,
    begin: Callable[[], None] = lambda: None,
) -> Iterator[Result]:
    """Like `map`, on `threads` items at the same time; few results wait for their turn.

    Items are taken in the caller's thread, and worked on there too if one is to be at a time. Each other thread starts
    with `begin`.
    """
    if threads == 1:
        yield from map(work, items)
        return
    with Threads(threads, "worker", begin) as pool:
        pending: deque[Future[Result]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) > threads:
                    yield pool.result(pending.popleft())
            while pending:
                yield pool.result(pending.popleft())
        finally:  # after an error, or if no more is wanted
            for future in pending:
                future.cancel()


class Behind:
    """Calls made in one other thread, in order, at most `depth` of them waiting. Leaving it waits for all.

    An error of a call is raised by a later one, or on leaving.
    """

    def __init__(self, depth: int = 2) -> None:
        self._depth = depth
        self._thread = Threads(1, "writer")
        self._pending: deque[Future[Any]] = deque()

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._pending.append(self._thread.submit(function, *arguments))
        while len(self._pending) > self._depth:
            self._thread.result(self._pending.popleft())

    def __enter__(self) -> Behind:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                for call in self._pending:
                    self._thread.result(call)
        finally:
            self._thread.shutdown(cancel_futures=True)
