"""Conversion of an ONNX graph to a frozen PyTorch module, so that gradients reach its inputs.

The operators in `SUPPORTED` are converted. `verified` runs the module and onnxruntime on the same input, and the module
is used only if they agree.
Source: the ONNX specification (intermediate representation and operators).
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adaptiveisp.detectors.onnx.layers import LAYERS
from adaptiveisp.detectors.onnx.operators import DTYPES, OPERATORS, Node, Operator
from adaptiveisp.detectors.onnx.shapes import SHAPES
from adaptiveisp.errors import DetectorError
from adaptiveisp.utils.optional_imports import import_extra

SUPPORTED: dict[str, Operator] = {**OPERATORS, **SHAPES, **LAYERS}
"""Every operator that is converted; all belong to ONNX's own domain."""

OWN_DOMAINS = ("", "ai.onnx")

TOLERANCE = 1e-3
"""Greatest difference from onnxruntime, relative to the greatest value of an output, or to 1 if that is smaller."""
HALF_TOLERANCE = 2e-2
"""The same for a model in half precision, which is computed here in single precision."""

Values = dict[str, Tensor]


class ConversionError(Exception):
    """A graph cannot be converted, or has no gradient. The message is a reason without file name and remedy."""


class OnnxGraph(nn.Module):
    """The graph of a model as a module; its constants are buffers, which move to another device with the module.

    Args:
        model: an `onnx.ModelProto` with all its data.

    Raises:
        ConversionError: the graph has an operator, a type or a structure that is not supported.
    """

    def __init__(self, model: Any):
        super().__init__()
        if model.functions:
            model = import_extra("onnx.inliner", "onnx").inline_local_functions(model)
        opset = next((entry.version for entry in model.opset_import if entry.domain in OWN_DOMAINS), 1)
        graph = model.graph
        if graph.sparse_initializer:
            raise ConversionError("sparse constants are not supported")
        self.nodes = [_node(proto, opset) for proto in graph.node]
        unknown = sorted({node.op for node in self.nodes} - set(SUPPORTED))
        if unknown:
            raise ConversionError(f"operator {', '.join(unknown)} is not supported")
        self.output_names = [value.name for value in graph.output]
        self._constants: dict[str, str] = {}
        kernels = {node.inputs[1] for node in self.nodes if node.op == "Conv"}
        for place, proto in enumerate(graph.initializer):
            value = _tensor(proto)
            if proto.name in kernels and value.ndim == 4:  # a quarter faster on a CPU, as in `Darknet`
                value = value.contiguous(memory_format=torch.channels_last)
            self.register_buffer(f"constant{place}", value, persistent=False)
            self._constants[proto.name] = f"constant{place}"
        self._last_use = {name: place for place, node in enumerate(self.nodes) for name in node.inputs}
        super().train(False)

    def train(self, mode: bool = True) -> "OnnxGraph":
        """Does nothing: the graph stays in evaluation mode."""
        return self

    def forward(self, feeds: Mapping[str, Tensor]) -> Values:
        """The graph's outputs by name.

        Args:
            feeds: its inputs by name.

        Raises:
            DetectorError: an operator fails on its inputs.
        """
        constants = {name: getattr(self, buffer) for name, buffer in self._constants.items()}
        values: dict[str, Tensor] = dict(feeds)
        device = next(iter(feeds.values())).device
        for place, node in enumerate(self.nodes):
            inputs = [self._value(name, values, constants) for name in node.inputs]
            try:
                found = SUPPORTED[node.op](node, *inputs)
            # A graph from any source can make torch raise any exception.
            except Exception as error:
                reason = next(iter(str(error).splitlines()), type(error).__name__)
                raise DetectorError(f"operator {node.op} ({node.name}): {reason}") from error
            outputs = found if isinstance(found, tuple | list) else (found,)
            for name, value in zip(node.outputs, outputs, strict=False):
                values[name] = value.to(device) if node.op == "Constant" else value
            for name in {*node.inputs, *node.outputs}:
                if self._last_use.get(name, -1) <= place and name not in self.output_names:
                    values.pop(name, None)
        return {name: self._value(name, values, constants) for name in self.output_names}  # type: ignore[misc]

    @staticmethod
    def _value(name: str, values: Values, constants: Values) -> Tensor | None:
        if not name:
            return None
        return values[name] if name in values else constants[name]


