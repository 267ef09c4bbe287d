"""The operators of TensorFlow graphs that are translated to PyTorch; `build` translates one node.

Tensors keep the order of axes that they have in the graph. TensorFlow's convolutions want (batch, height, width,
channels); PyTorch's take the same memory as a permuted view of the format `channels_last`, so nothing is copied.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from adaptiveisp.detectors.tfjs.graph_file import Array, Graph, Node
from adaptiveisp.errors import WeightsError

Constants = Sequence[Array | None]
"""The value of each input of a node, None for those that depend on the image."""

Padding = Literal["SAME", "VALID"]


class NotTranslatedError(Exception):
    """A node has an operator or an attribute that is not translated; the text says which."""


class Convolution(nn.Module):
    """A convolution, ordinary or depthwise, with the bias and the activation that may be fused into it."""

    def __init__(self, node: Node, constants: Constants) -> None:
        super().__init__()
        depthwise = "epthwise" in node.op
        kernel, biases = _array(node, constants, 1), [array for array in constants[2:] if array is not None]
        strides, dilations = _sides(node, "strides"), _sides(node, "dilations")
        self.padding, self.activation = _padding(node), _fused_activation(node)
        if kernel.ndim != 4 or len(biases) > 1 or node.attributes.get("data_format", "NHWC") != "NHWC":
            raise NotTranslatedError("a convolution of another form than NHWC with at most one bias")
        rows, columns, channels, many = kernel.shape
        if depthwise:
            outputs, groups, order = channels * many, channels, (2, 3, 0, 1)
        else:
            outputs, groups, order = many, 1, (3, 2, 0, 1)
        weight = kernel.transpose(order).reshape(outputs, channels // groups, rows, columns)
        self.conv = nn.Conv2d(
            channels, outputs, (rows, columns), strides, dilation=dilations, groups=groups, bias=bool(biases)
        )
        self.conv.weight.data = torch.from_numpy(weight.copy()).contiguous(memory_format=torch.channels_last)
        borders = [(side - 1) * dilation for side, dilation in zip((rows, columns), dilations, strict=True)]
        if self.padding == "SAME" and strides == (1, 1) and not any(border % 2 for border in borders):
            # The same on all sides and for every size: the convolution does this itself, without a copy of the input.
            self.padding, self.conv.padding = "VALID", (borders[0] // 2, borders[1] // 2)
        for bias in biases:
            self.add_bias(bias)

    def add_bias(self, bias: Array) -> None:
        """Gives the convolution a bias, one value for each output channel."""
        if bias.shape != (self.conv.out_channels,):
            raise NotTranslatedError(f"a bias of shape {bias.shape} for {self.conv.out_channels} channels")
        self.conv.bias = nn.Parameter(torch.from_numpy(bias.copy()))

    def forward(self, x: Tensor) -> Tensor:
        """The result of the convolution, (batch, height, width, channels) as its input."""
        x = x.permute(0, 3, 1, 2)
        if self.padding == "SAME":
            x = _same_padded(x, self.conv.kernel_size, self.conv.stride, self.conv.dilation)
        x = self.conv(x)
        if self.activation is not None:
            x = ACTIVATIONS[self.activation](x)
        return x.permute(0, 2, 3, 1)


class MaxPool(nn.Module):
    """The maximum over a window; a border of "SAME" padding never is the maximum."""

    def __init__(self, node: Node, constants: Constants) -> None:
        super().__init__()
        self.window, self.strides, self.padding = _sides(node, "ksize"), _sides(node, "strides"), _padding(node)

    def forward(self, x: Tensor) -> Tensor:
        """The maxima, (batch, height, width, channels) as the input."""
        x = x.permute(0, 3, 1, 2)
        if self.padding == "SAME":
            x = _same_padded(x, self.window, self.strides, (1, 1), -torch.inf)
        return F.max_pool2d(x, self.window, self.strides).permute(0, 2, 3, 1)


class Arithmetic(nn.Module):
    """A sum, difference or product of two tensors, one of which may be constant."""

    constant: Tensor | None

    def __init__(self, node: Node, constants: Constants) -> None:
        super().__init__()
        self.function = ARITHMETIC[node.op][0]
        self.constant_first = constants[0] is not None
        value = next((array for array in constants if array is not None), None)
        self.register_buffer("constant", None if value is None else torch.from_numpy(np.array(value, np.float32)))

    def forward(self, *given: Tensor) -> Tensor:
        """The result, with TensorFlow's broadcasting, which is NumPy's."""
        if self.constant is None:
            return self.function(*given)
        return self.function(self.constant, *given) if self.constant_first else self.function(*given, self.constant)


class Activation(nn.Module):
    """A function of each value."""

    def __init__(self, node: Node, constants: Constants) -> None:
        super().__init__()
        self.op, self.slope = node.op, float(node.attributes.get("alpha", 0.2))

    def forward(self, x: Tensor) -> Tensor:
        """The function's values."""
        return F.leaky_relu(x, self.slope) if self.op == "LeakyRelu" else ACTIVATIONS[self.op](x)


