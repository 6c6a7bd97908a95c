"""A block of a file that several tiles read is decoded once, however wide the scene and however it is stored."""

from pathlib import Path

import numpy as np
import pytest
import rasterio
from worlds import World, save

from pansharpen_cli.imaging.tiling import Reach
from pansharpen_cli.inputs import blocks
from pansharpen_cli.inputs.canvas import ABREAST, SceneCanvas
from pansharpen_cli.inputs.scene import Scene

TILE, HALO = 1024, 20
SHAPE = (2048, ABREAST + 4096)
STORED = {"tiles": {"tiled": True, "blockxsize": 512, "blockysize": 512}, "strips": {"blockysize": 1}}


@pytest.fixture(params=STORED)
def scene(request: pytest.FixtureRequest, tmp_path: Path):
    """Of noise, which does not compress: how it is stored, and the open scene."""
    world = World(pan_size=SHAPE, ms_size=(SHAPE[0] // 4, SHAPE[1] // 4), bands=1)
    noise = np.random.default_rng(0).integers(1, 255, (1, *SHAPE), np.uint8)
    profile = {"dtype": "uint8", "compress": "deflate", "zlevel": 1, **STORED[request.param]}
    pan = save(tmp_path / "pan.tif", noise, world.pan_sheet, **profile)
    ms = save(tmp_path / "ms.tif", noise[:, ::4, ::4], world.ms_sheet, **profile)
    with Scene.open(pan, ms) as opened:
        yield request.param, opened


def bytes_read() -> int:
    """By this process so far, from any file."""
    (line,) = (line for line in Path("/proc/self/io").read_text().splitlines() if line.startswith("rchar"))
    return int(line.split()[1])


def read_through(canvas: SceneCanvas, cache: int) -> float:
    """Read all tiles with so large a cache; how often the PAN's bytes were read then."""
    with blocks.keeping(cache):
        before = bytes_read()
        for tile in canvas.tiles(TILE, Reach(HALO)):
            canvas.read(tile)
        return (bytes_read() - before) / (SHAPE[0] * SHAPE[1])


def test_tiles_find_what_others_read(scene):
    stored, opened = scene
    canvas = SceneCanvas.of(opened)
    times = read_through(canvas, blocks.of_tiles(canvas, TILE, HALO))
    assert times < 1.25  # the MS is a sixteenth
    if stored == "strips":
        assert read_through(canvas, 8 * 2**20) > 5  # without room


def test_how_tiles_follow_each_other(scene):
    stored, opened = scene
    canvas = SceneCanvas.of(opened)
    order = [(tile.rows.start // TILE, tile.cols.start // TILE) for tile in canvas.tiles(TILE, Reach(HALO))]
    row_by_row = [(row, col) for row in range(2) for col in range(12)]
    assert sorted(order) == row_by_row
    in_columns = [(row, col) for columns in (range(8), range(8, 12)) for row in range(2) for col in columns]
    assert order == (row_by_row if stored == "strips" else in_columns)


def test_what_is_kept_is_bounded(scene):
    _, opened = scene
    canvas = SceneCanvas.of(opened)
    assert blocks.of_tiles(canvas, TILE, HALO, limit=2**28) <= 2**25
    assert blocks.of_tiles(canvas, 10**6, HALO) <= blocks.MOST


def test_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch):
    with blocks.keeping(2**24):
        assert rasterio.env.getenv()["GDAL_CACHEMAX"] == 2**24
    monkeypatch.setenv("GDAL_CACHEMAX", "100MB")
    with rasterio.Env(), blocks.keeping(2**24):
        assert "GDAL_CACHEMAX" not in rasterio.env.getenv()
