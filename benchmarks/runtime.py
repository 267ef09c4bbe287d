"""The torch-free runtime beside PyTorch's path: time to the first boxes, frames a second, memory.

    python benchmarks/runtime.py --export DIR [--install] [--prepare] [--rounds 5] [--frames 40] [--size 640x480]

A RAW12 frame (SRGGB12P) of a drawn scene is read from a file again and again. Each path runs in a process of its own,
the two in turns, with the same number of threads:

- torch: `AdaptiveISP(policy, detector)` on the file with the facts of its header;
- runtime: `Session(DIR)` of adaptiveisp-runtime on the same file, where importing torch is an error. With --install it
  runs in a new virtual environment into which `pip install ./runtime` has put it, with NumPy and onnxruntime alone.
  With --prepare it uses the graph as `adaptiveisp-runtime prepare DIR` writes it.

DIR is exported where it is missing; an export in another precision can be given. Frames a second and ms are by the
clock; cpu ms is the processor's time of a frame, which other work on the machine changes less.

Time to the first boxes counts from the start of the process, so that imports, loading and the first frame are in it.
Memory is the peak of the resident set. The boxes of both paths are compared: IoU at least 0.99 and scores within 1e-3.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
BLACK, WHITE = 64, 4095

TORCH = """
import json, sys, time
start = float(sys.argv[1]); file, policy, detector, threads, frames, size = sys.argv[2:8]
import torch
torch.set_num_threads(int(threads))
from adaptiveisp import AdaptiveISP, BayerHeader
width, height = map(int, size.split("x"))
isp = AdaptiveISP(policy, detector)
header = BayerHeader(width, height, format="SRGGB12P", black=%d, white=%d)
one = lambda: isp(file, header)
""" % (BLACK, WHITE)  # noqa: UP031 - the code has braces
RUNTIME = """
import json, sys, time
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "adaptiveisp"):
            raise ImportError(name + " is not to be imported")
sys.meta_path.insert(0, Block())
start = float(sys.argv[1]); file, folder, engine, threads, frames, size = sys.argv[2:8]
from adaptiveisp_runtime import Session
session = Session(folder, threads=int(threads), engine=engine)
one = lambda: session(file)
"""
MEASURE = """
first = one().boxes()
to_first = time.time() - start
times, own = [], []
for _ in range(int(frames)):
    began, worked = time.perf_counter(), time.process_time()
    found = one()
    times.append(time.perf_counter() - began)
    own.append(time.process_time() - worked)
