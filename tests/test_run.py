"""`run` on real scenes and on small worlds, as its user sees it: the file that comes out, its place, its gaps, its
tags, what the options did, and how much memory it took."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import rasterio
import torch
from affine import Affine
from test_zoo import random_model
from worlds import World, save

import pansharpen_cli
from pansharpen_cli import pipeline, zoo
from pansharpen_cli.errors import ModelError, SceneError, UsageError
from pansharpen_cli.evaluation.quality import judge
from pansharpen_cli.imaging.radiometry import Radiometry
from pansharpen_cli.imaging.registration import Shift
from pansharpen_cli.inputs.part import Window
from pansharpen_cli.job import Job
from pansharpen_cli.method import Method
from pansharpen_cli.pipeline import _tell, sharpen

SCENES = [
    "geoeye1_fields_w", "ikonos_mixed_w", "l7/01", "l8_madrid", "l8_momotombo", "l8_pamplona_w", "l8_plain_a",
    "l8_plain_b", "pleiades_arena", "tiny_l7", "tiny_l8", "wv2_park", "wv2_park_misreg", "wv2_rotterdam_1",
    "wv2_rotterdam_2", "wv2_urban_w", "wv3_geo_n",
]  # fmt: skip


@pytest.fixture(autouse=True)
def only_models_of_the_test(monkeypatch, tmp_path):
    monkeypatch.setenv("PANSHARPEN_MODELS", str(tmp_path / "models"))


def job(scene, output, **options):
    return Job(**{"pan": scene / "pan.tif", "ms": [scene / "ms.tif"], "output": output, "threads": 1, **options})


def read(path):
    with rasterio.open(path) as file:
        return file.read()


def tags(path):
    with rasterio.open(path) as file:
        return file.tags(ns="PANSHARPEN")


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def covered(pan, ms, shift=(0.0, 0.0)):
    """Rows and columns (H,), (W,): the MS pixel under each PAN pixel's centre `shift` PAN pixels on, -1 for none."""
    p, m = pan.transform, ms.transform
    found = []
    for size, origin, step, ms_size, ms_origin, ms_step, moved in (
        (pan.height, p.f, p.e, ms.height, m.f, m.e, shift[1]),
        (pan.width, p.c, p.a, ms.width, m.c, m.a, shift[0]),
    ):
        edge = (origin + (np.arange(size) + 0.5 + moved) * step - ms_origin) / ms_step
        edge = np.where(np.abs(edge - np.round(edge)) < 1e-6, np.round(edge), edge)
        index = np.where(edge == ms_size, ms_size - 1, np.floor(edge)).astype(int)
        found.append(np.where((index >= 0) & (index < ms_size), index, -1))
    return found


@pytest.mark.parametrize("name", SCENES)
def test_every_scene_comes_out_in_its_place(name, data, tmp_path):
    scene, output = data / name, tmp_path / "out.tif"
    made = sharpen(job(scene, output, model="exp"))
    with (
        rasterio.open(scene / "pan.tif") as pan,
        rasterio.open(scene / "ms.tif") as ms,
        rasterio.open(output) as file,
    ):
        rows, cols = covered(pan, ms, made.applied)
        on_rows, on_cols = np.flatnonzero(rows >= 0), np.flatnonzero(cols >= 0)
        if made.shift.field:  # some tenths of a pixel, and half of an MS pixel
            on_rows, on_cols = on_rows[2:-2], on_cols[2:-2]
        first = pan.transform @ Affine.translation(on_cols[0], on_rows[0])
        assert file.shape == (len(on_rows), len(on_cols)) == (made.height, made.width)
        assert np.allclose(tuple(file.transform), tuple(first), rtol=1e-12, atol=1e-9)
        assert file.crs == pan.crs
        assert set(file.dtypes) == set(ms.dtypes) == {made.dtype}
        assert file.descriptions == ms.descriptions == tuple(made.bands)
        assert file.nodata == ms.nodata
        hrms, blurred = file.read(masked=True), ms.read(masked=True).astype(float)
    assert np.isfinite(hrms.compressed()).all()
    under = blurred[:, rows[on_rows][:, None], cols[on_cols]]
    for band, low in zip(hrms.astype(float), under, strict=True):
        both = ~np.ma.getmaskarray(band) & ~np.ma.getmaskarray(low)
        assert np.corrcoef(band.data[both], low.data[both])[0, 1] > 0.85  # the MS itself, only smoother
        assert band.data[both].mean() == pytest.approx(low.data[both].mean(), rel=0.01)
    found = tags(output)
    named = [tmp_path / name for name in (found["PAN"], *json.loads(found["MS"]))]  # from the product's folder
    assert [path.resolve() for path in named] == [(scene / name).resolve() for name in ("pan.tif", "ms.tif")]
    assert found["PAN_SHA256"] == sha256(scene / "pan.tif")
    assert json.loads(found["MS_SHA256"]) == [sha256(scene / "ms.tif")]
    assert (found["MODEL"], found["BACKEND"], found["DEVICE"]) == ("exp", "classical", "cpu")
    assert found["VERSION"] == pansharpen_cli.__version__
    assert found["SHIFT_APPLIED"] == f"{made.applied[0]:.4f},{made.applied[1]:.4f}"


