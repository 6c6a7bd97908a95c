"""`eval`: the numbers are the field's, whatever form the scenes come in, and every wrong input ends in one sentence."""

import csv
import io
import json
import logging
import shutil
import signal
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
import scipy.io
from test_zoo import random_model
from worlds import World, hidden, save

from pansharpen_cli import zoo
from pansharpen_cli.classical import METHODS
from pansharpen_cli.classical.camera import Camera
from pansharpen_cli.cli import app
from pansharpen_cli.errors import SceneError
from pansharpen_cli.evaluation import assessment, reduced, sources
from pansharpen_cli.evaluation.figure import Gallery
from pansharpen_cli.evaluation.quality import judge
from pansharpen_cli.imaging.mtf import SENSORS
from pansharpen_cli.imaging.wald import FullScene, ReducedScene
from pansharpen_cli.job import Job
from pansharpen_cli.pipeline import sharpen

L7 = ("06", "12", "24", "27", "35", "38")


@pytest.fixture(autouse=True)
def as_before(monkeypatch: pytest.MonkeyPatch):
    """What the program sets for its process is set back."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    handler, logger = signal.getsignal(signal.SIGTERM), logging.getLogger("pansharpen_cli")
    handlers, level = logger.handlers, logger.level
    with warnings.catch_warnings():
        yield
    signal.signal(signal.SIGTERM, handler)
    logger.handlers, logger.level = handlers, level


@pytest.fixture
def run_eval(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Call `pansharpen eval`: exit code, stdout, stderr."""

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pansharpen", "eval", "-j", "1", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            app.main()
        return stop.value.code or 0, *capfd.readouterr()

    return call


@pytest.fixture
def compare(run_eval):
    """Call `pansharpen eval --json`: the object on stdout."""

    def call(*arguments: object) -> dict:
        code, out, err = run_eval(*arguments, "--json")
        assert code == 0, err
        return json.loads(out)

    return call


def means(answer: dict, method: str) -> dict[str, float]:
    return {column: value["mean"] for column, value in answer["methods"][method].items()}


def h5(path: Path, **images: np.ndarray) -> Path:
    """(rows, cols, bands) or (rows, cols) each, as a benchmark of one sample."""
    with h5py.File(path, "w") as file:
        for name, image in images.items():
            file[name] = np.moveaxis(np.atleast_3d(image), -1, 0)[None]
    return path


@pytest.mark.parametrize(("protocol", "cut"), [("none", "cut0"), ("dlpan", "cut21"), ("pancollection", "cut30")])
def test_the_toolboxes_metrics(protocol: str, cut: str, golden: Path, tmp_path: Path, compare):
    """EXP of a sample that brings its own is that: here the golden product, so that all numbers are known."""
    case = np.load(golden / "metrics/real_qb.npz")
    path = h5(tmp_path / "qb.h5", gt=case["gt"], ms=case["ms"], pan=case["pan"], lms=case["fused"])
    wanted = {"SAM": "SAM", "ERGAS": "ERGAS", "SCC": "SCC", "QAVE": "Q", "Q2n": "Q2n", "PSNR": "PSNR", "SSIM": "SSIM"}
    answer = compare(
        path, "-m", "exp", "--protocol", protocol, "--maxval", 2047, "--metrics", ",".join([*wanted, "rmse", "CC"])
    )
    expected = json.loads((golden / "metrics/expected.json").read_text())["cases"]["real_qb"]["rr"][cut]
    found = means(answer, "exp")
    for name, theirs in wanted.items():
        assert found[name] == pytest.approx(expected[theirs], abs=1e-6), name
    assert found["RMSE"] == pytest.approx(2047 * expected["RMSE_norm"], rel=1e-6)
    assert (answer["protocol"], answer["ratio"]) == (protocol, 4)


TABLE = {
    "qb_00": {
        "exp": (3.46855, 3.48326, 0.58232),
        "sfim": (2.46270, 2.01848, 0.87881),
        "gsa": (2.91735, 2.70920, 0.86548),
    },
    "qb_00p": {
        "exp": (3.65809, 3.64449, 0.49218),
        "gs": (3.06628, 2.76198, 0.72720),
        "gsa": (2.33451, 1.79688, 0.90288),
    },
    "gf2_ns": {
        "exp": (2.29460, 3.82347, 0.78919),
        "gs": (2.70844, 3.90348, 0.83022),
        "gsa": (2.17851, 4.37505, 0.86433),
    },
}
"""SAM, ERGAS and Q4 that the toolbox itself has with its cut of 21."""


