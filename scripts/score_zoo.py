"""Judges the models of the zoo beside every classical method, and writes what comes out into their cards.

    python scripts/score_zoo.py DATA [--only MODEL ...]

DATA holds l7/, l8_plain_b/ and rr_qb/, which docs/scores.md describes; it also has the same commands one by one. With
--only these models alone are judged, and what the cards say of all others is kept.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pansharpen_cli import zoo
from pansharpen_cli.evaluation import tables
from pansharpen_cli.evaluation.assessment import Measures, compare
from pansharpen_cli.evaluation.sources import Files, Terms
from pansharpen_cli.training.card import card

MEASURES = Measures(("ERGAS", "SAM", "Q2n"))
LANDSAT7 = tuple(f"l7/{number}" for number in ("06", "12", "24", "27", "35", "38"))
QUICKBIRD = tuple(f"rr_qb/{number:02}" for number in range(10))


@dataclass(frozen=True)
class Panel:
    """Scenes that methods are compared on; with `truth` in a file of its own the MS is made from it."""

    title: str
    scenes: tuple[str, ...]
    bands: tuple[str, ...]
    ratio: int
    sensor: str = "generic"
    truth: str = ""

    def sources(self, data: Path) -> list[Files]:
        terms = Terms(ratio=self.ratio, bands=self.bands or None, sensor=self.sensor)
        folders = [data / scene for scene in self.scenes]
        if self.truth:
            return [
                Files(folder.name, str(folder / "pan.tif"), (), str(folder / self.truth), terms) for folder in folders
            ]
        return [
            Files(folder.name, str(folder / "pan.tif"), (str(folder / "ms.tif"),), None, terms) for folder in folders
        ]


RGB = ("red", "green", "blue")
BGRN = ("blue", "green", "red", "nir")
SIX = ("blue", "green", "red", "nir", "swir1", "swir2")
COAST = "Landsat 8 over a Chinese coast, never trained on"
PANELS = (
    Panel("Landsat 7, the validation scenes, six bands", LANDSAT7, SIX, 2),
    Panel(f"{COAST}, six bands", ("l8_plain_b",), SIX, 2),
    Panel(
        "Landsat 7, the validation scenes, red, green and blue, which miss the near infrared of the PAN",
        LANDSAT7, RGB, 2,
    ),
    Panel(f"{COAST}, red, green and blue", ("l8_plain_b",), RGB, 2),
    Panel("Landsat 7, the validation scenes, at ratio 4", LANDSAT7, BGRN, 4),
    Panel(f"{COAST}, at ratio 4", ("l8_plain_b",), BGRN, 4),
    Panel(
        "QuickBird, never trained on: ten chips of 256 x 256 at 2.4 m of the NBU benchmark, MS degraded again with the "
        "QuickBird MTF; two of them are misregistered or water", QUICKBIRD, (), 4, "QB", "gt.tif",
    ),
)  # fmt: skip
"""The first one that a model takes part in holds the scenes that chose among its checkpoints."""

Table = dict[str, dict[str, float]]


def fits(model: zoo.Model, panel: Panel) -> bool:
    """Whether the model is one for the panel's bands."""
    bands = panel.bands or BGRN
    return model.spec.ratio == panel.ratio and tuple(model.spec.band_names) in {(), bands}


def judge(panel: Panel, data: Path, methods: Sequence[str]) -> Table:
    """The mean scores of `methods`."""
    comparison = tables.as_dict(compare(panel.sources(data), methods, MEASURES))
    return {
        name: {metric.lower(): values[metric]["mean"] for metric in MEASURES.metrics}
        for name, values in comparison["methods"].items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", default=[], metavar="MODEL")
    arguments = parser.parse_args()
    known: dict[str, Table] = {}
    for panel in PANELS:
        methods = [name for name in arguments.only if fits(zoo.find(name), panel)] if arguments.only else ["all"]
        table = on_cards(panel.title) if arguments.only else {}
        if methods:
            table |= judge(panel, arguments.data, methods)
        known[panel.title] = table
        print(panel.title, min((scores["ergas"], name) for name, scores in table.items()), flush=True)
    for model in zoo.models():
        write(model, known)


def on_cards(title: str) -> Table:
    """The table of a panel, as the models have it that took part in it."""
    found: Table = {}
    for model in zoo.models():
        panels = [panel for panel in PANELS if fits(model, panel)]
        if panels and panels[0].title == title:
            found |= model.spec.scores
        found |= model.spec.elsewhere.get(title, {})
    return found


def write(model: zoo.Model, known: dict[str, Table]) -> None:
    """The model's card and description with the tables of the panels that it took part in."""
    mine = {title: table for title, table in known.items() if model.name in table}
    first, *others = mine
    training = {**model.spec.training, "elsewhere": {title: mine[title] for title in others}}
    spec = replace(model.spec, training=training, scores=mine[first])
    network = model.load(len(spec.bands) or 4)
    (model.folder / zoo.SPEC).write_text(spec.to_json(), encoding="utf-8")
    parameters = sum(p.numel() for p in network.parameters())
    (model.folder / "README.md").write_text(card(spec, parameters), encoding="utf-8")


if __name__ == "__main__":
    main()
