"""Which PAN belongs to which MS in a folder: by what vendors call their files, then by the ground they share.

Nothing is guessed: a file with no partner, or with several, is reported with the reason.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property, lru_cache
from math import sqrt
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyproj

from pansharpen_cli.errors import SceneError
from pansharpen_cli.imaging.geogrid import GeoGrid
from pansharpen_cli.inputs.raster import Raster
from pansharpen_cli.system.files import is_utf8, real

SUFFIXES = {".tif", ".tiff", ".jp2", ".ntf"}

SHARED = 0.5
"""Part of the smaller footprint that PAN and MS must have in common."""
RATIOS = 1.5, 10
"""Pixel sizes of an MS over those of its PAN."""

Role = Literal["pan", "ms", "other"]
Box = tuple[float, float, float, float]

_AIRBUS = r"(?<=(?:PHR1A|PHR1B|SPOT6|SPOT7|PNEO3|PNEO4)_)"
MARKS: tuple[tuple[Role, str], ...] = (
    ("pan", r"(?<=-)P(?=\d[A-Z]S[-_])"),  # Maxar: -P1BS-, -P2AS_R1C1-
    ("ms", r"(?<=-)M(?=\d[A-Z]S[-_])"),
    ("pan", _AIRBUS + r"P(?:AN)?(?=_)"),  # IMG_PHR1A_P_...
    ("ms", _AIRBUS + r"MS(?:-FS)?(?=_)"),
    ("pan", r"(?<=_)panchromatic(?=_|$)"),  # Planet's SkySat
    ("ms", r"(?<=_)analytic(?=_|$)"),
    ("pan", r"(?<![A-Z0-9])PAN(?![A-Z0-9])"),  # Maxar's folders, and everybody else
    ("ms", r"(?<![A-Z0-9])(?:MS|MUL|XS)(?![A-Z0-9])"),
)
"""What in a name marks PAN and MS, whatever the case; the first that is found counts."""

_LANDSAT = re.compile(r"(?P<scene>L[CEO]0?(?P<number>[789]).*)_(?P<band>B\d+|[A-Z]\w*)", re.IGNORECASE)
_LANDSAT_8 = {"B2": "blue", "B3": "green", "B4": "red", "B5": "nir", "B6": "swir1", "B7": "swir2"}
_LANDSAT_7 = {"B1": "blue", "B2": "green", "B3": "red", "B4": "nir", "B5": "swir1", "B7": "swir2"}


@dataclass(frozen=True)
class Pair:
    """A PAN and its MS; `name` is a path of the scene without suffix, `by` says how they were found.

    `band_names` are those of the MS where the files do not tell and their names do.
    """

    name: str
    pan: Path
    ms: tuple[Path, ...]
    by: Literal["name", "ground"]
    band_names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Unpaired:
    """A file that was left, or a folder or link that was not searched, and why."""

    path: Path
    reason: str


@dataclass(frozen=True)
class _File:
    """A raster of the folder. `scene`: its name without what marks PAN and MS. `band`: a Landsat file's, by name."""

    path: Path
    scene: str
    role: Role | None = None
    band: str | None = None

    @cached_property
    def seen(self) -> tuple[GeoGrid, int] | SceneError:
        """Its grid and number of bands, or why it cannot be read."""
        try:
            with closing(Raster(self.path)) as raster:
                return raster.grid, len(raster.indexes)
        except SceneError as error:
            return error

    @property
    def grid(self) -> GeoGrid | None:
        """Where it lies on the ground, if that is known."""
        return self.seen[0] if isinstance(self.seen, tuple) and self.seen[0].crs else None

    @property
    def likely(self) -> Role | None:
        """What it is by its name, else by its bands."""
        if self.role or not isinstance(self.seen, tuple):
            return self.role
        return "pan" if self.seen[1] == 1 else "ms" if self.seen[1] >= 3 else None

    @cached_property
    def day(self) -> str | None:
        """The date in its name, YYYYMMDD or YYMONDD, as YYMMDD."""
        for pattern, form in ((r"(?:19|20)\d{6}", "%Y%m%d"), (r"\d{2}[A-Z]{3}\d{2}", "%y%b%d")):
            for text in re.findall(pattern, self.path.name.upper()):
                try:
                    return datetime.strptime(text, form).strftime("%y%m%d")
                except ValueError:
                    continue
        return None


