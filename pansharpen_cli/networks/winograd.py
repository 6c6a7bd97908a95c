"""3x3 convolution on the CPU by minimal filtering (Winograd; Lavin and Gray, arXiv 1509.09308, section 4.1).

A tile of ROWS x COLS pixels of the result is A' ((G g G') * (B' d B)) A for each pair of channels, where g is the
kernel, d the tile of the image with a border of a pixel, and * takes products element by element: 24 of them for eight
pixels, instead of 72. Over all channels those are 24 matrix products. Fewer numbers are added up in a row, so that the
result is as near to the true one as that of the plain sum.

Tiles lie on a grid from the image's first pixel on: a pixel is the same to the last bit wherever the image is cut, if
it is cut on that grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.polynomial import polynomial
from torch import Tensor

from pansharpen_cli.networks.vectors import (
    AT_ONCE,
    BYTES,
    LANES,
    WHOLE,
    Code,
    Image,
    Matrix,
    Value,
    add,
    alike,
    both_ways,
    channels_last,
    constant,
    further,
    in_vectors,
    load,
    load_grid,
    multiply,
    routine,
    side_by_side,
    store,
)  # fmt: skip
from pansharpen_cli.system.compiled import compiled


def minimal_filtering(points: Sequence[float]) -> tuple[Matrix, Matrix, Matrix]:
    """A' (m, n), G (n, 3) and B' (n, n) of F(m, 3), n = m + 2: Toom and Cook's way, polynomials known by their values
    at n - 1 `points` and at infinity. Rows of G are scaled by powers of two, B' the other way round, which costs no
    digit."""
    size = len(points) + 1
    powers = np.array(points)[:, None] ** np.arange(size - 2)
    others = [[other for other in points if other != point] for point in points]
    infinity = np.eye(size)[-1]
    back = np.column_stack([powers.T, infinity[2:]])
    scale = [np.prod([point - other for other in rest]) for point, rest in zip(points, others, strict=True)]
    kernel = np.vstack([np.array(points)[:, None] ** np.arange(3) / np.array(scale)[:, None], [0, 0, 1]])
    image = np.vstack([[*polynomial.polyfromroots(rest), 0] for rest in others] + [polynomial.polyfromroots(points)])
    powers_of_two = 2.0 ** np.round(np.log2(np.abs(kernel).max(1, keepdims=True)))
    return back, kernel / powers_of_two, image * powers_of_two


# With 0, +-1, +-2 for the columns the error is a third larger; with four rows, too, it is twice that of the plain sum.
DOWN, ACROSS = minimal_filtering([0, 1, -1]), minimal_filtering([0, 0.75, -0.75, 1.5, -1.5])
ROWS, COLS = len(DOWN[0]), len(ACROSS[0])
"""Pixels of a tile."""
HIGH, WIDE = ROWS + 2, COLS + 2
"""The same with the border."""
POINTS = HIGH * WIDE

FEWEST, MOST_FACTORS = 32, 2**19
"""Input channels below which little is gained, and numbers that the processor's own cache holds beside all else."""

NOTHING = Image(0, 0, 0, 0)


def fits(weight: Tensor, stride: int, padding: int, groups: int) -> bool:
    """Whether `convolve` can do a convolution, and faster than torch."""
    outputs, inputs, *size = weight.shape
    able = size == [3, 3] and stride == groups == 1 and padding in (0, 1) and inputs % LANES == 0
    return able and inputs >= FEWEST and POINTS * inputs * outputs <= MOST_FACTORS


def convolve(
    image: Tensor, weight: Tensor, bias: Tensor | None, padding: int, *, slope: float = 1.0, added: Tensor | None = None
) -> Tensor:
    """Convolution of (N, Ci, H, W) by `weight` (Co, Ci, 3, 3), zeros beyond the border: (N, Co, H', W').

    `padding` is 0 or 1. What is negative in the result is multiplied by `slope`, and `added`, of its shape, is added.
    Images are best kept channels last, as the result is.
    """
    image = channels_last(image)
    rows, cols = (extent + 2 * padding - 2 for extent in image.shape[1:3])
    factors, biases = factors_of(weight), in_vectors(weight.new_zeros(len(weight)) if bias is None else bias)
    _, depth, width = factors.shape
    layer = Layer(factors.data_ptr(), biases.data_ptr(), slope)
    out = torch.empty(len(image), rows, cols, width)
    others = None
    if added is not None and width == len(weight):
        others, added = channels_last(added), None

    def stretch(number: int, first: int, last: int) -> None:
        other = NOTHING if others is None else Image.of(others[number, first:last])
        with workspace(depth, width, AT_ONCE) as work:
            _convolve(Image.of(image[number]), padding, layer, other, Image.of(out[number, first:last]), first, work)

    for number in range(len(out)):
        side_by_side(partial(stretch, number), rows, ROWS)
    result = out[..., : len(weight)].permute(0, 3, 1, 2)
    return result if added is None else added + result


class Layer(NamedTuple):
    """A convolution: addresses of `factors_of` it and of the biases; and the slope."""

    factors: int
    biases: int
    slope: float


def factors_of(weight: Tensor) -> Tensor:
    """G g G' of every kernel of (Co, Ci, 3, 3): (POINTS, Ci, Co in whole vectors)."""
    down, across = (torch.from_numpy(kernel) for _, kernel, _ in (DOWN, ACROSS))
    factors = torch.einsum("ia,ocab,jb->ijco", down, weight.detach().double(), across)
    return in_vectors(factors.flatten(0, 1))


