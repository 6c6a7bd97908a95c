"""A product on its way: a file under a temporary name, of the layout that was asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from datetime import UTC, datetime
from mmap import mmap
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import rasterio
import rasterio.shutil
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.rpc import RPC
from rasterio.windows import Window

from pansharpen_cli import __version__
from pansharpen_cli.outputs.layout import TAGS, Layout, Mask, Pixels
from pansharpen_cli.outputs.readback import UnsoundError
from pansharpen_cli.outputs.statistics import BandStatistics
from pansharpen_cli.outputs.target import partial_beside

_MADE_BY = ("nearest", "average", "bilinear", "cubic", "cubic_spline", "lanczos", "mode", "rms")
RESAMPLINGS = {name.replace("_", "").upper(): Resampling[name] for name in _MADE_BY}
"""Of overviews, by GDAL's words for them."""


class Draft:
    """The product under a temporary name. Leaving the context removes what is left of it."""

    def __init__(self, target: Path, layout: Layout) -> None:
        self._layout = layout
        self._tiled = partial_beside(target)
        self._cog = partial_beside(target)

    def __enter__(self) -> Self:
        with ExitStack() as life:
            life.callback(self._remove)
            self._dataset = life.enter_context(self._create())
            self._life = life.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(RasterioError, CPLE_BaseError):  # an unfinished file may fail to close as it likes
            self._life.close()

    def _create(self) -> Any:
        layout, grid = self._layout, self._layout.grid
        dataset = rasterio.open(
            self._tiled,
            "w",
            driver="GTiff",
            height=grid.height,
            width=grid.width,
            count=len(layout.bands),
            dtype=layout.dtype.name,
            nodata=layout.nodata,
            transform=None if grid.transform == Affine.identity() else grid.transform,
            crs=CRS.from_wkt(grid.crs) if grid.crs else None,
            **layout.gtiff_options(),
        )
        if grid.rpc:
            dataset.rpcs = RPC(**asdict(grid.rpc))
        dataset.colorinterp = layout.colours
        dataset.descriptions = layout.bands
        if layout.scaling:
            dataset.scales, dataset.offsets = zip(*layout.scaling, strict=True)
        if layout.mask:
            # before any pixel: GDAL's compression threads read the header that a new mask changes
            with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
                dataset.write_mask(np.zeros((1, 1), bool), window=Window(0, 0, 1, 1))
        return dataset

    @property
    def beside(self) -> list[Path]:
        """What GDAL wrote beside the file, as some creation options have it do."""
        own = self._tiled, self._cog
        stems = tuple(path.stem for path in own)
        return [path for path in self._tiled.parent.iterdir() if path not in own and path.name.startswith(stems)]

    def _remove(self) -> None:
        for path in (self._tiled, self._cog):
            with suppress(OSError):  # the folder may be gone, or a disk fail
                path.unlink()
        with suppress(OSError):
            for path in self.beside:
                path.unlink()

    def write(self, rows: slice, cols: slice, pixels: Pixels, valid: Mask) -> None:
        window = Window.from_slices(rows, cols)
        self._dataset.write(pixels, window=window)
        if self._layout.mask:
            self._dataset.write_mask(valid, window=window)

    def finish(self, tags: Mapping[str, str], statistics: Sequence[BandStatistics]) -> Path:
        """Tags and overviews; returns the path of the complete file."""
        layout, dataset = self._layout, self._dataset
        if layout.resampling not in RESAMPLINGS:
            raise UnsoundError(f"overviews are made by {', '.join(RESAMPLINGS)}, not {layout.resampling}")
        dataset.update_tags(
            AREA_OR_POINT="Area",
            TIFFTAG_SOFTWARE=f"pansharpen_cli {__version__}",
            TIFFTAG_DATETIME=f"{datetime.now(UTC):%Y:%m:%d %H:%M:%S}",
        )
        dataset.update_tags(ns=TAGS, **tags)
        band_tags = [band.tags(layout.pixels) for band in statistics]
        for index, texts in enumerate(band_tags, start=1):
            dataset.update_tags(index, **texts)
        place = _PlaceForBandTags(band_tags)
        if layout.format == "cog":
            dataset.update_tags(ns=TAGS, **place.tag)
        dataset.close()
        # overviews are for looking: at its default ZSTD would take a third of the product's time for 5 % of its size
        with rasterio.Env(GDAL_NUM_THREADS=layout.threads, ZLEVEL_OVERVIEW=1, ZSTD_LEVEL_OVERVIEW=1):
            if layout.factors:
                # opened anew: a broken file is refused then; in the dataset that broke it GDAL crashes
                with rasterio.open(self._tiled, "r+", driver="GTiff") as tiled:
                    tiled.build_overviews(layout.factors, RESAMPLINGS[layout.resampling])
            if layout.format == "gtiff":
                return self._tiled
            rasterio.shutil.copy(self._tiled, self._cog, driver="COG", **layout.cog_options())
        self._tiled.unlink()
        place.fill(self._cog)
        return self._cog


class _PlaceForBandTags:
    """Brings band tags into a COG. GDAL copies either them or the tags of other namespaces, and tags set later would
    move the header to the end of the file: so a tag in our namespace is copied that takes just as many bytes, and
    theirs are written over it."""

    _NAME = "_place"

    def __init__(self, band_tags: Sequence[Mapping[str, str]]) -> None:
        self._items = "".join(
            f'<Item name="{name}" sample="{sample}">{text}</Item>'
            for sample, tags in enumerate(band_tags)
            for name, text in tags.items()
        )
        self._text = "_" * (len(self._items) - len(self._item("")))

    def _item(self, text: str) -> str:
        return f'<Item name="{self._NAME}" domain="{TAGS}">{text}</Item>'

    @property
    def tag(self) -> dict[str, str]:
        """What to put into our namespace; nothing if there are no band tags."""
        return {self._NAME: self._text} if self._items else {}

    def fill(self, path: Path) -> None:
        if not self._items:
            return
        with path.open("r+b") as file, mmap(file.fileno(), 0) as content:
            place = content.find(self._item(self._text).encode())  # near the start: it is a COG
            if place < 0:
                raise UnsoundError("its band statistics were not copied")
            content[place : place + len(self._items)] = self._items.encode()
