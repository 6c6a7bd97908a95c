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
    Window,
    margins,
    tiles,
)
from pansharpen_cli.tiling import Span

NORMALISED_PEAK = 1.5
"""Fractional data that stay below this are not DN."""

PRESETS: dict[str, int] = {"none": 0, "dlpan": 21, "pancollection": 30}
"""The toolbox's `dim_cut` of published protocols: its own demo, and the tables made with PanCollection."""


class Angle:
    """SAM: mean spectral angle in degrees; pixels that are zero in either image are left out (Yuhas 1992)."""

    before = after = 0

    def __init__(self) -> None:
        self._sum, self._count, self._invalid = 0.0, 0, 0

    def add(self, window: Window) -> None:
        core = window.around()
        angle, lit = formulas.spectral_angle(core.reference, core.fused)
        self._sum += float(angle[lit].sum())
        self._count += int(np.count_nonzero(lit))
        self._invalid += core.invalid

    def scores(self) -> dict[str, Score]:
        value = float(np.degrees(self._sum / self._count)) if self._count else nan
        return {"SAM": Score(value, self._count, self._invalid)}


class Errors:
    """ERGAS (Wald 2000), PSNR (dB, mean of the bands') and RMSE (DN, over all bands): squared errors by band."""

    before = after = 0

    def __init__(self, bands: int, ratio: int, maxval: float | None) -> None:
        self._ratio, self._maxval = ratio, maxval
        self._squares, self._sum = np.zeros(bands), np.zeros(bands)
        self._count, self._invalid = 0, 0

    def add(self, window: Window) -> None:
        core = window.around()  # zero in both images where invalid: adds nothing
        self._squares += ((core.reference - core.fused) ** 2).sum(axis=(1, 2))
        self._sum += core.reference.sum(axis=(1, 2))
        self._count += int(np.count_nonzero(core.valid))
        self._invalid += core.invalid

    @np.errstate(divide="ignore", invalid="ignore")
    def scores(self) -> dict[str, Score]:
        mse, mean = self._squares / self._count, self._sum / self._count
        known = Score(nan, self._count, self._invalid)
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

    def __init__(self, bands: int) -> None:
        self._bands = bands
        self._scatter = Scatter(2 * bands)
        self._invalid = 0

    def add(self, window: Window) -> None:
        core = window.around()
        self._scatter.add(np.concatenate([core.reference, core.fused]), core.valid)
        self._invalid += core.invalid

    @np.errstate(divide="ignore", invalid="ignore")
    def scores(self) -> dict[str, Score]:
        energy = np.diag(self._scatter.matrix)
        common = np.diag(self._scatter.matrix, self._bands)
        bands = common / np.sqrt(energy[: self._bands] * energy[self._bands :])
        reason = "" if energy.all() else "a band is constant"
        return {"CC": Score(float(bands.mean()), self._scatter.count, self._invalid, 0, tuple(bands.tolist()), reason)}


class _MeanOfMap:
    """Mean over all positions whose window is valid, then over bands."""

    def __init__(self, name: str, bands: int, size: int, quality: Callable[[Float64, Float64], Float64]) -> None:
        self._name, self._size, self._quality = name, size, quality
        self.before, self.after = 0, size - 1
        self._sum, self._count, self._invalid = np.zeros(bands), 0, 0

    def add(self, window: Window) -> None:
        seen = window.around(self.before, self.after)
        known = formulas.whole(seen.valid, self._size)
        for band, (x, y) in enumerate(zip(seen.reference, seen.fused, strict=True)):
            self._sum[band] += self._quality(x, y).sum(where=known)
        self._count += int(np.count_nonzero(known))
        self._invalid += int(known.size - np.count_nonzero(known))

    def scores(self) -> dict[str, Score]:
        if not self._count:
            reason = f"no valid window of {self._size} x {self._size} pixels"
            return {self._name: Score(nan, 0, self._invalid, reason=reason)}
        bands = self._sum / self._count
        return {self._name: Score(float(bands.mean()), self._count, self._invalid, 0, tuple(bands.tolist()))}


class Similarity(_MeanOfMap):
    """SSIM: structural similarity, 11 x 11 Gaussian windows (Wang 2004)."""

    def __init__(self, bands: int, maxval: float) -> None:
        super().__init__(
            "SSIM", bands, formulas.SSIM_TAPS, lambda x, y: formulas.ssim_map(x / maxval, y / maxval)
        )  # fmt: skip


class SlidingQuality(_MeanOfMap):
    """QAVE: UIQI of all 32 x 32 windows (Wang and Bovik 2002)."""

    def __init__(self, bands: int) -> None:
        super().__init__("QAVE", bands, BLOCK, lambda x, y: formulas.sliding_uiqi(x, y, BLOCK))


class Edges:
    """SCC: uncentred correlation of Sobel magnitudes over all bands.

    As in the toolbox the outermost pixels are dropped, and what is left has zeros around it.
    """

    before = after = 1

    def __init__(self) -> None:
        self._common, self._energy = 0.0, np.zeros(2)
        self._count, self._invalid = 0, 0

    def add(self, window: Window) -> None:
        seen = window.around(1, 1)
        rows, cols = (
            (np.arange(span.read_start, span.read_stop) % (n - 1) != 0) if n > 1 else np.zeros(1, bool)
            for span, n in zip((seen.tile.rows, seen.tile.cols), seen.size, strict=True)
        )
        kept = rows[:, None] & cols
        core = seen.tile.inner
        surrounded = np.pad(seen.valid | ~kept, 1, constant_values=True)
        known = (formulas.whole(surrounded, 3) & kept)[core]
        for bands in zip(seen.reference, seen.fused, strict=True):
            truth, fused = (formulas.sobel_magnitude(np.pad(band * kept, 1))[core] * known for band in bands)
            self._common += float((truth * fused).sum())
            self._energy += (truth**2).sum(), (fused**2).sum()
        self._count += int(np.count_nonzero(known))
        self._invalid += int(np.count_nonzero(kept[core] & ~known))

    @np.errstate(divide="ignore", invalid="ignore")
    def scores(self) -> dict[str, Score]:
        value = float(self._common / np.sqrt(self._energy.prod()))
        reason = "" if self._energy.all() or not self._count else "an image has no edges"
        return {"SCC": Score(value, self._count, self._invalid, reason=reason)}


