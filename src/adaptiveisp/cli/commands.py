"""What the commands do: checks, progress, summaries; imported only when one runs. `train` and `doctor` have own files.

Each function takes the parsed options and returns an exit code.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptiveisp.cli.console import check_files, progress, report_skips, say, say_skips, set_up_torch
from adaptiveisp.cli.exit_codes import DONE
from adaptiveisp.errors import UsageError, logger

if TYPE_CHECKING:
    from adaptiveisp.data.opening import Dataset
    from adaptiveisp.inference.predictor import AdaptiveISP
    from adaptiveisp.policies.base import AnyPolicy
    from adaptiveisp.raw.reader import BayerHeader
    from adaptiveisp.types import Detector
    from adaptiveisp.utils.output_folder import FolderClaim

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


def _header(options: argparse.Namespace) -> "BayerHeader | None":
    """The --raw-… flags; None if none was given."""
    from adaptiveisp.raw.reader import BayerHeader, parse_size

    given = (options.raw_size, options.raw_bits, options.raw_pattern, options.raw_black, options.raw_white)
    if all(value is None for value in given):
        return None
    width, height = parse_size(options.raw_size) if options.raw_size else (None, None)
    return BayerHeader(width, height, options.raw_bits, options.raw_pattern, options.raw_black, options.raw_white)


def _run_policy(options: argparse.Namespace, device: str) -> "AnyPolicy":
    """What --policy and --pipeline ask for together."""
    from adaptiveisp.policies.base import ForcedModules, SetsParameters, load_fixed
    from adaptiveisp.policies.registry import DEFAULT_POLICY, load_policy

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
    from adaptiveisp.inference.batch import check_outputs
    from adaptiveisp.inference.predictor import AdaptiveISP
    from adaptiveisp.raw.reader import find_raw_files
    from adaptiveisp.utils.output_folder import claim_folder

    device = set_up_torch(options)
    policy = _run_policy(options, device)
    files, missing = find_raw_files(options.inputs, exclude=options.out)
    files = files[: options.limit or None]
    check_outputs(files, options.out)
    isp = AdaptiveISP(policy, options.detector, options.size, options.confidence, options.camera_white_balance, device)
    with claim_folder(options.out, "run", options.overwrite) as claim:
        return _run_into(claim, isp, files, missing, options)


def _run_into(
    claim: "FolderClaim",
    isp: "AdaptiveISP",
    files: list[tuple[Path, Path]],
    missing: list[tuple[str, str]],
    options: argparse.Namespace,
) -> int:
    """Runs the files into a claimed folder and says what came of it; the exit code."""
    from adaptiveisp.errors import DataError
    from adaptiveisp.evaluation.tables import table
    from adaptiveisp.inference.batch import RunOptions, run_files
    from adaptiveisp.policies.base import ForcedModules
    from adaptiveisp.utils.provenance import provenance

    out, policy = claim.folder, isp.policy
    origin = provenance(options.seed, {isp.detector.name: isp.detector.weights_sha256})
    wanted = RunOptions(options.full, options.save_steps, options.save_params, _header(options))
    with progress(options, len(files), "run") as bar:
        summary = run_files(isp, files, out, wanted, origin, lambda name: bar.update())
    skipped = missing + summary.skipped
    if not summary.rows:  # what an earlier run left stays as it is
        say_skips(skipped)
        raise DataError("no input could be used")
    code = report_skips(out, skipped, origin)
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
    from adaptiveisp.data.opening import open_dataset
    from adaptiveisp.detectors.loading import load_detector
    from adaptiveisp.policies.registry import load_policies
    from adaptiveisp.utils.output_folder import claim_folder

    device = set_up_torch(options)
    _say_what_has_no_effect(options)
    policies, groups = load_policies(options.policy, device, options.steps)
    if options.steps and not any(hasattr(policy, name) for policy in policies for name in ("steps", "horizon")):
        logger.warning("--steps has no effect: no policy here takes steps")
    dataset = open_dataset(
        options.data, options.images, options.light, options.draws, options.noise, options.seed, options.limit
    )
    detectors = [load_detector(spec, device) for spec in dict.fromkeys(options.detector or ["yolov3-tiny"])]
    names = [detector.name for detector in detectors]
    if len(set(names)) < len(names):
        raise UsageError(f"two detectors have the same name ({', '.join(names)}); rename a file")
    with claim_folder(options.out, "eval", options.overwrite) as claim:
        return _evaluate_into(claim.folder, dataset, policies, groups, detectors, options, device)


def _say_what_has_no_effect(options: argparse.Namespace) -> None:
    """Warns of options of `eval` that the others make useless."""
    without_light = options.light is None
    useless = (
        (without_light and options.draws != 1, "--draws", "it is of raws that --light makes"),
        (without_light and options.noise != "sensor", "--noise", "it is of raws that --light makes"),
        (not without_light and options.cache, "--cache", "raws that --light makes are made anew"),
        (options.images is not None and options.data.is_dir(), "--images", f"{options.data} is a folder"),
    )
    for holds, option, reason in useless:
        if holds:
            logger.warning("%s has no effect: %s", option, reason)


def _recorded(options: argparse.Namespace) -> dict[str, Any]:
    """The options of `eval` for its report; those of raws made of photos are None where none was made."""
    unused = () if options.light is not None else ("draws", "noise")
    return {name: None if name in unused else getattr(options, name) for name in EVAL_SETTINGS}


def _evaluate_into(
    out: Path,
    dataset: "Dataset",
    policies: "list[AnyPolicy]",
    groups: dict[str, tuple[str, ...]],
    detectors: "list[Detector]",
    options: argparse.Namespace,
    device: str,
) -> int:
    """Evaluates into a claimed folder and says what came of it; the exit code."""
    from adaptiveisp.evaluation.evaluator import EvalConfig, evaluate, not_scored, notes_on
    from adaptiveisp.evaluation.html_report import write_report
    from adaptiveisp.evaluation.report import build_report
    from adaptiveisp.evaluation.tables import score_tables
    from adaptiveisp.isp.costs import PAPER, load_costs
    from adaptiveisp.utils.provenance import provenance

    costs = load_costs(options.costs) if options.costs else {}
    settings = EvalConfig(
        options.size, options.camera_white_balance, options.workers, device, costs, True, options.cache or ""
    )
    with progress(options, len(dataset.samples), "eval") as bar:
        found = evaluate(dataset, policies, detectors, settings, lambda name: bar.update())
    origin = provenance(options.seed, {d.name: d.weights_sha256 for d in detectors}, str(options.costs or PAPER))
    report = build_report(
        found.results,
        found.categories,
        origin,
        notes_on(found, dataset),
        options.resamples,
        options.seed,
        settings=_recorded(options),
        groups=groups,
    )
    write_report(report, out, found.sheets, title=f"Evaluation on {dataset.name}")
    code = report_skips(out, found.skipped, origin)
    for line in not_scored(found):
        say(line)
    if not options.quiet:
        print(score_tables(report))
        if found.upper_bounds:
            print(f"{', '.join(found.upper_bounds)}: an upper bound that sees the labels, no policy")
        print(f"report: {out / 'report.html'}; each image's pipelines and losses: {out / 'pipelines.jsonl'}")
    return code


def synth(options: argparse.Namespace) -> int:
    """Makes a labelled synthetic raw set."""
    from adaptiveisp.data.formats.coco import load_coco
    from adaptiveisp.data.synthesize import SynthOptions, synthesise_set
    from adaptiveisp.evaluation.tables import table
    from adaptiveisp.raw.unprocess import LIGHTS, light_range
    from adaptiveisp.utils.output_folder import claim_folder
    from adaptiveisp.utils.provenance import provenance

    set_up_torch(options)
    lights = tuple(dict.fromkeys(light.strip() for light in options.light.split(",") if light.strip()))
    for light in lights:
        light_range(light)
    if not lights:
        raise UsageError(f"--light {options.light!r} names no light; choose from {', '.join(LIGHTS)}")
    wanted = SynthOptions(lights, options.draws, options.format, options.noise, options.seed, options.limit)
    checked = load_coco(options.data)
    for note in checked.notes:
        logger.warning("%s: %s", options.data, note)
    photos = len(checked.images)
    with claim_folder(options.out, "synth", options.overwrite) as claim:
        out = claim.folder
        origin = provenance(options.seed)
        total = min(photos, options.limit or photos) * options.draws * len(lights)
        with progress(options, total, "synth") as bar:
            summary = synthesise_set(options.data, options.images, out, wanted, origin, lambda name: bar.update())
        code = report_skips(out, summary.skipped, origin)
    if not options.quiet:
        rows = [(light, str(n), str(out / light / "labels.json")) for light, n in summary.written.items()]
        print(table(("light", "raws", "labels"), rows))
    return code


def demo(options: argparse.Namespace) -> int:
    """Runs the demo."""
    from adaptiveisp.cli.demo import run_demo
    from adaptiveisp.evaluation.tables import score_tables
    from adaptiveisp.utils.output_folder import claim_folder

    device = set_up_torch(options)
    with claim_folder(options.out, "demo", options.overwrite) as claim, progress(options, 0, "demo") as bar:
        out = claim.folder
        report = run_demo(out, options.detector, options.seed, device, options.size, lambda name: bar.update())
    if not options.quiet:
        print(score_tables(report))
        print(
            "Reference: the detector's own boxes (score 0.5 or more) on the clean photos. 4 photos show how it works, "
            "they measure nothing; docs/results.md does."
        )
        print(f"report: {out / 'report.html'}   figure: {out / 'figure.png'}   raws: {out / 'raws'}")
    return DONE


def import_checkpoint(options: argparse.Namespace) -> int:
    """Turns a released checkpoint into a policy file, or a detector's checkpoint into a detector file."""
    from adaptiveisp.detectors.yolo.checkpoint import holds_detector
    from adaptiveisp.policies.checkpoint import import_released, save_policy
    from adaptiveisp.utils.files import remove_abandoned, require_regular

    require_regular(options.file, UsageError, "give a checkpoint")
    if holds_detector(options.file):
        return _import_detector(options)
    header, actor, critic = import_released(options.file)
    if options.out.exists() and not options.overwrite:
        raise UsageError(f"{options.out}: exists already; choose another --out or add --overwrite")
    remove_abandoned(options.out.parent)
    save_policy(options.out, header, {"actor": actor, "critic": critic})
    numbers = sum(parameter.numel() for parameter in actor.parameters())
    print(f"{options.out}: {numbers:,} actor parameters, modules {', '.join(header.modules)}")
    return DONE


