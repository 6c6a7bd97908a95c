"""The style of a product: what it says, and that a real QGIS shows by it what the quicklook shows."""

import shutil
import subprocess
from xml.etree import ElementTree

import numpy as np
import pytest
import rasterio
from test_quicklook import product

from pansharpen_cli.errors import OutputError
from pansharpen_cli.outputs.qgis import write_style
from pansharpen_cli.outputs.quicklook import write_quicklook

PYTHON = "/usr/bin/python3"
"""The system's, which a package of QGIS serves."""
HAS_QGIS = shutil.which("qgis_process") is not None

SHOW = """
import os, sys
os.environ["QT_QPA_PLATFORM"] = "offscreen"
from qgis.core import QgsApplication, QgsMapRendererParallelJob, QgsMapSettings, QgsRasterLayer
from qgis.PyQt.QtCore import QSize
application = QgsApplication([], False)
application.initQgis()
layer = QgsRasterLayer(sys.argv[1], "product")
settings = QgsMapSettings()
settings.setLayers([layer])
settings.setDestinationCrs(layer.crs())
settings.setExtent(layer.extent())
settings.setOutputSize(QSize(layer.width(), layer.height()))
settings.setBackgroundColor(settings.backgroundColor().fromRgb(0, 0, 0))
job = QgsMapRendererParallelJob(settings)
job.start()
job.waitForFinished()
job.renderedImage().save(sys.argv[2])
"""


@pytest.fixture
def scene(tmp_path):
    """A product of blue, green, red and nir, with a gap."""
    right, down = np.meshgrid(np.arange(800), np.arange(600))
    noise = np.random.default_rng(0).integers(0, 2000, (600, 800))
    hrms = (100 + np.stack([right, down, 800 - right, noise])).astype("uint16")
    valid = np.ones((600, 800), bool)
    valid[200:400, 200:400] = False
    product(tmp_path / "out.tif", hrms, valid, ("blue", "green", "red", "nir"))
    return tmp_path / "out.tif"


def test_natural_colours_by_name(scene):
    write_style(scene)
    root = ElementTree.parse(scene.with_suffix(".qml")).getroot()
    renderer = root.find("pipe/rasterrenderer")
    assert renderer.get("type") == "multibandcolor"
    assert [renderer.get(f"{colour}Band") for colour in ("red", "green", "blue")] == ["3", "2", "1"]
    with rasterio.open(scene) as file:
        bands = file.read(masked=True)
    for colour, band in zip(("red", "green", "blue"), bands[2::-1], strict=True):
        ends = [float(renderer.find(f"{colour}ContrastEnhancement/{end}Value").text) for end in ("min", "max")]
        assert np.allclose(ends, np.percentile(band.compressed(), (2, 98)), atol=1)


def test_one_band_is_grey(tmp_path):
    hrms = np.random.default_rng(0).normal(size=(1, 600, 800)).astype("float32")
    product(tmp_path / "out.tif", hrms, np.ones((600, 800), bool), ("pan",), np.nan)
    write_style(tmp_path / "out.tif")
    renderer = ElementTree.parse(tmp_path / "out.qml").getroot().find("pipe/rasterrenderer")
    assert (renderer.get("type"), renderer.get("grayBand")) == ("singlebandgray", "1")


def test_a_product_that_cannot_be_read_gets_none(tmp_path):
    with pytest.raises(OutputError, match=r"out\.qml"):
        write_style(tmp_path / "out.tif")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not HAS_QGIS, reason="needs QGIS")
def test_a_real_qgis_shows_what_the_quicklook_shows(scene):
    write_style(scene)
    write_quicklook(scene, scene.with_name("quicklook.png"))
    shown = scene.with_name("qgis.png")
    done = subprocess.run([PYTHON, "-c", SHOW, scene, shown], capture_output=True, text=True, timeout=120, check=False)
    assert shown.exists(), done.stderr
    with rasterio.open(shown) as ours, rasterio.open(scene.with_name("quicklook.png")) as quicklook:
        theirs, expected = ours.read().astype(int), quicklook.read().astype(int)
    valid = expected[3] > 0
    assert not theirs[:3, ~valid].any()
    assert np.abs(theirs[:3] - expected[:3])[:, valid].max() <= 2
