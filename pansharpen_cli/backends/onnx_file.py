"""An exported model as a file: what it says of itself, and what is checked of it before any runtime sees it.

The file may come from anybody. It is read here as protobuf wire format, field by field (onnx.proto of the ONNX project
gives the numbers), so that a run needs no package but onnxruntime, and that nothing is parsed which is not wanted:
nodes and tensors are only asked for what could reach beyond the file.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pansharpen_cli.errors import ModelError
from pansharpen_cli.modelspec import ModelSpec

SPEC_KEY = "pansharpen"
"""Metadata: the model's spec.json."""
OBSERVER_KEY = "pansharpen.observe"
"""Metadata: a second ONNX file, base64, from crops `pan` and `ms` to the scene statistics by name."""
BANDS_KEY = "pansharpen.bands"
"""Metadata: how many bands the graph takes; 0: any number."""
PRECISION_KEY = "pansharpen.precision"
"""Metadata: what its convolutions are computed in, FLOAT32 or MIXED."""

FLOAT32 = "float32"
MIXED = "mixed-float16"
"""Convolutions in half precision, all between them in single precision."""

SIZE_LIMIT = 2**28
"""Bytes of a file; the largest network here has a hundredth of it."""
DEEPEST = 32
"""Graphs within graphs."""
DOMAINS = {"", "ai.onnx"}
"""Whose operators a graph may use: those of the standard. Others come from libraries, or read files."""
MOST_BANDS = 4096


@dataclass(frozen=True, eq=False)
class OnnxFile:
    """An exported model whose file was read and found harmless as far as that can be seen."""

    path: Path
    content: bytes = field(repr=False)
    spec: ModelSpec
    observer: bytes | None = field(repr=False)
    bands: int
    precision: str
    opset: int

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()

    @classmethod
    def read(cls, path: Path) -> OnnxFile:
        """The exported model in a file. Raises ModelError in one sentence if it is none, or asks for anything but the
        standard operators and data of its own (or of files in its own folder)."""
        try:
            if path.stat().st_size > SIZE_LIMIT:
                raise ModelError(
                    f"{path} is larger than {SIZE_LIMIT >> 20} MiB, which no model here is; export it again"
                )
            content = path.read_bytes()
        except OSError as error:
            raise ModelError(f"{path} cannot be read: {error.strerror}; name an exported model") from error
        return cls.of(content, path)

    @classmethod
    def of(cls, content: bytes, path: Path) -> OnnxFile:
        """The same for the content of a file; `path` names it in errors, and its folder may hold external data."""
        opset, metadata = _checked(content, path)
        if SPEC_KEY not in metadata:
            raise ModelError(f"{path} was not written by `pansharpen export`: its metadata has no {SPEC_KEY!r}")
        spec = ModelSpec.from_json(metadata[SPEC_KEY], f"the metadata of {path}")
        bands, precision = metadata.get(BANDS_KEY, ""), metadata.get(PRECISION_KEY, FLOAT32)
        if not bands.isdecimal() or int(bands[:8]) > MOST_BANDS or precision not in (FLOAT32, MIXED):
            raise ModelError(f"the metadata of {path} makes no sense; export the model again")
        observer = None
        if OBSERVER_KEY in metadata:
            try:
                observer = base64.b64decode(metadata[OBSERVER_KEY], validate=True)
            except (binascii.Error, ValueError) as error:
                raise ModelError(f"the metadata of {path} makes no sense; export the model again") from error
            _checked(observer, path)
        return cls(path, content, spec, observer, int(bands), precision, opset)


def _checked(content: bytes, path: Path) -> tuple[int, dict[str, str]]:
    """Version of the standard operators, and the metadata, of an ONNX file that reaches for nothing beyond it."""
    try:
        model = _Model(memoryview(content))
    except _MalformedError as error:
        raise ModelError(f"{path} is not an ONNX file ({error}); export the model again") from error
    if model.foreign - DOMAINS:
        names = ", ".join(repr(name) for name in sorted(model.foreign - DOMAINS)[:3])
        raise ModelError(f"{path} uses operators that are not ONNX's own (domain {names}), which are not loaded")
    for location in sorted(model.external):
        _check_location(path, location)
    return model.opset, model.metadata


