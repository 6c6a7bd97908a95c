"""`pansharpen models`: what there is to sharpen with."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pansharpen_cli.cli import options

if TYPE_CHECKING:
    from pansharpen_cli.zoo import Model


def models(
    name: Annotated[str | None, typer.Argument(help="Show this model's card.", show_default=False)] = None,
    json_: options.Json = False,
) -> None:
    """List the models that are found, or show the card of one.

    Models lie in the folders of $PANSHARPEN_MODELS and in the zoo that came with the program.
    """
    from pansharpen_cli import zoo

    if name is not None:
        model = zoo.find(name)
        typer.echo(json.dumps(_entry(model)) if json_ else (model.folder / "README.md").read_text(encoding="utf-8"))
        return
    found = zoo.models()
    if json_:
        typer.echo(json.dumps([_entry(model) for model in found]))
        return
    width = max((len(model.name) for model in found), default=0)
    for model in found:
        spec = model.spec
        ergas = spec.scores.get(model.name, {}).get("ergas")
        score = "" if ergas is None else f"  ERGAS {ergas:.2f} (EXP {spec.scores['exp']['ergas']:.2f})"
        typer.echo(f"{model.name:{width}}  ratio {spec.ratio}  {', '.join(spec.band_names) or 'any bands'}{score}")


def _entry(model: Model) -> dict[str, Any]:
    entry = asdict(model.spec)
    return {**entry, "bands": model.spec.band_names, "folder": str(model.folder)}
