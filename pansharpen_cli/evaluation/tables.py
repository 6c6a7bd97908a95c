"""A comparison of methods as values, and these as text, CSV, JSON, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from pansharpen_cli.imaging.wald import Excerpts

LOWER_IS_BETTER = {"SAM", "ERGAS", "RMSE", "D_lambda", "D_s", "D_lambda_K", "D_s_R", "D_rho", "R_SAM", "R_ERGAS"}
"""Of the others the larger value is better."""
DIGITS = {"SAM": 3, "ERGAS": 3, "PSNR": 2, "RMSE": 2, "R_SAM": 3, "R_ERGAS": 3, "seconds": 3, "MPix/s": 2}
"""Shown after the point; four of all others, which lie between 0 and 1."""
SPEED = ("seconds", "MPix/s")
"""Columns after the metrics."""
JSON_NAMES = {"MPix/s": "megapixels_per_second"}

_LATEX = {
    **{"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}"},
    **{"$": r"\$", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"±": r"$\pm$", "↓": r"$\downarrow$", "↑": r"$\uparrow$"},
}


@dataclass(frozen=True)
class Result:
    """One method on one scene: the value of each metric (None: it has none there), and the time it took.

    `megapixels`: PAN pixels of the scene, in millions.
    """

    values: Mapping[str, float | None]
    seconds: float
    megapixels: float

    def __getitem__(self, column: str) -> float | None:
        if column in SPEED:
            return self.seconds if column == "seconds" else self.megapixels / self.seconds
        return self.values[column]


class Statistic(NamedTuple):
    """Mean and sample standard deviation (divisor n - 1) over scenes; None where there are too few values. The mean of
    a rate is that of all pixels in all the time."""

    mean: float | None
    std: float | None

    @classmethod
    def of(cls, values: Sequence[float | None]) -> Statistic:
        known = [value for value in values if value is not None]
        return cls(
            float(np.mean(known)) if known else None, float(np.std(known, ddof=1)) if len(known) > 1 else None
        )  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """Methods on the same scenes: `methods` holds for each of them one result a scene, in the order of `scenes`.

    `excerpts`: of which parts of the scenes, in their order, the numbers are; None: of all of one.
    `terms`: what the numbers depend on besides, by name. `left_out`: methods that were not compared, and why.
    `reasons`: why a metric has no value.
    """

    scenes: Sequence[str]
    metrics: Sequence[str]
    methods: Mapping[str, Sequence[Result]]
    terms: Mapping[str, str | float | None] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    excerpts: Sequence[Excerpts | None] = ()

    @property
    def columns(self) -> list[str]:
        return [*self.metrics, *SPEED]

    def statistic(self, method: str, column: str) -> Statistic:
        results = self.methods[method]
        statistic = Statistic.of([result[column] for result in results])
        if column != "MPix/s":
            return statistic
        return statistic._replace(mean=sum(r.megapixels for r in results) / sum(r.seconds for r in results))

    def rank(self, method: str, metric: str) -> int | None:
        """1 for the best mean of a metric, 2 for the second best, equal ones alike; None for others and alone."""
        means = {name: self.statistic(name, metric).mean for name in self.methods}
        mine = means[method]
        if metric not in self.metrics or mine is None or len(means) < 2:
            return None
        known = {mean for mean in means.values() if mean is not None}
        place = sorted(known, reverse=metric not in LOWER_IS_BETTER).index(mine) + 1
        return place if place <= 2 else None

    @property
    def caption(self) -> str:
        """What was compared, in a line."""
        count = len(self.scenes)
        stated = [
            f"{name} {value if isinstance(value, str) else f'{value:g}'}"
            for name, value in self.terms.items()
            if value is not None
        ]
        return ", ".join([self.scenes[0] if count == 1 else f"{count} scenes", *stated, *self._parts])

    @property
    def _parts(self) -> list[str]:
        """How many scenes were judged by excerpts, and by how much of them."""
        parts = [part for part in self.excerpts if part]
        if not parts:
            return []
        pixels, whole = (sum(sizes) / 1e6 for sizes in zip(*parts, strict=True))
        return [f"excerpts of {len(parts)}: {pixels:.1f} of {whole:.1f} MPix"]


def as_dict(comparison: Comparison) -> dict[str, Any]:
    """For JSON: terms, scenes and their excerpts; by method and column mean, standard deviation and every value."""
    return {
        **comparison.terms,
        "scenes": list(comparison.scenes),
        "excerpts": [part and part._asdict() for part in comparison.excerpts],
        "methods": {
            method: {
                JSON_NAMES.get(column, column): {
                    **comparison.statistic(method, column)._asdict(),
                    "per_scene": [result[column] for result in results],
                }
                for column in comparison.columns
            }
            for method, results in comparison.methods.items()
        },
        "left_out": dict(comparison.left_out),
        "reasons": dict(comparison.reasons),
    }


def as_csv(comparison: Comparison) -> str:
    """A line for each method and scene, and one each for mean and standard deviation; empty where there is no value."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    columns = comparison.columns
    writer.writerow(["method", "scene", *columns])
    for method, results in comparison.methods.items():
        for scene, result in zip(comparison.scenes, results, strict=True):
            writer.writerow([method, scene, *(result[column] for column in columns)])
        found = [comparison.statistic(method, column) for column in columns]
        writer.writerow([method, "mean", *(statistic.mean for statistic in found)])
        writer.writerow([method, "std", *(statistic.std for statistic in found)])
    return file.getvalue()


