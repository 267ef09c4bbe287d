"""What a detector answers, as plain values that can be compared and sent between processes."""

import torch

from adaptiveisp.types import Detector

Answer = tuple[list[list[float]], list[float], list[int]]
"""Boxes, scores and labels of one image; float32 as Python's floats is exact."""


def answers_of(detector: Detector, image: torch.Tensor, confidence: float = 0.0001) -> list[Answer]:
    """The detections of each image of a batch."""
    found = detector.detect(image, confidence)
    return [(one.boxes.tolist(), one.scores.tolist(), one.labels.tolist()) for one in found]
