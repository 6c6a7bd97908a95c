"""A process that has everything imported and forks a child a case: the program as its user starts it, in 50 ms.

The child runs the command line's own `main` and ends as a process does. Limits, signals and faults (faults.c) come from
outside. Only classical methods on one thread: a parent with threads could not be forked.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import resource
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

PATIENCE = 60
"""Seconds after which a case hangs."""
KINDS = ("any", "open", "read", "write", "sync", "rename", "unlink", "clock")
"""Calls that a fault may hit, in the order of faults.c."""
LONGEST = 400


@dataclass(frozen=True)
class Fault:
    """The `nth` call of a `kind` on files in the case's folder fails with an `error` (errno), and all later ones if it
    is `lasting`; or a signal `sign` comes just before it; or the clock leaps by `leap` seconds."""

    kind: str
    nth: int
    error: int = 0
    sign: int = 0
    lasting: bool = False
    leap: int = 0


@dataclass(frozen=True)
class Case:
    """A command line in a folder, and what happens to it.

    `sign`: a signal that comes `after` so many seconds; `dying`: then memory runs out in one of its threads. `memory`:
    bytes of address space beyond what the child has at its start; `size`: of the largest file. `user`: id under which
    it runs.
    """

    arguments: Sequence[str]
    folder: Path
    fault: Fault | None = None
    sign: int = 0
    after: float = 0
    dying: bool = False
    memory: int = 0
    size: int = 0
    user: int = 0
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Ended:
    """What became of a case. `code`: as a shell knows it, the negative number of a signal; None: it hung. `calls`: on
    files in its folder, by kind, if faults could be counted. `process`: its id, and that of its group.
    """

    code: int | None
    seconds: float
    calls: dict[str, int]
    process: int
    out: str
    err: str


class Zygote:
    """The parent, from outside. `warm_up`: a command that it runs itself first. `library`: faults.c, compiled; without
    it there are no faults and no counts."""

    def __init__(self, scratch: Path, warm_up: Sequence[str | Path], library: Path | None = None) -> None:
        self._out, self._err = scratch / "stdout", scratch / "stderr"
        scratch.mkdir(parents=True, exist_ok=True)
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
        if library:
            environment["LD_PRELOAD"] = str(library)
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(library or ""), *map(str, warm_up)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True,
        )  # fmt: skip

    def run(self, case: Case) -> Ended:
        streams = {"stdout": str(self._out), "stderr": str(self._err)}
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(asdict(case) | streams, default=str) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        out, err = (path.read_text(errors="replace") for path in (self._out, self._err))
        return Ended(answer["code"], answer["seconds"], answer["calls"], answer["process"], out, err)

    def close(self) -> None:
        if self._process.stdin:
            self._process.stdin.close()
        self._process.wait()


class _Plan(ctypes.Structure):
    """`struct plan` of faults.c."""

    _fields_ = (
        *((name, ctypes.c_int) for name in ("kind", "nth", "error", "sign", "lasting", "leap")),
        ("counts", ctypes.c_int * len(KINDS)),
        ("folder", ctypes.c_char * LONGEST),
    )


PLAN = _Plan.from_buffer(mmap.mmap(-1, mmap.PAGESIZE))
"""What is to happen to the child, and its calls so far: memory that both have."""


def _fill(plan: _Plan, case: Mapping[str, Any]) -> None:
    ctypes.memset(ctypes.byref(plan), 0, ctypes.sizeof(plan))
    plan.folder = os.path.realpath(case["folder"]).encode()
    if fault := case["fault"]:
        plan.kind, plan.nth = KINDS.index(fault["kind"]), fault["nth"]
        plan.error, plan.sign = fault["error"], fault["sign"]
        plan.lasting, plan.leap = int(fault["lasting"]), fault["leap"]


def _kill_a_thread(after: float) -> None:
    """Have a MemoryError come up in some thread of this process that works, not the first one."""
    time.sleep(after)
    while True:
        for ident, frame in sys._current_frames().items():
            names = [summary.filename for summary in traceback.extract_stack(frame)]
            if ident != threading.main_thread().ident and any("pansharpen_cli" in name for name in names):
                ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(ident), ctypes.py_object(MemoryError))
                return
        time.sleep(0.001)


def _become(case: Mapping[str, Any]) -> None:
    """What the child is before the program begins."""
    os.setpgid(0, 0)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        os.dup2(os.open(case[name], os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.chdir(case["folder"])
    os.environ.update(case["environment"])
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if case["memory"]:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        resource.setrlimit(resource.RLIMIT_AS, (pages * mmap.PAGESIZE + case["memory"],) * 2)
    if case["size"]:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as Python itself does
        resource.setrlimit(resource.RLIMIT_FSIZE, (case["size"],) * 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if case["user"]:
        os.setuid(case["user"])
    if case["dying"]:
        threading.Thread(target=_kill_a_thread, args=(case["after"],), daemon=True).start()
    sys.argv = ["pansharpen", *case["arguments"]]


def _watch(child: int, case: Mapping[str, Any]) -> int | None:
    """Its exit code as a shell knows it; None if it had to be killed."""
    began, sent = time.monotonic(), False
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        passed = time.monotonic() - began
        if case["sign"] and not sent and passed >= case["after"]:
            os.kill(child, case["sign"])
            sent = True
        if passed > PATIENCE:
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.0005)


def _warm_up(arguments: Sequence[str]) -> None:
    """Run the program once here, so that all it imports and compiles is there for the children."""
    from tqdm import tqdm

    from pansharpen_cli.cli.app import main

    tqdm.monitor_interval = 0  # its thread
    sys.argv = ["pansharpen", *arguments]
    with suppress(SystemExit):
        main()
    until = time.monotonic() + 5
    while len(os.listdir("/proc/self/task")) > 1:  # the last ones are about to end
        assert time.monotonic() < until, "a process with threads cannot be forked"


def _serve(library: str) -> None:
    """Children return from here; the parent ends in it."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        case = json.loads(line)
        _fill(PLAN, case)
        began = time.monotonic()
        child = os.fork()
        if not child:
            answers.close()
            _become(case)
            if library:
                ctypes.CDLL(library).fault_arm(ctypes.byref(PLAN))
            return
        code = _watch(child, case)
        calls = dict(zip(KINDS, PLAN.counts, strict=True))
        seconds = time.monotonic() - began
        answers.write(json.dumps({"code": code, "seconds": seconds, "calls": calls, "process": child}) + "\n")
        answers.flush()
    os._exit(0)


if __name__ == "__main__":
    library = sys.argv[1]
    _warm_up(sys.argv[2:])
    _serve(library)
    from pansharpen_cli.cli.app import main

    main()
