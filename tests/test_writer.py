"""Faults are real here: a full disk, kill -9, Ctrl-C, codecs that lose or cannot hold the pixels."""

import os
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp

from pansharpen_cli.errors import OutputError
from pansharpen_cli.imaging.geogrid import GeoGrid
from pansharpen_cli.outputs.statistics import BandStatistics
from pansharpen_cli.outputs.writer import ProductWriter

UTM = CRS.from_epsg(32633).to_wkt()
NORTH_UP = Affine(0.3, 0, 500000.1, 0, -0.3, 4000000 + 1 / 3)
BANDS = ("blue", "green", "red", "nir")


def grid(height=700, width=900, crs=UTM):
    return GeoGrid(height, width, NORTH_UP, crs)


def scene(where, bands=BANDS, dtype="uint16", seed=0):
    """Noise (bands, H, W) with a hole that covers whole blocks and parts of others, and where it is valid (H, W)."""
    random = np.random.default_rng(seed).uniform(1, 250, (len(bands), where.height, where.width))
    valid = np.ones((where.height, where.width), bool)
    valid[: where.height * 3 // 4, : where.width * 2 // 3] = False
    return random.astype(dtype), valid


def fill(writer, hrms, valid, core=512):
    for row in range(0, valid.shape[0], core):
        for col in range(0, valid.shape[1], core):
            block = slice(row, min(row + core, valid.shape[0])), slice(col, min(col + core, valid.shape[1]))
            writer.write(*block, hrms[:, *block], valid[block])


def write(path, where=None, bands=BANDS, dtype="uint16", nodata=0, tags=None, seed=0, **options):
    where = where or grid()
    hrms, valid = scene(where, bands, dtype, seed)
    with ProductWriter(path, where, bands, dtype, nodata, **options) as writer:
        fill(writer, hrms, valid)
        writer.finish(tags or {})
    return hrms, valid, writer.statistics


@pytest.mark.parametrize("format", ["gtiff", "cog"])
@pytest.mark.parametrize(
    ("dtype", "nodata"), [("uint8", 0), ("uint16", 65535), ("int16", -32768), ("float32", np.nan), ("float32", -9999)]
)
def test_pixels_and_layout_are_exact(tmp_path, format, dtype, nodata):
    path = tmp_path / "out.tif"
    hrms, valid, _ = write(path, dtype=dtype, nodata=nodata, format=format, threads=2)
    with rasterio.open(path) as product:
        expected = np.where(valid, hrms, np.array(nodata, dtype))
        np.testing.assert_array_equal(product.read(), expected)
        np.testing.assert_array_equal(product.dataset_mask() > 0, valid)
        np.testing.assert_equal(product.nodata, float(nodata))
        assert set(product.dtypes) == {dtype}
        assert (product.transform, product.crs, product.descriptions) == (NORTH_UP, CRS.from_wkt(UTM), BANDS)
        assert product.block_shapes == [(512, 512)] * 4
        assert product.overviews(1) == [2, 4]
        assert product.tags()["AREA_OR_POINT"] == "Area"
        assert (product.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG") == (format == "cog")
    assert os.listdir(tmp_path) == ["out.tif"]


@pytest.mark.parametrize("format", ["gtiff", "cog"])
def test_internal_mask(tmp_path, format):
    path = tmp_path / "out.tif"
    hrms, valid, _ = write(path, nodata=None, mask=True, format=format, threads=2)
    with rasterio.open(path) as product:
        assert product.nodata is None
        np.testing.assert_array_equal(product.read_masks(1) > 0, valid)
        np.testing.assert_array_equal(product.read()[:, valid], hrms[:, valid])
    assert os.listdir(tmp_path) == ["out.tif"]


@pytest.mark.parametrize("format", ["gtiff", "cog"])
def test_tags_and_statistics(tmp_path, format):
    path = tmp_path / "out.tif"
    tags = {"model": "adknet.official", "parameters": '{"a": "<1 & 2>"}', "empty": ""}
    hrms, valid, statistics = write(path, tags=tags, format=format)
    with rasterio.open(path) as product:
        assert product.tags(ns="PANSHARPEN") == {"model": tags["model"], "parameters": tags["parameters"]}
        assert product.tags()["TIFFTAG_SOFTWARE"].startswith("pansharpen_cli ")
        assert "TIFFTAG_DATETIME" in product.tags()
        for index, band in enumerate(hrms, start=1):
            values = band[valid].astype(float)
            found = {key: float(text) for key, text in product.tags(index).items()}
            assert found["STATISTICS_MINIMUM"] == values.min()
            assert found["STATISTICS_MAXIMUM"] == values.max()
            assert found["STATISTICS_MEAN"] == pytest.approx(values.mean(), rel=1e-13)
            assert found["STATISTICS_STDDEV"] == pytest.approx(values.std(), rel=1e-13)
            assert found["STATISTICS_VALID_PERCENT"] == pytest.approx(100 * valid.mean(), abs=0.01)
            assert statistics[index - 1].count == valid.sum()


def test_a_cog_keeps_its_header_in_front(tmp_path):
    """GDAL notes in the file when an edit broke the layout."""
    path = tmp_path / "out.tif"
    write(path, format="cog", tags={"model": "x"})
    head = path.read_bytes()[:20000]
    assert b"KNOWN_INCOMPATIBLE_EDITION=NO" in head
    assert b"STATISTICS_MEAN" in head


def test_statistics_do_not_cancel():
    values = 1e9 + np.random.default_rng(1).normal(size=30000)
    merged = BandStatistics()
    for part in np.split(values, [1, 5, 5, 20000]):
        merged = merged.merge(BandStatistics.of(part))
    assert merged.count == 30000
    assert (merged.minimum, merged.maximum) == (values.min(), values.max())
    assert merged.mean == pytest.approx(values.mean(), rel=1e-15)
    assert merged.std == pytest.approx((values - 1e9).std(), rel=1e-9)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16"])
@pytest.mark.parametrize("everywhere", [False, True])
def test_statistics_of_short_integers_are_exact(dtype, everywhere):
    info = np.iinfo(dtype)
    low = info.min if everywhere else info.max - 9
    values = np.random.default_rng(2).integers(low, info.max, 70001, dtype, endpoint=True)
    values[:2] = low, info.max
    found, exactly = BandStatistics.of(values), [int(value) for value in values]
    assert (found.count, found.minimum, found.maximum) == (70001, low, info.max)
    assert found.mean == sum(exactly) / 70001
    assert found.squares == (sum(value**2 for value in exactly) * 70001 - sum(exactly) ** 2) / 70001
    assert found.std == pytest.approx(values.std(), rel=1e-9)


@pytest.mark.parametrize("options", [{"nodata": 0}, {"nodata": None, "mask": True}])
def test_nodata_does_not_bleed_into_overviews(tmp_path, options):
    path, where = tmp_path / "out.tif", grid(1100, 1030)
    valid = np.random.default_rng(0).random((1100, 1030)) > 0.6
    with ProductWriter(path, where, ("pan",), "uint16", **options) as writer:
        fill(writer, np.full((1, 1100, 1030), 1000, "uint16"), valid)
        writer.finish({})
    with rasterio.open(path) as product:
        assert product.overviews(1) == [2, 4, 8]
    for level in range(3):
        with rasterio.open(path, overview_level=level) as overview:
            shown = overview.read(1)[overview.read_masks(1) > 0]
            assert shown.size > 0
            assert set(shown.tolist()) == {1000}


def test_a_scene_without_any_data(tmp_path):
    """Blocks without data are still blocks, in the overviews too."""
    path, hole = tmp_path / "out.tif", np.zeros((1100, 1100), bool)
    with ProductWriter(path, grid(1100, 1100), ("a", "b"), "float32", np.nan, format="cog") as writer:
        fill(writer, np.ones((2, 1100, 1100), "float32"), hole)
        writer.finish({})
    with rasterio.open(path) as product:
        assert np.isnan(product.read()).all()
        assert product.tags(1) == {}


@pytest.mark.parametrize("crs", [UTM, None])
@pytest.mark.parametrize("shape", [(1, 1), (33, 47), (512, 16)])
def test_small_products(tmp_path, shape, crs):
    path, where = tmp_path / "out.tif", grid(*shape, crs=crs)
    hrms, valid, _ = write(path, where, nodata=None)
    with rasterio.open(path) as product:
        np.testing.assert_array_equal(product.read(), np.where(valid, hrms, 0))
        assert all(side % 16 == 0 for side in product.block_shapes[0])
        assert product.transform == NORTH_UP
        assert product.crs == (CRS.from_wkt(crs) if crs else None)


@pytest.mark.parametrize(
    ("bands", "colours"),
    [
        (("red", "green", "blue", "nir"), ("red", "green", "blue", "undefined")),
        (("Blue", "Green", "Red", "NIR"), ("blue", "green", "red", "undefined")),
        (("", "", "", ""), ("gray", "undefined", "undefined", "undefined")),
        (("pan",), ("gray",)),
    ],
)
@pytest.mark.parametrize("format", ["gtiff", "cog"])
def test_colours_follow_the_names(tmp_path, bands, colours, format):
    path = tmp_path / "out.tif"
    write(path, grid(60, 50), bands, "uint8", format=format)
    with rasterio.open(path) as product:
        assert product.colorinterp == tuple(ColorInterp[colour] for colour in colours)


def test_cores_of_any_size_from_another_thread(tmp_path):
    path = tmp_path / "out.tif"
    hrms, valid = scene(grid())
    with ProductWriter(path, grid(), BANDS, "uint16", 0) as writer, ThreadPoolExecutor(1) as thread:
        thread.submit(fill, writer, hrms, valid, core=233).result()
        assert writer.finish({}) == path
    with rasterio.open(path) as product:
        np.testing.assert_array_equal(product.read(), np.where(valid, hrms, 0))


@pytest.mark.parametrize(
    ("options", "format", "structure"),
    [
        ({"compress": "ZSTD"}, "gtiff", {"COMPRESSION": "ZSTD", "PREDICTOR": "2"}),
        ({"COMPRESS": "LERC_ZSTD", "INTERLEAVE": "BAND"}, "gtiff", {"COMPRESSION": "LERC_ZSTD", "INTERLEAVE": "BAND"}),
        ({"COMPRESS": "NONE"}, "gtiff", {"INTERLEAVE": "PIXEL"}),
        ({"NBITS": "12", "BIGTIFF": "YES"}, "gtiff", {"COMPRESSION": "DEFLATE"}),
        ({"COMPRESS": "LZW", "BLOCKSIZE": "256"}, "cog", {"COMPRESSION": "LZW", "PREDICTOR": "2"}),
        ({"NBITS": "12"}, "cog", {"LAYOUT": "COG"}),
    ],
)
def test_creation_options(tmp_path, options, format, structure):
    path = tmp_path / "out.tif"
    hrms, valid, _ = write(path, creation_options=options, format=format)
    with rasterio.open(path) as product:
        assert product.tags(ns="IMAGE_STRUCTURE").items() >= structure.items()
        np.testing.assert_array_equal(product.read(), np.where(valid, hrms, 0))


@pytest.mark.parametrize("format", ["gtiff", "cog"])
@pytest.mark.parametrize(
    ("wanted", "any_made"), [({}, True), ({"OVERVIEWS": "auto"}, True), ({"OVERVIEWS": "none"}, False)]
)
def test_overviews_may_be_left_out(tmp_path, format, wanted, any_made):
    path = tmp_path / "out.tif"
    write(path, creation_options=wanted, format=format)
    with rasterio.open(path) as product:
        assert bool(product.overviews(1)) == any_made


@pytest.mark.parametrize("option", ["OVERVIEW_RESAMPLING", "RESAMPLING"])
def test_overviews_of_a_cog_are_made_as_asked(option, tmp_path):
    path = tmp_path / "out.tif"
    hrms, _, _ = write(path, format="cog", creation_options={option: "nearest", "OVERVIEW_COUNT": "3"})
    with rasterio.open(path) as product:
        assert product.overviews(1) == [2, 4, 8]
    with rasterio.open(path, overview_level=0) as half:
        assert set(np.unique(half.read(1))) <= {0, *np.unique(hrms[0, ::2, ::2])}


@pytest.mark.parametrize(
    ("options", "dtype", "format"),
    [
        ({"FROBNICATE": "YES"}, "uint16", "gtiff"),  # GDAL would ignore it
        ({"OVERVIEWS": "SOME"}, "uint16", "gtiff"),
        ({"COMPRESS": "GZIP"}, "uint16", "gtiff"),
        ({"COMPRESS": "GZIP"}, "uint16", "cog"),
        ({"COMPRESS": "JPEG"}, "uint16", "gtiff"),
        ({"COMPRESS": "JPEG"}, "uint8", "cog"),  # possible, but not what was computed
        ({"COMPRESS": "LERC", "MAX_Z_ERROR": "1"}, "float32", "gtiff"),
        ({"PREDICTOR": "3"}, "uint16", "gtiff"),
        ({"BLOCKXSIZE": "100"}, "uint16", "gtiff"),
        ({"OVERVIEW_RESAMPLING": "BEST"}, "uint16", "cog"),
        ({"OVERVIEW_RESAMPLING": "NEAREST"}, "uint16", "gtiff"),  # of COGs only
    ],
)
def test_impossible_options_are_refused_at_once(tmp_path, options, dtype, format):
    path = tmp_path / "out.tif"
    with pytest.raises(OutputError, match=r"out\.tif cannot be written as .* with .*" + next(iter(options))):
        ProductWriter(path, grid(), BANDS[:3], dtype, 0, creation_options=options, format=format)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("nodata", "dtype"), [(-1, "uint16"), (256, "uint8"), (0.5, "int16"), (np.nan, "uint16")])
def test_nodata_must_fit_the_data_type(tmp_path, nodata, dtype):
    with pytest.raises(OutputError, match="whole number from"):
        ProductWriter(tmp_path / "out.tif", grid(), BANDS, dtype, nodata)


def test_bad_places_are_refused_at_once(tmp_path):
    (tmp_path / "file").touch()
    for path, reason in [
        (tmp_path / "missing" / "out.tif", "is no folder"),
        (tmp_path / "file" / "out.tif", "is no folder"),
        (tmp_path / "file", "exists"),
        (tmp_path, "is a folder"),
        (tmp_path / f"{'é' * 113}.tif", "has a name of 230 bytes; give one of 229 at most"),
    ]:
        with pytest.raises(OutputError, match=reason):
            ProductWriter(path, grid(), BANDS, "uint16", 0)
    write(tmp_path / f"{'é' * 112}x.tif")
    with pytest.raises(OutputError, match=r"may need [\d,.]+ MB but .* has [\d,.]+ MB free"):
        ProductWriter(tmp_path / "out.tif", grid(10**7, 10**7), BANDS, "uint16", 0)


def test_overwriting_keeps_the_old_file_until_the_new_one_is_valid(tmp_path):
    path, stale = tmp_path / "out.tif", tmp_path / "out.tif.aux.xml"
    write(path)
    old = path.read_bytes()
    stale.write_text("<PAMDataset/>")
    hrms, valid = scene(grid(), seed=1)
    with ProductWriter(path, grid(), BANDS, "uint16", 0, overwrite=True) as writer:
        fill(writer, hrms, valid)
        assert path.read_bytes() == old
        writer.finish({})
    with rasterio.open(path) as product:
        np.testing.assert_array_equal(product.read(), np.where(valid, hrms, 0))
    assert not stale.exists()


def test_a_file_that_appeared_meanwhile_is_not_overwritten(tmp_path):
    path = tmp_path / "out.tif"
    hrms, valid = scene(grid())
    with ProductWriter(path, grid(), BANDS, "uint16", 0) as writer:
        fill(writer, hrms, valid)
        path.write_text("somebody else's")
        with pytest.raises(OutputError, match="exists"):
            writer.finish({})
    assert path.read_text() == "somebody else's"
    assert os.listdir(tmp_path) == ["out.tif"]


def test_every_pixel_must_be_written_once(tmp_path):
    hrms, valid = scene(grid())
    for skip, again, reason in [
        ((512, 512), None, "rows 512-699, columns 512-899 were written 0 times"),
        (None, (slice(5, 6), slice(7, 9)), "rows 5-5, columns 7-8 were written 2 times"),
    ]:
        with ProductWriter(tmp_path / "out.tif", grid(), BANDS, "uint16", 0) as writer:
            for row, col in [(0, 0), (0, 512), (512, 0), (512, 512)]:
                block = slice(row, min(row + 512, 700)), slice(col, min(col + 512, 900))
                if (row, col) != skip:
                    writer.write(*block, hrms[:, *block], valid[block])
            if again:
                writer.write(*again, hrms[:, *again], valid[again])
            with pytest.raises(OutputError, match=reason):
                writer.finish({})
        assert os.listdir(tmp_path) == []


def test_files_that_lay_where_a_first_product_appears_are_told(tmp_path, caplog):
    """GDAL would read them as the new product's; those of an older product go with it."""
    for suffix in (".ovr", ".aux.xml"):
        (tmp_path / f"out.tif{suffix}").write_text("foreign")
    write(tmp_path / "out.tif")
    assert os.listdir(tmp_path) == ["out.tif"]
    told = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 1
    assert "out.tif.aux.xml" in told[0]
    assert "out.tif.ovr" in told[0]
    caplog.clear()
    (tmp_path / "out.tif.aux.xml").write_text("of the product")
    write(tmp_path / "out.tif", overwrite=True)
    assert (os.listdir(tmp_path), caplog.records) == (["out.tif"], [])


@pytest.mark.parametrize("format", ["gtiff", "cog"])
def test_pixels_that_gdal_clips_silently_are_found(tmp_path, format):
    """12 bits hold 4095; GDAL writes that for 5000 and reports nothing. It is told with the first of them, not at the
    end; what is not valid is not written."""
    where, valid = grid(100, 100), np.ones((100, 100), bool)
    hrms = np.full((1, 100, 100), 4095, "uint16")
    options = {"creation_options": {"nbits": "12"}, "format": format}
    with ProductWriter(tmp_path / "out.tif", where, ("a",), "uint16", None, **options) as writer:
        writer.write(slice(0, 50), slice(0, 100), hrms[:, :50], valid[:50])
        hrms[:, 60] = 5000
        with pytest.raises(OutputError, match="holds 5000, which NBITS=12 does not: up to 4095"):
            writer.write(slice(50, 100), slice(0, 100), hrms[:, 50:], valid[50:])
        valid[60] = False
        writer.write(slice(50, 100), slice(0, 100), hrms[:, 50:], valid[50:])
        writer.finish({})


@pytest.mark.parametrize(
    ("hrms", "valid"),
    [
        (np.zeros((4, 8, 8), "float32"), np.ones((8, 8), bool)),
        (np.zeros((3, 8, 8), "uint16"), np.ones((8, 8), bool)),
        (np.zeros((4, 8, 8), "uint16"), np.ones((8, 9), bool)),
    ],
)
def test_cores_of_another_layout_are_refused(tmp_path, hrms, valid):
    with (
        ProductWriter(tmp_path / "out.tif", grid(), BANDS, "uint16", 0) as writer,
        pytest.raises(ValueError, match="do not fit"),
    ):
        writer.write(slice(0, 8), slice(0, 8), hrms, valid)


def interrupt():
    signal.raise_signal(signal.SIGINT)


def fail():
    raise RuntimeError("GPU lost")


@pytest.mark.parametrize(("fault", "error"), [(interrupt, KeyboardInterrupt), (fail, RuntimeError)])
def test_nothing_remains_of_a_run_that_stops(tmp_path, fault, error):
    hrms, valid = scene(grid())

    def run():
        with ProductWriter(tmp_path / "out.tif", grid(), BANDS, "uint16", 0) as writer:
            fill(writer, hrms, valid)
            assert [name[:9] for name in os.listdir(tmp_path)] == [".out.tif."]
            fault()

    with pytest.raises(error):
        run()
    assert os.listdir(tmp_path) == []


def subprocess_of(body, *arguments, prefix=()):
    """Run `body` in another Python that has this module's names."""
    here = Path(__file__).resolve()
    code = f"import sys; sys.path[:0] = {[str(here.parents[1]), str(here.parent)]}; from test_writer import *\n{body}"
    command = [*prefix, sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def test_kill_leaves_no_product(tmp_path):
    body = """
with ProductWriter(Path(sys.argv[1]), grid(), BANDS, "uint16", 0) as writer:
    fill(writer, *scene(grid()))
    print("written", flush=True)
    sys.stdin.read()
"""
    with subprocess_of(
        f"import time\n{body.replace('sys.stdin.read()', 'time.sleep(60)')}", tmp_path / "out.tif"
    ) as run:
        assert run.stdout.readline() == "written\n"
        run.kill()
    assert run.returncode == -signal.SIGKILL
    (left,) = os.listdir(tmp_path)
    assert left.startswith(".out.tif.")
    assert left.endswith(".partial")


SMALL_DISK = ["unshare", "--mount", "--map-root-user"]
MOUNT = ["sh", "-c", 'mount -t tmpfs -o size=4m tmpfs "$0" && exec "$@"']


def on_a_small_disk(folder, body):
    """Run `body` where `folder` is a disk of 4 MiB, in a mount namespace of its own; returns what it prints."""
    if not shutil.which("unshare") or subprocess.run([*SMALL_DISK, *MOUNT, folder, "true"], check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs in a user namespace")
    with subprocess_of(body, folder, prefix=[*SMALL_DISK, *MOUNT, str(folder)]) as run:
        return run.stdout.read()


FULL_DISK = """
folder = Path(sys.argv[1])
path, where = folder / "out.tif", grid(600, 600)
path.write_text("the old one")
hrms = np.random.default_rng(0).integers(1, 65535, (4, 600, 600), dtype="uint16")
valid = np.ones((600, 600), bool)

def fill_disk(leave=0):
    with open(folder / "hog", "wb", buffering=0) as hog:
        free = shutil.disk_usage(folder).free - leave
        while free > 0:
            free -= hog.write(bytes(min(free, 2**16)))

try:
    with ProductWriter(path, where, BANDS, "uint16", 0, overwrite=True, threads=2) as writer:
        {scenario}
except OutputError as error:
    print("OutputError:", error)
print("left:", sorted(os.listdir(folder)), path.read_text())
"""


@pytest.mark.parametrize(
    ("scenario", "reason"),
    [
        ("fill_disk(); fill(writer, hrms, valid)", "has only 0.0 MB left"),
        ("fill(writer, hrms, valid, 120); fill_disk(); writer.finish({})", "cannot be completed; its disk may be full"),
        ("fill_disk(3000000); fill(writer, hrms, valid, 120); writer.finish({})", "a block of overview 1 is missing"),
    ],
)
def test_a_disk_that_fills_up(tmp_path, scenario, reason):
    printed = on_a_small_disk(tmp_path, FULL_DISK.replace("{scenario}", scenario))
    assert "OutputError: " in printed, printed
    assert reason in printed
    assert "left: ['hog', 'out.tif'] the old one" in printed


def test_a_disk_that_is_too_small_is_refused_at_once(tmp_path):
    body = """
try:
    ProductWriter(Path(sys.argv[1]) / "out.tif", grid(800, 800), BANDS, "uint16", 0)
except OutputError as error:
    print(error)
"""
    assert "may need 6.8 MB but" in on_a_small_disk(tmp_path, body)


@pytest.mark.parametrize("format", ["gtiff", "cog"])
def test_what_dn_mean_is_kept(tmp_path, format):
    """Scale and offset of each band; with them go the statistics, which are of DN."""
    path, scaling = tmp_path / "out.tif", ((1e-4, -0.1), (2.5e-5, 0), (1, 0), (1, 0))
    _, _, statistics = write(path, scaling=scaling, format=format, tags={"model": "x"})
    with rasterio.open(path) as product:
        assert tuple(zip(product.scales, product.offsets, strict=True)) == scaling
        assert float(product.tags(1)["STATISTICS_MEAN"]) == pytest.approx(statistics[0].mean, rel=1e-13)
    write(tmp_path / "plain.tif", scaling=[(1.0, 0.0)] * 4, format=format)
    with rasterio.open(tmp_path / "plain.tif") as product:
        assert b"scale" not in (tmp_path / "plain.tif").read_bytes()[:20000]
        assert product.scales == (1.0,) * 4


@pytest.mark.parametrize("shape", [(4, 100_000), (100_000, 4), (1, 700)])
def test_products_as_thin_as_a_thread(tmp_path, shape):
    """GDAL names the overviews of such by what their thin side allows."""
    write(tmp_path / "out.tif", grid(*shape))
    with rasterio.open(tmp_path / "out.tif") as product:
        assert len(product.overviews(1)) == max(0, int(np.ceil(np.log2(max(shape) / 256))))
