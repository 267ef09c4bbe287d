"""The step-wise policy at work: the networks choose one module after the other, argmax, until the episode ends."""

from dataclasses import dataclass, field
from pathlib import Path

import torch

from adaptiveisp.checkpoint import PolicyHeader, Start, load_policy_file
from adaptiveisp.environment import State, advance, start
from adaptiveisp.isp import find_module
from adaptiveisp.isp.module import IspModule
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.networks import Actor, observe
from adaptiveisp.policies import AutoExposure
from adaptiveisp.types import Image


def first_stages(image: Image, kind: Start) -> list[tuple[Stage, ...]]:
    """The stages that come before a policy's own, for each image: none for "raw", else auto-exposure's."""
    if kind == "raw":
        return [()] * image.shape[0]
    return [pipeline.stages for pipeline in AutoExposure().plan(image)]


def first_image(image: Image, kind: Start, module_set: str = "wide") -> Image:
    """The images after their `first_stages`."""
    plans = first_stages(image, kind)
    rendered = [Pipeline(plan, module_set).render(image[i : i + 1]) for i, plan in enumerate(plans)]
    return torch.cat(rendered)


@dataclass(frozen=True)
class StepwisePolicy:
    """Networks that look at the image before each step.

    Attributes:
        header: module set, order, horizon, view and start.
        actor: the networks, in evaluation mode.
        name: short name for tables.
        steps: so many steps instead of the header's horizon; 0 keeps that.
    """

    header: PolicyHeader
    actor: Actor = field(repr=False)
    name: str = "actor_critic"
    steps: int = 0

    @property
    def modules(self) -> tuple[IspModule, ...]:
        """The modules in the order of the action ids."""
        return tuple(find_module(name, self.header.module_set) for name in self.header.modules)

    def plan(self, image: Image) -> list[Pipeline]:
        """The pipeline of each image: the start's stages, then one module a step with the networks' parameters."""
        return self.process(image)[0]

    @torch.inference_mode()
    def process(self, image: Image) -> tuple[list[Pipeline], Image]:
        """The pipelines and the images they make; to choose the next module the image is needed anyway."""
        stages = [list(plan) for plan in first_stages(image, self.header.start)]
        state: State = start(first_image(image, self.header.start, self.header.module_set), len(self.header.modules))
        for _ in range(self.steps or self.header.horizon):
            choice = self.actor(observe(state, self.header.view))
            action = choice.probs.argmax(dim=1)
            for i, index in enumerate(action.tolist()):
                module = self.modules[index]
                row = choice.params[module.name][i].tolist()
                stages[i].append(Stage(module.name, dict(zip((p.name for p in module.params), row, strict=True))))
            state = advance(state, self.modules, action, choice.params, self.header.horizon)
        return [Pipeline(tuple(plan), self.header.module_set) for plan in stages], state.image


def load_stepwise(path: Path, name: str = "", device: str = "cpu", steps: int = 0) -> StepwisePolicy:
    """The policy in a file made by training or `import`.

    Args:
        path: a .safetensors policy file.
        name: for tables; "" takes the file's stem.
        device: where the networks run.
        steps: so many steps instead of the file's horizon; 0 keeps that.

    Raises:
        WeightsError: the file is missing, damaged or no policy.
    """
    header, actor, _ = load_policy_file(path)
    return StepwisePolicy(header, actor.to(device), name or Path(path).stem, steps)
