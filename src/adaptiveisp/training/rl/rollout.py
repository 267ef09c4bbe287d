"""Several steps of the step-wise policy at once, as it learns: sampled modules, and all that the losses need."""

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
from adaptiveisp.training.methods.learner import Clock, finite_images


class RolloutConfig(NamedTuple):
    """How far a rollout goes, and what the policy may see and choose.

    Attributes:
        n_steps: modules that run before the detector looks.
        horizon: steps of an episode.
        view: what the networks see.
        once: modules that ran are ruled out.
        temperature: of the sampling; below 1 the likelier modules are taken more often.
        forced: action ids that are taken instead of sampled ones, a row for each image of the batch: at step k of its
            episode the k-th, the last from there on; None samples.
    """

    n_steps: int
    horizon: int
    view: ObservationKind
    once: bool
    temperature: float = 1.0
    forced: Int[Tensor, "batch length"] | None = None


@dataclass(frozen=True)
class Step:
    """One step of the images that are still going.

    Attributes:
        rows: their places in the batch.
        state: of these rows before the step.
        view: what the actor saw, a constant.
        choice: what it said.
        action: what was sampled.
    """

    rows: Int[Tensor, " n"]
    state: State
    view: ObservationPlanes
    choice: ActorOutput
    action: Int[Tensor, " n"]


@dataclass(frozen=True)
class Rollout:
    """A batch on its way through some steps.

    Attributes:
        modules: in the order of the action ids.
        start, end: the batch before and after; the end is differentiable in all parameters on the way.
        steps: what happened between.
    """

    modules: tuple[IspModule, ...]
    start: State
    end: State
    steps: tuple[Step, ...]

    @property
    def moved(self) -> Bool[Tensor, " batch"]:
        """Where a module ran: an image that stopped at once is as it was."""
        moved = torch.zeros_like(self.start.step, dtype=torch.bool)
        for step in self.steps:
            moved[step.rows] |= ~stops(step.action, self.modules)
        return moved

    @property
    def last(self) -> Int[Tensor, " batch"]:
        """The number of each image's last step here."""
        last = torch.zeros_like(self.start.step, dtype=torch.long)
        for number, step in enumerate(self.steps):
            last[step.rows] = number
        return last

    def spread(self, step: Step, values: Float[Tensor, " n"]) -> Float[Tensor, " batch"]:
        """Values of the step's rows for the whole batch, 0 for images that were not going any more."""
        return values.new_zeros(len(self.start.step)).index_copy(0, step.rows, values)

    def sequences(self, end: int) -> Int[Tensor, "batch steps"]:
        """Action ids of each image's steps here; `end` where it took none, and from the end of its episode on."""
        found = torch.full((len(self.start.step), len(self.steps)), end, device=self.start.step.device)
        for number, step in enumerate(self.steps):
            found[step.rows, number] = step.action
        return found

    def histories(self) -> list[list[tuple[int, Float[Tensor, " _"]]]]:
        """(action id, parameters) of each image's steps here."""
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
    rules: RolloutConfig,
    generator: torch.Generator,
    clock: Clock,
) -> Rollout:
    """At most `rules.n_steps` sampled steps of every image; those whose episode ends stay as they are.

    Args:
        state: the batch; an image that is over already still takes the first step.
        actor, modules: the networks, and the modules in the order of the action ids.
        rules: see there.
        generator: for sampling.
        clock: books the time of policy and modules.
    """
    begin, steps = state, []
    rows = torch.arange(len(state.step), device=state.step.device)
    for _ in range(rules.n_steps):
        here = state.rows(rows)
        # The networks' input is a constant: gradients reach parameters through the modules only.
        seen = observe(replace(here, image=here.image.detach()), rules.view)
        choice = actor(seen, ruled_out(here.used, modules) if rules.once else None, rules.temperature)
        forced = None if rules.forced is None else rules.forced[rows]
        action = sample_actions(choice.probs, generator) if forced is None else _at_step(forced, here)
        clock.lap("policy")
        state = state.with_rows(rows, advance(here, modules, action, choice.params, rules.horizon))
        clock.lap("modules")
        steps.append(Step(rows, here, seen, choice, action))
        # An image that its module made invalid goes no further: batch norm would carry it into all others.
        rows = ((state.stopped == 0) & finite_images(state.image)).nonzero(as_tuple=True)[0]
        if not len(rows):
            break
    return Rollout(tuple(modules), begin, state, tuple(steps))


def _at_step(forced: Int[Tensor, "n length"], state: State) -> Int[Tensor, " n"]:
    place = state.step.long().clamp(max=forced.shape[1] - 1)
    return forced.gather(1, place[:, None])[:, 0]
