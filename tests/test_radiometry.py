"""DN to network units and back, and rounding to the product's type."""

import numpy as np
import pytest

from pansharpen_cli.imaging.radiometry import Clipped, Moments, Radiometry, Scaling, holds, quantise

RNG = np.random.default_rng(5)


def moments_of(pan: np.ndarray, ms: np.ndarray) -> Moments:
    images = [image.astype(np.float64) for image in (*ms, *pan)]
    of_each = [(image.mean(), image.std(), np.percentile(image, 99.9)) for image in images]
    return Moments(*np.array(of_each).T)


def scene(gain: float = 1, offset: float = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(8)
    pan = rng.gamma(3, 100, (1, 32, 32)) * gain + offset
    ms = rng.gamma(3, 100, (3, 16, 16)) * gain * np.array([1, 2, 5])[:, None, None] + offset
    return pan.astype(np.float32), ms.astype(np.float32)


@pytest.mark.parametrize(
    "radiometry",
    [Radiometry("fixed", 2047, 1023), Radiometry("scene"), Radiometry("scene", centre=0.4, spread=0.2)],
)
def test_there_and_back(radiometry: Radiometry):
    pan, ms = scene()
    scaling = Scaling.of(radiometry, moments_of(pan, ms))
    unit_pan, unit_ms = scaling.to_network(pan, ms)
    assert unit_pan.dtype == unit_ms.dtype == np.float32
    np.testing.assert_allclose(scaling.to_dn(unit_ms), ms, rtol=1e-6, atol=1e-3)
    np.testing.assert_allclose(unit_pan * scaling.pan_scale + scaling.pan_offset, pan, rtol=1e-6, atol=1e-3)


def test_fixed_is_a_division():
    pan, ms = scene()
    unit_pan, unit_ms = Scaling.of(Radiometry("fixed", 2047, 1023), moments_of(pan, ms)).to_network(pan, ms)
    np.testing.assert_allclose(unit_ms, ms / 2047, rtol=1e-6)
    np.testing.assert_allclose(unit_pan, pan / 1023, rtol=1e-6)


def test_scene_gives_the_mean_and_the_spread_asked_for():
    pan, ms = scene()
    units = Scaling.of(Radiometry("scene", centre=0.4, spread=0.2), moments_of(pan, ms)).to_network(pan, ms)
    for image in (*units[0], *units[1]):
        assert image.mean() == pytest.approx(0.4, abs=1e-5)
        assert image.std() == pytest.approx(0.2, abs=1e-5)


@pytest.mark.parametrize(("gain", "offset"), [(16, 0), (1 / 2047, 0), (1, 900), (3, -200)])
def test_scene_units_know_neither_gain_nor_offset(gain: float, offset: float):
    units = []
    for pan, ms in (scene(), scene(gain, offset)):
        units.append(Scaling.of(Radiometry("scene"), moments_of(pan, ms)).to_network(pan, ms))
    for plain, changed in zip(*units, strict=True):
        np.testing.assert_allclose(changed, plain, rtol=0, atol=2e-5)


def test_a_flat_band_is_no_division_by_zero():
    pan, ms = scene()
    ms[1] = 77
    scaling = Scaling.of(Radiometry("scene"), moments_of(pan, ms))
    unit = scaling.to_network(pan, ms)[1]
    assert (unit[1] == 0).all()
    np.testing.assert_allclose(scaling.to_dn(unit)[1], 77)


def test_a_flat_band_is_shifted_by_its_value_and_keeps_its_unit():
    pan, ms = scene()
    ms[1] = 77
    scaling = Scaling.of(Radiometry("scene", centre=0.4, spread=0.2), moments_of(pan, ms))
    elsewhere = ms + np.float32(3)  # DN of which the statistics know nothing
    unit = scaling.to_network(pan, elsewhere)[1][1]
    np.testing.assert_allclose(unit, 0.4 + 3 * 0.2, rtol=1e-5)


@pytest.mark.parametrize("kind", ["fixed", "scene"])
def test_every_band_has_a_pair_of_its_own(kind: str):
    pan, ms = scene()
    scaling = Scaling.of(Radiometry(kind), moments_of(pan, ms))
    assert scaling.offset.shape == scaling.scale.shape == (3, 1, 1)
    assert np.ndim(scaling.pan_offset) == np.ndim(scaling.pan_scale) == 0


def test_none_changes_nothing():
    pan, ms = scene()
    same = Scaling.none().to_network(pan, ms)
    np.testing.assert_array_equal(same[0], pan)
    np.testing.assert_array_equal(same[1], ms)
    np.testing.assert_array_equal(Scaling.none().to_dn(ms), ms)


def test_moments_of_chosen_bands_keep_the_pan():
    moments = Moments(np.array([1.0, 2, 3, 9]), np.array([4.0, 5, 6, 8]), np.array([7.0, 8, 9, 10])).of_bands([2, 0])
    assert moments.mean.tolist() == [3, 1, 9]
    assert moments.std.tolist() == [6, 4, 8]
    assert moments.high.tolist() == [9, 7, 10]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32"])
def test_a_type_holds_its_ends_and_nothing_beyond(dtype: str):
    info = np.iinfo(dtype)
    asked = [info.min - 1, info.min, info.min + 0.5, info.max - 0.5, info.max, info.max + 1, np.inf, np.nan]
    assert [holds(np.dtype(dtype), value) for value in asked] == [False, True, False, False, True, False, False, False]


def quantised(values: list[float], dtype: str, nodata: float | None = None) -> list[float]:
    result = quantise(np.array([[values]], np.float32), np.dtype(dtype), nodata)[0, 0]
    assert result.dtype == dtype
    return result.tolist()


def test_half_goes_to_even():
    assert quantised([0.5, 1.5, 2.5, 3.4999, 3.6], "uint8") == [0, 2, 2, 3, 4]
    assert quantised([-0.5, -1.5, -2.5], "int16") == [0, -2, -2]


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "uint32", "int32"])
def test_clipped_to_the_range(dtype: str):
    info = np.iinfo(dtype)
    assert quantised([-1e12, 1e12, 7], dtype) == [info.min, info.max, 7]