def _check_location(path: Path, location: str) -> None:
    """External data lies in the model's folder, whatever links say, or the model is refused."""
    folder = path.parent.resolve()
    try:
        target = (folder / location).resolve()
        inside = not Path(location).is_absolute() and target.is_relative_to(folder) and target.is_file()
    except (OSError, ValueError, RuntimeError):  # names that no file can have, links in a circle
        inside = False
    if not inside:
        raise ModelError(f"{path} wants data from {location[:200]!r}, which is no file in its folder; it is not loaded")


class _MalformedError(Exception):
    """Not what the wire format allows."""


Value = int | memoryview


class _Model:
    """What is collected from a ModelProto: every domain that is named, every place of external data, the metadata."""

    def __init__(self, content: memoryview) -> None:
        self.opset = 0
        self.foreign: set[str] = set()
        self.external: set[str] = set()
        self.metadata: dict[str, str] = {}
        graphs = 0
        for number, value in _fields(content):
            if number == 7:
                self._graph(_message(value), DEEPEST)
                graphs += 1
            elif number == 8:
                self._opset(_message(value))
            elif number == 14:
                self.metadata.update([_pair(_message(value))])
            elif number in (20, 25):  # they hold nodes of their own
                raise _MalformedError("it has training information or functions")
        if graphs != 1:
            raise _MalformedError("it has no graph" if not graphs else "it has several graphs")

    def _opset(self, message: memoryview) -> None:
        entry = dict(_fields(message))
        domain = _text(entry.get(1, memoryview(b"")))
        self.foreign.add(domain)
        if domain in DOMAINS and isinstance(version := entry.get(2), int):
            self.opset = version

    def _graph(self, message: memoryview, depth: int) -> None:
        if not depth:
            raise _MalformedError(f"its graphs are nested more than {DEEPEST} deep")
        for number, value in _fields(message):
            if number == 1:
                self._node(_message(value), depth)
            elif number == 5:
                self._tensor(_message(value))
            elif number == 15:
                self._sparse(_message(value))

    def _node(self, message: memoryview, depth: int) -> None:
        for number, value in _fields(message):
            if number == 5:
                self._attribute(_message(value), depth)
            elif number == 7:
                self.foreign.add(_text(value))

    def _attribute(self, message: memoryview, depth: int) -> None:
        for number, value in _fields(message):
            if number in (5, 10):
                self._tensor(_message(value))
            elif number in (6, 11):
                self._graph(_message(value), depth - 1)
            elif number in (22, 23):
                self._sparse(_message(value))

    def _sparse(self, message: memoryview) -> None:
        for number, value in _fields(message):
            if number in (1, 2):
                self._tensor(_message(value))

    def _tensor(self, message: memoryview) -> None:
        locations, is_external = [], False
        for number, value in _fields(message):
            if number == 13:
                name, text = _pair(_message(value))
                locations += [text] if name == "location" else []
            elif number == 14:
                is_external = is_external or value != 0
        if is_external or locations:
            self.external.update(locations or [""])


def _fields(message: memoryview) -> Iterator[tuple[int, Value]]:
    """Number and value of every field of a message."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if kind == 2:
            size, at = _varint(message, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise _MalformedError("a field has no known kind")
        if number == 0 or at + size > len(message):
            raise _MalformedError("a field ends beyond its message")
        yield number, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number that begins at `at`, and where it ends."""
    value = 0
    for index, byte in enumerate(message[at : at + 10]):
        value |= (byte & 127) << (7 * index)
        if byte < 128:
            return value, at + index + 1
    raise _MalformedError("a number does not end")


def _message(value: Value) -> memoryview:
    if isinstance(value, int):
        raise _MalformedError("a number stands where a message should")
    return value


def _text(value: Value) -> str:
    try:
        return bytes(_message(value)).decode()
    except UnicodeDecodeError as error:
        raise _MalformedError("a name is no text") from error


def _pair(message: memoryview) -> tuple[str, str]:
    entry = dict(_fields(message))
    return _text(entry.get(1, memoryview(b""))), _text(entry.get(2, memoryview(b"")))
