"""Policy files: safetensors with a header from which the networks are rebuilt; and the import of released checkpoints.

A policy file stores modules and parameters by name, never by position alone.
"""

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from adaptiveisp.errors import PipelineError, UsageError, WeightsError, one_line, shown
from adaptiveisp.isp.registry import MODULE_SETS, IspModule, find_module, modules_of
from adaptiveisp.policies.base import Preprocessing
from adaptiveisp.policies.environment import HORIZON, actions_of
from adaptiveisp.policies.sequence.networks import Condition, SequenceNetwork
from adaptiveisp.policies.stepwise.networks import Actor, Critic, ObservationKind
from adaptiveisp.utils.config import record, require
from adaptiveisp.utils.files import parse_json, require_regular, write_bytes

FORMAT = "adaptiveisp-policy"
FORMAT_VERSION = 1
ACTOR_CRITIC, SEQUENCE, POS_ISP_KIND, BILATERAL_GRID = "actor_critic", "sequence", "pos-isp", "bilateral_grid"
KINDS = (ACTOR_CRITIC, SEQUENCE, POS_ISP_KIND, BILATERAL_GRID)
RELEASED_SET = "released"
LONGEST_HORIZON = 64
"""Most steps of an episode, since each costs a pass over the image. The paper has 5, the longest policy here 12."""
BATCH_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class PolicyHeader:
    """The header of a policy file: the method, the modules and the observation of its networks.

    Attributes:
        kind: method of the policy, one of `KINDS`; `POS_ISP_KIND` is an imported policy.
        module_set: named set whose ranges the parameters keep.
        modules: names in the order of the action ids; "stop" may be the last.
        horizon: steps of an episode.
        view: kind of observation of the networks, see `networks.observe`.
        start: heuristic of the preprocessing: "auto-exposure" or "auto-gain", or "raw" for no stages.
        once: whether a module runs at most once, so that those that ran cannot be chosen again.
        condition: for a sequence policy, whether the sequence depends on the image: "image" or "none".
        origin: provenance in words.
    """

    kind: str
    module_set: str
    modules: tuple[str, ...]
    horizon: int = HORIZON
    view: ObservationKind = "linear"
    start: Preprocessing = "raw"
    once: bool = False
    condition: Condition = "image"
    origin: str = ""

    def __post_init__(self) -> None:
        require(self.kind in KINDS, f"kind {shown(self.kind)} is not known to this version")
        require(self.module_set in MODULE_SETS, f"module_set {shown(self.module_set)} is not known to this version")
        require(1 <= self.horizon <= LONGEST_HORIZON, f"horizon must be from 1 to {LONGEST_HORIZON}")
        require(0 < len(self.modules) <= LONGEST_HORIZON, f"modules must name from 1 to {LONGEST_HORIZON} modules")
        require(len(set(self.modules)) == len(self.modules), "modules must not name a module twice")


def save_policy(path: Path, header: PolicyHeader, networks: Mapping[str, nn.Module]) -> None:
    """Writes a policy as safetensors, atomically.

    Args:
        path: file to write.
        header: describes the networks, so that they can be rebuilt.
        networks: by name: "actor" and perhaps "critic", which only further training needs; "sequence", "pos-isp" or
            "bilateral_grid".
    """
    tensors = {
        f"{k}.{name}": value.contiguous() for k, net in networks.items() for name, value in net.state_dict().items()
    }
    text = json.dumps({"format": FORMAT, "format_version": FORMAT_VERSION, **asdict(header)})
    write_bytes(path, save(tensors, metadata={FORMAT: text}))


def read_policy(path: Path) -> tuple[PolicyHeader, dict[str, Tensor]]:
    """The header and the tensors of a policy file of any kind.

    Raises:
        WeightsError: the file is missing, damaged, or no policy.
    """
    with _opened(path) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        return _header(path, file.metadata() or {}), tensors


def read_header(path: Path) -> PolicyHeader:
    """The header of a policy file of any kind.

    Raises:
        WeightsError: the file is missing, damaged, or no policy.
    """
    with _opened(path) as file:
        return _header(path, file.metadata() or {})


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    require_regular(path, WeightsError, "give a policy file")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such policy file; check the path") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read as safetensors ({error}); save or import it again") from error


