"""The networks of the actor-critic with their optimisers: initialisation, updates, averaging and state."""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from adaptiveisp.errors import WeightsError
from adaptiveisp.isp.module import IspModule
from adaptiveisp.policies.checkpoint import PolicyHeader, load_policy_file
from adaptiveisp.policies.registry import policy_file
from adaptiveisp.policies.stepwise.networks import (
    Actor,
    Critic,
    ObservationPlanes,
    calibrate,
    start_neutral,
    to_training,
)
from adaptiveisp.training.clock import Clock
from adaptiveisp.training.distributed import ALONE, Ranks
from adaptiveisp.training.gradients import optimiser_step
from adaptiveisp.training.methods.actor_critic.settings import ActorCriticConfig
from adaptiveisp.training.run_state import check_optimiser


class Networks:
    """Actor and critic with one optimiser each, and the moving average of the actor.

    Args:
        config: settings.
        modules: in the order of action ids.
        device: device of the networks.

    Attributes:
        averaged: moving average of the actor, which is saved as the policy; without averaging the actor itself.
        actor_parts: parameters of the actor by the part whose gradient norm is limited and logged separately.
    """

    def __init__(self, config: ActorCriticConfig, modules: Sequence[IspModule], device: str = "cpu"):
        self.config = config
        self.actor = Actor(modules, view=config.observation)
        if config.neutral_start:
            start_neutral(self.actor)
        self.actor.to(device)
        self.averaged = copy.deepcopy(self.actor) if config.averaging else self.actor
        self.critic = Critic(len(modules), config.observation).to(device)
        parts = {"parameters": self.actor.sets_parameters, "selection": self.actor.selects}
        biases = self.actor.constants
        weights = [p for p in parts["parameters"] if not any(p is bias for bias in biases)]
        bias_rate = config.actor_rate if config.bias_rate is None else config.bias_rate
        rates = ((weights, config.actor_rate), (parts["selection"], config.selection_rate), (biases, bias_rate))
        self.actor_optimiser = torch.optim.Adam([{"params": group, "start": rate} for group, rate in rates], fused=True)
        self.actor_parts = parts if config.clip_apart else {"actor": [p for part in parts.values() for p in part]}
        self.critic_optimiser = torch.optim.Adam(
            [{"params": self.critic.parameters(), "start": config.critic_rate}], fused=True
        )

    def to_training(self) -> None:
        """Switches to training mode, with dropout and with batch norm as in the settings."""
        for network in (self.actor, self.critic):
            to_training(network, fixed_statistics=self.config.frozen_batchnorm)

    def calibrate(self, observations: ObservationPlanes) -> None:
        """Sets the statistics of batch norm in all networks from these observations."""
        for network in (self.actor, self.critic):
            calibrate(network, observations)
        self.averaged.load_state_dict(self.actor.state_dict())

    def learn(
        self, losses: dict[str, Tensor], progress: float, with_critic: bool, clock: Clock, ranks: Ranks = ALONE
    ) -> dict[str, float]:
        """Does one step of the optimisers and returns the norms of the gradients by part.

        Each loss moves the parameters of its own network only.

        Args:
            losses: "selection", "parameters" and "value".
            progress: share of the budget that is spent; the rates fall with it.
            with_critic: False does no step of the critic at all, since Adam counts even a step of zero.
            clock: measures the time.
            ranks: of the run.
        """
        scale = 0.1 ** (self.config.rate_decay * progress)
        limit = self.config.gradient_norm
        actor_loss = losses["selection"] + losses["parameters"]
        norms = optimiser_step(self.actor_parts, self.actor_optimiser, actor_loss, scale, limit, ranks)
        clock.lap("backward")
        if not with_critic:
            return norms
        critic = {"critic": list(self.critic.parameters())}
        norms |= optimiser_step(critic, self.critic_optimiser, losses["value"], scale, limit, ranks)
        clock.lap("critic backward")
        return norms

    @torch.no_grad()
    def average(self, iteration: int) -> None:
        """Updates the moving average of the weights and of batch norm's statistics.

        Args:
            iteration: number of iterations done. Early in the run the average is the plain mean.
        """
        if not self.config.averaging:
            return
        weight = max(1 - self.config.averaging, 1 / (1 + iteration))
        for ours, theirs in zip(self.averaged.state_dict().values(), self.actor.state_dict().values(), strict=True):
            if ours.is_floating_point():
                ours.lerp_(theirs, weight)
            else:
                ours.copy_(theirs)

    def warm_start(self, policy: str, header: PolicyHeader) -> None:
        """Takes over the weights of a policy file or a run folder; the optimisers are not changed.

        Args:
            policy: as the command line names it.
            header: of this run, to which the policy's must be equal in modules, observation and preprocessing.

        Raises:
            WeightsError: there is no such policy file, or it differs in one of these.
        """
        found, actor, critic = load_policy_file(policy_file(policy))
        for name in ("module_set", "modules", "view", "start"):
            theirs, wanted = getattr(found, name), getattr(header, name)
            if theirs != wanted:
                what = {"view": "observation", "start": "preprocessing"}.get(name, name)
                raise WeightsError(f"{policy}: has the {what} {theirs}, this run has {wanted}; give both the same")
        for network, given in ((self.actor, actor), (self.averaged, actor), (self.critic, critic)):
            if given is not None:
                network.load_state_dict(given.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Weights and optimisers."""
        return {
            "actor": self.actor.state_dict(),
            "averaged": self.averaged.state_dict() if self.config.averaging else {},
            "critic": self.critic.state_dict(),
            "actor_optimiser": self.actor_optimiser.state_dict(),
            "critic_optimiser": self.critic_optimiser.state_dict(),
        }

    def load_state_dict(self, content: dict[str, Any]) -> None:
        """Restores the result of `state_dict`; other keys are ignored."""
        self.actor.load_state_dict(content["actor"])
        if self.config.averaging:
            self.averaged.load_state_dict(content["averaged"])
        self.critic.load_state_dict(content["critic"])
        for name, optimiser in (("actor_optimiser", self.actor_optimiser), ("critic_optimiser", self.critic_optimiser)):
            check_optimiser(content[name], optimiser, name)
            optimiser.load_state_dict(content[name])
