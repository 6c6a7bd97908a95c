"""The classical methods: the cut does not matter, gaps take no part, degenerate scenes stay finite, low-passes leave
things in their place."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio

from pansharpen_cli.classical import METHODS
from pansharpen_cli.classical.camera import Camera
from pansharpen_cli.classical.method import Method, Pointwise
from pansharpen_cli.classical.moments import EPS, Moments
from pansharpen_cli.errors import SceneError
from pansharpen_cli.imaging.interpolation import area_phase
from pansharpen_cli.imaging.mtf import SENSORS, kernel
from pansharpen_cli.imaging.tiling import Pixels, Tile, cut

BANDS = ("blue", "green", "red", "nir")
OBSERVING = [name for name, method in METHODS.items() if method.crop != 0]
QUIET = {"exp", "gsa", "pracs", "sfim", "mtf-glp-fs", "mtf-glp-cbd", "mtf-glp-hpm-r", "awlp", "mf"}
"""Methods that leave EXP as it is where the PAN has no detail; the others put a flat PAN in its place, or are scaled by
what the MTF kernels lack to a sum of 1."""


class Scene:
    """A scene in memory, read tile by tile as a method's reach asks for it."""

    def __init__(self, pan: np.ndarray, ms: np.ndarray, valid: np.ndarray | None = None) -> None:
        self.pan, self.ms = pan, ms
        self.valid = np.ones(pan.shape[1:], dtype=bool) if valid is None else valid
        self.ratio = pan.shape[1] // ms.shape[1]

    def tiles(self, method: Method, size: int) -> list[Tile]:
        rows, cols = (cut(0, n, n, size, method.reach, self.ratio) for n in self.valid.shape)
        return [Tile(row, col) for row in rows for col in cols]

    def read(self, tile: Tile) -> Pixels:
        ms = self.ms[:, *tile.coarser(self.ratio).read]
        return Pixels(tile, self.pan[:, *tile.read], ms, self.valid[tile.read])

    def observe(self, method: Method, size: int, backwards: bool = False) -> None:
        """In tiles of `size`, in either order; a method that wants crops gets its crops."""
        tiles = self.tiles(method, method.crop or size)
        method.observe(Reading(self, tiles[::-1] if backwards and not method.crop else tiles))

    def sharpen(self, method: Method, size: int) -> np.ndarray:
        hrms = np.full((len(self.ms), *self.valid.shape), np.nan, self.pan.dtype)
        for tile in self.tiles(method, size):
            pixels = self.read(tile)
            hrms[:, *tile.core] = method(pixels.pan, pixels.ms)[:, *tile.inner]
        return hrms


class Reading:
    """Tiles of a scene, read anew each time they are iterated."""

    def __init__(self, scene: Scene, tiles: list[Tile]) -> None:
        self.scene, self.tiles = scene, tiles

    def __iter__(self) -> Iterator[Pixels]:
        return map(self.scene.read, self.tiles)


def sharpen_whole(method: Method, pan: np.ndarray, ms: np.ndarray) -> np.ndarray:
    scene = Scene(pan, ms)
    if method.crop != 0:
        scene.observe(method, size=max(pan.shape))
    return scene.sharpen(method, size=max(pan.shape))


def synthetic(ratio: int, bands: int = 4, size: int = 24, dtype: type = np.float64) -> Scene:
    """Rough texture in digital numbers, PAN and MS related."""
    random = np.random.default_rng(ratio)
    fine = random.gamma(2, 150, (bands, size * ratio, size * ratio)) + 50
    ms = fine.reshape(bands, size, ratio, size, ratio).mean(axis=(2, 4))
    pan = fine.mean(axis=0, keepdims=True) + 20 * random.standard_normal((1, *fine.shape[1:]))
    return Scene(pan.astype(dtype), ms.astype(dtype))


@pytest.fixture(scope="module")
def park(data: Path) -> Scene:
    """A real scene, 480 x 640 PAN pixels, a hole with wild values in it."""
    with rasterio.open(data / "wv2_park/pan.tif") as pan_file, rasterio.open(data / "wv2_park/ms.tif") as ms_file:
        pan = pan_file.read()[:, :480, :640].astype(np.float32)
        ms = ms_file.read()[:, :120, :160].astype(np.float32)
    valid = np.ones(pan.shape[1:], dtype=bool)
    valid[100:190, 245:390] = False  # cuts MS pixels and tiles
    pan[:, ~valid] = 5000
    return Scene(pan, ms, valid)


