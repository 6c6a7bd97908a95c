"""STAC items as archives write them, in both of their versions, and the item of a product, read by another program."""

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
from servers import misbehaving
from worlds import Sheet, World, save

from pansharpen_cli import sharpen
from pansharpen_cli.errors import OutputError, SceneError
from pansharpen_cli.inputs.raster import Raster
from pansharpen_cli.stac import is_item, read_item, write_item

pystac = pytest.importorskip("pystac")

WORLD = World(bands=3, dtype="uint16", nodata=0)
TAKEN = "2024-05-06T10:11:12Z"


def item(assets, version="1.0.0", **properties):
    return {
        "type": "Feature", "stac_version": version, "stac_extensions": [], "id": "scene", "geometry": None, "links": [],
        "properties": {"datetime": TAKEN, **properties}, "assets": assets,
    }  # fmt: skip


def asset(href, *names, new=False, **more):
    key = "eo:common_name" if new else "common_name"
    bands = [{"name": f"B{number}", key: name} for number, name in enumerate(names, 1)]
    return {"href": href, "type": "image/tiff; application=geotiff", "bands" if new else "eo:bands": bands} | more


def landsat(new=False):
    """A file a band, some of which are no MS, and what comes with them."""
    names = {"pan": "pan", "blue": "blue", "green": "green", "red": "red", "nir08": "nir08", "swir16": "swir16"}
    assets = {key: asset(f"./{key}.tif", name, new=new, roles=["data"]) for key, name in names.items()}
    assets["lwir11"] = asset("./lwir.tif", "lwir11", new=new)
    assets["qa_pixel"] = {"href": "./qa.tif", "type": "image/tiff", "roles": ["cloud"]}
    assets["thumbnail"] = asset("./t.jpg", "red", "green", "blue", roles=["thumbnail"], type="image/jpeg")
    assets["mtl"] = {"href": "./mtl.json", "type": "application/json"}
    return item(assets, "1.1.0" if new else "1.0.0")


def written(folder, content, name="item.json"):
    (folder / name).write_text(json.dumps(content))
    return str(folder / name)


@pytest.mark.parametrize("new", [False, True])
def test_bands_in_files_of_their_own(new, tmp_path):
    found = read_item(written(tmp_path, landsat(new)))
    assert found.pan == str(tmp_path / "pan.tif")
    assert found.ms == tuple(str(tmp_path / f"{key}.tif") for key in ("blue", "green", "red", "nir08", "swir16"))
    assert found.band_names == ("blue", "green", "red", "nir", "swir1")
    assert found.times[0].isoformat() == "2024-05-06T10:11:12+00:00"


@pytest.mark.parametrize("new", [False, True])
def test_bands_together_and_a_pan_by_its_role(new, tmp_path):
    assets = {
        "sharp": {"href": "https://example.com/p.tif", "type": "image/tiff", "roles": ["data", "pan"]},
        "colours": asset("s3://bucket/m.tif", "red", "green", "blue", "nir", new=new),
        "visual": asset("s3://bucket/v.tif", "red", "green", "blue", new=new, roles=["visual"]),
    }
    found = read_item(written(tmp_path, item(assets)))
    assert (found.pan, found.ms) == ("https://example.com/p.tif", ("s3://bucket/m.tif",))
    assert found.band_names == ("red", "green", "blue", "nir")


