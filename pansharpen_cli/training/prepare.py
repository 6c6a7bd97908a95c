"""Scenes made ready to learn from, each once: co-registered, degraded by Wald's protocol, its patches looked at.

They are kept in memory-mapped files, and what is degraded is degraded by tiles, so that neither a large scene nor many
of them are ever in memory.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pansharpen_cli.errors import SceneError
from pansharpen_cli.evaluation.reduced import chosen_bands
from pansharpen_cli.evaluation.sources import Files, FromBenchmark, Source
from pansharpen_cli.imaging.interpolation import area_phase
from pansharpen_cli.imaging.mtf import Sensor, reach
from pansharpen_cli.imaging.radiometry import Moments
from pansharpen_cli.imaging.registration import WindowShift, combine, window_shift
from pansharpen_cli.imaging.tiling import Reach, Tile, cut
from pansharpen_cli.imaging.wald import Geometry, ReducedScene, reduce
from pansharpen_cli.inputs.canvas import ArrayCanvas, SceneCanvas
from pansharpen_cli.inputs.coregistration import TRUSTED, measure, to_apply
from pansharpen_cli.inputs.raster import Raster
from pansharpen_cli.inputs.scene import Scene

STRIDE = 0.5
"""Patches overlap by half."""
FLAT = 0.02
"""A patch whose truth varies by less than this (in units of the scene's own deviation) teaches nothing."""
MISREGISTERED = 0.45
"""Pixels of the truth by which PAN and truth may lie apart: farther, they teach blur. QuickBird pairs known to be
misregistered lie 0.49 and more apart, others up to 0.39."""
CLEAR = 0.5
"""Strength from which the shift that one window shows is believed."""
TILE = 256
"""Pixels of the truth a side of the tiles in which a scene is degraded."""
IMAGES = ("pan", "ms", "gt", "valid")
"""Arrays of a stored scene, a .npy each."""
SCENE = "scene.json"
"""The rest of it; written last."""

Corners = npt.NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A scene to draw patches from.

    `corners` (n, 2): row and column, in pixels of the truth, of each useful patch's first pixel. `rejected`: how many
    were not useful, by reason. `misfit`: why the whole scene is no good to learn from, or "". `open` gives its pixels.
    """

    name: str
    sensor: Sensor
    bands: tuple[str, ...]
    geometry: Geometry
    moments: Moments
    corners: Corners
    rejected: Counter[str]
    misfit: str
    open: Callable[[], ReducedScene]

    @property
    def unused(self) -> str:
        """Why none of its pixels is learned from, or ""."""
        too_small = not self.rejected and not len(self.corners)
        return self.misfit or ("it is smaller than a patch" if too_small else "")


def examine(scene: ReducedScene, sensor: Sensor, patch: int) -> Prepared:
    """Look for useful patches of `patch` pixels a side of the truth, a multiple of the ratio, in a scene that is held.

    Raises SceneError if it has no valid pixel.
    """
    if not scene.valid.any():
        raise SceneError(f"{scene.name} has no valid pixel left, away from gaps; leave it out or give a larger scene")
    moments = ArrayCanvas.of(scene.pan, scene.ms, scene.valid).moments
    shifts = _shifts(scene, patch)
    rejected: Counter[str] = Counter()
    corners = []
    for row, col in _corners(scene, patch, STRIDE):
        window = slice(row, row + patch), slice(col, col + patch)
        if not scene.valid[window].all():
            rejected["nodata"] += 1
        elif (scene.gt[:, *window].std(axis=(1, 2)) <= FLAT * moments.std[:-1]).all():
            rejected["flat"] += 1
        elif any(_is_off(shifts.get(start)) for start in _under(row, col, patch)):
            rejected["misregistered"] += 1
        else:
            corners.append((row, col))
    misfit = _misfit(shifts.values())
    return Prepared(
        scene.name, sensor, scene.band_names, scene.geometry, moments,
        np.array([] if misfit else corners, np.int32).reshape(-1, 2), rejected, misfit, lambda: scene,
    )  # fmt: skip


def _corners(scene: ReducedScene, patch: int, stride: float) -> Iterator[tuple[int, int]]:
    """First pixels of patches, `stride` patches apart, on MS pixels' first ones."""
    step = max(1, int(patch // scene.ratio * stride)) * scene.ratio
    rows, cols = (range(0, size - patch + 1, step) for size in scene.valid.shape)
    return ((row, col) for row in rows for col in cols)


def _shifts(scene: ReducedScene, patch: int) -> dict[tuple[int, int], WindowShift | None]:
    """How far PAN and truth lie apart in windows side by side, by their first pixels.

    The two have pixels of one size here, so that windows as small as a patch tell their shift to a tenth of a pixel.
    """
    windows = {(row, col): (slice(row, row + patch), slice(col, col + patch)) for row, col in _corners(scene, patch, 1)}
    return {
        start: window_shift(scene.pan[0][window], scene.gt[:, *window], scene.valid[window], ratio=1)
        for start, window in windows.items()
    }


def _under(row: int, col: int, patch: int) -> Iterator[tuple[int, int]]:
    """The windows of `_shifts` that a patch touches."""
    rows, cols = ({start // patch * patch, (start + patch - 1) // patch * patch} for start in (row, col))
    return ((first, second) for first in rows for second in cols)


def _is_off(shift: WindowShift | None) -> bool:
    return shift is not None and shift.strength >= CLEAR and np.hypot(shift.dx, shift.dy) > MISREGISTERED


def _misfit(shifts: Iterable[WindowShift | None]) -> str:
    """Why PAN and truth do not belong together, by all windows; "" if they do, or where no window tells."""
    seen = [shift for shift in shifts if shift is not None]
    found = combine(seen)
    if seen and found.confidence < TRUSTED:
        return f"its PAN and MS do not show the same ground (confidence {found.confidence:.2f})"
    if found.length > MISREGISTERED:
        return f"its PAN lies {found.length:.2f} MS pixels off, after what could be corrected"
    return ""


def look(sources: Sequence[Source]) -> None:
    """At what headers tell of all `sources`, before time goes into the first: files and whether they are whole, bands,
    sizes, geometry.

    Of a benchmark one sample is read. Raises SceneError for the first that cannot be used.
    """
    first, seen = sources[0], set()
    for source in sources:
        assert isinstance(source, Files | FromBenchmark)
        if type(source) is not type(first):
            raise SceneError(
                f"{source.name} has its MS samples elsewhere among the PAN pixels than {first.name}; train on scenes "
                "or on benchmark files, not on both"
            )
        key = _key(source) if isinstance(source, Files) else id(source.samples)
        if key not in seen:
            seen.add(key)
            _look(source)


def _look(source: Files | FromBenchmark) -> None:
    if isinstance(source, FromBenchmark):
        source.load()
        return
    if source.ms:
        with Scene.open(source.pan, *source.ms) as scene:
            for raster in (scene.pan, *scene.ms):
                raster.check_whole()
            _chosen(scene.band_names, source)
            if source.reference is None:
                _size(SceneCanvas.of(scene), source)
    if source.reference:
        with closing(Raster(source.pan)), closing(Raster(source.reference)) as truth:
            truth.check_whole()
            if not source.ms:
                _chosen(truth.names, source)


def prepare(
    sources: Sequence[Source],
    patch: int,
    work: Path,
    on_scene: Callable[[int, int], None] = lambda done, total: None,
) -> list[Prepared]:
    """One for each of the `sources`; those that name the same files share theirs. Files are kept in the folder `work`
    and used again while the sources are unchanged. Raises SceneError for the first that cannot be used."""
    known: dict[object, Prepared] = {}
    scenes = []
    for done, source in enumerate(sources, start=1):
        key = _key(source)
        if key not in known:
            known[key] = _prepared(source, patch, work)
        scenes.append(known[key])
        on_scene(done, len(sources))
    return scenes


def _key(source: Source) -> object:
    """What sources have in common that are the same scene."""
    return (source.pan, *source.ms, source.reference, source.sensor.name) if isinstance(source, Files) else source


def _prepared(source: Source, patch: int, work: Path) -> Prepared:
    assert isinstance(source, Files | FromBenchmark)
    folder = work / hashlib.sha256(json.dumps([_content(source), asdict(source.terms)]).encode()).hexdigest()[:24]
    if not (folder / SCENE).exists():
        folder.mkdir(parents=True, exist_ok=True)
        _degrade(source, folder)
    facts, corners = folder / f"{patch}.json", folder / f"{patch}.npy"
    if not facts.exists():
        found = examine(stored(folder), source.sensor, patch)
        np.save(corners, found.corners)
        moments = [values.tolist() for values in (found.moments.mean, found.moments.std, found.moments.high)]
        _write(facts, {"moments": moments, "rejected": found.rejected, "misfit": found.misfit})
    scene, known = stored(folder), json.loads(facts.read_text())
    return Prepared(
        source.name, source.sensor, scene.band_names, scene.geometry, Moments(*map(np.array, known["moments"])),
        np.load(corners), Counter(known["rejected"]), known["misfit"], partial(stored, folder),
    )  # fmt: skip


def _content(source: Files | FromBenchmark) -> list[object]:
    """What tells whether the pixels of a source are those they were."""
    if isinstance(source, FromBenchmark):
        sample = source.samples[source.index]
        images = (image for image in (sample.pan, sample.ms, sample.gt) if image is not None)
        return [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
    return [_stamp(path) for path in (source.pan, *source.ms, source.reference) if path]


def _stamp(path: str) -> tuple[str, int, int]:
    """What tells that a file is the one it was."""
    state = os.stat(path) if os.path.exists(path) else None
    return (os.path.abspath(path), state.st_size, state.st_mtime_ns) if state else (path, 0, 0)


def _write(path: Path, values: object) -> None:
    """Whole or not at all: it is the sign that what it belongs to is there."""
    partial_file = path.with_suffix(".partial")
    partial_file.write_text(json.dumps(values))
    os.replace(partial_file, path)


@lru_cache(maxsize=256)
def stored(folder: Path) -> ReducedScene:
    """The reduced scene in a folder, on disk until its pixels are touched."""
    known = json.loads((folder / SCENE).read_text())
    pan, ms, gt, valid = (np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in IMAGES)
    return ReducedScene(known["name"], tuple(known["bands"]), pan, ms, gt, valid, known["geometry"])


def _degrade(source: Files | FromBenchmark, folder: Path) -> None:
    """Write a source as a reduced scene into `folder`."""
    if isinstance(source, Files) and not source.reference:
        bands, geometry = _degrade_by_tiles(source, folder), "area"
    else:
        scene = source.load()
        assert isinstance(scene, ReducedScene)  # by the terms of training
        bands, geometry = scene.band_names, scene.geometry
        for name in IMAGES:
            np.save(folder / f"{name}.npy", getattr(scene, name))
    _write(folder / SCENE, {"name": source.name, "bands": bands, "geometry": geometry})


def _degrade_by_tiles(source: Files, folder: Path) -> tuple[str, ...]:
    """A PAN and its MS at full resolution, whatever their size, by Wald's protocol; returns the names of the bands."""
    with Scene.open(source.pan, *source.ms) as scene:
        names, order = _chosen(scene.band_names, source)
        shift = to_apply(source.terms.coregister or "auto", measure(SceneCanvas.of(scene)))
        canvas = SceneCanvas.of(scene, shift=shift)
        own, ratio = scene.ratio, source.terms.ratio or scene.ratio
        height, width = _size(canvas, source)
        pan = _empty(folder / "pan.npy", np.float32, (1, height, width))
        ms = _empty(folder / "ms.npy", np.float32, (len(order), height // ratio, width // ratio))
        gt = _empty(folder / "gt.npy", np.float32, (len(order), height, width))
        valid = _empty(folder / "valid.npy", np.bool_, (height, width))
        for tile in _tiles(canvas, ratio, height, width):
            pixels = canvas.read(tile)
            part = reduce(
                source.name, pixels.pan, pixels.ms[order], pixels.valid,
                ratio=ratio, sensor=source.sensor, band_names=names,
            )  # fmt: skip
            fine, coarse = tile.coarser(own), tile.coarser(own * ratio)
            pan[:, *fine.core], gt[:, *fine.core] = part.pan[:, *fine.inner], part.gt[:, *fine.inner]
            ms[:, *coarse.core], valid[fine.core] = part.ms[:, *coarse.inner], part.valid[fine.inner]
    return names


def _size(canvas: SceneCanvas, source: Files) -> tuple[int, int]:
    """Rows and columns of the truth. Raises SceneError if there are too few."""
    own = canvas.ratio
    ratio = source.terms.ratio or own
    height, width = (axis.size // own // ratio * ratio for axis in (canvas.rows, canvas.cols))
    if min(height, width) < 2 * ratio:
        raise SceneError(f"{source.pan} is too small to be degraded by {ratio}; give a larger scene")
    return height, width


def _chosen(given: Sequence[str], source: Files) -> tuple[tuple[str, ...], list[int]]:
    """The bands that are asked for, default all, by the names of models, and where they are among the `given`."""
    return chosen_bands(given, source.terms.bands, source.ms[0] if source.ms else source.reference or source.pan)


def _empty(path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    return np.lib.format.open_memmap(path, "w+", np.dtype(dtype), shape)


def _tiles(canvas: SceneCanvas, ratio: int, height: int, width: int) -> list[Tile]:
    """The canvas cut so that degraded tiles fit together to `height` by `width` pixels of the truth."""
    own = canvas.ratio
    around = max(reach(own, area_phase(own)), own * reach(ratio, area_phase(ratio)))
    needs = Reach(halo=around, alignment=own * ratio)
    size = own * (TILE // ratio * ratio)
    rows, cols = (
        cut(0, own * pixels, axis.size, size, needs, own)
        for pixels, axis in ((height, canvas.rows), (width, canvas.cols))
    )
    return [Tile(row, col) for row in rows for col in cols]
