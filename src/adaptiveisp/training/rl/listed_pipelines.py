"""Learning to choose among a few listed pipelines whose rewards are all known for every training image."""

import math

from jaxtyping import Float
from torch import Tensor

from adaptiveisp.training.rl.pipeline_edits import DECAY

SPREAD = 2.0
"""Logarithms of probabilities, in nats, for an advantage of the usual size."""
EXPLORED = 0.2
"""Share of the parameters' gradient that goes to all listed pipelines alike. Otherwise a pipeline that is worse at
first, because its parameters have not learned yet, would never be tried with better ones."""


class ListedPipelines:
    """The losses of one iteration, and the usual size of an advantage.

    Since every pipeline's reward is known, the sequence head need not learn from samples: the logarithms of the
    pipelines' probabilities, less their mean, are fitted to the advantages by least squares. The best fit is the mean
    advantage of each pipeline for images that look alike, so that noise in single rewards averages out, and no
    probability vanishes for good, as it does with a policy gradient.

    Attributes:
        square: running mean square of the advantages.
        count: number of iterations so far.
    """

    def __init__(self) -> None:
        self.square, self.count = 0.0, 0

    def losses(
        self, reward: Float[Tensor, "images n"], log_prob: Float[Tensor, "images n"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The loss of the parameters and that of the sequence head.

        The sequence head also raises the sum of the pipelines' probabilities, so that no other sequence is the
        likeliest.

        Args:
            reward: of every pipeline for every image; the parameters learn by its gradient.
            log_prob: ln π of the same pipelines.
        """
        share = (1 - EXPLORED) * log_prob.detach().softmax(dim=1) + EXPLORED / log_prob.shape[1]
        constant = reward.detach()
        advantage = constant - constant.mean(dim=1, keepdim=True)
        fitted = log_prob - log_prob.mean(dim=1, keepdim=True)
        fit = (fitted - SPREAD * advantage / self._size(advantage)).square().sum(dim=1).mean() / 2
        return -(share * reward).sum(dim=1).mean(), fit - log_prob.logsumexp(dim=1).mean()

    def _size(self, advantage: Tensor) -> float:
        """The root mean square of the advantages, those of this iteration included."""
        self.count += 1
        weight = max(1 - DECAY, 1 / self.count)
        self.square += weight * (float(advantage.square().mean()) - self.square)
        return math.sqrt(self.square) + 1e-6

    def state_dict(self) -> list[float]:
        """The complete state on which the next iteration depends."""
        return [self.square, float(self.count)]

    def load_state_dict(self, content: list[float]) -> None:
        """Restores the result of `state_dict`."""
        self.square, count = content
        self.count = int(count)
