"""Wald's protocol: a scene degraded by its own ratio, so that its MS becomes the truth to be reached.

PAN and MS are filtered with the sensor's MTF and decimated on pixel areas, so that geotransforms stay exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pansharpen_cli.interpolation import area_phase
from pansharpen_cli.mtf import Sensor, reach, seen

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class ReducedScene:
    """A scene at reduced resolution, float32 DN, and its truth.

    `pan` (1, H, W) and `gt` (bands, H, W) on one grid, `ms` (bands, H / ratio, W / ratio) nested in it; `valid` (H, W)
    is True where no filter has touched a gap.
    """

    name: str
    band_names: tuple[str, ...]
    pan: Float32
    ms: Float32
    gt: Float32
    valid: Mask

    @property
    def ratio(self) -> int:
        return int(self.pan.shape[-1] // self.ms.shape[-1])

    @property
    def exact_ratio(self) -> float:
        return float(self.ratio)


def degrade(image: npt.NDArray[np.floating], ratio: int, gains: Sequence[float]) -> Float64:
    """`image` (bands, ratio h, ratio w) through an MTF with these `gains`, one a band, decimated to (bands, h, w).

    New pixel i covers pixels ratio * i ... ratio * (i + 1) - 1.
    """
    phase = area_phase(ratio)
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
) -> ReducedScene:
    """Degrade a nested pair: `pan` (1, s h, s w) by its own ratio s, `ms` (bands, h, w) by `ratio`; `ms` is the truth.

    `ratio` may differ from s: a ratio-4 task can be made from a ratio-2 scene. `valid` is (s h, s w).
    The scene is cut to a multiple of `ratio` MS pixels.
    """
    own = pan.shape[-1] // ms.shape[-1]
    height, width = (size // ratio * ratio for size in ms.shape[1:])
    gt = ms[:, :height, :width]
    coarse_pan = degrade(pan[:, : own * height, : own * width], own, [sensor.pan_gain])
    coarse_ms = degrade(gt, ratio, [sensor.gain(band) for band in band_names])
    known = np.asarray(valid[: own * height, : own * width].reshape(height, own, width, own).all(axis=(1, 3)))
    return ReducedScene(
        name, tuple(band_names), coarse_pan.astype(np.float32), coarse_ms.astype(np.float32), gt,
        _erode(known, reach(ratio, area_phase(ratio))),
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
