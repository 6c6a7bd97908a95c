"""Operators of torch that the exporter does not know, as sub-graphs of ONNX's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnx
import onnxscript
import torch

op: Any = onnxscript.opset20
DOUBLE = onnx.TensorProto.DOUBLE
STEPS = 32
"""Each doubles the digits; what is left of a condition of 1e6 after 20 is squared away by the rest."""


def solve(matrix: Any, right: Any, left: bool = True, check_errors: bool = False) -> Any:
    """torch.linalg.solve for symmetric positive definite matrices (N, B, B) and right sides (N, B, K), of any B.

    ONNX has no solver, and an elimination would need to know B. Newton's iteration X <- 2 X - X A X for the inverse
    (Ben-Israel and Cohen 1966, SIAM J. Numer. Anal. 3(3)) converges from I / |A|, here in double precision.
    """
    wide = op.Cast(matrix, to=DOUBLE)
    rows, cols = op.Constant(value_ints=[1]), op.Constant(value_ints=[2])
    norm = op.ReduceMax(op.ReduceSum(op.Abs(wide), cols, keepdims=1), rows, keepdims=1)
    bands = op.Gather(op.Shape(wide), rows)
    unit = op.EyeLike(op.ConstantOfShape(op.Concat(bands, bands, axis=0)), dtype=DOUBLE)
    two = op.Constant(value=onnx.helper.make_tensor("two", DOUBLE, [], [2.0]))
    inverse = op.Div(unit, norm)
    for _ in range(STEPS):
        inverse = op.Sub(op.Mul(two, inverse), op.MatMul(inverse, op.MatMul(wide, inverse)))
    return op.CastLike(op.MatMul(inverse, op.Cast(right, to=DOUBLE)), right)


def _solve_with_factors(matrix: Any, right: Any, left: bool = True, check_errors: bool = False) -> Any:
    """As torch has it after decomposition: the solution, and factors that nobody reads."""
    return solve(matrix, right), None, None, None


TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.linalg_solve.default: solve,
    torch.ops.aten._linalg_solve_ex.default: _solve_with_factors,
}
