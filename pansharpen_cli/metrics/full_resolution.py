"""Quality without a truth: a product against the PAN and MS it was made from, as the field's toolbox computes it.

All is done at PAN scale, in blocks of 32 x 32 pixels, in one pass over the scene; only the reprojection indices (R_...)
take two more over the MS pixels. D_lambda, D_s and D_rho fall with quality, the others rise to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pansharpen_cli.errors import UsageError
from pansharpen_cli.imaging.tiling import Tile
from pansharpen_cli.metrics import derived
from pansharpen_cli.metrics.full_families import BestPhase, Blocks, Consistency, Detail, FullFamily, Regression
from pansharpen_cli.metrics.image import Float64, Image, pixels
from pansharpen_cli.metrics.product import Product, View
from pansharpen_cli.metrics.reduced_resolution import reduced
from pansharpen_cli.metrics.streaming import (
    BLOCK,
    OnTile,
    Score,
    Sums,
    Window,
    gather,
    margins,
    tiles,
)
from pansharpen_cli.system import settings

TILE = (512, 1024)
"""PAN pixels (rows, cols) of a tile's core, multiples of BLOCK. Margins of 41 pixels are read around it: smaller tiles
cost more for these, larger ones more memory, and leave the processor's cache."""
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
