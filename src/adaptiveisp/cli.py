"""The command line: parsing, progress, summaries and exit codes; the work is done elsewhere.

Heavy imports are inside the commands, so that help appears at once; argparse needs no import time of its own.
"""

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptiveisp.errors import AdaptiveISPError, UsageError, logger

if TYPE_CHECKING:
    from adaptiveisp.policies import AnyPolicy
    from adaptiveisp.presets import ActorCriticConfig
    from adaptiveisp.raw import BayerHeader
    from adaptiveisp.training import TrainOptions

DONE, FAILED, WRONG_USE, DONE_WITH_SKIPS, INTERRUPTED = 0, 1, 2, 3, 130

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

LIGHTS_HELP = "brightness factor, log-uniform: dark 0.003 to 0.05, mixed 0.003 to 1, normal 0.3 to 1"
POLICY_HELP = "none, auto-exposure, camera, night, a pipeline .json, a policy .safetensors or a run folder"
DETECTOR_HELP = "a name of `weights list`, a .weights file with its .cfg beside it, or my_pkg.my_file:load"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0 done, 1 failed, 2 wrong use, 3 done but inputs were skipped."""
    parser = build_parser()
    try:
        options = parser.parse_args(argv)
    except SystemExit as stop:  # argparse has printed help, version or its error
        return int(stop.code or 0)
    command: Callable[[argparse.Namespace], int] = options.function
    if getattr(options, "verbose", False):
        logging.basicConfig(format="%(name)s: %(message)s")
        logger.setLevel(logging.DEBUG)
    try:
        return command(options)
    except BrokenPipeError:
        sys.stderr.close()
        return FAILED
    except UsageError as error:
        return _fail(error, WRONG_USE)
    except AdaptiveISPError as error:
        return _fail(error, FAILED)
    except OSError as error:  # such as a path that is too long, wherever it is first looked at
        return _fail(f"{error.filename or 'input'}: {error.strerror or error}; check the path", FAILED)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)


def _fail(error: object, code: int) -> int:
    print(f"adaptiveisp: {error}", file=sys.stderr)
    return code


def build_parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = _Parser(
        prog="adaptiveisp",
        description="Per-image pipelines of differentiable ISP modules that let a frozen object detector see better.",
        epilog="Exit codes: 0 done; 1 failed, nothing usable; 2 wrong use; 3 done, but inputs were skipped.",
    )
    parser.add_argument("--version", action=_Version, help="show the version and exit")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=_Parser)
    for add in (_add_demo, _add_run, _add_train, _add_eval, _add_synth, _add_import, _add_weights):
        add(commands)
    return parser


class _Parser(argparse.ArgumentParser):
    """Takes options by their full names only: scripts must not depend on abbreviations."""

    def __init__(self, **keywords: Any):
        super().__init__(**{**keywords, "allow_abbrev": False})


class _Version(argparse.Action):
    """Looks the version up only when asked, since importlib.metadata takes longer than the rest of the parser."""

    def __init__(self, option_strings: Sequence[str], dest: str, **keywords: Any):
        super().__init__(option_strings, dest, nargs=0, **keywords)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from adaptiveisp.provenance import package_version

        print(f"adaptiveisp {package_version()}")
        parser.exit()


def _common(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("common options")
    group.add_argument("--seed", type=_natural, default=0, metavar="N", help="fixes all randomness (default 0)")
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default auto")
    group.add_argument("--threads", type=_natural, default=0, metavar="N", help="threads of torch (default: all cores)")
    group.add_argument(
        "--workers", type=_natural, default=0, metavar="N", help="processes reading ahead, in eval (default 0)"
    )
    group.add_argument(
        "--limit",
        type=_natural,
        default=0,
        metavar="N",
        help="use the first N photos only, with all their draws",
    )
    group.add_argument("--overwrite", action="store_true", help="replace files in an existing --out")
    group.add_argument("-v", "--verbose", action="store_true", help="say more: tracebacks of surprises")
    group.add_argument("-q", "--quiet", action="store_true", help="no progress, no summary")


def _add_demo(commands: Any) -> None:
    parser = commands.add_parser(
        "demo",
        help="end to end on embedded photos turned into DNGs",
        description="Turns four photos into DNGs at three light levels and compares policies on them.",
    )
    parser.add_argument("--out", type=Path, default=Path("demo-out"), metavar="DIR", help="default demo-out")
    parser.add_argument("--detector", default="yolov3-tiny", metavar="D", help=DETECTOR_HELP)
    _common(parser)
    parser.set_defaults(function=_demo)


def _add_run(commands: Any) -> None:
    parser = commands.add_parser(
        "run",
        help="raw files → image, boxes, pipeline JSON",
        description="Develops raw files by a policy's pipelines, detects, writes image, boxes and pipeline of each.",
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="raw files, folders, globs")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    parser.add_argument("--policy", metavar="P", help=f"{POLICY_HELP} (default auto-exposure)")
    parser.add_argument(
        "--pipeline",
        type=Path,
        metavar="FILE.json",
        help="run this file's modules; with --policy P their parameters are P's",
    )
    parser.add_argument("--detector", default="yolov3-tiny", metavar="D", help=f"{DETECTOR_HELP} (default yolov3-tiny)")
    parser.add_argument("--size", type=_size, default=416, metavar="N", help="longer side in pixels (default 416)")
    parser.add_argument(
        "--confidence", type=_unit, default=0.05, metavar="S", help="least score of a box in the files (default 0.05)"
    )
    parser.add_argument("--full", action="store_true", help="also render the full frame")
    parser.add_argument("--save-steps", action="store_true", help="also the image after each module")
    parser.add_argument("--save-params", action="store_true", help="also params.csv with every parameter")
    parser.add_argument(
        "--camera-white-balance", action="store_true", help="apply the camera's gains before the policy"
    )
    group = parser.add_argument_group("raw without a header (or a sidecar FILE.yaml, or raw.yaml in the folder)")
    group.add_argument("--raw-size", metavar="WxH", help="width and height in pixels, for instance 2592x1536")
    group.add_argument("--raw-bits", type=int, metavar="N", help="bits a value: 8, or 9 to 16 in 16-bit little-endian")
    group.add_argument("--raw-pattern", metavar="RGGB", help="RGGB, BGGR, GRBG or GBRG")
    group.add_argument("--raw-black", type=float, metavar="V", help="value of no light (default 0)")
    group.add_argument("--raw-white", type=float, metavar="V", help="value of saturation (default 2^bits - 1)")
    _common(parser)
    parser.set_defaults(function=_run)


def _add_eval(commands: Any) -> None:
    parser = commands.add_parser(
        "eval",
        help="compare policies on labelled data: report.json, report.html",
        description="Average precision of policies and detectors on the same images, with paired intervals.",
    )
    _add_data(parser)
    parser.add_argument("--policy", nargs="+", required=True, metavar="P", help=POLICY_HELP)
    parser.add_argument("--detector", nargs="+", default=["yolov3-tiny"], metavar="D", help=DETECTOR_HELP)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    parser.add_argument("--light", metavar="L", help=f"make raws of sRGB photos on the fly: {LIGHTS_HELP}")
    parser.add_argument("--draws", type=_positive, default=1, metavar="N", help="lights and noises a photo (default 1)")
    parser.add_argument("--noise", choices=("sensor", "brooks", "none"), default="sensor", help="default sensor")
    parser.add_argument("--size", type=_size, default=416, metavar="N", help="longer side in pixels (default 416)")
    parser.add_argument("--steps", type=_natural, default=0, metavar="N", help="steps of step-wise policies")
    parser.add_argument("--camera-white-balance", action="store_true", help="apply the camera's gains before a policy")
    parser.add_argument(
        "--resamples",
        type=_resamples,
        default=1000,
        metavar="N",
        help="of the paired bootstrap, 200 or more (default 1000)",
    )
    _common(parser)
    parser.set_defaults(function=_eval)


def _add_synth(commands: Any) -> None:
    parser = commands.add_parser(
        "synth",
        help="labelled synthetic raw set from labelled photos",
        description="Turns labelled sRGB photos into labelled raws: OUT/<light>/images and OUT/<light>/labels.json.",
    )
    _add_data(parser, images_required=True)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    parser.add_argument("--light", required=True, metavar="L[,L…]", help=LIGHTS_HELP)
    parser.add_argument("--draws", type=_positive, default=1, metavar="N", help="lights and noises a photo (default 1)")
    parser.add_argument("--format", choices=("png16", "dng"), default="png16", help="default png16")
    parser.add_argument("--noise", choices=("sensor", "brooks", "none"), default="sensor", help="default sensor")
    _common(parser)
    parser.set_defaults(function=_synth)


def _add_data(parser: argparse.ArgumentParser, images_required: bool = False) -> None:
    text = "COCO JSON of the photos" if images_required else "a folder made by synth, or a COCO JSON with --images"
    parser.add_argument("--data", type=Path, required=True, metavar="DATA", help=text)
    parser.add_argument("--images", type=Path, required=images_required, metavar="DIR", help="folder of its images")


def _add_train(commands: Any) -> None:
    parser = commands.add_parser(
        "train",
        help="learn a policy",
        description="Learns a policy for a frozen detector. A run goes on exactly where it was with --resume RUN.",
    )
    parser.add_argument("--resume", type=Path, metavar="RUN", help="go on with the run in this folder")
    parser.add_argument("--method", choices=("actor_critic",), default="actor_critic", help="default actor_critic")
    parser.add_argument("--preset", default="cpu", metavar="NAME", help="paper, released or cpu (default cpu)")
    parser.add_argument("--data", metavar="DATA", help="COCO JSON of the training photos")
    parser.add_argument("--images", metavar="DIR", help="folder of the photos")
    parser.add_argument("--dev", default="", metavar="DATA", help="COCO JSON of the photos that choose the best policy")
    parser.add_argument("--light", default="mixed", metavar="L", help=f"{LIGHTS_HELP} (default mixed)")
    parser.add_argument("--noise", choices=("sensor", "brooks", "none"), default="sensor", help="default sensor")
    parser.add_argument("--detector", default="yolov3-tiny", metavar="D", help=DETECTOR_HELP)
    parser.add_argument("--out", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--budget", type=_positive, default=12_000, metavar="PASSES", help="detector passes (12000)")
    parser.add_argument("--size", type=_size, metavar="N", help="side of the training images (default: the preset's)")
    parser.add_argument("--bootstrap", choices=("greedy", "td"), help="default: the preset's")
    parser.add_argument("--discount", type=_unit, metavar="G", help="of the next value (default: the preset's)")
    parser.add_argument("--runtime-weight", type=float, metavar="L", help="reward per ms of cost (default 0)")
    _common(parser)
    parser.set_defaults(function=_train)


def _add_import(commands: Any) -> None:
    parser = commands.add_parser(
        "import",
        help="released checkpoint → policy file",
        description="Turns a checkpoint of the released AdaptiveISP code into a policy file for run and eval.",
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="a .pth with agent_model and value_model")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.safetensors", help="policy file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.set_defaults(function=_import)


def _add_weights(commands: Any) -> None:
    parser = commands.add_parser("weights", help="list or fetch detector weights", description="Detector weights.")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True, parser_class=_Parser)
    listing = actions.add_parser("list", help="what there is and what is installed")
    listing.set_defaults(function=_weights_list)
    get = actions.add_parser("get", help="fetch weights, check their hash, keep them in the cache folder")
    get.add_argument("name", metavar="NAME", help="a name of `weights list`")
    get.add_argument("--from", dest="source", type=Path, metavar="FILE", help="take them from this file instead")
    get.set_defaults(function=_weights_get)


def _natural(text: str) -> int:
    return _integer(text, 0, 1 << 31)


def _positive(text: str) -> int:
    return _integer(text, 1, 1 << 31)


def _size(text: str) -> int:
    return _integer(text, 32, 8192)


def _resamples(text: str) -> int:
    return _integer(text, 200, 1_000_000)


def _integer(text: str, low: int, high: int) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{value} is not in {low} to {high}")
    return value


def _unit(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{value} is not in 0 to 1")
    return value


def _set_up_torch(options: argparse.Namespace) -> str:
    """Applies --threads and --device and returns the device's name."""
    import torch

    if options.threads:
        torch.set_num_threads(options.threads)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: torch sees no CUDA device here; use --device cpu")
    if options.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return str(options.device)


