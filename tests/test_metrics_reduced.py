"""Metrics against a truth: the toolbox's numbers, plain loops, images whose scores are known, missing data."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import ndimage

from pansharpen_cli import metrics
from pansharpen_cli.errors import UsageError
from pansharpen_cli.metrics import PRESETS, REDUCED, ArrayImage, formulas
from pansharpen_cli.metrics.reduced_resolution import ergas, sam

CASES = ["edge_identical", "edge_pad", "edge_range", "edge_single", "edge_uniform", "real_gf2", "real_qb", "synth4",
         "synth8"]  # fmt: skip
NAMES = {name: name for name in ("Q2n", "SAM", "ERGAS", "SCC", "PSNR", "SSIM", "CC")} | {"Q": "QAVE"}
# arccos turns the last digit of a cosine of 1 into 1e-6 degrees: the golden values come with this tolerance there
NO_ANGLE = {"edge_identical": 1e-5, "edge_single": 1e-5}
RNG = np.random.default_rng(11)


def load(golden: Path, case: str) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
    expected = json.loads((golden / "metrics" / "expected.json").read_text())["cases"][case]
    file = np.load(golden / "metrics" / expected["file"])
    return expected, *(file[key].transpose(2, 0, 1) for key in ("gt", "fused"))


def compare(gt: np.ndarray, fused: np.ndarray, **options: Any) -> metrics.ReducedReport:
    return metrics.reduced(ArrayImage(gt), ArrayImage(fused), 4, **options)


def textured(bands: int, height: int, width: int) -> np.ndarray:
    return RNG.uniform(100, 900, (bands, 1, 1)) + RNG.normal(0, 60, (bands, height, width)).round()


@pytest.mark.parametrize("tile", [1024, (64, 1024)], ids=["whole", "strips"])
@pytest.mark.parametrize("case", CASES)
def test_golden(golden: Path, case: str, tile: int | tuple[int, int]):
    expected, gt, fused = load(golden, case)
    for name, values in expected["rr"].items():
        options = {"cut": int(name.removeprefix("cut")), "maxval": expected["maxval"], "strict": True}
        options |= {"tile": tile, "threads": 2}
        report = compare(gt, fused, **options)
        for key, metric in NAMES.items():
            tolerance = NO_ANGLE.get(case, 1e-9) if metric == "SAM" else 1e-9
            assert report.scores[metric].value == pytest.approx(float(values[key]), abs=tolerance), (name, metric)
            if f"{key}_bands" in values:
                bands = [float(value) for value in values[f"{key}_bands"]]
                assert report.scores[metric].bands == pytest.approx(bands, abs=1e-9), (name, metric)
        assert report.scores["RMSE"].value / expected["maxval"] == pytest.approx(values["RMSE_norm"], abs=1e-11)
        if "Q2n_map" in values:
            np.testing.assert_allclose(report.maps["Q2n"], values["Q2n_map"], rtol=0, atol=1e-10)
        half = compare(gt, fused, metrics=["Q2n"], shift=16, **options)
        assert half.scores["Q2n"].value == pytest.approx(values["Q2n_shift16"], abs=1e-10)


@pytest.mark.parametrize("case", ["edge_range", "edge_uniform", "real_qb"])
def test_golden_of_a_clipped_product(golden: Path, case: str):
    expected, gt, fused = load(golden, case)
    report = compare(gt, np.clip(fused, 0, 2 ** expected["bits"]), metrics=["SAM", "ERGAS", "SCC", "Q2n", "QAVE"])
    for key, value in expected["rr"]["cut0"]["thvalues"].items():
        assert report.scores[NAMES[key]].value == pytest.approx(value, abs=1e-9), key


def test_all_cases_are_covered(golden: Path):
    cases = json.loads((golden / "metrics" / "expected.json").read_text())["cases"]
    assert sorted(name for name, case in cases.items() if "rr" in case) == CASES


def test_presets_are_the_published_crops(golden: Path):
    _, gt, fused = load(golden, "real_qb")
    sizes = {name: compare(gt, fused, cut=cut, metrics=["SAM"]).size for name, cut in PRESETS.items()}
    assert sizes == {"none": (256, 256), "dlpan": (215, 215), "pancollection": (197, 197)}


def test_signs_of_quaternions_and_octonions():
    rows = ["+--+-++-", "++++++++", "+-+-+-+-", "--++--++", "+--++--+", "--++++--", "----++++", "+-+--+-+"]
    table = [[1 if sign == "+" else -1 for sign in row] for row in rows]
    np.testing.assert_array_equal(formulas.hypercomplex_signs(8), table)
    np.testing.assert_array_equal(
        formulas.hypercomplex_signs(4), [[1, -1, -1, 1], [1, 1, 1, 1], [1, -1, 1, -1], [-1, -1, 1, 1]]
    )


def onion(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Product of hypercomplex numbers (components,) by the doubling of their algebra."""
    if len(a) == 1:
        return a * b
    half = len(a) // 2
    conjugate = np.r_[1, -np.ones(half - 1)]
    a1, a2, b1, b2 = a[:half], a[half:] * conjugate, b[:half], b[half:] * conjugate
    first = onion(a1, b1) - onion(b2, a2 * conjugate)
    return np.concatenate([first, onion(a1 * conjugate, b2) + onion(b1, a2)])


