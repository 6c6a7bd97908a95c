"""PreMix against the authors' numbers; CLAHE against kornia 0.7.1 and a plain loop; and both networks are local."""

import copy
from math import e, tanh

import pytest
import rasterio
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from pansharpen_cli.errors import ModelError
from pansharpen_cli.imaging.tiling import Reach, cut
from pansharpen_cli.networks.clahe import Cells, clahe
from pansharpen_cli.networks.premix import MASKS, Layout, Mixing, PredictiveFilter, PreMixB, PreMixH, high_pass

NETWORKS = {"b": PreMixB, "h": PreMixH}
CASES = ("p64x64", "p40x56")
MODES = ("none", "trainable")


@pytest.fixture(scope="module")
def tensors(golden):
    return {letter: load_file(golden / f"premix_{letter}_4band.safetensors") for letter in NETWORKS}


@pytest.fixture(scope="module")
def operators(golden):
    return load_file(golden / "premix_ops.safetensors")


def official_state(tensors, mode):
    """The authors' weights; without the thresholds if the mode is "none"."""
    state = {name.removeprefix("sd."): tensor for name, tensor in tensors.items() if name.startswith("sd.")}
    return {name: tensor for name, tensor in state.items() if mode == "trainable" or not name.endswith(".beta")}


def official(letter, tensors, mode, **options):
    return NETWORKS[letter].from_official(official_state(tensors[letter], mode), **options).eval()


def texture(channels, rows, cols, count=1):
    generator = torch.Generator().manual_seed(rows + cols + channels)
    noise = torch.rand(count, channels, rows, cols, generator=generator, dtype=torch.float64)
    coarse = F.interpolate(F.avg_pool2d(noise, 8, ceil_mode=True), size=(rows, cols), mode="bilinear")
    return (noise + 3 * coarse) / 4


def scene(bands, ratio, rows, cols, count=1):
    """PAN and MS of `rows` x `cols` PAN pixels."""
    return texture(1, rows, cols, count), F.avg_pool2d(texture(bands, rows, cols, count), ratio)


def small(network, bands, ratio, **options):
    """With random weights, enlarged so that far pixels and the masks still count."""
    torch.manual_seed(bands + ratio)
    net = network(bands, ratio, **{"channels": 6} | options).double().requires_grad_(False)
    for module in net.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.weight *= 1.5
    return net


def in_tiles(network, pan, ms, tile):
    """The scene sharpened tile by tile, each with its halo cropped."""
    ratio = network.ratio
    reach = Reach(network.halo, network.alignment, network.multiple_of)
    hrms = torch.full((1, ms.shape[1], *pan.shape[-2:]), torch.nan, dtype=pan.dtype)
    for row in cut(0, pan.shape[-2], pan.shape[-2], tile, reach, ratio):
        for col in cut(0, pan.shape[-1], pan.shape[-1], tile, reach, ratio):
            part = network(pan[..., row.read, col.read], ms[..., row.coarser(ratio).read, col.coarser(ratio).read], {})
            hrms[..., row.core, col.core] = part[..., row.inner, col.inner]
    return hrms


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("letter", NETWORKS)
def test_official_output(tensors, letter, mode, case):
    network = official(letter, tensors, mode, **({"clahe_cell": None} if letter == "h" else {}))
    pan, exp, hrms = (
        tensors[letter][f"{k}"] for k in (f"in.{case}.pan", f"in.{case}.ms_up", f"out.{case}.beta_{mode}")
    )
    with torch.no_grad():
        assert (network.sharpen(pan, exp) - hrms).abs().max() <= 2e-5


@pytest.mark.parametrize("letter", NETWORKS)
def test_the_ms_is_upsampled_as_the_authors_did(tensors, letter):
    network = official(letter, tensors, "trainable")
    pan, ms, exp = (tensors[letter][f"in.p40x56.{what}"] for what in ("pan", "ms", "ms_up"))
    assert (network.upsample(ms) - exp).abs().max() <= 1e-6
    with torch.no_grad():
        assert (network(pan, ms) - network.sharpen(pan, network.upsample(ms))).abs().max() == 0


