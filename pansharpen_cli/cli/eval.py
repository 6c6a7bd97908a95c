"""`pansharpen eval`: methods compared on the same scenes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pansharpen_cli.cli import console, options, targets
from pansharpen_cli.errors import UsageError

if TYPE_CHECKING:
    from pansharpen_cli.evaluation.assessment import AnyScene, Float32
    from pansharpen_cli.evaluation.sources import Source


class Protocol(StrEnum):
    """Border cuts of published tables, at reduced resolution."""

    none = "none"
    dlpan = "dlpan"
    pancollection = "pancollection"


def evaluate(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PAN MS...",
            help="A PAN and its MS; or benchmark files (.h5, .mat), or folders with these or with pan.tif and ms.tif.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", help="What to compare, repeatable: as for run, or all.", show_default=False),
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="CSV of many scenes: pan, ms (';' between files), reference, sensor, name.")
    ] = None,
    reference: Annotated[
        str | None, typer.Option(help="The truth, on the PAN's pixels; in folders its file name.")
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="At full resolution, by indices that need no truth.")] = False,
    ratio: Annotated[int | None, typer.Option(min=2, help="Ratio of the task; default: the scene's own.")] = None,
    bands: Annotated[str | None, typer.Option(help="Only these bands, by name: blue,green,red,nir.")] = None,
    sensor: Annotated[
        str | None,
        typer.Option(
            help="MTF by which scenes are degraded and methods work: measured, a name (QB, IKONOS, GeoEye1, WV2, WV3, "
            "WV4, generic) or a gain; default: generic, with --full measured, as run does. Benchmark samples are too "
            "small to be measured: generic.",
            show_default=False,
        ),
    ] = None,
    coregister: Annotated[
        str | None,
        typer.Option(
            help="PAN-MS shift: off, report, auto, or DX,DY in PAN pixels; default: auto, with a reference off.",
            show_default=False,
        ),
    ] = None,
    protocol: Annotated[Protocol, typer.Option(help="Border cut and largest DN of published tables.")] = Protocol.none,
    maxval: Annotated[float | None, typer.Option(min=1, help="Largest DN of the sensor, for PSNR and SSIM.")] = None,
    metrics: Annotated[str | None, typer.Option(help="Which, like ERGAS,SAM,Q2n.", show_default="the usual")] = None,
    figure: Annotated[Path | None, typer.Option(help="Picture of the first scene: PNG, PDF or SVG.")] = None,
    maps: Annotated[
        Path | None, typer.Option(help="Folder for GeoTIFFs of product minus truth, of whole scenes.")
    ] = None,
    overwrite: options.Overwrite = False,
    device: options.Device = "auto",
    threads: options.Threads = 0,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV, with the values of every scene.")] = False,
    json_: options.Json = False,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print a Markdown table.")] = False,
    latex: Annotated[bool, typer.Option("--latex", help="Print a LaTeX tabular.")] = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Compare methods: by Wald's protocol, against a reference, or at full resolution.

    pansharpen eval pan.tif ms.tif

    pansharpen eval test_wv3_multiExm1.h5 -m my-models/premix-b.wv3 -m gsa --sensor WV3 --protocol pancollection

    pansharpen eval --manifest scenes.csv -m all --figure all.png --latex > table.tex
    """
    console.set_up(quiet, verbose)
    count = console.threads(threads)
    if csv + json_ + markdown + latex > 1:
        raise UsageError("--csv, --json, --markdown and --latex exclude each other; ask for one")
    if maps and full:
        raise UsageError("--maps shows the distance to a truth, and there is none with --full; leave one out")
    if full and (protocol is not Protocol.none or maxval is not None):
        raise UsageError(
            "--protocol and --maxval are for metrics with a truth, and there is none with --full; leave them out"
        )
    from pansharpen_cli.evaluation import assessment, sources, tables
    from pansharpen_cli.evaluation.figure import Gallery
    from pansharpen_cli.imaging.wald import ReducedScene
    from pansharpen_cli.inputs import coregistration

    sensor = options.sensor(sensor or ("measured" if full else "generic"), measured=True)
    terms = sources.Terms(
        full=full,
        ratio=ratio,
        bands=options.names(bands, "--bands"),
        sensor=sensor,
        coregister=None if coregister is None else coregistration.parse(coregister),
        whole=maps is not None,
    )
    wanted = options.names(metrics, "--metrics")
    measures = assessment.Measures.of(wanted, full=full, protocol=protocol.value, maxval=maxval)
    gallery = Gallery(figure, overwrite) if figure else None
    if manifest is not None:
        options.existing(manifest, "a CSV file of scenes")
    scenes, methods = sources.gather(inputs or [], manifest, reference, terms), model or assessment.DEFAULT_MODELS
    if maps and len({assessment.error_map_name(scene.name, "") for scene in scenes}) < len(scenes):
        raise UsageError("--maps are called by their scenes, two of which have one name; give names in a --manifest")
    if maps:
        targets.maps(maps, _maps(scenes, methods), overwrite)

    def on_product(scene: AnyScene, method: str, hrms: Float32) -> None:
        if gallery:
            gallery.add(scene, method, hrms)
        if maps and isinstance(scene, ReducedScene):
            # again: other files may be there by now
            targets.maps(maps, [assessment.error_map_name(scene.name, method)], overwrite)
            assessment.write_error_map(maps, scene, method, hrms)

    with console.progress(quiet, "product") as on_result:
        comparison = assessment.compare(
            scenes,
            methods,
            measures,
            device=options.device(device),
            threads=count,
            on_product=on_product,
            on_result=on_result,
        )
    if gallery:
        gallery.write(list(comparison.methods))
    if json_:
        console.put(json.dumps(tables.as_dict(comparison)))
    else:
        written = (
            tables.as_csv if csv else tables.as_markdown if markdown else tables.as_latex if latex else tables.as_text
        )
        console.put(written(comparison).rstrip("\n"))


def _maps(scenes: Sequence[Source], asked: Sequence[str]) -> Iterator[str]:
    """The files that --maps may come to hold: which method auto takes, and which of all fit, the scenes will tell."""
    from pansharpen_cli import zoo
    from pansharpen_cli.classical import METHODS
    from pansharpen_cli.evaluation.assessment import error_map_name
    from pansharpen_cli.method import FALLBACK

    networks = [model.name for model in zoo.models()]
    several = {"all": [*networks, *METHODS], "auto": [*networks, FALLBACK]}
    for scene in scenes:
        for name in asked:
            yield from (error_map_name(scene.name, method) for method in several.get(name, [name]))
