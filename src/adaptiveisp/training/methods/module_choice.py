"""The modules that a policy may choose from, written out by name, so that earlier runs stay the same if a set grows."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

from adaptiveisp.errors import UsageError, shown
from adaptiveisp.isp.external import names_external
from adaptiveisp.isp.pipeline import DEFAULT_SET
from adaptiveisp.isp.registry import BASELINES, HELPERS, STATED, IspModule, find_module, is_registered, modules_of
from adaptiveisp.utils.config import FORMERLY, list_form, require

_TEN = (
    *("exposure", "gamma", "ccm", "sharpen", "denoise", "tone", "contrast", "saturation", "desaturation"),
    "white_balance",
)
MODULES_OF_FILES: Mapping[str, tuple[str, ...]] = {
    "paper": _TEN,
    "released": _TEN,
    "wide": _TEN,
    "extended": (*_TEN, "guided_denoise", "local_tone", "gray_world", "black_level"),
}
"""Module set → its modules at the time when files could leave them out. A file without `modules`, or with an empty
list, means these. Modules that joined a set later are not added here: files have to name them."""


def find_runnable(name: str, module_set: str) -> IspModule:
    """A module by its name, which runs by its parameters alone.

    Raises:
        PipelineError: there is no such module.
        UsageError: pipelines only state it.
    """
    module = find_module(name, module_set)
    require(module not in STATED, f"{name} is no module to choose: only the method {name} makes one; leave it out")
    return module


def check_choice(module_set: str, modules: tuple[str, ...], setting: str = "modules") -> None:
    """Refuses names that a policy cannot choose, and names that are given twice.

    Args:
        module_set: named set.
        modules: names of modules.
        setting: name of the setting that holds them, for messages.

    Raises:
        PipelineError, UsageError: names what is wrong.
    """
    helpers = {module.name for module in (*HELPERS, *BASELINES)}
    for name in modules:
        find_runnable(name, module_set)
        require(name not in helpers, f"{name} is a helper, which no policy chooses")
    require(len(set(modules)) == len(modules), f"{setting} names a module twice")


def check_experts(experts: Sequence[str], chosen: Sequence[str]) -> None:
    """Refuses expert modules that the policy cannot choose.

    Args:
        experts: names of the expert modules.
        chosen: names of the modules that the policy chooses from.

    Raises:
        UsageError: names the first such module and the remedy.
    """
    for name in experts:
        remedy = f"give --module {name} or add it to modules" if is_registered(name) else "add it to modules"
        require(
            name in chosen,
            f"expert_modules names {name}, which modules lacks; {remedy}, or set expert_modules without it",
        )


def with_module_names(settings: Any) -> Any:
    """The settings with the modules to choose from written out by name; an empty list means all that the set has now.

    Args:
        settings: of a method; those of methods that choose no modules are returned as they are.
    """
    chosen: tuple[str, ...] | None = getattr(settings, "chosen", None)
    return settings if chosen is None or settings.modules else replace(settings, modules=chosen)


def with_more_modules(preset: Any, changes: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """Changes of a preset that add further modules, which come after those that the preset or the changes name.

    They also join the expert modules of a preset that has an imitation warm-up, because a policy rarely chooses a
    module that it did not learn to use there. The changes decide where they name the expert modules.

    An external ISP takes the place of the preset's modules, see `_of_external`.

    Args:
        preset: settings that are changed.
        changes: setting → value.
        names: of registered modules.

    Raises:
        UsageError: the method has no setting `modules`, or the changes give it no list.
    """
    found = dict(changes)
    if not names:
        return found
    if not hasattr(preset, "modules"):
        raise UsageError("this method takes no list of modules; leave out --module, or use the method sequence")
    module_set = found.get("module_set", getattr(preset, "module_set", None))
    if "modules" not in found and names_external([find_module(name, DEFAULT_SET) for name in names]):
        return {**_of_external(preset, names), **found}
    present = found.get("modules") or preset.modules
    if not present and hasattr(preset, "chosen"):
        present = [module.name for module in modules_of(str(module_set))]
    if not isinstance(present, list | tuple):
        raise UsageError(f"modules = {shown(present)} does not fit; give {list_form('modules')}")
    found["modules"] = [*present, *(name for name in names if name not in present)]
    return found | _more_experts(preset, found, names)


def _of_external(preset: Any, names: Sequence[str]) -> dict[str, Any]:
    """Settings for an external ISP, possibly with further modules, that are chosen unless the user gives others.

    The modules are these alone, without preprocessing, because those of presets start from the raw that the ISP has
    already developed. Its time is not counted, because the clock table measures modules of images.

    Args:
        preset: settings that are changed.
        names: of the ISP and the other modules, which come after it.
    """
    modules = [find_module(name, DEFAULT_SET) for name in names]
    ordered = [module.name for module in sorted(modules, key=lambda module: module.external is None)]
    wanted = {"modules": ordered, "preprocessing": "raw", "runtime_weight": 0.0, "horizon": len(ordered)}
    if getattr(preset, "expert_modules", ()):
        wanted["expert_modules"] = ordered
    if hasattr(preset, "initial"):
        wanted["initial"] = {}
    if hasattr(preset, "longest"):
        wanted["longest"] = len(ordered)
    return {name: value for name, value in wanted.items() if hasattr(preset, name)}


def _more_experts(preset: Any, changes: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The expert modules of a preset with further ones at their end, and the horizon and rollout that these need.

    Args:
        preset: settings that are changed.
        changes: setting → value. Expert modules, a horizon or a rollout that they give stay as they are.
        names: of the modules that join.
    """
    experts = getattr(preset, "expert_modules", ())
    own_names = [
        {field.name, *field.metadata.get(FORMERLY, ())} for field in fields(preset) if field.name == "expert_modules"
    ]
    if not experts or any(spellings & set(changes) for spellings in own_names):
        return {}
    longer = [*experts, *(name for name in names if name not in experts)]
    more: dict[str, Any] = {"expert_modules": longer}
    if "horizon" not in changes and len(longer) > preset.horizon:
        more["horizon"] = len(longer)
        if "rollout" not in changes and getattr(preset, "rollout", None) == preset.horizon:  # whole episodes
            more["rollout"] = len(longer)
    return more


def without_other_initials(preset: Any, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Changes of a preset in which its initial values are left out for modules that the changes do not name.

    Args:
        preset: settings that are changed.
        changes: setting → value; initial values that they give stay as they are.
    """
    initial, modules = getattr(preset, "initial", None), changes.get("modules")
    if not initial or "initial" in changes or not isinstance(modules, list | tuple):
        return dict(changes)
    return {**changes, "initial": {name: dict(values) for name, values in initial.items() if name in modules}}


def with_modules_of_files(preset: Any, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a file with the modules that it leaves out, which are those of `MODULES_OF_FILES`.

    They are added before the settings are checked, because a table of costs in the file need not have more modules.

    Args:
        preset: settings that the file changes.
        changes: setting → value, as read from the file.
    """
    found = dict(changes)
    module_set = found.get("module_set", getattr(preset, "module_set", None))
    names = MODULES_OF_FILES.get(module_set) if isinstance(module_set, str) else None
    left_out = "modules" in found or not getattr(preset, "modules", ())  # an empty list, or none in file and preset
    if names is not None and hasattr(preset, "chosen") and left_out and not found.get("modules"):
        found["modules"] = list(names)
    return found