@pytest.mark.parametrize("model", ["exp", "gsa"])
def test_gaps_are_gaps_and_nothing_else_is(model, data, tmp_path):
    scene, output = data / "wv2_rotterdam_2", tmp_path / "out.tif"
    sharpen(job(scene, output, model=model, coregister="off"))
    with rasterio.open(scene / "pan.tif") as pan, rasterio.open(scene / "ms.tif") as ms:
        rows, cols = covered(pan, ms)
        on_rows, on_cols = rows >= 0, cols >= 0
        no_ms = (ms.read() == 0).all(axis=0)[rows[on_rows][:, None], cols[on_cols]]
        no_pan = pan.read(1)[on_rows][:, on_cols] == 0
    gaps = no_pan | no_ms
    assert 0.2 < gaps.mean() < 0.5
    hrms = read(output)
    for band in hrms:
        assert np.array_equal(band == 0, gaps)


def test_gaps_follow_the_shift(data, tmp_path):
    """Moved by whole MS pixels, the MS's gaps move with it."""
    scene, output = data / "wv2_rotterdam_2", tmp_path / "out.tif"
    shift = (8.0, -4.0)
    sharpen(job(scene, output, model="exp", coregister=shift))
    with rasterio.open(scene / "pan.tif") as pan, rasterio.open(scene / "ms.tif") as ms:
        rows, cols = covered(pan, ms, shift)
        on_rows, on_cols = rows >= 0, cols >= 0
        no_ms = (ms.read() == 0).all(axis=0)[rows[on_rows][:, None], cols[on_cols]]
        no_pan = pan.read(1)[on_rows][:, on_cols] == 0
    assert np.array_equal((read(output) == 0).all(axis=0), no_pan | no_ms)


def test_valid_zeros_stay(tmp_path):
    """A band that is 0 where the others are not, in a file whose nodata is 0."""
    world = World(bands=3, dtype="uint16", nodata=0)
    ms = world.ms_image()
    ms[1, 8:16, 8:16] = 0
    pan, ms_path = world.write(tmp_path, ms=ms)
    sharpen(Job(pan, [ms_path], tmp_path / "out.tif", model="exp", coregister="off"))
    hrms = read(tmp_path / "out.tif")
    assert (hrms > 0).all()  # 1 is as near to 0 as a valid pixel may come
    assert (hrms[1, 40:56, 40:56] < 100).all()


@pytest.mark.parametrize("asked", ["off", "report", "auto", (2.5, 3.25)])
def test_coregistration_does_what_is_asked(asked, data, tmp_path):
    scene, output = data / "wv2_park_misreg", tmp_path / "out.tif"
    made = sharpen(job(scene, output, model="exp", coregister=asked))
    found = tags(output)
    applied = tuple(map(float, found["SHIFT_APPLIED"].split(",")))
    assert found["COREGISTER"] == (asked if isinstance(asked, str) else "given")
    if asked == "off":
        assert made.shift is None
        assert not [name for name in found if name.startswith("SHIFT") and name != "SHIFT_APPLIED"]
    else:
        dx, dy = map(float, found["SHIFT"].split(","))
        assert (dx, dy) == pytest.approx((2.75, 3.10), abs=0.2)
        assert (made.shift.dx, made.shift.dy) == pytest.approx((dx, dy), abs=1e-4)
        assert 0 < float(found["SHIFT_CONFIDENCE"]) <= 1
    expected = {"off": (0, 0), "report": (0, 0), "auto": made.shift and (made.shift.dx, made.shift.dy)}.get(
        asked, asked
    )
    assert applied == pytest.approx(expected, abs=1e-4)
    assert found["MS_INTERPOLATED"] == ("sinc" if any(applied) else "no")


