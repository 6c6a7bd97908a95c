"""How the MS and the PAN of one scene belong together: where MS samples sit among the PAN pixels, how they are
interpolated, and how the MS camera would have seen the PAN.

A classical method knows the geometry only through a `Camera`, so the field's tables and real scenes run the same code.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pansharpen_cli import mtf
from pansharpen_cli.interpolation import Array, area_phase, expand, polyphase, toolbox_phase, windows

_STARLET = np.array([1, 4, 6, 4, 1]) / 16


@dataclass(frozen=True)
class Camera:
    """MS sample i sits on PAN index ratio * i + `phase` and is interpolated with `kernel`, beyond the border as
    `border` says (a mode of numpy.pad). `bands` name the MS bands in order; `sensor` knows their MTF.
    """

    ratio: int
    bands: tuple[str, ...]
    sensor: mtf.Sensor
    phase: float
    kernel: str
    border: str

    @classmethod
    def of_scene(cls, ratio: int, bands: Sequence[str], sensor: mtf.Sensor = mtf.SENSORS["generic"]) -> Camera:
        """Georeferenced pixels: areas, whatever the ratio; the border is mirrored."""
        kernel = "23tap" if ratio & (ratio - 1) == 0 else "cubic"
        return cls(ratio, tuple(bands), sensor, area_phase(ratio), kernel, "symmetric")

    @classmethod
    def of_toolbox(cls, ratio: int, bands: Sequence[str], sensor: mtf.Sensor = mtf.SENSORS["generic"]) -> Camera:
        """The preset behind the field's tables. It wraps round the border: for whole images only, never for tiles."""
        return cls(ratio, tuple(bands), sensor, toolbox_phase(ratio), "23tap", "wrap")

    @property
    def exp_halo(self) -> int:
        """PAN pixels around a pixel that `expand` reads."""
        return self.ratio * polyphase(self.kernel, self.ratio, self.phase).radius

    @property
    def blur_halo(self) -> int:
        """PAN pixels around a pixel that `blur` reads."""
        return self.exp_halo + self._sampling_halo + mtf.TAPS // 2

    @property
    def starlet_halo(self) -> int:
        """PAN pixels around the first PAN pixel of an MS pixel that `starlet` reads."""
        return self.ratio + self._sampling_halo + 2 * 2 * self._levels

    @property
    def _sampling_halo(self) -> int:
        """PAN pixels outside an MS pixel that its sample reads."""
        first, weights = mtf.reading(self.phase)
        return max(-first, first + len(weights) - self.ratio, 0)

    @property
    def _levels(self) -> int:
        """Octaves between MS and PAN."""
        return round(float(np.log2(self.ratio)))

    def expand(self, ms: Array) -> Array:
        """EXP: `ms` (..., h, w) at the PAN pixels (..., ratio h, ratio w)."""
        return expand(ms, self.ratio, self.phase, self.kernel, self.border)

    def blur(self, pan: Array) -> Array:
        """The PAN as each MS band would show it: through its MTF, sampled at the MS positions, expanded again.

        pan (1, H, W) -> (bands, H, W). Down and up on the same phase, so `pan - blur(pan)` is centred detail.
        """
        gains, band = np.unique([self.sensor.gain(name) for name in self.bands], return_inverse=True)
        coarse = np.stack([mtf.seen(pan[0], self.ratio, float(gain), self.phase) for gain in gains])
        return self.expand(coarse)[band]  # bands of one gain share the work

    def starlet(self, pan: Array) -> Array:
        """The PAN (1, H, W) through the starlet low-pass, sampled at the MS positions: (1, H / ratio, W / ratio)."""
        first, weights = mtf.reading(self.phase)
        for axis in (1, 2):
            smooth = _starlet(pan, self._levels, axis)
            pan = windows(smooth, first, len(weights), self.ratio, axis) @ weights.astype(pan.dtype)
        return pan


def _starlet(image: Array, levels: int, axis: int) -> Array:
    """2 `levels` passes of (1 4 6 4 1) / 16 along `axis`, not dilated; same shape.

    The first half mirrors the ever longer image beyond its ends, the second half uses that margin up (the toolbox's
    border, not the same as mirroring once).
    """
    pad = [(0, 0)] * image.ndim
    pad[axis] = (4, 4)
    for step in range(2 * levels):
        longer = np.pad(image, pad, mode="symmetric") if step < levels else image
        size = longer.shape[axis] - 4
        parts = (np.moveaxis(longer, axis, -1)[..., t : t + size] * float(w) for t, w in enumerate(_STARLET))
        image = np.moveaxis(np.asarray(sum(parts)), -1, axis)
    return image
