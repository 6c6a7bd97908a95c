"""Where the tests find real scenes and the numbers to match. They live beside the checkout, not in it; tests that
need them skip where they are absent."""

import signal
from pathlib import Path

import pytest

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
