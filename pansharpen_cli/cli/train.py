"""`pansharpen train`: a model from one's own scenes."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pansharpen_cli.cli import console, options

if TYPE_CHECKING:
    from pansharpen_cli.training.loop import Progress

log = logging.getLogger("pansharpen_cli.train")


def train(
    scenes: Annotated[list[Path], typer.Argument(help="Folders with pan.tif and ms.tif.", show_default=False)],
    validation: Annotated[list[Path], typer.Option("--validate", help="A folder kept for validation, repeatable.")],
    bands: Annotated[str, typer.Option(help="Bands to train, by name: blue,green,red,nir.", show_default=False)],
    ratio: Annotated[int, typer.Option(help="Ratio of the model, 2 or 4.", show_default=False)],
    output: Annotated[Path, typer.Option("--output", "-o", help="The model folder to write.", show_default=False)],
    network: Annotated[str, typer.Option(help="The network to train.")] = "premix-b",
    recipe: Annotated[str, typer.Option(help="default, adknet-paper, premix-paper or dmanet-paper.")] = "default",
    steps: Annotated[int, typer.Option(min=0, help="Batches to learn from; 0: the recipe's epochs.")] = 0,
    batch: Annotated[int, typer.Option(min=0, help="Patches in a batch; 0: the recipe's.")] = 0,
    validate_every: Annotated[int, typer.Option(min=1, help="Steps between validations and saved states.")] = 250,
    sensor: Annotated[str, typer.Option(help="MTF by which scenes are degraded.")] = "generic",
    seed: Annotated[int, typer.Option(min=0, help="What is random follows from this number.")] = 1,
    data: Annotated[str, typer.Option(help="Where the scenes come from, for the model card.")] = "",
    licence: Annotated[str, typer.Option(help="Licence of the model, for its card.")] = "",
    device: options.Device = "auto",
    threads: options.Threads = 0,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Train a network on your own scenes by Wald's protocol. A run that was cut short goes on where it was.

    pansharpen train scenes/* --validate held-out/a --bands blue,green,red,nir --ratio 4 -o my-models/premix-b.mine
    """
    console.set_up(quiet, verbose)
    count = console.threads(threads)
    import torch

    from pansharpen_cli.training.make import Training, make_model

    torch.set_num_threads(count)
    job = Training(
        output=output,
        network=network,
        bands=options.names(bands) or [],
        ratio=ratio,
        scenes=scenes,
        validation=validation,
        recipe=recipe,
        steps=steps,
        batch=batch,
        validate_every=validate_every,
        sensor=sensor,
        seed=seed,
        device=device,
        licence=licence,
        data=data,
    )
    with console.progress(quiet, "step") as tell:

        def on_step(progress: Progress) -> None:
            tell(progress.step, progress.steps)
            if progress.scores:
                log.info(
                    "step %d: loss %.4f, %.1f images/s, validation ERGAS %.3f, SAM %.3f",
                    progress.step,
                    progress.loss,
                    progress.images_per_second,
                    progress.scores.ergas,
                    progress.scores.sam,
                )

        model = make_model(job, on_step)
    typer.echo(model.folder)
