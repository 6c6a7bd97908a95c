"""Quality without a truth: a product against the PAN and MS it was made from, as the field's toolbox computes it.

All is done at PAN scale, in blocks of 32 x 32 pixels, in one pass over the scene; only the reprojection indices (R_...)
take two more over the MS pixels. D_lambda, D_s and D_rho fall with quality, the others rise to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from math import lcm, nan
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from pansharpen_cli.errors import UsageError
from pansharpen_cli.imaging import mtf
from pansharpen_cli.imaging.tiling import Span, Tile
from pansharpen_cli.metrics import derived, formulas
from pansharpen_cli.metrics.blur import Blur
from pansharpen_cli.metrics.formulas import Moments
from pansharpen_cli.metrics.image import Cropped, Float64, Held, Image, Mask, Pixels, pixels
from pansharpen_cli.metrics.reduced_resolution import Hypercomplex, reduced
from pansharpen_cli.metrics.streaming import (
    BLOCK,
    BlockMap,
    Margins,
    OnTile,
    Scatter,
    Score,
    Sums,
    Window,
    gather,
    margins,
    tiles,
)
from pansharpen_cli.system import settings

FLAT = 1e-8
"""A block whose deviation is this part of its mean is flat: the weights of EXP add up to 1 within 1e-9 only."""
TILE = (512, 1024)
"""PAN pixels (rows, cols) of a tile's core, multiples of BLOCK. Margins of 41 pixels are read around it: smaller tiles
cost more for these, larger ones more memory, and leave the processor's cache."""
REPROJECTION_HALF_WIDTH = 2
MS_TILE = 96
"""MS pixels a side of a tile's core, for the reprojection indices: with margins, at ratio 4, two Fourier transforms."""

PRODUCTS: dict[str, tuple[str, str]] = {
    "QNR": ("D_lambda", "D_s"),
    "HQNR": ("D_lambda_K", "D_s"),
    "RQNR": ("D_lambda_K", "D_s_R"),
}
"""Indices that are (1 - first) (1 - second)."""
REPROJECTION = {"R_Q2n": "Q2n", "R_Q": "QAVE", "R_SAM": "SAM", "R_ERGAS": "ERGAS"}
"""Metrics of the product brought back to the MS, by the metric at reduced resolution that they are."""
FULL: tuple[str, ...] = ("D_lambda", "D_s", "QNR", "D_lambda_K", "HQNR", "D_s_R", "RQNR")
"""The usual metrics at full resolution."""
OPTIONAL: tuple[str, ...] = ("D_rho", *REPROJECTION)


class Consistency:
    """D_lambda_K (Khan et al. 2009): 1 - Q2n between EXP and the product as the MS camera sees it."""

    before = after = 0

    def __init__(self, shape: tuple[int, int]) -> None:
        self._q2n = Hypercomplex(shape)

    def measure(self, view: View) -> Sums:
        return self._q2n.measure(view.consistency())

    def scores(self, sums: Sums) -> dict[str, Score]:
        q2n = self._q2n.scores(sums)["Q2n"]
        return {"D_lambda_K": replace(q2n, value=None if q2n.value is None else 1 - q2n.value)}

    def maps(self, sums: Sums) -> dict[str, Float64]:
        return {"D_lambda_K": 1 - self._q2n.map.values}


