"""CLAHE: contrast-limited adaptive histogram equalisation, exactly as in kornia 0.7.1, what PreMix-H was trained with.

Later versions of kornia differ in most steps. Besides kornia's grid of 8 x 8 cells, which grow with the image, there
are cells of a fixed size from the scene's origin on: then the result is local.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

BINS = 256
CLIP_LIMIT = 40.0
"""Most pixels of one level in a cell, in multiples of the mean."""


@dataclass(frozen=True)
class Cells:
    """One axis of an image of `extent` pixels cut into `count` cells of `size` pixels (even), reflected at the end."""

    extent: int
    size: int
    count: int

    @classmethod
    def grid(cls, extent: int, count: int = 8) -> Cells:
        """kornia's: `count` cells whatever the image, of even size."""
        return cls(extent, 2 * _ceil(extent, 2 * count), count)

    @classmethod
    def fixed(cls, extent: int, size: int) -> Cells:
        """As many cells of `size` pixels as it takes."""
        return cls(extent, size, _ceil(extent, size))

    def pixels(self, device: torch.device) -> Tensor:
        """(count * size,): the pixel to take at every place; past the end the image is reflected, often if it must."""
        place = torch.arange(self.count * self.size, device=device)
        period = torch.full((), max(2 * (self.extent - 1), 1), device=device)  # ONNX takes no number here
        return torch.minimum(place % period, -place % period)

    def pairs(self, device: torch.device) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """For every pixel two cells, each with its weight (extent,): linear from 1 to 0 in `size` pixels."""
        place = torch.arange(self.extent, device=device) - self.size // 2
        cell = torch.div(place, self.size, rounding_mode="floor")
        second = (place - cell * self.size).float() / (self.size - 1)
        last = self.count - 1
        return (cell.clamp(0, last), 1 - second), ((cell + 1).clamp(0, last), second)

    @property
    def reach(self) -> int:
        """Pixels around a pixel that can change it: half a cell off, the neighbour's end; weight 0 leaves out 2."""
        return 3 * self.size // 2 - 2


def _ceil(extent: int, size: int) -> int:
    """extent / size rounded up: not by -(-a // b), which ONNX rounds towards zero."""
    return (extent + size - 1) // size


def clahe(image: Tensor, rows: Cells, cols: Cells) -> Tensor:
    """Equalise every channel of `image` (N, C, H, W), in [0, 1], in its cells. Returns the same shape, in [0, 1].

    Pixels meet up to four look-up tables, mixed bilinearly. No gradient passes: the result is piecewise constant.
    """
    tables = _tables(image, rows, cols)
    levels = (image * (BINS - 1)).long()  # 255 here but 256 in the histogram, as kornia
    equalised = torch.zeros_like(image)
    for row, row_weight in rows.pairs(image.device):
        for col, col_weight in cols.pairs(image.device):
            table = (row[:, None] * cols.count + col) * BINS
            values = tables.gather(2, (levels + table).flatten(2)).view_as(image)
            equalised.addcmul_(values, row_weight[:, None] * col_weight)
    return equalised / (BINS - 1)


def _tables(image: Tensor, rows: Cells, cols: Cells) -> Tensor:
    """The cells' look-up tables, one after the other: (N, C, cells * BINS), whole numbers 0 ... 255."""
    bins = (image * BINS).long().clamp_(max=BINS - 1)
    bins = bins[..., rows.pixels(image.device)[:, None], cols.pixels(image.device)]
    bins = bins.view(*image.shape[:2], rows.count, rows.size, cols.count, cols.size).transpose(3, 4)
    bins = bins.flatten(4).flatten(2, 3)  # (N, C, cells, pixels of a cell)
    ones = torch.ones((), device=image.device).expand_as(bins)
    counts = torch.zeros(*bins.shape[:3], BINS, device=image.device).scatter_add_(3, bins, ones)
    pixels = rows.size * cols.size
    cumulated = _limit(counts, pixels).cumsum(3)
    return (cumulated * ((BINS - 1) / pixels)).clamp_(0, BINS - 1).floor_().flatten(2)


def _limit(counts: Tensor, pixels: int) -> Tensor:
    """Histograms (..., BINS) of `pixels` each, cut off at the clip limit; what was cut is given to all bins alike."""
    limited = counts.clamp(max=max(int(CLIP_LIMIT * pixels / BINS), 1))
    excess = pixels - limited.sum(-1, keepdim=True)
    residual = excess % BINS
    return limited + (excess - residual) / BINS + (torch.arange(BINS, device=counts.device) < residual)
