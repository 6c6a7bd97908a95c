"""Files by name and content: how they are told to people, and what they hold in one number."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import rmtree
from tempfile import gettempdir

from pansharpen_cli.errors import OutputError

PASSING = "pansharpen-sending-"
"""What the name of a temporary folder begins with in which a product is written that upload.py then sends away."""


def digest(*paths: str | Path) -> str:
    """SHA-256 of a local file, or of several one after the other, hexadecimal; "" if one is none (a URL, a missing
    file)."""
    if not all(map(os.path.isfile, paths)):  # which any name can be asked for
        return ""
    import hashlib  # and OpenSSL, which a help does without

    total = hashlib.sha256()
    for path in paths:
        with open(path, "rb") as file:
            while part := file.read(2**20):
                total.update(part)
    return total.hexdigest()


@contextmanager
def in_words(failure: str) -> Iterator[None]:
    """The system's errors as an OutputError that begins with `failure`."""
    try:
        yield
    except OSError as error:
        raise OutputError(f"{failure}: {error.strerror}") from error


def redacted(text: str | Path) -> str:
    """A path, or a text with paths in it, without what may be secret in a URL: user, password and query. The name of a
    file that is there is none."""
    if os.path.lexists(text):
        return str(text)
    return re.sub(r"\?\S*", "?...", re.sub(r"(://)[^/@\s]+@", r"\1...@", str(text)))


def told_of(name: str | Path, text: str) -> str:
    """What a library says of a file: without secrets, but with the file's name, as `redacted` has it, whole."""
    known = redacted(name)
    return known.join(map(redacted, text.split(known))) if known else redacted(text)


def why_unseen(path: str | Path) -> str:
    """What keeps a path from being seen, as the end of a sentence that begins with it."""
    try:
        os.stat(path)
    except PermissionError:
        return "is in a folder that you may not look into"
    except (OSError, ValueError):
        pass
    return "does not exist"


def same_file(one: str | Path, other: str | Path) -> bool:
    """True if both are there and are one file, by whatever names."""
    return os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)


def real(path: str | Path) -> str:
    """Where a path leads, whatever its links; itself if no file can have such a name."""
    try:
        return os.path.realpath(path)
    except (OSError, ValueError):
        return str(path)


def is_utf8(path: str | Path) -> bool:
    """False for a name of other bytes, which the system gives as lone surrogates: GDAL cannot be told of it."""
    return not re.search(r"[\ud800-\udfff]", str(path))


def check_folder(folder: Path) -> None:
    """Raises OutputError unless files may appear in `folder`, which may have to be made."""
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not os.path.isdir(there):
        raise OutputError(f"{folder} cannot be a folder, as {there} is a file; give another name")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"{folder} cannot hold files, as you may not write to {there}; choose another folder")


def named_from(folder: Path, path: str | Path) -> str:
    """What a file is called from `folder`: relative to it, so that both are found again after a move together.

    Absolute if the two share no folder but the root, or lie on two drives. As given, without secrets, if it is no local
    file, or if nothing stays in `folder`.
    """
    if not os.path.isfile(path) or is_passing(folder):
        return redacted(path)
    for seen in (os.path.abspath, os.path.realpath):  # ".." behind a link leads to where its target lies
        here, there = seen(folder), seen(path)
        if not _share_a_folder(here, there):
            break
        name = os.path.relpath(there, here)
        if same_file(os.path.join(folder, name), path):
            return Path(name).as_posix()
    return os.path.abspath(path)


def is_passing(folder: Path) -> bool:
    """True for a folder out of which a product is sent away."""
    return folder.name.startswith(PASSING) and same_file(folder.parent, gettempdir())


def passing(process: int) -> str:
    """What the names of a process's passing folders begin with. Containers that share a folder share numbers, too."""
    return f"{PASSING}{platform.node()}-{process}-"


def remove_passing(process: int) -> None:
    """The passing folders that a killed process left."""
    for folder in Path(gettempdir()).glob(f"{passing(process)}*"):
        rmtree(folder, ignore_errors=True)


def _share_a_folder(one: str, other: str) -> bool:
    """Besides the root. Both are absolute."""
    try:
        shared = os.path.commonpath([one, other])
    except ValueError:  # on two drives
        return False
    return os.path.dirname(shared) != shared


def remove_partials(path: Path, process: int | None = None) -> None:
    """What a killed process, or any, left of a file that it was writing."""
    for partial in partials(path, process):
        partial.unlink(missing_ok=True)


def partials(path: Path, process: int | None = None) -> list[Path]:
    """The temporaries of a file beside it, those of one process or of any: see `target.partial_beside`."""
    whose = r"\d+" if process is None else str(process)
    begin, rest = f".{path.name}.", re.compile(rf"{whose}\.[0-9a-f]+\.partial")
    near = [name for name in os.listdir(path.parent) if name.startswith(begin)]  # of as many as there are scenes
    return [path.with_name(name) for name in near if rest.fullmatch(name, len(begin))]
