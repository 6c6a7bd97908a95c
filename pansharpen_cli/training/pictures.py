"""The course of a training run as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pansharpen_cli.training.logs import read


def draw_curves(log: Path, target: Path, baselines: Mapping[str, float]) -> None:
    """Loss and validation ERGAS by step from a CSV `log`, with the ERGAS of two other methods at most, as PNG."""
    from matplotlib.figure import Figure

    rows = read(log)
    judged = [row for row in rows if row["ergas"]]
    figure = Figure(figsize=(8, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot([int(row["step"]) for row in rows], [float(row["loss"]) for row in rows], linewidth=0.7)
    above.set(yscale="log", ylabel="loss")
    below.plot([int(row["step"]) for row in judged], [float(row["ergas"]) for row in judged], marker=".")
    for (name, ergas), style in zip(baselines.items(), ("dotted", "dashed"), strict=False):
        below.axhline(ergas, color="grey", linewidth=0.9, linestyle=style, label=name)
    below.set(yscale="log", xlabel="step", ylabel="validation ERGAS")
    if baselines:
        below.legend()
    figure.savefig(target)
