"""ADKNet against the authors' numbers, and the promises every network makes: local once its statistics are frozen."""

from dataclasses import dataclass

import pytest
import rasterio
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from pansharpen_cli.errors import ModelError
from pansharpen_cli.imaging.tiling import Reach, cut
from pansharpen_cli.networks import adknet
from pansharpen_cli.networks.adknet import ADKNet
from pansharpen_cli.networks.layers import Upsample
from pansharpen_cli.networks.network import PerImage

CASES = ("p64x64", "p40x56")


@dataclass
class Golden:
    tensors: dict[str, torch.Tensor]
    network: ADKNet


@pytest.fixture(scope="module")
def official(golden):
    tensors = load_file(golden / "adknet_wv3_official.safetensors")
    state = {name.removeprefix("sd."): tensor for name, tensor in tensors.items() if name.startswith("sd.")}
    return Golden(tensors, ADKNet.from_official(state).eval())


def scene(bands, ratio, rows, cols, count=1, guide_bands=1):
    """A textured PAN and MS in float64, MS averaged from PAN-sized noise so that scales are mixed."""
    generator = torch.Generator().manual_seed(rows + cols + bands)
    noise = torch.rand(count, bands + guide_bands, ratio * rows, ratio * cols, generator=generator, dtype=torch.float64)
    coarse = F.interpolate(F.avg_pool2d(noise, 2 * ratio, ceil_mode=True), size=noise.shape[-2:], mode="bilinear")
    textured = (noise + 3 * coarse) / 4
    return textured[:, bands:], F.avg_pool2d(textured[:, :bands], ratio)


def small(bands, ratio, **options):
    """With random weights, the kernels enlarged so that the last layers still count."""
    torch.manual_seed(bands + ratio)
    network = ADKNet(bands, ratio, channels=12, **options).double().requires_grad_(False)
    for layer in network.layers:
        layer.gain *= 4
    return network


def in_tiles(network, pan, ms, statistics, tile):
    """The scene sharpened tile by tile, each with its halo cropped."""
    ratio = network.ratio
    reach = Reach(network.halo, network.alignment, network.multiple_of)
    hrms = torch.full((1, ms.shape[1], *pan.shape[-2:]), torch.nan, dtype=pan.dtype)
    for row in cut(0, pan.shape[-2], pan.shape[-2], tile, reach, ratio):
        for col in cut(0, pan.shape[-1], pan.shape[-1], tile, reach, ratio):
            part = network(
                pan[..., row.read, col.read],
                ms[..., row.coarser(ratio).read, col.coarser(ratio).read],
                statistics,
            )
            hrms[..., row.core, col.core] = part[..., row.inner, col.inner]
    return hrms


@pytest.mark.parametrize("case", CASES)
def test_official_output(official, case):
    pan, ms = official.tensors[f"in.{case}.pan"], official.tensors[f"in.{case}.ms"]
    with torch.no_grad():
        hrms = official.network(pan, ms)
    assert (hrms - official.tensors[f"out.{case}"]).abs().max() <= 2e-5


@pytest.mark.parametrize("case", CASES)
def test_official_statistics(official, case):
    pan, ms = official.tensors[f"in.{case}.pan"], official.tensors[f"in.{case}.ms"]
    statistics = official.network.observe(pan, ms)
    pooled = torch.stack([statistics[f"layer{i}"] for i in range(7)], dim=1)
    assert (pooled - official.tensors[f"mid.{case}.pooled"]).abs().max() <= 2e-5


@pytest.mark.parametrize("case", CASES)
def test_official_spectral_kernels(official, case):
    pooled, expected = (official.tensors[f"mid.{case}.{what}"] for what in ("pooled", "spectral_kernel"))
    for i, layer in enumerate(official.network.layers):
        with torch.no_grad():
            kernel = adknet._normalise(layer.spectral(pooled[:, i]).view(1, 60, 9).transpose(1, 2))
        assert (kernel * layer.gain.view(60, 9).T - expected[:, i].flatten(2).transpose(1, 2)).abs().max() <= 2e-5


@pytest.mark.parametrize(
    ("bands", "guide_bands", "count"),
    [(3, 1, 47_458), (4, 1, 50_397), (8, 1, 64_713), (10, 1, 73_407), (31, 3, 229_518)],
)
def test_parameter_count(bands, guide_bands, count):
    assert sum(p.numel() for p in ADKNet(bands, guide_bands=guide_bands).parameters()) == count


