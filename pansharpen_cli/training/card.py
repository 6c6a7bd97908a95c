"""The model card: README.md of a model folder, written from its description so that the two cannot disagree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pansharpen_cli.imaging.interpolation import area_phase
from pansharpen_cli.modelspec import ModelSpec


def card(spec: ModelSpec, parameters: int) -> str:
    """Markdown: what the model is for, what it was trained on, and its scores beside the classical methods."""
    how = spec.training
    bands = f"{len(spec.bands)} bands ({', '.join(spec.band_names)})" if spec.bands else "any bands"
    lines = [
        f"# {spec.name}",
        "",
        f"{spec.network}, {parameters:,} parameters: {bands}, ratio {spec.ratio}.",
        "",
        f"- **Licence**: {spec.licence or 'not stated'}",
        f"- **Data**: {how['data'] or 'not stated'}",
        f"- **Protocol**: Wald's; sensor MTF `{how['sensor']}`, {_geometry(spec)}",
        f"- **Recipe**: `{how['recipe']}`, {how['steps']:,} steps of {how['batch']} patches "
        f"({_kept(how)}{how['patches']:,} overlapping patches of {spec.crop} pixels of the truth), seed {how['seed']}, "
        f"{how['minutes']:.0f} minutes{_on(how)}",
        *([f"- **Begun with the weights of** `{how['init']}`"] if how.get("init") else []),
        f"- **Training scenes**: {', '.join(how['scenes'])}",
        *(f"- **Left out**: {name}, {reason}" for name, reason in how.get("left_out", {}).items()),
        f"- **Validation scenes**: {', '.join(how['validation'])} (never trained on; of the checkpoints the best by "
        "their ERGAS was kept)",
        "",
        *_table(spec.scores),
        "",
        "Means over the validation scenes, whole, at reduced resolution. Lower ERGAS and SAM, higher Q2n are better.",
        "",
    ]
    for where, scores in how.get("elsewhere", {}).items():
        lines += [f"{where}:", "", *_table(scores), ""]
    if "weaknesses" in how:
        lines += ["## Known weaknesses", "", how["weaknesses"], ""]
    return "\n".join(lines)


def _kept(how: Mapping[str, Any]) -> str:
    """Which weights these are, if not the last."""
    return f"the weights are those of step {how['step']:,}; " if how.get("step", how["steps"]) != how["steps"] else ""


def _on(how: Mapping[str, Any]) -> str:
    return f" on {how['device']}" if "device" in how else ""


def _geometry(spec: ModelSpec) -> str:
    """How scenes were put before the network."""
    if spec.radiometry.kind == "scene":
        units = "every band and the PAN standardised by their own mean and deviation over the scene"
    else:
        units = f"DN divided by {spec.radiometry.scale:g}"
    places = "on pixel areas" if spec.phase == area_phase(spec.ratio) else "where the field's toolbox does it"
    return f"decimated {places}; {units}"


def _table(scores: Mapping[str, Mapping[str, float]]) -> list[str]:
    """A line for each method, the best in bold."""
    best = min(values["ergas"] for values in scores.values())
    with_q2n = all("q2n" in values for values in scores.values())
    lines = ["| method | ERGAS | SAM (degrees) |" + " Q2n |" * with_q2n, "|---|---|---|" + "---|" * with_q2n]
    for name, values in scores.items():
        shown = f"**{name}**" if values["ergas"] == best else name
        q2n = f" {values['q2n']:.4f} |" if with_q2n else ""
        lines.append(f"| {shown} | {values['ergas']:.3f} | {values['sam']:.3f} |{q2n}")
    return lines
