"""Classical methods against the field's toolbox, and where that cannot go (gaps, other ratios, pixels as areas) against
a second, slower way to compute them."""

from pathlib import Path

import numpy as np
import pytest
from test_classical import BANDS, Scene, sharpen_whole, synthetic

from pansharpen_cli.classical import METHODS
from pansharpen_cli.classical.camera import Camera
from pansharpen_cli.classical.percentile import Percentile
from pansharpen_cli.imaging.mtf import SENSORS, kernel

GOLDEN = {
    "exp": "EXP", "brovey": "Brovey", "ihs": "IHS", "pca": "PCA", "gs": "GS", "gsa": "GSA", "bt-h": "BT_H",
    "pracs": "PRACS", "sfim": "SFIM", "mtf-glp": "MTF_GLP", "mtf-glp-fs": "MTF_GLP_FS", "mtf-glp-cbd": "MTF_GLP_CBD",
    "mtf-glp-hpm": "MTF_GLP_HPM", "mtf-glp-hpm-r": "MTF_GLP_HPM_R", "mtf-glp-hpm-h": "MTF_GLP_HPM_H", "awlp": "AWLP",
    "mf": "MF",
}  # fmt: skip
"""Our names and those of the stored outputs."""
CASES = ("qb_00", "qb_00p", "wv2_crop", "gf2_ns", "l8_r2")
EXPLODED = 4
"""Times the brightest input. A quotient by almost nothing multiplies rounding too, and the 1e-8 of the MTF kernels."""
DARK = {("l8_r2", "mtf-glp-hpm-h"): 1e-5}
"""Where pixels below that come near it; anything else is within 1e-6 of the brightest input."""


def load(path: Path) -> tuple[Camera, Scene]:
    with np.load(path) as stored:
        pan, ms = stored["pan"][None].astype(np.float64), stored["ms"].transpose(2, 0, 1).astype(np.float64)
        ratio, sensor = int(stored["ratio"]), SENSORS.get(str(stored["sensor"]))
    bands = list(sensor.ms_gains) if sensor else [f"band {i + 1}" for i in range(len(ms))]
    return Camera.of_toolbox(ratio, bands, sensor or SENSORS["generic"]), Scene(pan, ms)


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize("case", CASES)
def test_equals_the_toolbox(golden: Path, case: str, name: str) -> None:
    if (case, name) == ("gf2_ns", "mf"):
        pytest.skip("the toolbox enlarges images that are not square to a wrong size; see below")
    camera, scene = load(golden / f"classical/{case}.npz")
    with np.load(golden / f"classical/{case}.npz") as stored:
        expected, rows = stored[f"rows_{GOLDEN[name]}"].transpose(2, 0, 1), stored["rows"]
        stats = stored["stats"][list(stored["methods"]).index(GOLDEN[name])]
    hrms = sharpen_whole(METHODS[name](camera), scene.pan, scene.ms)
    peak = max(scene.pan.max(), scene.ms.max())
    exploded = (np.abs(expected) > EXPLODED * peak).any(axis=0)
    error = np.abs(hrms[:, rows].astype(np.float32) - expected)
    assert exploded.mean() < 2e-3
    assert error[:, ~exploded].max() < DARK.get((case, name), 1e-6) * peak
    assert (error[:, exploded] < 1e-3 * np.abs(expected[:, exploded])).all()
    found = np.stack([hrms.mean((1, 2)), hrms.std((1, 2), ddof=1), hrms.min((1, 2)), hrms.max((1, 2))])
    tolerance = 1e-3 * np.abs(stats) if np.abs(stats).max() > EXPLODED * peak else 1e-6 * peak
    assert (np.abs(found - stats) < tolerance).all()


def enlarged(image: np.ndarray, rows: int, cols: int) -> np.ndarray:
    """Bilinear, pixels as areas, the edge repeated."""
    for axis, size in ((0, rows), (1, cols)):
        old = image.shape[axis]
        position = (np.arange(size) + 0.5) * old / size - 0.5
        image = np.apply_along_axis(lambda line: np.interp(position, np.arange(old), line), axis, image)  # noqa: B023
    return image


