"""Options that commands share, as annotated types, and how their texts become values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pansharpen_cli.errors import UsageError

Output = Annotated[Path, typer.Option("--output", "-o", help="The file to write.", show_default=False)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing output.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no messages but errors.")]
Verbose = Annotated[int, typer.Option("--verbose", "-v", count=True, help="More messages; -vv: tracebacks.")]
Device = Annotated[
    str, typer.Option(help="auto, cpu, cuda or cuda:N; a device that is asked for is used, or it fails.")
]
Threads = Annotated[int, typer.Option("--threads", "-j", min=0, help="CPU threads; 0: all.")]


def key_values(texts: list[str], option: str) -> dict[str, str]:
    """`["COMPRESS=ZSTD"]` -> {"COMPRESS": "ZSTD"}."""
    for text in texts:
        if "=" not in text:
            raise UsageError(f"{option} takes KEY=VALUE, not {text!r}")
    return dict(text.split("=", 1) for text in texts)


def numbers(text: str | None, option: str) -> list[int] | None:
    """Band numbers: "1,3-5" -> [1, 3, 4, 5]."""
    if text is None:
        return None
    result: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not first.isdigit() or (last and not last.isdigit()):
            raise UsageError(f"{option} takes band numbers like 1,3-5, not {text!r}")
        result += range(int(first), int(last or first) + 1)
        if int(last or first) < int(first):
            raise UsageError(f"{option} takes ranges that go up, not {part!r}")
    return result


def names(text: str | None) -> list[str] | None:
    """Names separated by commas."""
    return None if text is None else [name.strip() for name in text.split(",")]
