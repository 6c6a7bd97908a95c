"""Convolutions on the CPU by minimal filtering, and what goes with them: torch's in double precision, no worse than
torch's in single precision, and the same to the last bit wherever an image is cut."""

import os
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pansharpen_cli.networks import build, doubling, loops, predictive, premix, vectors, winograd
from pansharpen_cli.networks.layers import Doubling, SteadyConv2d, grid_of


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def channels_last(*shape: int) -> Tensor:
    return noise(*shape).contiguous(memory_format=torch.channels_last)


@pytest.fixture(autouse=True)
def inference():
    with torch.inference_mode():
        yield


@pytest.fixture
def threads():
    """Sets how many torch has, for the time of a test."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("points", [[0, 1, -1], [0, 0.75, -0.75, 1.5, -1.5], [0, 1, -1, 2, -2, 0.5]])
def test_minimal_filtering_is_a_correlation(points):
    back, kernel, image = winograd.minimal_filtering(points)
    taps, pixels = np.array([2.0, -3.0, 5.0]), np.arange(len(points) + 1) ** 2 - 7.0
    expected = np.correlate(pixels, taps, "valid")
    np.testing.assert_allclose(back @ ((kernel @ taps) * (image @ pixels)), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("inputs", "outputs", "rows", "cols", "padding", "count"),
    [(32, 32, 21, 50, 1, 1), (32, 36, 16, 97, 1, 2), (64, 9, 9, 11, 0, 1), (48, 64, 2, 3, 1, 1), (32, 130, 3, 5, 0, 2),
     (128, 32, 1, 1, 1, 1)],
)  # fmt: skip
def test_convolution(inputs, outputs, rows, cols, padding, count, threads):
    image, bias = channels_last(count, inputs, rows, cols), noise(outputs)
    weight = noise(outputs, inputs, 3, 3) / (3 * inputs**0.5)
    assert winograd.fits(weight, 1, padding, 1)
    exact = F.conv2d(image.double(), weight.double(), bias.double(), padding=padding)
    found = winograd.convolve(image, weight, bias, padding)
    assert found.shape == exact.shape
    assert (found - exact).abs().max() < 3e-6
    added = noise(*exact.shape)
    bent = F.leaky_relu(exact - bias[:, None, None], 0.2) + added
    both = [winograd.convolve(image, weight, None, padding, slope=0.2, added=added)]
    threads(3)
    both.append(winograd.convolve(image.contiguous(), weight, None, padding, slope=0.2, added=added))
    assert torch.equal(*both)
    assert (both[0] - bent).abs().max() < 3e-6


def test_what_it_leaves_to_torch():
    weights = noise(32, 32, 3, 3)
    assert winograd.fits(weights, 1, 1, 1)
    assert not winograd.fits(weights, 2, 1, 1)
    assert not winograd.fits(weights, 1, 2, 1)
    assert not winograd.fits(noise(32, 1, 3, 3), 1, 1, 32)
    assert not winograd.fits(noise(32, 32, 5, 5), 1, 1, 1)
    assert not winograd.fits(noise(32, 36, 3, 3), 1, 1, 1)  # no whole vectors
    assert not winograd.fits(noise(512, 512, 3, 3), 1, 1, 1)


def test_it_is_as_exact_as_the_plain_sum():
    """Mean and largest error beside torch's convolution."""
    image = F.relu(channels_last(1, 32, 96, 96) + 0.3)
    layer = SteadyConv2d(32, 32, 3, padding=1).to(memory_format=torch.channels_last)
    exact = F.conv2d(image.double(), layer.weight.double(), layer.bias.double(), padding=1)
    ours = (winograd.convolve(image, layer.weight, layer.bias, 1) - exact).abs()
    plain = (layer(image) - exact).abs()
    assert ours.mean() < 1.5 * plain.mean()
    assert ours.max() < 1.5 * plain.max()


def test_a_layer_takes_it_only_if_asked_to(monkeypatch):
    called = []
    monkeypatch.setattr(winograd, "convolve", lambda *_, **__: called.append(1))
    image = noise(1, 32, 8, 8)
    SteadyConv2d(32, 32, 3, padding=1)(image)
    assert not called
    layer = SteadyConv2d(32, 32, 3, padding=1, minimal=True)
    layer(image)
    assert called == [1]
    with torch.inference_mode(False), torch.enable_grad():
        SteadyConv2d(32, 32, 3, padding=1, minimal=True)(torch.zeros(1, 32, 8, 8)).sum().backward()
    layer.double()(image.double())
    assert called == [1]


