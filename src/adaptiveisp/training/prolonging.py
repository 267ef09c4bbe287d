"""Prolongs a run: `--resume RUN --budget N` with a larger budget than it had."""

from pathlib import Path
from typing import Any

import yaml

from adaptiveisp.errors import DataError, UsageError, logger
from adaptiveisp.training.config import CONFIG
from adaptiveisp.training.run_files import SUMMARY
from adaptiveisp.utils.files import write_text
from adaptiveisp.utils.output_folder import remove_inside
from adaptiveisp.utils.yaml_files import read_yaml

EARLIER_BUDGETS = "earlier_budgets"
"""Key of the provenance: for each budget that was raised, the budget, and the iterations and passes until then."""


def check_budget(folder: Path, former: int, budget: int) -> None:
    """Refuses to make the budget of a run smaller.

    Args:
        folder: the run folder, for errors.
        former: its budget.
        budget: the wanted one.

    Raises:
        UsageError: it is smaller than the former one.
    """
    if budget < former:
        raise UsageError(
            f"--budget {budget}: the run {folder} has a budget of {former} already, and --resume can only raise it; "
            "give more, or leave it out"
        )


def prolong(
    folder: Path, former: int, budget: int, provenance: dict[str, Any], iterations: int, passes: int
) -> dict[str, Any]:
    """Writes a larger budget into config.yaml, whose other options and settings stay as they are.

    The summary of the finished run is removed, because it is no longer true; the prolonged run writes another one.

    Args:
        folder: the run folder.
        former, budget: the run's budget until now, and the larger one.
        provenance: of the run.
        iterations, passes: those of the run so far.

    Returns:
        The provenance with the earlier budget.

    Raises:
        DataError, OutputError: config.yaml cannot be read or written.
    """
    content = read_yaml(folder / CONFIG, DataError, "--resume needs the folder of a run")
    earlier = provenance.get(EARLIER_BUDGETS)
    mark = {"budget": former, "iterations": iterations, "passes": passes}
    provenance = {**provenance, EARLIER_BUDGETS: [*(earlier if isinstance(earlier, list) else []), mark]}
    content = {**content, "train": {**(content.get("train") or {}), "budget": budget}, "provenance": provenance}
    write_text(folder / CONFIG, yaml.safe_dump(content, sort_keys=False))
    remove_inside(folder, folder / SUMMARY)
    return provenance


def warn_of_warmup(settings: Any, folder: Path, passes: int, former: int, budget: int) -> None:
    """Says that the imitation warm-up, which is a share of the budget, begins again under the larger budget.

    Args:
        settings: of the method.
        folder: the run folder.
        passes: spent so far.
        former, budget: the run's budget until now, and the larger one.
    """
    share = getattr(settings, "imitation_warmup", 0.0)
    if share * former <= passes < share * budget:
        logger.warning(
            "%s: the imitation warm-up is %.0f %% of the budget, so that the run imitates up to pass %d; to avoid it, "
            "start a new run with --warm-start %s --set imitation_warmup=0",
            folder,
            100 * share,
            round(share * budget),
            folder,
        )
