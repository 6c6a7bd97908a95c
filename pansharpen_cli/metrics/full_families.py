"""The metrics without a truth, each with what it sums up over tiles and what becomes of the sums."""

from __future__ import annotations

from dataclasses import replace
from math import nan
from typing import Protocol

import numpy as np
import numpy.typing as npt

from pansharpen_cli.imaging.tiling import Tile
from pansharpen_cli.metrics import formulas
from pansharpen_cli.metrics.formulas import Moments
from pansharpen_cli.metrics.image import Float64, Mask
from pansharpen_cli.metrics.product import View
from pansharpen_cli.metrics.reduced_resolution import Hypercomplex
from pansharpen_cli.metrics.streaming import BLOCK, BlockMap, Margins, Scatter, Score, Sums, Window

FLAT = 1e-8
"""A block whose deviation is this part of its mean is flat: the weights of EXP add up to 1 within 1e-9 only."""
REPROJECTION_HALF_WIDTH = 2


class FullFamily(Margins, Protocol):
    """Metrics at PAN scale that share sums, and their maps."""

    def measure(self, view: View) -> Sums: ...

    def scores(self, sums: Sums) -> dict[str, Score]: ...

    def maps(self, sums: Sums) -> dict[str, Float64]: ...


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
