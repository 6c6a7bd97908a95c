"""`pansharpen train` as a user meets it: killed and begun again, on two processes, from manifests and benchmark files,
and with data that cannot be used."""

import csv
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import tracemalloc
import warnings
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
import torch
from safetensors.torch import load_file
from scipy.io import savemat
from test_zoo import random_model

from pansharpen_cli import zoo
from pansharpen_cli.cli import app
from pansharpen_cli.evaluation.assessment import Measures, camera, measure, sharpen
from pansharpen_cli.evaluation.sources import Terms, read_manifest
from pansharpen_cli.imaging.radiometry import Radiometry
from pansharpen_cli.training import prepare
from pansharpen_cli.training.dataset import Patches

PROGRAM = [sys.executable, "-m", "pansharpen_cli"]
ROOT = Path(__file__).parents[1]
TINY = ["-O", "channels=4", "-O", "layers=1", "--device", "cpu", "-j", "1"]
BGRN = ["--bands", "blue,green,red,nir"]


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch):
    """What the program sets for its process is set back."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    handler, logger, threads = (
        signal.getsignal(signal.SIGTERM),
        logging.getLogger("pansharpen_cli"),
        torch.get_num_threads(),
    )
    handlers, level = logger.handlers, logger.level
    with warnings.catch_warnings():
        yield
    signal.signal(signal.SIGTERM, handler)
    logger.handlers, logger.level = handlers, level
    torch.set_num_threads(threads)


@pytest.fixture
def pansharpen(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Call the program: exit code, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pansharpen", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            app.main()
        out, err = capfd.readouterr()
        return exit_.value.code or 0, out, err

    return call


def course(model: Path) -> list[list[str]]:
    """What a log says of the course of a run, beside how long it took."""
    with open(model / "training.csv", newline="") as file:
        return [[row[name] for name in ("step", "loss", "lr", "ergas", "sam", "q2n")] for row in csv.DictReader(file)]


def assert_same_weights(one: Path, other: Path, **tolerance: float) -> None:
    first, second = (load_file(model / zoo.WEIGHTS) for model in (one, other))
    assert first.keys() == second.keys()
    for name, value in first.items():
        torch.testing.assert_close(second[name], value, **tolerance)


def test_killed_and_begun_again_is_as_never_killed(data: Path, tmp_path: Path, pansharpen):
    """A network with dropout, several crops of a scene, and a kill that no code can see coming."""
    arguments = [
        "train", data / "l8_plain_a", "--validate", data / "tiny_l8", *BGRN, "--ratio", "2",
        "--network", "dmanet", "-O", "widths=[4,8,16]", "--device", "cpu", "-j", "1", "--steps", "8", "--batch", "2",
        "--crops-per-scene", "2", "--validate-every", "4", "-o",
    ]  # fmt: skip
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run = subprocess.Popen([*PROGRAM, *arguments, killed], cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    log = killed / "training.csv"
    while not (log.exists() and log.read_text().count("\n") > 5) and time.monotonic() < deadline:
        time.sleep(0.002)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert (killed / "training.state").exists()
    assert zoo.read(killed).load()  # the best model so far can be used at once
    for folder in (killed, whole):
        assert pansharpen(*arguments, folder)[0] == 0
    assert course(killed) == course(whole)
    assert [row[0] for row in course(whole)] == [str(step) for step in range(1, 9)]
    assert_same_weights(whole, killed, rtol=0, atol=0)
    assert not list(killed.glob("training.[sw]*"))


def test_two_processes_learn_what_one_does(data: Path, tmp_path: Path, pansharpen):
    """As torchrun starts them: each with its half of every batch."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = [
        "train", data / "l8_plain_a", "--validate", data / "tiny_l8", *BGRN, "--ratio", "2", *TINY,
        "--steps", "3", "--batch", "4", "-o",
    ]  # fmt: skip
    one, two = tmp_path / "one", tmp_path / "two"
    place = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [
        subprocess.Popen(
            [*PROGRAM, *arguments, two], cwd=ROOT, env={**os.environ, **place, "RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE, text=True,
        )
        for rank in "01"
    ]  # fmt: skip
    told = [rank.communicate(timeout=120)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    assert told == [f"{two}\n", ""]  # only the first speaks
    assert pansharpen(*arguments, one)[0] == 0
    np.testing.assert_allclose(
        *(np.array([row[1:3] for row in course(model)], float) for model in (one, two)), rtol=1e-5
    )
    assert_same_weights(one, two, rtol=1e-4, atol=1e-5)


def test_a_manifest_of_ten_thousand_rows_keeps_memory_flat(data: Path, tmp_path: Path):
    peaks = []
    for rows in (10, 10_000):
        manifest = tmp_path / f"{rows}.csv"
        lines = [
            f"{data}/tiny_l{7 + row % 2}/pan.tif,{data}/tiny_l{7 + row % 2}/ms.tif,scene {row}" for row in range(rows)
        ]
        manifest.write_text("\n".join(["pan,ms,name", *lines]))
        tracemalloc.start()
        scenes = prepare.prepare(read_manifest(manifest, Terms(ratio=2)), 32, tmp_path / str(rows))
        patches = Patches(scenes, Radiometry("scene"), 32, seed=1)
        for step in range(5):
            patches.batch(step, 8)
        peaks.append(tracemalloc.get_traced_memory()[1] / 2**20)
        tracemalloc.stop()
        assert len(scenes) == rows
        assert len(list((tmp_path / str(rows)).iterdir())) == 2  # as many as there are pairs of files
    assert peaks[1] - peaks[0] < 25  # MiB: the rows themselves; the scenes would be 1,700


@pytest.fixture(scope="module")
def benchmark(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stacks like PanCollection's: 64 x 64 patches of QuickBird chips with their truth; and NBU's pairs of folders."""
    folder = tmp_path_factory.mktemp("benchmark")
    for name, chips in (("train.h5", ("00", "01")), ("valid.h5", ("02",))):
        stacks: dict[str, list[np.ndarray]] = {"pan": [], "ms": [], "gt": []}
        for chip in chips:
            for role, stack in stacks.items():
                with rasterio.open(data / f"rr_qb/{chip}/{role}.tif") as file:
                    image, size = file.read(), file.width // 4
                stack += [image[:, :size, index * size : (index + 1) * size] for index in range(4)]
        with h5py.File(folder / name, "w") as file:
            for role, stack in stacks.items():
                file[role] = np.stack(stack).astype(np.float32)
    for place in ("NBU/MS_64", "NBU/PAN_256"):
        (folder / place).mkdir(parents=True)
    with rasterio.open(data / "wv2_park/ms.tif") as ms, rasterio.open(data / "wv2_park/pan.tif") as pan:
        for index in (1, 2):
            window = slice(64 * index, 64 * index + 64)
            fine = slice(4 * window.start, 4 * window.stop)
            savemat(folder / f"NBU/MS_64/{index}.mat", {"imgMS": ms.read()[:, window, window].transpose(1, 2, 0)})
            savemat(folder / f"NBU/PAN_256/{index}.mat", {"imgPAN": pan.read(1)[fine, fine]})
    return folder


def test_a_model_from_a_stack_of_patches(benchmark: Path, tmp_path: Path, pansharpen):
    code, out, err = pansharpen(
        "train", benchmark / "train.h5", "--validate", benchmark / "valid.h5", *BGRN, "--ratio", 4, *TINY,
        "--sensor", "QB", "--steps", 2, "--batch", 2, "-o", tmp_path / "qb",
    )  # fmt: skip
    assert (code, out) == (0, f"{tmp_path / 'qb'}\n"), err
    assert "8 scenes, 8 patches of 64 x 64 MS pixels, rejected: none; 4 validation scenes" in err
    spec = zoo.read(tmp_path / "qb").spec
    assert spec.phase == 2.0
    assert spec.options["phase"] == 2.0  # the network, too, is told where the MS samples are
    assert spec.radiometry.kind == "fixed"
    assert spec.radiometry.scale in (1023, 2047)
    assert "where the field's toolbox does it; DN divided by" in (tmp_path / "qb/README.md").read_text()


def test_a_model_from_pairs_without_a_truth(benchmark: Path, tmp_path: Path, pansharpen):
    code, _, err = pansharpen(
        "train", benchmark / "NBU", "--validate", benchmark / "valid.h5", *BGRN, "--ratio", 4, *TINY,
        "--network", "adknet-per-band", "--steps", 1, "--batch", 2, "-o", tmp_path / "nbu",
    )  # fmt: skip
    assert code == 0, err
    assert "2 scenes, 2 patches of 64 x 64" in err
    assert "phase" not in zoo.read(tmp_path / "nbu").spec.options  # it learns where they are


def test_any_bands_and_weights_to_begin_with(data: Path, tmp_path: Path, pansharpen):
    """Trained on a scene of four bands and one of six, and then on from there."""
    code, _, err = pansharpen(
        "train", data / "l8_plain_a", data / "l8_pamplona_w", "--validate", data / "tiny_l7", "--bands", "any",
        "--ratio", 2,
        "--network", "premix-b-per-band", *TINY, "--steps", 2, "--batch", 2, "-o", tmp_path / "any",
    )  # fmt: skip
    assert code == 0, err
    spec = zoo.read(tmp_path / "any").spec
    assert spec.bands == ()
    assert [zoo.read(tmp_path / "any").load(bands).bands for bands in (1, 6)] == [1, 6]
    code, _, err = pansharpen(
        "train", data / "l8_plain_b", "--validate", data / "tiny_l7", *BGRN, "--ratio", 2, "--init", tmp_path / "any",
        "--consistent", *TINY[-4:], "--steps", 1, "--batch", 2, "-o", tmp_path / "on",
    )  # fmt: skip
    assert code == 0, err
    on = zoo.read(tmp_path / "on").spec
    assert (on.network, on.options) == ("premix-b-per-band", {"channels": 4, "layers": 1, "consistent": True})
    # one warm step of a tenth of a thousandth moves nothing much
    first, second = (load_file(tmp_path / name / zoo.WEIGHTS) for name in ("any", "on"))
    assert all((second[f"network.{name}"] - value).abs().max() < 2e-3 for name, value in first.items())


def test_validation_scores_what_run_would_make(data: Path, tmp_path: Path, pansharpen):
    code, _, err = pansharpen(
        "train", data / "l8_plain_a", "--validate", data / "tiny_l8", *BGRN, "--ratio", 2, "--network", "adknet",
        "-O", "channels=8", "-O", "layers=2", "--consistent", "--sensor", "IKONOS", "--device", "cpu", "-j", 1,
        "--steps", 2, "--batch", 2, "-o", tmp_path / "m",
    )  # fmt: skip
    assert code == 0, err
    from pansharpen_cli.method import choose

    (source,) = read_manifest(
        _manifest(tmp_path, data / "tiny_l8"), Terms(ratio=2, bands=BGRN[1].split(","), sensor="IKONOS")
    )
    scene = source.load()
    method = choose(str(tmp_path / "m"), scene)
    hrms = sharpen(scene, method.backend(scene, source.sensor, "cpu")[0], method.radiometry, method.order, method.phase)
    found = measure(scene, hrms, source.sensor, Measures(("ERGAS", "SAM", "Q2n")))
    scores = zoo.read(tmp_path / "m").spec.scores["m"]
    assert {name.lower(): score.value for name, score in found.items()} == pytest.approx(scores, rel=1e-5)
    assert camera(scene, source.sensor).sensor.name == "IKONOS"


def _manifest(folder: Path, scene: Path) -> Path:
    (folder / "m.csv").write_text(f"pan,ms\n{scene}/pan.tif,{scene}/ms.tif\n")
    return folder / "m.csv"


def _break(folder: Path, data: Path, how: str) -> list[object]:
    """What to give as scenes and bands."""
    shutil.copytree(data / "tiny_l7", folder / "bad")
    bad = folder / "bad"
    match how:
        case "an empty folder":
            (folder / "empty").mkdir()
            return [folder / "empty", *BGRN]
        case "mixed band counts":
            return [data / "l8_plain_a", bad, "--bands", "blue,green,red,nir,swir1"]
        case "PAN and MS swapped":
            os.rename(bad / "pan.tif", bad / "x.tif")
            os.rename(bad / "ms.tif", bad / "pan.tif")
            os.rename(bad / "x.tif", bad / "ms.tif")
        case "nothing but NaN" | "no data anywhere":
            for name in ("pan.tif", "ms.tif"):
                with rasterio.open(bad / name) as file:
                    image, profile = file.read().astype(np.float32), file.profile
                empty = np.nan if "NaN" in how else -32768.0
                profile.update(dtype="float32", nodata=None if "NaN" in how else empty)
                with rasterio.open(bad / name, "w", **profile) as file:
                    file.write(np.full_like(image, empty))
                    file.descriptions = ("blue", "green", "red", "nir")[: len(image)]
        case "a TIFF that was cut short":
            with rasterio.open(bad / "ms.tif") as file:
                image, profile, names = file.read(), file.profile, file.descriptions
            with rasterio.open(bad / "ms.tif", "w", **profile) as file:
                file.descriptions = names
                file.write(image)
            os.truncate(bad / "ms.tif", (bad / "ms.tif").stat().st_size - 1)
            return [data / "l8_plain_a", bad, *BGRN]
        case "an .h5 that was cut short" | "an .h5 with NaN" | "an .h5 in another unit":
            image = np.random.default_rng(0).normal(500, 99, (3, 4, 64, 64)).astype(np.float32)
            for name in ("good.h5", "bad.h5"):
                with h5py.File(folder / name, "w") as file:
                    file["gt"], file["pan"], file["ms"] = image, image[:, :1], image[:, :, ::2, ::2]
                if "NaN" in how:
                    image[2, 0, 5, 5] = np.nan
                image /= 2047 if "unit" in how else 1
            if "short" in how:
                (folder / "bad.h5").write_bytes((folder / "bad.h5").read_bytes()[:-50_000])
            return [folder / "bad.h5", *BGRN]
        case "scenes of two geometries":
            image = np.random.default_rng(0).normal(500, 99, (1, 4, 64, 64)).astype(np.float32)
            with h5py.File(folder / "good.h5", "w") as file:
                file["gt"], file["pan"], file["ms"] = image, image[:, :1], image[:, :, ::2, ::2]
            return [bad, folder / "good.h5", *BGRN]
        case "misregistered scenes":
            with rasterio.open(data / "l8_plain_b/ms.tif") as file:
                image, profile = file.read(), file.profile
            shutil.copy(data / "l8_plain_b/pan.tif", bad / "pan.tif")
            with rasterio.open(bad / "ms.tif", "w", **profile) as file:
                file.write(np.ascontiguousarray(image[:, ::-1, ::-1]))
                file.descriptions = ("blue", "green", "red", "nir", "swir1", "swir2")
    return [bad, *BGRN]


TOLD_AT_A_LOOK = (
    "an empty folder", "mixed band counts", "PAN and MS swapped", "an .h5 that was cut short",
    "a TIFF that was cut short", "scenes of two geometries",
)  # fmt: skip
"""What headers tell, before a scene is prepared."""


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("an empty folder", "empty holds neither a pan.tif nor .h5 or .mat files"),
        ("mixed band counts", "has no band swir1; it has blue, green, red, nir"),
        ("PAN and MS swapped", "pan.tif has 4 bands; a PAN has one (is it the MS?)"),
        ("nothing but NaN", "share no pixel where both hold data"),
        ("no data anywhere", "share no pixel where both hold data"),
        ("an .h5 that was cut short", "bad.h5 cannot be read as .h5 or .mat, it may be cut short"),
        (
            "a TIFF that was cut short",
            "ms.tif ends before its pixels do, as after a copy that broke off; copy it again",
        ),
        ("an .h5 with NaN", "sample 2 of"),
        ("an .h5 in another unit", "and the model's go up to 1; give all in one unit"),
        ("scenes of two geometries", "train on scenes or on benchmark files, not on both"),
        ("only small scenes", "no scene has a usable patch of 64 MS pixels a side"),
        ("misregistered scenes", "no scene has a usable patch of 64 MS pixels a side"),
    ],
)
def test_bad_data_is_one_sentence_before_the_first_step(data: Path, tmp_path: Path, pansharpen, how: str, told: str):
    output = tmp_path / "model"
    scenes = _break(tmp_path, data, how)
    held_out = tmp_path / "good.h5" if "an .h5" in how else data / "tiny_l8"
    code, out, err = pansharpen(
        "train", *scenes, "--validate", held_out, "--ratio", 2, *TINY, "--steps", 9, "-o", output
    )
    assert (code, out) == (3, "")
    *_, last = err.splitlines()
    assert last.startswith("pansharpen: ")
    assert told in last
    assert "step 1" not in err
    assert not (output / "training.csv").exists()
    if how == "misregistered scenes":
        assert "bad is left out: its PAN and MS do not show the same ground" in err
    if how in TOLD_AT_A_LOOK:
        assert not output.exists()


@pytest.mark.parametrize(
    ("scenes", "held_out", "code", "told"),
    [
        (["nowhere/*"], "tiny_l8", 3, "nowhere/* does not exist; give folders of scenes, benchmark files or manifests"),
        (["l8_plain_a"], "zzz", 3, "zzz does not exist; give folders of scenes"),
        (["l8_plain_a"], "tiny_l7", 3, "tiny_l7/ms.tif has no band swir1; it has blue, green, red, nir"),
        (["tiny_l8/pan.tif"], "l8_plain_a", 2, "pan.tif is a file by itself; give the folder"),
        (["tiny_l8/pan.tif", "tiny_l8/ms.tif"], "l8_plain_a", 2, "or name the two in a manifest"),
        ([""], "tiny_l8", 3, "/*"),
    ],
)
def test_all_scenes_are_looked_at_before_one_is_prepared(
    data: Path, tmp_path: Path, pansharpen, scenes: list[str], held_out: str, code: int, told: str
):
    output = tmp_path / "m"
    found = pansharpen(
        "train", *(data / scene for scene in scenes), "--validate", data / held_out, "--bands", "red,swir1",
        "--ratio", 2, *TINY, "-o", output,
    )  # fmt: skip
    assert found[0] == code
    (line,) = found[2].splitlines()
    assert told in line
    assert not output.exists()


def test_threads_sleep_while_they_wait(tmp_path: Path):
    """As the OpenMP of torch has it, which reads the environment when it is loaded."""
    free = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    command = [*PROGRAM, "train", "--validate", "x", *BGRN, "--ratio", "2", "-o", str(tmp_path / "m")]
    for own, spins in (({}, "'0'"), ({"GOMP_SPINCOUNT": "77"}, "'77'")):
        place = {**free, **own, "OMP_DISPLAY_ENV": "verbose"}
        run = subprocess.run(command, cwd=ROOT, env=place, capture_output=True, text=True, check=False)
        assert run.returncode == 2
        if "GOMP_SPINCOUNT" not in run.stderr:
            pytest.skip("torch has another OpenMP here")
        assert f"GOMP_SPINCOUNT = {spins}" in run.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["--bands", "any"], 2, "--bands any needs a network that treats all bands alike: adknet-per-band"),
        (["--bands", "red,nir,NIR1"], 2, "--bands names nir twice; a model knows its bands by their names"),
        ([*BGRN, "--sensor", "SPOT"], 2, "--sensor takes generic, QB"),
        ([*BGRN, "--recipe", "best"], 2, "--recipe knows default, adknet-paper"),
        ([*BGRN, "--batch", "5", "--crops-per-scene", "2"], 2, "take a multiple of 2"),
        ([*BGRN, "-O", "chanels=3"], 4, "premix-b has no option chanels; it has channels, layers, kernel,"),
        ([*BGRN, "-O", "channels=0"], 4, "premix-b cannot have channels=0; give whole numbers from 1 to 1024"),
        ([*BGRN, "-O", "layers=2.5"], 4, "premix-b cannot have layers=2.5; give whole numbers"),
        ([*BGRN, "--network", "dmanet", "-O", "widths=[0,4,8]"], 4, "dmanet cannot have widths=[0, 4, 8]; give whole"),
        ([*BGRN, "-O", "activation=loud"], 4, "premix-b cannot be built for 4 bands"),
        ([*BGRN, "-O", "guide_bands=3"], 4, "premix-b with the options {'guide_bands': 3} makes no products of the"),
        ([*BGRN, "--network", "adknet", "--ratio", "3"], 4, "adknet with the options {} makes no products of"),
        ([*BGRN, "--init", "nothing"], 4, "no model is called 'nothing'"),
    ],
)
def test_options_that_make_no_sense(data: Path, tmp_path: Path, pansharpen, arguments: list[str], code: int, told: str):
    found = pansharpen(
        "train", data / "tiny_l7", "--validate", data / "tiny_l8", "--ratio", 2, *arguments, "-o", tmp_path / "m"
    )
    assert found[0] == code
    (line,) = found[2].splitlines()
    assert told in line
    assert not (tmp_path / "m").exists()


def test_a_copy_of_a_scene_that_is_learnt_from_is_told(data: Path, tmp_path: Path, pansharpen):
    copy = tmp_path / "copy"
    shutil.copytree(data / "l8_plain_a", copy)
    terms = [*BGRN, "--ratio", 2, *TINY, "--network", "premix-b", "--no-baselines", "--steps", 1, "--batch", 2]
    code, _, err = pansharpen("train", data / "l8_plain_a", "--validate", copy, *terms, "-o", tmp_path / "m")
    assert code == 0, err
    assert "copy is validated on, but has the pixels of l8_plain_a, which is trained on" in err


def test_a_scene_is_not_both_learnt_and_judged_by_and_a_model_not_overwritten(data: Path, tmp_path: Path, pansharpen):
    same = pansharpen(
        "train", data / "tiny_l7", "--validate", data / "tiny_l7", *BGRN, "--ratio", 2, "-o", tmp_path / "m"
    )
    assert same[0] == 2
    assert "is trained and validated on" in same[2]
    listed = tmp_path / "scenes.csv"
    listed.write_text(
        "pan,ms\n" + "".join(f"{data}/{name}/pan.tif,{data}/{name}/ms.tif\n" for name in ("tiny_l8", "tiny_l7"))
    )
    again = pansharpen("train", listed, "--validate", data / "tiny_l7", *BGRN, "--ratio", 2, "-o", tmp_path / "m")
    assert again[0] == 2
    assert f"{(data / 'tiny_l7' / 'pan.tif').resolve()} is trained and validated on" in again[2]
    assert not (tmp_path / "m").exists()
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / zoo.SPEC).write_text("{}")
    there = pansharpen(
        "train", data / "tiny_l7", "--validate", data / "tiny_l8", *BGRN, "--ratio", 2, "-o", tmp_path / "m"
    )
    assert there[0] == 1
    assert "already holds a model; give another --output" in there[2]


def test_weights_that_cannot_be_begun_with_are_told_before_scenes_are_read(data: Path, tmp_path: Path, pansharpen):
    random_model(tmp_path / "start", bands=("red", "nir"), ratio=2, channels=4, layers=1)
    found = pansharpen(
        "train", data / "tiny_l8", "--validate", data / "tiny_l7", *BGRN, "--ratio", 2, "--init", tmp_path / "start",
        "-o", tmp_path / "m",
    )  # fmt: skip
    assert found[0] == 4
    assert "does not fit a premix-b of 4 bands" in found[2]
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize("where", ["file", "file/m"])
@pytest.mark.parametrize("command", ["train", "adapt"])
def test_a_model_that_cannot_be_written_is_told_before_the_work(command, where, data: Path, tmp_path: Path, pansharpen):
    (tmp_path / "file").touch()
    scenes = [data / "tiny_l8", "--validate", data / "tiny_l7", *BGRN, "--ratio", 2]
    files = [data / "tiny_l8" / "pan.tif", data / "tiny_l8" / "ms.tif"]
    found = pansharpen(command, *(scenes if command == "train" else files), "-o", tmp_path / where)
    assert found[0] == 1
    (line,) = found[2].splitlines()
    assert line.startswith(f"pansharpen: {tmp_path / where} cannot be a folder, as")
