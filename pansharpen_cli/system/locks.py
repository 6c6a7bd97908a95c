"""Files that keep two runs apart: one at a time has a lock on them, which ends with its process."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from pansharpen_cli.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows: two runs of one product are not kept apart
    fcntl = None  # type: ignore[assignment]


KEEPS_APART = fcntl is not None


class BusyError(OutputError):
    """Another run is making the product (exit code 1)."""


def locked(path: Path, product: Path) -> BinaryIO:
    """The file `path`, which is made if there is none, for the run that makes `product`. Raises BusyError, OSError."""
    while True:
        with ExitStack() as life:
            file = life.enter_context(open(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+b"))
            try:
                if fcntl:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise BusyError(f"{product} is being made by another run; wait for it") from error
            if not fcntl or _is(file, path):  # else who had it removed it between the two calls
                life.pop_all()
                return file


def _is(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


@contextmanager
def alone(path: Path, product: Path) -> Iterator[None]:
    """While no other run makes `product`; `path` is the file that tells. Raises BusyError if one does. Runs on a disk
    that cannot lock files are not kept apart."""
    with ExitStack() as life:
        with suppress(OSError):
            if fcntl:
                life.enter_context(locked(path, product))
                life.callback(path.unlink, missing_ok=True)  # under the lock: afterwards it may be another run's
        yield


@contextmanager
def turn(path: Path, patience: float = 10) -> Iterator[None]:
    """While no other run has its turn with the file `path`, which may replace it. Who has none after `patience`
    seconds, or is on a disk that cannot lock files, goes on without."""
    with ExitStack() as life:
        until = time.monotonic() + patience
        while fcntl:
            try:
                life.enter_context(locked(path, path))
            except BusyError:
                if time.monotonic() < until:
                    time.sleep(0.005)
                    continue
            except OSError:
                pass
            break
        yield


def remove_dead(paths: Iterable[Path]) -> None:
    """Remove what killed processes left of files that runs are `alone` with. What lives, and all on a disk that cannot
    lock files, stays."""
    if not fcntl:
        return
    for path in paths:
        with suppress(OSError, BusyError), locked(path, path):
            path.unlink()
