"""The parts of a stored run that are the user's own code, and the command that resumes the run with them.

A run stores the names of such parts. No file decides which code runs, so that a resumed run needs the flags again.
"""

import os
import shlex
from collections.abc import Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from adaptiveisp.errors import UsageError
from adaptiveisp.isp.registry import BASELINES, HELPERS, MODULE_SETS, is_registered
from adaptiveisp.training.config import CONFIG
from adaptiveisp.training.methods.registry import METHODS
from adaptiveisp.training.rl.rewards import REWARDS
from adaptiveisp.utils.own_code import names_code

FLAGS = ("--method", "--module", "--reward", "--detector")
"""Options that can name code, in the order of the command that is shown."""


def require_own_parts(
    folder: Path,
    train: Mapping[str, Any],
    settings: Mapping[str, Any],
    provenance: Mapping[str, Any],
    detector_given: bool,
) -> None:
    """Refuses to resume a run whose parts are not all known, and shows the complete command.

    Args:
        folder: the run folder.
        train, settings, provenance: the parts of its config.yaml.
        detector_given: whether the user, and not only the file, names the detector.

    Raises:
        UsageError: names the missing parts and the command.
    """
    detector = train.get("detector")
    is_code = isinstance(detector, str) and names_code(detector) and not os.path.exists(detector)
    missing = [f"{kind} {name}" for kind, name in _names(train, settings) if not _is_known(kind, name)]
    if is_code and not detector_given:
        missing.append(f"detector {detector}")
    if not missing:
        return
    flags = _stored_flags(provenance.get("command"))
    if is_code:
        flags["--detector"] = [str(detector)]
    for kind in ("method", "module", "reward"):
        absent = [part for part in missing if part.startswith(f"{kind} ")]
        known = flags.setdefault(f"--{kind}", [])
        known += ["my_pkg.my_file:name"] * (len(absent) - len(known))
    shown = [f"{flag} {shlex.quote(value)}" for flag in FLAGS for value in flags.get(flag, ())]
    raise UsageError(
        f"{folder}: its {CONFIG} names code that no file may start: {', '.join(missing)}; if you trust it, run: "
        f"adaptiveisp train --resume {shlex.quote(str(folder))} {' '.join(shown)}"
    )


def resume_command(folder: Path, provenance: Mapping[str, Any]) -> str:
    """The command that resumes a run, with the options that named the user's own code when it was started."""
    flags = _stored_flags(provenance.get("command"))
    shown = [f" {flag} {shlex.quote(value)}" for flag in FLAGS for value in flags.get(flag, ())]
    return f"adaptiveisp train --resume {shlex.quote(str(folder))}{''.join(shown)}"


def _names(train: Mapping[str, Any], settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Kind and name of the parts that a configuration names and that may be the user's own, each once."""
    found: list[tuple[str, Any]] = [("method", train.get("method"))]
    for setting in ("modules", "expert_modules", "demonstrated"):
        listed = settings.get(setting)
        found += [("module", name) for name in (listed if isinstance(listed, list) else ())]
    found.append(("reward", settings.get("reward")))
    return [(kind, name) for kind, name in dict.fromkeys(pair for pair in found if isinstance(pair[1], str))]


def _is_known(kind: str, name: str) -> bool:
    if kind == "module":
        own = {module.name for modules in (*MODULE_SETS.values(), HELPERS, BASELINES) for module in modules}
        return name in own or is_registered(name)
    return name in (METHODS if kind == "method" else REWARDS)


def _stored_flags(command: object) -> dict[str, list[str]]:
    """Option → the code that it named in the command that started a run; empty where that is not known."""
    words: list[str] = []
    with suppress(ValueError):  # a quotation mark that is not closed
        words = shlex.split(command) if isinstance(command, str) else []
    found: dict[str, list[str]] = {}
    for option, value in pairwise([*words, ""]):
        name, equals, inside = option.partition("=")
        code = inside if equals else value
        if name in FLAGS and names_code(code):
            found.setdefault(name, []).append(code)
    return found
