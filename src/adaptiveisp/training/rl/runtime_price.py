"""The price of a millisecond in the reward: a constant, or under a latency a multiplier that is learned.

With `latency_ms` = X a run looks for the best policy that needs at most X milliseconds for 95 % of the images. This
constraint enters the reward by a multiplier λ (dual ascent). After the imitation warm-up, each iteration does

    s ← 0.95·s + 0.05·(share of the iteration's drawn pipelines that take longer than X)
    λ ← λ·exp(0.05·(s - 0.05)), kept within 0.001 and 10

so that λ rises while more than 5 % of the pipelines are too long, up to twenty times faster than it falls otherwise. It
begins at `runtime_weight`, or at 0.02 where that is 0. In 80 iterations with only pipelines that are too long it grows
by a factor of about 25; in the reward 100·D a non-local means of 10 ms then costs 5 instead of 0.2.

Source: Boyd & Vandenberghe 2004, chapter 5 (dual ascent); Stooke et al. 2020 (multipliers of constrained policies).
Differs: λ is multiplied instead of added to, because useful prices span powers of ten.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.isp.costs import listed_costs
from adaptiveisp.isp.module import IspModule
from adaptiveisp.policies.environment import STOP
from adaptiveisp.policies.latency import KEPT_SHARE, training_limit

MEMORY = 0.95
"""Decay of the running share of pipelines that are too long."""
RATE = 0.05
"""Step of ln λ for each iteration and unit of share."""
FIRST_WEIGHT, LEAST_WEIGHT, MOST_WEIGHT = 0.02, 1e-3, 10.0
"""λ of a run with a latency whose settings have none, and the ends of its range, in reward per millisecond."""


class RuntimePrice:
    """λ, the reward per millisecond of a pipeline.

    Args:
        config: settings of the method, with `runtime_weight`, `costs`, `latency_ms`, `policy_ms`, `step_ms`,
            `excess_ms` and `preprocessing`.

    Attributes:
        weight: λ.
        share: running share of pipelines that take longer than the latency.
    """

    def __init__(self, config: Any):
        self._config = config
        self.limit = training_limit(config)
        first = config.runtime_weight or FIRST_WEIGHT
        self.weight: float = config.runtime_weight if self.limit is None else min(max(first, LEAST_WEIGHT), MOST_WEIGHT)
        self.share = 1 - KEPT_SHARE

    @property
    def config(self) -> Any:
        """The settings with λ as it is now."""
        return self._config if self.limit is None else replace(self._config, runtime_weight=self.weight)

    def costs(self, modules: Sequence[IspModule], device: str) -> Float[Tensor, " n_modules"]:
        """Cost of each action in milliseconds: the module's, and what it adds to the policy's own time; `STOP` is free.

        Args:
            modules: in the order of action ids.
            device: of the result.
        """
        table, step = listed_costs(self._config.costs), self._config.step_ms
        values = [table.get(one.name, one.cost_ms) + (0.0 if one is STOP else step) for one in modules]
        return torch.tensor(values, device=device)

    def observe(
        self,
        cost_ms: Float[Tensor, " batch"],
        imitating: bool,
        group_size: int,
        log_prob: Float[Tensor, " batch"] | None = None,
    ) -> None:
        """Moves λ after an iteration; without a latency and in the imitation warm-up it stays.

        The policy's own pipeline is the first candidate of each image, since edits come after it. Of listed pipelines
        each counts with its probability.

        Args:
            cost_ms: cost of each candidate, without the preprocessing; those of an image are next to each other.
            imitating: whether this is the imitation warm-up, in which the policy does not choose.
            group_size: number of candidates of each image.
            log_prob: ln π of each candidate; needed for listed pipelines.
        """
        if self.limit is None or imitating:
            return
        room = self.limit.usable_ms - self.limit.first_ms
        too_long = (cost_ms.detach() > room).float().view(-1, group_size)
        own = too_long[:, 0]
        if log_prob is not None and self._config.candidates == "listed":
            own = (log_prob.detach().view(-1, group_size).softmax(dim=1) * too_long).sum(dim=1)
        over = float(own.mean())
        self.share = MEMORY * self.share + (1 - MEMORY) * over
        moved = self.weight * math.exp(RATE * (self.share - (1 - KEPT_SHARE)))
        self.weight = min(max(moved, LEAST_WEIGHT), MOST_WEIGHT)

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Entries of a line of metrics.jsonl; none without a latency."""
        return {} if self.limit is None else {"latency": {"weight": self.weight, "too_long": self.share}}

    def state_dict(self) -> dict[str, list[float]]:
        """Entries of the learner's state; none without a latency."""
        return {} if self.limit is None else {"price": [self.weight, self.share]}

    def load_state_dict(self, content: Mapping[str, Any]) -> None:
        """Restores the result of `state_dict`."""
        if self.limit is not None:
            self.weight, self.share = content["price"]
