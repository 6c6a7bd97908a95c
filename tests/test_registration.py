"""The measured PAN-MS shift: against ground whose shift is known, and against real scenes."""

from functools import lru_cache
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import rasterio
from scipy import ndimage, optimize

from pansharpen_cli.imaging import interpolation, tiling
from pansharpen_cli.imaging.registration import MAX_SHIFT, Shift, WindowShift, combine, window_shift

FINE = 5  # samples of the ground along a PAN pixel: shifts are multiples of 1/5
SIZE = 256  # PAN pixels
MARGIN = 40 * FINE

GOOD = {"correlation": 0.9, "distinctness": 4.0}


@lru_cache
def materials() -> np.ndarray:
    """(3, n, n): independent random grounds with a power spectrum near 1 / f^2, on the fine grid."""
    n = SIZE * FINE + 2 * MARGIN
    frequency = np.hypot(np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n))
    spectrum = np.fft.rfft2(np.random.default_rng(7).normal(size=(3, n, n))) / np.maximum(frequency, 1 / n)
    ground = np.fft.irfft2(spectrum, s=(n, n))
    return ground / ground.std(axis=(1, 2), keepdims=True)


def seen(ground: np.ndarray, dy: float, dx: float, ratio: int) -> np.ndarray:
    """`ground` (..., n, n) moved down and right by (dy, dx) PAN pixels, as means over pixels `ratio` times as wide."""
    top, left = round(MARGIN - dy * FINE), round(MARGIN - dx * FINE)
    size, step = SIZE // ratio, FINE * ratio
    part = ground[..., top : top + size * step, left : left + size * step]
    return part.reshape(*ground.shape[:-2], size, step, size, step).mean(axis=(-3, -1))


def pair(dy: float, dx: float, ratio: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """pan, exp (4 bands) and valid, where the PAN lies (dy, dx) from where it is said to be.

    The third band is hardly seen by the PAN, the fourth shows what the PAN sees, reversed, and what it does not.
    """
    first, second, third = materials()
    bands = np.stack([first, 0.7 * first + 0.3 * second, second + third, third - 0.5 * first])
    pan = seen(0.8 * first + 0.2 * second, -dy, -dx, 1)
    exp = interpolation.expand(seen(bands, 0, 0, ratio), ratio, interpolation.area_phase(ratio))
    return 500 + 80 * pan, 400 + 60 * exp, np.ones(pan.shape, bool)


def holed() -> np.ndarray:
    """A mask with a slanted border, a hole and a missing edge."""
    rows, cols = np.indices((SIZE, SIZE))
    hole = (rows > 60) & (rows < 110) & (cols > 100) & (cols < 190)
    return (rows + cols < 420) & ~hole & (cols >= 40)


@pytest.mark.parametrize("ratio", [2, 4])
@pytest.mark.parametrize(
    ("dy", "dx"), [(0, 0), (0.4, 0), (0, 0.4), (-0.6, 0), (0, -0.6), (1.2, -2.8), (-3.4, 5.2), (13.2, -11.4)]
)
def test_known_shift(ratio: int, dy: float, dx: float):
    found = window_shift(*pair(dy, dx, ratio), ratio)
    assert found is not None
    assert (found.dy, found.dx) == pytest.approx((dy, dx), abs=0.05)
    assert found.strength > 0.9


@pytest.mark.parametrize("ratio", [2, 4])
def test_known_shift_with_noise_holes_and_a_flat_band(ratio: int):
    dy, dx = 1.2, -2.8
    pan, exp, valid = pair(dy, dx, ratio)
    noise = np.random.default_rng(3)
    pan += noise.normal(size=pan.shape) * 20
    exp += noise.normal(size=exp.shape) * 3
    exp[1] = 7
    valid = holed()
    pan[~valid], exp[:, ~valid] = np.nan, -3.4e38
    found = window_shift(pan, exp, valid, ratio)
    assert found is not None
    assert (found.dy, found.dx) == pytest.approx((dy, dx), abs=0.1)
    assert found.strength > 0.9


def test_units_and_offsets_do_not_matter():
    pan, exp, valid = pair(1.2, -2.8, 4)
    gains = np.array([1e-4, 3.0, -2.0, 1e3])[:, None, None]
    expected, found = window_shift(pan, exp, valid, 4), window_shift(pan * 1e-3 - 5, exp * gains + 100, valid, 4)
    assert expected is not None
    assert found is not None
    assert (found.dy, found.dx) == pytest.approx((expected.dy, expected.dx), abs=2e-3)


def test_what_lies_under_the_mask_does_not_matter():
    pan, exp, _ = pair(0.4, 0.6, 4)
    valid = holed()
    filled = np.where(valid, pan, 1e9), np.where(valid, exp, np.inf)
    assert window_shift(pan, exp, valid, 4) == window_shift(*filled, valid, 4)


@pytest.mark.parametrize("beyond", [6, -6, 14, -14])
def test_beyond_the_search_range_nothing_false_is_claimed(beyond: int):
    shift = MAX_SHIFT * 2 * np.sign(beyond) + beyond
    found = window_shift(*pair(shift, 0, 2), 2)
    assert found is None or found.strength == 0 or found.dy == pytest.approx(shift, abs=0.1)


@pytest.mark.parametrize("ratio", [2, 4])
def test_unrelated_images_are_not_trusted(ratio: int):
    noise = np.random.default_rng(5)
    first, second, third = materials()
    for _ in range(4):
        pan = seen(np.roll(first, noise.integers(0, 900, 2), (0, 1)), 0, 0, 1)
        ms = seen(np.roll([second, third], noise.integers(0, 900, 2), (1, 2)), 0, 0, ratio)
        exp = interpolation.expand(ms, ratio, interpolation.area_phase(ratio))
        for images in ((pan, exp), (noise.normal(size=pan.shape), noise.normal(size=exp.shape))):
            assert combine([window_shift(*images, holed(), ratio)]).confidence == 0  # holes match, ground does not


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [1, 30, 256])
def test_no_information_gives_none(size: int):
    rng = np.random.default_rng(0)
    texture, valid = rng.normal(size=(size, size)), np.ones((size, size), bool)
    flat = np.full((size, size), 1234.567)
    cases = {
        "flat": (flat, np.stack([flat, 3 * flat]), valid),
        "flat PAN": (flat, texture[None], valid),
        "flat MS": (texture, np.stack([flat, flat / 7]), valid),
        "zeros": (0 * flat, 0 * flat[None], valid),
        "NaN": (np.nan * flat, texture[None], valid),
        "one band NaN": (texture, np.stack([texture, np.nan * flat]), valid),
        "all invalid": (texture, texture[None], ~valid),
    }
    assert {name: window_shift(*images, 4) for name, images in cases.items()} == dict.fromkeys(cases)


