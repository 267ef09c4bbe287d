"""Denoise of POS-ISP: non-local means whose distances have an epsilon under the root, so that equal patches differ too.

It departs from `denoise` in four ways: d = sqrt(D + 1e-8), where D is the sum of the 25 squared differences of a patch;
the pixel itself has this distance too, so that its weight is exp(-1e-4/h') and not 1; patches are compared on the luma
of the image clipped to [0, 1], while the averaged colours are not clipped; the result is clipped.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from adaptiveisp.isp.modules.denoise import (
    EPSILON,
    PATCH_RADIUS,
    SEARCH_RADIUS,
    box_sum,
    half_offsets,
    strengths,
    strips,
    window,
    wrap_pad,
)
from adaptiveisp.types import Image, ParamTensor
from adaptiveisp.utils.color import LUMA_BT601, weighted_channel

ROOT_EPSILON = 1e-8
"""Added to D before the root is taken, whose slope is then finite at 0."""
PAD = 2 * SEARCH_RADIUS + PATCH_RADIUS
"""Pixels that a weight at the far end of a shift reaches outside of the image."""


def strength(params: Sequence[float]) -> list[float]:
    """h' for the kernel."""
    return [params[0] + EPSILON]


def denoise(image: Image, params: ParamTensor) -> Image:
    """Σ_o w_o(p)·x(p+o) / Σ_o w_o(p) over 11x11 offsets o, clipped to [0, 1], where w_o = exp(-sqrt(D_o + 1e-8)/h').

    D_o is the sum of squared differences of 5x5 patches of the clipped image's luma, and h' = h + 1e-8. Shifts and
    patches wrap around. Where a gradient is needed, the backward pass computes each offset's weights again, so that
    no graph of 121 shifts is kept.

    Args:
        image: RGB; values above 1 are averaged as they are.
        params: column 0: h in [1e-5, 1], in units of the distance.

    Source: Won et al. 2026 (POS-ISP), its released code.
    """
    luma = wrap_pad(weighted_channel(image.clamp(0, 1), LUMA_BT601)[:, 0], PAD)
    padded = wrap_pad(image, SEARCH_RADIUS)
    inverse = -1 / strengths(params)[:, :, None]
    return torch.cat(
        [
            _filtered(luma[:, start : stop + 2 * PAD], padded[:, :, start : stop + 2 * SEARCH_RADIUS], inverse)
            for start, stop in strips(image.shape[2], image.shape[3])
        ],
        dim=2,
    ).clamp(0, 1)


def _filtered(
    luma: Float[Tensor, "batch h3 w3"], image: Float[Tensor, "batch 3 h2 w2"], inverse: Float[Tensor, "batch 1 1"]
) -> Float[Tensor, "batch 3 h w"]:
    """The filtered interior of a strip with its padding: `PAD` pixels of luma, `SEARCH_RADIUS` of the image."""
    total = (ROOT_EPSILON**0.5 * inverse).exp()  # the pixel itself
    sums = total[:, None] * window(image, SEARCH_RADIUS, 0)
    needs_graph = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (luma, image, inverse))
    for offset in half_offsets():
        arguments = (luma, image, inverse, offset)
        part, weight = checkpoint(_pair, *arguments, use_reentrant=False) if needs_graph else _pair(*arguments)
        sums, total = sums + part, total + weight
    filtered: Tensor = sums / total[:, None]
    return filtered


def _pair(
    luma: Float[Tensor, "batch h3 w3"],
    image: Float[Tensor, "batch 3 h2 w2"],
    inverse: Float[Tensor, "batch 1 1"],
    offset: tuple[int, int],
) -> tuple[Float[Tensor, "batch 3 h w"], Float[Tensor, "batch h w"]]:
    """Weighted colours and weights of an offset and its opposite, which share their distances."""
    reach = SEARCH_RADIUS + PATCH_RADIUS
    difference = window(luma, PAD, reach) - window(luma, PAD, reach, offset)
    weights = ((box_sum(difference.square()) + ROOT_EPSILON).sqrt() * inverse).exp()
    back = (-offset[0], -offset[1])
    ahead, behind = window(weights, SEARCH_RADIUS, 0), window(weights, SEARCH_RADIUS, 0, back)
    colours = ahead[:, None] * window(image, SEARCH_RADIUS, 0, offset)
    return colours + behind[:, None] * window(image, SEARCH_RADIUS, 0, back), ahead + behind
