"""Page faults and CPU time of a training iteration, with freed memory kept and with glibc's default.

    python benchmarks/page_faults.py --data train.json --images DIR

Each case trains the sequence method for 10 and for 30 iterations; the difference, over 20, excludes the start-up.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

SHORT, LONG, BATCH = 80, 240, 8
KINDS = {"freed memory kept": {}, "as glibc has it": {"MALLOC_PERTURB_": "0"}}
"""If any MALLOC_… variable is set, the package keeps glibc's default; this value has no other effect."""


def used(arguments: list[str], budget: int, environment: dict[str, str]) -> tuple[float, float, float]:
    """Page faults, system seconds and user seconds of a training run."""
    with tempfile.TemporaryDirectory() as folder:
        out = ["--budget", str(budget), "--out", str(Path(folder) / "run"), "-q"]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        command = [sys.executable, "-m", "adaptiveisp", "train", "--method", "sequence", *arguments, *out]
        subprocess.run(command, env=os.environ | environment, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return tuple(getattr(after, key) - getattr(before, key) for key in ("ru_minflt", "ru_stime", "ru_utime"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--images", required=True)
    options = parser.parse_args()
    arguments = ["--data", options.data, "--images", options.images, "--light", "mixed", "--threads", "2"]
    for name, environment in KINDS.items():
        runs = [used(arguments, budget, environment) for budget in (SHORT, LONG)]
        faults, system, user = ((b - a) * BATCH / (LONG - SHORT) for a, b in zip(*runs, strict=True))
        print(f"{name:20s} {faults:8.0f} faults, {system:.2f} s system and {user:.2f} s user an iteration")


if __name__ == "__main__":
    main()