def load_policy_file(path: Path) -> tuple[PolicyHeader, Actor, Critic | None]:
    """The header and the networks of a step-wise policy's file, in evaluation mode.

    Raises:
        WeightsError: the file is missing, damaged, of another kind, or does not fit its own header.
    """
    header, tensors = read_policy(path)
    modules = _modules(header, ACTOR_CRITIC, path)
    actor = Actor(modules, view=header.view)
    fill_network(actor, tensors_below(tensors, "actor."), path)
    critic = None
    if values := tensors_below(tensors, "critic."):
        critic = Critic(len(header.modules), header.view)
        fill_network(critic, values, path)
        critic.eval()
    return header, actor.eval(), critic


def load_sequence_file(path: Path) -> tuple[PolicyHeader, SequenceNetwork]:
    """The header and the network of a sequence policy's file, in evaluation mode.

    Raises:
        WeightsError: the file is missing, damaged, of another kind, or does not fit its own header.
    """
    header, tensors = read_policy(path)
    modules = _modules(header, SEQUENCE, path)
    try:
        network = SequenceNetwork(modules, header.condition, header.horizon)
    except ValueError as error:
        raise WeightsError(f"{path}: does not fit its network ({error}); save it again") from error
    line = network.state_dict()["sequence_line.weight"]  # stays 0 for older files, which lack it
    fill_network(network, {"sequence_line.weight": line} | tensors_below(tensors, "sequence."), path)
    return header, network.eval()


def _modules(header: PolicyHeader, kind: str, path: Path) -> list[IspModule]:
    """The modules of a header in the order of their action ids.

    Raises:
        WeightsError: the header is of another kind, or names a module that neither its set nor the registry has.
    """
    if header.kind != kind:
        raise WeightsError(f"{path}: is a policy of the kind {header.kind}, not {kind}; give a file of that kind")
    known = {module.name: module for module in actions_of(header.module_set, stop=True)}
    try:
        return [known[name] if name in known else find_module(name, header.module_set) for name in header.modules]
    except (PipelineError, UsageError) as error:
        raise WeightsError(f"{path}: {error}") from None


def _header(path: Path, metadata: Mapping[str, str]) -> PolicyHeader:
    remedy = "import it with `adaptiveisp import`, or save it again"
    if FORMAT not in metadata:
        raise WeightsError(f"{path}: is no policy of this package; {remedy}")
    content = parse_json(metadata[FORMAT], f"{path}: the header", WeightsError, remedy)
    version = content.pop("format_version", None) if isinstance(content, dict) else None
    if version != FORMAT_VERSION or isinstance(version, bool) or content.pop("format", None) != FORMAT:
        raise WeightsError(f"{path}: is no policy of version {FORMAT_VERSION} of this package; {remedy}")
    return record(PolicyHeader, content, f"{path}: the header", WeightsError, remedy)


