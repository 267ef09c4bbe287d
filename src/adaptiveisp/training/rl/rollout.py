"""Rollouts of the step-wise policy: sampled steps with everything that the losses need."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from adaptiveisp.isp.module import IspModule
from adaptiveisp.policies.environment import State, advance, stops
from adaptiveisp.policies.sampling import sample_actions
from adaptiveisp.policies.stepwise.networks import (
    Actor,
    ActorOutput,
    ObservationKind,
    ObservationPlanes,
    observe,
    ruled_out,
)
from adaptiveisp.training.clock import Clock
from adaptiveisp.training.gradients import finite_images


class RolloutConfig(NamedTuple):
    """Length of a rollout, and the observations and actions of the policy in it.

    Attributes:
        n_steps: largest number of steps.
        horizon: steps of an episode.
        observation: input of the networks.
        no_repeat: whether modules that ran are ruled out.
        temperature: of the sampling; below 1, likelier modules are drawn more often.
        forced: action ids that replace sampled ones, a row for each image of the batch. At step k of its episode an
            image takes its k-th action, after the last one the last again. None samples.
    """

    n_steps: int
    horizon: int
    observation: ObservationKind
    no_repeat: bool
    temperature: float = 1.0
    forced: Int[Tensor, "batch length"] | None = None


@dataclass(frozen=True)
class Step:
    """One step of the images whose episode has not ended.

    Attributes:
        rows: their places in the batch.
        state: of these rows before the step.
        observation: input of the actor, a constant.
        choice: output of the actor.
        action: the action that was sampled or forced.
    """

    rows: Int[Tensor, " n"]
    state: State
    observation: ObservationPlanes
    choice: ActorOutput
    action: Int[Tensor, " n"]


@dataclass(frozen=True)
class Rollout:
    """Some steps of a batch.

    Attributes:
        modules: in the order of the action ids.
        start, end: the batch before and after; the end is differentiable in the parameters of all steps.
        steps: the steps in between.
    """

    modules: tuple[IspModule, ...]
    start: State
    end: State
    steps: tuple[Step, ...]

    @property
    def moved(self) -> Bool[Tensor, " batch"]:
        """Whether a module ran on each image; an image that stopped in the first step is unchanged."""
        moved = torch.zeros_like(self.start.step, dtype=torch.bool)
        for step in self.steps:
            moved[step.rows] |= ~stops(step.action, self.modules)
        return moved

    @property
    def last(self) -> Int[Tensor, " batch"]:
        """The number of each image's last step in this rollout."""
        last = torch.zeros_like(self.start.step, dtype=torch.long)
        for number, step in enumerate(self.steps):
            last[step.rows] = number
        return last

    def spread(self, step: Step, values: Float[Tensor, " n"]) -> Float[Tensor, " batch"]:
        """The values of the step's rows for the whole batch, with 0 for images whose episode had ended."""
        return values.new_zeros(len(self.start.step)).index_copy(0, step.rows, values)

    def sequences(self, end: int) -> Int[Tensor, "batch steps"]:
        """Action ids of each image's steps in this rollout, filled up with `end`."""
        found = torch.full((len(self.start.step), len(self.steps)), end, device=self.start.step.device)
        for number, step in enumerate(self.steps):
            found[step.rows, number] = step.action
        return found

    def total(self, costs: Float[Tensor, " n_modules"]) -> Float[Tensor, " batch"]:
        """The sum of a number of each module over the steps of each image.

        Args:
            costs: a number for each module, in the order of action ids.
        """
        return torch.stack([self.spread(step, costs[step.action]) for step in self.steps]).sum(dim=0)

    def histories(self) -> list[list[tuple[int, Float[Tensor, " _"]]]]:
        """(action id, parameters) of each image's steps in this rollout."""
        found: list[list[tuple[int, Float[Tensor, " _"]]]] = [[] for _ in self.start.step]
        for step in self.steps:
            for i, (row, index) in enumerate(zip(step.rows.tolist(), step.action.tolist(), strict=True)):
                params = step.choice.params[self.modules[index].name][i]
                found[row].append((index, params.detach().clone()))
        return found


def roll_out(
    state: State,
    actor: Actor,
    modules: Sequence[IspModule],
    config: RolloutConfig,
    generator: torch.Generator,
    clock: Clock,
) -> Rollout:
    """Does at most `config.n_steps` steps of every image; images whose episode ends are not changed any more.

    Args:
        state: the batch; an image whose episode has already ended takes the first step, too.
        actor, modules: the networks, and the modules in the order of the action ids.
        config: length of the rollout, observations and actions.
        generator: draws the actions.
        clock: measures the time of policy and modules.
    """
    begin, steps = state, []
    rows = torch.arange(len(state.step), device=state.step.device)
    for _ in range(config.n_steps):
        here = state.rows(rows)
        # The observation is a constant: gradients reach the parameters through the modules only.
        observation = observe(replace(here, image=here.image.detach()), config.observation)
        choice = actor(observation, ruled_out(here.used, modules) if config.no_repeat else None, config.temperature)
        forced = None if config.forced is None else config.forced[rows]
        action = sample_actions(choice.probs, generator) if forced is None else forced_actions(forced, here)
        clock.lap("policy")
        state = state.with_rows(rows, advance(here, modules, action, choice.params, config.horizon))
        clock.lap("modules")
        steps.append(Step(rows, here, observation, choice, action))
        # An image that became invalid takes no further step, because batch norm would spread it to all others.
        rows = ((state.stopped == 0) & finite_images(state.image)).nonzero(as_tuple=True)[0]
        if not len(rows):
            break
    return Rollout(tuple(modules), begin, state, tuple(steps))


def forced_actions(forced: Int[Tensor, "n length"], state: State) -> Int[Tensor, " n"]:
    """The action of each image's step among its forced ones, see `RolloutConfig`."""
    place = state.step.long().clamp(max=forced.shape[1] - 1)
    return forced.gather(1, place[:, None])[:, 0]