@pytest.mark.parametrize("case", TABLE)
@pytest.mark.parametrize("form", ["h5", "mat"])
def test_the_toolboxes_table(case: str, form: str, golden: Path, tmp_path: Path, compare):
    arrays = np.load(golden / f"classical/{case}.npz")
    if form == "h5":
        path = h5(tmp_path / "case.h5", **{name: arrays[name] for name in ("gt", "ms", "pan")})
    else:
        path = tmp_path / "case.mat"
        names = {"I_GT": "gt", "I_MS_LR": "ms", "I_PAN": "pan"} | ({"I_MS": "exp"} if "exp" in arrays else {})
        scipy.io.savemat(path, {theirs: arrays[ours] for theirs, ours in names.items()})
    sensor = "QB" if case.startswith("qb") else "generic"
    methods = [part for method in TABLE[case] for part in ("-m", method)]
    answer = compare(path, *methods, "--protocol", "dlpan", "--sensor", sensor, "--metrics", "SAM,ERGAS,Q2n")
    for method, numbers in TABLE[case].items():
        found = means(answer, method)
        assert [found[name] for name in ("SAM", "ERGAS", "Q2n")] == pytest.approx(numbers, abs=6e-6), method


def test_without_a_truth(golden: Path, tmp_path: Path, compare):
    """EXP at full resolution, of a sample that brings none: the toolbox's numbers for its own EXP."""
    case = np.load(golden / "metrics/real_wv3.npz")
    expected = json.loads((golden / "metrics/expected.json").read_text())["cases"]["real_wv3"]["fr"]["EXP_baseline"]
    answer = compare(h5(tmp_path / "wv3.h5", ms=case["ms"], pan=case["pan"]), "-m", "exp", "--full", "--sensor", "WV3")
    found = means(answer, "exp")
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, abs=2e-6), name
    assert answer["resolution"] == "full"


def test_the_scores_of_a_model_card(data: Path, compare):
    """Those of the classical methods, over the validation scenes from which they were taken."""
    scores = zoo.find("adknet-per-band.x4").spec.scores
    folders = [data / "l7" / name for name in L7]
    answer = compare(
        *folders, "-m", "exp", "-m", "gsa", "--ratio", 4, "--bands", "blue,green,red,nir", "--metrics", "ERGAS,SAM"
    )
    assert answer["scenes"] == list(L7)
    for method in ("exp", "gsa"):
        found = answer["methods"][method]
        assert found["ERGAS"]["mean"] == pytest.approx(scores[method]["ergas"], rel=1e-6)
        assert found["SAM"]["mean"] == pytest.approx(scores[method]["sam"], rel=1e-6)
        seconds = found["seconds"]["per_scene"]
        for column, values in found.items():
            weights = seconds if column == "megapixels_per_second" else None  # all pixels in all the time
            assert values["mean"] == pytest.approx(np.average(values["per_scene"], weights=weights))
            assert values["std"] == pytest.approx(np.std(values["per_scene"], ddof=1))


