"""Files by name and content: how they are told to people, and what they hold in one number."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path


def digest(path: str | Path) -> str:
    """SHA-256 of a local file, hexadecimal; "" for what is none (a URL, a missing file)."""
    if not os.path.isfile(path):  # which any name can be asked for
        return ""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def redacted(text: str | Path) -> str:
    """A path, or a text with paths in it, without what may be secret in a URL: user, password and query."""
    return re.sub(r"\?\S*", "?...", re.sub(r"(://)[^/@\s]+@", r"\1...@", str(text)))


def remove_partials(path: Path, process: int | None = None) -> None:
    """What a killed process, or any, left of a file that it was writing: see `writer.partial_beside`."""
    whose = r"\d+" if process is None else str(process)
    name = re.compile(rf"\.{re.escape(path.name)}\.{whose}\.[0-9a-f]+\.partial")
    for partial in filter(lambda other: name.fullmatch(other.name), path.parent.iterdir()):
        partial.unlink(missing_ok=True)
