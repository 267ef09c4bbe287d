"""The stages that run before a policy's own: those of a heuristic, fitted to each image."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from adaptiveisp.isp.execution import is_new
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.policies.base import Preprocessing
from adaptiveisp.policies.heuristics import OBSERVATION_SIZE, AutoExposure
from adaptiveisp.types import Image


def preprocessing_stages(image: Image, kind: Preprocessing) -> list[tuple[Stage, ...]]:
    """The stages that run before a policy's own, for each image: no stage for "raw", else those of the heuristic.

    Args:
        image: developed images, linear RGB in [0, 1].
        kind: which heuristic.
    """
    return preprocessing_of_observation(
        image if kind == "raw" else F.adaptive_avg_pool2d(image, OBSERVATION_SIZE), kind
    )


def preprocessing_of_observation(pooled: Image, kind: Preprocessing) -> list[tuple[Stage, ...]]:
    """`preprocessing_stages` of images that were already averaged to `OBSERVATION_SIZE`.

    Args:
        pooled: (batch, 3, 64, 64) pooled images, linear RGB in [0, 1].
        kind: which heuristic.
    """
    if kind == "raw":
        return [()] * pooled.shape[0]
    # The heuristic makes several short passes and reads a number after each. On a GPU every read waits for the device,
    # so that the passes run on the CPU.
    found = [AutoExposure().plan_observation(observation).stages for observation in pooled.cpu()]
    return found if kind == "auto-exposure" else [(_as_gain(*stages[:2]),) for stages in found]


def _as_gain(balance: Stage, exposure: Stage) -> Stage:
    """White balance and the exposure after it as one stage."""
    factor = 2.0 ** exposure.params["ev"]
    return Stage("gain", {name: value * factor for name, value in balance.params.items()})


def preprocessed_image(image: Image, kind: Preprocessing, module_set: str = "wide") -> Image:
    """The images after their `preprocessing_stages`.

    Args:
        image: developed images, linear RGB in [0, 1].
        kind: which heuristic.
        module_set: named set whose parameter ranges the stages keep.
    """
    return rendered_stages(image, preprocessing_stages(image, kind), module_set)


def rendered_stages(image: Image, plans: Sequence[tuple[Stage, ...]], module_set: str = "wide") -> Image:
    """Each image after its own stages, as a new tensor.

    Args:
        image: developed images, linear RGB in [0, 1].
        plans: stages of each image.
        module_set: named set whose parameter ranges the stages keep.
    """
    rendered = [Pipeline(plan, module_set).render(image[i : i + 1]) for i, plan in enumerate(plans)]
    return rendered[0] if len(rendered) == 1 and is_new(rendered[0], image) else torch.cat(rendered)
