"""What a person sees while a command works: messages and progress, both on stderr."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

shown = {"tracebacks": False}
"""What a user asked to see."""


def set_up(quiet: bool, verbose: int) -> None:
    """Messages of the library to stderr: warnings always, what it does unless `quiet`, details with -v."""
    # rasterio's, of what is not georeferenced: we take care of it
    warnings.filterwarnings("ignore", "Dataset has no geotransform|The given matrix is equal to Affine.identity")
    shown["tracebacks"] = verbose >= 2
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Format())
    logger = logging.getLogger("pansharpen_cli")
    logger.handlers = [handler]
    logger.setLevel(logging.ERROR if quiet else logging.DEBUG if verbose else logging.INFO)


class _Format(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        mark = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        return mark + record.getMessage()


@contextmanager
def progress(quiet: bool, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A bar that is told (done, total); none where stderr is no terminal."""
    with tqdm(unit=unit, file=sys.stderr, disable=quiet or not sys.stderr.isatty(), leave=False) as bar:

        def tell(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield tell


def threads(wanted: int) -> int:
    """How many threads to use, and let the array libraries use: 0 is all that this process may have."""
    mine = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if wanted:
        os.environ["OMP_NUM_THREADS"] = str(wanted)
    return wanted or mine
