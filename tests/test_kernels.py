"""Kernels for a GPU do what torch does in double precision; without a GPU Triton's interpreter runs them here."""

from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pansharpen_cli.networks import loops
from pansharpen_cli.networks.layers import SteadyConv2d, SteadyConvTranspose2d

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="module")
def kernels():
    pytest.importorskip("triton")
    return import_module("pansharpen_cli.networks.kernels")


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(len(shape) + shape[1])).to(DEVICE)


@pytest.mark.parametrize(
    ("inputs", "outputs", "size", "padding", "count"),
    [(32, 32, 3, 1, 1), (4, 36, 3, 1, 2), (1, 60, 5, 2, 1), (60, 63, 3, 1, 1), (9, 9, 3, 1, 2), (40, 130, 3, 0, 1),
     (128, 64, 1, 0, 1), (32, 128, 2, 0, 1)],
)  # fmt: skip
def test_convolution(kernels, inputs, outputs, size, padding, count):
    image, bias = noise(count, inputs, 11, 14), noise(1, outputs)[0]
    weight = noise(outputs, inputs, size, size) / (inputs * size**2) ** 0.5
    exact = F.conv2d(image.double(), weight.double(), bias.double(), padding=padding)
    assert (kernels.convolve(image, weight, bias, padding) - exact).abs().max() < 3e-6
    added = noise(*exact.shape)
    bent = F.leaky_relu(exact - bias[:, None, None], 0.2) + added
    assert (kernels.convolve(image, weight, None, padding, slope=0.2, added=added) - bent).abs().max() < 3e-6
    coarse = F.conv2d(image.double(), weight.double(), padding=padding, stride=2)
    assert (kernels.convolve(image, weight, None, padding, stride=2) - coarse).abs().max() < 3e-6


def test_convolution_of_some_channels(kernels):
    """They are not copied."""
    image = noise(2, 63, 9, 13).contiguous(memory_format=torch.channels_last)
    part, weight = image[:, 18:27], noise(9, 9, 3, 3)
    exact = F.conv2d(part.double(), weight.double(), padding=1)
    assert (kernels.convolve(part, weight, None, 1) - exact).abs().max() < 2e-5


@pytest.mark.parametrize("groups", [2, 12])
def test_convolution_in_groups(kernels, groups):
    """As an ordinary one, whose weight between groups is zero."""
    torch.manual_seed(0)
    layer = SteadyConv2d(12, 12, 3, padding=1, groups=groups).to(DEVICE)
    image = noise(2, 12, 6, 7)
    exact = F.conv2d(image.double(), layer.weight.double(), layer.bias.double(), padding=1, groups=groups)
    with torch.inference_mode():
        assert (kernels.convolve(image, layer.ungrouped(), layer.bias, 1) - exact).abs().max() < 3e-6


@pytest.mark.parametrize("each", [True, False])
def test_adaptive_convolution(kernels, each):
    features, spatial, spectral = noise(2, 20, 9, 13), noise(2, 9, 9, 13), noise(2, 9, 20)[: 1 + each]
    with torch.inference_mode():
        expected = loops.convolve_normalised(*(values.cpu() for values in (features, spatial, spectral)))
        found = kernels.convolve_normalised(features, spatial, spectral).cpu()
    assert (found - expected).abs().max() < 1e-5


@pytest.mark.parametrize(("images", "size"), [(4, 3), (1, 3), (1, 5)])
def test_filter(kernels, images, size):
    image, weights = noise(2, images, 8 + size, 12 + size), noise(2, 4 * size**2, 9, 13)
    with torch.inference_mode():
        expected = loops.filter_pixels(image.cpu(), weights.cpu(), size)
        assert (kernels.filter_pixels(image, weights, size).cpu() - expected).abs().max() < 1e-5


@pytest.mark.parametrize(("size", "ratio", "padding"), [(8, 4, 2), (4, 2, 1), (2, 2, 0)])
def test_transposed_convolution_by_phases(kernels, size, ratio, padding):
    torch.manual_seed(0)
    layer = SteadyConvTranspose2d(3, 5, size, stride=ratio, padding=padding).to(DEVICE)
    image = noise(2, 3, 6, 7)
    weight, bias = layer.weight.double(), layer.bias.double()
    exact = F.conv_transpose2d(image.double(), weight, bias, stride=ratio, padding=padding)
    with torch.inference_mode():
        assert (kernels.convolve(image, *layer.by_phases(), ratio=ratio) - exact).abs().max() < 3e-6
