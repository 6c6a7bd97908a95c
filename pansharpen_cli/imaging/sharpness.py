"""How sharp an MS is beside its PAN: the gain of its camera's MTF, measured in the scene itself.

An MS shows what its PAN shows, through a further blur. Below the MS Nyquist frequency both are sampled, so there the
blur is the regression on the PAN, frequency by frequency, of the combination of bands that is most like it. Noise of
the MS and what it aliases are not in the PAN, and drop out. The gain is that of the Gaussian, the field's model of an
MTF, that falls from LOW to HIGH frequencies as the regression does.

It counts from the PAN, which is what a product is to be as sharp as: MS whose maker restored them can have any gain.

Arrays in, numbers out. Frequencies are in parts of the MS Nyquist frequency.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pansharpen_cli.imaging.interpolation import area_phase

Array = npt.NDArray[np.floating]
Float64 = npt.NDArray[np.float64]

LOW, HIGH = (0.1, 0.3), (0.5, 0.85)
"""Frequencies that are compared: where no camera blurs much, and where all do. Beyond, little is left but aliasing."""
LIKE = 0.6
"""Correlation of PAN and combined bands at HIGH frequencies below which nothing can be said."""
FEWEST = 2
"""Windows that must tell."""
NARROWEST, WIDEST = 0.15, 0.45
"""Gains that are told: a Gaussian with a higher one passes what MS pixels alias, one with a lower one is longer than
the filters here."""


@dataclass(frozen=True, eq=False)
class Likeness:
    """Sums over LOW and over HIGH frequencies, along axis 0: of products of the bands with each other (2, B, B) and
    with the PAN (2, B), of the PAN's power (2,), and of that times frequency squared (2,)."""

    bands: Float64
    cross: Float64
    power: Float64
    squares: Float64

    @classmethod
    def of_window(cls, pan: Array, ms: Array, dx: float, dy: float) -> Likeness:
        """Of `pan` (ratio h, ratio w), which shows at (x, y) what `ms` (B, h, w) has at (x + dx, y + dy), in PAN
        pixels; MS pixels lie on the areas of PAN pixels. Both hold data everywhere."""
        ratio = pan.shape[0] // ms.shape[1]
        fy, fx = (np.fft.fftfreq(size) for size in ms.shape[1:])
        frequency = 2 * np.hypot(fy[:, None], fx)
        bands = np.fft.fft2(_tapered(ms, 1))
        place = np.ix_(*(np.round(f * len(f)).astype(int) for f in (fy, fx)))
        fine = np.fft.fft2(_tapered(pan, ratio))[place] / ratio**2
        to_ms = area_phase(ratio)
        turn_y, turn_x = (np.exp(2j * np.pi * f * (to_ms - d) / ratio) for f, d in ((fy, dy), (fx, dx)))
        fine *= turn_y[:, None] * turn_x
        sums: list[tuple[Float64, ...]] = []
        for low, high in (LOW, HIGH):
            inside = (frequency >= low) & (frequency < high)
            b, p = bands[:, inside], fine[inside]
            power = np.abs(p) ** 2
            sums.append(((b @ b.conj().T).real, (b @ p.conj()).real, power.sum(), power @ frequency[inside] ** 2))
        return cls(*(np.array(parts) for parts in zip(*sums, strict=True)))

    def __add__(self, other: Likeness) -> Likeness:
        return Likeness(
            self.bands + other.bands, self.cross + other.cross, self.power + other.power, self.squares + other.squares
        )

    def gain(self) -> float | None:
        """At the MS Nyquist frequency, above 0; None if PAN and bands are not alike enough at HIGH frequencies."""
        weights = np.linalg.lstsq(self.bands[0], self.cross[0], rcond=1e-6)[0]
        combined = self.cross @ weights
        of_bands = np.sqrt(np.maximum(weights @ self.bands @ weights, 0))
        likeness = combined / np.maximum(of_bands * np.sqrt(self.power), np.finfo(float).tiny)
        if not likeness.min() >= LIKE:
            return None
        (low, high), (low_square, high_square) = combined / self.power, self.squares / self.power
        return float((high / low) ** (1 / (high_square - low_square)))


def measured_gain(windows: Sequence[Likeness]) -> float | None:
    """What `windows` all over a scene tell together, from NARROWEST to WIDEST; None if too few tell anything."""
    if sum(window.gain() is not None for window in windows) < FEWEST:
        return None
    gain = sum(windows[1:], start=windows[0]).gain()
    return None if gain is None else float(np.clip(gain, NARROWEST, WIDEST))


def _tapered(images: Array, ratio: int) -> Float64:
    """`images` (..., ratio h, ratio w) less their mean, faded to 0 at the border as a Hann window of MS pixels does."""
    for_rows, for_cols = (_taper(size // ratio, ratio) for size in images.shape[-2:])
    taper = np.outer(for_rows, for_cols)
    mean = (images * taper).sum((-2, -1), keepdims=True) / taper.sum()
    return np.asarray((images - mean) * taper)


def _taper(size: int, ratio: int) -> Float64:
    place = (np.arange(size * ratio) - area_phase(ratio)) / ratio
    return np.asarray(0.5 + 0.5 * np.cos(2 * np.pi * (place - (size - 1) / 2) / (size + 1)))
