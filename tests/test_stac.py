"""STAC items as archives write them, in both of their versions, and the item of a product, read by another program."""

import hashlib
import json
import os
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyproj
import pytest
import rasterio
from servers import misbehaving
from worlds import World

from pansharpen_cli.errors import SceneError
from pansharpen_cli.stac import read_item

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
    assert found.taken.isoformat() == "2024-05-06T10:11:12+00:00"


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
    command = [sys.executable, "-m", "pansharpen_cli", "run", *map(str, arguments), "-m", "exp", "-q"]
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
    assert [link.get_href() for link in made.get_links("derived_from")] == [href]
    ring = made.geometry["coordinates"][0]
    assert ring[0] == ring[-1]
    assert sum((x1 - x0) * (y1 + y0) for (x0, y0), (x1, y1) in pairwise(ring)) < 0  # counter-clockwise


def test_an_item_in_the_way_is_left_alone(tmp_path):
    pan, ms = WORLD.write(tmp_path)
    (tmp_path / "out.json").write_text("mine")
    done = run(pan, ms, "-o", tmp_path / "out.tif", "--stac")
    assert (done.returncode, (tmp_path / "out.json").read_text()) == (1, "mine")
    assert not (tmp_path / "out.tif").exists()
    done = run(pan, "-o", tmp_path / "out.tif")
    assert done.returncode == 2
    assert "the argument ms is missing" in done.stderr