class Blocks:
    """D_lambda and D_s (Alparone et al. 2008): how UIQIs between bands, and with the PAN, change with the scale.

    A block without a UIQI at either scale (flat, or zero on average) is left out at both; `strict` gives NaN then, as
    the toolbox does. `shape` is the image's, `size` pixels a block's side, `exponent` that of the mean of differences.
    """

    before = after = 0

    def __init__(self, shape: tuple[int, int], *, strict: bool = False, size: int = BLOCK, exponent: float = 1) -> None:
        self._strict, self._size, self._exponent = strict, size, exponent
        self._maps = {"D_lambda": BlockMap(shape, size), "D_s": BlockMap(shape, size)}

    def measure(self, view: View) -> Sums:
        low, high = view.low, view.high
        valid = (low.pixels == self._size**2) & (high.pixels == self._size**2)
        known = valid[..., None, None]
        fine, coarse = self._uiqi(high), self._uiqi(low)
        defined = known & np.isfinite(fine) & np.isfinite(coarse)
        entering = np.broadcast_to(known, fine.shape) if self._strict else defined
        degenerate = []
        for name, values in _picked(np.where(defined, np.abs(fine - coarse), np.nan)).items():
            degenerate.append(np.count_nonzero(np.isnan(values).any(axis=-1) & valid))
            self._maps[name].put(view.tile, _mean_of_defined(values))
        count = int(np.count_nonzero(valid))
        return (
            fine.sum(axis=(0, 1), where=entering), coarse.sum(axis=(0, 1), where=entering),
            np.count_nonzero(entering, axis=(0, 1)), count, valid.size - count, np.array(degenerate),
        )  # fmt: skip

    def _uiqi(self, moments: Moments) -> Float64:
        return formulas.uiqi_matrix(moments.mean, moments.scatter / self._size**2, 0 if self._strict else FLAT)

    @np.errstate(divide="ignore", invalid="ignore")
    def scores(self, sums: Sums) -> dict[str, Score]:
        high, low, used, count, invalid, degenerate = sums
        change = np.abs(high / used - low / used) ** self._exponent
        return {
            name: self._score(values, Score(nan, count, invalid, int(flat)))
            for (name, values), flat in zip(_picked(change).items(), degenerate, strict=True)
        }

    def _score(self, change: Float64, known: Score) -> Score:
        if not change.size:
            return replace(known, reason="one band has no pairs")
        if not known.counted:
            return replace(known, reason="no block is valid throughout")
        value = float(change.mean() ** (1 / self._exponent))
        return replace(known, value=value, reason="" if np.isfinite(value) else "a pair of bands has no usable block")

    def maps(self, sums: Sums) -> dict[str, Float64]:
        return {name: blocks.values for name, blocks in self._maps.items()}


def _picked(pairs: Float64) -> dict[str, Float64]:
    """Values of the pairs of bands, and of the bands with the PAN, which is the last: (..., pairs) each."""
    bands = pairs.shape[-1] - 1
    upper = np.triu(np.ones((bands, bands), bool), 1)
    return {"D_lambda": pairs[..., :-1, :-1][..., upper], "D_s": pairs[..., :-1, -1]}


class Regression:
    """D_s_R: the part of the PAN's variance that no weighted sum of the product's bands explains (no intercept)."""

    before = after = 0

    def __init__(self, shape: tuple[int, int], maps: bool) -> None:
        self._shape, self._maps = shape, maps
        self._scatters: list[tuple[Tile, npt.NDArray[np.float32]]] = []

    def measure(self, view: View) -> Sums:
        high = view.high
        if self._maps:  # single precision is enough for one
            whole = high.pixels == BLOCK**2
            self._scatters.append((view.tile, np.asarray(high.scatter * whole[..., None, None], np.float32)))
        scatter = Scatter.of_blocks(high)
        return scatter, high.pixels.size * BLOCK**2 - scatter.count

    def scores(self, sums: Sums) -> dict[str, Score]:
        scatter, invalid = sums
        known = Score(nan, scatter.count, invalid)
        variance = float(scatter.matrix[-1, -1])
        if not variance:
            return {"D_s_R": replace(known, reason="the PAN is constant" if known.counted else "")}
        weights = _combination(scatter)
        return {"D_s_R": replace(known, value=float(weights @ scatter.matrix @ weights) / variance)}

    def maps(self, sums: Sums) -> dict[str, Float64]:
        """The same ratio in each block, with the scene's weights."""
        result, weights = BlockMap(self._shape), _combination(sums[0])
        for tile, scatter in self._scatters:
            variance = scatter[..., -1, -1]
            known = variance > 0
            result.put(tile, np.where(known, (scatter @ weights) @ weights / np.where(known, variance, 1), np.nan))
        return {"D_s_R": result.values}


def _combination(scatter: Scatter) -> Float64:
    """Weights that turn the bands and the PAN, the last, into the residual of the regression."""
    gram = scatter.matrix + scatter.count * np.outer(scatter.mean, scatter.mean)
    # in units of each band's own energy: lstsq judges what is singular by the largest value
    norm = np.sqrt(np.diag(gram))
    norm[norm == 0] = 1
    gram = gram / np.outer(norm, norm)
    weights = np.linalg.lstsq(gram[:-1, :-1], gram[:-1, -1], rcond=None)[0]
    return np.append(-weights * norm[-1] / norm[:-1], 1.0)