def _progress(options: argparse.Namespace, total: int, what: str, unit: str = "image") -> Any:
    from tqdm import tqdm

    # In a log file every update is a line of its own: one in half a minute is enough there.
    interval = 0.1 if sys.stderr.isatty() else 30.0
    return tqdm(
        total=total,
        desc=what,
        unit=unit,
        disable=options.quiet,
        leave=False,
        dynamic_ncols=True,
        mininterval=interval,
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


def _run_policy(options: argparse.Namespace) -> "AnyPolicy":
    """What --policy and --pipeline ask for together."""
    from adaptiveisp.isp.pipeline import Pipeline
    from adaptiveisp.policies import CameraDevelopment, FixedPipeline, ForcedModules
    from adaptiveisp.zoo import load_policy

    if options.pipeline is None:
        return load_policy(options.policy or "auto-exposure")
    pipeline = Pipeline.load(options.pipeline)
    if options.policy is None:
        return FixedPipeline(pipeline, options.pipeline.stem)
    policy = load_policy(options.policy)
    if isinstance(policy, CameraDevelopment):
        raise UsageError("--policy camera is no pipeline of modules; leave out --pipeline")
    return ForcedModules(policy, pipeline)


def _run(options: argparse.Namespace) -> int:
    from adaptiveisp.errors import DataError
    from adaptiveisp.files import prepare_output_folder
    from adaptiveisp.predictor import AdaptiveISP
    from adaptiveisp.provenance import provenance
    from adaptiveisp.raw import find_raw_files
    from adaptiveisp.run import RunOptions, check_outputs, remove_former_outputs, run_files

    device = _set_up_torch(options)
    policy, header = _run_policy(options), _header(options)
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
        raise DataError(f"{out}: no input could be used; see skipped.json there")
    if not options.quiet:
        lines = [
            (Path(r.file).name, " ".join(r.modules) or "no module", r.found, f"{r.milliseconds:.1f}")
            for r in summary.rows
        ]
        print(_table(("file", "modules", "best boxes", "ms"), lines))
        print(f"{len(lines)} images in {out}, {len(skipped)} skipped; the pictures together: {out / 'overview.png'}")
    return code


def _eval(options: argparse.Namespace) -> int:
    from adaptiveisp.datasets import open_dataset
    from adaptiveisp.detectors import load_detector
    from adaptiveisp.evaluate import EvaluationOptions, evaluate, notes_on
    from adaptiveisp.files import prepare_output_folder
    from adaptiveisp.provenance import provenance
    from adaptiveisp.report import build_report, write_report
    from adaptiveisp.zoo import load_policy

    device = _set_up_torch(options)
    policies = [load_policy(spec, device, options.steps) for spec in dict.fromkeys(options.policy)]
    dataset = open_dataset(
        options.data, options.images, options.light, options.draws, options.noise, options.seed, options.limit
    )
    detectors = [load_detector(spec, device) for spec in dict.fromkeys(options.detector)]
    for kind, names in (("policies", [p.name for p in policies]), ("detectors", [d.name for d in detectors])):
        if len(set(names)) < len(names):
            raise UsageError(f"two {kind} have the same name ({', '.join(names)}); rename a file")
    out = prepare_output_folder(options.out, options.overwrite)
    settings = EvaluationOptions(options.size, options.camera_white_balance, options.workers, device)
    with _progress(options, len(dataset.samples), "eval") as bar:
        found = evaluate(dataset, policies, detectors, settings, lambda name: bar.update())
    origin = provenance(options.seed, {d.name: d.weights_sha256 for d in detectors})
    report = build_report(
        found.results,
        found.categories,
        origin,
        notes_on(found, dataset),
        options.resamples,
        options.seed,
        settings={name: getattr(options, name) for name in EVAL_SETTINGS},
    )
    write_report(report, out, found.sheets, title=f"Evaluation on {dataset.name}")
    code = _report_skips(out, found.skipped, origin)
    if not options.quiet:
        print(_score_tables(report))
        print(f"report: {out / 'report.html'}")
    return code


def _synth(options: argparse.Namespace) -> int:
    from adaptiveisp.datasets.coco import load_coco
    from adaptiveisp.files import prepare_output_folder
    from adaptiveisp.provenance import provenance
    from adaptiveisp.synth import SynthOptions, synthesise_set
    from adaptiveisp.unprocess import light_range

    _set_up_torch(options)
    lights = tuple(dict.fromkeys(light.strip() for light in options.light.split(",") if light.strip()))
    for light in lights:
        light_range(light)
    if not lights:
        raise UsageError(f"--light {options.light!r} names no light; {LIGHTS_HELP}")
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
            _table(
                ("light", "raws", "labels"),
                [(k, str(n), str(out / k / "labels.json")) for k, n in summary.written.items()],
            )
        )
    return code


