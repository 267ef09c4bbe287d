"""The ISP modules and the named sets of them.

To add a module to the package, write a file in `isp/modules` that declares it and put the file's name into
`EXTENDED_FILES`. A file declares the module as `PAPER`, and under a set's own name where that set has other ranges. The
set `pos-isp`, which changes what modules compute, is in `modules/pos_isp.py`.
A module from outside the package is registered by `register_module`, by an entry point or by `--module`. It belongs to
no set, so that sets, policies and cost tables do not change; it may be used together with the modules of any set.
"""

import importlib
from collections.abc import Sequence

from adaptiveisp.errors import PipelineError, UsageError
from adaptiveisp.isp.external import ExternalISP, is_external, module_of
from adaptiveisp.isp.module import IspModule, Param
from adaptiveisp.isp.modules.pos_isp import MODULES as POS_ISP
from adaptiveisp.utils.own_code import reason_of
from adaptiveisp.utils.registry import Registry

MODULES = "adaptiveisp.isp.modules"
"""The package with the files that declare modules."""

PAPER_FILES = (
    "exposure",
    "gamma",
    "ccm",
    "sharpen",
    "denoise",
    "tone",
    "contrast",
    "saturation",
    "desaturation",
    "white_balance",
)
"""The files of AdaptiveISP's ten modules, in the order of the action ids of released checkpoints."""

WIDE_FILES = (*PAPER_FILES,)
"""The files of the set `wide`."""

EXTENDED_FILES = (*WIDE_FILES, "guided_denoise", "local_tone", "gray_world", "black_level", "fast_denoise")
"""The files of the set `extended`, with cheap modules beyond the paper's ten; new modules are added at the end."""

HELPER_FILES = ("srgb", "gain")
"""Files of modules that a pipeline of any set may name but no policy chooses."""

BASELINE_FILES = ("reinhard", "log_tone", "clahe")
"""Files of modules that only baselines use: as helpers, but cost tables may lack them, as older tables do."""


STATED_FILES = ("bilateral_grid",)
"""Files of modules that only state what a policy did to one image: no pipeline file can run them."""


def make(files: Sequence[str], *variants: str) -> tuple[IspModule, ...]:
    """The module of each file: the first of the names `variants` that the file declares.

    Raises:
        PipelineError: a file does not exist, or declares none of the names.
    """
    return tuple(_declared(file, variants) for file in files)


def _declared(file: str, variants: Sequence[str]) -> IspModule:
    name = f"{MODULES}.{file}"
    try:
        content = vars(importlib.import_module(name))
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise PipelineError(
            f"isp/modules/{file}.py: does not exist; correct the names of files in isp/registry.py"
        ) from error
    for declared in map(content.get, variants):
        if isinstance(declared, IspModule):
            return declared
    raise PipelineError(f"isp/modules/{file}.py: declares no module; write {variants[0]} = IspModule(…) there")


PAPER = make(PAPER_FILES, "PAPER")
"""The ten modules with the paper's ranges."""

RELEASED = make(PAPER_FILES, "RELEASED", "PAPER")
"""`PAPER` with the fault of the released code that changes images: saturation turns grey red."""

WIDE = make(WIDE_FILES, "WIDE", "PAPER")
"""The paper's modules with the ranges that dark raws need: exposure ±10 stops, gamma's floor 1e-5, gains up to 3.3."""

EXTENDED = make(EXTENDED_FILES, "EXTENDED", "WIDE", "PAPER")
"""`WIDE` with a denoiser at about a fifth of the cost, local tone mapping, gray world, a black level, and `denoise`
with a smaller search window."""

HELPERS = make(HELPER_FILES, "PAPER")
"""Modules that a pipeline of any set may use."""

BASELINES = make(BASELINE_FILES, "PAPER")
"""Modules of baselines, which a pipeline of any set may use."""

STATED = make(STATED_FILES, "PAPER")
"""Modules that are stated in pipelines and that no pipeline file can run."""

