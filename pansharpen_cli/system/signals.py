"""Signals as exceptions, so that temporaries are removed on the way out."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer, current_thread, main_thread
from typing import NoReturn

TERMINATED = 128 + signal.SIGTERM
"""Exit code after SIGTERM."""


_dropped: list[type[BaseException]] = []
"""Signals that Python did not act on, because of where they came."""


class Terminated(SystemExit):
    """SIGTERM has come."""


def listen() -> None:
    """From here on SIGTERM raises Terminated in this process's main thread, as Ctrl-C does KeyboardInterrupt."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.unraisablehook = _signalled_again


def _terminate(*_: object) -> NoReturn:
    raise Terminated(TERMINATED)


def _signalled_again(lost: sys.UnraisableHookArgs) -> None:
    """Python drops what is raised in some places, where it tidies up or is called back; a signal that came just there
    comes again."""
    signals = {KeyboardInterrupt: signal.SIGINT, Terminated: signal.SIGTERM}
    if lost.exc_type in signals:
        _dropped.append(lost.exc_type)
        Timer(0.01, os.kill, (os.getpid(), signals[lost.exc_type])).start()
    else:
        sys.__unraisablehook__(lost)


def behind(error: BaseException) -> type[BaseException] | None:
    """The signal that an error comes of, KeyboardInterrupt or Terminated, if it does: Python wraps what is raised while
    a class is made, a library that tidies up after a signal may fail in that, and where Python dropped a signal what
    waited for the dropped call fails."""
    earlier = error.__cause__ or error.__context__
    while earlier is not None:
        if isinstance(earlier, KeyboardInterrupt | Terminated):
            return type(earlier)
        earlier = earlier.__cause__ or earlier.__context__
    return _dropped[-1] if _dropped else None


@contextmanager
def later(number: signal.Signals) -> Iterator[None]:
    """A signal that comes here is acted on afterwards."""
    if current_thread() is not main_thread():  # where no signal arrives
        yield
        return
    came: list[int] = []
    before = signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        signal.signal(number, before)
        if came:
            signal.raise_signal(number)
