"""Policies by name or path, as on the command line: built-in ones, pipeline files, policy files, run folders."""

import inspect
import os
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

from adaptiveisp.errors import UsageError, logger
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.policies.base import Planner, Policy, as_policy
from adaptiveisp.policies.bilateral_grid.policy import load_bilateral_grid
from adaptiveisp.policies.checkpoint import BILATERAL_GRID, POS_ISP_KIND, SEQUENCE, read_header
from adaptiveisp.policies.fixed import FixedPipeline, load_fixed
from adaptiveisp.policies.heuristics import AutoExposure, CameraDevelopment
from adaptiveisp.policies.oracle import GreedyOracle
from adaptiveisp.policies.pos_isp.policy import load_pos_isp
from adaptiveisp.policies.sequence.policy import load_sequence
from adaptiveisp.policies.stepwise.policy import load_stepwise
from adaptiveisp.policies.tone_curves import TONE_CURVES
from adaptiveisp.utils.own_code import import_object, names_code, path_remedy, reason_of
from adaptiveisp.utils.registry import Registry

SHIPPED = ("coco-adaptive", "coco-fast", "coco-colours", "coco-selective", "coco-selective-fast")
"""Learned policies inside the package, each with a card that describes its training and its scores."""
DEFAULT_POLICY = SHIPPED[0]

RUN_POLICIES = ("best.safetensors", "best.json", "latest.safetensors", "latest.json")
"""Policy files of a run folder; the first that exists is taken."""
SAVED_POLICIES = ("policy.safetensors", "policy.json")
"""Policy files of a folder that `save_pretrained` wrote."""


def night() -> FixedPipeline:
    """One pipeline of our modules for dark raws, which ships with the package."""
    with resources.as_file(resources.files("adaptiveisp") / "policies" / "assets" / "pipelines" / "night.json") as path:
        return FixedPipeline(Pipeline.load(path), "night")


NAMED_POLICIES: dict[str, Policy] = {
    "none": FixedPipeline(Pipeline(())),
    "auto-exposure": AutoExposure(),
    "camera": CameraDevelopment(),
    "night": night(),
    **{policy.name: policy for policy in TONE_CURVES},
    "greedy-oracle": GreedyOracle(),
    "greedy-oracle-raw": GreedyOracle("greedy-oracle-raw", preprocessing="raw"),
}
"""Policies that the command line knows by name; the oracles need labels, see `oracle`."""


PolicyFactory = Callable[..., Policy | Planner]
"""Returns a policy. It gets `device=`, the name of a device, if it takes such an argument."""


def _checked(origin: str, value: object) -> Policy | PolicyFactory:
    """A policy, an object with `name` and `plan`, or a function that returns one of these.

    Raises:
        UsageError: the object is anything else.
    """
    if isinstance(value, Planner) and not isinstance(value, type):
        return as_policy(value)
    if callable(value):
        return value
    raise UsageError(f"{origin}: is no policy; give an object with name and plan(image), or a function that makes one")


_REGISTERED: Registry[Policy | PolicyFactory] = Registry("policy", "adaptiveisp.policies", "--policy", _checked)


def register_policy(name: str, policy: Policy | Planner | PolicyFactory, replace: bool = False) -> None:
    """Makes a policy known by a name, for `load_policy` and the command line's `--policy`.

    An installed package declares one without this call, by an entry point of the group `adaptiveisp.policies`.

    Args:
        name: letters, digits, "-" and "_".
        policy: a policy, an object with `name` and `plan`, or a function that returns one of these; a function may
            take `device`.
        replace: whether it may take the place of a policy that was registered under that name.

    Raises:
        UsageError: the name is taken, or the object is no policy.
    """
    if name in (*SHIPPED, *NAMED_POLICIES):
        raise UsageError(f"policy {name!r} is part of the package; choose another name")
    _REGISTERED.register(name, _checked(f"policy {name!r}", policy), replace)


def _made(text: str, value: Policy | PolicyFactory, device: str) -> Policy:
    """The policy itself, or the one that the user's function returns.

    Raises:
        UsageError: the function fails or returns no policy.
    """
    if isinstance(value, Policy):
        return value
    try:
        made: Any = value(device=device) if "device" in inspect.signature(value).parameters else value()
    except Exception as error:  # the user's own code
        logger.debug("%s", text, exc_info=error)
        raise UsageError(f"{text}: {reason_of(error)}; it must return a policy; -v shows where") from error
    try:
        return as_policy(made)
    except UsageError as error:
        raise UsageError(f"{text}: {error}") from None


def shipped_file(name: str, suffix: str = ".safetensors") -> Path:
    """The file of a policy of `SHIPPED`, or its card with the suffix `.md`."""
    return Path(str(resources.files("adaptiveisp"))) / "policies" / "assets" / "pretrained" / f"{name}{suffix}"


