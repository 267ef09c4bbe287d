"""The choice of no detector, for looking at pictures alone."""

from jaxtyping import Float
from torch import Tensor

from adaptiveisp.errors import DetectorError
from adaptiveisp.types import Detections, Image, Targets

NAME = "no detector"


class NoDetector:
    """Finds nothing, so that pictures can be looked at where no weights are installed."""

    name = NAME
    class_names: tuple[str, ...] = ("object",)
    stride = 32
    weights_sha256 = ""

    def loss(self, image: Image, targets: list[Targets]) -> Float[Tensor, " batch"]:
        """There is none.

        Raises:
            DetectorError: always.
        """
        raise DetectorError("there is no detector, and so no loss; choose one")

    def detect(
        self, image: Image, confidence: float = 0.001, nms_iou: float = 0.6, max_detections: int = 300
    ) -> list[Detections]:
        """No boxes for each image."""
        return [Detections(image.new_zeros(0, 4), image.new_zeros(0), image.new_zeros(0).long()) for _ in image]
