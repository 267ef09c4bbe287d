"""The terms of the rewards, as small functions of tensors, and the rewards that users can replace.

Source: Wang et al. 2024 (AdaptiveISP), section 3.3 and its released code; Won et al. 2026 (POS-ISP).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch  # noqa: F401  (the examples of the docstrings use it)
from jaxtyping import Float, Int
from torch import Tensor

from adaptiveisp.errors import UsageError
from adaptiveisp.training.rl.colour import colour_penalty, highlight_penalty
from adaptiveisp.types import Image
from adaptiveisp.utils.registry import Registry

REUSE_PENALTY = 1.0
ENTROPY_WEIGHT = 0.05
DETECTION_SCALE = 100.0
LOSS_LIMIT = 1.0
"""Upper limit of the detector's loss in the original, applied before the difference is taken."""

DARKEST, BRIGHTEST = 0.01, 0.9
"""Limits of an image's mean, outside which it counts as black or white in the released code and in POS-ISP."""

Scalars = Float[Tensor, " batch"]


@dataclass(frozen=True)
class RewardInputs:
    """The outcome of a batch of pipelines, from which a reward is computed; all tensors have one entry for each image.

    Attributes:
        loss_after: detector loss of the rendered image, at least 0.
        loss_before: detector loss of the image before the pipeline; None where the method does not measure it, since
            that costs another pass through the detector.
        cost_ms: sum of the costs of the pipeline's modules, in milliseconds.
        n_modules: number of the pipeline's modules, those of the preprocessing not counted.
        image: the rendered images, (batch, 3, height, width) in [0, 1].
        runtime_weight: λ of the settings, reward per millisecond.
        brightness_weight: weight of the brightness penalty in the settings; 0 where the method has none.
        reference: the clean photos in 64x64 cells, sRGB code values in [0, 1]. An image whose photo is unknown is NaN;
            None where all are, and in the method actor_critic.
        colour_weight, highlight_weight: weights of the penalties on casts and burnt highlights in the settings; 0 where
            the method has none.
    """

    loss_after: Scalars
    loss_before: Scalars | None
    cost_ms: Scalars
    n_modules: Scalars
    image: Image
    runtime_weight: float = 0.0
    brightness_weight: float = 0.0
    reference: Float[Tensor, "batch 3 64 64"] | None = None
    colour_weight: float = 0.0
    highlight_weight: float = 0.0


Reward = Callable[[RewardInputs], Mapping[str, Scalars]]
"""Returns the terms of the reward by name, each with one number for each image; their sum is the reward.

The parameters of the modules learn by the gradient of the reward, so that it should be computed from `loss_after` and
`image` by differentiable operations.
"""

DEFAULT_REWARD = "default"
"""Name of each method's own reward."""


def _checked(origin: str, value: object) -> Reward:
    """The reward if it can be called.

    Raises:
        UsageError: it cannot.
    """
    if not callable(value):
        raise UsageError(f"reward {origin}: give a function that takes RewardInputs and returns the terms by name")
    return value


REWARDS: Registry[Reward] = Registry("reward", "adaptiveisp.rewards", "--reward", _checked)
"""Every reward by its name."""


def register_reward(name: str, function: Reward) -> Reward:
    """Makes a reward available under a name, for the setting `reward` of the methods `sequence` and `actor_critic`.

    Args:
        name: letters, digits, "-" and "_", at most 64.
        function: takes `RewardInputs` and returns the terms of the reward by name, each of shape (batch,).

    Returns:
        The function.

    Raises:
        UsageError: the name is taken or cannot be one, or the function cannot be called.
    """
    return REWARDS.register(name, function)


def reward_terms(reward: str, inputs: RewardInputs) -> dict[str, Scalars]:
    """The terms of a registered reward.

    Args:
        reward: its name.
        inputs: the outcome of a batch.

    Raises:
        UsageError: there is no such reward, it does not return terms with one number for each image, or a term of the
            user's own is not finite where the detector's loss is.
    """
    terms: object = REWARDS.find(reward)(inputs)
    expected = inputs.loss_after.shape
    remedy = f"return a mapping of names to tensors of shape {tuple(expected)}, one number for each image"
    if not isinstance(terms, Mapping) or not terms:
        raise UsageError(f"reward {reward}: returned {type(terms).__name__}; {remedy}")
    for name, term in terms.items():
        if not isinstance(term, Tensor) or term.shape != expected:
            what = f"a tensor of shape {tuple(term.shape)}" if isinstance(term, Tensor) else type(term).__name__
            raise UsageError(f"reward {reward}: the term {name} is {what}; {remedy}")
        if reward != DEFAULT_REWARD:
            _require_finite(reward, name, term, inputs)
    return dict(terms)


def _require_finite(reward: str, name: str, term: Scalars, inputs: RewardInputs) -> None:
    """Refuses a term that is NaN or infinite for an image whose detector loss is finite.

    Raises:
        UsageError: names the reward, the term and the inputs of the first such image.
    """
    bad = (inputs.loss_after.isfinite() & ~term.isfinite()).nonzero()[:, 0].tolist()
    if bad:
        index = bad[0]
        numbers = {key: getattr(inputs, key) for key in ("loss_after", "loss_before", "cost_ms", "n_modules")}
        given = ", ".join(f"{key} {value[index].item():.4g}" for key, value in numbers.items() if value is not None)
        raise UsageError(
            f"reward {reward}: its term {name} is {term[index].item():.4g} for {given}; correct the reward"
        )


