"""`pansharpen report`: a product to look at, in one file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from pansharpen_cli.cli import console, options
from pansharpen_cli.errors import OutputError


def report(
    products: Annotated[
        list[Path],
        typer.Argument(help="Sharpened images of one scene, compared if there are several.", show_default=False),
    ],
    output: options.Output,
    pan: Annotated[str | None, typer.Option(help="Their PAN, where the tags of the first do not lead to it.")] = None,
    ms: Annotated[list[str] | None, typer.Option(help="Their MS, likewise; repeat for several files.")] = None,
    sensor: Annotated[
        str | None,
        typer.Option(
            help="The MTF of the MS camera, as for run; "
            "default: the one that the first product was made for, else measured.",
            show_default=False,
        ),
    ] = None,
    coregister: Annotated[
        str | None,
        typer.Option(
            help="PAN-MS shift by which all are judged: auto, off, or DX,DY in PAN pixels; default: the one that "
            "the first was made with, else auto.",
            show_default=False,
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    threads: options.Threads = 0,
    json_: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Look instead of read: one HTML file with pictures, quality maps and numbers, which needs no network.

    pansharpen report out.tif -o report.html

    pansharpen report ours.tif gdal.tif -o report.html --pan pan.tif --ms ms.tif
    """
    console.set_up(quiet, verbose)
    threads = console.threads(threads)
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # as for qnr
    from pansharpen_cli.inputs.coregistration import parse
    from pansharpen_cli.outputs.target import check_target
    from pansharpen_cli.report.gather import gather
    from pansharpen_cli.report.page import data, write
    from pansharpen_cli.report.words import counted

    shift = None if coregister is None else parse(coregister)
    if sensor is not None:
        options.sensor(sensor, measured=True)
    inputs = [*products, *map(Path, [*([pan] if pan else []), *(ms or [])])]
    if output.resolve() in [path.resolve() for path in inputs]:
        raise OutputError(f"{output} is one of the inputs; give the report a name of its own")
    check_target(output, overwrite)
    with console.progress(quiet, "tile") as on_tile:
        found = gather(
            products, pan=pan, ms=ms or (), sensor=sensor, coregister=shift, threads=threads, on_tile=on_tile
        )
    size = write(found, output, overwrite)
    if json_:
        console.put(json.dumps({"path": str(output), "bytes": size, **data(found)}))
    else:
        crops = counted(len(found.views), "crop")
        console.put(f"{output}: {size / 1e6:.1f} MB, {crops}; open it in a browser")
