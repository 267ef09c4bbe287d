"""The log line of an iteration of the actor-critic; docs/methods/actor_critic.md explains each key."""

import math
from collections import Counter

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.training.methods.learner import Metrics
from adaptiveisp.training.rl import rewards as terms
from adaptiveisp.training.rl.advantages import PerStep
from adaptiveisp.training.rl.rollout import Rollout


def measured(
    rollout: Rollout,
    parts: dict[str, PerStep],
    losses: dict[str, Float[Tensor, ""]],
    norms: dict[str, float],
    value: Float[Tensor, " batch"],
    before: Float[Tensor, " batch"],
    after: Float[Tensor, " batch"],
    compared: bool,
) -> Metrics:
    """Means over the batch, and the number of times that each module was chosen.

    Args:
        rollout: of the iteration.
        parts: the terms of the reward by name.
        losses, norms: losses, and norms of their gradients by part.
        value: of the critic at the start of the rollout.
        before, after: the detector's loss.
        compared: False where `before` is not known; every value that depends on it is then NaN.
    """
    hidden = (terms.detection_reward(before, after) - terms.detection_reward(before, after, None)).abs() > 1e-6
    counts = Counter(rollout.modules[index].name for step in rollout.steps for index in step.action.tolist())
    unknown = 0.0 if compared else math.nan
    return {
        "reward": {
            name: _mean(part.sum(dim=0)) + (unknown if name == "detection" else 0.0) for name, part in parts.items()
        },
        "loss": {name: loss.item() + (unknown if name == "value" else 0.0) for name, loss in losses.items()},
        "gradient_norm": norms,
        "value": _mean(value) + unknown,
        "entropy": _mean(torch.cat([terms.entropy(step.choice.probs) for step in rollout.steps])),
        "detector_loss": _mean(before if compared else after),
        "clip_hides": _mean(hidden.float()) + unknown,
        "modules": {module.name: counts[module.name] for module in rollout.modules},
    }


def _mean(values: Tensor) -> float:
    return float(values.detach().mean())