@pytest.mark.parametrize(("rows", "cols", "channels"), [(5, 26, 32), (1, 1, 16), (12, 7, 48)])
def test_doubling(rows, cols, channels, threads):
    torch.manual_seed(0)
    layer = Doubling(channels)
    image = channels_last(2, channels, rows, cols)
    exact = F.conv_transpose2d(
        image.double(), layer.weight.double(), layer.bias.double(), stride=2, padding=1, output_padding=1
    )
    assert doubling.fits(layer.weight)
    found = layer(image)
    threads(2)
    assert torch.equal(doubling.double(image.contiguous(), layer.weight, layer.bias), found)
    assert (found - exact).abs().max() < 3e-6
    assert not doubling.fits(noise(24, 32, 3, 3))


@pytest.mark.parametrize(("bands", "images", "cols"), [(4, 1, 37), (4, 4, 190), (3, 3, 64), (1, 1, 1)])
def test_predicted_filter(bands, images, cols, threads):
    """Of a part of a vector of tiles, of several and a part, and of one exactly; in one thread and two."""
    features, image = channels_last(2, 32, 13, cols), noise(2, images, 15, cols + 2)
    weight, bias = noise(9 * bands, 32, 3, 3) / 20, noise(9 * bands)
    kernels = F.conv2d(features.double(), weight.double(), bias.double(), padding=1).unflatten(1, (bands, 9))
    windows = F.unfold(image.double(), 3).view(2, -1, 9, 13, cols)
    exact = (kernels * windows).sum(2)
    found = predictive.filter_predicted(features, weight, bias, image)
    threads(2)
    assert torch.equal(predictive.filter_predicted(features, weight, bias, image), found)
    assert (found - exact).abs().max() < 1e-5


@pytest.mark.parametrize(("added", "threshold"), [(False, 0.4), (True, 0.4), (False, -30.0), (False, 30.0)])
def test_exchange(added, threshold):
    ms, pan, relation, *others = (channels_last(2, 3, 70 + n, 31)[:, :, :70] for n in range(5))
    relation = 4 * relation
    mask = torch.sigmoid(premix.STEEPNESS * (premix.MASKS["tanh+relu"](relation.double()) - threshold))
    exact = [ms + mask * (pan - ms), pan - mask * (pan - ms)]
    if added:
        exact = [a + b for a, b in zip(exact, others, strict=True)]
    found = loops.exchange(
        (ms, pan), relation, torch.tensor([threshold]), premix.STEEPNESS, tuple(others) if added else None
    )
    for a, b in zip(found, exact, strict=True):
        assert (a - b).abs().max() < 3e-6


@pytest.mark.parametrize("name", ["premix-b", "premix-h", "fusionnet", "premix-b-per-band"])
def test_the_same_to_the_last_bit_wherever_it_is_cut(name):
    """With the surroundings that a backend reads for a tile, and not if it begins off the grid."""
    torch.manual_seed(1)
    network = build(name, 3, 2, {}).eval()
    grid, margin = grid_of(network)
    pan, ms = F.avg_pool2d(noise(1, 1, 66, 514), 3, 1), F.avg_pool2d(noise(1, 3, 34, 258), 3, 1)
    statistics = network.observe(pan, ms)
    whole = network(pan, ms, statistics)

    def same(start):
        """Whether what is read from there on gives the same from the halo on."""
        part = network(pan[..., start:], ms[..., start // 2 :], statistics)
        inner = network.halo + margin
        return torch.equal(part[..., inner:], whole[..., start + inner :])

    assert grid > 1
    assert same(64)
    assert same(128)
    assert network.alignment > 1 or not same(66)


@pytest.mark.parametrize("interrupted", [True, False])
def test_all_threads_end_before_an_error_comes_out(interrupted, threads):
    """They know addresses, of what is freed then: a failure of one, or Ctrl-C, does not leave the others behind."""
    threads(3)
    ended = []

    def work(first: int, last: int) -> None:
        if first == 2 and interrupted:
            time.sleep(0.1)
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        elif first == 2:
            raise MemoryError
        time.sleep(0.3 if first else 0)
        ended.append(first)

    with pytest.raises(KeyboardInterrupt if interrupted else MemoryError):
        vectors.side_by_side(work, 6, 1)
    assert sorted(ended) == ([0, 2, 4] if interrupted else [0, 4])


def test_narrower_vectors():
    """A processor without those of 512 bits: eight numbers a vector, and other registers."""
    source = """
import torch
from pansharpen_cli.networks import build, vectors
assert vectors.LANES == 8
torch.manual_seed(0)
network = build("premix-h", 3, 4, {}).eval()
pan, ms = torch.rand(1, 1, 44, 60), torch.rand(1, 3, 11, 15)
with torch.inference_mode():
    found = network(pan, ms, {})
    exact = network.double()(pan.double(), ms.double(), {})
assert (found - exact).abs().max() < 5e-6
"""
    narrow = {"NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": "+sse4.2,+avx,+avx2,+fma"}
    subprocess.run([sys.executable, "-c", source], env={**os.environ, **narrow}, check=True)
