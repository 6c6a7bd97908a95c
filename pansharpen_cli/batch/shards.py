"""The part of a batch that one member of a job array does. The member knows its number from its scheduler."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pansharpen_cli.errors import UsageError

Item = TypeVar("Item")


@dataclass(frozen=True)
class Shard:
    """Part `number` of `count`, from 1."""

    number: int = 1
    count: int = 1

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """Every item is in one part; neighbours, which often are alike, are dealt out."""
        return items[self.number - 1 :: self.count]

    @property
    def suffix(self) -> str:
        """For names of files that each part has its own of."""
        return f"-{self.number}-of-{self.count}" if self.count > 1 else ""


WHOLE = Shard()


def parse(text: str, environment: Mapping[str, str]) -> Shard:
    """`2/16`, from 1; `auto`, from the variables of AWS Batch or Slurm; `auto/16`, with the count that Kubernetes does
    not tell. Raises UsageError."""
    if found := re.fullmatch(r"(\d+)/(\d+)", text):
        shard = Shard(int(found[1]), int(found[2]))
        if not 1 <= shard.number <= shard.count:
            raise UsageError(f"--shard {text} is no part of {shard.count}; they count from 1")
        return shard
    if found := re.fullmatch(r"auto(?:/([1-9]\d*))?", text):
        return _of_array(int(found[1] or 0), environment)
    raise UsageError(f"--shard takes I/N like 1/16, auto, or auto/N, not {text!r}")


def _of_array(count: int, environment: Mapping[str, str]) -> Shard:
    """`count`: what the user says, or 0."""
    if "AWS_BATCH_JOB_ARRAY_INDEX" in environment:
        index, told = (_number(environment, f"AWS_BATCH_JOB_ARRAY_{name}") for name in ("INDEX", "SIZE"))
    elif "SLURM_ARRAY_TASK_ID" in environment:
        index, told = _of_slurm(environment)
    elif "JOB_COMPLETION_INDEX" in environment:
        index, told = _number(environment, "JOB_COMPLETION_INDEX"), count
        if not count:
            raise UsageError("--shard auto needs the completions of the Kubernetes job; say them as auto/N")
    else:
        raise UsageError("--shard auto finds no job array of AWS Batch, Slurm or Kubernetes here; say it as I/N")
    if (count and count != told) or not 0 <= index < told:
        asked = f"auto/{count}" if count else "auto"
        raise UsageError(f"--shard {asked} finds itself number {index}, from 0, in an array of {told}; say it as I/N")
    return Shard(index + 1, told)


def _of_slurm(environment: Mapping[str, str]) -> tuple[int, int]:
    """Index from 0 and size of an array whose numbers may begin anywhere, with steps."""
    member, first, last, count = (
        _number(environment, f"SLURM_ARRAY_TASK_{name}") for name in ("ID", "MIN", "MAX", "COUNT")
    )
    step = max(1, (last - first) // (count - 1)) if count > 1 else 1
    if first + step * (count - 1) != last or (member - first) % step:
        raise UsageError("--shard auto understands Slurm arrays with even steps, like 0-15; say it as I/N")
    return (member - first) // step, count


def _number(environment: Mapping[str, str], name: str) -> int:
    text = environment.get(name, "")
    if not text.isdecimal():
        raise UsageError(f"--shard auto finds {name}={text!r} in the environment, which is no number; say it as I/N")
    return int(text)
