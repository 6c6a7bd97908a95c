"""Where the tests find real scenes and the numbers to match. They live beside the checkout, not in it; tests that
need them skip where they are absent."""

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

# Triton looks when it is imported, which torch may do before the tests of our kernels
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# who starts the tests in the background may have had Ctrl-C ignored, for them and all their children
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED = Path(__file__).resolve().parents[2] / "shared"


def _folder(name: str) -> Path:
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"needs the test material {name}/ beside the checkout")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder with outputs of the official code."""
    return _folder("golden")


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder with real PAN/MS pairs."""
    return _folder("data")


SURVIVED: Counter[str] = Counter()
FAILED: Counter[str] = Counter()


@pytest.fixture(scope="session")
def tally() -> Callable[[str, str], None]:
    """Counts what tests of many cases do: `tally(kind, complaint)`, without a complaint it went well."""

    def count(kind: str, complaint: str) -> None:
        (FAILED if complaint else SURVIVED)[kind] += 1

    return count


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """A report of what was tallied."""
    kinds = sorted(SURVIVED.keys() | FAILED.keys())
    if not kinds:
        return
    terminalreporter.section("faults and bad inputs")
    terminalreporter.line(f"{'':24}{'count':>8}{'survived':>10}{'failed':>8}")
    for kind in [*kinds, "all"]:
        survived = SURVIVED.total() if kind == "all" else SURVIVED[kind]
        failed = FAILED.total() if kind == "all" else FAILED[kind]
        terminalreporter.line(f"{kind:24}{survived + failed:8}{survived:10}{failed:8}")
