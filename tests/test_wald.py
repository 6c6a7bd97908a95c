"""Wald's protocol: filters and decimation against slow ones, positions, sizes, gaps."""

from pathlib import Path

import numpy as np
import pytest
import rasterio

from pansharpen_cli.imaging.mtf import SENSORS, TAPS, kernel
from pansharpen_cli.imaging.wald import ReducedScene, degrade, reduce

HALF = TAPS // 2
OFFSETS = np.arange(-5.5, 6)
HALF_WAY = np.sinc(OFFSETS) * np.sinc(OFFSETS / 6)
"""Between two pixels: a sinc under a sinc of six lobes."""
HALF_WAY /= HALF_WAY.sum()
RNG = np.random.default_rng(12)
QB = SENSORS["QB"]


def slowly(band: np.ndarray, ratio: int, gain: float) -> np.ndarray:
    """The 41 x 41 correlation, then a windowed sinc at the middle of every new pixel, pixel by pixel."""
    around = blurred(band, ratio, gain, beyond=6)
    result = np.zeros((band.shape[0] // ratio, band.shape[1] // ratio))
    for row in range(result.shape[0]):
        for col in range(result.shape[1]):
            top, left = row * ratio + (ratio - 1) // 2 + 6, col * ratio + (ratio - 1) // 2 + 6
            if ratio % 2:
                result[row, col] = around[top, left]
            else:
                result[row, col] = HALF_WAY @ around[top - 5 : top + 7, left - 5 : left + 7] @ HALF_WAY
    return result


def blurred(band: np.ndarray, ratio: int, gain: float, beyond: int = 0) -> np.ndarray:
    """The 41 x 41 correlation, border replicated, on the band and so many pixels around it."""
    padded = np.pad(band.astype(np.float64), HALF + beyond, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (TAPS, TAPS))
    return np.einsum("hwij,ij->hw", windows, kernel(ratio, gain), optimize=True)


@pytest.mark.parametrize("ratio", [2, 3, 4])
def test_against_the_slow_way(data: Path, ratio: int):
    with rasterio.open(data / "wv2_park" / "ms.tif") as file:
        image = file.read()[:2, :72, 60:144].astype(np.float32)
    found = degrade(image, ratio, [0.34, 0.22])
    for band, gain, of_band in zip(image, (0.34, 0.22), found, strict=True):
        np.testing.assert_allclose(of_band, slowly(band, ratio, gain), rtol=0, atol=1e-3)


@pytest.mark.parametrize("ratio", [2, 3, 4, 5])
def test_a_ramp_keeps_its_place(ratio: int):
    size = 40 * ratio
    rows, cols = np.indices((size, size + ratio), dtype=np.float64)
    found = degrade((3 * rows - 2 * cols)[None], ratio, [0.3])[0]
    middle = (ratio - 1) / 2
    rows, cols = np.indices(found.shape)
    expected = (3 * (ratio * rows + middle) - 2 * (ratio * cols + middle)) * kernel(ratio, 0.3).sum()
    inner = slice(-(-(HALF + 6) // ratio), -(-(HALF + 6) // -ratio))
    np.testing.assert_allclose(found[inner, inner], expected[inner, inner], rtol=0, atol=2e-3)


@pytest.mark.parametrize("ratio", [2, 4])
def test_flat_ground_is_scaled_by_the_kernels_sum(ratio: int):
    found = degrade(np.full((2, 48, 40), 1000.0), ratio, [0.2, 0.35])
    for band, gain in zip(found, (0.2, 0.35), strict=True):
        np.testing.assert_allclose(band, 1000 * kernel(ratio, gain).sum(), rtol=0, atol=2e-3)


@pytest.mark.parametrize("ratio", [2, 4])
def test_decimation_blurs_no_more_than_the_mtf(ratio: int):
    """A wave at the new Nyquist frequency, its crests in the middle of the new pixels, keeps what the kernel leaves."""
    middle = (ratio - 1) / 2
    wave = np.cos(np.pi * (np.arange(40 * ratio) - middle) / ratio)
    found = degrade(np.broadcast_to(wave, (1, 20 * ratio, 40 * ratio)), ratio, [0.3])[0]
    taps = kernel(ratio, 0.3).sum(axis=0)
    left = taps @ np.cos(np.pi / ratio * np.arange(-HALF, HALF + 1))
    assert np.abs(found[:, 12:-12]).mean() == pytest.approx(left, rel=0.01)


def pair(ratio: int, height: int = 60, width: int = 68) -> tuple[np.ndarray, np.ndarray]:
    pan = RNG.uniform(100, 900, (1, ratio * height, ratio * width)).astype(np.float32)
    return pan, RNG.uniform(100, 900, (4, height, width)).astype(np.float32)


BANDS = "blue", "green", "red", "nir"
SIZES = (4, 4, 60, 68), (4, 4, 63, 65), (2, 2, 61, 66), (2, 4, 62, 67)


def reduced(pan: np.ndarray, ms: np.ndarray, ratio: int, valid: np.ndarray | None = None) -> ReducedScene:
    valid = np.ones(pan.shape[1:], bool) if valid is None else valid
    return reduce("scene", pan, ms, valid, ratio=ratio, sensor=QB, band_names=BANDS)


@pytest.mark.parametrize(("own", "ratio", "height", "width"), SIZES)
def test_sizes(own: int, ratio: int, height: int, width: int):
    pan, ms = pair(own, height, width)
    scene = reduced(pan, ms, ratio)
    rows, cols = height // ratio * ratio, width // ratio * ratio
    assert scene.ratio == ratio
    assert scene.pan.shape == (1, rows, cols)
    assert scene.gt.shape == (4, rows, cols)
    assert scene.ms.shape == (4, rows // ratio, cols // ratio)
    assert scene.valid.shape == (rows, cols)
    assert scene.valid.all()
    assert scene.pan.dtype == scene.ms.dtype == scene.gt.dtype == np.float32
    assert scene.band_names == BANDS
    np.testing.assert_array_equal(scene.gt, ms[:, :rows, :cols])


@pytest.mark.parametrize(("own", "ratio"), [(4, 4), (2, 2), (2, 4)])
def test_the_pan_is_reduced_by_its_own_ratio_and_the_ms_by_the_tasks(own: int, ratio: int):
    pan, ms = pair(own, 48, 48)
    scene = reduced(pan, ms, ratio)
    np.testing.assert_allclose(scene.pan[0], slowly(pan[0], own, 0.15), rtol=0, atol=1e-3)
    for band, gain, of_band in zip(ms, (0.34, 0.32, 0.30, 0.22), scene.ms, strict=True):
        np.testing.assert_allclose(of_band, slowly(band, ratio, gain), rtol=0, atol=1e-3)


@pytest.mark.parametrize(("own", "ratio"), [(4, 4), (2, 2), (2, 4)])
def test_where_it_is_valid_no_gap_was_touched(own: int, ratio: int):
    pan, ms = pair(own, 96, 96)
    valid = np.ones((96, 96), bool)
    valid[40:47, 50:53] = False
    fine = valid.repeat(own, axis=0).repeat(own, axis=1)
    changed_pan, changed_ms = np.where(fine, pan, 1e9), np.where(valid, ms, 1e9)
    scene = reduced(pan, ms, ratio, fine)
    other = reduced(changed_pan.astype(np.float32), changed_ms.astype(np.float32), ratio, fine)
    assert 0.2 < scene.valid.mean() < 1
    touched_pan = (scene.pan != other.pan).any(axis=0)
    touched_ms = (scene.ms != other.ms).any(axis=0).repeat(ratio, axis=0).repeat(ratio, axis=1)
    assert not (touched_pan & scene.valid).any()
    assert not (touched_ms & scene.valid).any()


def test_a_gap_in_one_pan_pixel_makes_the_truth_invalid_around():
    pan, ms = pair(4, 96, 96)
    valid = np.ones(pan.shape[1:], bool)
    valid[4 * 50 + 1, 4 * 60 + 3] = False
    scene = reduced(pan, ms, 4, valid)
    distance = np.maximum(np.abs(np.arange(96)[:, None] - 50), np.abs(np.arange(96) - 60))
    assert not scene.valid[distance <= HALF].any()
    assert scene.valid[distance > HALF + 8].all()


def test_as_the_toolbox_degrades(golden: Path):
    """Its own MS, which it rounded, is met to the last digit."""
    case = np.load(golden / "classical" / "qb_00p.npz")
    found = degrade(np.moveaxis(case["gt"], -1, 0), 4, [QB.gain(band) for band in BANDS], "toolbox")
    np.testing.assert_array_equal(np.floor(found + 0.5), np.moveaxis(case["ms"], -1, 0))


def test_a_toolbox_pair_stays_one():
    """A ramp keeps its place: the new MS sample i lies on PAN pixel 4 i + 2, and the truth on the PAN."""
    rows, cols = np.indices((640, 512), dtype=np.float64)
    pan = (3 * rows - 2 * cols)[None].astype(np.float32)
    ms = pan[:, 2::4, 2::4].repeat(4, axis=0)
    scene = reduce("ramp", pan, ms, np.ones((640, 512), bool), ratio=4, sensor=QB, band_names=BANDS, geometry="toolbox")
    assert (scene.geometry, scene.phase) == ("toolbox", 2.0)
    inner = slice(40, -40)
    pan_sum, ms_sum = kernel(4, QB.pan_gain).sum(), kernel(4, QB.gain("blue")).sum()
    np.testing.assert_allclose(scene.pan[0, inner, inner] / pan_sum, scene.gt[0, inner, inner], rtol=0, atol=0.05)
    np.testing.assert_allclose(
        scene.ms[0, 10:-10, 10:-10] / ms_sum, scene.gt[0, 2::4, 2::4][10:-10, 10:-10], rtol=0, atol=0.05
    )


def test_a_pan_on_the_grid_of_the_truth_is_left_as_it_is():
    pan = RNG.uniform(100, 900, (1, 61, 66)).astype(np.float32)
    truth = RNG.uniform(100, 900, (4, 61, 66)).astype(np.float32)
    scene = reduced(pan, truth, 4)
    assert scene.ms.shape == (4, 15, 16)
    np.testing.assert_array_equal(scene.pan, pan[:, :60, :64])
    np.testing.assert_array_equal(scene.gt, truth[:, :60, :64])