@pytest.mark.parametrize(
    ("network", "bands", "threshold", "count"),
    [
        (PreMixB, 3, "trainable", 145_912),
        (PreMixB, 4, "trainable", 151_402),
        (PreMixB, 4, "none", 151_400),
        (PreMixB, 8, "trainable", 173_362),
        (PreMixB, 10, "trainable", 184_342),
        (PreMixH, 4, "trainable", 865_573 - 628),  # the authors' count less their unused layer
        (PreMixH, 4, "none", 865_564 - 628),
    ],
)
def test_parameter_count(network, bands, threshold, count):
    assert sum(p.numel() for p in network(bands, threshold=threshold).parameters()) == count


def test_parameter_count_of_more_layers():
    counts = [sum(p.numel() for p in PreMixH(4, layers=layers).parameters()) for layers in (1, 2, 3)]
    assert [count + 628 for count in counts] == [865_573, 1_529_710, 2_193_847]


def test_options_are_read_from_official_weights(tensors):
    assert official("b", tensors, "none").stage.blocks[0].mixing.beta is None
    trainable = official("h", tensors, "trainable")
    assert (trainable.bands, trainable.clahe_cell) == (4, 32)
    expected = tensors["h"]["sd.model3.2.preconv.ewfm.beta"]
    assert torch.equal(trainable.high_pass[2].blocks[0].mixing.beta, expected)


def test_official_weights_without_mixing(tensors):
    state = {name: tensor for name, tensor in official_state(tensors["b"], "none").items() if ".ewfm." not in name}
    network = PreMixB.from_official(state)
    assert network.stage.blocks[0].mixing is None
    assert network.halo == 2 * 3 + 1 + 6


@pytest.mark.parametrize("letter", NETWORKS)
def test_other_weights_are_refused_in_a_sentence(tensors, letter):
    state = official_state(tensors[letter], "trainable")
    name = next(name for name in state if name.endswith("ewfm.conv.conv1.weight"))
    others = [
        {},
        official_state(tensors["h" if letter == "b" else "b"], "trainable"),
        {key: tensor for key, tensor in state.items() if key != name},
        state | {name: torch.zeros(1)},
        state | {"head.weight": torch.zeros(1)},
    ]
    for other in others:
        with pytest.raises(ModelError, match=r"^these are not the weights of the official PreMix-[BH]: [^\n]+$"):
            NETWORKS[letter].from_official(other)


@pytest.mark.parametrize("case", ["p64x64", "p72x92clip", "p96x128"])
def test_official_front_end(operators, case):
    image = operators[f"in.{case}"]
    rows, cols = (Cells.grid(extent) for extent in image.shape[-2:])
    equalised = clahe(image.clamp(0, 1), rows, cols)
    assert (equalised - operators[f"out.{case}.clahe"]).abs().max() <= 2e-5
    assert (high_pass(image) - operators[f"out.{case}.high_pass"]).abs().max() <= 2e-5


