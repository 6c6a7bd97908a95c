"""Exported models: the same numbers and products as torch, seamless, on an honest device; and files that anybody may
have made are refused in one sentence."""

import base64
import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from test_tiled_equals_whole import PARTS, check
from test_zoo import change, one_sentence, random_model
from worlds import World

from pansharpen_cli import zoo
from pansharpen_cli.backends import onnx_runtime
from pansharpen_cli.backends.export import OPSET, export_model
from pansharpen_cli.backends.onnx_backend import OnnxBackend
from pansharpen_cli.backends.onnx_file import OnnxFile
from pansharpen_cli.backends.onnx_runtime import Place
from pansharpen_cli.backends.sharpener import Sharpener
from pansharpen_cli.errors import DeviceError, ModelError, OutputError
from pansharpen_cli.imaging.displacement import Displacement
from pansharpen_cli.imaging.interpolation import area_phase
from pansharpen_cli.imaging.radiometry import Radiometry
from pansharpen_cli.inputs.canvas import SceneCanvas
from pansharpen_cli.inputs.scene import Scene
from pansharpen_cli.job import Job
from pansharpen_cli.pipeline import sharpen
from pansharpen_cli.resume import resume

GAINS = (0.3, 0.28, 0.26, 0.24)


@pytest.fixture(scope="module")
def adknet(tmp_path_factory):
    """A small network with scene statistics, as a folder with its model.onnx."""
    model = random_model(tmp_path_factory.mktemp("models") / "adknet.small", "adknet", channels=8, layers=1)
    export_model(model, model.folder / "model.onnx")
    return zoo.read(model.folder)


@pytest.fixture
def content(adknet):
    return onnx.load(adknet.exported)


def save(model, path):
    path.write_bytes(model.SerializeToString())
    return path


# --- the same model


def test_the_file_explains_itself(adknet):
    file = OnnxFile.read(adknet.exported)
    assert replace(file.spec, weights_sha256="") == replace(adknet.spec, weights_sha256="")
    assert (file.bands, file.precision, file.opset) == (4, "float32", OPSET)
    model = onnx.load(adknet.exported)
    onnx.checker.check_model(model, full_check=True)
    assert [entry.version for entry in model.opset_import] == [OPSET]
    assert [given.name for given in model.graph.input] == ["pan", "ms", "layer0"]
    assert not any(node.doc_string or node.metadata_props for node in model.graph.node)  # would tell paths of sources
    assert os.path.expanduser("~").encode() not in file.content


def test_the_observer_gives_the_statistics_of_all_crops_together(adknet):
    network, file = adknet.load(), OnnxFile.read(adknet.exported)
    noise = torch.Generator().manual_seed(0)
    pan, ms = (torch.rand(shape, generator=noise) for shape in ((5, 1, 64, 64), (5, 4, 16, 16)))
    (value,) = onnx_runtime.session(file.observer, Place()).run(["layer0"], {"pan": pan.numpy(), "ms": ms.numpy()})
    assert np.allclose(value, network.observe(pan, ms)["layer0"].numpy(), rtol=0, atol=1e-6)


def test_products_agree(adknet, data, tmp_path):
    """A whole run, its own observation included: the same whole numbers but for rounding, and tags that tell."""
    import rasterio

    scene = PARTS[4].write(data, tmp_path)
    products = {}
    for name, model, backend in (
        ("torch", adknet.folder, "auto"),
        ("folder", adknet.folder, "onnx"),
        ("file", adknet.exported, "auto"),
    ):
        output = tmp_path / f"{name}.tif"
        sharpen(Job(scene[0], [scene[1]], output, model=str(model), backend=backend, threads=2, tile=128))
        with rasterio.open(output) as file:
            products[name], tags = file.read().astype(int), file.tags(ns="PANSHARPEN")
        assert tags["BACKEND"] == ("torch" if name == "torch" else "onnx")
        assert (tags["DEVICE"], tags["PRECISION"]) == ("cpu", "float32")
    assert tags["MODEL_SHA256"] == OnnxFile.read(adknet.exported).sha256
    assert np.array_equal(products["folder"], products["file"])
    off = np.abs(products["torch"] - products["file"])
    assert off.max() <= 1
    assert (off > 0).mean() <= 1e-4


