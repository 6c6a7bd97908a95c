"""Which parts of a scene are worth a look: few enough to look at all, different enough to show what can go wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import numpy.typing as npt

from pansharpen_cli.imaging.geogrid import NestedAxis
from pansharpen_cli.inputs.canvas import Raw
from pansharpen_cli.metrics.streaming import BLOCK
from pansharpen_cli.report.inputs import Inputs, Mask

Float64 = npt.NDArray[np.float64]

SMALLEST, LARGEST = 128, 256
"""PAN pixels a side of a crop: a third of a small scene, so that several have room."""
MOST = 6
CANDIDATES = 12
"""Places along an axis that are looked at, whatever the size of the scene."""
SHARED = 0.3
"""The part of a crop that another may share, where there is no room for one apart."""
WHOLE = 0.95
"""The part of a crop that must hold data, where there is such a crop."""
EDGE = 0.25, 0.9
"""The part of a crop at the rim of the data that holds some."""

TITLES = {
    "detail": ("Most detail", "where the PAN changes most between neighbouring pixels"),
    "worst": ("Worst blocks", "lowest HQNR, averaged over 3 by 3 blocks"),
    "typical": ("Typical blocks", "HQNR at the scene's median"),
    "contrast": ("Strongest colour contrast", "spectra differ most: a coast, roofs among trees"),
    "edge": ("Edge of the data", "where pixels without data begin"),
    "bright": ("Brightest", "highest mean of the PAN"),
    "dark": ("Darkest", "lowest mean of the PAN"),
    "whole": ("The whole scene", "no larger than a crop"),
}
"""Kinds of crops in the order they are shown, and what each is."""


@dataclass(frozen=True)
class Crop:
    """A window of the canvas, on whole MS pixels, and why it was chosen (a key of TITLES)."""

    kind: str
    rows: slice
    cols: slice

    def shares(self, other: Crop) -> float:
        """The part of this crop that `other` covers too, 0..1."""
        sides = [
            max(0, min(a.stop, b.stop) - max(a.start, b.start)) / (a.stop - a.start)
            for a, b in ((self.rows, other.rows), (self.cols, other.cols))
        ]
        return float(sides[0] * sides[1])


def choose(inputs: Inputs, quality: Float64) -> list[Crop]:
    """At most MOST crops, in the order of TITLES, hardly overlapping.

    `quality` (rows, cols): HQNR of the blocks of BLOCK PAN pixels from canvas pixel (0, 0) on, NaN where there is none.
    """
    down, across = _places(inputs.canvas.rows, inputs.canvas.cols)
    if down.first == down.last and across.first == across.last:
        return [Crop("whole", down.at(down.first), across.at(across.first))]
    looks = [
        _Look.of(rows, cols, *_views(inputs, rows, cols)) for rows in down.candidates() for cols in across.candidates()
    ]
    whole = [look for look in looks if look.valid >= WHOLE] or [max(looks, key=lambda look: look.valid)]
    edges = [look for look in looks if EDGE[0] < look.valid < EDGE[1]]
    smooth = _smoothed(_inner(quality))
    ranked: dict[str, Iterable[tuple[slice, slice]]] = {  # the rarest first
        "worst": _around(smooth, down, across),
        "edge": _ranked(edges, lambda look: abs(look.valid - sum(EDGE) / 2)),
        "detail": _ranked(whole, lambda look: -look.detail),
        "contrast": _ranked(whole, lambda look: -look.contrast),
        "typical": _around(np.abs(smooth - _median(smooth)), down, across),
        "bright": _ranked(whole, lambda look: -look.brightness),
        "dark": _ranked(whole, lambda look: look.brightness),
    }
    chosen: list[Crop] = []
    for kind, places in ranked.items():
        crops = [Crop(kind, *place) for place in places]
        apart = (c for most in (0, SHARED) for c in crops if all(c.shares(other) <= most for other in chosen))
        chosen += islice(apart, 1 if len(chosen) < MOST else 0)
    return sorted(chosen, key=lambda crop: list(TITLES).index(crop.kind))


@dataclass(frozen=True)
class _Look:
    """What a candidate holds: the share of valid pixels, mean and median step of the PAN, scatter of the spectra."""

    rows: slice
    cols: slice
    valid: float
    brightness: float
    detail: float
    contrast: float

    @classmethod
    def of(cls, rows: slice, cols: slice, raw: Raw, valid: Mask) -> _Look:
        share = float(valid.mean())
        if not share or not raw.ms_valid.any():
            return cls(rows, cols, 0.0, 0.0, 0.0, 0.0)
        pan, both = raw.pan[0].astype(np.float64), valid[1:, 1:] & valid[:-1, 1:] & valid[1:, :-1]
        steps = np.abs(np.diff(pan, axis=0)[:, 1:]) + np.abs(np.diff(pan, axis=1)[1:])
        detail = float(np.median(steps[both])) if both.any() else 0.0  # a few cloud rims are no detail
        spectra = raw.ms[:, raw.ms_valid].astype(np.float64)
        directions = spectra / np.maximum(np.linalg.norm(spectra, axis=0), np.finfo(float).tiny)
        return cls(rows, cols, share, float(pan[valid].mean()), detail, float(directions.var(axis=1).sum()))


def _views(inputs: Inputs, rows: slice, cols: slice) -> tuple[Raw, Mask]:
    raw, _, valid = inputs.read(rows, cols)
    return raw, valid


def _ranked(looks: Iterable[_Look], key: Callable[[_Look], float]) -> list[tuple[slice, slice]]:
    return [(look.rows, look.cols) for look in sorted(looks, key=key)]


@dataclass(frozen=True)
class _Places:
    """Where crops of `size` PAN pixels may start along an axis: on whole MS pixels, `first` ... `last`."""

    first: int
    last: int
    size: int
    ratio: int

    def at(self, start: float) -> slice:
        inside = int(np.clip(start, self.first, self.last))
        begin = self.first + (inside - self.first) // self.ratio * self.ratio
        return slice(begin, begin + self.size)

    def candidates(self) -> list[slice]:
        """Spread evenly; they overlap by half where the axis is short."""
        room = self.last - self.first
        count = min(CANDIDATES, 1 + -(-room // (self.size // 2)))
        starts = {self.at(self.first + i * room / max(count - 1, 1)).start for i in range(count)}
        return [self.at(start) for start in sorted(starts)]


def _places(*axes: NestedAxis) -> list[_Places]:
    """For square crops, as far as the axes allow."""
    inside = [(-(-axis.start // axis.ratio) * axis.ratio, axis.stop // axis.ratio * axis.ratio) for axis in axes]
    wanted = int(np.clip(min(stop - start for start, stop in inside) // 3, SMALLEST, LARGEST))
    sizes = [min(wanted, stop - start) // axes[0].ratio * axes[0].ratio for start, stop in inside]
    return [_Places(start, stop - size, size, axes[0].ratio) for (start, stop), size in zip(inside, sizes, strict=True)]


def _around(values: Float64, down: _Places, across: _Places) -> Iterator[tuple[slice, slice]]:
    """Crops around blocks, those with the smallest of `values` first, those with NaN not at all."""
    for index in np.argsort(values, axis=None)[: np.count_nonzero(np.isfinite(values))]:
        centre = (np.array(np.unravel_index(index, values.shape)) + 0.5) * BLOCK
        yield down.at(centre[0] - down.size / 2), across.at(centre[1] - across.size / 2)


def _median(values: Float64) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else 0.0


def _inner(values: Float64) -> Float64:
    """Without the outermost blocks of a scene that has enough: the indices wrap its borders round, which looks bad."""
    inside = np.zeros(values.shape, bool)
    inside[1:-1, 1:-1] = True
    return np.where(inside | (min(values.shape) < 5), values, np.nan)


def _smoothed(values: Float64) -> Float64:
    """Means of 3 x 3 values that are mostly known; NaN elsewhere."""
    known = np.isfinite(values)
    total, count = (
        sum(padded[i : i + values.shape[0], j : j + values.shape[1]] for i in range(3) for j in range(3))
        for padded in (np.pad(np.where(known, values, 0), 1), np.pad(known.astype(np.float64), 1))
    )
    enough = known & (count >= min(5, known.sum()))
    return np.where(enough, total / np.maximum(count, 1), np.nan)