def test_a_shift_that_cannot_be_measured_is_not_told_as_zero(tmp_path, caplog):
    caplog.set_level("INFO", "pansharpen_cli")
    world = World(bands=3, dtype="uint16", pan_size=(256, 256), ms_size=(64, 64))
    pan, ms = world.write(tmp_path, np.full((1, 256, 256), 500), np.full((3, 64, 64), 700))
    sharpen(Job(pan, [ms], tmp_path / "out.tif", model="exp"))
    sharpen(Job(pan, [ms], tmp_path / "given.tif", model="exp", coregister=(1, 0)))
    assert "PAN lies" not in caplog.text
    told = [message for message in caplog.messages if "no window shows how PAN and MS lie on each other" in message]
    assert [message.split(": ")[-1] for message in told] == ["left as it is", "corrected by (1.00, 0.00)"]


def test_one_window_is_not_windows(caplog):
    caplog.set_level("INFO", "pansharpen_cli")
    _tell(Shift(0.5, 0, 0.2, 0, 1), (0, 0))
    _tell(Shift(0.5, 0, 0.2, 0, 2), (0, 0))
    assert ["1 window)" in caplog.messages[0], "2 windows)" in caplog.messages[1]] == [True, True]


def likeness(output, pan):
    """Correlation of the mean band's detail with that of the PAN under it."""
    with rasterio.open(output) as file, rasterio.open(pan) as source:
        row, col = (round(v) for v in reversed(~source.transform @ (file.transform.c, file.transform.f)))
        grey = file.read()[:3].mean(axis=0)
        pan_image = source.read(1)[row : row + file.height, col : col + file.width].astype(float)
    images = [np.diff(image, axis=0)[:, 1:] + np.diff(image, axis=1)[1:] for image in (grey, pan_image)]
    return np.corrcoef(*(image[100:-100, 100:-100].ravel() for image in images))[0, 1]


def test_the_correction_brings_ms_and_pan_together(data, tmp_path):
    """Seen from the pixels, not from the tags: better than none, and than twice as much, or the other way."""
    scene = data / "wv2_park_misreg"
    found = {}
    for share in (1, 0, 2, -1):
        output = tmp_path / f"{share}.tif"
        sharpen(job(scene, output, model="exp", coregister=(share * 2.75, share * 3.1) if share else "off"))
        found[share] = likeness(output, scene / "pan.tif")
    assert max(found, key=found.get) == 1
    assert found[1] > 1.2 * found[0]


def split(ms, folder):
    """The MS as one file a band, with band names as Landsat's archives have them: in the file name."""
    paths = []
    with rasterio.open(ms) as source:
        for index, name in enumerate(source.descriptions, start=1):
            path = folder / f"{name}.tif"
            with rasterio.open(path, "w", **source.profile | {"count": 1}) as file:
                file.write(source.read(index), 1)
            paths.append(path)
    return paths


@pytest.mark.parametrize("name", ["wv2_rotterdam_2", "tiny_l8"])
def test_bands_may_come_in_files_of_their_own(name, data, tmp_path):
    scene = data / name
    sharpen(job(scene, tmp_path / "one.tif", model="gsa"))
    files = split(scene / "ms.tif", tmp_path)
    made = sharpen(job(scene, tmp_path / "many.tif", ms=files, model="gsa"))
    with rasterio.open(tmp_path / "one.tif") as one, rasterio.open(tmp_path / "many.tif") as many:
        assert np.array_equal(one.read(), many.read())
        assert one.descriptions == many.descriptions == tuple(made.bands)
        assert one.colorinterp == many.colorinterp
        assert one.nodata == many.nodata
    assert json.loads(tags(tmp_path / "many.tif")["MS_SHA256"]) == [sha256(path) for path in files]