class Mean(nn.Module):
    """The mean over some axes."""

    def __init__(self, node: Node, constants: Constants) -> None:
        super().__init__()
        self.axes = [int(axis) for axis in np.atleast_1d(_array(node, constants, 1))]
        self.keep = bool(node.attributes.get("keep_dims", False))

    def forward(self, x: Tensor) -> Tensor:
        """The means."""
        return x.mean(self.axes, keepdim=self.keep)


class Pad(nn.Module):
    """A border of one value around a tensor."""

    def __init__(self, node: Node, constants: Constants) -> None:
        super().__init__()
        amounts = _array(node, constants, 1)
        self.amounts = [int(amount) for pair in amounts[::-1] for amount in pair]
        self.value = float(_array(node, constants, 2)) if len(constants) > 2 else 0.0

    def forward(self, x: Tensor) -> Tensor:
        """The larger tensor."""
        return F.pad(x, self.amounts, value=self.value)


class Transpose(nn.Module):
    """The axes in another order."""

    def __init__(self, node: Node, constants: Constants) -> None:
        super().__init__()
        self.order = [int(axis) for axis in _array(node, constants, 1)]

    def forward(self, x: Tensor) -> Tensor:
        """A view of the tensor."""
        return x.permute(self.order)


class Resize(nn.Module):
    """Bilinear resizing. The graph names a size for the image that it was made for, which grows with the image."""

    def __init__(self, node: Node, constants: Constants, image_size: tuple[int, int]) -> None:
        super().__init__()
        rows, columns = _array(node, constants, 1)
        self.size, self.image_size = (int(rows), int(columns)), image_size
        self.half_pixel = bool(node.attributes.get("half_pixel_centers", False))
        if node.attributes.get("align_corners", False):
            raise NotTranslatedError("align_corners")

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        """The resized tensor, (batch, height, width, channels).

        Args:
            x: the tensor.
            image: the network's input, (batch, 3, height, width).
        """
        x = x.permute(0, 3, 1, 2)
        size = [side * now // made for side, now, made in zip(self.size, image.shape[2:], self.image_size, strict=True)]
        if self.half_pixel:
            x = F.interpolate(x, size=size, mode="bilinear", align_corners=False)
        else:
            x = _enlarged_from_corner(x, size)
        return x.permute(0, 2, 3, 1)


class Concat(nn.Module):
    """Tensors one after the other along an axis."""

    def __init__(self, node: Node, constants: Constants) -> None:
        super().__init__()
        self.axis = int(_array(node, constants, len(constants) - 1))
        if any(array is not None for array in constants[:-1]):
            raise NotTranslatedError("a constant among the joined tensors")

    def forward(self, *given: Tensor) -> Tensor:
        """The joined tensor."""
        return torch.cat(given, self.axis)


class Split(nn.Module):
    """A tensor cut into parts along an axis."""

    def __init__(self, node: Node, constants: Constants) -> None:
        super().__init__()
        self.sizes = [int(size) for size in _array(node, constants, 1)]
        self.axis = int(_array(node, constants, 2))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """The parts."""
        return torch.split(x, self.sizes, self.axis)


class Reshape(nn.Module):
    """Another shape for each image; the graph is for one image, and here the first axis stays the batch."""

    def __init__(self, node: Node, constants: Constants) -> None:
        super().__init__()
        first, *self.rest = (int(side) for side in _array(node, constants, 1))
        if first != 1 or self.rest.count(-1) > 1:
            raise NotTranslatedError("a shape whose first axis is not one image")

    def forward(self, x: Tensor) -> Tensor:
        """The tensor in its new shape."""
        return x.reshape(len(x), *self.rest)


def _identity(x: Tensor) -> Tensor:
    return x


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "Relu": F.relu,
    "Relu6": F.relu6,
    "Sigmoid": torch.sigmoid,
    "Identity": _identity,
}
ARITHMETIC: dict[str, tuple[Callable[..., Tensor], Callable[..., Array]]] = {
    "Add": (torch.add, np.add),
    "AddV2": (torch.add, np.add),
    "Sub": (torch.sub, np.subtract),
    "Mul": (torch.mul, np.multiply),
}
"""Operator → the function for tensors and that for constants."""
OPERATORS: dict[str, Callable[[Node, Constants], nn.Module]] = {
    **dict.fromkeys(("Conv2D", "_FusedConv2D", "DepthwiseConv2dNative", "FusedDepthwiseConv2dNative"), Convolution),
    **dict.fromkeys(ARITHMETIC, Arithmetic),
    **dict.fromkeys((*ACTIVATIONS, "LeakyRelu"), Activation),
    **dict.fromkeys(("Pad", "PadV2"), Pad),
    "MaxPool": MaxPool,
    "Mean": Mean,
    "Transpose": Transpose,
    "ConcatV2": Concat,
    "SplitV": Split,
    "Reshape": Reshape,
}
RESIZE = "ResizeBilinear"