def test_combining_nothing():
    nothing = Shift(0, 0, 0, 0, 0)
    assert combine([]) == nothing
    assert combine([None, None]) == nothing
    assert combine([WindowShift(5, 5, correlation=0.1, distinctness=1.05)]) == nothing


def test_windows_that_agree_win_over_outliers():
    honest = [WindowShift(1.0 + e, -2.0 - e, **GOOD) for e in (-0.1, 0, 0.1, -0.05, 0.05)]
    wild = [WindowShift(9, 3, **GOOD), WindowShift(-14, 0, **GOOD), None]
    shift = combine([*wild, *honest])
    assert (shift.dx, shift.dy) == pytest.approx((1.0, -2.0), abs=1e-9)
    assert shift.length == pytest.approx(5**0.5)
    assert shift.windows == 5
    assert 0.6 < shift.confidence < combine(honest).confidence
    assert combine(honest).confidence > 0.95


def test_confidence_falls_with_weakness_scatter_and_disagreement():
    one = combine([WindowShift(1, 1, **GOOD)])
    assert one == Shift(1, 1, 1, 0, 1)
    weak = WindowShift(1, 1, correlation=0.5, distinctness=1.5)
    assert combine([weak]).confidence == pytest.approx(weak.strength)
    assert combine([weak] * 9).confidence > 0.8
    scattered = combine([WindowShift(x, 0, **GOOD) for x in (-0.9, -0.6, 0, 0.6, 0.9)])
    assert scattered.confidence < 0.7
    assert scattered.spread > 0.4
    assert combine([WindowShift(x, 0, **GOOD) for x in (-9, -3, 0, 3, 9)]).confidence < 0.25


