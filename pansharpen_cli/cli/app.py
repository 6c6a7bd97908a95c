"""The program: its commands, and where errors become one sentence and an exit code."""

from __future__ import annotations

import atexit
import errno
import gc
import os
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from typing import Annotated, NoReturn

import typer

from pansharpen_cli import __version__
from pansharpen_cli.cli import console
from pansharpen_cli.cli.adapt import adapt
from pansharpen_cli.cli.batch import batch
from pansharpen_cli.cli.doctor import doctor
from pansharpen_cli.cli.eval import evaluate
from pansharpen_cli.cli.export import export
from pansharpen_cli.cli.import_ import import_weights
from pansharpen_cli.cli.models import models
from pansharpen_cli.cli.qnr import qnr
from pansharpen_cli.cli.report import report
from pansharpen_cli.cli.run import run
from pansharpen_cli.cli.train import train
from pansharpen_cli.errors import PansharpenError, UsageError
from pansharpen_cli.system.signals import INTERRUPTED, TERMINATED, Terminated, behind, listen

EXIT_CODES = {
    0: "ok",
    1: "failure",
    2: "usage",
    3: "unusable input",
    4: "unusable model or device",
    5: "some scenes of a batch failed",
    INTERRUPTED: "interrupted",
    TERMINATED: "terminated",
}

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Pansharpening with neural networks on real scenes: any size, seam-free, georeferenced.",
    epilog=f"Exit codes: {', '.join(f'{code} {meaning}' for code, meaning in EXIT_CODES.items())}.",
)
app.command(no_args_is_help=True)(run)
app.command(no_args_is_help=True)(batch)
app.command(no_args_is_help=True)(qnr)
app.command(no_args_is_help=True)(report)
app.command("eval", no_args_is_help=True)(evaluate)
app.command()(models)
app.command(no_args_is_help=True)(export)
app.command()(doctor)
app.command(no_args_is_help=True)(train)
app.command(no_args_is_help=True)(adapt)
app.command("import", no_args_is_help=True)(import_weights)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pansharpen {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


def main() -> NoReturn:
    """Run the command line, and leave with one of EXIT_CODES."""
    console.open_streams()
    listen()
    _collect_seldom()
    try:
        _check_words(sys.argv)
        code = app(standalone_mode=False)
    except (typer.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except Terminated as ended:
        code = ended.code
    except Exception as error:
        code = behind() or _exit_code(error)
    if code and code > 128:
        _leave_at_once(code)
    console.close_streams()
    sys.exit(code or 0)


def _check_words(words: Sequence[str]) -> None:
    """Raises UsageError for an empty one: as a path it would be the working folder, and an option would count as left
    out."""
    for before, word in pairwise(words):
        if not word or (word.startswith("--") and word.endswith("=")):
            which = word or (before if before.startswith("-") else f"the argument after {os.path.basename(before)}")
            raise UsageError(f"{which} is empty, as a variable that is not set leaves it; set it, or leave it out")


def _exit_code(error: Exception) -> int:
    """Of an error, which is told."""
    if isinstance(error, PansharpenError):
        return _told(str(error), error.exit_code)
    if isinstance(error, MemoryError):
        return _told("there is not enough memory; give a smaller --tile-size or fewer --threads", 1)
    if hasattr(error, "show"):  # the command line's own
        if hasattr(error, "message"):  # newer Typers have values checked by pydantic, which says so
            error.message = error.message.removeprefix("Value error, ")
        error.show()
        return getattr(error, "exit_code", 2)
    if isinstance(error, OSError) and error.errno == errno.ENOSPC and not error.filename:  # of help, or the version
        return _told(f"standard output takes nothing: {error.strerror}", 1)
    return _told(f"unexpected {type(error).__name__}: {error} (-vv shows where)", 1)


def _leave_at_once(code: int) -> NoReturn:
    """After a signal all is tidied up; but a thread may still be at work in GDAL, which would crash on the way out."""
    with suppress(OSError):  # nobody may be listening
        how = EXIT_CODES.get(code, EXIT_CODES[TERMINATED])
        print(f"pansharpen: {how}; nothing was written that is not whole", file=sys.stderr, flush=True)
        sys.stdout.flush()
    os._exit(code)


def _collect_seldom() -> None:
    """Python looks for garbage so often that big libraries take half a second more to import, and to leave."""
    gc.set_threshold(10_000, 50, 50)
    atexit.register(gc.freeze)


def _told(message: str, code: int) -> int:
    """Say what went wrong in one line, after the traceback if that was asked for."""
    if console.shown["tracebacks"]:
        traceback.print_exc()
    console.say(f"pansharpen: {' '.join(message.split())}")
    return code
