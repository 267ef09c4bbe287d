"""Prints which policy helps which detector: the scores of a report as a table of policies by detectors, in Markdown.

    adaptiveisp eval … --policy auto-exposure A B C --detector yolov3-tiny nanodet-g mb3-centernet --out report
    python benchmarks/detector_pairs.py report --against auto-exposure

A cell has the policy's AP50 in points, its difference to the reference with the paired 95 % interval of the report, and
the share of images that it makes worse than the raw. With several data sets these are the means over them.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from adaptiveisp.evaluation.bootstrap import Interval
from adaptiveisp.evaluation.tables import interval_text, markdown, percent, points


def units(report: dict[str, Any]) -> list[str]:
    """The names of policies, and of groups in the place of their members, in the order of the report."""
    owner = {
        member: group for group, by in report["groups"].items() for score in by.values() for member in score["members"]
    }
    return list(dict.fromkeys(owner.get(policy, policy) for policy in report["policies"]))


def difference(report: dict[str, Any], name: str, reference: str, detector: str) -> Interval | None:
    """AP50 of a policy or group less that of the reference, in 0..1; None where the report has none."""
    for entry in report["differences"]:
        if entry["detector"] == detector and {entry["a"], entry["b"]} == {name, reference}:
            interval = Interval(*(entry[key] for key in ("mean", "low", "high", "level", "resamples")))
            return interval if entry["a"] == name else interval.reversed()
    return None


def pairs(report: dict[str, Any], reference: str) -> str:
    """The table in Markdown.

    Args:
        report: content of report.json.
        reference: the policy or group that the others are compared with.

    Raises:
        SystemExit: the report has no such policy.
    """
    names = units(report)
    if reference not in names:
        raise SystemExit(f"the report has no policy {reference!r}; choose one of {', '.join(names)}")
    detectors = list(dict.fromkeys(detector for by in report["policies"].values() for detector in by))
    rows = []
    for name in names:
        row = [name]
        for detector in detectors:
            group = report["groups"].get(name, {}).get(detector)
            score = group or report["policies"][name][detector]
            cell = points(score["ap50_mean" if group else "ap50"])
            if name != reference:
                cell += f"; {interval_text(difference(report, name, reference, detector))}"
            row.append(f"{cell}; {percent(score['worse_than_raw'])}")
        rows.append(row)
    return markdown(["policy", *(f"scored with {detector}" for detector in detectors)], rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table of a report folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="folder that eval wrote")
    parser.add_argument("--against", default="auto-exposure", metavar="P", help="policy to compare with")
    options = parser.parse_args(arguments)
    try:
        report = json.loads((options.report / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SystemExit(f"{options.report}: holds no report.json of eval ({error})") from None
    print(f"AP50; less {options.against} (95 % interval); share of images worse than the raw\n")
    print(pairs(report, options.against))


if __name__ == "__main__":
    main(sys.argv[1:])
