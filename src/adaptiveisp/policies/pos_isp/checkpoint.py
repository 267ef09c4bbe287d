"""The import of a released POS-ISP policy, and the reading of the policy file that it makes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adaptiveisp.errors import WeightsError, shown
from adaptiveisp.isp.registry import POS_ISP
from adaptiveisp.policies.base import Preprocessing
from adaptiveisp.policies.checkpoint import (
    POS_ISP_KIND,
    PolicyHeader,
    fill_network,
    read_policy,
    read_published,
    renamed_tensors,
    tensors_below,
)
from adaptiveisp.policies.pos_isp.networks import PosIspNetwork
from adaptiveisp.utils.files import sha256_of

NAME = "pos-isp"
"""Of the module set, and of the network in a policy file."""
ORDER = tuple(module.name for module in POS_ISP)
REMEDY = "give a POS-ISP policy (iter, agent_model), or an AdaptiveISP checkpoint (agent_model, value_model)"
LAYERS = {
    "param_net.enc1.0": "convolutions.0",
    "param_net.enc1.2": "convolutions.1",
    "param_net.enc1.4": "convolutions.2",
    "param_net.enc2.0": "convolutions.3",
    "param_net.enc3.0": "convolutions.4",
    "param_net.fc1": "layers.0",
    "param_net.fc2": "layers.1",
    "param_net.decoder.0": "layers.2",
    "param_net.decoder.2": "layers.3",
    "action_agent.step2film.0": "film",
    "action_agent.decoder": "choice",
}
"""Their layer → ours, each with a weight and a bias."""
NAMES = {
    **{f"{theirs}.{kind}": f"{ours}.{kind}" for theirs, ours in LAYERS.items() for kind in ("weight", "bias")},
    "action_agent.token_embed.weight": "tokens.weight",
    "action_agent.step_embed.weight": "steps.weight",
    **{
        f"action_agent.gru.{kind}_{side}_l0{way}": f"gru.{kind}_{side}_l0{way}"
        for kind in ("weight", "bias")
        for side in ("ih", "hh")
        for way in ("", "_reverse")
    },
}
"""Their tensor → ours, all 32."""


def is_pos_isp(content: Mapping[Any, Any]) -> bool:
    """Whether the content of a published checkpoint is a POS-ISP policy: it has an agent and no critic."""
    return "agent_model" in content and "value_model" not in content


def import_pos_isp(
    path: Path, content: Mapping[Any, Any] | None = None, preprocessing: Preprocessing = "raw"
) -> tuple[PolicyHeader, PosIspNetwork]:
    """The header and the networks of a policy that the authors of POS-ISP published.

    Args:
        path: a .pth with `iter` and `agent_model`.
        content: of the file, where it was read already.
        preprocessing: stages that run before the policy's own; "raw" for none, as the policies were trained.

    Raises:
        WeightsError: the file is missing, is no such policy, or a tensor has another name, type or shape.
    """
    path = Path(path)
    content = read_published(path) if content is None else content
    agent, iteration = content.get("agent_model"), content.get("iter")
    if not isinstance(agent, Mapping):
        raise WeightsError(f"{path}: its agent_model holds no tensors by name; {REMEDY}")
    if isinstance(iteration, bool) or not isinstance(iteration, int) or iteration < 0:
        raise WeightsError(f"{path}: iter = {shown(iteration)} is not the number of an iteration; {REMEDY}")
    tensors = renamed_tensors(agent, NAMES, set(), path, REMEDY)
    wanted = PosIspNetwork().state_dict()
    for theirs, ours in NAMES.items():
        found, shape = tensors[ours], tuple(wanted[ours].shape)
        if found.dtype != torch.float32 or found.shape != shape:
            what = f"{theirs} is {found.dtype} {tuple(found.shape)}, not torch.float32 {shape}"
            raise WeightsError(f"{path}: {what}; {REMEDY}")
    origin = f"POS-ISP, imported from {path.name}, iteration {iteration}, sha256 {sha256_of(path)}"
    header = PolicyHeader(
        POS_ISP_KIND, NAME, ORDER, len(ORDER), start=preprocessing, once=True, condition="none", origin=origin
    )
    return header, _network(tensors, path)


def load_pos_isp_file(path: Path) -> tuple[PolicyHeader, PosIspNetwork]:
    """The header and the networks of an imported POS-ISP policy, in evaluation mode.

    Raises:
        WeightsError: the file is missing, damaged, of another kind, or does not fit its own header.
    """
    header, tensors = read_policy(path)
    if header.kind != POS_ISP_KIND:
        raise WeightsError(f"{path}: is a policy of the kind {header.kind}, not {POS_ISP_KIND}; give one of that kind")
    if header.module_set != NAME or header.modules != ORDER:
        raise WeightsError(f"{path}: names other modules than the set {NAME} in its order; import the policy again")
    return header, _network(tensors_below(tensors, f"{NAME}."), path)


def _network(tensors: Mapping[str, Tensor], path: Path) -> PosIspNetwork:
    network = PosIspNetwork()
    fill_network(network, tensors, path)
    return network.eval()