@pytest.mark.parametrize(("full", "held"), [((), "REDUCED_HELD"), (("--full",), "FULL_HELD")])
def test_excerpts_are_told(full, held, tmp_path: Path, compare, run_eval, monkeypatch):
    """One of two scenes is too large to be held: the part of it that was judged is in the JSON and in the caption."""
    small, large = tmp_path / "small", tmp_path / "large"
    for folder, size in ((small, 120), (large, 600)):
        folder.mkdir()
        World(ratio=2, pan_size=(size, size), ms_size=(size // 2, size // 2)).write(folder)
    monkeypatch.setattr(sources, held, 60_000 if full else 15_000)
    asked = small, large, "-m", "exp", "--coregister", "off", *full
    answer = compare(*asked)
    assert answer["scenes"] == ["small", "large"]
    nothing, part = answer["excerpts"]
    assert nothing is None
    assert part["of"] == 600**2
    assert 40_000 < part["pixels"] <= 60_000
    assert f"excerpts of 1: {part['pixels'] / 1e6:.1f} of 0.4 MPix" in run_eval(*asked)[1]


def test_a_network_gets_the_score_it_was_published_with(data: Path, compare, tmp_path: Path, monkeypatch):
    """A small network, here and by `score`, which writes the cards."""
    monkeypatch.setenv("PANSHARPEN_MODELS", str(tmp_path))
    model = random_model(tmp_path / "mine", bands=("nir", "red", "green", "blue"), ratio=2, channels=4, layers=1)
    from pansharpen_cli.backends.torch_backend import TorchBackend, device

    files = data / "tiny_l8/pan.tif", data / "tiny_l8/ms.tif"
    scene = reduced.load(*files, sensor=SENSORS["generic"], bands=["nir", "red", "green", "blue"])
    expected = assessment.score(lambda _: TorchBackend(model.load(), 64, device("cpu")), model.spec.radiometry, [scene])
    answer = compare(*files, "-m", "mine", "--device", "cpu")
    assert means(answer, "mine")["ERGAS"] == pytest.approx(expected.ergas, rel=1e-6)
    assert means(answer, "mine")["SAM"] == pytest.approx(expected.sam, rel=1e-6)


def test_many_tiles_equal_one(data: Path, monkeypatch: pytest.MonkeyPatch):
    scene = reduced.load(data / "l8_plain_b/pan.tif", data / "l8_plain_b/ms.tif", sensor=SENSORS["generic"])

    def sharpened(name: str) -> np.ndarray:
        return assessment.sharpen(scene, METHODS[name](assessment.camera(scene, SENSORS["generic"])), None)

    whole = {name: sharpened(name) for name in ("gsa", "mtf-glp-fs")}
    monkeypatch.setattr(assessment, "TILE", 64)
    for name, hrms in whole.items():
        np.testing.assert_allclose(sharpened(name), hrms, rtol=1e-5, err_msg=name)


def smooth(toolbox: bool) -> FullScene:
    """A ground without fine detail, the MS where pixels as areas have it, or where the toolbox does."""
    row, col = np.indices((96, 128)) / 40
    ground = np.stack([500 + 200 * np.sin(row + k) + 100 * np.cos(col - k) for k in range(2)]).astype(np.float32)
    at = 2.0 if toolbox else 1.5
    row, col = (4 * np.indices((24, 32)) + at) / 40
    ms = np.stack([500 + 200 * np.sin(row + k) + 100 * np.cos(col - k) for k in range(2)]).astype(np.float32)
    names = ("blue", "green")
    return FullScene("smooth", names, ground[:1], ms, np.ones((96, 128), bool), "toolbox" if toolbox else "area")


@pytest.mark.parametrize("toolbox", [False, True], ids=["area", "toolbox"])
def test_a_method_gets_the_ms_where_it_was_made_for(toolbox: bool):
    """EXP of either phase, given a scene of the other, puts the ground in its place; unasked, it would miss it."""
    scene = smooth(toolbox)
    phase = 1.5 if toolbox else 2.0
    other = METHODS["exp"](Camera(4, scene.band_names, SENSORS["generic"], phase, "23tap", "symmetric"))
    right = np.abs(assessment.sharpen(scene, other, None, phase=phase)[0] - scene.pan[0])[24:-24, 24:-24].max()
    wrong = np.abs(assessment.sharpen(scene, other, None)[0] - scene.pan[0])[24:-24, 24:-24].max()
    assert right < 0.2  # of waves 600 high
    assert wrong > 10 * right


def test_a_truth_beside_the_pair(data: Path, tmp_path: Path, compare):
    """A product is its own truth, wherever it lies: PAN and MS of this scene do not begin at one corner."""
    files = data / "tiny_l8/pan.tif", data / "tiny_l8/ms.tif"
    job = Job(pan=files[0], ms=[files[1]], output=tmp_path / "gsa.tif", model="gsa", coregister="off", dtype="float32")
    sharpen(job)
    answer = compare(*files, "--reference", tmp_path / "gsa.tif", "-m", "gsa", "-m", "exp", "--metrics", "RMSE,SAM")
    assert means(answer, "gsa")["RMSE"] < 0.01
    assert means(answer, "exp")["RMSE"] > 10


def test_a_pan_is_moved_to_its_truth(data: Path, compare):
    """This one lies half a pixel off in both directions."""
    files = data / "rr_qb/03/pan.tif", "--reference", data / "rr_qb/03/gt.tif", "--ratio", 4, "--sensor", "QB"
    method = "-m", "mtf-glp-hpm-h", "--metrics", "ERGAS"
    left, moved = (
        means(compare(*files, *method, *more), "mtf-glp-hpm-h")["ERGAS"] for more in ((), ("--coregister", "auto"))
    )
    assert moved < 0.8 * left


def test_the_bands_of_a_truth_have_names(data: Path, tmp_path: Path, compare):
    """They may stand in another order, and be more than are wanted."""
    folder = data / "rr_qb/00"
    with rasterio.open(folder / "gt.tif") as file, rasterio.open(tmp_path / "turned.tif", "w", **file.profile) as copy:
        copy.write(file.read()[::-1])
        copy.descriptions = file.descriptions[::-1]
    common = folder / "pan.tif", folder / "ms.tif", "-m", "exp", "--metrics", "ERGAS", "--bands", "red,nir"
    one, other = (compare(*common, "--reference", path) for path in (folder / "gt.tif", tmp_path / "turned.tif"))
    assert means(one, "exp")["ERGAS"] == means(other, "exp")["ERGAS"]


def test_bands_are_named_in_any_language(data: Path, tmp_path: Path, compare):
    """Names of other scripts are names, too, by which a band and its truth are found."""
    folder = data / "rr_qb/00"
    for file in ("ms.tif", "gt.tif"):
        shutil.copy(folder / file, tmp_path / file)
        with rasterio.open(tmp_path / file, "r+") as copy:
            copy.descriptions = ("蓝", "绿", "红", "近红外")
    common = folder / "pan.tif", "-m", "exp", "-m", "gsa", "--metrics", "ERGAS,SAM"
    for in_english, in_chinese in (((), ()), (("--bands", "red,nir"), ("--bands", "红,近红外"))):
        english = compare(*common, folder / "ms.tif", "--reference", folder / "gt.tif", *in_english)
        other = compare(*common, tmp_path / "ms.tif", "--reference", tmp_path / "gt.tif", *in_chinese)
        for method in ("exp", "gsa"):
            for metric in ("ERGAS", "SAM"):
                assert means(other, method)[metric] == pytest.approx(means(english, method)[metric])


def in_two_files(folder: Path, made: Path) -> list[Path]:
    """The MS of `folder` in two files, whose bands have no names and so are called alike."""
    paths = [made / "vnir.tif", made / "swir.tif"]
    for path, bands in zip(paths, ([1, 2], [3, 4]), strict=True):
        without_names(folder / "ms.tif", path, bands)
    return paths


def without_names(path: Path, copy: Path, bands: list[int]) -> Path:
    with rasterio.open(path) as file, rasterio.open(copy, "w", **{**file.profile, "count": len(bands)}) as made:
        made.write(file.read(bands))
    return copy


def test_bands_of_one_name_are_those_of_the_truth_in_order(data: Path, tmp_path: Path, compare):
    folder = data / "rr_qb/00"
    truth = without_names(folder / "gt.tif", tmp_path / "gt.tif", [1, 2, 3, 4])
    common = "--reference", truth, "-m", "exp", "-m", "gsa", "--metrics", "ERGAS,SAM"
    one = compare(folder / "pan.tif", folder / "ms.tif", *common)
    two = compare(folder / "pan.tif", *in_two_files(folder, tmp_path), *common)
    for method in ("exp", "gsa"):
        for metric in ("ERGAS", "SAM"):
            assert means(two, method)[metric] == pytest.approx(means(one, method)[metric])


def test_a_name_of_two_bands_means_neither(data: Path, tmp_path: Path, run_eval):
    folder = data / "rr_qb/00"
    files = folder / "pan.tif", *in_two_files(folder, tmp_path)
    code, out, err = run_eval(*files, "-m", "exp", "--bands", "band 1")
    assert (code, out) == (3, "")
    assert "vnir.tif, with what is beside it, has several bands called band1; give each a name of its own" in err


def test_a_manifest(data: Path, tmp_path: Path, compare):
    """With an MS made of the truth: the same as degrading it by hand, each scene by its own sensor."""
    from pansharpen_cli.imaging.wald import degrade

    lines = ["name,pan,reference,sensor"]
    lines += [f"{n},{data}/rr_qb/{n}/pan.tif,{data}/rr_qb/{n}/gt.tif,{s}" for n, s in (("00", "QB"), ("01", ""))]
    (tmp_path / "two.csv").write_text("\n".join(lines))
    answer = compare(
        "--manifest", tmp_path / "two.csv", "--ratio", 4, "-m", "exp", "--metrics", "SAM", "--sensor", "WV4"
    )
    assert answer["scenes"] == ["00", "01"]
    assert answer["sensor"] == "QB, WV4"
    for name, sensor, found in zip(
        ("00", "01"), ("QB", "WV4"), answer["methods"]["exp"]["SAM"]["per_scene"], strict=True
    ):
        with rasterio.open(data / f"rr_qb/{name}/gt.tif") as file:
            gt = file.read().astype(np.float64)
        gains = [SENSORS[sensor].gain(band) for band in ("blue", "green", "red", "nir")]
        camera = Camera.of_scene(4, ("blue", "green", "red", "nir"), SENSORS[sensor])
        exp = camera.expand(degrade(gt, 4, gains))
        cosine = (gt * exp).sum(axis=0) / np.sqrt((gt**2).sum(axis=0) * (exp**2).sum(axis=0))
        assert found == pytest.approx(np.degrees(np.arccos(np.clip(cosine, -1, 1))).mean(), abs=1e-4)


def test_a_manifest_beside_its_files(tmp_path: Path, compare):
    """Paths are relative to it; one MS may be several files."""
    world = World(bands=2, dtype="uint16", pan_size=(192, 256), ms_size=(48, 64))
    world.write(tmp_path)
    for band, name in enumerate(("blue", "green")):
        save(tmp_path / f"{name}.tif", world.ms_image()[band : band + 1], world.ms_sheet, dtype="uint16", names=[name])
    (tmp_path / "list.csv").write_text("pan,ms\npan.tif,ms.tif\npan.tif,blue.tif; green.tif\n")
    answer = compare("--manifest", tmp_path / "list.csv", "-m", "gsa")
    assert answer["scenes"] == ["pan.tif", "pan.tif"]
    one, other = answer["methods"]["gsa"]["ERGAS"]["per_scene"]
    assert one == other


def test_full_resolution_is_qnr_of_the_product(data: Path, tmp_path: Path, compare):
    """With gaps, and PAN and MS co-registered."""
    files = data / "wv2_rotterdam_2/pan.tif", data / "wv2_rotterdam_2/ms.tif"
    product = sharpen(Job(pan=files[0], ms=[files[1]], output=tmp_path / "gsa.tif", model="gsa", dtype="float32"))
    assert any(product.applied)
    expected = judge(product.path).report.scores
    found = means(compare(*files, "--full", "-m", "gsa"), "gsa")
    for name in ("D_lambda", "D_s", "QNR", "D_lambda_K", "HQNR", "D_s_R", "RQNR"):
        assert found[name] == pytest.approx(expected[name].value, abs=1e-5), name


def test_all_leaves_out_what_does_not_fit(data: Path, tmp_path: Path, run_eval, monkeypatch):
    monkeypatch.setenv("PANSHARPEN_MODELS", str(tmp_path))
    random_model(tmp_path / "mine", ratio=2, channels=4, layers=1)
    random_model(tmp_path / "other", bands=("red", "green"), ratio=2, channels=4, layers=1)
    pair = data / "tiny_l8/pan.tif", data / "tiny_l8/ms.tif"
    code, out, err = run_eval(*pair, "-m", "all", "--device", "cpu", "--json")
    assert code == 0, err
    answer = json.loads(out)
    assert {"mine", *METHODS} <= set(answer["methods"])
    assert answer["left_out"]["other"] == "other does not fit this scene: it has 2 bands (red, green), the scene 4"
    assert "warning: left out: other does not fit this scene" in err
    code, out, err = run_eval(*pair, "-m", "other", "-m", "exp")
    assert (code, out) == (4, "")
    assert "other does not fit this scene" in err


def test_a_model_that_fits_the_first_scene_only(data: Path, tmp_path: Path, compare, monkeypatch):
    """What `auto` took is left out of the table then, and the methods that it is compared with stay."""
    monkeypatch.setenv("PANSHARPEN_MODELS", str(tmp_path / "models"))
    scores = {"mine": {"ergas": 1.0}, "exp": {"ergas": 2.0}}
    random_model(tmp_path / "models/mine", ratio=2, channels=4, layers=1, scores=scores)
    rows = [f"{data}/{name}/pan.tif,{data}/{name}/ms.tif" for name in ("tiny_l8", "l8_plain_b")]
    (tmp_path / "two.csv").write_text("\n".join(["pan,ms", *rows]))
    answer = compare("--manifest", tmp_path / "two.csv", "--device", "cpu", "--metrics", "ERGAS")
    assert "mine" in answer["left_out"]
    assert all(len(found["ERGAS"]["per_scene"]) == 2 for found in answer["methods"].values())
    assert set(answer["methods"]) == set(assessment.DEFAULT_MODELS) - {"auto"}


def test_every_form_of_the_table(data: Path, run_eval):
    files = data / "tiny_l8/pan.tif", data / "tiny_l8/ms.tif", "-m", "exp", "-m", "gsa", "--metrics", "ergas,q2n"
    outputs = {form: run_eval(*files, form)[1] for form in ("-q", "--csv", "--json", "--markdown", "--latex")}
    assert json.loads(outputs["--json"])["methods"]["gsa"]["ERGAS"]["std"] is None
    ergas = means(json.loads(outputs["--json"]), "gsa")["ERGAS"]
    rows = list(csv.DictReader(io.StringIO(outputs["--csv"])))
    assert float(next(row["ERGAS"] for row in rows if row["method"] == "gsa")) == pytest.approx(ergas)
    for form in ("-q", "--markdown", "--latex"):
        assert f"{ergas:.3f}" in outputs[form]


def test_maps_are_errors_in_their_place(data: Path, tmp_path: Path, run_eval):
    """At reduced resolution a pixel of the truth is one of the MS."""
    files = data / "wv2_rotterdam_2/pan.tif", data / "wv2_rotterdam_2/ms.tif"
    code, _, err = run_eval(
        *files, "-m", "exp", "--maps", tmp_path / "maps", "--metrics", "RMSE", "--coregister", "off"
    )
    assert code == 0, err
    (path,) = (tmp_path / "maps").iterdir()
    assert path.name.endswith("pan.tif.exp.tif")
    scene = reduced.load(*files, sensor=SENSORS["generic"], coregister="off")
    exp = assessment.sharpen(scene, METHODS["exp"](assessment.camera(scene, SENSORS["generic"])), None)
    with rasterio.open(path) as found, rasterio.open(files[1]) as ms:
        assert found.crs == ms.crs
        assert found.descriptions == ms.descriptions
        row, col = np.array(~ms.transform @ (found.transform.c, found.transform.f))[::-1]
        assert (row, col) == (pytest.approx(round(row)), pytest.approx(round(col)))
        error = found.read(masked=True)
        np.testing.assert_array_equal(error.mask[0], ~scene.valid)
        np.testing.assert_allclose(error.filled(0), np.where(scene.valid, exp - scene.gt, 0), atol=1e-3)
        height, width = error.shape[1:]
        truth = ms.read()[:, round(row) : round(row) + height, round(col) : round(col) + width]
    np.testing.assert_array_equal(np.where(scene.valid, truth, 0), np.where(scene.valid, scene.gt, 0))


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (["exp", "--figure", "f.png"], ["gsa", "--figure", "f.png"]),
        (["exp", "--maps", "maps"], ["exp", "--maps", "maps"]),
        (["auto", "--maps", "maps"], ["auto", "--maps", "maps"]),
        (["gsa", "--maps", "maps"], ["all", "--maps", "maps"]),
    ],
    ids=" ".join,
)
def test_files_are_not_replaced_unasked(first, then, desk: Path, run_eval, monkeypatch):
    """That is said before a scene is read."""
    files = ["./pan.tif", "ms.tif", "-q", "--coregister", "off", "-m"]  # whose name is none of a file
    assert run_eval(*files, *first)[0] == 0
    (made,) = {*desk.glob("f.png"), *desk.glob("maps/*")}
    made.write_text("mine")
    with monkeypatch.context() as patch:
        patch.setattr(assessment, "compare", lambda *_, **__: pytest.fail("scenes are read"))
        code, out, err = run_eval(*files, *then)
    assert (code, out) == (1, "")
    assert err == f"pansharpen: {made.relative_to(desk)} exists; choose another name or --overwrite it\n"
    assert made.read_text() == "mine"
    assert run_eval(*files, *first, "--overwrite")[0] == 0
    assert made.read_bytes() != b"mine"


