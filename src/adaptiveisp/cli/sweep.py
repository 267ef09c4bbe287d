"""The command `sweep`: trains the runs of a plan, resumes them after a stop, and compares them at the end."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptiveisp.cli.console import progress, report_skips, set_up_torch
from adaptiveisp.cli.exit_codes import INTERRUPTED
from adaptiveisp.cli.options import (
    ADDRESS_HELP,
    CACHE_HELP,
    DEFAULT,
    DETECTOR_HELP,
    add_command,
    add_common,
    add_modules,
    positive,
)
from adaptiveisp.errors import AdaptiveISPError, UsageError, logger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from adaptiveisp.scale.sweep import Runner
    from adaptiveisp.scale.sweep_plan import Run, Trial


def add(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "sweep",
        "train with several settings and seeds, and compare",
        "Trains a policy for each combination of settings and seeds in a YAML file, and evaluates all of them on the "
        "same images. The same command resumes a sweep that was stopped.",
    )
    parser.add_argument("file", type=Path, metavar="FILE.yaml", help="the sweep: base, grid, random, seeds")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the sweep")
    parser.add_argument(
        "--jobs", type=positive, metavar="N", help="runs at the same time (default 1; ray: all that fit)"
    )
    text = f"local processes, or trials of Ray Tune (extra ray) {DEFAULT}"
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help=text)
    parser.add_argument("--address", metavar="A", help=ADDRESS_HELP)
    parser.add_argument("--cpus", type=float, default=1.0, metavar="N", help="CPUs of each run, for ray (default 1)")
    parser.add_argument("--gpus", type=float, default=0.0, metavar="N", help="GPUs of each run, for ray (default 0)")
    parser.add_argument("--detector", metavar="D", help=f"{DETECTOR_HELP} (default: that of the file)")
    parser.add_argument("--cache", metavar="DIR", help=CACHE_HELP)
    add_modules(parser)
    add_common(parser, without=("limit", "overwrite", "seed"))
    parser.set_defaults(command=sweep)


def sweep(options: argparse.Namespace) -> int:
    """Trains what is not finished yet, then writes the tables."""
    from adaptiveisp.scale.sweep import Runner, data_warning
    from adaptiveisp.scale.sweep_plan import read_sweep, trials_of
    from adaptiveisp.scale.sweep_table import check_comparable, compared, trial_entries, write_tables
    from adaptiveisp.training.stopping import stopped_by_signals
    from adaptiveisp.utils.output_folder import claim_folder

    device = set_up_torch(options)
    plan = read_sweep(options.file)
    trials = trials_of(plan, str(options.file))
    check_comparable(plan, trials, str(options.file))
    _check_engine(options)
    runner = Runner(options.out, _run_options(options))
    with claim_folder(options.out, "sweep", overwrite=True):
        runner.prepare([run for trial in trials for run in trial.runs])
        if warning := data_warning(runner, trials):
            logger.warning("%s: %s", options.out, warning)
        with stopped_by_signals(runner.stop):
            failed = _train(options, runner, trials)
        if runner.stopping:
            if not options.quiet:
                print(f"stopped; {len(failed)} runs are not finished; the same command continues")
            return INTERRUPTED
        if len(failed) == sum(len(trial.runs) for trial in trials):
            raise AdaptiveISPError(f"{options.out}: no run finished; the first: {next(iter(failed.values()))}")
        report = compared(plan, trials, runner, device, options.detector, options.workers)
        text = write_tables(options.out, trial_entries(trials, runner, failed, report), trials, report, warning)
        code = report_skips(
            options.out, [(name, f"{name}: {why}") for name, why in failed.items()], dict(report.provenance)
        )
    if not options.quiet:
        print(text)
        print(f"table: {options.out / 'sweep.md'}; report: {options.out / 'report' / 'report.html'}")
    return code


def _check_engine(options: argparse.Namespace) -> None:
    """Refuses an engine that is not installed, a cluster that does not answer, and options of the other engine.

    Nothing is written before.
    """
    from adaptiveisp.scale.ray_address import require_cluster
    from adaptiveisp.utils.optional_imports import require_extra

    if options.engine == "ray":
        require_extra("ray", "ray")
        require_cluster(options.address or "")
    elif options.address is not None:
        raise UsageError("--address is that of a Ray cluster; add --engine ray")


def _train(options: argparse.Namespace, runner: "Runner", trials: "Sequence[Trial]") -> dict[str, str]:
    """Trains all runs; returns those that are not finished, with the reasons."""
    from adaptiveisp.cli.console import say
    from adaptiveisp.scale.sweep import run_all

    with progress(options, sum(len(trial.runs) for trial in trials), "sweep", unit="run") as bar:

        def tell(run: "Run", reason: str) -> None:
            bar.update()
            if reason and reason != "stopped" and not options.quiet:
                say(f"{run.name}: {reason}")

        if options.engine == "ray":
            from adaptiveisp.scale.ray_engine import RayConfig
            from adaptiveisp.scale.sweep_ray import run_with_ray

            config = RayConfig(options.address or "", gpus=options.gpus, cpus=options.cpus)
            return run_with_ray(runner, trials, options.jobs or 0, tell, config)
        return run_all(runner, trials, options.jobs or 1, tell)


def _run_options(options: argparse.Namespace) -> list[str]:
    """The options that every run gets."""
    given = ["--device", options.device, "--threads", str(options.threads)]
    for name in ("detector", "cache"):
        value = getattr(options, name)
        given += [f"--{name}", value] if value is not None else []
    for module in options.own_modules:
        given += ["--module", module]
    return given
