"""Cost tables: what a module's run time is taken to be, in milliseconds.

The paper's table stands in the modules' own declarations. `adaptiveisp bench --write-costs FILE` measures another one
on the machine at hand; with it `train --costs FILE` learns to save that machine's time, `eval --costs FILE` reports it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adaptiveisp.errors import DataError
from adaptiveisp.files import read_json, write_json
from adaptiveisp.isp import EXTENDED, HELPERS
from adaptiveisp.isp.pipeline import Pipeline

VERSION = 1
PAPER = "paper"
"""Name of the table that the modules declare."""
REMEDY = "make one with: adaptiveisp bench --write-costs FILE"

Costs = Mapping[str, float]
"""Module → milliseconds; empty for the paper's table."""


def load_costs(path: Path) -> dict[str, float]:
    """The table in a file written by `save_costs`.

    Raises:
        DataError: the file is missing, no JSON, no table of costs, or lacks a module that there is.
    """
    content = read_json(Path(path), DataError, REMEDY)
    table = content.get("milliseconds") if isinstance(content, dict) and content.get("version") == VERSION else None
    if not isinstance(table, dict) or not table:
        raise DataError(f"{path}: is no cost table of version {VERSION}; {REMEDY}")
    known = {module.name for module in (*EXTENDED, *HELPERS)}
    for name, value in table.items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if name not in known or not number or not 0 <= value < 1e9:
            raise DataError(f"{path}: {name} = {value!r} is no module with a time in milliseconds; {REMEDY}")
    if missing := sorted(known - set(table)):
        raise DataError(f"{path}: lacks the modules {', '.join(missing)}; {REMEDY}")
    return {name: float(value) for name, value in table.items()}


def save_costs(path: Path, costs: Costs, size: int, provenance: Mapping[str, Any]) -> None:
    """Writes a table, atomically.

    Args:
        path: JSON file.
        costs: module → milliseconds.
        size: side of the square image they were measured at, in pixels.
        provenance: where they come from.
    """
    write_json(path, {"version": VERSION, "size": size, "milliseconds": dict(costs), "provenance": dict(provenance)})


def cost_of(pipeline: Pipeline, costs: Costs) -> float:
    """Sum over the pipeline's modules, in milliseconds."""
    return sum(costs[module.name] for module in pipeline.modules) if costs else pipeline.cost_ms
