"""What others made is data: nothing in a checkpoint, a model folder, a manifest or an ONNX file is executed, followed
out of its place or trusted to be small, and whatever is wrong with one ends in a sentence.

Parsers get mutations of what is good, the same ones at every run; PANSHARPEN_SLOW=1 tries twenty times as many.
"""

import json
import os
import pickle
import random
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import rasterio
import torch
from safetensors.torch import save
from test_zoo import random_model
from worlds import World

from pansharpen_cli import zoo
from pansharpen_cli.backends.onnx_file import OnnxFile
from pansharpen_cli.batch.manifest import read_manifest
from pansharpen_cli.errors import ModelError, PansharpenError, SceneError
from pansharpen_cli.evaluation.quality import judge
from pansharpen_cli.imaging.displacement import Displacement
from pansharpen_cli.imaging.polynomial import Polynomial
from pansharpen_cli.job import Job
from pansharpen_cli.modelspec import ModelSpec
from pansharpen_cli.official import convert
from pansharpen_cli.pipeline import sharpen
from pansharpen_cli.system.files import digest

pytestmark = pytest.mark.faults

MANY = 20 if "PANSHARPEN_SLOW" in os.environ else 1


# ------------------------------------------------------------------ what would be executed


class Calls:
    """Is a call of `function` when it is unpickled."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def payloads(trace: Path):
    """Objects that make a file `trace` when they are unpickled, by name."""
    touch, python = f"touch {trace}", f"open({str(trace)!r}, 'w')"
    return {
        "os.system": Calls(os.system, touch),
        "subprocess": Calls(subprocess.call, ["touch", str(trace)]),
        "open": Calls(open, str(trace), "w"),
        "exec": Calls(exec, python),
        "eval": Calls(eval, python),
        "import": Calls(__import__, "antigravity"),
        "getattr": Calls(getattr, Calls(__import__, "os"), "system"),
        "Path.touch": Calls(Path.touch, trace),
        "torch.save": Calls(torch.save, torch.zeros(1), str(trace)),
        "torch.load": Calls(torch.load, str(trace)),
        "runpy": Calls(__import__("runpy").run_path, str(trace)),
        "a Python process": Calls(subprocess.Popen, [sys.executable, "-c", python]),
    }


NAMES = list(payloads(Path("x")))


def archive(path: Path, data: bytes) -> None:
    """As torch.save lays it out."""
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", data)
        file.writestr("archive/version", "3\n")
        file.writestr("archive/byteorder", "little")
        file.writestr("archive/code/__torch__.py", "import os")  # TorchScript has such


@pytest.mark.parametrize("form", ["archive", "plain", "in a list", "beside tensors"])
@pytest.mark.parametrize("name", NAMES)
def test_hostile_checkpoints_are_refused_and_never_executed(name: str, form: str, tmp_path: Path):
    """By `import`, under every suffix that it takes, and as the weights of a model folder."""
    trace = tmp_path / "executed"
    payload = payloads(trace)[name]
    if form == "beside tensors":
        payload = OrderedDict({"conv1.weight": torch.zeros(2, 2), "conv2.weight": payload})
    data = pickle.dumps([payload] if form == "in a list" else payload, protocol=2)
    model = random_model(tmp_path / "model", channels=4)
    for path in (tmp_path / "w.pth", tmp_path / "w.ckpt", tmp_path / "w.safetensors", model.folder / zoo.WEIGHTS):
        archive(path, data) if form == "archive" else path.write_bytes(data)
    for suffix in ("pth", "ckpt", "safetensors"):
        with pytest.raises(ModelError, match="nothing else is loaded"):
            convert(tmp_path / f"w.{suffix}", "adknet", tmp_path / "out", scale=1.0)
    change(model.folder, weights_sha256=digest(model.folder / zoo.WEIGHTS))
    with pytest.raises(ModelError, match="does not fit"):
        zoo.read(model.folder).load()
    assert not trace.exists()
    assert not (tmp_path / "out").exists()


def test_the_payloads_are_live(tmp_path: Path):
    """Unpickled as Python does it, they do what they say."""
    done = []
    for name in ("os.system", "subprocess", "open", "exec", "eval", "Path.touch", "torch.save"):
        trace = tmp_path / name
        pickle.loads(pickle.dumps(payloads(trace)[name]))
        done.append(trace.exists())
    assert all(done)


def change(folder: Path, **entries: object) -> None:
    path = folder / zoo.SPEC
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def test_a_checkpoint_that_claims_the_world_takes_no_memory(tmp_path: Path):
    """A tensor of 10^12 values, of which the file has none."""
    storage = torch.zeros(1).untyped_storage()
    path = tmp_path / "w.pth"
    torch.save({"conv1.weight": torch.tensor([], dtype=torch.float32).set_(storage, 0, (1,))}, path)
    content = path.read_bytes()
    for huge in (b"\x8a\x05\x00\x00\x00\x00\x10",):  # LONG1: 2^36
        path.write_bytes(content.replace(b"K\x01tq", huge + b"tq"))
        with pytest.raises(ModelError):
            convert(path, "adknet", tmp_path / "out", scale=1.0)


# ------------------------------------------------------------------ parsers


def mutated(content: bytes, chance: random.Random) -> bytes:
    """Bits flipped, parts cut out, doubled, or overwritten by lengths that lie."""
    found = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(max(1, len(found)))
        kind = chance.randrange(5)
        if kind == 0 and found:
            found[at] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del found[at : at + chance.choice((1, 4, 64, 4096))]
        elif kind == 2:
            found[at:at] = found[at : at + chance.choice((1, 8, 256))]
        elif kind == 3:
            found[at : at + 4] = chance.choice((b"\xff", b"\0", b"\x7f", b"\x80")) * 4
        else:
            found[at : at + 8] = struct.pack("<Q", chance.choice((2**63, 2**64 - 1, 2**40, len(content))))
    return bytes(found)


def survives(parse, content: bytes, *expected: type[Exception]) -> None:
    """Parsing ends, well or in one of our sentences."""
    message = "parsed"
    try:
        parse(content)
    except expected as error:
        message = str(error).strip()
    assert message
    assert "\n" not in message


JUNK = (
    None, True, -1, 0, 3, 10**30, 1e308, -0.0, float("nan"), float("inf"), "", "a", "\0", "x" * 5000, [], [[]], {},
    [1, "a"], {"": None}, {"kind": "fixed"}, ["blue"] * 3, "\ud800",
)  # fmt: skip


def shaken(value: object, chance: random.Random) -> object:
    """A JSON value with something in it replaced, gone or added."""
    if chance.random() < 0.15:
        return chance.choice(JUNK)
    if isinstance(value, dict):
        kept = {key: part for key, part in value.items() if chance.random() > 0.03}
        key = chance.choice([*kept, "more"])
        return kept | {key: shaken(kept.get(key), chance)}
    if isinstance(value, list) and value:
        at = chance.randrange(len(value))
        return [*value[:at], shaken(value[at], chance), *value[at + 1 :]]
    return chance.choice(JUNK)


def test_descriptions_of_models(tmp_path: Path):
    """Whatever is read as one is one: it can be written and read again."""
    text, chance = random_model(tmp_path / "m", channels=4).spec.to_json(), random.Random(0)

    def parse(content: bytes) -> None:
        spec = ModelSpec.from_json(content.decode(errors="replace"), "spec.json")
        assert ModelSpec.from_json(spec.to_json(), "again").to_json() == spec.to_json()

    for _ in range(500 * MANY):
        survives(parse, mutated(text.encode(), chance), ModelError)
        survives(parse, json.dumps(shaken(json.loads(text), chance)).encode(), ModelError)
    for bomb in ("[" * 10**5, '{"a":' * 10**5, "9" * 10**5, f'"{"x" * 10**6}"'):
        with pytest.raises(ModelError):
            ModelSpec.from_json(bomb, "spec.json")


def test_a_description_asks_for_no_network_of_any_size(tmp_path: Path):
    model = random_model(tmp_path / "m", channels=4)
    for options in ({"channels": 10**9}, {"layers": 10**9}, {"channels": [10**9] * 3}, {"a": [1] * 10**5}):
        change(model.folder, options=options)
        with pytest.raises(ModelError, match="at most"):
            zoo.read(model.folder)
    (model.folder / zoo.SPEC).write_text(" " * 2**21)
    with pytest.raises(ModelError, match="larger"):
        zoo.read(model.folder)


def test_weights(tmp_path: Path):
    model, chance = random_model(tmp_path / "m", channels=4), random.Random(1)
    path = model.folder / zoo.WEIGHTS
    content = path.read_bytes()
    header = struct.unpack("<Q", content[:8])[0] + 8

    def parse(damaged: bytes) -> None:
        path.write_bytes(damaged)
        change(model.folder, weights_sha256=digest(path))
        zoo.read(model.folder).load()

    for _ in range(60 * MANY):
        survives(parse, mutated(content[:header], chance) + content[header:], ModelError)
    for length in (0, 2**20, 2**40, 2**63, 2**64 - 1):
        with pytest.raises(ModelError):
            parse(struct.pack("<Q", length) + content[8:])


def test_checkpoints(tmp_path: Path):
    """Damaged anywhere, they are refused; where only a number is another, it is that of a tensor."""
    chance, path = random.Random(2), tmp_path / "w.pth"
    torch.save({"conv1.weight": torch.zeros(4, 4), "conv1.bias": torch.zeros(4)}, path)
    contents = {path: path.read_bytes(), tmp_path / "w.safetensors": save({"conv1.weight": torch.zeros(4, 4)})}
    for number in range(150 * MANY):
        target = [*contents][number % 2]
        target.write_bytes(mutated(contents[target], chance))
        with pytest.raises(ModelError):
            convert(target, "adknet", tmp_path / "out", scale=1.0)


def test_exported_models(tmp_path: Path):
    """The wire format of any model; what the file says of itself is checked as spec.json is."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper

    shape = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    inner = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "inner", shape[:1], shape[1:])
    node = helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
    weight = helper.make_tensor("w", TensorProto.FLOAT, [2], [1.0, 2.0])
    model = helper.make_model(helper.make_graph([node], "g", shape[:1], shape[1:], [weight]))
    spec = random_model(tmp_path / "m", channels=4).spec
    onnx.helper.set_model_props(model, {"pansharpen": spec.to_json(), "pansharpen.bands": "4"})
    content, chance = model.SerializeToString(), random.Random(3)
    assert OnnxFile.of(content, tmp_path / "m.onnx").spec == spec
    for _ in range(1000 * MANY):
        survives(lambda damaged: OnnxFile.of(damaged, tmp_path / "m.onnx"), mutated(content, chance), ModelError)


