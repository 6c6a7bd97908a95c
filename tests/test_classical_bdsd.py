"""BDSD, BDSD-PC and C-BDSD against the field's toolbox, and where that cannot go (gaps, tiles, other ratios, pixels as
areas) against a second, slower way to compute them."""

from collections.abc import Callable
from itertools import chain, combinations
from pathlib import Path

import numpy as np
import pytest
import rasterio
from test_classical import BANDS, Scene, sharpen_whole, synthetic
from test_classical_definitions import load

from pansharpen_cli.classical.bdsd import Bdsd, BdsdPc, lower_scale
from pansharpen_cli.classical.camera import Camera
from pansharpen_cli.classical.clusters import CBdsd, Sample, features, k_means, nearest
from pansharpen_cli.classical.method import Method
from pansharpen_cli.classical.nonnegative import nonnegative
from pansharpen_cli.errors import SceneError
from pansharpen_cli.imaging.interpolation import area_phase
from pansharpen_cli.imaging.mtf import SENSORS, kernel


def by_blocks(camera: Camera) -> Bdsd:
    return Bdsd(camera, block=16 * camera.ratio)


FAMILY: dict[str, Callable[[Camera], Method]] = {
    "BDSD": Bdsd, "BDSD_S64": by_blocks, "BDSD_PC": BdsdPc, "C_BDSD": CBdsd,
}  # fmt: skip
"""By the names of the stored outputs."""
CASES = [
    *((case, name) for case in ("qb_00", "qb_00p", "wv2_crop") for name in FAMILY),
    *[("gf2_ns", "BDSD_PC"), ("gf2_ns", "C_BDSD"), ("l8_r2", "BDSD_PC")],
]


class OfCentres(CBdsd):
    """C-BDSD with clusters found by others."""

    def __init__(self, camera: Camera, centres: np.ndarray) -> None:
        super().__init__(camera)
        self.centres = centres

    def cluster(self, sample: np.ndarray) -> np.ndarray:
        return self.centres


@pytest.fixture(scope="module")
def park(data: Path) -> Scene:
    """A real scene, 360 x 400 PAN pixels, a hole with wild values in it."""
    with rasterio.open(data / "wv2_park/pan.tif") as pan_file, rasterio.open(data / "wv2_park/ms.tif") as ms_file:
        pan = pan_file.read()[:, :360, :400].astype(np.float32)
        ms = ms_file.read()[:, :90, :100].astype(np.float32)
    valid = np.ones(pan.shape[1:], dtype=bool)
    valid[101:190, 145:290] = False  # cuts MS pixels and tiles
    pan[:, ~valid] = 5000
    return Scene(pan, ms, valid)


@pytest.mark.parametrize(("case", "name"), CASES)
def test_equals_the_toolbox(golden: Path, case: str, name: str) -> None:
    camera, scene = load(golden / f"classical/{case}.npz")
    with np.load(golden / f"classical/{case}.npz") as stored:
        expected, rows = stored[f"rows_{name}"].transpose(2, 0, 1), stored["rows"]
        stats = stored["stats"][list(stored["methods"]).index(name)]
        method = OfCentres(camera, stored["cbdsd_centres"]) if name == "C_BDSD" else FAMILY[name](camera)
    hrms = sharpen_whole(method, scene.pan, scene.ms)
    peak = max(scene.pan.max(), scene.ms.max())
    assert np.abs(hrms[:, rows].astype(np.float32) - expected).max() < 1e-6 * peak
    found = np.stack([hrms.mean((1, 2)), hrms.std((1, 2), ddof=1), hrms.min((1, 2)), hrms.max((1, 2))])
    assert np.abs(found - stats).max() < 1e-6 * peak


