"""The only writer of products. A product appears under its name only when it is complete and was read back.

Pixels go to a temporary file in the target's folder, every one of them is read back and compared, and only then the
file is renamed.
"""

from __future__ import annotations

import logging
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import product
from logging.handlers import BufferingHandler
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import rasterio
from affine import Affine
from rasterio._err import CPLE_BaseError
from rasterio.errors import RasterioError

from pansharpen_cli.errors import OutputError, UsageError
from pansharpen_cli.imaging.geogrid import GeoGrid
from pansharpen_cli.imaging.radiometry import holds
from pansharpen_cli.outputs.draft import Draft
from pansharpen_cli.outputs.layout import Format, Layout, Mask, Pixels
from pansharpen_cli.outputs.readback import Core, UnsoundError, checksum, gap, read_back
from pansharpen_cli.outputs.statistics import BandStatistics
from pansharpen_cli.outputs.target import check_room, check_still_room, check_target, publish, sync
from pansharpen_cli.system.concurrency import Threads
from pansharpen_cli.system.settings import DTYPES

_REHEARSED = 300  # pixels: just enough to have an overview
_USUAL = sorted(DTYPES, key=lambda kind: kind != "uint16")
"""Data types, that of most scenes first."""
_COUNTS = 4, 3, 1
"""Bands of a product, as far as creation options care how many there are."""


class ProductWriter:
    """Writes one product, core by core, from any one thread at a time.

        with ProductWriter(path, grid, bands, "uint16", 0) as writer:
            writer.write(rows, cols, hrms, valid)  # every pixel once
            writer.finish(tags)

    All that can be known beforehand is checked in the constructor, which writes, copies and reads back a small product
    of the same layout. Left without `finish`, by an exception or Ctrl-C, nothing remains.
    """

    def __init__(
        self,
        path: Path,
        grid: GeoGrid,
        bands: Sequence[str],
        dtype: str,
        nodata: float | None,
        *,
        format: Format = "gtiff",
        creation_options: Mapping[str, str] | None = None,
        overwrite: bool = False,
        mask: bool = False,
        threads: int = 1,
        scaling: Sequence[tuple[float, float]] = (),
    ) -> None:
        """`bands`: their descriptions, in order; `scaling`: (scale, offset) of each, kept for readers. `nodata` marks
        invalid pixels; without it, `mask` asks for an internal mask, and without either they are 0. Raises OutputError.
        """
        options = {key.upper(): value for key, value in (creation_options or {}).items()}
        mask = mask and nodata is None
        self._path = path
        self._overwrite = overwrite
        scaling = tuple(scaling) if any(pair != (1, 0) for pair in scaling) else ()
        self._layout = Layout(grid, tuple(bands), np.dtype(dtype), nodata, mask, format, threads, options, scaling)
        self._cores: list[Core] = []
        self._statistics = [BandStatistics() for _ in bands]
        check_target(path, overwrite)
        _check_nodata(path, self._layout)
        check_room(path, self._layout)
        _rehearse(path, self._layout, str(path))

    @property
    def dtype(self) -> np.dtype[Any]:
        """What `write` wants."""
        return self._layout.dtype

    @property
    def nodata(self) -> float | None:
        """What invalid pixels hold; None if there is no such value."""
        return self._layout.nodata

    @property
    def written(self) -> set[tuple[int, int]]:
        """First row and column of every core so far."""
        return {(core.rows.start, core.cols.start) for core in self._cores}

    @property
    def statistics(self) -> tuple[BandStatistics, ...]:
        """Of what was written so far, per band."""
        return tuple(self._statistics)

    def __enter__(self) -> Self:
        self._life = ExitStack()
        with _gdal(f"{self._path} cannot be created"):
            self._draft = self._life.enter_context(Draft(self._path, self._layout))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._life.close()

    def write(self, rows: slice, cols: slice, hrms: Pixels, valid: Mask) -> None:
        """Write one core: `hrms` (bands, h, w) in the product's dtype, `valid` (h, w). Raises OutputError."""
        layout = self._layout
        shape = (rows.stop - rows.start, cols.stop - cols.start)
        if hrms.shape != (len(layout.bands), *shape) or valid.shape != shape or hrms.dtype != layout.dtype:
            raise ValueError(f"{hrms.dtype} {hrms.shape} and {valid.shape} do not fit {layout.dtype} {shape}")
        check_still_room(self._path, hrms.nbytes)
        everywhere = bool(valid.all())
        pixels = hrms if everywhere else np.where(valid, hrms, layout.fill)
        self._check_bits(pixels)
        for index, band in enumerate(hrms):
            values = band.ravel() if everywhere else band[valid]
            self._statistics[index] = self._statistics[index].merge(BandStatistics.of(values))
        with _gdal(f"{self._path} cannot be written"):
            self._draft.write(rows, cols, pixels, valid)
        self._cores.append(Core(rows, cols, checksum(pixels, valid if layout.mask else None)))

    def _check_bits(self, pixels: Pixels) -> None:
        """Raises OutputError for what GDAL would clip without a word: what fits shows only now."""
        bits = self._layout.options.get("NBITS", "")
        if pixels.dtype.kind == "u" and bits.isdecimal() and (most := int(pixels.max())) >= 2 ** int(bits):
            raise OutputError(
                f"{self._path} holds {most}, which NBITS={bits} does not: up to {2 ** int(bits) - 1}; leave it out, or "
                "give more"
            )

    def finish(self, tags: Mapping[str, str]) -> Path:
        """Complete, validate and publish the product, with `tags` in the namespace TAGS. Raises OutputError."""
        grid = self._layout.grid
        missing = gap(self._cores, grid.height, grid.width)
        if missing is not None:
            raise OutputError(f"{self._path} is not complete: {missing}")
        tags = {name: text for name, text in tags.items() if text}  # GDAL keeps no empty ones
        with _gdal(f"{self._path} cannot be completed; its disk may be full or failing"):
            draft = self._draft.finish(tags, self._statistics)
            with Threads(1, "sync") as beside:  # the disk and the cores work at the same time
                on_disk = beside.submit(sync, draft)
                read_back(draft, self._layout, self._cores, tags, self._statistics)
                beside.result(on_disk)
            check_target(self._path, self._overwrite)
            publish(draft, self._path)
        return self._path


