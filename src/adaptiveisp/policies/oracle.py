"""The greedy oracle: pipelines fitted to each image's own labels, as an upper bound for policies in an evaluation.

For one image, the search goes step by step. It tries every module of the set after those chosen so far, and moves its
parameters a few gradient steps down the frozen detector's loss for the true boxes. It takes the module that lowers this
loss most, and ends when no module lowers it by more than a threshold.

The oracle shows how much of the loss a choice of modules and parameters for each image can remove if the labels are
known. It is not a strict bound: the search is greedy and its gradient steps are few, so that better pipelines exist.
Besides, a lower loss of the detector need not mean a higher average precision.

Source: the search is ours; the actions are those of Wang et al. 2024 (AdaptiveISP).
"""

import math
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.detectors.letterbox import frame_size, pad_to_frame
from adaptiveisp.errors import PipelineError
from adaptiveisp.isp.logits import Row, stage_of, starting_row
from adaptiveisp.isp.module import IspModule
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.isp.registry import modules_of
from adaptiveisp.policies.base import Developed, FrameLabels, Policy, Preprocessing, Rendered, needs_labels_error
from adaptiveisp.policies.preprocessing import preprocessing_stages
from adaptiveisp.raw.unprocess import seeded_generator
from adaptiveisp.types import Detector, Image, Targets
from adaptiveisp.utils.clock import Stopwatch

HORIZON = 8
"""Most steps: those of an episode of the actor-critic's preset `cpu`, which the oracle is compared with."""

OneImage = Float[Tensor, "1 3 height width"]


@dataclass(frozen=True)
class Trial:
    """The result of trying a module; the loss is infinite if the result cannot be used.

    Attributes:
        loss: loss of the detector for the image after the stage.
        stage: the module with the best parameters found.
        image: the image after the stage.
    """

    loss: float
    stage: Stage
    image: OneImage


