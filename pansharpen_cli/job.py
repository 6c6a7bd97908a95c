"""What is to be made: a job, whose values are checked, and the digest of all that its pixels come from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from numbers import Real
from pathlib import Path
from typing import Any, Literal

from pansharpen_cli import __version__
from pansharpen_cli.backends.onnx_file import FLOAT32
from pansharpen_cli.errors import SceneError, UsageError
from pansharpen_cli.imaging.interpolation import KERNELS
from pansharpen_cli.imaging.mtf import MEASURED, find_sensor
from pansharpen_cli.inputs.coregistration import Choice, given
from pansharpen_cli.inputs.mosaic import files_of
from pansharpen_cli.inputs.part import Bounds, Part, Statistics, Window
from pansharpen_cli.inputs.raster import Nodata
from pansharpen_cli.inputs.scene import Scene
from pansharpen_cli.method import BackendName, Method
from pansharpen_cli.system import settings
from pansharpen_cli.system.files import digest, redacted


@dataclass(frozen=True)
class Job:
    """What to sharpen, into what, and how. Only the paths are needed.

    `resume`: what a run that was killed has finished is kept; `remembered`: a later one is to know if the product is
    finished, for which inputs that are fetched are read once more.

    `part`: only that of the scene is put out; `statistics`: what its shift and global values come from. `max_memory`:
    bytes of the whole process. `given`: the names of PAN and MS as the user gave them, if these are others.
    """

    pan: str | Path
    ms: Sequence[str | Path]
    output: Path
    model: str = "auto"
    coregister: Choice = "auto"
    device: str = "auto"
    backend: BackendName = "auto"
    bands: Sequence[int] | None = None
    band_names: Sequence[str] | None = None
    nodata: Nodata = "file"
    sensor: str = MEASURED
    resampling: str = "sinc"
    dtype: str | None = None
    format: Literal["gtiff", "cog"] = "gtiff"
    creation_options: Mapping[str, str] = field(default_factory=dict)
    overwrite: bool = False
    resume: bool = False
    remembered: bool = False
    tile: int | None = None
    threads: int = 0
    max_memory: int | None = None
    part: Part | None = None
    statistics: Statistics = "part"
    given: Sequence[str | Path] | None = None

    def __post_init__(self) -> None:
        """Raises UsageError for a value that no field of this name can have; numbers of any type become Python's."""
        for name, plain in FIELDS.items():
            value = getattr(self, name)
            if value is not None or name not in OPTIONAL:
                object.__setattr__(self, name, plain(value, name))


def _words(*known: str) -> Callable[[Any, str], str]:
    return lambda value, name: settings.one_of(settings.name(value, name), known, name)


def _output(value: Any, name: str) -> Path:
    return Path(settings.name(value, name))


def _part(value: Any, name: str) -> Part:
    if not isinstance(value, Window | Bounds):
        raise UsageError(f"{name} takes a Window or Bounds of inputs.part, not {value!r}")
    return value


def _nodata(value: Any, name: str) -> Nodata:
    return settings.nodata(value if isinstance(value, str) else str(value), name)


def _sensor(value: Any, name: str) -> str:
    """A gain as text, be it given as a number."""
    text = settings.name(str(value) if isinstance(value, Real) else value, name)
    if text != MEASURED:
        find_sensor(text, name, also=[MEASURED])
    return text


def _creation_options(value: Any, name: str) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise UsageError(f"{name} takes a mapping of names to values, not {value!r}")
    return {str(key): str(one) for key, one in value.items()}


LEAST_TILE = 32
"""PAN pixels a side of a tile; of smaller ones nearly all is halo."""
OPTIONAL = {"bands", "band_names", "dtype", "tile", "max_memory", "part", "given"}
"""Fields of a job that may be None."""
FIELDS: Mapping[str, Callable[[Any, str], object]] = {
    "pan": settings.path,
    "ms": partial(settings.several, one=settings.path),
    "output": _output,
    "model": settings.name,
    "device": settings.name,
    "backend": _words("auto", "torch", "onnx"),
    "coregister": given,
    "bands": partial(settings.several, one=partial(settings.at_least, least=0)),
    "band_names": partial(settings.several, one=settings.name),
    "nodata": _nodata,
    "sensor": _sensor,
    "resampling": _words(*KERNELS),
    "dtype": _words(*settings.DTYPES),
    "format": _words("gtiff", "cog"),
    "creation_options": _creation_options,
    "overwrite": settings.flag,
    "resume": settings.flag,
    "remembered": settings.flag,
    "tile": partial(settings.at_least, least=LEAST_TILE),
    "threads": partial(settings.at_least, least=0),
    "max_memory": partial(settings.at_least, least=1),
    "part": _part,
    "statistics": _words("part", "scene"),
    "given": partial(settings.several, one=settings.path),
}
"""What values of a field become, or by what they are refused."""

INPUTS = {"pan", "ms", "model"}
"""Fields of a job that count by what they name."""
NO_PIXELS = {"output", "device", "backend", "format", "creation_options", "overwrite", "resume"}
NO_PIXELS |= {"remembered", "tile", "threads", "max_memory", "given"}
"""Fields that do not change the pixels of its product."""


def input_digests(job: Job) -> list[str]:
    """Of PAN and MS files, "" for what is not local. Raises SceneError."""
    try:
        return [digest(*files_of(path)) for path in (job.pan, *job.ms)]
    except OSError as error:
        raise SceneError(f"{redacted(error.filename or job.pan)} cannot be read: {error.strerror}") from error


def _graph(job: Job, method: Method) -> str:
    """SHA-256 of the ONNX file that computes, where it is more than the model's weights in another form: a lone one may
    be anything, and half precision shows in the pixels. Else ""."""
    file, lone = method.onnx(job.backend), method.model and method.model.lone
    return file.sha256 if file and (lone or file.precision != FLOAT32) else ""


def job_digest(job: Job, method: Method, scene: Scene, digests: Sequence[str]) -> str:
    """SHA-256 of all that the pixels come from: the program's version, the inputs (their `digests`), the model and the
    parameters. Products of one digest are the same, but for how their devices round. "" if nothing tells what an
    input holds: of one that is fetched its pixels do, if the job says so and wants the whole scene.
    """
    rasters = (scene.pan, *scene.ms)
    contents = [*digests]
    if not all(digests):
        if job.part or not (job.resume or job.remembered):
            return ""
        contents += [raster.content() for raster in rasters if raster.remote]
    parameters = {name: value for name, value in asdict(job).items() if name not in INPUTS | NO_PIXELS}
    model = method.model.spec.to_json() if method.model else method.name
    told = [raster.told for raster in rasters]  # in part by files beside them
    parts = [__version__, contents, told, scene.band_names, model, parameters]
    if graph := _graph(job, method):
        parts.append(graph)
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
