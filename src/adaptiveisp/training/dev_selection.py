"""The best policy on dev so far, and the scores of the start with which it is compared."""

from dataclasses import dataclass
from typing import Any

from adaptiveisp.policies.latency import KEPT_SHARE
from adaptiveisp.training.dev_scores import DevScore

START, AUTO_EXPOSURE = "start", "auto-exposure"
"""Names of the two policies that are scored at iteration 0: the run's own before it learns, and the heuristic."""


@dataclass
class DevSelection:
    """Chooses the best policy of a run by its score on dev.

    In a run with a latency the best policy is the one with the highest AP50 among those that keep it for 95 % of dev's
    images; as long as none does, the one that keeps it for the most images.

    Attributes:
        runtime_weight: price of a millisecond of cost in points of AP50, as in the reward.
        best, best_ap50: AP50 of the best policy in points less its runtime penalty, and its AP50 in [0, 1]; None before
            the first score.
        best_iteration: iteration of the best policy, 0 for the start; None where it is not known.
        best_modules: names of the modules in its pipelines; None where they are not known.
        best_within, best_within_clock: shares of dev's images for which it keeps the run's latency, by the table and by
            the clock, see `DevScore`; None without a latency.
        start: AP50 in [0, 1] at iteration 0 of `START` and `AUTO_EXPOSURE`; None if they were not scored, as in runs of
            earlier versions.
    """

    runtime_weight: float = 0.0
    best: float | None = None
    best_ap50: float | None = None
    best_iteration: int | None = None
    best_modules: tuple[str, ...] | None = None
    start: dict[str, float] | None = None
    best_within: float | None = None
    best_within_clock: float | None = None

    def takes(self, score: DevScore, iteration: int) -> bool:
        """Whether the score is better than all before, in which case its policy is the best one from now on.

        Args:
            score: of the policy on dev.
            iteration: of the policy.
        """
        if score.ap50 is None:
            return False
        value = 100 * score.ap50 - self.runtime_weight * score.cost_ms
        keeps = score.within is None or score.within >= KEPT_SHARE
        if score.within is not None:  # ties of the share are broken by AP50, which counts less than any image
            value = 100 * score.ap50 if keeps else 1e6 * score.within + score.ap50
        kept = self.best_within is None or self.best_within >= KEPT_SHARE
        if self.best is not None and (not keeps if kept != keeps else value <= self.best):
            return False
        self.best_within, self.best_within_clock = score.within, score.within_clock
        self.best, self.best_ap50, self.best_iteration = value, score.ap50, iteration
        self.best_modules = score.modules
        return True

    def state_dict(self) -> dict[str, Any]:
        """The entries of a checkpoint."""
        return {
            "best": self.best,
            "best_ap50": self.best_ap50,
            "best_iteration": self.best_iteration,
            "best_modules": None if self.best_modules is None else list(self.best_modules),
            "start": self.start,
            "best_within": self.best_within,
            "best_within_clock": self.best_within_clock,
        }

    def latency(self, latency_ms: float) -> dict[str, Any]:
        """The entry of summary.json about the latency of a run.

        Args:
            latency_ms: the latency.
        """
        kept = None if self.best_within is None else self.best_within >= KEPT_SHARE
        return {
            "latency_ms": latency_ms,
            "kept_on_dev": kept,
            "share_on_dev_by_table": self.best_within,
            "share_on_dev_by_clock": self.best_within_clock,
        }
