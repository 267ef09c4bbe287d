"""What each command does: checks, progress, summaries; imported only when a command runs.

Each function takes the parsed options and returns an exit code.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptiveisp.errors import UsageError
from adaptiveisp.exitcodes import DONE, DONE_WITH_SKIPS, INTERRUPTED

if TYPE_CHECKING:
    from adaptiveisp.policies import AnyPolicy
    from adaptiveisp.raw import BayerHeader
    from adaptiveisp.runsetup import TrainOptions

EVAL_SETTINGS = (
    "size",
    "steps",
    "light",
    "draws",
    "noise",
    "seed",
    "limit",
    "camera_white_balance",
    "resamples",
    "device",
)
"""Options of `eval` that its report records."""

TRAIN_OPTIONS = (
    *("data", "images", "method", "preset", "dev", "dev_images", "detector", "light", "noise", "budget", "seed"),
    *("labels", "warm_start", "checkpoint_every", "dev_every", "cache"),
)
"""Options of `train` that its run keeps."""
TRAIN_SETTINGS = ("size", "bootstrap", "discount", "runtime_weight")
"""Options of `train` that are settings of the method."""


def _set_up_torch(options: argparse.Namespace) -> str:
    """Applies --threads and --device, makes freed memory stay, and returns the device's name."""
    import torch

    from adaptiveisp.memory import keep_freed_memory

    keep_freed_memory()
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no CUDA device here; use --device cpu")
    if options.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return str(options.device)


def _progress(options: argparse.Namespace, total: int, what: str, unit: str = "image") -> Any:
    from tqdm import tqdm

    return tqdm(
        total=total,
        desc=what,
        unit=unit,
        disable=options.quiet or not sys.stderr.isatty(),  # a log file gets no half-drawn bars
        leave=False,
        dynamic_ncols=True,
    )


def _report_skips(out: Path, skipped: list[tuple[str, str]], provenance: dict[str, Any]) -> int:
    """Writes skipped.json and says on standard error what was skipped; the exit code of a command that went on."""
    from adaptiveisp.files import write_json

    if not skipped:
        (out / "skipped.json").unlink(missing_ok=True)
        return DONE
    entries = [{"input": name, "error": error} for name, error in skipped]
    write_json(out / "skipped.json", {"skipped": entries, "provenance": provenance})
    for _, error in skipped[:10]:
        print(f"adaptiveisp: skipped: {error}", file=sys.stderr)
    if len(skipped) > 10:
        print(f"adaptiveisp: {len(skipped) - 10} more in {out / 'skipped.json'}", file=sys.stderr)
    return DONE_WITH_SKIPS


def _header(options: argparse.Namespace) -> "BayerHeader | None":
    """The --raw-… flags; None if none was given."""
    from adaptiveisp.raw import BayerHeader, parse_size

    given = (options.raw_size, options.raw_bits, options.raw_pattern, options.raw_black, options.raw_white)
    if all(value is None for value in given):
        return None
    width, height = parse_size(options.raw_size) if options.raw_size else (None, None)
    return BayerHeader(width, height, options.raw_bits, options.raw_pattern, options.raw_black, options.raw_white)


def _run_policy(options: argparse.Namespace, device: str) -> "AnyPolicy":
    """What --policy and --pipeline ask for together."""
    from adaptiveisp.policies import ForcedModules, SetsParameters, load_fixed
    from adaptiveisp.zoo import DEFAULT_POLICY, load_policy

    if options.pipeline is None:
        return load_policy(options.policy or DEFAULT_POLICY, device)
    fixed = load_fixed(options.pipeline)
    if options.policy is None:
        return fixed
    policy = load_policy(options.policy, device)
    if not isinstance(policy, SetsParameters):
        raise UsageError(f"--policy {options.policy} sets no parameters of modules; leave out --pipeline")
    return ForcedModules(policy, fixed.pipeline)


