"""`pansharpen import`: the authors' checkpoints as model folders."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated

import typer

from pansharpen_cli.cli import console, options
from pansharpen_cli.errors import UsageError


def import_weights(
    weights: Annotated[Path, typer.Argument(help="A .pth, .ckpt or .safetensors file.", show_default=False)],
    network: Annotated[str, typer.Option(help="adknet, premix-b, premix-h, dmanet or fusionnet.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The model folder to write.", show_default=False)],
    scale: Annotated[float, typer.Option(help="The DN that the network knows as 1.", min=1e-6)] = 2047.0,
    band_names: Annotated[str | None, typer.Option(help="Names of its bands, like blue,green,red,nir.")] = None,
    licence: Annotated[str, typer.Option(help="Licence of the weights, for the model card.")] = "",
    overwrite: options.Overwrite = False,
) -> None:
    """Convert an official checkpoint into a model folder. Nothing in the file is executed.

    pansharpen import ADKNet4pansharpening.pth --network adknet -o my-models/adknet.wv3
    """
    from pansharpen_cli.official import convert

    if not math.isfinite(scale):
        raise UsageError(f"--scale takes the DN that the network knows as 1, not {scale}")
    model = convert(
        weights,
        network,
        output,
        scale=scale,
        band_names=options.names(band_names, "--band-names"),
        licence=licence,
        overwrite=overwrite,
    )
    console.put(model.folder)
