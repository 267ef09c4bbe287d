"""A detector's network and the decoding of its boxes as nodes of a graph.

PyTorch's TorchScript exporter traces the network at the size of the padded frame, which is fixed, together with the
detector's own decoding. The graph of an ONNX file is taken as it is.
"""

from typing import Any

import torch
from torch import Tensor, nn

from adaptiveisp.deployment.ops import Ops, Value
from adaptiveisp.deployment.tracing import merged, trace
from adaptiveisp.detectors.backends.engine import InferenceNetwork
from adaptiveisp.errors import DetectorError
from adaptiveisp.types import Detector


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
    example = (torch.zeros(1, 3, frame, frame),)
    model = trace(_Candidates(detector), example, f"detector {detector.name}", kind=DetectorError)
    with ops.scope("detector"):
        boxes, scores = merged(ops, model, [image])
    return boxes, scores