MANIFEST = (
    "pan,ms,out,model,coregister,bands,band_names,nodata,sensor,resampling,dtype,format,creation_options,tile\n"
    'a/pan.tif,a/ms.tif,a,exp,"1,2",1;2,red;green,0,WV3,cubic,uint16,cog,COMPRESS=ZSTD,256\n'
)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_manifests(suffix: str, tmp_path: Path):
    """Products stay in their folder, whatever a manifest says."""
    path, chance = tmp_path / f"m{suffix}", random.Random(4)
    common = Job(pan="", ms=(), output=tmp_path)
    head, row = (line.split(",") for line in MANIFEST.replace('"1,2"', "1;2").splitlines())
    rows = dict(zip(head, row, strict=True)) | {"coregister": "1,2"}

    def parse(content: bytes) -> None:
        path.write_bytes(content)
        for job in read_manifest(path, tmp_path / "out", common):
            assert job.output.resolve().is_relative_to(tmp_path / "out")

    for _ in range(400 * MANY):
        survives(parse, mutated(MANIFEST.encode(), chance), SceneError)
        survives(parse, json.dumps(shaken(rows, chance)).encode(), SceneError)
    for bomb in (b"[" * 10**5, b'{"pan":' * 10**5, b'"' * 10**6, b"pan,ms\n" + b"a" * 2**20 + b",b"):
        survives(parse, bomb, PansharpenError)


