"""ONNX operators in PyTorch: convolution, pooling, normalisation, resizing and activations; see `onnx.operators`."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from adaptiveisp.detectors.onnx.operators import Node, Operator, ints, plain

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}
MAX_POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
MEAN_POOLS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}

COORDINATES = ("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners", "half_pixel_symmetric")
CUBIC_A = -0.75
"""ONNX's default of the parameter of cubic interpolation."""


def _pads(node: Node, sizes: Sequence[int], kernel: Sequence[int], strides: Sequence[int]) -> tuple[list[int], ...]:
    """Widths of the padding before and after each axis."""
    n = len(kernel)
    auto = node.get("auto_pad", "NOTSET")
    if auto == "VALID":
        return [0] * n, [0] * n
    if auto == "NOTSET":
        widths = list(node.get("pads", [0] * 2 * n))
        return widths[:n], widths[n:]
    dilations = node.get("dilations", [1] * n)
    before, after = [], []
    for size, k, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size)
        small, large = total // 2, total - total // 2
        before.append(small if auto == "SAME_UPPER" else large)
        after.append(large if auto == "SAME_UPPER" else small)
    return before, after


def _bordered(x: Tensor, before: Sequence[int], after: Sequence[int], value: float) -> Tensor:
    widths = [w for pair in zip(reversed(before), reversed(after), strict=True) for w in pair]
    return F.pad(x, widths, value=value) if any(widths) else x