def mf_low_pass(pan: np.ndarray, ratio: int, as_the_toolbox: bool = False) -> np.ndarray:
    """The pyramid of half gradients, pixel by pixel."""
    levels = [pan]
    while 2 ** (len(levels) - 1) < ratio:
        above = levels[-1]
        start = 1 if len(levels) == 1 else 0
        level = np.zeros((above.shape[0] // 2, above.shape[1] // 2))
        for i, j in np.ndindex(*level.shape):
            r, c = 2 * i + start, 2 * j + start
            cross = [(r, c), (r - 1, c), (r + 1, c), (r, c - 1), (r, c + 1)]
            values = [above[at] for at in cross if 0 <= at[0] < above.shape[0] and 0 <= at[1] < above.shape[1]]
            level[i, j] = (max(values) + min(values)) / 2
        levels.append(level)
    low = levels[-1]
    for above in levels[-2::-1]:
        rows, cols = above.shape
        low = enlarged(low, rows, rows if as_the_toolbox and above is not pan else cols)
    return low


def modulated(camera: Camera, scene: Scene, low: np.ndarray) -> np.ndarray:
    """E_b P' / (P' through a low-pass), P' the PAN matched to each band."""
    exp, pan = camera.expand(scene.ms), scene.pan[0]
    gain = exp.std(axis=(1, 2), ddof=1) / pan.std(ddof=1)
    offset = exp.mean(axis=(1, 2)) - gain * pan.mean()
    gain, offset = gain[:, None, None], offset[:, None, None]
    return exp * (gain * pan + offset) / (gain * low + offset)


def test_mf_differs_from_the_toolbox_only_where_that_errs(golden: Path) -> None:
    camera, scene = load(golden / "classical/gf2_ns.npz")
    with np.load(golden / "classical/gf2_ns.npz") as stored:
        expected, rows = stored["rows_MF"].transpose(2, 0, 1), stored["rows"]
    theirs = modulated(camera, scene, mf_low_pass(scene.pan[0], 4, as_the_toolbox=True))
    np.testing.assert_allclose(theirs[:, rows], expected, rtol=1e-6)
    ours = modulated(camera, scene, mf_low_pass(scene.pan[0], 4))
    np.testing.assert_allclose(sharpen_whole(METHODS["mf"](camera), scene.pan, scene.ms), ours, rtol=1e-9)


@pytest.mark.parametrize("ratio", [3, 5])
def test_mf_at_other_ratios(ratio: int) -> None:
    scene, camera = synthetic(ratio), Camera.of_scene(ratio, BANDS)
    expected = modulated(camera, scene, mf_low_pass(scene.pan[0], ratio))
    np.testing.assert_allclose(sharpen_whole(METHODS["mf"](camera), scene.pan, scene.ms), expected, rtol=1e-9)


@pytest.mark.parametrize(("ratio", "window"), [(2, 3), (3, 3), (4, 5), (5, 5)])
def test_sfim_takes_the_mean_of_a_square_with_a_middle(ratio: int, window: int) -> None:
    scene, camera = synthetic(ratio), Camera.of_scene(ratio, BANDS)
    padded = np.pad(scene.pan[0], window // 2, mode="edge")
    low = np.lib.stride_tricks.sliding_window_view(padded, (window, window)).mean(axis=(2, 3))
    expected = modulated(camera, scene, low)
    np.testing.assert_allclose(sharpen_whole(METHODS["sfim"](camera), scene.pan, scene.ms), expected, rtol=1e-9)


def keys(x: float) -> float:
    x = abs(x)
    return (1.5 * x - 2.5) * x**2 + 1 if x <= 1 else ((-0.5 * x + 2.5) * x - 4) * x + 2 if x < 2 else 0


def resized(line: np.ndarray, size: int) -> np.ndarray:
    """Bicubic with antialiasing, pixels as areas, the border mirrored: value by value."""
    scale = max(len(line) / size, 1)
    around = np.concatenate([line[::-1], line, line[::-1]])
    result = []
    for i in range(size):
        centre = (i + 0.5) * len(line) / size - 0.5
        samples = range(int(np.floor(centre - 2 * scale)), int(np.ceil(centre + 2 * scale)) + 1)
        weights = [keys((centre - at) / scale) for at in samples]
        result.append(sum(w * around[at + len(line)] for w, at in zip(weights, samples, strict=True)) / sum(weights))
    return np.array(result)


@pytest.mark.parametrize("ratio", [2, 3, 4, 5])
def test_bicubic_down_and_up(ratio: int) -> None:
    camera = Camera.of_scene(ratio, BANDS)
    line = np.random.default_rng(3).normal(size=12 * ratio)
    column, row = line[None, :, None].repeat(2 * ratio, axis=2), line[None, None].repeat(2 * ratio, axis=1)
    coarse = resized(line, 12)
    back = resized(coarse, len(line))
    for image, across in ((column, (0, slice(None), 0)), (row, (0, 0))):
        np.testing.assert_allclose(camera.down(image)[across], coarse, atol=1e-12)
        np.testing.assert_allclose(camera.round_trip(image)[across], back, atol=1e-12)


@pytest.mark.parametrize("ratio", [2, 3, 4])
def test_gaussian_is_the_full_correlation(ratio: int) -> None:
    pan = np.random.default_rng(4).gamma(2, 150, (1, 70, 37))  # FFT lengths that are no multiple of anything
    weights = kernel(ratio * 40 / 41, 0.3)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(pan[0], 20, mode="edge"), (41, 41))
    expected = np.einsum("hwij,ij->hw", windows, weights)
    np.testing.assert_allclose(Camera.of_scene(ratio, BANDS).gaussian(pan)[0], expected, rtol=1e-12)


@pytest.mark.parametrize("count", [1, 7, 49, 50, 149, 150, 20_000])
@pytest.mark.parametrize("scale", [1e-4, 1, 3000])
def test_percentile_of_pieces_is_that_of_the_whole(count: int, scale: float) -> None:
    random = np.random.default_rng(count)
    for values in (
        random.normal(0.5, 1, count) * scale,
        random.gamma(2, 1, count) * scale,
        random.integers(0, 5, count) * scale,
        np.full(count, -0.3 * scale),
    ):
        pieces = np.array_split(values.astype(np.float64), 3)
        for percent in (1, 40):
            percentile = Percentile(percent)
            for piece in pieces:
                percentile.count(piece)
            for piece in reversed(pieces):
                percentile.collect(piece)
            assert percentile.value == pytest.approx(np.percentile(values, percent, method="hazen"), rel=1e-12)


@pytest.fixture(scope="module")
def holed() -> Scene:
    """Texture whose darkest pixels are dark indeed, with a hole that holds wild values."""
    scene = synthetic(4, size=40)
    scene.ms -= scene.ms.min(axis=(1, 2), keepdims=True)
    scene.valid[40:75, 20:61] = False
    scene.pan[:, ~scene.valid] = 5000
    return scene


def test_pracs_by_regressions_on_pixels(holed: Scene) -> None:
    camera = Camera.of_scene(4, BANDS)
    pracs = METHODS["pracs"](camera)
    holed.observe(pracs, size=64)
    valid, pan, exp = holed.valid, holed.pan[0], camera.expand(holed.ms)

    def std(image: np.ndarray) -> float:
        return image[valid].std(ddof=1)

    def corr(one: np.ndarray, other: np.ndarray) -> float:
        return np.corrcoef(one[valid], other[valid])[0, 1]

    matched = [(e - e[valid].mean()) * std(pan) / std(e) + pan[valid].mean() for e in exp]
    matched = [np.maximum(m, 0) for m in matched]
    regressors = np.stack([np.ones(pan.shape), *matched], axis=-1)

    def fit(image: np.ndarray) -> np.ndarray:
        coarse = camera.round_trip(image[None])[0]
        return regressors @ np.linalg.lstsq(regressors[valid], coarse[valid], rcond=None)[0]

    intensity = fit(pan)
    expected = []
    for e, m in zip(exp, matched, strict=True):
        share = corr(intensity, m)
        high = share * pan + (1 - share) * m
        low = fit(high)
        weight = 0.95 * corr(low, e) * std(e) / np.mean([std(other) for other in exp])
        adaptive = 1 - np.abs(1 - corr(intensity, e) * e / low)
        expected.append(e + weight * adaptive * (high - high[valid].mean() - low + low[valid].mean()))
    assert min(m.min() for m in matched) == 0  # the clip is at work
    np.testing.assert_allclose(holed.sharpen(pracs, size=64), expected, rtol=0, atol=1e-8 * holed.pan.max())


@pytest.mark.parametrize("bands", [("blue", "green", "red", "nir"), ("coastal", "yellow", "rededge", "nir2"), ("red",)])
def test_haze_by_regressions_on_pixels(holed: Scene, bands: tuple[str, ...]) -> None:
    camera = Camera.of_scene(4, bands)
    scene = Scene(holed.pan, holed.ms[: len(bands)], holed.valid)
    valid, pan, exp = scene.valid, scene.pan[0], camera.expand(scene.ms)
    low = camera.gaussian(scene.pan)[0]
    if len(bands) == 4:  # known by their names, or else by their order
        haze = np.percentile(exp[:, valid], 1, axis=1, method="hazen") * (0.95, 0.45, 0.40, 0.05)
    else:
        haze = exp[:, valid].min(axis=1)
    haze = haze[:, None, None]

    alpha = np.linalg.lstsq(exp[:, valid].T, low[valid], rcond=None)[0]
    intensity = np.tensordot(alpha, exp - haze, axes=1)
    gain = intensity[valid].std(ddof=1) / low[valid].std(ddof=1)
    new = (pan - low[valid].mean()) * gain + intensity[valid].mean()
    expected = np.maximum(exp - haze, 0) * new / (intensity + np.finfo(float).eps) + haze
    bt_h = METHODS["bt-h"](camera)
    scene.observe(bt_h, size=64)
    np.testing.assert_allclose(scene.sharpen(bt_h, size=64), expected, rtol=0, atol=1e-8 * np.abs(expected).max())

    regressors = np.stack([np.ones(pan.shape), *exp], axis=-1)[valid]
    pan_haze = np.linalg.lstsq(regressors, low[valid], rcond=None)[0] @ [1, *haze.ravel()]
    expected = (exp - haze) * (pan - pan_haze) / (camera.blur(scene.pan) - pan_haze) + haze
    hpm_h = METHODS["mtf-glp-hpm-h"](camera)
    scene.observe(hpm_h, size=64)
    np.testing.assert_allclose(scene.sharpen(hpm_h, size=64), expected, rtol=0, atol=1e-8 * np.abs(expected).max())


@pytest.mark.parametrize("name", GOLDEN)
def test_bands_may_come_in_any_order(name: str) -> None:
    scene, order = synthetic(4), [2, 0, 3, 1]
    hrms = sharpen_whole(METHODS[name](Camera.of_scene(4, BANDS, SENSORS["QB"])), scene.pan, scene.ms)
    camera = Camera.of_scene(4, [BANDS[band] for band in order], SENSORS["QB"])
    found = sharpen_whole(METHODS[name](camera), scene.pan, scene.ms[order])
    np.testing.assert_allclose(found, hrms[order], rtol=0, atol=1e-10 * np.abs(hrms).max())


@pytest.mark.parametrize("name", GOLDEN)
def test_units_do_not_matter(name: str) -> None:
    """Reflectance as well as digital numbers."""
    scene, camera = synthetic(4), Camera.of_scene(4, BANDS)
    hrms = sharpen_whole(METHODS[name](camera), scene.pan, scene.ms)
    found = sharpen_whole(METHODS[name](camera), scene.pan * 1e-4, scene.ms * 1e-4)
    np.testing.assert_allclose(found, hrms * 1e-4, rtol=0, atol=1e-14 * np.abs(hrms).max())
