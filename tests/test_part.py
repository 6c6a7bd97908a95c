"""A part of a scene has the pixels of the whole product, from wherever in the scene it is; and where its statistics are
its own, what lies far away does not matter."""

from dataclasses import replace

import numpy as np
import pyproj
import pytest
import rasterio
from affine import Affine
from test_zoo import random_model
from worlds import UTM, World, save

from pansharpen_cli.errors import SceneError, UsageError
from pansharpen_cli.inputs.part import Bounds, Window, parse_bounds, parse_window
from pansharpen_cli.job import Job
from pansharpen_cli.pipeline import sharpen

WORLD = World(bands=4, dtype="uint16", pan_size=(301, 403), ms_size=(70, 95), offset=(9.3, 11.8))
CORNERS = {
    "top left": Window(0, 0, 60, 50),
    "right": Window(340, 120, 63, 70),
    "bottom": Window(101, 240, 90, 61),
    "middle": Window(77, 93, 130, 101),
    "one pixel": Window(200, 150, 1, 1),
}


@pytest.fixture(autouse=True)
def only_models_of_the_test(monkeypatch, tmp_path):
    monkeypatch.setenv("PANSHARPEN_MODELS", str(tmp_path / "models"))


@pytest.fixture
def job(tmp_path):
    """Of a scene with noise and gaps, whose MS is moved and interpolated."""
    random = np.random.default_rng(0)
    pan = WORLD.pan_image() + random.normal(0, 30, (1, *WORLD.pan_size))
    ms = WORLD.ms_image() + random.normal(0, 30, (4, *WORLD.ms_size))
    valid = np.ones(WORLD.ms_size, bool)
    valid[20:26, 15:40] = False
    pan_path = save(tmp_path / "pan.tif", pan, WORLD.pan_sheet, dtype="uint16")
    ms_path = save(tmp_path / "ms.tif", ms, WORLD.ms_sheet, dtype="uint16", mask=valid, names=WORLD.names)
    return Job(pan_path, [ms_path], tmp_path / "whole.tif", coregister=(1.4, -0.7), tile=128, threads=1)


def read(path):
    """Pixels with their mask, and the transform."""
    with rasterio.open(path) as file:
        return np.concatenate([file.read(), file.read_masks(1)[None]]), file.transform


def cut(whole, transform, part_transform, shape):
    col, row = (round(v) for v in ~transform @ (part_transform.c, part_transform.f))
    assert row >= 0
    assert col >= 0
    return whole[:, row : row + shape[0], col : col + shape[1]]


@pytest.mark.parametrize("method", ["gsa", "mtf-glp-fs", "adknet", "premix-h"])
def test_a_part_is_cut_out_of_the_whole_product(method, job, tmp_path):
    model, parts = method, list(CORNERS.items())
    if method in ("adknet", "premix-h"):
        random_model(tmp_path / "models" / "random", method, channels=8)
        model, parts = "random", parts[::3]
    job = replace(job, model=model, statistics="scene")
    sharpen(job)
    whole, transform = read(job.output)
    for name, part in parts:
        made = sharpen(replace(job, part=part, output=tmp_path / f"{name}.tif", tile=96))
        pixels, where = read(made.path)
        assert (made.height, made.width) == pixels.shape[1:] <= (part.height, part.width)
        assert np.array_equal(pixels, cut(whole, transform, where, pixels.shape[1:]))


def test_parts_side_by_side_are_the_whole(job, tmp_path):
    """Of bounds that fall anywhere on the pixels: each belongs to one part."""
    job = replace(job, model="exp", statistics="scene")
    sharpen(job)
    whole, transform = read(job.output)
    left, top = transform.c, transform.f
    right, bottom = transform @ (whole.shape[2], whole.shape[1])
    x, y = left + 0.391 * (right - left), top + 0.617 * (bottom - top)
    found = np.zeros_like(whole)
    times = np.zeros(whole.shape[1:], int)
    for number, (low, high) in enumerate((((left, y), (x, top)), ((x, y), (right, top)), ((left, bottom), (x, y)),
                                          ((x, bottom), (right, y)))):  # fmt: skip
        made = sharpen(replace(job, part=Bounds(*low, *high), output=tmp_path / f"{number}.tif"))
        pixels, where = read(made.path)
        col, row = (round(v) for v in ~transform @ (where.c, where.f))
        inside = slice(row, row + pixels.shape[1]), slice(col, col + pixels.shape[2])
        found[(..., *inside)] = pixels
        times[inside] += 1
    assert (times == 1).all()
    assert np.array_equal(found, whole)


