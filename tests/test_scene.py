"""What a scene refuses, what its bands are called and which of its pixels hold data."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from corpus import claiming
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from worlds import CORNER, UTM, Sheet, World, save

from pansharpen_cli.errors import SceneError
from pansharpen_cli.inputs.canvas import SceneCanvas
from pansharpen_cli.inputs.raster import Raster
from pansharpen_cli.inputs.scene import Scene
from pansharpen_cli.job import Job
from pansharpen_cli.modelspec import canonical_band
from pansharpen_cli.pipeline import sharpen

HERE = Sheet(CORNER, (2.0, -2.0), (6, 8))
WORLD = World()


def refuse(pan: Path, *ms: Path, culprit: Path, because: str, **options) -> None:
    """Opening and putting on a canvas fails with one sentence that names the culprit and matches `because`."""
    with pytest.raises(SceneError) as caught, Scene.open(pan, *ms, **options) as scene:
        SceneCanvas.of(scene)
    sentence = str(caught.value)
    assert str(culprit) in sentence
    assert re.search(because, sentence)
    assert "\n" not in sentence
    assert caught.value.exit_code == 3


def test_missing_file(tmp_path: Path):
    pan, ms = WORLD.write(tmp_path)
    refuse(pan, tmp_path / "no.tif", culprit=tmp_path / "no.tif", because="does not exist")
    refuse(tmp_path / "no.tif", ms, culprit=tmp_path / "no.tif", because="does not exist")


def test_an_empty_name_is_told_as_such(tmp_path: Path):
    """As what is not set can be: nothing is no name for what does not exist."""
    pan, ms = WORLD.write(tmp_path)
    refuse("", ms, culprit="an input has an empty name", because="give that of a file")
    refuse(pan, "", culprit="an input has an empty name", because="give that of a file")


def test_folder(tmp_path: Path):
    pan, _ = WORLD.write(tmp_path)
    refuse(pan, tmp_path, culprit=tmp_path, because="folder")


@pytest.mark.parametrize("content", [b"", b"some text\n" * 99, b"II*\x00 and then no TIFF"])
def test_no_raster(tmp_path: Path, content: bytes):
    pan, _ = WORLD.write(tmp_path)
    path = tmp_path / "notes.tif"
    path.write_bytes(content)
    refuse(pan, path, culprit=path, because="not a readable GeoTIFF")


def test_a_question_mark_in_the_name_of_a_file_begins_no_query(tmp_path: Path):
    path = tmp_path / "what? a file.tif"
    path.write_text("not an image")
    with pytest.raises(SceneError, match=r"what\? a file\.tif is not a .*/what\? a file\.tif' not recognized"):
        Raster(path)


def test_truncated_file(tmp_path: Path):
    pan, _ = WORLD.write(tmp_path)
    ms = save(tmp_path / "ms.tif", WORLD.ms_image(), WORLD.ms_sheet)
    ms.write_bytes(ms.read_bytes()[:-3000])  # it opens: the directory comes first
    with Scene.open(pan, ms) as scene:
        canvas = SceneCanvas.of(scene)
        with pytest.raises(SceneError, match=re.escape(str(ms))):
            list(canvas.crops(128, 1))


def test_swapped(tmp_path: Path):
    pan, ms = WORLD.write(tmp_path)
    refuse(ms, pan, culprit=ms, because="3 bands")


def test_ms_finer_than_pan(tmp_path: Path):
    ms, pan = World(bands=1).write(tmp_path)
    refuse(pan, ms, culprit=ms, because="smaller pixels")


def test_pixels_of_one_size(tmp_path: Path):
    pan, ms = World(ratio=1).write(tmp_path)
    refuse(pan, ms, culprit=ms, because="nothing to sharpen")


def test_turned_in_another_crs(tmp_path: Path):
    """Turned images are brought together in pixels, not through CRS."""
    pan, _ = WORLD.write(tmp_path)
    turned = HERE.transform @ Affine.rotation(10)
    path = save(tmp_path / "turned.tif", np.ones((3, 6, 8)), crs="EPSG:32631", transform=turned)
    refuse(pan, path, culprit=path, because="upright grids")


def test_gcps_only(tmp_path: Path):
    pan, _ = WORLD.write(tmp_path)
    points = [GroundControlPoint(r, c, CORNER[0] + c, CORNER[1] - r) for r, c in ((0, 0), (0, 8), (6, 0), (6, 8))]
    path = save(tmp_path / "points.tif", np.ones((3, 6, 8)))
    with rasterio.open(path, "r+") as file:
        file.gcps = points, rasterio.crs.CRS.from_string(UTM)
    refuse(pan, path, culprit=path, because="GCPs only")


def test_rpcs_only(tmp_path: Path):
    pan, _ = WORLD.write(tmp_path)
    terms = " ".join(["1"] + ["0"] * 19)
    rpcs = {
        f"{of}_{kind}": "1" for of in ("LINE", "SAMP", "LAT", "LONG", "HEIGHT") for kind in ("OFF", "SCALE")
    } | {f"{of}_{kind}_COEFF": terms for of in ("LINE", "SAMP") for kind in ("NUM", "DEN")}  # fmt: skip
    path = save(tmp_path / "rpc.tif", np.ones((3, 6, 8)))
    with rasterio.open(path, "r+") as file:
        file.update_tags(ns="RPC", **rpcs)
    refuse(pan, path, culprit=path, because="upright grids")


@pytest.mark.parametrize("dtype", ["complex64", "complex_int16"])
def test_complex_numbers(tmp_path: Path, dtype: str):
    pan, _ = WORLD.write(tmp_path)
    path = tmp_path / "complex.tif"
    with rasterio.open(
        path, "w", driver="GTiff", count=1, height=6, width=8, dtype=dtype, crs=UTM, transform=HERE.transform
    ):
        pass
    refuse(pan, path, culprit=path, because="complex")


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_integers_that_are_too_long(tmp_path: Path, dtype: str):
    """What computes in float32 would lose their ends."""
    pan, _ = WORLD.write(tmp_path)
    path = save(tmp_path / "long.tif", WORLD.ms_image(), WORLD.ms_sheet, dtype=dtype)
    refuse(pan, path, culprit=path, because="64 bits")


def test_palette(tmp_path: Path):
    _, ms = WORLD.write(tmp_path)
    path = save(tmp_path / "palette.tif", WORLD.pan_image() / 9, WORLD.pan_sheet, dtype="uint8")
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {1: (1, 2, 3, 255)})
    refuse(path, ms, culprit=path, because="palette")


@pytest.mark.parametrize("place", [float("nan"), float("inf")])
def test_nowhere(tmp_path: Path, place: float):
    pan, _ = WORLD.write(tmp_path)
    transform = Affine(8, 0, place, 0, -8, CORNER[1])
    path = save(tmp_path / "nowhere.tif", WORLD.ms_image(), crs=UTM, transform=transform)
    refuse(pan, path, culprit=path, because="puts it nowhere")


def test_a_fifo_is_not_waited_for(tmp_path: Path):
    pan, _ = WORLD.write(tmp_path)
    os.mkfifo(tmp_path / "fifo.tif")
    refuse(pan, tmp_path / "fifo.tif", culprit=tmp_path / "fifo.tif", because="a device")


def test_blocks_of_any_size(tmp_path: Path):
    """One strip of all, compressed: a block is decoded whole."""
    claiming((20_000, 20_000), None, None, "strip.tif", tmp_path)
    with pytest.raises(SceneError, match=r"strip\.tif is stored in blocks of more than 256 MiB"):
        Raster(tmp_path / "strip.tif")


def test_more_pixels_than_a_file_can_hold(tmp_path: Path):
    """A sparse file: a gigabyte in some kilobytes. A small one may be as sparse as it likes."""
    pan, _ = WORLD.write(tmp_path)
    form = {"count": 1, "dtype": "uint8", "crs": UTM, "transform": WORLD.ms_sheet.transform, "sparse_ok": True}
    for name, size in (("small", 1000), ("large", 32_000)):
        with rasterio.open(tmp_path / f"{name}.tif", "w", driver="GTiff", height=size, width=size, tiled=True, **form):
            pass
    refuse(pan, tmp_path / "large.tif", culprit=tmp_path / "large.tif", because=r"claims 1\.0 GB")
    Raster(tmp_path / "small.tif").close()


@pytest.mark.parametrize("crs", ['LOCAL_CS["here",UNIT["metre",1]]', "EPSG:4978"])
def test_a_crs_from_which_no_way_leads(tmp_path: Path, crs: str):
    pan, _ = WORLD.write(tmp_path)
    image, transform = WORLD.ms_image(), WORLD.ms_sheet.transform
    path = save(tmp_path / "other.tif", image, crs=rasterio.crs.CRS.from_string(crs), transform=transform)
    refuse(pan, path, culprit=path, because="no way leads|means nothing")


def test_values_that_no_float32_holds(tmp_path: Path):
    """They are told, not made infinite; --nodata may say that they are none."""
    image = np.full((1, 6, 8), 7.0)
    image[0, 2, 3] = -1.7e308
    path = save(tmp_path / "a.tif", image, HERE, dtype="float64")
    with pytest.raises(SceneError, match=r"beyond 3\.4e38"):
        read_all(Raster(path))
    assert read_all(Raster(path, -1.7e308))[1].sum() == 47


@pytest.mark.parametrize("harm", ["written", "replaced", "gone"])
def test_a_change_meanwhile_is_noticed(tmp_path: Path, harm: str):
    pan, ms = WORLD.write(tmp_path)
    with Scene.open(pan, ms) as scene:
        scene.check_unchanged()
        if harm == "written":
            content = ms.read_bytes()
            ms.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        elif harm == "replaced":
            os.replace(shutil.copy2(ms, tmp_path / "copy.tif"), ms)
        else:
            ms.unlink()
        with pytest.raises(SceneError, match=r"ms\.tif was changed"):
            scene.check_unchanged()


def test_a_nodata_value_that_the_product_cannot_hold_becomes_a_mask(tmp_path: Path):
    """The PAN's, here: nobody asked for it."""
    pan, ms = World(bands=3, dtype="uint8").write(tmp_path, ms=WORLD.ms_image() / 9)
    image = WORLD.pan_image()
    image[0, :8] = -9999
    save(pan, image, WORLD.pan_sheet, dtype="int16", nodata=-9999)
    sharpen(Job(pan, [ms], tmp_path / "out.tif", model="exp", coregister="off", threads=1))
    with rasterio.open(tmp_path / "out.tif") as product:
        assert product.nodata is None
        np.testing.assert_array_equal(product.dataset_mask() > 0, image[0] > 0)


