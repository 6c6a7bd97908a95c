"""`pansharpen adapt`: fit a model to one scene."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pansharpen_cli.cli import console, options
from pansharpen_cli.training.waiting import sleep_while_waiting

if TYPE_CHECKING:
    from pansharpen_cli.training.adapt import Adapted


class Resolution(StrEnum):
    """At which `adapt` fits."""

    reduced = "reduced"
    full = "full"


def adapt(
    pan: Annotated[str, typer.Argument(help="The sharp grey image, one band.", show_default=False)],
    ms: Annotated[list[str], typer.Argument(help="The coloured image: one file, or one a band.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The model folder to write.", show_default=False)],
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="One model, a name or folder: it goes on learning. Several, by commas, or auto (those of any bands): "
            "mixed, each by the share that the scene wants.",
        ),
    ] = "auto",
    network: Annotated[
        str | None, typer.Option(help="Begin with nothing: the network to train.", show_default=False)
    ] = None,
    resolution: Annotated[
        Resolution,
        typer.Option(help="reduced: the scene's own MS is the truth; full: what PAN and MS say of a product, by HQNR."),
    ] = Resolution.reduced,
    bands: Annotated[str | None, typer.Option(help="Bands to fit, by name; default: all.")] = None,
    sensor: Annotated[
        str,
        typer.Option(
            help="MTF of the sensor: QB, IKONOS, GeoEye1, WV2, WV3, WV4, generic, a gain, or measured in the scene."
        ),
    ] = "measured",
    coregister: Annotated[str, typer.Option(help="auto, off, report, or DX,DY in PAN pixels.")] = "auto",
    minutes: Annotated[
        float,
        typer.Option(
            min=0.0, help="Learning stops after so long, if it still gains; what is measured and judged comes on top."
        ),
    ] = 8.0,
    steps: Annotated[
        int, typer.Option(min=0, help="Learning stops after so many steps; 0: when nothing is gained.")
    ] = 0,
    seed: Annotated[int, typer.Option(min=0, help="What is random follows from this number.")] = 1,
    overwrite: options.Overwrite = False,
    device: options.Device = "auto",
    threads: options.Threads = 0,
    json_: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Fit a model to one scene, with the scene's own MS as its truth, and write it as a model of its own.

    By itself it finds which share of each model of any bands the scene wants. With --model one model learns, with
    --network a new one. Blocks that it leaves out say when to stop, and that the result is not worse than what it
    began with.

    With --resolution full no truth is needed: the best model learns to be consistent with the MS, and as like the PAN
    as the MS is to the blurred PAN.

    pansharpen adapt pan.tif ms.tif -o my-models/this-scene

    pansharpen run pan.tif ms.tif -m my-models/this-scene -o out.tif
    """
    console.set_up(quiet, verbose)
    count = console.threads(threads)
    sleep_while_waiting()
    from pansharpen_cli.inputs import coregistration

    options.sensor(sensor, measured=True)
    from pansharpen_cli.training.adapt import Adaptation
    from pansharpen_cli.training.adapt import adapt as fit

    job = Adaptation(
        pan=pan,
        ms=ms,
        output=output,
        model=model if network else options.network(model, "adapted"),
        network=network,
        resolution=resolution.value,
        bands=options.names(bands, "--bands"),
        sensor=sensor,
        coregister=coregistration.parse(coregister),
        minutes=minutes,
        steps=steps,
        seed=seed,
        device=options.device(device),
        threads=count,
        overwrite=overwrite,
    )
    with console.progress(quiet, "step") as tell:
        adapted = fit(job, lambda step, gain: tell(step, step))
    if json_:
        console.put(json.dumps(_as_json(adapted)))
    elif not quiet:
        console.say(_summary(adapted))


def _summary(adapted: Adapted) -> str:
    metric = next(iter(adapted.after))  # the first one is what is fitted
    sign = -1 if metric == "hqnr" else 1
    before = f"{adapted.before[metric]:.3f} before, " if adapted.before else ""
    name, best = min(adapted.classical.items(), key=lambda item: sign * item[1][metric])
    shares = " and ".join(f"{share:.2f} of {model}" for model, share in adapted.shares.items())
    return (
        f"{adapted.model.folder}: {metric.upper()} of the held-out blocks {before}{adapted.after[metric]:.3f} "
        f"{f'by {shares},' if shares else f'after {adapted.steps} steps'} "
        f"in {adapted.seconds / 60:.1f} minutes in all ({name}: {best[metric]:.3f})"
    )


def _as_json(adapted: Adapted) -> dict[str, object]:
    return {
        "model": str(adapted.model.folder),
        "before": adapted.before,
        "after": adapted.after,
        "classical": adapted.classical,
        "steps": adapted.steps,
        "shares": adapted.shares,
        "seconds": adapted.seconds,
    }
