"""The interface between a training run and its method, and the base classes that the methods share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor

from adaptiveisp.data.training_images import TrainingImage, TrainingImages
from adaptiveisp.errors import AdaptiveISPError, PolicyError
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.policies.base import Policy, Preprocessing
from adaptiveisp.policies.fixed import FixedPipeline, load_fixed, save_fixed
from adaptiveisp.policies.registry import policy_file
from adaptiveisp.training.distributed import ALONE, Ranks
from adaptiveisp.types import Detector

Metrics = dict[str, Any]
"""One line of the run's log: numbers by name, nested at will."""
Settings = TypeVar("Settings")


class PipelineSettings(Protocol):
    """Settings of a method whose policy is one pipeline."""

    @property
    def preprocessing(self) -> Preprocessing:
        """Heuristic whose stages run before the pipeline."""
        ...


OfPipeline = TypeVar("OfPipeline", bound=PipelineSettings)


@runtime_checkable
class Learner(Protocol):
    """Learns a policy in iterations until its budget of detector passes is spent.

    Attributes:
        iteration: iterations done.
        passes: images that went through the detector so far.
    """

    iteration: int
    passes: int

    @property
    def done(self) -> bool:
        """Whether the budget is spent."""
        ...

    def iterate(self) -> tuple[Metrics, dict[str, float]]:
        """Does one iteration and returns its metrics and the seconds of its parts.

        The metrics have at least `iteration`, `passes`, `detector_loss`, and `gradient_norm` by part.

        Raises:
            NonFiniteLossError: a loss is NaN or infinite; no weight was changed by it.
        """
        ...

    def policy(self) -> Policy:
        """The current policy; a run with a dev set asks for it before the first iteration, too."""
        ...

    def save_policy(self, folder: Path, stem: str, provenance: Mapping[str, Any]) -> None:
        """Writes the current policy into a run folder atomically, as STEM with the suffix of its kind.

        Args:
            folder: the run folder.
            stem: the file's name without its suffix.
            provenance: origin of the run, for kinds of files that hold it.
        """
        ...

    def warm_start(self, policy: str) -> None:
        """Takes over the weights of an earlier policy; budget, optimisers and random numbers start anew.

        Args:
            policy: as the command line names it.

        Raises:
            AdaptiveISPError: it is missing, or of another kind or module set.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """The complete state on which the next iteration depends."""
        ...

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Restores the result of `state_dict`.

        With the same number of threads the next iteration is then the same bit by bit.
        """
        ...


@dataclass(frozen=True)
class Method:
    """The parts of a training method.

    Attributes:
        settings: dataclass of its settings. It needs `size` (side of the training images in pixels), `batch`,
            `smallest_crop` and `precision`.
        presets: named settings; the first is the default.
        learner: makes a learner from (settings, training images, detector, budget in passes, seed, device). Images,
            networks and detector are on the device; random numbers are drawn on the CPU, so that they are the same on
            every device.
        needs_gradients: whether it learns from the gradient of the detector's loss.
        shares: whether its learner, a `BaseLearner`, splits iterations among `ranks`, see `training.distributed`.
    """

    settings: type[Any]
    presets: dict[str, Any]
    learner: Callable[[Any, TrainingImages, Detector, int, int, str], Learner]
    needs_gradients: bool = True
    shares: bool = False


class NonFiniteLossError(AdaptiveISPError):
    """A loss became NaN or infinite.

    Attributes:
        batch: the images and numbers that led to it, for a file.
    """

    def __init__(self, message: str, batch: dict[str, Any]):
        super().__init__(message)
        self.batch = batch


