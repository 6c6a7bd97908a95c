"""Vectors of the CPU for compiled loops: what Python and numba have no word for, in LLVM's own.

A `routine` is written as a function that builds code. Compiled loops call it with whole numbers, most of them addresses
and distances in bytes: so a vector is read from and written to wherever it lies. A vector holds LANES numbers of single
precision; on a processor with narrower ones LLVM makes several of each.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from functools import cache
from inspect import signature
from itertools import chain
from typing import Any, NamedTuple, Self, TypeAlias

import numba
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from llvmlite import ir
from numba import types
from numba.core.codegen import get_host_cpu_features
from numba.extending import intrinsic
from torch import Tensor

from pansharpen_cli.system.compiled import compiled
from pansharpen_cli.system.concurrency import Threads, cores

_features: str = numba.config.CPU_FEATURES or get_host_cpu_features()  # type: ignore[attr-defined, no-untyped-call]

WIDE = "+avx512f" in _features
LANES = 16 if WIDE else 8

BYTES = 4 * LANES
"""Of a vector."""
VECTOR = ir.VectorType(ir.FloatType(), LANES)
WHOLE = ir.IntType(64)
PAIR = 2
"""Vectors of a row that a matrix product has in registers."""
AT_ONCE = 12 if WIDE else 6
"""Rows that it has: PAIR * AT_ONCE sums, and PAIR + 1 registers for what is multiplied."""

Matrix = npt.NDArray[np.float64]
Code: TypeAlias = Any
"""An ir.IRBuilder, which writes code where it stands."""
Value: TypeAlias = Any
"""An ir.Value: a whole number, mostly, or a vector."""
Vectors = Sequence[Sequence[Value]]


class Image(NamedTuple):
    """An image of whole vectors, channels last, as compiled loops see it: where it lies, and bytes of a pixel.

    Who makes it of a tensor keeps that alive.
    """

    address: int
    rows: int
    cols: int
    pixel: int

    @classmethod
    def of(cls, image: Tensor) -> Self:
        """Of a tensor (H, W, C)."""
        rows, cols, channels = image.shape
        return cls(image.data_ptr(), rows, cols, 4 * channels)


def channels_last(image: Tensor) -> Tensor:
    """(N, C, H, W) as (N, H, W, C), copied if it is not kept so."""
    return image.permute(0, 2, 3, 1).contiguous()


def in_vectors(array: Tensor) -> Tensor:
    """`array`, its last axis filled up with zeros to whole vectors. Torch's arrays begin where vectors should."""
    return F.pad(array.float(), (0, -array.shape[-1] % LANES)).contiguous()


