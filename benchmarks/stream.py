"""Frames a second of `stream` on 1080p frames of packed RAW12 from a file, against single calls.

    python benchmarks/stream.py [--peer SOURCE_TREE] [--frames 60] [--rounds 5] [--threads 2] [--policy coco-fast]

The stream reads packed frames from a headerless file and writes JSON lines; YOLOv3-tiny at 416 pixels. The peer calls
`AdaptiveISP` once a frame, on the same frames unpacked before the clock starts: by this package, or by the package in
another source tree (`--peer`, for instance a checkout of commit dff75bc with its kernels built). Both run in processes
of their own, in turn; the output has the medians of the rounds and of their ratios.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

WIDTH, HEIGHT, BLACK = 1920, 1080, 256

CALLS = """
import sys, time, numpy as np, torch
from adaptiveisp import AdaptiveISP, RawImage
torch.set_num_threads({threads})
isp = AdaptiveISP({policy!r}, "yolov3-tiny")
frames = [RawImage(frame, "RGGB", ({black}.0,) * 4, 4095.0) for frame in np.load({path!r})]
for frame in frames[:3]:
    isp(frame)
start = time.perf_counter()
for i in range({frames}):
    isp(frames[i % len(frames)])
print({frames} / (time.perf_counter() - start))
"""

STREAM = """
import sys, time, torch
from adaptiveisp import AdaptiveISP, BayerHeader
from adaptiveisp.streaming.sinks import JsonLines
torch.set_num_threads({threads})
isp = AdaptiveISP({policy!r}, "yolov3-tiny")
header = BayerHeader(1920, 1080, format="SRGGB12P", black={black})
for _ in zip(isp.stream({path!r}, header), range(3)):
    pass
with JsonLines({out!r}, overwrite=True) as sink:
    start = time.perf_counter()
    stream = isp.stream({path!r}, header)
    for result in stream:
        sink.write(result)
    print(stream.stats.results / (time.perf_counter() - start))
"""


def packed(frame: np.ndarray) -> bytes:
    """A frame of 12 bits as CSI-2 packs it: two pixels in three bytes."""
    pairs = frame.reshape(-1, 2)
    low = (pairs[:, 0] & 15) | (pairs[:, 1] & 15) << 4
    return np.stack([pairs[:, 0] >> 4, pairs[:, 1] >> 4, low], axis=1).astype(np.uint8).tobytes()


def scenes(n: int) -> np.ndarray:
    """Smooth scenes of different light with noise, as 12-bit mosaics."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    frames = []
    for k in range(n):
        light = 0.15 + 0.1 * np.sin(x / 90 + k) * np.cos(y / 70) + 0.02 * rng.standard_normal((HEIGHT, WIDTH))
        frames.append(np.clip(BLACK + light * 3000, 0, 4095).astype(np.uint16))
    return np.stack(frames)


def run(code: str, tree: Path) -> float:
    """Frames a second that a process prints which runs the code with a source tree."""
    environment = {**os.environ, "PYTHONPATH": str(tree / "src")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parents[1]
    parser.add_argument("--peer", type=Path, default=here)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--policy", default="coco-fast")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        few = scenes(4)
        np.save(f"{folder}/frames.npy", few)
        content = [packed(frame) for frame in few]
        Path(folder, "frames.raw").write_bytes(b"".join(content[i % 4] for i in range(options.frames)))
        facts = {"threads": options.threads, "policy": options.policy, "black": BLACK, "frames": options.frames}
        calls = CALLS.format(**facts, path=f"{folder}/frames.npy")
        stream = STREAM.format(**facts, path=f"{folder}/frames.raw", out=f"{folder}/out.jsonl")
        rounds = [(run(calls, options.peer), run(stream, here)) for _ in range(options.rounds)]
    peer, ours = (statistics.median(values) for values in zip(*rounds, strict=True))
    ratio = statistics.median(b / a for a, b in rounds)
    print(json.dumps({"peer_fps": round(peer, 2), "stream_fps": round(ours, 2), "ratio": round(ratio, 2), **facts}))


if __name__ == "__main__":
    main()
