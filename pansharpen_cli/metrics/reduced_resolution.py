"""Quality against a truth, the reference `gt`: the toolbox's metrics, each a few sums over the scene.

Images are in DN and of one shape. `reduced` passes through them once; `sam` and `ergas` take arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import lcm, nan
from typing import Any

import numpy as np
import numpy.typing as npt

from pansharpen_cli.errors import UsageError
from pansharpen_cli.imaging.tiling import Span, Tile
from pansharpen_cli.metrics import formulas
from pansharpen_cli.metrics.image import ArrayImage, Cropped, Float64, Image, Mask, pixels
from pansharpen_cli.metrics.streaming import (
    BLOCK,
    TILE,
    BlockMap,
    Family,
    OnTile,
    Scatter,
    Score,
    Sums,
    Window,
    gather,
    margins,
    tiles,
)
from pansharpen_cli.metrics.units import NORMALISED
from pansharpen_cli.system import settings

PRESETS: dict[str, int] = {"none": 0, "dlpan": 21, "pancollection": 30}
"""The toolbox's `dim_cut` of published protocols: its own demo, and the tables made with PanCollection."""


class Angle:
    """SAM: mean spectral angle in degrees; pixels that are zero in either image are left out (Yuhas 1992)."""

    before = after = 0

    def measure(self, window: Window) -> Sums:
        core = window.around()
        angle, lit = formulas.spectral_angle(core.reference, core.fused)
        return float(angle[lit].sum()), int(np.count_nonzero(lit)), core.invalid

    def scores(self, sums: Sums) -> dict[str, Score]:
        total, count, invalid = sums
        return {"SAM": Score(float(np.degrees(total / count)) if count else nan, count, invalid)}


class Errors:
    """ERGAS (Wald 2000), PSNR (dB, mean of the bands') and RMSE (DN, over all bands): squared errors by band."""

    before = after = 0

    def __init__(self, ratio: int, maxval: float | None) -> None:
        self._ratio, self._maxval = ratio, maxval

    def measure(self, window: Window) -> Sums:
        core = window.around()  # zero in both images where invalid: adds nothing
        squares = ((core.reference - core.fused) ** 2).sum(axis=(1, 2))
        return squares, core.reference.sum(axis=(1, 2)), core.valid.size - core.invalid, core.invalid

    @np.errstate(divide="ignore", invalid="ignore")
    def scores(self, sums: Sums) -> dict[str, Score]:
        squares, total, count, invalid = sums
        mse, mean = np.divide(squares, count), np.divide(total, count)
        known = Score(nan, count, invalid)
        ergas = 100 / self._ratio * np.sqrt((mse / mean**2).mean())
        return {
            "ERGAS": replace(known, value=float(ergas), reason="" if mean.all() else "a band of gt is zero on average"),
            "PSNR": self._psnr(mse, known),
            "RMSE": replace(known, value=float(np.sqrt(mse.mean()))),
        }

    def _psnr(self, mse: Float64, known: Score) -> Score:
        if self._maxval is None:
            return replace(known, value=None, reason="PSNR needs maxval, the largest DN")
        bands = 10 * np.log10(self._maxval**2 / mse)
        reason = "" if mse.all() else "a band equals that of gt"
        return replace(known, value=float(bands.mean()), bands=tuple(bands.tolist()), reason=reason)


class Correlation:
    """CC: Pearson's correlation, mean of the bands."""

    before = after = 0

    def measure(self, window: Window) -> Sums:
        core = window.around()
        return Scatter.of(np.concatenate([core.reference, core.fused]), core.valid), core.invalid

    @np.errstate(divide="ignore", invalid="ignore")
    def scores(self, sums: Sums) -> dict[str, Score]:
        scatter, invalid = sums
        number = len(scatter.mean) // 2
        energy = np.diag(scatter.matrix)
        bands = np.diag(scatter.matrix, number) / np.sqrt(energy[:number] * energy[number:])
        reason = "" if energy.all() else "a band is constant"
        return {"CC": Score(float(bands.mean()), scatter.count, invalid, 0, tuple(bands.tolist()), reason)}


