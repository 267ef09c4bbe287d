"""Options that several commands have, with their types and help texts.

Imports are few and fast, so that `adaptiveisp --help` appears at once.
"""

import argparse
from typing import TYPE_CHECKING, Any

from adaptiveisp.utils import defaults

if TYPE_CHECKING:
    from adaptiveisp.raw.reader import BayerHeader

DEFAULT = "(default %(default)s)"
"""End of the help text of an option whose default the parser knows; argparse puts the value in."""
NOISES = ("sensor", "brooks", "canon-5d4", "none")
"""Names of the noise models, as in `raw.unprocess`, which is not imported for them."""
CAMERA_MATRICES = ("brooks", "canon-5d4", "fujifilm-gfx100", "leaf-aptus-22", "sigma-sd1")
"""Names of the cameras' colours, as in `raw.camera_matrices`."""
ILLUMINANTS = ("daylight", "planckian")
"""Names of the light sources, as in `raw.illuminants`."""

DATA_HELP = "a folder made by synth, a COCO JSON with --images, or a data-set YAML (FILE.yaml:SPLIT for one split)"
DRAWS_HELP = "random cameras, lights and noises for each photo"
NOISE_HELP = f"noise model of the raws that are made: {', '.join(NOISES)}, or a FILE.yaml made by calibrate"
BITS_HELP = "bit depth of the raws that are made, 4 to 14 (default: that of the noise model)"
CAMERA_MATRIX_HELP = (
    f"colours of their sensor: {', '.join(CAMERA_MATRICES)}, or a FILE.yaml with xyz-to-camera: matrices (default "
    f"{defaults.CAMERA_MATRIX}: mixtures of four cameras)"
)
ILLUMINANTS_HELP = (
    f"light sources of the raws that are made: daylight, or planckian for lamps to shade (default "
    f"{defaults.ILLUMINANTS})"
)
ADDRESS_HELP = "HOST:PORT of the Ray cluster, or auto (default: a new one on this machine)"
CACHE_HELP = (
    "keep developed raws in this folder for later runs; at most ADAPTIVEISP_FRAMES_GB gigabytes "
    f"(default {defaults.FRAME_CACHE_GB:g})"
)
LIGHTS_HELP = (
    "range of the log-uniform brightness factor: dark 0.003 to 0.05, dim 0.01 to 0.1, mixed 0.003 to 1, normal 0.3 to 1"
)
POLICY_HELP = (
    "coco-adaptive, coco-fast, coco-colours, coco-selective, coco-selective-fast, none, auto-exposure, camera, night, "
    "reinhard, log-curve, gamma-curve, clahe, a pipeline .json, a policy .safetensors, a run folder or "
    "my_pkg.my_file:name"
)
COSTS_HELP = "cost table made by `bench --write-costs` (default: the paper's)"
LATENCY_HELP = (
    "most milliseconds of policy and modules for an image on this machine, whose clock table is measured first; "
    "modules are dropped from pipelines that are too long"
)
DETECTOR_HELP = (
    "a name of `weights list`, a Darknet .weights file with its .cfg beside it, a YOLOv3 or YOLOv5 .pt (or the "
    ".safetensors of `import`), an .onnx file, a Hugging Face model folder or organisation/model, or "
    "my_pkg.my_file:load"
)
SIZE_HELP = (
    f"longer side in pixels (default {defaults.SIZE}, or the fixed input size of the detector, as some ONNX files have)"
)
WHITE_BALANCE_HELP = "apply the camera's white balance gains before the policy observes the image"


def add_command(commands: Any, name: str, summary: str, description: str) -> argparse.ArgumentParser:
    """The parser of a new command.

    Args:
        commands: subparsers of `parser.build_parser`.
        name: name of the command.
        summary: line of the command in `adaptiveisp --help`.
        description: first paragraph of the command's own help.
    """
    parser: argparse.ArgumentParser = commands.add_parser(name, help=summary, description=description)
    return parser


WORKERS_HELP = f"processes that read ahead, in eval {DEFAULT}"


def add_common(
    parser: argparse.ArgumentParser, without: tuple[str, ...] = (), workers_help: str = WORKERS_HELP
) -> None:
    """Adds the options that all commands take.

    Args:
        parser: parser of a command.
        workers_help: what --workers means in this command.
        without: options that have no effect in this command. They are accepted, because scripts may give them to every
            command, and cause a warning.
    """
    group = parser.add_argument_group("common options")
    parser.set_defaults(without=without)
    group.add_argument(
        "--seed",
        type=natural,
        default=defaults.SEED,
        metavar="N",
        help=f"seed of all random numbers (default {defaults.SEED})",
    )
    group.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help=f"where networks and modules run {DEFAULT}"
    )
    group.add_argument("--threads", type=threads, default=0, metavar="N", help="CPU threads of PyTorch (default: all)")
    group.add_argument("--workers", type=natural, default=0, metavar="N", help=workers_help)
    group.add_argument(
        "--limit", type=natural, default=0, metavar="N", help="use only the first N photos, with all draws"
    )
    group.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    group.add_argument("-v", "--verbose", action="store_true", help="also print tracebacks of unexpected errors")
    group.add_argument("-q", "--quiet", action="store_true", help="print neither progress nor summary")


