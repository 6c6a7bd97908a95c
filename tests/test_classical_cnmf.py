"""CNMF against its author's code, and against what it must be: a matter of each pixel, once a scene is observed."""

from pathlib import Path

import numpy as np
import pytest
from test_classical import BANDS, Scene, synthetic
from test_classical_definitions import load

from pansharpen_cli.classical.camera import Camera
from pansharpen_cli.classical.cnmf import Cnmf
from pansharpen_cli.errors import SceneError
from pansharpen_cli.imaging.tiling import Tile, spread
from pansharpen_cli.metrics.reduced_resolution import ergas

CASES = ("qb_00", "qb_00p", "wv2_crop", "gf2_ns", "l8_r2")


class OfSpectra(Cnmf):
    """CNMF from the same first spectra as others."""

    def __init__(self, camera: Camera, maxval: float, spectra: np.ndarray) -> None:
        super().__init__(camera, maxval)
        self.spectra = spectra

    def first_spectra(self, ms: np.ndarray) -> np.ndarray:
        return self.spectra


def observe(scene: Scene, method: Cnmf, crop: int) -> None:
    rows, cols = (spread(size, crop, 12, scene.ratio) for size in scene.valid.shape)
    method.observe(scene.read(Tile(row, col)) for row in rows for col in cols)


def sharpen_whole(method: Cnmf, pan: np.ndarray, ms: np.ndarray) -> np.ndarray:
    scene = Scene(pan, ms)
    observe(scene, method, crop=max(pan.shape))
    return scene.sharpen(method, size=max(pan.shape))


@pytest.mark.parametrize("case", CASES)
def test_equals_the_authors_code(golden: Path, case: str) -> None:
    camera, scene = load(golden / f"classical/{case}.npz")
    with np.load(golden / f"classical/{case}.npz") as stored:
        expected, rows = stored["rows_CNMF"].transpose(2, 0, 1), stored["rows"]
        stats = stored["stats"][list(stored["methods"]).index("CNMF")]
        method = OfSpectra(camera, 2047, stored["cnmf_W0"])
    hrms = sharpen_whole(method, scene.pan, scene.ms)
    peak = stats[3].max()
    assert np.abs(hrms[:, rows].astype(np.float32) - expected).max() < 1e-7 * peak
    found = np.stack([hrms.mean((1, 2)), hrms.std((1, 2), ddof=1), hrms.min((1, 2)), hrms.max((1, 2))])
    assert np.abs(found - stats).max() < 1e-9 * peak


@pytest.mark.parametrize("case", ["qb_00", "qb_00p"])
def test_sharpens_when_it_has_seen_crops(golden: Path, case: str) -> None:
    """With its own spectra, from quarters of the scene: a third less error than EXP, as the author's code has it."""
    camera, scene = load(golden / f"classical/{case}.npz")
    with np.load(golden / f"classical/{case}.npz") as stored:
        gt = stored["gt"].transpose(2, 0, 1).astype(np.float64)
    method = Cnmf(camera)
    observe(scene, method, crop=128)
    hrms = scene.sharpen(method, size=256)
    inner = np.s_[:, 20:-21, 20:-21]
    error, of_exp = (ergas(gt[inner], image[inner], 4) for image in (hrms, camera.expand(scene.ms)))
    assert error < 0.67 * of_exp


@pytest.mark.parametrize(("ratio", "bands"), [(2, 4), (3, 1), (4, 4), (5, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_tiled_equals_whole(ratio: int, bands: int, dtype: type) -> None:
    scene = synthetic(ratio, bands=bands, dtype=dtype)
    method = Cnmf(Camera.of_scene(ratio, BANDS[:bands]))
    observe(scene, method, crop=8 * ratio)
    tiled, whole = (scene.sharpen(method, size) for size in (5 * ratio + 1, 24 * ratio))
    assert tiled.dtype == dtype
    assert np.abs(tiled - whole).max() < (1e-6 if dtype is np.float32 else 1e-10) * whole.max()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_first_spectra_are_the_pure_pixels(seed: int) -> None:
    random = np.random.default_rng(seed)
    pure = random.uniform(0.1, 1, (4, 4))
    abundances = random.dirichlet(np.ones(4), 500).T
    abundances[:, 100:104] = np.eye(4)
    brightness = random.uniform(0.5, 1, 500)
    found = Cnmf(Camera.of_scene(4, BANDS)).first_spectra(pure @ abundances * brightness)
    expected = pure * brightness[100:104]
    assert {tuple(spectrum) for spectrum in found.T.round(9)} == {tuple(spectrum) for spectrum in expected.T.round(9)}


def test_pixels_of_two_spectra_are_unmixed() -> None:
    """Fields whose borders the MS cannot see: the PAN puts them right."""
    random = np.random.default_rng(8)
    spectra = np.array([[100, 600], [200, 500.0]])
    field = random.random((40, 40)) > 0.5
    field[::2, ::2] = True
    fine = spectra[:, field.repeat(3, axis=0).repeat(3, axis=1).astype(int)]
    ms = fine.reshape(2, 30, 4, 30, 4).mean(axis=(2, 4))
    camera = Camera.of_scene(4, BANDS[:2])
    hrms = sharpen_whole(Cnmf(camera), fine.mean(axis=0, keepdims=True), ms)
    error, of_exp = (np.abs(image - fine).mean() for image in (hrms, camera.expand(ms)))
    assert error < 0.2 * of_exp


def test_gaps_are_not_learnt_from() -> None:
    scene, method = synthetic(4), Cnmf(Camera.of_scene(4, BANDS))
    scene.valid[30:50, 20:61] = False
    scene.pan[:, ~scene.valid] = scene.ms[:, 8:12, 5:15] = 1e6
    observe(scene, method, crop=48)
    pan = scene.pan[0, scene.valid]
    scale, offset = pan.max(), method.statistics["offset"]
    assert method.statistics["scale"] == scale
    assert method.statistics["weight"] == pytest.approx(4 / 0.7455 * np.maximum(pan / scale - offset, 0).mean())
    assert method.statistics["course"].max() < 1.1


def test_flat_and_tiny_scenes_stay_finite() -> None:
    texture, tiny = synthetic(4), synthetic(4, size=1)
    flat = np.full_like(texture.pan, 400.1)
    one_flat = texture.ms.copy()
    one_flat[1] = 0
    for pan, ms in [
        *[(flat, texture.ms), (flat, 0 * texture.ms), (texture.pan, 0 * texture.ms), (0 * flat, texture.ms)],
        *[(0 * flat, 0 * texture.ms), (texture.pan, one_flat), (texture.pan - 400, texture.ms - 400)],
        (tiny.pan, tiny.ms),
    ]:
        hrms = sharpen_whole(Cnmf(Camera.of_scene(4, BANDS)), pan, ms)
        assert np.isfinite(hrms).all()
        assert np.abs(hrms).max() < 10 * max(pan.max(), ms.max(), 1)


def test_units_do_not_matter() -> None:
    """Reflectance as well as digital numbers."""
    scene, camera = synthetic(4), Camera.of_scene(4, BANDS)
    hrms = sharpen_whole(Cnmf(camera), scene.pan, scene.ms)
    found = sharpen_whole(Cnmf(camera), scene.pan * 1e-4, scene.ms * 1e-4)
    np.testing.assert_allclose(found, hrms * 1e-4, rtol=1e-9)


def test_scene_without_a_whole_ms_pixel_is_refused() -> None:
    scene = synthetic(4)
    scene.valid[::4] = False
    with pytest.raises(SceneError):
        observe(scene, Cnmf(Camera.of_scene(4, BANDS)), crop=96)
