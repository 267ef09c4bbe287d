"""Graphs that PyTorch's TorchScript exporter makes of networks and of modules from outside the package.

The newer exporter (dynamo=True) needs a further package, onnxscript, and takes ten times as long.
"""

import io
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adaptiveisp.deployment.ops import EXTRA, OPSET, Ops, Value
from adaptiveisp.errors import AdaptiveISPError, logger
from adaptiveisp.isp.module import IspModule
from adaptiveisp.types import ParamTensor
from adaptiveisp.utils.optional_imports import import_extra
from adaptiveisp.utils.own_code import reason_of

OPERATOR = re.compile(r"[Oo]perator '?([\w:.]+)")
"""The name of an operator in an error of the exporter."""
TRACED_SIZE, OTHER_SIZE = (48, 64), (37, 51)
"""(height, width) of the image with which a module is traced, and of another one with which the graph is checked."""
TOLERANCE = 1e-4
"""Greatest difference of a traced module from its function."""


def trace(
    network: nn.Module,
    example: tuple[Tensor, ...],
    named: str,
    free: Mapping[str, Mapping[int, str]] | None = None,
    kind: type[AdaptiveISPError] = AdaptiveISPError,
) -> Any:
    """The `onnx.ModelProto` of a network.

    Args:
        network: the network.
        example: inputs, whose sizes the graph keeps.
        named: names the network in errors.
        free: names of the inputs → axes of any size and their names.
        kind: class of the error.

    Raises:
        AdaptiveISPError: PyTorch cannot export it; the message names the operator.
    """
    onnx = import_extra("onnx", EXTRA)
    file = io.BytesIO()
    export: Any = torch.onnx.export  # its annotations leave out file objects
    options = {} if free is None else {"input_names": list(free), "dynamic_axes": free}
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of values that a trace keeps fixed
        try:
            export(network, example, file, dynamo=False, opset_version=OPSET, **options)
        except Exception as error:  # the exporter raises many kinds of errors
            logger.debug("%s", named, exc_info=error)
            found = OPERATOR.search(str(error))
            what = f"has no ONNX form of its operator {found[1]}" if found else f"cannot export it ({reason_of(error)})"
            raise kind(f"{named}: PyTorch {what}; write its nodes yourself (docs/extending.md)") from error
    return onnx.load_model_from_string(file.getvalue())


@dataclass
class _Renamer:
    """Gives the names of a merged graph new ones within the scopes of the graph around it."""

    ops: Ops
    names: dict[str, str]

    def __call__(self, name: str) -> str:
        if name and name not in self.names:
            self.names[name] = self.ops.unique(name.strip("/").replace("::", "_"))
        return self.names.get(name, "")


def merged(ops: Ops, model: Any, inputs: Sequence[Value]) -> list[Value]:
    """The outputs of a model whose nodes are added to a graph.

    Args:
        ops: the graph.
        model: an `onnx.ModelProto` of the graph's own opset.
        inputs: values for its inputs, in order.
    """
    graph, helper = model.graph, ops.onnx.helper
    constants = {tensor.name for tensor in graph.initializer}
    given = [entry.name for entry in graph.input if entry.name not in constants]
    rename = _Renamer(ops, {name: ops.named(value) for name, value in zip(given, inputs, strict=False)})
    for tensor in graph.initializer:
        copy = ops.onnx.TensorProto()
        copy.CopyFrom(tensor)
        copy.name = rename(tensor.name)
        ops.root.initializers.append(copy)
    for node in graph.node:
        ops.nodes.append(_renamed(ops, node, rename))
    types = [helper.tensor_dtype_to_np_dtype(entry.type.tensor_type.elem_type) for entry in graph.output]
    return [Value(ops, rename(entry.name), np.dtype(kind)) for entry, kind in zip(graph.output, types, strict=True)]


def _renamed(ops: Ops, node: Any, rename: _Renamer) -> Any:
    """A copy of a node with new names, those of its branches too."""
    copy = ops.onnx.NodeProto()
    copy.CopyFrom(node)
    del copy.input[:], copy.output[:]
    copy.input.extend(rename(name) for name in node.input)
    copy.output.extend(rename(name) for name in node.output)
    copy.name = copy.output[0] if copy.output else ops.unique(node.op_type)
    for attribute in copy.attribute:
        if attribute.HasField("g"):
            inner = attribute.g
            nodes = [_renamed(ops, one, rename) for one in inner.node]
            del inner.node[:]
            inner.node.extend(nodes)
            for entry in (*inner.input, *inner.output, *inner.initializer):
                entry.name = rename(entry.name)
            del inner.value_info[:]
    return copy


class _Function(nn.Module):
    """A module's function, for the tracer."""

    def __init__(self, function: Any):
        super().__init__()
        self.function = function

    def forward(self, *given: Tensor) -> Tensor:
        made: Tensor = self.function(*given)
        return made


def traced_module(module: IspModule, ops: Ops, image: Value, params: Value) -> Value:
    """The image after a module from outside the package that has no hook, before the clip.

    Raises:
        AdaptiveISPError: PyTorch cannot export its function, or the graph differs from it at another size.
    """
    row = sample_params(module)
    named = f"module {module.name}"
    free = {"image": {2: "height", 3: "width"}, "params": {}}
    model = trace(_Function(module.function), (_picture(TRACED_SIZE), row), named, free)
    other = _picture(OTHER_SIZE)
    with torch.no_grad():
        wanted = module.function(other, row).numpy()
    found = _run(model, {"image": other.numpy(), "params": row.numpy()}, named)
    if found.shape != wanted.shape or not bool((abs(found - wanted) <= TOLERANCE).all()):
        remedy = "write its nodes yourself (docs/extending.md)"
        raise AdaptiveISPError(f"{named}: the graph that PyTorch makes of it differs at another image size; {remedy}")
    single = ops.cast(image, np.float32)
    (made,) = merged(ops, model, [single, ops.reshape(params, 1, len(module.params))])
    return ops.cast(made, image.dtype)


def traced_head(ops: Ops, module: IspModule, logits: Value) -> Value:
    """The parameters, a vector, that a module's own `head` makes of a network's outputs.

    Raises:
        AdaptiveISPError: PyTorch cannot export it.
    """
    example = torch.zeros(1, len(module.params))
    model = trace(_Function(module.head), (example,), f"the head of module {module.name}")
    (made,) = merged(ops, model, [ops.reshape(logits, 1, len(module.params))])
    return ops.reshape(made, -1)


def sample_params(module: IspModule) -> ParamTensor:
    """Parameters a little off the neutral ones, (1, n)."""
    neutral = module.logits_from_params(module.neutral_params)
    return module.params_from_logits(torch.tensor([neutral], dtype=torch.float32) + 0.2)


def _picture(size: tuple[int, int]) -> Tensor:
    return torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))


def _run(model: Any, feeds: Mapping[str, Any], named: str) -> Any:
    """The output of a traced module by onnxruntime; inputs that it does not use are left out."""
    runtime = import_extra("onnxruntime", EXTRA)
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = runtime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        used = {entry.name for entry in session.get_inputs()}
        return session.run(None, {name: value for name, value in feeds.items() if name in used})[0]
    except Exception as error:  # the exceptions of onnxruntime have no common base
        raise AdaptiveISPError(f"{named}: onnxruntime cannot run its graph ({reason_of(error)})") from error
