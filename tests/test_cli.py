"""The command line, as a strict user meets it: every wrong input ends in one sentence, the documented exit code and an
untouched folder; results go to stdout, everything else to stderr; a run that is stopped leaves nothing behind."""

import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import warnings

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from test_zoo import change, random_model
from worlds import CORNER, UTM, World, save

from pansharpen_cli.classical import METHODS
from pansharpen_cli.cli import app, console
from pansharpen_cli.system.signals import ENDING

PROGRAM = [sys.executable, "-c", "from pansharpen_cli.cli.app import main; main()"]
QUIET_LIBRARIES = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(autouse=True)
def as_before(monkeypatch, tmp_path):
    """What the program sets for its process is set back; it finds no models but those of the test."""
    monkeypatch.setenv("PANSHARPEN_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    acting = {number: signal.getsignal(number) for number in (signal.SIGINT, *ENDING)}
    logger = logging.getLogger("pansharpen_cli")
    handlers, level = logger.handlers, logger.level
    with warnings.catch_warnings():
        yield
    for number, handler in acting.items():
        signal.signal(number, handler)
    logger.handlers, logger.level = handlers, level


@pytest.fixture
def pansharpen(monkeypatch, capfd):
    """Call the program: exit code, stdout, stderr."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["pansharpen", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            app.main()
        return exit_.value.code or 0, *capfd.readouterr()

    return call


def without_georeference(path, image, **profile):
    height, width = image.shape[1:]
    with rasterio.open(
        path, "w", driver="GTiff", count=len(image), height=height, width=width, dtype="uint16", **profile
    ) as file:
        file.write(np.rint(image).astype("uint16"))


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """The folder in which the user works: pan.tif and ms.tif that belong together, and many files that do not."""
    folder = tmp_path / "desk"
    folder.mkdir()
    monkeypatch.chdir(folder)
    world = World(bands=4, dtype="uint16")
    pan, ms = world.pan_image(), world.ms_image()
    world.write(folder)
    World(bands=4, dtype="uint16", offset=(10**5, 0)).write(folder, name="far_")
    World(bands=4, dtype="uint16", ratio=3, pan_size=(96, 126), ms_size=(32, 42)).write(folder, name="third_")
    save(folder / "rgb.tif", np.repeat(pan, 3, axis=0), world.pan_sheet, dtype="uint16")
    coarse = World(bands=1, dtype="uint16", ratio=1, gsd=(8.0, -8.0), pan_size=(24, 32), ms_size=(24, 32))
    save(folder / "coarse.tif", coarse.pan_image(), coarse.pan_sheet, dtype="uint16")
    save(folder / "empty.tif", 0 * pan, world.pan_sheet, dtype="uint16", nodata=0)
    save(folder / "complex.tif", pan, world.pan_sheet, dtype="complex64")
    rotated = world.pan_sheet.transform @ Affine.rotation(10)
    without_georeference(folder / "rotated.tif", pan, transform=rotated, crs=CRS.from_string("EPSG:32631"))
    ends = ((0, 0), (0, 128), (96, 0))
    corners = [GroundControlPoint(row, col, CORNER[0] + 2 * col, CORNER[1] - 2 * row) for row, col in ends]
    without_georeference(folder / "gcps.tif", pan, gcps=corners, crs=CRS.from_string(UTM))
    without_georeference(folder / "plain.tif", pan)
    without_georeference(folder / "plain_ms.tif", ms)
    (folder / "text.tif").write_text("not a raster\n")
    (folder / "cut.tif").write_bytes((folder / "ms.tif").read_bytes()[:-2000])
    (folder / "existing.tif").write_text("mine\n")
    (folder / "folder").mkdir()
    return folder


def contents(folder):
    """Everything in a folder, hidden or not."""
    return {path.relative_to(folder): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def sentence(err):
    """The one error message on stderr, which is its last line."""
    lines = err.splitlines()
    messages = [line for line in lines if line.startswith("pansharpen: ")]
    assert len(messages) == 1
    assert lines[-1] == messages[0]
    assert "Traceback" not in err
    message = messages[0].removeprefix("pansharpen: ")
    assert not message.startswith("unexpected ")  # that is how a defect is announced
    return message


PAIR = ["pan.tif", "ms.tif"]
MODEL = ["--model", "bgrn"]

WRONG = {
    "missing PAN": (["nowhere.tif", "ms.tif"], 3, "nowhere.tif"),
    "missing MS": (["pan.tif", "nowhere.tif"], 3, "nowhere.tif"),
    "PAN not in UTF-8": (["\udce9.tif", "ms.tif"], 3, "not UTF-8; rename it"),
    "output not in UTF-8": ([*PAIR, "-o", "\udce9.tif"], 1, "not UTF-8; give another"),
    "output not in UTF-8, after --adapt": ([*PAIR, "-o", "\udce9.tif", "--adapt"], 1, "not UTF-8"),
    "folder as PAN": (["folder", "ms.tif"], 3, "folder"),
    "text as PAN": (["text.tif", "ms.tif"], 3, "text.tif"),
    "text as MS": (["pan.tif", "text.tif"], 3, "text.tif"),
    "cut MS": (["pan.tif", "cut.tif"], 3, "cut.tif"),
    "MS as PAN": (["ms.tif", "pan.tif"], 3, "ms.tif"),
    "PAN of three bands": (["rgb.tif", "ms.tif"], 3, "rgb.tif"),
    "MS finer than PAN": (["coarse.tif", "rgb.tif"], 3, "rgb.tif"),
    "same pixels": (["pan.tif", "rgb.tif"], 3, "rgb.tif"),
    "no overlap": (["pan.tif", "far_ms.tif"], 3, "far_ms.tif"),
    "rotated, in another CRS": (["rotated.tif", "ms.tif"], 3, "rotated.tif"),
    "GCPs": (["gcps.tif", "ms.tif"], 3, "gcps.tif"),
    "complex": (["complex.tif", "ms.tif"], 3, "complex.tif"),
    "one not georeferenced": (["plain.tif", "ms.tif"], 3, "plain.tif"),
    "nothing but nodata": (["empty.tif", "ms.tif"], 3, "empty.tif"),
    "files on other grids": (["pan.tif", "ms.tif", "third_ms.tif"], 3, "third_ms.tif"),
    "band that is not there": ([*PAIR, "--bidx", "9"], 3, "9"),
    "band 0": ([*PAIR, "--bidx", "0"], 3, "0"),
    "too few names": ([*PAIR, "--band-names", "red,green"], 3, "2"),
    "name that is empty": ([*PAIR, "--band-names", "red,green,blue,"], 2, "--band-names"),
    "unknown model": ([*PAIR, "--model", "nobody's"], 4, "nobody's"),
    "folder without a model": ([*PAIR, "--model", "./folder"], 4, "folder"),
    "too few bands for the model": ([*PAIR, *MODEL, "-b", "1-3"], 4, "bands"),
    "ratio of no model": (["third_pan.tif", "third_ms.tif", *MODEL], 4, "ratio"),
    "no such GPU": ([*PAIR, *MODEL, "--device", "cuda:99"], 4, "--device"),
    "no such GPU for a classical method": ([*PAIR, "--model", "exp", "--device", "cuda:99"], 4, "--device"),
    "no such device": ([*PAIR, *MODEL, "--device", "abacus"], 4, "--device"),
    "no such device for a classical method": ([*PAIR, "--model", "exp", "--device", "abacus"], 4, "--device"),
    "classical method to --adapt": ([*PAIR, "--model", "gsa", "--adapt"], 4, "gsa is a classical method"),
    "bad --nodata": ([*PAIR, "--nodata", "few"], 2, "--nodata"),
    "--nodata with a fraction": ([*PAIR, "--nodata", "0.5"], 2, "--nodata"),
    "--nodata too large": ([*PAIR, "--nodata", "99999999"], 2, "--nodata"),
    "--nodata nan for integers": ([*PAIR, "--nodata", "nan"], 2, "--nodata"),
    "--nodata beyond --dtype": ([*PAIR, "--nodata", "-1", "--dtype", "uint8"], 2, "--nodata"),
    "bad --coregister": ([*PAIR, "--coregister", "please"], 2, "--coregister"),
    "half a --coregister": ([*PAIR, "--coregister", "1,"], 2, "--coregister"),
    "--coregister beyond the scene": ([*PAIR, "--coregister", "9999,9999"], 3, "overlap"),
    "bad --max-memory": ([*PAIR, "--max-memory", "much"], 2, "--max-memory"),
    "--max-memory of a scheduler's workers": (
        [*PAIR, "--max-memory", "4G", "--scheduler", "tcp://127.0.0.1:1"],
        2,
        "--max-memory",
    ),
    "bad --bidx": ([*PAIR, "--bidx", "red"], 2, "--bidx"),
    "--bidx backwards": ([*PAIR, "--bidx", "3-1"], 2, "--bidx"),
    "bad --co": ([*PAIR, "--co", "COMPRESS"], 2, "--co"),
    "unknown --co": ([*PAIR, "--co", "COLOUR=NICE"], 1, "COLOUR"),
    "unknown codec": ([*PAIR, "--co", "COMPRESS=MAGIC"], 1, "MAGIC"),
    "codec for another type": ([*PAIR, "--co", "COMPRESS=JPEG"], 1, "JPEG"),
    "bad --dtype": ([*PAIR, "--dtype", "uint12"], 2, "--dtype"),
    "empty --dtype": ([*PAIR, "--dtype", ""], 2, "--dtype"),
    "empty --scheduler": ([*PAIR, "--scheduler", ""], 2, "--scheduler"),
    "bad --sensor": ([*PAIR, "--sensor", "Sputnik"], 2, "--sensor"),
    "existing output": ([*PAIR, "-o", "existing.tif"], 1, "--overwrite"),
    "output in no folder": ([*PAIR, "-o", "nowhere/out.tif"], 1, "nowhere"),
    "folder as output": ([*PAIR, "-o", "folder", "--overwrite"], 1, "folder"),
    "output is the PAN": ([*PAIR, "-o", "pan.tif", "--overwrite"], 1, "pan.tif"),
    "output is the MS": ([*PAIR, "-o", "./ms.tif", "--overwrite"], 1, "ms.tif"),
    "only a folder's name as output": ([*PAIR, "-o", "products/"], 2, "products/ is the name of a folder"),
    "this folder as output": ([*PAIR, "-o", "."], 2, ". is the name of a folder"),
    "empty output": ([*PAIR, "-o", ""], 2, "-o is empty"),
    "empty PAN": (["", "ms.tif"], 2, "the argument after run is empty"),
    "empty --bounds": ([*PAIR, "--bounds", ""], 2, "--bounds is empty"),
    "empty --window after =": ([*PAIR, "--window="], 2, "--window= is empty"),
    "quicklook is the output": ([*PAIR, "-o", "new.tif", "--quicklook", "new.tif"], 1, "new.tif"),
    "quicklook is the PAN": ([*PAIR, "--quicklook", "pan.tif"], 1, "pan.tif"),
    "quicklook in no folder": ([*PAIR, "--quicklook", "nowhere/out.png"], 1, "nowhere"),
    "quicklook is the style": ([*PAIR, "--quicklook", "out.qml", "--qgis-style"], 1, "out.qml"),
    "quicklook exists": ([*PAIR, "--quicklook", "existing.tif"], 1, "existing.tif"),
    "quicklook of another format": ([*PAIR, "--quicklook", "out.JPG"], 2, "name it .png"),
    "quicklook as GeoTIFF": ([*PAIR, "--quicklook", "quick.tif"], 2, "name it .png"),
    "output of another format": ([*PAIR, "-o", "out.png"], 2, "name it .tif"),
    "output of another format over an older one": ([*PAIR, "-o", "out.JP2", "--overwrite"], 2, "name it .tif"),
    "output of another format in a store": ([*PAIR, "-o", "s3://bucket/out.vrt"], 2, "s3://bucket/out.vrt"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_input_ends_in_one_sentence(name, desk, tmp_path, pansharpen):
    arguments, expected, mentioned = WRONG[name]
    if "bgrn" in arguments:
        random_model(tmp_path / "models" / "bgrn", channels=4)
    before = contents(desk)
    output = [] if "-o" in arguments else ["-o", "out.tif"]
    code, out, err = pansharpen("run", *arguments, *output)
    assert mentioned in sentence(err)
    assert code == expected
    assert out == ""
    assert contents(desk) == before


@pytest.mark.parametrize("harm", ["weights", "spec.json", "options", "no weights", "not even a folder"])
def test_a_damaged_model_ends_in_one_sentence(harm, desk, tmp_path, pansharpen):
    folder = random_model(tmp_path / "models" / "bgrn", channels=4).folder
    if harm == "weights":
        with open(folder / "weights.safetensors", "ab") as file:
            file.write(b"\0")
    elif harm == "spec.json":
        (folder / "spec.json").write_text('{"name": ')
    elif harm == "options":
        change(folder, options={"channels": 8})
    elif harm == "no weights":
        (folder / "weights.safetensors").unlink()
    else:
        shutil.rmtree(folder)
    before = contents(desk)
    code, out, err = pansharpen("run", *PAIR, "-o", "out.tif", "--model", folder)
    assert str(folder) in sentence(err)
    assert (code, out) == (4, "")
    assert contents(desk) == before


@pytest.mark.parametrize(
    ("arguments", "mentioned"),
    [
        (["run", *PAIR], "--output"),
        (["run", "pan.tif", "-o", "out.tif"], "ms"),
        (["run", *PAIR, "-o", "out.tif", "--format", "png"], "--format"),
        (["run", *PAIR, "-o", "out.tif", "--resampling", "magic"], "--resampling"),
        (["run", *PAIR, "-o", "out.tif", "--tile-size", "5"], "--tile-size"),
        (["run", *PAIR, "-o", "out.tif", "--threads", "-1"], "--threads"),
        (["run", *PAIR, "-o", "out.tif", "--no-such-option"], "--no-such-option"),
        (["sharpen", *PAIR], "sharpen"),
    ],
    ids=lambda value: value[-2:] if isinstance(value, list) else value,
)
def test_what_the_parser_refuses_is_usage(arguments, mentioned, desk, pansharpen):
    before = contents(desk)
    code, out, err = pansharpen(*arguments)
    assert (code, out) == (2, "")
    assert mentioned in err
    assert "Traceback" not in err
    assert contents(desk) == before


def test_what_the_parser_refuses_is_said_in_plain_words(desk, pansharpen):
    """Without the prefix of the library that checks values."""
    _, _, err = pansharpen("run", *PAIR, "-o", "out.tif", "--format", "png")
    assert err.splitlines()[-1].startswith("Error: Invalid value for '--format' / '-f': 'png' is not one of")


@pytest.mark.parametrize("name", ["out", "out.product", "out.TIFF"])
def test_a_name_that_promises_no_other_format_is_taken(name, desk, pansharpen):
    assert pansharpen("run", *PAIR, "-o", name, "-m", "exp", "--coregister", "off", "-f", "COG")[0] == 0
    with rasterio.open(name) as file:
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"


@pytest.mark.parametrize("command", [["run"], ["adapt"], ["eval"], ["batch"], ["train", "--validate", "."]])
def test_an_unknown_device_is_answered_with_the_known_ones(command, desk, pansharpen):
    inputs = {"batch": ["."], "train": ["--bands", "red", "--ratio", "2", "."]}.get(command[0], PAIR)
    output = [] if command == ["eval"] else ["-o", "out"]
    code, out, err = pansharpen(*command, *inputs, *output, "--device", "tpu")
    assert (code, out) == (4, "")
    assert sentence(err).endswith("auto, cpu, cuda or cuda:N, with onnx also tensorrt")


@pytest.mark.parametrize(
    "options",
    [
        ["--device", "cpu,cuda:0"],
        ["--device", "cpu,cpu,cpu", "--workers", "2"],
        ["--scheduler", ""],
        ["--dtype", ""],
    ],
    ids=" ".join,
)
def test_options_of_a_batch_that_make_no_sense_are_usage(options, desk, pansharpen):
    code, out, err = pansharpen("batch", ".", "-o", "out", *options)
    assert (code, out) == (2, "")
    assert sentence(err).startswith(options[0])
    assert not (desk / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["adapt", *PAIR, "-o", "mine", "-m", "gsa"],
        ["adapt", *PAIR, "-o", "mine", "-m", "premix-b-per-band.x4,gsa"],
        ["export", "gsa", "-o", "gsa.onnx"],
        ["models", "verify", "gsa"],
    ],
    ids=" ".join,
)
def test_what_only_a_network_can_is_said_so(arguments, desk, pansharpen):
    before = contents(desk)
    code, out, err = pansharpen(*arguments)
    assert (code, out) == (4, "")
    assert sentence(err).startswith("gsa is a classical method, which cannot be ")
    assert contents(desk) == before


@pytest.mark.parametrize("command", [["batch", "nowhere"], ["batch", "nowhere.csv"]])
def test_scenes_that_are_not_there_are_said_so(command, desk, pansharpen):
    code, _, err = pansharpen(*command, "-o", "products")
    assert code == 3
    assert sentence(err).startswith(f"{command[1]} does not exist; ")
    assert not (desk / "products").exists()


def test_maps_of_quality_are_not_replaced_unasked(desk, pansharpen, monkeypatch):
    """Any of them; which is said before the product is looked at."""
    assert pansharpen("run", *PAIR, "-o", "out.tif", "-m", "exp", "-q")[0] == 0
    assert pansharpen("qnr", "out.tif", "--maps", "maps")[0] == 0
    made = os.listdir("maps")
    shutil.rmtree(desk / "maps")
    (desk / "maps").mkdir()
    for name in made:
        (desk / "maps" / name).write_text("mine")
        with monkeypatch.context() as patch:
            patch.setattr("pansharpen_cli.evaluation.quality.judge", lambda *_, **__: pytest.fail("it is looked at"))
            code, out, err = pansharpen("qnr", "out.tif", "--maps", "maps")
        assert (code, out) == (1, "")
        assert sentence(err) == f"maps/{name} exists; choose another name or --overwrite it"
        assert (desk / "maps" / name).read_text() == "mine"
        (desk / "maps" / name).unlink()
    (desk / "maps/HQNR.tif").write_text("mine")
    assert pansharpen("qnr", "out.tif", "--maps", "maps", "--overwrite")[0] == 0
    assert set(os.listdir("maps")) == set(made)
    assert (desk / "maps/HQNR.tif").read_bytes() != b"mine"


def test_secrets_in_urls_stay_out_of_messages(desk, pansharpen):
    url = "/vsicurl/http://user:hunter2@127.0.0.1:9/pan.tif?token=0a1b2c"  # nobody listens there
    code, _, err = pansharpen("run", url, "ms.tif", "-o", "out.tif")
    assert code == 3
    assert "127.0.0.1" in sentence(err)
    assert "hunter2" not in err
    assert "0a1b2c" not in err


@pytest.mark.parametrize("verbosity", [["-vv"], ["-v", "-v"], ["-qvv"]])
def test_a_traceback_is_for_those_who_ask(verbosity, desk, pansharpen):
    _, _, err = pansharpen("run", *PAIR, "-o", "out.tif", "--model", "nobody's", *verbosity)
    assert "Traceback" in err
    _, _, err = pansharpen("run", *PAIR, "-o", "out.tif", "--model", "nobody's", "-v")
    assert "Traceback" not in err


def test_a_defect_is_one_line_too(desk, pansharpen, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("at\nnight")

    monkeypatch.setattr("pansharpen_cli.pipeline.choose", fail)
    code, out, err = pansharpen("run", *PAIR, "-o", "out.tif")
    assert (code, out) == (1, "")
    assert err.startswith("pansharpen: unexpected ZeroDivisionError")
    assert err.count("\n") == 1


def strictly(text):
    """One JSON value and nothing else; NaN and Infinity are no JSON."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_json_is_one_object_on_stdout(desk, pansharpen):
    method = "--model", "mtf-glp-fs"
    code, out, err = pansharpen("run", *PAIR, "-o", "out.tif", *method, "--json", "--quicklook", "out.png")
    found = strictly(out)
    assert code == 0
    assert (found["path"], found["quicklook"]) == ("out.tif", "out.png")
    assert (found["height"], found["width"], found["dtype"]) == (96, 128, "uint16")
    assert found["bands"] == ["blue", "green", "red", "nir"]
    assert found["method"] == "mtf-glp-fs"
    assert set(found["shift"]) == {"dx", "dy", "confidence", "spread", "windows", "field"}
    assert "mtf-glp-fs" in err  # the rest is still told, elsewhere
    code, out, err = pansharpen("run", *PAIR, "-o", "quiet.tif", *method, "--json", "-q", "--coregister", "off")
    assert (code, err) == (0, "")
    assert strictly(out)["shift"] is None


@pytest.mark.parametrize("ending", [["nobody's"], []])
def test_json_of_a_failure_is_no_half_object(ending, desk, pansharpen):
    code, out, _ = pansharpen("run", *PAIR, "-o", "out.tif", "--json", "--model", *(ending or ["./folder"]))
    assert (code, out) == (4, "")


def test_models_are_listed(tmp_path, pansharpen):
    scores = {"a.x": {"ergas": 2.0, "sam": 3.0}, "exp": {"ergas": 4.0, "sam": 5.0}}
    random_model(tmp_path / "models" / "a.x", channels=4, scores=scores)
    random_model(tmp_path / "models" / "b.x", channels=4)
    code, out, err = pansharpen("models")
    assert (code, err) == (0, "")
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert {"a.x", "b.x"} <= set(lines)
    assert "2.00" in lines["a.x"]
    assert "blue, green, red, nir" in lines["b.x"]
    assert pansharpen("models", "a.x") == (0, "# a.x\n\n", "")


def test_classical_methods_are_listed_after_the_networks(tmp_path, pansharpen):
    random_model(tmp_path / "models" / "a.x", channels=4)
    _, out, _ = pansharpen("models")
    listed = [line.partition(" ")[::2] for line in out.splitlines()[-len(METHODS) :]]
    assert [(name, title.strip()) for name, title in listed] == [(n, m.title) for n, m in METHODS.items()]
    code, out, _ = pansharpen("models", "gsa")
    assert code == 0
    assert METHODS["gsa"].title in out
    assert METHODS["gsa"].citation in out
    assert strictly(pansharpen("models", "gsa", "--json")[1]) == {
        "name": "gsa", "title": METHODS["gsa"].title, "citation": METHODS["gsa"].citation
    }  # fmt: skip
    assert "did you mean gsa?" in pansharpen("models", "gsaa")[2]


@pytest.mark.parametrize("arguments", [[], ["a.x"]], ids=["all", "one"])
def test_models_as_json_is_one_value(arguments, tmp_path, pansharpen):
    """A list of models, or one of them."""
    random_model(tmp_path / "models" / "a.x", channels=4)
    code, out, err = pansharpen("models", *arguments, "--json")
    assert (code, err) == (0, "")
    assert isinstance(strictly(out), dict if arguments else list)


def test_a_run_tells_on_stderr_what_it_did(desk, pansharpen):
    code, out, err = pansharpen("run", *PAIR, "-o", "out.tif", "--model", "gsa")
    assert (code, out) == (0, "")
    for told in ("gsa", "out.tif", "128 x 96", "4 bands", "uint16", "PAN lies"):
        assert told in err


@pytest.mark.parametrize("pair", [PAIR, ["plain.tif", "plain_ms.tif"]], ids=["georeferenced", "not georeferenced"])
def test_quiet_is_silent(pair, desk):
    """In a process of its own: warnings of the libraries are noise too."""
    command = [*PROGRAM, "run", *pair, "-o", "out.tif", "-q", "--model", "exp", "--quicklook", "out.png"]
    done = subprocess.run(command, cwd=desk, env=QUIET_LIBRARIES, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    with rasterio.open(desk / "out.tif") as file:
        assert file.shape == (96, 128)
    assert (desk / "out.png").read_bytes().startswith(b"\x89PNG")


def test_overwrite_replaces(desk, pansharpen):
    code, *_ = pansharpen("run", *PAIR, "-o", "existing.tif", "--overwrite")
    assert code == 0
    with rasterio.open("existing.tif") as file:
        assert file.count == 4


def test_options_reach_the_product(desk, pansharpen):
    """Each as its user writes it."""
    arguments = ["-b", "3,1-2", "-t", "float32", "-f", "cog", "--co", "COMPRESS=ZSTD", "--co", "blocksize=256"]
    arguments += ["--nodata", "nan", "-r", "cubic", "--coregister", "-1.5,2", "--tile-size", "64", "-j", "1"]
    code, *_ = pansharpen("run", *PAIR, "-o", "out.tif", "-m", "exp", "--sensor", "WV2", *arguments)
    assert code == 0
    with rasterio.open("out.tif") as file:
        assert file.descriptions == ("red", "blue", "green")
        assert (set(file.dtypes), file.block_shapes[0]) == ({"float32"}, (256, 256))
        assert np.isnan(file.nodata)
        assert file.tags(ns="IMAGE_STRUCTURE")["COMPRESSION"] == "ZSTD"
        assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        tags = file.tags(ns="PANSHARPEN")
    assert (tags["COREGISTER"], tags["SHIFT_APPLIED"]) == ("given", "-1.5000,2.0000")
    assert (tags["MS_INTERPOLATED"], tags["SENSOR"]) == ("cubic", "WV2")


def test_bands_of_several_files_are_named_and_chosen_together(desk, pansharpen):
    """`--bidx` counts the bands of the MS, however many files they come in."""
    with rasterio.open("ms.tif") as source:
        for index, name in enumerate("BGRN", start=1):
            with rasterio.open(f"{name}.tif", "w", **source.profile | {"count": 1}) as file:
                file.write(source.read(index), 1)
    files = [f"{name}.tif" for name in "BGRN"]
    code, *_ = pansharpen("run", "pan.tif", *files, "-o", "out.tif", "--band-names", "blue,green,red,nir", "-m", "exp")
    assert code == 0
    code, _, err = pansharpen("run", "pan.tif", *files, "-o", "two.tif", "--bidx", "4,1", "-m", "exp")
    assert code == 0, err
    with rasterio.open("out.tif") as out, rasterio.open("two.tif") as two:
        assert out.descriptions == ("blue", "green", "red", "nir")
        assert two.descriptions == ("N", "B")
        assert np.array_equal(two.read(), out.read([4, 1]))


@pytest.mark.parametrize("known", [True, False], ids=["Linux", "elsewhere"])
def test_threads_are_as_many_as_asked_for(known, monkeypatch):
    """Also where the system does not tell how many this process may have."""
    if known:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 2, 3}, raising=False)
    else:
        monkeypatch.delattr(os, "sched_getaffinity", raising=False)
        monkeypatch.setattr(os, "cpu_count", lambda: 3)
    assert (console.threads(2), console.threads(0)) == (2, 3)


