"""The command `bench`: measures the speed of this machine, and writes a cost table."""

import argparse
from pathlib import Path
from typing import Any

from adaptiveisp.cli.console import check_files, set_up_torch
from adaptiveisp.cli.exit_codes import DONE
from adaptiveisp.cli.options import DEFAULT, DETECTOR_HELP, add_command, add_common, add_modules, positive, size
from adaptiveisp.utils import defaults


def add(commands: Any) -> None:
    """Adds the command to the parser."""
    parser = add_command(
        commands,
        "bench",
        "measure the speed of this machine; write a cost table",
        "Measures the time of modules, chains of modules and policies, and compares it with the time of a copy of the "
        "image and of the detector.",
    )
    parser.add_argument("--size", type=size, default=512, metavar="N", help=f"side of the image in pixels {DEFAULT}")
    parser.add_argument("--repeats", type=positive, default=15, metavar="N", help=f"number of runs of each {DEFAULT}")
    detector = f"{DETECTOR_HELP}; or none {DEFAULT}"
    parser.add_argument("--detector", default=defaults.DETECTOR, metavar="D", help=detector)
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="write the timings as JSON")
    table = "write the modules' times as a cost table"
    parser.add_argument("--write-costs", type=Path, metavar="FILE.json", help=table)
    add_modules(parser)
    add_common(parser, without=("workers", "limit"))
    parser.set_defaults(command=bench)


def bench(options: argparse.Namespace) -> int:
    """Measures the speed of this machine and writes the files that the options name."""
    from adaptiveisp.detectors.loading import load_detector
    from adaptiveisp.evaluation.benchmark import module_costs, run_benchmark, to_json
    from adaptiveisp.evaluation.tables import table
    from adaptiveisp.isp.costs import save_costs
    from adaptiveisp.isp.registry import register_named
    from adaptiveisp.kernels.loading import available
    from adaptiveisp.utils.files import write_json
    from adaptiveisp.utils.provenance import provenance

    device = set_up_torch(options)
    check_files((options.out, options.write_costs), options.overwrite)
    detector = load_detector(options.detector, device) if options.detector != "none" else None
    own_modules = [register_named(text) for text in options.own_modules]
    timings = run_benchmark(options.size, options.repeats, detector, device, own_modules)
    origin = provenance(options.seed, {detector.name: detector.weights_sha256} if detector else None)
    rows = to_json(timings)
    if not options.quiet:
        header = ("timed", "ms", "copies", "detector forwards", "plain ms", "faster than plain")
        print(table(header, [_row(row) for row in rows]))
        kernels = "compiled" if available() else "not compiled or turned off"
        place = f"{options.size}x{options.size}, {device}, {origin['threads']} threads, kernels {kernels}"
        print(f"{place}; medians of {options.repeats} interleaved runs")
        print(
            "copies: time divided by the time of a copy of the image; plain ms: time of the module's PyTorch function, "
            "without kernels and CUDA graphs"
        )
    if options.out is not None:
        facts = {"size": options.size, "repeats": options.repeats, "device": device, "compiled": available()}
        write_json(options.out, {**facts, "timings": rows, "provenance": origin})
    if options.write_costs is not None:
        save_costs(options.write_costs, module_costs(timings), options.size, origin)
    return DONE


def _row(row: dict[str, Any]) -> tuple[str, ...]:
    formats = {"ms": ".2f", "copies": ".1f", "detector_forwards": ".3f", "plain_ms": ".2f", "faster_than_plain": ".1f"}
    return (row["name"], *(format(row[key], form) if key in row else "" for key, form in formats.items()))
