"""Between digital numbers (DN) and network units, and back to the product's data type."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Moments:
    """A scene's radiometry, in DN, over valid pixels: one value a band, the PAN last."""

    mean: Float64
    std: Float64
    high: Float64
    """99.9th percentile."""

    def of_bands(self, order: Sequence[int]) -> Moments:
        """These bands in this order, and the PAN."""
        chosen = [*order, -1]
        return Moments(self.mean[chosen], self.std[chosen], self.high[chosen])


@dataclass(frozen=True)
class Radiometry:
    """How a model wants its input; a part of spec.json.

    "fixed": DN / `scale`, the same for every scene of a sensor (the papers: 2047 for 11 bits).
    "scene": every band and the PAN shifted and scaled to mean `centre` and standard deviation `spread` over the scene,
    so that neither gain, offset nor bit depth of a sensor matters.
    """

    kind: Literal["fixed", "scene"] = "scene"
    scale: float = 1.0
    pan_scale: float = 1.0
    centre: float = 0.0
    spread: float = 1.0

    def __post_init__(self) -> None:
        if self.kind not in ("fixed", "scene"):
            raise ValueError(f"radiometry is fixed or scene, not {self.kind!r}")
        positive = self.scale, self.pan_scale, self.spread
        if not (all(0 < value < np.inf for value in positive) and np.isfinite(self.centre)):
            raise ValueError("scales and spread of a radiometry are positive numbers")


@dataclass(frozen=True, eq=False)
class Scaling:
    """Network units = (DN - offset) / scale, per band; the PAN has its own pair."""

    offset: Float32
    scale: Float32
    pan_offset: np.float32
    pan_scale: np.float32

    @classmethod
    def of(cls, radiometry: Radiometry, moments: Moments) -> Scaling:
        """The scaling that `radiometry` asks for on a scene with these `moments`."""
        if radiometry.kind == "fixed":
            bands = len(moments.mean) - 1
            scale = np.array([radiometry.scale] * bands + [radiometry.pan_scale])
            offset = np.zeros(bands + 1)
        else:
            scale = np.where(moments.std > 0, moments.std, 1) / radiometry.spread
            offset = moments.mean - radiometry.centre * scale
        low, unit = offset.astype(np.float32), scale.astype(np.float32)
        return cls(low[:-1, None, None], unit[:-1, None, None], low[-1], unit[-1])

    @classmethod
    def none(cls) -> Scaling:
        """DN as they are."""
        one = np.ones((1, 1, 1), np.float32)
        return cls(0 * one, one, np.float32(0), np.float32(1))

    @cached_property
    def _changes_nothing(self) -> bool:
        offsets, scales = (self.offset, self.pan_offset), (self.scale, self.pan_scale)
        return not any(np.any(offset) for offset in offsets) and all(np.all(scale == 1) for scale in scales)

    def to_network(self, pan: Float32, ms: Float32) -> tuple[Float32, Float32]:
        if self._changes_nothing:  # and would cost as much as a classical method does
            return pan, ms
        return (pan - self.pan_offset) / self.pan_scale, (ms - self.offset) / self.scale

    def to_dn(self, hrms: Float32) -> Float32:
        if self._changes_nothing:
            return hrms
        return hrms * self.scale + self.offset


def holds(dtype: np.dtype[Any], value: float) -> bool:
    """True if a pixel of this type can have this value."""
    if dtype.kind == "f":
        return True
    return bool(np.isfinite(value) and value == round(value) and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max)


def quantise(hrms: Float32, dtype: np.dtype[Any], nodata: float | None) -> npt.NDArray[Any]:
    """DN (bands, row, col) in the product's `dtype`: rounded half to even and clipped to its range; floats as they are.

    A value that happens to equal `nodata` moves by one, so that no valid pixel is lost.
    """
    if not np.issubdtype(dtype, np.integer):
        result = hrms.astype(dtype)
        if nodata is not None and not np.isnan(nodata):
            result[result == dtype.type(nodata)] = np.nextafter(dtype.type(nodata), dtype.type(0 if nodata else 1))
        return result
    from pansharpen_cli.imaging import dn  # half a second, which not every command needs

    info = np.iinfo(dtype)
    real = np.float32 if info.bits <= 16 else np.float64  # float32 cannot hold the largest 32-bit integers
    lost = float("nan") if nodata is None or not info.min <= nodata <= info.max else nodata
    instead = lost + 1 if lost < info.max else lost - 1
    numbers = np.empty(hrms.shape, dtype)
    side_by_side = hrms if hrms.strides[-1] == dn.STEP else hrms.astype(np.float32, order="C")
    dn.quantise(side_by_side, *map(real, (info.min, info.max, lost, instead)), numbers)
    return numbers


class Clipped:
    """Which part of a product's values its `dtype` cannot hold, from one pixel in SPARSE x SPARSE."""

    def __init__(self, dtype: np.dtype[Any]) -> None:
        self._dtype = dtype
        self._seen = self._below = self._above = 0

    def look(self, hrms: Float32, valid: npt.NDArray[np.bool_]) -> None:
        """At DN (bands, row, col) before they are rounded, where they are `valid` (row, col)."""
        if not np.issubdtype(self._dtype, np.integer):
            return
        info, every = np.iinfo(self._dtype), slice(None, None, SPARSE)
        values = hrms[:, every, every][:, valid[every, every]]
        self._seen += values.size
        self._below += int((values < info.min - 0.5).sum())
        self._above += int((values > info.max + 0.5).sum())

    @property
    def most(self) -> bool:
        """Whether hardly a value is left."""
        return self._below + self._above > self._seen / 2

    def warning(self) -> str | None:
        """A sentence, if it is more than WORTH_TELLING."""
        parts = {"below": self._below, "above": self._above}
        much = [f"{part / self._seen:.0%} {side}" for side, part in parts.items() if part > WORTH_TELLING * self._seen]
        if not much:
            return None
        info = np.iinfo(self._dtype)
        return (
            f"of the values about {' and '.join(much)} what {self._dtype} holds ({info.min} to {info.max}) were clipped"
            "; --dtype float32 keeps them"
        )


SPARSE = 8
WORTH_TELLING = 0.01
