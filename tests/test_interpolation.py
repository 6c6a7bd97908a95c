"""Taps against MATLAB and torch, and what every interpolation must hold: ramps stay ramps, gaps take no part."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pansharpen_cli.imaging.interpolation import (
    KERNELS,
    area_phase,
    expand,
    expanded,
    grow,
    polyphase,
    sample,
    sample_at,
    taps_at,
    toolbox_phase,
)

# Keys' cubic keeps ramps with a = -1/2 alone, the others ripple: DN for a slope of one DN an MS pixel
RIPPLE = {"bilinear": 1e-12, "cubic": 1e-12, "bicubic": 0.0482, "lanczos": 0.02, "sinc": 0.0096, "23tap": 5e-4}
RNG = np.random.default_rng(1)


def ramp(height: int, width: int) -> np.ndarray:
    rows, cols = np.indices((height, width), dtype=np.float64)
    return 3 * rows - 2 * cols + 5


def inner(image: np.ndarray, margin: int) -> np.ndarray:
    return image[..., margin:-margin, margin:-margin]


def test_23_taps_are_those_of_matlab(golden: Path):
    file = np.load(golden / "metrics" / "matlab_primitives.npz")
    rows = file["exp_ms_rows_52_63_then_0_11"].transpose(2, 0, 1)  # MS rows 52 ... 63, then 0 ... 11, of 64
    found = expand(rows, 4, toolbox_phase(4), "23tap", border="wrap")
    expected = file["exp_rows_0_15"].transpose(2, 0, 1)
    np.testing.assert_allclose(found[:, 48:64], expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("ratio", [2, 4])
def test_toolbox_phase_of_23_taps_keeps_the_samples(ratio: int):
    ms = RNG.normal(size=(2, 9, 11))
    at = int(toolbox_phase(ratio))
    np.testing.assert_allclose(expand(ms, ratio, at)[:, at::ratio, at::ratio], ms, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("ratio", "kernel"), [(2, "23tap"), (4, "23tap"), (3, "cubic"), (5, "bilinear")])
@pytest.mark.parametrize("height", [3, 16, 37])
def test_a_few_rows_at_a_time_are_all_rows_at_once(ratio: int, kernel: str, height: int):
    ms = RNG.normal(size=(2, height, 29)).astype(np.float32)
    found = np.full((2, ratio * height, ratio * 29), np.nan, np.float32)
    for rows, exp in expanded(ms, ratio, area_phase(ratio), kernel):
        assert np.isnan(found[:, rows]).all()
        found[:, rows] = exp
    np.testing.assert_allclose(found, expand(ms, ratio, area_phase(ratio), kernel), rtol=0, atol=1e-6)


@pytest.mark.parametrize("ratio", [2, 3, 4, 5])
@pytest.mark.parametrize(("kernel", "mode"), [("bicubic", "bicubic"), ("bilinear", "bilinear")])
def test_area_phase_is_that_of_torch(ratio: int, kernel: str, mode: str):
    ms = RNG.normal(size=(3, 12, 17))
    found = expand(ms, ratio, area_phase(ratio), kernel, border="edge")
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(ms)[None], scale_factor=ratio, mode=mode, align_corners=False
    )
    np.testing.assert_allclose(found, expected[0].numpy(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("kernel", "ratio"), [(k, r) for k in RIPPLE for r in (2, 3, 4, 5) if k != "23tap" or r in (2, 4)]
)
def test_a_ramp_stays_a_ramp_at_every_phase(kernel: str, ratio: int):
    ms = ramp(40, 42)
    phases = np.arange(0, ratio + 0.1, 0.5) if kernel == "23tap" else np.linspace(-1, ratio, 12)
    for phase in phases:
        found = expand(ms, ratio, float(phase), kernel)
        rows, cols = np.indices(found.shape, dtype=np.float64)
        expected = 3 * (rows - phase) / ratio - 2 * (cols - phase) / ratio + 5
        margin = 17 * ratio
        np.testing.assert_allclose(inner(found, margin), inner(expected, margin), rtol=0, atol=5 * RIPPLE[kernel])


@pytest.mark.parametrize("ratio", [3, 8])
def test_23_taps_refuse_what_they_cannot_do(ratio: int):
    with pytest.raises(ValueError, match="23-tap"):
        polyphase("23tap", ratio, 1.25 if ratio == 8 else 1.0)


@pytest.mark.parametrize("kernel", [*KERNELS, "23tap"])
@pytest.mark.parametrize("phase", [1.5, 2.0])
def test_no_output_depends_on_more_than_the_radius(kernel: str, phase: float):
    ratio, at = 4, 20
    impulse = np.zeros((1, 41))
    impulse[0, at] = 1
    touched = np.flatnonzero(np.abs(expand(impulse, ratio, phase, kernel)[0]) > 1e-12)
    radius = polyphase(kernel, ratio, phase).radius
    assert touched.min() >= ratio * (at - radius)
    assert touched.max() < ratio * (at + radius + 1)


@pytest.mark.parametrize("kernel", KERNELS)
def test_weights_sum_to_one_and_hit_samples(kernel: str):
    positions = np.linspace(-3, 9, 97)  # eighths: every eighth one is a sample
    first, weights = taps_at(kernel, positions)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=0, atol=1e-12)
    on_sample = positions == np.round(positions)
    hit = weights[np.arange(97), np.round(positions).astype(int) - first]
    np.testing.assert_allclose(hit[on_sample], 1, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kernel", RIPPLE.keys() - {"23tap"})
def test_sampling_a_ramp_anywhere(kernel: str):
    rows, cols = RNG.uniform(6, 33, 50), RNG.uniform(6, 35, 60)
    found = sample(ramp(40, 42)[None], np.ones((40, 42), bool), rows, cols, kernel)[0]
    np.testing.assert_allclose(found, 3 * rows[:, None] - 2 * cols + 5, rtol=0, atol=5 * RIPPLE[kernel])


def test_nearest_takes_the_nearest():
    image = np.arange(12.0).reshape(1, 3, 4)
    found = sample(image, np.ones((3, 4), bool), np.array([0.4, 0.6, 1.8]), np.array([-0.3, 1.2, 3.4]), "nearest")
    assert found[0].tolist() == [[0, 1, 3], [4, 5, 7], [8, 9, 11]]


@pytest.mark.parametrize("kernel", KERNELS)
def test_scattered_sampling_equals_sampling_of_a_grid(kernel: str):
    image = RNG.normal(size=(3, 20, 25))
    valid = RNG.random((20, 25)) > 0.2
    rows, cols = RNG.uniform(-2, 22, 31), RNG.uniform(-2, 27, 17)  # beyond the border too
    scattered = sample_at(image, valid, *np.meshgrid(rows, cols, indexing="ij"), kernel)
    np.testing.assert_allclose(sample(image, valid, rows, cols, kernel), scattered, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("gap", [1e30, np.nan])
def test_masked_samples_take_no_part(kernel: str, gap: float):
    image = RNG.normal(size=(2, 16, 16))
    valid = RNG.random((16, 16)) > 0.3
    rows = cols = np.linspace(1, 14, 40)
    dirty = np.where(valid, image, gap)
    expected = sample(np.where(valid, image, 0), valid, rows, cols, kernel)
    np.testing.assert_array_equal(sample(dirty, valid, rows, cols, kernel), expected)


@pytest.mark.parametrize("kernel", ["bilinear", "cubic", "sinc"])
def test_a_gap_in_a_flat_image_leaves_it_flat(kernel: str):
    valid = np.ones((30, 30), bool)
    valid[12:15, 13:17] = False
    positions = np.linspace(0, 29, 88)
    found = sample(np.full((1, 30, 30), 7.0), valid, positions, positions, kernel)[0]
    rows = cols = np.round(positions).astype(int)
    np.testing.assert_allclose(found[valid[np.ix_(rows, cols)]], 7, rtol=0, atol=1e-12)


def test_growing_fills_from_the_rim():
    image = np.zeros((2, 5, 7))
    image[0, :, :2], image[1, :, :2] = 4, -1
    image[0, 2, 1] = 10
    valid = np.zeros((5, 7), bool)
    valid[:, :2] = True
    found = grow(image, valid, 2, np.array([100.0, 200.0]))
    np.testing.assert_array_equal(found[:, valid], image[:, valid])
    np.testing.assert_allclose(found[0, :, 2], [4, 6, 6, 6, 4])
    np.testing.assert_allclose(found[0, :, 3], [5, 16 / 3, 6, 16 / 3, 5])
    assert (found[0, :, 4:] == 100).all()
    assert (found[1, :, 2:4] == -1).all()
    assert (found[1, :, 4:] == 200).all()


def test_what_grows_depends_on_so_many_pixels_only():
    rounds, image = 4, RNG.normal(size=(2, 60, 60)).astype(np.float32)
    valid = RNG.random((60, 60)) > 0.9
    valid[20:40, 25:45] = False
    level = np.array([5.0, 6.0])
    whole = grow(image, valid, rounds, level)
    for top, left in ((0, 0), (17, 23), (30, 31)):
        part = slice(top, top + 25), slice(left, left + 25)
        found = grow(image[:, *part], valid[part], rounds, level)
        np.testing.assert_array_equal(inner(found, rounds), inner(whole[:, *part], rounds))


@pytest.mark.parametrize("gap", [1e30, np.nan])
def test_what_a_gap_holds_does_not_grow(gap: float):
    valid = RNG.random((20, 20)) > 0.5
    image = np.where(valid, RNG.normal(size=(1, 20, 20)), gap)
    expected = grow(np.where(valid, image, 0), valid, 3, np.zeros(1))
    np.testing.assert_array_equal(grow(image, valid, 3, np.zeros(1)), expected)


def test_nothing_to_grow_and_nothing_to_grow_from():
    image = RNG.normal(size=(2, 4, 5))
    np.testing.assert_array_equal(grow(image, np.ones((4, 5), bool), 3, np.zeros(2)), image)
    found = grow(image, np.zeros((4, 5), bool), 3, np.array([1.0, 2.0]))
    assert (found[0] == 1).all()
    assert (found[1] == 2).all()
