"""A scene in memory: whole, or where it is too large for that, excerpts that stand for it."""

from __future__ import annotations

import math

import numpy as np

from pansharpen_cli.imaging.tiling import Pixels, Span, Tile
from pansharpen_cli.inputs.canvas import Canvas

EXCERPTS = 9
MARGIN = 4
"""Grains on both sides of a joint that are not valid: what filters and networks see there is another ground's."""


def held(canvas: Canvas, most: int | None, grain: int) -> Pixels:
    """PAN and MS of a canvas, whole, or if that is more than `most` PAN pixels, at most so many in excerpts.

    Excerpts lie in the middles of equal parts of the canvas, begin on multiples of `grain` PAN pixels, themselves a
    multiple of the ratio, and are put side by side; at their joints nothing is valid.
    """
    height, width = canvas.rows.size, canvas.cols.size
    if most is None or height * width <= most:
        return canvas.read(Tile(Span(0, height, 0, height), Span(0, width, 0, width)))
    down = max(1, min(EXCERPTS, round(math.sqrt(EXCERPTS * height / width))))
    side = max(1, math.isqrt(most // EXCERPTS) // grain) * grain
    rows, cols = (_spread(size, side, count, grain) for size, count in ((height, down), (width, EXCERPTS // down)))
    parts = [[canvas.read(Tile(row, col)) for col in cols] for row in rows]
    pan = np.block([[part.pan for part in line] for line in parts])
    ms = np.block([[part.ms for part in line] for line in parts])
    valid = np.block([[part.valid for part in line] for line in parts])
    for axis, count in ((valid, len(rows)), (valid.T, len(cols))):
        for joint in range(side, count * side, side):
            axis[max(0, joint - MARGIN * grain) : joint + MARGIN * grain] = False
    return Pixels(Tile(*(Span(0, size, 0, size) for size in valid.shape)), pan, ms, valid)


def _spread(size: int, side: int, count: int, grain: int) -> list[Span]:
    """At most `count` spans of `side` pixels in the middles of equal parts of an axis, or one over all of it."""
    if size <= side:
        return [Span(0, size, 0, size)]
    count = min(count, size // side)
    starts = [round((size * (number + 0.5) / count - side / 2) / grain) * grain for number in range(count)]
    return [Span(start, start + side, start, start + side) for start in starts]