def test_files_of_their_own_keep_valid_zeros_too(tmp_path):
    """What one file says of a pixel that is 0 in one band only, many say too."""
    world = World(bands=3, dtype="uint16", nodata=0)
    ms = world.ms_image()
    ms[1, 8:16, 8:16] = 0
    pan, path = world.write(tmp_path, ms=ms)
    sharpen(Job(pan, [path], tmp_path / "one.tif", model="exp", coregister="off"))
    sharpen(Job(pan, split(path, tmp_path), tmp_path / "many.tif", model="exp", coregister="off"))
    assert np.array_equal(read(tmp_path / "one.tif"), read(tmp_path / "many.tif"))


@pytest.fixture
def small(tmp_path):
    """PAN and MS of a small world of four bands, uint16."""
    return World(bands=4, dtype="uint16").write(tmp_path)


@pytest.mark.parametrize("network", ["premix-b", "adknet"])
def test_a_model_gets_its_bands_in_its_order(network, small, tmp_path):
    pan, ms = small
    random_model(tmp_path / "models" / "bgrn", network, channels=8)
    with rasterio.open(ms) as source, rasterio.open(tmp_path / "rgbn.tif", "w", **source.profile) as file:
        file.write(source.read([3, 2, 1, 4]))
        file.descriptions = ["red", "green", "blue", "nir"]
    sharpen(Job(pan, [ms], tmp_path / "a.tif", model="bgrn"))
    made = sharpen(Job(pan, [tmp_path / "rgbn.tif"], tmp_path / "b.tif", model="bgrn"))
    assert made.bands == ["red", "green", "blue", "nir"]
    assert np.array_equal(read(tmp_path / "a.tif")[[2, 1, 0, 3]], read(tmp_path / "b.tif"))


def test_bidx_takes_these_bands_in_this_order(small, tmp_path):
    pan, ms = small
    sharpen(Job(pan, [ms], tmp_path / "all.tif", model="exp"))
    made = sharpen(Job(pan, [ms], tmp_path / "two.tif", model="exp", bands=[3, 1], coregister="off"))
    assert made.bands == ["red", "blue"]
    assert np.array_equal(read(tmp_path / "two.tif"), read(tmp_path / "all.tif")[[2, 0]])


def test_band_names_replace_those_of_the_file(small, tmp_path):
    pan, ms = small
    random_model(tmp_path / "models" / "bgrn", channels=8)
    names = ["NIR1", "Red", "Green", "Blue"]
    sharpen(Job(pan, [ms], tmp_path / "named.tif", model="bgrn", band_names=names))
    with rasterio.open(ms) as source, rasterio.open(tmp_path / "turned.tif", "w", **source.profile) as file:
        file.write(source.read()[::-1])
        file.descriptions = ["blue", "green", "red", "nir"]
    sharpen(Job(pan, [tmp_path / "turned.tif"], tmp_path / "same.tif", model="bgrn"))
    with rasterio.open(tmp_path / "named.tif") as file:
        assert file.descriptions == tuple(names)
        assert np.array_equal(file.read()[::-1], read(tmp_path / "same.tif"))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "uint32", "int32", "float32", "float64"])
def test_the_product_has_the_type_that_is_asked_for(dtype, tmp_path):
    """Some of its values are beyond what 8 bits hold."""
    world = World(bands=4, dtype="uint16")
    pan, ms = world.write(tmp_path, world.pan_image() / 5, world.ms_image() / 5)
    sharpen(Job(pan, [ms], tmp_path / "exact.tif", model="exp", dtype="float64"))
    sharpen(Job(pan, [ms], tmp_path / "out.tif", model="exp", dtype=dtype))
    exact, found = read(tmp_path / "exact.tif"), read(tmp_path / "out.tif")
    assert found.dtype == dtype
    if np.issubdtype(found.dtype, np.integer):
        info = np.iinfo(dtype)
        exact = np.clip(np.rint(exact), info.min, info.max)
    assert np.array_equal(found, exact.astype(dtype))


