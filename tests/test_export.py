"""`export`: what comes out is the same network at any size, or nothing comes out."""

import json
import sys

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from test_zoo import change, one_sentence, random_model
from torch import nn
from worlds import World

from pansharpen_cli import method, zoo
from pansharpen_cli.backends import export as exporting
from pansharpen_cli.backends import onnx_runtime
from pansharpen_cli.backends.export import OPSET, export, export_model
from pansharpen_cli.backends.onnx_file import OnnxFile
from pansharpen_cli.backends.onnx_runtime import Place
from pansharpen_cli.cli import app
from pansharpen_cli.errors import ModelError, OutputError
from pansharpen_cli.imaging.radiometry import Radiometry
from pansharpen_cli.modelspec import Band, ModelSpec
from pansharpen_cli.networks import NETWORKS
from pansharpen_cli.networks.clahe import Cells, clahe
from pansharpen_cli.networks.dmaconv import _convolve
from pansharpen_cli.networks.network import Network
from pansharpen_cli.networks.per_band import _darkest, _regression


class Plain(Network):
    """The smallest network: MS repeated, plus a convolved PAN."""

    halo, multiple_of, alignment = 2, 2, 2

    def __init__(self, bands=3, ratio=2):
        super().__init__()
        self.bands, self.ratio = bands, ratio
        self.convolve = nn.Conv2d(1, 1, 3, padding=1)

    def fuse(self, pan, ms, pooling):
        exp = ms.repeat_interleave(self.ratio, 3)
        return torch.stack([exp, exp], 3).flatten(2, 3) + self.convolve(pan)


class Tiny(Plain):
    """... with a statistic, the mean of the MS."""

    def fuse(self, pan, ms, pooling):
        mean = pooling("mean", lambda pixels: pixels.mean(2), ms)
        return super().fuse(pan, ms, pooling) - mean[..., None, None]


class Modulated(Plain):
    """... with a kernel of its own for every band of every image, as DMANet has per band."""

    def fuse(self, pan, ms, pooling):
        hrms = super().fuse(pan, ms, pooling)
        kernels = torch.tanh(ms.mean((2, 3))).flatten()[:, None, None, None, None] * torch.arange(9.0).view(3, 3)
        alike = _convolve(F.pad(hrms.flatten(0, 1)[:, None], (1, 1, 1, 1)), kernels, torch.ones(1))
        return alike.view(hrms.shape)


class Equalised(Plain):
    """... with CLAHE in cells of 32 pixels, the last of which may be cut off."""

    def fuse(self, pan, ms, pooling):
        rows, cols = (Cells.fixed(extent, 32) for extent in pan.shape[-2:])
        return super().fuse(pan, ms, pooling) + clahe(pan, rows, cols)


class Baked(Plain):
    """An operator that is exported without complaint, for the size that was traced alone."""

    def fuse(self, pan, ms, pooling):
        return super().fuse(pan, ms, pooling) + F.adaptive_avg_pool2d(pan, 8).amax((2, 3), keepdim=True)


class Impossible(Plain):
    """An operator that ONNX does not have."""

    def fuse(self, pan, ms, pooling):
        return super().fuse(pan, ms, pooling) + torch.special.bessel_j0(pan)


def described(network, *, any_bands=False):
    bands = () if any_bands else tuple(Band(f"b{index}") for index in range(network.bands))
    return ModelSpec("tiny.x", "tiny", {}, bands, network.ratio, 0.5, Radiometry("scene"), 64)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """(network, its file)."""
    torch.manual_seed(0)
    network, path = Tiny().eval(), tmp_path_factory.mktemp("tiny") / "tiny.onnx"
    return network, export(network, described(network, any_bands=True), path, any_bands=True)


