"""`pansharpen export`: a model as one ONNX file."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from pansharpen_cli.cli import console, options
from pansharpen_cli.errors import UsageError


def export(
    model: Annotated[str, typer.Argument(help="A model or its folder.", show_default=False)],
    output: options.Output,
    bands: Annotated[
        int | None, typer.Option(min=1, help="Bands of the file; default: the model's, or any.", show_default=False)
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Convolutions in half precision, for GPUs.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Compare it with torch on a scene, tile by tile.")] = False,
    scene: options.ParityScene = None,
    tolerance: options.Tolerance = 1.0,
    overwrite: options.Overwrite = False,
    json_: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Write a model as one ONNX file, which `run --model FILE.onnx` takes, and check that it is the same model.

    pansharpen export adknet-per-band.x4 -o adknet.onnx --verify
    """
    console.set_up(quiet, verbose)
    from pansharpen_cli import zoo
    from pansharpen_cli.backends.export import export_model
    from pansharpen_cli.outputs.target import check_target

    if not output.name.endswith(".onnx"):  # nothing would read it
        raise UsageError(f"{output} is written as ONNX; name it .onnx")
    check_target(output, overwrite)
    source = zoo.find(options.network(model, "exported"))
    written = export_model(source, output, bands=bands, half=half, overwrite=overwrite)
    told = {
        "path": str(output),
        "model": source.name,
        "opset": written.opset,
        "bands": written.bands or "any",
        "precision": written.precision,
        "bytes": len(written.content),
        "sha256": written.sha256,
    }
    if verify:
        from pansharpen_cli import parity

        report = parity.verify(source, scene, exported=output)
        told["parity"] = report.as_dict()
        if not json_:
            console.put(report.as_text())
        report.check(tolerance)
    if json_:
        console.put(json.dumps(told))
    elif not quiet:
        console.say(
            f"{output}: {source.name}, {told['bands']} bands, opset {written.opset}, {written.precision}, "
            f"{len(written.content) / 1e6:.2f} MB"
        )