def policy_file(spec: str) -> Path:
    """The file of a learned policy: the path itself, a shipped policy, or the policy in a folder.

    The best policy of a run folder is taken, and the policy of a folder that `save_pretrained` wrote.

    Raises:
        UsageError: there is no such policy.
    """
    if spec in SHIPPED:
        return shipped_file(spec)
    path = Path(spec)
    files = [path, *(path / name for name in (*RUN_POLICIES, *SAVED_POLICIES))]
    for file in files:
        if file.suffix in (".json", ".safetensors") and (file is path or file.is_file()):
            return file
    if remedy := path_remedy(spec):
        raise UsageError(f"policy {spec}: {remedy}")
    usable = [name for name, policy in NAMED_POLICIES.items() if not policy.needs_labels]
    raise UsageError(
        f"policy {spec!r} does not exist; choose one of {', '.join((*SHIPPED, *usable, *_REGISTERED.names()))}, a "
        "pipeline .json, a policy .safetensors, the folder of a training run or of save_pretrained, or "
        "my_pkg.my_file:name"
    )


def load_policy(spec: str, device: str = "cpu", steps: int = 0) -> Policy:
    """The policy that P of the command line names.

    Args:
        spec: one of `SHIPPED` or `NAMED_POLICIES`, a name given to `register_policy` or declared by an installed
            package, a pipeline .json, a policy .safetensors, the folder of a training run or of `save_pretrained`, or
            `my_pkg.my_file:name`, a policy or a function that returns one. The last runs code, so it must not come
            from a file.
        device: where a learned policy's networks run.
        steps: number of steps of a step-wise policy, and most steps of a sequence or an oracle; 0 keeps their own.

    Raises:
        UsageError: there is no such policy.
        PipelineError, WeightsError: the file is missing or wrong.
    """
    if spec in NAMED_POLICIES:
        return NAMED_POLICIES[spec].with_steps(steps)
    # `os.path` returns False for an impossible path, for instance one that is too long; pathlib raises.
    if names_code(spec) and not os.path.exists(spec):
        return _made(spec, _checked(spec, import_object(spec)), device).with_steps(steps)
    if spec in _REGISTERED and not os.path.exists(spec):
        return _made(f"policy {spec!r}", _REGISTERED.find(spec), device).renamed(spec).with_steps(steps)
    file = policy_file(spec)
    name = file.stem if spec in SHIPPED or file == Path(spec) else Path(spec).name
    if file.suffix == ".json":
        return load_fixed(file).renamed(name)
    loaders: dict[str, Callable[..., Policy]] = {
        SEQUENCE: load_sequence,
        POS_ISP_KIND: load_pos_isp,
        BILATERAL_GRID: load_bilateral_grid,
    }
    return loaders.get(read_header(file).kind, load_stepwise)(file, name, device, steps)


class PolicyList(NamedTuple):
    """Policies with distinct names, and the groups that some of them form.

    Attributes:
        policies: all of them, members of groups among them, named NAME/1, NAME/2 and so on.
        groups: NAME → names of the policies in the group.
    """

    policies: list[Policy]
    groups: dict[str, tuple[str, ...]]


def load_policies(specs: Sequence[str], device: str = "cpu", steps: int = 0) -> PolicyList:
    """The policies that several P name, each as in `load_policy`, or NAME=P1,P2,… for runs of one method.

    A P that holds "=" and exists as a file or folder is a path.

    Args:
        specs: the texts; one that is repeated counts once.
        device, steps: as in `load_policy`.

    Raises:
        UsageError: there is no such policy, a group is malformed, or two policies or groups have the same name.
        PipelineError, WeightsError: a file is missing or wrong.
    """
    policies: list[Policy] = []
    groups: dict[str, tuple[str, ...]] = {}
    names: list[str] = []
    for spec in dict.fromkeys(specs):
        name, members = split_group(spec)
        if not members:
            policies.append(load_policy(spec, device, steps))
            names.append(policies[-1].name)
            continue
        named = [load_policy(p, device, steps).renamed(f"{name}/{i}") for i, p in enumerate(members, 1)]
        policies += named
        names += [name, *(policy.name for policy in named)]
        groups[name] = tuple(policy.name for policy in named)
    if len(set(names)) < len(names):
        raise UsageError(f"two policies have the same name ({', '.join(names)}); rename a file or a group")
    return PolicyList(policies, groups)


def split_group(spec: str) -> tuple[str, tuple[str, ...]]:
    """NAME and the P of NAME=P1,P2,…; no P where the text is a policy by itself.

    Raises:
        UsageError: NAME or a P is missing, NAME is no plain name, or a P is given twice.

    >>> split_group("ours=run-1,run-2"), split_group("auto-exposure")
    (('ours', ('run-1', 'run-2')), ('auto-exposure', ()))
    """
    # `os.path` returns False for an impossible path, for instance one that is too long; pathlib raises.
    if "=" not in spec or os.path.exists(spec):
        return spec, ()
    name, _, rest = spec.partition("=")
    members = tuple(rest.split(","))
    form = f"--policy {spec!r}: give a file or folder that exists, or NAME=P1,P2,… for the runs of one method"
    if not name.strip() or "/" in name or os.sep in name:
        raise UsageError(f"{form}; NAME must be a name without slashes")
    if not all(member.strip() for member in members):
        raise UsageError(f"{form}; a P is empty")
    if len(set(members)) < len(members):
        raise UsageError(f"{form}; the same P is given twice")
    return name, members