def test_what_dn_mean_goes_with_the_bands(tmp_path: Path):
    pan, ms = World(bands=3, dtype="uint16").write(tmp_path)
    with rasterio.open(ms, "r+") as file:
        file.scales, file.offsets = (0.1, 0.2, 0.3), (1, 2, 3)
    sharpen(Job(pan, [ms], tmp_path / "out.tif", model="exp", bands=[3, 1], threads=1))
    with rasterio.open(tmp_path / "out.tif") as product:
        assert (product.scales, product.offsets) == ((0.3, 0.1), (3, 1))


@pytest.mark.parametrize("corner", [(CORNER[0] + 1e4, CORNER[1]), (CORNER[0], CORNER[1] + 96 * 2 + 24 * 8)])
def test_no_overlap(tmp_path: Path, corner: tuple[float, float]):
    pan, ms = World(ms_corner=corner).write(tmp_path)
    refuse(pan, ms, culprit=pan, because="do not overlap")
    refuse(pan, ms, culprit=ms, because="do not overlap")


@pytest.mark.parametrize("ms_crs", ["EPSG:25830", "EPSG:32630+5773"])
def test_another_crs_of_the_same_coordinates_is_no_other(tmp_path: Path, ms_crs: str):
    with Scene.open(*World(ms_crs=ms_crs).write(tmp_path)) as scene:
        assert not scene.reprojected
        (pixels,) = SceneCanvas.of(scene).crops(128, 1)
        np.testing.assert_allclose(pixels.ms, World().ms_image(), rtol=1e-6)


