"""Quality without a truth: a product against the PAN and MS it was made from, as the field's toolbox computes it.

All is done at PAN scale, in blocks of 32 x 32 pixels, in one pass over the scene; only the reprojection indices (R_...)
take two more over the MS pixels. D_lambda, D_s and D_rho fall with quality, the others rise to 1.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from math import lcm, nan
from typing import Any

import numpy as np
import numpy.typing as npt

from pansharpen_cli.errors import UsageError
from pansharpen_cli.metrics import derived, formulas
from pansharpen_cli.metrics.image import Cropped, Float64, Held, Image, Mask, Pixels, pixels
from pansharpen_cli.metrics.reduced_resolution import Hypercomplex, reduced
from pansharpen_cli.metrics.streaming import BLOCK, TILE, BlockMap, OnTile, Scatter, Score, Window, tiles
from pansharpen_cli.tiling import Span, Tile

Float32 = npt.NDArray[np.float32]

FLAT = 1e-8
"""A block whose deviation is this part of its mean is flat: the weights of EXP add up to 1 within 1e-9 only."""
REPROJECTION_HALF_WIDTH = 2
MS_TILE = 128
"""MS pixels a side of a tile's core, for the reprojection indices."""

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


class Blocks:
    """D_lambda and D_s (Alparone et al. 2008): how UIQIs between bands, and with the PAN, change with the scale.

    A block without a UIQI at either scale (flat, or zero on average) is left out at both; `strict` gives NaN then, as
    the toolbox does. `size` pixels a block's side, `exponent` that of the mean of differences.
    """

    def __init__(self, bands: int, *, strict: bool = False, size: int = BLOCK, exponent: float = 1) -> None:
        self._strict, self._size, self._exponent = strict, size, exponent
        pairs = bands + 1, bands + 1  # the PAN is the last
        self._high, self._low, self._used = np.zeros(pairs), np.zeros(pairs), np.zeros(pairs, int)
        self._count, self._invalid = 0, 0
        self._degenerate = {"D_lambda": 0, "D_s": 0}
        self._upper = np.triu(np.ones((bands, bands), bool), 1)
        self.maps = {"D_lambda": BlockMap(size), "D_s": BlockMap(size)}

    def add(self, low: Window, high: Window) -> None:
        """Reduced PAN and EXP, PAN and product."""
        core = high.around(), low.around()
        valid = formulas.whole_blocks(core[0].valid & core[1].valid, self._size, self._size)
        known = valid[..., None, None]
        fine, coarse = (self._uiqi(window) for window in core)
        defined = known & np.isfinite(fine) & np.isfinite(coarse)
        entering = known if self._strict else defined
        self._high += fine.sum(axis=(0, 1), where=entering)
        self._low += coarse.sum(axis=(0, 1), where=entering)
        self._used += np.count_nonzero(np.broadcast_to(entering, fine.shape), axis=(0, 1))
        self._count += int(np.count_nonzero(valid))
        self._invalid += int(np.count_nonzero(~valid))
        change = np.where(defined, np.abs(fine - coarse), np.nan)
        for name, values in self._pick(change).items():
            self._degenerate[name] += int(np.count_nonzero(np.isnan(values).any(axis=-1) & valid))
            self.maps[name].put(high.tile, high.size, _mean_of_defined(values))

    def _uiqi(self, window: Window) -> Float64:
        bands = formulas.blocks(np.concatenate([window.fused, window.reference]), self._size, self._size)
        return formulas.uiqi_matrix(bands, 0 if self._strict else FLAT)

    def _pick(self, pairs: Float64) -> dict[str, Float64]:
        """Values of the pairs of bands, and of the bands with the PAN: (..., pairs) each."""
        return {"D_lambda": pairs[..., :-1, :-1][..., self._upper], "D_s": pairs[..., :-1, -1]}

    @np.errstate(divide="ignore", invalid="ignore")
    def scores(self) -> dict[str, Score]:
        change = np.abs(self._high / self._used - self._low / self._used) ** self._exponent
        return {name: self._score(name, values) for name, values in self._pick(change).items()}

    def _score(self, name: str, change: Float64) -> Score:
        known = Score(nan, self._count, self._invalid, self._degenerate[name])
        if not change.size:
            return replace(known, reason="one band has no pairs")
        if not self._count:
            return replace(known, reason="no block is valid throughout")
        value = float(change.mean() ** (1 / self._exponent))
        return replace(known, value=value, reason="" if np.isfinite(value) else "a pair of bands has no usable block")