def test_other_maps_may_join(desk: Path, run_eval):
    for method in ("gsa", "exp"):
        assert run_eval("pan.tif", "ms.tif", "-m", method, "--maps", "maps")[0] == 0
    assert {path.name for path in (desk / "maps").iterdir()} == {"pan.tif.gsa.tif", "pan.tif.exp.tif"}


def test_two_scenes_cannot_become_one_map(desk: Path, run_eval):
    (desk / "two.csv").write_text("name,pan,ms\na b,pan.tif,ms.tif\na_b,pan.tif,ms.tif\n")
    code, _, err = run_eval("--manifest", "two.csv", "-m", "exp", "--maps", "maps")
    assert code == 2
    assert "two of which have one name" in err
    assert not (desk / "maps").exists()


def test_folders_of_one_name_are_told_apart(desk: Path, run_eval):
    for folder in ("a/1", "b/1", "b/2"):
        (desk / folder).mkdir(parents=True)
        for name in ("pan.tif", "ms.tif"):
            (desk / folder / name).symlink_to(desk / name)
    code, out, _ = run_eval("a/1", "b/1", "b/2", "-m", "exp", "--maps", "maps", "--csv")
    assert code == 0
    assert [line.split(",")[1] for line in out.splitlines()[1:4]] == ["a/1", "b/1", "2"]
    assert {path.name for path in (desk / "maps").iterdir()} == {"a_1.exp.tif", "b_1.exp.tif", "2.exp.tif"}


