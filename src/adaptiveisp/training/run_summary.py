"""The summary of a finished run, summary.json."""

import resource
import sys
from typing import TYPE_CHECKING

import torch

from adaptiveisp.training import run_logger
from adaptiveisp.training.run_files import SUMMARY, policy_hashes
from adaptiveisp.utils.files import write_json

if TYPE_CHECKING:
    from adaptiveisp.training.trainer import Trainer


def write_summary(run: "Trainer") -> None:
    """Writes summary.json of a run that has spent its budget.

    Raises:
        OutputError: the folder cannot be written.
    """
    seconds = run_logger.seconds_of_parts(run.folder)
    summary = {
        "iterations": run.learner.iteration,
        "passes": run.learner.passes,
        "best_ap50_on_dev": run.selection.best_ap50,
        "best_iteration_on_dev": run.selection.best_iteration,
        "ap50_on_dev_at_start": run.selection.start,
        "learning_seconds": sum(seconds.values()),
        "seconds_of_parts": seconds,
        "peak_memory_mb": peak_memory_mb(),
        "device": run.device,
        "threads": torch.get_num_threads(),
        "skipped": run.skipped,
        "policies_sha256": policy_hashes(run.folder),
        "provenance": dict(run.provenance),
    }
    if not run.ranks.alone:
        summary["ranks"] = run.ranks.size
    if run.limit is not None:
        summary["latency"] = run.selection.latency(run.limit.latency_ms)
    if run.teacher is not None:
        summary["teacher_passes"] = run.teacher.passes
        summary["teacher_images"] = len(run.teacher.answers)
        summary["teacher_found_nothing_in"] = run.teacher.found_nothing
    write_json(run.folder / SUMMARY, summary)


def peak_memory_mb() -> float:
    """Peak memory of this process so far, in megabytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1e3)