def run(options: argparse.Namespace) -> int:
    """Runs raw files through a policy and a detector."""
    from adaptiveisp.errors import DataError
    from adaptiveisp.files import prepare_output_folder
    from adaptiveisp.policies import ForcedModules
    from adaptiveisp.predictor import AdaptiveISP
    from adaptiveisp.provenance import provenance
    from adaptiveisp.raw import find_raw_files
    from adaptiveisp.run import RunOptions, check_outputs, remove_former_outputs, run_files
    from adaptiveisp.tables import table

    device = _set_up_torch(options)
    policy, header = _run_policy(options, device), _header(options)
    files, missing = find_raw_files(options.inputs, exclude=options.out)
    files = files[: options.limit or None]
    check_outputs(files, options.out)
    isp = AdaptiveISP(policy, options.detector, options.size, options.confidence, options.camera_white_balance, device)
    out = prepare_output_folder(options.out, options.overwrite)
    remove_former_outputs(out)
    origin = provenance(options.seed, {isp.detector.name: isp.detector.weights_sha256})
    wanted = RunOptions(options.full, options.save_steps, options.save_params, header)
    with _progress(options, len(files), "run") as bar:
        summary = run_files(isp, files, out, wanted, origin, lambda name: bar.update())
    skipped = missing + summary.skipped
    code = _report_skips(out, skipped, origin)
    if not summary.rows:
        for name in ("skipped.json", "summary.json"):
            (out / name).unlink(missing_ok=True)
        if not any(out.iterdir()):
            out.rmdir()
        raise DataError("no input could be used")
    if not options.quiet:
        if isinstance(policy, ForcedModules) and policy.note:
            print(policy.note)
        lines = [
            (Path(r.file).name, " ".join(r.modules) or "no module", r.found, f"{r.milliseconds:.1f}")
            for r in summary.rows
        ]
        print(table(("file", "modules", "best boxes", "ms"), lines))
        print(f"{len(lines)} images in {out}, {len(skipped)} skipped; the pictures together: {out / 'overview.png'}")
    return code


def evaluate_policies(options: argparse.Namespace) -> int:
    """Scores policies and detectors on labelled data."""
    from adaptiveisp.costs import PAPER, load_costs
    from adaptiveisp.datasets import open_dataset
    from adaptiveisp.detectors import load_detector
    from adaptiveisp.evaluate import EvaluationOptions, evaluate, notes_on
    from adaptiveisp.files import prepare_output_folder
    from adaptiveisp.page import write_report
    from adaptiveisp.provenance import provenance
    from adaptiveisp.report import build_report
    from adaptiveisp.tables import score_tables
    from adaptiveisp.zoo import load_policies

    device = _set_up_torch(options)
    policies, groups = load_policies(options.policy, device, options.steps)
    dataset = open_dataset(
        options.data, options.images, options.light, options.draws, options.noise, options.seed, options.limit
    )
    detectors = [load_detector(spec, device) for spec in dict.fromkeys(options.detector or ["yolov3-tiny"])]
    costs = load_costs(options.costs) if options.costs else {}
    names = [detector.name for detector in detectors]
    if len(set(names)) < len(names):
        raise UsageError(f"two detectors have the same name ({', '.join(names)}); rename a file")
    out = prepare_output_folder(options.out, options.overwrite)
    settings = EvaluationOptions(
        options.size, options.camera_white_balance, options.workers, device, costs, True, options.cache or ""
    )
    with _progress(options, len(dataset.samples), "eval") as bar:
        found = evaluate(dataset, policies, detectors, settings, lambda name: bar.update())
    origin = provenance(options.seed, {d.name: d.weights_sha256 for d in detectors}, str(options.costs or PAPER))
    report = build_report(
        found.results,
        found.categories,
        origin,
        notes_on(found, dataset),
        options.resamples,
        options.seed,
        settings={name: getattr(options, name) for name in EVAL_SETTINGS},
        groups=groups,
    )
    write_report(report, out, found.sheets, title=f"Evaluation on {dataset.name}")
    code = _report_skips(out, found.skipped, origin)
    if not options.quiet:
        print(score_tables(report))
        if found.upper_bounds:
            print(f"{', '.join(found.upper_bounds)}: an upper bound that sees the labels, no policy")
        print(f"report: {out / 'report.html'}; each image's pipelines and losses: {out / 'pipelines.jsonl'}")
    return code