class Regression:
    """D_s_R: the part of the PAN's variance that no weighted sum of the product's bands explains (no intercept)."""

    def __init__(self, bands: int, maps: bool = False) -> None:
        self._scatter = Scatter(bands + 1)  # the PAN is the last
        self._invalid = 0
        self._covariances: list[tuple[Tile, tuple[int, int], Float32]] | None = [] if maps else None

    def add(self, high: Window) -> None:
        core = high.around()
        both = np.concatenate([core.fused, core.reference])
        self._scatter.add(both, core.valid)
        self._invalid += core.invalid
        if self._covariances is not None:
            self._covariances.append((high.tile, high.size, _covariances(both, core.valid)))

    def _combination(self) -> Float64:
        """Weights that turn the bands and the PAN into the residual."""
        scatter = self._scatter
        gram = scatter.matrix + scatter.count * np.outer(scatter.mean, scatter.mean)
        # in units of each band's own energy: lstsq judges what is singular by the largest value
        norm = np.sqrt(np.diag(gram))
        norm[norm == 0] = 1
        gram = gram / np.outer(norm, norm)
        weights = np.linalg.lstsq(gram[:-1, :-1], gram[:-1, -1], rcond=None)[0]
        return np.append(-weights * norm[-1] / norm[:-1], 1.0)

    def scores(self) -> dict[str, Score]:
        known = Score(nan, self._scatter.count, self._invalid)
        variance = float(self._scatter.matrix[-1, -1])
        if not variance:
            return {"D_s_R": replace(known, reason="the PAN is constant" if known.counted else "")}
        weights = self._combination()
        return {"D_s_R": replace(known, value=float(weights @ self._scatter.matrix @ weights) / variance)}

    def map(self) -> BlockMap:
        """The same ratio in each block, with the scene's weights; `maps` keeps a small matrix a block for it."""
        result, weights = BlockMap(), self._combination()
        for tile, size, covariance in self._covariances or []:
            variance = covariance[..., -1, -1]
            unexplained = np.einsum("i,...ij,j->...", weights, covariance, weights)
            known = variance > 0
            result.put(tile, size, np.where(known, unexplained / np.where(known, variance, 1), np.nan))
        return result