def as_text(comparison: Comparison) -> str:
    """A table with aligned columns, and below it what its numbers mean."""
    marks = {1: "*", 2: "+", None: " "}
    head, *rows = _rows(comparison, lambda cell, rank: cell + marks[rank])
    rows.insert(0, [head[0], *(f"{name} " for name in head[1:])])  # above the marks, nothing
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for name, *cells in rows:
        aligned = (cell.rjust(width) for cell, width in zip(cells, widths[1:], strict=True))
        lines.append("  ".join([name.ljust(widths[0]), *aligned]).rstrip())
    lines.append(comparison.caption)
    meanings = ["* best, + second best"] if len(comparison.methods) > 1 else []
    meanings += ["mean ± sample standard deviation over the scenes"] if len(comparison.scenes) > 1 else []
    lines += ["; ".join(meanings)] if meanings else []
    return "\n".join(lines + [f"no {metric}: {reason}" for metric, reason in comparison.reasons.items()])


def as_markdown(comparison: Comparison) -> str:
    """The best value is bold, the second best underlined."""
    marks = {1: "**{}**", 2: "<u>{}</u>", None: "{}"}
    head, *rows = _rows(comparison, lambda cell, rank: marks[rank].format(cell))
    rules = ["---", *["---:"] * (len(head) - 1)]
    table = [f"| {' | '.join(row)} |" for row in (head, rules, *rows)]
    return "\n".join([*table, "", comparison.caption])


def as_latex(comparison: Comparison) -> str:
    """A tabular that needs no package: the best value is bold, the second best underlined."""
    marks = {1: r"\textbf{%s}", 2: r"\underline{%s}", None: "%s"}
    head, *rows = _rows(comparison, lambda cell, rank: marks[rank] % _escaped(cell))
    lines = [rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}", r"\hline"]
    lines += [" & ".join(map(_escaped, head)) + r" \\", r"\hline"]
    lines += [" & ".join([_escaped(name), *cells]) + r" \\" for name, *cells in rows]
    return "\n".join([*lines, r"\hline", r"\end{tabular}", f"% {comparison.caption}"])


def _rows(comparison: Comparison, marked: Callable[[str, int | None], str]) -> list[list[str]]:
    """The header, and for each method its name and cells."""
    arrows = ["↓" if metric in LOWER_IS_BETTER else "↑" for metric in comparison.metrics]
    rows = [["method", *map(str.__add__, comparison.metrics, arrows), *SPEED]]
    for method in comparison.methods:
        cells = [
            marked(_cell(column, comparison.statistic(method, column)), comparison.rank(method, column))
            for column in comparison.columns
        ]
        rows.append([method, *cells])
    return rows


def _cell(column: str, statistic: Statistic) -> str:
    digits = DIGITS.get(column, 4)
    if statistic.mean is None:
        return "-"
    spread = "" if statistic.std is None or column in SPEED else f" ± {statistic.std:.{digits}f}"
    return f"{statistic.mean:.{digits}f}{spread}"


def _escaped(cell: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in cell)