def synth(options: argparse.Namespace) -> int:
    """Makes a labelled synthetic raw set."""
    from adaptiveisp.datasets.coco import load_coco
    from adaptiveisp.files import prepare_output_folder
    from adaptiveisp.provenance import provenance
    from adaptiveisp.synth import SynthOptions, synthesise_set
    from adaptiveisp.tables import table
    from adaptiveisp.unprocess import LIGHTS, light_range

    _set_up_torch(options)
    lights = tuple(dict.fromkeys(light.strip() for light in options.light.split(",") if light.strip()))
    for light in lights:
        light_range(light)
    if not lights:
        raise UsageError(f"--light {options.light!r} names no light; choose from {', '.join(LIGHTS)}")
    wanted = SynthOptions(lights, options.draws, options.format, options.noise, options.seed, options.limit)
    photos = len(load_coco(options.data).images)
    out = prepare_output_folder(options.out, options.overwrite)
    origin = provenance(options.seed)
    total = min(photos, options.limit or photos) * options.draws * len(lights)
    with _progress(options, total, "synth") as bar:
        summary = synthesise_set(options.data, options.images, out, wanted, origin, lambda name: bar.update())
    code = _report_skips(out, summary.skipped, origin)
    if not options.quiet:
        print(
            table(
                ("light", "raws", "labels"),
                [(k, str(n), str(out / k / "labels.json")) for k, n in summary.written.items()],
            )
        )
    return code


def demo(options: argparse.Namespace) -> int:
    """Runs the demo."""
    from adaptiveisp.demo import run_demo
    from adaptiveisp.files import prepare_output_folder
    from adaptiveisp.tables import score_tables

    device = _set_up_torch(options)
    out = prepare_output_folder(options.out, options.overwrite)
    with _progress(options, 0, "demo") as bar:
        report = run_demo(out, options.detector, options.seed, device, options.size, lambda name: bar.update())
    if not options.quiet:
        print(score_tables(report))
        print(
            "Reference: the detector's own boxes (score 0.5 or more) on the clean photos. 4 photos show how it works, "
            "they measure nothing; docs/results.md does."
        )
        print(f"report: {out / 'report.html'}   figure: {out / 'figure.png'}   raws: {out / 'raws'}")
    return DONE