@pytest.mark.parametrize("components", [2, 4, 8, 16, 32])
def test_signs_give_the_product_of_hypercomplex_numbers(components: int):
    a, b = RNG.normal(size=(2, components))
    product = np.zeros(components)
    for i in range(components):
        for j in range(components):
            product[i ^ j] += formulas.hypercomplex_signs(components)[i, j] * a[i] * b[j]
    np.testing.assert_allclose(product, onion(a, np.r_[b[0], -b[1:]]), atol=1e-12)


def test_sliding_windows_by_a_plain_loop():
    x, y = textured(2, 9, 10)
    quality = formulas.sliding_uiqi(x, y, 5)
    for row in range(5):
        for col in range(6):
            a, b = (image[row : row + 5, col : col + 5] for image in (x, y))
            covariance = ((a - a.mean()) * (b - b.mean())).mean()
            index = 4 * covariance * a.mean() * b.mean() / ((a.var() + b.var()) * (a.mean() ** 2 + b.mean() ** 2))
            assert quality[row, col] == pytest.approx(index, abs=1e-10)


def test_flat_fractions_are_flat():
    """0.1 is no binary fraction; the sums of a flat window must still leave no spread behind."""
    flat = formulas.sliding_uiqi(np.full((40, 50), 0.1), np.full((40, 50), 0.3), 32)
    np.testing.assert_allclose(flat, 2 * 0.1 * 0.3 / (0.01 + 0.09), atol=1e-14)
    assert (formulas.sliding_uiqi(np.zeros((33, 33)), np.zeros((33, 33)), 32) == 1).all()


def test_similarity_by_a_plain_window():
    x, y = textured(2, 11, 11) / 2047
    axis = np.exp(-(np.arange(-5, 6) ** 2) / 4.5)
    window = np.outer(axis, axis) / axis.sum() ** 2
    mean_x, mean_y = (window * x).sum(), (window * y).sum()
    var_x, var_y = (window * (x - mean_x) ** 2).sum(), (window * (y - mean_y) ** 2).sum()
    both = (window * (x - mean_x) * (y - mean_y)).sum()
    ssim = (2 * mean_x * mean_y + 1e-4) * (2 * both + 9e-4)
    ssim /= (mean_x**2 + mean_y**2 + 1e-4) * (var_x + var_y + 9e-4)
    assert formulas.ssim_map(x, y) == pytest.approx(np.array([[ssim]]), abs=1e-12)


