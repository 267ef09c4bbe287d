"""Rollouts whose images are split among ranks: each renders its own, and has the observations and actions of all."""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from adaptiveisp.isp.module import IspModule
from adaptiveisp.policies.environment import State, apply_chosen, counted
from adaptiveisp.policies.sampling import sample_actions
from adaptiveisp.policies.stepwise.networks import (
    VIEW,
    Actor,
    ActorOutput,
    ObservationPlanes,
    n_channels,
    observe,
    ruled_out,
)
from adaptiveisp.training.clock import Clock
from adaptiveisp.training.distributed import Ranks
from adaptiveisp.training.gradients import finite_images
from adaptiveisp.training.rl.rollout import Rollout, RolloutConfig, Step, forced_actions, roll_out
from adaptiveisp.training.split_batch import own_leaf, rejoined
from adaptiveisp.types import Image


def roll_out_shared(
    state: State,
    actor: Actor,
    modules: Sequence[IspModule],
    config: RolloutConfig,
    generator: torch.Generator,
    clock: Clock,
    ranks: Ranks,
) -> Rollout:
    """`roll_out` of a batch that every rank has; the images at its end are gathered.

    One process does `roll_out` itself. Otherwise the images in the steps of the result are left out (they have one
    pixel), because no loss needs them.

    Args:
        state, actor, modules, config, generator, clock: as for `roll_out`.
        ranks: of the run.
    """
    if ranks.alone:
        return roll_out(state, actor, modules, config, generator, clock)
    n = len(state.step)
    counts = ranks.counts(n)
    images = _OwnImages(state.image, ranks, counts)
    status = replace(state, image=state.image[:, :, :1, :1].detach())
    steps: list[Step] = []
    given: list[Tensor] = []
    rows = torch.arange(n, device=state.step.device)
    for _ in range(config.n_steps):
        here = status.rows(rows)
        observation = images.observed(here, rows, config, len(modules))
        choice = actor(observation, ruled_out(here.used, modules) if config.no_repeat else None, config.temperature)
        forced = None if config.forced is None else config.forced[rows]
        action = sample_actions(choice.probs, generator) if forced is None else forced_actions(forced, here)
        (action,) = ranks.same(action)
        clock.lap("policy")
        given.append(_in_rows(n, rows, modules, action, choice))
        images.advance(given[-1], rows, action, modules)
        status = status.with_rows(rows, counted(here, here.image, action, modules, config.horizon))
        clock.lap("modules")
        steps.append(Step(rows, here, observation, choice, action))
        rows = ((status.stopped == 0) & images.finite()).nonzero(as_tuple=True)[0]
        if not len(rows):
            break
    end = replace(status, image=images.joined(torch.cat(given, dim=1)))
    return Rollout(tuple(modules), state, end, tuple(steps))


class _OwnImages:
    """The images of this rank in the course of a rollout.

    Args:
        image: all images of the batch before it.
        ranks: of the run.
        counts: rows of each rank.
    """

    def __init__(self, image: Image, ranks: Ranks, counts: Sequence[int]):
        self.ranks, self.counts = ranks, counts
        self.own = ranks.own(counts)
        self.image = image[self.own]
        self.leaves: list[Tensor] = []

    def mine(self, rows: Int[Tensor, " n"]) -> Tensor:
        """Which of some rows of the batch are this rank's."""
        mine: Tensor = (rows >= self.own.start) & (rows < self.own.stop)
        return mine

    def observed(
        self, here: State, rows: Int[Tensor, " n"], config: RolloutConfig, n_modules: int
    ) -> ObservationPlanes:
        """The observations of some rows of the batch, gathered from all ranks.

        Args:
            here: status of these rows.
            rows: their places in the batch, rising.
            config: kind of the observation.
            n_modules: number of actions.
        """
        mine = self.mine(rows)
        places = rows[mine] - self.own.start
        if len(places):
            own = State(self.image.detach()[places], here.used[mine], here.step[mine], here.stopped[mine])
            view = observe(own, config.observation)
        else:
            view = self.image.new_zeros(0, n_channels(n_modules, config.observation), VIEW, VIEW)
        return self.ranks.gather(view, self.ranks.counts_among(rows, self.counts))

    def advance(
        self,
        given: Float[Tensor, "batch width"],
        rows: Int[Tensor, " n"],
        action: Int[Tensor, " n"],
        modules: Sequence[IspModule],
    ) -> None:
        """Renders the images of this rank among some rows by their modules.

        Args:
            given: parameters of the chosen module of each row of the batch.
            rows: places of the rows that take a step.
            action: their action ids.
            modules: in the order of action ids.
        """
        leaf = own_leaf(self.ranks, given, self.counts)
        self.leaves.append(leaf)
        mine = self.mine(rows)
        places = rows[mine] - self.own.start
        if not len(places):
            return
        chosen = leaf[places]
        params = {module.name: chosen[:, : len(module.params)] for module in modules}
        rendered = apply_chosen(self.image.index_select(0, places), modules, action[mine], params)
        self.image = rendered if len(places) == len(self.image) else self.image.index_copy(0, places, rendered)

    def finite(self) -> Tensor:
        """Whether each image of the batch is finite, by `finite_images`."""
        return self.ranks.gather(finite_images(self.image), self.counts)

    def joined(self, given: Float[Tensor, "batch widths"]) -> Image:
        """The images of the batch, differentiable in the parameters of all steps.

        Args:
            given: the parameters of each step, side by side.
        """
        return rejoined(self.ranks, given, self.leaves, self.image, self.counts)


def _in_rows(
    n: int, rows: Int[Tensor, " n"], modules: Sequence[IspModule], action: Int[Tensor, " n"], choice: ActorOutput
) -> Float[Tensor, "batch width"]:
    """The parameters of each image's module in one step, a row for each image of the batch, filled up with zeros.

    Args:
        n: images of the batch.
        rows: places of those that take the step.
        modules: in the order of action ids.
        action, choice: of these.
    """
    width = max(len(module.params) for module in modules)
    found = choice.probs.new_zeros(n, width)
    for index in sorted(set(action.tolist())):
        module = modules[index]
        if module.params:
            chosen = (action == index).nonzero(as_tuple=True)[0]
            params = choice.params[module.name][chosen]
            found = found.index_copy(0, rows[chosen], torch.nn.functional.pad(params, (0, width - params.shape[1])))
    return found
