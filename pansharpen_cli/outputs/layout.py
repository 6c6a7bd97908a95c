"""All of a product but its pixels: grid, bands, type, and the creation options that follow from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from rasterio.enums import ColorInterp

from pansharpen_cli.imaging.geogrid import GeoGrid

Format = Literal["gtiff", "cog"]
Pixels = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

BLOCK = 512
"""Side of a TIFF block, in pixels. Cores on multiples of it are compressed once."""

TAGS = "PANSHARPEN"
"""Namespace of the tags that say how a product was made."""

_PREDICTED = {"DEFLATE", "LZW", "ZSTD"}
_COLOURS = {"red": ColorInterp.red, "green": ColorInterp.green, "blue": ColorInterp.blue}


@dataclass(frozen=True)
class Layout:
    """All of a product but its pixels. `options` are the user's creation options; `mask`: invalid pixels are marked by
    an internal mask."""

    grid: GeoGrid
    bands: tuple[str, ...]
    dtype: np.dtype[Any]
    nodata: float | None
    mask: bool
    format: Format
    threads: int
    options: Mapping[str, str]
    scaling: tuple[tuple[float, float], ...] = ()
    """(scale, offset) of each band, if its DN are not what was measured."""

    @property
    def pixels(self) -> int:
        return self.grid.height * self.grid.width

    @property
    def nbytes(self) -> int:
        """Size of all bands, uncompressed."""
        return self.pixels * len(self.bands) * self.dtype.itemsize

    @property
    def fill(self) -> Any:
        """What invalid pixels hold."""
        return self.dtype.type(0 if self.nodata is None else self.nodata)

    @property
    def factors(self) -> list[int]:
        """Decimation of each overview; the last one fits into 256 pixels. None if the user says so."""
        if self._overviews == "NONE":
            return []
        size = max(self.grid.height, self.grid.width)
        count = max(0, (size - 1) // 256).bit_length()
        if self.format == "cog" and self.options.get("OVERVIEW_COUNT", "").isdecimal():
            count = int(self.options["OVERVIEW_COUNT"])
        return [2**level for level in range(1, count + 1)]

    @property
    def resampling(self) -> str:
        """How overviews are made, in GDAL's words."""
        asked = self.options if self.format == "cog" else {}
        return asked.get("OVERVIEW_RESAMPLING", asked.get("RESAMPLING", "AVERAGE")).upper()

    @property
    def _overviews(self) -> str:
        """A creation option of COGs, which is understood for any file here."""
        return self.options.get("OVERVIEWS", "AUTO").upper()

    def overview(self, level: int) -> tuple[int, int]:
        """Rows and columns of an overview, the first of which is level 0."""
        factor = self.factors[level]
        return -(-self.grid.height // factor), -(-self.grid.width // factor)

    @property
    def colours(self) -> list[ColorInterp]:
        return [_COLOURS.get(name.strip().lower(), ColorInterp.undefined) for name in self.bands]

    def gtiff_options(self) -> dict[str, str]:
        """Creation options of the tiled file; a COG is copied from it, with the user's options then.

        Pixel-interleaved: who displays colours, computes an index or classifies reads several bands of one place, and
        one block then is one read. A single band out of eight costs eight; that is the rarer use.
        """
        user = dict(self.options) if self.format == "gtiff" else {}
        if self._overviews in {"AUTO", "NONE"}:
            user.pop("OVERVIEWS", None)
        codec = user.get("COMPRESS", "DEFLATE").upper()  # every reader has DEFLATE
        rgb = self.colours[:3] == list(_COLOURS.values())
        options = {
            "TILED": "YES",
            "BLOCKXSIZE": str(min(BLOCK, -(-self.grid.width // 16) * 16)),
            "BLOCKYSIZE": str(min(BLOCK, -(-self.grid.height // 16) * 16)),
            "INTERLEAVE": "PIXEL",
            "PHOTOMETRIC": "RGB" if rgb else "MINISBLACK",  # GDAL would call a fourth band alpha
            "BIGTIFF": "IF_SAFER",
            "NUM_THREADS": str(self.threads),
            "COMPRESS": codec,
        }
        if codec in _PREDICTED and "NBITS" not in user:
            options["PREDICTOR"] = "3" if self.dtype.kind == "f" else "2"
        if codec == "DEFLATE":
            options["ZLEVEL"] = "1"  # the higher ones gain nothing on the noise of real images
        return options | user

    def cog_options(self) -> dict[str, str]:
        """Creation options of GDAL's COG driver."""
        codec = self.options.get("COMPRESS", "DEFLATE").upper()
        options = {
            "BLOCKSIZE": str(BLOCK),
            "BIGTIFF": "IF_SAFER",
            "NUM_THREADS": str(self.threads),
            "OVERVIEW_RESAMPLING": self.resampling,
            "COPY_SRC_MDD": "YES",  # else our tags stay behind
            "COMPRESS": codec,
        }
        if codec in _PREDICTED and "NBITS" not in self.options:
            options["PREDICTOR"] = "YES"
        if codec == "DEFLATE":
            options["LEVEL"] = "1"
        return options | dict(self.options)
