"""Which PAN goes with which MS: names as the vendors' deliveries have them, and grounds that agree or do not."""

import os
from dataclasses import replace
from pathlib import Path

import pyproj
import pytest
from worlds import CORNER, UTM, World, save

from pansharpen_cli.batch import pairing
from pansharpen_cli.batch.pairing import pair

MAXAR = "053951940010_01"
AIRBUS = "ORT_IPU_20120430_6352"
LANDSAT = "LC08_L1TP_201032_20200710_20200721_01_T1"


def scene(folder, pan, *ms, **world):
    """Files of these names that share their ground, the MS with three bands, or one if there are several."""
    made = World(bands=3, dtype="uint16", pan_size=(32, 32), ms_size=(8, 8), **world)
    for name, sheet, image in (
        (pan, made.pan_sheet, made.pan_image()),
        *((name, made.ms_sheet, made.ms_image()[: 3 if len(ms) == 1 else 1]) for name in ms),
    ):
        if name:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            save(folder / name, image, sheet, dtype="uint16")


def found(folder):
    """Scene -> its PAN, its MS, and how they were found; and what was left, by name."""
    pairs, unpaired = pair(folder)
    names = {p.name: (p.pan.name, [path.name for path in p.ms], p.by) for p in pairs}
    return names, {lone.path.name: lone.reason for lone in unpaired}


@pytest.mark.parametrize(
    ("pan", "ms", "name"),
    [
        ("a/pan.tif", "a/ms.tif", "a"),
        ("deep/er/pan.tif", "deep/er/ms.tif", "deep/er"),
        ("town_PAN.TIF", "town_MUL.TIF", "town"),
        ("town-pan.tiff", "town-ms.tif", "town"),
        ("PAN/town.tif", "MS/town.tif", "town"),
        ("10JAN23100512-P1BS-052.NTF.tif", "10JAN23100512-M1BS-052.NTF.tif", "10JAN23100512-1BS-052.NTF"),
        (
            f"{MAXAR}/{MAXAR}_P001_PAN/20JUL10100512-P2AS_R1C1-{MAXAR}_P001.TIF",
            f"{MAXAR}/{MAXAR}_P001_MUL/20JUL10100512-M2AS_R1C1-{MAXAR}_P001.TIF",
            f"{MAXAR}/{MAXAR}_P001/20JUL10100512-2AS_R1C1-{MAXAR}_P001",
        ),
        (
            f"IMG_SPOT6_P_201307251042_{AIRBUS}_R1C1.TIF",
            f"IMG_SPOT6_MS_201307251042_{AIRBUS}_R1C1.TIF",
            f"IMG_SPOT6_201307251042_{AIRBUS}_R1C1",
        ),
        (
            "IMG_PNEO3_PAN_202201_R1C1.TIF",
            "IMG_PNEO3_MS-FS_202201_R1C1.TIF",
            "IMG_PNEO3_202201_R1C1",
        ),
        (
            "20200710_101112_ssc4d2_0010_panchromatic_dn.tif",
            "20200710_101112_ssc4d2_0010_analytic_dn.tif",
            "20200710_101112_ssc4d2_0010_dn",
        ),
    ],
)
def test_names_of_vendors(pan, ms, name, tmp_path):
    """Beside a second scene of other ground, whose files are named alike."""
    scene(tmp_path, pan, ms)
    scene(tmp_path / "zz", pan, ms, gsd=(3.0, -3.0))
    there = found(tmp_path)[0]
    pan, ms = (path.rpartition("/")[2] for path in (pan, ms))
    assert there == {name: (pan, [ms], "name"), f"zz/{name}": (pan, [ms], "name")}


def test_landsat_comes_in_one_file_a_band(tmp_path):
    """The thermal bands and the quality band are none of the MS; names of the others come with them."""
    bands = [f"{LANDSAT}_B{number}.TIF" for number in (2, 3, 4, 5, 6, 7)]
    scene(tmp_path, f"{LANDSAT}_B8.TIF", *bands, ratio=2)
    scene(tmp_path, "", *(f"{LANDSAT}_{other}.TIF" for other in ("B1", "B9", "B10", "QA_PIXEL")), ratio=2)
    scene(tmp_path, "LE07_L1TP_1_B8.TIF", *(f"LE07_L1TP_1_{name}.TIF" for name in ("B1", "B4", "B6_VCID_1", "B7")))
    (pair8, pair7), unpaired = pair(tmp_path)
    assert [path.name for path in pair8.ms] == bands
    assert pair8.band_names == ("blue", "green", "red", "nir", "swir1", "swir2")
    assert [path.name[-6:] for path in pair7.ms] == ["B1.TIF", "B4.TIF", "B7.TIF"]
    assert pair7.band_names == ("blue", "nir", "swir2")
    assert not unpaired


