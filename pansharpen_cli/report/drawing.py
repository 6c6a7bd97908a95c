"""Lines and boxes of the page's drawings, as SVG wants them. Positions are (x, y) in pixels of the first product."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import hypot

import numpy as np

from pansharpen_cli.report.crops import Crop
from pansharpen_cli.report.gather import Report
from pansharpen_cli.report.measure import Histograms

PLOT_HEIGHT = 40
"""Height of a histogram; each bin is 1 wide."""
LONGEST = 0.45
"""The longest arrow, in distances between windows, or twice that between a window and the border."""
LEAST_SHOWN = 0.2
"""PAN pixels that the longest arrow stands for, at least: where nothing is off, arrows are short."""
KEYS = 10, 5, 2, 1, 0.5, 0.2, 0.1
"""PAN pixels that the bar beside the arrows may stand for."""


@dataclass(frozen=True)
class Box:
    x: float
    y: float
    width: float
    height: float

    @classmethod
    def of(cls, crop: Crop, origin: tuple[int, int]) -> Box:
        """`origin` (row, col): where canvas pixel (0, 0) lies."""
        return cls(
            origin[1] + crop.cols.start, origin[0] + crop.rows.start,
            crop.cols.stop - crop.cols.start, crop.rows.stop - crop.rows.start,
        )  # fmt: skip


@dataclass(frozen=True)
class Arrow:
    """A window's shift: `line` and `head` are paths, "" if it shows none; `radius` tells how far to trust it."""

    x: float
    y: float
    radius: float
    line: str
    head: str
    agrees: bool


@dataclass(frozen=True)
class Field:
    """All arrows, and a bar of `length` that tells how long `key` PAN pixels are drawn."""

    arrows: list[Arrow]
    key: float
    length: float


def field(report: Report) -> Field:
    """The arrows of all windows, long enough to see."""
    found = report.alignment
    rows, cols = sorted({p.row for p in found.places}), sorted({p.col for p in found.places})
    borders = (
        2 * min(place, size - place)
        for places, size, first in ((rows, report.grid.height, 0), (cols, report.grid.width, 1))
        for place in (p + report.pan_origin[first] for p in (places[0], places[-1]))
    )
    apart = float(min([*np.diff(rows), *np.diff(cols), *borders]))
    lengths = [hypot(p.shift.dx, p.shift.dy) for p in found.places if p.shift and p.agrees(found.shift)]
    pixel = LONGEST * apart / max([*lengths, LEAST_SHOWN])
    arrows = []
    for place in found.places:
        x, y = place.col + report.pan_origin[1], place.row + report.pan_origin[0]
        strength = place.shift.strength if place.shift else 0.0
        line, head = ("", "")
        if place.shift and strength:
            line, head = _arrow(x, y, pixel * place.shift.dx, pixel * place.shift.dy, 0.09 * apart)
        arrows.append(Arrow(x, y, apart * (0.012 + 0.02 * strength), line, head, place.agrees(found.shift)))
    key = next((key for key in KEYS if key * pixel <= apart), KEYS[-1])
    return Field(arrows, key, key * pixel)


def _arrow(x: float, y: float, dx: float, dy: float, head: float) -> tuple[str, str]:
    """A line from (x, y), and its head: two strokes of at most `head`, half the arrow at most."""
    length = hypot(dx, dy)
    if not length:
        return "", ""
    size = min(head, length / 2) / length
    tip = x + dx, y + dy
    left = tip[0] - size * (dx - 0.6 * dy), tip[1] - size * (dy + 0.6 * dx)
    right = tip[0] - size * (dx + 0.6 * dy), tip[1] - size * (dy - 0.6 * dx)
    return _path([(x, y), tip]), _path([left, tip, right])


def _path(points: Iterable[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f},{y:.1f}" for x, y in points)


@dataclass(frozen=True)
class Plot:
    """Histograms of a band: the MS as an area, every product as a line."""

    band: str
    low: float
    high: float
    ms: str
    products: list[str]


def plots(report: Report) -> list[Plot]:
    return [_plot(band, shares) for band, shares in zip(report.bands, report.histograms, strict=True)]


def _plot(band: str, shares: Histograms) -> Plot:
    top = max(max(values) for values in (shares.ms, *shares.products)) or 1
    area = f"M0,{PLOT_HEIGHT}{_steps(shares.ms, top)}V{PLOT_HEIGHT}Z"
    return Plot(band, shares.low, shares.high, area, [f"M0,{PLOT_HEIGHT}{_steps(p, top)}" for p in shares.products])


def _steps(shares: Sequence[float], top: float) -> str:
    heights = PLOT_HEIGHT * (1 - np.asarray(shares) / top)
    return "".join(f"V{height:.2f}H{place}" for place, height in enumerate(heights, 1))
