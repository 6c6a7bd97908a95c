"""Inner loops compiled for the CPU, for what NumPy and torch would take many passes."""

from __future__ import annotations

from collections.abc import Callable
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
        return numba.njit(cache=True, **settings)(loop)  # type: ignore[no-any-return]
    except RuntimeError:  # no folder to keep it in
        return numba.njit(**settings)(loop)  # type: ignore[no-any-return]