def official_shapes(bands, guide_bands):
    shapes = {
        "upsample.weight": (bands, bands, 8, 8),
        "upsample.bias": (bands,),
        "deconv.weight": (bands, bands, 8, 8),
        "deconv.bias": (bands,),
        "relu.weight": (1,),
        "conv1.weight": (60, bands, 5, 5),
        "conv1.bias": (60,),
        "conv3.weight": (60, guide_bands, 5, 5),
        "conv3.bias": (60,),
        "conv2.weight": (bands, 60, 3, 3),
        "conv2.bias": (bands,),
    }
    layer = {
        "spatial_branch.0": (60, 1, 3, 3),
        "spatial_branch.1": (9, 60, 1, 1),
        "spatial_branch.2": (9, 9, 3, 3),
        "spatial_branch.4": (9, 9, 3, 3),
        "spectral_branch.1": (3, 60, 1, 1),
        "spectral_branch.3": (540, 3, 1, 1),
    }
    for i in range(1, 8):
        prefix = f"adk{i}.ADKGenerator"
        shapes[f"{prefix}.spectral_branch.4.std"] = (540,)
        for name, shape in layer.items():
            shapes[f"{prefix}.{name}.weight"] = shape
            shapes[f"{prefix}.{name}.bias"] = shape[:1]
    return shapes


def official_state(bands=8, guide_bands=1):
    return {name: torch.rand(shape) for name, shape in official_shapes(bands, guide_bands).items()}


def test_official_variant_with_rgb_guide():
    state = official_state(bands=31, guide_bands=3)
    assert len(state) == 102
    network = ADKNet.from_official(state)
    assert (network.bands, network.ratio) == (31, 4)
    assert sum(p.numel() for p in network.parameters()) == sum(tensor.numel() for tensor in state.values())
    assert torch.equal(network.skip.weight, state["upsample.weight"])
    assert torch.equal(network.layers[6].gain, state["adk7.ADKGenerator.spectral_branch.4.std"])
    assert network(torch.rand(2, 3, 8, 12), torch.rand(2, 31, 2, 3)).shape == (2, 31, 8, 12)


def altered(**tensors):
    return official_state() | {name.replace("_", "."): tensor for name, tensor in tensors.items()}


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"preconv.ewfm.beta": torch.zeros(1)},
        altered(conv2_bias=torch.zeros(7)),
        altered(conv9_bias=torch.zeros(7)),
        altered(conv1_weight=torch.zeros(3)),
        {name: tensor for name, tensor in official_state().items() if not name.startswith("adk4.")},
        {name: tensor for name, tensor in official_state().items() if name != "relu.weight"},
    ],
)
def test_other_weights_are_refused_in_a_sentence(state):
    with pytest.raises(ModelError, match=r"^these are not the weights of the official ADKNet: [^\n]+$"):
        ADKNet.from_official(state)


def unfolded(layer, features, guide):
    """The layer as the paper writes it: a whole kernel for every pixel and channel, on unfolded features."""
    n, channels, rows, cols = features.shape
    normalise = torch.nn.functional.normalize
    spatial = layer.spatial(guide)[:, None]
    spatial = normalise(spatial - spatial.mean(2, keepdim=True), dim=2) * 8**0.5 * (2 / 1.0001) ** 0.5 / 3
    spectral = layer.spectral(features.mean((2, 3))).view(n, channels, 9)
    spectral = normalise(spectral - spectral.mean(2, keepdim=True), dim=2) * 8**0.5 * layer.gain.view(channels, 9)
    patches = F.unfold(features, 3, padding=1).view(n, channels, 9, rows, cols)
    return (patches * spatial * spectral[..., None, None]).sum(2)


def guided(layer, features, guide):
    (spatial,) = adknet.spatial_kernels([layer], guide)
    return layer(features, spatial, PerImage())


@pytest.mark.parametrize("cached_pixels", [1, 2 * 2 * 9 * 13, 2**18, None])
@pytest.mark.parametrize("size", [(9, 13), (1, 40), (40, 1), (2, 2)])
def test_layer_equals_unfolded(monkeypatch, cached_pixels, size):
    monkeypatch.setattr(adknet, "CACHED_PIXELS", cached_pixels)
    torch.manual_seed(1)
    layer = adknet.AdaptiveLayer(5, 3, "layer")
    features, guide = torch.randn(2, 5, *size), torch.randn(2, 5, *size)
    with torch.set_grad_enabled(cached_pixels is not None):  # who wants no gradients gets the compiled loops
        found = guided(layer, features, guide)
        exact = unfolded(layer.double(), features.double(), guide.double())
    step = torch.finfo(torch.float32).eps * exact.abs().max()
    assert (found - exact).abs().max() <= 4 * step


