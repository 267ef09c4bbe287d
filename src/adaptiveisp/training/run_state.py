"""The content of `latest.pt` of a training run, whose types, shapes and ranges are checked when it is read."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adaptiveisp.errors import WeightsError, shown
from adaptiveisp.utils.config import record, require
from adaptiveisp.utils.files import require_regular

LARGEST_COUNT = 1 << 53
"""Upper limit of counters, far above useful ones; smaller whole numbers are exact as floats."""
DEEPEST = 20
"""Largest depth of nested containers."""


@dataclass(frozen=True)
class RunState:
    """The content of a checkpoint.

    Attributes:
        learner: state of the learner, see `check_like`.
        lines: number of lines of each log.
        skipped: image that could not be used → reason.
        best, best_ap50: AP50 of the best policy on dev in points less its runtime penalty, and its AP50 in [0, 1]; None
            before the first score.
        teacher: state of the teacher; None without one.
        best_modules: names of the modules in the best policy's pipelines on dev; None where that is not known.
        best_iteration, start, best_within, best_within_clock: see `DevSelection`; None in checkpoints of earlier
            versions.
    """

    learner: dict[str, Any]
    lines: dict[str, int]
    skipped: dict[str, str] = field(default_factory=dict)
    best: float | None = None
    best_ap50: float | None = None
    teacher: Any = None
    best_modules: tuple[str, ...] | None = None
    best_iteration: int | None = None
    start: dict[str, float] | None = None
    best_within: float | None = None
    best_within_clock: float | None = None

    def __post_init__(self) -> None:
        require(all(0 <= count < LARGEST_COUNT for count in self.lines.values()), "lines must not be negative")


def read_state(path: Path, learner: Mapping[str, Any], teacher: Mapping[str, Any] | None, remedy: str) -> RunState:
    """The content of a checkpoint.

    Args:
        path: latest.pt.
        learner: state of a new learner of this run, with which the state of the file is compared.
        teacher: the same of its teacher; None without one.
        remedy: the remedy, for errors.

    Raises:
        WeightsError: the file is damaged, or a value has another type, shape or range than in `learner`.
    """
    require_regular(path, WeightsError, remedy)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and pickle raise many kinds on a damaged file
        raise WeightsError(f"{path}: is damaged; remove it to start the run again, or restore a copy") from error
    state = record(RunState, content, str(path), WeightsError, remedy)
    try:
        check_like(state.learner, learner, "learner")
        if (state.teacher is None) != (teacher is None):
            raise ValueError("it has the state of a teacher and the run has no teacher, or the other way round")
        check_like(state.teacher, teacher, "teacher")
    except ValueError as error:
        raise WeightsError(f"{path}: {error}; {remedy}") from None
    return state


def check_like(value: Any, template: Any, where: str, depth: int = 0) -> None:
    """Checks that a state has the same names, types and shapes as the state of a new learner.

    Lists may have any length. An empty mapping or None in the template fits any mapping or value.

    Args:
        value: the state to check.
        template: state of a new learner.
        where: name of the value, for errors.
        depth: number of containers around the value.

    Raises:
        ValueError: names the value that does not fit.
    """
    if depth > DEEPEST:
        raise ValueError(f"{where} is nested too deeply")
    if template is None or (isinstance(template, Mapping) and not template):
        _check_plain(value, where, depth)
    elif isinstance(template, Tensor):
        if not isinstance(value, Tensor) or value.dtype != template.dtype or value.shape != template.shape:
            raise ValueError(f"{where} is {_what(value)}, expected {_what(template)}")
        _check_plain(value, where, depth)
    elif isinstance(template, Mapping):
        if not isinstance(value, Mapping) or (set(value) != set(template)):
            raise ValueError(f"{where} is {_what(value)}, expected {_what(template)}")
        for name, inner in template.items():
            check_like(value[name], inner, f"{where}.{name}", depth + 1)
    elif isinstance(template, list | tuple):
        if not isinstance(value, list | tuple):
            raise ValueError(f"{where} is {_what(value)}, expected a list")
        # The items of a list of containers, such as the images of a replay buffer, may differ from each other.
        same = len(value) == len(template) and not any(isinstance(item, Mapping | list | tuple) for item in template)
        for number, item in enumerate(value):
            if same:
                check_like(item, template[number], f"{where}[{number}]", depth + 1)
            else:
                _check_plain(item, f"{where}[{number}]", depth + 1)
    else:
        numbers = isinstance(template, int | float) and not isinstance(template, bool)
        allowed = (int, float) if numbers and isinstance(template, float) else type(template)
        if not isinstance(value, allowed) or isinstance(value, bool) != isinstance(template, bool):
            raise ValueError(f"{where} is {_what(value)}, expected {_what(template)}")
        _check_plain(value, where, depth)


def check_optimiser(content: Any, optimiser: torch.optim.Optimizer, where: str) -> None:
    """Checks that the state of an optimiser fits its parameters, which PyTorch does not check.

    Raises:
        ValueError: names the value that does not fit.
    """
    groups = content.get("param_groups") if isinstance(content, Mapping) else None
    states = content.get("state") if isinstance(content, Mapping) else None
    if not isinstance(states, Mapping) or not isinstance(groups, Sequence):
        raise ValueError(f"{where} is not the state of an optimiser")
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for number, state in states.items():
        known = isinstance(number, int) and 0 <= number < len(parameters) and isinstance(state, Mapping)
        if not known:
            raise ValueError(f"{where} has the state of a parameter {shown(number)}, which does not exist")
        for name, value in state.items():
            fits = isinstance(value, Tensor) and (name == "step" or value.shape == parameters[number].shape)
            if not fits:
                raise ValueError(f"{where}: {name} of parameter {number} is {_what(value)}")


def _check_plain(value: Any, where: str, depth: int) -> None:
    """Refuses values other than numbers below `LARGEST_COUNT`, texts, tensors, and containers of these.

    Raises:
        ValueError: names the value.
    """
    if depth > DEEPEST:
        raise ValueError(f"{where} is nested too deeply")
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _check_plain(inner, f"{where}.{name}", depth + 1)
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            _check_plain(inner, f"{where}[{number}]", depth + 1)
    elif isinstance(value, Tensor):
        # A tensor may claim more values than its file stores.
        plain = value.layout == torch.strided and value.device.type == "cpu"
        if not plain or value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ValueError(f"{where} is {_what(value)} without values of its own")
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise ValueError(f"{where} holds values that are not finite")
    elif isinstance(value, int):
        if abs(value) >= LARGEST_COUNT:
            raise ValueError(f"{where} = {shown(value)} is too large")
    elif isinstance(value, float):
        if math.isnan(value):
            raise ValueError(f"{where} is not a number")
    elif value is not None and not isinstance(value, str):
        raise ValueError(f"{where} is {_what(value)}")


def _what(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor {tuple(value.shape)} of {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, Mapping):
        return f"a mapping of {', '.join(sorted(map(str, value))[:8]) or 'nothing'}"
    return f"{type(value).__name__} {shown(value, 40)}"