SMALLEST_APP = """
import typer
app = typer.Typer()
app.command()(lambda name: None)
app()
"""


def test_help_is_quick():
    """Beside the smallest program of the same library, in CPU time and new processes, in turn. The least of many: what
    else the machine does, and its clock, only add to it."""
    commands = {"ours": PROGRAM, "smallest": [sys.executable, "-c", SMALLEST_APP]}
    least = dict.fromkeys(commands, float("inf"))
    for again in range(60):
        for name, command in commands.items():
            process = subprocess.Popen([*command, "--help"], stdout=subprocess.DEVNULL)
            _, status, usage = os.wait4(process.pid, 0)
            assert status == 0
            least[name] = min(least[name], usage.ru_utime + usage.ru_stime)
        if again >= 8 and least["ours"] < 1.5 * least["smallest"]:
            return
    pytest.fail(f"a help takes {least['ours']:.3f} s, the smallest program's {least['smallest']:.3f} s")


@pytest.mark.parametrize("command", [[], ["run"], ["models"], ["train"], ["import"]])
def test_help_loads_nothing_heavy(command):
    script = f"""
import sys
from pansharpen_cli.cli.app import main
sys.argv = {["pansharpen", *command, "--help"]!r}
try:
    main()
finally:
    print(*sorted({{"torch", "rasterio", "safetensors"}} & set(sys.modules)), file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "Usage:" in done.stdout
    assert done.stderr.split() == []


def test_a_classical_run_does_not_load_torch(desk):
    """It takes seconds to import."""
    script = "import sys; from pansharpen_cli import sharpen; sharpen('pan.tif', 'ms.tif', 'out.tif', model='gsa'); "
    script += "print('torch' in sys.modules)"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=desk, env=QUIET_LIBRARIES, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


HEARING = f"import signal; [signal.signal(number, signal.SIG_DFL) for number in {[*map(int, ENDING)]}]; "
"""Whoever runs the tests may ignore some signals, as nohup does."""


@pytest.fixture
def slow_run(tmp_path):
    """Starts a run in a folder of its own, and gives (process, folder) when it is in the midst of writing."""
    world = World(bands=4, dtype="uint16", pan_size=(1024, 1024), ms_size=(256, 256))
    pan, ms = world.write(tmp_path)
    folder = tmp_path / "out"
    folder.mkdir()
    command = [
        *PROGRAM[:-1],
        HEARING + PROGRAM[-1],
        "run",
        pan,
        ms,
        "-o",
        folder / "out.tif",
        "--coregister",
        "off",
        "-j",
        "1",
    ]
    command += ["--model", "mtf-glp-fs", "--tile-size", "64", "--quicklook", folder / "out.png"]
    process = subprocess.Popen(
        [str(part) for part in command], env=QUIET_LIBRARIES, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    before = set()
    for _ in range(600):  # the same temporary file twice: no longer the rehearsal, which is soon over
        time.sleep(0.3)
        now = {path.name for path in folder.iterdir()}
        if before & now:
            break
        before = now
    assert process.poll() is None
    assert [path.suffix for path in folder.iterdir()] == [".partial"]
    yield process, folder
    process.kill()
    process.communicate()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), *((number, 128 + number) for number in ENDING)])
def test_a_run_that_is_stopped_leaves_nothing(number, code, slow_run):
    process, folder = slow_run
    process.send_signal(number)
    out, err = process.communicate(timeout=20)
    assert process.returncode == code
    assert list(folder.iterdir()) == []
    assert out == ""
    assert "Traceback" not in err
    assert "nothing was written" in err.splitlines()[-1]


def test_what_is_ignored_stays_so():
    """As SIGHUP is by nohup."""
    script = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); from pansharpen_cli.cli import app;"
    script += "app.console.open_streams = lambda: signal.raise_signal(signal.SIGHUP); app.main()"
    done = subprocess.run([sys.executable, "-c", script, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("pansharpen ")


@pytest.mark.parametrize(
    ("streams", "code", "told"),
    [
        ("2>&-", 0, ""),
        ("<&- >&- 2>&-", 0, ""),
        ("2>/dev/full", 0, ""),
        ("--json >/dev/full", 1, "the results cannot be written to standard output: No space left on device"),
    ],
)
def test_what_nobody_takes_does_not_undo_what_was_made(streams, code, told, tmp_path):
    """Closed streams, as of daemons, and logs on a full disk."""
    World(bands=4, dtype="uint16", pan_size=(64, 64), ms_size=(16, 16)).write(tmp_path)
    command = f"{shlex.join(PROGRAM)} run pan.tif ms.tif -o out.tif -m exp {streams}"
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=QUIET_LIBRARIES, capture_output=True, text=True, check=False
    )
    assert done.returncode == code
    assert told in (done.stderr.splitlines() or [""])[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ms.tif", "out.tif", "pan.tif"]


def test_a_run_that_is_killed_leaves_nothing_under_the_name(slow_run):
    process, folder = slow_run
    process.kill()
    process.communicate(timeout=20)
    assert process.returncode == -signal.SIGKILL
    assert all(path.name.startswith(".") and path.suffix == ".partial" for path in folder.iterdir())