def test_a_cog_holds_the_same_pixels(data, tmp_path):
    scene = data / "wv2_rotterdam_2"
    for kind in ("gtiff", "cog"):
        sharpen(job(scene, tmp_path / f"{kind}.tif", model="gsa", format=kind, creation_options={"COMPRESS": "ZSTD"}))
    with rasterio.open(tmp_path / "gtiff.tif") as gtiff, rasterio.open(tmp_path / "cog.tif") as cog:
        assert cog.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert cog.tags(ns="IMAGE_STRUCTURE")["COMPRESSION"] == "ZSTD"
        assert np.array_equal(cog.read(), gtiff.read())
        assert (cog.crs, cog.transform, cog.descriptions) == (gtiff.crs, gtiff.transform, gtiff.descriptions)
        assert cog.nodata == gtiff.nodata
        assert cog.tags(ns="PANSHARPEN") == gtiff.tags(ns="PANSHARPEN")
        assert cog.overviews(1)


def test_a_run_can_be_repeated(small, tmp_path):
    """To the pixel."""
    pan, ms = small
    random_model(tmp_path / "models" / "bgrn", "adknet", channels=8)
    for name in "ab":
        sharpen(Job(pan, [ms], tmp_path / f"{name}.tif", model="bgrn", tile=64))
    assert np.array_equal(read(tmp_path / "a.tif"), read(tmp_path / "b.tif"))
    assert tags(tmp_path / "a.tif") == tags(tmp_path / "b.tif")


def test_the_device_loads_while_the_scene_is_looked_at(small, tmp_path, monkeypatch):
    loaded, load, measure = Event(), Method.load, pipeline.measure

    def loading(method, device, name):
        load(method, device, name)
        loaded.set()

    def measured(canvas):
        assert loaded.wait(60)
        return measure(canvas)

    monkeypatch.setattr(Method, "load", loading)
    monkeypatch.setattr(pipeline, "measure", measured)
    random_model(tmp_path / "models" / "bgrn", channels=8)
    pan, ms = small
    assert sharpen(Job(pan, [ms], tmp_path / "out.tif", model="bgrn")).device == "cpu"


def test_progress_is_told(small, tmp_path):
    pan, ms = small
    told = []
    sharpen(Job(pan, [ms], tmp_path / "out.tif", model="exp", tile=64), lambda done, total: told.append((done, total)))
    assert told == [(done, 4) for done in (1, 2, 3, 4)]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"coregister": "maybe"}, "takes off, report, auto or DX,DY"),
        ({"sensor": "WV9"}, "sensor takes measured, generic, QB"),
        ({"sensor": [0.3, 0.3]}, "sensor takes a name, not"),
        ({"sensor": None}, "sensor takes a name, not None"),
        ({"resampling": "foo"}, "resampling knows"),
        ({"dtype": "uint99"}, "dtype knows uint8"),
        ({"format": "png"}, "format knows gtiff, cog"),
        ({"statistics": "some"}, "statistics knows part, scene"),
        ({"tile": 12}, "tile takes a whole number from 32 on"),
        ({"threads": -1}, "threads takes a whole number from 0 on"),
        ({"max_memory": "4G"}, "max_memory takes a whole number"),
        ({"bands": "1,3"}, "bands takes a list"),
        ({"bands": [1.5]}, "bands takes a whole number"),
        ({"band_names": [1, 2, 3, 4]}, "band_names takes a name"),
        ({"coregister": (1, 2, 3)}, "coregister takes DX and DY"),
        ({"coregister": (0.5, float("nan"))}, "coregister takes numbers"),
        ({"coregister": 5}, r"coregister takes .*, not 5"),
        ({"coregister": False}, r'coregister takes "off", "report", "auto" or \(DX, DY\) in PAN pixels, not False'),
        ({"nodata": None}, "nodata takes a number, nan, none or file"),
        ({"model": None}, "model takes a name"),
        ({"part": (0, 0, 1, 1)}, "part takes a Window or Bounds"),
        ({"creation_options": ["A=B"]}, "creation_options takes a mapping"),
        ({"backend": "foo"}, "backend knows auto, torch, onnx, not 'foo'"),
        ({"overwrite": "no"}, "overwrite takes True or False, not 'no'"),
        ({"resume": "x"}, "resume takes True or False"),
        ({"remembered": 1}, "remembered takes True or False"),
        ({"device": 3, "model": "exp"}, "device takes a name, not 3"),
        ({"output": None}, "output takes a name, not None"),
        ({"ms": 5}, "ms takes a list, not 5"),
    ],
)
def test_a_job_has_values_that_mean_something(options, said, small, tmp_path):
    """As the command line and manifests do; a shift as text is one."""
    with pytest.raises(UsageError, match=said):
        pansharpen_cli.sharpen(**{"pan": small[0], "ms": small[1], "output": tmp_path / "out.tif", **options})
    assert Job("p.tif", ["m.tif"], "out.tif", overwrite=np.bool_(True)).output == Path("out.tif")
    assert Job("p.tif", ["m.tif"], tmp_path, coregister="1,-2.5").coregister == (1, -2.5)