def pair(folder: Path, leave_out: Path | None = None) -> tuple[list[Pair], list[Unpaired]]:
    """The scenes below `folder`, by name, and what belongs to none: files, and folders that cannot be searched. Links
    are followed, but to nothing in the folder `leave_out`."""
    paths, closed = _rasters(folder, leave_out)
    odd = [Unpaired(path, "its name is not UTF-8; rename it") for path in paths if not is_utf8(path)]
    files = [_named(path, folder) for path in paths if is_utf8(path)]
    files = [file for file in files if file.role != "other"]
    pairs, left, unpaired = _by_name(files)
    more, alone = _by_ground(left)
    unpaired = sorted([*closed, *odd, *unpaired, *alone], key=lambda lone: lone.path)
    return sorted([*pairs, *more], key=lambda pair: pair.name), unpaired


def _rasters(folder: Path, leave_out: Path | None) -> tuple[list[Path], list[Unpaired]]:
    """Files, sorted, and folders and links that cannot be searched. A folder that several names lead to is searched
    once, by that without a link if there is one."""
    files: list[Path] = []
    closed: list[Unpaired] = []
    folders, links, seen = deque([folder]), deque[Path](), set[tuple[int, int]]()
    start, ours = real(folder), leave_out and real(leave_out)
    while folders or links:
        here = (folders or links).popleft()
        try:
            entries, state = sorted(here.iterdir()), os.stat(os.path.join(here, os.curdir))  # may it be entered?
        except OSError as error:
            closed.append(Unpaired(here, f"the folder cannot be searched: {error.strerror}"))
            continue
        if (state.st_dev, state.st_ino) in seen:
            continue
        seen.add((state.st_dev, state.st_ino))
        for path in entries:
            link, is_folder = os.path.islink(path), os.path.isdir(path)
            target = Path(real(path)) if link or is_folder else path
            back = link and Path(start).is_relative_to(target)  # to the folder itself, or one above it
            if back or path.name.startswith(".") or (ours and target.is_relative_to(ours)):
                continue
            if is_folder:
                (links if link else folders).append(path)
            elif path.suffix.lower() in SUFFIXES and (link or os.path.isfile(path)):
                files.append(path)
            elif link and (fault := _unreachable(path)):
                closed.append(Unpaired(path, f"the link leads to nothing that can be searched: {fault}"))
    return sorted(files), closed


def _unreachable(link: Path) -> str | None:
    """Why nobody can follow it."""
    try:
        os.stat(link)
    except OSError as error:
        return error.strerror
    return None


def _named(path: Path, folder: Path) -> _File:
    """What the name of a file says, or where that is silent the nearest of its folders'."""
    relative = path.relative_to(folder)
    if landsat := _LANDSAT.fullmatch(relative.stem):
        scene = (relative.parent / landsat["scene"]).as_posix()
        return _landsat(path, scene, landsat["number"], landsat["band"].upper())
    marks = [_mark(part) for part in (*relative.parent.parts, relative.stem)]
    role = next((role for role, _ in reversed(marks) if role), None)
    scene = "/".join(filter(None, (_tidy(rest) for _, rest in marks)))
    return _File(path, scene or folder.resolve().name, role)


def _landsat(path: Path, scene: str, number: str, band: str) -> _File:
    if band == "B8":
        return _File(path, scene, "pan")
    name = (_LANDSAT_7 if number == "7" else _LANDSAT_8).get(band)
    return _File(path, scene, "ms" if name else "other", name)


def _mark(name: str) -> tuple[Role | None, str]:
    """What `name` is marked as, and the rest of it."""
    for role, pattern in MARKS:
        if found := re.search(pattern, name, re.IGNORECASE):
            return role, name[: found.start()] + name[found.end() :]
    return None, name


def _tidy(name: str) -> str:
    """Without the separators that a mark leaves behind."""
    return re.sub(r"([-_. ])[-_. ]+", r"\1", name).strip("-_. ")


def _by_name(files: Iterable[_File]) -> tuple[list[Pair], list[_File], list[Unpaired]]:
    """Pairs; files to be tried by their ground; files that contradict each other."""
    scenes: dict[str, list[_File]] = defaultdict(list)
    for file in files:
        scenes[file.scene].append(file)
    pairs: list[Pair] = []
    left: list[_File] = []
    unpaired: list[Unpaired] = []
    for scene, members in scenes.items():
        pans = [file for file in members if file.role == "pan"]
        ms = [file for file in members if file.role == "ms"]
        left += [file for file in members if file.role is None]
        if not pans or not ms:
            left += pans + ms
        elif reason := _contradiction(pans, ms):
            unpaired += [Unpaired(file.path, reason) for file in pans + ms]
        else:
            names = tuple(file.band for file in ms if file.band) or None
            pairs.append(Pair(scene, pans[0].path, tuple(file.path for file in ms), "name", names))
    return pairs, left, unpaired