def test_known_errors():
    gt = textured(2, 40, 40)
    report = compare(gt, gt + np.array([2.0, -8.0])[:, None, None], maxval=1023)
    assert report.scores["RMSE"].value == pytest.approx(np.sqrt((4 + 64) / 2))
    assert report.scores["PSNR"].value == pytest.approx(np.mean([20 * np.log10(1023 / 2), 20 * np.log10(1023 / 8)]))
    assert report.scores["CC"].value == pytest.approx(1)


def test_a_copy_is_perfect():
    image = textured(3, 64, 70)
    report = compare(image, image, maxval=2047)
    perfect = {"SCC": 1, "QAVE": 1, "Q2n": 1, "SSIM": 1, "CC": 1, "ERGAS": 0, "RMSE": 0}
    assert {name: report.scores[name].value for name in perfect} == pytest.approx(perfect, abs=1e-12)
    assert report.scores["PSNR"].value is None
    assert "equals" in report.scores["PSNR"].reason
    assert compare(image, image, maxval=2047, strict=True).scores["PSNR"].value == np.inf
    json.loads(json.dumps(report.as_dict(), allow_nan=False))


def test_missing_pixels_take_no_part():
    gt = textured(4, 96, 128)
    fused = gt + RNG.normal(0, 20, gt.shape)
    valid = np.ones((96, 128), bool)
    valid[:, 64:] = False
    report = metrics.reduced(ArrayImage(gt), ArrayImage(np.where(valid, fused, 65535.0), valid), 4, maxval=2047)
    half = compare(gt[..., :64], fused[..., :64], maxval=2047)
    for name in REDUCED:
        if name != "SCC":  # the half image has a border of its own
            assert report.scores[name].value == pytest.approx(half.scores[name].value, rel=1e-12), name
            assert report.scores[name].counted == half.scores[name].counted, name
    assert report.scores["SAM"].invalid == 96 * 64
    assert report.scores["Q2n"].invalid == 6
    assert np.isnan(report.maps["Q2n"][:, 2:]).all()
    edges = report.scores["SCC"]
    assert (edges.counted, edges.invalid) == (94 * 62, 94 * 64)


@pytest.mark.parametrize("garbage", [0.0, 1e6, np.nan])
def test_what_lies_in_a_gap_does_not_matter(garbage: float):
    rng = np.random.default_rng(3)
    gt = rng.integers(100, 900, (3, 80, 90)).astype(float)
    fused = gt + rng.normal(0, 9, gt.shape)
    valid = rng.random((80, 90)) > 0.0005
    assert 0 < (~valid).sum() < 10
    values = []
    for filling in (500.0, garbage):
        images = (ArrayImage(np.where(valid, image, filling), valid) for image in (gt, fused))
        report = metrics.reduced(*images, 4, maxval=2047)
        values.append({name: score.value for name, score in report.scores.items()})
    assert values[0] == values[1]
    assert None not in values[0].values()


def test_a_nan_in_the_product_is_not_hidden():
    gt = textured(2, 64, 64)
    fused = gt + 1
    fused[1, 40, 40] = np.nan
    report = compare(gt, fused, maxval=2047)
    assert {score.value for score in report.scores.values()} == {None}
    assert np.isnan(sam(gt, fused))
    assert np.isnan(ergas(gt, fused, 4))


def test_nothing_valid_has_a_reason():
    gt = textured(2, 40, 40)
    report = metrics.reduced(ArrayImage(gt, np.zeros((40, 40), bool)), ArrayImage(gt), 4, maxval=2047)
    for score in report.scores.values():
        assert score.value is None
        assert score.reason
        assert score.counted == 0


def test_small_images_miss_only_the_windows_they_cannot_hold():
    gt = textured(2, 20, 24)
    report = compare(gt, gt + RNG.normal(0, 5, gt.shape), maxval=2047)
    assert [name for name, score in report.scores.items() if score.value is None] == ["QAVE"]
    tiny = compare(gt[:, :12], gt[:, :12], maxval=2047).scores["Q2n"]
    assert tiny.value is None
    assert "too small" in tiny.reason


