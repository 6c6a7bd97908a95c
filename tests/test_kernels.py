"""Kernels for a GPU do what torch does in double precision; without a GPU Triton's interpreter runs them here."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from test_tiled_equals_whole import SMALL
from torch import Tensor

from pansharpen_cli.networks import adknet, build, dmaconv, layers, loops, premix
from pansharpen_cli.networks.adknet import ADKNet, spatial_kernels
from pansharpen_cli.networks.dmaconv import DMAConv
from pansharpen_cli.networks.layers import SteadyConv2d, SteadyConvTranspose2d
from pansharpen_cli.networks.network import PerImage

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.fixture(scope="module")
def kernels() -> Iterator[ModuleType]:
    pytest.importorskip("triton")
    with pytest.MonkeyPatch.context() as patch:
        if DEVICE == "cpu":
            demand_what_a_gpu_does(patch)
        yield import_module("pansharpen_cli.networks.kernels")


def demand_what_a_gpu_does(patch: pytest.MonkeyPatch) -> None:
    """The interpreter may reach no memory but the arrays that a kernel is given; of a number and NaN the number is the
    larger and the smaller one."""
    interpreter = import_module("triton.runtime.interpreter")
    builder, executor = interpreter.InterpreterBuilder, interpreter.GridExecutor
    launch, load, store = executor.__call__, builder.create_masked_load, builder.create_masked_store
    given: list[tuple[int, int]] = []

    def launched(self: Any, *arguments: Any, **options: Any) -> None:
        storages = [array.untyped_storage() for array in arguments if isinstance(array, Tensor)]
        given[:] = [(storage.data_ptr(), storage.data_ptr() + storage.nbytes()) for storage in storages]
        launch(self, *arguments, **options)

    def demand_given(places: Any, mask: Any) -> None:
        reached = np.broadcast_to(places.data, mask.data.shape)[mask.data.astype(bool)].astype(np.int64)
        assert np.any([(reached >= first) & (reached < last) for first, last in given], axis=0).all()

    def loaded(self: Any, places: Any, mask: Any, *others: Any) -> Any:
        demand_given(places, mask)
        return load(self, places, mask, *others)

    def stored(self: Any, places: Any, values: Any, mask: Any, *others: Any) -> Any:
        demand_given(places, mask)
        return store(self, places, values, mask, *others)

    patch.setattr(builder, "create_maxnumf", lambda self, *both: self.binary_op(*both, np.fmax))
    patch.setattr(builder, "create_minnumf", lambda self, *both: self.binary_op(*both, np.fmin))
    patch.setattr(executor, "__call__", launched)
    patch.setattr(builder, "create_masked_load", loaded)
    patch.setattr(builder, "create_masked_store", stored)


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
    learnt = torch.tensor([0.2], device=DEVICE)
    assert torch.equal(
        kernels.convolve(image, weight, None, padding, slope=learnt, added=added),
        kernels.convolve(image, weight, None, padding, slope=0.2, added=added),
    )
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


def test_convolution_over_rows_of_images(kernels):
    """Wider than a program and narrower, in groups of inputs that do not come out even."""
    for shape in ((2, 40, 5, 150), (1, 9, 70, 1), (3, 33, 2, 64)):
        image, weight = noise(*shape), noise(33, shape[1], 3, 3) / (9 * shape[1]) ** 0.5
        exact = F.conv2d(image.double(), weight.double(), padding=1)
        assert (kernels.convolve(image, weight, None, 1) - exact).abs().max() < 3e-6


@pytest.mark.parametrize("size", [1e-3, 100.0])
def test_convolution_of_small_and_large_values(kernels, size):
    """Single precision throughout."""
    image, weight = noise(1, 32, 9, 70) * size, noise(32, 32, 3, 3) / 17
    exact = F.conv2d(image.double(), weight.double(), padding=1)
    single = (F.conv2d(image, weight, padding=1) - exact).abs().max()
    assert (kernels.convolve(image, weight, None, 1) - exact).abs().max() < max(3 * single, 2e-6 * size)


def test_adaptive_convolution_inside_an_image(kernels):
    """Where nothing is masked; the kernels are a part of the channels of an image."""
    features, spatial, spectral = noise(2, 12, 4, 100), noise(2, 30, 4, 100), noise(1, 9, 12)
    spatial = spatial.contiguous(memory_format=torch.channels_last)[:, 5:14]
    with torch.inference_mode():
        expected = loops.convolve_normalised(*(values.cpu() for values in (features, spatial, spectral)))
        assert (kernels.convolve_normalised(features, spatial, spectral).cpu() - expected).abs().max() < 1e-5


def test_adaptive_convolution_next_to_the_last_pixel(kernels):
    """Where nothing is masked, nothing is read beyond the image, though it has fewer channels than a program takes."""
    features, spatial, spectral = noise(1, 20, 4, 43), noise(1, 9, 4, 43), noise(1, 9, 20)
    with torch.inference_mode():
        expected = loops.convolve_normalised(*(values.cpu() for values in (features, spatial, spectral)))
        assert (kernels.convolve_normalised(features, spatial, spectral).cpu() - expected).abs().max() < 1e-5


@pytest.mark.parametrize("added", [True, False])
def test_exchange(kernels, added):
    ms, pan, relation, *others = (noise(2, 6 + i, 9, 13)[:, :6] * (1 + 2 * (i == 2)) for i in range(5))
    threshold, others = torch.tensor([0.4], device=DEVICE), tuple(others) if added else None
    mask = torch.sigmoid(20 * (torch.tanh(F.relu6(relation)) - threshold))
    expected = [ms + mask * (pan - ms), pan - mask * (pan - ms)]
    if others:
        expected = [image + other for image, other in zip(expected, others, strict=True)]
    found = kernels.exchange((ms.clone(), pan.clone()), relation, threshold, 20.0, others)
    assert max((a - b).abs().max() for a, b in zip(found, expected, strict=True)) < 3e-6


def test_weigh(kernels):
    """Masks next to 1/2 have all their digits."""
    for size in (1e-4, 1.0, 30.0):
        image, mask = noise(2, 20, 9, 13), noise(2, 20, 9, 13) * size
        weighed, activity = kernels.weigh(image, mask)
        half = torch.tanh(mask.double() / 2) / 2
        assert (weighed - image * (half + 0.5)).abs().max() < 1e-6
        assert (activity - half.mean(1, keepdim=True)).abs().max() < 3e-7 * half.abs().max()


@pytest.mark.parametrize("variant", ["official", "paper"])
@pytest.mark.parametrize(("channels", "transition"), [(32, 0.0), (40, 0.5)])
def test_overwrite(kernels, variant, channels, transition):
    torch.manual_seed(0)
    layer = DMAConv(channels, channels, "layer", variant=variant, transition=transition).to(DEVICE)
    image, out, activity = noise(2, channels, 9, 13), noise(2, channels, 9, 13), noise(2, 1, 9, 13)
    focus = (activity > 0.8).float() * (activity.clamp(0, 1) if transition else 1)
    out = out.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        expected = out.double()
        layer.double()._overwrite(expected, F.pad(image, (1, 1, 1, 1)).double(), focus.double(), activity)
        layer.float()
        found = out.clone()
        kernels.overwrite(
            found, image, focus, layer._gates(), *layer.focused_kernel(),
            counts_windows=layer.variant.counts_windows, gates_bias=layer.variant.gates_bias,
        )  # fmt: skip
    assert focus.any()
    assert not focus.all()
    assert (found - expected).abs().max() < 3e-6
    assert torch.equal(found[(focus == 0).expand_as(found)], out[(focus == 0).expand_as(out)])


@pytest.mark.filterwarnings("ignore:.* encountered in:RuntimeWarning")
@pytest.mark.parametrize("gain", [1, 100])
def test_focused_pixels_of_large_values(kernels, gain):
    """There is room for 4000, however many windows are counted; beyond it comes NaN, which a run tells."""
    torch.manual_seed(0)
    layer, image, focus = DMAConv(20, 20, "layer").to(DEVICE), torch.zeros(1, 20, 4, 5), torch.ones(1, 1, 4, 5)
    image[:, :, 1, 2] = torch.linspace(-600, 600, 20)
    image, focus, out = image.to(DEVICE), focus.to(DEVICE), torch.zeros_like(image).to(DEVICE)
    with torch.inference_mode():
        layer.focused_gates[0].weight.mul_(gain)
        expected, found = out.double(), out.contiguous(memory_format=torch.channels_last)
        layer.double()._overwrite(expected, F.pad(image, (1, 1, 1, 1)).double(), focus.double(), focus)
        layer.float()
        kernels.overwrite(
            found, image, focus, layer._gates(), *layer.focused_kernel(), counts_windows=True, gates_bias=True
        )
    if gain == 1:
        assert (found - expected).abs().max() < 1e-3
    else:
        assert found[:, :, 1, 2].isnan().all()


def test_no_number_stays_none(kernels):
    """As on a CPU; what the GPU's own maximum makes of it would be a number."""
    image, none = noise(1, 6, 4, 5), torch.full((1, 6, 4, 5), torch.nan, device=DEVICE)
    weighed, activity = kernels.weigh(image, none)
    exchanged = kernels.exchange((image.clone(), image + 1), none, torch.tensor([0.4], device=DEVICE), 20.0)
    assert all(values.isnan().all() for values in (weighed, activity, *exchanged))