@pytest.mark.parametrize("name", METHODS)
def test_tiled_equals_whole(park: Scene, name: str) -> None:
    camera = Camera.of_scene(4, BANDS, SENSORS["WV2"])
    tiled, whole = METHODS[name](camera), METHODS[name](camera)
    if name in OBSERVING:
        park.observe(tiled, size=150, backwards=True)
        park.observe(whole, size=640)
    for key, value in whole.statistics.items():
        assert np.abs(tiled.statistics[key] - value).max() <= 1e-11 * max(np.abs(value).max(), 1)
    found, expected = park.sharpen(tiled, size=150), park.sharpen(whole, size=640)
    assert found.dtype == np.float32
    assert np.abs(found - expected).max() < 1e-6 * expected.max()


@pytest.mark.parametrize("ratio", [2, 3, 5])
@pytest.mark.parametrize("name", METHODS)
def test_tiled_equals_whole_at_other_ratios(name: str, ratio: int) -> None:
    scene = synthetic(ratio, bands=ratio - 1, size=42)
    method = METHODS[name](Camera.of_scene(ratio, BANDS[: ratio - 1]))
    if name in OBSERVING:
        scene.observe(method, size=13 * ratio + 1)
    tiled = scene.sharpen(method, size=13 * ratio + 1)
    whole = sharpen_whole(METHODS[name](method.camera), scene.pan, scene.ms)
    np.testing.assert_allclose(tiled, whole, rtol=0, atol=1e-10 * whole.max())


@pytest.mark.parametrize("name", ["brovey", "gsa", "pracs", "bt-h"])
def test_threads_do_not_change_the_statistics(park: Scene, name: str) -> None:
    """To the last bit: else a product would depend on the machine's cores."""
    methods = []
    for threads in (1, 3):
        methods.append(METHODS[name](Camera.of_scene(4, BANDS)))
        methods[-1].at_once = threads
        park.observe(methods[-1], 160)
    alone, together = (method.statistics for method in methods)
    assert alone.keys() == together.keys()
    for key, value in alone.items():
        np.testing.assert_array_equal(together[key], value)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if issubclass(method, Pointwise)])