def tensors_below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with the prefix, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def fill_network(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Puts tensors of a file into a network.

    Raises:
        WeightsError: a name or a shape does not fit, or a weight is not finite.
    """
    wanted = network.state_dict()
    for name, value in tensors.items():
        # A pickle can hold tensors without values, and some that stand for far more values than it has.
        plain = value.layout == torch.strided and value.device.type == "cpu" and not value.is_complex()
        if not plain or (name in wanted and value.shape != wanted[name].shape):
            what = f"a tensor {tuple(value.shape)}" + ("" if plain else f" of {value.layout} and {value.dtype}")
            expected = f", expected {tuple(wanted[name].shape)}" if name in wanted else ""
            raise WeightsError(
                f"{path}: does not fit its network ({one_line(name, 80)} is {what}{expected}); save or import it again"
            )
        if name in wanted and value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise WeightsError(f"{path}: {name} holds weights that are not finite; train or import it again")
    try:
        network.load_state_dict(dict(tensors))
    except RuntimeError as error:
        detail = str(error).splitlines()[-1].strip()
        raise WeightsError(f"{path}: does not fit its network ({detail}); save or import it again") from error


def read_published(path: Path) -> dict[Any, Any]:
    """The content of a .pth that another project published: tensors and plain containers; nothing in it is run.

    Raises:
        WeightsError: the file is missing, or holds anything else.
    """
    require_regular(path, WeightsError, "give the .pth as it was published")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch warns about pickles that are refused below
            return dict(torch.load(path, map_location="cpu", weights_only=True))
    except FileNotFoundError:
        raise WeightsError(f"{path}: no such checkpoint; check the path") from None
    except Exception as error:  # torch.load raises many kinds of errors, some of them pickle's
        detail = str(error).splitlines()[0] if str(error) else type(error).__name__
        detail = detail.partition(". This is an internal")[0]  # torch adds guesses about the cause
        if "weights_only" in detail:  # torch would advise a way that runs the file's code
            detail = "it holds more than tensors and plain containers, and anything else could run code"
        raise _not_released(path, detail) from error


def _not_released(path: Path, detail: str) -> WeightsError:
    kinds = "no released AdaptiveISP checkpoint and no POS-ISP policy"
    return WeightsError(f"{path}: is {kinds} ({detail}); give the .pth as it was published")


def import_released(path: Path, content: Mapping[Any, Any] | None = None) -> tuple[PolicyHeader, Actor, Critic]:
    """The networks of a checkpoint of the released AdaptiveISP code, without its unused mask heads.

    The module set is `released`, whose modules have the ranges and the faults of the original. The mappings from
    outputs to parameters equal the original's as well, so that the same weights give the same parameters.

    Args:
        path: a .pth with `agent_model` and `value_model`.
        content: of the file, where it was read already.

    Raises:
        WeightsError: the file is missing, is no such checkpoint, or its tensors have other shapes.
    """
    path = Path(path)
    content = read_published(path) if content is None else content
    try:
        agent, value = dict(content["agent_model"]), dict(content["value_model"])
    except KeyError as error:
        raise _not_released(path, f"it lacks {shown(error.args[0])}") from None
    except (TypeError, ValueError) as error:
        raise _not_released(path, one_line(str(error), 80)) from error
    modules = modules_of(RELEASED_SET)
    names = _encoder_names("feature_extractor", "parameter_encoder")
    names |= _encoder_names("action_selection", "selection_encoder")
    names |= _head_names("", "selection_head.", "fc2")
    for module in modules:
        names |= _head_names(f"{module.short}.", f"parameter_heads.{module.name}.", "fc_filter")
    masks = {f"{m.short}.fc_mask.{kind}" for m in modules for kind in ("weight", "bias")}
    actor, critic = Actor(modules), Critic(len(modules))
    fill_network(actor, renamed_tensors(agent, names, masks, path), path)
    critic_names = _encoder_names("feature_extractor", "encoder") | _head_names("", "head.", "fc2")
    fill_network(critic, renamed_tensors(value, critic_names, set(), path), path)
    origin = f"imported from {path.name}, iteration {content.get('iter', 'unknown')}"
    header = PolicyHeader(ACTOR_CRITIC, RELEASED_SET, tuple(module.name for module in modules), origin=origin)
    return header, actor.eval(), critic.eval()


def _encoder_names(theirs: str, ours: str) -> dict[str, str]:
    """Their key → ours for the convolutions (layers 0, 3, 6, 9) and batch norms (1, 4, 7, 10) of an encoder."""
    names: dict[str, str] = {}
    for block in range(4):
        convolution, batch_norm = 3 * block, 3 * block + 1
        kinds_of = {convolution: ("weight", "bias"), batch_norm: ("weight", "bias", *BATCH_STATISTICS)}
        for layer, kinds in kinds_of.items():
            names |= {f"{theirs}.layers.{layer}.{kind}": f"{ours}.layers.{layer}.{kind}" for kind in kinds}
    return names


def _head_names(theirs: str, ours: str, last: str) -> dict[str, str]:
    pairs = ((f"{theirs}fc1", f"{ours}fc1"), (f"{theirs}{last}", f"{ours}fc2"))
    return {f"{a}.{kind}": f"{b}.{kind}" for a, b in pairs for kind in ("weight", "bias")}


def renamed_tensors(
    tensors: Mapping[Any, Any],
    names: Mapping[str, str],
    unused: set[str],
    path: Path,
    remedy: str = "give a checkpoint of the released AdaptiveISP code",
) -> dict[str, Tensor]:
    """The tensors of a file under our names.

    Args:
        tensors: by their own names.
        names: their name → ours.
        unused: names that are left out.
        path, remedy: for the error.

    Raises:
        WeightsError: a key is missing or unknown, or a value is not a tensor.
    """
    if missing := [key for key in names if key not in tensors]:
        raise WeightsError(f"{path}: lacks {missing[0]!r}; {remedy}")
    if unknown := [key for key in tensors if key not in names and key not in unused]:
        raise WeightsError(f"{path}: has the unknown key {shown(unknown[0])}; {remedy}")
    if wrong := [key for key in names if not isinstance(tensors[key], Tensor)]:
        raise WeightsError(f"{path}: {wrong[0]!r} is not a tensor; {remedy}")
    return {ours: tensors[theirs] for theirs, ours in names.items()}