def restored(folder, adknet):
    """The model with its export once more, in a folder of its own."""
    shutil.copytree(adknet.folder, folder)
    return zoo.read(folder)


@pytest.mark.parametrize("stale", ["weights", "options", "foreign"])
def test_an_export_of_other_weights_is_not_taken_for_the_model(stale, adknet, content, tmp_path):
    """By hand, or by a program that knows nothing of it: `zoo.save` removes it."""
    model = restored(tmp_path / "a.x", adknet)
    if stale == "weights":
        other = random_model(tmp_path / "other", "adknet", channels=8, layers=1, bands=("a", "b", "c", "d"))
        for name in ("spec.json", "weights.safetensors"):
            shutil.copy(other.folder / name, model.folder)
    elif stale == "options":
        change(model.folder, options={"channels": 8, "layers": 1, "consistent": True})
    else:
        told = next(entry for entry in content.metadata_props if entry.key == "pansharpen")
        told.value = json.dumps(json.loads(told.value) | {"weights_sha256": "0" * 64})
        save(content, model.exported)
    pan, ms = World(bands=4, dtype="uint16").write(tmp_path)
    job = Job(pan, [ms], tmp_path / "o.tif", model=str(model.folder), backend="onnx")
    for make in (sharpen, resume):
        with pytest.raises(ModelError, match=r"a\.x/model\.onnx is no export of the weights .* --overwrite`") as error:
            make(job)
        one_sentence(error)
    assert not job.output.exists()


def test_what_is_written_in_the_place_of_a_model_takes_its_export_with_it(adknet, tmp_path):
    """One of the same weights stays."""
    model = restored(tmp_path / "adknet.small", adknet)
    assert random_model(model.folder, "adknet", channels=8, layers=1).exported
    assert not random_model(model.folder, "adknet", channels=4, layers=1).exported
    (tmp_path / "b.x").mkdir()
    shutil.copy(adknet.exported, tmp_path / "b.x")
    with pytest.raises(OutputError, match="is a model already"):
        zoo.check_place(tmp_path / "b.x", overwrite=False)


def test_a_product_of_another_file_is_not_kept(adknet, content, tmp_path):
    """Of half precision, or of a lone file that anybody may have changed; what differs by rounding alone is."""
    model = restored(tmp_path / "adknet.small", adknet)
    lone = tmp_path / "lone.onnx"
    shutil.copy(model.exported, lone)
    pan, ms = World(bands=4, dtype="uint16").write(tmp_path)
    job = Job(pan, [ms], tmp_path / "o.tif", model=str(model.folder), coregister="off")
    by_onnx, by_file = replace(job, backend="onnx"), replace(job, model=str(lone))

    def kept(job):
        return resume(job).kept

    assert [kept(one) for one in (job, job, by_onnx)] == [False, True, True]
    assert [kept(one) for one in (by_file, by_file, replace(by_file, backend="onnx"))] == [False, True, True]
    next(entry for entry in content.metadata_props if entry.key == "pansharpen.precision").value = "mixed-float16"
    for path in (model.exported, lone):
        save(content, path)
    assert [kept(one) for one in (by_file, by_file, job, by_onnx, by_onnx)] == [False, True, False, False, True]


def test_tiled_equals_whole(adknet, data, tmp_path):
    part = PARTS[4]
    with Scene.open(*part.write(data, tmp_path)) as scene:
        backend = OnnxBackend(OnnxFile.read(adknet.exported), Place("cpu", 0, 2), GAINS)
        canvas = SceneCanvas.of(scene, phase=area_phase(4), shift=Displacement(*part.shift), reach=backend.reach)
        sharpener = Sharpener.observing(backend, Radiometry("scene"), canvas, (0, 1, 2, 3), 256)
        check(sharpener, canvas, 1e-6)


