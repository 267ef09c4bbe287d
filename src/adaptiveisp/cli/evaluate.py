"""The command `eval`: scores policies and detectors on labelled data, and writes the report."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptiveisp.cli.console import check_files, given, progress, report_skips, set_up_torch
from adaptiveisp.cli.exit_codes import DONE
from adaptiveisp.cli.options import (
    ADDRESS_HELP,
    CACHE_HELP,
    COSTS_HELP,
    DATA_HELP,
    DEFAULT,
    DETECTOR_HELP,
    DRAWS_HELP,
    LATENCY_HELP,
    LIGHTS_HELP,
    POLICY_HELP,
    SIZE_HELP,
    WHITE_BALANCE_HELP,
    add_backend,
    add_command,
    add_common,
    add_modules,
    add_sensor,
    milliseconds,
    natural,
    positive,
    resamples,
    size,
)
from adaptiveisp.errors import UsageError, logger
from adaptiveisp.utils import defaults
from adaptiveisp.utils.optional_imports import require_extra

if TYPE_CHECKING:
    from adaptiveisp.evaluation.api import PreparedEvaluation
    from adaptiveisp.evaluation.config import EvalConfig

GROUP_HELP = "or NAME=P1,P2,… for runs of one method with several seeds"
EVAL_POLICY_HELP = f"{POLICY_HELP}; greedy-oracle or greedy-oracle-raw, upper bounds that use the labels (slow)"
SENSOR = ("noise", "bits", "camera_matrix", "illuminants")
"""Options of the sensor and the light sources of raws that are made of photos."""
LOG_FILE = "eval.log"
"""Name of the file of progress lines in the folder of an evaluation."""


def add(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "eval",
        "compare policies on labelled data and write a report",
        "Scores policies and detectors by average precision on the same images, with confidence intervals of "
        "their differences.",
    )
    text = f"{DATA_HELP}; of several, each alone and the mean over them"
    parser.add_argument("--data", nargs="+", type=Path, required=True, metavar="DATA", help=text)
    text = "folder of its images; of several COCO JSONs one folder for all, or one for each"
    parser.add_argument("--images", nargs="+", type=Path, metavar="DIR", help=text)
    text = f"{EVAL_POLICY_HELP}; {GROUP_HELP}"
    parser.add_argument("--policy", dest="policies", nargs="+", required=True, metavar="P", help=text)
    several = f"with several detectors, every policy is scored with each (default {defaults.DETECTOR})"
    text = f"{DETECTOR_HELP}; {several}"
    parser.add_argument("--detector", dest="detectors", nargs="+", action="extend", metavar="D", help=text)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    parser.add_argument("--light", metavar="L", help=f"make raws of sRGB photos on the fly: {LIGHTS_HELP}")
    text = f"{DRAWS_HELP}, or one number for each of several data sets (default {defaults.DRAWS})"
    parser.add_argument("--draws", nargs="+", type=positive, metavar="N", help=text)
    add_sensor(parser)
    parser.add_argument("--size", type=size, metavar="N", help=SIZE_HELP)
    parser.add_argument("--steps", type=natural, metavar="N", help="steps of policies and oracles (default: their own)")
    parser.add_argument("--costs", type=Path, metavar="FILE", help=COSTS_HELP)
    parser.add_argument("--latency-ms", type=milliseconds, metavar="X", help=LATENCY_HELP)
    parser.add_argument("--camera-white-balance", action="store_true", help=WHITE_BALANCE_HELP)
    parser.add_argument("--cache", metavar="DIR", help=CACHE_HELP)
    text = f"resamples of the paired bootstrap, {defaults.MIN_RESAMPLES} or more (default {defaults.RESAMPLES})"
    parser.add_argument("--resamples", type=resamples, metavar="N", help=text)
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write the scores as CSV")
    parser.add_argument("--md", type=Path, metavar="FILE", help="also write the tables as Markdown")
    _add_shards(parser)
    add_backend(parser)
    add_modules(parser)
    add_common(parser)
    parser.set_defaults(command=evaluate)


def _add_shards(parser: argparse.ArgumentParser) -> None:
    """Adds the options that split an evaluation among processes or hosts."""
    group = parser.add_argument_group("several processes or hosts")
    text = "measure only the samples whose number leaves the remainder I-1 by N, for instance 1/4, for --merge"
    group.add_argument("--shard", metavar="I/N", help=text)
    text = "put together what --shard wrote into these folders, with the same options, into the one report"
    group.add_argument("--merge", nargs="+", type=Path, default=[], metavar="DIR", help=text)
    text = f"where the samples are measured: local, or ray, a cluster, in --shards parts ('adaptiveisp[ray]') {DEFAULT}"
    group.add_argument("--engine", choices=("local", "ray"), default="local", help=text)
    group.add_argument("--shards", type=natural, default=0, metavar="N", help="parts (default: one for each CPU)")
    group.add_argument("--address", default="", metavar="A", help=ADDRESS_HELP)


def evaluate(options: argparse.Namespace) -> int:
    """Scores policies and detectors on labelled data, writes the report and prints its tables."""
    from adaptiveisp.evaluation.api import prepare
    from adaptiveisp.evaluation.former_results import remove_shards
    from adaptiveisp.evaluation.tables import markdown_tables, scores_csv
    from adaptiveisp.inference.frames import shard_of
    from adaptiveisp.utils.files import write_text
    from adaptiveisp.utils.output_folder import claim_folder

    if options.shard and options.merge:
        raise UsageError("--shard measures a part and --merge puts all parts together; give one of them")
    shard = shard_of("1/1" if options.shard is None else options.shard)
    _check_engine(options)
    device = set_up_torch(options)
    _warn_of_options_without_effect(options)
    check_files((options.csv, options.md), options.overwrite)
    prepared = prepare(_config(options, device))
    out = options.out
    if options.shard:
        return _measure(prepared, shard, options)
    with claim_folder(out, "eval", options.overwrite):
        total = 0 if options.merge else prepared.n_samples
        with progress(options, total, "eval", log=out / LOG_FILE) as bar:
            parts = options.merge
            if options.engine == "ray":
                from adaptiveisp.scale.ray_engine import RayConfig
                from adaptiveisp.scale.ray_evaluation import measure_on_ray

                remove_shards(out)
                config = RayConfig(options.address, gpus=1.0 if device == "cuda" else 0.0)
                parts = measure_on_ray(prepared, out, options.shards, config, tuple(options.own_modules), bar.update)
            report = prepared.run(lambda name: bar.update(), parts)
        remove_shards(out, kept=parts)
        report.save(out)
        code = report_skips(out, list(report.skipped), dict(report.provenance))
    for path, text in ((options.csv, scores_csv(report)), (options.md, markdown_tables(report))):
        if path is not None:
            write_text(path, text)
    if not options.quiet:
        print(report.table())
        print(f"report: {out / 'report.html'}; pipelines and losses of each image: {out / 'pipelines.jsonl'}")
        print(f"detections as COCO results: {out / 'coco'}")
    return code


def _check_engine(options: argparse.Namespace) -> None:
    """Refuses options of the engine that do not fit, and an engine that is not installed.

    Raises:
        UsageError: an option has no effect.
        AdaptiveISPError: ray is not installed, or no cluster answers at its address.
    """
    from adaptiveisp.scale.ray_address import require_cluster

    if options.engine == "ray":
        if options.shard or options.merge:
            raise UsageError("--engine ray makes its shards and merges them; leave out --shard and --merge")
        require_extra("ray", "ray")
        require_cluster(options.address)
    elif options.shards or options.address:
        raise UsageError("--shards and --address are for --engine ray; give that too, or leave them out")


def _measure(prepared: "PreparedEvaluation", shard: tuple[int, int], options: argparse.Namespace) -> int:
    """Measures the samples of one shard, and says how to go on."""
    from adaptiveisp.evaluation.former_results import remove_report, remove_shards
    from adaptiveisp.evaluation.shards import SHARD_FILE, numbers_of
    from adaptiveisp.utils.output_folder import claim_folder

    out = options.out
    total = sum(len(numbers_of(shard, len(dataset.samples))) for dataset in prepared.datasets.values())
    with claim_folder(out, "eval", options.overwrite), progress(options, total, "eval", log=out / LOG_FILE) as bar:
        remove_report(out)
        remove_shards(out)  # before measuring: --merge would take that of an earlier evaluation for this one
        skipped = prepared.write_shard(out, shard, lambda name: bar.update())
    if not options.quiet:
        print(f"shard {options.shard}: {total} samples, {skipped} left out, in {out / SHARD_FILE}")
        print("the report: the same options with --merge and the folders of all shards instead of --shard")
    return DONE


def _config(options: argparse.Namespace, device: str) -> "EvalConfig":
    """The configuration from the options; options that were not given keep the defaults of the configuration."""
    from adaptiveisp.data.synthetic import SynthesisConfig
    from adaptiveisp.evaluation.config import EvalConfig

    synthesis = None
    if options.light is not None:
        sensor, draws = given(options, *SENSOR), options.draws or [defaults.DRAWS]
        if len(draws) not in (1, len(options.data)):
            found = f"{len(draws)} numbers for {len(options.data)} data sets"
            raise UsageError(f"--draws: {found}; give one for each, in their order, or one for all")
        one_each = [SynthesisConfig(options.light, number, seed=options.seed, **sensor) for number in draws]
        synthesis = one_each if len(one_each) > 1 else one_each[0]
    names = ("images", "size", "steps", "costs", "latency_ms", "cache", "resamples", "limit", "workers", "seed")
    chosen = given(options, "detectors", *names)
    return EvalConfig(
        options.data,
        options.policies,
        synthesis=synthesis,
        camera_white_balance=options.camera_white_balance,
        device=device,
        backend=options.backend,
        precision=options.precision,
        **chosen,
    )


def _warn_of_options_without_effect(options: argparse.Namespace) -> None:
    """Warns of options for synthetic raws if no raws are made."""
    if options.light is None:
        for name in given(options, "draws", *SENSOR):
            flag = name.replace("_", "-")
            logger.warning("--%s has no effect without --light, which makes raws of photos", flag)
