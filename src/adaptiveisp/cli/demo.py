"""The command `demo`: the whole path from photo to report on four photos that scikit-image ships."""

import argparse
from pathlib import Path
from typing import Any

from adaptiveisp.cli.console import progress, set_up_torch
from adaptiveisp.cli.exit_codes import DONE
from adaptiveisp.cli.options import DEFAULT, DETECTOR_HELP, add_command, add_common, size
from adaptiveisp.utils import defaults


def add(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "demo",
        "end to end on embedded photos turned into DNGs",
        "Turns four photos into DNGs at three light levels and compares policies on them.",
    )
    parser.add_argument("--out", type=Path, default=Path("demo-out"), metavar="DIR", help=f"output folder {DEFAULT}")
    parser.add_argument("--detector", default=defaults.DETECTOR, metavar="D", help=f"{DETECTOR_HELP} {DEFAULT}")
    text = f"longer side in pixels; small, since the photos are close-ups {DEFAULT}"
    parser.add_argument("--size", type=size, default=224, metavar="N", help=text)
    add_common(parser, without=("workers", "limit"))
    parser.set_defaults(command=demo)


def demo(options: argparse.Namespace) -> int:
    """Runs the demo and prints its scores."""
    from adaptiveisp.evaluation.demo import run_demo
    from adaptiveisp.evaluation.tables import score_tables
    from adaptiveisp.utils.output_folder import claim_folder

    device = set_up_torch(options)
    with claim_folder(options.out, "demo", options.overwrite) as claim, progress(options, 0, "demo") as bar:
        out = claim.folder
        report = run_demo(out, options.detector, options.seed, device, options.size, lambda name: bar.update())
    if not options.quiet:
        print(score_tables(report))
        print(
            "Reference: the detector's own boxes (score 0.5 or more) on the clean photos. 4 photos show how it works, "
            "they measure nothing; docs/results.md does."
        )
        print(f"report: {out / 'report.html'}   figure: {out / 'figure.png'}   raws: {out / 'raws'}")
    return DONE
