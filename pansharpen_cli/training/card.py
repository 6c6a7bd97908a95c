"""The model card: README.md of a model folder, written from its description so that the two cannot disagree."""

from __future__ import annotations

from collections.abc import Mapping

from pansharpen_cli.modelspec import ModelSpec


def card(spec: ModelSpec, parameters: int) -> str:
    """Markdown: what the model is for, what it was trained on, and its scores beside the classical methods."""
    how = spec.training
    lines = [
        f"# {spec.name}",
        "",
        f"{spec.network}, {parameters:,} parameters: {len(spec.bands)} bands ({', '.join(spec.band_names)}), "
        f"ratio {spec.ratio}.",
        "",
        f"- **Licence**: {spec.licence or 'not stated'}",
        f"- **Data**: {how['data'] or 'not stated'}",
        f"- **Protocol**: Wald's; sensor MTF `{how['sensor']}`, decimated on pixel areas; every band and the PAN "
        "standardised by their own mean and deviation over the scene",
        f"- **Recipe**: `{how['recipe']}`, {how['steps']:,} steps of {how['batch']} patches "
        f"({how['patches']:,} overlapping patches of {spec.crop} PAN pixels), seed {how['seed']}, "
        f"{how['minutes']:.0f} minutes",
        f"- **Training scenes**: {', '.join(how['scenes'])}",
        f"- **Validation scenes**: {', '.join(how['validation'])} (never trained on; the best of several checkpoints "
        "was chosen by their ERGAS)",
        "",
        "| method | ERGAS | SAM (degrees) |",
        "|---|---|---|",
    ]
    lines += _rows(spec.scores)
    lines += ["", "Means over the validation scenes, whole, at reduced resolution. Lower is better.", ""]
    for where, scores in how.get("elsewhere", {}).items():
        lines += [f"{where}:", "", "| method | ERGAS | SAM (degrees) |", "|---|---|---|", *_rows(scores), ""]
    if "weaknesses" in how:
        lines += ["## Known weaknesses", "", how["weaknesses"], ""]
    return "\n".join(lines)


def _rows(scores: Mapping[str, Mapping[str, float]]) -> list[str]:
    """A line of the table for each method, the best in bold."""
    best = min(values["ergas"] for values in scores.values())
    marked = ((f"**{name}**" if values["ergas"] == best else name, values) for name, values in scores.items())
    return [f"| {name} | {values['ergas']:.3f} | {values['sam']:.3f} |" for name, values in marked]
