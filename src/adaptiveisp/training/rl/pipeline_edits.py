"""Edits of a pipeline, which remove, insert or move one module, and the advantages of modules measured by them."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Candidates = Literal["samples", "edits"]
"""How the candidate pipelines of an image are drawn: all from the policy, or one from the policy and edits of it."""
MARGIN = 4.0
"""Log-probability ratio in nats (55 times as likely) at which two neighbours count as ordered and add no gradient."""
DECAY = 0.95
"""Decay of the running means for each new value. The mean of the first few values is their plain mean."""
DROP, INSERT, MOVE = 0.5, 0.25, 0.25
"""Relative frequencies of the kinds of edits, among those that are possible."""


def edited(base: Int[Tensor, " length"], stop: int, n: int, generator: torch.Generator) -> list[Int[Tensor, " length"]]:
    """Draws `n` edits of a sequence, all different if there are enough.

    Args:
        base: action ids without repetition, filled up with `stop` at the end.
        stop: the id that ends a sequence; the actions are 0 to stop - 1.
        n: number of edits.
        generator: draws the random numbers.
    """
    length = len(base)
    modules = [action for action in base.tolist() if action != stop]
    found: list[list[int]] = []
    for _ in range(20 * n):
        candidate = _neighbour(modules, stop, length, generator)
        if candidate != modules and candidate not in found:
            found.append(candidate)
        if len(found) == n:
            break
    found += [modules] * (n - len(found))
    return [torch.tensor(names + [stop] * (length - len(names)), dtype=base.dtype) for names in found]


def _neighbour(modules: list[int], stop: int, longest: int, generator: torch.Generator) -> list[int]:
    unused = [action for action in range(stop) if action not in modules]
    weights = [
        DROP if modules else 0.0,
        INSERT if unused and len(modules) < longest else 0.0,
        MOVE if len(modules) > 1 else 0.0,
    ]
    if not any(weights):
        return modules
    kind = _one_of(weights, generator)
    changed = list(modules)
    if kind == 1:
        changed.insert(_below(len(modules) + 1, generator), unused[_below(len(unused), generator)])
        return changed
    removed = changed.pop(_below(len(modules), generator))
    if kind == 2:
        changed.insert(_below(len(changed) + 1, generator), removed)
    return changed


def _one_of(weights: list[float], generator: torch.Generator) -> int:
    return int(torch.multinomial(torch.tensor(weights), 1, generator=generator))


def _below(n: int, generator: torch.Generator) -> int:
    return int(torch.randint(n, (1,), generator=generator))


class Comparisons:
    """Running statistics of the reward differences between a sequence and its edits.

    Args:
        n_modules: number of modules without `STOP`, whose id is `n_modules`.

    Attributes:
        module_advantage: for each module the running mean of the reward with it minus the reward without it.
        squares: running mean squares of the differences, for each module that was removed or inserted, and for moves.
        counts: number of comparisons of each kind so far.
    """

    def __init__(self, n_modules: int):
        self.module_advantage = [0.0] * n_modules
        self.squares = [0.0] * (n_modules + 1)
        self.counts = [0] * (n_modules + 1)

    @property
    def known(self) -> dict[int, float]:
        """Action id → advantage, for the modules that were compared at least once."""
        return {index: advantage for index, advantage in enumerate(self.module_advantage) if self.counts[index]}

    def state_dict(self) -> list[list[float]]:
        """The complete state on which the next comparison depends."""
        return [list(self.module_advantage), list(self.squares), list(map(float, self.counts))]

    def load_state_dict(self, content: Sequence[Sequence[float]]) -> None:
        """Restores the result of `state_dict`."""
        advantage, squares, counts = content
        self.module_advantage, self.squares, self.counts = list(advantage), list(squares), list(map(int, counts))

    def scaled(
        self, reward: Float[Tensor, " batch"], actions: Int[Tensor, "batch length"], group_size: int
    ) -> Float[Tensor, " edits"]:
        """The reward of each edit minus that of the edited sequence, scaled by the root mean square of its kind.

        The scale differs between modules because one denoiser changes the reward more than five colour modules
        together, and on a common scale its differences would dominate the probabilities of all modules.

        Args:
            reward: of each sequence.
            actions: the sequences, those of an image next to each other; the first of an image is the edited one.
            group_size: sequences of each image.
        """
        stop = len(self.module_advantage)
        rewards, modules = reward.cpu(), [set(row) - {stop} for row in actions.tolist()]
        found = []
        for first in range(0, len(modules), group_size):
            base = modules[first]
            for other in range(first + 1, first + group_size):
                changed = base ^ modules[other]
                difference = float(rewards[other] - rewards[first])
                kind = next(iter(changed)) if len(changed) == 1 else stop
                self.counts[kind] += 1
                weight = max(1 - DECAY, 1 / self.counts[kind])
                if kind != stop:
                    self.module_advantage[kind] += weight * (
                        difference * (-1 if kind in base else 1) - self.module_advantage[kind]
                    )
                self.squares[kind] += weight * (difference**2 - self.squares[kind])
                found.append(difference / (math.sqrt(self.squares[kind]) + 1e-6))
        return reward.new_tensor(found)
