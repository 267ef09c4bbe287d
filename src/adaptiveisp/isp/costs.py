"""Cost tables: the run time that is assumed for each module, in milliseconds.

The modules' declarations hold the paper's table. `adaptiveisp bench --write-costs FILE` measures one on
your machine; `train --costs FILE` then learns to save that machine's time, and `eval --costs FILE` reports it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from adaptiveisp.errors import DataError, one_line
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.isp.registry import BASELINES, EXTENDED, HELPERS, is_registered
from adaptiveisp.utils.config import record, require
from adaptiveisp.utils.files import read_json, write_json

VERSION = 1
PAPER: Literal["paper"] = "paper"
"""Name of the table that the modules declare."""
CLOCK: Literal["clock"] = "clock"
"""Name of the table that a run measures on its machine when it begins."""
REMEDY = "make one with: adaptiveisp bench --write-costs FILE"

LONGEST_MS = 1e9
"""Milliseconds, eleven days: a longer time is a mistake."""

Costs = Mapping[str, float]
"""Module → milliseconds; empty for the paper's table."""
CostSetting = Literal["paper", "clock"] | Costs
"""A table, or its name: "paper", or "clock" for one that is measured when a run begins."""


def listed_costs(costs: CostSetting) -> Costs:
    """The table of a setting; empty, for the paper's, where it is a name.

    A run replaces "clock" by the table that it measured before anything asks for the costs.
    """
    return {} if isinstance(costs, str) else costs


def check_costs(costs: CostSetting, chosen: Sequence[str]) -> None:
    """Refuses a table that lacks a module, and negative costs.

    Args:
        costs: the setting.
        chosen: names of the modules that need a cost.

    Raises:
        UsageError: names the module.
    """
    table = listed_costs(costs)
    for name in chosen:
        require(not table or name in table, f"costs lacks the module {name}")
    for name, cost in table.items():
        require(cost >= 0, f"costs: {name} must not be negative")


@dataclass(frozen=True)
class CostTable:
    """The contents of a cost file.

    Attributes:
        version: of the file's format.
        milliseconds: module → time.
        size: side of the square image of the measurement, in pixels; 0 where the file does not say.
        provenance: of the measurement.
    """

    version: int
    milliseconds: Mapping[str, float]
    size: int = 0
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        require(self.version == VERSION, f"is not a cost table of version {VERSION}")


def load_costs(path: Path) -> dict[str, float]:
    """The table in a file written by `save_costs`; it may also have modules of baselines and registered
    modules from outside the package.

    Raises:
        DataError: the file is missing, is not JSON or not a table of costs, or lacks a module of the package.
    """
    table = record(CostTable, read_json(Path(path), DataError, REMEDY), str(path), DataError, REMEDY).milliseconds
    needed = {module.name for module in (*EXTENDED, *HELPERS)}
    known = needed | {module.name for module in BASELINES}
    for name, value in table.items():
        if not (name in known or is_registered(name)) or not 0 <= value < LONGEST_MS:
            what = f"{one_line(name, 80)} = {value:g}"
            raise DataError(
                f"{path}: {what} is not a known module with a time in milliseconds; {REMEDY}, or give --module"
            )
    if missing := sorted(needed - set(table)):
        raise DataError(f"{path}: lacks the modules {', '.join(missing)}; {REMEDY}")
    return dict(table)


def save_costs(path: Path, costs: Costs, size: int, provenance: Mapping[str, Any]) -> None:
    """Writes a table, atomically.

    Args:
        path: JSON file.
        costs: module → milliseconds.
        size: side of the square image of the measurement, in pixels.
        provenance: of the measurement.
    """
    write_json(path, {"version": VERSION, "size": size, "milliseconds": dict(costs), "provenance": dict(provenance)})


def cost_of(pipeline: Pipeline, costs: Costs) -> float:
    """Sum over the pipeline's modules, in milliseconds; a module that the table lacks has the cost that it declares."""
    return sum(costs.get(module.name, module.cost_ms) for module in pipeline.modules)