def _contradiction(pans: Sequence[_File], ms: Sequence[_File]) -> str | None:
    """Why files of one scene cannot be a pair. A file that cannot be read is none yet: it is told as a failed scene."""
    if len(pans) > 1:
        return f"several PANs have the name of its scene: {_listed(pans)}"
    if len(ms) > 1 and not all(file.band for file in ms):
        return f"several MS have the name of its scene: {_listed(ms)}"
    pan, first = pans[0].grid, ms[0].grid
    if pan and first and not _shares_ground(pan, first):
        return f"{pans[0].path.name} and {ms[0].path.name} belong together by name but do not share their ground"
    return None


def _by_ground(files: Sequence[_File]) -> tuple[list[Pair], list[Unpaired]]:
    """Pairs in which each has no other partner, and the rest."""
    pans = [file for file in files if file.likely == "pan"]
    ms = [file for file in files if file.likely == "ms"]
    partners: dict[_File, list[_File]] = {file: [] for file in files}
    for one, other in _near(pans, ms):
        if _fit(one, other):
            partners[one].append(other)
            partners[other].append(one)
    pairs, unpaired = [], []
    for file in files:
        found = partners[file]
        if len(found) == 1 and partners[found[0]] == [file]:
            if file.likely == "pan":
                pairs.append(Pair(file.scene, file.path, (found[0].path,), "ground"))
        else:
            unpaired.append(Unpaired(file.path, _loneliness(file, found)))
    return pairs, unpaired


def _near(pans: Sequence[_File], ms: Sequence[_File]) -> Iterator[tuple[_File, _File]]:
    """PANs with the MS that touch them: of ten thousand each, all cannot be looked at with each other."""
    placed = [(file, file.grid) for file in ms if file.grid]
    boxes: dict[str | None, npt.NDArray[np.float64]] = {}
    for pan in pans:
        if not placed or not (grid := pan.grid):
            continue
        if grid.crs not in boxes:
            boxes[grid.crs] = np.array([_box(other, grid) for _, other in placed])
        west, south, east, north = boxes[grid.crs].T
        ours = grid.bounds
        touching = (west < ours[2]) & (east > ours[0]) & (south < ours[3]) & (north > ours[1])
        yield from ((pan, placed[index][0]) for index in np.flatnonzero(touching))


def _loneliness(file: _File, found: Sequence[_File]) -> str:
    if isinstance(file.seen, SceneError):
        return str(file.seen)
    if file.likely is None:
        return "neither its name nor its bands say whether it is a PAN or an MS"
    other = "MS" if file.likely == "pan" else "PAN"
    if not found:
        return f"no {other} has the name of its scene or shares its ground"
    if len(found) > 1:
        return f"several {other}s share its ground: {_listed(found)}"
    return f"{found[0].path.name} shares its ground with others too"


def _listed(files: Iterable[_File]) -> str:
    return ", ".join(sorted(file.path.name for file in files))


def _fit(one: _File, other: _File) -> bool:
    """True if a PAN and an MS, in any order, could be of one scene."""
    pan, ms = (one, other) if one.likely == "pan" else (other, one)
    if not (pan.grid and ms.grid) or (pan.day and ms.day and pan.day != ms.day):
        return False
    if not _shares_ground(pan.grid, ms.grid):
        return False
    box = _box(ms.grid, pan.grid)
    pixel = sqrt((box[2] - box[0]) * (box[3] - box[1]) / (ms.grid.height * ms.grid.width))
    return RATIOS[0] <= pixel / sqrt(pan.grid.gsd[0] * pan.grid.gsd[1]) <= RATIOS[1]


def _shares_ground(pan: GeoGrid, ms: GeoGrid) -> bool:
    ours, theirs = _box(pan, pan), _box(ms, pan)
    width = min(ours[2], theirs[2]) - max(ours[0], theirs[0])
    height = min(ours[3], theirs[3]) - max(ours[1], theirs[1])
    smaller = min((box[2] - box[0]) * (box[3] - box[1]) for box in (ours, theirs))
    return width > 0 and height > 0 and width * height >= SHARED * smaller


def _box(grid: GeoGrid, like: GeoGrid) -> Box:
    """West, south, east, north of a grid in the CRS of another."""
    if grid.crs == like.crs:
        return grid.bounds
    box: Box = _transformer(grid.crs, like.crs).transform_bounds(*grid.bounds)
    return box


@lru_cache
def _transformer(crs: str, other: str) -> pyproj.Transformer:
    return pyproj.Transformer.from_crs(crs, other, always_xy=True)
