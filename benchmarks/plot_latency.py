"""Plots AP50 against the clock at several latencies, of a policy and a baseline under the same latencies.

    python benchmarks/plot_latency.py REPORT/report.json [REPORT/report.json …] --policies ours fixed --out latency.png

Each report is one of `adaptiveisp eval --latency-ms X` with both policies or groups. The values are printed as a table.
"""

import argparse
import json
from pathlib import Path

from adaptiveisp.evaluation.figures.latency import latency_markdown, latency_png, latency_row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reports", nargs="+", type=Path)
    parser.add_argument("--policies", nargs=2, required=True, metavar=("OURS", "BASELINE"))
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    read = [(str(path), json.loads(path.read_text(encoding="utf-8"))) for path in options.reports]
    rows = [latency_row(report, *options.policies, origin) for origin, report in read]
    print(latency_markdown(rows), end="")
    options.out.write_bytes(latency_png(rows))


if __name__ == "__main__":
    main()