class Detail:
    """D_rho: 1 - local correlation of the product's bands with the PAN, mean of pixels and bands (Scarpa 2022)."""

    def __init__(self, ratio: int) -> None:
        self._half_width = -(-ratio // 2)
        self.before, self.after = 2 * self._half_width - 2, 2 * self._half_width
        self._sum, self._count, self._invalid = 0.0, 0, 0
        self.map = BlockMap()

    def add(self, high: Window) -> None:
        seen = high.around(self.before, self.after)
        core = seen.tile.inner
        known = _reached(seen, self.before, self.after)[core]
        pan = formulas.local_detail(seen.reference, self._half_width)
        loss = np.zeros(known.shape)
        for band in seen.fused:
            detail = formulas.local_detail(band[None], self._half_width)
            rho = formulas.local_correlation(detail, pan, self._half_width)[0][core]
            loss += (1 - np.clip(rho, -1, 1)) / len(seen.fused)
        self._sum += float(loss.sum(where=known))
        self._count += int(np.count_nonzero(known))
        self._invalid += int(np.count_nonzero(~known))
        every = formulas.blocks(np.where(known, loss, np.nan)[None], BLOCK, BLOCK)[:, :, 0]
        self.map.put(high.tile, high.size, _mean_of_defined(every))

    def scores(self) -> dict[str, Score]:
        value = self._sum / self._count if self._count else nan
        return {"D_rho": Score(value, self._count, self._invalid)}


class BestPhase:
    """For each MS band, the phase at which the decimated PAN resembles it best (Scarpa and Ciotola 2022)."""

    before, after = 2 * REPROJECTION_HALF_WIDTH - 2, 2 * REPROJECTION_HALF_WIDTH

    def __init__(self, bands: int, ratio: int) -> None:
        self._ratio = ratio
        self._sum = np.zeros((bands, ratio**2))

    def add(self, window: Window) -> None:
        """MS, and the PAN at all phases."""
        width = REPROJECTION_HALF_WIDTH
        core = window.tile.inner
        known = _reached(window, self.before, self.after)[core]
        phases = [formulas.local_detail(phase, width) for phase in window.fused]
        for band, image in enumerate(window.reference):
            detail = formulas.local_detail(image, width)
            for number, phase in enumerate(phases):
                self._sum[band, number] += formulas.local_correlation(detail, phase, width)[core].sum(where=known)

    def phases(self) -> list[tuple[int, int]]:
        """(row, col) for each band; of equals the smallest column, then row."""
        return [(int(best) % self._ratio, int(best) // self._ratio) for best in self._sum.argmax(axis=1)]


def _reached(window: Window, before: int, after: int) -> Mask:
    """True where all pixels of the image that a position reads are valid."""
    gaps = np.pad((~window.valid).astype(np.float64), (before, after))
    return np.asarray(formulas.box_sum(gaps, before + after + 1) == 0)


def _mean_of_defined(values: Float64) -> Float64:
    """Mean over the last axis of what is not NaN; NaN where nothing is."""
    defined = np.isfinite(values)
    count = np.count_nonzero(defined, axis=-1)
    return np.asarray(np.where(count, values.sum(axis=-1, where=defined) / np.maximum(count, 1), np.nan))


def _covariances(image: Float64, valid: Mask) -> Float32:
    """Covariance of the bands in each block, 0 where a pixel is not valid: (block row, block col, bands, bands).

    Single precision is enough for a map, and these are kept for the whole scene.
    """
    block = formulas.blocks(image, BLOCK, BLOCK)
    centred = block - block.mean(axis=-1, keepdims=True)
    known = formulas.whole_blocks(valid, BLOCK, BLOCK)
    return np.asarray(centred @ centred.swapaxes(-1, -2) / block.shape[-1] * known[..., None, None], dtype=np.float32)


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
        return cls(
            Held(Cropped(fused, rows, cols)),
            Held(Cropped(pan, rows, cols)),
            ms,
            Cropped(exp, rows, cols) if exp else derived.Expanded(ms, ratio, phase),
            ratio,
            phase,
            tuple(gains),
        )

    @property
    def size(self) -> tuple[int, int]:
        return self.pan.shape

    @cached_property
    def pan_low(self) -> derived.Expanded:
        return derived.Expanded(derived.Reduced(self.pan, self.ratio), self.ratio, self.phase)

    @cached_property
    def blurred(self) -> derived.Filtered:
        return derived.blurred(self.fused, self.ratio, self.gains)


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
    on_tile: OnTile = lambda done, total: None,
) -> FullReport:
    """Judge a product `fused` by the `pan` (one band) and the `ms` nested in it.

    `gains`: the MS camera's MTF at its Nyquist frequency, one a band. `phase`: MS sample i lies on PAN index
    ratio * i + phase (`interpolation.toolbox_phase` for published numbers, `area_phase` for georeferenced pairs).
    `exp`: the MS at PAN scale, where a file brings its own. `metrics`: of FULL and OPTIONAL. `strict`: undefined
    blocks make the score NaN, as in the toolbox. Images are cut to whole blocks first. Raises UsageError.
    """
    unknown = set(metrics) - {*FULL, *OPTIONAL}
    if not metrics or unknown:
        raise UsageError(f"metrics {sorted(metrics)}: choose from {', '.join((*FULL, *OPTIONAL))}")
    product = Product.of(fused, pan, ms, gains, phase, exp)
    needed = {*metrics, *(factor for name in metrics for factor in PRODUCTS.get(name, ()))}
    at_pan_scale = _Pass(product, needed, maps, strict)
    if needed - set(REPROJECTION):
        at_pan_scale.run(tile, on_tile)
    scores, found = at_pan_scale.scores(), at_pan_scale.maps()
    phases: list[tuple[int, int]] = []
    if needed & set(REPROJECTION):
        phases = best_phases(product)
        scores |= _reprojected(product, phases, needed, strict)
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
    """One tile of a product, seen as the metrics need it; each image is made once, and only if asked for."""

    product: Product
    tile: Tile

    @cached_property
    def core(self) -> Tile:
        return Tile(*(Span(s.start, s.stop, s.start, s.stop) for s in (self.tile.rows, self.tile.cols)))

    @cached_property
    def exp(self) -> Pixels:
        return pixels(self.product.exp, *self.tile.core)

    @cached_property
    def low(self) -> Window:
        """PAN brought down to the MS and up again, EXP."""
        return Window.of(self.core, self.product.size, self.product.pan_low.read(*self.tile.core), self.exp)

    @cached_property
    def consistency(self) -> Window:
        """EXP, and the product as the MS camera sees it."""
        return Window.of(self.core, self.product.size, self.exp, self.product.blurred.read(*self.tile.core))

    @cached_property
    def high(self) -> Window:
        """PAN and product, with the margin of the tile."""
        pan, fused = (pixels(image, *self.tile.read) for image in (self.product.pan, self.product.fused))
        return Window.of(self.tile, self.product.size, pan, fused)


class _Pass:
    """The metrics at PAN scale that one pass gives."""

    def __init__(self, product: Product, needed: Collection[str], maps: bool, strict: bool) -> None:
        self._product, self._maps = product, maps
        bands = product.fused.bands
        # those that read widely come first: narrow reads of product and PAN are then served from what is held
        self._consistency = Hypercomplex() if "D_lambda_K" in needed else None
        self._blocks = Blocks(bands, strict=strict) if {"D_lambda", "D_s"} & set(needed) else None
        self._regression = Regression(bands, maps) if "D_s_R" in needed else None
        self._detail = Detail(product.ratio) if "D_rho" in needed else None

    def run(self, tile: int | tuple[int, int], on_tile: OnTile) -> None:
        margin = (self._detail.before, self._detail.after) if self._detail else (0, 0)
        todo = tiles(self._product.size, tile, BLOCK, *margin)
        for done, one in enumerate(todo, 1):
            self._add(View(self._product, one))
            on_tile(done, len(todo))

    def _add(self, view: View) -> None:
        if self._consistency:
            self._consistency.add(view.consistency)
        if self._blocks:
            self._blocks.add(view.low, view.high)
        if self._regression:
            self._regression.add(view.high)
        if self._detail:
            self._detail.add(view.high)

    def scores(self) -> dict[str, Score]:
        families = (self._blocks, self._regression, self._detail)
        scores = {name: score for family in families if family for name, score in family.scores().items()}
        if self._consistency:
            q2n = self._consistency.scores()["Q2n"]
            scores["D_lambda_K"] = replace(q2n, value=None if q2n.value is None else 1 - q2n.value)
        return scores

    def maps(self) -> dict[str, Float64]:
        if not self._maps:
            return {}
        maps: dict[str, Float64 | None] = {}
        if self._blocks:
            maps |= {name: blocks.values for name, blocks in self._blocks.maps.items()}
        if self._consistency and self._consistency.map.values is not None:
            maps["D_lambda_K"] = 1 - self._consistency.map.values
        if self._regression:
            maps["D_s_R"] = self._regression.map().values
        if self._detail:
            maps["D_rho"] = self._detail.map.values
        return {name: values for name, values in maps.items() if values is not None}


def best_phases(product: Product) -> list[tuple[int, int]]:
    """(row, col) on which each MS band is best met by decimation: one pass over the MS, the PAN filtered as band 1."""
    kernel = derived.normalised_kernel(product.ratio, product.gains[0])
    phases = derived.Phases(derived.Filtered(product.pan, [kernel]), product.ratio)
    best = BestPhase(product.ms.bands, product.ratio)
    for one in tiles(product.ms.shape, MS_TILE, BLOCK, best.before, best.after):
        best.add(Window.of(one, product.ms.shape, pixels(product.ms, *one.read), phases.read(*one.read)))
    return best.phases()


def _reprojected(
    product: Product, phases: Sequence[tuple[int, int]], needed: Collection[str], strict: bool
) -> dict[str, Score]:
    """The product brought back to the MS and compared with it, in one pass over the MS."""
    kernels = [derived.normalised_kernel(product.ratio, gain) for gain in product.gains]
    back = derived.Decimated(derived.Filtered(product.fused, kernels), product.ratio, phases)
    names = {name: metric for name, metric in REPROJECTION.items() if name in needed}
    report = reduced(product.ms, back, product.ratio, metrics=list(names.values()), strict=strict, tile=MS_TILE)
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