MODULE_SETS: dict[str, tuple[IspModule, ...]] = {
    "paper": PAPER,
    "released": RELEASED,
    "wide": WIDE,
    "extended": EXTENDED,
    "pos-isp": POS_ISP,
}
"""The sets of modules that policies choose from, by name. A pipeline file names the set whose ranges it uses."""


def _checked(origin: str, value: object) -> IspModule:
    """The value, or what it returns if it is a function, checked to be a module or an ISP whose name is free.

    Raises:
        UsageError: it is neither, or the package itself has a module of that name.
    """
    if callable(value) and not isinstance(value, IspModule) and not is_external(value):
        try:
            value = value()
        except Exception as error:  # the user's own code, or a function that takes arguments
            remedy = "write NAME = IspModule(…) there, or give a function without arguments that returns one"
            raise UsageError(f"{origin}: {reason_of(error)}; {remedy}") from error
    if isinstance(value, ExternalISP) and is_external(value):
        value = module_of(value)
    if not isinstance(value, IspModule):
        raise UsageError(
            f"{origin}: is not an IspModule; write NAME = IspModule(…) there, or give an ISP with name, params and "
            "render(raw, params)"
        )
    own = {module.name for modules in (*MODULE_SETS.values(), HELPERS, BASELINES, STATED) for module in modules}
    if value.name in own:
        raise UsageError(f"{origin}: the package has a module {value.name!r}; give it another name")
    return value


_REGISTERED: Registry[IspModule] = Registry(
    "module", "adaptiveisp.modules", "--module", _checked, own_name=lambda module: module.name
)


def register_module(module: IspModule | ExternalISP, replace: bool = False) -> IspModule:
    """Makes a module, or an ISP outside the package, known by its name, for pipelines, policies and training.

    An installed package declares one without this call, by an entry point of the group `adaptiveisp.modules` whose name
    is that of the module.

    Args:
        module: the module, or an object with `name`, `params` and `render(raw, params)`, see `isp.external`; its name
            must differ from those of the package's own modules.
        replace: whether it may replace a registered module of the same name.

    Returns:
        The module.

    Raises:
        UsageError: the name is taken.
    """
    checked = module if isinstance(module, IspModule) else _checked("register_module", module)
    return _REGISTERED.register(checked.name, checked, replace)


def register_named(text: str) -> IspModule:
    """Registers the module that an option `--module` names: `my_pkg.my_file:name`, or the name of a known one.

    Raises:
        UsageError: there is no such module.
    """
    return _REGISTERED.from_flag(text, lambda module: module.name)


def is_registered(name: str) -> bool:
    """Whether a module from outside the package is known by this name."""
    return name in _REGISTERED


def modules_of(module_set: str) -> tuple[IspModule, ...]:
    """The modules of a named set, in the order of their action ids.

    Raises:
        PipelineError: there is no such set.
    """
    if module_set not in MODULE_SETS:
        raise PipelineError(f"module set {module_set!r} does not exist; choose one of {', '.join(MODULE_SETS)}")
    return MODULE_SETS[module_set]


def find_module(name: str, module_set: str) -> IspModule:
    """The module of this name: in the set, among the helpers and baselines, or from outside the package.

    Raises:
        PipelineError: there is no such module.
    """
    available: Sequence[IspModule] = (*modules_of(module_set), *HELPERS, *BASELINES)
    for module in (*available, *STATED):
        if module.name == name:
            return module
    if is_registered(name):
        return _REGISTERED.find(name)
    names = ", ".join(module.name for module in available)
    raise PipelineError(
        f"module {name!r} is unknown in the set {module_set!r}; choose from {names}, or give --module "
        "my_pkg.my_file:name, or install the package that declares it"
    )


__all__ = [
    "BASELINES",
    "EXTENDED",
    "HELPERS",
    "MODULE_SETS",
    "PAPER",
    "POS_ISP",
    "RELEASED",
    "STATED",
    "WIDE",
    "IspModule",
    "Param",
    "find_module",
    "is_registered",
    "modules_of",
    "register_module",
    "register_named",
]