class _MeanOfMap:
    """Mean over all positions whose window is valid, then over bands."""

    def __init__(self, name: str, size: int, quality: Callable[[Float64, Float64], Float64]) -> None:
        self._name, self._size, self._quality = name, size, quality
        self.before, self.after = 0, size - 1

    def measure(self, window: Window) -> Sums:
        seen = window.around(self.before, self.after)
        known = formulas.whole(seen.valid, self._size)
        bands = [self._quality(*pair).sum(where=known) for pair in zip(seen.reference, seen.fused, strict=True)]
        count = int(np.count_nonzero(known))
        return np.array(bands), count, known.size - count

    def scores(self, sums: Sums) -> dict[str, Score]:
        total, count, invalid = sums
        if not count:
            reason = f"no valid window of {self._size} x {self._size} pixels"
            return {self._name: Score(nan, 0, invalid, reason=reason)}
        bands = total / count
        return {self._name: Score(float(bands.mean()), count, invalid, 0, tuple(bands.tolist()))}


class Similarity(_MeanOfMap):
    """SSIM: structural similarity, 11 x 11 Gaussian windows (Wang 2004)."""

    def __init__(self, maxval: float) -> None:
        super().__init__("SSIM", formulas.SSIM_TAPS, lambda x, y: formulas.ssim_map(x / maxval, y / maxval))


class SlidingQuality(_MeanOfMap):
    """QAVE: UIQI of all 32 x 32 windows (Wang and Bovik 2002)."""

    def __init__(self) -> None:
        super().__init__("QAVE", BLOCK, lambda x, y: formulas.sliding_uiqi(x, y, BLOCK))


class Edges:
    """SCC: uncentred correlation of Sobel magnitudes over all bands.

    As in the toolbox the outermost pixels are dropped, and what is left has zeros around it.
    """

    before = after = 1

    def measure(self, window: Window) -> Sums:
        seen = window.around(1, 1)
        rows, cols = (
            (np.arange(span.read_start, span.read_stop) % (n - 1) != 0) if n > 1 else np.zeros(1, bool)
            for span, n in zip((seen.tile.rows, seen.tile.cols), seen.size, strict=True)
        )
        kept = rows[:, None] & cols
        core = seen.tile.inner
        surrounded = np.pad(seen.valid | ~kept, 1, constant_values=True)
        known = (formulas.whole(surrounded, 3) & kept)[core]
        products = np.zeros(3)
        for bands in zip(seen.reference, seen.fused, strict=True):
            truth, fused = (formulas.sobel_magnitude(np.pad(band * kept, 1))[core] * known for band in bands)
            products += (truth * fused).sum(), (truth**2).sum(), (fused**2).sum()
        return products, int(np.count_nonzero(known)), int(np.count_nonzero(kept[core] & ~known))

    @np.errstate(divide="ignore", invalid="ignore")
    def scores(self, sums: Sums) -> dict[str, Score]:
        (common, *energy), count, invalid = sums
        value = float(common / np.sqrt(np.prod(energy)))
        reason = "" if all(energy) or not count else "an image has no edges"
        return {"SCC": Score(value, count, invalid, reason=reason)}


