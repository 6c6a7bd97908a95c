"""A part of a scene: which PAN pixels are put out, and what its statistics and co-registration look at.

A part has the canvas of its scene, on which fewer pixels are put out: its tiles read their halo from the scene around
it, and its pixels are those of the whole product where both have the same statistics and the same shift.
"""

from __future__ import annotations

import logging
import math
import re
from dataclasses import dataclass, replace
from math import lcm
from typing import Literal

import numpy as np
import pyproj

from pansharpen_cli.errors import SceneError, UsageError
from pansharpen_cli.imaging.geogrid import Axis, NestedAxis
from pansharpen_cli.imaging.tiling import Reach
from pansharpen_cli.inputs.canvas import GAP_ROUNDS, SceneCanvas
from pansharpen_cli.inputs.scene import Scene

log = logging.getLogger(__name__)

Statistics = Literal["part", "scene"]
"""Where statistics and co-registration come from: the part and what lies around it, or the whole scene."""

SEEN = 1024
"""PAN pixels a side that are looked at for the statistics of a smaller part, as far as the scene goes: a shift needs
several windows that agree. They are a few blocks of a file."""


@dataclass(frozen=True)
class Window:
    """PAN pixels, counted in the PAN's file from its top left."""

    col: int
    row: int
    width: int
    height: int


@dataclass(frozen=True)
class Bounds:
    """The PAN pixels whose centres lie in a rectangle on the ground. `crs`: None is the PAN's own."""

    left: float
    bottom: float
    right: float
    top: float
    crs: str | None = None


Part = Window | Bounds


def parse_window(text: str) -> Window:
    """ "COL,ROW,WIDTH,HEIGHT" in PAN pixels. Raises UsageError."""
    if not re.fullmatch(r"\d+,\d+,[1-9]\d*,[1-9]\d*", text):
        raise UsageError(f"--window takes COL,ROW,WIDTH,HEIGHT in PAN pixels, not {text!r}")
    return Window(*map(int, text.split(",")))


def parse_bounds(text: str, crs: str | None = None) -> Bounds:
    """ "LEFT,BOTTOM,RIGHT,TOP" in `crs`, whatever pyproj knows by that name. Raises UsageError."""
    try:
        left, bottom, right, top = map(float, text.split(","))
    except ValueError:
        raise UsageError(f"--bounds takes four numbers LEFT,BOTTOM,RIGHT,TOP, not {text!r}") from None
    if not (left < right and bottom < top and np.isfinite([left, bottom, right, top]).all()):
        raise UsageError(f"--bounds {text} encloses no ground; give LEFT,BOTTOM,RIGHT,TOP, the first two the smaller")
    try:
        return Bounds(left, bottom, right, top, crs and pyproj.CRS.from_user_input(crs).to_string())
    except pyproj.exceptions.CRSError:
        raise UsageError(f"--bounds-crs takes a CRS like EPSG:4326, not {crs!r}") from None


def seen(canvas: SceneCanvas, part: Part | None, statistics: Statistics, reach: Reach | None = None) -> SceneCanvas:
    """What co-registration and statistics look at: `canvas`, or the stretch of it that holds the part with all that its
    tiles read, and SEEN pixels a side at least. Raises SceneError if the part lies outside of the scene."""
    if part is None or statistics == "scene":
        return canvas
    reach = reach or Reach()
    margin = reach.halo + GAP_ROUNDS * canvas.ratio
    grain = lcm(canvas.ratio, reach.alignment, reach.multiple_of)
    rows, cols = (
        _surroundings(axis, pixels, margin, grain)
        for axis, pixels in zip((canvas.rows, canvas.cols), _inside(canvas, part), strict=True)
    )
    return replace(canvas, rows=canvas.rows.stretch(*rows), cols=canvas.cols.stretch(*cols))


def fetch(canvas: SceneCanvas) -> None:
    """Have a small canvas in GDAL's cache, in one go: block by block it is read ahead of, and over a network twice as
    much comes, in several times as many requests."""
    if canvas.rows.size * canvas.cols.size <= 4 * SEEN**2:
        canvas.raw(slice(0, canvas.rows.size), slice(0, canvas.cols.size))


