"""`qnr`: a product is judged on the grids it was made on, and the numbers are the field's."""

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
import rasterio
from affine import Affine
from worlds import World

from pansharpen_cli.cli import app
from pansharpen_cli.errors import SceneError
from pansharpen_cli.evaluation.quality import judge, write_maps
from pansharpen_cli.inputs.part import Window
from pansharpen_cli.job import Job
from pansharpen_cli.metrics import FULL
from pansharpen_cli.pipeline import sharpen
from pansharpen_cli.system.files import PASSING, named_from


def write(path: Path, image: np.ndarray, pixel: float) -> Path:
    """(row, col, band) or (row, col) as float64, `pixel` metres wide, without a CRS."""
    bands = np.atleast_3d(image).transpose(2, 0, 1).astype(np.float64)
    count, height, width = bands.shape
    transform = Affine(pixel, 0, 1000, 0, -pixel, 2000)
    with rasterio.open(
        path, "w", driver="GTiff", count=count, height=height, width=width, dtype="float64", transform=transform
    ) as file:
        file.write(bands)
        file.descriptions = ("blue", "green", "red", "nir")[:count] if count in (1, 4) else [""] * count
    return path


def files(case: Path, folder: Path) -> tuple[Path, Path, Path]:
    """pan, ms and product of a golden case."""
    arrays = np.load(case)
    return (
        write(folder / "pan.tif", arrays["pan"], 1),
        write(folder / "ms.tif", arrays["ms"], 4),
        write(folder / "fused.tif", arrays["fused"], 1),
    )


