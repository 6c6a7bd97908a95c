"""What a report says: sentences, and the rows of its tables as text."""

from __future__ import annotations

import json
from dataclasses import dataclass

from pansharpen_cli.imaging.displacement import Displacement
from pansharpen_cli.inputs.coregistration import TRUSTED, from_tags, is_noticeable
from pansharpen_cli.metrics.streaming import Score
from pansharpen_cli.report.gather import Made, Report
from pansharpen_cli.report.indices import INDICES

LEAST_TOLD = 0.01
"""Percent below which a bias is none."""
MINUS, DASH, TIMES = "\u2212", "\u2013", "\u00d7"


def number(value: float | None) -> str:
    """Four digits at most, the sign a minus."""
    if value is None:
        return DASH
    digits = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return digits.replace("-", MINUS)


def percent(value: float | None) -> str:
    """Two decimals; no sign before a value that rounds to 0."""
    return DASH if value is None else f"{round(value, 2) + 0.0:.2f}".replace("-", MINUS)


def counted(count: int, noun: str) -> str:
    """`1 window`, `2 windows`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def summary(report: Report) -> str:
    """The scene in one line."""
    grid, bands = report.grid, counted(len(report.bands), "band")
    return (
        f"{grid.width:,} {TIMES} {grid.height:,} pixels{_size_of_one(report)}, {bands} "
        f"({', '.join(report.bands)}), {report.products[0].dtype}, sharpened by a factor of {report.ratio}"
    )


def _size_of_one(report: Report) -> str:
    return ", placed by RPCs" if report.grid.by_rpc else f" of {number(report.grid.gsd[0])}{report.unit}"


@dataclass(frozen=True)
class Fact:
    title: str
    value: str
    note: str


def facts(report: Report) -> list[Fact]:
    """What to know before looking."""
    if len(report.products) > 1:
        return [
            Fact(f"HQNR of {made.name}", score(made, "HQNR"), f"colours {score(made, 'D_lambda_K')}, "
                 f"detail {score(made, 'D_s')} away from 0")
            for made in report.products
        ]  # fmt: skip
    (made,) = report.products
    titles = {"HQNR": "Quality", "D_lambda_K": "Colours are off by", "D_s": "Detail is off by"}
    found = [
        Fact(f"{title} ({name})", score(made, name), f"ideal {INDICES[name].ideal}, typical {typical(name)}")
        for name, title in titles.items()
    ]
    shift = report.alignment.shift
    middle = " in the middle" if shift.field else ""
    apart = f"{shift.length:.2f} px{middle}" if shift.windows else "unknown"
    done = "corrected" if from_tags(made.tags) else "left as it is" if "SHIFT_APPLIED" in made.tags else "PAN pixels"
    return [*found, Fact("PAN and MS apart", apart, done)]


def score(made: Made, name: str) -> str:
    value = made.judgement.report.scores[name].value
    return DASH if value is None else f"{value:.3f}"


def typical(name: str) -> str:
    return DASH.join(f"{end:.2f}" for end in INDICES[name].typical)


@dataclass(frozen=True)
class BiasRow:
    band: str
    product: int
    first: bool
    values: list[str]


def bias_rows(report: Report) -> list[BiasRow]:
    return [
        BiasRow(
            band, product, product == 0,
            [number(bias.mean), percent(bias.mean_percent), number(bias.far), percent(bias.far_percent)],
        )
        for place, band in enumerate(report.bands)
        for product, made in enumerate(report.products)
        for bias in made.bias[place : place + 1]
    ]  # fmt: skip


def colour_sentence(report: Report) -> str:
    if not report.sampled:
        return "No MS pixel has enough data around it to tell."
    share = 100 * report.sampled / report.ms_pixels
    return (
        f"The mean of a band is off by {_largest(report, 'mean_percent')} at most. One MS pixel in a hundred is off by "
        f"more than {_largest(report, 'far_percent')}. Measured on {report.sampled:,} MS pixels in windows spread over "
        f"the scene ({share:.0f} % of it)."
    )


def _largest(report: Report, field: str) -> str:
    """The largest value of a field of Bias, and where it is."""
    values = [
        (abs(getattr(bias, field) or 0), f"{band}, {made.name}" if len(report.products) > 1 else band)
        for made in report.products
        for band, bias in zip(report.bands, made.bias, strict=True)
    ]
    value, where = max(values)
    return f"{percent(value) if value >= LEAST_TOLD else f'less than {LEAST_TOLD}'} % ({where})"


def alignment_sentence(report: Report) -> str:
    found, shift = report.alignment, report.alignment.shift
    if not found.places:
        return "The scene is too small for windows to compare."
    if not shift.windows:
        return f"No window of {len(found.places)} shows how PAN and MS lie on each other: too little detail or data."
    verdict = "too uncertain to act on" if shift.confidence < TRUSTED else (
        "worth correcting" if is_noticeable(shift) else "too small to matter")  # fmt: skip
    silent = f"; {found.silent} say{'s' if found.silent == 1 else ''} nothing" if found.silent else ""
    agree = f"{shift.windows} of {counted(len(found.places), 'window')} agree{'s' if shift.windows == 1 else ''}"
    return (
        f"{'In the middle the' if shift.field else 'The'} PAN lies {_where(shift.displacement)} PAN pixels from where "
        f"the geotransforms put it, seen from the MS: {verdict}.{_field(shift.displacement)} {agree} "
        f"within {shift.spread:.2f} pixels{silent}; confidence {shift.confidence:.2f} of 1.{_done(report)}"
    )


def _where(shift: Displacement) -> str:
    return f"{_aside(shift.dx, 'right', 'left')} and {_aside(shift.dy, 'down', 'up')}"


def _aside(value: float, positive: str, negative: str) -> str:
    return f"{abs(value):.2f} {positive if value >= 0 else negative}"


def _field(shift: Displacement) -> str:
    if shift.field is None:
        return ""
    return f" That changes over the scene: right and down, it is {shift} pixels.".replace("-", MINUS)


def _done(report: Report) -> str:
    """What was done about it when the products were made."""
    said = {from_tags(made.tags) for made in report.products if "SHIFT_APPLIED" in made.tags}
    if len(said) != 1:
        return ""
    (applied,) = said
    if not applied:
        return " It was left as it is."
    return f" It was corrected{', everywhere by what it is there' if applied.field else f' by {_where(applied)}'}."


def windows(report: Report) -> list[list[str]]:
    return [
        [
            f"{place.row + report.pan_origin[0]:.0f}", f"{place.col + report.pan_origin[1]:.0f}",
            *([DASH, DASH, "0"] if place.shift is None else
              [number(place.shift.dx), number(place.shift.dy), f"{place.shift.strength:.2f}"]),
        ]
        for place in report.alignment.places
    ]  # fmt: skip


@dataclass(frozen=True)
class IndexValue:
    text: str
    best: bool
    reason: str


@dataclass(frozen=True)
class IndexRow:
    name: str
    meaning: str
    values: list[IndexValue]
    ideal: int
    typical: str


def indices(report: Report) -> list[IndexRow]:
    return [
        IndexRow(name, index.meaning, _index_values(report, name), index.ideal, typical(name))
        for name, index in INDICES.items()
    ]


def _index_values(report: Report, name: str) -> list[IndexValue]:
    scores: list[Score] = [made.judgement.report.scores[name] for made in report.products]
    known = [score.value for score in scores if score.value is not None]
    best = (max if INDICES[name].ideal else min)(known, default=None)
    several = len({score.counted for score in scores}) == 1 < len(scores)  # of other ground nothing is better
    return [
        IndexValue(DASH, False, score.reason) if score.value is None
        else IndexValue(f"{score.value:.4f}", several and score.value == best, "")
        for score in scores
    ]  # fmt: skip


def measured_sentence(report: Report) -> str:
    measured = [_measured(made) for made in report.products]
    if len(set(measured)) > 1:
        measured = [f"{made.name}: {text}" for made, text in zip(report.products, measured, strict=True)]
        measured.append("On different ground no product is called the best.")
    sensor, told = report.products[0].judgement.sensor, " ".join(dict.fromkeys(measured))
    return f"{told} MTF of the MS camera: {sensor}. The numbers are those of pansharpen qnr."


def _measured(made: Made) -> str:
    found = made.judgement.report
    blocks = next(iter(found.scores.values()))
    given, size = (f"{cols:,} {TIMES} {rows:,}" for rows, cols in (found.given, found.size))
    return (
        f"Of {given} pixels {size} were measured, in {counted(blocks.counted, 'block')}; {blocks.invalid:,} of the "
        f"scene {'was' if blocks.invalid == 1 else 'were'} left out: no data, or not in the product."
    )


@dataclass(frozen=True)
class ProvenanceRow:
    title: str
    values: list[str]


LABELS = {
    "MODEL": "Method",
    "MODEL_SHA256": "Model SHA-256",
    "BACKEND": "Backend",
    "DEVICE": "Device",
    "PRECISION": "Precision",
    "RATIO": "Ratio",
    "PHASE": "Phase",
    "SENSOR": "MS camera",
    "BANDS": "Bands chosen",
    "FOLDER": "Made in",
    "PAN": "PAN",
    "PAN_SHA256": "PAN SHA-256",
    "MS": "MS",
    "MS_SHA256": "MS SHA-256",
    "COREGISTER": "Co-registration",
    "SHIFT": "Shift measured",
    "SHIFT_CONFIDENCE": "Its confidence",
    "SHIFT_SPREAD": "Its spread",
    "SHIFT_WINDOWS": "Its windows",
    "SHIFT_APPLIED": "Shift applied",
    "SHIFT_FIELD": "Its field",
    "MS_INTERPOLATED": "MS interpolated",
    "VERSION": "pansharpen",
    "JOB_SHA256": "Job SHA-256",
}
"""Tags by what they are called on the page; others keep their names."""


def provenance(report: Report) -> list[ProvenanceRow]:
    made = report.products
    tags = [*LABELS, *sorted({tag for one in made for tag in one.tags} - set(LABELS))]
    return [
        ProvenanceRow("File", [str(one.path) for one in made]),
        ProvenanceRow("Size", [f"{one.grid.width:,} {TIMES} {one.grid.height:,}, {one.dtype}" for one in made]),
        ProvenanceRow("Judged by PAN", [one.judgement.pan for one in made]),
        ProvenanceRow("Judged by MS", [", ".join(one.judgement.ms) for one in made]),
        *(
            ProvenanceRow(LABELS.get(tag, tag), [_plain(one.tags.get(tag, "")) for one in made])
            for tag in tags
            if any(_plain(one.tags.get(tag, "")) for one in made)
        ),
    ]


def _plain(tag: str) -> str:
    """A tag that holds a JSON list as its entries, one that holds nothing as ""."""
    if tag == "null":
        return ""
    try:
        entries = json.loads(tag) if tag.startswith("[") else [tag]
    except ValueError:
        return tag
    return ", ".join(map(str, entries))
