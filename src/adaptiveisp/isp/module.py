"""An ISP module as data: its function, its parameters and its cost.

One declaration serves policies (their heads), searches, pipeline files and documentation.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, get_args

import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from adaptiveisp.errors import PipelineError, shown
from adaptiveisp.kernels.registry import KernelCall, apply
from adaptiveisp.types import Image, ParamTensor, RawImage
from adaptiveisp.utils.config import require
from adaptiveisp.utils.registry import NAME

Logits = Float[Tensor, "batch n_params"]

BOUND_TOLERANCE = 1e-4
"""Relative slack of the range check, so that a value that went through float32 and JSON is not refused at its bound."""


MARGIN = 0.02
"""Share of a range by which starting values keep off its ends, where squashing has hardly any slope."""


Scale = Literal["linear", "log", "sigmoid"]
NAME_REMEDY = "give a name of at most 64 letters, digits, - and _, with a letter first"


@dataclass(frozen=True)
class Param:
    """One physical parameter of a module.

    Attributes:
        name: key in pipeline JSON.
        low, high: closed range of the reported value, in `unit`.
        unit: of the values, for instance "stops"; "" where there is none.
        neutral: the value that leaves an image unchanged.
        scale: maps a network's unbounded output z to a value:
            "linear" low + (high-low)(tanh z + 1)/2, "log" the same between the logarithms,
            "sigmoid" low + (high-low)·σ(z).

    Raises:
        UsageError: a value makes no sense; the message names the parameter.
    """

    name: str
    low: float
    high: float
    unit: str
    neutral: float
    scale: Scale = "linear"

    def __post_init__(self) -> None:
        named = f"parameter {shown(self.name)}"
        require(_is_name(self.name), f"{named}: {NAME_REMEDY}")
        for field in ("low", "high", "neutral"):
            value = getattr(self, field)
            require(_as_float(value) is not None, f"{named}: {field} = {shown(value)} is not a finite number")
        require(self.low < self.high, f"{named}: low = {self.low:g} must be below high = {self.high:g}")
        inside = self.low <= self.neutral <= self.high
        require(inside, f"{named}: neutral = {self.neutral:g} must be in its range {self.range_text}")
        known = self.scale in get_args(Scale)
        require(known, f"{named}: scale = {shown(self.scale)} does not exist; give one of {', '.join(get_args(Scale))}")
        require(self.scale != "log" or self.low > 0, f"{named}: low = {self.low:g} must be above 0 for the scale log")

    def squash(self, z: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
        """Value in [low, high] of an unbounded z; z = 0 gives the middle of the range (of its logarithm for "log").

        >>> Param("ev", -3.5, 3.5, "stops", 0.0).squash(torch.zeros(1)).item()
        0.0
        """
        if self.scale == "sigmoid":
            return self.low + (self.high - self.low) * torch.sigmoid(z)
        unit_value = (torch.tanh(z) + 1) / 2
        if self.scale == "log":
            low, high = math.log(self.low), math.log(self.high)
            return torch.exp(low + (high - low) * unit_value)
        return self.low + (self.high - self.low) * unit_value

    def value(self, z: float) -> float:
        """`squash` of one number, without a tensor.

        >>> Param("ev", -3.5, 3.5, "stops", 0.0).value(0.0)
        0.0
        """
        unit_value = (math.tanh(z / 2 if self.scale == "sigmoid" else z) + 1) / 2  # σ(z) without overflow
        if self.scale == "log":
            low, high = math.log(self.low), math.log(self.high)
            return math.exp(low + (high - low) * unit_value)
        return self.low + (self.high - self.low) * unit_value

    def unsquash(self, value: float, margin: float = MARGIN) -> float:
        """The z whose `squash` is `value`, which is first moved off the ends of the range, where z is infinite.

        Args:
            value: in physical units.
            margin: share of the range by which it is off them at least.

        >>> round(Param("gamma", 1 / 3, 3.0, "", 1.0, "log").unsquash(1.0), 6)
        0.0
        """
        low, high = (math.log(self.low), math.log(self.high)) if self.scale == "log" else (self.low, self.high)
        place = ((math.log(value) if self.scale == "log" else value) - low) / (high - low)
        place = min(max(place, margin), 1 - margin)
        return math.log(place / (1 - place)) if self.scale == "sigmoid" else math.atanh(2 * place - 1)

    def check(self, module: str, value: object) -> float:
        """The value as a float, clipped to the range by at most `BOUND_TOLERANCE`.

        Raises:
            PipelineError: it is no finite number or lies outside [low, high].
        """
        number = _as_float(value)
        if number is None:
            shown = repr(value)[:40]
            raise PipelineError(f"{module}.{self.name} = {shown} is not a finite number; give one in {self.range_text}")
        slack = BOUND_TOLERANCE * (self.high - self.low)
        if not self.low - slack <= number <= self.high + slack:
            raise PipelineError(
                f"{module}.{self.name} = {number:g} is out of range; give a number in {self.range_text}"
            )
        return min(max(number, self.low), self.high)

    @property
    def range_text(self) -> str:
        """The range as text, for instance "[-3.5, 3.5] stops"."""
        return f"[{self.low:.4g}, {self.high:.4g}] {self.unit}".rstrip()


def _is_name(value: object) -> bool:
    """Whether a value can be the name of a module or parameter, which files and tables use too."""
    return isinstance(value, str) and NAME.fullmatch(value) is not None


def _as_float(value: object) -> float | None:
    """The value as a float; None if it is not a finite real number (True and False are not)."""
    if type(value) is float:  # the usual case; isinstance of the abstract class takes longer than all the rest
        return value if math.isfinite(value) else None
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


@dataclass(frozen=True)
class IspModule:
    """One step of an ISP, differentiable in the image and in its parameters.

    Attributes:
        name: key in pipelines, tables and checkpoints.
        short: its abbreviation in tables; for the paper's modules the one of the released AdaptiveISP checkpoints.
        params: its parameters in the order of the columns of a `ParamTensor`.
        function: (image in [0, 1], parameters) → image before the clip to [0, 1].
        cost_ms: run time in milliseconds from the paper's table.
        head: unbounded network outputs → parameters, where that is not each parameter's own `squash`.
        inverse: physical values by name → the outputs for which `head` gives them; needed beside a `head`.
        forbidden: says why parameters that are each in range are invalid together; returns None where they are valid.
        source: publication of the operation.
        effect: a sentence that says what it does to a picture, for the documentation.
        pointwise: whether each pixel of the result depends on the same pixel of the image alone, so that an image may
            be processed in parts.
        colour_only: whether its only effect is on colours, so that it is left out for monochrome raws.
        kernel: the compiled kernel that computes `function`, where there is one; see `kernels.registry`. It clips.
        bound: whether `function` holds tensors of one image, so that no CUDA graph of it is kept.
        clips: whether the result is clipped to [0, 1]; False hands values above 1 on to the next module, as in POS-ISP.
        external: develops a raw by parameters, where the module is an ISP outside the package, see `isp.external`.
        onnx: adds the nodes that compute `function` to an ONNX graph, for `export`: (graph, image, parameters) → image;
            see docs/extending.md. None for modules of the package, and for those that PyTorch's exporter can trace.

    Raises:
        UsageError: a value makes no sense; the message names the module.
    """

    name: str
    short: str
    params: tuple[Param, ...]
    function: Callable[[Image, ParamTensor], Image]
    cost_ms: float
    head: Callable[[Logits], ParamTensor] | None = None
    inverse: Callable[[Mapping[str, float]], Sequence[float]] | None = None
    forbidden: Callable[[Mapping[str, float]], str | None] | None = None
    source: str = ""
    effect: str = ""
    pointwise: bool = False
    colour_only: bool = False
    kernel: KernelCall | None = None
    clips: bool = True
    bound: bool = False
    external: Callable[[RawImage, Mapping[str, float]], NDArray[Any]] | None = None
    onnx: Callable[[Any, Any, Any], Any] | None = None

    def __post_init__(self) -> None:
        named = f"module {shown(self.name)}"
        require(_is_name(self.name), f"{named}: {NAME_REMEDY}")
        listed = isinstance(self.params, tuple) and all(isinstance(param, Param) for param in self.params)
        require(listed, f"{named}: params must be a tuple of Param; write (Param(…),) for a single one")
        names = [param.name for param in self.params]
        require(len(set(names)) == len(names), f"{named}: two parameters have the same name; they are {names}")
        require(callable(self.function), f"{named}: function must be callable, not {type(self.function).__name__}")
        cost = _as_float(self.cost_ms)
        fits = cost is not None and cost >= 0
        require(fits, f"{named}: cost_ms = {shown(self.cost_ms)} must be a finite number of milliseconds, at least 0")
        require(self.head is None or self.inverse is not None, f"{named}: a head needs its inverse too")
        require(self.clips or self.kernel is None, f"{named}: has a kernel, which clips; give clips=True or no kernel")

    def __call__(self, image: Image, params: ParamTensor) -> Image:
        """The processed image, clipped to [0, 1] if `clips`; the clip passes the gradient on the closed interval.

        The result has the same bits with and without a gradient, since a replay buffer makes images again from their
        history.

        Args:
            image: linear or encoded RGB in [0, 1].
            params: one row per image, columns as in `self.params`.

        Raises:
            ValueError: the shapes do not fit.
        """
        if image.ndim != 4 or image.shape[1] != 3:
            raise ValueError(f"{self.name}: image must be (batch, 3, height, width), not {tuple(image.shape)}")
        if params.shape != (image.shape[0], len(self.params)):
            raise ValueError(
                f"{self.name}: params must be {(image.shape[0], len(self.params))}, not {tuple(params.shape)}"
            )
        processed = apply(self.kernel, image, params)
        if processed is not None:
            return processed
        made = self.function(image, params)
        return made.clamp(0, 1) if self.clips else made

    def params_from_logits(self, logits: Logits) -> ParamTensor:
        """Physical parameters from unbounded network outputs, one column each."""
        if self.head is not None:
            return self.head(logits)
        if not self.params:
            return logits
        first = self.params[0]
        if all((p.low, p.high, p.scale) == (first.low, first.high, first.scale) for p in self.params):
            return first.squash(logits)  # one operation instead of one a column
        return torch.stack([p.squash(logits[:, i]) for i, p in enumerate(self.params)], dim=1)

    def logits_from_params(self, params: Mapping[str, float], margin: float = MARGIN) -> list[float]:
        """The unbounded outputs for which `params_from_logits` gives these values.

        Values near the ends of their range are first moved off them, see `Param.unsquash`.

        Args:
            params: every parameter by name, in physical units.
            margin: share of the range by which they are moved off its ends at least.
        """
        if self.inverse is not None:
            return list(self.inverse(params))
        return [param.unsquash(params[param.name], margin) for param in self.params]

    def check(self, params: Mapping[str, object]) -> dict[str, float]:
        """The parameters by name, in declared order, each checked against its range.

        Raises:
            PipelineError: one is missing, unknown, not finite or out of range, or they make no sense together.
        """
        names = [p.name for p in self.params]
        if unknown := [name for name in params if name not in names]:
            raise PipelineError(f"{self.name} has no parameter {unknown[0]!r}; it has {', '.join(names) or 'none'}")
        if missing := [name for name in names if name not in params]:
            raise PipelineError(f"{self.name} lacks its parameter {missing[0]!r}; give {', '.join(names)}")
        checked = {p.name: p.check(self.name, params[p.name]) for p in self.params}
        if self.forbidden is not None and (reason := self.forbidden(checked)):
            raise PipelineError(f"{self.name}: {reason}")
        return checked

    @property
    def neutral_params(self) -> dict[str, float]:
        """The parameters that leave an image unchanged, by name."""
        return {param.name: param.neutral for param in self.params}

    @property
    def neutral(self) -> tuple[float, ...]:
        """The parameters that leave an image unchanged."""
        return tuple(p.neutral for p in self.params)
