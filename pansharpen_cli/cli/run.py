"""`pansharpen run`: sharpen one scene."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pansharpen_cli import settings
from pansharpen_cli.cli import console, options
from pansharpen_cli.errors import OutputError, UsageError

if TYPE_CHECKING:
    from pansharpen_cli.pipeline import Job, Product


class Format(StrEnum):
    """Formats of a product."""

    gtiff = "gtiff"
    cog = "cog"


class Backend(StrEnum):
    """What computes a network."""

    auto = "auto"
    torch = "torch"
    onnx = "onnx"


class Resampling(StrEnum):
    """Kernels for the one interpolation of the MS."""

    nearest = "nearest"
    bilinear = "bilinear"
    cubic = "cubic"
    lanczos = "lanczos"
    sinc = "sinc"


def run(
    pan: Annotated[str, typer.Argument(help="The sharp grey image, one band.", show_default=False)],
    ms: Annotated[list[str], typer.Argument(help="The coloured image: one file, or one a band.", show_default=False)],
    output: options.Output,
    model: Annotated[
        str, typer.Option("--model", "-m", help="auto, a model, its folder or ONNX file, or a classical method.")
    ] = "auto",
    coregister: Annotated[str, typer.Option(help="PAN-MS shift: off, report, auto, or DX,DY in PAN pixels.")] = "auto",
    device: options.Device = "auto",
    backend: Annotated[Backend, typer.Option(help="What computes a network.")] = Backend.auto,
    bidx: Annotated[str | None, typer.Option("--bidx", "-b", help="MS bands to use, from 1, like 1,3-5.")] = None,
    band_names: Annotated[str | None, typer.Option(help="Names of these bands, like blue,green,red,nir.")] = None,
    nodata: Annotated[
        str, typer.Option(help="Value without data: a number, nan, none, or file (what the files say).")
    ] = "file",
    sensor: Annotated[
        str, typer.Option(help="MTF of the classical methods: QB, IKONOS, GeoEye1, WV2, WV3, WV4, generic.")
    ] = "generic",
    resampling: Annotated[
        Resampling, typer.Option("--resampling", "-r", help="Kernel for an MS off the PAN's grid.")
    ] = Resampling.sinc,
    dtype: Annotated[
        str | None, typer.Option("--dtype", "-t", help="Data type of the product; default: the MS's.")
    ] = None,
    format: Annotated[Format, typer.Option("--format", "-f", help="Format of the product.")] = Format.gtiff,
    co: Annotated[
        list[str] | None, typer.Option("--co", metavar="KEY=VALUE", help="Creation option, repeatable.")
    ] = None,
    adapt: Annotated[
        bool, typer.Option("--adapt", help="Fit the model to this scene first; it is kept beside the product.")
    ] = False,
    quicklook: Annotated[Path | None, typer.Option(help="Also write a PNG to look at.")] = None,
    overwrite: options.Overwrite = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was killed; keep a finished product.")
    ] = False,
    tile: Annotated[int | None, typer.Option("--tile-size", min=64, help="PAN pixels a side of a tile.")] = None,
    threads: options.Threads = 0,
    json_: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Fuse a PAN and an MS into a sharp, georeferenced colour image.

    pansharpen run pan.tif ms.tif -o out.tif

    pansharpen run B8.TIF B2.TIF B3.TIF B4.TIF -o out.tif --band-names blue,green,red
    """
    console.set_up(quiet, verbose)
    count = console.threads(threads)
    from pansharpen_cli import coregistration, mtf, pipeline
    from pansharpen_cli.resume import resume as resume_

    job = pipeline.Job(
        pan=pan,
        ms=ms,
        output=output,
        model=model,
        coregister=coregistration.parse(coregister),
        device=device,
        backend=backend.value,
        bands=options.numbers(bidx, "--bidx"),
        band_names=options.names(band_names),
        nodata=settings.nodata(nodata, "--nodata"),
        sensor=settings.one_of(sensor, mtf.SENSORS, "--sensor"),
        resampling=resampling.value,
        dtype=settings.one_of(dtype, settings.DTYPES, "--dtype") if dtype else None,
        format=format.value,
        creation_options=options.key_values(co or [], "--co"),
        overwrite=overwrite,
        tile=tile,
        threads=count,
    )
    if quicklook:
        _check_quicklook(quicklook, [output, *map(Path, (pan, *ms))], overwrite or resume)
    if adapt:
        if resume:
            raise UsageError("--resume cannot go on with --adapt; give the model that was fitted by --model")
        if bidx or band_names or nodata != "file":
            raise UsageError("--adapt takes the MS as it is, without --bidx, --band-names and --nodata")
        job = replace(job, model=_adapted(job, quiet))
    with console.progress(quiet, "tile") as on_tile:
        product = resume_(job, on_tile) if resume else pipeline.sharpen(job, on_tile)
    if quicklook:
        from pansharpen_cli.quicklook import write_quicklook

        write_quicklook(product.path, quicklook)
    if json_:
        typer.echo(json.dumps(_as_json(product, quicklook)))
    elif not quiet:
        print(_summary(product, quicklook), file=sys.stderr)


def _adapted(job: Job, quiet: bool) -> str:
    """The folder of a model fitted to the scene of `job`."""
    from pansharpen_cli.training.adapt import Adaptation, adapt
    from pansharpen_cli.writer import check_target

    check_target(job.output, job.overwrite)
    task = Adaptation(
        job.pan, job.ms, job.output.with_suffix(".model"), job.model, sensor=job.sensor, coregister=job.coregister,
        device=job.device, threads=job.threads, overwrite=job.overwrite,
    )  # fmt: skip
    with console.progress(quiet, "step") as tell:
        adapted = adapt(task, lambda step, gain: tell(step, step))
    return str(adapted.model.folder)


def _check_quicklook(path: Path, others: list[Path], overwrite: bool) -> None:
    """It must not take the place of another file of this run, and of no file at all unasked."""
    from pansharpen_cli.writer import check_target

    if path.resolve() in [other.resolve() for other in others]:
        raise OutputError(f"--quicklook {path} is another file of this run; give it a name of its own")
    check_target(path, overwrite)


def _summary(product: Product, quicklook: Path | None) -> str:
    if product.kept:
        return f"{product.path} is finished already; it is kept"
    lines = [
        f"{product.path}: {product.width} x {product.height}, {len(product.bands)} bands "
        f"({', '.join(product.bands)}), {product.dtype}",
        f"by {product.method} on {product.device} in {product.seconds:.1f} s "
        f"({product.megapixels_per_second:.2f} MPix/s)",
    ]
    return "\n".join(lines + ([f"to look at: {quicklook}"] if quicklook else []))


def _as_json(product: Product, quicklook: Path | None) -> dict[str, object]:
    return {
        **asdict(product),
        "path": str(product.path),
        "megapixels_per_second": product.megapixels_per_second,
        "quicklook": str(quicklook) if quicklook else None,
    }
