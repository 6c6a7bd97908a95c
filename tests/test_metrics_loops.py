"""The compiled loops of the metrics against the same in plain NumPy."""

import numpy as np
import pytest

from pansharpen_cli.imaging import filters
from pansharpen_cli.imaging.mtf import TAPS, kernel
from pansharpen_cli.metrics import ArrayImage, derived, formulas
from pansharpen_cli.metrics.blur import Blur

RNG = np.random.default_rng(21)


def windows(image: np.ndarray, size: int) -> np.ndarray:
    """(..., row - size + 1, col - size + 1, size, size)."""
    return np.lib.stride_tricks.sliding_window_view(image, (size, size), axis=(-2, -1))


@pytest.mark.parametrize(("ratio", "taps"), [(4, 17), (3, 5), (2, 21), (1, 7)])
def test_expand_is_a_filter_for_each_phase(ratio: int, taps: int):
    ms, weights = RNG.normal(500, 100, (2, 9 + taps - 1, 13 + taps - 1)), RNG.normal(0, 1, (ratio, taps))
    out = np.empty((2, 9 * ratio, 13 * ratio))
    filters.expand(filters.with_room(ms), filters.in_steps(weights), out)
    for p, q in np.ndindex(ratio, ratio):
        expected = (windows(ms, taps) * np.outer(weights[p], weights[q])).sum(axis=(-2, -1))
        np.testing.assert_allclose(out[:, p::ratio, q::ratio], expected, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize(("ratio", "taps"), [(4, 16), (3, 11), (2, 8)])
def test_reduce_is_a_filter_at_every_ratio_th_pixel(ratio: int, taps: int):
    weights = RNG.normal(0, 1, taps)
    image = RNG.normal(500, 100, (2, 9 * ratio + taps - ratio, 13 * ratio + taps - ratio))
    out = np.empty((2, 9, 13))
    filters.reduce(filters.with_room(image), filters.in_steps(weights), ratio, out)
    expected = (windows(image, taps) * np.outer(weights, weights)).sum(axis=(-2, -1))[:, ::ratio, ::ratio]
    np.testing.assert_allclose(out, expected, rtol=1e-12, atol=1e-9)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("size", "shift"), [(32, 32), (16, 16), (32, 8), (5, 3)])
def test_moments_are_those_of_each_block_alone(dtype: type, size: int, shift: int):
    one, other = RNG.normal(900, 30, (3, 75, 104)).astype(dtype), RNG.normal(5, 2, (1, 75, 104)).astype(dtype)
    valid = np.ones((75, 104), bool)
    valid[40:43, 20:90] = valid[:5, :40] = False
    valid[64:, 64:] = False
    dirty = np.where(valid, one, np.nan)
    found = formulas.block_moments(dirty, other, valid, size, shift)
    for row, col in np.ndindex(found.pixels.shape):
        part = np.s_[shift * row : shift * row + size, shift * col : shift * col + size]
        vectors = np.concatenate([one, other])[:, *part][:, valid[part]].astype(np.float64)
        assert found.pixels[row, col] == vectors.shape[1]
        if vectors.size:
            np.testing.assert_allclose(found.mean[row, col], vectors.mean(axis=1), rtol=1e-12)
            expected = np.cov(vectors, bias=True) * vectors.shape[1]
            np.testing.assert_allclose(found.scatter[row, col], expected, rtol=1e-9, atol=1e-9)
        else:
            assert not found.mean[row, col].any()
            assert not found.scatter[row, col].any()
    last = [(n - size) // shift + 1 for n in valid.shape]
    assert found.pixels.shape == tuple(last)


def test_moments_do_not_depend_on_where_a_block_lies():
    image = RNG.normal(900, 30, (2, 64, 96))
    valid = np.ones((64, 96), bool)
    every = formulas.block_moments(image, image[:1], valid, 32, 32)
    for row, col in np.ndindex(2, 3):
        part = image[:, 32 * row : 32 * row + 32, 32 * col : 32 * col + 32]
        alone = formulas.block_moments(part, part[:1], valid[:32, :32], 32, 32)
        np.testing.assert_array_equal(alone.scatter[0, 0], every.scatter[row, col])
        np.testing.assert_array_equal(alone.mean[0, 0], every.mean[row, col])


def test_whole_numbers_round_half_up_and_stay_in_uint16():
    """Each value fills a block of its own: its mean is what it becomes, and a flat block has exactly no variance."""
    values = [-3.7, -0.5, 0.4999, 0.5, 1.5, 2.5, 417.3, 65534.5, 65535.5, 1e30, -np.inf, np.inf, np.nan]
    expected = [0, 0, 0, 1, 2, 3, 417, 65535, 65535, 65535, 0, 65535, np.nan]
    image, valid = np.repeat(np.repeat([[values]], 16, axis=1), 16, axis=2), np.ones((16, 16 * len(values)), bool)
    found = formulas.block_moments(image, image.round(), valid, 16, 16, whole=True)
    np.testing.assert_array_equal(found.mean[0, :, 0], expected)
    assert not np.nan_to_num(found.scatter).any()


def test_moments_of_whole_numbers_are_those_of_rounded_images():
    image, valid = RNG.uniform(-9, 70000, (2, 32, 64)), np.ones((32, 64), bool)
    found = formulas.block_moments(image[:1], image[1:], valid, 32, 32, whole=True)
    rounded = np.clip(np.floor(image + 0.5), 0, 65535)
    expected = formulas.block_moments(rounded[:1], rounded[1:], valid, 32, 32)
    np.testing.assert_array_equal(found.scatter, expected.scatter)


@pytest.mark.parametrize("shape", [(1, 1), (3, 300), (259, 5), (256, 257)])
def test_a_blur_takes_an_image_of_any_size(shape: tuple[int, int]):
    """Pieces and groups of rows end where they must; the truth is the kernel itself in double precision."""
    taps, margin = kernel(4, 0.3), TAPS - 1
    image = RNG.integers(0, 2048, (shape[0] + margin, shape[1] + margin)).astype(np.float32)
    blurred = np.empty(shape)
    Blur.of(taps)(image, blurred)
    for row in {0, 1, 2, 3, shape[0] // 2, shape[0] - 2, shape[0] - 1} & set(range(shape[0])):
        exact = np.einsum("xij,ij->x", windows(image[row : row + TAPS], TAPS)[0].astype(np.float64), taps)
        np.testing.assert_array_equal(blurred[row], np.floor(exact + 0.5))


def test_every_way_to_write_a_kernel_gives_the_same_pixels():
    blur = Blur.of(kernel(4, 0.22))
    image = RNG.integers(0, 2048, (60, 70)).astype(np.float32)
    results = np.empty((1 + len(blur.ways), 20, 30))
    for one, out in zip([blur, *(Blur(blur.kernel, [way]) for way in blur.ways)], results, strict=True):
        one(image, out)
    assert (results == results[0]).all()
    assert len({way.down.shape for way in blur.ways}) == len(blur.ways)


def test_a_blur_is_the_same_in_one_piece_and_in_parts():
    image = ArrayImage(RNG.gamma(2, 3000, (1, 96, 128)))
    blurred = derived.Filtered(image, [Blur.of(kernel(4, 0.3))])
    whole = blurred.read(slice(0, 96), slice(0, 128)).data
    part = blurred.read(slice(33, 70), slice(5, 90)).data
    np.testing.assert_array_equal(part, whole[:, 33:70, 5:90])
