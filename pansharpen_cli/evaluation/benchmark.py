"""The only reader of the field's benchmark files: .h5 as in PanCollection, .mat of the toolbox and its like (v5, v7.3),
folders of them, also split in two as the NBU data set is (MS_256/1.mat goes with PAN_1024/1.mat).

They hold digital numbers, no places and no band names; MS sample i lies on PAN index ratio * i + ratio / 2. Samples are
read one at a time.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import numpy.typing as npt

from pansharpen_cli.errors import SceneError
from pansharpen_cli.system.files import why_unseen

if TYPE_CHECKING:
    import h5py

Array = npt.NDArray[Any]
Float32 = npt.NDArray[np.float32]

SUFFIXES = (".h5", ".hdf5", ".mat")

ROLES = {
    **{"pan": "pan", "i_pan": "pan", "imgpan": "pan", "block": "pan"},
    **{"ms": "ms", "i_ms_lr": "ms", "imgms": "ms", "i_ms": "ms"},
    **{"lms": "lms", "gt": "gt", "i_gt": "gt"},
}
"""What a variable is, by its name in lower case. Beside an I_MS_LR, I_MS is the lms."""


@dataclass(frozen=True, eq=False)
class Sample:
    """One pair of a benchmark, float32 DN: `pan` (1, H, W), `ms` (bands, H / ratio, W / ratio).

    `gt` (bands, H, W): the truth of a sample at reduced resolution; `lms` (bands, H, W): the MS brought to PAN scale.
    """

    name: str
    pan: Float32
    ms: Float32
    gt: Float32 | None = None
    lms: Float32 | None = None

    @property
    def ratio(self) -> int:
        return int(self.pan.shape[-1] // self.ms.shape[-1])


@dataclass(frozen=True)
class _Place:
    """Where a sample is: the files that hold its images, and its number in a file of many."""

    name: str
    files: tuple[Path, ...]
    index: int | None = None

    def __str__(self) -> str:
        return str(self.files[0]) if self.index is None else f"sample {self.index} of {self.files[0]}"


class Samples(Sequence[Sample]):
    """The samples of a file or a folder; each is read and checked when it is asked for."""

    def __init__(self, places: Sequence[_Place]) -> None:
        self._places = places

    def __len__(self) -> int:
        return len(self._places)

    @property
    def names(self) -> list[str]:
        return [place.name for place in self._places]

    def place(self, index: int) -> tuple[str, int]:
        """The first of the files that a sample is in, and its number there."""
        place = self._places[index]
        return os.path.realpath(place.files[0]), place.index or 0

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> Samples: ...

    def __getitem__(self, index: int | slice) -> Sample | Samples:
        """Raises SceneError for a sample that cannot be used."""
        if isinstance(index, slice):
            return Samples(self._places[index])
        place = self._places[index]
        return _sample(place, {role: img for file in place.files for role, img in _images(file, place.index).items()})


def is_benchmark(path: Path) -> bool:
    """True for what `open_samples` is made for, by its name and, of a folder, those in it."""
    return path.suffix.lower() in SUFFIXES or bool(_files(path) or _two_folders(path))


def open_samples(path: Path) -> Samples:
    """The samples of `path`: a .h5 or .mat file of one or many, or a folder of such files in the order of their names.

    Raises SceneError for what is missing or broken.
    """
    if not os.path.exists(path):
        raise SceneError(f"{path} {why_unseen(path)}")
    if not path.is_dir():
        return Samples(_places(path))
    if folders := _two_folders(path):
        ms, pan = ({file.name: file for file in _files(folder)} for folder in folders)
        if lone := sorted(ms.keys() ^ pan.keys()):
            raise SceneError(
                f"{path} has {lone[0]} in only one of {folders[0].name} and {folders[1].name}; complete it"
            )
        return Samples([_Place(Path(name).stem, (ms[name], pan[name])) for name in ms])
    return Samples([place for file in _files(path) for place in _places(file)])


def _two_folders(path: Path) -> tuple[Path, Path] | None:
    """The folders MS_* and PAN_* with the two images of every pair."""
    ms, pan = ([folder for folder in sorted(path.glob(f"{role}_*")) if _files(folder)] for role in ("MS", "PAN"))
    return (ms[0], pan[0]) if ms and pan else None


def _files(folder: Path) -> list[Path]:
    """The benchmark files in a folder, 2 before 10."""
    files = [path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")]
    # every second part is a number
    return sorted(files, key=lambda path: [int(p) if p.isdecimal() else p for p in re.split(r"(\d+)", path.name)])


@dataclass(frozen=True, eq=False)
class _Image:
    """One image with its axes as they were written: the bands come last or first."""

    values: Array
    bands_last: bool

    def candidates(self) -> list[Array]:
        """(bands, rows, cols), first as files of this kind normally mean it."""
        if self.values.ndim != 3:
            return [self.values[None]] if self.values.ndim == 2 else []
        moved = np.moveaxis(self.values, -1, 0)
        return [moved, self.values] if self.bands_last else [self.values, moved]


def _places(path: Path) -> list[_Place]:
    """The samples in a file; no image is read."""
    with _hdf5(path) as variables:
        axis = _stacked_along(path, variables or {})
        if variables is None or axis is None:
            return [_Place(path.stem, (path,))]
        count = _shape(variables["ms"])[axis]
        if not count:
            raise SceneError(f"{path} holds no samples")
        return [_Place(f"{path.stem}-{index}", (path,), index) for index in range(count)]


def _images(path: Path, index: int | None) -> dict[str, _Image]:
    """The images in a file by their roles; in a file of many, those of sample `index`."""
    with _hdf5(path) as variables:
        if variables is not None:
            axis = _stacked_along(path, variables)
            return {role: _read(variable, index, axis) for role, variable in variables.items()}
    from scipy.io import loadmat

    with _reading(path):
        return {role: _Image(values, bands_last=True) for role, values in _by_role(loadmat(path)).items()}


@contextmanager
def _hdf5(path: Path) -> Iterator[dict[str, h5py.Dataset] | None]:
    """The known variables by their roles of an HDF5 file, which a .mat of v7.3 is too; None for another file."""
    import h5py

    with _reading(path):
        if not h5py.is_hdf5(path):
            yield None
        else:
            with h5py.File(path) as file:
                yield _by_role({name: item for name, item in file.items() if isinstance(item, h5py.Dataset)})


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except SceneError:
        raise
    except Exception as error:  # a file can be broken in more ways than its readers have names for
        raise SceneError(f"{path} cannot be read as .h5 or .mat, it may be cut short: {error}") from error


def _by_role(variables: Mapping[str, Any]) -> dict[str, Any]:
    known = {name.lower(): value for name, value in variables.items() if name.lower() in ROLES}
    roles = ROLES | ({"i_ms": "lms"} if "i_ms_lr" in known else {})
    return {roles[name]: value for name, value in known.items()}


def _stacked_along(path: Path, variables: Mapping[str, h5py.Dataset]) -> int | None:
    """The axis, 0 or -1, that numbers the samples of a file of many; None in a file of one."""
    if "ms" not in variables or variables["ms"].ndim != 4:
        return None
    shapes = [_shape(variable) for variable in variables.values()]
    for axis in (0, -1):
        if len({shape[axis] for shape in shapes}) == 1:
            return axis
    raise SceneError(f"{path} holds stacks of different length, {', '.join(map(str, shapes))}; write it again")


def _by_matlab(variable: h5py.Dataset) -> bool:
    """MATLAB's own files hold the axes in reverse, and its images are (rows, cols, bands)."""
    return "MATLAB_class" in variable.attrs


