"""The command `run`: renders raw files, detects objects, and writes images, boxes and pipelines."""

import argparse
import os
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from adaptiveisp.cli.console import progress, report_skips, say_skips, set_up_torch
from adaptiveisp.cli.options import (
    ADDRESS_HELP,
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
    natural,
    positive,
    raw_facts,
    size,
    unit,
)
from adaptiveisp.errors import UsageError
from adaptiveisp.utils import defaults
from adaptiveisp.utils.optional_imports import require_extra

if TYPE_CHECKING:
    from adaptiveisp.inference.frames import Frame
    from adaptiveisp.inference.predictor import AdaptiveISP
    from adaptiveisp.inference.run_summary import RunSummary
    from adaptiveisp.policies.base import Policy
    from adaptiveisp.types import Detector
    from adaptiveisp.utils.output_folder import FolderClaim

MOST_LINES = 1000
"""Most lines of the printed table; the files have all."""


def add(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "run",
        "render raw files and detect objects in them",
        "Renders each raw file by the pipeline that a policy chooses, detects objects, and writes image, boxes and "
        "pipeline.",
    )
    text = "raw files, folders, globs, .tar shards of raws, or URLs of them (s3://, https://, …)"
    # Not "+": an INPUT after a single --policy P is taken for a further policy first, see `_inputs_and_policies`.
    parser.add_argument("inputs", nargs="*", metavar="INPUT", help=f"{text}; before --policy")
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
    _add_many(parser)
    add_backend(parser)
    add_raw_facts(parser)
    add_modules(parser)
    text = "threads that read, compute and encode; 0 does one frame after the other (default: one for each CPU thread)"
    add_common(parser, workers_help=text)
    parser.set_defaults(command=run, workers=None)


def _add_many(parser: argparse.ArgumentParser) -> None:
    """Adds the options for many frames."""
    group = parser.add_argument_group("many frames")
    text = (
        "what is written beside a row for each frame: json, nothing; boxes, the picture with boxes; all, image, boxes "
        f"and pipeline {DEFAULT}"
    )
    group.add_argument("--write", choices=("json", "boxes", "all"), default="all", help=text)
    text = f"file of the rows: results.jsonl, or results.parquet with the same columns {DEFAULT}"
    group.add_argument("--format", dest="rows", choices=("jsonl", "parquet"), default="jsonl", help=text)
    text = f"png, lossless, or jpeg of quality 95 {DEFAULT}"
    group.add_argument("--pictures", choices=("png", "jpeg"), default="png", help=text)
    text = "go on with a run that was stopped: the same command and this option; frames that have their row are kept"
    group.add_argument("--resume", action="store_true", help=text)
    text = "only the frames whose number leaves the remainder I-1 by N, for instance 1/4; rows of shards concatenate"
    group.add_argument("--shard", metavar="I/N", help=text)
    text = f"frames that go through the detector at once, for a GPU {DEFAULT}"
    group.add_argument("--batch", type=positive, default=1, metavar="N", help=text)
    text = "results in blocks of N frames, rows part-….jsonl and files part-….tar, instead of files of each input"
    group.add_argument("--block", type=positive, metavar="N", help=f"{text} (with --engine ray: default 64)")
    text = f"where the work is done: local, or ray, a cluster by Ray Data ('adaptiveisp[ray]') {DEFAULT}"
    group.add_argument("--engine", choices=("local", "ray"), default="local", help=text)
    group.add_argument("--address", metavar="A", help=ADDRESS_HELP)
    text = "with --engine ray, most processes that render, and most that detect (default 2)"
    group.add_argument("--actors", type=natural, default=0, metavar="N", help=text)
    text = f"with --engine ray, share of a GPU of each of these processes {DEFAULT}"
    group.add_argument("--gpus", type=unit, default=0.0, metavar="S", help=text)


def run(options: argparse.Namespace) -> int:
    """Renders raw files by a policy, or by several, and detects objects in them."""
    inputs, policies = _inputs_and_policies(options)
    _check(options, len(policies))
    if len(policies) > 1:
        from adaptiveisp.cli.run_several import run_several

        return run_several(options, inputs, policies)
    isp = load_predictor(options, policies[0] if policies else None, set_up_torch(options))
    found = find_inputs(options, inputs)
    with claimed(options) as claim:
        return run_into(claim, isp, found, options)