def test_threads_do_not_disturb_each_other(adknet):
    """Tiles from several threads at once, while some of them begin to share."""
    backend = OnnxBackend(OnnxFile.read(adknet.exported), Place("cpu", 0, 2), GAINS)
    noise = np.random.default_rng(1)
    tiles = [tuple(noise.random(s, np.float32) for s in ((1, n, n), (4, n // 4, n // 4))) for n in (32, 48, 64, 96)]
    backend._freeze({"layer0": noise.random((1, 8), np.float32)})
    alone = [backend(*tile) for tile in tiles]
    found = {}

    def work(index):
        backend.share(4)
        found[index] = [backend(*tiles[index]) for _ in range(8)]

    threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index, results in found.items():
        assert all(np.allclose(result, alone[index], rtol=0, atol=1e-6) for result in results)


def test_a_lone_file_needs_no_torch_and_leaves_no_telemetry(adknet, tmp_path):
    pan, ms = World(bands=4, dtype="uint16").write(tmp_path)
    script = (
        "import sys; from pathlib import Path; "
        "from pansharpen_cli.job import Job; from pansharpen_cli.pipeline import sharpen; "
        f"sharpen(Job({str(pan)!r}, [{str(ms)!r}], Path({str(tmp_path / 'o.tif')!r}), model={str(adknet.exported)!r}));"
        "print({'torch', 'onnx', 'onnxscript'} & set(sys.modules))"
    )
    home = tmp_path / "home"
    home.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ORT_", "XDG_"))} | {"HOME": str(home)}
    found = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert found.stdout.strip() == "set()"
    assert not [path for path in home.rglob("*") if "onnx" in path.name.lower() or "Microsoft" in path.name]


def test_a_lone_file_cannot_be_asked_of_torch(adknet, tmp_path):
    path = tmp_path / "lone.onnx"
    path.write_bytes(adknet.exported.read_bytes())
    pan, ms = World(bands=4, dtype="uint16").write(tmp_path)
    with pytest.raises(ModelError, match=r"lone\.onnx.*--backend onnx") as error:
        sharpen(Job(pan, [ms], tmp_path / "o.tif", model=str(path), backend="torch"))
    one_sentence(error)


def test_a_file_of_other_bands_is_refused(adknet):
    with pytest.raises(ModelError, match="4 bands") as error:
        OnnxBackend(OnnxFile.read(adknet.exported), Place(), GAINS[:3])
    one_sentence(error)


# --- the device is honest

GPU = os.path.exists("/dev/nvidiactl")


@pytest.mark.skipif(GPU, reason="there is a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", "tensorrt"])
def test_a_device_that_does_not_work_is_refused_with_the_reason(device, adknet, tmp_path):
    pan, ms = World(bands=4, dtype="uint16").write(tmp_path)
    with pytest.raises(DeviceError, match=rf"--device {device} .*\(.+\)") as error:
        sharpen(Job(pan, [ms], tmp_path / "o.tif", model=str(adknet.exported), device=device))
    one_sentence(error)
    assert error.value.exit_code == 4
    assert not (tmp_path / "o.tif").exists()


@pytest.mark.parametrize("device", ["gpu", "cpu:1", "cuda:", "cuda:-1", "auto:0", "", "CUDA"])
def test_a_device_that_does_not_exist_is_refused(device):
    with pytest.raises(DeviceError, match="takes auto, cpu") as error:
        onnx_runtime.place(device)
    one_sentence(error)


@pytest.mark.skipif(GPU, reason="there is a GPU")
def test_auto_says_what_it_took(caplog):
    caplog.set_level("INFO", "pansharpen_cli")
    assert str(onnx_runtime.place("auto")) == "cpu"
    assert "onnxruntime runs on the CPU (" in caplog.text


def test_a_session_that_runs_elsewhere_is_found_out(adknet):
    """As onnxruntime does it: no exception, and the CPU."""
    if onnx_runtime.CUDA not in onnx_runtime.onnxruntime().get_available_providers() or GPU:
        pytest.skip("needs an onnxruntime with CUDA and no GPU")
    with pytest.raises(DeviceError, match="took CPUExecutionProvider instead of CUDA") as error:
        onnx_runtime.session(OnnxFile.read(adknet.exported).content, Place("cuda", 0))
    one_sentence(error)


def test_both_packages_are_named(monkeypatch):
    monkeypatch.setattr(onnx_runtime, "packages", lambda: {"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1"})
    monkeypatch.setattr(onnx_runtime.onnxruntime(), "get_available_providers", lambda: ["CPUExecutionProvider"])
    reason = onnx_runtime.obstacle("cuda")
    assert "onnxruntime and onnxruntime-gpu are both installed" in reason
    monkeypatch.setattr(onnx_runtime, "packages", lambda: {"onnxruntime": "1.31.1"})
    assert "built without CUDA" in onnx_runtime.obstacle("cuda")


class Driver:
    """libcuda of a machine with `count` GPUs and a driver for CUDA `version`."""

    def __init__(self, count, version):
        self.count, self.version = count, version

    def cuInit(self, flags):  # noqa: N802
        return 0

    def cuDeviceGetCount(self, into):  # noqa: N802
        into._obj.value = self.count
        return 0

    def cuDriverGetVersion(self, into):  # noqa: N802
        into._obj.value = self.version
        return 0


@pytest.mark.parametrize(
    ("count", "version", "index", "torchs", "reason"),
    [
        (0, 13000, 0, None, "no NVIDIA GPU"),
        (1, 13000, 1, None, "there are 1 GPUs"),
        (1, 12040, 0, None, "built for CUDA 13, the driver serves 12.4"),
        (1, 13000, 0, "12.8", "built for CUDA 13 and torch for 12.8"),
        (1, 13000, 0, "13.0", "cannot be loaded"),
    ],
)
def test_what_is_wrong_with_a_gpu_is_told(count, version, index, torchs, reason, monkeypatch):
    if GPU:
        pytest.skip("there is a GPU")

    def load(name, *_, **__):
        if "cuda.so.1" in name or name == "nvcuda.dll":
            return Driver(count, version)
        raise OSError(name)

    providers = list(onnx_runtime.PROVIDERS.values())
    monkeypatch.setattr(onnx_runtime.onnxruntime(), "get_available_providers", lambda: providers)
    monkeypatch.setattr(onnx_runtime, "built_for", lambda: 13)
    monkeypatch.setattr(onnx_runtime, "torch_cuda", lambda: torchs)
    monkeypatch.setattr(onnx_runtime.ctypes, "CDLL", load)
    assert reason in onnx_runtime.obstacle("cuda", index)


def test_the_probe_is_what_it_says():
    """Made a second time, by the onnx package."""
    shape = [1, 1, 2, 2]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xy")
    weight = numpy_helper.from_array(np.full((1, 1, 1, 1), 2, np.float32), "w")
    graph = helper.make_graph([helper.make_node("Conv", ["x", "w"], ["y"])], "probe", [x], [y], [weight])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    assert made.SerializeToString() == onnx_runtime.PROBE
    assert onnx_runtime.obstacle("cpu") is None


# --- files that anybody may have made


def refused(path, pattern="."):
    """`zoo.find`, or else the backend, refuses the file in one sentence and exit code 4; nothing else happens."""
    with pytest.raises(ModelError, match=pattern) as error:
        OnnxBackend(OnnxFile.read(zoo.find(str(path)).exported), Place(), GAINS)
    assert error.value.exit_code == 4
    assert str(path) in one_sentence(error)


def varint(number):
    text = b""
    while number > 127:
        text, number = text + bytes([number & 127 | 128]), number >> 7
    return text + bytes([number])


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 100,
        b"ORTM" * 20,
        b"GIF89a",
        b"\xff" * 50,
        b"\x3a" + varint(2**62) + b"x",  # a graph longer than the file
        b"\x3b\x3c",  # groups, which are not read
        b"\x38\x01",  # a number where the graph should be
        b"\x08\x0a" * 3,
        bytes(range(256)),
    ],
)
def test_what_is_no_onnx_file_is_refused(content, tmp_path):
    (tmp_path / "x.onnx").write_bytes(content)
    refused(tmp_path / "x.onnx", "not an ONNX file")


def test_a_file_that_is_not_there_is_refused(tmp_path):
    refused(tmp_path / "x.onnx", "cannot be read")
    refused(tmp_path / "no" / "x.onnx", "cannot be read")


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9, 0.999])
def test_a_file_that_was_cut_short_is_refused(keep, adknet, tmp_path):
    whole = adknet.exported.read_bytes()
    (tmp_path / "x.onnx").write_bytes(whole[: int(len(whole) * keep)])
    refused(tmp_path / "x.onnx")