class Detail:
    """D_rho: 1 - local correlation of the product's bands with the PAN, mean of pixels and bands (Scarpa 2022)."""

    def __init__(self, shape: tuple[int, int], ratio: int) -> None:
        self._half_width = -(-ratio // 2)
        self.before, self.after = 2 * self._half_width - 2, 2 * self._half_width
        self._map = BlockMap(shape)

    def measure(self, view: View) -> Sums:
        high = view.around()
        core = high.tile.inner
        known = _reached(high, self.before, self.after)[core]
        pan = formulas.local_detail(high.reference, self._half_width)
        loss = np.zeros(known.shape)
        for band in high.fused:
            detail = formulas.local_detail(band[None], self._half_width)
            rho = formulas.local_correlation(detail, pan, self._half_width)[0][core]
            loss += (1 - np.clip(rho, -1, 1)) / len(high.fused)
        every = formulas.blocks(np.where(known, loss, np.nan), BLOCK, BLOCK)
        self._map.put(high.tile, _mean_of_defined(every.reshape(*every.shape[:2], -1)))
        count = int(np.count_nonzero(known))
        return float(loss.sum(where=known)), count, known.size - count

    def scores(self, sums: Sums) -> dict[str, Score]:
        total, count, invalid = sums
        return {"D_rho": Score(total / count if count else nan, count, invalid)}

    def maps(self, sums: Sums) -> dict[str, Float64]:
        return {"D_rho": self._map.values}


class BestPhase:
    """For each MS band, the phase at which the decimated PAN resembles it best (Scarpa and Ciotola 2022)."""

    before, after = 2 * REPROJECTION_HALF_WIDTH - 2, 2 * REPROJECTION_HALF_WIDTH

    def __init__(self, ratio: int) -> None:
        self._ratio = ratio

    def measure(self, window: Window) -> Sums:
        """MS, and the PAN at all phases."""
        width = REPROJECTION_HALF_WIDTH
        core = window.tile.inner
        known = _reached(window, self.before, self.after)[core]
        phases = [formulas.local_detail(phase, width) for phase in window.fused]
        total = np.zeros((len(window.reference), len(phases)))
        for band, image in zip(total, window.reference, strict=True):
            detail = formulas.local_detail(image, width)
            band += [formulas.local_correlation(detail, phase, width)[core].sum(where=known) for phase in phases]
        return (total,)

    def phases(self, sums: Sums) -> list[tuple[int, int]]:
        """(row, col) for each band; of equals the smallest column, then row."""
        return [(int(best) % self._ratio, int(best) // self._ratio) for best in sums[0].argmax(axis=1)]


def _reached(window: Window, before: int, after: int) -> Mask:
    """True where all pixels of the image that a position reads are valid."""
    gaps = np.pad((~window.valid).astype(np.float64), (before, after))
    return np.asarray(formulas.box_sum(gaps, before + after + 1) == 0)


def _mean_of_defined(values: Float64) -> Float64:
    """Mean over the last axis of what is not NaN; NaN where nothing is."""
    defined = np.isfinite(values)
    count = np.count_nonzero(defined, axis=-1)
    return np.asarray(np.where(count, values.sum(axis=-1, where=defined) / np.maximum(count, 1), np.nan))


@dataclass(frozen=True)
class FullReport:
    """Scores without a truth, and what they depend on.

    `size`: rows and columns that were measured, from the scene's upper left corner: `given` cut down to whole blocks.
    `phases`: (row, col) of each band's decimation for the reprojection indices. `maps`: one value a block, NaN where
    there is none; HQNR and the like are made of the maps of their factors.
    """

    scores: dict[str, Score]
    given: tuple[int, int]
    size: tuple[int, int]
    ratio: int
    phase: float
    gains: tuple[float, ...]
    exp: str
    phases: tuple[tuple[int, int], ...] = ()
    maps: dict[str, Float64] = field(default_factory=dict)

    @property
    def cropped(self) -> bool:
        return self.given != self.size

    def as_dict(self) -> dict[str, Any]:
        """Everything but the maps."""
        return asdict(replace(self, maps={}))


@dataclass(frozen=True, eq=False)
class Product:
    """A product, its PAN and its MS, cut to whole blocks, and EXP."""

    fused: Image
    pan: Image
    ms: Image
    exp: Image
    ratio: int
    phase: float
    gains: tuple[float, ...]

    @classmethod
    def of(
        cls, fused: Image, pan: Image, ms: Image, gains: Sequence[float], phase: float, exp: Image | None
    ) -> Product:
        ratio = _check(fused, pan, ms, gains, exp)
        grain = lcm(BLOCK, ratio)
        rows, cols = (slice(0, min(n, ratio * m) // grain * grain) for n, m in zip(pan.shape, ms.shape, strict=True))
        if not rows.stop or not cols.stop:
            raise UsageError(f"{pan.shape[0]} x {pan.shape[1]} pixels are less than one block of {grain}")
        ms = Cropped(ms, slice(0, rows.stop // ratio), slice(0, cols.stop // ratio))
        exp = Cropped(exp, rows, cols) if exp else derived.Expanded(ms, ratio, phase)
        return cls(Cropped(fused, rows, cols), Cropped(pan, rows, cols), ms, exp, ratio, phase, tuple(gains))

    @property
    def size(self) -> tuple[int, int]:
        return self.pan.shape

    @cached_property
    def blurs(self) -> list[Blur]:
        """The MS camera's MTF."""
        return [Blur.of(mtf.kernel(self.ratio, gain)) for gain in self.gains]


def full(
    fused: Image,
    pan: Image,
    ms: Image,
    *,
    gains: Sequence[float],
    phase: float,
    exp: Image | None = None,
    metrics: Collection[str] = FULL,
    maps: bool = False,
    strict: bool = False,
    tile: int | tuple[int, int] = TILE,
    threads: int = 1,
    on_tile: OnTile = lambda done, total: None,
) -> FullReport:
    """Judge a product `fused` by the `pan` (one band) and the `ms` nested in it.

    `gains`: the MS camera's MTF at its Nyquist frequency, one a band. `phase`: MS sample i lies on PAN index
    ratio * i + phase (`interpolation.toolbox_phase` for published numbers, `area_phase` for georeferenced pairs).
    `exp`: the MS at PAN scale, where a file brings its own. `metrics`: of FULL and OPTIONAL. `strict`: undefined
    blocks make the score NaN, as in the toolbox. `threads` change nothing but the time. Images are cut to whole blocks
    first. Raises UsageError.
    """
    unknown = set(metrics) - {*FULL, *OPTIONAL}
    if not metrics or unknown:
        raise UsageError(f"metrics {sorted(metrics)}: choose from {', '.join((*FULL, *OPTIONAL))}")
    settings.at_least(threads, "threads", 1)
    product = Product.of(fused, pan, ms, gains, phase, exp)
    if not 0 <= phase <= product.ratio:
        raise UsageError(f"phase is a place among the {product.ratio} PAN pixels of an MS pixel, not {phase}")
    needed = {*metrics, *(factor for name in metrics for factor in PRODUCTS.get(name, ()))}
    scores, found = _at_pan_scale(product, needed - set(REPROJECTION), maps, strict, tile, threads, on_tile)
    phases: list[tuple[int, int]] = []
    if needed & set(REPROJECTION):
        phases = best_phases(product, threads)
        scores |= _reprojected(product, phases, needed, strict, threads)
    published = {name: score.published(strict) for name, score in scores.items()}
    published |= {name: _combined(published, name) for name in PRODUCTS if name in metrics}
    found |= {name: (1 - found[a]) * (1 - found[b]) for name, (a, b) in PRODUCTS.items() if a in found and b in found}
    return FullReport(
        {name: published[name] for name in (*FULL, *OPTIONAL) if name in needed},
        pan.shape,
        product.size,
        product.ratio,
        phase,
        product.gains,
        "given" if exp else derived.exp_kernel(product.ratio),
        tuple(phases),
        found,
    )


@dataclass(eq=False)
class View:
    """One tile of a product as the metrics need it. What several of them need is made once, and only if asked for;
    `size` is the side of the blocks."""

    product: Product
    tile: Tile
    size: int = BLOCK

    def __post_init__(self) -> None:
        self._fused, self._pan = Held(self.product.fused), Held(self.product.pan)

    @cached_property
    def _exp(self) -> Pixels:
        return pixels(self.product.exp, *self.tile.core)

    def consistency(self) -> Window:
        """EXP, and the product as the MS camera sees it."""
        core = Tile(*(Span(s.start, s.stop, s.start, s.stop) for s in (self.tile.rows, self.tile.cols)))
        blurred = derived.Filtered(self._fused, self.product.blurs).read(*self.tile.core)
        return Window.of(core, self.product.size, self._exp, blurred)

    @cached_property
    def low(self) -> Moments:
        """Blocks of EXP, and of the PAN brought down to the MS and up again."""
        reduced_pan = derived.Reduced(self._pan, self.product.ratio)
        pan = derived.Expanded(reduced_pan, self.product.ratio, self.product.phase).read(*self.tile.core)
        return self._moments(self._exp, pan)

    @cached_property
    def high(self) -> Moments:
        """Blocks of the product and the PAN."""
        return self._moments(self._fused.read(*self.tile.core), self._pan.read(*self.tile.core))

    def around(self) -> Window:
        """PAN and product, with the margin of the tile."""
        pan, fused = (pixels(image, *self.tile.read) for image in (self._pan, self._fused))
        return Window.of(self.tile, self.product.size, pan, fused)

    def _moments(self, bands: tuple[npt.NDArray[Any], Mask], pan: tuple[npt.NDArray[Any], Mask]) -> Moments:
        return formulas.block_moments(bands[0], pan[0], bands[1] & pan[1], self.size, self.size)


class FullFamily(Margins, Protocol):
    """Metrics at PAN scale that share sums, and their maps."""

    def measure(self, view: View) -> Sums: ...

    def scores(self, sums: Sums) -> dict[str, Score]: ...

    def maps(self, sums: Sums) -> dict[str, Float64]: ...


def _at_pan_scale(
    product: Product, needed: Collection[str], maps: bool, strict: bool,
    tile: int | tuple[int, int], threads: int, on_tile: OnTile,
) -> tuple[dict[str, Score], dict[str, Float64]]:  # fmt: skip
    """The metrics at PAN scale, in one pass, and their maps."""
    made: dict[str, Callable[[], FullFamily]] = {  # what reads widely comes first: the others are served from that
        "D_lambda_K": lambda: Consistency(product.size),
        "D_lambda D_s": lambda: Blocks(product.size, strict=strict),
        "D_s_R": lambda: Regression(product.size, maps),
        "D_rho": lambda: Detail(product.size, product.ratio),
    }
    families = [make() for names, make in made.items() if set(names.split()) & set(needed)]

    def measure(one: Tile) -> list[Sums]:
        view = View(product, one)
        return [family.measure(view) for family in families]

    totals = gather(measure, tiles(product.size, tile, BLOCK, *margins(families)), threads, on_tile)
    scores: dict[str, Score] = {}
    found: dict[str, Float64] = {}
    for family, sums in zip(families, totals, strict=True):
        scores |= family.scores(sums)
        found |= family.maps(sums) if maps else {}
    return scores, found


def best_phases(product: Product, threads: int) -> list[tuple[int, int]]:
    """(row, col) on which each MS band is best met by decimation: one pass over the MS, the PAN filtered as band 1."""
    kernel = derived.normalised_kernel(product.ratio, product.gains[0])
    phases = derived.Phases(derived.Filtered(product.pan, [derived.by_fourier(kernel)]), product.ratio)
    best = BestPhase(product.ratio)

    def measure(one: Tile) -> list[Sums]:
        window = Window.of(one, product.ms.shape, pixels(product.ms, *one.read), phases.read(*one.read))
        return [best.measure(window)]

    (sums,) = gather(measure, tiles(product.ms.shape, MS_TILE, BLOCK, best.before, best.after), threads)
    return best.phases(sums)


def _reprojected(
    product: Product, phases: Sequence[tuple[int, int]], needed: Collection[str], strict: bool, threads: int
) -> dict[str, Score]:
    """The product brought back to the MS and compared with it, in one pass over the MS."""
    filters = [derived.by_fourier(derived.normalised_kernel(product.ratio, gain)) for gain in product.gains]
    back = derived.Decimated(derived.Filtered(product.fused, filters), product.ratio, phases)
    names = {name: metric for name, metric in REPROJECTION.items() if name in needed}
    report = reduced(
        product.ms, back, product.ratio, metrics=list(names.values()), strict=strict, tile=MS_TILE, threads=threads
    )
    return {name: report.scores[metric] for name, metric in names.items()}


def _combined(scores: dict[str, Score], name: str) -> Score:
    """An index of PRODUCTS from its published factors."""
    first, second = (scores[factor] for factor in PRODUCTS[name])
    if first.value is None or second.value is None:
        return Score(None, 0, reason=first.reason or second.reason)
    return replace(first, value=(1 - first.value) * (1 - second.value))


def _check(fused: Image, pan: Image, ms: Image, gains: Sequence[float], exp: Image | None) -> int:
    """The ratio of a product whose images fit together."""
    ratio = max(1, round(pan.shape[0] / ms.shape[0]))
    images = [("the product", fused, ms.bands), ("the PAN", pan, 1)] + ([("EXP", exp, ms.bands)] if exp else [])
    for name, image, bands in images:
        if image.shape != pan.shape or image.bands != bands:
            raise UsageError(
                f"{name} has {image.bands} bands of {image.shape} pixels; {bands} of {pan.shape} go with PAN and MS"
            )
    if any(abs(n - ratio * m) >= ratio for n, m in zip(pan.shape, ms.shape, strict=True)):
        raise UsageError(f"the MS of {ms.shape} pixels is not nested in the PAN of {pan.shape}")
    if len(gains) != ms.bands:
        raise UsageError(f"{len(gains)} MTF gains for {ms.bands} bands")
    return ratio
