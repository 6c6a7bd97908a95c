"""Benchmark files: whoever wrote them, and in whatever order of axes, the same samples come out, one at a time; what is
broken or does not fit is refused in one sentence."""

import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest
import scipy.io

from pansharpen_cli.errors import SceneError
from pansharpen_cli.evaluation.benchmark import is_benchmark, open_samples

RNG = np.random.default_rng(5)
BANDS, HEIGHT, WIDTH = 4, 12, 20  # of the MS; ratio 4

Images = dict[str, np.ndarray]


def sample() -> Images:
    """(bands, rows, cols) each, with every value at one place only."""
    high = 4 * HEIGHT, 4 * WIDTH
    sizes = {"pan": (1, *high), "ms": (BANDS, HEIGHT, WIDTH), "gt": (BANDS, *high), "lms": (BANDS, *high)}
    return {role: (1 + RNG.permutation(int(np.prod(size))).reshape(size)) * 0.5 for role, size in sizes.items()}


def rows_first(images: Images) -> Images:
    """(rows, cols, bands), and of the PAN (rows, cols)."""
    return {role: np.moveaxis(image, 0, -1) if len(image) > 1 else image[0] for role, image in images.items()}


def by_hdf5(path: Path, arrays: Images) -> Path:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return path


def by_matlab(path: Path, arrays: Images) -> Path:
    """As `save -v7.3` does: 512 bytes of its own, the axes in reverse, the class of every variable."""
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array.T).attrs["MATLAB_class"] = np.bytes_("double")
    return path


def named(images: Images, **names: str) -> Images:
    return {names[role]: image for role, image in images.items() if role in names}


TOOLBOX = {"gt": "I_GT", "ms": "I_MS_LR", "lms": "I_MS", "pan": "I_PAN"}


def pancollection(folder: Path, samples: list[Images]) -> Path:
    return by_hdf5(folder / "many.h5", {role: np.stack([s[role] for s in samples]) for role in samples[0]})


def bands_last(folder: Path, samples: list[Images]) -> Path:
    turned = [rows_first(s) for s in samples]
    return by_hdf5(folder / "many.mat", {role: np.stack([s[role] for s in turned]) for role in turned[0]})


def numbered_last(folder: Path, samples: list[Images]) -> Path:
    turned = [rows_first(s) for s in samples]
    return by_matlab(folder / "many.mat", {role: np.stack([s[role] for s in turned], axis=-1) for role in turned[0]})


def numbered_first(folder: Path, samples: list[Images]) -> Path:
    turned = [rows_first(s) for s in samples]
    return by_matlab(folder / "many.mat", {role: np.stack([s[role] for s in turned]) for role in turned[0]})


def toolbox_v5(folder: Path, samples: list[Images]) -> Path:
    for number, images in enumerate(samples, start=9):  # 9, 10, 11: not in the order of letters
        scipy.io.savemat(folder / f"city{number}.mat", named(rows_first(images), **TOOLBOX) | {"ratio": 4, "L": 11})
    return folder


def toolbox_v73(folder: Path, samples: list[Images]) -> Path:
    for number, images in enumerate(samples, start=9):
        by_matlab(folder / f"city{number}.mat", named(rows_first(images), **TOOLBOX))
    return folder


def nbu(folder: Path, samples: list[Images], ms: str = "imgMS", pan: str = "imgPAN") -> Path:
    for part in ("MS_12", "PAN_48"):
        (folder / part).mkdir()
    for number, images in enumerate(samples, start=9):
        turned = rows_first(images)
        scipy.io.savemat(folder / "MS_12" / f"{number}.mat", {ms: turned["ms"].astype("uint16")})
        scipy.io.savemat(folder / "PAN_48" / f"{number}.mat", {pan: turned["pan"].astype("uint16")})
    return folder


@pytest.mark.parametrize(
    "write",
    [pancollection, bands_last, numbered_last, numbered_first, toolbox_v5, toolbox_v73],
    ids=lambda f: f.__name__,
)
def test_one_sample_in_every_layout(write, tmp_path: Path):
    written = [sample() for _ in range(3)]
    path = write(tmp_path, written)
    assert is_benchmark(path)
    samples = open_samples(path)
    assert len(samples) == 3
    assert len(set(samples.names)) == 3
    for expected, name, found in zip(written, samples.names, samples, strict=True):
        assert (found.name, found.ratio) == (name, 4)
        for role, image in expected.items():
            read = getattr(found, role)
            assert read.dtype == np.float32
            np.testing.assert_array_equal(read, image.astype(np.float32), err_msg=role)


