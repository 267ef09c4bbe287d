"""The sequence policy: one observation of the image gives the likeliest sequence and the parameters of its modules."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from adaptiveisp.isp.execution import run_one
from adaptiveisp.isp.external import names_external
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.policies.base import Policy, Preprocessing, Shortener
from adaptiveisp.policies.checkpoint import PolicyHeader, load_sequence_file
from adaptiveisp.policies.environment import STOP
from adaptiveisp.policies.sequence.inference import SequenceInference, Vector
from adaptiveisp.policies.sequence.networks import Observation, SequenceNetwork, observe
from adaptiveisp.types import Image
from adaptiveisp.utils.clock import Stopwatch, timed


@dataclass(frozen=True)
class SequencePolicy(Policy):
    """A network that observes the image once and then names all modules.

    Attributes:
        header: module set, order of action ids, preprocessing and condition.
        network: the network.
        name: short name for tables.
        steps: most modules after the preprocessing; 0 takes the header's horizon.
    """

    header: PolicyHeader
    network: SequenceNetwork = field(repr=False)
    name: str = "sequence"
    steps: int = 0
    takes_steps: ClassVar[bool] = True

    @cached_property
    def inference(self) -> SequenceInference:
        """A copy of the network for inference, made on first use; later training does not change it."""
        return SequenceInference(self.network)

    def __getstate__(self) -> dict[str, Any]:
        """The state for pickles and copies, without `inference`, which is made anew on first use."""
        return {name: value for name, value in vars(self).items() if name != "inference"}

    def with_steps(self, steps: int) -> "SequencePolicy":
        """The policy with at most this number of modules after the preprocessing; 0 keeps its own number."""
        return replace(self, steps=steps) if steps else self

    @property
    def needs_raw(self) -> bool:
        """Whether it may choose an external ISP."""
        return names_external(self.network.modules_in_order)

    @property
    def preprocessing(self) -> Preprocessing:
        """The stages that run before its modules."""
        return self.header.start

    @property
    def settable(self) -> tuple[str, ...]:
        """Names of the modules it may choose."""
        return tuple(name for name in self.header.modules if name != STOP.name)

    def plan(self, image: Image) -> list[Pipeline]:
        """The pipeline of each image: the preprocessing, then the likeliest modules with the network's parameters."""
        return self.plan_and_observe(image)[0]

    def plan_with(self, image: Image, modules: Sequence[str]) -> list[Pipeline]:
        """The preprocessing, then these modules with the network's parameters."""
        return self.plan_and_observe(image, [self.header.modules.index(name) for name in modules])[0]

    @torch.inference_mode()
    def process(
        self, image: Image, forced: Sequence[int] | None = None, *, stopwatch: Stopwatch | None = None
    ) -> tuple[list[Pipeline], Image]:
        """The pipelines and the images they make; the preprocessing, which the network observes, runs once.

        Args:
            image: developed images, linear RGB in [0, 1].
            forced: action ids to take instead of the likeliest ones.
            stopwatch: measures the part "modules".
        """
        return self._run(*self.plan_and_observe(image, forced, stopwatch=stopwatch), stopwatch)

    @torch.inference_mode()
    def process_within(
        self, image: Image, shortener: Shortener, *, stopwatch: Stopwatch | None = None
    ) -> tuple[list[Pipeline], Image]:
        """`process` with shortened sequences, among which the sequence head says which it prefers."""
        return self._run(*self.plan_and_observe(image, shortener=shortener, stopwatch=stopwatch), stopwatch)

    def _run(
        self, plans: list[Pipeline], observation: Observation, stopwatch: Stopwatch | None
    ) -> tuple[list[Pipeline], Image]:
        """The pipelines, and the images that they make of the observed images after the preprocessing."""
        n_done = len(observation.prefix[0])
        with timed(stopwatch, "modules"):
            made = [
                run_one(picture, plan.calls[n_done:], owned=self.header.start != "raw")
                for picture, plan in zip(observation.preprocessed, plans, strict=True)
            ]
            return plans, made[0][None] if len(made) == 1 else torch.stack(made)

    @torch.inference_mode()
    def plan_and_observe(
        self,
        image: Image,
        forced: Sequence[int] | None = None,
        preprocessed: Image | None = None,
        *,
        shortener: Shortener | None = None,
        stopwatch: Stopwatch | None = None,
    ) -> tuple[list[Pipeline], Observation]:
        """The pipelines, and the observation that they were chosen from.

        Args:
            image: developed images, linear RGB in [0, 1].
            forced: action ids to take instead of the likeliest ones.
            preprocessed: the images after the preprocessing, if the caller has them already.
            shortener: says which modules of the likeliest sequence are kept; None keeps all.
            stopwatch: measures the preprocessing as the part "modules".
        """
        observation = observe(image, self.header.start, self.header.module_set, preprocessed, stopwatch=stopwatch)
        plans = []
        for prefix, embedding in zip(observation.prefix, self.inference.embed(observation), strict=True):
            order = self.inference.sequence(embedding) if forced is None else list(forced)
            if forced is None and self.steps:
                order = order[: self.steps]
            if shortener is not None:
                order = self._shortened(order, [stage.module for stage in prefix], embedding, shortener)
            plans.append(Pipeline((*prefix, *self.inference.stages(embedding, order)), self.header.module_set))
        return plans, observation

    def _shortened(
        self, order: Sequence[int], first: Sequence[str], embedding: Vector, shortener: Shortener
    ) -> list[int]:
        """The action ids that a shortener keeps.

        Args:
            order: action ids of the likeliest sequence.
            first: modules of the preprocessing.
            embedding: of the image.
            shortener: see `plan_and_observe`.
        """
        n_first, names = len(first), self.header.modules

        def likelihoods(kept: Sequence[Sequence[int]]) -> Sequence[float]:
            orders = [[order[place - n_first] for place in one[n_first:]] for one in kept]
            return self.inference.log_likelihoods(embedding, orders)

        found = shortener.kept([*first, *(names[index] for index in order)], n_first, likelihoods)
        return [order[place - n_first] for place in found[n_first:]]


def load_sequence(path: Path, name: str = "", device: str = "cpu", steps: int = 0) -> SequencePolicy:
    """The policy in a file made by training.

    Args:
        path: a .safetensors policy file.
        name: for tables; "" takes the file's stem.
        device: where the network runs.
        steps: most modules after the preprocessing; 0 takes the file's horizon.

    Raises:
        WeightsError: the file is missing, damaged or no sequence policy.
    """
    header, network = load_sequence_file(path)
    return SequencePolicy(header, network.to(device), name or Path(path).stem, steps)
