"""ONNX operators in PyTorch: arithmetic, comparisons and reductions. `onnx.shapes` and `onnx.layers` have the others.

Each is a function of the node and its inputs (None for an optional input that is left out), and follows the operator's
definition in the model's opset. Source: the ONNX operator specification, opsets 7 to 23.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Node:
    """One operator of a graph.

    Attributes:
        op: the operator's name.
        name: name of the node, for errors.
        inputs, outputs: names of values; "" for an optional one that is left out.
        attributes: name → number, text, list or tensor.
        opset: version of the operator set that the model uses.
    """

    op: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    opset: int

    def get(self, name: str, default: Any = None) -> Any:
        """An attribute, or the default if the file leaves it out."""
        return self.attributes.get(name, default)


Operator = Callable[..., "Tensor | tuple[Tensor, ...]"]

DTYPES: dict[int, torch.dtype] = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    5: torch.int16,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float32,
    11: torch.float64,
    16: torch.float32,
}
"""ONNX's number of a data type → torch's type. Half precision (10, 16) is computed in single."""


def ints(value: Tensor | list[int] | tuple[int, ...]) -> list[int]:
    """A list of whole numbers, from a tensor or a list."""
    return [int(v) for v in (value.reshape(-1).tolist() if isinstance(value, Tensor) else value)]


def plain(function: Callable[..., Tensor]) -> Operator:
    """The operator of a function that needs no attributes."""
    return lambda node, *inputs: function(*inputs)


def folded(function: Callable[[Tensor, Tensor], Tensor]) -> Operator:
    """The operator of a function of two inputs, for any number of inputs."""
    return lambda node, *inputs: reduce(function, inputs)


def divide(node: Node, x: Tensor, y: Tensor) -> Tensor:
    """A quotient; that of whole numbers is truncated towards zero."""
    return torch.div(x, y) if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


def modulo(node: Node, x: Tensor, y: Tensor) -> Tensor:
    """The remainder, with the sign of the divisor, or with that of the dividend if `fmod` is set."""
    return torch.fmod(x, y) if node.get("fmod", 0) else torch.remainder(x, y)


def clip(node: Node, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    """Values clamped to a range; its bounds are attributes before opset 11."""
    low = x.new_tensor(node.get("min")) if node.get("min") is not None else low
    high = x.new_tensor(node.get("max")) if node.get("max") is not None else high
    return x if low is None and high is None else x.clamp(low, high)


def gemm(node: Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """α·A·B + β·C, where A and B may be transposed."""
    product = (a.T if node.get("transA", 0) else a) @ (b.T if node.get("transB", 0) else b)
    product = product * float(node.get("alpha", 1.0))
    return product if c is None else product + float(node.get("beta", 1.0)) * c


def softmax(node: Node, x: Tensor) -> Tensor:
    """Softmax or its logarithm; before opset 13 over all axes from `axis` on together."""
    function = torch.softmax if node.op == "Softmax" else torch.log_softmax
    if node.opset >= 13:
        return function(x, dim=node.get("axis", -1))
    axis = node.get("axis", 1) % x.ndim
    return function(x.reshape(*x.shape[:axis], -1), dim=-1).reshape(x.shape)


REDUCTIONS: dict[str, Callable[[Tensor, list[int], bool], Tensor]] = {
    "ReduceMean": lambda x, axes, keep: x.mean(axes, keepdim=keep),
    "ReduceSum": lambda x, axes, keep: x.sum(axes, keepdim=keep),
    "ReduceMax": lambda x, axes, keep: x.amax(axes, keepdim=keep),
    "ReduceMin": lambda x, axes, keep: x.amin(axes, keepdim=keep),
    "ReduceL1": lambda x, axes, keep: x.abs().sum(axes, keepdim=keep),
    "ReduceL2": lambda x, axes, keep: x.square().sum(axes, keepdim=keep).sqrt(),
    "ReduceSumSquare": lambda x, axes, keep: x.square().sum(axes, keepdim=keep),
    "ReduceLogSumExp": lambda x, axes, keep: x.logsumexp(axes, keepdim=keep),
}


def reduced(node: Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    """A sum, mean or other reduction over the given axes, or all."""
    chosen = ints(axes) if axes is not None else list(node.get("axes", ()))
    if not chosen:
        if node.get("noop_with_empty_axes", 0):
            return x
        chosen = list(range(x.ndim))
    return REDUCTIONS[node.op](x, chosen, bool(node.get("keepdims", 1)))


def extreme_index(node: Node, x: Tensor) -> Tensor:
    """Index of the greatest (or least) value of an axis; of equal values the first, or the last if the node says so."""
    axis = node.get("axis", 0) % x.ndim
    best = x.amax(axis, keepdim=True) if node.op == "ArgMax" else x.amin(axis, keepdim=True)
    place = torch.arange(x.shape[axis], device=x.device).reshape(-1, *[1] * (x.ndim - axis - 1))
    if node.get("select_last_index", 0):
        found = torch.where(x == best, place, -1).amax(axis, keepdim=True)
    else:
        found = torch.where(x == best, place, x.shape[axis]).amin(axis, keepdim=True)
    return found if node.get("keepdims", 1) else found.squeeze(axis)


def top_k(node: Node, x: Tensor, k: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The k best values of an axis and their indices; equal values keep their order."""
    count = int(k) if k is not None else int(node.get("k"))
    axis = node.get("axis", -1) % x.ndim
    values, places = x.sort(dim=axis, descending=bool(node.get("largest", 1)), stable=True)
    return values.narrow(axis, 0, count), places.narrow(axis, 0, count)


