"""Denoise: non-local means on luma, with a backward pass of its own.

For an offset o let δ_o(p) = Y(p) - Y(p+o), D_o = the 5x5 box sum of δ_o², d_o = sqrt(D_o), w_o = exp(-d_o/h'),
h' = h + 1e-8, everything wrapping around. The output is N/S with N(p) = Σ_o w_o(p) X(p+o) and S(p) = Σ_o w_o(p).

Two facts make it cheap. D_{-o}(p) = D_o(p-o), so one set of weights serves o and -o: 60 distances instead of 120.
And no graph of the shifts is kept: with A = G/S and C = -Σ_c G_c·out_c/S (G the gradient of the output) the backward
pass recomputes each weight and adds

    dX(p)   = Σ_o w_o(p) A(p+o)                                        the same filter, applied to A
    dD_o(p) = -(w_o / (2 d_o h')) · [A(p)·X(p+o) + A(p+o)·X(p) + C(p) + C(p+o)]      0 where d_o = 0
    dY(p)  += 2 δ_o(p) box(dD_o)(p),   dY(p+o) -= the same
    dh      = Σ_p,o w_o d_o / h'² · [the same bracket]

Work goes strip by strip of rows, so that large frames need little more memory than the images themselves.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.isp.module import IspModule, Param
from adaptiveisp.kernels.cuda_graphs import SHARED
from adaptiveisp.kernels.registry import KernelCall
from adaptiveisp.types import Image, ParamTensor
from adaptiveisp.utils.color import LUMA_BT601, weighted_channel

SEARCH_RADIUS = 5
"""Offsets -5..5 both ways."""
PATCH_RADIUS = 2
"""Patches of 5x5."""
EPSILON = 1e-8
STRIP_VALUES = 1 << 18
"""Values of one plane in a strip, 1 MiB in float32: bounds the memory of large frames; thinner ones cost more calls."""

Plane = Float[Tensor, "batch height width"]
Scalar = Float[Tensor, "batch 1 1"]


def half_offsets(radius: int = SEARCH_RADIUS, step: int = 1) -> list[tuple[int, int]]:
    """One (dy, dx) of each pair ±o, without (0, 0).

    Args:
        radius: largest offset on either axis in pixels, a multiple of the step.
        step: pixels from one offset to the next.

    >>> half_offsets(1)
    [(0, 1), (1, -1), (1, 0), (1, 1)]
    >>> half_offsets(2, 2)
    [(0, 2), (2, -2), (2, 0), (2, 2)]
    """
    ahead = range(step, radius + 1, step)
    return [(0, dx) for dx in ahead] + [(dy, dx) for dy in ahead for dx in range(-radius, radius + 1, step)]


def wrap_pad(tensor: Float[Tensor, "batch *channels height width"], pad: int) -> Float[Tensor, "batch *channels h2 w2"]:
    """The tensor with `pad` more rows and columns on each side, wrapping around as often as needed."""
    height, width = tensor.shape[-2:]
    rows = torch.arange(-pad, height + pad, device=tensor.device) % height
    columns = torch.arange(-pad, width + pad, device=tensor.device) % width
    return tensor.index_select(-2, rows).index_select(-1, columns)


def box_sum(plane: Plane) -> Float[Tensor, "batch h2 w2"]:
    """Sums over 5x5 neighbourhoods that lie inside the plane: (h, w) → (h-4, w-4)."""
    pairs = plane[:, :-1] + plane[:, 1:]
    rows = pairs[:, :-3] + pairs[:, 2:-1]
    rows += plane[:, 4:]
    pairs = rows[:, :, :-1] + rows[:, :, 1:]
    sums = pairs[:, :, :-3] + pairs[:, :, 2:-1]
    sums += rows[:, :, 4:]
    return sums


def window(tensor: Tensor, pad: int, margin: int, shift: tuple[int, int] = (0, 0)) -> Tensor:
    """The view of a tensor padded by `pad` that shows its interior plus `margin`, moved by `shift` (dy, dx)."""
    height, width = tensor.shape[-2] - 2 * pad, tensor.shape[-1] - 2 * pad
    top, left = pad - margin + shift[0], pad - margin + shift[1]
    return tensor[..., top : top + height + 2 * margin, left : left + width + 2 * margin]


def distances(
    luma: Plane, pad: int, margin: int, offset: tuple[int, int]
) -> tuple[Float[Tensor, "batch h2 w2"], Float[Tensor, "batch h3 w3"]]:
    """δ_o on the interior plus margin and patch, and d_o on the interior plus margin."""
    difference = window(luma, pad, margin + PATCH_RADIUS) - window(luma, pad, margin + PATCH_RADIUS, offset)
    return difference, box_sum(difference.square()).sqrt_()


def strips(height: int, row_values: int) -> Iterator[tuple[int, int]]:
    """Row ranges (start, stop) of about `STRIP_VALUES` values each, none much thinner than the search window."""
    rows = max(4 * SEARCH_RADIUS, STRIP_VALUES // max(row_values, 1))
    for start in range(0, height, rows):
        yield start, min(start + rows, height)


def _rows(tensor: Tensor, pad: int, start: int, stop: int) -> Tensor:
    """Rows start..stop of the interior with their padding, as a view."""
    return tensor[..., start : stop + 2 * pad, :]


def nlm_forward(image: Image, h: Scalar, radius: int = SEARCH_RADIUS, step: int = 1) -> tuple[Image, Plane]:
    """Filtered image and sum of weights S.

    Args:
        image: RGB.
        h: filter strength h' with the epsilon already added.
        radius: reach of the search window on each side in pixels, a multiple of the step.
        step: pixels from one offset of the window to the next.
    """
    pad = 2 * radius + PATCH_RADIUS
    luma = wrap_pad(weighted_channel(image, LUMA_BT601)[:, 0], pad)
    padded = wrap_pad(image, radius)
    inverse = -1 / h
    output, total = torch.empty_like(image), torch.empty_like(image[:, 0])
    for start, stop in strips(image.shape[2], image.shape[3]):
        luma_strip, image_strip = _rows(luma, pad, start, stop), _rows(padded, radius, start, stop)
        numerator = window(image_strip, radius, 0).clone()
        denominator = torch.ones_like(numerator[:, 0])
        for dy, dx in half_offsets(radius, step):
            _, distance = distances(luma_strip, pad, radius, (dy, dx))
            weight = distance.mul_(inverse).exp_()
            for shift, moved in (((dy, dx), (0, 0)), ((-dy, -dx), (-dy, -dx))):
                here = window(weight, radius, 0, moved)
                denominator += here
                numerator.addcmul_(here[:, None], window(image_strip, radius, 0, shift))
        output[:, :, start:stop] = numerator / denominator[:, None]
        total[:, start:stop] = denominator
    return output, total


def nlm_backward(
    image: Image, h: Scalar, output: Image, total: Plane, grad: Image, radius: int = SEARCH_RADIUS, step: int = 1
) -> tuple[Image, Scalar]:
    """Gradients with respect to the image and to h' (see the module's docstring for the formulas)."""
    reach = radius + PATCH_RADIUS  # dD is needed this far outside the strip
    wide, pad = reach + radius, reach + radius + PATCH_RADIUS
    ratio = grad / total[:, None]
    scalar = -(ratio * output).sum(dim=1)
    luma = wrap_pad(weighted_channel(image, LUMA_BT601)[:, 0], pad)
    padded, ratio, scalar = wrap_pad(image, wide), wrap_pad(ratio, wide), wrap_pad(scalar, wide)
    grad_image = torch.empty_like(image)
    grad_h = torch.zeros_like(h)
    inverse = -1 / h
    for start, stop in strips(image.shape[2], image.shape[3]):
        y = _rows(luma, pad, start, stop)
        x, a, c = (_rows(t, wide, start, stop) for t in (padded, ratio, scalar))
        direct = window(a, wide, 0).clone()  # the offset (0, 0) has weight 1
        through_luma = torch.zeros_like(direct[:, 0])
        here_x, here_a, here_c = (window(t, wide, reach) for t in (x, a, c))
        for offset in half_offsets(radius, step):
            back = (-offset[0], -offset[1])
            difference, distance = distances(y, pad, reach, offset)
            weight = (distance * inverse).exp_()
            direct.addcmul_(window(weight, reach, 0)[:, None], window(a, wide, 0, offset))
            direct.addcmul_(window(weight, reach, 0, back)[:, None], window(a, wide, 0, back))
            bracket = (here_a * window(x, wide, reach, offset)).sum(dim=1)
            bracket += (window(a, wide, reach, offset) * here_x).sum(dim=1)
            bracket += here_c + window(c, wide, reach, offset)
            bracket *= weight
            grad_h += (window(bracket, reach, 0) * window(distance, reach, 0)).sum(dim=(1, 2), keepdim=True)
            slope = torch.where(distance > 0, bracket / distance, 0)  # 2·dD, still to be multiplied by -1/h'
            push = box_sum(slope).mul_(window(difference, reach + PATCH_RADIUS, radius))
            through_luma += window(push, radius, 0) - window(push, radius, 0, back)
        through_luma *= inverse
        for channel, luma_weight in enumerate(LUMA_BT601):
            direct[:, channel] += luma_weight * through_luma
        grad_image[:, :, start:stop] = direct
    return grad_image, grad_h / h.square()


def nlm_backward_h(
    image: Image, h: Scalar, output: Image, total: Plane, grad: Image, radius: int = SEARCH_RADIUS, step: int = 1
) -> tuple[Scalar]:
    """The gradient with respect to h' alone: about the work of the forward pass, a third of both gradients'.

    A pair of pixels p, p+o adds w·d·(a_p·x_{p+o} + a_{p+o}·x_p + c_p + c_{p+o}); as everything wraps around, the sum
    over all p of half the offsets meets each pair once.
    """
    pad = radius + PATCH_RADIUS
    ratio = grad / total[:, None]
    scalar = -(ratio * output).sum(dim=1)
    luma = wrap_pad(weighted_channel(image, LUMA_BT601)[:, 0], pad)
    padded, ratio, scalar = (wrap_pad(t, radius) for t in (image, ratio, scalar))
    grad_h = torch.zeros_like(h)
    inverse = -1 / h
    for start, stop in strips(image.shape[2], image.shape[3]):
        y = _rows(luma, pad, start, stop)
        x, a, c = (_rows(t, radius, start, stop) for t in (padded, ratio, scalar))
        here_x, here_a, here_c = (window(t, radius, 0) for t in (x, a, c))
        for offset in half_offsets(radius, step):
            _, distance = distances(y, pad, 0, offset)
            bracket = here_c + window(c, radius, 0, offset)
            for channel in range(3):
                bracket.addcmul_(here_a[:, channel], window(x, radius, 0, offset)[:, channel])
                bracket.addcmul_(here_x[:, channel], window(a, radius, 0, offset)[:, channel])
            weight = (distance * inverse).exp_().mul_(distance)
            grad_h += (bracket * weight).sum(dim=(1, 2), keepdim=True)
    return (grad_h / h.square(),)


class NonLocalMeans(torch.autograd.Function):
    """Non-local means whose backward pass recomputes the weights instead of keeping a graph of all shifts."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, h: Tensor, radius: int, step: int) -> Tensor:
        """Filtered image; keeps the input, the output and the sum of weights."""
        run = partial(nlm_forward, radius=radius, step=step)
        output, total = SHARED.run(f"nlm_forward {radius} {step}", run, image, h)
        ctx.save_for_backward(image, h, output, total)
        ctx.window = radius, step
        return output

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        """Gradients of the image, where it needs one, and of h."""
        (radius, step), given = ctx.window, (*ctx.saved_tensors, grad)
        if not ctx.needs_input_grad[0]:  # as while a policy learns, step by step
            run_h = partial(nlm_backward_h, radius=radius, step=step)
            return None, SHARED.run(f"nlm_backward_h {radius} {step}", run_h, *given)[0], None, None
        run = partial(nlm_backward, radius=radius, step=step)
        grad_image, grad_h = SHARED.run(f"nlm_backward {radius} {step}", run, *given)
        return grad_image, grad_h, None, None