@pytest.mark.parametrize("folder", ["Scene #3", "fo?lder", "50% off"])
@pytest.mark.parametrize("name", ["a.tif", "a#b.tif", "a?b.tif", "a b%20c.tif"])
def test_files_of_a_local_item_are_files_whatever_their_names(folder, name, tmp_path, monkeypatch):
    """The folder above has files of the same names up to # and ?, which another reader would take."""
    inside = tmp_path / folder
    inside.mkdir()
    self_link = {"rel": "self", "href": "https://example.com/item.json", "type": "application/json"}
    for pan in (f"./{name}", str(inside / name), f"../{folder}/{name}"):
        content = item({"pan": asset(pan, "pan"), "ms": asset("ms.tif", "red", "green")}) | {"links": [self_link]}
        href = written(inside, content)
        monkeypatch.chdir(tmp_path)
        for given in (href, f"{folder}/item.json"):
            assert is_item(given)
            found = read_item(given)
            assert (found.pan, found.ms) == (str(inside / name), (str(inside / "ms.tif"),))
    remote = {"pan": asset("https://example.com/a.tif?key=1#x", "pan"), "ms": asset("/vsis3/b/m.tif", "red", "green")}
    found = read_item(written(inside, item(remote)))
    assert (found.pan, found.ms) == ("https://example.com/a.tif?key=1#x", ("/vsis3/b/m.tif",))
    assert is_item("https://example.com/item.json?key=1")


def test_a_local_item_may_name_files_by_file_urls(tmp_path):
    """As many tools write them: what is no letter of a URL is escaped, and the host is this one, or left out."""
    ms = asset("file://localhost/data/m.tif", "red", "green")
    for pan in (tmp_path / "a b.tif", tmp_path / "100% #1?.tif"):
        found = read_item(written(tmp_path, item({"pan": asset(pan.as_uri(), "pan"), "ms": ms})))
        assert (found.pan, found.ms) == (str(pan), ("/data/m.tif",))


@pytest.mark.parametrize("href", ["file://elsewhere/p.tif", "file:///vsizip/a.zip/p.tif", "file:////vsimem/p.tif"])
def test_file_urls_name_nothing_but_files_here(href, tmp_path):
    found = read_item(written(tmp_path, item(RGB | {"pan": asset(href, "pan")})))
    with pytest.raises(SceneError, match=r"nothing that may be opened|does not exist"):
        Raster(found.pan)


def test_an_item_on_a_server_names_no_files_here(tmp_path):
    pan, _ = WORLD.write(tmp_path)
    written(tmp_path, item(RGB | {"pan": asset(pan.as_uri(), "pan")}))
    with misbehaving(tmp_path) as url, pytest.raises(SceneError, match="nothing that may be opened"):
        Raster(read_item(f"{url}/ok/item.json").pan)


@pytest.mark.parametrize("bands", [{"eo:bands": [{"name": "B8"}]}, {"bands": [{"name": "P", "raster:scale": 1}]}])
@pytest.mark.parametrize(("key", "role"), [("panchromatic", "data"), ("B8", "pan")])
def test_a_pan_by_its_key_or_role_whose_band_has_no_common_name(bands, key, role, tmp_path):
    assets = RGB | {key: {"href": "./p.tif", "type": "image/tiff", "roles": [role], **bands}}
    assert read_item(written(tmp_path, item(assets))).pan == str(tmp_path / "p.tif")


def test_an_item_may_begin_with_a_byte_order_mark(tmp_path):
    href = written(tmp_path, item(RGB | PAN))
    Path(href).write_text(json.dumps(item(RGB | PAN)), encoding="utf-8-sig")
    assert read_item(href).pan == str(tmp_path / "pan.tif")
    with misbehaving(tmp_path) as url:
        assert read_item(f"{url}/ok/item.json").pan == f"{url}/ok/pan.tif"


RGB = {name: asset(f"{name}.tif", name) for name in ("red", "green", "blue")}
PAN = {"pan": asset("pan.tif", "pan")}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (item(RGB), "it has none"),
        (item(PAN), "no asset with bands"),
        (item(RGB | PAN | {"pan2": asset("p.jp2", "pan")}), "several: pan, pan2"),
        (item(RGB | PAN | {"red2": asset("r.jp2", "red")}), "several assets of one band"),
        (item(PAN | {key: asset("m.tif", "red", "green") for key in "ab"}), "several: a, b"),
        ({"type": "FeatureCollection"}, "is no STAC item"),
        ([1], "is no STAC item"),
        (item(RGB | PAN) | {"properties": 3}, "is no STAC item"),
        (item(RGB | {"pan": {"href": "p.tif", "eo:bands": ["pan"]}}), "is no STAC item"),
        (item(RGB | {"pan": asset("p.tif", "pan", type=3)}), "is no STAC item"),
        (item(RGB | PAN, end_datetime="yesterday"), "is no STAC item"),
    ],
)
def test_an_item_that_leaves_a_choice_is_refused(content, said, tmp_path):
    with pytest.raises(SceneError, match=said):
        read_item(written(tmp_path, content))


