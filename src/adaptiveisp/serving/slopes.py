"""The detector's loss of an image, and how it changes with each parameter of its pipeline."""

import math
from dataclasses import dataclass

import torch

from adaptiveisp.evaluation.detector_loss import ImageLabels
from adaptiveisp.inference.detection import pad_for
from adaptiveisp.isp.module import Param
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.policies.base import Developed
from adaptiveisp.types import Detector

STEP = 0.1
"""Share of a slider's way for which the change of the loss is stated."""


@dataclass(frozen=True)
class Slope:
    """How the loss changes with one parameter.

    Attributes:
        stage: number of the stage, from 0.
        param: name of the parameter.
        change: of the loss if the slider moved by a tenth of its way to the right, by the gradient.
    """

    stage: int
    param: str
    change: float


def slider_way(param: Param, value: float) -> float:
    """The change of a value, in its unit, when its slider moves by a tenth of its way; log sliders move in octaves.

    >>> slider_way(Param("ev", -10.0, 10.0, "stops", 0.0), 3.0)
    2.0
    """
    if param.scale == "log":
        return STEP * math.log(param.high / param.low) * value
    return STEP * (param.high - param.low)


def loss_and_slopes(
    detector: Detector, developed: Developed, labels: ImageLabels, pipeline: Pipeline, size: int
) -> tuple[float, list[Slope]]:
    """The loss of a pipeline's image, and its slope by each parameter.

    Args:
        detector: the frozen detector.
        developed: the developed raw.
        labels: of the raw.
        pipeline: bound to the raw where it has an external ISP, whose parameters have no slope.
        size: longer side in pixels.

    Raises:
        Exception: whatever a detector without a loss raises.
    """
    image, rows = developed.small.detach().clone(), []
    with torch.enable_grad():
        for stage, module in zip(pipeline.stages, pipeline.modules, strict=True):
            row = torch.tensor([list(stage.params.values())], dtype=image.dtype, device=image.device)
            rows.append(row.requires_grad_(bool(module.params) and module.external is None))
            image = module(image, row)
        batch, letterboxes = pad_for(detector, [pipeline.clipped(image)], developed.full_size, size)
        loss = detector.loss(batch, labels.in_frames(letterboxes, batch))[0]
        wanted = [row for row in rows if row.requires_grad]
        found = torch.autograd.grad(loss, wanted, allow_unused=True) if wanted and loss.requires_grad else ()
    gradients = dict(zip(map(id, wanted), found, strict=False))
    slopes = []
    for number, (stage, module, row) in enumerate(zip(pipeline.stages, pipeline.modules, rows, strict=True)):
        gradient = gradients.get(id(row))
        for column, param in enumerate(module.params):
            slope = 0.0 if gradient is None else float(gradient[0, column])
            change = slope * slider_way(param, stage.params[param.name])
            slopes.append(Slope(number, param.name, change if math.isfinite(change) else 0.0))
    return float(loss.detach()), slopes