def convolution(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A convolution of one to three axes."""
    n = x.ndim - 2
    strides, dilations = node.get("strides", [1] * n), node.get("dilations", [1] * n)
    before, after = _pads(node, x.shape[2:], weight.shape[2:], strides)
    padding = before
    if before != after:
        x, padding = _bordered(x, before, after, 0.0), [0] * n
    return CONVOLUTIONS[n](x, weight, bias, strides, padding, dilations, node.get("group", 1))


def transposed_convolution(node: Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A transposed convolution of one to three axes."""
    n = x.ndim - 2
    if node.get("auto_pad", "NOTSET") != "NOTSET" or node.get("output_shape") is not None:
        raise NotImplementedError("auto_pad or output_shape")
    widths = list(node.get("pads", [0] * 2 * n))
    before, after = widths[:n], widths[n:]
    # A larger crop at the end than at the start reduces the output padding.
    extra = [o + b - a for o, b, a in zip(node.get("output_padding", [0] * n), before, after, strict=True)]
    if min(extra) < 0:
        raise NotImplementedError("pads that differ")
    strides, dilations = node.get("strides", [1] * n), node.get("dilations", [1] * n)
    return TRANSPOSED[n](x, weight, bias, strides, before, extra, node.get("group", 1), dilations)


def max_pool(node: Node, x: Tensor) -> Tensor:
    """The greatest value of each window."""
    kernel = list(node.get("kernel_shape"))
    n = len(kernel)
    strides, dilations = node.get("strides", [1] * n), node.get("dilations", [1] * n)
    before, after = _pads(node, x.shape[2:], kernel, strides)
    padding = before
    if before != after or any(2 * width > k for width, k in zip(before, kernel, strict=True)):
        x, padding = _bordered(x, before, after, -math.inf), [0] * n
    return MAX_POOLS[n](x, kernel, strides, padding, dilations, bool(node.get("ceil_mode", 0)))


def mean_pool(node: Node, x: Tensor) -> Tensor:
    """The mean of each window; padding counts only with `count_include_pad`."""
    kernel = list(node.get("kernel_shape"))
    n = len(kernel)
    if any(d != 1 for d in node.get("dilations", [1])):
        raise NotImplementedError("dilations")
    strides, ceil = node.get("strides", [1] * n), bool(node.get("ceil_mode", 0))
    before, after = _pads(node, x.shape[2:], kernel, strides)
    with_border = bool(node.get("count_include_pad", 0))
    if before == after and all(2 * width <= k for width, k in zip(before, kernel, strict=True)):
        return MEAN_POOLS[n](x, kernel, strides, before, ceil, with_border)
    sums = MEAN_POOLS[n](_bordered(x, before, after, 0.0), kernel, strides, 0, ceil, True)
    if with_border:
        return sums
    inside = _bordered(torch.ones_like(x[:1, :1]), before, after, 0.0)
    return sums / MEAN_POOLS[n](inside, kernel, strides, 0, ceil, True)


def global_pool(node: Node, x: Tensor) -> Tensor:
    """Mean or maximum of each channel."""
    axes = list(range(2, x.ndim))
    return x.mean(axes, keepdim=True) if node.op == "GlobalAveragePool" else x.amax(axes, keepdim=True)


def batch_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """Batch norm with the statistics of the file."""
    if node.get("training_mode", 0):
        raise NotImplementedError("training_mode")
    return F.batch_norm(x, mean, variance, scale, bias, eps=node.get("epsilon", 1e-5))


def instance_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Normalisation of each channel of each image."""
    return F.instance_norm(x, weight=scale, bias=bias, eps=node.get("epsilon", 1e-5))


def layer_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    """Normalisation over the last axes, from `axis` on."""
    axis = node.get("axis", -1) % x.ndim
    normal = F.layer_norm(x, x.shape[axis:], eps=node.get("epsilon", 1e-5)) * scale
    return normal if bias is None else normal + bias


def group_norm(node: Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    """Normalisation over groups of channels; before opset 21, scale and bias have one value for each group."""
    groups = int(node.get("num_groups"))
    if node.opset < 21:
        scale, bias = (value.repeat_interleave(x.shape[1] // groups) for value in (scale, bias))
    return F.group_norm(x, groups, scale, bias, node.get("epsilon", 1e-5))


def resize(
    node: Node, x: Tensor, roi: Tensor | None = None, scales: Tensor | None = None, sizes: Tensor | None = None
) -> Tensor:
    """Resampling axis by axis: nearest, linear or cubic."""
    if node.opset < 11:  # the second input has the scales, and coordinates cannot be chosen
        scales = roi
    if node.get("antialias", 0) or node.get("exclude_outside", 0):
        raise NotImplementedError("antialias or exclude_outside")
    if node.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise NotImplementedError("keep_aspect_ratio_policy")
    coordinates = node.get("coordinate_transformation_mode", "half_pixel" if node.opset >= 11 else "asymmetric")
    if coordinates not in COORDINATES:
        raise NotImplementedError(coordinates)
    axes = [axis % x.ndim for axis in node.get("axes") or range(x.ndim)]
    wanted = ints(sizes) if sizes is not None and sizes.numel() else None
    given = scales if scales is not None else torch.tensor(node.get("scales", []))
    factors = given.double().tolist()
    for place, axis in enumerate(axes):
        n = x.shape[axis]
        length = wanted[place] if wanted else math.floor(n * factors[place])
        factor = length / n if wanted else factors[place]
        if length != n or factor != 1:
            x = _resampled(node, x, axis, length, factor, coordinates)
    return x


def _resampled(node: Node, x: Tensor, axis: int, length: int, factor: float, coordinates: str) -> Tensor:
    """Resampling of one axis."""
    n = x.shape[axis]
    new = torch.arange(length, dtype=torch.float64)
    if coordinates == "align_corners":
        old = new * (n - 1) / (length - 1) if length > 1 else torch.zeros_like(new)
    elif coordinates == "asymmetric":
        old = new / factor
    elif coordinates == "pytorch_half_pixel" and length == 1:
        old = torch.zeros_like(new)
    else:
        old = (new + 0.5) / factor - 0.5
        if coordinates == "half_pixel_symmetric":
            old = old + n / 2 * (1 - length / (n * factor))
    mode = node.get("mode", "nearest")
    if mode == "nearest":
        rule = node.get("nearest_mode", "round_prefer_floor" if node.opset >= 11 else "floor")
        place = {
            "round_prefer_floor": (old - 0.5).ceil(),
            "round_prefer_ceil": (old + 0.5).floor(),
            "floor": old.floor(),
            "ceil": old.ceil(),
        }[rule]
        return x.index_select(axis, place.long().clamp(0, n - 1).to(x.device))
    if mode == "linear":
        old = old.clamp(0, n - 1)
    first = old.floor()
    parts = []
    for shift, weight in _taps(mode, old - first):
        place = (first.long() + shift).clamp(0, n - 1).to(x.device)
        ratio = weight.to(x).reshape(-1, *[1] * (x.ndim - axis - 1))
        parts.append(x.index_select(axis, place) * ratio)
    return torch.stack(parts).sum(0) if len(parts) > 2 else parts[0] + parts[1]


def _taps(mode: str, t: Tensor) -> list[tuple[int, Tensor]]:
    """The neighbouring pixels of a position `t` after a pixel, and their weights."""
    if mode == "linear":
        return [(0, 1 - t), (1, t)]
    if mode != "cubic":
        raise NotImplementedError(f"mode {mode}")
    a = CUBIC_A

    def near(d: Tensor) -> Tensor:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: Tensor) -> Tensor:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return [(-1, far(1 + t)), (0, near(t)), (1, near(1 - t)), (2, far(2 - t))]


def grid_sample(node: Node, x: Tensor, grid: Tensor) -> Tensor:
    """The image sampled at the positions of a grid."""
    mode = {"linear": "bilinear", "cubic": "bicubic"}.get(node.get("mode", "linear"), node.get("mode", "linear"))
    return F.grid_sample(x, grid, mode, node.get("padding_mode", "zeros"), bool(node.get("align_corners", 0)))


def depth_to_space(node: Node, x: Tensor) -> Tensor:
    """Channels rearranged into blocks of pixels."""
    batch, channels, height, width = x.shape
    side = node.get("blocksize")
    if node.get("mode", "DCR") == "DCR":
        blocks = x.reshape(batch, side, side, channels // side**2, height, width).permute(0, 3, 4, 1, 5, 2)
    else:
        blocks = x.reshape(batch, channels // side**2, side, side, height, width).permute(0, 1, 4, 2, 5, 3)
    return blocks.reshape(batch, channels // side**2, height * side, width * side)


def space_to_depth(node: Node, x: Tensor) -> Tensor:
    """Blocks of pixels rearranged into channels."""
    batch, channels, height, width = x.shape
    side = node.get("blocksize")
    blocks = x.reshape(batch, channels, height // side, side, width // side, side).permute(0, 3, 5, 1, 2, 4)
    return blocks.reshape(batch, channels * side**2, height // side, width // side)


def hard_sigmoid(node: Node, x: Tensor) -> Tensor:
    """αx + β within [0, 1]."""
    return (float(node.get("alpha", 0.2)) * x + float(node.get("beta", 0.5))).clamp(0, 1)


def selected(node: Node, x: Tensor) -> Tensor:
    """Selu: γ·x above zero, γ·α·(exp(x) - 1) below."""
    alpha = float(node.get("alpha", 1.67326319217681884765625))
    gamma = float(node.get("gamma", 1.05070102214813232421875))
    return gamma * (x.clamp(min=0) + alpha * x.clamp(max=0).expm1())


LAYERS: dict[str, Operator] = {
    "AveragePool": mean_pool,
    "BatchNormalization": batch_norm,
    "Celu": lambda node, x: F.celu(x, node.get("alpha", 1.0)),
    "Conv": convolution,
    "ConvTranspose": transposed_convolution,
    "DepthToSpace": depth_to_space,
    "Elu": lambda node, x: F.elu(x, node.get("alpha", 1.0)),
    "Gelu": lambda node, x: F.gelu(x, approximate=node.get("approximate", "none")),
    "GlobalAveragePool": global_pool,
    "GlobalMaxPool": global_pool,
    "GridSample": grid_sample,
    "GroupNormalization": group_norm,
    "HardSigmoid": hard_sigmoid,
    "HardSwish": plain(F.hardswish),
    "InstanceNormalization": instance_norm,
    "LayerNormalization": layer_norm,
    "LeakyRelu": lambda node, x: F.leaky_relu(x, node.get("alpha", 0.01)),
    "MaxPool": max_pool,
    "Mish": plain(F.mish),
    "PRelu": plain(lambda x, slope: torch.where(x < 0, slope * x, x)),
    "Relu": plain(torch.relu),
    "Resize": resize,
    "Selu": selected,
    "Sigmoid": plain(torch.sigmoid),
    "Softplus": plain(F.softplus),
    "Softsign": plain(F.softsign),
    "SpaceToDepth": space_to_depth,
    "Swish": lambda node, x: x * torch.sigmoid(node.get("alpha", 1.0) * x),
    "Tanh": plain(torch.tanh),
    "Upsample": resize,
}
"""Operator → function."""