def test_ratio_misfit(tmp_path: Path):
    pan, ms = WORLD.write(tmp_path)
    with Scene.open(pan, ms) as scene, pytest.raises(SceneError, match=r"4 times .*pan\.tif, not 2"):
        SceneCanvas.of(scene, ratio=2)


def test_the_ratio_must_fit_on_both_axes(tmp_path: Path):
    pan, ms = World(ms_gsd=(4.0, -16.0)).write(tmp_path)  # 2 and 8 times: 4 in the mean
    refuse(pan, ms, culprit=ms, because="times|ratio|square")


@pytest.mark.parametrize("kind", ["size", "place", "plain"])
def test_ms_files_on_different_grids(tmp_path: Path, kind: str):
    pan, ms = WORLD.write(tmp_path)
    sheet = WORLD.ms_sheet
    if kind == "size":
        sheet = Sheet(sheet.corner, sheet.gsd, (24, 31))
    if kind == "place":
        sheet = Sheet((sheet.corner[0] + 8, sheet.corner[1]), sheet.gsd, sheet.size)
    other = save(tmp_path / "other.tif", np.ones((1, *sheet.size)), None if kind == "plain" else sheet)
    refuse(pan, ms, other, culprit=other, because="not on the pixel grid")


def test_a_pan_is_no_ms_of_its_own(tmp_path: Path):
    """By whatever name: what is wrong is not the MS after it."""
    pan, ms = WORLD.write(tmp_path)
    (again := tmp_path / "again.tif").symlink_to(pan)
    for files in ([pan], [pan, ms], [ms, pan], [again, ms]):
        refuse(pan, *files, culprit=pan, because=r"pan\.tif is given as PAN and as MS; give it once")


