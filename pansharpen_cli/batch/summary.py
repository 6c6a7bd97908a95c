"""summary.jsonl: what became of every scene of a batch, one JSON object a line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from pathlib import Path
from types import TracebackType
from typing import Self

from pansharpen_cli.batch.scene import Outcome
from pansharpen_cli.errors import OutputError

FIELDS = {field.name for field in fields(Outcome)}


class Summary:
    """A line is written when a scene ends, so that a killed batch has told what it did; on leaving, the file is written
    anew, one line a scene in their order."""

    def __init__(self, path: Path, expected: Mapping[str, Outcome], keep: bool = False) -> None:
        """`expected`: what to say of each scene, in order, as long as nothing else is known; `keep` what the file says
        until then."""
        self.path = path
        self._mode = "a" if keep else "w"
        self._outcomes = dict(expected)

    @property
    def outcomes(self) -> list[Outcome]:
        """Of all scenes, in their order."""
        return list(self._outcomes.values())

    def add(self, outcome: Outcome) -> None:
        self._outcomes[outcome.scene] = outcome
        self._file.write(_line(outcome))
        self._file.flush()

    def __enter__(self) -> Self:
        """Raises OutputError."""
        try:
            self._file = open(self.path, self._mode, encoding="utf-8")
            if self._file.tell():
                self._file.write("\n")  # after a line that a killed batch may have left unfinished
        except OSError as error:
            raise OutputError(f"{self.path} cannot be written: {error.strerror}") from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        partial = self.path.with_name(f".{self.path.name}.partial")
        partial.write_text("".join(map(_line, self.outcomes)), encoding="utf-8")
        os.replace(partial, self.path)


def read_summary(paths: Iterable[Path]) -> dict[str, Outcome]:
    """What summaries say of each scene that was done, the last word last."""
    found: dict[str, Outcome] = {}
    for path in paths:
        for text in path.read_text(encoding="utf-8").splitlines():
            outcome = _outcome(text)
            if outcome and outcome.status in ("done", "kept"):
                found[outcome.scene] = outcome
    return found


def _line(outcome: Outcome) -> str:
    return json.dumps(asdict(outcome)) + "\n"


def _outcome(text: str) -> Outcome | None:
    """Of a line; None for one that was cut off or is another program's."""
    try:
        values = json.loads(text)
    except ValueError:
        return None
    return Outcome(**values) if isinstance(values, dict) and set(values) == FIELDS else None
