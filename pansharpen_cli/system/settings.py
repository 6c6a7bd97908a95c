"""Settings of a job as people write them, on the command line or in a manifest, and the values they stand for.

`what` names the option or column in the message of a UsageError.
"""

from __future__ import annotations

import math
import operator
import os
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any, Literal, TypeVar

from pansharpen_cli.errors import UsageError

T = TypeVar("T")

NOT_GEOREFERENCED = "Dataset has no geotransform|The given matrix is equal to Affine.identity"
"""How rasterio's warnings of plain images begin, which are ours to take care of."""

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
"""Data types of a product."""


def one_of(text: str, known: Iterable[str], what: str) -> str:
    """`text`, which must be one of the known words."""
    if text not in (words := list(known)):
        raise UsageError(f"{what} knows {', '.join(words)}, not {text!r}")
    return text


def at_least(number: Any, what: str, least: int) -> int:
    """A whole number from `least` on, of whatever type, as an int."""
    with suppress(TypeError):
        if not isinstance(number, bool) and operator.index(number) >= least:
            return operator.index(number)
    raise UsageError(f"{what} takes a whole number from {least} on, not {number!r}")


def finite(number: Any, what: str) -> float:
    """A number of whatever type as a float."""
    with suppress(TypeError, ValueError):
        if not isinstance(number, str) and math.isfinite(number):
            return float(number)
    raise UsageError(f"{what} takes numbers, not {number!r}")


def positive(number: Any, what: str) -> float:
    """A number above 0 of whatever type as a float."""
    if isinstance(number, bool) or (value := finite(number, what)) <= 0:
        raise UsageError(f"{what} takes a number above 0, not {number!r}")
    return value


def flag(value: Any, what: str) -> bool:
    """True or False, of Python or NumPy."""
    if type(value).__name__ in ("bool", "bool_"):  # NumPy, which may not be loaded, has its own
        return bool(value)
    raise UsageError(f"{what} takes True or False, not {value!r}")


def path(value: Any, what: str) -> str | os.PathLike[str]:
    """A path, or a name, as it is."""
    if isinstance(value, str | os.PathLike):
        return value
    raise UsageError(f"{what} takes a name, not {value!r}")


def name(value: Any, what: str) -> str:
    """A name, or a path, as a str."""
    return os.fspath(path(value, what))


def several(values: Any, what: str, one: Callable[[Any, str], T]) -> list[T]:
    """A sequence of values, each as `one` has it."""
    if isinstance(values, str | Mapping) or not isinstance(values, Iterable):
        raise UsageError(f"{what} takes a list, not {values!r}")
    return [one(value, what) for value in values]


def whole_number(text: str, what: str) -> int:
    """ "512" -> 512."""
    try:
        return int(text)
    except ValueError:
        raise UsageError(f"{what} takes a whole number, not {text!r}") from None


def nodata(text: str, what: str) -> float | Literal["file", "none"]:
    """ "-9999" -> -9999.0; "nan", "none" and "file" as they say."""
    if text == "file":
        return "file"
    if text == "none":
        return "none"
    try:
        return float(text)
    except ValueError:
        raise UsageError(f"{what} takes a number, nan, none or file, not {text!r}") from None


def key_values(texts: Iterable[str], what: str) -> dict[str, str]:
    """`["COMPRESS=ZSTD"]` -> {"COMPRESS": "ZSTD"}."""
    pairs = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"{what} takes KEY=VALUE, not {text!r}")
        pairs[key] = value
    return pairs


def numbers(text: str, what: str) -> list[int]:
    """Band numbers: "1,3-5" -> [1, 3, 4, 5]."""
    result: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if not re.fullmatch(r"\d{1,5}(-\d{1,5})?", part):
            raise UsageError(f"{what} takes band numbers like 1,3-5, not {part!r}")
        result += range(int(first), int(last or first) + 1)
        if int(last or first) < int(first):
            raise UsageError(f"{what} takes ranges that go up, not {part!r}")
    return result


def names(text: str, what: str) -> list[str]:
    """Names separated by commas, none of them empty."""
    found = [name.strip() for name in text.split(",")]
    if not all(found):
        raise UsageError(f"{what} takes names separated by commas, none of them empty, not {text!r}")
    return found