def build(graph: Graph, node: Node, constants: Constants, image_size: tuple[int, int]) -> nn.Module:
    """The translation of a node.

    Args:
        graph: the graph, for errors.
        node: the node.
        constants: values of those of its inputs that are constant. Its other inputs are given to the module in their
            order; for a resize the network's input follows.
        image_size: (height, width) of the image that the graph was made for.

    Raises:
        WeightsError: the operator, or one of its attributes, is not translated; the message names it.
    """
    try:
        if node.op == RESIZE:
            return Resize(node, constants, image_size)
        if node.op in OPERATORS:
            return OPERATORS[node.op](node, constants)
        reason = f"these are: {', '.join(sorted((*OPERATORS, RESIZE)))}"
    except NotTranslatedError as error:
        reason = str(error)
    except (ValueError, TypeError, AttributeError, LookupError, RuntimeError) as error:
        reason = f"its inputs do not fit: {str(error).splitlines()[0]}"
    raise WeightsError(f"{graph.origin}: its operator {node.op} ({node.name}) is not translated; {reason}")


def folded(node: Node, constants: Constants) -> Array | None:
    """The value of a node all of whose inputs are constant; None if its operator is not among those that are folded."""
    arrays = [array for array in constants if array is not None]
    if len(arrays) < len(constants) or not arrays:
        return None
    if node.op in ARITHMETIC:
        return np.asarray(ARITHMETIC[node.op][1](*arrays))
    if node.op == "SparseToDense":
        places, shape, values, default = arrays
        dense = np.full(tuple(shape), default)
        if places.size:
            dense[tuple(np.atleast_2d(places).T)] = values
        return dense
    return None


def _array(node: Node, constants: Constants, place: int) -> Array:
    """The constant at a place among a node's inputs."""
    array = constants[place] if place < len(constants) else None
    if array is None:
        raise NotTranslatedError(f"its input {place + 1} is not a constant")
    return array


def _sides(node: Node, name: str) -> tuple[int, int]:
    """The two numbers for height and width among the four of an attribute."""
    batch, rows, columns, channels = node.attributes.get(name, (1, 1, 1, 1))
    if (batch, channels) != (1, 1):
        raise NotTranslatedError(f"{name} along the batch or the channels")
    return rows, columns


def _padding(node: Node) -> Padding:
    padding: Padding = node.attributes["padding"]
    if padding not in ("SAME", "VALID"):
        raise NotTranslatedError(f"padding {padding}")
    return padding


def _fused_activation(node: Node) -> str | None:
    """The activation that is fused into a convolution."""
    names = [name for name in node.attributes.get("fused_ops", ()) if name != "BiasAdd"]
    if len(names) > 1 or any(name not in ACTIVATIONS for name in names):
        raise NotTranslatedError(f"fused with {' and '.join(names)}")
    return names[0] if names else None


def _same_padded(
    x: Tensor, kernel: Sequence[int], strides: Sequence[int], dilations: Sequence[int], value: float = 0.0
) -> Tensor:
    """The tensor (batch, channels, height, width) with the border of TensorFlow's padding "SAME".

    The output has ceil(side / stride) values; an odd border is larger below and on the right.
    """
    amounts: list[int] = []
    for side, window, stride, dilation in zip(x.shape[2:], kernel, strides, dilations, strict=True):
        total = max((-(-side // stride) - 1) * stride + (window - 1) * dilation + 1 - side, 0)
        amounts = [total // 2, total - total // 2, *amounts]
    return F.pad(x, amounts, value=value) if any(amounts) else x


def _enlarged_from_corner(x: Tensor, size: Sequence[Any]) -> Tensor:
    """Bilinear enlargement by a whole factor f in which the output i lies at i / f, beyond the last value constant.

    This is TensorFlow's resize without half-pixel centres. PyTorch has it as `align_corners` for a tensor with one
    value more on either axis.

    Args:
        x: (batch, channels, height, width).
        size: height and width of the result; PyTorch's tracing, which the exports use, has tensors for them.
    """
    rows, columns = x.shape[2:]
    if size[0] % rows or size[1] % columns:
        raise WeightsError(f"a resize from {rows}x{columns} to {size[0]}x{size[1]} is not by a whole factor")
    x = F.pad(x, (0, 1, 0, 1), mode="replicate")
    x = F.interpolate(x, size=(size[0] + 1, size[1] + 1), mode="bilinear", align_corners=True)
    return x[..., :-1, :-1]