def test_normalised_data_are_refused_by_the_metric_that_rounds():
    gt = textured(2, 64, 64) / 2047
    scores = compare(gt, gt * 0.99).scores
    assert scores["Q2n"].value is None
    assert "maxval" in scores["Q2n"].reason
    assert scores["SAM"].value is not None
    assert compare(np.zeros((2, 64, 64), np.uint16), np.zeros((2, 64, 64))).scores["Q2n"].value == 1
    assert scores["PSNR"].value is scores["SSIM"].value is None  # they need the peak


def test_flat_blocks_keep_the_toolbox_rule_and_are_counted(golden: Path):
    _, gt, fused = load(golden, "edge_uniform")
    score = compare(gt, fused).scores["Q2n"]
    flat = sum((gt[:, r : r + 32, c : c + 32].std(axis=(1, 2)) == 0).any() for r in (0, 32, 64) for c in (0, 32, 64))
    assert (score.counted, score.degenerate) == (9, flat)


def test_what_cannot_be_compared_is_said():
    gt = textured(2, 40, 40)
    with pytest.raises(UsageError, match="3 bands"):
        compare(gt, textured(3, 40, 40))
    with pytest.raises(UsageError, match="choose from"):
        compare(gt, gt, metrics=["SAMM"])
    with pytest.raises(UsageError, match="leaves nothing"):
        compare(gt, gt, cut=30)
    with pytest.raises(UsageError, match="cut takes a whole number from 0 on, not -3"):
        compare(gt, gt, cut=-3)
    for maxval in (0, -2047, np.nan, "2047", True):
        with pytest.raises(UsageError, match="maxval takes"):
            compare(gt, gt, maxval=maxval)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.uint16, np.float32])
def test_the_largest_dn_may_be_of_any_type(kind: type):
    """As an image of 16 bits has it: its square is more than such numbers hold."""
    gt, fused = textured(2, 96, 80), textured(2, 96, 80)
    peak = kind(255) if kind is np.uint8 else kind(2047)
    assert compare(gt, fused, maxval=peak).scores == compare(gt, fused, maxval=float(peak)).scores


@pytest.mark.parametrize("option", [{"cut": np.uint8(8)}, {"shift": np.uint8(32)}, {"tile": np.int64(64)}])
def test_terms_may_be_numpys(option: dict[str, Any]):
    gt, fused = textured(2, 96, 80), textured(2, 96, 80)
    plain = {name: int(value) for name, value in option.items()}
    assert compare(gt, fused, **option).scores == compare(gt, fused, **plain).scores


@pytest.mark.parametrize(("kind", "data"), [(np.uint8, 255), (np.uint8, 1), (np.int64, 1), (np.float32, 1)])
def test_where_an_image_is_valid_may_be_told_by_numbers(kind: type, data: int):
    """As the mask of a file tells it: 0 where there is none."""
    gt, fused = textured(2, 96, 96), textured(2, 96, 96)
    valid = np.arange(96 * 96).reshape(96, 96) % 997 > 0
    numbers, truths = (
        metrics.reduced(ArrayImage(gt, where), ArrayImage(fused, where), 4, maxval=2047).scores
        for where in ((valid * data).astype(kind), valid)
    )
    assert numbers == truths


@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 11, 32])
def test_box_sums_by_plain_windows(size: int):
    image = RNG.integers(0, 5000, (2, 40, 35)).astype(float)
    windows = np.lib.stride_tricks.sliding_window_view(image, (size, size), axis=(1, 2))
    np.testing.assert_array_equal(formulas.box_sum(image, size), windows.sum(axis=(3, 4)))
    valid = RNG.random((40, 35)) > 0.02
    expected = np.lib.stride_tricks.sliding_window_view(valid, (size, size)).all(axis=(2, 3))
    np.testing.assert_array_equal(formulas.whole(valid, size), expected)
    assert formulas.whole(np.ones((4, 40), bool), size).shape == (max(5 - size, 0), 41 - size)
    assert formulas.whole(np.ones((40, 35), bool), size).all()


