"""`report`: the page holds what `qnr` says, shows what the files hold, and cannot be talked into anything by them."""

import base64
import io
import json
import logging
import re
import shutil
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rasterio.windows import Window
from worlds import World, save

from pansharpen_cli.cli import app
from pansharpen_cli.errors import OutputError
from pansharpen_cli.job import Job
from pansharpen_cli.pipeline import sharpen
from pansharpen_cli.report.gather import gather
from pansharpen_cli.report.measure import _histograms
from pansharpen_cli.report.page import write
from pansharpen_cli.report.words import counted

EXAMPLE = Path(__file__).parents[1] / "examples/l8_madrid"
BAD = slice(224, 288), slice(320, 384)
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def pansharpen(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The program with the words it is given: exit code, stdout, stderr."""
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "GDAL_CACHEMAX"):  # the command sets them
        monkeypatch.setenv(name, "1" if "THREADS" in name else "256MB")

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pansharpen", *map(str, words)])
        with pytest.raises(SystemExit) as stop:
            app.main()
        logging.getLogger("pansharpen_cli").handlers = []  # it writes to what is captured here
        return int(stop.value.code or 0), *capsys.readouterr()

    return run


class Page(HTMLParser):
    """What stands in a page: elements with their attributes, and the text outside of scripts and styles."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text, self.json, self._inside = "", "", ("", None)
        self.feed(self.source)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self._inside = tag, dict(attributes).get("id")

    def handle_endtag(self, tag):
        self._inside = "", None

    def handle_data(self, data):
        if self._inside == ("script", "data"):
            self.json += data
        elif self._inside[0] not in ("script", "style"):
            self.text += data

    @property
    def data(self):
        return json.loads(self.json)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]

    def pictures(self, layer):
        """The panels of a layer as arrays, first colours only."""
        pattern = rf'data-layer="{layer}">\s*<img [^>]*src="data:image/\w+;base64,([^"]+)"'
        found = re.findall(pattern, self.source)
        return [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))).astype(int) for data in found]


@pytest.fixture(scope="module")
def reported(tmp_path_factory):
    """A folder with a scene that has gaps, and its product, which is bad in one place."""
    folder = tmp_path_factory.mktemp("reported")
    world = World(pan_size=(384, 512), ms_size=(96, 128), bands=4, dtype="uint16", nodata=0, waves=6)
    random = np.random.default_rng(0)
    ms, pan = world.ms_image(), world.pan_image()
    pan += 40 * random.normal(size=pan.shape)
    ms[:, :24], pan[:, :96] = 0, 0
    paths = world.write(folder, pan, ms)
    sharpen(Job(paths[0], [paths[1]], folder / "out.tif", model="mtf-glp-fs", threads=1))
    with rasterio.open(folder / "out.tif", "r+") as file:
        window = Window.from_slices(*BAD)
        patch = file.read(window=window)
        file.write((patch + random.integers(0, 400, patch.shape)).astype("uint16"), window=window)
    return folder


@pytest.fixture(scope="module")
def page(reported):
    write(gather([reported / "out.tif"]), reported / "out.html")
    return Page(reported / "out.html")


def test_its_numbers_are_those_of_qnr(reported, page, pansharpen):
    code, out, _ = pansharpen("qnr", reported / "out.tif", "--json")
    assert code == 0
    said = json.loads(out)
    (product,) = page.data["products"]
    assert product["scores"] == said["details"]
    assert (product["pan"], product["ms"], product["sensor"]) == (said["pan"], said["ms"], said["sensor"])
    for name in ("HQNR", "D_lambda_K", "D_s", "RQNR", "D_s_R", "QNR", "D_lambda"):
        assert f"{said[name]:.4f}" in page.text


def test_json_is_one_object_with_the_same_numbers(reported, page, pansharpen):
    target = reported / "again.html"
    code, out, _ = pansharpen("report", reported / "out.tif", "-o", target, "--json")
    assert code == 0
    said = json.loads(out)
    assert (said.pop("path"), said.pop("bytes")) == (str(target), target.stat().st_size)
    assert said == page.data
    assert target.read_bytes() == (reported / "out.html").read_bytes()  # the same page every time