@dataclass
class Command:
    """`pansharpen qnr` with the words it is given."""

    monkeypatch: pytest.MonkeyPatch
    capsys: pytest.CaptureFixture[str]

    def run(self, *words: object) -> tuple[int, str, str]:
        self.monkeypatch.setattr(sys, "argv", ["pansharpen", "qnr", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            app.main()
        return int(stop.value.code or 0), *self.capsys.readouterr()

    def __call__(self, *words: object) -> str:
        code, out, err = self.run(*words)
        assert code == 0, err
        return out

    def refuses(self, *words: object, message: str, code: int = 3) -> None:
        found, out, err = self.run(*words)
        assert (found, out) == (code, "")
        assert message in err
        assert err.startswith("pansharpen: ")
        assert err.count("\n") == 1  # one sentence, no traceback


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "GDAL_CACHEMAX"):  # the command sets them
        monkeypatch.setenv(name, "1" if "THREADS" in name else "256MB")
    return Command(monkeypatch, capsys)


def test_the_field_s_numbers(golden: Path, tmp_path: Path):
    expected = json.loads((golden / "metrics/expected.json").read_text())["cases"]["real_qb"]
    pan, ms, fused = files(golden / "metrics" / expected["file"], tmp_path)
    report = judge(fused, pan=str(pan), ms=[str(ms)], sensor="QB", phase="toolbox").report
    for name in ("D_lambda", "D_s", "QNR", "D_lambda_K", "HQNR", "D_s_R", "RQNR"):
        assert report.scores[name].value == pytest.approx(expected["fr"][name], abs=1e-6), name


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A product with gaps, beside its inputs."""
    folder = tmp_path_factory.mktemp("product")
    for name in ("pan.tif", "ms.tif"):
        shutil.copy(data / "wv2_rotterdam_2" / name, folder)
    job = Job(pan=folder / "pan.tif", ms=[folder / "ms.tif"], output=folder / "out.tif", model="exp", threads=1)
    return sharpen(job).path


def test_a_product_leads_to_its_inputs(product: Path):
    judgement = judge(product)
    scores = judgement.report.scores
    assert (judgement.pan, judgement.ms) == (str(product.parent / "pan.tif"), (str(product.parent / "ms.tif"),))
    assert scores["D_lambda"].value == pytest.approx(0, abs=0.02)  # EXP has the MS's relations between bands
    assert scores["D_lambda"].invalid > 0  # the gap is left out
    assert scores["QNR"].value == pytest.approx((1 - scores["D_lambda"].value) * (1 - scores["D_s"].value))


def test_moved_files_are_found_beside_it_and_changed_ones_are_noticed(
    product: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    for name in ("pan.tif", "ms.tif", "out.tif"):
        shutil.copy(product.parent / name, tmp_path)
    with rasterio.open(tmp_path / "ms.tif", "r+") as file:
        file.update_tags(CHANGED="yes")
    hidden = product.parent / "pan.tif", product.parent / "hidden.tif"
    other = product.parent / "ms.tif", product.parent / "hidden_ms.tif"
    for old, new in (hidden, other):
        old.rename(new)
    try:
        with caplog.at_level(logging.WARNING, "pansharpen_cli"):
            judgement = judge(tmp_path / "out.tif")
    finally:
        for old, new in (hidden, other):
            new.rename(old)
    assert judgement.pan == str(tmp_path / "pan.tif")
    assert [record.getMessage() for record in caplog.records] == [
        f"{tmp_path / 'ms.tif'} has changed since {tmp_path / 'out.tif'} was made of it"
    ]


def test_maps_lie_where_their_blocks_are(product: Path, tmp_path: Path):
    judgement = judge(product, maps=True)
    paths = {path.stem: path for path in write_maps(judgement, tmp_path / "maps")}
    with rasterio.open(paths["D_lambda_K"]) as file, rasterio.open(product) as made:
        values = file.read(1)
        assert file.crs == made.crs
        # blocks begin where the nested grids do: up to a PAN pixel less than the ratio before the product
        assert (file.transform.a, file.transform.e) == (32 * made.transform.a, 32 * made.transform.e)
        before = np.array(~made.transform @ (file.transform.c, file.transform.f))
        assert np.all((before <= 0) & (before > -4) & (before == np.round(before)))
        assert values.shape == (18, 18)
    finite = values[np.isfinite(values)]
    assert len(finite) == judgement.report.scores["D_lambda_K"].counted
    assert finite.mean() == pytest.approx(judgement.report.scores["D_lambda_K"].value, abs=1e-6)


def test_another_file_of_the_same_name_is_not_taken(
    product: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    for name in ("pan.tif", "ms.tif", "out.tif"):
        shutil.copy(product.parent / name, tmp_path)
    with rasterio.open(tmp_path / "out.tif", "r+") as file:
        file.update_tags(ns="PANSHARPEN", PAN="pan.tif", MS=json.dumps(["ms.tif"]))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    shutil.copy(product.parent / "ms.tif", elsewhere / "pan.tif")
    monkeypatch.chdir(elsewhere)
    with caplog.at_level(logging.WARNING, "pansharpen_cli"):
        assert judge(tmp_path / "out.tif").pan == str(tmp_path / "pan.tif")
    assert not caplog.records


def moved(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    source.rename(target)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the folders `scene`, which holds PAN and MS, and `products`, which is empty."""
    folder = tmp_path / "work/project"
    for name in ("scene", "products"):
        (folder / name).mkdir(parents=True)
    World(pan_size=(130, 133), ms_size=(33, 34)).write(folder / "scene")
    return folder


def tagged(path: Path, **tags: str) -> dict[str, str]:
    """The tags of a product, after some are set."""
    with rasterio.open(path, "r+") as file:
        file.update_tags(ns="PANSHARPEN", **tags)
        return file.tags(ns="PANSHARPEN")


def inputs(project: Path) -> tuple[str, tuple[str, ...]]:
    return str(project / "scene/pan.tif"), (str(project / "scene/ms.tif"),)


@pytest.mark.parametrize("given", ["relative", "absolute"])
def test_inputs_are_found_from_anywhere_and_after_a_move(
    given: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("WARNING", "pansharpen_cli")
    monkeypatch.chdir(project / "scene")
    product = project / "products/out.tif"
    pan, ms, output = ("pan.tif", "ms.tif", Path("../products/out.tif"))
    if given == "absolute":
        pan, ms, output = project / "scene/pan.tif", project / "scene/ms.tif", product
    sharpen(Job(pan, [ms], output, model="exp", threads=1))
    tags = tagged(product)
    assert (tags["PAN"], json.loads(tags["MS"])) == ("../scene/pan.tif", ["../scene/ms.tif"])
    assert ("FOLDER" in tags) == (given == "absolute")  # no more of the machine is told than was given
    monkeypatch.chdir(product.parent)
    found = judge(Path("out.tif"), metrics=["D_lambda"])
    assert (found.pan, found.ms) == ("../scene/pan.tif", ("../scene/ms.tif",))
    monkeypatch.chdir("/")
    assert (judge(product).pan, judge(product).ms) == inputs(project)
    moved(project, tmp_path / "another/place")
    away = tmp_path / "another/place"
    assert (judge(away / "products/out.tif").pan, judge(away / "products/out.tif").ms) == inputs(away)
    assert not caplog.records


def test_a_product_that_was_moved_alone_leads_to_absolute_inputs(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    product = project / "products/out.tif"
    sharpen(Job(project / "scene/pan.tif", [project / "scene/ms.tif"], product, model="exp", threads=1))
    monkeypatch.chdir("/")
    moved(product, tmp_path / "elsewhere/out.tif")
    product.parent.rmdir()
    found = judge(tmp_path / "elsewhere/out.tif", metrics=["D_lambda"])
    assert (found.pan, found.ms) == inputs(project)


def test_links_lead_to_inputs(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """To a product, and to the folder it is in: `..` means another folder behind one."""
    (tmp_path / "disk/deep").mkdir(parents=True)
    (project / "products").rmdir()
    (project / "products").symlink_to(tmp_path / "disk/deep")
    monkeypatch.chdir(project)
    sharpen(Job("scene/pan.tif", ["scene/ms.tif"], Path("products/out.tif"), model="exp", threads=1))
    (tmp_path / "latest.tif").symlink_to(project / "products/out.tif")
    monkeypatch.chdir("/")
    for name in (tmp_path / "disk/deep/out.tif", project / "products/out.tif", tmp_path / "latest.tif"):
        found = judge(name, metrics=["D_lambda"])
        assert Path(found.pan).samefile(project / "scene/pan.tif")
        assert Path(found.ms[0]).samefile(project / "scene/ms.tif")


def test_a_product_is_never_its_own_input(
    project: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, command: Command
):
    """One with the name of its MS, judged from elsewhere; also if it is of an older version."""
    caplog.set_level("WARNING", "pansharpen_cli")
    product = project / "products/ms.tif"
    monkeypatch.chdir(project / "scene")
    sharpen(Job("pan.tif", ["ms.tif"], Path("../products/ms.tif"), model="exp", threads=1))
    monkeypatch.chdir(project)
    assert (judge(product).pan, judge(product).ms) == inputs(project)
    tagged(product, PAN="pan.tif", MS='["ms.tif"]')
    command.refuses("products/ms.tif", "--pan", "scene/pan.tif", message="made of ms.tif, which is not there")
    monkeypatch.chdir(project / "scene")
    assert judge(Path("../products/ms.tif")).ms == ("ms.tif",)
    assert not caplog.records


def test_names_that_cannot_be_relative(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "what?.tif"
    file.touch()
    (tmp_path / "products").mkdir()
    assert named_from(tmp_path / "products", file) == "../what?.tif"
    assert named_from(Path("/nowhere"), file) == str(file)  # the root alone is no folder to move
    assert named_from(tmp_path, "https://user:hunter2@host/pan.tif?token") == "https://...@host/pan.tif?..."
    assert named_from(tmp_path, "/vsis3/bucket/pan.tif") == "/vsis3/bucket/pan.tif"
    monkeypatch.chdir(tmp_path)
    with TemporaryDirectory(prefix=PASSING) as folder:
        assert named_from(Path(folder), Path("what?.tif")) == "what?.tif"


@pytest.mark.parametrize("offset", [(0, 0), (-3, 2)])
def test_the_pixels_that_were_given_are_those_of_the_product(offset: tuple[int, int], tmp_path: Path, command: Command):
    """Not those of the canvas, which are whole MS pixels."""
    world = World(pan_size=(131, 165), ms_size=(33, 43), offset=offset)
    pan, ms = world.write(tmp_path)
    made = sharpen(Job(pan, [ms], tmp_path / "out.tif", model="exp", threads=1, coregister="off"))
    report = judge(made.path).report
    assert report.given == (made.height, made.width)
    assert all(size - 32 <= measured <= size for measured, size in zip(report.size, report.given, strict=True))
    assert f" of {made.height} x {made.width} pixels" in command(made.path)
    part = sharpen(Job(pan, [ms], tmp_path / "part.tif", model="exp", part=Window(20, 8, 144, 120), threads=1))
    report = judge(part.path).report
    assert report.given == (120, 144)
    assert report.size == (120, 140 if offset == (0, 0) else 137)


def copied(source: Path, target: Path, change: Callable[[np.ndarray], np.ndarray], **profile: Any) -> Path:
    """A GeoTIFF with changed pixels, `profile`, and its tags."""
    with rasterio.open(source) as file:
        image = change(file.read())
        tags, wanted = file.tags(ns="PANSHARPEN"), {**file.profile, **profile}
    wanted |= {"count": len(image), "height": image.shape[1], "width": image.shape[2]}
    with rasterio.open(target, "w", **wanted) as file:
        file.write(image.astype(wanted["dtype"]))
        file.update_tags(ns="PANSHARPEN", **tags)
    return target


def test_a_product_of_a_part_of_its_scene(product: Path, tmp_path: Path):
    row, col = 100, 37
    with rasterio.open(product) as file:
        moved = file.transform @ Affine.translation(col, row)
    part = copied(product, tmp_path / "part.tif", lambda image: image[:, row:-50, col:], transform=moved)
    all_of_it, some = (judge(path, maps=True).report for path in (product, part))
    for name in ("D_lambda", "D_s", "D_lambda_K", "D_s_R"):
        values = some.maps[name]
        inside = np.isfinite(values)
        assert not inside[: row // 32].any()
        assert some.scores[name].counted < all_of_it.scores[name].counted
        if name != "D_s_R":  # its weights are those of the whole product
            assert inside.sum() == some.scores[name].counted > 100
            np.testing.assert_allclose(values[inside], all_of_it.maps[name][inside], rtol=1e-9, atol=1e-12)


def test_an_ms_in_several_files_and_several_threads(product: Path, tmp_path: Path):
    bands = []
    for band in range(4):
        path = tmp_path / f"b{band}.tif"
        bands.append(str(copied(product.parent / "ms.tif", path, lambda image, band=band: image[band : band + 1])))
    apart = judge(product, ms=bands, threads=3)
    assert apart.ms == tuple(bands)
    assert apart.report.scores == judge(product).report.scores


def test_a_declared_nan_is_a_gap(product: Path, tmp_path: Path):
    def with_nan(image: np.ndarray) -> np.ndarray:
        image = np.where((image == 0).all(axis=0), np.nan, image.astype(np.float32))
        image[:, 300:310, 200:205] = np.nan
        return image

    found = judge(copied(product, tmp_path / "nan.tif", with_nan, dtype="float32", nodata=np.nan, predictor=3))
    scores = judge(product).report.scores
    for name in ("D_lambda", "D_lambda_K", "D_s_R"):
        score = found.report.scores[name]
        assert score.invalid > scores[name].invalid
        assert score.value == pytest.approx(scores[name].value, rel=0.05)


def with_one_nan(image: np.ndarray) -> np.ndarray:
    image = image.astype(np.float32)
    image[1, 300, 200] = np.nan
    return image


BAD_PRODUCTS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], dict[str, Any], str]] = {
    "another grid": (lambda image: image, {"transform": Affine(0.7, 0, 594000, 0, -0.7, 5750000)}, "pixel grid"),
    "two bands": (lambda image: image[:2], {}, "has 2 bands, its MS 4"),
    "all nodata": (np.zeros_like, {"nodata": 0}, "nodata values"),
    "all NaN": (lambda image: image * np.nan, {"dtype": "float32", "nodata": np.nan, "predictor": 3}, "nodata values"),
    "a NaN": (with_one_nan, {"dtype": "float32", "nodata": None, "predictor": 3}, "NaN or infinity"),
    "a NaN beside nodata": (with_one_nan, {"dtype": "float32", "nodata": 0, "predictor": 3}, "NaN or infinity"),
}


@pytest.mark.parametrize("case", BAD_PRODUCTS)
def test_bad_products_are_refused_in_one_sentence(case: str, product: Path, tmp_path: Path, command: Command):
    change, profile, message = BAD_PRODUCTS[case]
    command.refuses(copied(product, tmp_path / "bad.tif", change, **profile), message=message)


def test_bad_inputs_are_refused_in_one_sentence(product: Path, tmp_path: Path, command: Command):
    folder = product.parent
    empty = copied(folder / "pan.tif", tmp_path / "empty.tif", np.zeros_like, nodata=0)
    command.refuses(product, "--pan", empty, message="nodata values")
    command.refuses(product, "--pan", folder / "ms.tif", message="a PAN has one")
    command.refuses(product, "--ms", folder / "pan.tif", message="is given as PAN and as MS")
    command.refuses(product, "--ms", shutil.copy(folder / "pan.tif", tmp_path / "ms.tif"), message="nothing to sharpen")
    command.refuses(tmp_path / "none.tif", message="does not exist")
    (tmp_path / "text.tif").write_text("no image")
    command.refuses(tmp_path / "text.tif", message="not a readable GeoTIFF")
    for tag, value, message in (
        ("PAN", "gone.tif", "made of gone.tif, which is not there; give --pan"),
        ("MS", '["gone.tif"]', "made of gone.tif, which is not there; give --ms"),
        ("PAN", "", "does not say what its PAN was; give --pan"),
        ("MS", "[]", "does not say what its MS was; give --ms"),
        ("SENSOR", "Keyhole", "give --sensor"),
    ):
        shutil.copy(product, tmp_path / "tagged.tif")
        with rasterio.open(tmp_path / "tagged.tif", "r+") as file:
            file.update_tags(ns="PANSHARPEN", **{tag: value})
        command.refuses(tmp_path / "tagged.tif", message=message)


def test_a_product_smaller_than_a_block(golden: Path, tmp_path: Path, command: Command):
    arrays = np.load(golden / "metrics/real_qb.npz")
    pan, fused = (write(tmp_path / f"{name}.tif", arrays[name][:28], 1) for name in ("pan", "fused"))
    ms = write(tmp_path / "ms.tif", arrays["ms"][:7], 4)
    command.refuses(fused, "--pan", pan, "--ms", ms, "--sensor", "QB", message="smaller than 32 x 32")


def test_a_product_that_says_nothing_needs_its_inputs(golden: Path, tmp_path: Path):
    pan, ms, fused = files(golden / "metrics/real_qb.npz", tmp_path)
    with pytest.raises(SceneError, match="does not say what its PAN was"):
        judge(fused)
    with pytest.raises(SceneError, match="not on the pixel grid"):
        judge(write(tmp_path / "off.tif", np.load(golden / "metrics/real_qb.npz")["fused"], 1.5), pan=str(pan), ms=[ms])


def test_the_json_holds_the_metrics_and_their_context(product: Path, command: Command):
    answer = json.loads(command(product, "--json"))
    assert {name for name, value in answer.items() if value is None or isinstance(value, float)} == set(FULL)
    assert set(answer) - set(FULL) == {"details", "pan", "ms", "sensor", "phase", "given", "measured"}
    assert (answer["sensor"], answer["phase"], answer["ms"]) == ("0.45", "area", [str(product.parent / "ms.tif")])
    assert set(answer["details"]) == set(FULL)


def test_options_override_what_a_product_says(product: Path, tmp_path: Path, command: Command):
    pan, ms = (shutil.copy(product.parent / f"{name}.tif", tmp_path / f"my_{name}.tif") for name in ("pan", "ms"))
    options = ["--pan", pan, "--ms", ms, "--sensor", "WV2", "--phase", "toolbox", "--maps", tmp_path / "maps", "-j", 2]
    answer, plain = json.loads(command(product, "--json", *options)), json.loads(command(product, "--json"))
    assert (answer["pan"], answer["ms"], answer["sensor"], answer["phase"]) == (str(pan), [str(ms)], "WV2", "toolbox")
    assert answer["D_s_R"] == plain["D_s_R"]  # knows neither MTF nor phase
    assert answer["D_lambda_K"] != plain["D_lambda_K"]
    assert answer["D_lambda"] != plain["D_lambda"]
    assert {path.name for path in (tmp_path / "maps").iterdir()} == {f"{name}.tif" for name in FULL}
    table = command(product)
    assert [line.split()[0] for line in table.splitlines()[1:-1]] == list(FULL)
    command.refuses(product, "--sensor", "Keyhole", message="--sensor takes", code=2)
    command.refuses(product, "--maps", product, message="give a folder", code=2)


def test_the_benchmark_runs(tmp_path: Path):
    script = Path(__file__).parents[1] / "benchmarks" / "qnr.py"
    command = [sys.executable, str(script), str(tmp_path), "--size", "576", "--threads", "2", "--repeat", "1"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert lines[0].startswith("576 x 576 x 4 uint16")
    assert [line.split("  ")[0] for line in lines[1:3]] == ["reading only", "qnr, 2 threads"]
    assert all("MPix/s" in line and "MiB" in line for line in lines[1:3])
    assert 0.8 < json.loads(lines[3])["QNR"] < 1


def scores(product: str | Path, **options: Any) -> dict[str, float | None]:
    return {name: score.value for name, score in judge(product, **options).report.scores.items()}


def rewritten(path: Path, to: Path, factor: float = 1.0, dtype: str | None = None, **tags: str) -> Path:
    """The pixels alone, times a `factor`."""
    with rasterio.open(path) as file:
        pixels, profile = file.read(), file.profile
    with rasterio.open(to, "w", **profile | {"dtype": dtype or profile["dtype"]}) as file:
        file.write((pixels * factor).astype(file.dtypes[0]))
    return to


def test_a_product_that_says_nothing_is_judged_as_one_that_does(data: Path, tmp_path: Path):
    """By the shift and the sensor that a run would have found."""
    pan, ms = data / "wv2_park_misreg/pan.tif", data / "wv2_park_misreg/ms.tif"
    product = sharpen(Job(pan, [ms], tmp_path / "out.tif", model="gsa"))
    assert any(product.applied)
    plain = rewritten(product.path, tmp_path / "plain.tif")
    inputs = {"pan": str(pan), "ms": [str(ms)]}
    told = scores(product.path)
    assert scores(str(plain), **inputs) == pytest.approx(told, abs=1e-5)  # the tag has four digits
    assert scores(plain, **inputs, coregister="off")["HQNR"] < told["HQNR"] - 0.1
    assert scores(plain, **inputs, coregister=product.applied) == pytest.approx(told, abs=1e-5)


def test_all_products_of_a_scene_are_judged_by_one_sensor(data: Path, tmp_path: Path):
    found = set()
    for model in ("exp", "gsa", "mtf-glp-fs"):
        files = data / "geoeye1_fields_w/pan.tif", data / "geoeye1_fields_w/ms.tif"
        found.add(judge(sharpen(Job(files[0], [files[1]], tmp_path / f"{model}.tif", model=model)).path).sensor)
    assert found == {"0.25"}


@pytest.mark.parametrize("factor", [1e-4, 0.01, 300.0])
def test_scores_do_not_depend_on_the_unit(data: Path, tmp_path: Path, factor: float):
    """Reflectances, percents, values beyond 16 bits."""
    files = data / "wv2_park/pan.tif", data / "wv2_park/ms.tif"
    product = sharpen(Job(files[0], [files[1]], tmp_path / "out.tif", model="gsa", dtype="float32"))
    expected = scores(product.path)
    pan, ms, hrms = (
        rewritten(path, tmp_path / f"{name}.tif", factor, "float32")
        for name, path in zip(("p", "m", "h"), (*files, product.path), strict=True)
    )
    found = scores(hrms, pan=str(pan), ms=[str(ms)], coregister=product.applied, sensor=judge(product.path).sensor)
    assert found == pytest.approx(expected, abs=5e-4)