def test_a_huge_file_is_not_even_read(tmp_path):
    with open(tmp_path / "x.onnx", "wb") as file:
        file.truncate(2**40)
    refused(tmp_path / "x.onnx", "larger than 256 MiB")


def test_a_model_of_somebody_else_is_refused(tmp_path):
    (tmp_path / "x.onnx").write_bytes(onnx_runtime.PROBE)
    refused(tmp_path / "x.onnx", "not written by `pansharpen export`")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("pansharpen", "{"),
        ("pansharpen", '{"format_version": 99}'),
        ("pansharpen.bands", "many"),
        ("pansharpen.bands", "9" * 5000),
        ("pansharpen.bands", "-4"),
        ("pansharpen.precision", "float1"),
        ("pansharpen.observe", "not base64!"),
        ("pansharpen.observe", base64.b64encode(b"\xff" * 9).decode()),
    ],
)
def test_metadata_that_make_no_sense_are_refused(key, value, content, tmp_path):
    for entry in content.metadata_props:
        if entry.key == key:
            entry.value = value
    refused(save(content, tmp_path / "x.onnx"))


def test_a_spec_that_promises_another_network_is_harmless(content, tmp_path):
    """The graph is what computes; a spec of another network changes only what is told."""
    for entry in content.metadata_props:
        if entry.key == "pansharpen":
            entry.value = json.dumps(json.loads(entry.value) | {"network": "nobody's"})
    OnnxBackend(OnnxFile.read(save(content, tmp_path / "x.onnx")), Place(), GAINS)