def test_images_with_kernels_of_their_own(kernels, monkeypatch):
    """As in a network per band, and where a scene is observed."""
    torch.manual_seed(0)
    layer, images = DMAConv(16, 16, "layer").to(DEVICE).eval(), noise(2, 16, 9, 13)
    with torch.inference_mode():
        monkeypatch.setattr(dmaconv, "on_gpu", lambda image: None)
        expected = layer(images, PerImage())
        monkeypatch.setattr(dmaconv, "on_gpu", lambda image: kernels)
        found = layer(images, PerImage())
    assert ((found - expected).abs() > 1e-5).float().mean() < 0.01


def test_convolutions_side_by_side(kernels, monkeypatch):
    """The spatial branches of all layers of an ADKNet, in one pass for each convolution."""
    torch.manual_seed(0)
    network = ADKNet(3, channels=12, layers=3).to(DEVICE)
    guide = noise(1, 12, 9, 13)
    with torch.inference_mode():
        expected = list(spatial_kernels(network.layers, guide.cpu())) if DEVICE == "cpu" else None
        monkeypatch.setattr(adknet, "on_gpu", lambda image: kernels)
        found = list(spatial_kernels(network.layers, guide))
    assert len(found) == 3
    if expected is not None:
        assert all((a - b).abs().max() < 1e-5 for a, b in zip(found, expected, strict=True))


