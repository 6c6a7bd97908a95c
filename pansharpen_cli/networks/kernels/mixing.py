"""PreMix's exchange of features."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from pansharpen_cli.networks.kernels.images import dense, quotient


def exchange(
    pair: tuple[Tensor, Tensor], relation: Tensor, threshold: Tensor, steepness: float,
    added: tuple[Tensor, Tensor] | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """As `loops.exchange`."""
    ms, pan, relation, *others = (dense(image) for image in (*pair, relation, *(added or pair)))
    at_once = 1024
    _exchange[(quotient(ms.numel(), at_once),)](
        ms, pan, relation, *others, threshold, steepness, ms.numel(), added is not None, at_once
    )
    return ms, pan


@triton.jit(do_not_specialize=["steepness"])
def _exchange(
    ms, pan, relation, ms_added, pan_added, threshold, steepness, size, adds: tl.constexpr, at_once: tl.constexpr
):
    place = tl.program_id(0).to(tl.int64) * at_once + tl.arange(0, at_once)
    here = place < size
    # NaN stays NaN: it comes of values for which a convolution has no room
    positive = tl.maximum(tl.load(relation + place, mask=here), 0.0, tl.PropagateNan.ALL)
    decay = tl.exp(-2 * tl.minimum(positive, 6.0, tl.PropagateNan.ALL))
    mask = tl.sigmoid(steepness * ((1 - decay) / (1 + decay) - tl.load(threshold)))
    first, second = tl.load(ms + place, mask=here), tl.load(pan + place, mask=here)
    exchanged = mask * (second - first)
    first, second = first + exchanged, second - exchanged
    if adds:
        first += tl.load(ms_added + place, mask=here)
        second += tl.load(pan_added + place, mask=here)
    tl.store(ms + place, first, mask=here)
    tl.store(pan + place, second, mask=here)
