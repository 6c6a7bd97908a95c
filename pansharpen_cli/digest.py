"""What a file holds, in one number."""

from __future__ import annotations

import hashlib
from pathlib import Path


def digest(path: str | Path) -> str:
    """SHA-256 of a local file, hexadecimal; "" for what is none (a URL, a missing file)."""
    if not Path(path).is_file():
        return ""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