def test_an_item_is_a_file_or_on_a_web_server(tmp_path):
    written(tmp_path, landsat())
    with misbehaving(tmp_path) as url:
        found = read_item(f"{url}/ok/item.json")
        assert found.pan == f"{url}/ok/pan.tif"
        with pytest.raises(SceneError, match="404"):
            read_item(f"{url}/404/item.json")
    for href in ("ftp://example.com/item.json", "file:///etc/item.json", str(tmp_path / "none.json")):
        with pytest.raises(SceneError, match="cannot be"):
            read_item(href)


def run(*arguments):
    command = [sys.executable, "-m", "pansharpen_cli", "run", *map(str, arguments), "-m", "exp"]
    return subprocess.run(command, check=False, capture_output=True, text=True, env=os.environ)


@pytest.mark.parametrize("format", ["gtiff", "cog"])
def test_from_item_to_item(format, tmp_path):
    """The product of an item is that of its files, and its own item says what another program finds in it."""
    pan, ms = WORLD.write(tmp_path)
    assets = {"pan": asset("./pan.tif", "pan"), "ms": asset("./ms.tif", "red", "green", "blue")}
    href = written(tmp_path, item(assets))
    out = tmp_path / "out.tif"
    done = run(href, "-o", out, "--stac", "-f", format)
    assert done.returncode == 0, done.stderr
    names = "red,green,blue"
    assert run(pan, ms, "-o", tmp_path / "files.tif", "-f", format, "--band-names", names).returncode == 0
    made = pystac.Item.from_file(str(tmp_path / "out.json"))
    [data] = made.get_assets(role="data").values()
    with rasterio.open(out) as file, rasterio.open(tmp_path / "files.tif") as other:
        assert np.array_equal(file.read(), other.read())
        assert file.descriptions == other.descriptions == ("red", "green", "blue")
        assert Path(data.get_absolute_href()) == out
        assert made.properties["proj:shape"] == list(file.shape)
        assert made.properties["proj:transform"][:6] == list(file.transform)[:6]
        assert made.properties["proj:code"] == f"EPSG:{file.crs.to_epsg()}"
        assert made.properties["proj:bbox"] == pytest.approx(list(file.bounds))
        expected = pyproj.Transformer.from_crs(file.crs, "EPSG:4326", always_xy=True).transform_bounds(*file.bounds)
        assert made.bbox == pytest.approx(expected, abs=1e-6)
        bands = data.extra_fields["bands"]
        assert [band["eo:common_name"] for band in bands] == ["red", "green", "blue"]
        assert {(band["data_type"], band["nodata"]) for band in bands} == {("uint16", 0)}
    assert made.datetime.isoformat() == "2024-05-06T10:11:12+00:00"
    assert data.extra_fields["file:checksum"] == "1220" + hashlib.sha256(out.read_bytes()).hexdigest()
    assert data.extra_fields["file:size"] == out.stat().st_size
    assert ("profile=cloud-optimized" in data.media_type) == (format == "cog")
    assert made.properties["processing:software"].keys() == {"pansharpen_cli"}
    assert [link.get_absolute_href() for link in made.get_links("derived_from")] == [href]
    ring = made.geometry["coordinates"][0]
    assert ring[0] == ring[-1]
    assert sum((x1 - x0) * (y1 + y0) for (x0, y0), (x1, y1) in pairwise(ring)) < 0  # counter-clockwise