def test_numbers_may_be_numpys(small, tmp_path):
    options = {
        "bands": np.array([2, 1]),
        "coregister": np.array([0.5, 0]),
        "nodata": np.float32(0),
        "tile": np.int64(64),
        "sensor": np.float32(0.3),
    }
    numpys = pansharpen_cli.sharpen(*small, tmp_path / "a.tif", model=Path("exp"), threads=np.int32(1), **options)
    options = {"bands": [2, 1], "coregister": (0.5, 0.0), "nodata": 0, "tile": 64, "sensor": "0.3"}
    plain = pansharpen_cli.sharpen(*small, tmp_path / "b.tif", model="exp", threads=1, **options)
    assert np.array_equal(read(numpys.path), read(plain.path))
    assert numpys.job_sha256 == plain.job_sha256


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_what_is_no_number_is_no_product(dtype, small, tmp_path):
    """A model with a NaN among its weights: as an integer it would be any number."""
    model = random_model(tmp_path / "models" / "bgrn", "adknet", channels=8)
    network = model.load()
    with torch.no_grad():
        next(network.parameters()).view(-1)[0] = torch.nan
    zoo.save(model.folder, model.spec, network, "# bgrn")
    with pytest.raises(ModelError, match=r"ms\.tif come out as no number \(NaN or infinite\)"):
        pansharpen_cli.sharpen(*small, tmp_path / "out.tif", model="bgrn", dtype=dtype)
    assert not (tmp_path / "out.tif").exists()


def test_whole_numbers_that_hold_no_reflectance_are_refused(tmp_path):
    """All of it would be 0 and 1."""
    world = World(bands=4)
    scale = 1 / 4000
    pan = save(tmp_path / "pan.tif", world.pan_image() * scale, world.pan_sheet)
    ms = save(tmp_path / "ms.tif", world.ms_image() * scale, world.ms_sheet)
    with pytest.raises(
        UsageError, match=r"--dtype uint16 holds whole numbers, and the values of .*ms\.tif vary by 0\.\d+"
    ):
        pansharpen_cli.sharpen(pan, ms, tmp_path / "out.tif", model="exp", dtype="uint16")
    pansharpen_cli.sharpen(pan, ms, tmp_path / "out.tif", model="exp", dtype="float64")


def test_a_type_that_holds_hardly_a_value_is_refused(tmp_path):
    pan, ms = World(bands=4, dtype="uint16").write(tmp_path)
    with pytest.raises(SceneError, match=r"most of what .*pan\.tif and .*ms\.tif give is not among what int8 holds"):
        pansharpen_cli.sharpen(pan, ms, tmp_path / "out.tif", model="exp", dtype="int8")
    assert not (tmp_path / "out.tif").exists()


def test_no_product_is_named_as_another_format(small, tmp_path):
    with pytest.raises(UsageError, match=r"written as GeoTIFF; name it .tif"):
        pansharpen_cli.sharpen(*small, tmp_path / "out.PNG")
    assert not (tmp_path / "out.PNG").exists()


