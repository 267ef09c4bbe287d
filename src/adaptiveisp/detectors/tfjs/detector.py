"""Base class of detectors whose network is a graph of TensorFlow.js: frozen, with loss and detections."""

from collections.abc import Sequence
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.detectors.answers import choose
from adaptiveisp.detectors.backends.engine import InferenceNetwork
from adaptiveisp.detectors.boxes import clip_boxes, nms
from adaptiveisp.detectors.checks import check_image, check_labels
from adaptiveisp.detectors.tfjs.network import GraphNetwork
from adaptiveisp.errors import DetectorError
from adaptiveisp.types import Detections, Image, LossTerms, Targets

BoxAndClass: TypeAlias = tuple[Float[Tensor, ""], Float[Tensor, ""]]
"""The terms of one image's loss: of the boxes, and of the classes."""


class GraphDetector(InferenceNetwork):
    """A frozen detector (protocol `Detector`); gradients reach the image only.

    A subclass sets `stride`, and implements `_prepared`, `_decode` and `_loss_of`.
    """

    stride: int
    thread_safe = True

    def __init__(self, network: GraphNetwork, name: str, class_names: Sequence[str], weights_sha256: str) -> None:
        """Sets the attributes of the detector.

        Args:
            network: the frozen network.
            name: short name for tables.
            class_names: index = label.
            weights_sha256: hash of the network's files, "" if there are none.
        """
        super().__init__()
        self.network = network
        self.name, self.class_names, self.weights_sha256 = name, tuple(class_names), weights_sha256
        self.requires_grad_(False)
        super().train(False)

    def train(self, mode: bool = True) -> "GraphDetector":
        """Does nothing: a detector stays in evaluation mode."""
        return self

    def forward(self, image: Image) -> tuple[Tensor, ...]:
        """The outputs of the network.

        Args:
            image: RGB in [0, 1], height and width multiples of `stride`.

        Raises:
            DetectorError: the image has another shape.
        """
        check_image(self.name, image, self.stride)
        return tuple(self.network(self._prepared(image)))

    def loss_terms(self, image: Image, targets: list[Targets]) -> LossTerms:
        """The terms of the loss of each image, see the loss of the subclass.

        Args:
            image: RGB in [0, 1].
            targets: one entry per image, boxes in pixels of `image`.
        """
        return self._loss_terms(self(image), targets, image.shape[-2:])

    def loss(self, image: Image, targets: list[Targets]) -> Float[Tensor, " batch"]:
        """The sum of `loss_terms` of each image."""
        return self.loss_terms(image, targets).total

    @torch.no_grad()
    def detect(
        self, image: Image, confidence: float = 0.001, nms_iou: float = 0.6, max_detections: int = 300
    ) -> list[Detections]:
        """The detections of each image.

        They are decoded in float32, also where the network runs in half precision, such as under autocast.

        Args:
            image: RGB in [0, 1].
            confidence: scores at or below this are dropped.
            nms_iou: greatest overlap of two boxes of one class.
            max_detections: per image.
        """
        return self._detections(self.infer(image), image.shape[-2:], confidence, nms_iou, max_detections)

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
        outputs = self.infer(image)
        first = [output[:detect_in] for output in outputs]
        found = self._detections(first, image.shape[-2:], confidence, nms_iou, max_detections)
        return found, self._loss_terms(outputs, targets, image.shape[-2:]).total

    def _prepared(self, image: Image) -> Image:
        """The image as the network wants it."""
        raise NotImplementedError

    def _decode(
        self, outputs: Sequence[Tensor], height: int, width: int
    ) -> tuple[Float[Tensor, "batch n 4"], Float[Tensor, "batch n classes"]]:
        """Boxes (xyxy, pixels) and scores of all cells, from outputs in float32.

        Args:
            outputs: those of the network.
            height, width: size of the images in pixels.
        """
        raise NotImplementedError

    def _loss_of(self, outputs: Sequence[Tensor], targets: Targets, height: int, width: int) -> BoxAndClass:
        """The two terms of the loss of one image.

        Args:
            outputs: those of the network for this image, in float32, without the axis of the batch.
            targets: its objects, on the device of the outputs.
            height, width: size of the image in pixels.
        """
        raise NotImplementedError

    def _loss_terms(self, outputs: Sequence[Tensor], targets: list[Targets], size: torch.Size) -> LossTerms:
        outputs = [output.float() for output in outputs]
        if len(targets) != len(outputs[0]):
            raise DetectorError(f"{len(outputs[0])} images but targets for {len(targets)}")
        check_labels(targets, len(self.class_names))
        terms = [
            self._loss_of(
                [output[number] for output in outputs],
                Targets(target.boxes.to(outputs[0]), target.labels.to(outputs[0].device).long()),
                *size,
            )
            for number, target in enumerate(targets)
        ]
        box, classification = (torch.stack(parts) for parts in zip(*terms, strict=True))
        return LossTerms(box=box, objectness=torch.zeros_like(box), classification=classification)

    def _detections(
        self, outputs: Sequence[Tensor], size: torch.Size, confidence: float, nms_iou: float, max_detections: int
    ) -> list[Detections]:
        height, width = size
        boxes, scores = self._decode([output.float() for output in outputs], height, width)
        results = []
        for image_boxes, image_scores in zip(boxes, scores, strict=True):
            place, label, score, dropped = choose(image_boxes, image_scores, confidence, height, width)
            kept = nms(image_boxes[place], score, label, nms_iou, max_detections)
            clipped = clip_boxes(image_boxes[place[kept]], height, width)
            results.append(Detections(clipped, score[kept], label[kept], dropped))
        return results


def cell_grid(rows: int, columns: int, like: Tensor) -> Float[Tensor, "cells 2"]:
    """The (column, row) of each cell, row by row.

    >>> cell_grid(2, 2, torch.zeros(())).tolist()
    [[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]
    """
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack((x.flatten(), y.flatten()), dim=1).to(like)


__all__ = ["BoxAndClass", "GraphDetector", "cell_grid"]
