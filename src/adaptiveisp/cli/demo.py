"""The command `demo`: everything from photos to a report, on four photos that come with scikit-image."""

import argparse
import shlex
from pathlib import Path
from typing import Any

from adaptiveisp.cli.console import progress, set_up_torch
from adaptiveisp.cli.exit_codes import DONE
from adaptiveisp.cli.options import DEFAULT, DETECTOR_HELP, add_backend, add_command, add_common, size
from adaptiveisp.utils import defaults
from adaptiveisp.utils.optional_imports import require_extra

LIBRARIES = ("skimage", "rawpy", "faster_coco_eval", "matplotlib", "jinja2")
"""Libraries of the extra `demo` that the command needs, by the names of their modules."""


def add(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "demo",
        "compare policies on four example photos that are turned into DNGs",
        "Turns four photos into DNGs at three light levels and compares policies on them.",
    )
    parser.add_argument("--out", type=Path, default=Path("demo-out"), metavar="DIR", help=f"output folder {DEFAULT}")
    parser.add_argument("--detector", default=defaults.DETECTOR, metavar="D", help=f"{DETECTOR_HELP} {DEFAULT}")
    text = f"longer side in pixels; small, since the photos are close-ups {DEFAULT}"
    parser.add_argument("--size", type=size, default=224, metavar="N", help=text)
    add_backend(parser)
    add_common(parser, without=("workers", "limit"))
    parser.set_defaults(command=demo)


def demo(options: argparse.Namespace) -> int:
    """Runs the demo and prints its scores."""
    require_extra("demo", *LIBRARIES)  # first of all, since importing torch and loading the detector take seconds
    from adaptiveisp.evaluation.demo import run_demo
    from adaptiveisp.evaluation.tables import score_tables
    from adaptiveisp.utils.output_folder import claim_folder

    device = set_up_torch(options)
    with claim_folder(options.out, "demo", options.overwrite) as claim, progress(options, 0, "demo") as bar:
        out = claim.folder
        report = run_demo(
            out,
            options.detector,
            options.seed,
            device,
            options.size,
            lambda name: bar.update(),
            options.backend,
            options.precision,
        )
    if not options.quiet:
        print(score_tables(report))
        print(
            "Labels: the detector's own boxes (score 0.5 or more) in the clean photos. Four photos are an example; "
            "docs/results.md has measurements."
        )
        print(f"report: {out / 'report.html'}   figure: {out / 'figure.png'}   raws: {out / 'raws'}")
        print(how_to_look(out))
    return DONE


def how_to_look(out: Path) -> str:
    """The line that says how to look at the results: by the command `view` where there is one, or in a browser.

    Args:
        out: the output folder.
    """
    from adaptiveisp.cli.parser import COMMANDS

    if any(command.__name__.endswith(".view") for command in COMMANDS):
        return f"to look at the results: adaptiveisp view {shlex.quote(str(out))}"
    return f"to look at the results: open {(out / 'report.html').resolve().as_uri()} in a browser"
