"""The scenes of a batch, from a manifest: CSV with a header, or JSON Lines. See docs/batch.md."""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from pansharpen_cli import zoo
from pansharpen_cli.classical import METHODS
from pansharpen_cli.errors import ModelError, SceneError, UsageError
from pansharpen_cli.inputs.coregistration import parse as parse_shift
from pansharpen_cli.inputs.mosaic import files_of
from pansharpen_cli.job import Job
from pansharpen_cli.system import settings
from pansharpen_cli.system.files import is_utf8, real, redacted
from pansharpen_cli.system.locations import anywhere, is_remote

PATHS = ("pan", "ms", "out")

SETTINGS: dict[str, Callable[[str], object]] = {
    "model": str,
    "coregister": parse_shift,
    "bands": lambda text: settings.numbers(text, "bands"),
    "band_names": lambda text: settings.names(text, "band_names"),
    "nodata": lambda text: settings.nodata(text, "nodata"),
    "sensor": str,
    "resampling": str,
    "dtype": str,
    "format": str,
    "creation_options": lambda text: settings.key_values(text.split(","), "creation_options"),
    "tile": lambda text: settings.whole_number(text, "tile"),
}
"""Fields of a job that a scene may have a column for, and what its text means; the job knows which words there are."""

Row = Mapping[str, Any]


def read_manifest(path: Path, folder: Path, common: Job, root: Path | None = None) -> list[Job]:
    """The jobs of a manifest, their products in `folder`; a scene has what it does not say itself from `common`.

    With a `root`, PAN and MS must lie below that folder, wherever links lead, and nothing is fetched. Raises SceneError
    that names manifest, scene and column.
    """
    rows = _json_lines(path) if path.suffix.lower() in (".jsonl", ".ndjson") else _csv(path)
    if not rows:
        raise SceneError(f"{path} names no scenes; write a line for each")
    jobs = [_job(row, f"{path}, scene {number}", path.parent, folder, common) for number, row in enumerate(rows, 1)]
    if root is not None:
        for number, job in enumerate(jobs, 1):
            check_below(root, job, f"{path}, scene {number}")
    _check_models(jobs, str(path))
    return jobs


def _csv(path: Path) -> list[Row]:
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            rows: list[Row] = list(reader)
            _check_columns(reader.fieldnames or [], str(path))
            _check_once(reader.fieldnames or [], f"{path}, line 1,")
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SceneError(f"{path} cannot be read as a manifest: {error}") from error
    for number, row in enumerate(rows, 1):
        if None in row:
            raise SceneError(f"{path}, scene {number}, has more fields than columns; quote those that hold a comma")
    return rows


def _json_lines(path: Path) -> list[Row]:
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SceneError(f"{path} cannot be read as a manifest: {error}") from error
    rows = [_json(line, f"{path}, line {number},") for number, line in enumerate(lines, 1) if line.strip()]
    for number, row in enumerate(rows, 1):
        _check_columns(list(row), f"{path}, scene {number},")
    return rows


def _json(line: str, where: str) -> Row:
    def understood(pairs: list[tuple[str, Any]]) -> Row:
        _check_once([key for key, _ in pairs], where)
        return dict(pairs)

    try:
        row = json.loads(line, object_pairs_hook=understood)
    except (ValueError, RecursionError) as error:
        reason = f"{error.msg} at character {error.pos + 1}" if isinstance(error, json.JSONDecodeError) else error
        raise SceneError(f"{where} is no JSON object: {reason}; write one a line") from error
    if not isinstance(row, dict):
        raise SceneError(f"{where} is no JSON object; write one a line")
    return row


def _check_columns(columns: Sequence[str], where: str) -> None:
    known = (*PATHS, *SETTINGS)
    for column in columns:
        if column not in known:
            raise SceneError(f"{where} has the unknown column {column!r}; known are {', '.join(known)}")
    for column in ("pan", "ms"):
        if column not in columns:
            raise SceneError(f"{where} has no column {column!r}; a scene needs pan and ms")


def _check_once(columns: Sequence[str], where: str) -> None:
    for column, times in Counter(columns).items():
        if times > 1:
            raise SceneError(f"{where} has {column!r} {times} times; leave one of them")


def _job(row: Row, where: str, beside: Path, folder: Path, common: Job) -> Job:
    """`beside`: the manifest's folder, which its paths start from."""

    def placed(text: str) -> str:
        return text if is_remote(text) else str(beside / text)

    pan, ms = _text(row["pan"]), row["ms"]
    parts = [_text(part) for part in (ms if isinstance(ms, list) else _text(ms).split(";"))]
    if not pan or not any(parts):
        raise SceneError(f"{where} lacks its pan or its ms; fill it in")
    texts = {name: _text(row.get(name)) for name in SETTINGS}
    try:
        output = _output(_text(row.get("out")), placed(pan), folder)
        own: dict[str, Any] = {name: SETTINGS[name](text.replace(";", ",")) for name, text in texts.items() if text}
        return replace(common, pan=placed(pan), ms=[placed(part) for part in parts if part], output=output, **own)
    except UsageError as error:
        raise SceneError(f"{where}: {error}") from error


def _check_models(jobs: Sequence[Job], manifest: str) -> None:
    """Each name once, however many scenes have it."""
    first: dict[str, int] = {}
    for number, job in enumerate(jobs, 1):
        first.setdefault(job.model, number)
    for name, number in first.items():
        try:
            check_model(name)
        except ModelError as error:
            raise SceneError(f"{manifest}, scene {number}: {error}") from error


def check_model(name: str) -> None:
    """Raises ModelError if no method, and no model of the zoo or of a path, is called so."""
    if name != "auto" and name not in METHODS:
        zoo.find(name, besides=METHODS)


def check_below(root: Path, job: Job, where: str) -> None:
    """Raises SceneError if a file of the job, wherever links lead, is not below `root`, or would be fetched."""
    for path in (job.pan, *job.ms):
        for file in files_of(path):
            if is_remote(file) or not Path(real(file)).is_relative_to(real(root)):
                raise SceneError(f"{where} names {redacted(file)}, which is not below --root {root}")


def _text(value: object) -> str:
    """A JSON value as a CSV file would hold it."""
    if isinstance(value, list):
        return ";".join(map(_text, value))
    if isinstance(value, dict):
        return ";".join(f"{key}={_text(part)}" for key, part in value.items())
    return "" if value is None else str(value).strip()


def _scene(pan: str) -> str:
    """What a scene is called that has no `out`: as its PAN, or as its folder if that is called pan."""
    path = PurePath(pan.partition("?")[0] if is_remote(pan) else anywhere(pan))
    return path.parent.name if path.stem.lower() == "pan" and path.parent.name else path.stem


def _output(text: str, pan: str, folder: Path) -> Path:
    """`text`: what the scene has as its `out`, if anything."""
    name = text or _scene(pan)
    path = PurePath(name)
    if path.is_absolute() or not path.name or ".." in path.parts or "\0" in name or not is_utf8(name):
        if text:
            raise UsageError(f"out is a name in the folder of the products, not {text!r}")
        raise UsageError("it has no name of its own; give it an out")
    suffixed = path.suffix.lower() in (".tif", ".tiff")
    return folder / (path if suffixed else path.with_name(f"{path.name}.tif"))
