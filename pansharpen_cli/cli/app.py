"""The program: its commands, and where errors become one sentence and an exit code."""

from __future__ import annotations

import signal
import sys
import traceback
from typing import Annotated, NoReturn

import typer

from pansharpen_cli import __version__
from pansharpen_cli.cli.import_ import import_weights
from pansharpen_cli.cli.models import models
from pansharpen_cli.cli.qnr import qnr
from pansharpen_cli.cli.run import run
from pansharpen_cli.cli.train import train
from pansharpen_cli.errors import PansharpenError

INTERRUPTED = 130
TERMINATED = 143

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Pansharpening with neural networks on real scenes: any size, seam-free, georeferenced.",
)
app.command()(run)
app.command()(qnr)
app.command()(models)
app.command()(train)
app.command("import")(import_weights)


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
    """Run the command line. Exit codes: 0 ok, 1 failure, 2 usage, 3 unusable input, 4 unusable device or model."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))  # so that temporaries are removed
    try:
        code = app(standalone_mode=False)
    except PansharpenError as error:
        if "-vv" in sys.argv:
            traceback.print_exc()
        print(f"pansharpen: {error}", file=sys.stderr)
        code = error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        print("pansharpen: interrupted; nothing was written", file=sys.stderr)
        code = INTERRUPTED
    except Exception as error:
        if not hasattr(error, "show"):  # not one of the command line's own: a defect
            if "-vv" in sys.argv:
                raise
            print(f"pansharpen: unexpected {type(error).__name__}: {error} (-vv shows where)", file=sys.stderr)
            sys.exit(1)
        error.show()
        code = getattr(error, "exit_code", 2)
    sys.exit(code or 0)
