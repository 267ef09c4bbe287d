"""Rewards of the steps of a rollout, their baselines and the advantages of the actions."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.training.rl import rewards as terms
from adaptiveisp.training.rl.losses import mean_of_others, normalised
from adaptiveisp.training.rl.rollout import Rollout, Step

PerStep = Float[Tensor, "steps batch"]


def step_rewards(
    rollout: Rollout,
    terminal: Mapping[str, Float[Tensor, " batch"]],
    costs_ms: Float[Tensor, " n_modules"],
    progress: float,
    runtime_weight: float | None,
    entropy_weight: float,
) -> dict[str, PerStep]:
    """The terms of the reward of each step by name; 0 at steps that an image did not take.

    Args:
        rollout: the steps.
        terminal: terms that are known at the end of the rollout; they count at the last step of each image.
        costs_ms: cost of each module, in the order of action ids.
        progress: share of the budget that is spent.
        runtime_weight: λ of the runtime term; None leaves that term out.
        entropy_weight: weight of the entropy penalty.
    """
    steps = rollout.steps

    def spread(penalty: Callable[[Step], Tensor]) -> Tensor:
        return torch.stack([-rollout.spread(step, penalty(step)) for step in steps])

    found = {
        name: torch.stack([term * (rollout.last == number) for number in range(len(steps))])
        for name, term in terminal.items()
    }
    found["reuse"] = spread(lambda step: terms.reuse_penalty(step.state.used, step.action))
    found["entropy"] = spread(lambda step: terms.entropy_penalty(step.choice.probs, progress, entropy_weight))
    if runtime_weight is not None:
        found["runtime"] = spread(lambda step: terms.runtime_penalty(costs_ms, step.action, runtime_weight))
    return found


def baseline(rollout: Rollout, target: PerStep, value: Float[Tensor, " batch"], group_size: int) -> PerStep:
    """The expected return of each step, which does not depend on the rollout's own actions.

    The detector's loss between the steps is not known. The baseline is therefore the critic's value at the start of the
    rollout, or, for a group of rollouts of one image, the mean return of the others from the same step on (from their
    last step, if that is earlier).

    Args:
        rollout: the steps.
        target: q of each step.
        value: the critic's value at the start of the rollout.
        group_size: rollouts of each image, which are next to each other in the batch.
    """
    if group_size == 1:
        return value.expand_as(target)
    steps = torch.arange(len(target), device=target.device)[:, None]
    reached = target.gather(0, torch.minimum(steps, rollout.last))
    return torch.stack([mean_of_others(row, group_size) for row in reached])


def advantages(rollout: Rollout, target: PerStep, expected: PerStep, normalise: bool) -> Float[Tensor, " actions"]:
    """q minus the baseline for every action of the rollout, step by step.

    Args:
        rollout: the steps.
        target, expected: q of each step, and its baseline.
        normalise: whether they are centred and scaled.
    """
    pairs = zip(rollout.steps, target - expected, strict=True)
    advantage = torch.cat([surplus[step.rows] for step, surplus in pairs])
    return normalised(advantage) if normalise else advantage
