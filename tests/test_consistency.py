"""Networks whose product must look like its MS when the MS camera sees it."""

import math

import numpy as np
import pytest
import torch

from pansharpen_cli.imaging.interpolation import area_phase
from pansharpen_cli.networks import build
from pansharpen_cli.networks.consistency import REGULARISATION, Camera


def view(size: int, ratio: int, gain: float) -> np.ndarray:
    """D along one axis, (size / ratio, size): every MS pixel sees the whole row, repeated beyond its ends."""
    deviation = ratio / math.pi * math.sqrt(-2 * math.log(gain))
    positions = np.arange(-10 * ratio, size + 10 * ratio)
    matrix = np.zeros((size // ratio, size))
    for row, weights in enumerate(matrix):
        seen = np.exp(-(((positions - ratio * row - area_phase(ratio)) / deviation) ** 2) / 2)
        np.add.at(weights, positions.clip(0, size - 1), seen / seen.sum())
    return matrix


@pytest.mark.parametrize("ratio", [2, 3, 4])
def test_camera_is_the_projection_of_its_definition(ratio: int):
    """Against dense matrices, in the middle: D exactly but for its cut ends, the inverse but for its few lags."""
    size, gains = 32 * ratio, (0.3, 0.22)
    generator = np.random.default_rng(1)
    image, ms = generator.normal(size=(1, 2, size, size)), generator.normal(size=(1, 2, 32, 32))
    camera = Camera(ratio, area_phase(ratio))
    down, up = camera.taps(torch.tensor([gains]))
    seen, spread = camera.see(torch.from_numpy(image).float(), down), camera.spread(torch.from_numpy(ms).float(), up)
    for band, gain in enumerate(gains):
        d = view(size, ratio, gain)
        inverse = np.linalg.inv(ratio * d @ d.T + REGULARISATION * np.eye(32)) * (1 + REGULARISATION)
        back = ratio * d.T @ inverse
        assert np.abs(seen[0, band].numpy() - d @ image[0, band] @ d.T).max() < 3e-5
        expected = back @ ms[0, band] @ back.T
        middle = slice(size // 4, -size // 4)
        assert np.abs(spread[0, band].numpy() - expected)[middle, middle].max() < 0.01 * np.abs(expected).max()


@pytest.mark.parametrize("ratio", [2, 4])
def test_product_comes_nearer_to_the_truth(ratio: int):
    """The truth's view is the MS: whatever the network gives, the projection takes it towards the truth."""
    torch.manual_seed(2)
    truth = torch.randn(1, 3, 24 * ratio, 24 * ratio)
    camera = Camera(ratio, area_phase(ratio))
    network = build("adknet", 3, ratio, {"channels": 8, "layers": 1, "consistent": True}).eval()
    gains = (0.34, 0.3, 0.22)
    network.set_camera(gains)
    ms = camera.see(truth, camera.taps(torch.tensor([gains]))[0])
    pan = truth.mean(1, keepdim=True)
    with torch.inference_mode():
        free, consistent = network.network(pan, ms), network(pan, ms)
    assert (consistent - truth).square().mean() < (free - truth).square().mean()

    def misses(hrms: torch.Tensor) -> float:
        return float((camera.see(hrms, camera.taps(torch.tensor([gains]))[0]) - ms).abs().mean())

    assert misses(consistent) < 0.35 * misses(free)


def test_gains_are_a_statistic_of_the_scene():
    network = build("adknet", 2, 2, {"channels": 8, "layers": 1, "consistent": True})
    network.set_camera((0.2, 0.4))
    pan, ms = torch.randn(2, 1, 32, 32), torch.randn(2, 2, 16, 16)
    assert network.observe(pan, ms)["gains"].tolist() == [[pytest.approx(0.2), pytest.approx(0.4)]]


def test_options_build_it_again_and_its_weights_are_the_networks():
    network = build("adknet", 2, 2, {"channels": 8, "layers": 1, "consistent": True})
    assert network.options == {"channels": 8, "layers": 1, "consistent": True}
    again = build("adknet", 2, 2, network.options)
    again.load_state_dict(network.state_dict())
    assert {name.removeprefix("network.") for name in again.state_dict()} == set(network.network.state_dict())


def test_compiled_training_is_the_same():
    """Borders are padded in a way that survives the compiler."""
    camera = Camera(2, area_phase(2))
    down, up = camera.taps(torch.tensor([[0.3]]))

    def miss(image: torch.Tensor) -> torch.Tensor:
        return camera.spread(camera.see(image, down), up).square().mean()

    gradients = []
    for forward in (miss, torch.compile(miss, dynamic=False)):
        image = torch.linspace(-1, 1, 256).reshape(1, 1, 16, 16).requires_grad_()
        forward(image).backward()
        gradients.append(image.grad)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-7)
