"""The authors' checkpoints become model folders: the same numbers, and nothing in a file is ever executed."""

import pickle
import random
import sys
from itertools import permutations

import pytest
import torch
from safetensors.torch import load_file, save_file

from pansharpen_cli import zoo
from pansharpen_cli.cli import app
from pansharpen_cli.errors import ModelError, OutputError
from pansharpen_cli.official import OFFICIAL, convert

GOLDEN = {
    "adknet": "adknet_wv3_official",
    "premix-b": "premix_b_4band",
    "premix-h": "premix_h_4band",
    "fusionnet": "fusionnet_wv3_official",
}
CASES = ["p64x64", "p40x56"]


@pytest.fixture(scope="module")
def states(golden):
    """Weights under their official names, by network."""
    files = {network: load_file(golden / f"{name}.safetensors") for network, name in GOLDEN.items()}
    return {
        network: {name[3:]: tensor for name, tensor in file.items() if name.startswith("sd.")}
        for network, file in files.items()
    }


def write(state, path):
    """A checkpoint in one of the forms in which they are found."""
    if path.suffix == ".safetensors":
        save_file(state, path)
    elif path.suffix == ".ckpt":  # as a training loop saves it, from several GPUs
        torch.save({"epoch": 7, "state_dict": {f"module.{name}": value for name, value in state.items()}}, path)
    else:
        torch.save(state, path)
    return path


def imported(weights, network, output, **options):
    return convert(weights, network, output, **{"scale": 2047.0, "band_names": None, "licence": "", **options})


def sharpened(network, tensors, case):
    """What a network makes of a golden input, by whatever name its MS goes there."""
    if f"in.{case}.ms" in tensors:
        return network(tensors[f"in.{case}.pan"], tensors[f"in.{case}.ms"])
    return network(tensors[f"in.{case}.pan"], tensors[f"in.{case}.lms"][..., ::4, ::4].contiguous())


def refusal(path, network, tmp_path):
    """The one sentence in which a checkpoint is refused; no model is left behind."""
    with pytest.raises(ModelError) as error:
        imported(path, network, tmp_path / "refused")
    message = str(error.value)
    assert "\n" not in message
    assert str(path) in message
    assert not (tmp_path / "refused").exists()
    return message


@pytest.mark.parametrize("suffix", [".pth", ".ckpt", ".safetensors"])
@pytest.mark.parametrize("network", GOLDEN)
@torch.no_grad()
def test_an_imported_model_computes_what_the_official_weights_do(network, suffix, states, golden, tmp_path):
    tensors = load_file(golden / f"{GOLDEN[network]}.safetensors")
    folder = tmp_path / f"{network}.imported"
    imported(write(states[network], tmp_path / f"weights{suffix}"), network, folder)
    model = zoo.read(folder)
    loaded, official = model.load(), OFFICIAL[network].read(states[network]).eval()
    for case in CASES:
        assert torch.equal(sharpened(loaded, tensors, case), sharpened(official, tensors, case))
    assert (len(model.spec.bands), model.spec.ratio) == (official.bands, official.ratio)
    assert model.spec.halo == official.halo


@pytest.mark.parametrize("case", CASES)
@torch.no_grad()
def test_an_imported_adknet_gives_the_published_numbers(case, states, golden, tmp_path):
    tensors = load_file(golden / "adknet_wv3_official.safetensors")
    imported(write(states["adknet"], tmp_path / "w.pth"), "adknet", tmp_path / "adknet.wv3")
    hrms = zoo.read(tmp_path / "adknet.wv3").load()(tensors[f"in.{case}.pan"], tensors[f"in.{case}.ms"])
    assert (hrms - tensors[f"out.{case}"]).abs().max() <= 2e-5