def test_an_item_leads_to_the_one_it_was_made_of_from_any_folder(tmp_path, monkeypatch):
    for folder in ("in", "out", "elsewhere"):
        (tmp_path / folder).mkdir()
    WORLD.write(tmp_path / "in")
    assets = {"pan": asset("./pan.tif", "pan"), "ms": asset("./ms.tif", "red", "green", "blue")}
    href = written(tmp_path / "in", item(assets))
    monkeypatch.chdir(tmp_path / "in")
    done = run("item.json", "-o", "../out/out.tif", "--stac")
    assert done.returncode == 0, done.stderr
    monkeypatch.chdir(tmp_path / "elsewhere")
    [link] = pystac.Item.from_file("../out/out.json").get_links("derived_from")
    assert (link.get_href(transform_href=False), link.get_absolute_href()) == ("../in/item.json", href)


def test_an_item_tells_what_dn_mean(tmp_path):
    """By the names of the raster extension, as in `bands` of STAC 1.1; nothing of a band that is not scaled."""
    pan, ms = WORLD.write(tmp_path)
    with rasterio.open(ms, "r+") as file:
        file.scales, file.offsets = (1e-4, 1, 2), (0, 0, -0.5)
    assert run(pan, ms, "-o", tmp_path / "out.tif", "--stac").returncode == 0
    bands = json.loads((tmp_path / "out.json").read_text())["assets"]["data"]["bands"]
    names = "scale", "offset"
    told = [{name: band[f"raster:{name}"] for name in names if f"raster:{name}" in band} for band in bands]
    assert told == [{"scale": 1e-4, "offset": 0}, {}, {"scale": 2, "offset": -0.5}]


@pytest.mark.parametrize("nodata", ["nan", "inf", "-inf"])
def test_an_item_is_json_whatever_nodata_is(nodata, tmp_path):
    """STAC writes as text what JSON has no number for."""
    pan, ms = replace(WORLD, dtype="float32", nodata=None).write(tmp_path)
    assert run(pan, ms, "-o", tmp_path / "out.tif", "--stac", "--nodata", nodata).returncode == 0

    def refuse(constant):
        raise AssertionError(f"{constant} is no JSON")

    made = json.loads((tmp_path / "out.json").read_text(), parse_constant=refuse)
    assert {band["nodata"] for band in made["assets"]["data"]["bands"]} == {nodata}