def train(options: argparse.Namespace) -> int:
    """Starts or resumes a training run."""
    from adaptiveisp.costs import PAPER
    from adaptiveisp.detectors import load_detector
    from adaptiveisp.provenance import provenance
    from adaptiveisp.training import new_run, peak_memory_mb, resumed_run

    if options.device == "cuda":
        raise UsageError("train works on the CPU only so far; leave out --device")
    options.device = "cpu"  # what "auto" means here
    device = _set_up_torch(options)
    if options.resume is not None:
        others = (*TRAIN_OPTIONS, *TRAIN_SETTINGS, "config", "out", "costs")
        given = [f"--{name.replace('_', '-')}" for name in others if getattr(options, name) is not None]
        given += ["--limit"] if options.limit else []
        if given or options.changes:
            named = " ".join(given or ["--set"])
            raise UsageError(f"--resume goes on with the settings of the run; leave out {named}")
        folder = options.resume
        run = resumed_run(folder, lambda spec: load_detector(spec, device))
    else:
        wanted, settings = _train_settings(options)
        detector = load_detector(wanted.detector, device)
        table = str(options.costs or ("settings.costs" if getattr(settings, "costs", None) else PAPER))
        origin = provenance(wanted.seed, {detector.name: detector.weights_sha256}, table)
        folder = options.out
        run = new_run(folder, wanted, settings, detector, origin, options.overwrite)
    with _progress(options, run.options.budget, "train", unit="pass") as bar:

        def show(metrics: dict[str, Any]) -> None:
            loss = metrics["detector_loss"]
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update(metrics["passes"] - bar.n)
            if bar.disable and not options.quiet and metrics["iteration"] % 100 == 0:
                progress = f"iteration {metrics['iteration']}, {metrics['passes']} passes, detector loss {loss:.3f}"
                print(progress, file=sys.stderr, flush=True)

        finished = run.train(show)
    if not options.quiet:
        best = f", best AP50 on dev {100 * run.best_ap50:.1f}" if run.best_ap50 is not None else ""
        state = "finished" if finished else f"stopped; go on with: adaptiveisp train --resume {folder}"
        used = f"{run.learner.iteration} iterations, {run.learner.passes} detector passes"
        print(f"{used}{best}, peak memory {peak_memory_mb():.0f} MB: {state}")
        if run.teacher is not None:
            seen, nothing = f"{len(run.teacher.answers)} images", run.teacher.found_nothing
            print(f"teacher: {seen} in {run.teacher.passes} passes of its own, nothing found in {nothing} of them")
        if run.why_no_tensorboard:
            print(f"no TensorBoard: {run.why_no_tensorboard}", file=sys.stderr)
    if not finished:
        return INTERRUPTED
    return _report_skips(folder, list(run.skipped.items()), provenance(run.options.seed))


def _train_settings(options: argparse.Namespace) -> "tuple[TrainOptions, Any]":
    """What the flags of a new run and its configuration file ask for; a flag replaces what the file says."""
    from adaptiveisp.costs import load_costs
    from adaptiveisp.runsetup import read_config, resolve
    from adaptiveisp.settings import parse_changes

    train, settings = read_config(options.config) if options.config else ({}, {})
    if options.preset or options.method:
        settings = {}  # those of the file belong to another preset
    train |= {name: value for name in TRAIN_OPTIONS if (value := getattr(options, name)) is not None}
    settings |= {name: value for name in TRAIN_SETTINGS if (value := getattr(options, name)) is not None}
    settings |= parse_changes(options.changes)
    if options.costs:
        settings["costs"] = load_costs(options.costs)
    if options.limit:
        train["limit"] = options.limit
    if train.get("dev") and not train.get("dev_images"):
        train["dev_images"] = train.get("images", "")
    if train.get("light") == "none":
        train["light"] = None
    for name in ("data", "images", "dev", "dev_images", "detector", "cache"):
        # The run may be resumed from another folder. A detector is a path, or the name of one that there is.
        if train.get(name) and (name != "detector" or os.path.exists(train[name])):
            train[name] = os.path.abspath(train[name])
    wanted, resolved = resolve(train, settings, str(options.config or "train"))
    if not (wanted.data and options.out):
        raise UsageError("train needs --data and --out, or --resume RUN")
    return wanted, resolved


def import_checkpoint(options: argparse.Namespace) -> int:
    """Turns a released checkpoint into a policy file, or a detector's checkpoint into a detector file."""
    from adaptiveisp.checkpoint import import_released, save_policy
    from adaptiveisp.detectors.ultralytics_checkpoint import holds_detector

    if holds_detector(options.file):
        return _import_detector(options)
    header, actor, critic = import_released(options.file)
    if options.out.exists() and not options.overwrite:
        raise UsageError(f"{options.out}: exists already; choose another --out or add --overwrite")
    save_policy(options.out, header, {"actor": actor, "critic": critic})
    numbers = sum(parameter.numel() for parameter in actor.parameters())
    print(f"{options.out}: {numbers:,} actor parameters, modules {', '.join(header.modules)}")
    return DONE


