"""A small picture of a product: PNG, in natural colours where it has them, transparent where it has no data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import rasterio
from rasterio._err import CPLE_BaseError
from rasterio.enums import Resampling
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from pansharpen_cli.errors import OutputError
from pansharpen_cli.outputs.target import partial_beside, publish

STRETCH = (2, 98)
"""Percentiles of a band's valid pixels that become black and white."""

Bytes = npt.NDArray[np.uint8]


def write_quicklook(product: Path, target: Path, size: int = 1024) -> None:
    """Write `target` (PNG, RGBA, 8 bits), at most `size` pixels on its longer side, read from the overviews.

    Raises OutputError if the product cannot be read or the picture not be written.
    """
    write_made(target, product, lambda: _png(picture(product, size)))


def write_made(target: Path, product: Path, make: Callable[[], bytes]) -> None:
    """Write what `make` makes of `product` to `target`, whole or not at all. Raises OutputError."""
    partial = partial_beside(target)
    try:
        partial.write_bytes(make())
        publish(partial, target)
    except (RasterioError, CPLE_BaseError, OSError) as error:
        raise OutputError(f"{target} cannot be made from {product}: {error}") from error
    finally:
        with suppress(OSError):  # it is not there, or its disk fails
            partial.unlink()


def picture(product: Path, size: int) -> Bytes:
    """(4, h, w): red, green, blue and alpha of a product, at most `size` pixels on its longer side."""
    bands, valid = _read(product, size)
    shown = [_display(band, valid, *limits) for band, limits in zip(bands, _limits(bands, valid), strict=True)]
    return np.stack([*shown, np.where(valid, 255, 0).astype(np.uint8)])


def stretch(product: Path, size: int = 1024) -> list[tuple[int, float, float]]:
    """The same as numbers: band, from 1, and its values that become black and white, for red, green and blue."""
    with rasterio.open(product) as dataset:
        numbers = colour_bands(dataset.descriptions)
    limits = _limits(*_read(product, size))
    return [(number, dark, bright) for number, (dark, bright) in zip(numbers, limits, strict=True)]


def colour_bands(names: Sequence[str | None]) -> list[int]:
    """Band numbers, from 1, to show as red, green and blue: by name, else the first three; one band alone is grey."""
    plain = [(name or "").strip().lower() for name in names]
    if {"red", "green", "blue"} <= set(plain):
        return [plain.index(colour) + 1 for colour in ("red", "green", "blue")]
    return [1, 2, 3] if len(plain) >= 3 else [1, 1, 1]


def _read(product: Path, size: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Three bands (3, h, w) and where they are valid (h, w)."""
    with rasterio.open(product) as dataset:
        shrink = max(1.0, max(dataset.shape) / size)
        shape = tuple(max(1, round(side / shrink)) for side in dataset.shape)
        bands = dataset.read(
            colour_bands(dataset.descriptions), out_shape=shape, resampling=Resampling.average, masked=True
        )
    return bands.data, np.asarray(~np.ma.getmaskarray(bands).any(axis=0))


def _limits(bands: npt.NDArray[Any], valid: npt.NDArray[np.bool_]) -> list[tuple[float, float]]:
    """What becomes black and white in each band (h, w)."""
    if not valid.any():
        return [(0.0, 1.0)] * len(bands)
    ends = np.percentile(bands[:, valid].astype(np.float64), STRETCH, axis=1).T
    return [(float(dark), float(bright)) for dark, bright in ends]


def _display(band: npt.NDArray[Any], valid: npt.NDArray[np.bool_], dark: float, bright: float) -> Bytes:
    """A band (h, w) stretched to 0 ... 255."""
    scaled = (band.astype(np.float64) - dark) / (bright - dark or 1)
    return np.where(valid, np.rint(255 * np.clip(scaled, 0, 1)), 0).astype(np.uint8)


def _png(rgba: Bytes) -> bytes:
    """(4, h, w) as a PNG file."""
    with MemoryFile() as memory:
        with memory.open(driver="PNG", height=rgba.shape[1], width=rgba.shape[2], count=4, dtype="uint8") as picture:
            picture.write(rgba)
        return bytes(memory.read())