def put_out(canvas: SceneCanvas, part: Part | None, statistics: Statistics, reach: Reach) -> SceneCanvas:
    """`canvas` with only the pixels of the part put out. Raises SceneError as `seen`."""
    if part is None:
        return canvas
    rows, cols = _inside(canvas, part)
    asked = [pixels.stop - pixels.start for pixels in _asked(part, canvas.scene)]
    if asked != [rows.stop - rows.start, cols.stop - cols.start]:
        log.warning(
            "only %d x %d of the %d x %d pixels of the part lie on %s",
            cols.stop - cols.start, rows.stop - rows.start, asked[1], asked[0], canvas,
        )  # fmt: skip
    return replace(
        canvas,
        rows=replace(canvas.rows, start=rows.start, stop=rows.stop),
        cols=replace(canvas.cols, start=cols.start, stop=cols.stop),
        source=seen(canvas, part, statistics, reach),
    )


def _surroundings(axis: NestedAxis, pixels: slice, margin: int, grain: int) -> tuple[int, int]:
    more = max(margin, (SEEN - (pixels.stop - pixels.start)) // 2)
    start, stop = pixels.start - more, pixels.stop + more
    start, stop = start - max(0, stop - axis.size), stop - min(0, start)  # at the scene's end, further in
    return max(0, start) // grain * grain, min(axis.size, -(-stop // grain) * grain)


def _inside(canvas: SceneCanvas, part: Part) -> tuple[slice, slice]:
    """Rows and columns of the canvas that are put out of the whole and lie in the part."""
    found = []
    for axis, pixels in zip((canvas.rows, canvas.cols), _asked(part, canvas.scene), strict=True):
        start, stop = max(axis.start, pixels.start - axis.first), min(axis.stop, pixels.stop - axis.first)
        if start >= stop:
            what = "--window" if isinstance(part, Window) else "--bounds"
            raise SceneError(f"{what} lies outside of {canvas}, which share {_ground(canvas)}; give a part of that")
        found.append(slice(start, stop))
    return found[0], found[1]


def _asked(part: Part, scene: Scene) -> tuple[slice, slice]:
    """Rows and columns of the PAN, some of which may lie outside of it."""
    if isinstance(part, Window):
        return slice(part.row, part.row + part.height), slice(part.col, part.col + part.width)
    grid = scene.pan_grid
    if grid.crs is None:
        why = "is in no map projection" if scene.pan.grid.crs is None else "is not upright on its map"
        raise SceneError(f"{scene.pan.path} {why}, so --bounds means nothing there; give --window")
    edges = part.left, part.bottom, part.right, part.top
    if part.crs is not None:
        try:
            to_pan = pyproj.Transformer.from_crs(part.crs, grid.crs, always_xy=True)
            edges = to_pan.transform_bounds(*edges, densify_pts=21)
        except pyproj.exceptions.ProjError:  # no way leads there
            edges = (math.inf,) * 4
    if not np.isfinite(edges).all():
        raise SceneError(f"--bounds cannot be brought from {part.crs} to the CRS of {scene.pan.path}; give it in that")
    return _centres(grid.rows, edges[1], edges[3]), _centres(grid.cols, edges[0], edges[2])


def _centres(axis: Axis, low: float, high: float) -> slice:
    """Pixels whose centres lie between; parts side by side share none."""
    start, stop = sorted((axis.edge(low), axis.edge(high)))
    return slice(int(np.ceil(start - 0.5)), int(np.ceil(stop - 0.5)))


def _ground(canvas: SceneCanvas) -> str:
    by_window = f"--window {window(canvas)}"
    if canvas.scene.pan_grid.crs is None:
        return by_window
    left, bottom, right, top = canvas.grid.bounds
    return f"--bounds {left:.10g},{bottom:.10g},{right:.10g},{top:.10g} or {by_window}"


def window(canvas: SceneCanvas) -> str:
    """What a canvas puts out, as `parse_window` takes it."""
    rows, cols = canvas.rows, canvas.cols
    return f"{cols.first + cols.start},{rows.first + rows.start},{canvas.grid.width},{canvas.grid.height}"