def require_finite(
    losses: Mapping[str, Tensor], iteration: int, sources: Sequence[TrainingImage], actions: Tensor
) -> None:
    """Refuses losses that are not finite, before any weight is changed by them.

    Args:
        losses: by their names.
        iteration: number of the iteration.
        sources, actions: images and pipelines of its batch, which the error keeps.

    Raises:
        NonFiniteLossError: names the losses.
    """
    bad = [name for name, loss in losses.items() if not loss.isfinite()]
    if bad:
        batch = {
            "iteration": iteration,
            "numbers": [source.number for source in sources],
            "images": torch.stack([source.image for source in sources]),
            "actions": actions,
        }
        raise NonFiniteLossError(f"the loss of {', '.join(bad)} is not finite at iteration {iteration}", batch)


class BaseLearner(ABC, Generic[Settings]):
    """The constructor and the counters of a learner.

    Args:
        config: settings of the method.
        stream: training images by number.
        detector: the frozen detector.
        budget: number of image passes through the detector after which the run is done.
        seed: fixes all random numbers of the run.
        device: device of the images, the networks and the detector.

    Attributes:
        ranks: the processes among which each iteration is split; a run sets them before it begins.
    """

    ranks: Ranks = ALONE

    def __init__(
        self,
        config: Settings,
        stream: TrainingImages,
        detector: Detector,
        budget: int,
        seed: int,
        device: str = "cpu",
    ):
        self.config, self.stream, self.detector = config, stream, detector
        self.budget, self.seed, self.device = budget, seed, device
        self.iteration = 0
        self.passes = 0

    @property
    def progress(self) -> float:
        """Share of the budget that is spent, in [0, 1]."""
        return min(1.0, self.passes / self.budget)

    @property
    def done(self) -> bool:
        """Whether the budget is spent."""
        return self.passes >= self.budget

    @property
    def most_ranks(self) -> int:
        """Largest number of ranks: each has an image of every iteration."""
        return int(getattr(self.config, "batch", 1))

    def load(self, first: int, n: int, read: Callable[[int], TrainingImage] | None = None) -> list[TrainingImage]:
        """Some training images one after the other; each rank reads its share, and gets the others from their ranks.

        Args:
            first: number of the first one.
            n: number of images.
            read: reads the image of a number; None takes it from the stream.
        """
        read = read or self.stream.__getitem__
        if self.ranks.alone:
            return [read(first + i) for i in range(n)]
        rows = self.ranks.own(self.ranks.counts(n))
        own = [read(first + i) for i in range(n)[rows]]
        portable = [replace(one, image=one.image.cpu()) for one in own]
        return [
            replace(one, image=one.image.to(self.device))
            for part in self.ranks.gather_objects(portable)
            for one in part
        ]


class PipelineLearner(BaseLearner[OfPipeline]):
    """A learner whose policy is one pipeline for all images, stored as JSON.

    Attributes:
        name: name of the policy.
    """

    name: ClassVar[str]

    @property
    @abstractmethod
    def pipeline(self) -> Pipeline:
        """The current pipeline, without the stages of the preprocessing."""

    def policy(self) -> FixedPipeline:
        """The current policy."""
        return FixedPipeline(self.pipeline, self.name, self.config.preprocessing)

    def save_policy(self, folder: Path, stem: str, provenance: Mapping[str, Any]) -> None:
        """Writes STEM.json, a pipeline file with its preprocessing and its provenance."""
        save_fixed(folder / f"{stem}.json", self.policy(), provenance=provenance)


def initial_pipeline(policy: str, modules: Sequence[str], preprocessing: Preprocessing) -> Pipeline:
    """The pipeline of a policy file from which a run with the same modules can start.

    Args:
        policy: as the command line names it.
        modules: names of the run's modules in the order they run.
        preprocessing: of the run.

    Raises:
        PolicyError: its modules, their order or its preprocessing are others.
    """
    given = load_fixed(policy_file(policy))
    names = tuple(stage.module for stage in given.pipeline.stages)
    if names != tuple(modules) or given.preprocessing != preprocessing:
        raise PolicyError(
            f"{policy}: has other modules or another preprocessing than this run; set modules and preprocessing as it "
            "has them"
        )
    return given.pipeline