def _shape(variable: h5py.Dataset) -> tuple[int, ...]:
    """As its writer saw it."""
    return tuple(variable.shape[::-1] if _by_matlab(variable) else variable.shape)


def _read(variable: h5py.Dataset, index: int | None, axis: int | None) -> _Image:
    reverse = _by_matlab(variable)
    where: tuple[Any, ...] = () if axis is None else (index, ...) if (axis == 0) != reverse else (..., index)
    return _Image(variable[where].T if reverse else variable[where], bands_last=reverse)


def _sample(place: _Place, images: Mapping[str, _Image]) -> Sample:
    """The sample that these images make, if they fit."""
    for role in ("pan", "ms"):
        if role not in images:
            names = ", ".join(name for name, meant in ROLES.items() if meant == role)
            raise SceneError(f"{place} has no {role}; its variable would be called {names}")
    pan = _chosen(place, "pan", images["pan"], lambda image: len(image) == 1, "rows and columns alone")
    ms = _chosen(
        place, "ms", images["ms"], lambda image: _nested(image.shape, pan.shape), f"the pan of {pan.shape[1:]}"
    )
    shape = len(ms), *pan.shape[1:]
    gt, lms = (
        _chosen(place, role, images[role], lambda image: image.shape == shape, f"pan and ms: {shape}")
        if role in images
        else None
        for role in ("gt", "lms")
    )
    return Sample(place.name, pan, ms, gt, lms)


def _nested(ms: tuple[int, ...], pan: tuple[int, ...]) -> bool:
    """True if a whole ratio lies between the two."""
    ratio = pan[-1] // ms[-1]
    return ratio >= 2 and (ratio * ms[-2], ratio * ms[-1]) == pan[-2:]


def _chosen(place: _Place, role: str, image: _Image, fits: Callable[[Array], bool], what: str) -> Float32:
    """The image as float32 (bands, rows, cols), its bands so that it `fits`."""
    if image.values.dtype.kind not in "uif":
        raise SceneError(f"{place} has no real numbers as its {role}; write it again")
    found = next((candidate for candidate in image.candidates() if fits(candidate)), None)
    if found is None:
        raise SceneError(f"{place} has a {role} of {image.values.shape}, which does not fit {what}; cut it to match")
    result = np.ascontiguousarray(found, dtype=np.float32)
    if not np.isfinite(result).all():
        raise SceneError(f"{place} has NaN or infinity in its {role}; leave it out or mend it")
    if not result.any():
        raise SceneError(f"{place} has nothing but zeros in its {role}; leave it out")
    return result
