"""The reward of a rollout: the terms of each step, and a reward of the user's own at its end."""

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.policies.environment import stops
from adaptiveisp.training.methods.actor_critic.settings import ActorCriticConfig
from adaptiveisp.training.rl.advantages import PerStep, step_rewards
from adaptiveisp.training.rl.rewards import DEFAULT_REWARD, RewardInputs, detection_reward, reward_terms
from adaptiveisp.training.rl.rollout import Rollout

Scalars = Float[Tensor, " batch"]


def rollout_rewards(
    rollout: Rollout,
    before: Scalars,
    after: Scalars,
    imitating: bool,
    config: ActorCriticConfig,
    costs_ms: Float[Tensor, " n_modules"],
    progress: float,
) -> dict[str, PerStep]:
    """The terms of the reward by name and step.

    Args:
        rollout: the steps.
        before, after: detector loss of each image before and after the rollout.
        imitating: whether this is the imitation warm-up, in which a `before` that is not known is 0. A reward of the
            user's own then gets no `loss_before`.
        config: weights of the terms, and the name of the reward.
        costs_ms: cost of each module, in the order of action ids.
        progress: share of the budget that is spent.
    """
    if config.reward == DEFAULT_REWARD:
        terminal = {"detection": detection_reward(before, after, config.loss_limit)}
        return step_rewards(rollout, terminal, costs_ms, progress, config.runtime_weight, config.entropy_weight)
    terminal = reward_terms(config.reward, _inputs(rollout, None if imitating else before, after, config, costs_ms))
    return step_rewards(rollout, terminal, costs_ms, progress, None, config.entropy_weight)


def _inputs(
    rollout: Rollout,
    before: Scalars | None,
    after: Scalars,
    config: ActorCriticConfig,
    costs_ms: Float[Tensor, " n_modules"],
) -> RewardInputs:
    """The outcome of a rollout for a reward of the user's own; arguments as for `rollout_rewards`."""
    costs = [rollout.spread(step, costs_ms[step.action]) for step in rollout.steps]
    counts = [rollout.spread(step, (~stops(step.action, rollout.modules)).to(after)) for step in rollout.steps]
    return RewardInputs(
        loss_after=after,
        loss_before=before,
        cost_ms=torch.stack(costs).sum(dim=0),
        n_modules=torch.stack(counts).sum(dim=0),
        image=rollout.end.image,
        runtime_weight=config.runtime_weight,
    )
