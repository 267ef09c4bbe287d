"""The command `export`: writes a policy with a detector as ONNX graphs."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptiveisp.cli.exit_codes import DONE
from adaptiveisp.cli.options import DEFAULT, DETECTOR_HELP, SIZE_HELP, add_command, add_common, add_modules, size, unit
from adaptiveisp.errors import UsageError, logger, shown
from adaptiveisp.utils import defaults

if TYPE_CHECKING:
    from adaptiveisp.raw.reader import BayerHeader

DYNAMIC = "dynamic"
PRECISIONS = ("float32", "float16", "int8-dynamic", "int8-static")
PARTS = ("policy", "detector")


def add(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "export",
        "write a policy and a detector as ONNX graphs that run without PyTorch",
        "Writes full.onnx (frame → boxes), policy.onnx (developed image → pipeline) and isp.onnx (developed image and "
        "pipeline → image), with manifest.json, a self-test and a model card. Nothing is written if the graphs do not "
        "give what the package gives.",
    )
    text = (
        "coco-adaptive, coco-fast, coco-colours, coco-selective, coco-selective-fast, auto-exposure, none, night, "
        "reinhard, log-curve, gamma-curve, a pipeline .json, a policy .safetensors or a run folder"
    )
    parser.add_argument("policy", metavar="POLICY", help=text)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="output folder")
    text = f"{DETECTOR_HELP} {DEFAULT}"
    parser.add_argument("--detector", default=defaults.DETECTOR, metavar="D", help=text)
    text = f"what a frame is: a Bayer mosaic, or linear RGB {DEFAULT}"
    parser.add_argument("--input", choices=("mosaic", "rgb"), default="mosaic", help=text)
    text = f"width and height of a frame in pixels, or frames of any size {DEFAULT}"
    parser.add_argument("--size", default=DYNAMIC, metavar="WxH", help=text)
    parser.add_argument("--working-size", type=size, metavar="N", help=SIZE_HELP)
    text = f"least score of a detection {DEFAULT}"
    parser.add_argument("--confidence", type=unit, default=defaults.CONFIDENCE, metavar="S", help=text)
    text = f"type of images and of the networks' values, or how networks compute in whole numbers of 8 bits {DEFAULT}"
    parser.add_argument("--precision", choices=PRECISIONS, default="float32", help=text)
    text = "raws, files or folders, by which int8-static learns the ranges of its activations"
    parser.add_argument("--calibrate", nargs="+", default=[], metavar="RAWS", help=text)
    text = f"networks that compute in whole numbers {DEFAULT}"
    parser.add_argument("--quantise", nargs="+", choices=PARTS, default=list(PARTS), metavar="PART", help=text)
    parser.add_argument("--format", choices=("onnx",), default="onnx", help=f"format of the graphs {DEFAULT}")
    text = (
        "no If and no Loop in the graphs: a policy that chooses modules is written in parts, one graph a module, which "
        "a program runs one after the other"
    )
    parser.add_argument("--without-if", action="store_true", help=text)
    text = "also the policy's file, its settings and its card, so that from_pretrained takes the folder"
    parser.add_argument("--with-policy", action="store_true", help=text)
    _add_frame(parser)
    add_modules(parser)
    add_common(parser, without=("workers", "limit"))
    parser.set_defaults(command=export)


def _add_frame(parser: argparse.ArgumentParser) -> None:
    """Adds the options that describe the camera's frames."""
    group = parser.add_argument_group(
        "the camera's frames",
        "With --raw-bits or --raw-format, pattern and levels are constants of the graph; without, they are inputs.",
    )
    text = "pixel format by its name in V4L2, GenICam or libcamera (SRGGB10P, BayerRG12p, RAW12, u12le16 …)"
    group.add_argument("--raw-format", metavar="NAME", help=text)
    group.add_argument("--raw-bits", type=int, metavar="N", help="bits of a value, 8 to 24")
    group.add_argument("--raw-pattern", metavar="RGGB", help="RGGB, BGGR, GRBG or GBRG")
    group.add_argument("--raw-black", type=float, metavar="V", help="value without light (default 0)")
    group.add_argument("--raw-white", type=float, metavar="V", help="value at saturation (default 2^bits - 1)")
    group.add_argument("--raw-stride", type=int, metavar="N", help="bytes from one row to the next, for the manifest")
    group.add_argument("--raw-offset", type=int, metavar="N", help="bytes before the first row, for the manifest")
    text = f"EXIF orientation of the frames, 1 to 8; the graph turns them upright {DEFAULT}"
    group.add_argument("--orientation", type=int, default=1, metavar="N", help=text)


def _header(options: argparse.Namespace) -> "BayerHeader":
    """What is known of the frames."""
    from adaptiveisp.raw.reader import BayerHeader, parse_size

    try:
        width, height = (None, None) if options.size == DYNAMIC else parse_size(options.size)
    except UsageError:
        text = f"--size {shown(options.size)} is not WxH; write it like 2592x1536, or give {DYNAMIC}"
        raise UsageError(f"{text} (--working-size is the longer side at which the detector works)") from None
    names = ("bits", "pattern", "black", "white", "format", "stride", "offset")
    return BayerHeader(width, height, **{name: getattr(options, f"raw_{name}") for name in names})


def export(options: argparse.Namespace) -> int:
    """Writes a policy and a detector as ONNX graphs."""
    from adaptiveisp.cli.console import set_up_torch
    from adaptiveisp.deployment.api import export as write

    if options.device == "cuda":
        logger.warning("--device cuda has no effect in this command, whose self-test runs on the CPU")
    options.device = "cpu"
    set_up_torch(options)
    made = write(
        options.policy,
        options.out,
        options.detector,
        input=options.input,
        header=_header(options),
        orientation=options.orientation,
        size=options.working_size,
        confidence=options.confidence,
        precision=options.precision,
        calibrate=options.calibrate,
        quantise=options.quantise,
        format=options.format,
        without_if=options.without_if,
        with_policy=options.with_policy,
        overwrite=options.overwrite,
        seed=options.seed,
    )
    if not options.quiet:
        for entry in made.manifest["graphs"].values():
            print(f"{options.out / entry['file']}: {entry['bytes']:,} bytes, opset {entry['opset']}")
        print(f"self-test: agrees with the package; the image differs by at most {made.difference:.1e}")
    return DONE