def plain_spectra(
    pan: np.ndarray, exp: np.ndarray, valid: np.ndarray, ratio: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Details of the degraded PAN (n,) and of the bands (B, n) at all frequencies (2, n) below that of Nyquist of the
    MS, weighed by these: the whole Fourier plane, not a half of it."""

    def blur(image: np.ndarray, sigma: float) -> np.ndarray:
        return ndimage.gaussian_filter(image, sigma, mode="constant", truncate=len(image) / sigma)

    weight = (np.clip(2 * blur(valid.astype(float), 2 * ratio) - 1, 0, 1) * valid) ** 2
    f = np.array(np.meshgrid(*(np.fft.fftfreq(n) for n in pan.shape), indexing="ij"))
    nyquist = 2 * ratio * np.hypot(*f)
    below = (nyquist > 0) & (nyquist < 1)
    spectra = []
    for image in (pan, *exp):
        clear = np.where(valid, image, 0.0)
        detail = (clear - blur(clear, 4 * ratio) / blur(valid.astype(float), 4 * ratio)) * valid
        spectra.append((np.fft.fft2(detail / detail.std() * weight) * nyquist)[below])
    return spectra[0] * 0.15 ** (nyquist[below] ** 2), np.array(spectra[1:]), f[:, below]


def plain_combination(pan: np.ndarray, bands: np.ndarray, turn: np.ndarray) -> tuple[float, np.ndarray]:
    """Correlation of the PAN with the combination of the moved bands that fits it best, and that, not moved."""
    columns, target = (np.concatenate([z.real, z.imag], axis=-1) for z in (bands * turn, pan))
    weights = np.linalg.lstsq(columns.T, target, rcond=None)[0]
    return float(np.linalg.norm(weights @ columns) / np.linalg.norm(target)), weights @ bands


@pytest.mark.parametrize(("ratio", "size"), [(2, 64), (4, 96)])
def test_shift_correlation_and_distinctness_by_least_squares_at_every_shift(ratio: int, size: int):
    rng = np.random.default_rng(4)
    part = np.s_[..., 40 : 40 + size, 90 : 90 + size]
    pan, exp, valid = (image[part].copy() for image in pair(0.2, -0.4, ratio))
    pan, exp = pan + rng.normal(0, 60, pan.shape), exp[:3] + rng.normal(0, 20, exp[:3].shape)
    valid[: size // 5, -size // 7 :] = False
    found = window_shift(pan, exp, valid, ratio)
    assert found is not None

    target, bands, f = plain_spectra(pan, exp, valid, ratio)
    reach = min(MAX_SHIFT * ratio, size // 4)
    shifts = np.array(list(product(range(-reach, reach + 1), repeat=2)))
    fits = np.array([plain_combination(target, bands, np.exp(-2j * np.pi * shift @ f))[0] for shift in shifts])
    best = shifts[fits.argmax()]
    far = np.hypot(*(shifts - best).T) > 2 * ratio
    assert found.correlation == pytest.approx(fits.max(), rel=1e-8)
    assert found.distinctness == pytest.approx(fits.max() / fits[far].max(), rel=1e-8)

    cross = target * plain_combination(target, bands, np.exp(-2j * np.pi * best @ f))[1].conj()
    phases = cross / np.abs(cross)
    peak = optimize.minimize(lambda s: -(phases * np.exp(2j * np.pi * s @ f)).real.sum(), best, method="Nelder-Mead")
    assert -peak.x == pytest.approx((found.dy, found.dx), abs=2e-3)  # the image moves against the place


def window(dx: float, dy: float, likeness: float, uniqueness: float = 1) -> WindowShift:
    """Of strength likeness * uniqueness."""
    return WindowShift(dx, dy, correlation=0.3 + 0.4 * likeness, distinctness=1.1 + 0.9 * uniqueness)


def test_strength_runs_from_noise_to_ground_that_both_cameras_see():
    for likeness, uniqueness in product((0, 0.25, 1), repeat=2):
        assert window(0, 0, likeness, uniqueness).strength == pytest.approx(likeness * uniqueness)
    assert WindowShift(0, 0, correlation=0.1, distinctness=9).strength == 0
    assert WindowShift(0, 0, correlation=0.99, distinctness=9).strength == 1


def test_shift_spread_and_confidence_of_a_few_windows_by_hand():
    outlier = window(5, 5, 0.25)
    shift = combine([window(-0.6, 0.2, 0.5), outlier, window(0, 0.2, 0.5), window(0.6, 0.2, 1, 0.5), window(0, 0, 0)])
    assert (shift.dx, shift.dy, shift.windows) == (pytest.approx(0), pytest.approx(0.2), 3)
    assert shift.spread == pytest.approx(0.6 / 1.177)  # half of the weight is nearer than 0.6, half is not
    certain, share = 1 - 0.5**3, 1.5 / 1.75
    assert shift.confidence == pytest.approx(certain * share / (1 + (shift.spread / 0.5) ** 2))
    uneven = combine([window(-0.6, 0, 0.5), window(0, 0, 0.25), window(0.6, 0, 1)])
    # the middles of the weights lie at 0.25, 0.625 and 1.25; half of all of it is 0.875
    assert uneven.dx == pytest.approx(0.6 * (0.875 - 0.625) / (1.25 - 0.625))
    turned = combine([window(0, -0.6, 0.5), window(0, 0, 0.25), window(0, 0.6, 1)])
    assert (turned.dx, turned.dy, turned.spread) == pytest.approx((0, uneven.dx, uneven.spread))


def test_windows_agree_up_to_a_pixel_apart():
    assert combine([window(0, 0, 1), window(1, 0, 1)]).windows == 2
    apart = combine([window(0, 0, 1), window(0, 1.01, 0.9)])
    assert (apart.dx, apart.dy, apart.windows) == (0, 0, 1)
    assert apart.confidence == pytest.approx(1 / 1.9)
    assert Shift(3, -4, 1, 0, 1).length == 5


def stated(folder: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """pan, exp, valid and ratio of a scene: the MS interpolated where the geotransforms put it."""
    with rasterio.open(folder / "pan.tif") as pan_file, rasterio.open(folder / "ms.tif") as ms_file:
        pan, ms = pan_file.read(1).astype(float), ms_file.read().astype(float)
        pan_valid, ms_valid = pan_file.dataset_mask() > 0, ms_file.dataset_mask() > 0
        to_ms = ~ms_file.transform @ pan_file.transform
    rows, rows_inside = interpolator(to_ms.e, to_ms.f, pan.shape[0], ms.shape[1])
    cols, cols_inside = interpolator(to_ms.a, to_ms.c, pan.shape[1], ms.shape[2])
    touched = (rows != 0).astype(float) @ ~ms_valid @ (cols != 0).T > 0
    valid = pan_valid & ~touched & np.outer(rows_inside, cols_inside)
    return pan, rows @ np.where(ms_valid, ms, 0) @ cols.T, valid, round(1 / to_ms.a)


def interpolator(step: float, offset: float, size: int, samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Cubic weights (size, samples) of PAN pixels whose edges lie at offset + step * i MS pixels; which lie inside."""
    positions = offset + step * (np.arange(size) + 0.5) - 0.5
    first, weights = interpolation.taps_at("cubic", positions)
    index = np.clip(first[:, None] + np.arange(weights.shape[1]), 0, samples - 1)
    matrix = np.zeros((size, samples))
    np.add.at(matrix, (np.arange(size)[:, None], index), weights)
    return matrix, (positions > -0.5) & (positions < samples - 0.5)


def measured(folder: Path, window: int) -> Shift:
    pan, exp, valid, ratio = stated(folder)
    spans = [tiling.spread(size, window, 4, 1) for size in pan.shape]
    places = [(rows.core, cols.core) for rows, cols in product(*spans)]
    return combine(window_shift(pan[at], exp[:, *at], valid[at], ratio) for at in places)


# Where the PAN lies, less where the geotransforms put it: (dy, dx), measured by others to 0.15 PAN pixels.
SCENES = {
    "l8_madrid": (0, 0),
    "l8_pamplona_w": (0.83, -0.95),
    "l8_plain_a": (0, 0.05),
    "l7/10": (0, 0.05),
    "wv2_park": (0.10, -0.25),
    "wv2_park_misreg": (3.10, 2.75),
    "wv2_rotterdam_1": (0.45, 1.15),
    "wv2_rotterdam_2": (0.95, -1.40),  # a third has no data
    "pleiades_arena": (0.35, 0.10),
    "wv3_geo_n": (-1.45, 0.10),
}


@pytest.mark.parametrize("name", SCENES)
def test_real_scene(data: Path, name: str):
    shift = measured(data / name, window=128 if name == "wv3_geo_n" else 256)
    assert (shift.dy, shift.dx) == pytest.approx(SCENES[name], abs=0.2)
    assert shift.confidence > 0.7
    assert shift.spread < 0.35


def test_a_cut_by_whole_pixels_is_found(data: Path):
    """wv2_park is wv2_park_misreg less three rows and columns of PAN: a truth better than any correlation."""
    before, after = measured(data / "wv2_park_misreg", 256), measured(data / "wv2_park", 256)
    assert (before.dy - after.dy, before.dx - after.dx) == pytest.approx((3, 3), abs=0.1)