def _node(proto: Any, opset: int) -> Node:
    if proto.domain not in OWN_DOMAINS:
        raise ConversionError(f"operator {proto.domain}.{proto.op_type} is not supported")
    attributes = {attribute.name: _attribute(attribute, proto.op_type) for attribute in proto.attribute}
    label = proto.name or next(iter(proto.output), "")
    return Node(proto.op_type, label, tuple(proto.input), tuple(proto.output), attributes, opset)


def _attribute(proto: Any, op: str) -> Any:
    """The value of an attribute as a Python object or a tensor."""
    value = import_extra("onnx.helper", "onnx").get_attribute_value(proto)
    if proto.type in (proto.GRAPH, proto.GRAPHS, proto.SPARSE_TENSOR, proto.SPARSE_TENSORS):
        raise ConversionError(f"operator {op} is not supported")
    if proto.type == proto.TENSOR:
        return _tensor(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return list(value) if proto.type in (proto.INTS, proto.FLOATS, proto.STRINGS) else value


def _tensor(proto: Any) -> Tensor:
    if proto.data_type not in DTYPES:
        raise ConversionError(f"{proto.name}: values of type {proto.data_type} are not supported")
    helper = import_extra("onnx.numpy_helper", "onnx")
    try:
        array = helper.to_array(proto)
    except (ValueError, TypeError, OSError) as error:  # its bytes do not fit its shape, which onnxruntime may accept
        raise ConversionError(f"{proto.name}: its values cannot be read ({error})") from error
    plain = array.astype(np.float32) if proto.data_type in (10, 16) else array
    return torch.from_numpy(np.array(plain)).to(DTYPES[proto.data_type])


Run = Callable[[dict[str, Tensor]], Values]


def verified(model: Any, run: Run, feeds: dict[str, Tensor], image: str, half: bool) -> tuple[OnnxGraph, float]:
    """The converted graph, and its greatest difference from onnxruntime relative to the greatest value of each output.

    Args:
        model: an `onnx.ModelProto` with all its data.
        run: the same model in onnxruntime.
        feeds: inputs for the comparison.
        image: name of the input that gradients must reach.
        half: whether the model works in half precision.

    Raises:
        ConversionError: the graph cannot be converted or disagrees, or no finite gradient reaches the image.
    """
    graph = OnnxGraph(model)
    leaf = feeds[image].float().clone().requires_grad_()
    single = {name: value.float() if value.is_floating_point() else value for name, value in feeds.items()}
    try:
        with torch.enable_grad():
            found = graph({**single, image: leaf})
    except DetectorError as error:
        raise ConversionError(str(error)) from error
    difference = 0.0
    for name, expected in run(feeds).items():
        own = found[name].detach().to(expected.device)
        if own.shape != expected.shape:
            sizes = f"{tuple(own.shape)} instead of {tuple(expected.shape)}"
            raise ConversionError(f"output {name} is {sizes} when it is converted")
        if expected.numel():
            size = max(1.0, float(expected.abs().max()))
            apart = float((own.double() - expected.double()).abs().max()) / size
            if not math.isfinite(apart):  # `max` below would ignore NaN
                raise ConversionError(f"output {name} is not finite on a random image")
            difference = max(difference, apart)
    if not difference <= (HALF_TOLERANCE if half else TOLERANCE):
        raise ConversionError(f"converted, it differs from onnxruntime by {difference:.1e} of its outputs' size")
    reached = [value for value in found.values() if value.requires_grad]
    if not reached:
        raise ConversionError("no gradient reaches the image")
    total = torch.stack([value.float().sum() for value in reached]).sum()
    (gradient,) = torch.autograd.grad(total, leaf, materialize_grads=True)
    if not bool(gradient.isfinite().all()):
        raise ConversionError("its gradient is not finite on a random image")
    return graph, difference