def _import_detector(options: argparse.Namespace) -> int:
    from adaptiveisp.detectors.detector_file import save_detector
    from adaptiveisp.detectors.yolo.checkpoint import load_ultralytics
    from adaptiveisp.utils.files import remove_abandoned
    from adaptiveisp.utils.provenance import provenance

    network = load_ultralytics(options.file)
    if options.out.exists() and not options.overwrite:
        raise UsageError(f"{options.out}: exists already; choose another --out or add --overwrite")
    remove_abandoned(options.out.parent)
    save_detector(options.out, network, provenance(0, {options.file.name: network.weights_sha256}))
    numbers = sum(parameter.numel() for parameter in network.parameters())
    strides = ", ".join(str(stride) for stride in network.strides)
    print(f"{options.out}: {numbers:,} weights, {len(network.class_names)} classes, strides {strides}")
    return DONE


def bench(options: argparse.Namespace) -> int:
    """Measures this machine."""
    from adaptiveisp.detectors.loading import load_detector
    from adaptiveisp.evaluation.benchmark import module_costs, run_benchmark, to_json
    from adaptiveisp.evaluation.tables import table
    from adaptiveisp.isp.costs import save_costs
    from adaptiveisp.kernels.forward import available
    from adaptiveisp.utils.files import write_json
    from adaptiveisp.utils.provenance import provenance

    device = set_up_torch(options)
    check_files((options.out, options.write_costs), options.overwrite)
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


def _bench_row(row: dict[str, Any]) -> tuple[str, ...]:
    formats = {"ms": ".2f", "copies": ".1f", "detector_forwards": ".3f", "plain_ms": ".2f", "faster_than_plain": ".1f"}
    return (row["name"], *(format(row[key], form) if key in row else "" for key, form in formats.items()))


def weights_list(options: argparse.Namespace) -> int:
    """Lists the weights there are."""
    from adaptiveisp.detectors.weights import list_weights
    from adaptiveisp.evaluation.tables import table

    rows = [
        (r.name, "yes" if r.installed else "no", f"{r.size / 1e6:.1f} MB", r.licence, r.source) for r in list_weights()
    ]
    print(table(("name", "installed", "size", "licence", "source"), rows))
    return DONE


def weights_get(options: argparse.Namespace) -> int:
    """Fetches weights."""
    from adaptiveisp.detectors.weights import get_weights

    print(get_weights(options.name, options.source))
    return DONE
