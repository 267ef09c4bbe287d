"""The command `calibrate`: measures a camera's levels and noise from dark and flat frames."""

import argparse
from pathlib import Path
from typing import Any

from adaptiveisp.cli.console import check_files, say, set_up_torch
from adaptiveisp.cli.exit_codes import DONE
from adaptiveisp.cli.options import add_command, add_common, add_raw_facts, raw_facts


def add(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "calibrate",
        "measure black and white level, gain and noise of a camera",
        "Measures black and white level, gain, read and row noise and defects from dark and flat frames, and writes a "
        "noise model, which synth, train and eval take as --noise FILE.yaml.",
    )
    text = "two or more raws with the lens covered; files, folders or patterns"
    parser.add_argument("--dark", nargs="+", action="extend", required=True, metavar="F", help=text)
    text = "raws of an even surface, two or more at each of two or more exposures, all with the gain of the darks"
    parser.add_argument("--flat", nargs="+", action="extend", required=True, metavar="F", help=text)
    text = "file to write; FILE.png beside it is the photon transfer curve, where matplotlib is installed"
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.yaml", help=text)
    add_raw_facts(parser)
    add_common(parser, without=("workers", "limit"))
    parser.set_defaults(command=calibrate)


def calibrate(options: argparse.Namespace) -> int:
    """Measures a camera and writes the noise file."""
    from adaptiveisp.calibration.camera import calibrate as measure
    from adaptiveisp.calibration.noise_file import HEADER, rows, write_curve, write_noise_file
    from adaptiveisp.errors import AdaptiveISPError, UsageError
    from adaptiveisp.evaluation.tables import table
    from adaptiveisp.utils.optional_imports import require_extra
    from adaptiveisp.utils.provenance import provenance

    if options.out.suffix.lower() not in (".yaml", ".yml"):
        raise UsageError(f"{options.out}: is no YAML file, which --noise could name; give --out FILE.yaml")
    curve: Path | None = options.out.with_suffix(".png")
    try:
        require_extra("report", "matplotlib")
    except AdaptiveISPError:
        curve = None
    check_files((options.out, curve), options.overwrite)
    darks, flats = (_files(inputs) for inputs in (options.dark, options.flat))
    both = sorted({path.resolve() for path in darks} & {path.resolve() for path in flats})
    if both:
        raise UsageError(f"{both[0]}: is given as --dark and as --flat; leave it out of one")
    set_up_torch(options)
    found = measure(darks, flats, raw_facts(options))
    write_noise_file(options.out, found, provenance(options.seed))
    if curve is not None:
        write_curve(curve, found)
    for remark in found.remarks:
        say(remark)
    if not options.quiet:
        print(table(HEADER, rows(found)))
        how = "measured" if found.white_is_measured else "declared; no flat saturates"
        print(f"white level {found.white:g} ({how}); row noise {found.row:.3g} codes; defects {found.defects:.3%}")
        if found.tail is not None:
            print(f"read noise with heavy tails: Tukey lambda of shape {found.tail:.2g}")
        drawn = f"; photon transfer curve: {curve}" if curve is not None else ""
        print(f"noise model: {options.out}{drawn}")
    return DONE


def _files(inputs: list[str]) -> list[Path]:
    """The raw files of some inputs.

    Raises:
        RawFileError: one of the inputs is missing.
    """
    from adaptiveisp.errors import RawFileError
    from adaptiveisp.raw.find_files import find_raw_files

    found, missing = find_raw_files(inputs)
    if missing:
        raise RawFileError(missing[0][1])
    return [path for path, _ in found]