def plain_q2n(reference: np.ndarray, fused: np.ndarray) -> float:
    """Q2n of one block (bands, row, col): the quality index of hypercomplex numbers, pixel by pixel."""
    g, f = (image.reshape(len(image), -1) for image in (reference, fused))
    mean, deviation = g.mean(axis=1, keepdims=True), g.std(axis=1, ddof=1, keepdims=True)
    a, b = (g - mean) / deviation + 1, (f - mean) / np.where(mean == 0, 1, deviation) + 1
    components = 2 ** int(np.ceil(np.log2(len(a))))
    a, b = (np.concatenate([image, np.ones((components - len(image), g.shape[1]))]) for image in (a, b))
    conjugate = np.r_[1, -np.ones(components - 1)]
    mean_a, mean_b = a.mean(axis=1), b.mean(axis=1)
    common = np.mean([onion(p, q * conjugate) for p, q in zip(a.T, b.T, strict=True)], axis=0)
    common = common - onion(mean_a, mean_b * conjugate)
    norm_a, norm_b = np.linalg.norm(mean_a), np.linalg.norm(mean_b)
    spread = (a**2).sum(axis=0).mean() - norm_a**2 + (b**2).sum(axis=0).mean() - norm_b**2
    return 2 * norm_a * norm_b / (norm_a**2 + norm_b**2) * 2 * np.linalg.norm(common) / spread


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 5])
def test_q2n_of_a_block_is_the_quality_of_its_hypercomplex_numbers(bands: int):
    gt = textured(bands, 16, 24)
    gt[0, :8, :8] -= np.rint(gt[0, :8, :8].mean())
    gt[0, :8, :8] = np.abs(gt[0, :8, :8])
    fused = np.rint(0.8 * gt + 40 + RNG.normal(0, 20, gt.shape))
    moments = formulas.block_moments(gt, fused, np.ones((16, 24), bool), 8, 8)
    quality, flat = formulas.q2n(moments, 8)
    assert quality.shape == flat.shape == (2, 3)
    assert not flat.any()
    for row, col in np.ndindex(2, 3):
        part = np.s_[:, 8 * row : 8 * row + 8, 8 * col : 8 * col + 8]
        assert quality[row, col] == pytest.approx(plain_q2n(gt[part], fused[part]), rel=1e-9)


def test_q2n_of_flat_blocks():
    """A reference without texture leaves the level to compare; one without signal leaves DN."""
    valid, gt = np.ones((8, 24), bool), np.full((1, 8, 24), 500.0)
    gt[..., 16:] = 0
    fused = gt.copy()
    fused[..., 8:16] += 1
    fused[..., 16:] = np.indices((8, 8)).sum(axis=0) % 2 * 2  # mean 1 and deviation 1, in DN
    quality, flat = formulas.q2n(formulas.block_moments(gt, fused, valid, 8, 8), 8)
    assert flat.all()
    assert quality[0, 0] == pytest.approx(1)  # the same
    assert quality[0, 1] == pytest.approx(0, abs=1e-12)  # moved by far more than it varies
    assert quality[0, 2] == 0  # varies, and the reference not at all


def test_quality_of_all_pairs_of_bands_by_their_moments():
    bands = textured(3, 16, 16)
    vectors = bands.reshape(3, -1)
    mean, covariance = vectors.mean(axis=1), np.cov(vectors, bias=True)
    found = formulas.uiqi_matrix(mean, covariance, 0)
    for i, j in np.ndindex(3, 3):
        below = (covariance[i, i] + covariance[j, j]) * (mean[i] ** 2 + mean[j] ** 2)
        assert found[i, j] == pytest.approx(4 * covariance[i, j] * mean[i] * mean[j] / below, rel=1e-12)
    assert np.diag(found) == pytest.approx(1)


