"""The command `doctor`: checks a data set, prints a summary and writes the findings."""

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
        "check a data set before training on it",
        "Reads every image and label and lists the problems. Exit code: 0 if training can start; 3 if it can start in "
        "spite of the listed problems; 1 if it would refuse the labels or find no usable image.",
    )
    parser.add_argument("data", type=Path, metavar="DATA", help=f"{DATA_HELP}; or a folder of raws")
    parser.add_argument("--images", type=Path, metavar="DIR", help="folder of the images of a COCO JSON")
    parser.add_argument(
        "--detector", metavar="D", help=f"detector with the known classes (default: those of COCO): {DETECTOR_HELP}"
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="output folder of doctor.json and doctor.html")
    add_common(parser, without=("workers",))
    parser.set_defaults(command=doctor)


def doctor(options: argparse.Namespace) -> int:
    """Checks a data set and returns the exit code, which says whether training can start."""
    from adaptiveisp.data.splits import open_parts
    from adaptiveisp.data.validation import validate_dataset
    from adaptiveisp.detectors.backends.choice import installed_backends
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
        print(f"backends of detectors: {', '.join(f'{name} {state}' for name, state in installed_backends().items())}")
        if out is not None:
            print(f"page: {out / 'doctor.html'}")
    elif found.verdict == "unusable":
        print(f"adaptiveisp: {options.data}: {verdict(found)}", file=sys.stderr)
    return OF_VERDICT[found.verdict]
