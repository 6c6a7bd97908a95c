"""What can go wrong, by the exit code a caller sees. Every message is one sentence that names the file or option
and says what to do."""

import platform
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Self


def nearest(name: str, known: Iterable[str]) -> str:
    """What to add to a message that there is nothing of this `name`: the nearest known one, if one is near."""
    near = get_close_matches(name.lower(), list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


class PansharpenError(Exception):
    """The run failed (exit code 1)."""

    exit_code = 1


class OutputError(PansharpenError):
    """The product cannot be written or failed its validation (exit code 1)."""


class UsageError(PansharpenError):
    """Options that contradict each other or make no sense (exit code 2)."""

    exit_code = 2


class SceneError(PansharpenError):
    """The PAN or MS cannot be used (exit code 3)."""

    exit_code = 3


class NothingSharedError(SceneError):
    """PAN and MS share too little to learn from. Who knows their names says so with `who`."""

    def __init__(self, what: str, who: str = "PAN and MS") -> None:
        super().__init__(f"{who} share {what}; check their extents and nodata values")
        self.what = what


class AbsentError(SceneError):
    """No file of this name is seen on this host. Who gave the work to it may see one, and then raises `elsewhere`."""

    def __init__(self, path: str, host: str = "", why: str = "does not exist") -> None:
        super().__init__(f"{path} {why}")
        self.path, self.host, self.why = path, host or platform.node(), why

    def __reduce__(self) -> tuple[type[Self], tuple[str, str, str]]:
        """For another process."""
        return type(self), (self.path, self.host, self.why)

    @property
    def elsewhere(self) -> SceneError:
        """What is wrong where the file can be seen."""
        return SceneError(f"{self.path} is here, but a worker on {self.host} cannot see it; share its folder with that")


class ModelError(PansharpenError):
    """The model cannot be used, at all or on this scene (exit code 4)."""

    exit_code = 4


class DeviceError(PansharpenError):
    """The device that was asked for cannot be used (exit code 4)."""

    exit_code = 4


class BatchError(PansharpenError):
    """Some scenes of a batch failed (exit code 5)."""

    exit_code = 5
