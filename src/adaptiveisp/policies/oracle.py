"""The greedy oracle: pipelines fitted to each image's own labels. An upper bound to measure policies by, no policy.

For one image, step by step: every module of the set is tried after what was chosen so far, its parameters moved a few
gradient steps down the frozen detector's loss for the true boxes; the module that lowers this loss most is taken; it
ends where none lowers it by more than a threshold. It needs labels, so it exists in an evaluation only.

What it bounds: how much of the loss a choice of modules and parameters for each image could remove, where it knew the
answer. What it does not: it is greedy and its gradient steps are few, so better pipelines exist; and it lowers the
detector's loss, from which average precision need not follow, image by image or at all.

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
"""Steps at most: as many as the episodes of the actor-critic's preset `cpu` have, which it is to bound."""

OneImage = Float[Tensor, "1 3 height width"]


@dataclass(frozen=True)
class Trial:
    """What came of a module's trial; the loss is infinite where it cannot be used.

    Attributes:
        loss: the detector's for the image after the stage.
        stage: the module with the best parameters found.
        image: after the stage.
    """

    loss: float
    stage: Stage
    image: OneImage


@dataclass(frozen=True)
class GreedyOracle(Policy):
    """The greedy search with labels; the head of the file says what it bounds.

    Attributes:
        name: short name for tables.
        preprocessing: heuristic whose stages run first; "raw" for no stages.
        module_set: named set to choose from; a module may be taken more than once.
        horizon: steps at most.
        starts: parameters from which a module is tried: the neutral ones, and others drawn around them, the same for
            every image and step; the one of the lowest loss is refined.
        spread: standard deviation of those others, in units of z.
        refinements: gradient steps of each module at each step; none where the detector's loss has no gradient.
        rate: of Adam, in units of z.
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
        """The image that the pipeline found for the labels makes; its time is that of the search.

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
        """The search with at most so many steps; 0 keeps its own number."""
        return replace(self, horizon=steps) if steps else self

    def plan_with_labels(self, image: Image, targets: list[Targets], detector: Detector) -> list[Pipeline]:
        """One pipeline for each developed image, found with its labels.

        Args:
            image: developed images, linear RGB in [0, 1].
            targets: labels in pixels of the frame into which `pad_to_frame` puts the images.
            detector: whose loss is to fall; at most starts + refinements + 2 passes a module and step.
        """
        # Gradients are needed here, whatever the caller turned off; a tensor made under inference mode knows none.
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
        """The module with the best parameters found: the best starting point, and what gradient steps make of it."""
        rows = [row.to(image.device) for row in self._starting_rows(module)]
        pairs = [(row, _trial(module, row, image, targets, detector)) for row in rows]
        row, best = min(pairs, key=lambda pair: pair[1].loss)
        visited = self._descent(module, row, image, targets, detector)
        if len(visited) < 2:
            return best
        (last, _), lowest = visited[-1], min(visited[1:-1], key=lambda pair: pair[1], default=(row, math.inf))
        best = min(best, _trial(module, last, image, targets, detector), key=lambda trial: trial.loss)
        if lowest[1] < best.loss:  # the steps went past it
            best = min(best, _trial(module, lowest[0], image, targets, detector), key=lambda trial: trial.loss)
        return best

    def _descent(
        self, module: IspModule, row: Row, image: OneImage, targets: Targets, detector: Detector
    ) -> list[tuple[Row, float]]:
        """The rows that gradient steps come to from a row, itself first, with their losses; the last one has none yet.

        They end early where the loss has no gradient, or it or its gradient is not finite.
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
        """The neutral parameters, then pairs to either side of them."""
        neutral = starting_row(module, {})
        rows = [neutral]
        for pair in range(self.starts // 2 if module.params else 0):
            generator = seeded_generator(0, pair, 0, f"oracle {module.name}")
            offset = self.spread * torch.randn(neutral.shape, generator=generator)
            rows += [neutral + offset, neutral - offset]
        return rows[: self.starts]


def frame_losses(detector: Detector, image: OneImage, targets: Targets) -> Float[Tensor, "1"]:
    """The detector's loss of an image as it is evaluated: inside its padded frame.

    Args:
        detector: the frozen detector.
        image: its longer side is the size at which the detector works.
        targets: labels in pixels of the frame.
    """
    height, width = image.shape[2:]
    frame, _ = pad_to_frame(image, frame_size(max(height, width), detector.stride), (height, width))
    return detector.loss(frame, [targets])


@torch.no_grad()
def _trial(module: IspModule, row: Row, image: OneImage, targets: Targets, detector: Detector) -> Trial:
    """A module with the parameters of a row of z, rendered as an evaluation does it."""
    stage = stage_of(module, row)
    try:
        rendered = Pipeline((stage,)).render(image)
    except PipelineError:  # a colour matrix whose row sums to zero
        return Trial(math.inf, stage, image)
    loss = float(frame_losses(detector, rendered, targets)[0])
    return Trial(loss if math.isfinite(loss) else math.inf, stage, rendered)
