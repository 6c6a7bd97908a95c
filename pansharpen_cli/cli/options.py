"""Options that commands share, as annotated types, and how their texts become values."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated

import typer

from pansharpen_cli.errors import DeviceError, ModelError, SceneError, UsageError
from pansharpen_cli.system import memory, settings
from pansharpen_cli.system.files import why_unseen

Output = Annotated[Path, typer.Option("--output", "-o", help="The file to write.", show_default=False)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no messages but errors.")]
Verbose = Annotated[int, typer.Option("--verbose", "-v", count=True, help="More messages; -vv: tracebacks.")]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda or cuda:N, with onnx tensorrt too; what is asked for is used, or it fails.")
]
ParityScene = Annotated[
    tuple[str, str] | None,
    typer.Option("--scene", metavar="PAN MS", help="Compare on this scene; default: the example.", show_default=False),
]
Tolerance = Annotated[float, typer.Option(min=0, help="Largest difference that passes, in DN.")]
Threads = Annotated[int, typer.Option("--threads", "-j", min=0, help="CPU threads; 0: all.")]
MaxMemory = Annotated[
    str | None,
    typer.Option(metavar="SIZE", help="Most memory of a process, like 4G; changes no pixel.", show_default=False),
]

Scheduler = Annotated[
    str | None,
    typer.Option(metavar="tcp://HOST:PORT", help="Let the workers of this Dask scheduler do it.", show_default=False),
]


def scheduler(text: str | None) -> str | None:
    """An address, if one is given. Raises UsageError for "", which a variable that is not set leaves."""
    if text == "":
        raise UsageError("--scheduler names no address; give tcp://HOST:PORT, or leave it out")
    return text


def key_values(texts: list[str], option: str) -> dict[str, str]:
    """`["COMPRESS=ZSTD"]` -> {"COMPRESS": "ZSTD"}."""
    return settings.key_values(texts, option)


def numbers(text: str | None, option: str) -> list[int] | None:
    """Band numbers: "1,3-5" -> [1, 3, 4, 5]."""
    return None if text is None else settings.numbers(text, option)


def names(text: str | None, option: str) -> list[str] | None:
    """Names separated by commas, if there are any."""
    return None if text is None else settings.names(text, option)


def sensor(text: str, *, measured: bool = False) -> str:
    """A sensor by its name, or by its gain, or one that is to be `measured`."""
    from pansharpen_cli.imaging import mtf

    also = [mtf.MEASURED] if measured else []
    if text not in also:
        mtf.find_sensor(text, "--sensor", also)
    return text


def device(text: str) -> str:
    """A device by a name that some backend knows; whether it works is seen when it is used."""
    if not re.fullmatch(r"auto|(cpu|cuda|tensorrt)(:\d+)?", text):
        raise DeviceError(f"--device {text} is unknown; give auto, cpu, cuda or cuda:N, with onnx also tensorrt")
    return text


def network(text: str, done: str) -> str:
    """What --model or an argument names, several by commas, if it is no classical method: that cannot be `done`."""
    from pansharpen_cli.classical import METHODS

    for name in [text] if os.path.exists(text) and text not in METHODS else text.split(","):
        if name in METHODS:
            raise ModelError(f"{name} is a classical method, which cannot be {done}; `pansharpen models` has networks")
    return text


def existing(path: Path, what: str) -> Path:
    """A file or folder to read. Raises SceneError if it is not there."""
    if not os.path.exists(path):
        raise SceneError(f"{path} {why_unseen(path)}; give {what}")
    return path


def max_memory(text: str | None) -> int | None:
    """Bytes: "4G" -> 2**32."""
    return None if text is None else memory.parse(text, "--max-memory")
