"""DMAConv, the dual mask-adaptive convolution (arXiv 2512.08331), and the residual block made of it.

A soft mask weighs the input; its mean over the channels (here less 1/2) says how active a pixel is. The few most active
pixels are *focused*: each modulates the kernel by its own gates. All the others are *compact*: they share one kernel,
modulated by their mean. A bias map from the unmasked input is added to both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Literal, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pansharpen_cli.networks.layers import SteadyConv2d, neighbours, on_gpu, steady_conv2d
from pansharpen_cli.networks.network import Pooling, pixel_mean

ALPHA = 2.0
"""A pixel is focused if its activity is more than this many standard deviations above the mean."""
SLOPE = 0.01
"""Of every LeakyReLU here (torch's default)."""
DROPOUT = 0.3
TINY = 1e-9
"""Added to the width of a transition: where all pixels are alike there is none."""
FEWEST = 16
"""Rows that a matrix product needs on the CPU for its rows not to depend on how many they are."""
PAIRS = 2
"""Coefficient/navigator pairs of each low-rank kernel."""

VariantName = Literal["official", "paper"]


class OutputNavigators(nn.Module):
    """Low-rank 3x3 kernel, its spatial patterns (navigators) per output channel: a 1x1, then a depth-wise convolution.

    Called, it returns weight (Co, Ci, 9), W[o, i, t] = sum over n of P_n[o, i] N_n[o, t], and the bias (Co) as the
    authors' code combines the two: sum over n of p_n[o] + m_n[o] * sum over i of P_n[o, i].
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.points = _uniform(channels_in, PAIRS, channels_out, channels_in)
        self.point_biases = _uniform(channels_in, PAIRS, channels_out)
        self.navigators = _uniform(9, PAIRS, channels_out, 9)
        self.navigator_biases = _uniform(9, PAIRS, channels_out)

    def forward(self) -> tuple[Tensor, Tensor]:
        biases = self.point_biases + self.navigator_biases * self.points.sum(2)
        return torch.einsum("noi,not->oit", self.points, self.navigators), biases.sum(0)


class InputNavigators(nn.Module):
    """Low-rank 3x3 kernel as the paper writes it: navigators per input channel, W[o, i, t] = sum P_n[o, i] N_n[i, t].

    Called, it returns weight (Co, Ci, 9) and a free bias (Co).
    """

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.points = _uniform(channels_in, PAIRS, channels_out, channels_in)
        self.navigators = _uniform(9, PAIRS, channels_in, 9)
        self.bias = _uniform(channels_in, channels_out)

    def forward(self) -> tuple[Tensor, Tensor]:
        return torch.einsum("noi,nit->oit", self.points, self.navigators), self.bias


@dataclass(frozen=True)
class Variant:
    """What the authors' code and the text of the paper do differently.

    `mask_slope`: LeakyReLU before the mask's sigmoid (1 is none). `counts_windows`: the focused gates see a pixel times
    the number of 3x3 windows that cover it. `weight_gain`, `bias_gain`: constants on the compact kernel and its bias.
    `gates_bias`: the focused output gate scales the bias too. `straight_through`: the mask learns from the difference
    that focusing makes.
    """

    kernel: type[OutputNavigators] | type[InputNavigators]
    mask_slope: float
    counts_windows: bool
    weight_gain: float
    bias_gain: float
    gates_bias: bool
    straight_through: bool


VARIANTS: dict[VariantName, Variant] = {
    # The gains: the code adds 1 to gates that are sigmoid(0) there, so 1.5 * (1.25 * conv + bias).
    "official": Variant(OutputNavigators, SLOPE, True, 1.5 * 1.25, 1.5, True, False),
    "paper": Variant(InputNavigators, 1.0, False, 1.0, 1.0, False, True),
}


class Gates(nn.Module):
    """Factors in (0, 1) for the three axes of a 3x3 kernel, each from its own linear layer.

    Takes features (M, K); returns (M, Ci), (M, Co) and (M, 9).
    """

    def __init__(self, features: int, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.channels_in = nn.Linear(features, channels_in)
        self.channels_out = nn.Linear(features, channels_out)
        self.taps = nn.Linear(features, 9)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return (
            torch.sigmoid(self.channels_in(features)),
            torch.sigmoid(self.channels_out(features)),
            torch.sigmoid(self.taps(features)),
        )


class DMAConv(nn.Module):
    """Dual mask-adaptive 3x3 convolution: x (N, Ci, H, W) -> (N, Co, H, W), zero padding.

    As in the paper a pixel is compact or focused, and rounding may decide which; with a `transition` it passes from the
    one to the other within so many standard deviations above the threshold, so that rounding changes next to nothing.
    Its global values are called `name`.threshold, (N, 1), `name`.mean, (N, Ci), and with a transition
    `name`.deviation, (N, 1).
    """

    def __init__(
        self, channels_in: int, channels_out: int, name: str, *, variant: VariantName = "official",
        transition: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"variant is one of {', '.join(VARIANTS)}, not {variant!r}")
        if transition < 0:
            raise ValueError(f"a transition is at least 0 standard deviations wide, not {transition}")
        self.name, self.transition = name, transition
        self.variant = VARIANTS[variant]
        hidden = channels_in // 2
        self.mask = SteadyConv2d(channels_in, channels_in, 3, padding=1, slope=self.variant.mask_slope)
        self.focused_gates = nn.Sequential(
            nn.Linear(channels_in, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            Gates(hidden, channels_in, channels_out),
        )
        self.focused_kernel = self.variant.kernel(channels_in, channels_out)
        self.compact_gates = Gates(channels_in, channels_in, channels_out)
        self.compact_kernel = self.variant.kernel(channels_in, channels_out)
        self.bias_map = nn.Sequential(
            SteadyConv2d(channels_in, channels_out, 3, padding=1, slope=SLOPE),
            nn.Identity(),
            nn.Dropout2d(DROPOUT),
            SteadyConv2d(channels_out, channels_out, 3, padding=1, slope=SLOPE),
            nn.Identity(),
            nn.Dropout2d(DROPOUT),
            SteadyConv2d(channels_out, channels_out, 3, padding=1),
        )

    def forward(self, x: Tensor, pooling: Pooling) -> Tensor:
        masked, activity = self._weigh(x)
        focus = self._focus(activity, pooling)
        mean = pooling(f"{self.name}.mean", _masked_mean, masked, (1 - focus).to(masked.dtype))
        out = self._filter(masked, mean.to(masked.dtype), focus, activity)
        *first, last = self.bias_map
        for layer in first:
            x = layer(x)
        result: Tensor = last(x, out)
        return result

    def _weigh(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """x times its mask, X', and how active each pixel is, (N, 1, H, W)."""
        if kernels := on_gpu(x):
            return kernels.weigh(x, self.mask(x))  # type: ignore[no-any-return]
        # A comparison decides a pixel's kernel. Many masks are all but constant, 1/2: what they are less 1/2, which is
        # sigmoid(x) - 1/2 = tanh(x / 2) / 2, has more digits, and half precision would have too few.
        half = torch.tanh(self.mask(x) / 2) / 2
        activity = half.mean(1, keepdim=True, dtype=torch.promote_types(half.dtype, torch.float32))
        return x * (half + 0.5), activity

    def _filter(self, masked: Tensor, mean: Tensor, focus: Tensor, activity: Tensor) -> Tensor:
        """X' (N, Ci, H, W) to (N, Co, H, W), each pixel by its kernel."""
        compact, bias = self._compact(mean)
        kernels = on_gpu(masked)
        if not kernels:
            padded = F.pad(masked, (1, 1, 1, 1))
            out = _convolve(padded, compact, bias)
            self._overwrite(out, padded, focus, activity)
            return out
        images = torch.split(masked, len(masked) // len(compact))
        outs = [kernels.convolve(image, kernel, bias, 1) for image, kernel in zip(images, compact, strict=True)]
        out = outs[0] if len(outs) == 1 else torch.cat(outs).contiguous(memory_format=torch.channels_last)
        kernels.overwrite(
            out, masked, focus, self._gates(), *self.focused_kernel(),
            counts_windows=self.variant.counts_windows, gates_bias=self.variant.gates_bias,
        )  # fmt: skip
        return out

    def _focus(self, activity: Tensor, pooling: Pooling) -> Tensor:
        """How far each pixel is focused, (N, 1, H, W): 0 is compact."""
        threshold = pooling(f"{self.name}.threshold", _threshold, activity.detach())[:, :, None, None]
        if not self.transition:
            return (activity > threshold).to(activity.dtype)
        deviation = pooling(f"{self.name}.deviation", _deviation, activity.detach())[:, :, None, None]
        return ((activity - threshold) / (self.transition * deviation + TINY)).clamp(0, 1)

    def _compact(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        """The kernels of the compact pixels, (N or 1, Co, Ci, 3, 3), which `mean` modulates, and bias (eq. 10, W0')."""
        gate_in, gate_out, gate_taps = self.compact_gates(mean)
        weight, bias = self.compact_kernel()
        gates = gate_out[:, :, None, None] * gate_in[:, None, :, None] * gate_taps[:, None, None, :]
        kernels = (self.variant.weight_gain * weight * gates).view(*gates.shape[:3], 3, 3)
        return kernels, self.variant.bias_gain * bias

    def _gates(self) -> list[nn.Linear]:
        """The layers of the focused pixels' gates."""
        first, _, second, _, last = self.focused_gates
        gates = (first, second, last.channels_in, last.channels_out, last.taps)
        return [cast(nn.Linear, gate) for gate in gates]

    def _overwrite(self, out: Tensor, padded: Tensor, focus: Tensor, activity: Tensor) -> None:
        """The focused pixels of `out`, by kernels that each pixel modulates itself (eq. 10, W1')."""
        image, row, col = focus[:, 0].nonzero(as_tuple=True)
        tap = torch.arange(3, device=out.device)
        channels_last = padded.permute(0, 2, 3, 1)
        patches = channels_last[image[:, None, None], row[:, None, None] + tap[:, None], col[:, None, None] + tap]
        patches = patches.flatten(1, 2)  # (n, 9, Ci)
        centre = patches[:, 4]
        if self.variant.counts_windows:
            centre = centre * (_windows(row, out.shape[2]) * _windows(col, out.shape[3]))[:, None]
        patches, centre = (_enough(rows) for rows in (patches, centre))
        gate_in, gate_out, gate_taps = self.focused_gates(centre)
        weight, bias = self.focused_kernel()
        modulated = patches * gate_taps[:, :, None] * gate_in[:, None, :]
        values = modulated.flatten(1) @ weight.permute(2, 1, 0).flatten(0, 1) * gate_out
        values = (values + (bias * gate_out if self.variant.gates_bias else bias))[: row.shape[0]]

        pixels = out.permute(0, 2, 3, 1)
        if self.transition:
            values = torch.lerp(pixels[image, row, col], values, focus[image, :, row, col].to(values.dtype))
        elif self.variant.straight_through:  # O = m O1 + (1 - m) O0 with dm/d(activity) = 1, the threshold constant
            step = activity[image, :, row, col]
            values = values + (step - step.detach()) * (values - pixels[image, row, col]).detach()
        pixels[image, row, col] = values.to(out.dtype)


class DMABlock(nn.Module):
    """Residual block x + DMAConv(LeakyReLU(DMAConv(x))), (N, width, H, W) -> the same."""

    def __init__(
        self, width: int, name: str, *, variant: VariantName = "official", transition: float = 0.0
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv1, self.conv2 = (
            DMAConv(width, width, f"{name}.conv{i}", variant=variant, transition=transition) for i in (1, 2)
        )

    def forward(self, x: Tensor, pooling: Pooling) -> Tensor:
        details: Tensor = self.conv2(F.leaky_relu(self.conv1(x, pooling), SLOPE), pooling)
        return x + details


def rename_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """`state` with the parameters of every official DMAConv in it named and shaped as ours; others pass unchanged."""
    renamed: dict[str, Tensor] = {}
    pairs: dict[str, list[Tensor]] = {}
    for name, value in state.items():
        pair = re.fullmatch(r"(.*\b)(point|depth)(_conv)?_\d\.(weight|bias)", name)
        if pair:  # theirs are separate convolutions, in order; ours are stacked
            kernel = "compact_kernel" if pair[3] else "focused_kernel"
            ours = f"{pair[1]}{kernel}.{_PAIR_NAMES[pair[2], pair[4]]}"
            pairs.setdefault(ours, []).append(value.flatten(1) if value.ndim > 1 else value)
        else:  # their 1x1 convolutions of single pixels are our linear layers
            renamed[_rename(name)] = value.flatten(1) if "atw_generator" in name and value.ndim > 1 else value
    return renamed | {name: torch.stack(values) for name, values in pairs.items()}


_PAIR_NAMES = {
    ("point", "weight"): "points",
    ("point", "bias"): "point_biases",
    ("depth", "weight"): "navigators",
    ("depth", "bias"): "navigator_biases",
}
_OFFICIAL_NAMES = {
    "mask_generator.conv": "mask",
    "atw_generator.fc1": "focused_gates.0",
    "atw_generator.fc2": "focused_gates.2",
    "atw_generator.fc_cin": "focused_gates.4.channels_in",
    "atw_generator.fc_cout": "focused_gates.4.channels_out",
    "atw_generator.fc_area": "focused_gates.4.taps",
    "atw_cin.0": "compact_gates.channels_in",
    "atw_cout.0": "compact_gates.channels_out",
    "atw_area.0": "compact_gates.taps",
    "bias_generator": "bias_map",
}


def _rename(name: str) -> str:
    for official, ours in _OFFICIAL_NAMES.items():
        if re.search(rf"\b{re.escape(official)}\.", name):
            return name.replace(official, ours)
    return name


def _uniform(fan_in: int, *shape: int) -> nn.Parameter:
    """Initial values as torch gives a convolution's weight and bias."""
    bound = fan_in**-0.5
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))


def _threshold(activity: Tensor) -> Tensor:
    """Mean + ALPHA standard deviations of (N, 1, P), as (N, 1)."""
    return pixel_mean(activity) + ALPHA * _deviation(activity)


def _deviation(activity: Tensor) -> Tensor:
    """Unbiased standard deviation of (N, 1, P), as (N, 1); 0 of a single pixel."""
    return activity.double().std(2, correction=min(1, activity.shape[2] - 1)).to(activity.dtype)


def _masked_mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean of x (N, C, P) where mask (N, 1, P) is 1, as (N, C); 0 where it never is."""
    sums, count = (pixels.double().sum(2) for pixels in (x * mask, mask))
    return (sums / (count + 1e-6)).to(torch.promote_types(x.dtype, torch.float32))


def _convolve(padded: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`padded` (N, Ci, H + 2, W + 2) by weight (1, Co, Ci, 3, 3) for all images or (N, Co, Ci, 3, 3), one for each."""
    if weight.shape[0] == 1:
        return steady_conv2d(padded, weight[0], bias, padding=0)
    images, _, rows, cols = padded.shape
    if torch.compiler.is_exporting():  # ONNX wants to know how many groups a convolution has
        taps = zip(weight.flatten(3).unbind(3), neighbours(padded, 3), strict=True)
        total = reduce(torch.add, (tap @ view.flatten(2) for tap, view in taps))
        return (total + bias[:, None]).view(images, -1, rows - 2, cols - 2)
    out = F.conv2d(padded.flatten(0, 1), weight.flatten(0, 1), bias.repeat(images), groups=images)
    return out.view(images, -1, rows - 2, cols - 2)


def _enough(rows: Tensor) -> Tensor:
    """`rows`, and as many of zeros as make them enough."""
    return rows if torch.compiler.is_compiling() else torch.cat([rows, rows.new_zeros(FEWEST, *rows.shape[1:])])


def _windows(position: Tensor, size: int) -> Tensor:
    """How many of the 3-pixel windows centred on an axis of `size` pixels cover each position."""
    return 3 - (position == 0).int() - (position == size - 1).int()
