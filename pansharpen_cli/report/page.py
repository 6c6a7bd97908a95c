"""A report as a page: what gather.py found, in words, numbers and pictures; template.html says what stands where.

The page holds all it needs. Its policy lets nothing load from elsewhere and runs no script but its own; whatever comes
from files (names, bands, tags) is escaped.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from dataclasses import asdict
from hashlib import sha256
from importlib.resources import files
from math import isfinite
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from pansharpen_cli import __version__
from pansharpen_cli.errors import OutputError
from pansharpen_cli.outputs.target import check_target, partial_beside, publish
from pansharpen_cli.report import drawing, figures, pictures, words
from pansharpen_cli.report.drawing import PLOT_HEIGHT, Box
from pansharpen_cli.report.gather import Float64, Made, Report
from pansharpen_cli.report.indices import TYPICAL_OF
from pansharpen_cli.report.measure import BINS
from pansharpen_cli.report.pictures import GAMMA, SCALE, STRETCH

DRAWN = 2000
"""CSS pixels of the longer side of a drawing of the scene, at most."""


def write(report: Report, target: Path, overwrite: bool = False) -> int:
    """Write the page to `target`, whole or not at all; returns its size in bytes. Raises OutputError."""
    text = page(report).encode()
    partial = partial_beside(target)
    try:
        partial.write_bytes(text)
        check_target(target, overwrite)  # again: the work took its time
        publish(partial, target)
    except OSError as error:
        raise OutputError(f"{target} cannot be written: {error}") from error
    finally:
        partial.unlink(missing_ok=True)
    return len(text)


def page(report: Report) -> str:
    """The HTML of a report."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": words.number, "breakable": _breakable}
    style, script = (_own(name) for name in ("style.css", "viewer.js"))
    names = [made.name for made in report.products]
    shown = pictures.colours(report.bands)
    return environment.from_string(_own("template.html")).render(
        version=__version__, style=Markup(style), script=Markup(script), policy=_policy(style, script),
        data=Markup(_harmless(json.dumps(data(report), allow_nan=False))),
        names=names, summary=words.summary(report), facts=words.facts(report),
        width=report.grid.width, height=report.grid.height, size=_size(report), letter=report.grid.width / 30,
        overview=pictures.overview(report.overview),
        figures=[figures.crop_figure(report, view, shown) for view in report.views],
        colours=shown, stretch=STRETCH, gamma=GAMMA,
        left="ms" if len(names) == 1 else "p0", right="p0" if len(names) == 1 else "p1",
        maps=figures.quality_maps(report), cell=report.cell, scale=SCALE,
        bias=words.bias_rows(report), colour_sentence=words.colour_sentence(report),
        plots=drawing.plots(report), bins=BINS, plot_height=PLOT_HEIGHT,
        field=drawing.field(report), alignment_sentence=words.alignment_sentence(report),
        windows=words.windows(report), indices=words.indices(report), typical_of=TYPICAL_OF,
        measured_sentence=words.measured_sentence(report), provenance=words.provenance(report),
    )  # fmt: skip


def data(report: Report) -> dict[str, Any]:
    """Every number of a report, for programs. Values that do not exist are None."""
    shift = report.alignment.shift
    return {
        "version": __version__,
        "ratio": report.ratio,
        "bands": report.bands,
        "cell": report.cell,
        "products": [_product_data(report, index, made) for index, made in enumerate(report.products)],
        "crops": [
            {"kind": view.crop.kind, **asdict(Box.of(view.crop, report.origin))} for view in report.views
        ],
        "histograms": [
            {"band": band, "low": found.low, "high": found.high, "ms": found.ms}
            for band, found in zip(report.bands, report.histograms, strict=True)
        ],
        "sampled": {"ms_pixels": report.sampled, "of": report.ms_pixels},
        "shift": asdict(shift),
        "windows": [
            {
                "row": place.row + report.pan_origin[0],
                "col": place.col + report.pan_origin[1],
                **({} if place.shift is None else {**asdict(place.shift), "strength": place.shift.strength}),
            }
            for place in report.alignment.places
        ],
    }  # fmt: skip


def _product_data(report: Report, index: int, made: Made) -> dict[str, Any]:
    found = made.judgement
    return {
        "name": made.name,
        "path": str(made.path),
        "scores": {name: asdict(score) for name, score in found.report.scores.items()},
        "pan": found.pan,
        "ms": list(found.ms),
        "sensor": found.sensor,
        "bias": {band: asdict(bias) for band, bias in zip(report.bands, made.bias, strict=False)},
        "histograms": [shares.products[index] for shares in report.histograms],
        "maps": {
            name: {**asdict(figures.map_box(report, values)), "values": _as_lists(values)}
            for name, values in made.maps.items()
        },
        "tags": made.tags,
    }


def _as_lists(values: Float64) -> list[list[float | None]]:
    return [[round(float(v), 4) if isfinite(v) else None for v in row] for row in values]


def _own(name: str) -> str:
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Content-Security-Policy: nothing but this very style, this very script and pictures inside the page."""
    own = (f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'" for text in (style, script))
    policy = "default-src 'none'; img-src data:; style-src {}; script-src {}; base-uri 'none'; form-action 'none'"
    return policy.format(*own)


def _harmless(text: str) -> str:
    """JSON that cannot end the element it stands in."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _breakable(name: str) -> Markup:
    """A name that may go on in the next line after a joint."""
    return Markup(re.sub(r"([_.\-/])", r"\1<wbr>", str(escape(name))))


def _size(report: Report) -> Markup:
    """How a drawing counts, pixels of the product, and how large it would be where there is room enough."""
    width, height = report.grid.width, report.grid.height
    scale = DRAWN / max(width, height)
    return Markup('viewBox="0 0 {} {}" width="{:.0f}" height="{:.0f}"').format(
        width, height, width * scale, height * scale
    )
