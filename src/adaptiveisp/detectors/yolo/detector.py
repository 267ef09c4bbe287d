"""Base class of all YOLO-style detectors: frozen, with loss and detections.

Source: Redmon and Farhadi 2018 (YOLOv3).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.detectors.answers import choose
from adaptiveisp.detectors.backends.engine import InferenceNetwork
from adaptiveisp.detectors.boxes import clip_boxes, cxcywh_to_xyxy, nms
from adaptiveisp.detectors.checks import check_image
from adaptiveisp.detectors.darknet.layers import Yolo
from adaptiveisp.detectors.yolo.loss import DECODES, Decode, Head, decode_boxes, yolo_loss
from adaptiveisp.errors import DetectorError
from adaptiveisp.types import Detections, Image, LossTerms, Targets

HALF_PRECISIONS = (torch.bfloat16, torch.float16)


class YoloDetector(InferenceNetwork):
    """A frozen YOLO-style detector (protocol `Detector`); gradients reach the image only.

    A subclass builds its layers, sets `stride` and `detection_layers` (finest first), and implements `_logits`.
    """

    detection_layers: Sequence[Yolo]
    stride: int
    thread_safe = True

    def __init__(self, name: str, class_names: tuple[str, ...], decode: Decode, weights_sha256: str) -> None:
        """Sets the attributes of the detector.

        Args:
            name: short name for tables.
            class_names: index = label.
            decode: decoding of its boxes, see `yolo.loss.Decode`.
            weights_sha256: hash of the weights file, "" if there is none.

        Raises:
            DetectorError: there is no such decode.
        """
        super().__init__()
        if decode not in DECODES:
            raise DetectorError(f"{decode}: no such decode; known: {', '.join(DECODES)}")
        self.name, self.class_names, self.decode = name, tuple(class_names), decode
        self.weights_sha256 = weights_sha256

    def train(self, mode: bool = True) -> "YoloDetector":
        """Does nothing: a detector stays in evaluation mode."""
        return self

    def _freeze(self) -> None:
        """Freezes all weights and sets the evaluation mode, after the layers are built."""
        self.requires_grad_(False)
        super().train(False)

    def _logits(self, image: Image) -> list[Head]:
        """The logits of every detection layer, finest grid first, for images whose shape was checked."""
        raise NotImplementedError

    def heads(self, image: Image) -> list[Head]:
        """The logits of every detection layer, finest grid first.

        Args:
            image: RGB in [0, 1], height and width multiples of `stride`.

        Raises:
            DetectorError: the image has another shape.
        """
        check_image(self.name, image, self.stride)
        return self._logits(image)

    def forward(self, image: Image) -> list[Head]:
        """The same as `heads`."""
        return self.heads(image)

    def loss_terms(self, image: Image, targets: list[Targets]) -> LossTerms:
        """The terms of the training loss of each image; see `yolo_loss`.

        Args:
            image: RGB in [0, 1].
            targets: one entry per image, boxes in pixels of `image`.
        """
        return self._loss_terms(self.heads(image), targets, image)

    def loss(self, image: Image, targets: list[Targets]) -> Float[Tensor, " batch"]:
        """The sum of `loss_terms` of each image."""
        return self.loss_terms(image, targets).total

    @torch.no_grad()
    def detect(
        self, image: Image, confidence: float = 0.001, nms_iou: float = 0.6, max_detections: int = 300
    ) -> list[Detections]:
        """The detections of each image; score = objectness x class probability, and one box may give several classes.

        They are decoded in float32, also where the network runs in half precision, such as under autocast.

        Args:
            image: RGB in [0, 1].
            confidence: scores at or below this are dropped.
            nms_iou: greatest overlap of two boxes of one class.
            max_detections: per image.
        """
        return self._detections(list(self.infer(image)), image.shape[-2:], confidence, nms_iou, max_detections)

    @torch.no_grad()
    def detect_with_loss(
        self,
        image: Image,
        targets: list[Targets],
        detect_in: int,
        confidence: float = 0.001,
        nms_iou: float = 0.6,
        max_detections: int = 300,
    ) -> tuple[list[Detections], Float[Tensor, " batch"]]:
        """Detections and loss from one forward pass, see `DetectsWithLoss`."""
        heads = list(self.infer(image))
        first = [head[:detect_in] for head in heads]
        found = self._detections(first, image.shape[-2:], confidence, nms_iou, max_detections)
        return found, self._loss_terms(heads, targets, image).total

    def _loss_terms(self, heads: list[Head], targets: list[Targets], image: Image) -> LossTerms:
        anchors = [layer.anchors for layer in self.detection_layers]
        height, width = image.shape[-2:]
        return yolo_loss(_in_single(heads), targets, anchors, height, width, self.decode)

    def _detections(
        self, heads: list[Head], size: torch.Size, confidence: float, nms_iou: float, max_detections: int
    ) -> list[Detections]:
        boxes, scores = self._decode(_in_single(heads))
        height, width = size
        results = []
        for image_boxes, image_scores in zip(boxes, scores, strict=True):
            place, label, score, dropped = choose(image_boxes, image_scores, confidence, height, width)
            kept = nms(image_boxes[place], score, label, nms_iou, max_detections)
            clipped = clip_boxes(image_boxes[place[kept]], height, width)
            results.append(Detections(clipped, score[kept], label[kept], dropped))
        return results

    def _decode(self, heads: list[Head]) -> tuple[Float[Tensor, "batch n 4"], Float[Tensor, "batch n classes"]]:
        """Boxes (xyxy, pixels) and scores of every anchor of every cell."""
        boxes, scores = [], []
        for layer, head in zip(self.detection_layers, heads, strict=True):
            rows, columns = head.shape[2:4]
            y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
            corner = torch.stack((x, y, torch.zeros_like(x), torch.zeros_like(x)), dim=-1).to(head)
            anchors = (layer.anchors.to(head) / layer.stride)[:, None, None]
            box = (decode_boxes(head[..., :4], anchors, self.decode) + corner) * layer.stride
            score = head[..., 4:5].sigmoid() * head[..., 5:].sigmoid()
            boxes.append(cxcywh_to_xyxy(box).flatten(1, 3))
            scores.append(score.flatten(1, 3))
        return torch.cat(boxes, dim=1), torch.cat(scores, dim=1)


def _in_single(heads: list[Head]) -> list[Head]:
    """Logits of half precision, which a network gives under autocast and which is too coarse for boxes, in float32."""
    return [head.float() if head.dtype in HALF_PRECISIONS else head for head in heads]