def _demo(options: argparse.Namespace) -> int:
    from adaptiveisp.demo import run_demo
    from adaptiveisp.files import prepare_output_folder

    device = _set_up_torch(options)
    out = prepare_output_folder(options.out, options.overwrite)
    with _progress(options, 0, "demo") as bar:
        report = run_demo(out, options.detector, options.seed, device, lambda name: bar.update())
    if not options.quiet:
        print(_score_tables(report))
        print(
            "Reference: the detector's own boxes (score 0.5 or more) on the clean photos. 4 photos show how it works, "
            "they measure nothing; docs/results.md does."
        )
        print(f"report: {out / 'report.html'}   figure: {out / 'figure.png'}   raws: {out / 'raws'}")
    return DONE


def _train(options: argparse.Namespace) -> int:
    from adaptiveisp.detectors import load_detector
    from adaptiveisp.provenance import provenance
    from adaptiveisp.training import Run, new_run, read_config

    device = _set_up_torch(options)
    if options.resume is not None:
        folder = options.resume
        wanted, config = read_config(folder)
        run = Run(folder, wanted, config, load_detector(wanted.detector, device), resume=True)
    else:
        wanted, config = _train_settings(options)
        detector = load_detector(wanted.detector, device)
        origin = provenance(wanted.seed, {detector.name: detector.weights_sha256})
        folder = options.out
        run = new_run(folder, wanted, config, detector, origin, options.overwrite)
    with _progress(options, wanted.budget, "train", unit="pass") as bar:

        def show(metrics: dict[str, Any]) -> None:
            reward, entropy = metrics["reward"]["detection"], metrics["entropy"]
            bar.set_postfix(reward=f"{reward:.2f}", entropy=f"{entropy:.2f}", refresh=False)
            bar.update(metrics["passes"] - bar.n)

        finished = run.train(show)
    if not options.quiet:
        best = f", best AP50 on dev {100 * run.best:.1f}" if run.best >= 0 else ""
        state = "finished" if finished else f"stopped; go on with: adaptiveisp train --resume {folder}"
        print(f"{run.learner.iteration} iterations, {run.learner.passes} detector passes{best}: {state}")
    return DONE if finished else INTERRUPTED