def add_backend(parser: argparse.ArgumentParser) -> None:
    """Adds --backend and --precision, which say how the detector's network is run."""
    group = parser.add_argument_group("running the detector")
    text = (
        "library that runs the detector's network (default auto: onnxruntime for an .onnx file, PyTorch for the others)"
    )
    group.add_argument("--backend", choices=defaults.BACKENDS, default="auto", help=text)
    text = "type of its intermediate values; bfloat16 is faster and changes boxes slightly (default auto: float32)"
    group.add_argument("--precision", choices=defaults.PRECISIONS, default="auto", help=text)


def add_sensor(parser: argparse.ArgumentParser) -> None:
    """Adds the options that describe sensor and light sources of raws that are made of photos."""
    parser.add_argument("--noise", metavar="N", help=f"{NOISE_HELP} (default {defaults.NOISE})")
    parser.add_argument("--bits", type=natural, metavar="N", help=BITS_HELP)
    parser.add_argument("--camera-matrix", metavar="C", help=CAMERA_MATRIX_HELP)
    parser.add_argument("--illuminants", choices=ILLUMINANTS, help=ILLUMINANTS_HELP)


def add_modules(parser: argparse.ArgumentParser) -> None:
    """Adds --module, which registers modules from outside the package before the command runs."""
    parser.add_argument(
        "--module",
        dest="own_modules",
        action="append",
        default=[],
        metavar="M",
        help="a module of your own, which pipelines, policies and cost tables may name: my_pkg.my_file:name, or the "
        "registered name of one that an installed package declares; may be repeated",
    )


def add_raw_facts(parser: argparse.ArgumentParser) -> None:
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
    text = "RGGB, BGGR, GRBG, GBRG, MONO; QUAD_RGGB, RCCB (in four orders each), RYYCY, RGBIR, RGBIR4"
    group.add_argument("--raw-pattern", metavar="RGGB", help=text)
    group.add_argument("--raw-black", type=float, metavar="V", help="value without light (default 0)")
    group.add_argument("--raw-white", type=float, metavar="V", help="value at saturation (default 2^bits - 1)")
    text = "bytes from one row to the next (default: rows without padding)"
    group.add_argument("--raw-stride", type=int, metavar="N", help=text)
    group.add_argument("--raw-offset", type=int, metavar="N", help="bytes before the first frame (default 0)")
    group.add_argument("--raw-frames", type=int, metavar="N", help="frames in a file (default 1)")
    group.add_argument("--raw-frame", type=int, metavar="N", help="frame or page to read, counted from 0")
    text = "companding curve to undo: srgb, bt709, a-law or sqrt; knee points go into a sidecar as raw-knees"
    group.add_argument("--raw-curve", metavar="NAME", help=text)
    text = "lens shading gains of a mosaic, also of camera files; none leaves out the GainMap of DNGs"
    group.add_argument("--raw-shading", metavar="FILE.npy", help=text)
    text = "replace defective pixels of mosaics, also of camera files, by the median of their neighbourhood"
    group.add_argument("--defects", dest="raw_defects", action="store_const", const=True, help=text)


def raw_facts(options: argparse.Namespace) -> "BayerHeader | None":
    """The header from the --raw-… options; None if no such option was given."""
    from adaptiveisp.raw.reader import BayerHeader, parse_size

    names = ["bits", "pattern", "black", "white", "format", "stride", "offset", "frames", "frame", "curve"]
    names += ["shading", "defects"]
    given = {name: getattr(options, f"raw_{name}") for name in names}
    if options.raw_size is None and all(value is None for value in given.values()):
        return None
    width, height = parse_size(options.raw_size) if options.raw_size else (None, None)
    return BayerHeader(width, height, **given)


def natural(text: str) -> int:
    """A whole number from 0."""
    return _integer(text, 0, 1 << 31)


def threads(text: str) -> int:
    """A number of threads, at most 1024; many more would crash the process."""
    return _integer(text, 0, 1024)


def positive(text: str) -> int:
    """A whole number from 1."""
    return _integer(text, 1, 1 << 31)


def size(text: str) -> int:
    """A side of an image in pixels."""
    return _integer(text, 32, 8192)


def port(text: str) -> int:
    """A port of TCP, or 0 for a free one."""
    return _integer(text, 0, 65535)


def seconds(text: str) -> float:
    """A time in seconds from 0 to a year."""
    return _real(text, 0, 366 * 86400)


def resamples(text: str) -> int:
    """A number of bootstrap resamples."""
    return _integer(text, defaults.MIN_RESAMPLES, 1_000_000)


def _integer(text: str, low: int, high: int) -> int:
    try:
        value = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{value} is not in {low} to {high}")
    return value


def milliseconds(text: str) -> float:
    """A time in milliseconds above 0, at most a minute."""
    value = _real(text, 0, 60_000)
    if not value:
        raise argparse.ArgumentTypeError("a latency must be above 0 ms")
    return value


def unit(text: str) -> float:
    """A number from 0 to 1."""
    return _real(text, 0, 1)


def _real(text: str, low: int, high: int) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not low <= value <= high:
        raise argparse.ArgumentTypeError(f"{value} is not in {low} to {high}")
    return value