@pytest.mark.parametrize("model", ["gsa", "random"])
def test_far_away_does_not_matter_unless_it_is_asked_for(model, tmp_path):
    """A part's own statistics and shift need its surroundings alone; those of the scene need everything."""
    random_model(tmp_path / "models" / "random", "adknet", channels=8)
    world = World(bands=4, dtype="uint16", pan_size=(160, 1600), ms_size=(40, 400))
    near = Job(*_written(world, tmp_path, "near", 0), tmp_path / "o", model, part=Window(50, 40, 100, 80), threads=1)
    pan, ms = _written(world, tmp_path, "far", 900)
    found = {}
    for statistics in ("part", "scene"):
        for name, inputs in (("near", (near.pan, near.ms)), ("far", (pan, ms))):
            output = tmp_path / f"{statistics}_{name}.tif"
            job = replace(near, pan=inputs[0], ms=inputs[1], output=output, statistics=statistics)
            found[statistics, name] = sharpen(job).applied, read(output)[0]
    assert found["part", "near"][0] == found["part", "far"][0]
    assert np.array_equal(found["part", "near"][1], found["part", "far"][1])
    assert not np.array_equal(found["scene", "near"][1], found["scene", "far"][1])


def _written(world, folder, name, more):
    """The world, with all MS values `more` beyond 1100 PAN pixels."""
    ms = world.ms_image()
    ms[:2, :, 1200 // 4 :] += more
    pan, path = world.write(folder, ms=ms, name=name)
    return pan, [path]


def test_bounds_in_another_crs_hold_what_lies_there(job, tmp_path):
    """Every pixel whose centre lies in the rectangle of longitudes and latitudes is there, and few others: the
    rectangle is none in the PAN's CRS."""
    to_degrees = pyproj.Transformer.from_crs(UTM, "EPSG:4326", always_xy=True)
    x, y = WORLD.pan_sheet.centres()
    lon, lat = to_degrees.transform(x, y)
    edges = lon[150, 120], lat[220, 120], lon[150, 260], lat[90, 200]
    inside = (lon >= edges[0]) & (lon <= edges[2]) & (lat >= edges[1]) & (lat <= edges[3])
    part = parse_bounds(",".join(map(repr, map(float, edges))), "EPSG:4326")
    made = sharpen(replace(job, model="exp", coregister="off", part=part))
    with rasterio.open(made.path) as file:
        col, row = (round(v) for v in ~Affine(*WORLD.pan_sheet.transform[:6]) @ (file.transform.c, file.transform.f))
        found = np.zeros_like(inside)
        found[row : row + file.height, col : col + file.width] = True
        window = file.tags(ns="PANSHARPEN")["WINDOW"]
    assert window == f"{col},{row},{made.width},{made.height}"
    assert (found | ~inside).all()
    assert inside.sum() > 0.9 * found.sum()


def test_a_part_that_reaches_beyond_the_scene_ends_with_it(job, tmp_path, caplog):
    made = sharpen(replace(job, model="exp", coregister="off", part=Window(300, 200, 1000, 1000)))
    whole = sharpen(replace(job, model="exp", coregister="off", output=tmp_path / "all.tif"))
    with rasterio.open(made.path) as file, rasterio.open(whole.path) as everything:
        assert (file.bounds.right, file.bounds.bottom) == (everything.bounds.right, everything.bounds.bottom)
        col, row = ~Affine(*WORLD.pan_sheet.transform[:6]) @ (file.bounds.left, file.bounds.top)
    assert (col, row) == (300, 200)
    assert "of the 1000 x 1000 pixels" in caplog.text


@pytest.mark.parametrize("part", [Window(402, 0, 10, 10), Window(0, 0, 5, 5), Bounds(0, 0, 10, 10)])
def test_a_part_off_the_scene_is_refused(part, job):
    with pytest.raises(SceneError, match=r"lies outside of .* or --window \d+,\d+,\d+,\d+"):
        sharpen(replace(job, model="exp", part=part))
    assert not job.output.exists()


def test_bounds_need_a_crs(job, tmp_path):
    pan, ms = World(crs=None).write(tmp_path, name="plain")
    with pytest.raises(SceneError, match="in no map projection"):
        sharpen(Job(pan, [ms], job.output, "exp", part=Bounds(0, 0, 1, 1)))


@pytest.mark.parametrize("text", ["1,2,3", "1,2,3,0", "-1,2,3,4", "1.5,2,3,4", "a,b,c,d"])
def test_windows_are_whole_pixels(text):
    with pytest.raises(UsageError, match="--window takes"):
        parse_window(text)


@pytest.mark.parametrize("text", ["1,2,3", "3,1,2,4", "1,2,2,1", "nan,0,1,1", "a,b,c,d"])
def test_bounds_enclose_ground(text):
    with pytest.raises(UsageError, match="--bounds"):
        parse_bounds(text)
    with pytest.raises(UsageError, match="--bounds-crs takes a CRS"):
        parse_bounds("0,0,1,1", "EPSG:0")
