"""Networks whose bands share their weights: bands do not mix, and each has global values of its own."""

import pytest
import torch

from pansharpen_cli.networks import build
from pansharpen_cli.networks.network import Jointly
from pansharpen_cli.networks.premix import PreMixB

NAMES = "adknet-per-band", "premix-b-per-band"


def made(name: str, bands: int):
    torch.manual_seed(0)
    return build(name, bands, 2, {"channels": 8, "layers": 2}).eval()


def images(count: int = 2, bands: int = 3, size: int = 32) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(count, 1, size, size), torch.randn(count, bands, size // 2, size // 2)


@pytest.mark.parametrize("name", NAMES)
def test_every_band_is_sharpened_as_if_alone(name: str):
    pan, ms = images()
    three, one = made(name, 3), made(name, 1)
    with torch.inference_mode():
        alone = torch.cat([one(pan, ms[:, band : band + 1]) for band in range(3)], dim=1)
        torch.testing.assert_close(three(pan, ms), alone, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_crops_of_a_scene_share_values_band_by_band(name: str):
    pan, ms = images(count=4)
    three, one = made(name, 3), made(name, 1)
    statistics = three.observe(pan, ms)
    with torch.inference_mode():
        frozen = three(pan, ms, statistics)
        alone = [one(pan, b, one.observe(pan, b)) for b in ms.split(1, dim=1)]
    torch.testing.assert_close(frozen, torch.cat(alone, dim=1), rtol=0, atol=1e-6)


def test_options_build_it_again():
    network = made("adknet-per-band", 3)
    assert network.options == {"channels": 8, "layers": 2}
    assert build("adknet-per-band", 5, 2, network.options).load_state_dict(network.state_dict())


@pytest.mark.parametrize("options", [{}, {"consistent": True}])
def test_observing_computes_no_more_than_it_needs(options, monkeypatch):
    """The modulation has global values, PreMix-B has none."""
    torch.manual_seed(2)
    network = build("premix-b-per-band", 3, 4, {"channels": 16, "modulated": True} | options).eval()
    pan, ms = torch.rand(5, 1, 64, 64), torch.rand(5, 3, 16, 16)
    pooling = Jointly()
    with torch.no_grad():
        network.fuse(pan, ms, pooling)
    monkeypatch.setattr(PreMixB, "sharpen", None)
    observed = network.observe(pan, ms)
    assert observed.keys() == pooling.statistics.keys()
    assert all(torch.equal(observed[name], value) for name, value in pooling.statistics.items())
