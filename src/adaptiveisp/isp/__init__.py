"""The ISP modules and the named sets of them. To add one: a file here and a line in a set below."""

from collections.abc import Sequence

from adaptiveisp.errors import PipelineError
from adaptiveisp.isp import (
    ccm,
    contrast,
    denoise,
    desaturation,
    exposure,
    gamma,
    saturation,
    sharpen,
    srgb,
    tone,
    white_balance,
)
from adaptiveisp.isp.module import IspModule, Param

PAPER = (
    exposure.PAPER,
    gamma.PAPER,
    ccm.PAPER,
    sharpen.PAPER,
    denoise.PAPER,
    tone.PAPER,
    contrast.PAPER,
    saturation.PAPER,
    desaturation.PAPER,
    white_balance.PAPER,
)
"""The ten modules of AdaptiveISP with the paper's ranges, in the order of the action ids of released checkpoints."""

RELEASED = tuple(saturation.RELEASED if module.name == "saturation" else module for module in PAPER)
"""`PAPER` with the faults of the released code that change pictures: grey turns red under saturation."""

WIDE = (
    exposure.WIDE,
    gamma.WIDE,
    ccm.PAPER,
    sharpen.PAPER,
    denoise.PAPER,
    tone.PAPER,
    contrast.PAPER,
    saturation.PAPER,
    desaturation.PAPER,
    white_balance.WIDE,
)
"""The ten modules with the ranges that real dark raws need: exposure ±10 stops, gamma's floor 1e-5, gains to 3.3."""

MODULE_SETS: dict[str, tuple[IspModule, ...]] = {"paper": PAPER, "released": RELEASED, "wide": WIDE}
"""What a policy may choose from, by name. A pipeline file names the set whose ranges its parameters keep."""

HELPERS = (srgb.PLAIN,)
"""Modules that a pipeline of any set may name but no policy chooses."""


def modules_of(module_set: str) -> tuple[IspModule, ...]:
    """The modules of a named set, in the order of their action ids.

    Raises:
        PipelineError: there is no such set.
    """
    if module_set not in MODULE_SETS:
        raise PipelineError(f"module set {module_set!r} does not exist; choose one of {', '.join(MODULE_SETS)}")
    return MODULE_SETS[module_set]


def find_module(name: str, module_set: str) -> IspModule:
    """The module of that name in a set (or a helper).

    Raises:
        PipelineError: the set has no such module.
    """
    available: Sequence[IspModule] = (*modules_of(module_set), *HELPERS)
    for module in available:
        if module.name == name:
            return module
    names = ", ".join(module.name for module in available)
    raise PipelineError(f"module {name!r} is unknown in the set {module_set!r}; choose from {names}")


__all__ = ["HELPERS", "MODULE_SETS", "PAPER", "RELEASED", "WIDE", "IspModule", "Param", "find_module", "modules_of"]
