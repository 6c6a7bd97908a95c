"""Signals as exceptions, so that temporaries are removed on the way out."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer, current_thread, main_thread
from typing import NoReturn

INTERRUPTED, TERMINATED = 128 + signal.SIGINT, 128 + signal.SIGTERM
"""Exit codes after Ctrl-C and SIGTERM."""
ENDING = [number for number in signal.Signals if re.fullmatch("SIG(TERM|HUP|XCPU|USR1|USR2)", number.name)]
"""Signals that end a process which does not say otherwise: a scheduler's, and those of a connection that was lost."""

_came: list[int] = []
"""Exit codes of the signals that were acted on."""


class Terminated(SystemExit):
    """A signal of ENDING has come; `code` is the exit code."""


def listen() -> None:
    """From here on those of ENDING raise Terminated in this process's main thread, as Ctrl-C does KeyboardInterrupt.
    What is ignored, as SIGHUP is by `nohup`, stays so."""
    _came.clear()
    for number in ENDING:
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _terminate)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    sys.unraisablehook = _signalled_again


def _terminate(number: int, _: object) -> NoReturn:
    _came.append(128 + number)
    raise Terminated(128 + number)


def _interrupt(*_: object) -> NoReturn:
    _came.append(INTERRUPTED)
    raise KeyboardInterrupt


def _signalled_again(lost: sys.UnraisableHookArgs) -> None:
    """Python drops what is raised in some places, where it tidies up or is called back; a signal that came just there
    comes again."""
    if _came and issubclass(lost.exc_type, KeyboardInterrupt | Terminated):
        Timer(0.01, os.kill, (os.getpid(), _came[-1] - 128)).start()
    else:
        sys.__unraisablehook__(lost)


def behind() -> int | None:
    """The exit code of the signal that an error comes of, if one came: Python wraps what is raised while a class is
    made, libraries that tidy up after a signal fail in that or tell another error in its place, and what waited for a
    call in which Python dropped a signal fails."""
    return _came[-1] if _came else None


@contextmanager
def later() -> Iterator[None]:
    """Signals that end this process and come here are acted on afterwards."""
    if current_thread() is not main_thread():  # where no signal arrives
        yield
        return
    came: list[int] = []
    numbers = [signal.SIGINT, *ENDING]
    before = [signal.signal(number, lambda number, _: came.append(number)) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