def test_the_ground_pairs_where_names_do_not(tmp_path):
    """Airbus gives PAN and MS numbers and seconds of their own; another day saw the same ground."""
    for day, seconds in (("20120225", ("0025599", "0026276")), ("20130731", ("1041330", "1041987"))):
        scene(
            tmp_path,
            f"IMG_PHR1A_P_{day}{seconds[0]}_{AIRBUS}-001_R1C1.TIF",
            f"IMG_PHR1A_MS_{day}{seconds[1]}_{AIRBUS}-002_R1C1.TIF",
        )
    there, left = found(tmp_path)
    assert not left
    assert {pan[12:20]: [ms[0][13:21], by] for pan, ms, by in there.values()} == {
        "20120225": ["20120225", "ground"],
        "20130731": ["20130731", "ground"],
    }


def test_only_what_touches_is_looked_at_with_each_other(tmp_path, monkeypatch):
    """Of ten thousand PANs and as many MS all pairs would take an hour."""
    made, looks = World(bands=3, dtype="uint16", pan_size=(32, 32), ms_size=(8, 8)), []
    for number in range(5):
        for kind, sheet, image in (("p", made.pan_sheet, made.pan_image()), ("m", made.ms_sheet, made.ms_image()[:3])):
            moved = replace(sheet, corner=(sheet.corner[0] + 1000 * number, sheet.corner[1]))
            save(tmp_path / f"{kind}{number}.tif", image, moved, dtype="uint16")
    fit = pairing._fit
    monkeypatch.setattr(pairing, "_fit", lambda *files: looks.append(files) or fit(*files))
    there, left = found(tmp_path)
    assert not left
    assert there == {f"p{number}": (f"p{number}.tif", [f"m{number}.tif"], "ground") for number in range(5)}
    assert len(looks) == 5


def test_files_without_a_mark_are_what_their_bands_say(tmp_path):
    """Also across coordinate systems."""
    corner = pyproj.Transformer.from_crs(UTM, "EPSG:4326", always_xy=True).transform(*CORNER)
    scene(tmp_path, "grey.tif", "")
    scene(tmp_path, "", "colour.tif", ms_crs="EPSG:4326", ms_corner=corner, ms_gsd=(9.4e-5, -7.2e-5))
    scene(tmp_path, "elsewhere.tif", "", crs="EPSG:32645")
    there, left = found(tmp_path)
    assert there == {"grey": ("grey.tif", ["colour.tif"], "ground")}
    assert left == {"elsewhere.tif": "no MS has the name of its scene or shares its ground"}


def test_what_has_several_partners_is_left(tmp_path):
    scene(tmp_path, "x_PAN.tif", "one.tif")
    scene(tmp_path, "", "two.tif")
    there, left = found(tmp_path)
    assert not there
    assert left["x_PAN.tif"] == "several MSs share its ground: one.tif, two.tif"
    assert left["one.tif"] == left["two.tif"] == "x_PAN.tif shares its ground with others too"


def test_two_ms_of_one_name_are_left(tmp_path):
    scene(tmp_path, "x_PAN.tif", "x_MS.tif")
    scene(tmp_path, "", "x_MUL.tif")
    there, left = found(tmp_path)
    assert not there
    assert set(left.values()) == {"several MS have the name of its scene: x_MS.tif, x_MUL.tif"}


def test_a_name_does_not_outdo_the_ground(tmp_path):
    scene(tmp_path, "x_PAN.tif", "")
    scene(tmp_path, "", "x_MS.tif", offset=(20, 20))  # a bit of it is common ground
    there, left = found(tmp_path)
    assert not there
    assert all("do not share their ground" in reason for reason in left.values())
    assert len(left) == 2


