"""DMAConv's mask and its focused pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from pansharpen_cli.networks.kernels.images import TAPS, dense, empty, power, quotient, within
from pansharpen_cli.networks.kernels.products import DOWN, FEWEST, UP, UP_WEIGHTS, halves, product

MOST_PROGRAMS = 1024
"""Those that take turns in focused pixels."""


def weigh(image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """`image` (N, C, H, W) times sigmoid(mask), and at every pixel the mean of sigmoid(mask) - 1/2, (N, 1, H, W)."""
    image, mask = dense(image), dense(mask)
    count, channels, rows, cols = image.shape
    weighed, activity = torch.empty_like(image), empty(image, (count, 1, rows, cols))
    pixels, at_once = count * rows * cols, 32
    wide = power(channels)
    _weigh[(quotient(pixels, at_once),)](image, mask, weighed, activity, pixels, channels, at_once, wide)
    return weighed, activity


def overwrite(
    out: Tensor, image: Tensor, focus: Tensor, gates: Sequence[nn.Linear], weight: Tensor, bias: Tensor, *,
    counts_windows: bool, gates_bias: bool,
) -> None:  # fmt: skip
    """What `DMAConv` does to focused pixels: they are brought to `out` (N, Co, H, W), channels last, as far as `focus`
    (N, 1, H, W) tells, by a kernel `weight` (Co, Ci, 9) that the pixels of `image` (N, Ci, H, W) modulate.

    `gates`: the two hidden layers, then those of the inputs, outputs and taps.
    """
    image, focus = dense(image), focus.contiguous()
    count, inputs, rows, cols = image.shape
    pixels, hidden, outputs = count * rows * cols, gates[0].out_features, out.shape[1]
    found = torch.empty(pixels, dtype=torch.int32, device=image.device)
    how_many = torch.zeros(1, dtype=torch.int32, device=image.device)
    at_once = 1024
    _find[(quotient(pixels, at_once),)](focus, found, how_many, pixels, at_once)
    at_once = 32
    inner, wide = (max(FEWEST, power(channels)) for channels in (hidden, outputs))
    _overwrite[(min(MOST_PROGRAMS, quotient(pixels, at_once)),)](
        out, image, focus, found, how_many, *(values for gate in gates for values in (gate.weight, gate.bias)),
        weight.permute(2, 1, 0).contiguous(), bias, rows, cols,
        inputs, hidden, outputs, counts_windows, gates_bias, at_once, FEWEST, inner, wide,
    )  # fmt: skip


@triton.jit(do_not_specialize=["pixels"])
def _weigh(image, mask, weighed, activity, pixels, channels: tl.constexpr, at_once: tl.constexpr, wide: tl.constexpr):
    pixel, channel = tl.program_id(0) * at_once + tl.arange(0, at_once), tl.arange(0, wide)
    known = (pixel < pixels)[:, None] & (channel < channels)[None, :]
    place = pixel.to(tl.int64)[:, None] * channels + channel[None, :]
    half = _half_tanh(tl.load(mask + place, mask=known, other=0.0))
    tl.store(weighed + place, tl.load(image + place, mask=known) * (half + 0.5), mask=known)
    tl.store(activity + pixel, tl.sum(half, axis=1) / channels, mask=pixel < pixels)


@triton.jit
def _half_tanh(values):
    """tanh(x / 2) / 2, which is sigmoid(x) - 1/2 with all its digits: near 0 by a polynomial of least squares."""
    size = tl.abs(values) * 0.5
    square = tl.minimum(size * size, 0.36)
    series = 0.02074749395 + square * -0.0058453896
    series = 0.13331663695 + square * (-0.05376675837 + square * series)
    near = size * (0.99999999743 + square * (-0.33333282105 + square * series))
    far = 1 - 2 / (tl.exp(2 * tl.minimum(size, 20.0, tl.PropagateNan.ALL)) + 1)
    half = 0.5 * tl.where(size < 0.6, near, far)
    return tl.where(values < 0, -half, half)


@triton.jit(do_not_specialize=["pixels"])
def _find(focus, found, how_many, pixels, at_once: tl.constexpr):
    """The numbers of the focused pixels, in any order."""
    pixel = tl.program_id(0) * at_once + tl.arange(0, at_once)
    focused = (tl.load(focus + pixel, mask=pixel < pixels, other=0.0) > 0).to(tl.int32)
    before = tl.atomic_add(how_many, tl.sum(focused))
    tl.store(found + before + tl.cumsum(focused) - 1, pixel, mask=focused > 0)


@triton.jit(do_not_specialize=["rows", "cols"])
def _overwrite(
    out, image, focus, found, how_many, weight1, bias1, weight2, bias2, weight_in, bias_in, weight_out, bias_out,
    weight_taps, bias_taps, weight, bias, rows, cols,
    inputs: tl.constexpr, hidden: tl.constexpr, outputs: tl.constexpr, counts_windows: tl.constexpr,
    gates_bias: tl.constexpr, at_once: tl.constexpr, deep: tl.constexpr, inner: tl.constexpr, wide: tl.constexpr,
):  # fmt: skip
    """Programs take turns in the focused pixels, `at_once` of them; of the inputs `deep` at a time."""
    one, node, channel = tl.arange(0, deep), tl.arange(0, inner), tl.arange(0, wide)
    many = tl.load(how_many)
    for block in range(tl.program_id(0), tl.cdiv(many, at_once), tl.num_programs(0)):
        number = block * at_once + tl.arange(0, at_once)
        here = number < many
        pixel = tl.load(found + number, mask=here, other=0)
        row, col = pixel // cols % rows, pixel % cols
        sources = image + pixel.to(tl.int64)[:, None] * inputs
        windows = (_windows(row, rows) * _windows(col, cols)).to(tl.float32)

        nodes = tl.zeros((at_once, inner), tl.float32)
        for first in range(0, inputs, deep):
            source = first + one
            centre = tl.load(sources + source[None, :], mask=here[:, None] & (source < inputs)[None, :], other=0.0)
            known = (source < inputs)[:, None] & (node < hidden)[None, :]
            nodes = _times(centre, weight1 + node[None, :] * inputs + source[:, None], known, nodes)
        if counts_windows:  # here, as half precision has less room for nine times the pixel
            nodes *= windows[:, None]
        nodes = _rectified(nodes + tl.load(bias1 + node, mask=node < hidden, other=0.0)[None, :])
        nodes = _rectified(_linear(nodes, weight2, bias2, hidden, hidden, node, node))
        gates = tl.sigmoid(_linear(nodes, weight_taps, bias_taps, hidden, TAPS, node, tl.arange(0, 16)))

        total = tl.zeros((at_once, wide), tl.float32)
        for first in range(0, inputs, deep):
            source = first + one
            gate = tl.sigmoid(_linear(nodes, weight_in, bias_in, hidden, inputs, node, source))
            for tap in range(TAPS):
                i, j = tap // 3 - 1, tap % 3 - 1
                inside = here & within(row + i, rows) & within(col + j, cols)
                values = tl.load(
                    sources + (i * cols + j) * inputs + source[None, :],
                    mask=inside[:, None] & (source < inputs)[None, :], other=0.0,
                )  # fmt: skip
                tap_gate = tl.sum(tl.where(tl.arange(0, 16)[None, :] == tap, gates, 0.0), axis=1)
                known = (source < inputs)[:, None] & (channel < outputs)[None, :]
                those = weight + (tap * inputs + source[:, None]) * outputs + channel[None, :]
                total = _times(values * tap_gate[:, None] * gate, those, known, total)
        gate = tl.sigmoid(_linear(nodes, weight_out, bias_out, hidden, outputs, node, channel))
        biases = tl.load(bias + channel, mask=channel < outputs, other=0.0)[None, :]
        values = (total + biases) * gate if gates_bias else total * gate + biases

        known = here[:, None] & (channel < outputs)[None, :]
        into = out + pixel.to(tl.int64)[:, None] * outputs + channel[None, :]
        before = tl.load(into, mask=known, other=0.0)
        share = tl.load(focus + pixel, mask=here, other=0.0)
        tl.store(into, before + share[:, None] * (values - before), mask=known)


@triton.jit
def _rectified(values):
    """ReLU. What became NaN, as there is no room for it, stays NaN: the GPU's own maximum would make it 0."""
    return tl.maximum(values, 0.0, tl.PropagateNan.ALL)


@triton.jit
def _linear(values, weight, bias, inputs: tl.constexpr, outputs, one, channel):
    """Values (pixels, inputs) by a layer's weight (outputs, inputs)."""
    known = (one < inputs)[:, None] & (channel < outputs)[None, :]
    total = tl.zeros((values.shape[0], channel.shape[0]), tl.float32)
    total = _times(values, weight + channel[None, :] * inputs + one[:, None], known, total)
    return total + tl.load(bias + channel, mask=channel < outputs, other=0.0)[None, :]


@triton.jit
def _times(values, weights, known, total):
    """`total` and the product of values (pixels, inputs) and the weights (inputs, outputs) there."""
    large, small = halves(values * UP)
    weighty, weightless = halves(tl.load(weights, mask=known, other=0.0) * UP_WEIGHTS)
    return total + product(large, small, weighty, weightless) * DOWN


@triton.jit
def _windows(position, size):
    """How many of the 3-pixel windows centred on an axis of `size` pixels cover each position."""
    return 3 - (position == 0).to(tl.int32) - (position == size - 1).to(tl.int32)
