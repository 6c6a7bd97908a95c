"""How the MS and the PAN of one scene belong together: where MS samples sit among the PAN pixels, how they are
interpolated, and how the MS camera would have seen the PAN.

A classical method knows the geometry only through a `Camera`, so the field's tables and real scenes run the same code.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from pansharpen_cli.imaging import mtf
from pansharpen_cli.imaging.interpolation import (
    KERNELS,
    Array,
    Float64,
    area_phase,
    expand,
    expanded,
    polyphase,
    toolbox_phase,
    windows,
)

GAUSSIAN_GAIN = 0.3
"""At the MS Nyquist frequency, of the low-pass that stands for any sensor."""
_FFT_GRAIN = 60
"""FFT lengths are multiples of this: none has a large prime factor."""


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
    def gaussian_halo(self) -> int:
        """PAN pixels around a pixel that `gaussian` reads."""
        return mtf.TAPS // 2

    @property
    def starlet_halo(self) -> int:
        """PAN pixels around a pixel that `starlet` reads."""
        return 2 * 2 * self._levels

    @property
    def starlet_at_ms_halo(self) -> int:
        """PAN pixels around the first PAN pixel of an MS pixel that `starlet_at_ms` reads."""
        return self.ratio + self._sampling_halo + self.starlet_halo

    @property
    def round_trip_halo(self) -> int:
        """PAN pixels around a pixel that `round_trip` reads."""
        return 5 * self.ratio  # 2 MS pixels up, 2 down, and to the middle of one

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

    def expanded(self, ms: Array) -> Iterator[tuple[slice, Array]]:
        """EXP a few rows at a time, from the top: their place, and EXP (..., rows, ratio w)."""
        return expanded(ms, self.ratio, self.phase, self.kernel, self.border)

    def blur(self, pan: Array) -> Array:
        """The PAN as the MS bands would show it: through their MTF, sampled at the MS positions, expanded again.

        pan (1, H, W) -> (looks, H, W). Down and up on the same phase, so `pan - blur(pan)` is centred detail.
        """
        return self.expand(np.stack([mtf.seen(pan[0], self.ratio, float(g), self.phase) for g in self._gains[0]]))

    @property
    def look(self) -> npt.NDArray[np.intp]:
        """(bands,): which image of `blur` is the band's own. Bands of one MTF gain share the work."""
        return self._gains[1]

    @property
    def blur_sum(self) -> Float64:
        """(bands,): what `blur` makes of a flat image of 1, a little less, for MTF kernels are not normalised."""
        return np.array([mtf.kernel(self.ratio, self.sensor.gain(name)).sum() for name in self.bands])

    @cached_property
    def _gains(self) -> tuple[Float64, npt.NDArray[np.intp]]:
        return np.unique([self.sensor.gain(name) for name in self.bands], return_inverse=True)

    def gaussian(self, pan: Array) -> Array:
        """The PAN (1, H, W) through a Gaussian low-pass that is the same for every sensor, same shape: `low_passed`."""
        # it counts all 41 samples of the spectrum, the MTF kernels one less
        return low_passed(pan[0], self.ratio * (mtf.TAPS - 1) / mtf.TAPS, GAUSSIAN_GAIN)[None]

    def starlet(self, pan: Array) -> Array:
        """The PAN (1, H, W) through the starlet low-pass, same shape."""
        return _starlet(_starlet(pan, self._levels, 1), self._levels, 2)

    def starlet_at_ms(self, pan: Array) -> Array:
        """The PAN (1, H, W) through the starlet low-pass, sampled at the MS positions: (1, H / ratio, W / ratio)."""
        first, weights = mtf.reading(self.phase)
        for axis in (1, 2):
            smooth = _starlet(pan, self._levels, axis)
            pan = windows(smooth, first, len(weights), self.ratio, axis) @ weights.astype(pan.dtype)
        return pan

    def down(self, image: Array) -> Array:
        """`image` (k, H, W) reduced to MS pixels (k, H / ratio, W / ratio), on pixel areas, the border mirrored.

        Keys' cubic stretched over `ratio` pixels: the bicubic reduction of MATLAB, antialiased.
        """
        pixels = np.arange(-2 * self.ratio, 3 * self.ratio)  # of an MS pixel and two on each side
        weights = KERNELS["cubic"][0]((pixels - area_phase(self.ratio)) / self.ratio)
        for axis in (1, 2):
            image = _reduced(image, self.ratio, weights / weights.sum(), axis)
        return image

    def round_trip(self, image: Array) -> Array:
        """`image` (k, H, W) reduced by `down` and brought back by a bicubic interpolation: what coarse pixels hold."""
        return expand(self.down(image), self.ratio, area_phase(self.ratio), "cubic", "symmetric")


def low_passed(image: Array, ratio: float, gain: float) -> Array:
    """`image` (H, W) through the MTF kernel of an MS `ratio` times coarser, not sampled; the border is replicated.

    By FFT: for statistics in float64, a value may differ by rounding with the cut.
    """
    half = mtf.TAPS // 2
    padded = np.pad(image, half, mode="edge")
    rows, cols = (-(-size // _FFT_GRAIN) * _FFT_GRAIN for size in padded.shape)
    filtered = np.fft.irfft2(np.fft.rfft2(padded, (rows, cols)) * _spectrum(ratio, gain, rows, cols), (rows, cols))
    return filtered[2 * half : 2 * half + image.shape[0], 2 * half : 2 * half + image.shape[1]]


@lru_cache(maxsize=32)
def _spectrum(ratio: float, gain: float, rows: int, cols: int) -> npt.NDArray[np.complexfloating]:
    return np.fft.rfft2(mtf.kernel(ratio, gain), (rows, cols))


def _starlet(image: Array, levels: int, axis: int) -> Array:
    """2 `levels` passes of (1 4 6 4 1) / 16 along `axis`, not dilated; same shape.

    The first half mirrors the ever longer image beyond its ends, the second half uses that margin up (the toolbox's
    border, not the same as mirroring once).
    """
    pad = [(0, 0)] * image.ndim
    pad[axis] = (4, 4)
    for step in range(2 * levels):
        if step < levels:
            image = np.pad(image, pad, mode="symmetric")
        for _ in range(4):  # (1 4 6 4 1) is (1 1) four times
            image = image[_along(axis, slice(1, None))] + image[_along(axis, slice(-1))]
        image /= 16
    return image


def _reduced(image: Array, ratio: int, weights: Float64, axis: int) -> Array:
    """Pixels along `axis` from ratio * (i - 2) on, times `weights`, added up for each i; the border is mirrored."""
    pad = [(0, 0)] * image.ndim
    pad[axis] = (2 * ratio, 2 * ratio)
    padded = np.pad(image, pad, mode="symmetric")
    size = image.shape[axis]
    terms = (padded[_along(axis, slice(t, t + size, ratio))] * float(w) for t, w in enumerate(weights) if w)
    return np.asarray(sum(terms))


def _along(axis: int, part: slice) -> tuple[slice, ...]:
    return (slice(None),) * axis + (part,)
