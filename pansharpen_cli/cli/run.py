"""`pansharpen run`: sharpen one scene."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pansharpen_cli.cli import console, options, targets
from pansharpen_cli.errors import OutputError, UsageError
from pansharpen_cli.system import settings

if TYPE_CHECKING:
    from pansharpen_cli.inputs.part import Part
    from pansharpen_cli.job import Job
    from pansharpen_cli.pipeline import Compute, Product
    from pansharpen_cli.stac import ItemScene

log = logging.getLogger(__name__)


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


class Statistics(StrEnum):
    """What the global values of a part come from."""

    part = "part"
    scene = "scene"


def run(
    pan: Annotated[
        str, typer.Argument(help="The sharp grey image, one band; or a STAC item of both, .json.", show_default=False)
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", metavar="PATH", help="The product, here or at s3://, gs:// or az://.", show_default=False
        ),
    ],
    ms: Annotated[
        list[str] | None, typer.Argument(help="The coloured image: one file, or one a band.", show_default=False)
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model",
            "-m",
            help="auto, a network, its folder or ONNX file, or a classical method, like gsa, mtf-glp-fs or bdsd-pc; "
            "`pansharpen models` lists all.",
        ),
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
        str,
        typer.Option(
            help="How the MS camera blurs: measured in the scene, QB, IKONOS, GeoEye1, WV2, WV3, WV4, generic, or its "
            "MTF gain."
        ),
    ] = "measured",
    resampling: Annotated[
        Resampling, typer.Option("--resampling", "-r", help="Kernel for an MS off the PAN's grid.")
    ] = Resampling.sinc,
    dtype: Annotated[
        str | None, typer.Option("--dtype", "-t", help="Data type of the product; default: the MS's.")
    ] = None,
    format: Annotated[
        Format, typer.Option("--format", "-f", case_sensitive=False, help="Format of the product.")
    ] = Format.gtiff,
    co: Annotated[
        list[str] | None,
        typer.Option("--co", metavar="KEY=VALUE", help="Creation option, repeatable; OVERVIEWS=NONE leaves these out."),
    ] = None,
    adapt: Annotated[
        bool, typer.Option("--adapt", help="Fit the model to this scene first; it is kept beside the product.")
    ] = False,
    bounds: Annotated[
        str | None,
        typer.Option(metavar="L,B,R,T", help="Only this part, LEFT,BOTTOM,RIGHT,TOP in the PAN's CRS or --bounds-crs."),
    ] = None,
    bounds_crs: Annotated[
        str | None, typer.Option(metavar="CRS", help="CRS of --bounds, like EPSG:4326 (longitude first).")
    ] = None,
    window: Annotated[
        str | None, typer.Option(metavar="COL,ROW,WIDTH,HEIGHT", help="Only this part, in pixels of the PAN's file.")
    ] = None,
    statistics: Annotated[
        Statistics,
        typer.Option(help="What a part's shift and global statistics come from: its surroundings, or the whole scene."),
    ] = Statistics.part,
    quicklook: Annotated[Path | None, typer.Option(help="Also write a PNG to look at.")] = None,
    qgis_style: Annotated[
        bool, typer.Option("--qgis-style", help="Also write a .qml beside the product: QGIS shows natural colours.")
    ] = False,
    stac: Annotated[bool, typer.Option("--stac", help="Also write a STAC item, beside the product.")] = False,
    scheduler: options.Scheduler = None,
    overwrite: options.Overwrite = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a run that was killed; keep a finished product.")
    ] = False,
    tile: Annotated[int | None, typer.Option("--tile-size", min=32, help="PAN pixels a side of a tile.")] = None,
    threads: options.Threads = 0,
    max_memory: options.MaxMemory = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Fuse a PAN and an MS into a sharp, georeferenced colour image.

    pansharpen run pan.tif ms.tif -o out.tif

    pansharpen run B8.TIF B2.TIF B3.TIF B4.TIF -o out.tif --band-names blue,green,red

    pansharpen run https://host/pan.tif https://host/ms.tif -o part.tif --bounds 444700,4480000,450000,4485000
    """
    console.set_up(quiet, verbose)
    count = console.threads(threads)
    from pansharpen_cli import pipeline, zoo
    from pansharpen_cli.cluster import UNSPLIT
    from pansharpen_cli.inputs import coregistration
    from pansharpen_cli.job import Job
    from pansharpen_cli.resume import kept
    from pansharpen_cli.resume import resume as resume_
    from pansharpen_cli.system import locations

    product = locations.output(output)
    url = locations.output_url(product)
    locations.check_geotiff(url or product)
    if url and (quicklook or qgis_style or stac or adapt):
        needy = "--quicklook, --qgis-style, --stac and --adapt"
        raise UsageError(f"{needy} need an output on this machine, not {url}")
    if options.scheduler(scheduler) and max_memory:
        raise UsageError("--max-memory is this process's, and --scheduler's workers do the work; limit them instead")
    if scheduler and (backend is Backend.onnx or (backend is Backend.auto and zoo.is_lone(model))):
        raise UsageError(f"--scheduler splits a scene, and {UNSPLIT}")
    given, item = pan, None if ms else _item(pan)
    if item:
        pan, ms, band_names = item.pan, [*item.ms], band_names or (None if bidx else ",".join(item.band_names))
    job = Job(
        pan=pan,
        ms=ms or [],
        output=product,
        model=model,
        coregister=coregistration.parse(coregister),
        device=options.device(device),
        backend=backend.value,
        bands=options.numbers(bidx, "--bidx"),
        band_names=options.names(band_names, "--band-names"),
        nodata=settings.nodata(nodata, "--nodata"),
        sensor=options.sensor(sensor, measured=True),
        resampling=resampling.value,
        dtype=settings.one_of(dtype, settings.DTYPES, "--dtype") if dtype is not None else None,
        format=format.value,
        creation_options=options.key_values(co or [], "--co"),
        overwrite=overwrite,
        tile=tile,
        threads=count,
        max_memory=options.max_memory(max_memory),
        part=_part(bounds, bounds_crs, window),
        statistics=statistics.value,
    )
    if adapt and resume:
        raise UsageError("--resume cannot go on with --adapt; give the model that was fitted by --model")
    beside = _Beside(product, quicklook, qgis_style, stac)
    # who goes on may find what is beside a finished product; else it is in the way, before any work
    made = kept(job) if resume and not overwrite and beside.there else None
    beside.check(job, given, overwrite or made is not None)
    if adapt:
        if bidx or nodata != "file":
            raise UsageError("--adapt takes the MS as it is, without --bidx and --nodata")
        job = replace(job, model=_adapted(job, quiet))
    with console.progress(quiet, "tile") as on_tile, _compute(scheduler, device) as compute:
        make = partial(resume_ if resume and not url else pipeline.sharpen, on_tile=on_tile, compute=compute)
        made = made or (_sent(job, make, resume) if url else make(job))
    beside.write(made, item, overwrite)
    if json_:
        console.put(json.dumps(_as_json(made, url, quicklook)))
    elif not quiet:
        console.say(_summary(made, url, quicklook))


