"""The picture of a product whose every pixel is known."""

import os

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.enums import ColorInterp

from pansharpen_cli.errors import OutputError
from pansharpen_cli.imaging.geogrid import GeoGrid
from pansharpen_cli.outputs.quicklook import colour_bands, write_quicklook
from pansharpen_cli.outputs.writer import ProductWriter

GRID = GeoGrid(600, 800, Affine(2, 0, 500000, 0, -2, 4000000), None)


def product(path, hrms, valid, bands, nodata=0, **options):
    with ProductWriter(path, GRID, bands, hrms.dtype.name, nodata, **options) as writer:
        writer.write(slice(0, 600), slice(0, 800), hrms, valid)
        writer.finish({})


def picture(path):
    with rasterio.open(path) as png:
        assert png.driver == "PNG"
        assert png.dtypes == ("uint8",) * 4
        assert png.colorinterp[3] == ColorInterp.alpha
        return png.read()


@pytest.mark.parametrize("options", [{"nodata": 0}, {"nodata": None, "mask": True}])
def test_colours_go_to_their_channels_and_holes_are_transparent(tmp_path, options):
    """Blue rises to the right, green downwards, red to the left; NIR is noise and not shown."""
    right, down = np.meshgrid(np.arange(800), np.arange(600))
    noise = np.random.default_rng(0).integers(0, 2000, (600, 800))
    hrms = (100 + np.stack([right, down, 800 - right, noise])).astype("uint16")
    valid = np.ones((600, 800), bool)
    valid[200:400, 200:400] = False
    product(tmp_path / "out.tif", hrms, valid, ("blue", "green", "red", "nir"), **options)
    write_quicklook(tmp_path / "out.tif", tmp_path / "out.png", size=400)
    red, green, blue, alpha = picture(tmp_path / "out.png").astype(int)
    assert alpha.shape == (300, 400)
    np.testing.assert_array_equal(alpha > 0, valid[::2, ::2])
    shown = alpha > 0
    for channel, band in ((red, hrms[2]), (green, hrms[1]), (blue, hrms[0])):
        truth = band.reshape(300, 2, 400, 2).mean(axis=(1, 3))
        dark, bright = np.percentile(truth[shown], (2, 98))
        expected = 255 * np.clip((truth - dark) / (bright - dark), 0, 1)
        assert np.abs(channel - expected)[shown].max() <= 1
    assert sorted(os.listdir(tmp_path)) == ["out.png", "out.tif"]


def test_one_band_is_grey_and_never_enlarged(tmp_path):
    hrms = np.random.default_rng(0).normal(size=(1, 600, 800)).astype("float32")
    product(tmp_path / "out.tif", hrms, np.ones((600, 800), bool), ("pan",), np.nan)
    write_quicklook(tmp_path / "out.tif", tmp_path / "out.png")
    red, green, blue, alpha = picture(tmp_path / "out.png")
    assert red.shape == (600, 800)
    assert (alpha == 255).all()
    np.testing.assert_array_equal(red, green)
    np.testing.assert_array_equal(red, blue)
    assert np.mean(red == 0) == pytest.approx(0.02, abs=0.002)
    assert np.mean(red == 255) == pytest.approx(0.02, abs=0.002)


@pytest.mark.parametrize("valid", [True, False])
def test_flat_and_empty_products(tmp_path, valid):
    product(tmp_path / "out.tif", np.full((3, 600, 800), 7, "uint16"), np.full((600, 800), valid), ("a", "b", "c"))
    write_quicklook(tmp_path / "out.tif", tmp_path / "out.png", size=100)
    rgba = picture(tmp_path / "out.png")
    assert rgba.shape == (4, 75, 100)
    assert (rgba[:3] == 0).all()
    assert (rgba[3] == (255 if valid else 0)).all()


@pytest.mark.parametrize(
    ("names", "bands"),
    [
        (("Blue", "Green", "Red", "NIR"), [3, 2, 1]),
        (("red", "green", None, "blue"), [1, 2, 4]),
        ((None, None, None, None), [1, 2, 3]),
        (("red", "nir"), [1, 1, 1]),
    ],
)
def test_colour_bands(names, bands):
    assert colour_bands(names) == bands


def test_a_broken_product_is_one_sentence_and_keeps_the_old_picture(tmp_path):
    (tmp_path / "out.tif").write_bytes(b"no image")
    (tmp_path / "out.png").write_bytes(b"the old one")
    with pytest.raises(OutputError, match=r"out\.png cannot be made from .*out\.tif"):
        write_quicklook(tmp_path / "out.tif", tmp_path / "out.png")
    assert (tmp_path / "out.png").read_bytes() == b"the old one"
    assert sorted(os.listdir(tmp_path)) == ["out.png", "out.tif"]
