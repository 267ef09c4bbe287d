"""The terms of the reward, by name; each a small function of tensors.

Source: Wang et al. 2024 (AdaptiveISP), section 3.3 and its released code.
"""

import math

from jaxtyping import Float, Int
from torch import Tensor

REUSE_PENALTY = 1.0
ENTROPY_WEIGHT = 0.05
DETECTION_SCALE = 100.0
LOSS_LIMIT = 1.0
"""The original clips the detector's loss here before it takes the difference."""

DARKEST, BRIGHTEST = 0.01, 0.9
"""Means between which an image is neither black nor white, in the released code and in POS-ISP alike."""

Scalars = Float[Tensor, " batch"]


def detection_reward(before: Scalars, after: Scalars, limit: float | None = LOSS_LIMIT) -> Scalars:
    """100·(D(x_t) - D(x_{t+1})): how much the detector's loss fell.

    Args:
        before, after: detector loss per image.
        limit: D is min(limit, loss); None leaves the loss as it is.

    >>> import torch
    >>> detection_reward(torch.tensor([0.5]), torch.tensor([0.25])).tolist()
    [25.0]
    """
    if limit is not None:
        before, after = before.clamp(max=limit), after.clamp(max=limit)
    return DETECTION_SCALE * (before - after)


def reuse_penalty(used: Float[Tensor, "batch n_modules"], action: Int[Tensor, " batch"]) -> Scalars:
    """1 where the module had been used before this step.

    >>> import torch
    >>> reuse_penalty(torch.tensor([[0.0, 1.0]]), torch.tensor([1])).tolist()
    [1.0]
    """
    return REUSE_PENALTY * used.gather(1, action[:, None])[:, 0]


def entropy(probs: Float[Tensor, "batch n_modules"]) -> Scalars:
    """H = -Σ p ln p in nats.

    >>> import torch
    >>> round(float(entropy(torch.full((1, 4), 0.25))), 4)
    1.3863
    """
    # A probability may be 0, where a module is ruled out; it then adds nothing, in the gradient either.
    return -(probs * probs.clamp(min=1e-12).log()).sum(dim=1)


def entropy_penalty(
    probs: Float[Tensor, "batch n_modules"], progress: float, weight: float = ENTROPY_WEIGHT
) -> Scalars:
    """weight·(1 - progress)·(ln n - H): a push towards exploring that fades out.

    Args:
        probs: probabilities of the modules; 0 where one is ruled out, which counts as certainty.
        progress: how much of the run is done, in [0, 1].
        weight: reward per nat.
    """
    return weight * (1 - progress) * (math.log(probs.shape[1]) - entropy(probs))


def runtime_penalty(costs_ms: Float[Tensor, " n_modules"], action: Int[Tensor, " batch"], weight: float) -> Scalars:
    """λ times the cost of the chosen module.

    Args:
        costs_ms: cost of each module in milliseconds, in the order of action ids.
        action: chosen module.
        weight: λ, reward per millisecond.

    >>> import torch
    >>> round(float(runtime_penalty(torch.tensor([1.7, 10.0]), torch.tensor([1]), 0.01)), 3)
    0.1
    """
    return weight * costs_ms[action]


def brightness_penalty(image: Float[Tensor, "batch 3 height width"]) -> Scalars:
    """How far an image's mean lies outside [0.01, 0.9]: a hinge, 0 inside.

    Source: Won et al. 2026 (POS-ISP).

    >>> import torch
    >>> [round(float(brightness_penalty(torch.full((1, 3, 2, 2), value))), 3) for value in (0.0, 0.5, 1.0)]
    [0.01, 0.0, 0.1]
    """
    mean = image.mean(dim=(1, 2, 3))
    return (DARKEST - mean).clamp(min=0) + (mean - BRIGHTEST).clamp(min=0)
