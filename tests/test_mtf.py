"""MTF kernels against the toolbox's, and the quick filter against the slow one."""

from pathlib import Path

import numpy as np
import pytest
import rasterio

from pansharpen_cli.imaging.interpolation import sample
from pansharpen_cli.imaging.mtf import SENSORS, TAPS, kernel, reach, seen

HALF = TAPS // 2


def test_kernels_are_those_of_the_toolbox(golden: Path):
    file = np.load(golden / "metrics" / "mtf_kernels.npz")
    for gain, quadrant, total in zip(file["gains"], file["quadrant"], file["dc_sum"], strict=True):
        found = kernel(int(file["ratio"]), float(gain))
        np.testing.assert_allclose(found[HALF:, HALF:], quadrant, rtol=0, atol=1e-12)
        np.testing.assert_allclose(found, found[::-1], rtol=0, atol=1e-15)
        np.testing.assert_allclose(found, found[:, ::-1], rtol=0, atol=1e-15)
        assert found.sum() == pytest.approx(total, abs=1e-11)


def test_a_cached_kernel_cannot_be_spoilt():
    assert not kernel(4, 0.3).flags.writeable


@pytest.mark.parametrize("ratio", [2, 4])
@pytest.mark.parametrize("gain", [0.15, 0.23, 0.35])
def test_the_gain_at_nyquist_is_nearly_the_sensors(ratio: int, gain: float):
    # made from N - 1 = 40 samples of a spectrum that has 41: the toolbox's kernels blur 5 to 9 % more
    wave = np.cos(np.pi / ratio * np.arange(-HALF, HALF + 1))
    taps = kernel(ratio, gain).sum(axis=0)
    assert taps @ wave / taps.sum() == pytest.approx(0.93 * gain, rel=0.03)


def filtered_in_two_dimensions(image: np.ndarray, ratio: float, gain: float) -> np.ndarray:
    """The 41 x 41 correlation, term by term, the border replicated."""
    weights = kernel(ratio, gain)
    padded = np.pad(image.astype(np.float64), HALF, mode="edge")
    height, width = image.shape
    total = np.zeros(image.shape)
    for row in range(TAPS):
        for col in range(TAPS):
            total += weights[row, col] * padded[row : row + height, col : col + width]
    return total


def test_published_gains():
    assert SENSORS["QB"].gain("nir") == 0.22
    assert SENSORS["WV3"].gain("coastal") == 0.325
    assert SENSORS["WV2"].gain("nir2") == 0.27
    assert SENSORS["GeoEye1"].gain("blue") == 0.23
    assert [SENSORS[name].pan_gain for name in ("QB", "IKONOS", "GeoEye1", "WV4", "WV2", "WV3")] == [
        0.15, 0.17, 0.16, 0.16, 0.11, 0.14,
    ]  # fmt: skip


@pytest.mark.parametrize("sensor", ["generic", "QB", "WV3"])
def test_unknown_bands_have_the_toolboxs_gain(sensor: str):
    assert SENSORS[sensor].gain("swir2") == 0.30


@pytest.mark.parametrize(("ratio", "phase"), [(2, 0.5), (2, 1), (3, 1), (4, 1.5), (4, 2)])
def test_a_coarser_camera_sees_the_filtered_image_at_its_positions(data: Path, ratio: int, phase: float):
    with rasterio.open(data / "wv2_urban_w" / "pan.tif") as file:
        image = file.read(1)[200:284, 100:172].astype(np.float64)
    beyond = 8 * ratio  # the blur goes on beyond the border
    filtered = filtered_in_two_dimensions(np.pad(image, beyond, mode="edge"), ratio, 0.3)
    rows, cols = (ratio * np.arange(size // ratio) + phase + beyond for size in image.shape)
    expected = sample(filtered[None], np.ones(filtered.shape, bool), rows, cols, "sinc")[0]
    np.testing.assert_allclose(seen(image, ratio, 0.3, phase), expected, rtol=0, atol=1e-6 * image.max())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_a_coarser_camera_sees_keeps_its_type(dtype: str):
    assert seen(np.ones((12, 16), dtype), 4, 0.3, 1.5).dtype == dtype


@pytest.mark.parametrize(("ratio", "phase"), [(2, 0.5), (3, 1), (4, 1.5), (4, 2)])
def test_a_coarse_pixel_reads_as_far_as_it_says(ratio: int, phase: float):
    image = np.zeros((120, 120))
    image[60, 60] = 1e9
    rows, cols = np.nonzero(np.abs(seen(image, ratio, 0.3, phase)) > 1e-12)
    for hit in (rows, cols):
        pixels = np.concatenate([ratio * hit, ratio * hit + ratio - 1])
        assert np.abs(pixels - 60).max() <= reach(ratio, phase)