def plain_clahe(image, size):
    """One plane (H, W) in cells of `size` pixels, pixel by pixel as specified; levels 0 ... 255."""
    extents = image.shape
    counts = [-(-extent // size) for extent in extents]

    def reflected(i, extent):
        while not 0 <= i < extent:
            i = 0 if extent == 1 else -i if i < 0 else 2 * (extent - 1) - i
        return i

    def table(cell_row, cell_col):
        histogram = [0] * 256
        for y in range(cell_row * size, (cell_row + 1) * size):
            for x in range(cell_col * size, (cell_col + 1) * size):
                value = float(image[reflected(y, extents[0]), reflected(x, extents[1])])
                histogram[min(int(value * 256), 255)] += 1
        limited = [min(n, max(int(40 * size * size / 256), 1)) for n in histogram]
        share, residual = divmod(size * size - sum(limited), 256)
        levels, total = [], 0
        for i, n in enumerate(limited):
            total += n + share + (i < residual)
            levels.append(int(min(total * 255 / size**2 + 1e-4, 255)))  # float32 rounding apart
        return levels

    def pair(place, count):
        cell, rest = divmod(place - size // 2, size)
        first, second = (min(max(k, 0), count - 1) for k in (cell, cell + 1))
        return ((first, (size - 1 - rest) / (size - 1)), (second, rest / (size - 1)))

    tables = {(i, j): table(i, j) for i in range(counts[0]) for j in range(counts[1])}
    result = torch.zeros(extents, dtype=torch.float64)
    for y in range(extents[0]):
        for x in range(extents[1]):
            level = int(image[y, x] * 255)
            for row, row_weight in pair(y, counts[0]):
                for col, col_weight in pair(x, counts[1]):
                    result[y, x] += row_weight * col_weight * tables[row, col][level]
    return result


@pytest.mark.parametrize(("rows", "cols"), [(16, 24), (17, 23), (3, 5), (1, 9)])
def test_fixed_cells_equal_a_plain_loop(rows, cols):
    image = texture(2, rows, cols)
    equalised = clahe(image, Cells.fixed(rows, 8), Cells.fixed(cols, 8))
    assert (equalised[0, 1] * 255 - plain_clahe(image[0, 1], 8)).abs().max() <= 1e-4


def test_fixed_cells_are_the_authors_on_an_image_of_their_size():
    assert Cells.fixed(256, 32) == Cells.grid(256)


def test_one_cell_has_one_table():
    image = texture(1, 32, 32)
    equalised = clahe(image, Cells.fixed(32, 32), Cells.fixed(32, 32))
    levels = (image * 255).long()
    for level in levels.unique():
        same = equalised[levels == level]
        assert same.max() - same.min() <= 1e-6


def test_reach_of_clahe_is_exact():
    rows, cols = Cells.fixed(64, 8), Cells.fixed(8, 8)
    reach = 0
    for row in range(24, 32):
        image = texture(1, 64, 8)
        before = clahe(image, rows, cols)
        image[..., row, :] = 0.999
        changed = (clahe(image, rows, cols) - before).abs().amax((0, 1, 3)).nonzero().flatten()
        reach = max(reach, row - int(changed.min()), int(changed.max()) - row)
    assert reach == rows.reach == 10


def test_high_pass_of_a_ramp_is_zero_inside():
    y, x = torch.meshgrid(torch.arange(9.0), torch.arange(7.0), indexing="ij")
    ramp = (2 * y - x)[None, None].double()
    assert high_pass(ramp)[..., 1:-1, 1:-1].abs().max() <= 1e-12
    impulse = torch.zeros(1, 1, 5, 5)
    impulse[..., 2, 2] = 1
    assert torch.allclose(high_pass(impulse)[0, 0, 2, 1:4], torch.tensor([-0.11832, 1 - 0.14777, -0.11832]), atol=2e-5)


@pytest.mark.parametrize("size", [3, 5])
def test_filter_equals_unfolded(size):
    torch.manual_seed(0)
    layer = PredictiveFilter(Layout(3, 6, 1, 3, size, True, "none", "sigmoid")).double()
    features, image, pan = (torch.randn(2, channels, 9, 13, dtype=torch.float64) for channels in (6, 3, 1))

    def unfolded(image):
        padded = F.pad(image, [size // 2] * 4, mode="reflect")
        patches = F.unfold(padded, size).view(2, 3, size**2, 9, 13)
        return (patches * layer.predict(features).view(2, 3, size**2, 9, 13)).sum(2)

    with torch.no_grad():
        assert (layer(features, image) - unfolded(image)).abs().max() <= 1e-12
        assert (layer(features, pan) - unfolded(pan.expand(-1, 3, -1, -1))).abs().max() <= 1e-12


def test_guides_add_up():
    """Kernels of one band after those of the other, and of each its guides in order."""
    torch.manual_seed(0)
    layout = Layout(2, 6, 1, 3, 3, True, "none", "sigmoid", guide_bands=3)
    layer = PredictiveFilter(layout, guides=3).double()
    features, guides = (torch.randn(2, channels, 9, 13, dtype=torch.float64) for channels in (6, 3))
    with torch.no_grad():
        kernels = layer.predict(features).view(2, 2, 3, 9, 9, 13)
        patches = F.unfold(F.pad(guides, [1] * 4, mode="reflect"), 3).view(2, 1, 3, 9, 9, 13)
        assert (layer(features, guides) - (kernels * patches).sum((2, 3))).abs().max() <= 1e-12


@pytest.mark.parametrize(
    ("name", "at_zero", "at_minus_one", "at_nine"),
    [
        ("tanh+relu", 0, 0, tanh(6)),
        ("tanh+relu-uncapped", 0, 0, 1),
        ("sigmoid", 0.5, 0.2689414, 0.9998766),
        ("tanh+elu", tanh(1), tanh(1 / e), 1),
        ("softsign+elu", 0.5, 0.2689414, 10 / 11),
        ("softsign+relu", 0, 0, 6 / 7),
    ],
)
def test_masks(name, at_zero, at_minus_one, at_nine):
    values = MASKS[name](torch.tensor([0.0, -1.0, 9.0]))
    assert torch.allclose(values, torch.tensor([at_zero, at_minus_one, at_nine]).float(), atol=1e-6)
    assert set(MASKS) == {"tanh+relu", "tanh+relu-uncapped", "sigmoid", "tanh+elu", "softsign+elu", "softsign+relu"}


@pytest.mark.parametrize("threshold", ["trainable", "none", 0.3])
@pytest.mark.parametrize("name", MASKS)
def test_mixing_exchanges_without_loss(name, threshold):
    torch.manual_seed(0)
    mixing = Mixing(Layout(3, 4, 1, 3, 3, True, threshold, name))
    ms, pan = torch.randn(2, 4, 6, 5), torch.randn(2, 4, 6, 5)
    mixed_ms, mixed_pan = (mixed.detach() for mixed in mixing(ms, pan))
    assert torch.allclose(mixed_ms + mixed_pan, ms + pan, atol=1e-6)
    share = (mixed_ms - ms) / (pan - ms)
    assert share.min() >= -1e-4
    assert share.max() <= 1 + 1e-4
    if threshold == 0.3:
        mask = MASKS[name](mixing.relation(ms + pan)) > 0.3
        assert torch.allclose(mixed_ms, torch.where(mask, pan, ms), atol=1e-6)


@pytest.mark.parametrize(
    "options", [{"activation": "relu"}, {"threshold": "learned"}, {"threshold": 1.5}, {"threshold": -0.1}]
)
@pytest.mark.parametrize("network", [PreMixB, PreMixH])
def test_senseless_options_are_refused(network, options):
    with pytest.raises(ValueError, match=next(iter(options))):
        network(4, **options)


@pytest.mark.parametrize("cell", [0, 31, -32])
def test_senseless_cells_are_refused(cell):
    with pytest.raises(ValueError, match=f"even number of pixels, not {cell}"):
        PreMixH(4, clahe_cell=cell)


@pytest.mark.parametrize(
    ("bands", "ratio", "options"),
    [
        (3, 2, {}),
        (8, 4, {}),
        (1, 3, {"mixing": False}),
        (4, 4, {"kernel": 5, "filter_kernel": 5, "layers": 1, "interpolation": "lanczos", "threshold": 0.3}),
    ],
)
def test_b_tiled_equals_whole(bands, ratio, options):
    network = small(PreMixB, bands, ratio, **options)
    pan, ms = scene(bands, ratio, 84, 108)
    assert network.observe(pan, ms) == {}
    assert (in_tiles(network, pan, ms, 36) - network(pan, ms)).abs().max() <= 1e-10


@pytest.mark.parametrize(
    ("bands", "ratio", "rows", "options"),
    [
        (2, 4, 260, {}),  # a last cell of 4 rows
        (1, 2, 256, {"threshold": "none"}),
        (1, 4, 240, {"clahe_cell": 10, "layers": 1, "mixing": False}),  # cells no multiple of 4
    ],
)
def test_h_tiled_equals_whole(bands, ratio, rows, options):
    network = small(PreMixH, bands, ratio, **options)
    pan, ms = scene(bands, ratio, rows, 32)
    whole = network(pan, ms)
    assert (in_tiles(network, pan, ms, 52) - whole).abs().max() <= 1e-10


@pytest.mark.parametrize("letter", NETWORKS)
def test_tiled_equals_whole_on_a_real_scene(data, tensors, letter):
    network = official(letter, tensors, "trainable").double()
    rows, cols = (400, 688), (300, 356)
    with rasterio.open(data / "wv2_urban_w" / "pan.tif") as file:
        pan = torch.from_numpy(file.read(window=(rows, cols))).double()[None] / 2047
    with rasterio.open(data / "wv2_urban_w" / "ms.tif") as file:
        window = tuple(tuple(edge // 4 for edge in edges) for edges in (rows, cols))
        ms = torch.from_numpy(file.read([2, 3, 5, 7], window=window)).double()[None] / 2047
    with torch.no_grad():
        assert (in_tiles(network, pan, ms, 64) - network(pan, ms)).abs().max() <= 1e-10


def moved(network, which, row, rows, cols=32):
    """Rows of the HRMS that change when a row of the PAN, or the MS row holding it, does; all in PAN pixels."""
    pan, ms = scene(network.bands, network.ratio, rows, cols)
    before = network(pan, ms)
    if which == "pan":
        pan[..., row, :] += 0.4
    else:
        ms[..., row // network.ratio, :] += 0.4
    change = (network(pan, ms) - before).abs().amax((0, 1, 3)).nonzero().flatten()
    return int(change.min()), int(change.max())


@pytest.mark.parametrize("ratio", [2, 4])
def test_halo_of_b_is_exact(ratio):
    network = small(PreMixB, 3, ratio)
    assert moved(network, "ms", 48, 96) == (48 - network.halo, 47 + ratio + network.halo)
    assert moved(network, "pan", 48, 96) == (48 - 11, 48 + 11)


@pytest.mark.parametrize(("layers", "mixing", "reach"), [(1, True, 6), (3, True, 16), (4, True, 21), (2, False, 7)])
def test_reach_of_b(layers, mixing, reach):
    network = small(PreMixB, 2, 2, layers=layers, mixing=mixing, interpolation="nearest")
    assert network.halo == reach
    assert moved(network, "pan", 48, 96) == (48 - reach, 48 + reach)


def test_halo_of_h_without_clahe_is_tight():
    network = small(PreMixH, 2, 4)
    network._equalise = lambda image: image
    reach = 33  # 36 once tiles are read from multiples of 4
    extents = [moved(network, "pan", row, 160) for row in range(80, 84)]
    assert max(max(80 + i - first, last - 80 - i) for i, (first, last) in enumerate(extents)) == reach
    assert PreMixH(2, clahe_cell=None, interpolation="nearest").halo in range(reach, 37)


def test_halo_of_h_holds_and_is_not_wild():
    network = small(PreMixH, 1, 4)
    extents = [(row, *moved(network, "ms", row, 320)) for row in range(128, 164, 4)]
    reach = max(max(row - first, last - row - 3) for row, first, last in extents)
    assert network.alignment == 32
    assert network.halo - 8 <= reach <= network.halo


def test_h_takes_scenes_smaller_than_a_cell():
    network = small(PreMixH, 3, 4)
    pan, ms = scene(3, 4, 4, 8)
    assert network(pan, ms).isfinite().all()


@pytest.mark.parametrize("network", [PreMixB, PreMixH])
def test_images_of_a_batch_do_not_meet(network):
    net = small(network, 4, 4)
    pan, ms = scene(4, 4, 20, 36, count=3)
    hrms = net(pan, ms)
    assert hrms.shape == (3, 4, 20, 36)
    for i in range(3):
        assert (net(pan[i : i + 1], ms[i : i + 1]) - hrms[i]).abs().max() <= 1e-10


@pytest.mark.parametrize("network", [PreMixB, PreMixH])
def test_every_parameter_learns(network):
    net = small(network, 3, 4, threshold="trainable").requires_grad_(True)
    pan, ms = scene(3, 4, 16, 24, count=2)
    net(pan, ms).square().mean().backward()
    still = [name for name, p in net.named_parameters() if p.grad is None or p.grad.abs().max() == 0]
    assert still == []
    assert any(name.endswith("beta") for name, _ in net.named_parameters())


def test_a_fixed_threshold_stops_gradients_to_the_mask_alone():
    net = small(PreMixB, 3, 4, threshold=0.3).requires_grad_(True)
    pan, ms = scene(3, 4, 16, 24)
    net(pan, ms).square().mean().backward()
    still = {name for name, p in net.named_parameters() if p.grad is None}
    assert still == {f"stage.blocks.{i}.mixing.relation.conv{j}.weight" for i in (0, 1) for j in (1, 2)}


def test_gradients_are_right():
    torch.manual_seed(0)
    net = PreMixB(2, 2, channels=2, layers=1, activation="sigmoid").double()
    pan, ms = scene(2, 2, 4, 4)
    assert torch.autograd.gradcheck(net, (pan.requires_grad_(), ms.requires_grad_()))


@pytest.mark.parametrize("network", [PreMixB, PreMixH])
def test_a_network_can_be_copied_and_reloaded(network):
    net = small(network, 3, 4)
    again = network(3, 4, channels=6).double()
    again.load_state_dict(copy.deepcopy(net.state_dict()))
    pan, ms = scene(3, 4, 16, 24)
    assert torch.equal(again(pan, ms), net(pan, ms))
