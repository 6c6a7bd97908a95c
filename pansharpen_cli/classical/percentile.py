"""The exact percentile of a scene that is seen piece by piece, twice, in bounded memory and any units."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt

from pansharpen_cli.imaging.interpolation import Float64

_DROPPED = 14
"""Trailing bits of a float32 that do not count for its bin: 512 bins an octave, about half a DN wide at 300 DN."""
_BINS = 2 ** (32 - _DROPPED)


class Percentile:
    """The sorted values x_1 ... x_n stand at 100 (k - 0.5) / n per cent, linear between them, flat outside (MATLAB's
    prctile).

    All values are given to `count`, then all again, in any order, to `collect`. Kept are only those in the bins that
    hold the percentile, equal ones once.
    """

    def __init__(self, percent: float) -> None:
        self._percent = percent
        self._counts = np.zeros(_BINS, np.int64)
        self._values: list[Float64] = []
        self._times: list[npt.NDArray[np.int64]] = []

    def count(self, values: Float64) -> None:
        """Take in values (n,)."""
        self._counts += np.bincount(_bins(values), minlength=_BINS)

    def collect(self, values: Float64) -> None:
        """Take in values (n,) that were counted."""
        first, last = self._cumulative.searchsorted(self._ranks)
        bins = _bins(values)
        kept, times = np.unique(values[(bins >= first) & (bins <= last)], return_counts=True)
        self._values.append(kept)
        self._times.append(times)

    @property
    def value(self) -> float:
        values = np.concatenate(self._values)
        order = np.argsort(values)
        first = self._cumulative.searchsorted(self._ranks[0])
        below = self._cumulative[first] - self._counts[first]
        cumulative = below + np.concatenate(self._times)[order].cumsum()
        lower, upper = values[order][cumulative.searchsorted(self._ranks)]
        return float(lower + self._position % 1 * (upper - lower))

    @cached_property
    def _cumulative(self) -> npt.NDArray[np.int64]:
        return self._counts.cumsum()

    @property
    def _position(self) -> float:
        """Where the percentile stands among the sorted values, the first on 1."""
        total = float(self._cumulative[-1])
        return min(max(self._percent / 100 * total + 0.5, 1.0), total)

    @property
    def _ranks(self) -> tuple[int, int]:
        """The values on both sides of the percentile."""
        return int(self._position), int(np.ceil(self._position))


def _bins(values: Float64) -> npt.NDArray[np.int32]:
    """Bins that rise with the value: the leading bits of its float32."""
    bits = values.astype(np.float32).view(np.int32)
    rising = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    return np.asarray((rising >> _DROPPED) + _BINS // 2)
