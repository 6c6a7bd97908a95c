"""A scene as a method sees it: PAN pixels over the common extent, an MS grid nested in them at the method's ratio and
phase, shifted by the co-registration, gaps filled and marked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from pansharpen_cli.errors import SceneError
from pansharpen_cli.imaging.displacement import IN_PLACE, Displacement
from pansharpen_cli.imaging.geogrid import ON_GRID, GeoGrid, NestedAxis, Overlap, nest, overlap
from pansharpen_cli.imaging.interpolation import KERNELS, area_phase, grow, sample, sample_at
from pansharpen_cli.imaging.radiometry import Moments
from pansharpen_cli.imaging.tiling import Pixels, Reach, Span, Tile, cut, spread
from pansharpen_cli.inputs.raster import Raster
from pansharpen_cli.inputs.scene import RATIO_TOLERANCE, Scene
from pansharpen_cli.system.concurrency import ahead

Float32 = npt.NDArray[np.float32]
Float64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

ON_BORDER = 1e-6
"""MS pixels by which a PAN pixel's centre may lie beyond the MS and still be on its border."""
ABREAST = 2**13
"""PAN pixels that a row of tiles is wide at most; then comes what lies below it. The next row reads blocks again that
this one read, and those of a whole wide scene are too many to keep."""
GAP_ROUNDS = 8
"""MS pixels by which the surroundings grow into gaps, so that a network sees no cliff at their rim."""


BORDER_ROUNDS = 4
"""A field says how far the borders of the common extent lie off, and the borders what it says there: so often they are
found anew, each time nearer by as much as a field changes little."""


