"""What DMANet and the networks that DMAConv plugs into promise: official numbers, sizes, and tiled equals whole."""

from itertools import product

import numpy as np
import pytest
import rasterio
import torch
import torch.nn.functional as F
from rasterio.windows import Window
from safetensors.torch import load_file

from pansharpen_cli.imaging.tiling import Reach, Tile, cut
from pansharpen_cli.networks.dmanet import DMANet
from pansharpen_cli.networks.fusionnet import DMAFusionNet, FusionNet
from pansharpen_cli.networks.lagnet import DMALAGNet, LAConv, LAGNet
from pansharpen_cli.networks.network import Frozen, Jointly, PerImage

NETWORKS = [FusionNet, DMAFusionNet, LAGNet, DMALAGNet, DMANet]
ADAPTIVE = [DMAFusionNet, DMALAGNet, DMANet]
REACH = {FusionNet: 10, DMAFusionNet: 26, LAGNet: 12, DMALAGNet: 32, DMANet: 74}


def build(network, bands, ratio=4, **options):
    torch.manual_seed(3)
    if network is DMANet:
        options.setdefault("widths", (4, 6, 8))
    return network(bands, ratio, **options).eval()


def texture(bands, rows, cols, ratio):
    generator = torch.Generator().manual_seed(4)
    pan = torch.rand(1, 1, rows, cols, generator=generator)
    return pan, torch.rand(1, bands, rows // ratio, cols // ratio, generator=generator)


def crop(data, rows, cols, ratio):
    """A real PAN/MS pair of ratio 4, or of ratio 2 by averaging the PAN."""
    scale = 4 // ratio
    with rasterio.open(data / "wv2_urban_w" / "pan.tif") as source:
        pan = torch.from_numpy(source.read(window=Window(0, 0, cols * scale, rows * scale)).astype(np.float32))
    with rasterio.open(data / "wv2_urban_w" / "ms.tif") as source:
        ms = torch.from_numpy(source.read(window=Window(0, 0, cols // ratio, rows // ratio)).astype(np.float32))
    return F.avg_pool2d(pan[None], scale) / 2047, ms[None] / 2047


class Following(Frozen):
    """Frozen; keeps the activity and threshold of every DMAConv."""

    def __init__(self, statistics):
        super().__init__(statistics)
        self.activity = {}

    def __call__(self, name, reduce, *maps):
        if name.endswith(".threshold"):
            self.activity[name] = maps[0][0, 0]
        return super().__call__(name, reduce, *maps)


def in_tiles(network, pan, ms, statistics):
    """The scene cut, sharpened and put together again, with the activity of every DMAConv."""
    reach = Reach(network.halo, network.alignment, network.multiple_of)
    rows, cols = (cut(0, size, size, size // 2 + 1, reach, network.ratio) for size in pan.shape[2:])
    hrms = torch.full((1, network.bands, *pan.shape[2:]), torch.nan, dtype=pan.dtype)
    activity = {}
    for tile in (Tile(*spans) for spans in product(rows, cols)):
        following = Following(statistics)
        sharp = network.fuse(pan[:, :, *tile.read], ms[:, :, *tile.coarser(network.ratio).read], following)
        hrms[:, :, *tile.core] = sharp[:, :, *tile.inner]
        for name, values in following.activity.items():
            scale = (tile.rows.read_stop - tile.rows.read_start) // len(values)
            size = [n // scale for n in pan.shape[2:]]
            part = tile.coarser(scale)
            activity.setdefault(name, torch.full(size, torch.nan, dtype=pan.dtype))[part.core] = values[part.inner]
    return hrms, activity


def within(mask, reach, shape):
    """Where, at full size, a True of `mask` lies at most `reach` pixels away."""
    full = F.interpolate(mask[None, None].float(), size=shape)
    return F.max_pool2d(full, 2 * reach + 1, 1, reach)[0, 0] > 0


@pytest.mark.parametrize("ratio", [2, 4])
@pytest.mark.parametrize("kind", ["texture", "real"])
@pytest.mark.parametrize("network_class", NETWORKS)
@torch.no_grad()
def test_tiled_equals_whole(network_class, kind, ratio, request):
    network = build(network_class, 8, ratio)
    size = (232, 48) if network_class is DMANet else (104, 72)
    pan, ms = crop(request.getfixturevalue("data"), *size, ratio) if kind == "real" else texture(8, *size, ratio)
    statistics = network.observe(pan, ms)
    following = Following(statistics)
    whole = network.fuse(pan, ms, following)
    hrms, activity = in_tiles(network, pan, ms, statistics)

    unsure = torch.zeros(size, dtype=torch.bool)  # a pixel on its threshold may go either way, and its surroundings
    for name, threshold in statistics.items():
        if name.endswith(".threshold"):
            flipped = (activity[name] > threshold) != (following.activity[name] > threshold)
            assert (following.activity[name] - threshold).abs()[flipped].le(1e-5).all()
            if flipped.any():
                unsure |= within(flipped, network.reach, size)
    tolerance = 1e-5 if network_class is DMANet else 1e-6
    difference = (hrms - whole).abs().amax(dim=(0, 1))
    assert difference.isfinite().all()
    assert difference[~unsure].numel() > 0
    assert difference[~unsure].max() <= tolerance


@pytest.mark.parametrize("ratio", [2, 4])
@pytest.mark.parametrize("network_class", ADAPTIVE)
@torch.no_grad()
def test_tiled_equals_whole_in_double_precision(network_class, ratio):
    """No pixel is as close to a threshold as the rounding of float64: nothing is unsure here."""
    network = build(network_class, 4, ratio).double()
    size = (232, 24) if network_class is DMANet else (104, 24)
    pan, ms = (image.double() for image in texture(4, *size, ratio))
    statistics = network.observe(pan, ms)
    hrms, _ = in_tiles(network, pan, ms, statistics)
    assert (hrms - network(pan, ms, statistics)).abs().max() <= 1e-12


@pytest.mark.parametrize("network_class", NETWORKS)
@torch.no_grad()
def test_reach_is_what_it_says(network_class):
    """A NaN goes wherever the network reads it, however small its weight."""
    network = build(network_class, 2).double()
    length = 2 * network.reach + 24
    pan, exp = texture(2, length, 8, 1)
    pan, exp = pan.double(), exp.double()
    jointly = Jointly()
    network.sharpen(pan, exp, jointly)
    farthest = 0
    for row in range(length // 2, length // 2 + network.alignment):
        for changed in ((pan, exp), (exp, pan)):
            spoilt = changed[0].clone()
            spoilt[:, :, row] = torch.nan
            pair = (spoilt, exp) if changed[0] is pan else (pan, spoilt)
            for images in (pair, tuple(image.mT for image in pair)):
                hrms = network.sharpen(*images, Frozen(jointly.statistics))
                hit = hrms.isnan().any(dim=1)[0].any(dim=1 if images[0] is pair[0] else 0).nonzero()
                farthest = max(farthest, int((hit - row).abs().max()))
    assert farthest == REACH[network_class] <= network.reach


@pytest.mark.parametrize("ratio", [2, 4])
@pytest.mark.parametrize("network_class", NETWORKS)
@torch.no_grad()
def test_nothing_outside_the_halo_is_read(network_class, ratio):
    network = build(network_class, 2, ratio).double()
    length = (network.halo + 8) * 2 // 8 * 8
    pan, ms = (image.double() for image in texture(2, length, 8, ratio))
    statistics = network.observe(pan, ms)
    whole = network(pan, ms, statistics)
    for row in range(length // 2, length // 2 + 4):
        near = slice(row - network.halo, row + network.halo + 1)
        near_ms = slice(near.start // ratio, (near.stop - 1) // ratio + 1)
        spoilt, other = torch.full_like(pan, torch.nan), torch.rand_like(ms)
        spoilt[:, :, near] = pan[:, :, near]
        other[:, :, near_ms] = ms[:, :, near_ms]
        exp = network.upsample(other)
        exp[exp != network.upsample(ms)] = torch.nan
        hrms = network.sharpen(spoilt, exp, Frozen(statistics))
        assert hrms.isnan().any()
        torch.testing.assert_close(hrms[:, :, row], whole[:, :, row], rtol=0, atol=1e-12)


@pytest.mark.parametrize("network_class", NETWORKS)
@torch.no_grad()
def test_images_of_a_batch_do_not_meet(network_class):
    network = build(network_class, 4).double()
    pan, ms = texture(4, 24, 64, 4)
    pan, ms = (
        pan.double().unflatten(3, (2, 32)).movedim(3, 0)[:, 0],
        ms.double().unflatten(3, (2, 8)).movedim(3, 0)[:, 0],
    )
    apart = torch.cat([network(p[None], m[None]) for p, m in zip(pan, ms, strict=True)])
    torch.testing.assert_close(network(pan, ms), apart, rtol=0, atol=1e-12)


class HalfFocused(PerImage):
    """The threshold is the mean: with few pixels, there might be none above mean + 2 deviations."""

    def __call__(self, name, reduce, *maps):
        return maps[0].mean(dim=(2, 3)) if name.endswith(".threshold") else super().__call__(name, reduce, *maps)


@pytest.mark.parametrize("variant", ["official", "paper"])
@pytest.mark.parametrize("network_class", ADAPTIVE)
def test_gradients_reach_every_parameter(network_class, variant):
    options = {"widths": (16, 16, 16)} if network_class is DMANet else {}
    network = build(network_class, 4, variant=variant, **options)
    network.fuse(*texture(4, 32, 32, 4), HalfFocused()).square().mean().backward()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert silent == []


@pytest.mark.parametrize(
    ("network_class", "values"), [(FusionNet, 0), (DMAFusionNet, 16), (LAGNet, 12), (DMALAGNet, 22), (DMANet, 20)]
)
def test_every_global_value_has_its_own_name(network_class, values):
    network = build(network_class, 4)
    statistics = network.observe(*texture(4, 32, 32, 4))
    assert len(statistics) == values
    assert all(len(value) == 1 for value in statistics.values())


@pytest.mark.parametrize(
    ("network_class", "eight", "four"),
    [
        (FusionNet, 78_632, 76_324),
        (DMAFusionNet, 380_216, 377_908),
        (LAGNet, 151_397, 148_457),
        (DMALAGNet, 479_767, 476_827),
    ],
)
def test_parameter_count(network_class, eight, four):
    for bands, count in ((8, eight), (4, four)):
        assert sum(p.numel() for p in network_class(bands).parameters()) == count


@pytest.mark.parametrize("case", ["p64x64", "p40x56"])
def test_fusionnet_matches_the_official_network(golden, case):
    tensors = load_file(golden / "fusionnet_wv3_official.safetensors")
    state = {name[3:]: value for name, value in tensors.items() if name.startswith("sd.")}
    aliases = {name.replace(f"res{i}", f"backbone.{i - 1}"): v for i in range(1, 5) for name, v in state.items()}
    network = FusionNet.from_official(state | {n: v for n, v in aliases.items() if n.startswith("backbone.")})
    hrms = network.sharpen(tensors[f"in.{case}.pan"], tensors[f"in.{case}.lms"], PerImage())
    assert (hrms - tensors[f"out.{case}.sr"]).abs().max() <= 2e-5


@torch.no_grad()
def test_laconv_is_a_kernel_of_its_own_at_every_pixel():
    torch.manual_seed(0)
    layer = LAConv(3, 5, "layer").double()
    x = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    factors = layer.attention(x)
    padded = F.pad(x, (1, 1, 1, 1))
    out = layer(x, PerImage())
    for n, row, col in np.ndindex(2, 6, 7):
        kernel = layer.weight * factors[n, :, row, col].view(3, 3)
        bias = layer.bias(x[n].mean(dim=(1, 2)))
        expected = (kernel * padded[n, :, row : row + 3, col : col + 3]).sum(dim=(1, 2, 3)) + bias
        torch.testing.assert_close(out[n, :, row, col], expected)