def _inputs_and_policies(options: argparse.Namespace) -> tuple[list[str], list[str]]:
    """The inputs and the policies; `--policy P INPUT…` without other inputs has one policy.

    Raises:
        UsageError: there is no input, or a policy stands where one would be taken for an input.
    """
    inputs, policies = list(options.inputs), list(options.policies or ())
    if not inputs:
        inputs, policies = policies[1:], policies[:1]
        if taken := next((text for text in inputs if _is_policy(text)), None):
            raise UsageError(f"--policy … {taken}: is a policy, taken for an INPUT; give the INPUTs before --policy")
    if not inputs:
        raise UsageError("run: the following arguments are required: INPUT; see `adaptiveisp run --help`")
    return inputs, policies


def _is_policy(text: str) -> bool:
    """Whether a text names a policy and no raws: a name, a run folder, which holds pictures too, or a policy's file."""
    from adaptiveisp.policies.registry import NAMED_POLICIES, SHIPPED
    from adaptiveisp.utils.output_folder import marker_kind

    if os.path.isdir(text):
        return marker_kind(Path(text)) == "train"
    return Path(text).suffix in (".safetensors", ".json") or (
        text in (*NAMED_POLICIES, *SHIPPED) and not os.path.exists(text)
    )


class Inputs(NamedTuple):
    """The frames of a run.

    Attributes:
        frames: all of them.
        chosen: those of the shard.
        missing: inputs that do not exist, each with the reason.
    """

    frames: "list[Frame]"
    chosen: "list[Frame]"
    missing: list[tuple[str, str]]


def find_inputs(options: argparse.Namespace, inputs: list[str]) -> Inputs:
    """The frames that the inputs name.

    Raises:
        UsageError: the shard has none, or one lies in the output folder.
    """
    from adaptiveisp.inference.batch import check_outputs
    from adaptiveisp.inference.frames import find_frames, in_shard, shard_of, stamped

    shard = shard_of("1/1" if options.shard is None else options.shard)
    frames, missing = find_frames(inputs, exclude=options.out)
    frames = frames[: options.limit or None]
    check_outputs(frames, options.out)
    chosen = stamped(in_shard(frames, shard))
    if not chosen:
        raise UsageError(f"--shard {options.shard}: there are only {len(frames)} frames; give fewer shards")
    return Inputs(frames, chosen, missing)


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


def _check(options: argparse.Namespace, n_policies: int) -> None:
    """Refuses options that contradict each other, and a format whose library is missing, before any work.

    Raises:
        UsageError: two options contradict each other.
        AdaptiveISPError: pyarrow or ray is not installed, or no cluster answers at its address.
    """
    from adaptiveisp.scale.ray_address import require_cluster

    if options.resume and options.overwrite:
        raise UsageError("--resume keeps what is there and --overwrite replaces it; give one of them")
    for name in ("full", "save_steps", "explain"):
        if getattr(options, name) and options.write != "all":
            flag = name.replace("_", "-")
            raise UsageError(f"--{flag} writes pictures, --write {options.write} does not; leave one of them out")
    if options.rows == "parquet":
        require_extra("parquet", "pyarrow")
    if options.resume and options.explain:
        raise UsageError("--resume with --explain: its page is about all frames of one run; leave one of them out")
    if options.engine == "ray":
        require_extra("ray", "ray", "pyarrow")
        require_cluster(options.address or "")
    elif given := [name for name in ("address", "actors", "gpus") if getattr(options, name)]:
        raise UsageError(f"--{given[0]} is for --engine ray; give that too, or leave it out")
    for what, wanted in (("several policies", n_policies > 1), ("--explain", options.explain)):
        if wanted and (options.block or options.engine == "ray"):
            raise UsageError(f"{what}: its page is made of one folder by one process; leave out --block and --engine")
    if options.explain or n_policies > 1:
        require_extra("report", "jinja2")  # for the page


def claimed(options: argparse.Namespace) -> "FolderClaim":
    """The claim of the output folder; to resume, of one that an earlier run has begun."""
    from adaptiveisp.inference.result_files import SETTINGS_FILE
    from adaptiveisp.utils.output_folder import claim_folder, is_outdated, reclaim_folder

    if options.resume and ((options.out / SETTINGS_FILE).exists() or is_outdated(options.out)):
        return reclaim_folder(options.out, "run")
    try:
        return claim_folder(options.out, "run", options.overwrite)
    except UsageError as error:
        if options.resume:
            raise UsageError(str(error).replace("add --overwrite", "--overwrite instead of --resume")) from None
        raise


