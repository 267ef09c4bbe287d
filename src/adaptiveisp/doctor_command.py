"""The command `doctor`: opens the data, shows progress and the summary, writes the files."""

import argparse
import sys
from contextlib import nullcontext

from adaptiveisp.classes import COCO_80
from adaptiveisp.console import progress, set_up_torch
from adaptiveisp.exitcodes import FAILED


def doctor(options: argparse.Namespace) -> int:
    """Examines a data set; the exit code says whether training may start."""
    from adaptiveisp.datasets.parts import open_parts
    from adaptiveisp.doctor import examine
    from adaptiveisp.doctor_page import summary, verdict, write_findings
    from adaptiveisp.output_folder import claim_folder
    from adaptiveisp.provenance import provenance

    device = set_up_torch(options)
    parts = open_parts(options.data, options.images, options.limit)
    names, known_by, weights = COCO_80, "COCO's 80 classes", {}
    if options.detector is not None:
        from adaptiveisp.detectors import load_detector

        detector = load_detector(options.detector, device)
        names, known_by = tuple(detector.class_names), detector.name
        weights = {detector.name: detector.weights_sha256}
    out = options.out
    claim = claim_folder(out, "doctor", options.overwrite) if out is not None else nullcontext()
    total = sum(len(dataset.samples) for _, dataset in parts)
    with claim, progress(options, total, "doctor") as bar:

        def show(name: str) -> None:
            bar.update()

        found = examine(parts, names, known_by, show)
        if out is not None:
            write_findings(found, out, f"Data set {options.data}", provenance(options.seed, weights))
    if not options.quiet:
        print(summary(found))
        if out is not None:
            print(f"page: {out / 'doctor.html'}")
    elif found.exit_code == FAILED:
        print(f"adaptiveisp: {options.data}: {verdict(found)}", file=sys.stderr)
    return found.exit_code
