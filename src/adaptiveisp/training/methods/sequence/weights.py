"""The weights of a sequence network: their learning rates and decay, and their moving average."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from adaptiveisp.errors import WeightsError
from adaptiveisp.policies.checkpoint import PolicyHeader, load_sequence_file
from adaptiveisp.policies.registry import policy_file
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


def warm_weights(
    policy: str, wanted: PolicyHeader, network: SequenceNetwork, like: Mapping[str, str]
) -> dict[str, Tensor]:
    """The weights of a policy for a run that starts from it; the run may have more modules than the policy.

    Args:
        policy: a policy file or a run folder.
        wanted: header of the run's policies.
        network: of the run, see `with_more_modules`, as `like`.

    Raises:
        WeightsError: there is no such policy file, or it has other modules, or another preprocessing, condition or
            horizon.
    """
    header, theirs = load_sequence_file(policy_file(policy))
    larger = set(header.modules) < set(wanted.modules)
    for name in ("module_set", *(() if larger else ("modules",)), "start", "condition", "horizon"):
        found, needed = getattr(header, name), getattr(wanted, name)
        if found != needed:
            what = "preprocessing" if name == "start" else name
            raise WeightsError(f"{policy}: has the {what} {found}, this run has {needed}; give both the same")
    return with_more_modules(theirs, network, like) if larger or like else theirs.state_dict()


def with_more_modules(theirs: SequenceNetwork, ours: SequenceNetwork, like: Mapping[str, str]) -> dict[str, Tensor]:
    """The weights of a network for a larger choice of modules.

    The weights of the modules that both have, and those that belong to no module, are theirs. A new module has those of
    the module of theirs that `like` names, for instance a denoiser those of a slower one with the same parameters; else
    it keeps the initial ones of ours, with which its parameters are near neutral and its logit is 0.

    Args:
        theirs: the smaller network.
        ours: gives the initial weights of new modules, and the order.
        like: new module → module of theirs.

    Raises:
        WeightsError: `like` names a module that theirs has not, or one with other parameters.
    """
    old, new = ([module.name for module in network.modules_in_order] for network in (theirs, ours))
    for name, model in like.items():
        if name not in new or model not in old or ours.widths[new.index(name)] != theirs.widths[old.index(model)]:
            raise WeightsError(
                f"warm_start_like: {name} cannot take over the weights of {model}; name a module of this run, and one "
                "of the warm start's policy that has as many parameters"
            )
    sources = {place: old.index(like.get(name, name)) for place, name in enumerate(new) if like.get(name, name) in old}
    starts = [[sum(network.widths[:place]) for place in range(len(network.widths))] for network in (theirs, ours)]
    found = dict(theirs.state_dict())
    initial = ours.state_dict()
    for name in ("parameter_head.weight", "parameter_line.weight", "parameter_line.bias"):
        rows = initial[name].clone()
        for place, source in sources.items():
            width = ours.widths[place]
            rows[starts[1][place] :][:width] = found[name][starts[0][source] :][: theirs.widths[source]]
        found[name] = rows
    for name in ("sequence_tokens.weight", "sequence_head.weight", "sequence_head.bias", "sequence_line.weight"):
        rows = initial[name].clone()
        for place, source in sources.items():
            rows[place] = found[name][source]
        if name == "sequence_tokens.weight":
            rows[-1] = found[name][-1]  # the start of a sequence
        found[name] = rows
    return found


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