def pipeline_reward(inputs: RewardInputs) -> dict[str, Scalars]:
    """The reward of whole pipelines: -100·D(rendered image) - λ·cost - weight·brightness penalty.

    The penalties on casts and burnt highlights (see `rl.colour`) are terms only where their weight is not 0.

    Source: Won et al. 2026 (POS-ISP); the last two are ours.

    >>> one = torch.ones(1)
    >>> inputs = RewardInputs(0.5 * one, None, 10 * one, one, 0.5 * torch.ones(1, 3, 2, 2), runtime_weight=0.02)
    >>> {name: round(float(term), 3) for name, term in pipeline_reward(inputs).items()}
    {'detection': -50.0, 'runtime': -0.2, 'brightness': -0.0}
    """
    terms = {
        "detection": -DETECTION_SCALE * inputs.loss_after,
        "runtime": -inputs.runtime_weight * inputs.cost_ms,
        "brightness": -inputs.brightness_weight * brightness_penalty(inputs.image),
    }
    if inputs.colour_weight:
        terms["colour"] = -inputs.colour_weight * colour_penalty(inputs.image, inputs.reference)
    if inputs.highlight_weight:
        terms["highlights"] = -inputs.highlight_weight * highlight_penalty(inputs.image, inputs.reference)
    return terms


register_reward(DEFAULT_REWARD, pipeline_reward)


def detection_reward(before: Scalars, after: Scalars, limit: float | None = LOSS_LIMIT) -> Scalars:
    """100·(D(x_t) - D(x_{t+1})), the decrease of the detector's loss.

    Args:
        before, after: detector loss of each image.
        limit: upper limit of D; None for no limit.

    >>> detection_reward(torch.tensor([0.5]), torch.tensor([0.25])).tolist()
    [25.0]
    """
    if limit is not None:
        before, after = before.clamp(max=limit), after.clamp(max=limit)
    return DETECTION_SCALE * (before - after)


def reuse_penalty(used: Float[Tensor, "batch n_modules"], action: Int[Tensor, " batch"]) -> Scalars:
    """1 where the chosen module ran before this step, else 0.

    >>> reuse_penalty(torch.tensor([[0.0, 1.0]]), torch.tensor([1])).tolist()
    [1.0]
    """
    return REUSE_PENALTY * used.gather(1, action[:, None])[:, 0]


def entropy(probs: Float[Tensor, "batch n_modules"]) -> Scalars:
    """H = -Σ p ln p in nats.

    >>> round(float(entropy(torch.full((1, 4), 0.25))), 4)
    1.3863
    """
    # The probability of a module that is ruled out is 0; the clamp makes its term and its gradient 0 as well.
    return -(probs * probs.clamp(min=1e-12).log()).sum(dim=1)


def entropy_penalty(
    probs: Float[Tensor, "batch n_modules"], progress: float, weight: float = ENTROPY_WEIGHT
) -> Scalars:
    """weight·(1 - progress)·(ln n - H): rewards exploration, less and less over the run.

    Args:
        probs: probabilities of the modules; 0 where one is ruled out, which counts as certainty.
        progress: share of the run that is done, in [0, 1].
        weight: reward per nat.
    """
    return weight * (1 - progress) * (math.log(probs.shape[1]) - entropy(probs))


def runtime_penalty(costs_ms: Float[Tensor, " n_modules"], action: Int[Tensor, " batch"], weight: float) -> Scalars:
    """λ times the cost of the chosen module.

    Args:
        costs_ms: cost of each module in milliseconds, in the order of action ids.
        action: chosen module.
        weight: λ, reward per millisecond.

    >>> round(float(runtime_penalty(torch.tensor([1.7, 10.0]), torch.tensor([1]), 0.01)), 3)
    0.1
    """
    return weight * costs_ms[action]


def leaves_range(image: Image) -> bool:
    """Whether the mean of an image is too dark or too bright.

    >>> leaves_range(torch.full((1, 3, 2, 2), 0.5)), leaves_range(torch.zeros(1, 3, 2, 2))
    (False, True)
    """
    means = image.detach().mean(dim=(1, 2, 3))
    return bool(((means < DARKEST) | (means > BRIGHTEST)).any())


def brightness_penalty(image: Image) -> Scalars:
    """Distance of an image's mean from the interval [0.01, 0.9]; 0 inside.

    Source: Won et al. 2026 (POS-ISP).

    >>> [round(float(brightness_penalty(torch.full((1, 3, 2, 2), value))), 3) for value in (0.0, 0.5, 1.0)]
    [0.01, 0.0, 0.1]
    """
    mean = image.mean(dim=(1, 2, 3))
    return (DARKEST - mean).clamp(min=0) + (mean - BRIGHTEST).clamp(min=0)