@pytest.mark.parametrize("plain", ["pan", "ms"])
def test_one_georeferenced_the_other_not(tmp_path: Path, plain: str):
    pan, ms = WORLD.write(tmp_path)
    path = tmp_path / "plain.tif"
    if plain == "pan":
        save(path, WORLD.pan_image())
        refuse(path, ms, culprit=path, because="not georeferenced")
    else:
        save(path, WORLD.ms_image())
        refuse(pan, path, culprit=path, because="not georeferenced")


def test_no_such_band(tmp_path: Path):
    pan, ms = WORLD.write(tmp_path)
    refuse(pan, ms, culprit=ms, because="has bands 1 to 3, not 4", bands=[1, 4])


def test_too_few_names(tmp_path: Path):
    pan, ms = WORLD.write(tmp_path)
    with pytest.raises(SceneError, match="has 3 bands but 2 names"):
        Scene.open(pan, ms, names=["a", "b"])


@pytest.mark.parametrize("nodata", [-9999.0, 0.5, 1e9])
def test_a_nodata_option_that_the_type_cannot_hold_marks_nothing(tmp_path: Path, nodata: float):
    path = save(tmp_path / "a.tif", np.zeros((1, 6, 8)), HERE, dtype="uint16")
    assert read_all(Raster(path, nodata))[1].all()


@pytest.mark.parametrize("value", [b"999\0", b"-99\0", b"0.5\0"])
def test_a_nodata_value_in_the_file_that_its_type_cannot_hold_marks_nothing(tmp_path: Path, value: bytes):
    path = save(tmp_path / "a.tif", np.arange(48).reshape(1, 6, 8) % 3, HERE, dtype="uint8", nodata=255)
    tag = b"\x81\xa4\x02\x00\x04\x00\x00\x00"  # GDAL_NODATA, four characters
    content = path.read_bytes()
    assert content.count(tag + b"255\0") == 1
    path.write_bytes(content.replace(tag + b"255\0", tag + value))
    _, valid = read_all(Raster(path))
    assert valid.all()


def test_plain_images_cover_the_same_ground(tmp_path: Path):
    pan = save(tmp_path / "pan.tif", np.ones((1, 96, 128)))
    ms = save(tmp_path / "ms.tif", np.ones((3, 24, 32)))
    with Scene.open(pan, ms) as scene:
        canvas = SceneCanvas.of(scene)
        assert (scene.ratio, canvas.grid.height, canvas.grid.width) == (4, 96, 128)
        assert not canvas.interpolated