@pytest.mark.parametrize(("bands", "ratio", "guide_bands"), [(3, 2, 1), (8, 4, 1), (4, 4, 3)])
def test_tiled_equals_whole(bands, ratio, guide_bands):
    network = small(bands, ratio, guide_bands=guide_bands)
    pan, ms = scene(bands, ratio, 96 // ratio, 128 // ratio, guide_bands=guide_bands)
    statistics = network.observe(pan, ms)
    whole = network(pan, ms, statistics)
    assert (in_tiles(network, pan, ms, statistics, 36) - whole).abs().max() <= 1e-10
    assert (network(pan, ms) - whole).abs().max() <= 1e-10  # its own statistics


def test_tiled_equals_whole_on_a_real_scene(official, data):
    with rasterio.open(data / "wv2_urban_w" / "pan.tif") as file:
        pan = torch.from_numpy(file.read(window=((400, 560), (300, 492)))).float()[None] / 2047
    with rasterio.open(data / "wv2_urban_w" / "ms.tif") as file:
        ms = torch.from_numpy(file.read(window=((100, 140), (75, 123)))).float()[None] / 2047
    with torch.no_grad():
        statistics = official.network.observe(pan, ms)
        whole = official.network(pan, ms, statistics)
        tiled = in_tiles(official.network, pan, ms, statistics, 64)
    assert (tiled - whole).abs().max() <= 1e-6


def moved(network, which, row):
    """Rows of the HRMS that change when a row of the PAN, or the MS row holding it, does; all in PAN pixels."""
    pan, ms = scene(network.bands, network.ratio, 80 // network.ratio, 8)
    statistics = network.observe(pan, ms)
    before = network(pan, ms, statistics)
    if which == "pan":
        pan[..., row, :] += 0.5
    else:
        ms[..., row // network.ratio, :] += 0.5
    change = (network(pan, ms, statistics) - before).abs().amax((0, 1, 3))
    rows = change.nonzero().flatten()
    return int(rows.min()), int(rows.max())


@pytest.mark.parametrize(
    ("ratio", "which", "first", "last"), [(4, "pan", 40, 40), (4, "ms", 40, 43), (2, "pan", 40, 40)]
)
def test_halo_is_exact(ratio, which, first, last):
    network = small(3, ratio)
    assert moved(network, which, 40) == (first - network.halo, last + network.halo)


def test_halo_of_the_ms_at_ratio_2():
    network = small(3, 2)
    assert moved(network, "ms", 40) == (40 - 11, 41 + 11)
    assert network.halo == 12  # the PAN's


def test_halo_grows_with_the_layers():
    network = small(2, 4, layers=3)
    assert moved(network, "pan", 40) == (40 - network.halo, 40 + network.halo)
    assert network.halo == 8


def test_images_of_a_batch_do_not_meet():
    network = small(4, 4)
    pan, ms = scene(4, 4, 5, 9, count=3)
    hrms = network(pan, ms)
    assert hrms.shape == (3, 4, 20, 36)
    for i in range(3):
        assert (network(pan[i : i + 1], ms[i : i + 1]) - hrms[i]).abs().max() <= 1e-10


def test_observe_pools_crops_together():
    network = small(4, 4)
    pan, ms = scene(4, 4, 12, 12, count=2)
    ms[1] *= 3
    both = network.observe(pan, ms)
    alone = [network.observe(pan[i : i + 1], ms[i : i + 1]) for i in range(2)]
    assert set(both) == {f"layer{i}" for i in range(7)}
    assert torch.allclose(both["layer0"], (alone[0]["layer0"] + alone[1]["layer0"]) / 2)
    twice = network.observe(pan[[0, 0]], ms[[0, 0]])
    assert all(torch.allclose(twice[name], alone[0][name]) for name in twice)
    assert not torch.allclose(both["layer6"], (alone[0]["layer6"] + alone[1]["layer6"]) / 2)


def test_every_parameter_learns():
    torch.manual_seed(0)
    network = ADKNet(3, channels=8, layers=2)
    pan, ms = scene(3, 4, 6, 5, count=2)
    network(pan.float(), ms.float()).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in network.parameters())


@pytest.mark.filterwarnings("ignore:Input #0 requires gradient")
def test_gradients_of_the_adaptive_layer_are_right():
    torch.manual_seed(0)
    layer = adknet.AdaptiveLayer(2, 1, "layer").double()
    features, guide = (torch.randn(2, 2, 3, 4, dtype=torch.float64, requires_grad=True) for _ in range(2))
    assert torch.autograd.gradcheck(lambda x, y: guided(layer, x, y), (features, guide))


@pytest.mark.parametrize("ratio", [2, 3, 4])
def test_bicubic_upsampling_is_that_of_torch(ratio):
    ms = torch.rand(2, 3, 5, 7, dtype=torch.float64)
    expected = F.interpolate(ms, scale_factor=ratio, mode="bicubic")
    assert (Upsample(ratio)(ms) - expected).abs().max() <= 1e-12


@pytest.mark.parametrize("kernel", ["nearest", "bilinear", "bicubic", "lanczos", "23tap"])
@pytest.mark.parametrize("phase", [1.5, 2.0])
def test_halo_of_the_upsampling_is_exact(kernel, phase):
    upsample = Upsample(4, kernel, phase)
    ms = torch.zeros(1, 1, 1, 41, dtype=torch.float64)
    ms[..., 20] = 1
    touched = upsample(ms)[0, 0, 0].nonzero().flatten()  # MS pixel 20 covers PAN pixels 80 ... 83
    assert max(80 - int(touched.min()), int(touched.max()) - 83) == upsample.halo