@dataclass(frozen=True, eq=False)
class Canvas(ABC):
    """A scene on nested grids, whatever holds its pixels. Its axes tell what is put out and what only surrounds it."""

    rows: NestedAxis
    cols: NestedAxis

    @property
    def ratio(self) -> int:
        return self.rows.ratio

    def __str__(self) -> str:
        return "PAN and MS"

    @property
    def abreast(self) -> int:
        """PAN pixels that a row of tiles is wide."""
        return self.cols.size

    @abstractmethod
    def raw(self, rows: slice, cols: slice) -> Raw:
        """A window of the canvas as it is, gaps unfilled."""

    def read(self, tile: Tile) -> Pixels:
        """What a tile reads, float32 DN. Gaps are filled from their rim, the same way for any cut of the scene."""
        raw = self.raw(*tile.read)
        if raw.complete:
            return Pixels(tile, raw.pan, raw.ms, raw.valid)
        rows, rows_inside = _widen(tile.rows, self.rows.size, GAP_ROUNDS * self.ratio)
        cols, cols_inside = _widen(tile.cols, self.cols.size, GAP_ROUNDS * self.ratio)
        wide = self.raw(rows, cols)
        mean = self.moments.mean
        pan = grow(wide.pan, wide.pan_valid, GAP_ROUNDS * self.ratio, mean[-1:])
        ms = grow(wide.ms, wide.ms_valid, GAP_ROUNDS, mean[:-1])
        coarse = tuple(slice(s.start // self.ratio, s.stop // self.ratio) for s in (rows_inside, cols_inside))
        inside = (..., rows_inside, cols_inside)
        return Pixels(tile, pan[inside], ms[..., coarse[0], coarse[1]], wide.valid[inside])

    def middle(self, tile: Tile) -> tuple[float, float]:
        """Row and column, in PAN pixels of the PAN file, of the middle of what a tile puts out."""
        row, col = ((span.start + span.stop) / 2 for span in (tile.rows, tile.cols))
        return self.rows.first + row, self.cols.first + col

    def tiles(self, size: int, reach: Reach) -> list[Tile]:
        """The product cut into cores of `size` PAN pixels a side, row by row, if need be in several columns of rows."""
        rows, cols = (cut(axis.start, axis.stop, axis.size, size, reach, self.ratio) for axis in (self.rows, self.cols))
        abreast = max(1, self.abreast // size)
        columns = [cols[first : first + abreast] for first in range(0, len(cols), abreast)]
        return [Tile(row, col) for column in columns for row in rows for col in column]

    def crops(self, size: int, most: int, grain: int = 1) -> Iterator[Pixels]:
        """Square crops of `size` PAN pixels, at most `most` along an axis, spread evenly over the product's extent.

        They are read ahead of who looks at them.
        """
        grain = int(np.lcm(grain, self.ratio))
        size = -(-size // grain) * grain
        # what pads the canvas is left out, but of a canvas smaller than a grain
        ends = (axis.stop // grain * grain or axis.size for axis in (self.rows, self.cols))
        rows, cols = (spread(end, size, most, grain) for end in ends)
        return ahead(self.read(Tile(row, col)) for row in rows for col in cols)

    @cached_property
    def moments(self) -> Moments:
        """The scene's radiometry, from windows spread evenly over it, or if these hold no data, from the first that do.

        Raises SceneError if none does.
        """
        window, most = 128 * self.ratio, 8
        axes = (self.rows, self.cols)
        values = self._data(spread(axis.size, window, most, self.ratio) for axis in axes)
        if not values.size:
            values = self._data((_side_by_side(axis.size, window) for axis in axes), most**2)
        if not values.size:
            raise SceneError(f"{self} share no pixel where both hold data; check their extents and nodata values")
        return Moments(values.mean(axis=1), values.std(axis=1), np.percentile(values, 99.9, axis=1))

    def _data(self, axes: Iterable[Sequence[Span]], most: int | None = None) -> npt.NDArray[np.float64]:
        """MS and PAN (bands + 1, n) at the MS pixels where both hold data, of all windows that `axes` span, or of the
        first `most` that hold any, be it only beside the first PAN pixels of the MS pixels."""
        rows, cols = axes
        samples: list[Float32] = []
        for row, col in product(rows, cols):
            raw = self.raw(row.read, col.read)
            there = raw.both(self.ratio, [(0, 0)])
            if most and not there.size and raw.valid.any():  # as of a PAN of one row
                there = raw.both(self.ratio, list(product(range(self.ratio), range(self.ratio))))
            samples += [there] if there.size else []
            if len(samples) == most:
                break
        return np.concatenate(samples, axis=1, dtype=np.float64) if samples else np.empty((0, 0))


def _side_by_side(size: int, window: int) -> list[Span]:
    stops = (min(start + window, size) for start in range(0, size, window))
    return [Span(start, stop, start, stop) for start, stop in zip(range(0, size, window), stops, strict=True)]


@dataclass(frozen=True, eq=False)
class Raw:
    """A window of the canvas with its gaps."""

    pan: Float32
    ms: Float32
    pan_valid: Mask
    ms_valid: Mask
    valid: Mask

    @property
    def complete(self) -> bool:
        return bool(self.pan_valid.all() and self.ms_valid.all())

    def both(self, ratio: int, places: Sequence[tuple[int, int]]) -> Float32:
        """MS and PAN (bands + 1, n) where both hold data, at these `places` (row, col) in every MS pixel."""
        found = []
        for row, col in places:
            at = (slice(row, None, ratio), slice(col, None, ratio))
            found.append(np.concatenate([self.ms, self.pan[:, *at]])[:, self.ms_valid & self.valid[at]])
        return np.concatenate(found, axis=1)


@dataclass(frozen=True, eq=False)
class SceneCanvas(Canvas):
    """The files of a scene on nested grids: canvas pixel (0, 0) is PAN pixel (rows.first, cols.first)."""

    scene: Scene
    phase: float
    resampling: str
    shift: Displacement = IN_PLACE
    source: SceneCanvas | None = None
    """What its statistics come from, if not from itself: it puts out a part of a scene."""

    @classmethod
    def of(
        cls,
        scene: Scene,
        *,
        ratio: int | None = None,
        phase: float | None = None,
        shift: Displacement = IN_PLACE,
        resampling: str = "sinc",
        reach: Reach | None = None,
    ) -> SceneCanvas:
        """The canvas of `scene` at a `ratio` (default: its own whole one) and a `phase` (default: pixels as areas).

        The PAN really lies off its stated place, seen from the MS, by `shift`: the MS is moved against that, and PAN
        pixels beyond the moved MS are left out. If it does not fall on the nested grid by itself, as at a ratio that is
        not whole, it is interpolated once by `resampling`. Short kernels move detail near the Nyquist
        frequency too little: by 0.35 PAN pixels on a Landsat scene with "cubic", 0.1 with "lanczos", 0.04 with "sinc".
        Raises SceneError if the ratio is not the nearest whole one or the two do not overlap.
        """
        ratio = ratio or scene.ratio
        if abs(scene.exact_ratio - ratio) > max(RATIO_TOLERANCE * ratio, 0.5):
            raise SceneError(
                f"{scene.ms[0].path} has pixels {scene.exact_ratio:.3g} times those of {scene.pan.path}, not {ratio}"
            )
        phase = area_phase(ratio) if phase is None else phase
        axes = []
        for where in _meeting(scene, shift, ratio):
            if where.start >= where.stop:
                raise SceneError(f"{scene.pan.path} and {scene.ms[0].path} do not overlap; check their CRS and extents")
            axes.append(nest(where, ratio, phase, reach.multiple_of if reach else 1))
        return cls(axes[0], axes[1], scene, phase, resampling, shift)

    def __str__(self) -> str:
        return f"{self.scene.pan.path} and {self.scene.ms[0].path}"

    @property
    def observed(self) -> SceneCanvas:
        """What its statistics come from."""
        return self.source or self

    @cached_property
    def moments(self) -> Moments:
        return self.source.moments if self.source else super().moments

    @property
    def interpolated(self) -> bool:
        """True if the MS is resampled, False if its own pixels are used."""
        return self.warped or not (self.rows.as_is and self.cols.as_is)

    @property
    def warped(self) -> bool:
        """True if rows and columns of nested MS samples are not those of the MS file."""
        return self.scene.reprojected or self.shift.field is not None

    @property
    def grid(self) -> GeoGrid:
        """The product's grid: PAN pixels of the common extent, placed as those of the PAN's file."""
        rows, cols = (slice(axis.first + axis.start, axis.first + axis.stop) for axis in (self.rows, self.cols))
        return self.scene.pan.grid.crop(rows, cols)

    @property
    def whole_grid(self) -> GeoGrid:
        """All its PAN pixels, with those that only surround what is put out."""
        rows, cols = (slice(axis.first, axis.first + axis.size) for axis in (self.rows, self.cols))
        return self.scene.pan.grid.crop(rows, cols)

    def origin_of(self, raster: Raster) -> tuple[int, int]:
        """The pixel (row, col) of the canvas on which the first one of a `raster` of PAN pixels lies. Raises SceneError
        if it is none such."""
        place = raster.grid.origin_in(self.scene.pan.grid)
        if place is None or np.abs(np.subtract(place, np.round(place))).max() > ON_GRID:
            raise SceneError(f"{raster.path} is not on the pixel grid of {self.scene.pan.path}; give its own by --pan")
        return round(place[0]) - self.rows.first, round(place[1]) - self.cols.first

    @property
    def abreast(self) -> int:
        """Of a file in strips the whole width: a strip is decoded as a whole."""
        return self.cols.size if any(raster.in_strips for raster in self._rasters) else ABREAST

    @property
    def _rasters(self) -> list[Raster]:
        return [self.scene.pan, *self.scene.ms]

    def bytes_of_blocks(self, height: int, width: int) -> int:
        """Bytes of the blocks, decoded, of PAN and MS in which a window of so many PAN pixels lies."""
        kernel = 2 * KERNELS[self.resampling][1]
        in_ms = (-(-side // self.ratio) + kernel for side in (height, width))
        high, wide = in_ms
        return self.scene.pan.bytes_of_blocks(height, width) + sum(
            ms.bytes_of_blocks(high, wide) for ms in self.scene.ms
        )

    def raw(self, rows: slice, cols: slice) -> Raw:
        pan, pan_valid = self._read_pan(rows, cols)
        nested = (slice(s.start // self.ratio, s.stop // self.ratio) for s in (rows, cols))
        ms, ms_valid, covered = self._read_nested(*nested)
        return Raw(pan, ms, pan_valid, ms_valid, pan_valid & covered)

    def nested_ms(self, rows: slice, cols: slice) -> tuple[Float32, Mask]:
        """A window of the nested MS alone, in MS pixels, and where it has data; its gaps are unfilled."""
        ms, valid, _ = self._read_nested(rows, cols)
        return ms, valid

    def _read_nested(self, rows: slice, cols: slice) -> tuple[Float32, Mask, Mask]:
        """Nested MS, where it has data, and which PAN pixels lie on MS pixels that have data."""
        return self._read_warped(rows, cols) if self.warped else self._read_ms(rows, cols)

    def _read_pan(self, rows: slice, cols: slice) -> tuple[Float32, Mask]:
        grid = self.scene.pan_grid
        row, col = self.rows.first + rows.start, self.cols.first + cols.start
        height, width = rows.stop - rows.start, cols.stop - cols.start
        inside_rows = slice(max(row, 0), min(row + height, grid.height))
        inside_cols = slice(max(col, 0), min(col + width, grid.width))
        if inside_rows.start >= inside_rows.stop or inside_cols.start >= inside_cols.stop:
            return np.zeros((1, height, width), np.float32), np.zeros((height, width), bool)
        data, valid = self.scene.pan.read(inside_rows, inside_cols)
        if valid.shape == (height, width):
            return data, valid
        target = (
            slice(inside_rows.start - row, inside_rows.stop - row),
            slice(inside_cols.start - col, inside_cols.stop - col),
        )
        pan, pan_valid = np.zeros((1, height, width), np.float32), np.zeros((height, width), bool)
        pan[(0, *target)], pan_valid[target] = data[0], valid
        return pan, pan_valid

    def _read_ms(self, rows: slice, cols: slice) -> tuple[Float32, Mask, Mask]:
        """As `_read_nested`, where rows and columns of the MS are those of the PAN."""
        positions = self.rows.ms_positions(rows.start, rows.stop), self.cols.ms_positions(cols.start, cols.stop)
        image, valid, (row, col) = self._read_ms_around(*positions)
        where = positions[0] - row, positions[1] - col
        nearest = tuple(map(_nearest, where, valid.shape))
        if self.interpolated:
            ms = sample(image, valid, *where, self.resampling).astype(np.float32)
        else:
            ms = _at(image, *nearest)
        under, on_ms = [], []
        full_size = self.scene.ms_grid.height, self.scene.ms_grid.width
        for axis, nested, first, size, full in zip(
            (self.rows, self.cols), (rows, cols), (row, col), valid.shape, full_size, strict=True
        ):
            pan_pixels = np.arange(nested.start * self.ratio, nested.stop * self.ratio, dtype=np.float64)
            position = axis.ms_position_of_pan(pan_pixels, self.phase)
            on_ms.append((position >= -0.5 - ON_BORDER) & (position <= full - 0.5 + ON_BORDER))
            under.append(_nearest(position - first, size))
        covered = _mask_at(valid, *under)
        if not all(inside.all() for inside in on_ms):
            covered &= np.logical_and.outer(*on_ms)
        return ms, _mask_at(valid, *nearest), covered

    def _read_warped(self, rows: slice, cols: slice) -> tuple[Float32, Mask, Mask]:
        """As `_read_nested`, out of another CRS, or moved by a field."""
        row, col = self._in_ms(*(self._centres(axis, s) for axis, s in ((self.rows, rows), (self.cols, cols))))
        image, valid, (first_row, first_col) = self._read_ms_around(row, col)

        def held(row: Float64, col: Float64, beyond: float) -> Mask:
            inside = [
                (place >= -beyond) & (place <= size - 1 + beyond)
                for place, size in ((row, self.scene.ms_grid.height), (col, self.scene.ms_grid.width))
            ]
            here = _nearest(row - first_row, valid.shape[0]), _nearest(col - first_col, valid.shape[1])
            return np.asarray(inside[0] & inside[1] & valid[here])

        found = sample_at(image, valid, row - first_row, col - first_col, self.resampling).astype(np.float32)
        if valid.all() and held(row, col, beyond=-1).all():  # so are the PAN pixels around
            everywhere = tuple(self.ratio * size for size in row.shape)
            return found, np.ones(row.shape, bool), np.ones(everywhere, bool)
        pan_pixels = (
            axis.first + np.arange(self.ratio * s.start, self.ratio * s.stop) + 0.5
            for axis, s in ((self.rows, rows), (self.cols, cols))
        )
        return found, held(row, col, beyond=1), held(*self._in_ms(*pan_pixels), beyond=0.5 + ON_BORDER)

    def _centres(self, axis: NestedAxis, nested: slice) -> Float64:
        """PAN edge coordinates of the centres of nested MS samples."""
        return axis.first + axis.ratio * np.arange(nested.start, nested.stop) + self.phase + 0.5

    def _in_ms(self, y: Float64, x: Float64) -> tuple[Float64, Float64]:
        """Positions (row, col) in the MS file, each (len(y), len(x)), of PAN edge coordinates."""
        y, x = np.meshgrid(y, x, indexing="ij")
        dx, dy = self.shift.at(x, y)
        pan, ms = self.scene.pan_grid, self.scene.ms_grid
        x, y = self.scene.to_ms(pan.cols.coordinate(x + dx), pan.rows.coordinate(y + dy))
        return ms.rows.edge(y) - 0.5, ms.cols.edge(x) - 0.5

    def _read_ms_around(self, rows: Float64, cols: Float64) -> tuple[Float32, Mask, tuple[int, int]]:
        """The part of the MS files around these positions, where all have data, and its first row and column."""
        grid, reach = self.scene.ms_grid, KERNELS[self.resampling][1]
        windows = []
        for positions, size in ((rows, grid.height), (cols, grid.width)):
            start = int(np.clip(np.floor(positions.min()) - reach, 0, size - 1))
            windows.append(slice(start, int(np.clip(np.ceil(positions.max()) + reach + 1, start + 1, size))))
        images, valid = zip(*(raster.read(*windows) for raster in self.scene.ms), strict=True)
        image = images[0] if len(images) == 1 else np.concatenate(images)
        # a value means no data only where all bands have it, whatever files they are in
        together = np.logical_or if all(raster.by_value for raster in self.scene.ms) else np.logical_and
        return image, together.reduce(valid), (windows[0].start, windows[1].start)


def _meeting(scene: Scene, shift: Displacement, ratio: int) -> tuple[Overlap, Overlap]:
    """Rows and columns of the PAN that lie on the moved MS."""
    pan, ms = scene.pan_grid, scene.ms_under_pan
    rows, cols = overlap(pan.rows, ms.rows, shift.dy), overlap(pan.cols, ms.cols, shift.dx)
    if shift.field is None:
        return rows, cols
    half_ms_pixel = ratio / 2  # so that no MS sample is outside of its file
    x, y = (0.0, float(pan.width)), (0.0, float(pan.height))
    for _ in range(BORDER_ROUNDS):
        (_, top), (_, bottom) = (shift.ranges(x, (end, end)) for end in y)
        (left, _), (right, _) = (shift.ranges((end, end), y) for end in x)
        down = shift.dy - top[0] + half_ms_pixel, bottom[1] - shift.dy + half_ms_pixel
        across = shift.dx - left[0] + half_ms_pixel, right[1] - shift.dx + half_ms_pixel
        rows, cols = overlap(pan.rows, ms.rows, shift.dy, down), overlap(pan.cols, ms.cols, shift.dx, across)
        x, y = (cols.start, cols.stop), (rows.start, rows.stop)
    return rows, cols


@dataclass(frozen=True, eq=False)
class ArrayCanvas(Canvas):
    """A scene in memory: `pan` (1, ratio h, ratio w), `ms` (bands, h, w), and where both hold `valid` data."""

    pan: Float32
    ms: Float32
    valid: Mask

    @classmethod
    def of(cls, pan: Float32, ms: Float32, valid: Mask | None = None, reach: Reach | None = None) -> ArrayCanvas:
        """The canvas of arrays that are nested already; `valid` (ratio h, ratio w) is True everywhere by default."""
        ratio = pan.shape[-1] // ms.shape[-1]
        if pan.shape != (1, ms.shape[1] * ratio, ms.shape[2] * ratio):
            raise SceneError(f"a PAN of shape {pan.shape} does not nest an MS of shape {ms.shape}")
        valid = np.ones(pan.shape[1:], bool) if valid is None else valid
        grain = int(np.lcm(ratio, reach.multiple_of if reach else 1))
        rows, cols = (NestedAxis(ratio, 0, -(-size // grain) * grain, 0, size, 1, 0) for size in pan.shape[1:])
        return cls(rows, cols, pan, ms, valid)

    def raw(self, rows: slice, cols: slice) -> Raw:
        def window(image: npt.NDArray[Any], scale: int) -> npt.NDArray[Any]:
            part = image[..., rows.start // scale : rows.stop // scale, cols.start // scale : cols.stop // scale]
            missing = [
                (rows.stop - rows.start) // scale - part.shape[-2],
                (cols.stop - cols.start) // scale - part.shape[-1],
            ]
            return np.pad(part, [(0, 0)] * (part.ndim - 2) + [(0, m) for m in missing])

        valid: Mask = window(self.valid, 1)
        blocks = valid.reshape(valid.shape[0] // self.ratio, self.ratio, -1, self.ratio)
        ms_valid = np.asarray(blocks.any(axis=(1, 3)))
        return Raw(window(self.pan, 1), window(self.ms, self.ratio), valid, ms_valid, valid)


def _nearest(positions: Float64, size: int) -> npt.NDArray[np.intp]:
    """The pixels in which `positions` lie, those beyond the border on the border."""
    return np.clip(np.floor(positions + 0.5), 0, size - 1).astype(np.intp)


def _mask_at(valid: Mask, rows: npt.NDArray[np.intp], cols: npt.NDArray[np.intp]) -> Mask:
    """`valid` (h, w) at rows x cols."""
    if valid.all():  # nearly always, and the gathering is not for free
        return np.ones((len(rows), len(cols)), bool)
    return _at(valid, rows, cols)


def _at(image: npt.NDArray[Any], rows: npt.NDArray[np.intp], cols: npt.NDArray[np.intp]) -> npt.NDArray[Any]:
    """`image` (..., h, w) at rows x cols; a view of it where these follow each other, as they do inside of a scene."""
    if all((np.diff(where) == 1).all() for where in (rows, cols)):
        return image[..., rows[0] : rows[-1] + 1, cols[0] : cols[-1] + 1]
    return image.take(rows, axis=-2).take(cols, axis=-1)


def _widen(span: Span, size: int, margin: int) -> tuple[slice, slice]:
    """What a span reads with `margin` more on both sides as far as the canvas goes, and the read part inside that."""
    wide = slice(max(0, span.read_start - margin), min(size, span.read_stop + margin))
    return wide, slice(span.read_start - wide.start, span.read_stop - wide.start)
