"""A detector's network and the decoding of its boxes as nodes of a graph.

PyTorch's exporter traces the network at the size of the padded frame, which is fixed, together with the detector's own
decoding. The graph of an ONNX file is taken as it is, and only the decoding of its outputs is traced.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from adaptiveisp.deployment.ops import OPSET, Ops, Value
from adaptiveisp.deployment.resampling import resize
from adaptiveisp.deployment.tracing import merged, trace
from adaptiveisp.detectors.backends.engine import InferenceNetwork
from adaptiveisp.detectors.boxes import cxcywh_to_xyxy
from adaptiveisp.detectors.huggingface.loading import TransformersDetector, _scores
from adaptiveisp.detectors.letterbox import PAD_GREY
from adaptiveisp.detectors.onnx.decode import Layout, decode_outputs
from adaptiveisp.detectors.onnx.file import OnnxDetector
from adaptiveisp.detectors.onnx.session import CODE_VALUES
from adaptiveisp.detectors.tfjs.detector import GraphDetector
from adaptiveisp.detectors.yolo.detector import YoloDetector
from adaptiveisp.errors import DetectorError
from adaptiveisp.types import Detector
from adaptiveisp.utils.optional_imports import import_extra

HOOK = "onnx_candidates"
"""Method of a detector from outside the package: (graph, image, side) → boxes and scores, as `candidates` returns."""


def is_set(detector: Detector) -> bool:
    """Whether a detector finds each object once, so that nothing is suppressed."""
    if isinstance(detector, OnnxDetector):
        return detector.layout.is_set
    return isinstance(detector, TransformersDetector)


def candidates(ops: Ops, detector: Detector, image: Value, frame: int) -> tuple[Value, Value]:
    """Boxes (1, n, 4), xyxy in pixels of the padded frame, and scores (1, n, classes).

    Args:
        ops: the graph.
        detector: of the package, or one with the method `HOOK`.
        image: (1, 3, frame, frame) in [0, 1], float32.
        frame: side of the padded frame in pixels.

    Raises:
        DetectorError: the detector has no network that can be exported.
    """
    with ops.scope("detector"):
        if hasattr(detector, HOOK):
            boxes, scores = getattr(detector, HOOK)(ops, image, frame)
        elif isinstance(detector, OnnxDetector):
            boxes, scores = _of_file(ops, detector, image, frame)
        elif isinstance(detector, YoloDetector | GraphDetector | TransformersDetector):
            example = (torch.zeros(1, 3, frame, frame),)
            network = _Candidates(detector, frame, ops.root.precision == np.float16)
            model = trace(network, example, f"detector {detector.name}", kind=DetectorError)
            boxes, scores = merged(ops, model, [image])
        else:
            raise DetectorError(
                f"detector {detector.name}: cannot be exported: it is no network of the package; give one of "
                f"`weights list` or an .onnx file, or write its method {HOOK} (docs/extending.md)"
            )
    return boxes, scores


class _Candidates(nn.Module):
    """Boxes (1, n, 4) and scores (1, n, classes) of a detector of the package, for the tracer."""

    def __init__(self, detector: InferenceNetwork, side: int, half: bool):
        super().__init__()
        self.side, self.half_precision = side, half
        self.detector = copy.deepcopy(detector).half() if half else detector

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes and scores, decoded in float32."""
        given = image.half() if self.half_precision else image
        outputs = [output.float() for output in self.detector(given)]
        return _decoded(self.detector, outputs, self.side)  # in a trace the image's own sides are tensors


def _decoded(detector: Any, outputs: list[Tensor], side: int) -> tuple[Tensor, Tensor]:
    if isinstance(detector, YoloDetector):
        return detector._decode(outputs)
    if isinstance(detector, GraphDetector):
        return detector._decode(outputs, side, side)
    logits, boxes = outputs
    corners = cxcywh_to_xyxy(boxes) * side
    return corners, _scores(logits[0], len(detector.class_names))[None]


class _Decode(nn.Module):
    """Boxes and scores from the outputs of an ONNX file, for the tracer."""

    def __init__(self, layout: Layout, height: int, width: int):
        super().__init__()
        self.layout, self.height, self.width = layout, height, width

    def forward(self, *outputs: Tensor) -> tuple[Tensor, Tensor]:
        """Boxes xyxy in pixels of the model's input, and scores."""
        values = dict(zip(self.layout.outputs, outputs, strict=True))
        (found,) = decode_outputs(self.layout, values, self.height, self.width)
        scores = found.scores
        if self.layout.decode == "detr":  # one class for each query
            scores = torch.where(scores < scores.amax(1, keepdim=True), torch.zeros_like(scores), scores)
        return found.boxes[None], scores[None]


