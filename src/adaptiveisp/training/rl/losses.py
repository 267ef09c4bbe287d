"""Losses of the reinforcement learning, as pure functions.

Source: Wang et al. 2024 (AdaptiveISP), section 3.4; Sutton & Barto 2018, sections 6.1 and 13.5.
"""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Scalars = Float[Tensor, " batch"]
Bootstrap = Literal["greedy", "td"]


def discounts(stopped: Scalars, gamma: float, bootstrap: Bootstrap) -> Scalars:
    """The factor on the next state's value: γ during the episode and 0 at its end; always 0 for "greedy".

    Differs: the released code multiplies the bootstrap by zero for every normally exposed image, which is "greedy".

    Args:
        stopped: 1 where the episode is over after the step.
        gamma: discount in [0, 1].
        bootstrap: "td" or "greedy".

    >>> discounts(torch.tensor([0.0, 1.0]), 0.5, "td").tolist(), discounts(torch.zeros(1), 0.5, "greedy").tolist()
    ([0.5, 0.0], [0.0])
    """
    return (1 - stopped) * gamma if bootstrap == "td" else torch.zeros_like(stopped)


def td_target(reward: Scalars, discount: Scalars, next_value: Scalars) -> Scalars:
    """q = r + discount·V(next).

    >>> td_target(torch.tensor([1.0]), torch.tensor([0.5]), torch.tensor([4.0])).tolist()
    [3.0]
    """
    return reward + discount * next_value


def returns(rewards: Float[Tensor, "steps batch"], bootstrapped: Scalars, gamma: float) -> Float[Tensor, "steps batch"]:
    """The returns q_k = r_k + γ·q_{k+1} of a rollout, with the discounted value of the next state after the last step.

    After the end of an image's episode its rewards and its value are 0.

    Args:
        rewards: of each step.
        bootstrapped: value of the state after the last step, times γ.
        gamma: discount in [0, 1].

    >>> returns(torch.tensor([[1.0], [2.0]]), torch.tensor([8.0]), 0.5).flatten().tolist()
    [6.0, 10.0]
    """
    found = [td_target(rewards[-1], torch.ones_like(bootstrapped), bootstrapped)]
    for reward in reversed(rewards[:-1].unbind()):
        found.insert(0, td_target(reward, torch.full_like(reward, gamma), found[0]))
    return torch.stack(found)


def value_loss(target: Scalars, value: Scalars) -> Float[Tensor, ""]:
    """Mean of (q - V)². The target is a constant, so that only the critic learns.

    >>> float(value_loss(torch.tensor([3.0]), torch.tensor([1.0])))
    4.0
    """
    return (target.detach() - value).square().mean()


def selection_loss(
    probs: Float[Tensor, "batch n_modules"], action: Int[Tensor, " batch"], advantage: Scalars
) -> Float[Tensor, ""]:
    """-mean of advantage·ln π(action), the policy gradient. The advantage is a constant.

    >>> round(float(selection_loss(torch.tensor([[0.5, 0.5]]), torch.tensor([0]), torch.tensor([2.0]))), 4)
    1.3863
    """
    chosen = probs.gather(1, action[:, None])[:, 0]
    return -(advantage.detach() * chosen.log()).mean()


def imitation_loss(
    logits: Float[Tensor, "batch n_modules"], action: Int[Tensor, " batch"], smoothing: float
) -> Float[Tensor, ""]:
    """Cross-entropy to the expert's action, with label smoothing over the actions that are not ruled out.

    Without smoothing the policy would not explore other actions any more.

    Args:
        logits: of the policy's softmax; -inf where an action is ruled out.
        action: of the expert.
        smoothing: share of the target that is distributed equally over the actions, in [0, 1).

    >>> logits = torch.tensor([[0.8, 0.2, 0.0]]).log()
    >>> round(float(imitation_loss(logits, torch.tensor([0]), 0.2)), 4)
    0.3618
    """
    open_actions = logits > float("-inf")
    logarithm = logits.log_softmax(dim=1).masked_fill(~open_actions, 0.0)
    expert = logarithm.gather(1, action[:, None])[:, 0]
    others = logarithm.sum(dim=1) / open_actions.sum(dim=1)
    return -((1 - smoothing) * expert + smoothing * others).mean()


def normalised(advantage: Scalars) -> Scalars:
    """The advantages of a batch minus their mean, divided by their standard deviation.

    An untrained critic leaves all advantages with the same sign, which would strengthen every sampled action. Relative
    to the mean of the batch only the better actions are strengthened.

    >>> [round(value, 3) for value in normalised(torch.tensor([1.0, 3.0])).tolist()]
    [-1.0, 1.0]
    """
    centred = advantage - advantage.mean()
    return centred / (centred.square().mean().sqrt() + 1e-6)


def mean_of_others(values: Scalars, group_size: int) -> Scalars:
    """The mean of the other values in each value's group; the groups are next to each other.

    As a baseline it has no bias: it depends on the same image, but not on the samples of the rollout itself.

    Source: Kool et al. 2019, "Buy 4 REINFORCE Samples, Get a Baseline for Free!".

    >>> mean_of_others(torch.tensor([1.0, 3.0, 5.0, 7.0]), 2).tolist()
    [3.0, 1.0, 7.0, 5.0]
    """
    grouped = values.view(-1, group_size)
    return ((grouped.sum(dim=1, keepdim=True) - grouped) / (group_size - 1)).flatten()


def neighbour_loss(advantage: Float[Tensor, " n"], log_ratio: Float[Tensor, " n"], margin: float) -> Float[Tensor, ""]:
    """-mean of advantage·ln(π(b)/π(a)) over pairs (a, b); pairs that are ordered by the margin already count as 0.

    Args:
        advantage: reward of b minus that of a, a constant.
        log_ratio: ln π(b) - ln π(a).
        margin: in nats.

    >>> float(neighbour_loss(torch.tensor([2.0, 2.0, -1.0]), torch.tensor([0.5, 5.0, 5.0]), 4.0))
    1.3333333730697632
    """
    open_pairs = advantage.sign() * log_ratio.detach() < margin
    return -(advantage.detach() * log_ratio * open_pairs).mean()


def parameter_loss(target: Scalars) -> Float[Tensor, ""]:
    """-mean of q, whose gradient goes through the detector and the modules into the parameters.

    >>> float(parameter_loss(torch.tensor([3.0, 1.0])))
    -2.0
    """
    return -target.mean()
