"""What the methods that search without a gradient share: minibatches of the stream, and a pipeline's losses on them."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.data.training_images import TrainingImages
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.policies.base import Preprocessing
from adaptiveisp.policies.preprocessing import preprocessed_image
from adaptiveisp.training.methods.learner import NonFiniteLossError, Precision, detector_loss
from adaptiveisp.types import Detector, Image, Targets

AT_ONCE = 16
"""Images that the detector sees together at most, for the memory of its first layers."""


@dataclass(frozen=True)
class Minibatch:
    """Images on which pipelines are compared.

    Attributes:
        numbers: their places in the stream.
        image: (batch, 3, size, size) after the start's stages.
        targets: labels in pixels of `image`.
    """

    numbers: list[int]
    image: Image
    targets: list[Targets]


def take(stream: TrainingImages, first: int, n: int, start: Preprocessing, module_set: str, device: str) -> Minibatch:
    """The `n` images of the stream from number `first` on, on a device, each after the start's stages fitted to it."""
    sources = [stream[first + i] for i in range(n)]
    image = torch.stack([source.image for source in sources]).to(device)
    image = preprocessed_image(image, start, module_set)
    return Minibatch([source.number for source in sources], image, [source.targets for source in sources])


@torch.no_grad()
def pipeline_losses(
    pipeline: Pipeline, batch: Minibatch, detector: Detector, precision: Precision
) -> Float[Tensor, " batch"]:
    """The detector's loss of each image after the pipeline, float64, on the CPU; a detector pass for each.

    Args:
        pipeline: rendered on the fast path.
        batch: images with their labels.
        detector: the frozen detector; its loss needs no gradient.
        precision: of its network.

    Raises:
        NonFiniteLossError: a loss is NaN or infinite.
    """
    parts = []
    for first in range(0, len(batch.numbers), AT_ONCE):
        some = slice(first, first + AT_ONCE)
        rendered = pipeline.render(batch.image[some])
        parts.append(detector_loss(detector, rendered, batch.targets[some], precision).double())
    losses = torch.cat(parts).cpu()
    if not bool(losses.isfinite().all()):
        content = {"numbers": batch.numbers, "images": batch.image, "pipeline": pipeline.to_json(), "losses": losses}
        raise NonFiniteLossError(f"the loss of a pipeline is not finite on images {batch.numbers}", content)
    return losses
