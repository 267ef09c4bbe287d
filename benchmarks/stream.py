"""Frames a second of `stream` on 1080p frames of packed RAW12 from a file, against single calls.

    python benchmarks/stream.py [--peer SOURCE_TREE] [--frames 60] [--rounds 5] [--threads 2] [--policy coco-fast]
        [--backend torch] [--precision float32]
    python benchmarks/stream.py --endurance 30000 [--threads 2] [--policy coco-fast]

The stream reads packed frames from a headerless file and writes JSON lines; YOLOv3-tiny at 416 pixels, by a backend and
in a precision. The peer, always PyTorch in float32, calls `AdaptiveISP` once a frame, on the same frames unpacked
before the clock starts: by this package, or by the package in another source tree (`--peer`, for instance a checkout of
commit dff75bc with its kernels built). Both run in processes of their own, in turn; the output has the medians of the
rounds and of their ratios.

With --endurance it reads the file again and again instead, without a peer, and prints the memory of the process (RSS)
every thousand frames and whether all frames came in their order.
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
isp = AdaptiveISP({policy!r}, "yolov3-tiny", backend={backend!r}, precision={precision!r})
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


ENDURANCE = """
import itertools, json, os, re, sys, time, torch
from adaptiveisp import AdaptiveISP, BayerHeader
from adaptiveisp.streaming.sinks import JsonLines
from adaptiveisp.streaming.sources import frames_of_file
from pathlib import Path
torch.set_num_threads({threads})
isp = AdaptiveISP({policy!r}, "yolov3-tiny", backend={backend!r}, precision={precision!r})
header = BayerHeader(1920, 1080, format="SRGGB12P", black={black})
source = itertools.islice(
    itertools.chain.from_iterable(frames_of_file(Path({path!r}), header) for _ in itertools.count()), {frames})
memory, start, in_order, every = [], time.perf_counter(), True, min(1000, {frames})
with JsonLines(os.devnull, overwrite=True) as sink:
    stream = isp.stream(source, header)
    for place, result in enumerate(stream):
        sink.write(result)
        in_order &= result.number == place
        if (place + 1) % every == 0:
            kilobytes = int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
            memory.append(round(kilobytes / 1024, 1))
            print(place + 1, "frames", memory[-1], "MiB", file=sys.stderr, flush=True)
seconds = time.perf_counter() - start
print(json.dumps({{"frames": stream.stats.results, "in_order": in_order, "failed": len(stream.stats.failed),
    "rss_mib_first": memory[0], "rss_mib_last": memory[-1], "rss_mib_most": max(memory),
    "frames_per_second": round(stream.stats.results / seconds, 2)}}))
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


def run(code: str, tree: Path) -> str:
    """What a process prints which runs the code with a source tree."""
    environment = {**os.environ, "PYTHONPATH": str(tree / "src")}
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment, check=True)
    return done.stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    here = Path(__file__).resolve().parents[1]
    parser.add_argument("--peer", type=Path, default=here)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--policy", default="coco-fast")
    parser.add_argument("--backend", default="torch")
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--endurance", type=int, default=0, metavar="FRAMES")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        few = scenes(4)
        np.save(f"{folder}/frames.npy", few)
        content = [packed(frame) for frame in few]
        Path(folder, "frames.raw").write_bytes(b"".join(content[i % 4] for i in range(options.frames)))
        facts = {"threads": options.threads, "policy": options.policy, "black": BLACK, "frames": options.frames}
        facts |= {"backend": options.backend, "precision": options.precision}
        if options.endurance:
            print(run(ENDURANCE.format(**{**facts, "frames": options.endurance}, path=f"{folder}/frames.raw"), here))
            return
        calls = CALLS.format(**facts, path=f"{folder}/frames.npy")
        stream = STREAM.format(**facts, path=f"{folder}/frames.raw", out=f"{folder}/out.jsonl")
        rounds = [(float(run(calls, options.peer)), float(run(stream, here))) for _ in range(options.rounds)]
    peer, ours = (statistics.median(values) for values in zip(*rounds, strict=True))
    ratio = statistics.median(b / a for a, b in rounds)
    print(json.dumps({"peer_fps": round(peer, 2), "stream_fps": round(ours, 2), "ratio": round(ratio, 2), **facts}))


if __name__ == "__main__":
    main()