def external(model, location):
    """The largest initializer of `model` moved to a file at `location`."""
    tensor = max(model.graph.initializer, key=lambda t: len(t.raw_data))
    raw = bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    return raw


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "missing", "", ".", "a\0b", "x" * 5000, "link"])
def test_data_beyond_the_folder_are_refused(location, content, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    raw = external(content, location)
    (tmp_path / "secret").write_bytes(raw)
    (folder / "link").symlink_to(tmp_path / "secret")
    refused(save(content, folder / "x.onnx"), "no file in its folder")


def test_data_in_the_folder_are_read(content, adknet, tmp_path, monkeypatch):
    (tmp_path / "weights.bin").write_bytes(external(content, "weights.bin"))
    monkeypatch.chdir("/")
    backend = OnnxBackend(OnnxFile.read(save(content, tmp_path / "x.onnx")), Place(), GAINS)
    whole = OnnxBackend(OnnxFile.read(adknet.exported), Place(), GAINS)
    tile = np.ones((1, 32, 32), np.float32), np.ones((4, 8, 8), np.float32)
    for one in (backend, whole):
        one._freeze({"layer0": np.ones((1, 8), np.float32)})
    assert np.array_equal(backend(*tile), whole(*tile))


def hidden(model, place):
    """An external tensor where only a thorough look finds it."""
    tensor = helper.make_tensor("t", TensorProto.FLOAT, [1], [0.0])
    tensor.ClearField("float_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "../secret"
    constant = helper.make_node("Constant", [], ["c"], value=tensor)
    inner = helper.make_graph([constant], "g", [], [helper.make_tensor_value_info("c", TensorProto.FLOAT, [1])])
    if place == "attribute":
        model.graph.node.insert(0, constant)
    elif place == "branch":
        model.graph.node.insert(0, helper.make_node("If", ["pan"], ["u"], then_branch=inner, else_branch=inner))
    elif place == "sparse":
        model.graph.sparse_initializer.add().values.CopyFrom(tensor)
    elif place == "list":
        model.graph.node[0].attribute.append(helper.make_attribute("hidden", [tensor]))


@pytest.mark.parametrize("place", ["attribute", "branch", "sparse", "list"])
def test_hidden_external_data_are_found(place, content, tmp_path):
    hidden(content, place)
    refused(save(content, tmp_path / "x.onnx"), "no file in its folder")


def test_external_data_of_the_observer_are_found(content, tmp_path):
    (entry,) = (entry for entry in content.metadata_props if entry.key == "pansharpen.observe")
    observer = onnx.load_from_string(base64.b64decode(entry.value))
    external(observer, "../secret")
    entry.value = base64.b64encode(observer.SerializeToString()).decode()
    refused(save(content, tmp_path / "x.onnx"), "no file in its folder")


@pytest.mark.parametrize("domain", ["com.microsoft", "my.operators", "ai.onnx.contrib", "\u202eonnx"])
def test_operators_of_others_are_refused(domain, content, tmp_path):
    content.graph.node[3].domain = domain
    refused(save(content, tmp_path / "x.onnx"), "not ONNX's own")


def test_functions_are_refused(content, tmp_path):
    content.functions.add().name = "f"
    refused(save(content, tmp_path / "x.onnx"), "functions")


def test_graphs_without_end_are_refused(content, tmp_path):
    """More of them than protobuf itself would parse; each in an attribute of a node of the one around it."""
    graph = b""
    for _ in range(5000):
        for tag in (b"\x32", b"\x2a", b"\x0a"):
            graph = tag + varint(len(graph)) + graph
    (tmp_path / "x.onnx").write_bytes(b"\x3a" + varint(len(graph)) + graph)
    refused(tmp_path / "x.onnx", "nested")


def test_a_second_graph_is_refused(content, tmp_path):
    """protobuf would merge the two."""
    (tmp_path / "x.onnx").write_bytes(content.SerializeToString() + b"\x3a\x00")
    refused(tmp_path / "x.onnx", "several graphs")


@pytest.mark.parametrize("change", ["operator", "input", "output", "shape", "cycle", "allocation"])
def test_a_graph_that_does_not_work_is_refused(change, content, tmp_path):
    graph = content.graph
    if change == "operator":
        graph.node[0].op_type = "Reboot"
    elif change == "input":
        graph.input[0].name = "password"
    elif change == "output":
        graph.output.append(graph.output[0].__class__(name="more"))
    elif change == "shape":
        graph.initializer[0].dims[:] = [2**40]
    elif change == "cycle":
        graph.node[0].input[0] = graph.node[-1].output[0]
    elif change == "allocation":
        size = numpy_helper.from_array(np.array([2**50], np.int64), "size")
        graph.initializer.append(size)
        graph.node.append(helper.make_node("ConstantOfShape", ["size"], ["huge"]))
        graph.output[0].name = "huge"
    refused(save(content, tmp_path / "x.onnx"))


def test_a_graph_that_fails_on_a_tile_is_told_in_one_sentence(content, tmp_path):
    for node in content.graph.node:
        if node.op_type == "Conv":
            del node.attribute[:]  # no padding any more: shapes do not meet
    try:
        backend = OnnxBackend(OnnxFile.read(save(content, tmp_path / "x.onnx")), Place(), GAINS)
    except ModelError:
        return
    backend._freeze({"layer0": np.ones((1, 8), np.float32)})
    with pytest.raises(ModelError, match="failed on a tile") as error:
        backend(np.ones((1, 32, 32), np.float32), np.ones((4, 8, 8), np.float32))
    one_sentence(error)


@pytest.mark.parametrize("shape", ["rows", "band", "number"])
def test_an_image_of_another_size_is_refused(shape, content, tmp_path):
    """One band would be taken for all of them."""
    graph = content.graph
    graph.node[-1].output[0] = "whole"
    if shape == "number":
        graph.node.append(helper.make_node("ReduceMax", ["whole"], ["hrms"], keepdims=0))
    else:
        axis, size = (2, 5) if shape == "rows" else (1, 1)
        for name, value in (("from", 0), ("to", size), ("axis", axis)):
            graph.initializer.append(numpy_helper.from_array(np.array([value], np.int64), name))
        graph.node.append(helper.make_node("Slice", ["whole", "from", "to", "axis"], ["hrms"]))
    for users in graph.node[:-1]:
        assert "hrms" not in users.input
    graph.output[0].type.tensor_type.ClearField("shape")
    pan, ms = World(bands=4, dtype="uint16").write(tmp_path)
    with pytest.raises(ModelError, match=r"x\.onnx gives an image of \(.*\) for a tile of \(1, 4, ") as error:
        sharpen(Job(pan, [ms], tmp_path / "o.tif", model=str(save(content, tmp_path / "x.onnx"))))
    one_sentence(error)
    assert not (tmp_path / "o.tif").exists()


def test_noise_never_gets_through(content, tmp_path):
    """Bytes of a good file changed at random: it is read, or refused in one sentence, and nothing else."""
    whole, noise, refusals = bytearray(content.SerializeToString()), np.random.default_rng(2), []
    for trial in range(40):
        changed = bytearray(whole)
        for place in noise.integers(0, len(whole), 1 + 10 * (trial % 8)):
            changed[place] = noise.integers(256)
        (tmp_path / "x.onnx").write_bytes(changed)
        try:
            OnnxFile.read(tmp_path / "x.onnx")
        except ModelError as error:
            refusals.append(str(error))
    assert refusals
    assert not any("\n" in refusal for refusal in refusals)