def test_a_context_manager_closes(tmp_path: Path):
    with Scene.open(*WORLD.write(tmp_path)) as scene:
        pass
    with pytest.raises((SceneError, rasterio.errors.RasterioIOError)):
        scene.pan.read(slice(0, 4), slice(0, 4))


# ------------------------------------------------------------------ bands


def test_names_from_the_colours_that_a_file_tells(tmp_path: Path):
    pan, _ = WORLD.write(tmp_path)
    ms = save(tmp_path / "rgb.tif", WORLD.ms_image(), WORLD.ms_sheet, dtype="uint16", photometric="RGB")
    with Scene.open(pan, ms, bands=[3, 1]) as scene:
        assert scene.band_names == ["blue", "red"]


def test_names_from_descriptions(tmp_path: Path):
    pan, ms = WORLD.write(tmp_path)
    with Scene.open(pan, ms) as scene:
        assert scene.band_names == ["blue", "green", "red"]
    with Scene.open(pan, ms, bands=[3, 1]) as scene:
        assert scene.band_names == ["red", "blue"]
    with Scene.open(pan, ms, names=["x", "y", "z"]) as scene:
        assert scene.band_names == ["x", "y", "z"]


def test_names_from_several_files(tmp_path: Path):
    pan, _ = WORLD.write(tmp_path)
    image, sheet = WORLD.ms_image(), WORLD.ms_sheet
    files = [save(tmp_path / f"B{i}.TIF", image[i - 2][None], sheet) for i in (2, 3)]
    named = save(tmp_path / "B4.TIF", image[2:], sheet, names=["nir"])
    with Scene.open(pan, *files, named) as scene:
        assert scene.band_names == ["B2", "B3", "nir"]
        canvas = SceneCanvas.of(scene)
        (pixels,) = canvas.crops(128, 1)
        np.testing.assert_allclose(pixels.ms, image, rtol=1e-6)
    with Scene.open(pan, *files, named, names=["a", "b", "c"]) as scene:
        assert scene.band_names == ["a", "b", "c"]


def test_names_of_nameless_bands(tmp_path: Path):
    pan, _ = WORLD.write(tmp_path)
    ms = save(tmp_path / "ms.tif", WORLD.ms_image(), WORLD.ms_sheet)
    with Scene.open(pan, ms, bands=[3, 2]) as scene:
        assert scene.band_names == ["band 3", "band 2"]


def test_the_type_holds_every_band(tmp_path: Path):
    pan, _ = WORLD.write(tmp_path)
    image = WORLD.ms_image()[:1]
    files = [save(tmp_path / f"{d}.tif", image, WORLD.ms_sheet, dtype=d) for d in ("uint16", "int16")]
    with Scene.open(pan, files[0]) as scene:
        assert scene.dtype == np.uint16
    with Scene.open(pan, *files) as scene:
        assert scene.dtype == np.int32


@pytest.mark.parametrize(
    ("name", "canonical"),
    [
        ("Blue", "blue"),
        ("Red Edge", "rededge"),
        ("red-edge", "rededge"),
        ("NIR1", "nir"),
        ("nir 2", "nir2"),
        ("Near Infrared", "nir"),
        ("Coastal Blue", "coastal"),
        ("coastal_aerosol", "coastal"),
        ("SWIR", "swir1"),
        ("B2", "b2"),
        ("Nahes Infrarot", "nahesinfrarot"),
        ("grün", "grün"),
        ("gru\u0308n", "grün"),
        ("近红外", "近红外"),
        ("Красный", "красный"),
        ("+", "+"),
    ],
)
def test_canonical_names(name: str, canonical: str):
    assert canonical_band(name) == canonical


def test_a_named_fourth_band_is_no_alpha(data: Path):
    path = data / "geoeye1_fields_w"
    with rasterio.open(path / "ms.tif") as file:
        assert file.colorinterp[-1] == ColorInterp.alpha  # what GDAL takes it for
    with Scene.open(path / "pan.tif", path / "ms.tif") as scene:
        assert scene.band_names == ["blue", "green", "red", "nir"]
        assert scene.ms[0].read(slice(0, 320), slice(0, 192))[1].all()
        assert not scene.may_have_gaps


# ------------------------------------------------------------------ no data


