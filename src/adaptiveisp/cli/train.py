"""The command `train`: starts or resumes a run, shows its progress and reports its outcome."""

import argparse
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptiveisp.cli.console import progress, report_skips, set_up_torch
from adaptiveisp.cli.exit_codes import DONE, INTERRUPTED
from adaptiveisp.cli.options import (
    CACHE_HELP,
    DATA_HELP,
    DEFAULT,
    DETECTOR_HELP,
    LIGHTS_HELP,
    add_command,
    add_common,
    add_modules,
    add_sensor,
    milliseconds,
    positive,
    seconds,
    size,
    unit,
)
from adaptiveisp.errors import DataError, UsageError, logger
from adaptiveisp.utils import defaults

if TYPE_CHECKING:
    from collections.abc import Mapping

    from adaptiveisp.training.config import TrainConfig
    from adaptiveisp.training.distributed import Ranks
    from adaptiveisp.training.runs import TrainSummary
    from adaptiveisp.training.trainer import Trainer
    from adaptiveisp.types import Detector

TRAIN_OPTIONS = (
    *("data", "images", "method", "preset", "dev", "dev_images", "detector", "light", "noise", "budget", "seed"),
    *("labels", "warm_start", "checkpoint_every", "dev_every", "dev_size", "cache", "bits", "camera_matrix"),
    "illuminants",
)
"""Options of `train` that its run stores."""
ALLOWED_WITH_RESUME = ("--detector", "--cache", "--budget")
"""Options that may be given with --resume: code to run and a folder to write, which no file may decide, and a larger
budget."""
TRAIN_SETTINGS = ("size", "bootstrap", "discount", "runtime_weight", "latency_ms", "reward")
"""Options of `train` that are settings of the method."""


METHODS_HELP = (
    f"{defaults.METHOD} (default), sequence; baselines: fixed (one pipeline by gradient), cma_es (without gradients), "
    "random_search (the best of random pipelines), bilateral_grid (a small learned ISP without modules); a registered "
    "method, or my_pkg.my_file:name"
)
BUDGET_HELP = (
    "number of images that pass through the detector before the run ends; with --resume a larger one than the run's"
)
TRAIN_COSTS_HELP = (
    "costs of the modules: clock (measured on this machine; the default of new runs with a runtime penalty), paper, or "
    "a table made by `bench --write-costs`"
)
TRAIN_LATENCY_HELP = (
    "most milliseconds of policy and modules for 95 %% of the images on this machine; the runtime penalty follows it"
)
RANK_TIMEOUT_HELP = (
    "under torchrun, which splits each iteration among its processes: end the run when another one does not answer for "
    f"so long {DEFAULT}"
)
PRESETS_HELP = (
    "cpu, paper or released; for sequence: adaptive, fast, fewer (after a warm start), one-sequence, pos or "
    "sampled; for the baselines: raw or auto-exposure; for bilateral_grid: grid, denoise or guided-denoise"
)


