"""The command `export-tuning`: a pipeline as a tuning of libcamera, a look-up table, or tags of a DNG."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adaptiveisp.cli.console import check_files, say, set_up_torch
from adaptiveisp.cli.exit_codes import DONE
from adaptiveisp.cli.options import (
    POLICY_HELP,
    SIZE_HELP,
    add_command,
    add_common,
    add_modules,
    add_raw_facts,
    positive,
    raw_facts,
    size,
)
from adaptiveisp.utils import defaults

if TYPE_CHECKING:
    from adaptiveisp.raw.reader import BayerHeader

TARGETS = {"vc4": "bcm2835", "pisp": "pisp"}
"""ISPs of the Raspberry Pi, and their names in tuning files."""
ENCODINGS = ("linear", "srgb", "cube-root")


def add(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "export-tuning",
        "write a pipeline as a camera tuning, a look-up table or DNG tags",
        "Writes white balance, colour matrix, curve and denoise strength of a pipeline for other software: FILE.json "
        "is a tuning file of libcamera on a Raspberry Pi, FILE.cube a 3D look-up table, FILE.dng the raw with tags.",
    )
    parser.add_argument("policy", metavar="P", help=POLICY_HELP)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="FILE.json, FILE.cube or FILE.dng")
    text = "raw whose pipeline is exported, for policies that choose for each image; FILE.dng has its pixels"
    parser.add_argument("--raw", type=Path, metavar="RAW", help=text)
    text = "ISP of a tuning file: vc4 of Raspberry Pi 1 to 4, pisp of 5 (default %(default)s)"
    parser.add_argument("--target", choices=tuple(TARGETS), default="vc4", help=text)
    text = "points of a look-up table along each axis (default %(default)s)"
    parser.add_argument("--grid", type=positive, default=33, metavar="N", help=text)
    text = "what the table is looked up by; cube-root is finest in the dark (default %(default)s)"
    parser.add_argument("--encoding", choices=ENCODINGS, default="cube-root", help=text)
    parser.add_argument("--size", type=size, metavar="N", help=SIZE_HELP)
    add_modules(parser)
    add_raw_facts(parser)
    add_common(parser, without=("workers", "limit"))
    parser.set_defaults(command=export_tuning)


def _bits(raw: Path | None, header: "BayerHeader | None") -> int | None:
    """The depth that the options or the raw's sidecar declare; a camera's own file has no sidecar with a depth."""
    from adaptiveisp.raw.extensions import CAMERA_EXTENSIONS
    from adaptiveisp.raw.sidecars import find_header

    if raw is not None and raw.suffix.lower() not in CAMERA_EXTENSIONS:
        return find_header(raw, header).bits
    return None if header is None else header.bits


def export_tuning(options: argparse.Namespace) -> int:
    """Writes the file and says what it does not hold."""
    from adaptiveisp.policies.registry import load_policy
    from adaptiveisp.raw.reader import read_raw
    from adaptiveisp.tuning.writing import TuningOptions, pipeline_for, write_tuning
    from adaptiveisp.utils.provenance import provenance

    check_files((options.out,), options.overwrite)
    device = set_up_torch(options)
    header = raw_facts(options)
    raw = None if options.raw is None else read_raw(options.raw, header)
    pipeline = pipeline_for(load_policy(options.policy, device), raw, options.size or defaults.SIZE)
    how: Any = {"target": TARGETS[options.target], "grid": options.grid, "encoding": options.encoding}
    how["bits"] = _bits(options.raw, header)
    for note in write_tuning(options.out, pipeline, raw, TuningOptions(**how), provenance(options.seed)):
        say(note)
    if not options.quiet:
        print(f"{options.out}: {', '.join(stage.module for stage in pipeline.stages) or 'no stages'}")
    return DONE
