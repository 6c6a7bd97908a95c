"""Are the colours kept: values of the MS and of every product, on the same windows spread over the scene."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pansharpen_cli.imaging import mtf
from pansharpen_cli.imaging.interpolation import area_phase
from pansharpen_cli.imaging.tiling import spread
from pansharpen_cli.metrics.formulas import whole
from pansharpen_cli.report.inputs import Float32, Inputs, Mask

Float64 = npt.NDArray[np.float64]

WINDOW, MOST_WINDOWS = 256, 8
"""PAN pixels a side of a window, and windows along an axis: so the sample is bounded, whatever the scene."""
BINS = 64
TAILS = 0.5, 99
"""Percentiles between which a histogram is drawn."""
FAR = 99
"""Percentile of the differences that is told besides their mean."""


@dataclass(frozen=True)
class Bias:
    """The product as the MS camera sees it, less the MS, in one band.

    `mean` of the differences and `far`, the 99th percentile of their sizes, in DN; the same in percent of the MS's mean
    (None if that is 0).
    """

    mean: float
    far: float
    mean_percent: float | None
    far_percent: float | None


@dataclass(frozen=True)
class Histograms:
    """Shares of the pixels of one band in BINS bins between `low` and `high` DN; of all there are: some lie beyond."""

    low: float
    high: float
    ms: tuple[float, ...]
    products: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, eq=False)
class Sample:
    """Values in DN on windows spread over the scene.

    `ms` (bands, n) and of each product as many pixels `hrms` (bands, n) at the same places; `known` (n,) says where
    `seen` (bands, n), the product as the MS camera sees it, rests on data alone. `scene`: MS pixels of the whole scene.
    """

    ms: Float32
    hrms: list[Float32]
    seen: list[Float32]
    known: Mask
    scene: int

    @classmethod
    def of(cls, inputs: Inputs, gains: Sequence[float]) -> Sample:
        """`gains`: the MS camera's MTF at its Nyquist frequency, one a band."""
        windows = list(_windows(inputs, gains))
        ms, known = (np.concatenate([window[i] for window in windows], axis=-1) for i in (0, 3))
        hrms, seen = (
            [np.concatenate([window[i][k] for window in windows], axis=1) for k in range(len(inputs.products))]
            for i in (1, 2)
        )
        canvas = inputs.canvas
        return cls(ms, hrms, seen, known, canvas.rows.size * canvas.cols.size // canvas.ratio**2)

    def bias(self, product: int) -> list[Bias]:
        """One a band; none if no MS pixel has enough data around it."""
        if not self.known.any():
            return []
        return [
            _bias(seen[self.known].astype(np.float64), ms[self.known].astype(np.float64))
            for seen, ms in zip(self.seen[product], self.ms, strict=True)
        ]

    def span(self, percentiles: tuple[float, float]) -> Float64:
        """(bands, 2): DN of the MS at these percentiles."""
        if not self.ms.size:
            return np.zeros((len(self.ms), 2))
        return np.percentile(self.ms.astype(np.float64), percentiles, axis=1).T

    def histograms(self) -> list[Histograms]:
        """One a band."""
        return [_histograms(ms, [hrms[band] for hrms in self.hrms]) for band, ms in enumerate(self.ms)]


def _windows(inputs: Inputs, gains: Sequence[float]) -> Iterator[tuple[Float32, list[Float32], list[Float32], Mask]]:
    """MS, products, products as the MS camera sees them, and where these are known: (bands, n), (n,)."""
    canvas = inputs.canvas
    ratio = canvas.ratio
    window = WINDOW // ratio * ratio
    rows, cols = (spread(axis.size, window, MOST_WINDOWS, ratio) for axis in (canvas.rows, canvas.cols))
    for row in rows:
        for col in cols:
            raw, hrms, valid = inputs.read(row.core, col.core)
            there = raw.ms_valid & valid[::ratio, ::ratio]
            seen = [_seen(image, ratio, gains)[:, there] for image in hrms]
            known = _known(valid, ratio) & raw.ms_valid
            yield raw.ms[:, there], [image[:, ::ratio, ::ratio][:, there] for image in hrms], seen, known[there]


def _seen(hrms: Float32, ratio: int, gains: Sequence[float]) -> Float32:
    """(bands, H, W) as the MS camera sees it: (bands, H / ratio, W / ratio), grey kept as it is."""
    phase = area_phase(ratio)
    return np.stack(
        [
            mtf.seen(band, ratio, gain, phase) / np.float32(mtf.kernel(ratio, gain).sum())
            for band, gain in zip(hrms, gains, strict=True)
        ]
    )


def _known(valid: Mask, ratio: int) -> Mask:
    """(H / ratio, W / ratio): MS pixels whose camera sees valid pixels of the window alone."""
    reach = mtf.reach(ratio, area_phase(ratio))
    inside = whole(np.pad(valid, reach), 2 * reach + 1)
    rows, cols = (size // ratio for size in valid.shape)
    return np.asarray(inside.reshape(rows, ratio, cols, ratio).all(axis=(1, 3)))


def _bias(seen: Float64, ms: Float64) -> Bias:
    difference, level = seen - ms, float(ms.mean())
    mean, far = float(difference.mean()), float(np.percentile(np.abs(difference), FAR))
    percent = [100 * value / abs(level) if level else None for value in (mean, far)]
    return Bias(mean, far, *percent)


def _histograms(ms: Float32, products: list[Float32]) -> Histograms:
    if not ms.size:
        return Histograms(0.0, 1.0, (0.0,) * BINS, ((0.0,) * BINS,) * len(products))
    ends = np.array([np.percentile(values, TAILS) for values in (ms, *products)])
    low, high = float(ends[:, 0].min()), float(ends[:, 1].max())
    least = BINS * float(np.spacing(np.float32(max(abs(low), abs(high)))))  # less is rounding, and too fine for bins
    high = high if high - low > least else low + max(1, 2 * least)

    def shares(values: Float32) -> tuple[float, ...]:
        counts, _ = np.histogram(values, BINS, (low, high))
        return tuple((counts / values.size).tolist())

    return Histograms(low, high, shares(ms), tuple(map(shares, products)))
