"""`pansharpen batch`: sharpen many scenes."""

from __future__ import annotations

import json
import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pansharpen_cli.cli import console, options
from pansharpen_cli.cli.run import Backend, Format, Resampling
from pansharpen_cli.errors import BatchError, UsageError
from pansharpen_cli.system import settings

if TYPE_CHECKING:
    from pansharpen_cli.batch.pairing import Unpaired
    from pansharpen_cli.batch.plan import Plan
    from pansharpen_cli.batch.run import Batch
    from pansharpen_cli.batch.summary import Summary

log = logging.getLogger(__name__)


def batch(
    scenes: Annotated[
        Path, typer.Argument(help="A manifest (.csv, .jsonl), or a folder of files to pair.", show_default=False)
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output",
            "-o",
            metavar="PATH",
            help="The folder of the products, here or at s3://, gs:// or az://.",
            show_default=False,
        ),
    ],
    model: Annotated[
        str, typer.Option("--model", "-m", help="As for run: auto, a network or its folder, or a classical method.")
    ] = "auto",
    coregister: Annotated[str, typer.Option(help="PAN-MS shift: off, report, auto, or DX,DY in PAN pixels.")] = "auto",
    device: Annotated[str, typer.Option(help="As for run; several, like cuda:0,cuda:1, go to as many workers.")] = (
        "auto"
    ),
    backend: Annotated[Backend, typer.Option(help="What computes networks.")] = Backend.auto,
    nodata: Annotated[
        str, typer.Option(help="Value without data: a number, nan, none, or file (what the files say).")
    ] = "file",
    sensor: Annotated[str, typer.Option(help="How the MS camera blurs, as for run.")] = "measured",
    resampling: Annotated[
        Resampling, typer.Option("--resampling", "-r", help="Kernel for an MS off the PAN's grid.")
    ] = Resampling.sinc,
    dtype: Annotated[
        str | None, typer.Option("--dtype", "-t", help="Data type of the products; default: the MS's.")
    ] = None,
    format: Annotated[
        Format, typer.Option("--format", "-f", case_sensitive=False, help="Format of the products.")
    ] = Format.gtiff,
    co: Annotated[
        list[str] | None, typer.Option("--co", metavar="KEY=VALUE", help="Creation option, repeatable, as for run.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="Inputs may lie below this folder only, links followed.", show_default=False)
    ] = None,
    summaries: Annotated[
        Path | None,
        typer.Option(
            "--summary-folder",
            help="The folder of the summary, if it is not that of the products; needed if these go to a store.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be done, and do nothing.")] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Keep finished products, and go on with what was begun.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing products.")] = False,
    fail_fast: Annotated[
        bool, typer.Option("--fail-fast/--keep-going", help="Begin no more scenes after one has failed.")
    ] = False,
    retries: Annotated[
        int,
        typer.Option(min=0, help="Further attempts at a scene whose process died or whose writing failed."),
    ] = 1,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes; each does one scene at a time.")] = 1,
    scheduler: options.Scheduler = None,
    shard: Annotated[
        str, typer.Option(help="Do part I/N only, like 1/16; auto or auto/N: that of this member of a job array.")
    ] = "1/1",
    qnr: Annotated[bool, typer.Option("--qnr", help="Also measure the HQNR of every product.")] = False,
    tile: Annotated[int | None, typer.Option("--tile-size", min=32, help="PAN pixels a side of a tile.")] = None,
    threads: options.Threads = 0,
    max_memory: options.MaxMemory = None,
    json_: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = 0,
) -> None:
    """Sharpen many scenes; one that fails does not stop the others.

    pansharpen batch manifest.csv -o products --workers 4 --resume

    pansharpen batch folder-of-scenes -o products --dry-run
    """
    console.set_up(quiet, verbose)
    if options.scheduler(scheduler) and ("," in device or workers > 1):
        raise UsageError("--scheduler has its own workers; give no --workers, and one --device for all")
    devices = [options.device(name) for name in options.names(device, "--device") or []]
    if len(devices) > workers:
        raise UsageError(f"--device names {len(devices)} devices for fewer processes; give --workers {len(devices)}")
    options.existing(scenes, "a manifest (.csv, .jsonl), or a folder of scenes")
    count = console.threads(threads)
    os.environ["OMP_NUM_THREADS"] = str(max(1, count // workers))  # the workers', who inherit it
    from pansharpen_cli.batch import shards
    from pansharpen_cli.batch.gather import gather
    from pansharpen_cli.batch.run import Batch, sharpen_all
    from pansharpen_cli.inputs import coregistration
    from pansharpen_cli.job import Job
    from pansharpen_cli.system import locations

    folder = locations.output(output, folder=True)
    common = Job(
        pan="",
        ms=(),
        output=folder,
        model=model,
        coregister=coregistration.parse(coregister),
        backend=backend.value,
        nodata=settings.nodata(nodata, "--nodata"),
        sensor=options.sensor(sensor, measured=True),
        resampling=resampling.value,
        dtype=settings.one_of(dtype, settings.DTYPES, "--dtype") if dtype is not None else None,
        format=format.value,
        creation_options=options.key_values(co or [], "--co"),
        overwrite=overwrite,
        tile=tile,
        max_memory=options.max_memory(max_memory),
    )
    jobs, unpaired = gather(scenes, folder, common, root)
    task = Batch(
        jobs=jobs,
        folder=folder,
        shard=shards.parse(shard, os.environ),
        workers=workers,
        devices=devices,
        threads=threads if scheduler else count,
        retries=retries,
        fail_fast=fail_fast,
        resume=resume,
        qnr=qnr,
        scheduler=scheduler,
        summaries=summaries,
        manifest=None if scenes.is_dir() else scenes,
    )
    for lone in unpaired:
        log.warning("%s is left out: %s", lone.path, lone.reason)
    if dry_run:
        _show_plan(task, unpaired, json_)
        return
    with console.progress(quiet, "scene") as tell:
        summary = sharpen_all(task, lambda done, failed, total: tell(done, total, f"{failed} failed" if failed else ""))
    _report(summary, unpaired, json_, quiet)


def _show_plan(task: Batch, unpaired: list[Unpaired], json_: bool) -> None:
    """Raises BatchError if some scenes cannot be sharpened."""
    from pansharpen_cli.batch.plan import plan

    plans = list(plan(task))
    if json_:
        console.put(json.dumps({"scenes": [asdict(one) for one in plans], "unpaired": _as_json(unpaired)}))
    else:
        console.put("\n".join(_table(plans)))
    bad = sum(one.status == "unusable" for one in plans)
    if bad:
        raise BatchError(f"{bad} of {len(plans)} scenes cannot be sharpened; mend them or leave them out")


def _table(plans: list[Plan]) -> Iterator[str]:
    scenes = max([5, *(len(one.scene) for one in plans)])
    yield f"{'scene':{scenes}}  {'size':>13}  bands  {'tiles':>12}  {'memory':>8}  {'output':>10}  {'time':>7}  method"
    for one in plans:
        if one.status != "make":
            yield f"{one.scene:{scenes}}  {one.status}: {one.message}"
            continue
        size, tiles = f"{one.width} x {one.height}", f"{one.tiles} of {one.tile}"
        seconds = f"{one.seconds:.0f} s" if one.seconds is not None else "-"
        yield (
            f"{one.scene:{scenes}}  {size:>13}  {one.bands:5}  {tiles:>12}  {_megabytes(one.memory):>8}  "
            f"{_megabytes(one.output):>10}  {seconds:>7}  {one.method}"
        )
    known = [one.seconds for one in plans if one.seconds is not None]
    yield (
        f"{sum(one.status == 'make' for one in plans)} of {len(plans)} scenes to make, at most "
        f"{_megabytes(sum(one.output for one in plans))}"
        + (f", {sum(known):.0f} s of one worker for {len(known)} of them" if known else "")
    )


def _megabytes(nbytes: int) -> str:
    return f"{nbytes / 1e6:,.0f} MB"


def _report(summary: Summary, unpaired: list[Unpaired], json_: bool, quiet: bool) -> None:
    """Raises BatchError if some scenes failed."""
    counts = Counter(outcome.status for outcome in summary.outcomes)
    total, failed = counts.total(), counts["failed"]
    told = {name: counts[name] for name in ("done", "kept", "failed", "left")}
    if json_:
        said = {"scenes": total, **told, "unpaired": _as_json(unpaired), "summary": str(summary.path)}
        console.put(json.dumps(said))
    elif not quiet:
        words = ", ".join(f"{count} {name}" for name, count in told.items() if count)
        console.say(f"{total} scenes: {words or 'none here'}; {summary.path}")
    if failed:
        raise BatchError(f"{failed} of {total} scenes failed; {summary.path} says why")


def _as_json(unpaired: list[Unpaired]) -> list[dict[str, str]]:
    return [{"path": str(lone.path), "reason": lone.reason} for lone in unpaired]
