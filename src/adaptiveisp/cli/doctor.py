"""The command `doctor`: opens the data, shows progress and the summary, writes the files."""

import argparse
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from adaptiveisp.cli.console import progress, set_up_torch
from adaptiveisp.cli.exit_codes import OF_VERDICT
from adaptiveisp.cli.options import DATA_HELP, DETECTOR_HELP, add_command, add_common


def add(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "doctor",
        "look a data set over before training on it",
        "Reads every image and label and lists what is wrong. Exit code: 0 training may start; 3 it may, "
        "with the problems listed; 1 it would refuse the labels, or has nothing to use.",
    )
    parser.add_argument("data", type=Path, metavar="DATA", help=f"{DATA_HELP}; or a folder of raws")
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of the images of a COCO JSON")
    parser.add_argument(
        "--detector", metavar="D", help=f"whose classes must be known: {DETECTOR_HELP} (default COCO's)"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="write doctor.json and doctor.html here")
    add_common(parser, without=("workers",))
    parser.set_defaults(command=doctor)


def doctor(options: argparse.Namespace) -> int:
    """Examines a data set; the exit code says whether training may start."""
    from adaptiveisp.data.splits import open_parts
    from adaptiveisp.data.validation import validate_dataset
    from adaptiveisp.detectors.class_names import COCO_80
    from adaptiveisp.evaluation.validation_report import summary, verdict, write_findings
    from adaptiveisp.utils.output_folder import claim_folder
    from adaptiveisp.utils.provenance import provenance

    device = set_up_torch(options)
    parts = open_parts(options.data, options.images, options.limit)
    names, known_by, weights = COCO_80, "COCO's 80 classes", {}
    if options.detector is not None:
        from adaptiveisp.detectors.loading import load_detector

        detector = load_detector(options.detector, device)
        names, known_by = tuple(detector.class_names), detector.name
        weights = {detector.name: detector.weights_sha256}
    out = options.out
    claim = claim_folder(out, "doctor", options.overwrite) if out is not None else nullcontext()
    total = sum(len(dataset.samples) for _, dataset in parts)
    with claim, progress(options, total, "doctor") as bar:

        def show(name: str) -> None:
            bar.update()

        found = validate_dataset(parts, names, known_by, show)
        if out is not None:
            origin = provenance(options.seed, weights)
            write_findings(found, out, f"Data set {options.data}", origin, OF_VERDICT[found.verdict])
    if not options.quiet:
        print(summary(found))
        if out is not None:
            print(f"page: {out / 'doctor.html'}")
    elif found.verdict == "unusable":
        print(f"adaptiveisp: {options.data}: {verdict(found)}", file=sys.stderr)
    return OF_VERDICT[found.verdict]