def strengths(params: ParamTensor) -> Tensor:
    """h' of each image: h plus the epsilon."""
    return params[:, :1] + EPSILON


def denoise(image: Image, params: ParamTensor) -> Image:
    """Non-local means: each pixel becomes the mean of its 11x11 neighbours, weighted by their patches' similarity.

    The 5x5 patches are compared on luma by d = sqrt(Σ squared differences), not averaged; the weight is
    exp(-d/(h+1e-8)). Shifts and patches wrap around.

    Args:
        image: RGB in [0, 1].
        params: column 0: h in [0, 1], in units of d.

    Source: Buades et al. 2005, with the weights of Wang et al. 2024 (AdaptiveISP).
    """
    strength = strengths(params)[:, :, None]
    filtered: Tensor = NonLocalMeans.apply(image, strength, SEARCH_RADIUS, 1)  # type: ignore[no-untyped-call]
    return filtered


PAPER = IspModule(
    "denoise",
    "NLM",
    (Param("h", 0.0, 1.0, "", 0.0, "sigmoid"),),
    denoise,
    10.0,
    source="Buades et al. 2005",
    effect=(
        "Removes grain by averaging patches that look alike (non-local means); too much of it smears fine texture. "
        "It is the slowest module."
    ),
    kernel=KernelCall("non_local_means", batch_numbers=strengths, options={"search_radius": SEARCH_RADIUS}),
)
