"""What a person sees while a command works: messages and progress, both on stderr."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import RLock
from typing import Protocol, TextIO

import typer

from pansharpen_cli.errors import OutputError
from pansharpen_cli.system import settings
from pansharpen_cli.system.concurrency import cores

shown = {"tracebacks": False}
"""What a user asked to see."""


def set_up(quiet: bool, verbose: int) -> None:
    """Messages of the library to stderr: warnings always, what it does unless `quiet`, details with -v."""
    from tqdm import tqdm  # not before a command runs: --help should be quick

    warnings.filterwarnings("ignore", settings.NOT_GEOREFERENCED)
    logging.getLogger("concurrent.futures").propagate = False  # a thread that dies is told of in a sentence
    logging.getLogger("concurrent.futures").addHandler(logging.NullHandler())
    tqdm.set_lock(RLock())  # its own is made with the first message, and breaks if a signal comes just then
    shown["tracebacks"] = verbose >= 2
    handler = _BesideBars(sys.stderr)
    handler.setFormatter(_Format())
    logger = logging.getLogger("pansharpen_cli")
    logger.handlers = [handler]
    logger.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)


def put(text: object) -> None:
    """A result, to stdout. Raises OutputError."""
    try:
        typer.echo(text)
    except BrokenPipeError:  # who was listening has enough
        raise
    except OSError as error:
        raise OutputError(f"the results cannot be written to standard output: {error.strerror}") from error


def say(text: str) -> None:
    """What was done, to stderr; if nobody takes it, it is done all the same."""
    with suppress(OSError):
        print(text, file=sys.stderr)


def open_streams() -> None:
    """Standard streams that are closed, as a daemon's may be, lead nowhere: a file would else get their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def close_streams() -> None:
    """What a full disk did not take of them must not turn what was done into a failure."""
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)


class _BesideBars(logging.StreamHandler[TextIO]):
    """Takes a bar away while a message is written."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        with tqdm.external_write_mode(self.stream):
            super().emit(record)


class _Format(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        mark = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        return mark + record.getMessage()


class Tell(Protocol):
    """Takes what is done, of how much, and what to say beside it."""

    def __call__(self, done: int, total: int, note: str = "") -> None: ...


@contextmanager
def progress(quiet: bool, unit: str) -> Iterator[Tell]:
    """A bar while something is under way; none where stderr is no terminal."""
    from tqdm import tqdm

    bar: tqdm | None = None

    def tell(done: int, total: int, note: str = "") -> None:
        nonlocal bar
        if bar is None:  # what was done before says nothing of the speed
            hidden = quiet or not sys.stderr.isatty()
            bar = tqdm(unit=unit, file=sys.stderr, disable=hidden, leave=False, total=total, initial=done - 1)
        bar.set_postfix_str(note, refresh=False)
        bar.update(done - bar.n)
        if done == total:
            bar.close()
            bar = None

    try:
        yield tell
    finally:
        if bar is not None:
            bar.close()


def threads(wanted: int) -> int:
    """How many threads to use, and let the array libraries use: 0 is all that this process may have.

    A matrix product gets one. Threads share out tiles, and OpenBLAS's would wait for each other: twice the CPU time.
    """
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    if wanted:
        os.environ["OMP_NUM_THREADS"] = str(wanted)
    return wanted or cores()
