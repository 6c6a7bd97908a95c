"""How much of its files GDAL keeps decoded: a block that several tiles read should be decoded once.

Tiles go row by row. What the next tile or the next row reads again must still be there: a few blocks of a file in
tiles, of one in strips all that a row of tiles touches.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext

import rasterio

from pansharpen_cli.inputs.canvas import SceneCanvas
from pansharpen_cli.inputs.raster import Raster

WRITTEN = 48 * 2**20
"""Bytes for blocks of a product that are on their way to its file."""
LEAST = 100 * 2**20
"""Bytes that are kept at least: what a wide scene of 16 bits needs, so that memory is the same for all sizes."""
MOST = 512 * 2**20
"""Bytes that are kept at most: of scenes some hundred thousand pixels wide some blocks are decoded again."""


def of_tiles(canvas: SceneCanvas, tile: int, halo: int, limit: int | None = None) -> int:
    """Bytes to keep while tiles of `tile` PAN pixels with a `halo` are read in turn; at most an eighth of a `limit`."""
    needed = canvas.bytes_of_blocks(tile + 2 * halo, min(canvas.abreast, canvas.cols.size) + 2 * halo)
    return min(max(WRITTEN + needed, LEAST), limit // 8 if limit else MOST, MOST)


def of_rows(canvas: SceneCanvas, product: Raster, height: int) -> int:
    """Bytes to keep while a product and its scene are read in windows of `height` PAN pixels, one beside the other."""
    width = canvas.cols.size
    return min(canvas.bytes_of_blocks(height, width) + product.bytes_of_blocks(height, width), MOST)


def keeping(nbytes: int) -> AbstractContextManager[object]:
    """A context in which GDAL keeps up to `nbytes`, in whatever thread, unless the environment says how much. Its own
    default, a twentieth of the machine's memory, is no bound to plan with."""
    return nullcontext() if "GDAL_CACHEMAX" in os.environ else rasterio.Env(GDAL_CACHEMAX=nbytes)