GONE_BY = {"MS", "MS_SHA256", "PAN", "BANDS", "SHIFT_APPLIED", "SHIFT_FIELD", "RATIO", "MS_INTERPOLATED", "SENSOR"}


def test_tags_of_products(tmp_path: Path):
    """`qnr` and `report` go by them, and anybody can write some."""
    pan, ms = World(bands=3, dtype="uint16", pan_size=(64, 64), ms_size=(16, 16)).write(tmp_path)
    product, chance = tmp_path / "out.tif", random.Random(5)
    field = Displacement.of(Polynomial((32.0, 32.0), (20.0, 20.0), ((0.5, -0.5), (0.1, 0.2), (-0.1, 0.3))))
    sharpen(Job(pan, [ms], product, model="exp", coregister=field, threads=1))
    with rasterio.open(product) as file:
        tags = file.tags(ns="PANSHARPEN")
    for _ in range(60 * MANY):
        name = chance.choice(
            ["MS", "MS_SHA256", "PAN", "BANDS", "SHIFT_APPLIED", "SHIFT_FIELD", "RATIO", "MS_INTERPOLATED", "SENSOR"]
        )
        junk = (
            "",
            "1",
            "-1",
            "[1]",
            "[[]]",
            "{}",
            "nan,nan",
            "1,2,3",
            "x",
            "[" * 10**4,
            "1e400,0",
            "[true]",
            "99999999",
        )
        other = chance.choice([*junk, mutated(tags[name].encode(), chance).decode(errors="ignore").replace("\0", "")])
        with rasterio.open(product, "r+") as file:
            file.update_tags(ns="PANSHARPEN", **tags | {name: other})
        survives(lambda _: judge(product, metrics=["D_lambda"]), b"", SceneError)