@pytest.mark.parametrize("case", ["qb_00p", "gf2_ns"])
def test_labels_are_those_of_the_toolbox(golden: Path, case: str) -> None:
    with np.load(golden / f"classical/{case}.npz") as stored:
        found, centres, expected = features(stored["pan"][None]), stored["cbdsd_centres"], stored["cbdsd_labels"]
    np.testing.assert_array_equal(nearest(found / found.max(axis=(1, 2), keepdims=True), centres) + 1, expected)


@pytest.mark.parametrize("name", FAMILY)
def test_tiled_equals_whole(park: Scene, name: str) -> None:
    camera = Camera.of_scene(4, BANDS, SENSORS["WV2"])
    tiled, whole = FAMILY[name](camera), FAMILY[name](camera)
    if tiled.crop is None:
        park.observe(tiled, size=150, backwards=True)
        park.observe(whole, size=400)
    for key, value in whole.statistics.items():
        assert np.abs(tiled.statistics[key] - value).max() < 1e-10 * np.abs(value).max()
    found, expected = park.sharpen(tiled, size=150), park.sharpen(whole, size=400)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-6 * expected.max()


@pytest.mark.parametrize("ratio", [2, 3, 5])
@pytest.mark.parametrize("name", FAMILY)
def test_tiled_equals_whole_at_other_ratios(name: str, ratio: int) -> None:
    scene, camera = synthetic(ratio, bands=ratio - 1, size=42), Camera.of_scene(ratio, BANDS[: ratio - 1])
    method = FAMILY[name](camera)
    if method.crop is None:
        scene.observe(method, size=13 * ratio + 1)
    tiled = scene.sharpen(method, size=13 * ratio + 1)
    whole = sharpen_whole(FAMILY[name](camera), scene.pan, scene.ms)
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-9 * whole.max())


@pytest.mark.parametrize("ratio", [2, 3, 4, 5])
def test_the_lower_scale_is_one_place(ratio: int) -> None:
    """On a ramp every symmetric filter gives the ramp itself: bands and PAN show where they are sampled."""
    ramp = (np.arange(60 * ratio)[:, None] + 1000.0 + 2 * np.arange(60 * ratio))[None]
    camera = Camera.of_scene(ratio, ["?"])
    position = ratio * np.arange(60) + area_phase(ratio)
    ms = (position[:, None] + 1000 + 2 * position)[None]
    low, seen, lost = lower_scale(camera, ramp, ms)
    inner = np.s_[:, 28:32, 28:32]
    np.testing.assert_allclose((low + lost)[inner], ms[inner], atol=0.1)
    np.testing.assert_allclose(low[inner], ms[inner] * kernel(ratio, 0.30).sum(), atol=0.1)
    np.testing.assert_allclose(seen[inner], ms[inner] * kernel(ratio, 0.15).sum(), atol=0.1)


