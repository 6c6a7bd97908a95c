"""Statistics of a product's bands, gathered core by core, as GDAL keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, sqrt
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class BandStatistics:
    """Of the valid pixels of a band, in DN. `squares` is the sum of squared deviations from the mean."""

    count: int = 0
    minimum: float = inf
    maximum: float = -inf
    mean: float = 0.0
    squares: float = 0.0

    @property
    def std(self) -> float:
        """Population standard deviation, as GDAL's."""
        return sqrt(self.squares / self.count) if self.count else 0.0

    @classmethod
    def of(cls, values: npt.NDArray[Any]) -> BandStatistics:
        """Of `values` (n,)."""
        if not values.size:
            return cls()
        if values.dtype.kind in "ui" and values.dtype.itemsize <= 2:
            return cls._of_short_integers(values)
        mean = float(values.mean(dtype=np.float64))
        deviations = values - np.float64(mean)
        return cls(values.size, float(values.min()), float(values.max()), mean, float(deviations @ deviations))

    @classmethod
    def _of_short_integers(cls, values: npt.NDArray[Any]) -> BandStatistics:
        """Of integers of at most 16 bits: their sums are exact, so one look is enough."""
        from pansharpen_cli.imaging import dn  # half a second, which not every command needs

        count, low = values.size, int(values.min())
        total, squares = map(int, dn.sums_above(values, low))
        mean, deviations = (total + low * count) / count, (squares * count - total**2) / count
        return cls(count, float(low), float(values.max()), mean, deviations)

    def merge(self, other: BandStatistics) -> BandStatistics:
        """Of both sets together (Chan, Golub & LeVeque 1979, eq. 2.1: no cancellation, whatever the sizes)."""
        count = self.count + other.count
        if not count:
            return self
        step = other.mean - self.mean
        return BandStatistics(
            count,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
            self.mean + step * other.count / count,
            self.squares + other.squares + step**2 * self.count * other.count / count,
        )

    def tags(self, pixels: int) -> dict[str, str]:
        """As GDAL's band tags, for a band of `pixels`; none for a band without data."""
        if not self.count:
            return {}
        return {
            "STATISTICS_MINIMUM": repr(self.minimum),
            "STATISTICS_MAXIMUM": repr(self.maximum),
            "STATISTICS_MEAN": repr(self.mean),
            "STATISTICS_STDDEV": repr(self.std),
            "STATISTICS_VALID_PERCENT": f"{100 * self.count / pixels:.4g}",
        }
