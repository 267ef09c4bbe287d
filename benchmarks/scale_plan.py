"""Bytes, hours and money for millions of frames, from seconds a frame that were measured and prices that you name.

    python benchmarks/scale_plan.py [--measure] [--frames 1e7] [--set NAME=VALUE …]

Without --measure the seconds are those of `MEASURED`; with it they are measured now, on 12-megapixel DNGs, as CPU time
of one thread, which other work on the machine hardly changes. All other numbers are inputs by name (`Inputs`), none of
which is a measurement or an offer: `--set core_hour=0.03 --set link_gbit=10`. Prints the tables of docs/scale.md.
"""

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))

MEASURED: dict[str, float] = {
    "read": 0.0495,
    "develop": 0.01695,
    "policy and modules": 0.01945,
    "detect": 0.0626,
    "encode pictures": 0.00772,
    "row": 0.00008,
    "bytes read": 24000498,
    "bytes of pictures": 121985,
    "bytes of a row": 1662,
}
"""CPU seconds of a frame by stage, and bytes of what is read and written; see docs/scale.md for machine and commit."""
WIDTH, HEIGHT = 4000, 3000


@dataclass(frozen=True)
class Inputs:
    """Numbers that the plan takes as given.

    Attributes:
        frames: number of frames.
        box_cores: cores of the one box.
        cluster_cores: cores of the cluster.
        use: share of the cores' time that goes into the work.
        link_gbit: rate at which the box, or each node of the cluster, reads from the store, in 10^9 bits a second.
        node_cores: cores of a node of the cluster.
        store_gbit: rate that the store gives to all nodes together.
        core_hour: price of a core for an hour.
        tb_month: price of 10^12 bytes stored for a month.
        tb_read: price of 10^12 bytes read from the store.
        list_per_second: names that the store lists in a second.
        renames_per_second: files that the output's file system creates and renames in a second.
    """

    frames: float = 1e7
    box_cores: float = 64
    cluster_cores: float = 1024
    use: float = 0.8
    link_gbit: float = 10
    node_cores: float = 32
    store_gbit: float = 200
    core_hour: float = 0.04
    tb_month: float = 23
    tb_read: float = 0
    list_per_second: float = 5000
    renames_per_second: float = 1000


def measure(count: int = 4) -> dict[str, float]:
    """CPU seconds and bytes of a frame, the least of some frames for each stage."""
    import numpy as np
    import torch

    from adaptiveisp import AdaptiveISP
    from adaptiveisp.inference.frames import Frame
    from adaptiveisp.inference.journal import line_of
    from adaptiveisp.inference.raw_input import as_raw
    from adaptiveisp.inference.records import row_of
    from adaptiveisp.inference.result_files import EncodedFiles
    from adaptiveisp.raw.dng import write_dng
    from adaptiveisp.raw.level_checks import facts_of
    from adaptiveisp.types import RawImage

    torch.set_num_threads(1)
    isp = AdaptiveISP()
    found: dict[str, list[float]] = {}

    def timed(name: str, work: Callable[[], Any]) -> Any:
        begin = time.process_time()
        made = work()
        found.setdefault(name, []).append(time.process_time() - begin)
        return made

    with tempfile.TemporaryDirectory() as folder:
        for number in range(count + 1):
            generator = np.random.default_rng(number)
            light = np.linspace(30, 600, WIDTH)[None] * np.linspace(1, 2, HEIGHT)[:, None]
            codes = (generator.poisson(light) + 256).clip(0, 4095).astype(np.uint16)
            path = Path(folder) / f"{number}.dng"
            write_dng(RawImage(codes, "RGGB", (256.0,) * 4, 4095.0, (2.0, 1.0, 1.6)), path)
            raw = timed("read", lambda path=path: as_raw(path, None))
            developed = timed("develop", lambda raw=raw: isp.develop(raw))
            rendered = timed("policy and modules", lambda developed=developed: isp.render(developed))
            result = timed("detect", lambda rendered=rendered: isp.detect(rendered))
            files = EncodedFiles()
            timed("encode pictures", lambda result=result, files=files: result.place(files, "a", {}))
            row = row_of(Frame(str(path), path, "a", number), result, facts_of(raw), files.names)
            line = timed("row", lambda row=row: line_of(row))
            found.setdefault("bytes read", []).append(path.stat().st_size)
            found.setdefault("bytes of pictures", []).append(sum(len(content) for _, content in files.contents))
            found.setdefault("bytes of a row", []).append(len(line))
    return {name: round(min(values[1:]), 5) for name, values in found.items()}


def tables(measured: dict[str, float], given: Inputs) -> str:
    """The tables as Markdown."""
    stages = {name: value for name, value in measured.items() if not name.startswith("bytes")}
    total = sum(stages.values())
    n, core_s = given.frames, given.frames / 3600
    lines = ["| stage | CPU s a frame | core hours | share |", "|---|---:|---:|---:|"]
    lines += [f"| {name} | {s:.4f} | {s * core_s:,.0f} | {100 * s / total:.0f} % |" for name, s in stages.items()]
    lines += [f"| all | {total:.4f} | {total * core_s:,.0f} | |", ""]
    lines += ["| what | a frame | all |", "|---|---:|---:|"]
    for name in ("bytes read", "bytes of pictures", "bytes of a row"):
        lines.append(f"| {name} | {measured[name] / 1e3:,.1f} kB | {measured[name] * n / 1e12:,.2f} TB |")
    read_bits = 8 * measured["bytes read"] * n
    nodes = given.cluster_cores / given.node_cores
    rows = {
        "computing": [total * n / (cores * given.use) for cores in (given.box_cores, given.cluster_cores)],
        "reading": [
            read_bits / (rate * 1e9) for rate in (given.link_gbit, min(given.store_gbit, nodes * given.link_gbit))
        ],
        "listing the inputs, one process": [n / given.list_per_second] * 2,
        "four files a frame (`--write all`)": [4 * n / given.renames_per_second] * 2,
        "two files a block of 256 (`--block 256`)": [2 * n / 256 / given.renames_per_second] * 2,
    }
    lines += ["", f"| hours | one box, {given.box_cores:g} cores | {given.cluster_cores:g} cores |", "|---|---:|---:|"]
    lines += [f"| {name} | {box / 3600:,.1f} | {cluster / 3600:,.1f} |" for name, (box, cluster) in rows.items()]
    money = total * core_s / given.use * given.core_hour
    stored = (measured["bytes of pictures"] + measured["bytes of a row"]) * n / 1e12
    lines += ["", f"Money by the named prices: {money:,.0f} for the cores, "]
    lines[-1] += f"{measured['bytes read'] * n / 1e12 * given.tb_read:,.0f} for reading, "
    lines[-1] += f"{stored * given.tb_month:,.0f} a month for pictures and rows, "
    lines[-1] += f"{measured['bytes of a row'] * n / 1e12 * given.tb_month:,.2f} for rows alone."
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true")
    parser.add_argument("--frames", type=float)
    parser.add_argument("--set", dest="values", action="append", default=[], metavar="NAME=VALUE")
    given = parser.parse_args()
    measured = measure() if given.measure else MEASURED
    if given.measure:
        print(json.dumps(measured))
    values = {name: float(value) for name, value in (one.split("=", 1) for one in given.values)}
    if given.frames:
        values["frames"] = given.frames
    print(tables(measured, dataclasses.replace(Inputs(), **values)))


if __name__ == "__main__":
    main()