@pytest.mark.parametrize("files", [1, 3])
def test_a_model_is_fitted_to_the_scene_of_an_item(files, tmp_path):
    """Its bands have the names of the item, not of the files, which have none here."""
    world = World(ratio=2, pan_size=(128, 128), ms_size=(64, 64), waves=16, names=("x", "y", "z"))
    world.write(tmp_path)
    names = "red", "green", "blue"
    if files > 1:
        for index, name in enumerate(names):
            save(tmp_path / f"{name}.tif", world.ms_image()[[index]], world.ms_sheet)
        assets = PAN | RGB
    else:
        assets = PAN | {"ms": asset("./ms.tif", *names)}
    href = written(tmp_path, item(assets))
    command = [sys.executable, "-m", "pansharpen_cli", "run", href, "-o", tmp_path / "out.tif", "--adapt"]
    done = subprocess.run([*map(str, command)], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    model = json.loads((tmp_path / "out.model" / "spec.json").read_text())
    assert [band["name"] for band in model["bands"]] == list(names)
    with rasterio.open(tmp_path / "out.tif") as file:
        assert file.descriptions == names
        assert file.tags(ns="PANSHARPEN")["MODEL"] == "out.model"


@pytest.mark.parametrize("crs", ["EPSG:32701", "EPSG:4326"])
def test_a_footprint_across_180_degrees(crs, tmp_path):
    """In two polygons, and a box whose east is the smaller (RFC 7946)."""
    left, gsd = (177_820, 20.0) if crs == "EPSG:32701" else (179.97, 0.0002)
    top = 8_119_000 if crs == "EPSG:32701" else -16.99
    for name, ratio in (("pan", 1), ("ms", 4)):
        sheet = Sheet((left, top), (gsd * ratio, -gsd * ratio), (256 // ratio, 256 // ratio), crs)
        save(tmp_path / f"{name}.tif", np.full((1, 256 // ratio, 256 // ratio), 7), sheet, dtype="uint16")
    done = run(tmp_path / "pan.tif", tmp_path / "ms.tif", "-o", tmp_path / "out.tif", "--stac")
    assert done.returncode == 0, done.stderr
    made = json.loads((tmp_path / "out.json").read_text())
    west, south, east, north = made["bbox"]
    assert 179.9 < west < 180
    assert -180 < east < -179.9
    assert -17.1 < south < north < -16.9
    assert made["geometry"]["type"] == "MultiPolygon"
    sides = []
    for (ring,) in made["geometry"]["coordinates"]:
        lon = [corner[0] for corner in ring]
        sides.append((min(lon), max(lon)))
        assert ring[0] == ring[-1]
        assert sum((x1 - x0) * (y1 + y0) for (x0, y0), (x1, y1) in pairwise(ring)) < 0
    assert sides == [(west, 180), (-180, pytest.approx(east))]


@pytest.mark.parametrize(
    ("crs", "corner", "gsd"),
    [("EPSG:3031", (-640, 640), 20.0), ("+proj=geos +h=35786000", (5_400_000, 700_000), 5000.0)],
)
def test_no_footprint_where_corners_do_not_tell_it(crs, corner, gsd, tmp_path):
    """Round a pole, and where a corner lies beside the Earth."""
    for name, ratio in (("pan", 1), ("ms", 4)):
        sheet = Sheet(corner, (gsd * ratio, -gsd * ratio), (64 // ratio, 64 // ratio), crs)
        save(tmp_path / f"{name}.tif", np.full((1, 64 // ratio, 64 // ratio), 7), sheet, dtype="uint16")
    done = run(tmp_path / "pan.tif", tmp_path / "ms.tif", "-o", tmp_path / "out.tif", "--stac")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out.json").read_text())["geometry"] is None


def test_a_time_may_be_a_range(tmp_path):
    WORLD.write(tmp_path)
    assets = {"pan": asset("./pan.tif", "pan"), "ms": asset("./ms.tif", "red", "green", "blue")}
    times = {"datetime": None, "start_datetime": "2019-08-04T10:00:00Z", "end_datetime": "2019-08-04T10:01:00Z"}
    content = item(assets)
    content["properties"] |= times
    done = run(written(tmp_path, content), "-o", tmp_path / "out.tif", "--stac")
    assert done.returncode == 0, done.stderr
    made = json.loads((tmp_path / "out.json").read_text())["properties"]
    assert {name: made[name] for name in times} == times


def test_an_item_is_not_replaced_by_that_of_its_product(tmp_path):
    WORLD.write(tmp_path)
    assets = {"pan": asset("./pan.tif", "pan"), "ms": asset("./ms.tif", "red", "green", "blue")}
    href = written(tmp_path, item(assets))
    content = Path(href).read_bytes()
    for option in ("--overwrite", "--resume"):
        done = run(href, "-o", Path(href).with_suffix(".tif"), "--stac", option)
        assert done.returncode == 1
        assert Path(href).read_bytes() == content


def test_to_go_on_replaces_no_file_beside_a_product_that_is_not_there(tmp_path):
    pan, ms = WORLD.write(tmp_path)
    (tmp_path / "look.png").write_text("mine")
    done = run(pan, ms, "-o", tmp_path / "out.tif", "--resume", "--quicklook", tmp_path / "look.png")
    assert (done.returncode, (tmp_path / "look.png").read_text()) == (1, "mine")


BESIDE = {"--stac": "out.json", "--qgis-style": "out.qml", "--quicklook": "look.png"}


def test_to_go_on_keeps_files_beside_a_finished_product(tmp_path):
    """Whoever made them; what is missing is made."""
    pan, ms = WORLD.write(tmp_path)
    out, look = tmp_path / "out.tif", tmp_path / "look.png"
    assert run(pan, ms, "-o", out, "--resume").returncode == 0
    product = out.read_bytes()
    for name in ("out.json", "look.png"):
        (tmp_path / name).write_text("mine")
    asked = "--stac", "--qgis-style", "--quicklook", look
    for missing in (1, 0):
        assert (tmp_path / "out.qml").exists() == (not missing)
        done = run(pan, ms, "-o", out, "--resume", *asked)
        assert done.returncode == 0, done.stderr
        assert [(tmp_path / name).read_text() for name in ("out.json", "look.png")] == ["mine", "mine"]
        assert done.stderr.count("exists already; it is kept") == 3 - missing
    assert "<qgis" in (tmp_path / "out.qml").read_text()
    done = run(pan, ms, "-o", out, "--resume", *asked, "--overwrite")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out.json").read_text())["id"] == "out"
    assert look.read_bytes().startswith(b"\x89PNG")
    assert out.read_bytes() == product


@pytest.mark.parametrize("option", BESIDE)
def test_to_go_on_replaces_no_file_beside_a_product_that_is_made_anew(option, tmp_path):
    pan, ms = WORLD.write(tmp_path)
    out, beside = tmp_path / "out.tif", tmp_path / BESIDE[option]
    assert run(pan, ms, "-o", out).returncode == 0
    product = out.read_bytes()
    beside.write_text("mine")
    value = [beside] if option == "--quicklook" else []
    done = run(pan, ms, "-o", out, "--resume", "--coregister", "1,1", option, *value)
    assert (done.returncode, beside.read_text(), out.read_bytes()) == (1, "mine", product)
    assert f"{beside} exists" in done.stderr
    done = run(pan, ms, "-o", out, "--resume", "--coregister", "1,1", option, *value, "--overwrite")
    assert done.returncode == 0, done.stderr
    assert "mine" not in beside.read_text(errors="replace")


def test_a_footprint_in_a_sites_own_coordinates(tmp_path):
    """Nobody knows where it is."""
    site = 'LOCAL_CS["site grid",UNIT["metre",1]]'
    for name, ratio in (("pan", 1), ("ms", 4)):
        sheet = Sheet((100, 200), (ratio, -ratio), (64 // ratio, 64 // ratio), site)
        save(tmp_path / f"{name}.tif", np.full((1, 64 // ratio, 64 // ratio), 7), sheet, dtype="uint16")
    done = run(tmp_path / "pan.tif", tmp_path / "ms.tif", "-o", tmp_path / "out.tif", "--stac")
    assert done.returncode == 0, done.stderr
    made = json.loads((tmp_path / "out.json").read_text())
    assert made["geometry"] is None
    bounds = "--bounds", "-3.7,40,-3.6,41", "--bounds-crs", "EPSG:4326"
    done = run(tmp_path / "pan.tif", tmp_path / "ms.tif", "-o", tmp_path / "part.tif", *bounds)
    assert done.returncode == 3
    assert "--bounds cannot be brought from EPSG:4326" in done.stderr


def test_an_item_in_the_way_is_left_alone(tmp_path):
    pan, ms = WORLD.write(tmp_path)
    (tmp_path / "out.json").write_text("mine")
    done = run(pan, ms, "-o", tmp_path / "out.tif", "--stac")
    assert (done.returncode, (tmp_path / "out.json").read_text()) == (1, "mine")
    assert not (tmp_path / "out.tif").exists()
    assert run(pan, ms, "-o", tmp_path / "out.tif", "--stac", "--qgis-style", "--overwrite").returncode == 0
    done = run(pan, ms, "-o", tmp_path / "out.tif", "--overwrite")
    assert (done.returncode, done.stderr.count("was made of the product that is replaced")) == (0, 2)
    done = run(pan, "-o", tmp_path / "out.tif")
    assert done.returncode == 2
    assert "the argument ms is missing" in done.stderr


def test_an_item_that_cannot_be_written_is_told_and_leaves_nothing(tmp_path):
    product = sharpen(*WORLD.write(tmp_path), tmp_path / "out.tif", model="gsa")
    (tmp_path / "out.json").mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OutputError, match=r"out\.json cannot be made from .*out\.tif: .*directory"):
        write_item(product, None)
    assert sorted(tmp_path.iterdir()) == before
