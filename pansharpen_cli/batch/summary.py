"""summary.jsonl: what became of every scene of a batch, one JSON object a line."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, fields, replace
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Self

from pansharpen_cli.batch.scene import Outcome
from pansharpen_cli.outputs.target import partial_beside
from pansharpen_cli.system.files import in_words, partials
from pansharpen_cli.system.locks import BusyError, alone, remove_dead, turn

FIELDS = {field.name for field in fields(Outcome)}


class Summary:
    """A line is written when a scene ends, so that a killed batch has told what it did; on leaving, the file is written
    anew, one line a scene in their order.

    Another batch may write the same file at the same time: what it made is not forgotten. Nor is what the file says of
    scenes that are none of this batch's. What batches that were killed while they wrote it anew left beside it goes.
    """

    def __init__(self, path: Path, expected: Mapping[str, Outcome], keep: bool = False) -> None:
        """`expected`: what to say of each scene, in order, as long as nothing else is known; `keep` what the file says
        until then."""
        self.path = path
        self._keep = keep
        self._outcomes = dict(expected)

    @property
    def outcomes(self) -> list[Outcome]:
        """Of all scenes of this batch, in their order."""
        return list(self._outcomes.values())

    def add(self, outcome: Outcome) -> None:
        self._outcomes[outcome.scene] = outcome
        with self._in_words(), turn(self.path), open(self.path, "a", encoding="utf-8") as file:  # it may be a new one
            file.write(_line(outcome))

    def __enter__(self) -> Self:
        """Raises OutputError."""
        how = "a" if self._keep else "w"
        with self._in_words(), turn(self.path), open(self.path, how, encoding="utf-8") as file:
            if file.tell():
                file.write("\n")  # after a line that a killed batch may have left unfinished
        with suppress(OSError):  # a folder that may not be listed
            remove_dead(partials(self.path))
        self._before = read_summary([self.path])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._in_words(), turn(self.path), _partial(self.path) as partial:
            self._add_what_others_told()
            lines = [*map(_line, self.outcomes), *self._of_others()]
            partial.write_text("".join(lines), encoding="utf-8")
            os.replace(partial, self.path)

    def _in_words(self) -> AbstractContextManager[None]:
        return in_words(f"{self.path} cannot be written")

    def _add_what_others_told(self) -> None:
        for scene, told in read_summary([self.path]).items():
            own = self._outcomes.get(scene)
            if own and told != self._before.get(scene):
                gave_up = self._keep and own.status == "failed"  # as another batch was at it, which made it later
                self._outcomes[scene] = told if gave_up else _together(own, told)

    def _of_others(self) -> list[str]:
        """The last line of each scene that is none of this batch's."""
        told = {outcome.scene: f"{text}\n" for text, outcome in _read(self.path)}
        return [line for scene, line in told.items() if scene not in self._outcomes]


@contextmanager
def _partial(path: Path) -> Iterator[Path]:
    """A temporary file beside `path`, locked so that no other batch takes it for a killed one's."""
    with ExitStack() as life:
        while True:
            partial = partial_beside(path)
            with suppress(BusyError):  # another batch was quicker to look whether it lives
                life.enter_context(alone(partial, path))
                break
        try:
            yield partial
        finally:
            with suppress(OSError):
                partial.unlink()


def read_summary(paths: Iterable[Path]) -> dict[str, Outcome]:
    """What summaries say of each scene that was done, the last word last."""
    found: dict[str, Outcome] = {}
    for _, outcome in chain.from_iterable(map(_read, paths)):
        if outcome.status in ("done", "kept"):
            before = found.get(outcome.scene)
            found[outcome.scene] = _together(outcome, before) if before else outcome
    return found


def _read(path: Path) -> Iterator[tuple[str, Outcome]]:
    """The lines of a summary, if it is there, that are whole, and what they say."""
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        if outcome := _outcome(text):
            yield text, outcome


def _together(own: Outcome, other: Outcome) -> Outcome:
    """What a batch says of a scene, with what it left to `other`."""
    if own.status == "left":
        return other
    if own.status != "kept" or own.job_sha256 != other.job_sha256 or own.seconds is not None:
        return own
    speed = other.megapixels_per_second
    return replace(own, seconds=other.seconds, megapixels_per_second=speed, hqnr=own.hqnr or other.hqnr)


def _line(outcome: Outcome) -> str:
    return json.dumps(asdict(outcome)) + "\n"


def _outcome(text: str) -> Outcome | None:
    """Of a line; None for one that was cut off or is another program's."""
    try:
        values = json.loads(text)
    except ValueError:
        return None
    return Outcome(**values) if isinstance(values, dict) and set(values) == FIELDS else None