@pytest.mark.parametrize(("ms", "pan"), [("imgMS", "imgPAN"), ("I_MS", "block")])
def test_a_folder_split_in_two(ms: str, pan: str, tmp_path: Path):
    written = [sample() for _ in range(3)]
    samples = open_samples(nbu(tmp_path, written, ms, pan))
    assert samples.names == ["9", "10", "11"]
    for expected, found in zip(written, samples, strict=True):
        assert (found.gt, found.lms) == (None, None)
        np.testing.assert_array_equal(found.ms, expected["ms"].astype("uint16"))
        np.testing.assert_array_equal(found.pan, expected["pan"].astype("uint16"))


def test_ten_thousand_samples_are_never_held(tmp_path: Path):
    """The file says that it has them; only one was written, the others need no room there."""
    shapes = {"pan": (1, 256, 256), "ms": (8, 64, 64), "gt": (8, 256, 256)}
    with h5py.File(tmp_path / "huge.h5", "w") as file:
        for role, shape in shapes.items():
            data = file.create_dataset(role, (10_000, *shape), "float64", chunks=(1, *shape))
            data[9_999] = 7
    tracemalloc.start()
    samples = open_samples(tmp_path / "huge.h5")
    assert len(samples) == 10_000
    last = samples[9_999]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (last.ms == 7).all()
    assert peak < 40e6  # of 50 GB; 10,000 names are some of it


def test_a_part_of_the_samples(tmp_path: Path):
    samples = open_samples(pancollection(tmp_path, [sample() for _ in range(5)]))
    assert samples[1:3].names == ["many-1", "many-2"]
    np.testing.assert_array_equal(samples[-1].pan, samples[4].pan)


def without(role: str):
    return lambda images: images.pop(role)


def put(role: str, value: float):
    def change(images: Images) -> None:
        images[role][0, 3, 5] = value

    return change


def replaced(role: str, made):
    return lambda images: images.update({role: made(images[role])})


BROKEN = {
    "no PAN": (without("pan"), "has no pan"),
    "no MS": (without("ms"), "has no ms"),
    "NaN": (put("ms", np.nan), "NaN or infinity in its ms"),
    "infinity": (put("gt", np.inf), "NaN or infinity in its gt"),
    "zeros": (replaced("pan", lambda pan: 0 * pan), "nothing but zeros in its pan"),
    "a PAN of four bands": (replaced("pan", lambda pan: pan.repeat(4, axis=0)), "pan of .* does not fit"),
    "no whole ratio": (replaced("ms", lambda ms: ms[:, :-1]), "ms of .* does not fit the pan"),
    "an MS as fine as the PAN": (replaced("ms", lambda ms: ms.repeat(4, 1).repeat(4, 2)), "ms of .* does not fit"),
    "a truth with fewer bands": (replaced("gt", lambda gt: gt[:3]), "gt of .* does not fit"),
    "an lms of the MS's size": (replaced("lms", lambda lms: lms[:, ::4, ::4]), "lms of .* does not fit"),
    "text": (replaced("ms", lambda ms: np.full(ms.shape, b"?")), "no real numbers"),
    "complex numbers": (replaced("ms", lambda ms: ms * 1j), "no real numbers"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_used(case: str, tmp_path: Path):
    images = sample()
    change, message = BROKEN[case]
    change(images)
    path = by_hdf5(tmp_path / "one.h5", images)
    with pytest.raises(SceneError, match=message) as error:
        open_samples(path)[0]
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("write", [pancollection, toolbox_v5, toolbox_v73], ids=lambda f: f.__name__)
@pytest.mark.parametrize("kept", [0.1, 0.6, 0.99])
def test_a_file_that_was_cut_short(write, kept: float, tmp_path: Path):
    path = write(tmp_path, [sample()])
    path = path if path.is_file() else next(path.iterdir())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    with pytest.raises(SceneError, match=r"cannot be read as|has no "):
        open_samples(path)[0]


def test_what_is_not_there(tmp_path: Path):
    with pytest.raises(SceneError, match="does not exist"):
        open_samples(tmp_path / "nowhere.h5")
    (tmp_path / "note.mat").write_text("not a matrix\n")
    with pytest.raises(SceneError, match="cannot be read as"):
        open_samples(tmp_path / "note.mat")[0]
    assert not is_benchmark(tmp_path / "nothing")
    samples = [sample() for _ in range(2)]
    stacks = {role: np.stack([s[role] for s in samples]) for role in samples[0]}
    with pytest.raises(SceneError, match="stacks of different length"):
        open_samples(by_hdf5(tmp_path / "ragged.h5", stacks | {"gt": stacks["gt"][:1]}))
    with pytest.raises(SceneError, match="holds no samples"):
        open_samples(by_hdf5(tmp_path / "none.h5", {role: stack[:0] for role, stack in stacks.items()}))


def test_a_pair_that_lacks_one_image(tmp_path: Path):
    nbu(tmp_path, [sample(), sample()])
    (tmp_path / "PAN_48" / "10.mat").unlink()
    with pytest.raises(SceneError, match=r"10\.mat in only one of MS_12 and PAN_48"):
        open_samples(tmp_path)