def test_broken_files_are_paired_by_name_and_else_told(tmp_path):
    """A scene that fails is told with its reason; a file that vanishes would not be."""
    scene(tmp_path, "x_PAN.tif", "x_MS.tif")
    (tmp_path / "x_MS.tif").write_bytes(b"II*\0 and nothing else")
    (tmp_path / "nameless.tif").write_bytes(b"")
    there, left = found(tmp_path)
    assert there == {"x": ("x_PAN.tif", ["x_MS.tif"], "name")}
    assert "nameless.tif is not a readable" in left["nameless.tif"]


@pytest.mark.parametrize("folder", [".", "{}", "{}/link"])
@pytest.mark.parametrize("products", ["out", "{}/out", "{}/.cache/../out", "{}/link/out"])
def test_hidden_files_and_the_products_are_not_looked_at(folder, products, tmp_path, monkeypatch):
    """By whatever name the products are reached."""
    scene(tmp_path, "x_PAN.tif", "x_MS.tif")
    scene(tmp_path, "out/x.tif", "out/deep/y_MS.tif")
    scene(tmp_path, ".cache/pan.tif", ".y_MS.tif")
    (tmp_path / "x").symlink_to("out/deep")
    (tmp_path / "z_PAN.tif").symlink_to("out/x.tif")
    (tmp_path / "link").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    pairs, unpaired = pair(Path(folder.format(tmp_path)), leave_out=Path(products.format(tmp_path)))
    assert [p.name for p in pairs] == ["x"]
    assert not unpaired


def test_linked_folders_are_searched_each_once(tmp_path):
    """By their own name, if they have one here; a loop has an end, one up leads nowhere, and a lost one is told."""
    folder = tmp_path / "in"
    scene(folder / "own", "x_PAN.tif", "x_MS.tif")
    scene(tmp_path / "far", "y_PAN.tif", "deep/y_MS.tif")
    scene(tmp_path, "z_PAN.tif", "z_MS.tif")
    links = {"a": "own", "b": "../far", "c": "../far", "own/loop": "..", "up": "../..", "lost.tif": "nowhere"}
    for name, target in links.items():
        (folder / name).symlink_to(target)
    (tmp_path / "far" / "loop").symlink_to(".")
    there, left = found(folder)
    assert there == {"own/x": ("x_PAN.tif", ["x_MS.tif"], "name"), "b/y": ("y_PAN.tif", ["y_MS.tif"], "ground")}
    assert list(left) == ["lost.tif"]


def test_links_to_folders_that_cannot_be_reached_are_told(tmp_path):
    """A target that is gone, and a ring; not a link to another file, nor a hidden one."""
    scene(tmp_path, "x_PAN.tif", "x_MS.tif", "notes.txt")
    for name, target in {"2023": "/gone/2023", "ring": "ring", "more": "notes.txt", ".lock": "no:1"}.items():
        (tmp_path / name).symlink_to(target)
    there, left = found(tmp_path)
    assert list(there) == ["x"]
    assert left == {
        "2023": "the link leads to nothing that can be searched: No such file or directory",
        "ring": "the link leads to nothing that can be searched: Too many levels of symbolic links",
    }


@pytest.mark.parametrize("mode", [0o000, 0o444])
def test_a_folder_that_may_not_be_searched_is_told(mode, tmp_path, monkeypatch):
    """To one who is not root, who may go anywhere."""
    scene(tmp_path, "x_PAN.tif", "x_MS.tif")
    scene(tmp_path / "closed", "y_PAN.tif", "y_MS.tif")
    monkeypatch.chdir(tmp_path)
    tmp_path.chmod(0o755)
    (tmp_path / "closed").chmod(mode)
    user = os.geteuid()
    try:
        os.seteuid(user or 65534)
        there, left = found(Path())
    finally:
        os.seteuid(user)
        (tmp_path / "closed").chmod(0o755)
    assert list(there) == ["x"]
    assert left == {"closed": "the folder cannot be searched: Permission denied"}


def test_every_real_scene_is_found(data):
    """PAN and MS of each stand in a folder of their own, beside files that are neither."""
    expected = {path.parent.relative_to(data).as_posix() for path in data.rglob("pan.tif")}
    pairs, unpaired = pair(data)
    assert {p.name for p in pairs} == expected
    assert all((p.pan.name, p.ms[0].name, p.pan.parent) == ("pan.tif", "ms.tif", p.ms[0].parent) for p in pairs)
    assert {lone.path.name for lone in unpaired} == {"gt.tif"}
    assert len(expected) > 50