class Work(NamedTuple):
    """Addresses of what lies between the stages: zeros, a tile of the image at its border, points before and after the
    products, the former with tiles next to each other, a tile of the result at its border."""

    zeros: int
    edge: int
    points: int
    turned: int
    products: int
    corner: int


@contextmanager
def workspace(depth: int, width: int, tiles: int) -> Iterator[Work]:
    """For so many tiles of `depth` channels at a time, and `width` of the result."""
    points = POINTS * (tiles * depth + LANES), POINTS * tiles * depth, POINTS * tiles * width
    arrays = [torch.zeros(size) for size in (max(LANES, width), POINTS * depth, *points, ROWS * COLS * LANES)]
    yield Work(*(array.data_ptr() for array in arrays))


@compiled
def _convolve(image: Image, padding: int, layer: Layer, added: Image, out: Image, first: int, work: Work) -> None:
    """The rows of the result from `first` on into `out`; `added` may be NOTHING."""
    point, product = AT_ONCE * image.pixel, AT_ONCE * out.pixel
    for y in range(0, out.rows, ROWS):
        for x in range(0, out.cols, AT_ONCE * COLS):
            tiles = min(AT_ONCE, (out.cols - x + COLS - 1) // COLS)
            for tile in range(tiles):
                row, col = first + y - padding, x + tile * COLS - padding
                take(image, row, col, 0, image.pixel, work.points + tile * image.pixel, point, work)
            for p in range(POINTS):
                factors = layer.factors + p * image.pixel // 4 * out.pixel
                multiply(
                    work.points + p * point, image.pixel, image.pixel, factors, out.pixel, work.products + p * product,
                    out.pixel,
                )  # fmt: skip
            for tile in range(tiles):
                _give(work.products + tile * out.pixel, product, layer, added, out, y, x + tile * COLS, work)


@compiled
def take(image: Image, y: int, x: int, first: int, last: int, points: int, point: int, work: Work) -> None:
    """B' d B of the tile that begins at (y, x) with its border, zeros beyond the image; bytes `first` ... `last` of a
    pixel, the first of which goes to `points`."""
    source, row = image.address + (y * image.cols + x) * image.pixel, image.cols * image.pixel
    if y < 0 or x < 0 or y + HIGH > image.rows or x + WIDE > image.cols:
        for i in range(HIGH):
            for j in range(WIDE):
                within = 0 <= y + i < image.rows and 0 <= x + j < image.cols
                for c in range(first, last, BYTES):
                    pixel = source + i * row + j * image.pixel + c
                    add(pixel if within else work.zeros, work.zeros, work.edge + (WIDE * i + j) * image.pixel + c)
        source, row = work.edge, WIDE * image.pixel
    for c in range(first, last, BYTES):
        _analyse(source + c, row, image.pixel, points + c - first, point)


@compiled
def _give(products: int, product: int, layer: Layer, added: Image, out: Image, y: int, x: int, work: Work) -> None:
    """A' m A of a tile, bias, activation and what is added, to (y, x) of `out`, as far as that goes."""
    at, row = (y * out.cols + x) * out.pixel, out.cols * out.pixel
    whole = y + ROWS <= out.rows and x + COLS <= out.cols
    for c in range(0, out.pixel, BYTES):
        into, into_row, into_col = work.corner, COLS * BYTES, BYTES
        source, source_row, source_col = work.zeros, 0, 0
        if whole:
            into, into_row, into_col = out.address + at + c, row, out.pixel
            if added.address:
                source, source_row, source_col = added.address + at + c, row, out.pixel
        _synthesise(
            products + c, product, layer.biases + c, np.float32(layer.slope), source, source_row, source_col, into,
            into_row, into_col,
        )  # fmt: skip
        if not whole:
            for i in range(min(ROWS, out.rows - y)):
                for j in range(min(COLS, out.cols - x)):
                    place = at + i * row + j * out.pixel + c
                    other = added.address + place if added.address else work.zeros
                    add(work.corner + (COLS * i + j) * BYTES, other, out.address + place)


@routine
def _analyse(code: Code, image: Value, row: Value, col: Value, points: Value, point: Value) -> None:
    """B' d B of a tile with its border, a vector of channels, to its place in each of the points."""
    tile = load_grid(code, image, row, col, HIGH, WIDE)
    for i, line in enumerate(both_ways(code, DOWN[2], tile, ACROSS[2])):
        for j, vector in enumerate(line):
            store(code, vector, further(code, points, point, WIDE * i + j))


@routine
def _synthesise(
    code: Code, products: Value, product: Value, bias: Value, slope: Value, added: Value, added_row: Value,
    added_col: Value, out: Value, row: Value, col: Value,
) -> None:  # fmt: skip
    """A' m A of a tile's products, a vector of channels; bias, activation and what is added."""
    grid = load_grid(code, products, code.mul(product, WHOLE(WIDE)), product, HIGH, WIDE)
    others = load_grid(code, added, added_row, added_col, ROWS, COLS)
    biases, slopes = load(code, bias), alike(code, slope)
    for i, line in enumerate(both_ways(code, DOWN[0], grid, ACROSS[0])):
        for j, vector in enumerate(line):
            pixel = code.fadd(vector, biases)
            low = code.fcmp_ordered("<", pixel, constant(0))
            pixel = code.select(low, code.fmul(pixel, slopes), pixel)
            place = further(code, further(code, out, row, i), col, j)
            store(code, code.fadd(pixel, others[i][j]), place)
