"""The weights of a sequence network: their learning rates and decay, and their moving average."""

from typing import Any

import torch

from adaptiveisp.policies.sequence.networks import SequenceNetwork
from adaptiveisp.training.methods.sequence.settings import SequenceConfig


def parameter_groups(network: SequenceNetwork, config: SequenceConfig) -> list[dict[str, Any]]:
    """The weights with their learning rates and decay, as an optimiser takes them."""
    lines = {id(p) for line in (network.parameter_line, network.sequence_line) for p in line.parameters()}
    weights = [p for p in network.sets_parameters if id(p) not in lines]
    chooses = [p for p in network.chooses if id(p) not in lines]
    own = list(network.parameter_line.parameters()), list(network.sequence_line.parameters())
    return [
        {"params": weights, "start": config.rate, "weight_decay": 0.0},
        {"params": chooses, "start": config.sequence_rate, "weight_decay": 0.0},
        {"params": own[0], "start": config.line_rate, "weight_decay": config.line_decay},
        {"params": own[1], "start": config.sequence_line_rate, "weight_decay": 0.0},
    ]


@torch.no_grad()
def update_average(averaged: SequenceNetwork, network: SequenceNetwork, config: SequenceConfig, iteration: int) -> None:
    """Moves the averaged weights towards the new ones.

    Early in a run the average is over all iterations so far, which removes the random initial weights.

    Args:
        averaged: is changed.
        network: has the new weights.
        config: gives the decay of the average.
        iteration: number of this iteration, at least 1; 0 if the run started from learned weights.
    """
    early = iteration / (iteration + 9) if iteration else 1.0
    chooses = {id(weight) for weight in network.chooses}
    for ours, new in zip(averaged.parameters(), network.parameters(), strict=True):
        averaging = config.sequence_averaging if id(new) in chooses else config.averaging
        ours.lerp_(new, 1 - min(averaging, early))
