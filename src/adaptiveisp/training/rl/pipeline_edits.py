"""Neighbours of a pipeline: the same modules with one left out, one put in, or one moved."""

import math
from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

Rivals = Literal["samples", "edits"]
"""How an image's rival pipelines are found: all sampled from the policy, or one sampled and the others edits of it."""
MARGIN = 4.0
"""Nats by which the better of two neighbours is to be likelier: 55 times. Beyond it nothing is pushed any further."""
MEMORY = 0.95
"""Share of a running mean that a new value leaves, once there are so many that it matters."""
DROP, INSERT, MOVE = 0.5, 0.25, 0.25
"""How often each kind is taken where it is possible."""


def edited(base: Int[Tensor, " length"], stop: int, n: int, generator: torch.Generator) -> list[Int[Tensor, " length"]]:
    """`n` neighbours of a sequence, each another one where there are so many.

    Args:
        base: action ids, each once; from the end on `stop`.
        stop: the id that ends a sequence: the actions are 0 to stop - 1.
        n: how many.
        generator: for sampling.
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
    found += [modules] * (n - len(found))  # nothing can be changed
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
    taken = changed.pop(_below(len(modules), generator))
    if kind == 2:
        changed.insert(_below(len(changed) + 1, generator), taken)
    return changed


def _one_of(weights: list[float], generator: torch.Generator) -> int:
    return int(torch.multinomial(torch.tensor(weights), 1, generator=generator))


def _below(n: int, generator: torch.Generator) -> int:
    return int(torch.randint(n, (1,), generator=generator))


class Comparisons:
    """What rivals say of each module: by how much images do better with it, and how much that varies.

    Args:
        n_modules: number of modules, `STOP` not counted; its id ends a sequence.

    Attributes:
        worth: of each module, the running mean of the reward with it less that without it.
        squares: running mean squares of the differences, of each module that was left out or put in, then of moves.
        counts: comparisons of each kind so far. A running mean of few is their plain mean.
    """

    def __init__(self, n_modules: int):
        self.worth = [0.0] * n_modules
        self.squares = [0.0] * (n_modules + 1)
        self.counts = [0] * (n_modules + 1)

    @property
    def known(self) -> dict[int, float]:
        """Action id → worth, of the modules that were compared at all."""
        return {index: worth for index, worth in enumerate(self.worth) if self.counts[index]}

    def state_dict(self) -> list[list[float]]:
        """All that the next comparison depends on."""
        return [list(self.worth), list(self.squares), list(map(float, self.counts))]

    def load_state_dict(self, content: Sequence[Sequence[float]]) -> None:
        """Restores what `state_dict` gave."""
        worth, squares, counts = content
        self.worth, self.squares, self.counts = list(worth), list(squares), list(map(int, counts))

    def scaled(
        self, reward: Float[Tensor, " batch"], actions: Int[Tensor, "batch length"], group: int
    ) -> Float[Tensor, " edits"]:
        """By how much each edit did better than what it is an edit of, over the usual size of such a difference.

        One denoiser makes more difference than five colour modules together. On one scale its differences would be all
        that the others' probabilities feel.

        Args:
            reward: of each sequence.
            actions: the sequences, those of an image one after the other, the first the one that was edited.
            group: sequences of each image.
        """
        stop = len(self.worth)
        rewards, modules = reward.cpu(), [set(row) - {stop} for row in actions.tolist()]
        found = []
        for first in range(0, len(modules), group):
            base = modules[first]
            for other in range(first + 1, first + group):
                changed = base ^ modules[other]
                better = float(rewards[other] - rewards[first])
                kind = next(iter(changed)) if len(changed) == 1 else stop
                self.counts[kind] += 1
                weight = max(1 - MEMORY, 1 / self.counts[kind])
                if kind != stop:
                    self.worth[kind] += weight * (better * (-1 if kind in base else 1) - self.worth[kind])
                self.squares[kind] += weight * (better**2 - self.squares[kind])
                found.append(better / (math.sqrt(self.squares[kind]) + 1e-6))
        return reward.new_tensor(found)
