"""The command `run`: renders raw files, detects objects, and writes images, boxes and pipelines."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptiveisp.cli.console import progress, report_skips, say_skips, set_up_torch
from adaptiveisp.cli.options import (
    DEFAULT,
    DETECTOR_HELP,
    POLICY_HELP,
    SIZE_HELP,
    WHITE_BALANCE_HELP,
    add_command,
    add_common,
    add_modules,
    size,
    unit,
)
from adaptiveisp.errors import UsageError
from adaptiveisp.utils import defaults

if TYPE_CHECKING:
    from adaptiveisp.inference.predictor import AdaptiveISP
    from adaptiveisp.policies.base import Policy
    from adaptiveisp.raw.reader import BayerHeader
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
    parser.add_argument("--full", action="store_true", help="also write the image at full size")
    parser.add_argument("--save-steps", action="store_true", help="also write the image after each module")
    parser.add_argument("--save-params", action="store_true", help="also write params.csv with all parameters")
    parser.add_argument("--camera-white-balance", action="store_true", help=WHITE_BALANCE_HELP)
    _add_header(parser)
    add_modules(parser)
    add_common(parser, without=("workers",))
    parser.set_defaults(command=run)


def _add_header(parser: argparse.ArgumentParser) -> None:
    """Adds the options that describe raw files without a header."""
    group = parser.add_argument_group(
        "raw files without a header",
        "The same keys (raw-size: 2592x1536 …) may be in FILE.yaml, or in raw.yaml beside it.",
    )
    group.add_argument("--raw-size", metavar="WxH", help="width and height in pixels, for instance 2592x1536")
    bits = "bits of a value: 8 in one byte, 9 to 16 in two, 17 to 24 in three, low byte first"
    group.add_argument("--raw-bits", type=int, metavar="N", help=bits)
    text = "pixel format instead, by its name in V4L2, GenICam or libcamera (SRGGB10P, BayerRG12p, RAW12, u12le16 …)"
    group.add_argument("--raw-format", metavar="NAME", help=text)
    group.add_argument("--raw-pattern", metavar="RGGB", help="RGGB, BGGR, GRBG, GBRG or MONO")
    group.add_argument("--raw-black", type=float, metavar="V", help="value without light (default 0)")
    group.add_argument("--raw-white", type=float, metavar="V", help="value at saturation (default 2^bits - 1)")
    text = "bytes from one row to the next (default: rows without padding)"
    group.add_argument("--raw-stride", type=int, metavar="N", help=text)
    group.add_argument("--raw-offset", type=int, metavar="N", help="bytes before the first frame (default 0)")
    group.add_argument("--raw-frames", type=int, metavar="N", help="frames in a file (default 1)")
    group.add_argument("--raw-frame", type=int, metavar="N", help="frame to read, counted from 0 (default 0)")
    text = "companding curve to undo: srgb, bt709, a-law or sqrt; knee points go into a sidecar as raw-knees"
    group.add_argument("--raw-curve", metavar="NAME", help=text)


def _header(options: argparse.Namespace) -> "BayerHeader | None":
    """The header from the --raw-… options; None if no such option was given."""
    from adaptiveisp.raw.reader import BayerHeader, parse_size

    names = ("bits", "pattern", "black", "white", "format", "stride", "offset", "frames", "frame", "curve")
    given = {name: getattr(options, f"raw_{name}") for name in names}
    if options.raw_size is None and all(value is None for value in given.values()):
        return None
    width, height = parse_size(options.raw_size) if options.raw_size else (None, None)
    return BayerHeader(width, height, **given)


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
    """Writes the results of the files into a claimed folder, prints them, and returns the exit code."""
    from adaptiveisp.errors import DataError
    from adaptiveisp.evaluation.tables import table
    from adaptiveisp.inference.batch import RunOptions, run_files
    from adaptiveisp.utils.provenance import provenance

    out, policy = claim.folder, isp.policy
    origin = provenance(options.seed, {isp.detector.name: isp.detector.weights_sha256})
    wanted = RunOptions(options.full, options.save_steps, options.save_params, _header(options))
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
        print(f"{len(lines)} images in {out}, {len(skipped)} skipped; all pictures: {out / 'overview.png'}")
    return code