def test_sizes_and_bands_are_free(tiny):
    network, file = tiny
    apply, observe = (onnx_runtime.session(content, Place()) for content in (file.content, file.observer))
    noise = torch.Generator().manual_seed(1)
    for batch, rows, cols, bands in ((1, 4, 6, 1), (2, 62, 34, 8), (1, 300, 200, 3)):
        pan = torch.rand((batch, 1, rows, cols), generator=noise)
        ms = torch.rand((batch, bands, rows // 2, cols // 2), generator=noise)
        feed = {"pan": pan.numpy(), "ms": ms.numpy()}
        (mean,) = observe.run(["mean"], feed)
        assert np.allclose(mean, ms.numpy().mean(axis=(0, 2, 3))[None], rtol=0, atol=1e-6)
        with torch.inference_mode():
            truth = network(pan, ms, {"mean": torch.from_numpy(mean)}).numpy()
        assert np.allclose(apply.run(["hrms"], feed | {"mean": mean})[0], truth, rtol=0, atol=1e-6)


def test_cells_that_are_cut_off(tmp_path):
    """ONNX divides whole numbers towards zero: what is rounded up as -(-a // b) is then a cell short."""
    torch.manual_seed(0)
    network = Equalised().eval()
    file = export(network, described(network), tmp_path / "equalised.onnx")
    apply = onnx_runtime.session(file.content, Place())
    noise = torch.Generator().manual_seed(1)
    for rows, cols in ((64, 96), (100, 36), (40, 344)):
        pan, ms = (torch.rand(shape, generator=noise) for shape in ((1, 1, rows, cols), (1, 3, rows // 2, cols // 2)))
        with torch.inference_mode():
            truth = network(pan, ms, {}).numpy()
        found = apply.run(["hrms"], {"pan": pan.numpy(), "ms": ms.numpy()})[0]
        assert np.allclose(found, truth, rtol=0, atol=1e-6), (rows, cols)


def test_filters_of_several_guides(tmp_path):
    """`export` itself looks whether other sizes and batches are free."""
    options = {"channels": 4, "layers": 1, "modulated": True}
    model = random_model(tmp_path / "model", "premix-b-per-band", bands=(), ratio=2, **options)
    export_model(model, tmp_path / "model.onnx", bands=2)


@pytest.mark.parametrize("any_bands", [True, False])
def test_kernels_of_each_image(any_bands, tmp_path):
    """A convolution in as many groups as there are images cannot be exported for any number of them."""
    network = Modulated().eval()
    assert export(network, described(network, any_bands=any_bands), tmp_path / "model.onnx", any_bands=any_bands)


def test_a_mixture(tmp_path):
    """Each network's scene statistics are inputs of their own."""
    member = {"network": "adknet", "options": {"channels": 4, "layers": 1}}
    model = random_model(tmp_path / "model", "mixture", ratio=2, members=[member, member], consistent=True)
    file = export_model(model, tmp_path / "model.onnx")
    inputs = {value.name for value in onnx.load_from_string(file.content).graph.input}
    assert {name[:2] for name in inputs - {"pan", "ms", "gains"}} == {"0.", "1."}


def test_what_the_network_declares_rides_along(tiny):
    _, file = tiny
    read = OnnxFile.read(file.path)
    assert (read.spec.halo, read.spec.multiple_of, read.spec.alignment) == (2, 2, 2)
    assert (read.bands, read.opset, read.sha256) == (0, OPSET, zoo.digest(file.path))


def test_convolutions_in_half_precision(tmp_path):
    network = Plain().eval()
    file = export(network, described(network), tmp_path / "half.onnx", half=True)
    assert file.precision == "mixed-float16"
    model = onnx.load(file.path)
    onnx.checker.check_model(model, full_check=True)
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    (convolution,) = (node for node in model.graph.node if node.op_type == "Conv")
    assert {types[name] for name in convolution.input[1:]} == {onnx.TensorProto.FLOAT16}
    kinds = {value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    assert kinds == {onnx.TensorProto.FLOAT}


@pytest.mark.parametrize("network", [Baked, Impossible])
def test_a_wrong_file_is_not_left(network, tmp_path):
    path = tmp_path / "tiny.onnx"
    path.write_text("what was there")
    with pytest.raises(ModelError, match=network.__name__) as error:
        export(network().eval(), described(network()), path)
    one_sentence(error)
    assert path.read_text() == "what was there"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_not_there_is_told_before_the_work(tiny, tmp_path, monkeypatch):
    network, _ = tiny
    monkeypatch.setattr(exporting, "_traced", lambda *_: pytest.fail("it has begun to work"))
    with pytest.raises(ModelError, match="--output") as error:
        export(network, described(network), tmp_path / "no" / "tiny.onnx")
    one_sentence(error)


def test_bands_of_a_model_are_its_own(tmp_path):
    model = random_model(tmp_path / "a.x", channels=4)
    with pytest.raises(ModelError, match="has 4 bands") as error:
        export_model(model, tmp_path / "a.onnx", bands=3)
    one_sentence(error)


def test_without_the_exporter_it_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(exporting, "_installed", lambda name: False)
    model = random_model(tmp_path / "a.x", channels=4)
    with pytest.raises(ModelError, match=r"onnxscript.*pansharpen-cli\[export\]") as error:
        export_model(model, tmp_path / "a.onnx")
    one_sentence(error)
    with pytest.raises(ModelError, match=r"pansharpen export a\.x -o") as error:
        method._exported_now(model, 4)
    one_sentence(error)


@pytest.mark.parametrize("bands", [1, 2, 5, 12])
def test_the_solver_that_onnx_has_not(bands):
    """Newton's iteration against an elimination, on covariances like those of `_regression`: almost singular ones."""
    from pansharpen_cli.backends.export_operators import STEPS

    noise = np.random.default_rng(bands)
    common = noise.normal(size=(1, 5000))
    samples = common + 0.01 * noise.normal(size=(bands, 5000))
    matrix = samples @ samples.T / 5000
    matrix += 1e-3 * np.trace(matrix) / bands * np.eye(bands)
    inverse = np.eye(bands) / np.abs(matrix).sum(axis=1).max()
    for _ in range(STEPS):
        inverse = 2 * inverse - inverse @ matrix @ inverse
    right = samples @ common.T / 5000
    assert np.allclose(inverse @ right, np.linalg.solve(matrix, right), rtol=1e-9, atol=1e-12)


class Regressing(Plain):
    """The statistics of networks of any bands, whose operators ONNX lacks."""

    def fuse(self, pan, ms, pooling):
        weights = pooling("weights", _regression, pan[..., ::2, ::2], ms)
        haze = pooling("haze", _darkest, ms)
        return super().fuse(pan, ms, pooling) + weights[:, :-1, None, None] * haze[..., None, None]


def test_regression_and_quantile_are_exported(tmp_path):
    torch.manual_seed(0)
    network = Regressing().eval()
    file = export(network, described(network, any_bands=True), tmp_path / "r.onnx", any_bands=True)
    observe = onnx_runtime.session(file.observer, Place())
    noise = torch.Generator().manual_seed(2)
    ms = torch.rand((7, 6, 32, 32), generator=noise)
    bright = 2 * ms.mean(1, keepdim=True).repeat_interleave(2, 2).repeat_interleave(2, 3)
    pan = torch.rand((7, 1, 64, 64), generator=noise) + bright
    names = ["weights", "haze"]
    found = dict(zip(names, observe.run(names, {"pan": pan.numpy(), "ms": ms.numpy()}), strict=True))
    truth = network.observe(pan, ms)
    assert np.array_equal(found["haze"], truth["haze"].numpy())
    assert np.allclose(found["weights"], truth["weights"].numpy(), rtol=0, atol=1e-5)


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path, monkeypatch):
    network, path = Plain().eval(), tmp_path / "a.onnx"
    verify = exporting._verify
    monkeypatch.setattr(exporting, "_verify", lambda *args: [verify(*args), path.write_text("another's")])
    with pytest.raises(OutputError, match=r"a\.onnx exists; choose another name or --overwrite it") as error:
        export(network, described(network), path)
    one_sentence(error)
    assert [other.name for other in tmp_path.iterdir()] == ["a.onnx"]
    assert path.read_text() == "another's"
    export(network, described(network), path, overwrite=True)
    assert OnnxFile.read(path).bands == 3


# --- the command line


@pytest.fixture
def pansharpen(monkeypatch, capfd, tmp_path):
    """Call the program: exit code, stdout, stderr."""
    monkeypatch.setenv("PANSHARPEN_MODELS", str(tmp_path / "models"))

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["pansharpen", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            app.main()
        return exit_.value.code or 0, *capfd.readouterr()

    return call


def test_export_and_verify(pansharpen, tmp_path, monkeypatch):
    """... and what the gate says of a file of other weights."""
    monkeypatch.setitem(NETWORKS, "tiny", Tiny)
    model = random_model(tmp_path / "models" / "a.x", "tiny", ratio=2)
    path, scene = tmp_path / "a.onnx", World(bands=4, ratio=2, ms_size=(48, 64), dtype="uint16").write(tmp_path)
    code, out, _ = pansharpen("export", "a.x", "-o", path, "--json", "--verify", "--scene", *scene)
    assert code == 0
    told = json.loads(out)
    assert (told["model"], told["opset"], told["bands"], told["sha256"]) == ("a.x", OPSET, 4, zoo.digest(path))
    assert told["parity"]["largest"] < 0.5
    assert pansharpen("export", "a.x", "-o", path)[0] == 1  # it is there
    assert pansharpen("export", "nothing", "-o", tmp_path / "b.onnx")[0] == 4
    code, _, err = pansharpen("export", "a.x", "-o", tmp_path / "b.tif")
    assert (code, (tmp_path / "b.tif").exists()) == (2, False)
    assert "b.tif is written as ONNX; name it .onnx" in err

    weights = load_file(model.folder / "weights.safetensors")
    weights["convolve.bias"] += 0.01
    save_file(weights, model.folder / "weights.safetensors")
    change(model.folder, weights_sha256=zoo.digest(model.folder / "weights.safetensors"))
    (model.folder / "model.onnx").write_bytes(path.read_bytes())
    code, _, err = pansharpen("models", "verify", "a.x", "--scene", *scene)
    assert code == 4
    assert "model.onnx is no export of the weights" in err
    assert "model.onnx is no export of the weights" in pansharpen("doctor", "--backend", "onnx", "--device", "cpu")[1]
    content = onnx.load(path)  # that says it is one
    next(entry for entry in content.metadata_props if entry.key == "pansharpen").value = zoo.find("a.x").spec.to_json()
    onnx.save(content, model.folder / "model.onnx")
    code, out, err = pansharpen("models", "verify", "a.x", "--scene", *scene)
    assert code == 4
    assert "red" in out
    assert "differs from torch on the cpu by up to" in err
    assert pansharpen("models", "verify", "a.x", "--scene", *scene, "--tolerance", 1e6)[0] == 0
