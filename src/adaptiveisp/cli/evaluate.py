"""The command `eval`: scores policies and detectors on labelled data, and writes the report."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptiveisp.cli.console import progress, report_skips, say, set_up_torch
from adaptiveisp.cli.options import (
    CACHE_HELP,
    COSTS_HELP,
    DETECTOR_HELP,
    LIGHTS_HELP,
    POLICY_HELP,
    WHITE_BALANCE_HELP,
    add_command,
    add_common,
    add_data,
    natural,
    positive,
    resamples,
    size,
)
from adaptiveisp.errors import UsageError, logger

if TYPE_CHECKING:
    from adaptiveisp.data.opening import Dataset
    from adaptiveisp.policies.base import Policy
    from adaptiveisp.types import Detector

GROUP_HELP = "or NAME=P1,P2,… for the runs of one method with several seeds"
EVAL_POLICY_HELP = f"{POLICY_HELP}; greedy-oracle or greedy-oracle-raw: upper bounds that see the labels, slow"
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


def add(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "eval",
        "compare policies on labelled data: report.json, report.html",
        "Average precision of policies and detectors on the same images, with paired intervals.",
    )
    add_data(parser)
    parser.add_argument("--policy", nargs="+", required=True, metavar="P", help=f"{EVAL_POLICY_HELP}; {GROUP_HELP}")
    several = "several, or the option given again: every policy with each (default yolov3-tiny)"
    parser.add_argument("--detector", nargs="+", action="extend", metavar="D", help=f"{DETECTOR_HELP}; {several}")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    parser.add_argument("--light", metavar="L", help=f"make raws of sRGB photos on the fly: {LIGHTS_HELP}")
    parser.add_argument("--draws", type=positive, default=1, metavar="N", help="lights and noises a photo (default 1)")
    parser.add_argument("--noise", choices=("sensor", "brooks", "none"), default="sensor", help="default sensor")
    parser.add_argument("--size", type=size, default=416, metavar="N", help="longer side in pixels (default 416)")
    parser.add_argument("--steps", type=natural, default=0, metavar="N", help="steps of step-wise policies and oracles")
    parser.add_argument("--costs", type=Path, metavar="FILE", help=COSTS_HELP)
    parser.add_argument("--camera-white-balance", action="store_true", help=WHITE_BALANCE_HELP)
    parser.add_argument("--cache", metavar="DIR", help=CACHE_HELP)
    text = "resamples of the paired bootstrap, 200 or more (default 1000)"
    parser.add_argument("--resamples", type=resamples, default=1000, metavar="N", help=text)
    add_common(parser)
    parser.set_defaults(command=evaluate_policies)


def evaluate_policies(options: argparse.Namespace) -> int:
    """Scores policies and detectors on labelled data."""
    from adaptiveisp.data.opening import open_dataset
    from adaptiveisp.data.synthetic import SynthesisConfig
    from adaptiveisp.detectors.loading import load_detector
    from adaptiveisp.policies.registry import load_policies
    from adaptiveisp.utils.output_folder import claim_folder

    device = set_up_torch(options)
    _say_what_has_no_effect(options)
    policies, groups = load_policies(options.policy, device, options.steps)
    if options.steps and not any(policy.takes_steps for policy in policies):
        logger.warning("--steps has no effect: no policy here takes steps")
    synthesis = None
    if options.light is not None:
        synthesis = SynthesisConfig(options.light, options.draws, options.noise, options.seed)
    dataset = open_dataset(options.data, options.images, synthesis, limit=options.limit)
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
    policies: "list[Policy]",
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
    for remark in found.remarks:
        logger.warning("%s", remark)
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
