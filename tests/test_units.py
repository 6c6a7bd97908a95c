"""Digital numbers for images that hold none."""

import numpy as np
import pytest

from pansharpen_cli.metrics import ArrayImage, reduced, units
from pansharpen_cli.metrics.units import InDn


@pytest.mark.parametrize(
    ("high", "maxval", "factor"),
    [
        (2047, None, 1),  # whole
        (255, None, 1),
        (3, None, 1),
        (65535, None, 1),
        (65536, None, 0.1),
        (6.6e6, None, 1e-3),
        (0.25, None, 1e4),
        (99.9, None, 100),
        (999.5, None, 10),
        (1000.5, None, 1),
        (20000.5, None, 1),
        (0.5, 2047, 2047),  # parts of the largest DN
        (1.5, 2047, 2047),
        (0.5, 1.0, 1e4),
        (70.5, 2047, 100),
    ],
)
def test_factors(high: float, maxval: float | None, factor: float):
    assert units.factor(np.array([[0.0, high]]), maxval) == pytest.approx(factor, rel=1e-12)
    assert units.factor(np.array([[0.0, -high]]), maxval) == pytest.approx(factor, rel=1e-12)


def test_nothing_has_no_unit():
    assert units.factor(np.zeros((4, 0))) == units.factor(np.zeros((4, 4))) == 1
    assert units.factor(np.array([np.nan, 3.5])) == 1


def test_q2n_of_reflectances_is_that_of_their_digital_numbers():
    random = np.random.default_rng(0)
    gt = random.integers(100, 9000, (4, 64, 64)).astype(np.float32)
    fused = np.rint(gt + random.normal(0, 400, gt.shape)).astype(np.float32)
    expected = reduced(ArrayImage(gt), ArrayImage(fused), 4, metrics=["Q2n"]).scores["Q2n"].value
    small, factor = gt / np.float32(1e4), units.factor(gt / np.float32(1e4))
    images = InDn(ArrayImage(small), factor), InDn(ArrayImage(fused / np.float32(1e4)), factor)
    assert reduced(*images, 4, metrics=["Q2n"]).scores["Q2n"].value == pytest.approx(expected, abs=1e-4)


def test_values_below_zero_have_no_q2n():
    gt = -np.random.default_rng(0).integers(100, 9000, (4, 64, 64)).astype(np.float32)
    score = reduced(ArrayImage(gt), ArrayImage(gt - 300), 4, metrics=["Q2n"]).scores["Q2n"]
    assert score.value is None
    assert "no value is above 0" in score.reason
