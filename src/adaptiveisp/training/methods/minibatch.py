"""Minibatches of the training images and the losses of a pipeline on them, for methods that need no gradient."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.data.raw_frames import frames_of
from adaptiveisp.data.training_images import TrainingImages
from adaptiveisp.isp.external import RawFrame
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.isp.raw_pipeline import bound_to
from adaptiveisp.policies.base import Preprocessing
from adaptiveisp.policies.preprocessing import preprocessed_image
from adaptiveisp.training.gradients import Precision, detector_loss
from adaptiveisp.training.methods.learner import NonFiniteLossError
from adaptiveisp.types import Detector, Image, Targets

LARGEST_BATCH = 16
"""Largest number of images in one call of the detector, which limits the memory of its first layers."""


@dataclass(frozen=True)
class Minibatch:
    """Images on which pipelines are compared.

    Attributes:
        numbers: their numbers in the stream.
        image: (batch, 3, size, size) after the stages of the preprocessing.
        targets: labels in pixels of `image`.
        frames: their raws, for external ISPs; None without one.
    """

    numbers: list[int]
    image: Image
    targets: list[Targets]
    frames: list[RawFrame] | None = None


def take(
    stream: TrainingImages, first: int, n: int, preprocessing: Preprocessing, module_set: str, device: str
) -> Minibatch:
    """Loads a minibatch and applies the preprocessing, whose parameters are chosen for each image.

    Args:
        stream: training images by number.
        first: number of the first image.
        n: number of images.
        preprocessing: "raw" for none.
        module_set: gives the ranges of the preprocessing's parameters.
        device: device of the result.
    """
    sources = [stream[first + i] for i in range(n)]
    image = torch.stack([source.image for source in sources]).to(device)
    image = preprocessed_image(image, preprocessing, module_set)
    numbers, targets = [source.number for source in sources], [source.targets for source in sources]
    return Minibatch(numbers, image, targets, frames_of(sources))


@torch.no_grad()
def pipeline_losses(
    pipeline: Pipeline, batch: Minibatch, detector: Detector, precision: Precision
) -> Float[Tensor, " batch"]:
    """The detector's loss of each image after the pipeline, as float64 on the CPU; it costs one pass for each image.

    Args:
        pipeline: applied to all images.
        batch: images with their labels.
        detector: the frozen detector; its loss needs no gradient.
        precision: of its network.

    Raises:
        NonFiniteLossError: a loss is NaN or infinite.
    """
    parts = []
    for first in range(0, len(batch.numbers), LARGEST_BATCH):
        some = slice(first, first + LARGEST_BATCH)
        rendered = _rendered(pipeline, batch, some)
        parts.append(detector_loss(detector, rendered, batch.targets[some], precision).double())
    losses = torch.cat(parts).cpu()
    if not bool(losses.isfinite().all()):
        content = {"numbers": batch.numbers, "images": batch.image, "pipeline": pipeline.to_json(), "losses": losses}
        raise NonFiniteLossError(f"the loss of a pipeline is not finite on images {batch.numbers}", content)
    return losses


def _rendered(pipeline: Pipeline, batch: Minibatch, some: slice) -> Image:
    """Some images of a minibatch after the pipeline, whose external ISP develops the raw of each."""
    image = batch.image[some]
    if batch.frames is None:
        return pipeline.render(image)
    pairs = zip(image, batch.frames[some], strict=True)
    return torch.cat([bound_to(pipeline, frame).render(one[None]) for one, frame in pairs])