@pytest.mark.skipif(DEVICE == "cuda", reason="test_cuda.py has whole scenes")
@pytest.mark.parametrize("name", ["adknet", "premix-b", "dmanet"])
def test_networks(kernels, monkeypatch, name):
    """Every layer calls its kernel as it is meant to be called."""
    torch.manual_seed(0)
    network = build(name, 3, 2, SMALL.get(name, {})).eval()
    pan, ms = torch.rand(1, 1, 16, 12), torch.rand(1, 3, 8, 6)
    with torch.inference_mode():
        frozen = network.observe(pan, ms)
        expected = network(pan, ms, frozen)
        for module in (layers, adknet, dmaconv):
            monkeypatch.setattr(module, "on_gpu", lambda image: kernels)
        for module in (adknet, premix):
            monkeypatch.setattr(module, "compiled_for", lambda image: kernels)
        for module in (layers, premix):
            monkeypatch.setattr(module, "on_cpu", lambda image, module: None)
        found = network(pan, ms, frozen)
    different = (found - expected).abs() > 1e-5 * expected.std()
    assert different.float().mean() <= (0.05 if "dma" in name else 0)


@pytest.mark.parametrize(("name", "architecture"), [("adknet", 80), ("premix-b", 90), ("dma-fusionnet", 86)])
def test_kernels_are_compiled(kernels, name, architecture, tmp_path):
    """For GPUs from Ampere on, without one; they fit the shared memory of the smallest."""
    script, found = Path(__file__).resolve().parents[1] / "benchmarks" / "kernels.py", tmp_path / "found.json"
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, script, name, "--architecture", str(architecture), "--json", found]
    subprocess.run(command, env=environment, check=True)
    made = json.loads(found.read_text())
    assert len({row["kernel"].split()[0] for row in made}) > 3
    assert max(row["shared"] for row in made) <= 99 * 1024
    assert max(row["spilled"] for row in made) <= 160
