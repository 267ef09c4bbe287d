"""Joins the evaluations of parts of a data set into that of the whole."""

from collections.abc import Sequence
from dataclasses import fields, replace
from itertools import chain
from typing import Any

from adaptiveisp.evaluation.evaluator import SHEET_TILES
from adaptiveisp.evaluation.policy_scores import PolicyResult
from adaptiveisp.evaluation.result import Evaluation

_SINGLE = ("static", "module_set")
"""Fields of a `PolicyResult` that are no lists."""


def merged(parts: Sequence[Evaluation]) -> Evaluation:
    """The evaluation of a data set from those of its parts, in the order of the samples.

    All scores are those of an evaluation in one piece, since they are computed from the joined lists. Measured times
    are those of the processes that scored the parts.

    Args:
        parts: of `score_dataset` with `ScoringOptions.part` = (0, n), (1, n), … of the same policies and detectors.
            They do not count what the data set itself leaves out, see `evaluator.checked_evaluation`.
    """
    first = parts[0]
    no_loss = {name: why for part in reversed(parts) for name, why in part.no_loss.items()}
    results = {}
    for key in first.results:
        result = _joined([part.results[key] for part in parts])
        unusable = key[1] in no_loss  # the losses of the other parts are left out, too
        results[key] = replace(result, losses=[], raw_losses=[], auto_exposure_losses=[]) if unusable else result
    return replace(
        first,
        results=results,
        sheets={name: list(chain(*(part.sheets[name] for part in parts)))[:SHEET_TILES] for name in first.sheets},
        skipped=list(chain(*(part.skipped for part in parts))),
        no_loss=no_loss,
        dropped_boxes={name: sum(part.dropped_boxes[name] for part in parts) for name in first.dropped_boxes},
        remarks=tuple(dict.fromkeys(chain(*(part.remarks for part in parts)))),
    )


def _joined(results: Sequence[PolicyResult]) -> PolicyResult:
    """The lists of the parts one after the other."""
    names = [field.name for field in fields(PolicyResult) if field.name not in _SINGLE]
    lists: dict[str, Any] = {name: list(chain(*(getattr(one, name) for one in results))) for name in names}
    module_set = next((one.module_set for one in reversed(results) if one.modules), results[0].module_set)
    return replace(results[0], module_set=module_set, **lists)