@pytest.mark.parametrize(("deviation", "flat"), [(0.9e-3, True), (1e-3, True), (1.1e-3, False)])
def test_a_band_is_flat_by_its_deviation_relative_to_its_mean(deviation: float, flat: bool):
    mean, covariance = np.array([256.0, 256.0]), np.full((2, 2), (256 * deviation) ** 2)
    found = formulas.uiqi_matrix(mean, covariance, 1e-3 * (1 + 1e-12))
    assert np.isnan(found).all() == flat
    one = formulas.uiqi_matrix(mean, np.diag([covariance[0, 0], 4.0]), 1e-3 * (1 + 1e-12))  # the other is not
    assert np.isnan(one).tolist() == [[flat, False], [False, False]]
    assert np.isnan(formulas.uiqi_matrix(0 * mean, np.eye(2), 0)).all()  # zero on average


def test_similarity_of_every_window_is_that_of_the_window_alone():
    x, y = textured(2, 14, 17) / 2047
    every = formulas.ssim_map(x, y)
    assert every.shape == (4, 7)
    for row, col in np.ndindex(every.shape):
        part = np.s_[row : row + 11, col : col + 11]
        assert every[row, col] == pytest.approx(formulas.ssim_map(x[part], y[part])[0, 0], abs=1e-12)
    assert formulas.ssim_map(x[:9], y[:9]).shape == (0, 7)


def test_edges_are_those_of_sobel_inside_a_border_of_zeros():
    gt = textured(2, 40, 50)
    fused = gt + RNG.normal(0, 40, gt.shape)

    def sobel(band: np.ndarray) -> np.ndarray:
        return np.hypot(ndimage.sobel(band, 0), ndimage.sobel(band, 1))[1:-1, 1:-1]

    truth, other = (np.array([sobel(np.pad(band[1:-1, 1:-1], 1)) for band in image]) for image in (gt, fused))
    expected = (truth * other).sum() / np.sqrt((truth**2).sum() * (other**2).sum())
    score = compare(gt, fused, metrics=["SCC"]).scores["SCC"]
    assert score.value == pytest.approx(expected, rel=1e-12)
    assert (score.counted, score.invalid, score.reason) == (38 * 48, 0, "")
    np.testing.assert_allclose(formulas.sobel_magnitude(gt), [sobel(band) for band in gt], rtol=1e-12)


@pytest.mark.parametrize("shift", [32, 16])
def test_blocks_beyond_the_end_are_completed_by_mirroring(shift: int):
    gt = textured(3, 80, 100)
    fused = gt + RNG.normal(0, 30, gt.shape)
    mirrored = [np.pad(image, [(0, 0), (0, 48), (0, 28)], mode="symmetric") for image in (gt, fused)]
    found = compare(gt, fused, metrics=["Q2n"], shift=shift)
    rows, cols = -(-80 // shift), -(-100 // shift)
    expected = compare(*mirrored, metrics=["Q2n"], shift=shift).maps["Q2n"][:rows, :cols]
    np.testing.assert_allclose(found.maps["Q2n"], expected, rtol=1e-12)
    assert found.scores["Q2n"].value == pytest.approx(expected.mean(), rel=1e-12)
    assert found.scores["Q2n"].counted == rows * cols


def test_metrics_of_errors_by_their_definitions():
    gt = textured(3, 36, 44)
    fused = 1.1 * gt + RNG.normal(0, 25, gt.shape)
    scores = compare(gt, fused, maxval=1023).scores
    mse = ((gt - fused) ** 2).mean(axis=(1, 2))
    psnr = 10 * np.log10(1023**2 / mse)
    pearson = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(gt, fused, strict=True)]
    assert scores["RMSE"].value == pytest.approx(np.sqrt(mse.mean()))
    assert scores["ERGAS"].value == pytest.approx(25 * np.sqrt((mse / gt.mean(axis=(1, 2)) ** 2).mean()))
    assert scores["PSNR"].bands == pytest.approx(psnr)
    assert scores["PSNR"].value == pytest.approx(psnr.mean())
    assert scores["CC"].bands == pytest.approx(pearson)
    assert scores["CC"].value == pytest.approx(np.mean(pearson))
    windows = [formulas.sliding_uiqi(a, b, 32).mean() for a, b in zip(gt, fused, strict=True)]
    assert scores["QAVE"].bands == pytest.approx(windows)
    similar = [formulas.ssim_map(a / 1023, b / 1023).mean() for a, b in zip(gt, fused, strict=True)]
    assert scores["SSIM"].bands == pytest.approx(similar)
    assert {name: score.counted for name, score in scores.items()} == {
        "SAM": 36 * 44, "ERGAS": 36 * 44, "PSNR": 36 * 44, "RMSE": 36 * 44, "CC": 36 * 44,
        "SCC": 34 * 42, "QAVE": 5 * 13, "SSIM": 26 * 34, "Q2n": 4,
    }  # fmt: skip
    assert {(score.invalid, score.degenerate, score.reason) for score in scores.values()} == {(0, 0, "")}


