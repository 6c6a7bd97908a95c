"""Wald's protocol: a scene degraded by its own ratio, so that its MS becomes the truth to be reached.

PAN and MS are filtered with the sensor's MTF and decimated on pixel areas, so that geotransforms stay exact, or where
the field's toolbox does it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from pansharpen_cli.imaging.geogrid import GeoGrid
from pansharpen_cli.imaging.interpolation import area_phase, toolbox_phase
from pansharpen_cli.imaging.mtf import Sensor, reach, seen

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Geometry = Literal["area", "toolbox"]
"""Which phase PAN and MS have; see `interpolation`."""

PHASES = {"area": area_phase, "toolbox": toolbox_phase}


class Excerpts(NamedTuple):
    """PAN pixels, at its own resolution, that stand for all `of` a scene."""

    pixels: int
    of: int


class Pair:
    """A PAN and an MS nested in it, float32 DN, held whole or, if too large, in `excerpts`.

    `pan` (1, H, W), `ms` (bands, H / ratio, W / ratio) without gaps; `valid` (H, W) is True where both hold data.
    `lms` (bands, H, W): the EXP that came with them, if any. `grid` of the PAN, where known.
    """

    name: str
    band_names: tuple[str, ...]
    pan: Float32
    ms: Float32
    valid: Mask
    geometry: Geometry
    lms: Float32 | None
    grid: GeoGrid | None
    excerpts: Excerpts | None

    @property
    def ratio(self) -> int:
        return int(self.pan.shape[-1] // self.ms.shape[-1])

    @property
    def exact_ratio(self) -> float:
        return float(self.ratio)

    @property
    def phase(self) -> float:
        """MS sample i lies on PAN index ratio * i + phase."""
        return PHASES[self.geometry](self.ratio)


@dataclass(frozen=True, eq=False)
class FullScene(Pair):
    """A scene at its own resolution, of which no truth is known."""

    name: str
    band_names: tuple[str, ...]
    pan: Float32
    ms: Float32
    valid: Mask
    geometry: Geometry = "area"
    lms: Float32 | None = None
    grid: GeoGrid | None = None
    excerpts: Excerpts | None = None


@dataclass(frozen=True, eq=False)
class ReducedScene(Pair):
    """A scene at reduced resolution, and its truth `gt` (bands, H, W) on the PAN's grid.

    `valid` is False also where a filter has touched a gap.
    """

    name: str
    band_names: tuple[str, ...]
    pan: Float32
    ms: Float32
    gt: Float32
    valid: Mask
    geometry: Geometry = "area"
    lms: Float32 | None = None
    grid: GeoGrid | None = None
    excerpts: Excerpts | None = None


def degrade(
    image: npt.NDArray[np.floating], ratio: int, gains: Sequence[float], geometry: Geometry = "area"
) -> Float64:
    """`image` (bands, ratio h, ratio w) through an MTF with these `gains`, one a band, decimated to (bands, h, w).

    New pixel i lies on pixel ratio * i + the phase of `geometry`.
    """
    phase = PHASES[geometry](ratio)
    return np.stack([seen(band.astype(np.float64), ratio, g, phase) for band, g in zip(image, gains, strict=True)])


def reduce(
    name: str,
    pan: Float32,
    ms: Float32,
    valid: Mask,
    *,
    ratio: int,
    sensor: Sensor,
    band_names: Sequence[str],
    geometry: Geometry = "area",
) -> ReducedScene:
    """Degrade a nested pair: `pan` (1, s h, s w) by its own ratio s, `ms` (bands, h, w) by `ratio`; `ms` is the truth.

    `ratio` may differ from s: a ratio-4 task can be made from a ratio-2 scene; with s = 1 the PAN was degraded before.
    `valid` is (s h, s w). `geometry`: that of the pair, and of what is made of it. The scene is cut to a multiple of
    `ratio` MS pixels.
    """
    own = pan.shape[-1] // ms.shape[-1]
    height, width = (size // ratio * ratio for size in ms.shape[1:])
    gt = ms[:, :height, :width]
    coarse_pan = pan[:, : own * height, : own * width]
    if own > 1:
        coarse_pan = degrade(coarse_pan, own, [sensor.pan_gain], geometry).astype(np.float32)
    coarse_ms = degrade(gt, ratio, [sensor.gain(band) for band in band_names], geometry)
    known = np.asarray(valid[: own * height, : own * width].reshape(height, own, width, own).all(axis=(1, 3)))
    return ReducedScene(
        name, tuple(band_names), coarse_pan, coarse_ms.astype(np.float32), gt,
        _erode(known, reach(ratio, PHASES[geometry](ratio))), geometry,
    )  # fmt: skip


def _erode(valid: Mask, margin: int) -> Mask:
    """True where everything within `margin` pixels is valid (outside the image counts as valid)."""
    if valid.all():
        return valid
    for axis in (0, 1):
        pad = [(0, 0), (0, 0)]
        pad[axis] = (margin, margin)
        padded = np.pad(valid, pad, constant_values=True)
        windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * margin + 1, axis=axis)
        valid = np.asarray(windows.all(axis=-1))
    return valid
