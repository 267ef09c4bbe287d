"""The end of a sweep: the evaluation of its runs on the same images, and the table of its trials."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adaptiveisp.data.synthetic import SynthesisConfig
from adaptiveisp.errors import UsageError
from adaptiveisp.evaluation.api import evaluate
from adaptiveisp.evaluation.config import EvalConfig
from adaptiveisp.evaluation.report import Report
from adaptiveisp.evaluation.seed_groups import Difference
from adaptiveisp.evaluation.tables import DASH, PLUS_MINUS, interval_text, markdown, number, points, table
from adaptiveisp.scale.sweep import Runner
from adaptiveisp.scale.sweep_plan import SweepFile, Trial
from adaptiveisp.utils.files import write_json, write_text

MEASURED = (
    *("detector", "dev", "dev_images", "dev_size", "dev_draws"),
    *("light", "noise", "bits", "camera_matrix", "illuminants"),
)
"""Options that say on what the runs are compared, so that they are the same for all of them."""


def check_comparable(sweep: SweepFile, trials: Sequence[Trial], origin: str) -> None:
    """Refuses a sweep whose runs could not be compared at its end.

    Args:
        sweep, trials: of the sweep.
        origin: the file, for errors.

    Raises:
        UsageError: there are no data to compare them on, or these differ between the trials.
    """
    if not (sweep.data or trials[0].options.dev):
        raise UsageError(f"{origin}: names no data to compare the runs on; add dev: to base: train:, or data:")
    for name in MEASURED:
        if any(getattr(trial.options, name) != getattr(trials[0].options, name) for trial in trials):
            raise UsageError(
                f"{origin}: {name} differs between the trials, which are compared on the same images with the same "
                "detector; make a sweep for each"
            )


def compared(
    sweep: SweepFile, trials: Sequence[Trial], runner: Runner, device: str, detector: str | None, workers: int = 0
) -> Report:
    """The report on the finished runs, those of a trial as a group of seeds, beside the policies of the sweep file.

    Args:
        sweep, trials: of the sweep.
        runner: knows the folders of the runs.
        device: where policies and detector run.
        detector: of the command line, which may be code; None for that of the runs.
        workers: processes that read ahead.
    """
    options = trials[0].options
    data: Any = sweep.data or options.dev
    images: Any = sweep.images or (None if sweep.data else options.dev_images) or None
    synthesis = None
    if options.light is not None:
        sensor = {name: getattr(options, name) for name in ("noise", "bits", "camera_matrix", "illuminants")}
        synthesis = SynthesisConfig(options.light, sweep.draws or options.dev_draws, **sensor)
    groups = []
    for trial in trials:
        folders = [str(runner.folder(run)) for run in trial.runs if runner.finished(run)]
        groups += [f"{trial.name}={','.join(folders)}"] if folders else []
    config = EvalConfig(
        list(data) if isinstance(data, tuple) else data,
        (*sweep.policies, *groups),
        (detector or options.detector,),
        images=list(images) if isinstance(images, tuple) else images,
        synthesis=synthesis,
        size=options.dev_size,
        resamples=sweep.resamples,
        workers=workers,
        device=device,
    )
    return evaluate(config)


def trial_entries(trials: Sequence[Trial], runner: Runner, failed: Mapping[str, str], report: Report) -> list[Any]:
    """The trials as plain values, for sweep.json.

    Args:
        trials, runner: of the sweep.
        failed: name of a run that is not finished → the reason.
        report: on the finished ones.
    """
    entries = []
    for trial in trials:
        score = next(iter(report.groups.get(trial.name, {}).values()), None)
        difference = _to_first(trial, trials, report)
        runs = [
            {
                "seed": run.seed,
                "folder": str(runner.folder(run).relative_to(runner.out)),
                "state": failed.get(run.name, "finished"),
            }
            for run in trial.runs
        ]
        entries.append(
            {
                "name": trial.name,
                "values": dict(trial.values),
                "runs": runs,
                "ap50_mean": None if score is None else score.mean.ap50,
                "ap50_sd": None if score is None else score.ap50_sd,
                "modules_per_image": None if score is None else score.mean.modules_per_image,
                "clock_ms": None if score is None else score.mean.clock_ms,
                "cost_ms": None if score is None else score.mean.cost_ms,
                "difference_to_first": None if difference is None else difference.to_json(),
            }
        )
    return entries


def _to_first(trial: Trial, trials: Sequence[Trial], report: Report) -> Difference | None:
    """The paired difference of a trial and the first one; None for the first one itself."""
    pair = trial.name, trials[0].name
    return next((one for one in report.differences if (one.a, one.b) == pair), None)


def trial_rows(trials: Sequence[Trial], report: Report) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the table of trials; AP50 in points.

    Args:
        trials: of the sweep.
        report: on its runs.
    """
    names = list(dict.fromkeys(name for trial in trials for name in trial.values))
    header = ["trial", *names, "seeds", "AP50", "modules", "clock ms", f"minus {trials[0].name} (interval)"]
    rows = []
    for trial in trials:
        score = next(iter(report.groups.get(trial.name, {}).values()), None)
        values = [str(trial.values.get(name, DASH)) for name in names]
        if score is None:
            rows.append([trial.name, *values, "0", DASH, DASH, DASH, DASH])
            continue
        sd = "" if score.ap50_sd is None else f" {PLUS_MINUS} {points(score.ap50_sd)}"
        difference = _to_first(trial, trials, report)
        rows.append(
            [
                trial.name,
                *values,
                str(len(score.members)),
                f"{points(score.mean.ap50)}{sd}",
                number(score.mean.modules_per_image),
                number(score.mean.clock_ms),
                interval_text(None if difference is None else difference.interval),
            ]
        )
    return header, rows


def write_tables(out: Path, entries: Sequence[Any], trials: Sequence[Trial], report: Report, warning: str = "") -> str:
    """Writes sweep.json, sweep.md and the report into the folder of a sweep, and returns the table as text.

    Args:
        out: the folder.
        entries: of `trial_entries`.
        trials: of the sweep.
        report: on its runs.
        warning: of `sweep.data_warning`.
    """
    header, rows = trial_rows(trials, report)
    note = (
        "AP50 in points: mean and standard deviation over the seeds. The interval is that of the paired bootstrap over "
        "the photos, in which the seeds of a trial are averaged. Where these are the images that chose the best "
        "iteration of each run, the scores are too good by what that choice gains."
    )
    if warning:
        note = f"Attention: {warning}. {note}"
    report.save(out / "report")
    write_text(out / "sweep.md", f"{markdown(header, rows)}\n\n{note}\n")
    write_json(out / "sweep.json", {"trials": list(entries), "note": note, "provenance": dict(report.provenance)})
    return f"{table(header, rows)}\n{note}"