def side_by_side(work: Callable[[int, int], None], rows: int, grain: int) -> None:
    """`work(first, last)` for stretches of rows, multiples of `grain`, one for each of torch's threads."""
    threads = torch.get_num_threads()
    part = -(-rows // (threads * grain)) * grain
    with ExitStack() as others:  # they know addresses: nothing may be freed before all of them end
        for first in range(part, rows, part):
            others.callback(_end, _helpers().submit(work, first, min(first + part, rows)))
        work(0, min(part, rows))


def _end(other: Future[None]) -> None:
    """Waits for a helper, and raises what it raised."""
    try:
        _helpers().result(other)
    finally:
        if not other.done():  # Ctrl-C
            _helpers().result(other)


@cache
def _helpers() -> Threads:
    """Threads that stay, for work of a millisecond."""
    return Threads(cores(), "helper")


def routine(build: Callable[..., None]) -> Callable[..., None]:
    """`build(code, *numbers)` as a routine of compiled loops, which gives nothing back."""

    def typed(_: Any, *kinds: Any) -> Any:
        def emit(context: Any, code: Code, __: Any, numbers: Sequence[Value]) -> Value:
            build(code, *numbers)
            dummy: Value = context.get_dummy_value()
            return dummy

        return types.void(*kinds), emit

    typed.__name__, typed.__signature__ = build.__name__, signature(build)  # type: ignore[attr-defined]
    made: Callable[..., None] = intrinsic(typed)
    return made


def _from_bits(_: Any, bits: Any) -> Any:
    def emit(_: Any, code: Code, __: Any, numbers: Sequence[Value]) -> Value:
        return code.bitcast(numbers[0], ir.FloatType())

    return types.float32(types.int32), emit


from_bits: Any = intrinsic(_from_bits)
"""The number of single precision that has these bits."""


def load(code: Code, address: Value) -> Value:
    return code.load(code.inttoptr(address, VECTOR.as_pointer()), align=4)


def store(code: Code, vector: Value, address: Value) -> None:
    code.store(vector, code.inttoptr(address, VECTOR.as_pointer()), align=4)


def load_alike(code: Code, address: Value) -> Value:
    """The one number at `address` in all lanes."""
    return alike(code, code.load(code.inttoptr(address, ir.FloatType().as_pointer()), align=4))


def alike(code: Code, number: Value) -> Value:
    """A number in all lanes."""
    nothing = ir.Constant(VECTOR, ir.Undefined)
    first = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return code.shuffle_vector(code.insert_element(nothing, number, ir.IntType(32)(0)), nothing, first)


def constant(number: float) -> Value:
    return ir.Constant(VECTOR, [float(np.float32(number))] * LANES)


def fused(code: Code, a: Value, b: Value, c: Value) -> Value:
    """a * b + c, rounded once where the processor can."""
    return code.fadd(code.fmul(a, b, flags=("contract",)), c, flags=("contract",))


def further(code: Code, address: Value, step: Value | int, times: int = 1) -> Value:
    """The address that is so many steps on."""
    step = WHOLE(step * times) if isinstance(step, int) else code.mul(step, WHOLE(times))
    return code.add(address, step)


def load_grid(code: Code, address: Value, row: Value, col: Value, rows: int, cols: int) -> Vectors:
    """rows x cols vectors, `row` and `col` bytes apart."""
    lines = (further(code, address, row, i) for i in range(rows))
    return [[load(code, further(code, line, col, j)) for j in range(cols)] for line in lines]


def both_ways(code: Code, rows: Matrix, vectors: Vectors, cols: npt.NDArray[np.float64]) -> Vectors:
    """The matrix product rows @ vectors @ cols.T of a grid of vectors by two matrices of constants."""
    columns = [[_weighted(code, row, column) for column in zip(*vectors, strict=True)] for row in rows]
    return [[_weighted(code, col, line) for col in cols] for line in columns]


def _weighted(code: Code, weights: Matrix, vectors: Sequence[Value]) -> Value:
    """The sum of weight * vector, what has the weight 1 first; nothing is computed for 0."""
    total = None
    for weight, vector in sorted(zip(weights, vectors, strict=True), key=lambda pair: pair[0] != 1):
        if weight == 0:
            continue
        if total is None:
            total = vector if weight == 1 else code.fmul(constant(weight), vector)
        elif abs(weight) == 1:
            total = (code.fadd if weight == 1 else code.fsub)(total, vector)
        else:
            total = fused(code, constant(weight), vector, total)
    return total


@routine
def add(code: Code, one: Value, other: Value, to: Value) -> None:
    """The sum of two vectors."""
    store(code, code.fadd(load(code, one), load(code, other)), to)


@routine
def copy(code: Code, source: Value, to: Value) -> None:
    """A vector."""
    store(code, load(code, source), to)


@routine
def clear(code: Code, to: Value) -> None:
    """A vector of zeros."""
    store(code, constant(0), to)


@routine
def transpose(code: Code, source: Value, source_step: Value, to: Value, to_step: Value) -> None:
    """A matrix of LANES x LANES numbers; distances of rows in bytes."""
    vectors = [load(code, further(code, source, source_step, i)) for i in range(LANES)]
    for i, vector in enumerate(riffle(code, vectors)):
        store(code, vector, further(code, to, to_step, i))


def riffle(code: Code, vectors: Sequence[Value]) -> Sequence[Value]:
    """The first lanes of all vectors, then the second, and so on; as many vectors as before, a power of two."""
    half = len(vectors) // 2
    for _ in range(len(vectors).bit_length() - 1):  # each round of a perfect shuffle moves a bit from lane to vector
        pairs = zip(vectors[:half], vectors[half:], strict=True)
        vectors = [_shuffled(code, *pair, first) for pair in pairs for first in (0, LANES // 2)]
    return vectors


def _shuffled(code: Code, one: Value, other: Value, first: int) -> Value:
    """Half of two vectors, from a lane on, in turn."""
    lanes = [lane + part for lane in range(first, first + LANES // 2) for part in (0, LANES)]
    return code.shuffle_vector(one, other, ir.Constant(ir.VectorType(ir.IntType(32), LANES), lanes))


@compiled
def multiply(left: int, left_step: int, length: int, right: int, step: int, out: int, out_step: int) -> None:
    """AT_ONCE rows of the matrix product left @ right, at `out`; distances of rows in bytes.

    `length`: bytes of a row of `left`. Rows of `right` and `out` are `step` bytes long, whole vectors.
    """
    done = 0
    while done + PAIR * BYTES <= step:
        _multiply_pair(left, left_step, length, right + done, step, out + done, out_step)
        done += PAIR * BYTES
    if done < step:
        _multiply_one(left, left_step, length, right + done, step, out + done, out_step)


@compiled
def multiply_onto(
    start: int, start_step: int, left: int, left_step: int, length: int, right: int, step: int, out: int, out_step: int
) -> None:  # fmt: skip
    """The same added to the rows at `start`, which may be `out`."""
    done = 0
    while done + PAIR * BYTES <= step:
        _multiply_pair_onto(
            left, left_step, length, right + done, step, out + done, out_step, start + done, start_step
        )  # fmt: skip
        done += PAIR * BYTES
    if done < step:
        _multiply_one_onto(
            left, left_step, length, right + done, step, out + done, out_step, start + done, start_step
        )  # fmt: skip


def _product(
    code: Code, width: int, left: Value, left_step: Value, length: Value, right: Value, step: Value, out: Value,
    out_step: Value, begun: Vectors,
) -> None:  # fmt: skip
    """Rows of vectors `begun`, `width` each, and a matrix product, kept in registers until `out`."""
    before, loop, after = code.block, code.append_basic_block("depth"), code.append_basic_block("done")
    code.branch(loop)
    code.position_at_end(loop)
    at, factor_at = code.phi(WHOLE), code.phi(WHOLE)
    sums = [[code.phi(VECTOR) for _ in line] for line in begun]
    factors = [load(code, further(code, factor_at, BYTES, v)) for v in range(width)]
    place, totals = code.add(left, at), []
    for line in sums:
        number = load_alike(code, place)
        totals.append([fused(code, number, factor, total) for factor, total in zip(factors, line, strict=True)])
        place = code.add(place, left_step)
    grown = [(at, WHOLE(0), further(code, at, 4)), (factor_at, right, code.add(factor_at, step))]
    grown += zip(chain(*sums), chain(*begun), chain(*totals), strict=True)
    for phi, first, following in grown:
        phi.add_incoming(first, before)
        phi.add_incoming(following, loop)
    code.cbranch(code.icmp_signed("<", grown[0][2], length), loop, after)
    code.position_at_end(after)
    for t, line in enumerate(totals):
        for v, total in enumerate(line):
            store(code, total, further(code, further(code, out, out_step, t), BYTES, v))


def matrix_product(rows: int, width: int) -> tuple[Callable[..., None], Callable[..., None]]:
    """Routines that make so many rows of a matrix product, `width` vectors each, in registers: like `multiply`, and
    like `multiply_onto` with the start as the last of its arguments."""

    def product(
        code: Code, left: Value, left_step: Value, length: Value, right: Value, step: Value, out: Value, out_step: Value
    ) -> None:
        begun = [[constant(0)] * width] * rows
        _product(code, width, left, left_step, length, right, step, out, out_step, begun)

    def onto(
        code: Code, left: Value, left_step: Value, length: Value, right: Value, step: Value, out: Value,
        out_step: Value, start: Value, start_step: Value,
    ) -> None:  # fmt: skip
        begun = load_grid(code, start, start_step, WHOLE(BYTES), rows, width)
        _product(code, width, left, left_step, length, right, step, out, out_step, begun)

    return routine(product), routine(onto)


_multiply_pair, _multiply_pair_onto = matrix_product(AT_ONCE, PAIR)
_multiply_one, _multiply_one_onto = matrix_product(AT_ONCE, 1)