def _train_settings(options: argparse.Namespace) -> "tuple[TrainOptions, ActorCriticConfig]":
    """What the flags of a new run ask for."""
    from adaptiveisp.training import TrainOptions, make_config

    if not (options.data and options.images and options.out):
        raise UsageError("train needs --data, --images and --out, or --resume RUN")
    names = ("size", "bootstrap", "discount", "runtime_weight")
    config = make_config(options.preset, {n: v for n in names if (v := getattr(options, n)) is not None})
    same = ("data", "images", "detector", "light", "noise", "budget", "seed", "dev", "preset")
    wanted = {name: getattr(options, name) for name in same}
    return TrainOptions(**wanted, dev_images=options.images if options.dev else ""), config


def _import(options: argparse.Namespace) -> int:
    from adaptiveisp.checkpoint import import_released, save_policy

    header, actor, critic = import_released(options.file)
    if options.out.exists() and not options.overwrite:
        raise UsageError(f"{options.out}: exists already; choose another --out or add --overwrite")
    save_policy(options.out, header, actor, critic)
    numbers = sum(parameter.numel() for parameter in actor.parameters())
    print(f"{options.out}: {numbers:,} actor parameters, modules {', '.join(header.modules)}")
    return DONE


def _weights_list(options: argparse.Namespace) -> int:
    from adaptiveisp.weights import list_weights

    rows = [
        (r.name, "yes" if r.installed else "no", f"{r.size / 1e6:.1f} MB", r.licence, r.source) for r in list_weights()
    ]
    print(_table(("name", "installed", "size", "licence", "source"), rows))
    return DONE


def _weights_get(options: argparse.Namespace) -> int:
    from adaptiveisp.weights import get_weights

    print(get_weights(options.name, options.source))
    return DONE


def _score_tables(report: Any) -> str:
    """AP in points of every policy and detector, and the paired differences."""
    from adaptiveisp.report import number, points

    rows = [
        (
            policy,
            detector,
            points(s.ap50),
            points(s.ap),
            points(s.ap75),
            str(s.n_images),
            number(s.modules_per_image),
            number(s.ms_per_image),
        )
        for policy, scores in report.policies.items()
        for detector, s in scores.items()
    ]
    text = _table(("policy", "detector", "AP50", "AP", "AP75", "images", "modules", "ms"), rows)
    if report.differences:
        differences = [
            (
                f"{d.a} - {d.b}",
                d.detector,
                points(d.mean, sign=True),
                f"{points(d.low, sign=True)} to {points(d.high, sign=True)}",
            )
            for d in report.differences
        ]
        text += "\n\n" + _table(("difference", "detector", "AP50", "95 % interval"), differences)
    return text


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns aligned with spaces."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (header, *rows)
    ]
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(lines)