def run_into(claim: "FolderClaim", isp: "AdaptiveISP", inputs: Inputs, options: argparse.Namespace) -> int:
    """Writes the results of the chosen frames into a claimed folder, prints them, and returns the exit code."""
    from adaptiveisp.detectors.backends.choice import backends_of
    from adaptiveisp.errors import DataError
    from adaptiveisp.inference.batch import run_files
    from adaptiveisp.inference.explanation import ExplanationWriter
    from adaptiveisp.inference.frames import Changes, tell_changes
    from adaptiveisp.inference.journal import Journal
    from adaptiveisp.inference.mapping import is_thread_safe
    from adaptiveisp.inference.result_files import EXPLAIN_FILE
    from adaptiveisp.inference.run_options import RunOptions
    from adaptiveisp.inference.run_settings import settings_of
    from adaptiveisp.utils.provenance import provenance

    out, name = claim.folder, isp.detector.name
    origin = provenance(options.seed, {name: isp.detector.weights_sha256}, backends={name: backends_of(isp.detector)})
    explainer = ExplanationWriter(origin)
    wanted = RunOptions(
        full=options.full,
        save_steps=options.save_steps,
        save_params=options.save_params,
        header=raw_facts(options),
        write=options.write,
        pictures=options.pictures,
        rows=options.rows,
        batch=options.batch,
        workers=0 if options.explain and not is_thread_safe(isp) else options.workers,  # it detects on these threads
        writers=(explainer,) if options.explain else (),
        explain=options.explain,
    )
    if options.block or options.engine == "ray":
        from adaptiveisp.cli.run_blocks import run_blocks

        return run_blocks(claim, isp, inputs, options, wanted, origin)
    settings = settings_of(isp, wanted, inputs.frames, options.shard)
    changes = Changes(inputs.chosen if options.resume else ())
    with Journal(out, settings, options.resume, changes) as journal:
        tell_changes(changes.changed)
        with progress(options, len(inputs.chosen), "run") as bar:
            summary = run_files(isp, inputs.chosen, journal, wanted, origin, lambda name: bar.update())
        skipped = inputs.missing + summary.skipped
        if not summary.n_results:  # files of an earlier run stay unchanged
            say_skips(skipped)
            raise DataError("no input could be used")
        code = report_skips(out, skipped, origin)
        if options.explain and explainer.found.count:
            from adaptiveisp.evaluation.explanation_page import write_explanations

            write_explanations(explainer.found, out / EXPLAIN_FILE, isp.policy.name, name, origin)
        if not options.quiet:
            _print(summary, isp, out, len(skipped))
    return code


def _print(summary: "RunSummary", isp: "AdaptiveISP", out: Path, n_skipped: int) -> None:
    """Prints a line for each image, at most `MOST_LINES`, and what there is altogether."""
    from adaptiveisp.evaluation.tables import table
    from adaptiveisp.inference.result_files import EXPLAIN_FILE

    if isp.policy.note:
        print(isp.policy.note)
    lines = [
        (
            Path(r.file).name,
            " ".join(r.modules) or "no module",
            r.found,
            f"{r.milliseconds:.1f}",
            f"{r.timings['total']:.0f}",
        )
        for r in islice(summary.rows, MOST_LINES)
    ]
    print(table(("file", "modules", "best boxes", "ms", "total ms"), lines))
    if summary.n_results > len(lines):
        print(f"{summary.n_results - len(lines)} more in {out / 'summary.json'}")
    if isp.latency_ms is not None:
        print(latency_line(summary.latency(isp.latency_ms)))
    seen = f"; all pictures: {out / 'overview.png'}" if (out / "overview.png").exists() else ""
    print(f"{summary.n_results} image{'' if summary.n_results == 1 else 's'} in {out}, {n_skipped} skipped{seen}")
    if (out / EXPLAIN_FILE).exists():
        print(f"what each module is worth: {out / EXPLAIN_FILE}")


def latency_line(found: dict[str, Any]) -> str:
    """The outcome of --latency-ms as a line.

    Args:
        found: see `RunSummary.latency`.
    """
    listed = ", ".join(f"{name} from {count}" for name, count in found["dropped_modules"].items())
    share = f"{100 * found['share_within']:.0f} %"
    return f"at most {found['latency_ms']:g} ms for {share} of the images; dropped: {listed or 'no module'}"
