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
from adaptiveisp.utils.optional_imports import require_extra

if TYPE_CHECKING:
    from adaptiveisp.inference.predictor import AdaptiveISP
    from adaptiveisp.policies.base import Policy
    from adaptiveisp.types import Detector
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
    # Not "+": an INPUT after a single --policy P is taken for a further policy first, see `_inputs_and_policies`.
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help="raw files, folders, globs; before --policy")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    several = "of several, each in a folder of its own, and a page that shows them side by side"
    text = f"{POLICY_HELP} (default {defaults.POLICY}); {several}"
    parser.add_argument("--policy", dest="policies", nargs="+", metavar="P", help=text)
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
    text = "also write the image after each module, one by one and as a strip"
    parser.add_argument("--save-steps", action="store_true", help=text)
    text = "also write what each module is worth to each box: for n modules n further renderings and detections"
    parser.add_argument("--explain", action="store_true", help=text)
    parser.add_argument("--save-params", action="store_true", help="also write params.csv with all parameters")
    parser.add_argument("--camera-white-balance", action="store_true", help=WHITE_BALANCE_HELP)
    add_backend(parser)
    add_raw_facts(parser)
    add_modules(parser)
    add_common(parser, without=("workers",))
    parser.set_defaults(command=run)


def run(options: argparse.Namespace) -> int:
    """Renders raw files by a policy, or by several, and detects objects in them."""
    inputs, policies = _inputs_and_policies(options)
    if options.explain:
        require_extra("report", "jinja2")  # before hours of work
    if len(policies) > 1:
        from adaptiveisp.cli.run_several import run_several

        return run_several(options, inputs, policies)
    from adaptiveisp.utils.output_folder import claim_folder

    isp = load_predictor(options, policies[0] if policies else None, set_up_torch(options))
    files, missing = find_inputs(options, inputs)
    with claim_folder(options.out, "run", options.overwrite) as claim:
        return run_into(claim, isp, files, missing, options)


def _inputs_and_policies(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """The inputs and the policies; `--policy P INPUT…` means one policy, as before there could be several.

    Raises:
        UsageError: there is no input.
    """
    inputs, policies = list(options.inputs), list(options.policies or ())
    if not inputs:
        inputs, policies = policies[1:], policies[:1]
    if not inputs:
        raise UsageError("run: the following arguments are required: INPUT; see `adaptiveisp run --help`")
    return inputs, policies


def find_inputs(
    options: argparse.Namespace, inputs: list[str]
) -> tuple[list[tuple[Path, Path]], list[tuple[str, str]]]:
    """The raw files with their output stems, and the inputs that do not exist, each with the reason."""
    from adaptiveisp.inference.batch import check_outputs
    from adaptiveisp.raw.reader import find_raw_files

    files, missing = find_raw_files(inputs, exclude=options.out)
    files = files[: options.limit or None]
    check_outputs(files, options.out)
    return files, missing


def load_predictor(
    options: argparse.Namespace, policy: str | None, device: str, detector: "Detector | None" = None
) -> "AdaptiveISP":
    """The predictor of a policy.

    Args:
        options: the options of the command.
        policy: what --policy names; None for the default, or the file of --pipeline alone.
        device: where networks and modules run.
        detector: the detector, if it is loaded already.
    """
    from adaptiveisp.inference.predictor import AdaptiveISP
    from adaptiveisp.inference.pretrained import warn_of_other_detectors

    loaded = _load_policy(options, policy, device)
    warn_of_other_detectors([policy or ""], [options.detector])
    return AdaptiveISP(
        loaded,
        options.detector if detector is None else detector,
        options.size,
        options.confidence,
        options.camera_white_balance,
        device,
        options.backend,
        options.precision,
        options.latency_ms,
    )


def _load_policy(options: argparse.Namespace, policy: str | None, device: str) -> "Policy":
    """The policy that --policy and --pipeline together describe."""
    from adaptiveisp.policies.fixed import ForcedModules, load_fixed
    from adaptiveisp.policies.registry import DEFAULT_POLICY, load_policy

    if options.pipeline is None:
        return load_policy(policy or DEFAULT_POLICY, device)
    fixed = load_fixed(options.pipeline)
    if policy is None:
        return fixed
    loaded = load_policy(policy, device)
    if not loaded.settable:
        raise UsageError(f"--policy {policy} sets no parameters of modules; leave out --pipeline")
    return ForcedModules(loaded, fixed.pipeline)


def run_into(
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
    from adaptiveisp.inference.result_files import EXPLAIN_FILE
    from adaptiveisp.utils.provenance import provenance

    out, policy = claim.folder, isp.policy
    name = isp.detector.name
    origin = provenance(options.seed, {name: isp.detector.weights_sha256}, backends={name: backends_of(isp.detector)})
    facts = raw_facts(options)
    wanted = RunOptions(options.full, options.save_steps, options.save_params, facts, options.explain)
    with progress(options, len(files), "run") as bar:
        summary = run_files(isp, files, out, wanted, origin, lambda name: bar.update())
    skipped = missing + summary.skipped
    if not summary.rows:  # files of an earlier run stay unchanged
        say_skips(skipped)
        raise DataError("no input could be used")
    code = report_skips(out, skipped, origin)
    if options.explain:
        from adaptiveisp.evaluation.explanation_page import write_explanations

        write_explanations(summary.explanations, out / EXPLAIN_FILE, policy.name, name, origin)
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
        if options.explain:
            print(f"what each module is worth: {out / EXPLAIN_FILE}")
    return code


def latency_line(found: dict[str, Any]) -> str:
    """The outcome of --latency-ms as a line.

    Args:
        found: see `RunSummary.latency`.
    """
    listed = ", ".join(f"{name} from {count}" for name, count in found["dropped_modules"].items())
    share = f"{100 * found['share_within']:.0f} %"
    return f"at most {found['latency_ms']:g} ms for {share} of the images; dropped: {listed or 'no module'}"