def test_an_imported_model_says_what_it_wants(states, tmp_path):
    imported(write(states["adknet"], tmp_path / "w.pth"), "adknet", tmp_path / "adknet.wv3", scale=1023.0, licence="X")
    spec = zoo.read(tmp_path / "adknet.wv3").spec
    assert spec.band_names == ["coastal", "blue", "green", "yellow", "red", "rededge", "nir", "nir2"]
    assert (spec.ratio, spec.phase, spec.crop) == (4, 2.0, 64)  # PanCollection's phase, not that of pixel areas
    assert (spec.radiometry.kind, spec.radiometry.scale, spec.radiometry.pan_scale) == ("fixed", 1023.0, 1023.0)
    assert spec.licence == "X"
    card = (tmp_path / "adknet.wv3" / "README.md").read_text()
    assert "w.pth" in card
    assert "X" in card


def test_band_names_are_kept_as_models_know_them(states, tmp_path):
    """Scenes are matched by canonical names, so a model must have them: else `auto` never takes it."""
    path = write(states["premix-b"], tmp_path / "w.pth")
    model = imported(path, "premix-b", tmp_path / "m", band_names=["Blue", "Green", "Red", "NIR1"])
    assert model.spec.order_of(["red", "green", "blue", "nir"]) == [2, 1, 0, 3]


def test_too_few_band_names_are_refused(states, tmp_path):
    with pytest.raises(ModelError, match="4 bands"):
        imported(write(states["premix-b"], tmp_path / "w.pth"), "premix-b", tmp_path / "m", band_names=["a", "b"])


def test_an_unknown_network_is_answered_with_the_known_ones(tmp_path):
    with pytest.raises(ModelError, match=r"adknet.*fusionnet"):
        imported(tmp_path / "w.pth", "resnet", tmp_path / "m")