def _sent(job: Job, make: Callable[[Job], Product], resume: bool) -> Product:
    """The product of `job` in a store, where a finished one is kept to `resume`."""
    from pansharpen_cli.resume import finished, replacing_its_own
    from pansharpen_cli.upload import sent

    if resume:
        if made := finished(job):
            return made
        job = replacing_its_own(job)
    with sent(job) as here:
        made = make(here)
    return replace(made, path=job.output)


@contextmanager
def _compute(scheduler: str | None, device: str) -> Iterator[Compute]:
    """Who sharpens tiles."""
    from pansharpen_cli.backends.sharpener import Sharpener

    if scheduler is None:
        yield Sharpener.all
        return
    from pansharpen_cli.cluster import Cluster, Tiles, wants_gpu

    with Cluster(scheduler, wants_gpu(device)) as cluster:
        yield Tiles(cluster)


def _part(bounds: str | None, bounds_crs: str | None, window: str | None) -> Part | None:
    from pansharpen_cli.inputs import part

    if bounds and window:
        raise UsageError("--bounds and --window both name a part; give one of them")
    if bounds_crs and not bounds:
        raise UsageError("--bounds-crs says what --bounds are in; give these too")
    if window:
        return part.parse_window(window)
    return part.parse_bounds(bounds, bounds_crs) if bounds else None


