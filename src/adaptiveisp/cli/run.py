"""The command `run`: renders raw files, detects objects, and writes images, boxes and pipelines."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptiveisp.cli.console import progress, report_skips, say_skips, set_up_torch
from adaptiveisp.cli.options import (
    DEFAULT,
    DETECTOR_HELP,
    LATENCY_HELP,
    POLICY_HELP,
    SIZE_HELP,
    WHITE_BALANCE_HELP,
    add_backend,
    add_command,
    add_common,
    add_modules,
    add_raw_facts,
    milliseconds,
    raw_facts,
    size,
    unit,
)
from adaptiveisp.errors import UsageError
from adaptiveisp.utils import defaults

if TYPE_CHECKING:
    from adaptiveisp.inference.predictor import AdaptiveISP
    from adaptiveisp.policies.base import Policy
    from adaptiveisp.utils.output_folder import FolderClaim


def add(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "run",
        "render raw files and detect objects in them",
        "Renders each raw file by the pipeline that a policy chooses, detects objects, and writes image, boxes and "
        "pipeline.",
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="raw files, folders, globs")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    parser.add_argument("--policy", metavar="P", help=f"{POLICY_HELP} (default {defaults.POLICY})")
    text = (
        "run the modules of this file; with --policy P their parameters are chosen by P, and the stages of P's "
        "preprocessing run first (auto-exposure for the shipped policies)"
    )
    parser.add_argument("--pipeline", type=Path, metavar="FILE.json", help=text)
    text = f"{DETECTOR_HELP} {DEFAULT}"
    parser.add_argument("--detector", default=defaults.DETECTOR, metavar="D", help=text)
    parser.add_argument("--size", type=size, metavar="N", help=SIZE_HELP)
    text = f"least score of the boxes that are written {DEFAULT}"
    parser.add_argument("--confidence", type=unit, default=defaults.CONFIDENCE, metavar="S", help=text)
    parser.add_argument("--latency-ms", type=milliseconds, metavar="X", help=LATENCY_HELP)
    parser.add_argument("--full", action="store_true", help="also write the image at full size")
    parser.add_argument("--save-steps", action="store_true", help="also write the image after each module")
    parser.add_argument("--save-params", action="store_true", help="also write params.csv with all parameters")
    parser.add_argument("--camera-white-balance", action="store_true", help=WHITE_BALANCE_HELP)
    add_backend(parser)
    add_raw_facts(parser)
    add_modules(parser)
    add_common(parser, without=("workers",))
    parser.set_defaults(command=run)


def _run_policy(options: argparse.Namespace, device: str) -> "Policy":
    """The policy that --policy and --pipeline together describe."""
    from adaptiveisp.policies.fixed import ForcedModules, load_fixed
    from adaptiveisp.policies.registry import DEFAULT_POLICY, load_policy

    if options.pipeline is None:
        return load_policy(options.policy or DEFAULT_POLICY, device)
    fixed = load_fixed(options.pipeline)
    if options.policy is None:
        return fixed
    policy = load_policy(options.policy, device)
    if not policy.settable:
        raise UsageError(f"--policy {options.policy} sets no parameters of modules; leave out --pipeline")
    return ForcedModules(policy, fixed.pipeline)


def run(options: argparse.Namespace) -> int:
    """Renders raw files by a policy and detects objects in them."""
    from adaptiveisp.inference.batch import check_outputs
    from adaptiveisp.inference.predictor import AdaptiveISP
    from adaptiveisp.inference.pretrained import warn_of_other_detectors
    from adaptiveisp.raw.reader import find_raw_files
    from adaptiveisp.utils.output_folder import claim_folder

    device = set_up_torch(options)
    policy = _run_policy(options, device)
    warn_of_other_detectors([options.policy or ""], [options.detector])
    files, missing = find_raw_files(options.inputs, exclude=options.out)
    files = files[: options.limit or None]
    check_outputs(files, options.out)
    isp = AdaptiveISP(
        policy,
        options.detector,
        options.size,
        options.confidence,
        options.camera_white_balance,
        device,
        options.backend,
        options.precision,
        options.latency_ms,
    )
    with claim_folder(options.out, "run", options.overwrite) as claim:
        return _run_into(claim, isp, files, missing, options)


def _run_into(
    claim: "FolderClaim",
    isp: "AdaptiveISP",
    files: list[tuple[Path, Path]],
    missing: list[tuple[str, str]],
    options: argparse.Namespace,
) -> int:
    """Writes the results of the files into a claimed folder, prints them, and returns the exit code."""
    from adaptiveisp.detectors.backends.choice import backends_of
    from adaptiveisp.errors import DataError
    from adaptiveisp.evaluation.tables import table
    from adaptiveisp.inference.batch import RunOptions, run_files
    from adaptiveisp.utils.provenance import provenance

    out, policy = claim.folder, isp.policy
    name = isp.detector.name
    origin = provenance(options.seed, {name: isp.detector.weights_sha256}, backends={name: backends_of(isp.detector)})
    wanted = RunOptions(options.full, options.save_steps, options.save_params, raw_facts(options))
    with progress(options, len(files), "run") as bar:
        summary = run_files(isp, files, out, wanted, origin, lambda name: bar.update())
    skipped = missing + summary.skipped
    if not summary.rows:  # files of an earlier run stay unchanged
        say_skips(skipped)
        raise DataError("no input could be used")
    code = report_skips(out, skipped, origin)
    if not options.quiet:
        if policy.note:
            print(policy.note)
        lines = [
            (
                Path(r.file).name,
                " ".join(r.modules) or "no module",
                r.found,
                f"{r.milliseconds:.1f}",
                f"{r.timings['total']:.0f}",
            )
            for r in summary.rows
        ]
        print(table(("file", "modules", "best boxes", "ms", "total ms"), lines))
        if isp.latency_ms is not None:
            print(latency_line(summary.latency(isp.latency_ms)))
        print(f"{len(lines)} images in {out}, {len(skipped)} skipped; all pictures: {out / 'overview.png'}")
    return code


def latency_line(found: dict[str, Any]) -> str:
    """The outcome of --latency-ms as a line.

    Args:
        found: see `RunSummary.latency`.
    """
    listed = ", ".join(f"{name} from {count}" for name, count in found["dropped_modules"].items())
    share = f"{100 * found['share_within']:.0f} %"
    return f"at most {found['latency_ms']:g} ms for {share} of the images; dropped: {listed or 'no module'}"
