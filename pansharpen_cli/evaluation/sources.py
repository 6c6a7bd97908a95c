"""Where the scenes of a comparison come from: files, folders, benchmark files, a manifest. Each is read in its turn."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

from pansharpen_cli.errors import SceneError, UsageError
from pansharpen_cli.evaluation import reduced
from pansharpen_cli.evaluation.benchmark import Samples, is_benchmark, open_samples
from pansharpen_cli.imaging.mtf import MEASURED, SENSORS, Sensor, find_sensor
from pansharpen_cli.imaging.wald import FullScene, ReducedScene
from pansharpen_cli.inputs.coregistration import Choice, find_or_measure
from pansharpen_cli.inputs.sidecars import check_access
from pansharpen_cli.system.files import why_unseen
from pansharpen_cli.system.locations import is_remote

COLUMNS = ("pan", "ms", "reference", "sensor", "name")
"""Of a manifest. Only `pan` must be there, with `ms`, `reference` or both."""
REDUCED_HELD, FULL_HELD = 2**21, 2**25
"""PAN pixels at the resolution of a task, of four bands, with which a comparison takes some two gigabytes."""


@dataclass(frozen=True)
class Terms:
    """How scenes become tasks: at reduced resolution or `full`; of which `ratio` (None: the scene's own) and `bands`
    (None: all); by whose MTF, perhaps the measured one; PAN and MS shifted how (None: "auto", but "off" for pairs with
    a truth). Of scenes too large to be held, unless `whole`, excerpts are judged."""

    full: bool = False
    ratio: int | None = None
    bands: Sequence[str] | None = None
    sensor: str = "generic"
    coregister: Choice | None = None
    whole: bool = False


class Source(Protocol):
    """A scene to compare methods on, not yet read."""

    @property
    def name(self) -> str: ...

    @property
    def sensor(self) -> Sensor: ...

    @property
    def pixels(self) -> tuple[str, int]:
        """What sources of the same pixels have in common: a file of theirs, and their number in it."""
        ...

    def load(self) -> ReducedScene | FullScene: ...


@dataclass(frozen=True)
class Files:
    """A PAN with its MS, with its truth `reference`, or with both; without an MS it is made of the truth."""

    name: str
    pan: str
    ms: Sequence[str]
    reference: str | None
    terms: Terms

    @cached_property
    def sensor(self) -> Sensor:
        """Raises SceneError if it is to be measured and the files are unusable."""
        if self.terms.sensor == MEASURED and not self.ms:
            return SENSORS["generic"]
        return find_or_measure(self.terms.sensor, self.pan, self.ms)

    @property
    def pixels(self) -> tuple[str, int]:
        return (self.pan if is_remote(self.pan) else os.path.realpath(self.pan)), 0

    def load(self) -> ReducedScene | FullScene:
        """Raises SceneError for unusable files, UsageError for terms that make no sense with them."""
        terms = self.terms
        if terms.full:
            if not self.ms:
                raise SceneError(f"{self.pan} has no MS, which --full needs; give one")
            return reduced.load_full(
                self.pan, *self.ms, bands=terms.bands, name=self.name, coregister=terms.coregister or "auto",
                most=None if terms.whole else FULL_HELD,
            )  # fmt: skip
        if self.reference is None:
            return reduced.load(
                self.pan, *self.ms, sensor=self.sensor, bands=terms.bands, ratio=terms.ratio, name=self.name,
                coregister=terms.coregister or "auto", most=None if terms.whole else REDUCED_HELD,
            )  # fmt: skip
        if self.ms:
            scene = reduced.load_with_truth(
                self.pan, *self.ms, truth=self.reference, bands=terms.bands, name=self.name,
                coregister=terms.coregister or "off",
            )  # fmt: skip
            if terms.ratio not in (None, scene.ratio):
                raise SceneError(f"{self.pan} and {self.ms[0]} have ratio {scene.ratio}, not --ratio {terms.ratio}")
            return scene
        if terms.ratio is None:
            raise UsageError(f"{self.pan} has no MS; give one, or --ratio to make it of {self.reference}")
        return reduced.from_truth(
            self.pan, self.reference, sensor=self.sensor, ratio=terms.ratio, bands=terms.bands, name=self.name,
            coregister=terms.coregister or "off",
        )  # fmt: skip


@dataclass(frozen=True)
class FromBenchmark:
    """One sample of a benchmark file."""

    name: str
    samples: Samples
    index: int
    terms: Terms

    @property
    def sensor(self) -> Sensor:
        """A sample is too small to measure it."""
        return SENSORS["generic"] if self.terms.sensor == MEASURED else find_sensor(self.terms.sensor)

    @property
    def pixels(self) -> tuple[str, int]:
        return self.samples.place(self.index)

    def load(self) -> ReducedScene | FullScene:
        """Raises SceneError."""
        sample = self.samples[self.index]
        if self.terms.ratio not in (None, sample.ratio):
            raise SceneError(f"{self.name} has ratio {sample.ratio}; leave out --ratio {self.terms.ratio}")
        return reduced.of_sample(sample, sensor=self.sensor, bands=self.terms.bands, full=self.terms.full)


def gather(inputs: Sequence[str], manifest: Path | None, reference: str | None, terms: Terms) -> list[Source]:
    """The scenes of a command: a PAN and its MS; folders and benchmark files; or a manifest.

    `reference`: the truth of the PAN, in folders the name of the file. Raises UsageError and SceneError.
    """
    if terms.full and (terms.ratio or reference):
        raise UsageError("--ratio and --reference belong to reduced resolution; leave them out with --full")
    if manifest is not None:
        if inputs or reference:
            raise UsageError("--manifest names PAN, MS and reference of every scene; give it alone")
        return list(read_manifest(manifest, terms))
    if not inputs:
        raise UsageError("give a PAN and its MS, a benchmark file, a folder with either, or --manifest")
    if missing := next((text for text in inputs if not (is_remote(text) or os.path.exists(text))), None):
        why = why_unseen(missing)
        raise SceneError(f"{missing} {why}; give a PAN and its MS, a benchmark file or a folder with either")
    paths = [Path(text) for text in inputs]
    if all(path.is_dir() or is_benchmark(path) for path in paths):
        return [source for path, name in _named(paths) for source in _within(path, reference, terms, name)]
    if len(inputs) == 1 and reference is None:
        raise UsageError(f"{inputs[0]} needs its MS after it, or a --reference to make one of")
    return [Files(inputs[0], inputs[0], inputs[1:], reference, terms)]


def listed(paths: Sequence[Path], terms: Terms) -> list[Source]:
    """The scenes to learn from: those of folders, benchmark files and manifests. Raises SceneError and UsageError."""
    return [source for path, name in _named(paths) for source in _scenes_of(path, terms, name)]


def _named(paths: Sequence[Path]) -> list[tuple[Path, str]]:
    """Folders with what their scenes are called: by the last name, if no other folder has that."""
    times = Counter(path.name for path in paths)
    return [(path, path.name if times[path.name] == 1 else str(path)) for path in paths]


def _scenes_of(path: Path, terms: Terms, name: str) -> Sequence[Source]:
    if not os.path.exists(path):
        raise SceneError(f"{path} {why_unseen(path)}; give folders of scenes, benchmark files or manifests")
    if path.suffix.lower() == ".csv":
        return read_manifest(path, terms)
    if path.is_dir() or is_benchmark(path):
        return _within(path, None, terms, name)
    raise UsageError(
        f"{path} is a file by itself; give the folder that has a PAN and its MS as pan.tif and ms.tif, or name the two "
        "in a manifest, a .csv"
    )


def _within(path: Path, reference: str | None, terms: Terms, name: str) -> list[Source]:
    """The scenes of a folder or a benchmark file."""
    pan, ms = path / "pan.tif", path / "ms.tif"
    check_access(path)
    if os.path.exists(pan):
        truth = str(path / reference) if reference else None
        return [Files(name, str(pan), [str(ms)] if ms.exists() or not truth else [], truth, terms)]
    if not is_benchmark(path):
        inside = any(_holds_scenes(folder) for folder in path.glob("*") if folder.is_dir())
        advice = f"its folders do: give {path}/*" if inside else "give a folder that does"
        raise SceneError(f"{path} holds neither a pan.tif nor .h5 or .mat files; {advice}")
    if reference or terms.coregister:
        raise UsageError(f"{path} is a benchmark: leave out --reference and --coregister, its samples are as they are")
    samples = open_samples(path)
    return [FromBenchmark(name, samples, index, terms) for index, name in enumerate(samples.names)]


def _holds_scenes(folder: Path) -> bool:
    return os.path.exists(folder / "pan.tif") or is_benchmark(folder)


def read_manifest(path: Path, terms: Terms) -> list[Files]:
    """The scenes of a CSV file with the columns of COLUMNS; its paths are relative to it, several MS have ';' between.

    Raises SceneError if it cannot be understood.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, restval="")
            rows, columns = list(reader), reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SceneError(f"{path} cannot be read as a manifest: {error}") from error
    if "pan" not in columns or set(columns) - set(COLUMNS) or len(set(columns)) < len(columns):
        raise SceneError(f"{path} has the columns {', '.join(columns)}; a manifest has {', '.join(COLUMNS)}, each once")
    if not rows:
        raise SceneError(f"{path} names no scenes; write a line for each")
    return [_listed(row, path.parent, f"{path}, scene {number},", terms) for number, row in enumerate(rows, start=1)]


def _listed(row: dict[str, str], folder: Path, where: str, terms: Terms) -> Files:
    def placed(text: str) -> str:
        return text if "://" in text else str(folder / text)

    if None in row:
        raise SceneError(f"{where} has more fields than there are columns; quote those with a comma")
    row = {column: row.get(column, "").strip() for column in COLUMNS}
    if not row["pan"] or not (row["ms"] or row["reference"]):
        raise SceneError(f"{where} lacks its pan, or both ms and reference; fill them in")
    if row["sensor"] and row["sensor"] != MEASURED:
        try:
            find_sensor(row["sensor"], also=[MEASURED])
        except UsageError as error:
            raise SceneError(f"{where} {error}") from error
    return Files(
        row["name"] or row["pan"],
        placed(row["pan"]),
        [placed(part.strip()) for part in row["ms"].split(";") if part.strip()],
        placed(row["reference"]) if row["reference"] else None,
        replace(terms, sensor=row["sensor"] or terms.sensor),
    )