def test_an_output_in_the_way_is_found_before_the_work(small, tmp_path, monkeypatch):
    """Not after a model was loaded and a large scene measured."""
    monkeypatch.setattr("pansharpen_cli.pipeline.measure", lambda *_: pytest.fail("it has begun to work"))
    pan, ms = small
    (tmp_path / "out.tif").write_text("mine")
    with pytest.raises(pansharpen_cli.PansharpenError, match="exists"):
        sharpen(Job(pan, [ms], tmp_path / "out.tif", model="exp"))
    assert (tmp_path / "out.tif").read_text() == "mine"


SCORED = {
    "good": {"good": {"ergas": 2.0}, "exp": {"ergas": 4.0}},
    "better_on_easier_scenes": {"better_on_easier_scenes": {"ergas": 1.0}, "exp": {"ergas": 1.5}},
    "unscored": {},
}


def test_auto_takes_the_best_model_that_fits(small, tmp_path):
    """Best against EXP on the same scenes: scores of other scenes do not compare."""
    pan, ms = small
    models = tmp_path / "models"
    for name, scores in SCORED.items():
        random_model(models / name, channels=4, scores=scores)
    random_model(models / "coarser", channels=4, ratio=2, scores={"coarser": {"ergas": 0.1}, "exp": {"ergas": 9.0}})
    random_model(models / "redder", bands=("red",) * 1, channels=4, scores={"redder": {"ergas": 0.1}})
    made = sharpen(Job(pan, [ms], tmp_path / "out.tif"))
    assert made.method == tags(tmp_path / "out.tif")["MODEL"] == "good"
    found = tags(tmp_path / "out.tif")
    assert found["MODEL_SHA256"] == sha256(models / "good" / "weights.safetensors")
    assert found["BACKEND"] == "torch"


def test_auto_falls_back_to_a_classical_method_and_says_why(tmp_path, caplog):
    pan, ms = World(bands=5, ratio=3, dtype="uint16").write(tmp_path)
    random_model(tmp_path / "models" / "coarser", channels=4, ratio=2)
    caplog.set_level("INFO", "pansharpen_cli")
    made = sharpen(Job(pan, [ms], tmp_path / "out.tif"))
    assert made.method == "mtf-glp-fs"
    assert "no model fits" in made.reason
    assert made.reason in caplog.text


def test_a_model_that_does_not_fit_is_refused_with_what_would(small, tmp_path):
    pan, ms = small
    random_model(tmp_path / "models" / "coarser", channels=4, ratio=2)
    random_model(tmp_path / "models" / "fitting", channels=4)
    with pytest.raises(ModelError, match=r"coarser.*ratio 2.*fitting.*gsa"):
        sharpen(Job(pan, [ms], tmp_path / "out.tif", model="coarser"))
    assert not (tmp_path / "out.tif").exists()


@pytest.mark.parametrize(("scale", "warned"), [(2047.0, False), (100.0, True), (65535.0, True)])
def test_a_scale_that_does_not_fit_the_scene_is_warned_of(scale, warned, small, tmp_path, caplog):
    pan, ms = small
    random_model(tmp_path / "models" / "fixed", channels=4, radiometry=Radiometry("fixed", scale, scale))
    sharpen(Job(pan, [ms], tmp_path / "out.tif", model="fixed", dtype="float32"))
    assert ("expects values" in caplog.text) == warned


def test_secrets_in_urls_stay_out_of_the_product(small, tmp_path, monkeypatch):
    """The PAN comes from a URL with a password and a token."""
    pan, ms = small
    url = "https://user:hunter2@example.com/pan.tif?token=0a1b2c"
    original = rasterio.open
    monkeypatch.setattr(
        rasterio, "open", lambda path, *args, **kw: original(pan if "0a1b2c" in str(path) else path, *args, **kw)
    )
    sharpen(Job(url, [ms], tmp_path / "out.tif", model="exp"))
    assert tags(tmp_path / "out.tif")["PAN"] == "https://...@example.com/pan.tif?..."
    content = (tmp_path / "out.tif").read_bytes()
    assert b"hunter2" not in content
    assert b"0a1b2c" not in content


def test_a_call_that_is_wrong_in_itself_is_a_type_error(small, tmp_path):
    with pytest.raises(TypeError, match="colour"):
        pansharpen_cli.sharpen(*small, tmp_path / "out.tif", colour="red")


