"""`pansharpen doctor`: what this machine can do, and what is wrong with it."""

from __future__ import annotations

import json
from enum import StrEnum
from typing import Annotated

import typer

from pansharpen_cli.cli import console, options


class Backend(StrEnum):
    """What would compute a network."""

    torch = "torch"
    onnx = "onnx"


def doctor(
    device: Annotated[
        str | None, typer.Option(help="Would run have this device? Exit code 4 if not.", show_default=False)
    ] = None,
    backend: Annotated[Backend, typer.Option(help="... with this backend.")] = Backend.torch,
    json_: options.Json = False,
    verbose: options.Verbose = 0,
) -> None:
    """Tell versions, devices that really start, conflicts, room, and the models that are found.

    pansharpen doctor --device cuda --backend onnx
    """
    console.set_up(False, verbose)
    from pansharpen_cli.doctor import examine

    diagnosis = examine(device, backend.value)
    console.put(json.dumps(diagnosis.as_dict()) if json_ else diagnosis.as_text())
    diagnosis.check()
