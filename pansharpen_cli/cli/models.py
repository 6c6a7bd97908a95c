"""`pansharpen models`: what there is to sharpen with."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pansharpen_cli.cli import console, options
from pansharpen_cli.errors import UsageError

if TYPE_CHECKING:
    from pansharpen_cli.zoo import Model

VERIFY = "verify"


class Backend(StrEnum):
    """What is verified against torch on the CPU."""

    onnx = "onnx"
    torch = "torch"


def models(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME | verify [NAME]...]",
            help="Show the card of this network or classical method; after verify: check these networks, or all.",
            show_default=False,
        ),
    ] = None,
    backend: Annotated[Backend, typer.Option(help="verify: what to compare with torch on the CPU.")] = Backend.onnx,
    device: Annotated[str, typer.Option(help="verify: its device, as for run.")] = "cpu",
    scene: options.ParityScene = None,
    tolerance: options.Tolerance = 1.0,
    json_: Annotated[
        bool, typer.Option("--json", help="Print JSON: a list of the networks, or one object for a name.")
    ] = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """List networks and classical methods, show the card of one, or verify that networks are the same in a backend.

    Networks lie in the folders of $PANSHARPEN_MODELS and in the zoo that came with the program.

    pansharpen models mtf-glp-fs

    pansharpen models verify adknet-per-band.x4 --backend onnx --scene pan.tif ms.tif
    """
    console.set_up(quiet, verbose)
    from pansharpen_cli import zoo
    from pansharpen_cli.classical import METHODS

    names = names or []
    if names[:1] == [VERIFY]:
        found = [zoo.find(options.network(name, "verified")) for name in names[1:]] or zoo.models()
        _verify(found, backend, options.device(device), scene, tolerance, json_)
    elif len(names) > 1:
        raise UsageError(f"models shows one card at a time, not {len(names)}; name one, or put verify before them")
    elif names and names[0] in METHODS:
        _show_classical(names[0], json_)
    elif names:
        _show(zoo.find(names[0], besides=METHODS), json_)
    elif json_:
        console.put(json.dumps([_entry(model) for model in zoo.models()]))
    else:
        _list(zoo.models())
        console.put("classical methods, for any bands and ratio:")
        for name, method in METHODS.items():
            console.put(f"{name:{max(map(len, METHODS))}}  {method.title}")


def _verify(
    found: list[Model], backend: Backend, device: str, scene: tuple[str, str] | None, tolerance: float, json_: bool
) -> None:
    from pansharpen_cli import parity

    reports = []
    for model in found:
        reports.append(parity.verify(model, scene, backend=backend.value, device=device))
        if not json_:
            console.put(reports[-1].as_text())
    if json_:
        console.put(json.dumps([report.as_dict() for report in reports]))
    for report in reports:
        report.check(tolerance)


def _show(model: Model, json_: bool) -> None:
    card = model.folder / "README.md"
    if json_ or model.lone or not card.is_file():
        console.put(json.dumps(_entry(model)))
    else:
        console.put(card.read_text(encoding="utf-8", errors="replace"))


def _show_classical(name: str, json_: bool) -> None:
    from pansharpen_cli.classical import METHODS

    title, citation = METHODS[name].title, METHODS[name].citation
    if json_:
        console.put(json.dumps({"name": name, "title": title, "citation": citation}))
    else:
        console.put(f"# {name}\n\n{title}, a classical method for any bands and ratio.\n\n{citation}")


def _list(found: list[Model]) -> None:
    width = max((len(model.name) for model in found), default=0)
    for model in found:
        spec = model.spec
        bands = ", ".join(spec.band_names) or "any bands"
        console.put(f"{model.name:{width}}  ratio {spec.ratio}  {bands}{_score(model)}")


def _score(model: Model) -> str:
    """Its ERGAS, if it was judged, beside that of EXP, if that was: `train --no-baselines` leaves it out."""
    scores = model.spec.scores
    if model.name not in scores:
        return ""
    beside = f" (EXP {scores['exp']['ergas']:.2f})" if "exp" in scores else ""
    return f"  ERGAS {scores[model.name]['ergas']:.2f}{beside}"


def _entry(model: Model) -> dict[str, Any]:
    entry = asdict(model.spec)
    exported = str(model.exported) if model.exported else None
    return {**entry, "bands": model.spec.band_names, "folder": str(model.folder), "exported": exported}
