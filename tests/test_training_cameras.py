"""PANs of other cameras, and what is known of whole scenes."""

import numpy as np
import pytest
import torch

from pansharpen_cli.imaging.radiometry import Radiometry, Scaling
from pansharpen_cli.imaging.wald import ReducedScene
from pansharpen_cli.inputs.canvas import ArrayCanvas
from pansharpen_cli.networks import build
from pansharpen_cli.training.cameras import Facts, other_pan


@pytest.fixture(scope="module")
def scene() -> ReducedScene:
    random = np.random.default_rng(1)
    ms = random.gamma(2, 100, (3, 40, 40)).astype(np.float32)
    gt = ms.repeat(4, axis=1).repeat(4, axis=2) + random.normal(0, 20, (3, 160, 160)).astype(np.float32)
    pan = (0.2 * gt[0] + 0.8 * gt[1])[None].astype(np.float32)
    return ReducedScene("random", ("red", "green", "blue"), pan, ms, gt, np.ones((160, 160), bool))


def in_network_units(scene, order):
    scaling = Scaling.of(Radiometry("scene"), ArrayCanvas.of(scene.pan, scene.ms).moments.of_bands(order))
    pan, gt = scaling.to_network(scene.pan, scene.gt[order])
    return scaling, pan, gt


def test_facts_are_those_that_run_observes(scene):
    order = [2, 0]
    scaling, pan, gt = in_network_units(scene, order)
    haze, covariance = Facts.of(scene).of_bands(np.array(order), scaling)
    network = build("adknet-per-band", 2, 4, {"channels": 8, "layers": 1, "modulated": True})
    _, ms = scaling.to_network(scene.pan, scene.ms[order])
    observed = network.observe(torch.from_numpy(pan)[None], torch.from_numpy(ms)[None])
    np.testing.assert_allclose(haze, observed["haze"][0], rtol=1e-5)
    np.testing.assert_allclose(covariance, np.cov(np.concatenate([pan, gt]).reshape(3, -1)), rtol=1e-4)


def test_other_pans_are_mixtures_of_unit_variance(scene):
    """What is left when PAN and bands are fitted to it is only what its sharpness adds."""
    scaling, pan, gt = in_network_units(scene, [0, 1, 2])
    _, covariance = Facts.of(scene).of_bands(np.arange(3), scaling)
    layers = np.concatenate([pan, gt]).reshape(4, -1)
    kinds = set()
    for seed in range(40):
        other = other_pan(pan, gt, covariance, np.random.default_rng(seed))
        assert other.shape == pan.shape
        assert other.dtype == np.float32
        weights, left, *_ = np.linalg.lstsq(layers.T, other.ravel(), rcond=None)
        mixed = np.abs(weights[1:]).max() > 1e-3
        filtered = left.size > 0 and left[0] > 1e-3 * other.size
        if not filtered:
            assert other.std() == pytest.approx(1, rel=0.02)
        kinds.add((mixed, filtered))
    assert (False, False) in kinds
    assert len(kinds) >= 3