class Hostile:
    """Writes a file when it is unpickled."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return open, (str(self.trace), "w")


@pytest.mark.parametrize("suffix", [".pth", ".ckpt"])
@pytest.mark.parametrize("wrap", ["bare", "in a state dict", "plain pickle"])
def test_a_hostile_file_is_refused_and_not_executed(suffix, wrap, tmp_path):
    path, trace = tmp_path / f"w{suffix}", tmp_path / "executed"
    if wrap == "plain pickle":
        path.write_bytes(pickle.dumps(Hostile(trace)))
    else:
        torch.save(Hostile(trace) if wrap == "bare" else {"state_dict": {"conv1.weight": Hostile(trace)}}, path)
    refusal(path, "adknet", tmp_path)
    assert not trace.exists()
    with open(path, "rb") as file:  # it would have worked
        if wrap == "plain pickle":
            pickle.load(file).close()
            assert trace.exists()


@pytest.mark.parametrize("network", GOLDEN)
def test_weights_of_another_network_are_refused(network, states, tmp_path):
    for other in set(GOLDEN) - {network}:
        refusal(write(states[other], tmp_path / f"{other}.pth"), network, tmp_path)


@pytest.mark.parametrize("change", ["missing", "extra", "shape"])
def test_weights_that_do_not_quite_fit_are_refused(change, states, tmp_path):
    state = dict(states["adknet"])
    if change == "missing":
        del state["conv2.bias"]
    elif change == "extra":
        state["conv9.weight"] = torch.zeros(1)
    else:
        state["conv2.bias"] = torch.zeros(9)
    refusal(write(state, tmp_path / "w.pth"), "adknet", tmp_path)


@pytest.mark.parametrize("within", list(permutations(("state_dict", "model", "net"), 2)), ids="-".join)
def test_weights_are_found_in_whatever_order_checkpoints_hold_each_other(within, states, tmp_path):
    outer, inner = within
    torch.save({"epoch": 7, outer: {inner: states["fusionnet"], "best": 1.5}}, tmp_path / "w.pth")
    assert imported(tmp_path / "w.pth", "fusionnet", tmp_path / "model").spec.network == "fusionnet"


def test_a_checkpoint_that_holds_itself_is_refused(tmp_path):
    content = {"epoch": 7}
    content["model"] = content
    torch.save(content, tmp_path / "w.pth")
    refusal(tmp_path / "w.pth", "adknet", tmp_path)


@pytest.mark.parametrize(
    "content",
    [[1, 2], {}, {"state_dict": {}}, {1: torch.zeros(1)}, {"a": 1}, torch.zeros(3), {"state_dict": [1]}],
    ids=["list", "empty", "empty state dict", "numbered", "no tensors", "tensor", "list inside"],
)
def test_a_checkpoint_of_something_else_is_refused(content, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    refusal(tmp_path / "w.pth", "adknet", tmp_path)


@pytest.mark.filterwarnings("error")
def test_a_pickle_of_another_version_is_answered_in_our_words_alone(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(pickle.dumps({"epoch": print}, protocol=4))
    with pytest.raises(ModelError, match="is not a checkpoint of plain tensors") as refusal:
        convert(path, "adknet", tmp_path / "model", scale=2047)
    assert not isinstance(refusal.value.__cause__, Warning)


def test_a_missing_file_is_named(tmp_path):
    assert "does not exist" in refusal(tmp_path / "nowhere.pth", "adknet", tmp_path)
    assert "is no file" in refusal(tmp_path, "adknet", tmp_path)


def test_weights_that_are_no_numbers_are_refused(states, tmp_path):
    state = states["adknet"] | {"conv2.bias": torch.full_like(states["adknet"]["conv2.bias"], torch.nan)}
    assert "holds NaN or infinite numbers (" in refusal(write(state, tmp_path / "w.pth"), "adknet", tmp_path)


@pytest.mark.parametrize("form", ["zip", "legacy", "safetensors"])
def test_a_damaged_file_is_refused(form, states, tmp_path):
    """Cut at any length, or bytes of noise: an import that was interrupted, a web page saved as weights."""
    suffix = ".safetensors" if form == "safetensors" else ".pth"
    path = tmp_path / f"w{suffix}"
    if form == "safetensors":
        save_file(states["adknet"], path)
    else:
        torch.save(states["adknet"], path, _use_new_zipfile_serialization=form == "zip")
    whole = path.read_bytes()
    noise = random.Random(0)
    lengths = [0, 1, 2, 4, 10, 100, 1000, 5000, len(whole) // 2, len(whole) - 30, len(whole) - 1]
    damaged = [whole[:length] for length in lengths]
    damaged += [noise.randbytes(200) for _ in range(20)] + [
        b"<!DOCTYPE html>\n<html>",
        b"root:x:0:0:root:/root:/bin/sh",
    ]
    for content in damaged:
        path.write_bytes(content)
        refusal(path, "adknet", tmp_path)


def test_import_does_not_replace_a_model_unasked(states, tmp_path):
    path, folder = write(states["premix-b"], tmp_path / "w.pth"), tmp_path / "m"
    imported(path, "premix-b", folder)
    before = (folder / "spec.json").read_bytes()
    other = write(states["adknet"], tmp_path / "other.pth")
    with pytest.raises(OutputError, match="is a model already"):
        imported(other, "adknet", folder)
    assert (folder / "spec.json").read_bytes() == before


def command(monkeypatch, capsys, *arguments):
    """Exit code, stdout, stderr of `pansharpen import`."""
    monkeypatch.setattr(sys, "argv", ["pansharpen", "import", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_:
        app.main()
    return exit_.value.code, *capsys.readouterr()


def test_the_command_imports(states, tmp_path, monkeypatch, capsys):
    path = write(states["fusionnet"], tmp_path / "fusionnet.pth")
    code, out, err = command(monkeypatch, capsys, path, "--network", "fusionnet", "-o", tmp_path / "fusionnet.wv3")
    assert (code, out, err) == (0, f"{tmp_path / 'fusionnet.wv3'}\n", "")
    assert zoo.read(tmp_path / "fusionnet.wv3").load().bands == 8


@pytest.mark.parametrize("content", ["cut", "wrong", "noise"])
def test_the_command_refuses_in_one_sentence(content, states, tmp_path, monkeypatch, capsys):
    path = write(states["fusionnet"], tmp_path / "w.pth")
    if content == "cut":
        path.write_bytes(path.read_bytes()[:5000])
    elif content == "noise":
        path.write_bytes(random.Random(1).randbytes(1000))
    code, out, err = command(monkeypatch, capsys, path, "--network", "adknet", "-o", tmp_path / "m")
    assert (code, out) == (4, "")
    assert err.startswith("pansharpen: ")
    assert err.count("\n") == 1
    assert str(path) in err
    assert not (tmp_path / "m").exists()
