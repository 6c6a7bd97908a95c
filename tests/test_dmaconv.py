"""DMAConv against the official operator's numbers and against a dense evaluation of its equations."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from pansharpen_cli.networks.dmaconv import DMAConv, InputNavigators, OutputNavigators, rename_official
from pansharpen_cli.networks.network import Frozen, Jointly, PerImage

VARIANTS = ["official", "paper"]
HALF = 0.5
"""By so much less are activities and thresholds than the paper's."""


class Routing(PerImage):
    """Per image, the thresholds replaced by `threshold` if there is one; keeps what it is asked for."""

    def __init__(self, threshold=None):
        self.threshold = threshold
        self.maps, self.values = {}, {}

    def __call__(self, name, reduce, *maps):
        value = super().__call__(name, reduce, *maps)
        if self.threshold is not None and name.endswith("threshold"):
            value = torch.full_like(value, self.threshold - HALF)
        self.maps[name], self.values[name] = maps, value
        return value


def operator(channels_in, channels_out, variant, seed=0):
    torch.manual_seed(seed)
    op = DMAConv(channels_in, channels_out, "op", variant=variant).double().eval()
    with torch.no_grad():
        for parameter in op.parameters():  # far enough from 0 for every mistake to show
            parameter.mul_(2)
    return op