def cumulated(node: Node, x: Tensor, axis: Tensor) -> Tensor:
    """Running sums along an axis."""
    dim = int(axis)
    flipped = x.flip(dim) if node.get("reverse", 0) else x
    sums = flipped.cumsum(dim).to(x.dtype)
    if node.get("exclusive", 0):
        sums = sums - flipped
    return sums.flip(dim) if node.get("reverse", 0) else sums


def cast(node: Node, x: Tensor) -> Tensor:
    """The values as another type."""
    return x.to(DTYPES[node.get("to")])


OPERATORS: dict[str, Operator] = {
    "Abs": plain(torch.abs),
    "Add": plain(torch.add),
    "And": plain(torch.logical_and),
    "ArgMax": extreme_index,
    "ArgMin": extreme_index,
    "Cast": cast,
    "Ceil": plain(torch.ceil),
    "Clip": clip,
    "Cos": plain(torch.cos),
    "CumSum": cumulated,
    "Div": divide,
    "Dropout": lambda node, x, *rest: x,
    "Einsum": lambda node, *inputs: torch.einsum(node.get("equation"), *inputs),
    "Equal": plain(torch.eq),
    "Erf": plain(torch.erf),
    "Exp": plain(torch.exp),
    "Floor": plain(torch.floor),
    "Gemm": gemm,
    "Greater": plain(torch.gt),
    "GreaterOrEqual": plain(torch.ge),
    "IsInf": plain(torch.isinf),
    "IsNaN": plain(torch.isnan),
    "Less": plain(torch.lt),
    "LessOrEqual": plain(torch.le),
    "Log": plain(torch.log),
    "LogSoftmax": softmax,
    "MatMul": plain(torch.matmul),
    "Max": folded(torch.maximum),
    "Mean": lambda node, *inputs: reduce(torch.add, inputs) / len(inputs),
    "Min": folded(torch.minimum),
    "Mod": modulo,
    "Mul": plain(torch.mul),
    "Neg": plain(torch.neg),
    "Not": plain(torch.logical_not),
    "Or": plain(torch.logical_or),
    "Pow": plain(lambda x, y: torch.pow(x, y).to(x.dtype)),
    "Reciprocal": plain(torch.reciprocal),
    **dict.fromkeys(REDUCTIONS, reduced),
    "Round": plain(torch.round),
    "Sign": plain(torch.sign),
    "Sin": plain(torch.sin),
    "Softmax": softmax,
    "Sqrt": plain(torch.sqrt),
    "Sub": plain(torch.sub),
    "Sum": folded(torch.add),
    "TopK": top_k,
    "Where": plain(torch.where),
    "Xor": plain(torch.logical_xor),
}
"""Operator → function."""