def _import_detector(options: argparse.Namespace) -> int:
    from adaptiveisp.detectors.detector_file import save_detector
    from adaptiveisp.detectors.ultralytics_checkpoint import load_ultralytics
    from adaptiveisp.provenance import provenance

    network = load_ultralytics(options.file)
    if options.out.exists() and not options.overwrite:
        raise UsageError(f"{options.out}: exists already; choose another --out or add --overwrite")
    save_detector(options.out, network, provenance(0, {options.file.name: network.weights_sha256}))
    numbers = sum(parameter.numel() for parameter in network.parameters())
    strides = ", ".join(str(stride) for stride in network.strides)
    print(f"{options.out}: {numbers:,} weights, {len(network.class_names)} classes, strides {strides}")
    return DONE


def bench(options: argparse.Namespace) -> int:
    """Measures this machine."""
    from adaptiveisp.benchmark import module_costs, run_benchmark, to_json
    from adaptiveisp.costs import save_costs
    from adaptiveisp.detectors import load_detector
    from adaptiveisp.files import write_json
    from adaptiveisp.native import available
    from adaptiveisp.provenance import provenance
    from adaptiveisp.tables import table

    device = _set_up_torch(options)
    _check_files((options.out, options.write_costs), options.overwrite)
    detector = load_detector(options.detector, device) if options.detector != "none" else None
    timings = run_benchmark(options.size, options.repeats, detector, device)
    origin = provenance(options.seed, {detector.name: detector.weights_sha256} if detector else None)
    rows = to_json(timings)
    if not options.quiet:
        header = ("what", "ms", "copies", "detector forwards", "plain ms", "faster than plain")
        print(table(header, [_bench_row(row) for row in rows]))
        kernels = "compiled" if available() else "not compiled or turned off"
        place = f"{options.size}x{options.size}, {device}, {origin['threads']} threads, kernels {kernels}"
        print(f"{place}; medians of {options.repeats} interleaved runs")
    if options.out is not None:
        facts = {"size": options.size, "repeats": options.repeats, "device": device, "compiled": available()}
        write_json(options.out, {**facts, "timings": rows, "provenance": origin})
    if options.write_costs is not None:
        save_costs(options.write_costs, module_costs(timings), options.size, origin)
    return DONE


def _check_files(paths: Sequence[Path | None], overwrite: bool) -> None:
    """Refuses files that could not be written, before the work for them is done.

    Raises:
        UsageError: two are the same, one is a folder, exists already, or its folder cannot be written to.
    """
    wanted = [path for path in paths if path is not None]
    if len({path.resolve() for path in wanted}) < len(wanted):
        raise UsageError(f"{wanted[0]}: would be written twice; give each output a name of its own")
    for path in wanted:
        if path.is_dir():
            raise UsageError(f"{path}: is a folder; give the name of a file")
        if path.exists() and not overwrite:
            raise UsageError(f"{path}: exists already; choose another name or add --overwrite")
        if not os.access(path.resolve().parent, os.W_OK):
            raise UsageError(f"{path}: its folder does not exist or cannot be written to; choose another name")


def _bench_row(row: dict[str, Any]) -> tuple[str, ...]:
    formats = {"ms": ".2f", "copies": ".1f", "detector_forwards": ".3f", "plain_ms": ".2f", "faster_than_plain": ".1f"}
    return (row["name"], *(format(row[key], form) if key in row else "" for key, form in formats.items()))


def weights_list(options: argparse.Namespace) -> int:
    """Lists the weights there are."""
    from adaptiveisp.tables import table
    from adaptiveisp.weights import list_weights

    rows = [
        (r.name, "yes" if r.installed else "no", f"{r.size / 1e6:.1f} MB", r.licence, r.source) for r in list_weights()
    ]
    print(table(("name", "installed", "size", "licence", "source"), rows))
    return DONE


def weights_get(options: argparse.Namespace) -> int:
    """Fetches weights."""
    from adaptiveisp.weights import get_weights

    print(get_weights(options.name, options.source))
    return DONE