def _of_file(ops: Ops, detector: OnnxDetector, image: Value, frame: int) -> tuple[Value, Value]:
    """Boxes and scores of a detector in an ONNX file.

    Raises:
        DetectorError: its graph cannot be merged; the message names the operator.
    """
    tall, wide = detector.fixed or (frame, frame)
    factor = min(tall / frame, wide / frame)
    side = max(1, round(frame * factor))
    top, left = (tall - side) // 2, (wide - side) // 2
    if side != frame:
        sides = [ops.constant(np.asarray(number, np.int64)) for number in (frame, side)]
        image = resize(ops, image, (sides[0], sides[0]), (sides[1], sides[1]))
    if (side, side) != (tall, wide):
        image = ops.pad(image, [top, left, tall - side - top, wide - side - left], fill=PAD_GREY)
    outputs = _run_file(ops, detector, image, (tall, wide))
    given = detector.run(torch.zeros(1, 3, tall, wide), by_graph=False)
    examples = tuple(given[name] for name in detector.layout.outputs)
    free = None
    if detector.layout.decode == "boxes":  # the number of final detections may vary
        free = {f"output{i}": {axis: f"n{i}_{axis}" for axis in range(1, one.ndim)} for i, one in enumerate(examples)}
    decode = trace(_Decode(detector.layout, tall, wide), examples, f"{detector.path}: decoding", free, DetectorError)
    boxes, scores = merged(ops, decode, outputs)
    if (side, top, left) != (frame, 0, 0):
        boxes = (boxes - np.asarray([left, top, left, top], np.float32)) * (frame / side)
    return boxes, scores


def _run_file(ops: Ops, detector: OnnxDetector, image: Value, size: tuple[int, int]) -> Sequence[Value]:
    """The outputs of the file's graph that its layout names, floats as float32."""
    session, sidecar = detector.session, detector.facts.sidecar
    if session.batch > 1:
        raise DetectorError(f"{detector.path}: takes {session.batch} images at once; export it for one")
    if sidecar.channels == "bgr":
        image = ops("Gather", image, np.asarray([2, 1, 0]), axis=1)
    scale = CODE_VALUES if session.takes_bytes else sidecar.scale
    image = image * float(scale) if scale != 1 else image
    for values, kind in ((sidecar.mean, "Sub"), (sidecar.std, "Div")):
        if values:
            image = ops(kind, image, np.asarray(values, np.float32).reshape(1, 3, 1, 1))
    if session.takes_bytes:
        image = ops.clip(ops("Round", image), 0, CODE_VALUES)
    if session.channels_last:
        image = ops("Transpose", image, perm=[0, 2, 3, 1])
    image = ops.cast(image, torch.zeros((), dtype=session.dtype).numpy().dtype)
    model = _at_opset(ops, detector)
    others = dict.fromkeys(session.others, ops.constant(np.asarray([[size[1], size[0]]], np.int64)))
    given = {session.image: image, **others}
    constants = {tensor.name for tensor in model.graph.initializer}
    names = [entry.name for entry in model.graph.input if entry.name not in constants]
    outputs = merged(ops, model, [given[name] for name in names])
    found = dict(zip((entry.name for entry in model.graph.output), outputs, strict=True))
    chosen = [found[name] for name in detector.layout.outputs]
    return [ops.cast(one, np.float32) if one.dtype.kind == "f" else one for one in chosen]


def _at_opset(ops: Ops, detector: OnnxDetector) -> Any:
    """The file's graph in the opset of the graph around it, which becomes newer if the file's is.

    Raises:
        DetectorError: it has operators of other libraries, or cannot be converted.
    """
    model = ops.onnx.load_model_from_string(detector.session._content)
    if model.functions:
        model = import_extra("onnx.inliner", "onnx").inline_local_functions(model)
    foreign = sorted(
        {f"{node.domain}.{node.op_type}" for node in model.graph.node if node.domain not in ("", "ai.onnx")}
    )
    if foreign:
        raise DetectorError(f"{detector.path}: has the custom operator {foreign[0]}; export it with standard ones")
    version = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)
    ops.root.opset = max(ops.root.opset, version)
    if version < OPSET:
        try:
            model = import_extra("onnx.version_converter", "onnx").convert_version(model, OPSET)
        except Exception as error:  # the converter raises errors of C++
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise DetectorError(
                f"{detector.path}: cannot be converted from opset {version} to {OPSET} ({reason}); export it with "
                f"opset {OPSET}"
            ) from error
    return model
