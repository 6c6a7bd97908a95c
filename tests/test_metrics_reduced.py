"""Metrics against a truth: the toolbox's numbers, plain loops, images whose scores are known, missing data."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

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
