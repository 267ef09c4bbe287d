"""The step-wise policy: the networks choose the likeliest module at each step until the episode ends."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.isp.execution import run_one
from adaptiveisp.isp.module import IspModule
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.isp.registry import find_module
from adaptiveisp.policies.base import Policy, Preprocessing
from adaptiveisp.policies.checkpoint import PolicyHeader, load_policy_file
from adaptiveisp.policies.environment import STOP, actions_of, counted, start
from adaptiveisp.policies.preprocessing import preprocessing_stages, rendered_stages
from adaptiveisp.policies.stepwise.inference import ActorInference
from adaptiveisp.policies.stepwise.networks import Actor, ObservationPlanes, observe, ruled_out
from adaptiveisp.types import Image
from adaptiveisp.utils.clock import Stopwatch, timed


class Look(NamedTuple):
    """What the networks saw before a step, and how likely each module was.

    Attributes:
        view: the observation of each image.
        probs: probability of each module, in the order of action ids.
    """

    view: ObservationPlanes
    probs: Float[Tensor, "batch n_modules"]


@dataclass(frozen=True)
class StepwisePolicy(Policy):
    """A policy whose networks observe the image before each step.

    Attributes:
        header: module set, order of action ids, horizon, kind of observation and preprocessing.
        actor: the networks, in evaluation mode.
        name: short name for tables.
        steps: number of steps; 0 takes the header's horizon.
    """

    header: PolicyHeader
    actor: Actor = field(repr=False)
    name: str = "actor_critic"
    steps: int = 0
    takes_steps: ClassVar[bool] = True
    plans_ahead: ClassVar[bool] = False

    @property
    def modules(self) -> tuple[IspModule, ...]:
        """The modules in the order of the action ids; those from outside the package have to be registered."""
        module_set = self.header.module_set
        known = {module.name: module for module in actions_of(module_set, stop=True)}
        return tuple(known[name] if name in known else find_module(name, module_set) for name in self.header.modules)

    @cached_property
    def inference(self) -> ActorInference:
        """A copy of the networks for inference, made on first use; later training does not change it."""
        return ActorInference(self.actor)

    def __getstate__(self) -> dict[str, Any]:
        """The state for pickles and copies, without `inference`, which is made anew on first use."""
        return {name: value for name, value in vars(self).items() if name != "inference"}

    def with_steps(self, steps: int) -> "StepwisePolicy":
        """The policy with this number of steps; 0 keeps its own number."""
        return replace(self, steps=steps) if steps else self

    @property
    def preprocessing(self) -> Preprocessing:
        """The stages that run before its modules."""
        return self.header.start

    @property
    def settable(self) -> tuple[str, ...]:
        """Names of the modules it may choose."""
        return tuple(name for name in self.header.modules if name != STOP.name)

    def plan(self, image: Image) -> list[Pipeline]:
        """The pipeline of each image: the preprocessing, then one module a step with the networks' parameters."""
        return self.process(image)[0]

    def plan_with(self, image: Image, modules: Sequence[str]) -> list[Pipeline]:
        """The preprocessing, then these modules, each with the parameters that the networks give it at its step."""
        return self.process(image, [self.header.modules.index(name) for name in modules])[0]

    @torch.inference_mode()
    def process(
        self,
        image: Image,
        forced: Sequence[int] | None = None,
        *,
        begin: Sequence[int] = (),
        trace: list[Look] | None = None,
        stopwatch: Stopwatch | None = None,
    ) -> tuple[list[Pipeline], Image]:
        """The pipelines and the images they make; the networks need the image after each module to choose the next.

        Args:
            image: developed images, linear RGB in [0, 1].
            forced: action ids to take instead of the likeliest ones.
            begin: action ids of the first steps, after which the likeliest ones are taken; without `forced` only.
            trace: a list to which the observation and the probabilities of each step are appended.
            stopwatch: measures the part "modules".
        """
        modules, networks = self.modules, self.inference
        prefixes = preprocessing_stages(image, self.header.start)
        stages = [list(prefix) for prefix in prefixes]
        with timed(stopwatch, "modules"):
            preprocessed = rendered_stages(image, prefixes, self.header.module_set)
        state = start(preprocessed, len(modules))
        pictures, owned = list(state.image), self.header.start != "raw"
        n_steps = (self.steps or self.header.horizon) if forced is None else len(forced)
        running = [True] * len(stages)
        for step in range(n_steps):
            view = observe(state, self.header.view)
            given = begin[step : step + 1] if forced is None else forced[step : step + 1]
            if not given or trace is not None:
                closed = ruled_out(state.used, modules) if self.header.once else None
                probs = networks.probs(view, closed)
                action = probs.argmax(dim=1)
                if trace is not None:
                    trace.append(Look(view, probs))
            if given:
                action = torch.full_like(state.step.long(), given[0])
            running = [was and modules[index] is not STOP for was, index in zip(running, action.tolist(), strict=True)]
            if not any(running):
                break
            features = networks.features(view)
            for i, index in enumerate(action.tolist()):
                if not running[i]:
                    action[i] = modules.index(STOP)  # an image that has stopped stays unchanged
                    continue
                module = modules[index]
                row = networks.params(features[i : i + 1], module)[0].tolist()
                stages[i].append(Stage(module.name, dict(zip((p.name for p in module.params), row, strict=True))))
                with timed(stopwatch, "modules"):
                    pictures[i] = run_one(pictures[i], [(module, row)], owned)
            owned = True
            image = pictures[0][None] if len(pictures) == 1 else torch.stack(pictures)
            state = counted(state, image, action, modules, self.header.horizon)
        return [Pipeline(tuple(plan), self.header.module_set) for plan in stages], state.image


def load_stepwise(path: Path, name: str = "", device: str = "cpu", steps: int = 0) -> StepwisePolicy:
    """The policy in a file made by training or `import`.

    Args:
        path: a .safetensors policy file.
        name: for tables; "" takes the file's stem.
        device: where the networks run.
        steps: number of steps; 0 takes the file's horizon.

    Raises:
        WeightsError: the file is missing, damaged or no policy.
    """
    header, actor, _ = load_policy_file(path)
    return StepwisePolicy(header, actor.to(device), name or Path(path).stem, steps)
