"""Reading ahead, working side by side and writing behind, with bounded queues: who computes waits for neither."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ahead(items: Iterable[Item], depth: int = 2) -> Iterator[Item]:
    """The same `items`, made in one other thread, at most `depth` in advance. Errors come out where they belong."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1, "reader") as thread:
        pending = deque(thread.submit(next, iterator, end) for _ in range(depth))
        while (item := pending.popleft().result()) is not end:
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
    with ThreadPoolExecutor(threads, "worker", initializer=begin) as pool:
        pending: deque[Future[Result]] = deque()
        try:
            for item in items:
                pending.append(pool.submit(work, item))
                if len(pending) > threads:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:  # after an error, or if no more is wanted
            for future in pending:
                future.cancel()


class Behind:
    """Calls made in one other thread, in order, at most `depth` of them waiting. Leaving it waits for all.

    An error of a call is raised by a later one, or on leaving.
    """

    def __init__(self, depth: int = 2) -> None:
        self._depth = depth
        self._thread = ThreadPoolExecutor(1, "writer")
        self._pending: deque[Future[Any]] = deque()

    def __call__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._pending.append(self._thread.submit(function, *arguments))
        while len(self._pending) > self._depth:
            self._pending.popleft().result()

    def __enter__(self) -> Behind:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=error is not None)
        if error is None:
            for call in self._pending:
                call.result()
