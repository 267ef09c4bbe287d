"""Learning to choose among a few listed pipelines whose rewards are all known for every training image."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.training.rl.pipeline_edits import DECAY

SPREAD = 2.0
"""Logarithms of probabilities, in nats, for an advantage of the usual size."""
EXPLORED = 0.2
"""Share of the parameters' gradient that goes to all listed pipelines alike. Otherwise a pipeline that is worse at
first, because its parameters have not learned yet, would never be tried with better ones."""
REPLAYED = 64
"""Remembered images in an update of the sequence head."""
REMEMBERED = 20_000
"""Most images that are remembered, the latest ones; about 12 MB, which every checkpoint holds too."""


class ListedPipelines:
    """The losses of one iteration, the usual size of an advantage, and the images that were rendered so far.

    Since every pipeline's reward is known, the sequence head need not learn from samples: the logarithms of the
    pipelines' probabilities, less their mean, are fitted to the advantages by least squares. The best fit is the mean
    advantage of each pipeline for images that look alike, so that noise in single rewards averages out, and no
    probability vanishes for good, as it does with a policy gradient.

    Attributes:
        square: running mean square of the advantages.
        count: number of iterations so far.
        seen: of each remembered image the embedding and the rewards of all pipelines, without their costs.
    """

    def __init__(self) -> None:
        self.square, self.count = 0.0, 0
        self.seen: tuple[Tensor, Tensor] | None = None

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
        constant = reward.detach()
        self._update_size(constant)
        share = (1 - EXPLORED) * log_prob.detach().softmax(dim=1) + EXPLORED / log_prob.shape[1]
        return -(share * reward).sum(dim=1).mean(), self.fit(constant, log_prob)

    def fit(self, reward: Float[Tensor, "images n"], log_prob: Float[Tensor, "images n"]) -> Float[Tensor, ""]:
        """The loss of the sequence head alone; arguments as for `losses`, the rewards are constants."""
        advantage = reward - reward.mean(dim=1, keepdim=True)
        fitted = log_prob - log_prob.mean(dim=1, keepdim=True)
        size = math.sqrt(self.square) + 1e-6
        fit = (fitted - SPREAD * advantage / size).square().sum(dim=1).mean() / 2
        return fit - log_prob.logsumexp(dim=1).mean()

    def _update_size(self, reward: Float[Tensor, "images n"]) -> None:
        """Takes the advantages of this iteration into the running mean square."""
        advantage = reward - reward.mean(dim=1, keepdim=True)
        self.count += 1
        weight = max(1 - DECAY, 1 / self.count)
        self.square += weight * (float(advantage.square().mean()) - self.square)

    def remember(self, embedding: Float[Tensor, "images features"], reward: Float[Tensor, "images n"]) -> None:
        """Keeps images for `recalled`.

        Args:
            embedding: of the images; it must not change later, so that the encoder may not learn any more.
            reward: of every pipeline without its cost, whose weight may change.
        """
        new = embedding.detach(), reward.detach()
        old = self.seen or (new[0][:0], new[1][:0])
        self.seen = torch.cat([old[0], new[0]])[-REMEMBERED:], torch.cat([old[1], new[1]])[-REMEMBERED:]

    def recalled(
        self, generator: torch.Generator
    ) -> tuple[Float[Tensor, "images features"], Float[Tensor, "images n"]]:
        """Embeddings and rewards of random remembered images, `REPLAYED` of them, with repetition.

        Args:
            generator: draws them.
        """
        assert self.seen is not None, "nothing was remembered"
        places = torch.randint(len(self.seen[0]), (REPLAYED,), generator=generator).to(self.seen[0].device)
        return self.seen[0][places], self.seen[1][places]

    def state_dict(self) -> dict[str, Any]:
        """The complete state on which the next iteration depends."""
        return {"size": [self.square, float(self.count)], "seen": list(self.seen or ())}

    def load_state_dict(self, content: dict[str, Any] | list[float]) -> None:
        """Restores the result of `state_dict`, or of that of an earlier version, which had the two numbers alone."""
        state = {"size": content, "seen": ()} if isinstance(content, list) else content
        self.square, count = state["size"]
        self.count = int(count)
        self.seen = tuple(state["seen"]) or None
