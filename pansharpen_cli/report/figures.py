"""The pictures of a report and what stands beside them: crops and quality maps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pansharpen_cli.report import pictures
from pansharpen_cli.report.crops import TITLES
from pansharpen_cli.report.drawing import Box
from pansharpen_cli.report.gather import MAPS, Made, Report, View
from pansharpen_cli.report.indices import INDICES
from pansharpen_cli.report.pictures import Colours
from pansharpen_cli.report.words import MINUS

Float64 = npt.NDArray[np.float64]

MAP_ENDS = 2, 98
"""Percentiles of all products' blocks at which the colours of a quality map end."""


@dataclass(frozen=True)
class Photo:
    """One picture of a panel. `colours`: a key of `pictures.Colours`, "" if it is the same in all."""

    colours: str
    alt: str
    source: str


@dataclass(frozen=True)
class Panel:
    layer: str
    label: str
    photos: list[Photo]


@dataclass(frozen=True)
class Figure:
    title: str
    why: str
    place: str
    box: Box
    panels: list[Panel]


def crop_figure(report: Report, view: View, shown: Sequence[Colours]) -> Figure:
    title, why = TITLES[view.crop.kind]
    box = Box.of(view.crop, report.origin)
    place = f"Rows {box.y:,} to {box.y + box.height:,}, columns {box.x:,} to {box.x + box.width:,}"
    if not report.grid.by_rpc:
        x, y = report.grid.transform @ (box.x + box.width / 2, box.y + box.height / 2)
        place += f"; middle at x {x:,.1f}, y {y:,.1f}".replace("-", MINUS)
    return Figure(title, why, place, box, _panels(report, view, shown, title))


def _panels(report: Report, view: View, shown: Sequence[Colours], title: str) -> list[Panel]:
    pan = view.pan[None]
    grey = pictures.limits(pan, view.pan_valid, np.zeros((1, 2)))
    panels = [
        Panel("pan", "PAN", [
            Photo("", f"{title}: PAN", pictures.photograph(pictures.shown(pan, grey), view.pan_valid))
        ])
    ]  # fmt: skip
    limits = pictures.limits(view.ms, view.ms_valid, report.span)
    layers = [("ms", "MS", view.ms, view.ms_valid, pictures.pixels)]
    for index, (made, hrms, valid) in enumerate(zip(report.products, view.hrms, view.valid, strict=True)):
        layers.append((f"p{index}", _label(report, made), hrms, valid, pictures.photograph))
    for layer, label, image, valid, as_file in layers:
        photos = [
            Photo(
                colour.key, f"{title}: {label}, {colour.title.lower()}",
                as_file(pictures.shown(image[list(colour.bands)], limits[list(colour.bands)]), valid),
            )
            for colour in shown
        ]  # fmt: skip
        panels.append(Panel(layer, label, photos))
    return panels


def _label(report: Report, made: Made) -> str:
    return "HRMS" if len(report.products) == 1 else made.name


@dataclass(frozen=True)
class QualityMap:
    """`bad` and `good`: what the ends of the colour scale stand for; `spoken`: for who cannot see it."""

    index: str
    source: str
    box: Box
    bad: str
    good: str
    spoken: str


@dataclass(frozen=True)
class ProductMaps:
    index: int
    name: str
    maps: list[QualityMap]


def quality_maps(report: Report) -> list[ProductMaps]:
    ends = {name: _ends(report, name) for name in MAPS}
    return [
        ProductMaps(index, made.name, [_map(report, made, name, *ends[name]) for name in MAPS])
        for index, made in enumerate(report.products)
    ]


def _ends(report: Report, name: str) -> tuple[float, float]:
    """Bad and good end of the colours, the same for all products."""
    values = np.concatenate([made.maps[name].ravel() for made in report.products])
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, MAP_ENDS) if values.size else (0.0, 1.0)
    bad, good = (low, 1.0) if INDICES[name].ideal else (high, 0.0)
    return (float(bad), good) if bad != good else (1 - good, good)


def _map(report: Report, made: Made, name: str, bad: float, good: float) -> QualityMap:
    values = made.maps[name]
    finite = values[np.isfinite(values)]
    spoken = "no block with data"
    if finite.size:
        spoken = "median {:.3f}, from {:.3f} to {:.3f}".format(*np.percentile(finite, (50, 0, 100)))
    ends = (f"{bad:.3f} or {'less' if bad < good else 'more'}", f"{good:g}")
    return QualityMap(name, pictures.chart(values, bad, good), map_box(report, values), *ends, spoken)


def map_box(report: Report, values: Float64) -> Box:
    rows, cols = values.shape
    return Box(report.origin[1], report.origin[0], cols * report.cell, rows * report.cell)