middle = lambda values: sorted(values)[len(values) // 2] * 1e3
status = open("/proc/self/status").read()  # ru_maxrss would count the process that started this one
memory = int(status.split("VmHWM:")[1].split()[0]) / 1024
print(json.dumps({"first_s": to_first, "ms": middle(times), "cpu": middle(own), "mib": memory, "boxes": first}))
"""


def packed_scene(width: int, height: int) -> bytes:
    """A drawn scene as SRGGB12P: two high bytes, then a byte with both low halves."""
    import numpy as np

    from adaptiveisp.deployment.self_test import scene

    picture = scene(height, width) * 0.1
    picture += np.random.default_rng(0).normal(0, 0.002, picture.shape)
    mosaic = picture[..., 1].copy()
    mosaic[::2, ::2], mosaic[1::2, 1::2] = picture[::2, ::2, 0], picture[1::2, 1::2, 2]
    codes = np.clip(np.rint(mosaic * (WHITE - BLACK) + BLACK), 0, WHITE).astype(int)
    first, second = codes[:, ::2], codes[:, 1::2]
    rows = np.stack([first >> 4, second >> 4, (first & 15) | (second & 15) << 4], axis=2)
    content: bytes = rows.astype(np.uint8).tobytes()
    return content


def measured(python: str, code: str, environment: dict[str, str], *words: object) -> dict[str, Any]:
    """The numbers that one process prints."""
    import time

    command = [python, "-c", code + MEASURE, str(time.time()), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def installed(folder: Path) -> str:
    """The Python of a new environment with the runtime and what it needs."""
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    pip = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, REPOSITORY / "runtime"], check=True)
    listed = subprocess.run(
        [python, "-m", "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True
    )
    print("installed:", ", ".join(listed.stdout.split()))
    if subprocess.run([python, "-c", "import torch"], capture_output=True, check=False).returncode == 0:
        sys.exit("torch can be imported in the new environment")
    return str(python)


def same_boxes(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> bool:
    """Whether two lists of boxes agree."""

    def overlap(a: list[float], b: list[float]) -> float:
        sides = [max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1)]
        areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
        return sides[0] * sides[1] / (sum(areas) - sides[0] * sides[1])

    def found(one: dict[str, Any], others: list[dict[str, Any]]) -> bool:
        alike = (o for o in others if o["class"] == one["class"] and abs(o["score"] - one["score"]) <= 1.1e-3)
        return any(overlap(one["box"], other["box"]) >= 0.99 for other in alike)

    return all(found(one, theirs) for one in ours) and all(found(one, ours) for one in theirs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--export", type=Path, required=True, help="folder to export to; an existing one is used")
    parser.add_argument("--policy", default="coco-adaptive")
    parser.add_argument("--detector", default="yolov3-tiny")
    parser.add_argument("--engine", default="onnxruntime", choices=("onnxruntime", "openvino"))
    parser.add_argument("--size", default="640x480", help="of the frame, WxH")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=40, help="timed frames of each process")
    parser.add_argument("--prepare", action="store_true", help="use a graph that is prepared for this machine")
    parser.add_argument("--install", action="store_true", help="run the runtime in a new environment without torch")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    if not (options.export / "manifest.json").is_file():
        from adaptiveisp import BayerHeader, export

        header = BayerHeader(width, height, format="SRGGB12P", black=BLACK, white=WHITE)
        export(options.policy, options.export, options.detector, header=header)
    threads = {name: str(options.threads) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")}
    paths = os.pathsep.join([str(REPOSITORY / "src"), str(REPOSITORY / "runtime" / "src")])
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scene.raw"
        file.write_bytes(packed_scene(width, height))
        python, own = sys.executable, {**os.environ, **threads, "PYTHONPATH": paths}
        if options.install:
            python, own = installed(Path(folder) / "venv"), {**os.environ, **threads}
            own.pop("PYTHONPATH", None)
        if options.prepare:
            prepare = [python, "-m", "adaptiveisp_runtime", "prepare", str(options.export)]
            subprocess.run(prepare, env=own, check=True)
        torch_env = {**os.environ, **threads, "PYTHONPATH": paths}
        common = (options.threads, options.frames, options.size)
        found: dict[str, list[dict[str, Any]]] = {"torch": [], "runtime": []}
        for _ in range(options.rounds):
            words = (file, options.policy, options.detector, *common)
            found["torch"].append(measured(sys.executable, TORCH, torch_env, *words))
            found["runtime"].append(measured(python, RUNTIME, own, file, options.export, options.engine, *common))
    print(
        f"{platform.processor() or platform.machine()}, {options.threads} thread(s), {options.size} RAW12, "
        f"{options.rounds} rounds of {options.frames} frames, {options.engine}"
    )
    print(f"{'path':8} {'first boxes s':>14} {'frames/s':>9} {'ms':>7} {'cpu ms':>7} {'MiB':>6}")
    rows = {
        name: [median(one[key] for one in ones) for key in ("first_s", "ms", "cpu", "mib")]
        for name, ones in found.items()
    }
    for name, (first, ms, cpu, mib) in rows.items():
        print(f"{name:8} {first:14.2f} {1e3 / ms:9.1f} {ms:7.1f} {cpu:7.1f} {mib:6.0f}")
    ratios = [ours / theirs for ours, theirs in zip(rows["runtime"], rows["torch"], strict=True)]
    print(
        f"runtime / torch: first boxes {ratios[0]:.2f}, frames/s {1 / ratios[1]:.2f}, by the processor's time "
        f"{1 / ratios[2]:.2f}, memory {ratios[3]:.2f}"
    )
    boxes = [found[name][0]["boxes"] for name in ("torch", "runtime")]
    print(f"boxes: {len(boxes[0])} and {len(boxes[1])}, {'the same' if same_boxes(*boxes) else 'NOT the same'}")


if __name__ == "__main__":
    main()