class Hypercomplex:
    """Q2n of blocks, one every `shift` pixels; the last ones are completed by mirroring (Garzelli and Nencini 2009)."""

    before = 0

    def __init__(self, maxval: float | None = None, size: int = BLOCK, shift: int = BLOCK) -> None:
        self._maxval, self._size, self._shift = maxval, size, shift
        self.after = size - shift
        self.map = BlockMap(shift)
        self._sum, self._count, self._invalid, self._flat = 0.0, 0, 0, 0
        self._peak, self._fractional, self._too_small = 0.0, False, False

    def add(self, window: Window) -> None:
        seen = window.around(0, self.after)
        self._peak = max(self._peak, float(np.abs(seen.reference).max()))
        if self._peak <= NORMALISED_PEAK:
            self._fractional |= bool((seen.reference % 1).any())
        lacking = [self._lacking(span, n) for span, n in zip(
            (seen.tile.rows, seen.tile.cols), seen.valid.shape, strict=True)]  # fmt: skip
        if any(short > have for short, have in zip(lacking, seen.valid.shape, strict=True)):
            self._too_small = True  # only where the image is smaller than a block: the toolbox stops
            return
        beyond = [(0, short) for short in lacking]
        quality, flat = formulas.q2n(self._blocks(seen.reference, beyond), self._blocks(seen.fused, beyond))
        known = formulas.whole_blocks(np.pad(seen.valid, beyond, mode="symmetric"), self._size, self._shift)
        self.map.put(window.tile, window.size, np.where(known, quality, np.nan))
        self._sum += float(quality.sum(where=known))
        self._count += int(np.count_nonzero(known))
        self._invalid += int(np.count_nonzero(~known))
        self._flat += int(np.count_nonzero(flat & known))

    def _blocks(self, image: Float64, beyond: list[tuple[int, int]]) -> Float64:
        padded = np.pad(formulas.to_uint16(image), [(0, 0), *beyond], mode="symmetric")
        return formulas.blocks(padded, self._size, self._shift)

    def _lacking(self, span: Span, have: int) -> int:
        """Pixels to add so that all blocks that start in the core are complete."""
        blocks = -(-(span.stop - span.start) // self._shift)
        return max((blocks - 1) * self._shift + self._size - have, 0)

    def scores(self) -> dict[str, Score]:
        known = Score(nan, self._count, self._invalid, self._flat)
        if self._fractional and self._peak <= NORMALISED_PEAK and (self._maxval or 0) <= NORMALISED_PEAK:
            reason = "the data look normalised, and Q2n rounds to whole DN; give maxval and data in DN"
            return {"Q2n": replace(known, value=None, reason=reason)}
        if not self._count:
            reason = "the image is too small for a block" if self._too_small else "no block is valid throughout"
            return {"Q2n": replace(known, reason=reason)}
        return {"Q2n": replace(known, value=self._sum / self._count)}


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
    on_tile: OnTile = lambda done, total: None,
) -> ReducedReport:
    """Compare `fused` with its truth `gt` in one pass over tiles.

    `ratio` PAN pixels make one MS pixel; `maxval`: the largest DN of the sensor (2047 for 11 bits), which PSNR and SSIM
    need; `cut`: the toolbox's crop, as in PRESETS; `shift`: pixels between the blocks of Q2n. Invalid pixels of either
    image are left out. `strict`: infinite and undefined values stay, as in the toolbox. Raises UsageError.
    """
    _check(gt, fused, metrics)
    gt, fused = trimmed(gt, cut), trimmed(fused, cut)
    families = _families(metrics, gt.bands, ratio, maxval, shift)
    todo = tiles(gt.shape, tile, lcm(BLOCK, shift), *margins(families))
    for done, one in enumerate(todo, 1):
        window = Window.of(one, gt.shape, pixels(gt, *one.read), pixels(fused, *one.read))
        for family in families:
            family.add(window)
        on_tile(done, len(todo))
    scores: dict[str, Score] = {}
    for family in families:
        scores |= family.scores()
    if "SSIM" in metrics and maxval is None:
        scores["SSIM"] = Score(None, 0, reason="SSIM needs maxval, the largest DN")
    q2n = next((family for family in families if isinstance(family, Hypercomplex)), None)
    maps = {"Q2n": q2n.map.values} if q2n and q2n.map.values is not None else {}
    chosen = {name: scores[name].published(strict) for name in REDUCED if name in metrics}
    return ReducedReport(chosen, gt.shape, ratio, maxval, cut, maps)


def _families(metrics: Collection[str], bands: int, ratio: int, maxval: float | None, shift: int) -> Sequence[Family]:
    made: dict[str, Callable[[], Family]] = {
        "SAM": Angle,
        "ERGAS PSNR RMSE": lambda: Errors(bands, ratio, maxval),
        "SCC": Edges,
        "QAVE": lambda: SlidingQuality(bands),
        "Q2n": lambda: Hypercomplex(maxval, shift=shift),
        "CC": lambda: Correlation(bands),
    }
    if maxval is not None:
        made["SSIM"] = lambda: Similarity(bands, maxval)
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
