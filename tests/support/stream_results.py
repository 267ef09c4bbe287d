"""Results of a stream without a detector: grey images, or of a given colour, without boxes."""

import numpy as np
import torch

from adaptiveisp.detectors.class_names import COCO_80
from adaptiveisp.inference.result import Result, Timings
from adaptiveisp.policies.base import Developed
from adaptiveisp.streaming.stream import StreamResult
from adaptiveisp.types import Detections, RawImage


def result_of(number: int, colour: tuple[float, float, float] = (0.5, 0.5, 0.5), side: int = 32) -> StreamResult:
    image = torch.tensor(colour).reshape(3, 1, 1).expand(3, side, side).contiguous()
    raw = RawImage(np.full((side, side), 500, np.uint16), "RGGB", 64, 1023)
    none = Detections(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long))
    developed = Developed(None, image[None], (side, side), raw)
    result = Result(image, none, COCO_80, None, (side, side), Timings(), developed, raw, "none", "red", side)
    return StreamResult(number, f"frame-{number:06d}", None, result)
