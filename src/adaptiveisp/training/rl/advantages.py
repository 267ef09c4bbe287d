"""Who earned what in a rollout: the reward of each step, and how much better an action was than what was expected."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.training.rl import rewards as terms
from adaptiveisp.training.rl.losses import mean_of_others, normalised
from adaptiveisp.training.rl.rollout import Rollout, Step

PerStep = Float[Tensor, "steps batch"]


def rewards(
    rollout: Rollout,
    gained: Float[Tensor, " batch"],
    costs_ms: Float[Tensor, " n_modules"],
    progress: float,
    runtime_weight: float,
    entropy_weight: float,
) -> dict[str, PerStep]:
    """The terms of the reward, by name; 0 at steps that an image did not take.

    Args:
        rollout: what happened.
        gained: by how much the detector's loss fell, times 100; known after an image's last step, and booked there.
        costs_ms: of each module, in the order of action ids.
        progress: share of the budget that is spent.
        runtime_weight, entropy_weight: of these terms.
    """
    steps = rollout.steps

    def spread(penalty: Callable[[Step], Tensor]) -> Tensor:
        return torch.stack([-rollout.spread(step, penalty(step)) for step in steps])

    return {
        "detection": torch.stack([gained * (rollout.last == number) for number in range(len(steps))]),
        "reuse": spread(lambda step: terms.reuse_penalty(step.state.used, step.action)),
        "entropy": spread(lambda step: terms.entropy_penalty(step.choice.probs, progress, entropy_weight)),
        "runtime": spread(lambda step: terms.runtime_penalty(costs_ms, step.action, runtime_weight)),
    }


def baseline(rollout: Rollout, target: PerStep, value: Float[Tensor, " batch"], peers: int) -> PerStep:
    """What was to be expected at each step, whatever the rollout's own actions.

    What the detector thinks of images on the way is not known, so that it is the value of the rollout's start or, with
    peers, what the image's other rollouts came to from the same step on (from their last, if that is earlier).

    Args:
        rollout: what happened.
        target: q of each step.
        value: the critic's, of the rollout's start.
        peers: rollouts of each image, one after the other in the batch.
    """
    if peers == 1:
        return value.expand_as(target)
    steps = torch.arange(len(target), device=target.device)[:, None]
    reached = target.gather(0, torch.minimum(steps, rollout.last))
    return torch.stack([mean_of_others(row, peers) for row in reached])


def advantages(rollout: Rollout, target: PerStep, expected: PerStep, normalise: bool) -> Float[Tensor, " taken"]:
    """q less what was expected, of every action that was taken, step after step.

    Args:
        rollout: what happened.
        target, expected: q of each step, and its baseline.
        normalise: centre and scale them.
    """
    pairs = zip(rollout.steps, target - expected, strict=True)
    advantage = torch.cat([surplus[step.rows] for step, surplus in pairs])
    return normalised(advantage) if normalise else advantage
