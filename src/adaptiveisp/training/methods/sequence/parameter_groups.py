"""The weights of a sequence network in the groups that its optimiser treats differently."""

from typing import Any

from adaptiveisp.policies.sequence.networks import SequenceNetwork
from adaptiveisp.training.methods.sequence.settings import SequenceConfig


def parameter_groups(config: SequenceConfig, network: SequenceNetwork) -> list[dict[str, Any]]:
    """The weights with their learning rates and decay, as AdamW takes them.

    Args:
        config: has the rates.
        network: has the weights.
    """
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