@pytest.mark.parametrize("full", [[], ["--full"]], ids=["reduced", "full"])
def test_a_figure(full: list[str], data: Path, tmp_path: Path, run_eval):
    from matplotlib.image import imread

    files = data / "tiny_l8/pan.tif", data / "tiny_l8/ms.tif"
    code, _, err = run_eval(*files, *full, "-m", "exp", "-m", "gsa", "-m", "brovey", "--figure", tmp_path / "f.png")
    assert code == 0, err
    assert [path.name for path in tmp_path.iterdir()] == ["f.png"]
    picture = imread(tmp_path / "f.png")
    height, width = picture.shape[:2]
    assert height / width == pytest.approx({0: 7.8 / 8, 1: 5.2 / 8}[len(full)], rel=0.01)
    # everywhere but beside the two or three pictures above there is something to see
    rows = 2 if full else 3
    for row in range(rows):
        band = picture[row * height // rows : (row + 1) * height // rows, : width // 4, :3]
        assert band.std() > 0.05


def test_a_figure_is_grey_where_nothing_is_judged(tmp_path: Path):
    """In every image, whatever the borders of the scene were filled with."""
    from matplotlib.image import imread

    random = np.random.default_rng(0)
    gt = random.normal(500, 100, (3, 64, 64)).astype(np.float32)
    valid = np.ones((64, 64), bool)
    valid[48:] = False
    scene = ReducedScene("s", ("blue", "green", "red"), gt[:1], gt[:, ::4, ::4].copy(), gt, valid)
    gallery = Gallery(tmp_path / "f.png")
    gallery.add(scene, "exp", gt)
    gallery.write(["exp"])
    picture = np.rint(imread(tmp_path / "f.png")[..., :3] * 255)
    grey = (np.abs(picture - [0xD9, 0xD5, 0xCA]) <= 2).all(axis=2).sum()
    # a quarter of PAN, MS, truth, product and error map, each about as large as the others
    judged = ((np.abs(picture - [0xFC, 0xFB, 0xF8]) > 8).any(axis=2)).sum()
    assert 0.2 < grey / judged < 0.3


@pytest.fixture
def desk(tmp_path: Path, golden: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a user keeps PAN and MS that belong together, and many files that do not."""
    folder = tmp_path / "desk"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.setenv("PANSHARPEN_MODELS", str(tmp_path / "models"))
    world = World(bands=4, dtype="uint16", pan_size=(192, 256), ms_size=(48, 64))
    pan, ms = world.pan_image(), world.ms_image()
    world.write(folder)
    gt = pan.repeat(4, axis=0)
    save(folder / "gt.tif", gt, world.pan_sheet, dtype="uint16")
    save(folder / "two.tif", gt[:2], world.pan_sheet, dtype="uint16")
    save(folder / "coarse.tif", ms, world.ms_sheet, dtype="uint16")
    moved = replace(world.pan_sheet, corner=(world.pan_sheet.corner[0] + 0.7, world.pan_sheet.corner[1]))
    save(folder / "between.tif", gt, moved, dtype="uint16")
    save(folder / "empty.tif", 0 * pan, world.pan_sheet, dtype="uint16", nodata=0)
    save(folder / "nan.tif", pan * np.nan, world.pan_sheet)
    save(folder / "plain.tif", pan, dtype="uint16")
    World(bands=4, dtype="uint16", pan_size=(24, 24), ms_size=(6, 6)).write(folder, name="small_")
    case = {name: array[:64, :64] for name, array in np.load(golden / "metrics/real_qb.npz").items()}
    case["ms"] = case["ms"][:16, :16]
    h5(folder / "good.h5", gt=case["gt"], ms=case["ms"], pan=case["pan"])
    h5(folder / "misfit.h5", gt=case["gt"], ms=case["ms"][:15], pan=case["pan"])
    h5(folder / "bare.h5", gt=case["gt"], pan=case["pan"])
    h5(
        folder / "holed.h5",
        gt=case["gt"] * np.where(np.arange(64) == 9, np.nan, 1)[:, None],
        **{k: case[k] for k in ("ms", "pan")},
    )
    (folder / "cut.h5").write_bytes((folder / "good.h5").read_bytes()[:-5000])
    (folder / "text.mat").write_text("not a matrix\n")
    (folder / "nothing").mkdir()
    (folder / "scenes/one").mkdir(parents=True)
    (folder / "scenes/one/pan.tif").touch()
    (folder / "pan.csv").write_text("pan,ms\n,ms.tif\n")
    (folder / "odd.csv").write_text("PAN;MS\npan.tif;ms.tif\n")
    (folder / "none.csv").write_text("pan,ms\n")
    (folder / "sensor.csv").write_text("pan,ms,sensor\npan.tif,ms.tif,Hubble\n")
    (folder / "gone.csv").write_text("pan,ms\nnowhere.tif,ms.tif\n")
    return folder


PAIR = ["pan.tif", "ms.tif"]

WRONG = {
    "missing PAN": (["nowhere.tif", "ms.tif"], 3, "nowhere.tif"),
    "all nodata": (["empty.tif", "ms.tif"], 3, "empty.tif"),
    "all NaN": (["nan.tif", "ms.tif"], 3, "nan.tif"),
    "not georeferenced": (["plain.tif", "ms.tif"], 3, "plain.tif"),
    "too small": (["small_pan.tif", "small_ms.tif"], 3, "too small"),
    "too small for a block": (["small_pan.tif", "small_ms.tif", "--full"], 3, "block"),
    "band that is not there": ([*PAIR, "--bands", "red,swir1"], 3, "swir1"),
    "truth with two bands": ([*PAIR, "--reference", "two.tif"], 3, "two.tif"),
    "truth of the MS's size": ([*PAIR, "--reference", "coarse.tif"], 3, "coarse.tif"),
    "truth between the pixels": ([*PAIR, "--reference", "between.tif"], 3, "between.tif"),
    "pair with a truth, of another ratio": ([*PAIR, "--reference", "gt.tif", "--ratio", "2"], 3, "--ratio"),
    "no truth": ([*PAIR, "--reference", "nowhere.tif"], 3, "nowhere.tif"),
    "truth on another grid, no MS": (["pan.tif", "--reference", "coarse.tif", "--ratio", "4"], 3, "coarse.tif"),
    "missing folder": (["nowhere"], 3, "nowhere does not exist"),
    "missing folder beside another": (["scenes/one", "nowhere"], 3, "nowhere does not exist"),
    "folder of folders": (["scenes"], 3, "its folders do: give scenes/*"),
    "missing benchmark": (["nowhere.h5"], 3, "nowhere.h5"),
    "benchmark cut short": (["cut.h5"], 3, "cut.h5"),
    "no benchmark": (["text.mat"], 3, "text.mat"),
    "benchmark without MS": (["bare.h5"], 3, "bare.h5"),
    "benchmark whose sizes do not fit": (["misfit.h5"], 3, "misfit.h5"),
    "benchmark with NaN": (["holed.h5"], 3, "holed.h5"),
    "benchmark of another ratio": (["good.h5", "--ratio", "2"], 3, "--ratio"),
    "empty folder": (["nothing"], 3, "nothing"),
    "manifest without a PAN": (["--manifest", "pan.csv"], 3, "scene 1"),
    "manifest of other columns": (["--manifest", "odd.csv"], 3, "PAN;MS"),
    "manifest of no scenes": (["--manifest", "none.csv"], 3, "none.csv"),
    "manifest with an unknown sensor": (["--manifest", "sensor.csv"], 3, "scene 1, sensor takes"),
    "manifest of missing files": (["--manifest", "gone.csv"], 3, "nowhere.tif"),
    "no manifest": (["--manifest", "nowhere.csv"], 3, "nowhere.csv does not exist"),
    "unknown model": ([*PAIR, "-m", "nobody's"], 4, "nobody's"),
    "nothing at all": ([], 2, "--manifest"),
    "no MS": (["pan.tif"], 2, "pan.tif"),
    "no ratio for the truth": (["pan.tif", "--reference", "gt.tif"], 2, "--ratio"),
    "manifest and more": ([*PAIR, "--manifest", "gone.csv"], 2, "--manifest"),
    "ratio at full resolution": ([*PAIR, "--full", "--ratio", "4"], 2, "--ratio"),
    "maps in a file": ([*PAIR, "--maps", "ms.tif"], 2, "--maps"),
    "band without a name": ([*PAIR, "--bands", "red,,nir"], 2, "--bands"),
    "maps at full resolution": ([*PAIR, "--full", "--maps", "maps"], 2, "--maps"),
    "protocol at full resolution": ([*PAIR, "--full", "--protocol", "dlpan"], 2, "--protocol"),
    "largest DN at full resolution": ([*PAIR, "--full", "--maxval", "3"], 2, "--maxval"),
    "benchmark with a reference": (["good.h5", "--reference", "gt.tif"], 2, "--reference"),
    "unknown sensor": ([*PAIR, "--sensor", "Hubble"], 2, "Hubble"),
    "unknown metric": ([*PAIR, "--metrics", "ERGAS,beauty"], 2, "beauty"),
    "metric of full resolution": ([*PAIR, "--metrics", "QNR"], 2, "QNR"),
    "PSNR of what": ([*PAIR, "--metrics", "PSNR"], 2, "--maxval"),
    "cut of everything": (
        ["good.h5", "--protocol", "pancollection", "--metrics", "SAM", "--maxval", "0.5"],
        2,
        "maxval",
    ),
    "two forms at once": ([*PAIR, "--csv", "--json"], 2, "--csv"),
    "figure that is none": ([*PAIR, "--figure", "ms.tif"], 2, "--figure"),
    "figure nowhere": ([*PAIR, "--figure", "no/where.png"], 1, "where.png"),
    "shift that is none": ([*PAIR, "--coregister", "maybe"], 2, "--coregister"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_call_is_one_sentence(case: str, desk: Path, run_eval):
    arguments, code, word = WRONG[case]
    before = {path: path.read_bytes() for path in desk.iterdir() if path.is_file()}
    found, out, err = run_eval(*arguments)
    assert found == code, err
    assert out == ""
    last = err.splitlines()[-1]
    assert word in last
    assert "unexpected" not in err
    assert "Traceback" not in err
    if code != 2 or last.startswith("pansharpen: "):
        assert [line for line in err.splitlines() if line.startswith("pansharpen: ")] == [last]
    assert {path: path.read_bytes() for path in desk.iterdir() if path.is_file()} == before


def test_a_folder_that_may_not_be_looked_into_is_told_as_such(tmp_path: Path):
    """Be it the one that is named, or one in it, which may hold scenes or not."""
    (locked := tmp_path / "scenes/locked").mkdir(parents=True)
    with hidden(locked, tmp_path):
        with pytest.raises(SceneError, match="locked may not be read by you"):
            sources.listed([locked], sources.Terms())
        with pytest.raises(SceneError, match="scenes holds neither"):
            sources.listed([tmp_path / "scenes"], sources.Terms())


def test_products_of_whole_programs_are_judged_as_methods_are(data: Path, tmp_path: Path, compare):
    """As benchmarks/peers.py has them made, of files: beside others, where they are installed."""
    script, found = Path(__file__).parents[1] / "benchmarks" / "peers.py", tmp_path / "found.json"
    command = [sys.executable, script, data / "l8_plain_b", "--models", "exp", "brovey", "--json", found]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    answer, judged = json.loads(found.read_text()), compare(data / "l8_plain_b", "-m", "exp", "-m", "brovey")
    for method in ("exp", "brovey"):
        for metric in ("ERGAS", "SAM", "Q2n"):
            assert means(answer, method)[metric] == pytest.approx(means(judged, method)[metric], rel=1e-3)
