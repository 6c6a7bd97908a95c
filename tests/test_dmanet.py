"""DMANet against the official network's numbers, and what only a U-Net has to fear."""

import hashlib
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from pansharpen_cli.networks.dmanet import DMANet
from pansharpen_cli.networks.network import PerImage

LAYERS = [f"block{i}.conv{j}" for i in range(1, 6) for j in (1, 2)]


class Recording(PerImage):
    """Per image; keeps thresholds and hard masks."""

    def __init__(self):
        self.thresholds, self.hard = {}, {}

    def __call__(self, name, reduce, *maps):
        value = super().__call__(name, reduce, *maps)
        layer, kind = name.rsplit(".", 1)
        if kind == "threshold":
            self.thresholds[layer] = value
        else:
            self.hard[layer] = 1 - maps[1]
        return value


def golden_weight(seed, name, shape, scale):
    """The recipe of the golden weights: splitmix64 from an FNV-1a hash of the name."""
    state = 0xCBF29CE484222325
    for byte in f"{seed}:{name}".encode():
        state = ((state ^ byte) * 0x100000001B3) & (2**64 - 1)
    z = np.uint64(state) + np.arange(1, np.prod(shape) + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    k = ((z ^ (z >> np.uint64(31))) >> np.uint64(40)).astype(np.int64)
    return ((k - 2**23).astype(np.float32) / np.float32(2**23) * np.float32(scale)).reshape(shape)


@pytest.fixture(scope="module")
def official(golden):
    """The golden network's weights under their official names."""
    recipe = json.loads((golden / "dmanet_8band.weights.json").read_text())
    state = {}
    for name, (shape, scale, digest) in recipe["tensors"].items():
        values = golden_weight(recipe["seed"], name, shape, scale)
        assert hashlib.sha256(values.astype("<f4").tobytes()).hexdigest()[:8] == digest
        state[name] = torch.from_numpy(values)
    return state


@pytest.mark.parametrize("case", ["p64x64", "p40x56"])
def test_matches_the_official_network(golden, official, case):
    tensors = load_file(golden / "dmanet_8band.safetensors")
    network = DMANet.from_official(official).eval()
    recording = Recording()
    with torch.no_grad():
        hrms = network.sharpen(tensors[f"in.{case}.pan"], tensors[f"in.{case}.lms"], recording)
    assert (hrms - tensors[f"out.{case}.sr"]).abs().max() <= 1e-4
    thresholds = torch.cat([recording.thresholds[layer] for layer in LAYERS], dim=1) + 0.5
    torch.testing.assert_close(thresholds, tensors[f"mid.{case}.threshold"], rtol=0, atol=1e-6)
    counts = torch.stack([recording.hard[layer].sum() for layer in LAYERS])
    assert torch.equal(counts, tensors[f"mid.{case}.hard_count"][0])
    assert torch.equal(recording.hard["block1.conv1"], tensors[f"mid.{case}.rb1conv1_mask_hard"])


def test_official_weights_want_their_own_up_sampling(official):
    """The training data had MS pixel i on PAN pixel 4 i + 2."""
    network = DMANet.from_official(official)
    ms = torch.zeros(1, 8, 16, 16)
    ms[:, :, 8, 8] = 1
    exp = network.upsample(ms)[0, 0]
    assert divmod(int(exp.argmax()), 64) == (34, 34)
    torch.testing.assert_close(exp[34, 34], torch.tensor(1.0))


@pytest.mark.parametrize(("bands", "count"), [(8, 2_456_284), (4, 2_453_976)])
def test_parameter_count(bands, count):
    assert sum(p.numel() for p in DMANet(bands).parameters()) == count


def test_parameter_count_of_the_stages():
    network = DMANet(8)
    stages = {"down1": 6_528, "down2": 25_344, "up1": 37_568, "up2": 9_568}
    for name, count in stages.items():
        assert sum(p.numel() for p in network.get_submodule(name).parameters()) == count


def test_refuses_sizes_that_are_no_multiples_of_4():
    network = DMANet(4, ratio=2, widths=(4, 4, 4))
    with pytest.raises(ValueError, match="multiples of 4, not 16 x 18"):
        network(torch.zeros(1, 1, 16, 18), torch.zeros(1, 4, 8, 9))