class Hypercomplex:
    """Q2n of blocks, one every `shift` pixels; the last ones are completed by mirroring (Garzelli and Nencini 2009).

    `shape` is the image's. Its `map` is filled while tiles are measured.
    """

    before = 0

    def __init__(
        self, shape: tuple[int, int], maxval: float | None = None, size: int = BLOCK, shift: int = BLOCK
    ) -> None:
        self._maxval, self._size, self._shift = maxval, size, shift
        self.after = size - shift
        self.map = BlockMap(shape, shift)

    def measure(self, window: Window) -> Sums:
        seen = window.around(0, self.after)
        bright, fractional = _scale(seen.reference)
        positive, negative = (bool(sign.any()) for sign in (seen.reference > 0, seen.reference < 0))
        lacking = [self._lacking(span, n) for span, n in zip(
            (seen.tile.rows, seen.tile.cols), seen.valid.shape, strict=True)]  # fmt: skip
        if any(short > have for short, have in zip(lacking, seen.valid.shape, strict=True)):
            return (
                0.0,
                0,
                0,
                0,
                bright,
                fractional,
                positive,
                negative,
                1,
            )  # an image smaller than a block: the toolbox stops
        quality, flat, known = self._quality(seen, [(0, short) for short in lacking])
        self.map.put(window.tile, np.where(known, quality, np.nan))
        count = int(np.count_nonzero(known))
        flat &= known
        return (
            float(quality.sum(where=known)), count, known.size - count, int(np.count_nonzero(flat)),
            bright, fractional, positive, negative, 0,
        )  # fmt: skip

    def _quality(self, seen: Window, beyond: list[tuple[int, int]]) -> tuple[Float64, Mask, Mask]:
        """Q2n of the blocks, which are flat, and which are valid throughout."""
        reference, fused, valid = seen.reference, seen.fused, seen.valid
        if any(short for _, short in beyond):
            reference, fused = (np.pad(image, [(0, 0), *beyond], mode="symmetric") for image in (reference, fused))
            valid = np.pad(valid, beyond, mode="symmetric")
        moments = formulas.block_moments(reference, fused, valid, self._size, self._shift, whole=True)
        return *formulas.q2n(moments, self._size), moments.pixels == self._size**2

    def _lacking(self, span: Span, have: int) -> int:
        """Pixels to add so that all blocks that start in the core are complete."""
        blocks = -(-(span.stop - span.start) // self._shift)
        return max((blocks - 1) * self._shift + self._size - have, 0)

    def scores(self, sums: Sums) -> dict[str, Score]:
        total, count, invalid, flat, bright, fractional, positive, negative, too_small = sums
        known = Score(nan, count, invalid, flat)
        if fractional and not bright and (self._maxval or 0) <= NORMALISED:
            reason = "the data look normalised, and Q2n rounds to whole DN; give maxval and data in DN"
            return {"Q2n": replace(known, value=None, reason=reason)}
        if count and negative and not positive:
            reason = "no value is above 0, and Q2n takes negative ones for 0"
            return {"Q2n": replace(known, value=None, reason=reason)}
        if not count:
            reason = "the image is too small for a block" if too_small else "no block is valid throughout"
            return {"Q2n": replace(known, reason=reason)}
        return {"Q2n": replace(known, value=total / count)}


def _scale(image: Float64) -> tuple[bool, bool]:
    """Whether an image has values too large for normalised data, and, if it has none, fractional ones."""
    some = image[:, ::BLOCK, ::BLOCK]  # a few tell it of nearly all images
    bright = any((np.abs(part) > NORMALISED).any() for part in (some, image))
    return bright, not bright and bool((image % 1).any())


REDUCED: tuple[str, ...] = ("SAM", "ERGAS", "PSNR", "SSIM", "SCC", "QAVE", "Q2n", "CC", "RMSE")
"""All metrics at reduced resolution."""


@dataclass(frozen=True)
class ReducedReport:
    """Scores against a truth, and what they depend on. `maps` holds Q2n's blocks; `size` is that after the cut."""

    scores: dict[str, Score]
    size: tuple[int, int]
    ratio: int
    maxval: float | None
    cut: int
    maps: dict[str, Float64] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Everything but the maps."""
        return asdict(replace(self, maps={}))


def reduced(
    gt: Image,
    fused: Image,
    ratio: int,
    *,
    maxval: float | None = None,
    cut: int = PRESETS["none"],
    metrics: Collection[str] = REDUCED,
    shift: int = BLOCK,
    strict: bool = False,
    tile: int | tuple[int, int] = TILE,
    threads: int = 1,
    on_tile: OnTile = lambda done, total: None,
) -> ReducedReport:
    """Compare `fused` with its truth `gt` in one pass over tiles.

    `ratio` PAN pixels make one MS pixel; `maxval`: the largest DN of the sensor (2047 for 11 bits), which PSNR and SSIM
    need; `cut`: the toolbox's crop, as in PRESETS; `shift`: pixels between the blocks of Q2n. Invalid pixels of either
    image are left out. `strict`: infinite and undefined values stay, as in the toolbox. `threads` change nothing but
    the time. Raises UsageError.
    """
    _check(gt, fused, metrics)
    ratio, shift, threads = (
        settings.at_least(number, name, 1)
        for number, name in ((ratio, "ratio"), (shift, "shift"), (threads, "threads"))
    )
    cut = settings.at_least(cut, "cut", 0)
    maxval = None if maxval is None else settings.positive(maxval, "maxval")  # squares of NumPy's integers overflow
    gt, fused = trimmed(gt, cut), trimmed(fused, cut)
    families = _families(metrics, gt.shape, ratio, maxval, shift)

    def measure(one: Tile) -> list[Sums]:
        window = Window.of(one, gt.shape, pixels(gt, *one.read), pixels(fused, *one.read))
        return [family.measure(window) for family in families]

    todo = tiles(gt.shape, tile, lcm(BLOCK, shift), *margins(families))
    scores: dict[str, Score] = {}
    for family, sums in zip(families, gather(measure, todo, threads, on_tile), strict=True):
        scores |= family.scores(sums)
    if "SSIM" in metrics and maxval is None:
        scores["SSIM"] = Score(None, 0, reason="SSIM needs maxval, the largest DN")
    q2n = next((family for family in families if isinstance(family, Hypercomplex)), None)
    maps = {"Q2n": q2n.map.values} if q2n else {}
    chosen = {name: scores[name].published(strict) for name in REDUCED if name in metrics}
    return ReducedReport(chosen, gt.shape, ratio, maxval, cut, maps)


def _families(
    metrics: Collection[str], shape: tuple[int, int], ratio: int, maxval: float | None, shift: int
) -> Sequence[Family]:
    made: dict[str, Callable[[], Family]] = {
        "SAM": Angle,
        "ERGAS PSNR RMSE": lambda: Errors(ratio, maxval),
        "SCC": Edges,
        "QAVE": SlidingQuality,
        "Q2n": lambda: Hypercomplex(shape, maxval, shift=shift),
        "CC": Correlation,
    }
    if maxval is not None:
        made["SSIM"] = lambda: Similarity(maxval)
    return [make() for names, make in made.items() if set(names.split()) & set(metrics)]


def _check(gt: Image, fused: Image, metrics: Collection[str]) -> None:
    if gt.shape != fused.shape or gt.bands != fused.bands:
        raise UsageError(
            f"the product has {fused.bands} bands of {fused.shape} pixels, its truth {gt.bands} of {gt.shape}"
        )
    if not metrics or set(metrics) - set(REDUCED):
        raise UsageError(f"metrics {sorted(metrics)}: choose from {', '.join(REDUCED)}")


def trimmed(image: Image, cut: int) -> Image:
    """The toolbox's crop: rows and columns cut ... end - cut of MATLAB, one pixel more at the start than at the end."""
    if not cut:
        return image
    rows, cols = (slice(cut - 1, n - cut) for n in image.shape)
    if rows.start >= rows.stop or cols.start >= cols.stop:
        raise UsageError(f"a cut of {cut} pixels leaves nothing of {image.shape[0]} x {image.shape[1]}")
    return Cropped(image, rows, cols)


def sam(gt: npt.NDArray[Any], hrms: npt.NDArray[Any], valid: Mask | None = None) -> float:
    """Mean spectral angle in degrees of arrays (bands, row, col), 0 is best; see `Angle`."""
    return _of_arrays(gt, hrms, 1, valid, "SAM")


def ergas(gt: npt.NDArray[Any], hrms: npt.NDArray[Any], ratio: int, valid: Mask | None = None) -> float:
    """Relative global error of arrays (bands, row, col), 0 is best; see `Errors`."""
    return _of_arrays(gt, hrms, ratio, valid, "ERGAS")


def _of_arrays(gt: npt.NDArray[Any], hrms: npt.NDArray[Any], ratio: int, valid: Mask | None, name: str) -> float:
    report = reduced(ArrayImage(gt, valid), ArrayImage(hrms, valid), ratio, metrics=[name], strict=True)
    value = report.scores[name].value
    return nan if value is None else value
