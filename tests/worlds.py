"""Small worlds whose truth is known: one function of ground (x, y), sampled at both GSDs, as GeoTIFFs."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyproj
import rasterio
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import ColorInterp

UTM = "EPSG:32630"
CORNER = 444_000.0, 4_489_000.0


def ground(x: NDArray[Any], y: NDArray[Any], bands: int, period: float) -> NDArray[np.float64]:
    """DN of every band at ground (x, y), each (...): smooth, nothing shorter than `period`, never 0. (bands, ...)"""
    u, v = (2 * np.pi * (c - o) / period for c, o in zip((x, y), CORNER, strict=True))
    waves = (np.sin(u + 0.3), np.cos(v - 0.2), np.sin(0.6 * u + 0.5 * v), np.cos(0.4 * u - 0.7 * v))
    return np.stack([1000 + 100 * b + 200 * waves[b % 4] + 100 * waves[(b + 1) % 4] for b in range(bands)])


@dataclass(frozen=True)
class Sheet:
    """A pixel grid on the ground, and what one file of a world is made of.

    `corner` (x, y) of pixel (0, 0), `gsd` (x, y) with their signs, `size` (rows, columns).
    """

    corner: tuple[float, float]
    gsd: tuple[float, float]
    size: tuple[int, int]
    crs: str | None = UTM

    @property
    def transform(self) -> Affine:
        return Affine(self.gsd[0], 0, self.corner[0], 0, self.gsd[1], self.corner[1])

    def centres(self, moved: tuple[float, float] = (0, 0)) -> tuple[NDArray[Any], NDArray[Any]]:
        """Ground x and y (rows, columns) of the pixel centres `moved` by so many pixels right and down."""
        col, row = np.arange(self.size[1]) + 0.5 + moved[0], np.arange(self.size[0]) + 0.5 + moved[1]
        x, y = self.corner[0] + self.gsd[0] * col, self.corner[1] + self.gsd[1] * row
        return np.meshgrid(x, y)


@dataclass(frozen=True)
class World:
    """A PAN and an MS of one ground. The `ms` corner lies `offset` (x, y) PAN pixels from the PAN's, right and down.

    `lie`: the PAN really shows the ground that lies (dx, dy) PAN pixels on from where its file says.
    `ms_crs`: the MS has a CRS of its own; its corner and GSD are then in that.
    """

    ratio: float = 4
    pan_size: tuple[int, int] = (96, 128)
    ms_size: tuple[int, int] = (24, 32)
    offset: tuple[float, float] = (0, 0)
    gsd: tuple[float, float] = (2.0, -2.0)
    ms_gsd: tuple[float, float] | None = None
    lie: tuple[float, float] = (0, 0)
    crs: str | None = UTM
    ms_crs: str | None = None
    ms_corner: tuple[float, float] | None = None
    bands: int = 3
    waves: float = 40  # MS pixels
    dtype: str = "float32"
    nodata: float | None = None
    names: Sequence[str] = field(default=("blue", "green", "red", "nir"))

    @property
    def pan_sheet(self) -> Sheet:
        return Sheet(CORNER, self.gsd, self.pan_size, self.crs)

    @property
    def ms_sheet(self) -> Sheet:
        gsd = self.ms_gsd or (self.gsd[0] * self.ratio, self.gsd[1] * self.ratio)
        corner = self.ms_corner or tuple(c + o * g for c, o, g in zip(CORNER, self.offset, self.gsd, strict=True))
        return Sheet(corner, gsd, self.ms_size, self.ms_crs or self.crs)

    def at(self, x: NDArray[Any], y: NDArray[Any]) -> NDArray[np.float64]:
        """The MS bands at ground (x, y) of the PAN's CRS."""
        return ground(x, y, self.bands, self.waves * self.ratio * abs(self.gsd[0]))

    def pan_image(self) -> NDArray[np.float64]:
        """(1, H, W)"""
        return self.at(*self.pan_sheet.centres(self.lie)).mean(axis=0, keepdims=True) + 17

    def ms_image(self) -> NDArray[np.float64]:
        """(bands, h, w)"""
        x, y = self.ms_sheet.centres()
        if self.ms_crs:
            x, y = pyproj.Transformer.from_crs(self.ms_crs, self.crs, always_xy=True).transform(x, y)
        return self.at(x, y)

    def write(
        self,
        folder: Path,
        pan: NDArray[Any] | None = None,
        ms: NDArray[Any] | None = None,
        name: str = "",
    ) -> tuple[Path, Path]:
        """Both files; `pan` and `ms` replace the images."""
        pan, ms = (self.pan_image() if pan is None else pan), (self.ms_image() if ms is None else ms)
        paths = folder / f"{name}pan.tif", folder / f"{name}ms.tif"
        common = {"dtype": self.dtype, "nodata": self.nodata}
        save(paths[0], pan, self.pan_sheet, **common)
        save(paths[1], ms, self.ms_sheet, names=self.names[: len(ms)], **common)
        return paths


def save(
    path: Path,
    image: NDArray[Any],
    sheet: Sheet | None = None,
    *,
    dtype: str = "float32",
    nodata: float | None = None,
    names: Sequence[str] = (),
    mask: NDArray[np.bool_] | None = None,
    alpha: bool = False,
    **profile: Any,
) -> Path:
    """Write `image` (bands, h, w); without a `sheet` it is not georeferenced.

    `mask` (h, w) becomes an internal mask; `alpha` says that the last band is one.
    """
    if np.issubdtype(np.dtype(dtype), np.integer):
        image = np.rint(image)
    if sheet is not None:
        profile |= {"transform": sheet.transform, "crs": sheet.crs and CRS.from_string(sheet.crs)}
    count, height, width = image.shape
    with (
        rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True),
        rasterio.open(
            path, "w", driver="GTiff", count=count, height=height, width=width, dtype=dtype, nodata=nodata, **profile
        ) as file,
    ):
        if alpha:
            file.colorinterp = [*file.colorinterp[:-1], ColorInterp.alpha]
        file.write(image.astype(dtype))
        for index, name in enumerate(names, 1):
            file.set_band_description(index, name)
        if mask is not None:
            file.write_mask(mask)
    return path


@contextmanager
def hidden(path: Path, tmp_path: Path) -> Iterator[None]:
    """While a file or folder below `tmp_path` may not be read, by one who is not root: root may read anything."""
    for above in (tmp_path, *list(tmp_path.parents)[:2]):
        above.chmod(0o755)
    user, mode = os.geteuid(), path.stat().st_mode
    path.chmod(0)
    try:
        os.seteuid(user or 65534)
        yield
    finally:
        os.seteuid(user)
        path.chmod(mode)
