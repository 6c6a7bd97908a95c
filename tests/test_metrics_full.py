"""Metrics without a truth: the toolbox's numbers, its building blocks, worlds whose truth is known, missing data."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from pansharpen_cli import metrics
from pansharpen_cli.errors import UsageError
from pansharpen_cli.imaging.interpolation import area_phase, toolbox_phase
from pansharpen_cli.imaging.mtf import SENSORS, kernel
from pansharpen_cli.imaging.tiling import Tile
from pansharpen_cli.metrics import FULL, OPTIONAL, ArrayImage, derived, formulas
from pansharpen_cli.metrics.blur import Blur
from pansharpen_cli.metrics.full_families import BestPhase, Blocks
from pansharpen_cli.metrics.image import pixels
from pansharpen_cli.metrics.product import Product, View
from pansharpen_cli.metrics.reduced_resolution import Hypercomplex
from pansharpen_cli.metrics.streaming import Sums, Window, gather, tiles

CASES = ["edge_fr_flat", "real_ge1_8bit", "real_gf2", "real_qb", "real_wv2", "real_wv3", "synth4", "synth8"]
PHASE = toolbox_phase(4)
RNG = np.random.default_rng(12)


def load(golden: Path, case: str) -> tuple[dict[str, Any], list[ArrayImage], list[float]]:
    """Expected values, [product, PAN, MS], gains."""
    expected = json.loads((golden / "metrics" / "expected.json").read_text())["cases"][case]
    file = np.load(golden / "metrics" / expected["file"])
    images = [file["fused"].transpose(2, 0, 1), file["pan"][None], file["ms"].transpose(2, 0, 1)]
    sensor = SENSORS.get(expected["sensor"])
    gains = list(sensor.ms_gains.values()) if sensor else [0.3] * len(images[2])
    return expected["fr"], [ArrayImage(image) for image in images], gains


def whole(image: metrics.Image) -> np.ndarray:
    return np.asarray(image.read(slice(0, image.shape[0]), slice(0, image.shape[1]))[0])


def world(ratio: int, phase: float, rows: int = 96, cols: int = 128) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """HRMS, PAN and MS of one smooth function of the ground; MS sample i lies on PAN index ratio * i + phase."""

    def ground(y: np.ndarray, x: np.ndarray) -> np.ndarray:
        y, x = y[:, None], x[None]
        bands = [500 + 200 * np.sin((x + b * y) / (23 + b)) + 150 * np.cos((y - x) / (31 - b)) for b in range(3)]
        return np.stack(bands)

    hrms = ground(np.arange(rows), np.arange(cols))
    ms = ground(ratio * np.arange(rows // ratio) + phase, ratio * np.arange(cols // ratio) + phase)
    return hrms, hrms.mean(axis=0, keepdims=True), ms


def judge(hrms: np.ndarray, pan: np.ndarray, ms: np.ndarray, **options: Any) -> metrics.FullReport:
    return metrics.full(*(ArrayImage(i) for i in (hrms, pan, ms)), gains=[0.3] * len(ms), **{"phase": PHASE, **options})


@pytest.mark.parametrize("tile", [1024, (32, 1024)], ids=["whole", "strips"])
@pytest.mark.parametrize("case", CASES)
def test_golden(golden: Path, case: str, tile: int | tuple[int, int]):
    expected, images, gains = load(golden, case)
    report = metrics.full(
        *images, gains=gains, phase=PHASE, metrics=[*FULL, *OPTIONAL], maps=True, strict=True, tile=tile, threads=2
    )
    for name, score in report.scores.items():
        if name in expected and name != "D_rho":
            value = np.nan if expected[name] is None else expected[name]
            assert score.value == pytest.approx(value, abs=1e-10, nan_ok=True), name
    assert report.scores["D_rho"].value == pytest.approx(expected["D_rho"], abs=2e-5)  # single precision there
    assert report.scores["D_rho"].value == pytest.approx(expected["D_rho_float64"], abs=1e-10)
    np.testing.assert_allclose(1 - report.maps["D_lambda_K"], expected["D_lambda_K_Q2n_map"], rtol=0, atol=1e-10)
    assert report.phases == tuple(zip(expected["repro_row0"], expected["repro_col0"], strict=True))
    assert not report.cropped
    missing = {name for name, score in report.scores.items() if name not in expected}
    assert missing <= {"R_Q"}  # their MS are smaller than its windows


@pytest.mark.parametrize("case", CASES)
def test_golden_of_exp(golden: Path, case: str):
    expected, (_, pan, ms), gains = load(golden, case)
    exp = derived.Expanded(ms, 4, PHASE)
    scores = metrics.full(exp, pan, ms, gains=gains, phase=PHASE, strict=True).scores
    given = metrics.full(exp, pan, ms, gains=gains, phase=PHASE, strict=True, exp=exp).scores
    for name, value in expected["EXP_baseline"].items():
        assert scores[name].value == pytest.approx(value, abs=1e-10), name
        assert given[name].value == pytest.approx(value, abs=1e-10), name


@pytest.mark.parametrize("case", CASES)
def test_golden_of_other_blocks_and_exponents(golden: Path, case: str):
    expected, images, gains = load(golden, case)
    product = Product.of(*images, gains, PHASE, None)
    small, squared = Blocks(product.size, strict=True, size=16), Blocks(product.size, strict=True, exponent=2)
    fine = Hypercomplex(product.size, size=16, shift=16)

    def measure(tile: Tile) -> list[Sums]:
        view = View(product, tile)
        return [
            small.measure(View(product, tile, size=16)), squared.measure(view), fine.measure(view.consistency())
        ]  # fmt: skip

    sums = gather(measure, tiles(product.size, 64, 32, 0, 0), threads=2)
    values = {f"{name}_S16": score.value for name, score in small.scores(sums[0]).items()}
    of_squares = squared.scores(sums[1])
    values |= {"D_lambda_p2": of_squares["D_lambda"].value, "D_s_q2": of_squares["D_s"].value}
    values["D_lambda_K_S16"] = 1 - fine.scores(sums[2])["Q2n"].value
    for name, value in values.items():
        wanted = np.nan if expected[name] is None else expected[name]
        assert value == pytest.approx(wanted, abs=1e-10, nan_ok=True), name


@pytest.mark.parametrize("case", CASES)
def test_golden_building_blocks(golden: Path, case: str):
    expected, images, gains = load(golden, case)
    product = Product.of(*images, gains, PHASE, None)
    seen = derived.Filtered(product.fused, [derived.by_fourier(kernel(4, gain)) for gain in gains])
    corners = [(0, 0), (0, -1), (2, 4), (-1, 0), (-1, -1)]
    for name, image, points in (
        ("check_exp_band1", product.exp, corners),
        ("check_mtf_fused_band1", seen, corners),
        ("check_pan_lr", derived.Reduced(product.pan, 4), [corner for corner in corners if corner != (-1, 0)]),
    ):
        band = whole(image)[0]
        got = [*(band[point] for point in points), band.mean(), band.std(ddof=1)]
        assert got == pytest.approx(expected[name], rel=1e-10), name


@pytest.mark.parametrize(("ratio", "gain"), [(4, 0.22), (4, 0.34), (3, 0.3), (2, 0.3)])
@pytest.mark.parametrize("image", ["11 bits", "fractions", "black and white", "flat"])
def test_a_blur_rounds_as_the_whole_kernel_does(image: str, ratio: int, gain: float):
    rng = np.random.default_rng(3)
    pixels = {
        "11 bits": rng.integers(0, 2048, (1, 96, 160), np.uint16),
        "fractions": rng.gamma(2, 3000, (1, 96, 160)),
        "black and white": 65535 * np.float32(rng.random((1, 96, 160)) < np.linspace(0, 1, 160)),
        "flat": np.full((1, 96, 160), 500.5),
    }
    taps, window = kernel(ratio, gain), (slice(0, 96), slice(32, 128))
    exact, rounded = (
        derived.Filtered(ArrayImage(pixels[image]), [way(taps)]).read(*window).data
        for way in (derived.by_fourier, Blur.of)
    )
    np.testing.assert_array_equal(rounded, np.floor(exact + 0.5))


def test_exp_is_what_matlab_wrote(golden: Path):
    file = np.load(golden / "metrics" / "matlab_primitives.npz")
    strip = file["exp_ms_rows_52_63_then_0_11"].transpose(2, 0, 1).astype(float)
    rows = derived.Expanded(ArrayImage(strip), 4, PHASE).read(slice(48, 64), slice(0, 256)).data
    np.testing.assert_allclose(rows, file["exp_rows_0_15"].transpose(2, 0, 1), rtol=0, atol=1e-9)


def test_all_cases_are_covered(golden: Path):
    cases = json.loads((golden / "metrics" / "expected.json").read_text())["cases"]
    assert sorted(name for name, case in cases.items() if "fr" in case) == CASES


def test_degenerate_blocks_are_skipped_in_pairs(golden: Path):
    expected, images, gains = load(golden, "edge_fr_flat")
    policy = expected["policy_skip_degenerate_blocks"]
    report = metrics.full(*images, gains=gains, phase=PHASE, maps=True)
    for name in ("D_lambda", "D_s", "QNR"):
        assert report.scores[name].value == pytest.approx(policy[name], abs=1e-10)
    assert report.scores["D_lambda"].degenerate == report.scores["D_s"].degenerate == 1
    assert np.argwhere(np.isnan(report.maps["QNR"])).tolist() == [[1, 1]]


@pytest.mark.parametrize(
    ("ratio", "first", "taps"),
    [
        (4, -6, np.array([-7, -45, -75, -49, 93, 399, 745, 987, 987, 745, 399, 93, -49, -75, -45, -7]) / 4096),
        (2, -3, np.array([-3, -9, 29, 111, 111, 29, -9, -3]) / 256),
    ],
)
def test_bicubic_reduction_of_an_impulse(ratio: int, first: int, taps: np.ndarray):
    centre = 10
    for place, tap in enumerate(taps):
        pan = np.zeros((1, 80, 80))
        pan[0, ratio * centre + first + place] = 1  # a row: the taps across it add up to 1
        assert whole(derived.Reduced(ArrayImage(pan), ratio))[0, centre, centre] == pytest.approx(tap, abs=1e-15)


@pytest.mark.parametrize(("ratio", "phase"), [(4, PHASE), (4, area_phase(4)), (2, area_phase(2)), (3, area_phase(3))])
def test_the_truth_is_best_at_the_right_phase(ratio: int, phase: float):
    """Away from the border, where the toolbox wraps round and repeats pixels."""
    hrms, pan, ms = world(ratio, phase, 192, 192)
    options = {"phase": phase, "maps": True}
    right, moved = (judge(np.roll(hrms, by, axis=2), pan, ms, **options).maps for by in (0, 2))
    for name in ("QNR", "HQNR", "RQNR"):
        assert right[name][2:-2, 2:-2].mean() > 0.98
        assert right[name][2:-2, 2:-2].mean() > moved[name][2:-2, 2:-2].mean()


def test_a_pan_made_of_the_bands_leaves_no_residual():
    hrms, pan, ms = world(4, PHASE)
    report = judge(hrms, pan, ms, metrics=["D_s_R"], maps=True)
    assert report.scores["D_s_R"].value == pytest.approx(0, abs=1e-10)
    noise = RNG.normal(0, 30, pan.shape)
    noisy = judge(hrms, pan + noise, ms, metrics=["D_s_R"], maps=True)
    assert noisy.scores["D_s_R"].value == pytest.approx(noise.var() / (pan + noise).var(), rel=1e-2)
    twice = np.concatenate([hrms, hrms[:1]])  # linearly dependent bands explain as much as without the copy
    again = judge(twice, pan + noise, np.concatenate([ms, ms[:1]]), metrics=["D_s_R"])
    assert again.scores["D_s_R"].value == pytest.approx(noisy.scores["D_s_R"].value, rel=1e-9)


def test_regression_as_least_squares_over_all_pixels(golden: Path):
    _, (fused, pan, ms), gains = load(golden, "real_qb")
    bands, target = fused.array.reshape(4, -1).T.astype(float), pan.array.ravel().astype(float)
    weights = np.linalg.lstsq(bands, target, rcond=None)[0]
    residual = target - bands @ weights
    report = metrics.full(fused, pan, ms, gains=gains, phase=PHASE, metrics=["D_s_R"], maps=True)
    assert report.scores["D_s_R"].value == pytest.approx(residual.var() / target.var(), rel=1e-11)
    part = np.s_[32:64, 96:128]
    here = residual.reshape(256, 256)[part].var() / target.reshape(256, 256)[part].var()
    assert report.maps["D_s_R"][1, 3] == pytest.approx(here, rel=1e-4)  # maps are kept in single precision


def test_local_correlation_by_a_plain_loop():
    x, y = RNG.normal(100, 20, (2, 9, 11))

    def detail(image: np.ndarray) -> np.ndarray:
        padded = np.pad(image, (1, 2))
        means = [[padded[r : r + 4, c : c + 4].sum() / 16 for c in range(11)] for r in range(9)]
        return np.pad(image - np.array(means), (1, 2))

    a, b = detail(x), detail(y)
    rho = formulas.local_correlation(formulas.local_detail(x, 2), formulas.local_detail(y, 2), 2)
    for row in range(9):
        for col in range(11):
            p, q = (image[row : row + 4, col : col + 4] for image in (a, b))
            assert rho[row, col] == pytest.approx((p * q).sum() / np.sqrt((p**2).sum() * (q**2).sum()), abs=1e-12)


def test_maps_average_to_the_scores():
    hrms, pan, ms = world(4, PHASE)
    hrms = hrms + RNG.normal(0, 15, hrms.shape)
    report = judge(hrms, pan, ms, maps=True, metrics=[*FULL, "D_rho"])
    assert {values.shape for values in report.maps.values()} == {(3, 4)}
    for name in ("D_lambda_K", "D_rho"):
        assert report.maps[name].mean() == pytest.approx(report.scores[name].value, rel=1e-12)
    for name in ("D_lambda", "D_s"):  # a mean of magnitudes is never below the magnitude of the mean
        assert report.maps[name].mean() >= report.scores[name].value
    np.testing.assert_allclose(report.maps["HQNR"], (1 - report.maps["D_lambda_K"]) * (1 - report.maps["D_s"]))
    assert judge(hrms, pan, ms).maps == {}


def test_sizes_are_cut_to_whole_blocks_first():
    hrms, pan, ms = world(4, PHASE, 140, 200)
    report = judge(hrms, pan, ms, metrics=[*FULL, *OPTIONAL])
    assert (report.given, report.size, report.cropped) == ((140, 200), (128, 192), True)
    cut = judge(hrms[:, :128, :192], pan[:, :128, :192], ms[:, :32, :48], metrics=[*FULL, *OPTIONAL])
    assert report.scores == cut.scores


@pytest.mark.parametrize("garbage", [0.0, 1e6, np.nan])
def test_what_lies_in_a_gap_does_not_matter(garbage: float):
    hrms, pan, ms = world(4, PHASE, 256, 256)
    pan = pan + np.random.default_rng(5).normal(0, 9, pan.shape)
    valid = np.ones((256, 256), bool)
    valid[120:136, 40:60] = False
    ms_valid = valid[::4, ::4]
    values = []
    for filling in (400.0, garbage):
        images = [ArrayImage(np.where(valid, image, filling), valid) for image in (hrms, pan)]
        images.append(ArrayImage(np.where(ms_valid, ms, filling), ms_valid))
        report = metrics.full(*images, gains=[0.3] * 3, phase=PHASE, metrics=[*FULL, *OPTIONAL])
        values.append({name: score.value for name, score in report.scores.items()})
    assert values[0] == values[1]
    assert None not in values[0].values()


def test_blocks_out_of_reach_of_a_gap_keep_their_values():
    hrms, pan, ms = world(4, PHASE, 256, 256)
    hrms = hrms + RNG.normal(0, 9, hrms.shape)
    valid = np.ones((256, 256), bool)
    valid[128:132, 128:132] = False
    images = ArrayImage(hrms, valid), ArrayImage(pan, valid), ArrayImage(ms, valid[::4, ::4])
    report = metrics.full(*images, gains=[0.3] * 3, phase=PHASE, metrics=[*FULL, "D_rho"], maps=True)
    clean = judge(hrms, pan, ms, metrics=[*FULL, "D_rho"], maps=True)
    for name in ("D_lambda", "D_s", "D_lambda_K"):
        gone = np.isnan(report.maps[name])
        assert gone[4, 4]
        assert report.scores[name].invalid == gone.sum()
        assert gone.sum() <= 16  # 8 MS pixels of EXP and the same again for the PAN's way down and up
        np.testing.assert_allclose(report.maps[name][~gone], clean.maps[name][~gone], rtol=0, atol=1e-10)
    # windows of D_rho reach 2 pixels before and 4 after a position
    assert report.scores["D_rho"].invalid == (4 + 6) ** 2
    assert report.scores["D_s_R"].invalid == 16


def test_nothing_valid_has_a_reason():
    hrms, pan, ms = world(4, PHASE)
    gap = ArrayImage(pan, np.zeros(pan.shape[1:], bool))
    images = ArrayImage(hrms), gap, ArrayImage(ms)
    report = metrics.full(*images, gains=[0.3] * 3, phase=PHASE, metrics=[*FULL, "D_rho"])
    for name, score in report.scores.items():
        if name != "D_lambda_K":  # needs no PAN
            assert score.value is None, name
            assert score.reason, name
    json.loads(json.dumps(report.as_dict(), allow_nan=False))


def test_one_band_has_no_pairs():
    hrms, pan, ms = world(4, PHASE)
    scores = judge(hrms[:1], pan, ms[:1]).scores
    assert scores["D_lambda"].value is scores["QNR"].value is None
    assert "no pairs" in scores["QNR"].reason
    assert scores["HQNR"].value is not None


def test_normalised_data_are_refused_by_the_metric_that_rounds():
    hrms, pan, ms = (image / 2047 for image in world(4, PHASE))
    scores = judge(hrms, pan, ms).scores
    assert scores["D_lambda_K"].value is scores["HQNR"].value is None
    assert "normalised" in scores["HQNR"].reason
    assert scores["QNR"].value is not None


def test_what_does_not_fit_together_is_said():
    hrms, pan, ms = world(4, PHASE)
    with pytest.raises(UsageError, match="the product has 2 bands"):
        judge(hrms[:2], pan, ms)
    for lacking in (1, 3):
        with pytest.raises(UsageError, match="not nested"):
            judge(hrms, pan, ms[:, :, :-lacking])
    with pytest.raises(UsageError, match="2 MTF gains for 3 bands"):
        metrics.full(*(ArrayImage(i) for i in (hrms, pan, ms)), gains=[0.3] * 2, phase=PHASE)
    with pytest.raises(UsageError, match="choose from"):
        judge(hrms, pan, ms, metrics=["FQNR"])
    with pytest.raises(UsageError, match="less than one block"):
        judge(hrms[:, :28], pan[:, :28], ms[:, :7])


def windows(image: np.ndarray, before: int, after: int) -> np.ndarray:
    """The window around each pixel of an image (row, col), with zeros outside: (row, col, side, side)."""
    side = before + 1 + after
    return np.lib.stride_tricks.sliding_window_view(np.pad(image, (before, after)), (side, side))


def plain_rho(x: np.ndarray, y: np.ndarray, half: int) -> np.ndarray:
    """Local correlation over offsets -half + 1 ... half of two images less their local means."""
    a, b = (windows(image - windows(image, half - 1, half).mean(axis=(2, 3)), half - 1, half) for image in (x, y))
    with np.errstate(invalid="ignore"):  # nothing but zeros inside a gap
        return (a * b).sum(axis=(2, 3)) / np.sqrt((a**2).sum(axis=(2, 3)) * (b**2).sum(axis=(2, 3)))


@pytest.mark.parametrize(("ratio", "half"), [(2, 1), (3, 2), (4, 2)])
def test_detail_is_judged_by_all_windows_without_a_gap(ratio: int, half: int):
    rng = np.random.default_rng(9)
    pan, hrms = rng.normal(500, 90, (96, 192)), rng.normal(500, 90, (2, 96, 192))
    hrms[0] += pan
    valid = np.ones(pan.shape, bool)
    valid[40:43, 70:75] = valid[:3, -20:] = False
    images = ArrayImage(hrms, valid), ArrayImage(pan[None], valid), ArrayImage(hrms[:, ::ratio, ::ratio])
    report = metrics.full(*images, gains=[0.3, 0.3], phase=PHASE, metrics=["D_rho"], maps=True, tile=(32, 64))
    loss = 1 - np.mean([plain_rho(band * valid, pan * valid, half) for band in hrms], axis=0)
    loss[windows(~valid, 2 * half - 2, 2 * half).any(axis=(2, 3))] = np.nan
    score = report.scores["D_rho"]
    assert score.value == pytest.approx(np.nanmean(loss), rel=1e-12)
    assert (score.counted, score.invalid) == (np.isfinite(loss).sum(), np.isnan(loss).sum())
    expected = np.nanmean(loss.reshape(3, 32, 6, 32), axis=(1, 3))
    np.testing.assert_allclose(report.maps["D_rho"], expected, rtol=1e-12)


def test_a_product_the_ms_is_made_of_is_found_in_it_at_every_phase():
    """The MS camera by a plain convolution; each band looks at the ground from a pixel of its own."""
    rng = np.random.default_rng(2)
    ground = ndimage.gaussian_filter(rng.normal(0, 900, (544, 160)), 2)
    hrms = np.stack([500 + (1 + band) * ground for band in range(3)])
    taps = np.maximum(kernel(4, 0.3), 0)
    seen = [ndimage.convolve(band, taps / taps.sum(), mode="nearest") for band in hrms]
    phases = ((0, 2), (3, 1), (2, 2))
    ms = np.stack([band[row::4, col::4] for band, (row, col) in zip(seen, phases, strict=True)])
    perfect = {"R_Q2n": 1, "R_Q": 1, "R_SAM": 0, "R_ERGAS": 0}
    report = judge(hrms, hrms[:1], ms, metrics=[*perfect], threads=2)
    assert report.phases == phases
    assert {name: score.value for name, score in report.scores.items()} == pytest.approx(perfect, abs=1e-5)
    assert report.scores["R_ERGAS"].counted == 136 * 40
    other = judge(hrms, hrms[:1], ms * 1.1, metrics=["R_ERGAS"])
    gt = ArrayImage(ms * 1.1)
    assert other.scores["R_ERGAS"].value == pytest.approx(
        metrics.reduced(gt, ArrayImage(ms), 4, metrics=["ERGAS"]).scores["ERGAS"].value, rel=1e-6
    )


def uiqi(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """UIQI of the 32 x 32 blocks of two images (row, col)."""
    x, y = (
        image.reshape(image.shape[0] // 32, 32, -1, 32).swapaxes(1, 2).reshape(image.shape[0] // 32, -1, 1024)
        for image in (x, y)
    )
    mean_x, mean_y = x.mean(axis=-1), y.mean(axis=-1)
    common = (x * y).mean(axis=-1) - mean_x * mean_y
    with np.errstate(invalid="ignore"):
        return 4 * common * mean_x * mean_y / ((x.var(axis=-1) + y.var(axis=-1)) * (mean_x**2 + mean_y**2))


@pytest.mark.parametrize("exponent", [1, 2])
@pytest.mark.parametrize("strict", [False, True])
def test_changes_with_the_scale_by_plain_blocks(strict: bool, exponent: int):
    """A block that is flat in all bands has no index: it is left out, or spoils the score as in the toolbox."""
    hrms, pan, ms = world(4, PHASE)
    rng = np.random.default_rng(6)
    hrms, pan = hrms + rng.normal(0, 25, hrms.shape), pan + rng.normal(0, 9, pan.shape)
    flat = np.s_[..., 32:64, 64:96]
    hrms[flat] = 700
    exp = whole(derived.Expanded(ArrayImage(ms), 4, PHASE))
    low_pan = whole(derived.Expanded(derived.Reduced(ArrayImage(pan), 4), 4, PHASE))
    product = Product.of(*(ArrayImage(image) for image in (hrms, pan, ms)), [0.3] * 3, PHASE, None)
    family = Blocks(product.size, strict=strict, exponent=exponent)
    sums = gather(lambda tile: [family.measure(View(product, tile))], tiles(product.size, (32, 64), 32, 0, 0), 1)
    scores, maps = family.scores(sums[0]), family.maps(sums[0])

    high, low = np.concatenate([hrms, pan]), np.concatenate([exp, low_pan])
    pairs = {"D_lambda": [(0, 1), (0, 2), (1, 2)], "D_s": [(0, 3), (1, 3), (2, 3)]}
    for name, of in pairs.items():
        fine, coarse = (np.array([uiqi(images[i], images[j]) for i, j in of]) for images in (high, low))
        defined = np.isfinite(fine) & np.isfinite(coarse)
        assert defined.all() == (name == "D_s")  # the PAN is not flat
        fine, coarse = (np.where(defined, values, np.nan) for values in (fine, coarse))
        mean = np.mean if strict else np.nanmean
        change = np.abs(mean(fine, axis=(1, 2)) - mean(coarse, axis=(1, 2)))
        expected = (change**exponent).mean() ** (1 / exponent)
        assert scores[name].value == pytest.approx(expected, abs=1e-11, nan_ok=True)
        assert (scores[name].counted, scores[name].invalid) == (12, 0)
        assert scores[name].degenerate == (name == "D_lambda")
        np.testing.assert_allclose(maps[name], np.abs(fine - coarse).mean(axis=0), rtol=0, atol=1e-9)


def test_consistency_is_the_q2n_of_exp_and_of_the_product_as_the_camera_sees_it():
    hrms, pan, ms = world(4, PHASE)
    hrms = hrms + np.random.default_rng(4).normal(0, 20, hrms.shape)
    report = judge(hrms, pan, ms, metrics=["D_lambda_K"], maps=True, tile=(32, 64))
    exp = derived.Expanded(ArrayImage(ms), 4, PHASE)
    seen = np.stack([ndimage.convolve(band, kernel(4, 0.3), mode="nearest") for band in hrms])
    q2n = metrics.reduced(exp, ArrayImage(seen), 4, metrics=["Q2n"])
    assert 0.01 < report.scores["D_lambda_K"].value < 0.5
    assert report.scores["D_lambda_K"].value == pytest.approx(1 - q2n.scores["Q2n"].value, rel=1e-9)
    np.testing.assert_allclose(report.maps["D_lambda_K"], 1 - q2n.maps["Q2n"], rtol=0, atol=1e-9)


def test_residual_of_every_block_has_the_weights_of_the_scene():
    hrms, pan, ms = world(4, PHASE)
    rng = np.random.default_rng(7)
    pan = pan + rng.normal(0, 30, pan.shape)
    pan[0, :32, :32] = 450
    hrms[1] *= 1e-3  # bands in units of their own
    report = judge(hrms, pan, ms, metrics=["D_s_R"], maps=True, tile=(32, 64))
    bands = hrms.reshape(3, -1).T
    residual = pan[0] - (bands @ np.linalg.lstsq(bands, pan.ravel(), rcond=None)[0]).reshape(pan.shape[1:])
    assert report.scores["D_s_R"].value == pytest.approx(residual.var() / pan.var(), rel=1e-9)
    for row, col in np.ndindex(3, 4):
        part = np.s_[32 * row : 32 * row + 32, 32 * col : 32 * col + 32]
        found = report.maps["D_s_R"][row, col]
        if row == col == 0:
            assert np.isnan(found)  # a block with a constant PAN has no variance to explain
        else:
            assert found == pytest.approx(residual[part].var() / pan[0][part].var(), rel=1e-3)  # single precision


def test_a_band_of_zeros_explains_nothing_and_harms_nothing():
    hrms, pan, ms = world(4, PHASE)
    pan = pan + np.random.default_rng(7).normal(0, 30, pan.shape)
    dark = np.concatenate([0 * hrms[:1], hrms]), pan, np.concatenate([0 * ms[:1], ms])
    one, other = (judge(*images, metrics=["D_s_R"]).scores["D_s_R"] for images in ((hrms, pan, ms), dark))
    assert one.value == pytest.approx(other.value, rel=1e-9)
    flat = judge(hrms, np.full_like(pan, 300), ms, metrics=["D_s_R"]).scores["D_s_R"]
    assert flat.value is None
    assert "constant" in flat.reason
    assert (flat.counted, flat.invalid) == (96 * 128, 0)


@pytest.mark.parametrize(("ratio", "exp"), [(4, "23tap"), (2, "23tap"), (3, "cubic")])
def test_a_report_says_what_its_scores_depend_on(ratio: int, exp: str):
    hrms, pan, ms = world(ratio, area_phase(ratio), 100, 130)
    pan = pan + np.random.default_rng(3).normal(0, 60, pan.shape)  # which the bands do not explain
    gains = [0.3, 0.28, 0.35]
    images = [ArrayImage(image) for image in (hrms, pan, ms)]
    options: dict[str, Any] = {"gains": gains, "phase": area_phase(ratio), "metrics": ["RQNR"]}
    report = metrics.full(*images, **options)
    size = (96, 128) if ratio != 3 else (96, 96)
    assert (report.given, report.size, report.ratio, report.phase) == ((100, 130), size, ratio, area_phase(ratio))
    assert (report.gains, report.exp, report.phases) == (tuple(gains), exp, ())
    assert list(report.scores) == ["D_lambda_K", "D_s_R", "RQNR"]
    given = ArrayImage(hrms + 5)
    assert metrics.full(*images, exp=given, **options).exp == "given"
    first, second, product = (report.scores[name].value for name in ("D_lambda_K", "D_s_R", "RQNR"))
    assert min(first, second) > 1e-3
    assert product == pytest.approx((1 - first) * (1 - second), rel=1e-12)


@pytest.mark.parametrize("size", [(96, 128), (300, 270)])
def test_a_filter_by_fourier_is_a_convolution_with_replicated_borders(size: tuple[int, int]):
    image, taps = RNG.normal(500, 90, (2, *size)), [kernel(4, 0.25), kernel(4, 0.35)]
    valid = np.ones(size, bool)
    valid[50, 60] = valid[-1, 3] = False
    read = derived.Filtered(ArrayImage(image, valid), [derived.by_fourier(one) for one in taps])
    assert (read.bands, read.shape) == (2, size)
    rows, cols = slice(11, size[0]), slice(0, size[1] - 7)
    found, known = read.read(rows, cols)
    for band, one, out in zip(image * valid, taps, found, strict=True):
        expected = ndimage.convolve(band, one, mode="nearest")[rows, cols]
        np.testing.assert_allclose(out, expected, rtol=0, atol=1e-9)
    half = len(taps[0]) // 2
    gaps = np.lib.stride_tricks.sliding_window_view(np.pad(~valid, half, mode="edge"), taps[0].shape).any(axis=(2, 3))
    np.testing.assert_array_equal(known, ~gaps[rows, cols])


def test_decimation_takes_every_ratio_th_pixel_from_its_phase_on():
    image, valid = RNG.normal(500, 90, (2, 36, 48)), np.ones((36, 48), bool)
    valid[13, 17] = False
    window = slice(2, 9), slice(1, 12)
    fine = np.s_[8:36, 4:48]
    cut, cut_valid = (image * valid)[:, *fine], valid[fine]
    phases = derived.Phases(ArrayImage(image[:1], valid), 4)
    found = phases.read(*window)
    assert (phases.bands, phases.shape, found.data.shape) == (16, (9, 12), (16, 7, 11))
    for row, col in np.ndindex(4, 4):
        np.testing.assert_array_equal(found.data[4 * col + row], cut[0, row::4, col::4])
    gap = np.argwhere(~found.valid).tolist()
    assert gap == [[13 // 4 - 2, 17 // 4 - 1]]
    one = derived.Decimated(ArrayImage(image, valid), 4, [(1, 1), (3, 0)]).read(*window)
    np.testing.assert_array_equal(one.data, [cut[0, 1::4, 1::4], cut[1, 3::4, 0::4]])
    np.testing.assert_array_equal(one.valid, cut_valid[1::4, 1::4] & cut_valid[3::4, 0::4])


def test_phases_are_weighed_by_the_local_correlation_at_all_positions():
    """Whatever the tiles; what a gap is in reach of counts nowhere."""
    rng = np.random.default_rng(9)
    ms, valid = rng.normal(500, 90, (2, 70, 80)), np.ones((70, 80), bool)
    fine = rng.normal(500, 90, (1, 140, 160))
    fine[0, 1::2, 0::2] += ms[1]
    valid[31:33, 20] = valid[-1, -3:] = False
    known = ~windows(~valid, 2, 4).any(axis=(2, 3))
    phases = derived.Phases(ArrayImage(fine), 2)
    best = BestPhase(2)
    todo = tiles((70, 80), 32, 32, best.before, best.after)

    def measure(tile: Tile) -> list[Sums]:
        read = pixels(ArrayImage(ms, valid), *tile.read), phases.read(*tile.read)
        return [best.measure(Window.of(tile, (70, 80), *read))]

    (sums,) = gather(measure, todo, threads=1)
    decimated = [fine[0, row::2, col::2] for col in range(2) for row in range(2)]
    rho = [[plain_rho(band * valid, phase * valid, 2)[known].sum() for phase in decimated] for band in ms]
    np.testing.assert_allclose(sums[0], rho, rtol=0, atol=1e-9)
    assert best.phases(sums)[1] == (1, 0)
    assert best.phases((np.ones((1, 4)),)) == [(0, 0)]
    assert best.phases((np.array([[0.1, 0.2, 0.9, 0.9]]),)) == [(0, 1)]  # of equals the first row


def test_a_given_exp_takes_the_place_of_the_ms_brought_up():
    hrms, pan, ms = world(4, PHASE, 140, 200)
    hrms = hrms + np.random.default_rng(1).normal(0, 30, hrms.shape)
    own, given = (judge(hrms, pan, ms, metrics=["QNR"], exp=exp).scores for exp in (None, ArrayImage(hrms)))
    assert given["D_lambda"].value == 0
    assert own["D_lambda"].value > 1e-3
    with pytest.raises(UsageError, match="EXP has 2 bands"):
        judge(hrms, pan, ms, exp=ArrayImage(hrms[:2]))


def test_what_has_no_value_says_why():
    hrms, pan, ms = world(4, PHASE)
    nowhere = ArrayImage(hrms, np.zeros(pan.shape[1:], bool)), ArrayImage(pan), ArrayImage(ms)
    scores = metrics.full(*nowhere, gains=[0.3] * 3, phase=PHASE, metrics=[*FULL, "D_rho"]).scores
    reasons = {
        "D_lambda": "no block is valid throughout", "D_s": "no block is valid throughout",
        "QNR": "no block is valid throughout", "D_lambda_K": "no block is valid throughout",
        "D_s_R": "no valid pixels to measure", "D_rho": "no valid pixels to measure",
    }  # fmt: skip
    assert {name: scores[name].reason for name in reasons} == reasons
    assert {score.counted for score in scores.values()} == {0}
    flat = judge(np.full_like(hrms, 500), np.full_like(pan, 500), np.full_like(ms, 500)).scores
    assert flat["D_lambda"].reason == flat["D_s"].reason == "a pair of bands has no usable block"
    assert flat["D_lambda"].value is flat["D_s"].value is None
    assert flat["D_lambda"].degenerate == flat["D_s"].degenerate == 12