def test_the_library_function_is_the_same_run(small, tmp_path):
    pan, ms = small
    made = pansharpen_cli.sharpen(pan, ms, tmp_path / "a.tif", model="gsa")
    again = sharpen(Job(pan, [ms], tmp_path / "b.tif", model="gsa"))
    assert np.array_equal(read(tmp_path / "a.tif"), read(tmp_path / "b.tif"))
    assert replace(made, seconds=0.0, path=again.path) == replace(again, seconds=0.0)


def large(folder, size):
    """A scene of `size` PAN pixels a side, four bands, ratio 4: the same block again and again."""
    folder.mkdir()
    noise = np.random.default_rng(0)
    for name, gsd, pixels, bands in (("pan", 1.0, size, 1), ("ms", 4.0, size // 4, 4)):
        block = noise.integers(200, 1800, (bands, 512, 512)).astype("uint16")
        profile = {"count": bands, "dtype": "uint16", "crs": "EPSG:32630", "tiled": True}
        place = Affine(gsd, 0, 500_000, 0, -gsd, 5_000_000)
        with rasterio.open(
            folder / f"{name}.tif", "w", height=pixels, width=pixels, transform=place,
            blockxsize=512, blockysize=512, **profile,
        ) as file:  # fmt: skip
            for _, window in file.block_windows(1):
                file.write(block[:, : window.height, : window.width], window=window)
    return folder


def peak_memory(scene, output):
    """Bytes."""
    command = [sys.executable, "-c", "from pansharpen_cli.cli.app import main; main()", "run"]
    command += [scene / "pan.tif", scene / "ms.tif", "-o", output, "--model", "exp", "-j", "1", "-q"]
    process = subprocess.Popen([str(part) for part in command])
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    output.unlink()
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


@pytest.mark.skipif("PANSHARPEN_SLOW" not in os.environ, reason="two minutes; PANSHARPEN_SLOW=1 runs it")
def test_memory_does_not_grow_with_the_scene(tmp_path):
    small, big = (peak_memory(large(tmp_path / str(size), size), tmp_path / "out.tif") for size in (4096, 16384))
    assert big <= 1.15 * small


def test_a_scene_without_georeference_comes_out_without(tmp_path):
    world = World(bands=3, dtype="uint16")
    pan, ms = save(tmp_path / "p.tif", world.pan_image(), dtype="uint16"), tmp_path / "m.tif"
    save(ms, world.ms_image(), dtype="uint16")
    made = sharpen(Job(pan, [ms], tmp_path / "out.tif", model="exp"))
    with rasterio.open(tmp_path / "out.tif") as file:
        assert (file.crs, file.transform) == (None, Affine.identity())
        assert file.shape == (made.height, made.width) == (96, 128)


def test_how_sharp_the_ms_is_is_measured_and_told(data, tmp_path, caplog):
    """`qnr` then judges by it, whether or not it counts for the method."""
    caplog.set_level("INFO", "pansharpen_cli")
    scene = data / "geoeye1_fields_w"
    files, window = (scene / "pan.tif", [scene / "ms.tif"]), {"part": Window(0, 0, 640, 640)}
    sharpen(Job(*files, tmp_path / "measured.tif", model="mtf-glp", **window))
    gain = float(tags(tmp_path / "measured.tif")["SENSOR"])
    assert 0.22 <= gain <= 0.28  # published: 0.23
    assert f"as sharp as an MTF gain of {gain:.2f}" in caplog.text
    assert judge(tmp_path / "measured.tif").sensor == f"{gain:.2f}"
    sharpen(Job(*files, tmp_path / "given.tif", model="mtf-glp", sensor=f"{gain:.2f}", **window))
    sharpen(Job(*files, tmp_path / "generic.tif", model="mtf-glp", sensor="generic", **window))
    assert np.array_equal(read(tmp_path / "measured.tif"), read(tmp_path / "given.tif"))
    assert not np.array_equal(read(tmp_path / "measured.tif"), read(tmp_path / "generic.tif"))
    sharpen(Job(*files, tmp_path / "exp.tif", model="exp", **window))
    assert tags(tmp_path / "exp.tif")["SENSOR"] == f"{gain:.2f}"
