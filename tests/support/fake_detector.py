"""A detector without weights: the reddest part of an image is a cup.

On the command line it is `tests.support.fake_detector:load`.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.detectors.class_names import COCO_80
from adaptiveisp.types import Detections, Image, Targets


class RedDetector:
    name = "red"
    class_names = COCO_80
    stride = 32
    weights_sha256 = ""

    def loss(self, image: Image, targets: list[Targets]) -> Float[Tensor, " batch"]:
        return (1 - image[:, 0].mean(dim=(1, 2))).clamp(min=0)

    def detect(
        self, image: Image, confidence: float = 0.001, nms_iou: float = 0.6, max_detections: int = 300
    ) -> list[Detections]:
        return [self._one(single, confidence) for single in image]

    def _one(self, image: Tensor, confidence: float) -> Detections:
        redness = image[0] - image[1:].amax(dim=0)
        rows, columns = torch.nonzero(redness > 0.5 * redness.max(), as_tuple=True)
        score = redness.max().clamp(0, 1).reshape(1)
        if score.item() < confidence or not len(rows):
            return Detections(image.new_zeros(0, 4), image.new_zeros(0), rows.new_zeros(0))
        box = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])[None].float()
        return Detections(box, score, rows.new_tensor([COCO_80.index("cup")]))


def load() -> RedDetector:
    return RedDetector()
