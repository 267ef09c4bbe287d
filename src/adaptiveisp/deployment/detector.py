"""A detector's network and the decoding of its boxes as nodes of a graph.

PyTorch's TorchScript exporter traces the network at the size of the padded frame, which is fixed, together with the
detector's own decoding. The graph of an ONNX file is taken as it is.
"""

import io
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adaptiveisp.deployment.ops import EXTRA, OPSET, Ops, Value
from adaptiveisp.detectors.backends.engine import InferenceNetwork
from adaptiveisp.errors import DetectorError, logger
from adaptiveisp.types import Detector
from adaptiveisp.utils.optional_imports import import_extra
from adaptiveisp.utils.own_code import reason_of


class _Candidates(nn.Module):
    """Boxes (1, n, 4) and scores (1, n, classes) of a detector of the package, for the tracer."""

    def __init__(self, detector: Any):
        super().__init__()
        self.detector = detector

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        outputs = [output.float() for output in self.detector(image)]
        if hasattr(self.detector, "detection_layers"):
            boxes, scores = self.detector._decode(outputs)
        else:
            boxes, scores = self.detector._decode(outputs, *image.shape[-2:])
        return boxes, scores


def candidates(ops: Ops, detector: Detector, image: Value, frame: int) -> tuple[Value, Value]:
    """Boxes (1, n, 4), xyxy in pixels of the padded frame, and scores (1, n, classes).

    Args:
        ops: the graph.
        detector: of the package.
        image: (1, 3, frame, frame) in [0, 1], float32.
        frame: side of the padded frame in pixels.

    Raises:
        DetectorError: the detector has no network that can be exported.
    """
    if not isinstance(detector, InferenceNetwork):
        raise DetectorError(
            f"detector {detector.name}: cannot be exported, since it is no network of the package; give one of "
            "`weights list`, or an .onnx file"
        )
    model = traced(_Candidates(detector), (torch.zeros(1, 3, frame, frame),), f"detector {detector.name}")
    with ops.scope("detector"):
        boxes, scores = merged(ops, model, [image])
    return boxes, scores


def traced(network: nn.Module, example: tuple[Tensor, ...], named: str) -> Any:
    """The `onnx.ModelProto` of a network for inputs of the example's shapes.

    Raises:
        DetectorError: PyTorch cannot export it.
    """
    onnx = import_extra("onnx", EXTRA)
    file = io.BytesIO()
    export: Any = torch.onnx.export  # its annotations leave out file objects
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of values that a trace keeps fixed, which is meant: so is the shape
        try:
            export(network, example, file, dynamo=False, opset_version=OPSET, do_constant_folding=True)
        except Exception as error:  # the exporter raises many kinds of errors
            logger.debug("%s", named, exc_info=error)
            raise DetectorError(f"{named}: PyTorch cannot export it ({reason_of(error)})") from error
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
    rename = _Renamer(ops, {name: ops.named(value) for name, value in zip(given, inputs, strict=True)})
    for tensor in graph.initializer:
        copy = ops.onnx.TensorProto()
        copy.CopyFrom(tensor)
        copy.name = rename(tensor.name)
        ops.root.initializers.append(copy)
    for node in graph.node:
        copy = ops.onnx.NodeProto()
        copy.CopyFrom(node)
        del copy.input[:], copy.output[:]
        copy.input.extend(rename(name) for name in node.input)
        copy.output.extend(rename(name) for name in node.output)
        copy.name = copy.output[0]
        ops.nodes.append(copy)
    types = [helper.tensor_dtype_to_np_dtype(entry.type.tensor_type.elem_type) for entry in graph.output]
    return [Value(ops, rename(entry.name), np.dtype(kind)) for entry, kind in zip(graph.output, types, strict=True)]
