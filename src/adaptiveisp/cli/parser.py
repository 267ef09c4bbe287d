"""The command line: parsing, errors and exit codes; what the commands do is in `commands` and beside it.

Nothing heavy is imported here, so that help appears at once; argparse needs no import time of its own.
"""

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from adaptiveisp.cli.exit_codes import DONE, FAILED, INTERRUPTED, WRONG_USE
from adaptiveisp.cli.terminal import finish_output, show_log, take_any_text, terminable
from adaptiveisp.errors import AdaptiveISPError, UsageError, logger, one_line

DATA_HELP = "a folder made by synth, a COCO JSON with --images, or a data-set YAML (FILE.yaml:SPLIT names its split)"
CACHE_HELP = "keep developed raws here for later runs; at most ADAPTIVEISP_FRAMES_GB (default 20)"
LIGHTS_HELP = "brightness factor, log-uniform: dark 0.003 to 0.05, mixed 0.003 to 1, normal 0.3 to 1"
POLICY_HELP = (
    "coco-adaptive, coco-fast, none, auto-exposure, camera, night, a pipeline .json, a policy .safetensors or a run "
    "folder"
)
GROUP_HELP = "or NAME=P1,P2,… for the runs of one method with several seeds"
EVAL_POLICY_HELP = f"{POLICY_HELP}; greedy-oracle or greedy-oracle-raw: upper bounds that see the labels, slow"
METHODS_HELP = (
    "actor_critic (default), sequence; baselines: fixed (one pipeline by gradient), cma_es (without gradients), "
    "random_search (the best of random pipelines)"
)
PRESETS_HELP = (
    "cpu, paper or released; for sequence: adaptive, fast, fewer (after a warm start), one-sequence, pos or "
    "sampled; for the baselines: raw or auto-exposure"
)
COSTS_HELP = "a cost table of `bench --write-costs` (default: the paper's)"
DETECTOR_HELP = (
    "a name of `weights list`, a Darknet .weights file with its .cfg beside it, a YOLOv3 or YOLOv5 .pt (or the "
    ".safetensors of `import`), an .onnx file, a Hugging Face model folder or organisation/model, or "
    "my_pkg.my_file:load"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit code: 0 done, 1 failed, 2 wrong use, 3 done but inputs were skipped."""
    take_any_text()
    try:
        with terminable():
            return finish_output(_parse_and_run(argv), _fail)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)


def _parse_and_run(argv: Sequence[str] | None) -> int:
    try:
        options = build_parser().parse_args(argv)
    except SystemExit as stop:  # argparse has printed help, version or its error
        return int(stop.code or 0)
    except BrokenPipeError:  # who asked for help or version has gone
        return DONE
    except OSError as error:  # there is no room for what it prints
        return _fail(f"standard output: cannot be written ({error.strerror}); send it elsewhere", FAILED)
    show_log(getattr(options, "verbose", False))
    try:
        os.getcwd()
    except OSError:  # libraries that look for their parts end the process in such a place
        return _fail("the working folder does not exist any more; change to one that does", FAILED)
    for name in getattr(options, "without", ()):
        if getattr(options, name):
            logger.warning("--%s has no effect in this command", name)
    try:
        module = importlib.import_module(f"adaptiveisp.cli.{getattr(options, 'module', 'commands')}")
        command: Callable[[argparse.Namespace], int] = getattr(module, options.command)
        return command(options)
    except SystemExit as stop:  # of a detector of one's own, most likely
        return _fail(f"ended by code that it called (SystemExit: {stop.code})", FAILED)
    except BrokenPipeError:  # who reads the output has gone; the results were not all told
        return FAILED
    except UsageError as error:
        return _fail(error, WRONG_USE)
    except AdaptiveISPError as error:
        return _fail(error, FAILED)
    except OSError as error:  # such as a path that is too long, wherever it is first looked at
        if error.filename is None:
            return _fail(f"cannot read or write ({error.strerror or error}); check disk and output", FAILED)
        return _fail(f"{error.filename}: {error.strerror or error}; check the path", FAILED)


def _fail(error: object, code: int) -> int:
    with contextlib.suppress(OSError):  # who would read it has gone
        print(f"adaptiveisp: {one_line(str(error))}", file=sys.stderr)
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
    adders = (
        _add_demo,
        _add_run,
        _add_train,
        _add_eval,
        _add_synth,
        _add_doctor,
        _add_bench,
        _add_import,
        _add_weights,
    )
    for add in adders:
        add(commands)
    return parser


class _Parser(argparse.ArgumentParser):
    """Takes options by their full names only, since scripts must not depend on abbreviations; errors are one line."""

    def __init__(self, **keywords: Any):
        super().__init__(**{**keywords, "allow_abbrev": False})

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Leaves no argument to the parser above, which would not know of which command to speak."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown

    def _print_message(self, message: str, file: Any = None) -> None:
        """Prints help, version or an error; where standard output is full that is an error too, unlike in argparse."""
        if message:
            (file or sys.stderr).write(message)

    def error(self, message: str) -> NoReturn:
        """Prints the error and where to look instead of the whole usage, and exits."""
        command = self.prog.removeprefix("adaptiveisp").strip()
        where = f"{command}: " if command else ""
        self.exit(WRONG_USE, f"adaptiveisp: {where}{' '.join(message.split())}; see `{self.prog} --help`\n")


class _Version(argparse.Action):
    """Looks the version up only when asked, since importlib.metadata takes longer than the rest of the parser."""

    def __init__(self, option_strings: Sequence[str], dest: str, **keywords: Any):
        super().__init__(option_strings, dest, nargs=0, **keywords)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from adaptiveisp.utils.provenance import package_version

        print(f"adaptiveisp {package_version()}")
        parser.exit()


def _common(parser: argparse.ArgumentParser, without: tuple[str, ...] = ()) -> None:
    """Adds the options that all commands take.

    Args:
        parser: of a command.
        without: those that have no effect in it. Scripts may give them all the same, so they are taken, and a command
            that is given one says that it does nothing.
    """
    group = parser.add_argument_group("common options")
    parser.set_defaults(without=without)
    group.add_argument("--seed", type=_natural, default=0, metavar="N", help="fixes all randomness (default 0)")
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="default auto")
    group.add_argument("--threads", type=_threads, default=0, metavar="N", help="threads of torch (default: all cores)")
    group.add_argument(
        "--workers", type=_natural, default=0, metavar="N", help="processes reading ahead, in eval (default 0)"
    )
    group.add_argument("--limit", type=_natural, default=0, metavar="N", help="use the first N photos, with all draws")
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
    parser.add_argument(
        "--size", type=_size, default=224, metavar="N", help="longer side in pixels; default 224, for close-ups"
    )
    _common(parser, without=("workers", "limit"))
    parser.set_defaults(command="demo")


def _add_run(commands: Any) -> None:
    parser = commands.add_parser(
        "run",
        help="raw files → image, boxes, pipeline JSON",
        description="Develops raw files by a policy's pipelines, detects, writes image, boxes and pipeline of each.",
    )
    parser.add_argument("inputs", nargs="+", metavar="INPUT", help="raw files, folders, globs")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    parser.add_argument("--policy", metavar="P", help=f"{POLICY_HELP} (default coco-adaptive)")
    parser.add_argument(
        "--pipeline",
        type=Path,
        metavar="FILE.json",
        help="run this file's modules; with --policy P their parameters are P's, after P's own start (auto-exposure's "
        "stages for the shipped policies)",
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
    group = parser.add_argument_group(
        "raw without a header", "or the same keys (raw-size: 2592x1536 …) in FILE.yaml, or in raw.yaml in its folder"
    )
    group.add_argument("--raw-size", metavar="WxH", help="width and height in pixels, for instance 2592x1536")
    group.add_argument(
        "--raw-bits", type=int, metavar="N", help="bits a value: 8, 9 to 16 in two bytes, to 24 in three, low first"
    )
    group.add_argument("--raw-pattern", metavar="RGGB", help="RGGB, BGGR, GRBG or GBRG")
    group.add_argument("--raw-black", type=float, metavar="V", help="value of no light (default 0)")
    group.add_argument("--raw-white", type=float, metavar="V", help="value of saturation (default 2^bits - 1)")
    _common(parser, without=("workers",))
    parser.set_defaults(command="run")


def _add_eval(commands: Any) -> None:
    parser = commands.add_parser(
        "eval",
        help="compare policies on labelled data: report.json, report.html",
        description="Average precision of policies and detectors on the same images, with paired intervals.",
    )
    _add_data(parser)
    parser.add_argument("--policy", nargs="+", required=True, metavar="P", help=f"{EVAL_POLICY_HELP}; {GROUP_HELP}")
    several = "several, or the option given again: every policy with each (default yolov3-tiny)"
    parser.add_argument("--detector", nargs="+", action="extend", metavar="D", help=f"{DETECTOR_HELP}; {several}")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    parser.add_argument("--light", metavar="L", help=f"make raws of sRGB photos on the fly: {LIGHTS_HELP}")
    parser.add_argument("--draws", type=_positive, default=1, metavar="N", help="lights and noises a photo (default 1)")
    parser.add_argument("--noise", choices=("sensor", "brooks", "none"), default="sensor", help="default sensor")
    parser.add_argument("--size", type=_size, default=416, metavar="N", help="longer side in pixels (default 416)")
    parser.add_argument("--steps", type=_natural, default=0, metavar="N", help="of step-wise policies and oracles")
    parser.add_argument("--costs", type=Path, metavar="FILE", help=COSTS_HELP)
    parser.add_argument("--camera-white-balance", action="store_true", help="apply the camera's gains before a policy")
    parser.add_argument("--cache", metavar="DIR", help=CACHE_HELP)
    resamples = "of the paired bootstrap, 200 or more (default 1000)"
    parser.add_argument("--resamples", type=_resamples, default=1000, metavar="N", help=resamples)
    _common(parser)
    parser.set_defaults(command="evaluate_policies")


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
    _common(parser, without=("workers",))
    parser.set_defaults(command="synth")


def _add_data(parser: argparse.ArgumentParser, images_required: bool = False) -> None:
    text = "COCO JSON of the photos" if images_required else DATA_HELP
    parser.add_argument("--data", type=Path, required=True, metavar="DATA", help=text)
    parser.add_argument("--images", type=Path, required=images_required, metavar="DIR", help="folder of its images")


def _add_train(commands: Any) -> None:
    parser = commands.add_parser(
        "train",
        help="learn a policy",
        description="Learns a policy for a frozen detector. A run goes on exactly where it was with --resume RUN.",
    )
    parser.add_argument("--resume", type=Path, metavar="RUN", help="go on with the run in this folder")
    parser.add_argument("--config", type=Path, metavar="FILE.yaml", help="settings; other options replace what it says")
    parser.add_argument("--method", metavar="M", help=METHODS_HELP)
    parser.add_argument("--preset", metavar="NAME", help=PRESETS_HELP)
    parser.add_argument("--data", metavar="DATA", help=DATA_HELP)
    parser.add_argument("--images", metavar="DIR", help="folder of its images")
    parser.add_argument(
        "--labels",
        choices=("given", "teacher"),
        help="teacher: needs no annotations, the detector's confident detections in clean photos or well exposed raws "
        "are the targets; DATA may then be any folder of photos (with --light) or raws (default given)",
    )
    parser.add_argument("--dev", metavar="DATA", help="the same for the images that choose the best policy")
    parser.add_argument("--cache", metavar="DIR", help=CACHE_HELP)
    parser.add_argument("--dev-images", metavar="DIR", help="folder of the images of --dev (default: --images)")
    none = "none: the images are raws, whatever --config says"
    parser.add_argument("--light", metavar="L", help=f"make raws of sRGB photos on the fly: {LIGHTS_HELP}; {none}")
    parser.add_argument("--noise", choices=("sensor", "brooks", "none"), help="of such raws (default sensor)")
    parser.add_argument("--detector", metavar="D", help=f"{DETECTOR_HELP} (default yolov3-tiny)")
    parser.add_argument("--out", type=Path, metavar="RUN", help="run folder")
    parser.add_argument("--warm-start", metavar="P", help="start from the weights of this policy file or run folder")
    parser.add_argument("--budget", type=_positive, metavar="PASSES", help="detector passes (default 12000)")
    parser.add_argument("--checkpoint-every", type=_positive, metavar="N", help="iterations (default 200)")
    parser.add_argument("--dev-every", type=_positive, metavar="N", help="iterations (default 500)")
    parser.add_argument("--size", type=_size, metavar="N", help="side of the training images (default: the preset's)")
    parser.add_argument("--bootstrap", choices=("greedy", "td"), help="default: the preset's")
    parser.add_argument("--discount", type=_unit, metavar="G", help="of the next value (default: the preset's)")
    parser.add_argument("--runtime-weight", type=float, metavar="L", help="reward per ms of cost (default 0)")
    parser.add_argument("--costs", type=Path, metavar="FILE", help=COSTS_HELP)
    parser.add_argument(
        "--set",
        dest="changes",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any other setting of the method (docs/methods); may be given again",
    )
    _common(parser, without=("workers",))
    parser.set_defaults(command="train", module="train", seed=None)


def _add_doctor(commands: Any) -> None:
    parser = commands.add_parser(
        "doctor",
        help="look a data set over before training on it",
        description="Reads every image and label and lists what is wrong. Exit code: 0 training may start; 3 it may, "
        "with the problems listed; 1 it would refuse the labels, or has nothing to use.",
    )
    parser.add_argument("data", type=Path, metavar="DATA", help=f"{DATA_HELP}; or a folder of raws")
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of the images of a COCO JSON")
    parser.add_argument(
        "--detector", metavar="D", help=f"whose classes must be known: {DETECTOR_HELP} (default COCO's)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="write doctor.json and doctor.html here")
    _common(parser, without=("workers",))
    parser.set_defaults(command="doctor", module="doctor")


def _add_bench(commands: Any) -> None:
    parser = commands.add_parser(
        "bench",
        help="how fast this machine is; its cost table",
        description="Times every module, chains of them and policies against a copy of the image and the detector.",
    )
    parser.add_argument(
        "--size", type=_size, default=512, metavar="N", help="side of the image in pixels (default 512)"
    )
    parser.add_argument("--repeats", type=_positive, default=15, metavar="N", help="runs of each (default 15)")
    parser.add_argument(
        "--detector", default="yolov3-tiny", metavar="D", help=f"{DETECTOR_HELP}; or none (default yolov3-tiny)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write the timings as JSON")
    parser.add_argument(
        "--write-costs", type=Path, metavar="FILE.json", help="write the modules' times as a cost table"
    )
    _common(parser, without=("workers", "limit"))
    parser.set_defaults(command="bench")


def _add_import(commands: Any) -> None:
    parser = commands.add_parser(
        "import",
        help="released checkpoint → policy file; YOLO .pt → detector file",
        description="Turns a checkpoint of the released AdaptiveISP code into a policy file, or one of the YOLOv3 or "
        "YOLOv5 repository into a detector file; what it is shows in its content, none of which is run.",
    )
    parser.add_argument(
        "file", type=Path, metavar="FILE", help="a .pth with agent_model and value_model, or a YOLO .pt"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.safetensors", help="file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    parser.set_defaults(command="import_checkpoint")


def _add_weights(commands: Any) -> None:
    parser = commands.add_parser("weights", help="list or fetch detector weights", description="Detector weights.")
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True, parser_class=_Parser)
    listing = actions.add_parser("list", help="what there is and what is installed")
    listing.set_defaults(command="weights_list")
    get = actions.add_parser("get", help="fetch weights, check their hash, keep them in the cache folder")
    get.add_argument("name", metavar="NAME", help="a name of `weights list`")
    get.add_argument("--from", dest="source", type=Path, metavar="FILE", help="take them from this file instead")
    get.set_defaults(command="weights_get")


def _natural(text: str) -> int:
    return _integer(text, 0, 1 << 31)


def _threads(text: str) -> int:
    return _integer(text, 0, 1024)  # many more than that crash the process when they are made


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