def test_a_few_rows_at_a_time_are_all_rows_at_once(park: Scene, name: str) -> None:
    method = METHODS[name](Camera.of_scene(4, BANDS))
    park.observe(method, 64)
    pan, ms = park.pan.astype(np.float64), park.ms.astype(np.float64)
    np.testing.assert_allclose(method(pan, ms), method.fuse(pan, ms, method.statistics), rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_brovey_is_its_formula_to_the_last_bit(dtype: type) -> None:
    scene = synthetic(4, dtype=dtype)
    brovey = METHODS["brovey"](Camera.of_scene(4, BANDS))
    scene.observe(brovey, 64)
    exp = brovey.camera.expand(scene.ms)
    matched = scene.pan * brovey.statistics["gain"].astype(dtype) + brovey.statistics["offset"].astype(dtype)
    np.testing.assert_array_equal(brovey(scene.pan, scene.ms), exp * (matched / (exp.mean(axis=0) + EPS)))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_statistics_leave_invalid_pixels_out(park: Scene, dtype: type) -> None:
    camera = Camera.of_scene(4, BANDS)
    brovey = METHODS["brovey"](camera)
    Scene(park.pan.astype(dtype), park.ms.astype(dtype), park.valid).observe(brovey, size=128)
    intensity = camera.expand(park.ms.astype(np.float64)).mean(axis=0)[park.valid]
    pan = park.pan[0].astype(np.float64)[park.valid]
    gain = intensity.std(ddof=1) / pan.std(ddof=1)
    assert brovey.statistics["gain"] == pytest.approx(gain, rel=1e-10)
    assert brovey.statistics["offset"] == pytest.approx(intensity.mean() - gain * pan.mean(), rel=1e-10)


def test_gsa_regression_leaves_broken_ms_pixels_out(park: Scene) -> None:
    camera = Camera.of_scene(4, BANDS)
    gsa = METHODS["gsa"](camera)
    park.observe(gsa, size=128)
    whole = park.valid.reshape(120, 4, 160, 4).all(axis=(1, 3))
    explained = np.vstack([park.ms[:, whole], np.ones(whole.sum())]).T.astype(np.float64)
    low_passed = camera.starlet_at_ms(park.pan.astype(np.float64))[0, whole]
    alpha = np.linalg.lstsq(explained, low_passed, rcond=None)[0]
    np.testing.assert_allclose(gsa.statistics["weights"], alpha[:-1], rtol=1e-8)


def test_scene_without_data_is_refused() -> None:
    scene = synthetic(4)
    scene.valid[:] = False
    with pytest.raises(SceneError):
        scene.observe(METHODS["gsa"](Camera.of_scene(4, BANDS)), size=64)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_flat_and_empty_scenes_stay_finite(name: str, dtype: type) -> None:
    flat = np.full((1, 96, 96), 400.1, dtype)
    texture = synthetic(4, dtype=dtype)
    for pan, ms in [(flat, texture.ms), (flat, 0 * texture.ms), (texture.pan, 0 * texture.ms), (0 * flat, texture.ms)]:
        camera = Camera.of_scene(4, BANDS, SENSORS["QB"])
        hrms = sharpen_whole(METHODS[name](camera), pan, ms)
        assert hrms.dtype == dtype
        assert np.isfinite(hrms).all()
        if pan is not texture.pan and name in QUIET:
            np.testing.assert_allclose(hrms, camera.expand(ms), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("name", ["brovey", "ihs", "gs"])
def test_pan_that_is_the_intensity_changes_nothing(name: str) -> None:
    scene = synthetic(4)
    camera = Camera.of_scene(4, BANDS)
    exp = camera.expand(scene.ms)
    pan = 3 * exp.mean(axis=0, keepdims=True) + 100  # another gain and offset are matched away
    np.testing.assert_allclose(sharpen_whole(METHODS[name](camera), pan, scene.ms), exp, rtol=1e-10)


@pytest.mark.parametrize("ratio", [2, 3, 4, 5])
def test_exp_puts_the_ground_where_it_is(ratio: int) -> None:
    """One smooth function of ground (x, y), sampled at the pixel centres of both grids."""

    def ground(pixels: int, gsd: float) -> np.ndarray:
        centres = (np.arange(pixels) + 0.5) * gsd
        return np.sin(centres[:, None] / 40) + np.cos(centres[None, :] / 50)

    camera = Camera.of_scene(ratio, BANDS)
    size = 240 // ratio
    exp = camera.expand(ground(size, gsd=ratio)[None])[0]
    inner = slice(60, -60)
    error = np.abs(exp - ground(size * ratio, gsd=1))[inner, inner].max()
    assert error < 1e-3  # half a pixel would be 0.01 and more


@pytest.mark.parametrize("ratio", [2, 3, 4, 5])
def test_low_passes_are_centred(ratio: int) -> None:
    """On a ramp every symmetric filter gives the ramp itself; half a pixel of shift would add half a step."""
    size = 60 * ratio
    ramp = (np.arange(size)[:, None] + 1000.0 + 2 * np.arange(size))[None]
    camera = Camera.of_scene(ratio, ["?", "?"])
    inner = slice(size // 3, -size // 3)
    blurred = camera.blur(ramp)[:, inner, inner] / kernel(ratio, 0.30).sum()  # the kernels are not normalised
    np.testing.assert_allclose(blurred, np.broadcast_to(ramp[:, inner, inner], blurred.shape), atol=0.02)
    position = ratio * np.arange(60) + area_phase(ratio)
    expected = position[:, None] + 1000 + 2 * position
    found = camera.starlet_at_ms(ramp)[0]
    np.testing.assert_allclose(found[20:40, 20:40], expected[20:40, 20:40], rtol=1e-12)


def test_bands_are_blurred_with_their_own_gain() -> None:
    """A plane wave that the MS can hold keeps its place and comes out with the gain of each band's kernel."""
    x = np.arange(256)
    frequency = np.pi / 8  # half the MS Nyquist frequency
    wave = np.cos(frequency * (x - area_phase(4)))
    camera = Camera.of_scene(4, ("nir", "blue", "nir"), SENSORS["QB"])
    blurred = camera.blur(np.broadcast_to(wave, (1, 256, 256)))[camera.look, 128, 64:192]
    offsets = np.arange(-20, 21)
    gains = [(kernel(4, gain) * np.cos(frequency * offsets)).sum() for gain in (0.22, 0.34, 0.22)]
    np.testing.assert_allclose(blurred, np.outer(gains, wave[64:192]), atol=0.01)


def test_moments_of_pieces_are_those_of_the_whole() -> None:
    random = np.random.default_rng(0)
    layers = 1e4 + random.standard_normal((3, 50, 40)) * np.array([1, 10, 100])[:, None, None]
    valid = random.random((50, 40)) > 0.3
    moments = Moments()
    for cols in (slice(30, 40), slice(0, 7), slice(7, 30), slice(0, 0)):
        moments.add([layers[:1, :, cols], layers[1:, :, cols]], valid[:, cols])
    assert moments.count == valid.sum()
    np.testing.assert_array_equal(moments.minimum, layers[:, valid].min(axis=1))
    np.testing.assert_allclose(moments.mean, layers[:, valid].mean(axis=1), rtol=1e-14)
    np.testing.assert_allclose(moments.covariance, np.cov(layers[:, valid]), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(moments.std, layers[:, valid].std(axis=1, ddof=1), rtol=1e-10)


@pytest.mark.parametrize("name", METHODS)
def test_methods_name_themselves(name: str) -> None:
    assert METHODS[name].title
    assert METHODS[name].citation