def test_a_report_holds_what_was_asked_for():
    gt = textured(2, 70, 80)
    report = compare(gt, gt + 3, metrics=["SAM", "RMSE"], maxval=2047, cut=2)
    assert list(report.scores) == ["SAM", "RMSE"]
    assert (report.size, report.ratio, report.maxval, report.cut, report.maps) == ((67, 77), 4, 2047, 2, {})
    assert report.scores["RMSE"].counted == 67 * 77
    cut = compare(gt[:, 1:-2, 1:-2], gt[:, 1:-2, 1:-2] + 3, metrics=["SAM"])
    assert cut.scores["SAM"].value == report.scores["SAM"].value
    assert "ssim" in compare(gt, gt, metrics=["SSIM"]).scores["SSIM"].reason.lower()


def reasons(gt: np.ndarray, fused: np.ndarray, **options: Any) -> dict[str, str]:
    """Of the metrics without a value."""
    scores = compare(gt, fused, **options).scores
    assert all(score.reason == "" for score in scores.values() if score.value is not None)
    return {name: score.reason for name, score in scores.items() if score.value is None}


def test_what_has_no_value_says_why():
    gt = textured(2, 40, 40)
    assert reasons(gt, gt) == {
        "PSNR": "PSNR needs maxval, the largest DN",
        "SSIM": "SSIM needs maxval, the largest DN",
    }
    assert reasons(gt, gt, maxval=2047) == {"PSNR": "a band equals that of gt"}
    dark, flat = 0 * gt, 0 * gt + 7
    assert reasons(dark, dark + 1, maxval=255) == {
        "SAM": "no valid pixels to measure", "ERGAS": "a band of gt is zero on average",
        "CC": "a band is constant", "SCC": "an image has no edges",
    }  # fmt: skip
    assert reasons(flat, flat + 2, maxval=255) == {"CC": "a band is constant"}  # zeros lie around: there are edges
    assert reasons(gt[:, :12, :9], gt[:, :12, :9] + 1, maxval=255) == {
        "SSIM": "no valid window of 11 x 11 pixels", "QAVE": "no valid window of 32 x 32 pixels",
        "Q2n": "the image is too small for a block",
    }  # fmt: skip
    normalised = "the data look normalised, and Q2n rounds to whole DN; give maxval and data in DN"
    assert reasons(gt / 2047, gt / 2047 + 0.1, maxval=1) == {"Q2n": normalised}
    assert reasons(gt > 500, gt > 550, metrics=["Q2n"]) == {}  # black and white is whole numbers


def test_strict_scores_are_not_numbers_where_the_toolbox_has_none():
    gt = textured(2, 9, 12)
    scores = compare(gt, gt, maxval=2047, strict=True).scores
    assert [name for name in scores if np.isnan(scores[name].value)] == ["SSIM", "QAVE", "Q2n"]
    assert np.isnan(compare(0 * gt, gt, metrics=["SAM"], strict=True).scores["SAM"].value)