def _adapted(job: Job, quiet: bool) -> str:
    """The folder of a model fitted to the scene of `job`."""
    from pansharpen_cli.outputs.target import check_target
    from pansharpen_cli.system import locations
    from pansharpen_cli.training.adapt import Adaptation, adapt

    locations.check_output(job.output)
    check_target(job.output, job.overwrite)
    task = Adaptation(
        job.pan, job.ms, job.output.with_suffix(".model"), options.network(job.model, "adapted"),
        band_names=job.band_names, sensor=job.sensor, coregister=job.coregister, device=job.device,
        threads=job.threads, overwrite=job.overwrite,
    )  # fmt: skip
    with console.progress(quiet, "step") as tell:
        adapted = adapt(task, lambda step, gain: tell(step, step))
    return str(adapted.model.folder)


def _item(path: str) -> ItemScene:
    """The scene of a STAC item, which stands for PAN and MS."""
    from pansharpen_cli.stac import is_item, read_item

    if not is_item(path):
        raise UsageError(f"the argument ms is missing; give the MS after {path}, or a STAC item (.json) of both")
    return read_item(path)


@dataclass(frozen=True)
class _Beside:
    """What is written beside the `product`."""

    product: Path
    quicklook: Path | None
    style: bool
    stac: bool

    @property
    def asked(self) -> dict[str, Path]:
        """The file of each option that was given."""
        from pansharpen_cli.outputs.qgis import style_beside
        from pansharpen_cli.stac import item_beside

        files = {
            "--quicklook": self.quicklook,
            "--qgis-style": style_beside(self.product) if self.style else None,
            "--stac": item_beside(self.product) if self.stac else None,
        }
        return {option: path for option, path in files.items() if path}

    @property
    def there(self) -> bool:
        """Whether something already has one of their names."""
        return any(map(os.path.lexists, self.asked.values()))

    def check(self, job: Job, given: str, may_exist: bool) -> None:
        """They must not take the place of another file of this run, `given` as its PAN or item among them, and of no
        file at all unasked."""
        from pansharpen_cli.outputs.qgis import style_beside
        from pansharpen_cli.outputs.target import check_target
        from pansharpen_cli.stac import item_beside

        asked = self.asked
        taken = [job.output, *map(Path, (given, job.pan, *job.ms))]
        for option, path in asked.items():
            check_target(path, may_exist)
            if path.resolve() in [other.resolve() for other in taken]:
                raise OutputError(f"{option} {path} is another file of this run; give it a name of its own")
            taken.append(path)
        if self.quicklook:
            targets.png(self.quicklook, "--quicklook")
        for option, older in (("--qgis-style", style_beside(job.output)), ("--stac", item_beside(job.output))):
            if job.overwrite and job.output.exists() and option not in asked and older.exists():
                log.warning("%s was made of the product that is replaced; remove it, or give %s again", older, option)

    def write(self, product: Product, item: ItemScene | None, overwrite: bool) -> None:
        """Beside a product that was kept, what is there is kept, too: nothing tells whose it is."""
        from pansharpen_cli.outputs.qgis import write_style
        from pansharpen_cli.outputs.quicklook import write_quicklook
        from pansharpen_cli.stac import write_item

        for option, path in self.asked.items():
            if product.kept and not overwrite and os.path.lexists(path):
                log.warning("%s exists already; it is kept", path)
            elif option == "--quicklook":
                write_quicklook(product.path, path)
            elif option == "--qgis-style":
                write_style(product.path)
            else:
                write_item(product, item)


def _summary(product: Product, url: str | None, quicklook: Path | None) -> str:
    if product.kept:
        return f"{url or product.path} is finished already; it is kept"
    lines = [
        f"{url or product.path}: {product.width} x {product.height}, {len(product.bands)} bands "
        f"({', '.join(product.bands)}), {product.dtype}",
        f"by {product.method} on {product.device} in {product.seconds:.1f} s "
        f"({product.megapixels_per_second:.2f} MPix/s)",
    ]
    return "\n".join(lines + ([f"to look at: {quicklook}"] if quicklook else []))


def _as_json(product: Product, url: str | None, quicklook: Path | None) -> dict[str, object]:
    return {
        **asdict(product),
        "path": url or str(product.path),
        "megapixels_per_second": product.megapixels_per_second,
        "quicklook": str(quicklook) if quicklook else None,
    }
