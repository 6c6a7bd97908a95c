"""The memory of this process: what it takes, what it may take, and what glibc keeps of it."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Thread
from typing import Any

from pansharpen_cli.errors import UsageError

log = logging.getLogger(__name__)

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
SECONDS_BETWEEN_LOOKS = 0.001


def parse(text: str, what: str) -> int:
    """Bytes: "4G", "4GiB", "1500M". Raises UsageError, in which `what` names the option."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not found or not float(found[1]):
        raise UsageError(f"{what} takes a size like 4G or 1500M, not {text!r}")
    return int(float(found[1]) * UNITS[found[2].upper()])


def words(size: float) -> str:
    """Bytes for people."""
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.0f} MiB"


def resident() -> int:
    """Bytes of memory that the process takes. Raises UsageError where the system does not tell."""
    return _of_proc("VmRSS")


def most() -> int:
    """The most bytes that it has taken so far. Raises the same."""
    return _of_proc("VmHWM")


def _of_proc(name: str) -> int:
    try:
        with open("/proc/self/status", encoding="ascii", errors="replace") as file:
            (kibibytes,) = (line.split()[1] for line in file if line.startswith(f"{name}:"))
    except (OSError, ValueError):
        raise UsageError("--max-memory needs Linux, whose /proc tells how much a process takes") from None
    return 1024 * int(kibibytes)


def highest(work: Callable[[], object]) -> int:
    """The most bytes that the process took while `work` ran."""
    peak, done = resident(), Event()

    def look() -> None:
        nonlocal peak
        while not done.wait(SECONDS_BETWEEN_LOOKS):
            peak = max(peak, resident())

    looking = Thread(target=look, name="memory", daemon=True)
    looking.start()
    try:
        work()
    finally:
        done.set()
        looking.join()
    return peak


def warn_beyond(limit: int) -> None:
    """Say so if the process took more than `limit` bytes."""
    if most() > limit:
        log.warning("--max-memory was %s, but %s were taken", words(limit), words(most()))


def keep() -> None:
    """Let glibc keep the memory of big arrays instead of faulting it in again each time: 2 to 3 times faster. In one
    heap for all threads: those of their own hold no array of more than 64 MiB."""
    m_trim_threshold, m_top_pad, m_mmap_threshold, m_arena_max = -1, -2, -3, -8
    with suppress(OSError, AttributeError):  # another C library: slower, not wrong
        libc = _libc()
        libc.mallopt(m_mmap_threshold, 2**30)
        libc.mallopt(m_trim_threshold, 2**31 - 1)
        libc.mallopt(m_top_pad, 64 << 20)
        libc.mallopt(m_arena_max, 1)


def give_back() -> None:
    """Give what nothing is in any more back to the system."""
    with suppress(OSError, AttributeError):
        _libc().malloc_trim(0)


def _libc() -> Any:
    if not sys.platform.startswith("linux"):
        raise OSError
    import ctypes  # which a help does without

    return ctypes.CDLL("libc.so.6")
