"""Random actions by their probabilities; the same seed gives the same actions on any device."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def sample_actions(probs: Float[Tensor, "batch n_modules"], generator: torch.Generator) -> Int[Tensor, " batch"]:
    """One action id for each row, drawn by its probabilities."""
    return torch.multinomial(probs.detach().cpu(), 1, generator=generator)[:, 0].to(probs.device)
