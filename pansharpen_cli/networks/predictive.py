"""Filters that a 3x3 convolution predicts for every pixel, on the CPU: predicted by minimal filtering (winograd.py) and
applied at once, so that the kernels never leave the cache.

Here a lane of a vector is a tile: so no channel is computed in vain, and a pixel's kernel meets the pixels around it
lane by lane.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pansharpen_cli.networks.loops import TAPS
from pansharpen_cli.networks.vectors import (
    BYTES,
    LANES,
    PAIR,
    WHOLE,
    Code,
    Image,
    Value,
    both_ways,
    channels_last,
    constant,
    further,
    fused,
    load,
    load_alike,
    load_grid,
    matrix_product,
    riffle,
    routine,
    side_by_side,
    store,
    transpose,
)
from pansharpen_cli.networks.winograd import (
    ACROSS,
    COLS,
    DOWN,
    HIGH,
    POINTS,
    ROWS,
    WIDE,
    Layer,
    Work,
    factors_of,
    take,
    workspace,
)
from pansharpen_cli.system.compiled import compiled

Float32 = npt.NDArray[np.float32]

TILES = PAIR * LANES
"""Computed together."""
TOGETHER = 2 if LANES == 16 else 1
"""Vectors of a row of which TAPS rows fit into registers."""

_multiply_together, _ = matrix_product(TAPS, TOGETHER)
_multiply_one, _ = matrix_product(TAPS, 1)


def filter_predicted(features: Tensor, weight: Tensor, bias: Tensor, padded: Tensor) -> Tensor:
    """Images, each band filtered by a 3x3 kernel of its own at every pixel, which a convolution predicts.

    Features (N, Ci, H, W), weight (bands * TAPS, Ci, 3, 3), images (N, bands or 1, H + 2, W + 2) to (N, bands, H, W).
    """
    features = channels_last(features)
    rows, cols, depth = features.shape[1:]
    down, across = -(-rows // ROWS), -(-cols // (TILES * COLS)) * TILES
    width = len(weight)
    factors = factors_of(weight)[..., :width].transpose(1, 2).contiguous()
    layer = Layer(factors.data_ptr(), bias.data_ptr(), 1.0)
    images = _by_columns(padded, ROWS * down + 2, across + LANES)
    out = torch.empty(len(features), width // TAPS, ROWS * down, COLS * across)

    def stretch(number: int, first: int, last: int) -> None:
        image, into = Planes.of(images[number]), Planes.of(out[number, :, :, None])
        with workspace(depth, width, TILES) as work:
            _filter(Image.of(features[number]), layer, width, image, into, first, last, work)

    for number in range(len(out)):
        side_by_side(partial(stretch, number), rows, ROWS)
    return out[..., :rows, :cols]


def _by_columns(image: Tensor, rows: int, tiles: int) -> Tensor:
    """(N, bands, H, W) as (N, bands, rows, COLS, tiles), zeros where there is nothing: what lies in the same column of
    each tile stands next to each other."""
    out = torch.zeros(*image.shape[:2], rows, COLS, tiles)
    _deal(image.flatten(0, 1).numpy(), out.flatten(0, 1).numpy())
    return out


@compiled
def _deal(image: Float32, out: Float32) -> None:
    for band in range(len(image)):
        for row in range(image.shape[1]):
            for col in range(COLS):
                line = image[band, row, col::COLS]
                out[band, row, col, : len(line)] = line


class Planes(NamedTuple):
    """An image (bands, rows, columns, tiles) as compiled loops see it: where it lies, and the bytes from band to band,
    row to row, column to column. A single band stands for any number of them."""

    address: int
    bands: int
    band: int
    row: int
    col: int

    @classmethod
    def of(cls, image: Tensor) -> Self:
        band, row, col, _ = (4 * step for step in image.stride())
        return cls(image.data_ptr(), len(image), band if len(image) > 1 else 0, row, col)


@compiled
def _filter(
    features: Image, layer: Layer, width: int, image: Planes, out: Planes, first: int, last: int, work: Work
) -> None:  # fmt: skip
    """Rows first ... last of `out`: the bands of `image`, which has a border of a pixel, filtered by the `width`
    channels that `layer` predicts."""
    tiles = (features.cols + COLS - 1) // COLS
    for y in range(first, last, ROWS):
        for x in range(0, tiles, TILES):
            step = (min(TILES, tiles - x) + LANES - 1) // LANES * BYTES
            for at in range(0, step, BYTES):
                count = min(LANES, tiles - x - at // 4)
                _take_turned(features, y - 1, (x + at // 4) * COLS - 1, count, work.turned + at, step, work)
            for c in range(0, POINTS * width, TAPS):
                factors, points = layer.factors + c * features.pixel, c // width * features.pixel // 4 * step
                _multiply(factors, features.pixel, work.turned + points, step, work.products + c * step)
            for band in range(out.bands):
                for at in range(0, step, BYTES):
                    _filter_tiles(
                        work.products + TAPS * band * step + at, step, width * step, layer.biases + 4 * TAPS * band,
                        image.address + band * image.band + y * image.row + 4 * x + at, image.row, image.col,
                        out.address + band * out.band + y * out.row + COLS * (4 * x + at), out.row,
                    )  # fmt: skip


@compiled
def _take_turned(image: Image, y: int, x: int, count: int, turned: int, step: int, work: Work) -> None:
    """B' d B of `count` tiles side by side, one in each lane: (POINTS, Ci) vectors, `step` bytes apart."""
    point = (LANES + 1) * BYTES  # not a power of two, whose multiples meet in the same part of the cache
    for c in range(0, image.pixel, BYTES):
        for tile in range(count):
            take(image, y, x + tile * COLS, c, c + BYTES, work.points + tile * BYTES, point, work)
        for p in range(POINTS):
            transpose(work.points + p * point, BYTES, turned + (p * image.pixel + c) // 4 * step, step)


@compiled
def _multiply(left: int, length: int, right: int, step: int, out: int) -> None:
    """The channels of a band, as `vectors.multiply` makes AT_ONCE rows."""
    done = 0
    while done + TOGETHER * BYTES <= step:
        _multiply_together(left, length, length, right + done, step, out + done, step)
        done += TOGETHER * BYTES
    if done < step:
        _multiply_one(left, length, length, right + done, step, out + done, step)


@routine
def _filter_tiles(
    code: Code, products: Value, channel: Value, point: Value, biases: Value, image: Value, row: Value, col: Value,
    out: Value, out_row: Value,
) -> None:  # fmt: skip
    """Pixels of a vector of tiles, filtered by A' m A of their products, channel by channel, which are kernels."""
    pixels: list[list[Value]] = [[constant(0)] * COLS for _ in range(ROWS)]
    for tap in range(TAPS):
        grid = load_grid(code, further(code, products, channel, tap), code.mul(point, WHOLE(WIDE)), point, HIGH, WIDE)
        bias = load_alike(code, further(code, biases, 4, tap))
        for i, line in enumerate(both_ways(code, DOWN[0], grid, ACROSS[0])):
            source = further(code, image, row, i + tap // 3)
            for j, vector in enumerate(line):
                tile, column = divmod(j + tap % 3, COLS)
                value = load(code, further(code, further(code, source, col, column), 4, tile))
                pixels[i][j] = fused(code, code.fadd(vector, bias), value, pixels[i][j])
    for i, line in enumerate(pixels):
        for j, vector in enumerate(riffle(code, line)):
            store(code, vector, further(code, further(code, out, out_row, i), BYTES, j))