def read_all(raster: Raster) -> tuple[np.ndarray, np.ndarray]:
    return raster.read(slice(0, raster.grid.height), slice(0, raster.grid.width))


def holey(value: float = 0) -> tuple[np.ndarray, np.ndarray]:
    """Three bands with a gap (all bands `value`) and zeros that are data, and where data is."""
    image = np.arange(1, 3 * 48 + 1, dtype=np.float64).reshape(3, 6, 8)
    valid = np.ones((6, 8), bool)
    valid[1:3, 2:5] = False
    image[:, ~valid] = value
    image[1, 4, 4] = image[0, 5, :] = value  # some bands only
    return image, valid


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "float32"])
def test_a_pixel_has_no_data_if_no_band_has(tmp_path: Path, dtype: str):
    image, valid = holey()
    raster = Raster(save(tmp_path / "a.tif", image, HERE, dtype=dtype, nodata=0))
    data, found = read_all(raster)
    np.testing.assert_array_equal(found, valid)
    np.testing.assert_array_equal(data, image)
    assert raster.nodata == 0
    assert raster.dtype == dtype


def test_zeros_are_data_unless_said_otherwise(tmp_path: Path):
    image, valid = holey()
    path = save(tmp_path / "a.tif", image, HERE)
    assert read_all(Raster(path))[1].all()
    np.testing.assert_array_equal(read_all(Raster(path, 0.0))[1], valid)


def test_the_option_comes_before_metadata(tmp_path: Path):
    image, valid = holey(7)
    image[:, 5, 7] = 0
    path = save(tmp_path / "a.tif", image, HERE, nodata=0)
    np.testing.assert_array_equal(read_all(Raster(path, 7.0))[1], valid)
    assert read_all(Raster(path, "none"))[1].all()
    assert Raster(path, "none").nodata is None


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_mask_comes_before_metadata(tmp_path: Path, dtype: str):
    image, valid = holey(7)
    path = save(tmp_path / "a.tif", image, HERE, dtype=dtype, nodata=image[0, 0, 0])
    with rasterio.open(path, "r+") as file:
        file.write_mask(valid)
    with rasterio.open(path) as file:
        if file.mask_flag_enums[0] != [rasterio.enums.MaskFlags.per_dataset]:
            pytest.skip("this GDAL lets the nodata value come first")
    raster = Raster(path)
    np.testing.assert_array_equal(read_all(raster)[1], valid)
    assert raster.nodata is None


def test_an_internal_mask(tmp_path: Path):
    image, valid = holey(7)
    path = save(tmp_path / "a.tif", image, HERE, mask=valid)
    assert not list(tmp_path.glob("*.msk"))
    data, found = read_all(Raster(path))
    np.testing.assert_array_equal(found, valid)
    assert (data[:, ~valid] == 0).all()
    assert read_all(Raster(path, "none"))[1].all()
    assert not read_all(Raster(path, 7.0))[1][1, 2]


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_an_alpha_band_is_a_mask_and_no_band(tmp_path: Path, dtype: str):
    image, valid = holey(7)
    image[:, 5, 7] = 0
    alpha = np.where(valid, np.iinfo(dtype).max, 0)[None]
    path = save(tmp_path / "a.tif", np.concatenate([image, alpha]), HERE, dtype=dtype, alpha=True)
    raster = Raster(path)
    data, found = read_all(raster)
    assert raster.indexes == [1, 2, 3]
    np.testing.assert_array_equal(found, valid)
    np.testing.assert_array_equal(data, np.where(valid, image, 0))
    assert read_all(Raster(path, "none"))[1].all()


def test_a_graded_alpha_band_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """It may be NIR, which writers mark so, or a feathered mask."""
    image = np.tile(np.arange(128), (4, 96, 1))
    path = save(tmp_path / "a.tif", image, HERE, dtype="uint8", alpha=True)
    caplog.set_level("WARNING", "pansharpen_cli")
    assert Raster(path).indexes == [1, 2, 3, 4]
    assert "marks band 4 as alpha, but it holds more than two values" in caplog.text
    assert "--bidx 1-3 leaves it out" in caplog.text
    caplog.clear()
    Raster(path, bands=[1, 2, 4])
    assert not caplog.text