def features(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def dense(op, x, variant, threshold=None):
    """The equations pixel by pixel for one image x (1, Ci, H, W): both branches everywhere, then a choice."""
    official = variant == "official"
    rows, cols = x.shape[2:]
    logits = F.conv2d(x, op.mask.weight, op.mask.bias, padding=1)
    soft = torch.sigmoid(torch.where(logits < 0, 0.01 * logits, logits) if official else logits)
    activity = soft.mean(1).flatten()  # (P,)
    if threshold is None:
        spread = activity.std(unbiased=True) if len(activity) > 1 else torch.tensor(0.0)
        threshold = activity.mean() + 2 * spread
    hard = (activity > threshold).double()
    masked = x * soft
    patches = F.unfold(masked, 3, padding=1)[0].T.reshape(rows * cols, -1, 9)  # (P, Ci, 9)
    centre = patches[:, :, 4]

    w1, b1 = op.focused_kernel()
    covers = F.conv2d(torch.ones(1, 1, rows, cols, dtype=x.dtype), torch.ones(1, 1, 3, 3, dtype=x.dtype), padding=1)
    c_in, c_out, taps = op.focused_gates(centre * covers.flatten()[:, None] if official else centre)
    focused = torch.einsum("oit,pi,pt,pit->po", w1, c_in, taps, patches)
    focused = (focused + b1) * c_out if official else focused * c_out + b1

    mean = ((1 - hard) @ centre) / ((1 - hard).sum() + 1e-6)
    u_in, u_out, u_taps = (gate[0] for gate in op.compact_gates(mean[None]))
    w0, b0 = op.compact_kernel()
    compact = torch.einsum("oit,i,o,t,pit->po", w0, u_in, u_out, u_taps, patches)
    compact = 1.5 * (1.25 * compact + b0) if official else compact + b0

    if not official:  # straight through, where the focused branch is known
        hard = hard + hard * (activity - activity.detach())
    out = hard[:, None] * focused + (1 - hard[:, None]) * compact
    return out.T.reshape(1, -1, rows, cols) + op.bias_map(x)


@pytest.mark.parametrize("case", ["h20w28", "h12w20b2"])
def test_matches_the_official_operator(golden, case):
    tensors = load_file(golden / "dmaconv_op.safetensors")
    op = DMAConv(16, 16, "op").eval()
    op.load_state_dict(rename_official({k[3:]: v for k, v in tensors.items() if k.startswith("sd.")}))
    routing = Routing()
    with torch.no_grad():
        y = op(tensors[f"in.{case}.x"], routing)
    assert (y - tensors[f"out.{case}.y"]).abs().max() <= 2e-5
    compact = routing.maps["op.mean"][1]
    assert torch.equal(1 - compact, tensors[f"mid.{case}.mask_hard"])
    torch.testing.assert_close(
        routing.values["op.threshold"][:, 0] + HALF, tensors[f"mid.{case}.threshold"], rtol=0, atol=1e-6
    )
    activity = tensors[f"mid.{case}.mask_soft"].mean(1, keepdim=True)
    torch.testing.assert_close(routing.maps["op.threshold"][0] + HALF, activity, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("channels", "count"), [(32, 46_946), (64, 183_474), (128, 725_330)])
def test_parameter_count(channels, count):
    assert sum(p.numel() for p in DMAConv(channels, channels, "op").parameters()) == count


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("channels_out", [6, 5])
@pytest.mark.parametrize("threshold", [None, 0.55, float("inf"), -float("inf")])
def test_equals_the_dense_equations_with_all_gradients(variant, channels_out, threshold):
    op = operator(6, channels_out, variant)
    x = features(2, 6, 9, 14).requires_grad_()
    leaves = [x, *op.parameters()]
    weights = features(2, channels_out, 9, 14, seed=2)
    ours = op(x, Routing(threshold))
    expected = torch.cat([dense(op, image[None], variant, threshold) for image in x])
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-12)
    gradients = torch.autograd.grad((ours * weights).sum(), leaves)
    truth = torch.autograd.grad((expected * weights).sum(), leaves, materialize_grads=True)
    for gradient, true in zip(gradients, truth, strict=True):
        torch.testing.assert_close(gradient, true, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("variant", VARIANTS)
def test_gradients_reach_every_parameter(variant):
    op = operator(8, 8, variant)
    op(features(1, 8, 16, 16), PerImage()).square().sum().backward()
    assert all(parameter.grad.any() for parameter in op.parameters())


@pytest.mark.parametrize("variant", VARIANTS)
def test_one_pixel_is_compact(variant):
    op = operator(6, 6, variant)
    x = features(1, 6, 1, 1).requires_grad_()
    routing = Routing()
    y = op(x, routing)
    assert routing.maps["op.mean"][1].item() == 1
    assert routing.values["op.threshold"].item() == routing.maps["op.threshold"][0].item()
    torch.testing.assert_close(y, dense(op, x, variant), rtol=0, atol=1e-12)
    assert torch.autograd.grad(y.sum(), x)[0].isfinite().all()


@pytest.mark.parametrize("variant", VARIANTS)
def test_constant_activity_is_all_compact(variant):
    op = operator(6, 6, variant)
    with torch.no_grad():
        op.mask.weight.zero_()
        op.mask.bias.zero_()  # every soft mask is 1/2, without rounding
    routing = Routing()
    x = features(1, 6, 8, 8)
    y = op(x, routing)
    assert routing.maps["op.mean"][1].all()
    torch.testing.assert_close(y, dense(op, x, variant, float("inf")), rtol=0, atol=1e-12)


def test_images_of_a_batch_do_not_meet():
    op = operator(6, 6, "official")
    x = features(3, 6, 8, 12)
    apart = torch.cat([op(image[None], PerImage()) for image in x])
    torch.testing.assert_close(op(x, PerImage()), apart, rtol=0, atol=1e-12)


def test_joint_values_are_those_of_all_pixels():
    op = operator(6, 6, "official")
    x = features(3, 6, 8, 12)
    jointly = Jointly()
    together = op(x, jointly)
    routing = Routing()
    op(x, routing)
    activity = routing.maps["op.threshold"][0].flatten()
    threshold = activity.mean() + 2 * activity.std()
    torch.testing.assert_close(jointly.statistics["op.threshold"], threshold.view(1, 1))
    masked = routing.maps["op.mean"][0].movedim(1, 0).flatten(1)
    mean = masked[:, activity <= threshold].mean(1)
    torch.testing.assert_close(jointly.statistics["op.mean"], mean[None], rtol=1e-7, atol=1e-8)
    assert torch.equal(op(x, Frozen(jointly.statistics)), together)


def test_a_fifth_at_most_is_focused():
    """Cantelli's inequality: at most 1 / (1 + 2²) of any distribution lies 2 deviations above its mean."""
    op = operator(6, 6, "official")
    for seed in range(20):
        routing = Routing()
        op(features(1, 6, 10, 10, seed=seed) ** 5, routing)
        assert 0 <= 1 - routing.maps["op.mean"][1].mean() <= 0.2


def test_routing_stays_in_single_precision_under_autocast():
    op = operator(6, 6, "official").float()
    x = features(1, 6, 16, 16).float()
    routing = Routing()
    with torch.autocast("cpu", torch.bfloat16):
        y = op(x, routing)
    assert routing.maps["op.threshold"][0].dtype == routing.values["op.threshold"].dtype == torch.float32
    assert y.isfinite().all()


def test_reads_three_pixels_around():
    op = operator(6, 6, "official")
    statistics = Jointly()
    x = features(1, 6, 15, 15)
    op(x, statistics)
    x[:, :, 7, 7] = torch.nan
    y = op(x, Frozen(statistics.statistics))
    expected = torch.zeros(15, 15, dtype=torch.bool)
    expected[4:11, 4:11] = True
    assert torch.equal(y.isnan().any(dim=(0, 1)), expected)


def test_low_rank_kernels_are_two_convolutions_in_a_row():
    x = features(1, 4, 7, 8)
    kernel = OutputNavigators(4, 5).double()
    expected = 0
    for point, depth in zip(kernel.points, kernel.navigators, strict=True):
        expected = expected + F.conv2d(F.conv2d(x, point[:, :, None, None]), depth.view(5, 1, 3, 3), groups=5)
    torch.testing.assert_close(F.conv2d(x, kernel()[0].view(5, 4, 3, 3)), expected)

    kernel = InputNavigators(4, 5).double()
    expected = 0
    for point, depth in zip(kernel.points, kernel.navigators, strict=True):
        expected = expected + F.conv2d(F.conv2d(x, depth.view(4, 1, 3, 3), groups=4), point[:, :, None, None])
    torch.testing.assert_close(F.conv2d(x, kernel()[0].view(5, 4, 3, 3)), expected)


def test_refuses_an_unknown_variant():
    with pytest.raises(ValueError, match="official, paper"):
        DMAConv(4, 4, "op", variant="final")


def test_a_transition_has_no_step():
    """Compact at the threshold, focused from its end on, and in between a mixture of the two."""
    torch.manual_seed(0)
    hard = operator(6, 6, "official")
    soft = DMAConv(6, 6, "op", transition=1.0).double().eval()
    soft.load_state_dict(hard.state_dict())
    x = features(1, 6, 24, 28)
    with torch.no_grad():
        routing = Routing()
        found = soft(x, routing)
        activity, threshold, deviation = (routing.maps["op.threshold"][0], *(
            routing.values[f"op.{name}"][..., None, None] for name in ("threshold", "deviation")
        ))  # fmt: skip
        mean = Frozen({"op.mean": routing.values["op.mean"], "op.threshold": torch.full((1, 1), float("inf"))})
        compact = hard(x, mean)
        mean.statistics["op.threshold"] = torch.full((1, 1), -float("inf"))
        focused = hard(x, mean)
    part = ((activity - threshold) / deviation).clamp(0, 1)
    assert ((part > 0) & (part < 1)).any()
    assert (part == 0).any()
    torch.testing.assert_close(found, compact + part * (focused - compact))


@pytest.mark.parametrize("transition", [0.0, 1.0])
def test_with_a_transition_rounding_decides_nothing(transition):
    """A pixel on the threshold itself, moved by less than single precision can tell."""
    op = DMAConv(4, 4, "op", transition=transition).eval()
    x = features(1, 4, 20, 20).float()
    routing = Routing()
    with torch.no_grad():
        op(x, routing)
        frozen = {name: value.clone() for name, value in routing.values.items()}
        activity = routing.maps["op.threshold"][0].flatten()
        frozen["op.threshold"][:] = activity.sort().values[-9]
        on_it = op(x, Frozen(frozen))
        frozen["op.threshold"] -= 1e-8
        below = op(x, Frozen(frozen))
    step = (on_it - below).abs().max()
    assert step < 1e-5 if transition else step > 1e-3