def test_the_page_stands_alone(page):
    assert page.source.startswith("<!doctype html>")
    policy = next(m["content"] for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert "unsafe" not in policy
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            if name in ("src", "href"):
                assert value.startswith(("data:image/", "#")) or (tag, value) == ("link", "data:,"), (tag, value)
            assert name != "style"
            assert not name.startswith("on")
    assert not re.search(r"url\((?!#)|@import", page.source)


def test_who_cannot_see_it_can_read_it(page):
    assert page.all("html")[0]["lang"] == "en"
    for landmark in ("header", "nav", "main", "footer", "h1"):
        assert len(page.all(landmark)) == 1, landmark
    assert all(image["alt"] for image in page.all("img"))
    assert all(s.get("aria-label") or s.get("aria-hidden") for s in page.all("svg"))
    assert all(control.get("aria-label") for control in page.all("button"))
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    for attributes in page.all("a"):
        assert attributes["href"][1:] in ids
    for section in page.all("section"):
        assert section["aria-labelledby"] in ids


def test_crops_lie_in_the_scene_and_show_it(reported, page):
    with rasterio.open(reported / "out.tif") as file:
        hrms, pan = file.read(), rasterio.open(reported / "pan.tif").read(1)
    crops = page.data["crops"]
    assert 4 <= len(crops) <= 6
    assert len({crop["kind"] for crop in crops}) == len(crops)
    shown = page.pictures("pan")
    assert len(shown) == len(page.pictures("ms")) == len(page.pictures("p0")) == len(crops)
    for crop, picture in zip(crops, shown, strict=True):
        row, col, height, width = (int(crop[key]) for key in ("y", "x", "height", "width"))
        assert 0 <= row <= row + height <= hrms.shape[1]
        assert 0 <= col <= col + width <= hrms.shape[2]
        assert picture.shape[:2] == (height, width)
        grey, truth = picture[..., 0] if picture.ndim == 3 else picture, pan[row : row + height, col : col + width]
        assert np.corrcoef(grey[truth > 0], truth[truth > 0])[0, 1] > 0.9


def test_what_has_no_data_is_transparent(reported, page):
    places = {crop["kind"]: number for number, crop in enumerate(page.data["crops"])}
    assert "edge" in places
    crop, picture = page.data["crops"][places["edge"]], page.pictures("p0")[places["edge"]]
    rows = slice(int(crop["y"]), int(crop["y"] + crop["height"]))
    cols = slice(int(crop["x"]), int(crop["x"] + crop["width"]))
    with rasterio.open(reported / "out.tif") as file:
        valid = file.read_masks(1)[rows, cols] > 0
    assert 0.1 < valid.mean() < 0.95
    np.testing.assert_array_equal(picture[..., 3] > 0, valid)
    gaps = [row for row in page.data["products"][0]["maps"]["HQNR"]["values"] if row[0] is None]
    assert len(gaps) >= 3  # 96 rows of no data


def test_the_worst_crop_holds_what_is_bad(page):
    crop = next(crop for crop in page.data["crops"] if crop["kind"] == "worst")
    assert crop["y"] <= BAD[0].start <= BAD[0].stop <= crop["y"] + crop["height"]
    assert crop["x"] <= BAD[1].start <= BAD[1].stop <= crop["x"] + crop["width"]


def test_bias_and_histograms_of_a_product_that_is_known(tmp_path, pansharpen):
    """A product made by hand from the MS: every pixel repeated, one band 5 % brighter, one 20 DN darker."""
    world = World(pan_size=(512, 512), ms_size=(128, 128), bands=3, dtype="float32", waves=60)
    paths = world.write(tmp_path)
    with rasterio.open(paths[1]) as file:
        hrms = file.read().repeat(4, axis=1).repeat(4, axis=2)
    hrms[0] *= 1.05
    hrms[1] -= 20
    save(tmp_path / "hand.tif", hrms, world.pan_sheet, names=("blue", "green", "red"))
    target = tmp_path / "hand.html"
    code, _, err = pansharpen("report", tmp_path / "hand.tif", "-o", target, "--pan", paths[0], "--ms", paths[1])
    assert code == 0, err
    found = Page(target).data
    bias = found["products"][0]["bias"]
    assert bias["blue"]["mean_percent"] == pytest.approx(5, abs=0.05)
    assert bias["green"]["mean"] == pytest.approx(-20, abs=0.2)
    assert bias["red"]["mean"] == pytest.approx(0, abs=0.2)
    assert bias["green"]["far"] == pytest.approx(20, abs=5)  # and a little for the blur of a slope
    for band, shares in enumerate(found["histograms"]):
        product = found["products"][0]["histograms"][band]
        assert 0.95 < sum(shares["ms"]) <= 1 + 1e-9  # some values lie beyond
        assert 0.95 < sum(product) <= 1 + 1e-9
        if shares["band"] == "red":
            assert product == shares["ms"]


def madrid(folder: Path, moved: tuple[int, int] = (0, 0)) -> tuple[Path, Path]:
    """A part of the example; the PAN's file says that it lies `moved` pixels further right and down."""
    for name, ratio in (("pan", 2), ("ms", 1)):
        window = Window(200 * ratio, 100 * ratio, 300 * ratio, 300 * ratio)
        with rasterio.open(EXAMPLE / f"{name}.tif") as file:
            corner = np.array([window.col_off, window.row_off]) + (moved if name == "pan" else 0)
            place = file.transform @ Affine.translation(*corner)
            size = {"width": window.width, "height": window.height, "transform": place}
            with rasterio.open(folder / f"{name}.tif", "w", **file.profile | size) as part:
                part.write(file.read(window=window))
                part.descriptions = file.descriptions
    return folder / "pan.tif", folder / "ms.tif"


def test_windows_tell_the_shift(tmp_path, pansharpen):
    pan, ms = madrid(tmp_path, moved=(2, -1))
    sharpen(Job(pan, [ms], tmp_path / "out.tif", model="exp", threads=1, coregister="off"))
    code, _, err = pansharpen("report", tmp_path / "out.tif", "-o", tmp_path / "out.html")
    assert code == 0, err
    page = Page(tmp_path / "out.html")
    shift = page.data["shift"]
    assert (shift["dx"], shift["dy"]) == (pytest.approx(-2, abs=0.15), pytest.approx(1, abs=0.15))
    assert len(page.data["windows"]) == 4
    assert "worth correcting" in page.text
    assert "It was left as it is" in page.text


def test_without_windows_it_says_so(tmp_path, pansharpen):
    """A flat scene: nothing to compare, and nothing fails."""
    world = World(pan_size=(256, 256), ms_size=(64, 64), bands=3, dtype="uint16")
    random = np.random.default_rng(0)
    pan, ms = np.full((1, 256, 256), 500), np.full((3, 64, 64), 700)
    paths = world.write(tmp_path, pan + random.integers(0, 2, pan.shape), ms + random.integers(0, 2, ms.shape))
    sharpen(Job(paths[0], [paths[1]], tmp_path / "out.tif", model="exp", threads=1))
    code, _, err = pansharpen("report", tmp_path / "out.tif", "-o", tmp_path / "out.html")
    assert code == 0, err
    assert "shows how PAN and MS lie on each other" in Page(tmp_path / "out.html").text


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("method", ["exp", "gsa"])
def test_a_constant_band_has_a_histogram(method, tmp_path, pansharpen):
    """What a method makes of it differs by rounding alone."""
    world = World(pan_size=(131, 165), ms_size=(33, 43), bands=3)
    random, ms = np.random.default_rng(0), world.ms_image()
    ms[1] = 5000
    pan, path = world.write(tmp_path, world.pan_image() + 20 * random.normal(size=(1, 131, 165)), ms)
    sharpen(Job(pan, [path], tmp_path / "out.tif", model=method, threads=1))
    code, _, err = pansharpen("report", tmp_path / "out.tif", "-o", tmp_path / "out.html")
    assert code == 0, err
    page = Page(tmp_path / "out.html")
    found = page.data["histograms"][1]
    assert found["high"] - found["low"] >= 1
    assert sum(found["ms"]) == pytest.approx(1)
    assert sum(page.data["products"][0]["histograms"][1]) == pytest.approx(1)
    assert "Of 165 \u00d7 131 pixels" in page.text  # as the head of the page counts them


@pytest.mark.parametrize("level", [0.3, 5000, 3e9])
def test_a_histogram_is_as_fine_as_its_values_allow(level):
    noise = np.random.default_rng(0).integers(-1, 2, 1000) * np.spacing(np.float32(level))
    for values in (np.full(1000, level, np.float32), (level + noise).astype(np.float32)):
        found = _histograms(values, [values[::-1]])
        assert sum(found.ms) == pytest.approx(1, abs=0.5)
        assert sum(found.ms) == pytest.approx(sum(found.products[0]))
    spread = _histograms(np.linspace(level, 2 * level, 1000, dtype=np.float32), [])
    assert (spread.low, spread.high) == (pytest.approx(1.005 * level), pytest.approx(1.99 * level))


def test_one_is_not_several(tmp_path):
    paths = World(pan_size=(131, 165), ms_size=(33, 43), bands=1, names=("grey",)).write(tmp_path)
    sharpen(Job(paths[0], [paths[1]], tmp_path / "out.tif", model="exp", threads=1))
    write(gather([tmp_path / "out.tif"]), tmp_path / "out.html")
    assert "1 band (grey)" in Page(tmp_path / "out.html").text
    assert [counted(n, "window") for n in (0, 1, 2, 1000)] == ["0 windows", "1 window", "2 windows", "1,000 windows"]


HOSTILE = '</script><script>alert("x")</script><img src=http://evil.example/ onerror=alert(1)>&amp;'


def test_names_and_tags_are_text_and_nothing_else(tmp_path, pansharpen):
    world = World(pan_size=(256, 256), ms_size=(64, 64), dtype="uint16", names=(HOSTILE, "green", "red"))
    paths = world.write(tmp_path)
    product = tmp_path / "a<b>&'c.tif"
    sharpen(Job(paths[0], [paths[1]], product, model="exp", threads=1))
    with rasterio.open(product, "r+") as file:
        file.update_tags(ns="PANSHARPEN", NOTE=HOSTILE)
    code, _, err = pansharpen("report", product, "-o", tmp_path / "out.html")
    assert code == 0, err
    page = Page(tmp_path / "out.html")
    assert len(page.all("script")) == 2
    assert not [image for image in page.all("img") if not image["src"].startswith("data:")]
    assert page.data["bands"][0] == HOSTILE  # whole, as text
    assert page.data["products"][0]["tags"]["NOTE"] == HOSTILE
    assert page.text.count(HOSTILE) >= 3
    assert "a<b>&'c" in page.text


def test_three_products_side_by_side(tmp_path, pansharpen):
    pan, ms = madrid(tmp_path)
    made = []
    for method in ("exp", "gsa", "mtf-glp-fs"):
        made.append(tmp_path / f"{method}.tif")
        sharpen(Job(pan, [ms], made[-1], model=method, threads=1, coregister="off"))
    code, _, err = pansharpen("report", *made, "-o", tmp_path / "three.html")
    assert code == 0, err
    assert (tmp_path / "three.html").stat().st_size < 6e6
    page = Page(tmp_path / "three.html")
    assert [product["name"] for product in page.data["products"]] == ["exp", "gsa", "mtf-glp-fs"]
    header = re.search(r'<table class="indices">.*?</thead>', page.source, re.S)[0]
    assert [name in header for name in ("exp", "gsa", "mtf-glp-fs")] == [True] * 3
    best = min(page.data["products"], key=lambda product: product["scores"]["D_s"]["value"])
    row = re.search(r"<tr><th scope=\"row\">D_s <.*?</tr>", page.source, re.S)[0]
    assert re.search(r'class="n best">([\d.]+)', row)[1] == f"{best['scores']['D_s']['value']:.4f}"
    for layer in ("pan", "ms", "p0", "p1", "p2"):
        assert len(page.pictures(layer)) == len(page.data["crops"])
    exp, gsa = page.pictures("p0")[0], page.pictures("p1")[0]
    assert (
        np.abs(np.diff(exp, axis=0)).mean() < 0.8 * np.abs(np.diff(gsa, axis=0)).mean()
    )  # the same ground, less sharp
    assert np.corrcoef(exp.ravel(), gsa.ravel())[0, 1] > 0.7


def refused(result, message, code):
    found, out, err = result
    assert (found, out) == (code, "")
    assert re.search(message, err), err
    assert err.startswith("pansharpen: ")
    assert err.count("\n") == 1  # one sentence, no traceback


def test_what_is_missing_is_told_in_one_sentence(reported, tmp_path, pansharpen):
    target = tmp_path / "out.html"
    refused(pansharpen("report", tmp_path / "no.tif", "-o", target), "no.tif does not exist", 3)
    lonely = tmp_path / "lonely.tif"
    with rasterio.open(reported / "out.tif") as file:
        save(lonely, file.read(), dtype="uint16")
    refused(pansharpen("report", lonely, "-o", target), "does not say what its PAN was; give --pan", 3)
    moved = tmp_path / "moved.tif"
    shutil.copy(reported / "out.tif", moved)
    with rasterio.open(moved, "r+") as file:
        file.update_tags(ns="PANSHARPEN", MS=json.dumps(["gone.tif"]), MS_SHA256=json.dumps(["0"]))
    refused(pansharpen("report", moved, "-o", target), "gone.tif, which is not there; give --ms", 3)
    assert not target.exists()


def test_products_of_two_scenes_are_not_compared(reported, tmp_path, pansharpen):
    paths = World(pan_size=(384, 512), ms_size=(96, 128), bands=4, dtype="uint16").write(tmp_path)
    sharpen(Job(paths[0], [paths[1]], tmp_path / "other.tif", model="exp", threads=1))
    words = ("report", reported / "out.tif", tmp_path / "other.tif", "-o", tmp_path / "out.html")
    refused(pansharpen(*words), "made of different files; compare products of one scene", 3)
    code, _, err = pansharpen(*words, "--pan", paths[0], "--ms", paths[1])
    assert code == 0
    assert "made of different files, whatever --pan and --ms say" in err


def test_on_different_ground_none_is_the_best(tmp_path, pansharpen):
    pan, ms = madrid(tmp_path)
    for name, window in {"whole": None, "part": Window(0, 0, 256, 256)}.items():
        path = tmp_path / f"{name}.tif"
        sharpen(Job(pan, [ms], path, model="gsa", threads=1, coregister="off"))
        if window:
            with rasterio.open(path) as file:
                pixels, profile, transform = file.read(window=window), file.profile, file.window_transform(window)
                tags = file.tags(ns="PANSHARPEN")
            with rasterio.open(path, "w", **profile | {"width": 256, "height": 256, "transform": transform}) as file:
                file.write(pixels)
                file.update_tags(ns="PANSHARPEN", **tags)
    code, _, err = pansharpen("report", tmp_path / "whole.tif", tmp_path / "part.tif", "-o", tmp_path / "two.html")
    assert code == 0, err
    page = Page(tmp_path / "two.html")
    assert "(best)" not in page.text
    assert re.search(r"part: Of 256 .. 256 pixels|part: Of 256 . 256 pixels", page.text)
    assert "no product is called the best" in page.text


def test_a_file_that_appeared_meanwhile_is_not_replaced(tmp_path, monkeypatch):
    def page(report):
        (tmp_path / "new.html").write_text("mine")
        return "ours"

    monkeypatch.setattr("pansharpen_cli.report.page.page", page)
    with pytest.raises(OutputError, match="exists; choose another name"):
        write(None, tmp_path / "new.html")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["mine"]


def test_what_cannot_be_written_is_told_before_any_work(reported, tmp_path, pansharpen):
    product = reported / "out.tif"
    (tmp_path / "old.html").write_text("mine")
    refused(pansharpen("report", product, "-o", tmp_path / "old.html"), "exists; choose another name", 1)
    assert (tmp_path / "old.html").read_text() == "mine"
    refused(pansharpen("report", product, "-o", tmp_path / "no/out.html"), "no is no folder", 1)
    refused(pansharpen("report", product, "-o", product, "--overwrite"), "is one of the inputs", 1)
    refused(pansharpen("report", product, product, "-o", tmp_path / "out.html"), "given twice", 2)
    refused(pansharpen("report", product, "-o", tmp_path / "out.html", "--sensor", "XY"), "--sensor takes", 2)