def test_a_wide_integer_keeps_what_float32_holds():
    assert quantised([4294967040, 4294967296, 16777217, 2147483648], "uint32") == [
        4294967040, 4294967295, 16777216, 2147483648,
    ]  # fmt: skip


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32"])
def test_any_part_of_an_image_is_rounded_as_by_numpy(dtype: str):
    image = RNG.normal(0, 1e5, (3, 40, 50)).astype(np.float32)
    info = np.iinfo(dtype)
    for part in (image, image[:, 3:33, 7:40], image[:, ::2, ::3], image.transpose(1, 2, 0), image[:, :, :1]):
        expected = np.clip(np.rint(part.astype(np.float64)), info.min, info.max).astype(dtype)
        np.testing.assert_array_equal(quantise(part, np.dtype(dtype), None), expected)


def test_a_value_that_means_no_data_moves_by_one():
    assert quantised([0, -3, 0.4, 1, 2], "uint16", 0) == [1, 1, 1, 1, 2]
    assert quantised([300, 254], "uint8", 255) == [254, 254]
    assert quantised([-32768, -1e9], "int16", -32768) == [-32767, -32767]
    assert quantised([5e9], "uint32", 4294967295) == [4294967294]


@pytest.mark.parametrize("nodata", [None, float("nan"), -9999.0, 300.0, 0.5])
def test_a_nodata_value_outside_the_type_moves_nothing(nodata: float | None):
    assert quantised([0, 1, 255], "uint8", nodata) == [0, 1, 255]


def test_floats_stay_as_they_are():
    values = [0.25, -3.5, 1e30]
    image = np.array(values, np.float32)
    assert quantised(values, "float32") == image.tolist()
    assert quantised(values, "float64") == image.tolist()
    assert quantised([0.1], "float32", float("nan")) == [np.float32(0.1)]


@pytest.mark.parametrize("nodata", [0.0, -9999.0, -3.3999999521443642e38, 1.0])
def test_a_float_that_means_no_data_moves_by_the_least(nodata: float):
    result = quantise(np.array([nodata, 2], np.float32), np.dtype("float32"), nodata)
    assert result[0] != np.float32(nodata)
    assert result[0] == pytest.approx(nodata, rel=1e-6, abs=1e-30)
    assert result[1] == 2


def test_the_input_is_left_alone():
    image = np.array([0, 1.5], np.float32)
    quantise(image, np.dtype("float32"), 0)
    assert image.tolist() == [0, 1.5]


def test_what_is_clipped_is_told_in_percent_of_the_valid_values():
    hrms = np.full((2, 80, 80), 100, np.float32)
    hrms[0, :, :40], hrms[1, :8] = 300, -7
    clipped = Clipped(np.dtype("uint8"))
    clipped.look(hrms, np.ones((80, 80), bool))
    clipped.look(np.full((2, 80, 80), 1e6, np.float32), np.zeros((80, 80), bool))
    assert clipped.warning() == (
        "of the values about 5% below and 25% above what uint8 holds (0 to 255) were clipped; --dtype float32 keeps "
        "them"
    )


@pytest.mark.parametrize(("dtype", "value"), [("uint8", 255.4), ("uint8", -0.4), ("uint16", 300), ("float32", -1e9)])
def test_what_the_type_holds_is_not_clipped(dtype, value):
    clipped = Clipped(np.dtype(dtype))
    assert clipped.warning() is None
    clipped.look(np.full((1, 9, 9), value, np.float32), np.ones((9, 9), bool))
    assert clipped.warning() is None
