"""What each part of an export without If costs, and what a chain would cost that computes every module at every step.

    python benchmarks/module_graphs.py DIR [--repeats 9]

DIR is from `adaptiveisp export POLICY --without-if`, whose program runs the chosen modules alone. A chain with masks in
place of choices would compute all modules at each of the policy's steps, since their order varies, too. Each part runs
on the inputs of its self-test in onnxruntime with one thread; the times are the processor's time in ms (median), which
other work on the machine changes less than the time on a clock.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime


def milliseconds(folder: Path, entry: dict[str, str], inputs: list[dict[str, str]], repeats: int) -> float:
    """Time of the processor for a graph."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(str(folder / entry["file"]), options, providers=["CPUExecutionProvider"])
    feeds = {one["name"]: np.fromfile(folder / one["file"], one["dtype"]).reshape(one["shape"]) for one in inputs}
    times = []
    for _ in range(repeats + 1):
        start = time.process_time()
        session.run(None, feeds)
        times.append(1e3 * (time.process_time() - start))
    return median(times[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--repeats", type=int, default=9)
    options = parser.parse_args()
    manifest = json.loads((options.folder / "manifest.json").read_text())
    tests = manifest["self_test"]
    times = {
        name: milliseconds(options.folder, entry, tests[name]["inputs"], options.repeats)
        for name, entry in manifest["graphs"].items()
    }
    print("| part | ms |\n|---|---:|")
    for name, ms in times.items():
        print(f"| {name} | {ms:.1f} |")
    modules = [ms for name, ms in times.items() if name.startswith("module_")]
    table = manifest["pipeline"]
    steps = table["length"] - table["preprocessing"]
    once = sum(modules)
    print(f"all {len(modules)} modules once: {once:.0f} ms; at each of {steps} steps: {steps * once:.0f} ms")


if __name__ == "__main__":
    main()