def test_a_pan_with_alpha_is_a_pan(tmp_path: Path):
    _, ms = WORLD.write(tmp_path)
    alpha = np.full((1, 96, 128), 255)
    alpha[0, :8] = 0
    image = np.concatenate([np.full((1, 96, 128), 9), alpha])
    pan = save(tmp_path / "p.tif", image, WORLD.pan_sheet, dtype="uint8", alpha=True)
    with Scene.open(pan, ms) as scene:
        assert scene.pan.indexes == [1]
        assert scene.may_have_gaps
        np.testing.assert_array_equal(read_all(scene.pan)[1], alpha[0] > 0)


@pytest.mark.parametrize("nodata", ["file", "none", float("nan"), -9999.0])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_is_never_data(tmp_path: Path, nodata, bad: float):
    image, _ = holey(3)
    image[1, 2, 2] = bad  # one band is enough
    data, valid = read_all(Raster(save(tmp_path / "a.tif", image, HERE), nodata))
    assert not valid[2, 2]
    assert valid.sum() == valid.size - 1
    assert (data[:, 2, 2] == 0).all()


def test_a_float_nodata_value_as_metadata_rounds_it(tmp_path: Path):
    image, valid = holey(-3.4e38)
    path = save(tmp_path / "a.tif", image, HERE, nodata=-3.4e38)
    np.testing.assert_array_equal(read_all(Raster(path))[1], valid)
    np.testing.assert_array_equal(read_all(Raster(path, -3.4e38))[1], valid)


def test_any_ms_file_without_data_is_enough(tmp_path: Path):
    pan, _ = WORLD.write(tmp_path)
    image = WORLD.ms_image()[:1]
    holes = [image.copy(), image.copy()]
    holes[0][0, 2, 3] = holes[1][0, 4, 5] = 0
    files = [save(tmp_path / f"{i}.tif", hole, WORLD.ms_sheet, nodata=0) for i, hole in enumerate(holes)]
    with Scene.open(pan, *files) as scene:
        assert scene.nodata == 0
        (pixels,) = SceneCanvas.of(scene).crops(128, 1)
    expected = np.ones((24, 32), bool)
    expected[2, 3] = expected[4, 5] = False
    np.testing.assert_array_equal(pixels.ms_valid, expected)


@pytest.mark.parametrize(
    ("nodata", "dtype", "gaps"), [(None, "uint16", False), (0, "uint16", True), (None, "float32", True)]
)
def test_may_have_gaps(tmp_path: Path, nodata: float | None, dtype: str, gaps: bool):
    with Scene.open(*World(nodata=nodata, dtype=dtype).write(tmp_path)) as scene:
        assert scene.may_have_gaps is gaps


def test_windows_are_windows(tmp_path: Path):
    image, valid = holey()
    raster = Raster(save(tmp_path / "a.tif", image, HERE, nodata=0))
    data, found = raster.read(slice(1, 5), slice(2, 8))
    np.testing.assert_array_equal(data, image[:, 1:5, 2:8])
    np.testing.assert_array_equal(found, valid[1:5, 2:8])


CLOSED_WHILE_READ = """
import sys, threading, time
from pansharpen_cli.errors import SceneError
from pansharpen_cli.inputs.raster import Raster

def read(raster):
    try:
        while True:
            raster.read(slice(0, 512), slice(0, 512))
    except SceneError as error:
        told.append(str(error))

told = []
for attempt in range(40):
    raster = Raster(sys.argv[1])
    thread = threading.Thread(target=read, args=(raster,))
    thread.start()
    time.sleep(0.002 * (attempt % 5))
    raster.close()
    thread.join()
print(len(told), set(told))
"""


def test_a_file_may_be_closed_while_another_thread_reads_it(tmp_path):
    """As after an error or Ctrl-C, when reading is ahead: GDAL crashes then."""
    path, _ = World(pan_size=(512, 512), ms_size=(128, 128)).write(tmp_path)
    process = subprocess.run(
        [sys.executable, "-c", CLOSED_WHILE_READ, path], check=False, capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout.split(" ", 1)[0] == "40"
    assert "was closed before it was read" in process.stdout
