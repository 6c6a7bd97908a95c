"""SAM and ERGAS against the toolbox's values, and on images whose scores are known."""

import json
from pathlib import Path

import numpy as np
import pytest

from pansharpen_cli.errors import UsageError
from pansharpen_cli.metrics.reduced_resolution import ergas, sam

CASES = ["edge_identical", "edge_pad", "edge_range", "edge_single", "edge_uniform", "real_gf2", "real_qb", "synth4",
         "synth8"]  # fmt: skip
# arccos turns the last digit of a cosine of 1 into 1e-6 degrees: the golden values come with this tolerance there
NO_ANGLE = {"edge_identical": 1e-5, "edge_single": 1e-5}


@pytest.mark.parametrize("case", CASES)
def test_golden(golden: Path, case: str):
    expected = json.loads((golden / "metrics" / "expected.json").read_text())["cases"][case]
    file = np.load(golden / "metrics" / expected["file"])
    assert expected["rr"]
    for name, values in expected["rr"].items():
        cut = max(int(name.removeprefix("cut")) - 1, 0)
        height, width = file["gt"].shape[:2]
        edges = slice(cut, height - cut - bool(cut)), slice(cut, width - cut - bool(cut))
        gt, fused = (file[key][edges].transpose(2, 0, 1) for key in ("gt", "fused"))
        assert sam(gt, fused) == pytest.approx(values["SAM"], abs=NO_ANGLE.get(case, 1e-8))
        assert ergas(gt, fused, expected["ratio"]) == pytest.approx(values["ERGAS"], abs=1e-8)


def test_all_reduced_resolution_cases_are_covered(golden: Path):
    cases = json.loads((golden / "metrics" / "expected.json").read_text())["cases"]
    assert sorted(name for name, case in cases.items() if "rr" in case) == CASES


RNG = np.random.default_rng(4)


def test_an_image_equals_itself():
    image = RNG.uniform(1, 2000, (4, 20, 30))
    assert sam(image, image) == pytest.approx(0, abs=1e-5)
    assert ergas(image, image, 4) == 0


def test_known_angles():
    gt = np.array([[[1.0, 1, 0, 5]], [[0.0, 0, 0, 5]]])
    hrms = np.array([[[0.0, 1, 3, 0]], [[2.0, 1, 3, 0]]])  # 90 and 45 degrees; dark in one, dark in the other
    assert sam(gt, hrms) == pytest.approx(67.5)


def test_a_gain_is_no_angle():
    image = RNG.uniform(1, 2000, (4, 20, 30))
    assert sam(image, 3 * image) == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("ratio", [2, 4])
def test_known_ergas(ratio: int):
    gt = np.stack([np.full((8, 8), 100.0), np.full((8, 8), 200.0)])
    hrms = gt + np.array([3.0, -8.0])[:, None, None]
    assert ergas(gt, hrms, ratio) == pytest.approx(100 / ratio * np.sqrt((0.03**2 + 0.04**2) / 2))


def test_invalid_pixels_take_no_part():
    gt, hrms = RNG.uniform(1, 2000, (2, 3, 20, 30))
    valid = np.ones((20, 30), bool)
    valid[:, 20:] = False
    dirty = np.where(valid, hrms, np.nan)
    for truth in (gt, np.where(valid, gt, np.inf)):
        assert sam(truth, dirty, valid) == pytest.approx(sam(gt[..., :20], hrms[..., :20]))
        assert ergas(truth, dirty, 4, valid) == pytest.approx(ergas(gt[..., :20], hrms[..., :20], 4))


def test_integers_do_not_wrap_round():
    gt, hrms = np.full((2, 4, 4), 10, np.uint8), np.full((2, 4, 4), 250, np.uint8)
    assert ergas(gt, hrms, 4) == pytest.approx(25 * 24)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"valid": np.ones((2, 8, 8), bool)}, "is valid has the shape"),
        ({"gt": np.ones((8, 8))}, "an image has the axes bands, row, col"),
        ({"gt": np.ones((0, 8, 8)), "hrms": np.ones((0, 8, 8))}, "an image has bands and pixels"),
        ({"gt": np.ones((2, 0, 8)), "hrms": np.ones((2, 0, 8))}, "an image has bands and pixels"),
        ({"hrms": np.ones((2, 8, 8), complex)}, "an image holds real numbers; this one holds complex128"),
        ({"hrms": np.full((2, 8, 8), "1")}, "an image holds real numbers; this one holds <U1"),
        ({"ratio": -4}, "ratio takes a whole number from 1 on"),
        ({"ratio": 0}, "ratio takes a whole number from 1 on"),
    ],
)
def test_what_makes_no_sense_is_refused(changed, said):
    images = {"gt": np.ones((2, 8, 8)), "hrms": np.ones((2, 8, 8)), "ratio": 4, "valid": None}
    with pytest.raises(UsageError, match=said):
        ergas(**images | changed)


def test_masked_pixels_take_no_part():
    gt, hrms = np.random.default_rng(0).uniform(100, 200, (2, 3, 8, 8))
    mask = np.zeros((8, 8), bool)
    mask[2:5, 1:4] = True
    masked = np.ma.masked_array(hrms, np.broadcast_to(mask, hrms.shape))
    assert ergas(gt, masked, 4) == pytest.approx(ergas(gt, hrms, 4, ~mask))
