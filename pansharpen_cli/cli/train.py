"""`pansharpen train`: a model from one's own scenes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pansharpen_cli.cli import console, options
from pansharpen_cli.errors import UsageError
from pansharpen_cli.training.waiting import sleep_while_waiting

if TYPE_CHECKING:
    from pansharpen_cli.training.loop import Progress


def train(
    validation: Annotated[
        list[Path], typer.Option("--validate", help="Scenes kept for validation, as SCENES; repeatable.")
    ],
    bands: Annotated[
        str, typer.Option(help="Bands to train, by name: blue,green,red,nir; or any.", show_default=False)
    ],
    ratio: Annotated[int, typer.Option(min=2, max=16, help="Ratio of the model, like 2 or 4.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The model folder to write.", show_default=False)],
    scenes: Annotated[
        list[Path] | None,
        typer.Argument(help="Folders with pan.tif and ms.tif; .h5 or .mat files, or folders of them; manifests."),
    ] = None,
    manifest: Annotated[
        Path | None, typer.Option(help="CSV with the columns pan and ms (several: ';'), also name, sensor, reference.")
    ] = None,
    network: Annotated[
        str | None, typer.Option(help="The network to train; default: that of --init, else premix-b.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option("--option", "-O", metavar="KEY=VALUE", help="Option of the network: channels=32; repeatable."),
    ] = None,
    consistent: Annotated[
        bool | None,
        typer.Option("--consistent/--no-consistent", help="Products that, blurred again, are their MS."),
    ] = None,
    init: Annotated[str, typer.Option(help="A model, by name or folder, whose weights to begin with.")] = "",
    recipe: Annotated[str, typer.Option(help="default, adknet-paper, premix-paper or dmanet-paper.")] = "default",
    steps: Annotated[int, typer.Option(min=0, help="Batches to learn from; 0: the recipe's epochs.")] = 0,
    minutes: Annotated[
        float, typer.Option(min=0, help="So long instead of --steps: the learning rate follows the clock.")
    ] = 0,
    batch: Annotated[int, typer.Option(min=0, help="Patches in a batch; 0: the recipe's.")] = 0,
    crops_per_scene: Annotated[
        int, typer.Option(min=1, help="Patches of a batch that are of one scene and share its statistics, as in run.")
    ] = 1,
    validate_every: Annotated[int, typer.Option(min=1, help="Steps between validations and saved states.")] = 250,
    early_stop: Annotated[
        int, typer.Option(min=0, help="Validations without improvement that end it; 0: none do.")
    ] = 0,
    sensor: Annotated[
        str,
        typer.Option(
            help="How scenes are blurred to degrade them: QB, IKONOS, GeoEye1, WV2, WV3, WV4, generic, or a gain."
        ),
    ] = "generic",
    seed: Annotated[int, typer.Option(min=0, help="What is random follows from this number.")] = 1,
    compile_: Annotated[
        bool, typer.Option("--compile", help="Compile the network: slower to begin, then faster.")
    ] = False,
    baselines: Annotated[
        bool, typer.Option("--baselines/--no-baselines", help="Judge the classical methods on the validation scenes.")
    ] = True,
    data: Annotated[str, typer.Option(help="Where the scenes come from, for the model card.")] = "",
    licence: Annotated[str, typer.Option(help="Licence of the model, for its card.")] = "",
    device: options.Device = "auto",
    threads: options.Threads = 0,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Train a network on your own scenes by Wald's protocol. A run that was cut short goes on where it was.

    pansharpen train scenes/* --validate held-out/a --bands blue,green,red,nir --ratio 4 -o my-models/premix-b.mine

    torchrun --nproc-per-node 2 -m pansharpen_cli train ... takes two GPUs, or two processes on the CPU.

    The folder gets training.csv, curves.png and sample.png, and events if the package tensorboard is installed.
    """
    count = console.threads(threads)
    sleep_while_waiting()
    import torch

    from pansharpen_cli.training.make import Training, make_model
    from pansharpen_cli.training.parallel import Workers

    workers = Workers()
    quiet = quiet or not workers.is_first
    console.set_up(quiet, verbose)
    torch.set_num_threads(threads or max(1, count // workers.beside))
    given = [*(scenes or []), *([manifest] if manifest else [])]
    if not given:
        raise UsageError("give scenes to learn from, or --manifest")
    own = {name: _value(text) for name, text in options.key_values(option or [], "--option").items()}
    job = Training(
        output=output,
        bands=[] if bands == "any" else options.names(bands, "--bands") or [],
        ratio=ratio,
        scenes=given,
        validation=validation,
        network=network or "",
        recipe=recipe,
        steps=steps,
        minutes=minutes,
        batch=batch,
        crops_per_scene=crops_per_scene,
        validate_every=validate_every,
        early_stop=early_stop,
        sensor=sensor,
        seed=seed,
        device=options.device(device),
        compiled=compile_,
        baselines=baselines,
        init=init,
        licence=licence,
        data=data,
        options=own if consistent is None else {**own, "consistent": consistent},
    )
    with console.progress(quiet, "scene") as on_scene, console.progress(quiet, "step") as tell:

        def on_step(progress: Progress) -> None:
            note = f"loss {progress.loss:.4f}, {progress.images_per_second:.1f} images/s"
            tell(progress.step, progress.steps, note)

        model = make_model(job, on_step, on_scene)
    if workers.is_first:
        console.put(model.folder)


def _value(text: str) -> object:
    """A number, true or false as what it is, anything else as text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
