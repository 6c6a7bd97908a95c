"""Why a scene's statistics are pooled over training-size crops: the official ADKNet on a real WorldView-2 scene."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from safetensors.torch import load_file

from pansharpen_cli.imaging.mtf import seen
from pansharpen_cli.metrics.reduced_resolution import ergas
from pansharpen_cli.networks import NETWORKS, build
from pansharpen_cli.networks.adknet import ADKNet

SCALE = 2047  # 11 bits
CROP = 64  # PAN pixels of the official training patches


def degraded(image: np.ndarray) -> np.ndarray:
    """Through the MTF (gain 0.3), decimated where the official training data has its samples: 4i + 2."""
    return np.stack([seen(band, 4, 0.3, phase=2) for band in image])


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy((image / SCALE).astype(np.float32))[None]


def crops(image: torch.Tensor, size: int) -> torch.Tensor:
    """(n, bands, size, size): the image cut into squares, what is left over dropped."""
    squares = image[0].unfold(1, size, size).unfold(2, size, size)
    return squares.flatten(1, 2).transpose(0, 1)


def test_frozen_statistics_are_at_least_as_good_as_the_whole_image_s(golden: Path, data: Path):
    weights = load_file(golden / "adknet_wv3_official.safetensors")
    network = ADKNet.from_official({k.removeprefix("sd."): v for k, v in weights.items() if k.startswith("sd.")})
    with rasterio.open(data / "wv2_urban_w/pan.tif") as file:
        pan = tensor(degraded(file.read().astype(float)))
    with rasterio.open(data / "wv2_urban_w/ms.tif") as file:
        gt = file.read().astype(float)
    ms = tensor(degraded(gt))

    def score(hrms: torch.Tensor) -> float:
        return ergas(gt, hrms[0].clamp(0, 1).numpy() * SCALE, 4)

    with torch.inference_mode():
        whole = score(network(pan, ms))
        frozen = score(network(pan, ms, network.observe(crops(pan, CROP), crops(ms, CROP // 4))))
    bicubic = score(torch.nn.functional.interpolate(ms, scale_factor=4, mode="bicubic"))
    assert frozen <= whole
    assert (frozen, whole, bicubic) == pytest.approx((6.13, 6.54, 7.83), abs=0.05)


@pytest.mark.parametrize("options", [{}, {"consistent": True}], ids=["", "consistent"])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_knows_whether_it_looks_at_the_scene(name, options):
    """One that does not freezes from one crop what it freezes from many."""
    torch.manual_seed(5)
    network = build(name, 4, 4, options).eval()
    pan, ms = torch.randn(3, 1, 64, 64), torch.randn(3, 4, 16, 16)
    many, one = network.observe(pan, ms), network.observe(pan[:1], ms[:1])
    assert all(torch.equal(value, one[key]) for key, value in many.items()) is not network.global_values