def samples(camera: Camera, scene: Scene) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Regressors (n, B + 1) and targets (n, B) of the whole MS pixels, and which these are (h, w); kernels in full."""
    valid = scene.valid.reshape(*(s for n in scene.ms.shape[1:] for s in (n, camera.ratio))).all(axis=(1, 3))
    bands = camera.down(camera.expand(scene.ms.astype(np.float64)))
    low = []
    for name, band in zip(camera.bands, bands, strict=True):
        windows = np.lib.stride_tricks.sliding_window_view(np.pad(band, 20, mode="edge"), (41, 41))
        low.append(np.einsum("hwij,ij->hw", windows, kernel(camera.ratio, camera.sensor.gain(name))))
    seen = lower_scale(camera, scene.pan.astype(np.float64), scene.ms.astype(np.float64))[1]
    return np.stack([*low, *seen])[:, valid].T, (bands - low)[:, valid].T, valid


def test_bdsd_by_a_regression_on_pixels(park: Scene) -> None:
    camera = Camera.of_scene(4, BANDS, SENSORS["WV2"])
    bdsd = Bdsd(camera)
    park.observe(bdsd, size=150)
    regressors, lost, _ = samples(camera, park)
    gains = np.linalg.lstsq(regressors, lost, rcond=None)[0]
    np.testing.assert_allclose(bdsd.statistics["gains"], gains, rtol=0, atol=1e-9)
    exp = camera.expand(park.ms.astype(np.float64))
    expected = exp + np.einsum("jb,jhw->bhw", gains, np.concatenate([exp, park.pan]))
    assert np.abs(park.sharpen(bdsd, size=150) - expected).max() < 1e-6 * expected.max()


def test_constrained_gains_are_the_best(park: Scene) -> None:
    """Karush-Kuhn-Tucker: no gain that may move has a slope, and one at its bound would only go beyond it."""
    camera = Camera.of_scene(4, BANDS, SENSORS["WV2"])
    method = BdsdPc(camera)
    park.observe(method, size=150)
    gains = method.statistics["gains"]
    assert (gains[:-1] <= 0).all()
    assert (gains[-1] >= 0).all()
    regressors, lost, _ = samples(camera, park)
    slope = regressors.T @ (lost - regressors @ gains)  # where the error falls
    slope /= np.linalg.norm(regressors, axis=0)[:, None] * np.linalg.norm(lost, axis=0)
    assert np.abs(slope[gains != 0]).max() < 1e-9
    allowed = np.array([-1, -1, -1, -1, 1])[:, None]
    assert (gains == 0).any()
    assert (slope * allowed)[gains == 0].max() < 0


def test_clusters_by_regressions_on_pixels(park: Scene) -> None:
    camera = Camera.of_scene(4, BANDS, SENSORS["WV2"])
    method = CBdsd(camera)
    park.observe(method, size=150)
    pan = park.pan[0].astype(np.float64)
    padded = np.pad(pan, ((26, 25), (26, 25)), mode="symmetric")
    sums = np.stack([padded, padded**2]).cumsum(axis=1).cumsum(axis=2)  # of integers: exact
    total, squares = sums[:, 51:, 51:] - sums[:, 51:, :-51] - sums[:, :-51, 51:] + sums[:, :-51, :-51]
    of_pixels = np.stack([np.sqrt((squares - total**2 / 51**2) / (51**2 - 1)), pan])
    of_pixels /= of_pixels[:, park.valid].max(axis=1)[:, None, None]
    distance = np.linalg.norm(of_pixels[:, None] - method.statistics["centres"].T[..., None, None], axis=0)
    labels = distance.argmin(axis=0)

    regressors, lost, valid = samples(camera, park)
    regressors = np.column_stack([regressors, np.ones(len(regressors))])
    of_scene = np.linalg.lstsq(regressors, lost, rcond=None)[0]
    exp = camera.expand(park.ms.astype(np.float64))
    sources = np.stack([*exp, pan, np.ones(pan.shape)])
    expected, replaced = exp.copy(), 0
    for k in range(30):
        own = labels[2::4, 2::4][valid] == k
        gains = np.linalg.lstsq(regressors[own], lost[own], rcond=None)[0] if own.sum() >= 12 else of_scene
        if (gains[4] < 0).any():
            gains, replaced = of_scene, replaced + 1
        expected[:, labels == k] += gains.T @ sources[:, labels == k]
    assert 0 < replaced < 15
    assert np.abs(park.sharpen(method, size=150) - expected).max() < 2e-6 * expected.max()


def test_small_clusters_take_the_model_of_the_scene() -> None:
    scene, camera = synthetic(4), Camera.of_scene(4, BANDS)
    of_pixels = features(scene.pan)[:, 2::4, 2::4] / features(scene.pan).max(axis=(1, 2), keepdims=True)
    centres = np.array([[0.9, 0.4], [0.9, 0.9]])
    assert 0 < nearest(of_pixels, centres).sum() < 12
    two, one = OfCentres(camera, centres), OfCentres(camera, centres[:1])
    scene.observe(two, size=96)
    scene.observe(one, size=96)
    np.testing.assert_allclose(two.statistics["gains"][1], one.statistics["gains"][0], rtol=1e-9)
    assert np.abs(two.statistics["gains"][0] - one.statistics["gains"][0]).max() > 1e-5


@pytest.mark.parametrize("seed", range(20))
def test_nonnegative_is_the_best_of_all_choices(seed: int) -> None:
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(30, 6)) * 10 ** random.uniform(-3, 3, 6)
    matrix[:, 4] = matrix[:, 1] + 1e-3 * matrix[:, 4] if seed % 3 else 0  # nearly the same, or nothing
    target = random.normal(size=30) + (seed % 4) * matrix @ random.normal(size=6)
    errors = [np.sum(target**2)]
    for chosen in chain.from_iterable(combinations(range(6), count) for count in range(1, 7)):
        x = np.linalg.lstsq(matrix[:, chosen], target, rcond=None)[0]
        if (x >= 0).all():
            errors.append(np.sum((target - matrix[:, chosen] @ x) ** 2))
    found = nonnegative(matrix.T @ matrix, matrix.T @ target)
    assert (found >= 0).all()
    assert np.sum((target - matrix @ found) ** 2) == pytest.approx(min(errors), rel=1e-9)


def test_k_means_finds_what_is_apart() -> None:
    random = np.random.default_rng(5)
    truth = np.stack(np.meshgrid(np.arange(6), np.arange(5)), axis=-1).reshape(30, 2) / 6
    points = truth[random.integers(30, size=5000)] + random.normal(scale=0.004, size=(5000, 2))
    centres = k_means(points, 30)
    error = np.linalg.norm(truth[:, None] - centres, axis=2).min(axis=1)
    assert (error < 0.01).sum() >= 28  # Lloyd's algorithm may leave two in one place
    np.testing.assert_array_equal(centres, k_means(points, 30))


def test_a_sample_does_not_depend_on_the_cut() -> None:
    random = np.random.default_rng(6)
    rows, cols = (axis.ravel() for axis in np.indices((120, 90)))
    values = random.normal(size=(len(rows), 2))
    whole, pieces = Sample(500), Sample(500)
    whole.add(values, rows, cols)
    for piece in np.array_split(random.permutation(len(rows)), 7):
        pieces.add(values[piece], rows[piece], cols[piece])
    np.testing.assert_array_equal(whole.values, pieces.values)
    places = [np.flatnonzero((values == value).all(axis=1))[0] for value in whole.values]
    counts = np.histogram2d(rows[places], cols[places], bins=(4, 3))[0]
    assert 20 < counts.min() <= counts.max() < 65  # 42 expected: spread like chance


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_flat_and_tiny_scenes_stay_finite(name: str, dtype: type) -> None:
    texture, tiny = synthetic(4, dtype=dtype), synthetic(4, size=2, dtype=dtype)
    flat = np.full_like(texture.pan, 400.1)
    one_flat = texture.ms.copy()
    one_flat[1] = 7
    twins = np.repeat(texture.ms[:2], 2, axis=0)
    for pan, ms in [
        *[(flat, texture.ms), (flat, 0 * texture.ms), (texture.pan, 0 * texture.ms), (0 * flat, texture.ms)],
        *[(texture.pan, one_flat), (texture.pan, twins), (tiny.pan, tiny.ms)],  # the last: fewer pixels than unknowns
    ]:
        hrms = sharpen_whole(FAMILY[name](Camera.of_scene(4, BANDS, SENSORS["QB"])), pan, ms)
        assert hrms.dtype == dtype
        assert np.isfinite(hrms).all()
        assert np.abs(hrms).max() < 10 * max(pan.max(), ms.max())


@pytest.mark.parametrize("name", ["BDSD", "BDSD_PC", "C_BDSD"])
def test_scene_without_a_whole_ms_pixel_is_refused(name: str) -> None:
    scene = synthetic(4)
    scene.valid[::4] = False
    with pytest.raises(SceneError):
        scene.observe(FAMILY[name](Camera.of_scene(4, BANDS)), size=96)
