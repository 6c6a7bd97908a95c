"""Inner loops compiled for the CPU, for what NumPy and torch would take many passes."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core.codegen import get_host_cpu_features

Loop = Callable[..., Any]


def _take_wide_vectors() -> None:
    """Vectors of 512 bits are a fifth to a third faster; LLVM takes half of that, as the first processors that had them
    slowed down."""
    settings: Any = numba.config
    features: str = get_host_cpu_features()  # type: ignore[no-untyped-call]
    if settings.CPU_FEATURES is None and "+avx512f" in features:
        settings.CPU_FEATURES = f"{features},-prefer-256-bit"


_take_wide_vectors()


def compiled(loop: Loop) -> Loop:
    """`loop`, compiled at its first call; while it runs other threads run too.

    Sums keep their order, so that a pixel is the same whatever tile it is in; only a * b + c may be rounded once. The
    result is kept beside the source, or in the user's cache, for the next process.
    """
    settings: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
    try:
        made: Any = numba.njit(cache=True, **settings)(loop)
    except RuntimeError:  # no folder to keep it in
        return numba.njit(**settings)(loop)  # type: ignore[no-any-return]
    # numba looks at the loop's own file only; what it calls in others would be run as it was
    with suppress(AttributeError):
        made._cache._cache_file._source_stamp = _stamp(Path(loop.__code__.co_filename).parent)
    return made  # type: ignore[no-any-return]


@cache
def _stamp(folder: Path) -> tuple[float, int]:
    """Another one if any source there, of `imaging` or here has changed: loops call no others."""
    here = Path(__file__).parent
    places = {folder, here, here.with_name("imaging")}
    files = [source.stat() for place in places for source in place.glob("*.py")]
    return max(file.st_mtime for file in files), sum(file.st_size for file in files)
