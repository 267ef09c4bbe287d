"""`run --engine ray` on a cluster of several nodes on this machine, of which one is killed in the middle.

    python benchmarks/ray_cluster.py [--frames 2000] [--block 20] [--nodes 3] [--kill] [--workers 1 2] [--size 64]
        [--plain 100000 --side 32]

Makes raws, runs them by the local engine in blocks, then on a cluster of ray.cluster_utils with one CPU a node. With
--kill a node is killed when a third of the blocks is there, and a new one is added. Both must have the same rows, each
frame once, apart from times. Then the frames a second with each number of actors of --workers (a machine with two cores
shows no more for two). With --plain so many frames of SIDE pixels, one file read again and again, go through with a
detector stub, and the memory of the driver (RSS) is printed at each tenth.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own 15 would let any other work starve the workers
HERE = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(HERE), str(HERE / "src")]
os.environ["PYTHONPATH"] = os.pathsep.join([str(HERE / "src"), str(HERE)])

from adaptiveisp import AdaptiveISP
from adaptiveisp.inference.frames import Frame, find_frames
from adaptiveisp.inference.run_options import RunOptions
from adaptiveisp.raw.dng import write_dng
from adaptiveisp.scale.blocks import Block, blocks_of, read_blocks
from adaptiveisp.scale.local_engine import run_local
from adaptiveisp.scale.ray_engine import RayConfig, run_on_ray
from adaptiveisp.scale.ray_stages import Job
from adaptiveisp.types import RawImage
from tests.support.fake_detector import RedDetector


def raws(folder: Path, count: int, side: int = 64) -> None:
    folder.mkdir()
    for number in range(count):
        codes = np.random.default_rng(number).integers(300, 3000, (side * 3 // 4, side), dtype=np.uint16)
        write_dng(RawImage(codes, "RGGB", (256.0,) * 4, 4095.0, (2.0, 1.0, 1.6)), folder / f"{number:06}.dng")


def plain_rows(folder: Path, blocks: list[Block], options: RunOptions) -> list[str]:
    """The rows without times, as text."""
    return [
        json.dumps({key: value for key, value in row.items() if key != "times"}, sort_keys=True)
        for row in read_blocks(folder, blocks, options)
    ]


def rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Nodes:
    """A cluster whose second node can be killed and replaced."""

    def __init__(self, count: int):
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        self.others = [self.cluster.add_node(num_cpus=1) for _ in range(count - 1)]

    def replace_one(self) -> None:
        self.cluster.remove_node(self.others[0], allow_graceful=False)
        print("killed a node", flush=True)
        self.cluster.add_node(num_cpus=1)
        print("added a node", flush=True)


def on_cluster(
    isp: AdaptiveISP, blocks: list[Block], folder: Path, options: RunOptions, nodes: int, kill: bool, actors: int
) -> float:
    """Seconds of a run on a new cluster."""
    import ray

    folder.mkdir()
    cluster = Nodes(nodes)
    job = Job(isp, folder.resolve(), options, {}, os.getcwd())
    begin = time.perf_counter()
    try:
        for done, _ in enumerate(run_on_ray(job, blocks, RayConfig(cluster.cluster.address, actors)), 1):
            if done == 1:
                begin = time.perf_counter()
            if kill and done == max(1, len(blocks) // 3):
                cluster.replace_one()
            if done % max(1, len(blocks) // 10) == 0:
                print(f"{done} of {len(blocks)} blocks, driver {rss_mb():.0f} MB", flush=True)
    finally:
        ray.shutdown()
        cluster.cluster.shutdown()
    return time.perf_counter() - begin


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=2000)
    parser.add_argument("--block", type=int, default=20)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--workers", type=int, nargs="*", default=[])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--plain", type=int, default=0)
    parser.add_argument("--side", type=int, default=32)
    given = parser.parse_args()
    isp = AdaptiveISP("auto-exposure", RedDetector(), size=given.size)
    options = RunOptions(write="json")
    wrong = 0
    with tempfile.TemporaryDirectory() as place:
        os.chdir(place)
        if given.frames:
            raws(Path("raws"), given.frames)
            frames, _ = find_frames(["raws"])
            blocks = blocks_of(frames, given.block)
            Path("local").mkdir()
            list(run_local(isp, blocks, Path("local"), options, {}))
            on_cluster(isp, blocks, Path("ray"), options, given.nodes, given.kill, given.nodes)
            expected, found = (plain_rows(Path(name), blocks, options) for name in ("local", "ray"))
            wrong = sum(a != b for a, b in zip(expected, found, strict=True))
            names = {json.loads(row)["frame"] for row in found}
            print(f"{len(found)} rows of {len(names)} frames, {wrong} differ from the local run's")
            wrong += len(names) != given.frames or len(found) != given.frames
            for count in given.workers:
                seconds = on_cluster(isp, blocks, Path(f"ray{count}"), options, given.nodes, False, count)
                rest = given.frames - given.block
                print(f"{count} actors of each kind: {rest / seconds:.1f} frames a second after the first block")
        if given.plain:
            raws(Path("one"), 1, given.side)
            source = Path("one/000000.dng").resolve()
            many = [Frame(f"frame {number}", source, "", number) for number in range(given.plain)]
            blocks = blocks_of(many, 500)
            on_cluster(isp, blocks, Path("plain"), options, 1, False, 1)
            count = sum(1 for _ in read_blocks(Path("plain"), blocks, options))
            print(f"{count} rows for {given.plain} frames, driver {rss_mb():.0f} MB")
            wrong += count != given.plain
        os.chdir("/")
    return bool(wrong)


if __name__ == "__main__":
    raise SystemExit(main())
