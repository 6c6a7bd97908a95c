"""`pansharpen qnr`: quality of a product without a truth."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pansharpen_cli.cli import console, options, targets

if TYPE_CHECKING:
    from pansharpen_cli.evaluation.quality import Judgement


class Phase(StrEnum):
    """Where MS samples lie among the PAN pixels."""

    area = "area"
    toolbox = "toolbox"


MEANINGS = {
    "D_lambda": (0, "spectral distortion: how relations between bands changed"),
    "D_s": (0, "spatial distortion: how relations of bands to the PAN changed"),
    "QNR": (1, "(1 - D_lambda)(1 - D_s)"),
    "D_lambda_K": (0, "spectral distortion by Khan: the product, blurred again, against the MS"),
    "HQNR": (1, "(1 - D_lambda_K)(1 - D_s)"),
    "D_s_R": (0, "share of the PAN that the bands do not explain"),
    "RQNR": (1, "(1 - D_lambda_K)(1 - D_s_R)"),
}
"""The ideal value of each index, and what it says."""


def qnr(
    product: Annotated[Path, typer.Argument(help="A sharpened image.", show_default=False)],
    pan: Annotated[str | None, typer.Option(help="Its PAN, where its tags do not lead to it.")] = None,
    ms: Annotated[list[str] | None, typer.Option(help="Its MS, likewise; repeat for several files.")] = None,
    sensor: Annotated[
        str | None,
        typer.Option(
            help="The MTF of its MS camera, as for run; default: the one that it was made for, else measured.",
            show_default=False,
        ),
    ] = None,
    coregister: Annotated[
        str | None,
        typer.Option(
            help="PAN-MS shift by which it is judged: auto, off, or DX,DY in PAN pixels; default: the one that it was "
            "made with, else auto.",
            show_default=False,
        ),
    ] = None,
    phase: Annotated[
        Phase, typer.Option(help="area: by the geotransforms; toolbox: as published numbers.")
    ] = Phase.area,
    maps: Annotated[
        Path | None, typer.Option(help="Folder for one GeoTIFF an index: its value block by block.")
    ] = None,
    overwrite: options.Overwrite = False,
    threads: options.Threads = 0,
    json_: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Judge a product by its own PAN and MS: QNR, HQNR, RQNR and what they are made of.

    pansharpen qnr out.tif

    pansharpen qnr gdal.tif --pan pan.tif --ms ms.tif --maps maps/
    """
    console.set_up(quiet, verbose)
    threads = console.threads(threads)
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # threads share out tiles, not the small matrix products in them
    from pansharpen_cli.evaluation import quality
    from pansharpen_cli.inputs.coregistration import parse
    from pansharpen_cli.metrics import FULL

    if sensor is not None:
        options.sensor(sensor, measured=True)
    shift = None if coregister is None else parse(coregister)
    names = [f"{name}.tif" for name in FULL]
    if maps is not None:
        targets.maps(maps, names, overwrite)
    with console.progress(quiet, "tile") as on_tile:
        judgement = quality.judge(
            product, pan=pan, ms=ms or (), sensor=sensor, coregister=shift, phase=phase.value,
            maps=maps is not None, threads=threads, on_tile=on_tile,
        )  # fmt: skip
    if maps is not None:
        targets.maps(maps, names, overwrite)  # again: other files may be there by now
        quality.write_maps(judgement, maps)
    console.put(json.dumps(_as_json(judgement, phase)) if json_ else _table(judgement, phase))


def _as_json(judgement: Judgement, phase: Phase) -> dict[str, object]:
    report = judgement.report
    return {
        **{name: score.value for name, score in report.scores.items()},
        "details": {name: asdict(score) for name, score in report.scores.items()},
        "pan": judgement.pan,
        "ms": list(judgement.ms),
        "sensor": judgement.sensor,
        "phase": phase.value,
        "given": report.given,
        "measured": report.size,
    }


def _table(judgement: Judgement, phase: Phase) -> str:
    report = judgement.report
    lines = [f"{'index':12}{'value':>8}{'ideal':>7}  what it says"]
    for name, score in report.scores.items():
        ideal, meaning = MEANINGS[name]
        value = f"{score.value:.4f}" if score.value is not None else "-"
        lines.append(f"{name:12}{value:>8}{ideal:>7}  {score.reason or meaning}")
    blocks = next(iter(report.scores.values()))
    rows, cols = report.size
    lines.append(
        f"{rows} x {cols} of {report.given[0]} x {report.given[1]} pixels, {blocks.counted} blocks of 32 x 32, "
        f"{blocks.invalid} of the scene left out, without data or outside, {blocks.degenerate} flat; "
        f"MTF {judgement.sensor}, {phase.value} phase"
    )
    return "\n".join(lines)