@dataclass(frozen=True)
class GreedyOracle(Policy):
    """The greedy search with labels, as the head of this file describes it.

    Attributes:
        name: short name for tables.
        preprocessing: heuristic whose stages run first; "raw" for no stages.
        module_set: named set to choose from; a module may be taken more than once.
        horizon: most steps.
        starts: number of starting points of a module's parameters: the neutral ones, and random ones around them,
            which are the same for every image and step. The one with the lowest loss is refined.
        spread: standard deviation of the random starting points, in units of z.
        refinements: gradient steps of each module at each step; 0 are done if the detector's loss has no gradient.
        rate: learning rate of Adam, in units of z.
        threshold: a module is taken if it lowers the loss by more than this.
    """

    name: str = "greedy-oracle"
    preprocessing: Preprocessing = "auto-exposure"
    module_set: str = "wide"
    horizon: int = HORIZON
    starts: int = 3
    spread: float = 0.5
    refinements: int = 4
    rate: float = 0.2
    threshold: float = 1e-3
    needs_labels: ClassVar[bool] = True
    takes_steps: ClassVar[bool] = True

    def plan(self, image: Image) -> list[Pipeline]:
        """Raises UsageError: the search needs labels."""
        raise needs_labels_error(self)

    def render(self, developed: Developed, labels: FrameLabels | None = None) -> Rendered:
        """The image after the pipeline that was found with the labels; its time is that of the search.

        Raises:
            UsageError: there are no labels.
        """
        if labels is None:
            raise needs_labels_error(self)
        stopwatch = Stopwatch(developed.small.device)
        with stopwatch.part("all"):
            (pipeline,) = self.plan_with_labels(developed.small, [labels.targets], labels.detector)
            with stopwatch.part("modules"):
                image = pipeline.render(developed.small)
        return Rendered(image, pipeline, stopwatch.milliseconds["all"], stopwatch.milliseconds["modules"])

    def with_steps(self, steps: int) -> "GreedyOracle":
        """The search with at most this number of steps; 0 keeps its own number."""
        return replace(self, horizon=steps) if steps else self

    def plan_with_labels(self, image: Image, targets: list[Targets], detector: Detector) -> list[Pipeline]:
        """One pipeline for each developed image, found with its labels.

        Args:
            image: developed images, linear RGB in [0, 1].
            targets: labels in pixels of the frame into which `pad_to_frame` puts the images.
            detector: the detector whose loss is lowered, by at most starts + refinements + 2 passes for each module
                and step.
        """
        # Gradients are needed, even if the caller turned them off; tensors made in inference mode cannot have them.
        with torch.inference_mode(False), torch.enable_grad():
            own = image.detach().clone()
            firsts = preprocessing_stages(own, self.preprocessing)
            plans = zip(torch.split(own, 1), firsts, targets, strict=True)
            return [self._plan_one(one, first, wanted, detector) for one, first, wanted in plans]

    def _plan_one(self, image: OneImage, first: tuple[Stage, ...], targets: Targets, detector: Detector) -> Pipeline:
        stages = list(first)
        image = Pipeline(first, self.module_set).render(image)
        loss = float(frame_losses(detector, image, targets)[0].detach())
        for _ in range(self.horizon):
            trials = [self._tried(module, image, targets, detector) for module in modules_of(self.module_set)]
            best = min(trials, key=lambda trial: trial.loss)
            if not best.loss < loss - self.threshold:
                break
            stages.append(best.stage)
            image, loss = best.image, best.loss
        return Pipeline(tuple(stages), self.module_set)

    def _tried(self, module: IspModule, image: OneImage, targets: Targets, detector: Detector) -> Trial:
        """The module with the best parameters that were found, by gradient steps from the best starting point."""
        rows = [row.to(image.device) for row in self._starting_rows(module)]
        pairs = [(row, _trial(module, row, image, targets, detector)) for row in rows]
        row, best = min(pairs, key=lambda pair: pair[1].loss)
        visited = self._descent(module, row, image, targets, detector)
        if len(visited) < 2:
            return best
        (last, _), lowest = visited[-1], min(visited[1:-1], key=lambda pair: pair[1], default=(row, math.inf))
        best = min(best, _trial(module, last, image, targets, detector), key=lambda trial: trial.loss)
        if lowest[1] < best.loss:  # later steps raised the loss again
            best = min(best, _trial(module, lowest[0], image, targets, detector), key=lambda trial: trial.loss)
        return best

    def _descent(
        self, module: IspModule, row: Row, image: OneImage, targets: Targets, detector: Detector
    ) -> list[tuple[Row, float]]:
        """The row and those after each gradient step, with their losses; the loss of the last one is not known.

        The steps end early if the loss has no gradient, or if it or its gradient is not finite.
        """
        z = row.clone().requires_grad_()
        optimiser = torch.optim.Adam([z], lr=self.rate)
        visited: list[tuple[Row, float]] = []
        for _ in range(self.refinements if module.params else 0):
            loss = frame_losses(detector, module(image, module.params_from_logits(z[None])), targets)[0]
            if not loss.requires_grad:
                break
            (z.grad,) = torch.autograd.grad(loss, z)
            if not (loss.isfinite() and z.grad.isfinite().all()):
                break
            visited.append((z.detach().clone(), loss.item()))
            optimiser.step()
        return [*visited, (z.detach().clone(), math.inf)]

    def _starting_rows(self, module: IspModule) -> list[Row]:
        """The neutral parameters, then pairs of points on opposite sides of them."""
        neutral = starting_row(module, {})
        rows = [neutral]
        for pair in range(self.starts // 2 if module.params else 0):
            generator = seeded_generator(0, pair, 0, f"oracle {module.name}")
            offset = self.spread * torch.randn(neutral.shape, generator=generator)
            rows += [neutral + offset, neutral - offset]
        return rows[: self.starts]


def frame_losses(detector: Detector, image: OneImage, targets: Targets) -> Float[Tensor, "1"]:
    """The detector's loss of an image in its padded frame, as in an evaluation.

    Args:
        detector: the frozen detector.
        image: image whose longer side is the working size of the detector.
        targets: labels in pixels of the frame.
    """
    height, width = image.shape[2:]
    frame, _ = pad_to_frame(image, frame_size(max(height, width), detector.stride), (height, width))
    return detector.loss(frame, [targets])


@torch.no_grad()
def _trial(module: IspModule, row: Row, image: OneImage, targets: Targets, detector: Detector) -> Trial:
    """The result of a module with the parameters of a row of z, rendered as in an evaluation."""
    stage = stage_of(module, row)
    try:
        rendered = Pipeline((stage,)).render(image)
    except PipelineError:  # a colour matrix whose row sums to zero
        return Trial(math.inf, stage, image)
    loss = float(frame_losses(detector, rendered, targets)[0])
    return Trial(loss if math.isfinite(loss) else math.inf, stage, rendered)