def add(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "train",
        "train a policy",
        "Trains a policy for a frozen detector. --resume RUN continues a run exactly where it stopped, and with a "
        "larger --budget a finished one.",
    )
    parser.add_argument("--resume", type=Path, metavar="RUN", help="continue the run in this folder")
    parser.add_argument(
        "--config",
        metavar="NAME",
        help="a recipe of the package or a YAML file of settings; flags replace its values",
    )
    parser.add_argument("--method", metavar="M", help=METHODS_HELP)
    parser.add_argument("--preset", metavar="NAME", help=PRESETS_HELP)
    parser.add_argument(
        "--reward",
        metavar="R",
        help="reward of actor_critic and sequence: a registered reward, or my_pkg.my_file:name (default: the method's)",
    )
    text = f"{DATA_HELP}; several are learned from in turn"
    parser.add_argument("--data", nargs="+", metavar="DATA", help=text)
    text = "folder of the images of --data; of several COCO JSONs one folder for all, or one for each"
    parser.add_argument("--images", nargs="+", metavar="DIR", help=text)
    parser.add_argument(
        "--labels",
        choices=("given", "teacher"),
        help="teacher: the targets are the detector's confident detections in clean photos or well exposed raws, not "
        "annotations; DATA may then be any folder of photos (with --light) or raws "
        f"(default {defaults.LABELS})",
    )
    text = "data set, like --data, whose score selects the best policy; of several sets the mean of their scores"
    parser.add_argument("--dev", nargs="+", metavar="DATA", help=text)
    parser.add_argument("--cache", metavar="DIR", help=CACHE_HELP)
    parser.add_argument(
        "--dev-images", nargs="+", metavar="DIR", help="folder of the images of --dev (default: --images)"
    )
    none = "none uses raws even if --config has a light"
    parser.add_argument("--light", metavar="L", help=f"make raws of sRGB photos on the fly: {LIGHTS_HELP}; {none}")
    add_sensor(parser)
    parser.add_argument("--detector", metavar="D", help=f"{DETECTOR_HELP} (default {defaults.DETECTOR})")
    _add_run_options(parser)
    parser.add_argument(
        "--rank-timeout", type=seconds, default=defaults.RANK_TIMEOUT, metavar="SECONDS", help=RANK_TIMEOUT_HELP
    )
    add_modules(parser)
    add_common(parser, without=("workers",))
    parser.set_defaults(command=train, seed=None, shares_work=True)


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the run folder and of the settings."""
    parser.add_argument("--out", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--warm-start", metavar="P", help="policy file or run folder whose weights the run starts from")
    parser.add_argument("--budget", type=positive, metavar="PASSES", help=f"{BUDGET_HELP} (default {defaults.BUDGET})")
    parser.add_argument(
        "--checkpoint-every",
        type=positive,
        metavar="N",
        help=f"iterations between checkpoints (default {defaults.CHECKPOINT_EVERY})",
    )
    parser.add_argument(
        "--dev-every",
        type=positive,
        metavar="N",
        help=f"iterations between scores on --dev (default {defaults.DEV_EVERY})",
    )
    parser.add_argument(
        "--dev-size",
        type=size,
        metavar="N",
        help=f"longer side of --dev's images (default: {defaults.SIZE}, or --size if larger)",
    )
    parser.add_argument("--size", type=size, metavar="N", help="side of the training images (default: the preset's)")
    parser.add_argument(
        "--bootstrap", choices=("greedy", "td"), help="source of the next value (default: the preset's)"
    )
    parser.add_argument("--discount", type=unit, metavar="G", help="factor on the next value (default: the preset's)")
    parser.add_argument(
        "--runtime-weight", type=float, metavar="L", help="reward per ms of cost (default: the preset's)"
    )
    parser.add_argument("--costs", metavar="C", help=TRAIN_COSTS_HELP)
    parser.add_argument("--latency-ms", type=milliseconds, metavar="X", help=TRAIN_LATENCY_HELP)
    parser.add_argument(
        "--set",
        dest="changes",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="another setting of the method, see docs/methods; may be repeated",
    )


def train(options: argparse.Namespace) -> int:
    """Starts or resumes a training run."""
    from adaptiveisp.training.distributed import join

    device = set_up_torch(options)
    ranks = join(device, options.rank_timeout)
    options.quiet = options.quiet or not ranks.first
    try:
        code = _train(options, device, ranks)
        ranks.gather_objects(None)  # torchrun ends the other ranks when one has ended
    finally:
        ranks.leave()
    return code if ranks.first else DONE


def _train(options: argparse.Namespace, device: str, ranks: "Ranks") -> int:
    """`train` on one of the ranks."""
    from adaptiveisp.training.runs import finish
    from adaptiveisp.utils.provenance import provenance

    level = logger.level
    if not ranks.first:  # the first rank gives the same warnings while the run is set up
        logger.setLevel("ERROR")
    run = _opened(options, device, ranks)
    logger.setLevel(level)
    with run, progress(options, run.options.budget, "train", unit="pass") as bar:

        def show(metrics: dict[str, Any]) -> None:
            loss = metrics["detector_loss"]
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update(metrics["passes"] - bar.n)

        summary = finish(run, show)
    if not options.quiet:
        _report(run, summary)
    if not summary.finished:
        return INTERRUPTED
    if not ranks.first:
        return DONE
    return report_skips(run.folder, list(run.skipped.items()), provenance(run.options.seed))


def _opened(options: argparse.Namespace, device: str, ranks: "Ranks") -> "Trainer":
    """The new or resumed run that the options ask for."""
    from adaptiveisp.detectors.loading import load_detector
    from adaptiveisp.training.latency import cost_table_name, run_table
    from adaptiveisp.training.runs import new_run, resumed_run
    from adaptiveisp.utils.provenance import provenance

    if options.resume is not None:
        ranks.together(lambda: _check_resume(options))
        named = options.detector is not None
        detector_of = partial(_run_detector, options=options, device=device)
        run = resumed_run(options.resume, detector_of, device, options.cache or "", named, options.budget, ranks)
    else:

        def asked() -> "tuple[TrainConfig, Any, Detector]":
            _register_own_code(options)
            wanted, settings = _train_settings(options)
            return wanted, settings, load_detector(wanted.detector, device, trusted=options.detector is not None)

        wanted, settings, detector = ranks.together(asked)
        table = cost_table_name(settings, options.costs)
        origin = provenance(wanted.seed, {detector.name: detector.weights_sha256}, table)
        run = new_run(options.out, wanted, settings, detector, origin, options.overwrite, device, ranks)
    if not options.quiet and (measured := run_table(run.settings, run.provenance)) is not None:
        excess = getattr(run.settings, "excess_ms", 0.0)
        beyond = f"; kept free of a latency: {excess:.2f} ms and 5 % of it" if excess else ""
        print(f"{measured.text}{beyond}")
    return run


def _check_resume(options: argparse.Namespace) -> None:
    """Registers the user's own code, and refuses options that a resumed run would not use.

    Raises:
        UsageError: names them.
    """
    own_code = _register_own_code(options)
    others = [*TRAIN_OPTIONS, *TRAIN_SETTINGS, "config", "out", "costs"]
    others = [name for name in others if name not in own_code]
    given = [f"--{name.replace('_', '-')}" for name in others if getattr(options, name) is not None]
    given += ["--limit"] if options.limit else []
    given = [name for name in given if name not in ALLOWED_WITH_RESUME]
    if given or options.changes:
        extra = " ".join(given or ["--set"])
        raise UsageError(f"--resume continues with the settings of the run; leave out {extra}")


def _register_own_code(options: argparse.Namespace) -> list[str]:
    """Registers the methods and rewards that options name as my_pkg.my_file:name, and replaces these by their names.

    Files then hold the name alone, so that no file decides which code runs.

    Returns:
        The options that named code.
    """
    from adaptiveisp.training.methods.registry import METHODS
    from adaptiveisp.training.rl.rewards import REWARDS
    from adaptiveisp.utils.own_code import import_object, names_code

    own = []
    for option, registry in (("method", METHODS), ("reward", REWARDS)):
        text = getattr(options, option)
        if text is not None and names_code(text):
            name = text.rpartition(":")[2].rpartition(".")[2]
            registry.register(name, import_object(text))
            setattr(options, option, name)
            own.append(option)
    return own


def _report(run: "Trainer", summary: "TrainSummary") -> None:
    """Prints the outcome of a run."""
    from adaptiveisp.training.own_parts import resume_command

    folder = summary.folder
    state = "finished" if summary.finished else f"stopped; continue with: {resume_command(folder, run.provenance)}"
    used = f"{summary.iterations} iterations, {summary.passes} detector passes"
    print(f"{used}, peak memory {summary.peak_memory_mb:.0f} MB: {state}")
    if summary.finished:
        print(f"the policy: --policy {folder}; compare it: adaptiveisp eval … --policy auto-exposure {folder}")
    if run.teacher is not None:
        images, nothing = f"{len(run.teacher.answers)} images", run.teacher.found_nothing
        print(f"teacher: {images} in {run.teacher.passes} passes of its own, nothing found in {nothing} of them")
    if summary.unused_modules:
        shown = "dev images" if run.dev else "training images"
        names = ", ".join(summary.unused_modules)
        print(f"the policy does not use {names}: it is in no pipeline of the {shown}")
    if outcome := _on_dev(summary, run.start_name):
        print(outcome)
    if summary.latency:
        print(_on_latency(summary.latency))


def _on_latency(found: "Mapping[str, Any]") -> str:
    """Whether the best policy keeps the latency of the run, as a line.

    Args:
        found: see `DevSelection.latency`.
    """
    limit, share = found["latency_ms"], found["share_on_dev_by_table"]
    if share is None:
        return f"latency {limit:g} ms: no policy of this run was scored on dev"
    by_table = f"{100 * share:.0f} % of the dev images by the table of this machine"
    by_clock = f"{100 * found['share_on_dev_by_clock']:.0f} % by the clock"
    state = "kept" if found["kept_on_dev"] else "NOT kept; eval and run drop modules with --latency-ms"
    return f"latency {limit:g} ms: {state}; {by_table}, {by_clock}"


def _on_dev(summary: "TrainSummary", start_name: str) -> str:
    """The score of the best policy on dev beside those of auto-exposure and of the start; "" without a dev set.

    Args:
        summary: of the run.
        start_name: name of the start.
    """
    best = summary.best_ap50
    others = {start_name if name == "start" else name: ap50 for name, ap50 in sorted(summary.start_ap50.items())}
    if best is None:
        scores = ", ".join(f"{name} {100 * ap50:.1f}" for name, ap50 in others.items())
        return f"no policy of this run was scored on dev yet; {scores}" if scores else ""
    if summary.best_iteration == 0:
        others.pop(start_name, None)
        where = f": the {start_name} is kept, since no later policy was better"
    else:
        where = "" if summary.best_iteration is None else f" (iteration {summary.best_iteration})"
    scores = ", ".join(f"{name} {100 * ap50:.1f} ({100 * (best - ap50):+.1f})" for name, ap50 in others.items())
    return f"{100 * best:.1f} AP50 on dev{where}" + (f"; {scores}" if scores else "")


def _run_detector(spec: str, options: argparse.Namespace, device: str) -> "Detector":
    """The detector of a resumed run. It may be code only if --detector names it, since no file decides which code runs.

    Raises:
        UsageError: --detector is given and is not the detector of the run.
    """
    from adaptiveisp.detectors.loading import load_detector

    if options.detector is not None and _absolute(options.detector) != spec:
        raise UsageError(f"--resume continues with the detector of the run, {spec}; leave out --detector")
    return load_detector(spec, device, trusted=options.detector is not None)


def _absolute(detector: str) -> str:
    """A detector as a run stores it: a path is absolute, because the run may be resumed from another folder."""
    return os.path.abspath(detector) if os.path.exists(detector) else detector


def _train_settings(options: argparse.Namespace) -> "tuple[TrainConfig, Any]":
    """The options and settings of a new run, from its configuration file and the flags, which take precedence."""
    from adaptiveisp.data.opening import is_set_file
    from adaptiveisp.isp.costs import CLOCK, PAPER, load_costs
    from adaptiveisp.isp.registry import register_named
    from adaptiveisp.training.config import find_config, read_config, resolve
    from adaptiveisp.utils.config import parse_changes

    train, settings = read_config(find_config(options.config)) if options.config else ({}, {})
    if train.pop("cache", "") and not options.cache:
        # Frames are written and removed there, so that a file must not name the folder.
        logger.warning("%s: cache: is not taken from a file; give --cache DIR to use one", options.config)
    from_file = options.config is not None and not (options.preset or options.method)
    if not from_file:
        settings = {}  # the settings of the file belong to another preset
    train |= {name: value for name in TRAIN_OPTIONS if (value := getattr(options, name)) is not None}
    settings |= {name: value for name in TRAIN_SETTINGS if (value := getattr(options, name)) is not None}
    settings |= parse_changes(options.changes)
    if options.costs:
        known = options.costs in (PAPER, CLOCK)
        if not known and not os.path.exists(options.costs):
            raise DataError(f"{options.costs}: no such file; give a table of costs, or one of {PAPER} and {CLOCK}")
        settings["costs"] = options.costs if known else load_costs(Path(options.costs))
    if options.limit:
        train["limit"] = options.limit
    for name, images in (("data", "images"), ("dev", "dev_images")):
        given = getattr(options, name) or ()
        if given and not getattr(options, images) and all(is_set_file(Path(text)) for text in given):
            train.pop(images, None)  # the folder belongs to the data of the file
    if train.get("dev") and not train.get("dev_images"):
        train["dev_images"] = train.get("images", "")
    if train.get("light") == "none":
        train["light"] = None
    names = [register_named(text).name for text in options.own_modules]
    wanted, resolved = resolve(train, settings, str(options.config or "train"), from_file, names)
    wanted = replace(wanted, detector=_absolute(wanted.detector))
    if not (wanted.data and options.out):
        raise UsageError("train needs --data and --out, or --resume RUN")
    return wanted, resolved