def check_options(format: Format, options: Mapping[str, str], dtype: str | None = None) -> None:
    """Raises UsageError for creation options with which no product can be written, be it of this `dtype` (None: of any)
    and of as many bands as it likes: what can only be known of a scene, its writer tells."""
    options = {key.upper(): value for key, value in options.items()}
    grid, faults = GeoGrid(_REHEARSED, _REHEARSED, Affine.identity()), []
    with tempfile.TemporaryDirectory() as folder:
        for kind, bands in product([dtype] if dtype else _USUAL, _COUNTS):
            layout = Layout(grid, ("",) * bands, np.dtype(kind), None, False, format, 1, options)
            try:
                return _rehearse(Path(folder) / "product.tif", layout, "products")
            except OutputError as error:
                faults.append(str(error))
    raise UsageError(faults[0])


def _check_nodata(path: Path, layout: Layout) -> None:
    nodata, dtype = layout.nodata, layout.dtype
    if nodata is not None and not holds(dtype, nodata):
        info = np.iinfo(dtype)
        raise OutputError(
            f"{path} cannot have nodata {nodata:g} in {dtype}; "
            f"give a whole number from {info.min} to {info.max}, or none"
        )


def _rehearse(path: Path, layout: Layout, called: str) -> None:
    """Write, copy and read back a small product of this layout, which is `called` so: what the driver, a codec or the
    folder cannot do shows now and not at the end. Lossy codecs fail too: a product holds what was computed."""
    height, width = min(layout.grid.height, _REHEARSED), min(layout.grid.width, _REHEARSED)
    small = replace(layout, grid=replace(layout.grid, height=height, width=width))
    random = np.random.default_rng(0).random((len(layout.bands), height, width))
    pixels = (random if layout.dtype.kind == "f" else np.rint(random)).astype(layout.dtype)  # 0 and 1 fit any NBITS
    rows, cols, valid = slice(0, height), slice(0, width), np.ones((height, width), bool)
    core = Core(rows, cols, checksum(pixels, valid if layout.mask else None))
    asked = " ".join(f"{key}={value}" for key, value in layout.options.items())
    failure = f"{called} cannot be written as {layout.dtype} {layout.format}" + (f" with {asked}" if asked else "")
    with _gdal(failure), _gdal_warnings() as warnings, Draft(path, small) as draft:
        draft.write(rows, cols, pixels, valid)
        tags, statistics = {"rehearsal": "yes"}, [BandStatistics.of(band.ravel()) for band in pixels]
        read_back(draft.finish(tags, statistics), small, [core], tags, statistics)
        if draft.beside:
            more = ", ".join(sorted(path.name.removeprefix(path.stem) for path in draft.beside))
            raise UnsoundError(f"a product is one file, and this would write a {more} beside it")
    for warning in warnings:
        if any(key in warning for key in layout.options):
            raise OutputError(f"{failure}: {_plain(warning)}")


@contextmanager
def _gdal(failure: str) -> Iterator[None]:
    """GDAL's environment, in whatever thread; what it, rasterio or the system raises becomes an OutputError that starts
    with `failure`."""
    try:
        with rasterio.Env(GDAL_PAM_ENABLED=False):  # all in one file
            yield
    except (UnsoundError, RasterioError, CPLE_BaseError, OSError, ValueError) as error:
        reason = error.__cause__ or error  # rasterio says "see previous exception"
        raise OutputError(f"{failure}: {_plain(getattr(reason, 'errmsg', str(reason)))}") from error


def _plain(message: str) -> str:
    """GDAL's message without error classes and temporary names."""
    return re.sub(r"^(CPLE_\w+ in |\S+\.partial: ?)+", "", message)


@contextmanager
def _gdal_warnings() -> Iterator[list[str]]:
    """Collect what GDAL only warns of, such as creation options it does not know."""
    logger = logging.getLogger("rasterio._env")
    handler = BufferingHandler(1000)
    level, propagate = logger.level, logger.propagate
    messages: list[str] = []
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING)
    logger.propagate = False
    try:
        yield messages
    finally:
        messages += [record.getMessage() for record in handler.buffer]
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
