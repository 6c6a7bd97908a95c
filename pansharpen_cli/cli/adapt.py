"""`pansharpen adapt`: fit a model to one scene."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pansharpen_cli.cli import console, options
from pansharpen_cli.errors import UsageError

if TYPE_CHECKING:
    from pansharpen_cli.training.adapt import Adapted


def adapt(
    pan: Annotated[str, typer.Argument(help="The sharp grey image, one band.", show_default=False)],
    ms: Annotated[list[str], typer.Argument(help="The coloured image: one file, or one a band.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The model folder to write.", show_default=False)],
    model: Annotated[
        str, typer.Option("--model", "-m", help="Model to begin with: a name, a folder, or auto.")
    ] = "auto",
    network: Annotated[
        str | None, typer.Option(help="Begin with nothing: the network to train.", show_default=False)
    ] = None,
    bands: Annotated[str | None, typer.Option(help="Bands to fit, by name; default: all.")] = None,
    sensor: Annotated[
        str, typer.Option(help="MTF of the sensor: QB, IKONOS, GeoEye1, WV2, WV3, WV4, generic.")
    ] = "generic",
    coregister: Annotated[str, typer.Option(help="auto, off, report, or DX,DY in PAN pixels.")] = "auto",
    minutes: Annotated[float, typer.Option(min=0.0, help="Stop after so long, if it still gains.")] = 8.0,
    steps: Annotated[int, typer.Option(min=0, help="Stop after so many steps; 0: when nothing is gained.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="What is random follows from this number.")] = 1,
    overwrite: options.Overwrite = False,
    device: options.Device = "auto",
    threads: options.Threads = 0,
    json_: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Fit a model to one scene, with the scene's own MS as its truth, and write it as a model of its own.

    One in four blocks is held out: it says when to stop, and that the model is not worse than before.

    pansharpen adapt pan.tif ms.tif -o my-models/this-scene

    pansharpen run pan.tif ms.tif -m my-models/this-scene -o out.tif
    """
    console.set_up(quiet, verbose)
    count = console.threads(threads)
    from pansharpen_cli import coregistration, mtf

    if sensor not in mtf.SENSORS:
        raise UsageError(f"--sensor knows {', '.join(mtf.SENSORS)}, not {sensor!r}")
    from pansharpen_cli.training.adapt import Adaptation
    from pansharpen_cli.training.adapt import adapt as fit

    job = Adaptation(
        pan=pan,
        ms=ms,
        output=output,
        model=model,
        network=network,
        bands=options.names(bands),
        sensor=sensor,
        coregister=coregistration.parse(coregister),
        minutes=minutes,
        steps=steps,
        seed=seed,
        device=device,
        threads=count,
        overwrite=overwrite,
    )
    with console.progress(quiet, "step") as tell:
        adapted = fit(job, lambda step, gain: tell(step, step))
    if json_:
        typer.echo(json.dumps(_as_json(adapted)))
    elif not quiet:
        print(_summary(adapted), file=sys.stderr)


def _summary(adapted: Adapted) -> str:
    before = f"{adapted.before.ergas:.3f} before, " if adapted.before else ""
    name, best = min(adapted.classical.items(), key=lambda item: item[1].ergas)
    return (
        f"{adapted.model.folder}: ERGAS of the held-out blocks {before}{adapted.after.ergas:.3f} after "
        f"{adapted.steps} steps in {adapted.seconds / 60:.1f} minutes ({name}: {best.ergas:.3f})"
    )


def _as_json(adapted: Adapted) -> dict[str, object]:
    return {
        "model": str(adapted.model.folder),
        "before": adapted.before.as_dict() if adapted.before else None,
        "after": adapted.after.as_dict(),
        "classical": {name: scores.as_dict() for name, scores in adapted.classical.items()},
        "steps": adapted.steps,
        "seconds": adapted.seconds,
    }
