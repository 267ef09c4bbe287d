"""The command `adaptiveisp-runtime`: run, self-test, check and bench a folder of `adaptiveisp export`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

from adaptiveisp_runtime.errors import RuntimeFault


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command: 0 done, 1 failed or not the same numbers, 2 wrong use."""
    options = _parser().parse_args(argv)
    try:
        return int(options.command(options))
    except RuntimeFault as error:
        text = "".join(letter if letter.isprintable() else f"\\x{ord(letter):02x}" for letter in str(error))
        print(f"adaptiveisp-runtime: {text[:1000]}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="adaptiveisp-runtime", description="Runs what `adaptiveisp export` wrote.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    run = _command(commands, "run", "print the boxes of raw frames, one line of JSON for each", _run)
    run.add_argument("frames", nargs="+", metavar="FILE", help="headerless frames in the format of the export, or .npy")
    run.add_argument("--out", metavar="FOLDER", help="also write STEM.boxes.json and STEM.pipeline.json there")
    _facts(run)
    test = _command(commands, "self-test", "compare this machine's numbers with those of the export", _self_test)
    test.add_argument("--graph", action="append", metavar="NAME", help="only this graph; may be repeated")
    text = "write the graph as onnxruntime has optimised it for this processor, which loads in less time and memory"
    _command(commands, "prepare", text, _prepare, engine=False)
    check = _command(
        commands, "check", "name what another runtime's documentation does not allow", _check, engine=False
    )
    check.add_argument("--target", required=True, choices=("tensorrt", "ort-mobile"))
    bench = _command(commands, "bench", "time the graph on the frame of the self-test", _bench)
    bench.add_argument("--repeat", type=_count, default=20, metavar="N", help="timed calls (default %(default)s)")
    return parser


def _command(commands: Any, name: str, text: str, function: Any, engine: bool = True) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    parser.add_argument("folder", metavar="DIR", help="folder that `adaptiveisp export` wrote")
    if engine:
        text = "execution provider by name, such as cuda or tensorrt; may be repeated, first choice first"
        parser.add_argument("--provider", action="append", metavar="NAME", help=text)
        parser.add_argument("--engine", default="onnxruntime", choices=("onnxruntime", "openvino"))
        parser.add_argument("--threads", type=int, default=0, metavar="N", help="threads of an operator")
    parser.set_defaults(command=function)
    return parser


def _facts(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--raw-size", metavar="WxH", help="size of the frames, where the export takes any")
    parser.add_argument("--raw-pattern", metavar="RGGB", help="pattern, where the export has not fixed it")
    parser.add_argument("--raw-black", type=float, metavar="V", help="black level, where the export has not fixed it")
    parser.add_argument("--raw-white", type=float, metavar="V", help="white level, where the export has not fixed it")


def _session(options: argparse.Namespace) -> Any:
    from adaptiveisp_runtime.session import Session

    return Session(options.folder, options.provider, options.threads, options.engine)


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text) >= 1):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number of at least 1")
    return int(text)


def _refuse_taken(frames: Sequence[str], folder: Path) -> None:
    """Refuses an output folder in which a result would be written over another one."""
    if folder.exists() and not folder.is_dir():
        raise RuntimeFault(f"{folder}: is a file; give --out a folder")
    owners: dict[str, str] = {}
    for path in frames:
        stem = Path(path).stem
        if stem in owners:
            both = f"{owners[stem]} and {path}"
            raise RuntimeFault(f"{both}: both would be written to {stem}.boxes.json; run them with two --out folders")
        owners[stem] = path
        for name in (f"{stem}.boxes.json", f"{stem}.pipeline.json"):
            if (folder / name).exists():
                raise RuntimeFault(f"{folder / name}: exists; remove it, or give another --out folder")


def _run(options: argparse.Namespace) -> int:
    import numpy as np

    if options.out:
        _refuse_taken(options.frames, Path(options.out))
    session = _session(options)
    session.manifest.refuse_parts()
    size = None
    if options.raw_size:
        parts = options.raw_size.lower().split("x")
        if len(parts) != 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
            raise RuntimeFault(f"--raw-size {options.raw_size}: give WIDTHxHEIGHT, for instance 1920x1080")
        size = (int(parts[0]), int(parts[1]))
    facts = {"pattern": options.raw_pattern, "black_level": options.raw_black, "white_level": options.raw_white}
    for path in options.frames:
        frame: Any = path
        if path.endswith(".npy"):
            try:
                frame = np.load(path, allow_pickle=False)
            except (OSError, ValueError) as error:
                raise RuntimeFault(f"{path}: cannot be read as .npy ({error}); give the code values") from error
        result = session(frame, size=None if path.endswith(".npy") else size, name=path, **facts)
        if options.out:
            result.save(options.out)
        print(json.dumps(result.to_json()), flush=True)
    return 0


def _self_test(options: argparse.Namespace) -> int:
    outcome = _session(options).self_test(options.graph)
    print(outcome)
    return 0 if outcome.ok else 1


def _prepare(options: argparse.Namespace) -> int:
    from adaptiveisp_runtime.session import Session

    print(Session(options.folder, ["cpu"]).prepare())
    return 0


def _check(options: argparse.Namespace) -> int:
    from adaptiveisp_runtime.operators import check_graphs

    faults = check_graphs(options.folder, options.target)
    for fault in faults:
        print(fault)
    if not faults:
        print(f"all operators are on the documented list of {options.target}; it was not run there")
    return 1 if faults else 0


def _bench(options: argparse.Namespace) -> int:
    session = _session(options)
    session.manifest.refuse_parts()
    if "full" not in session.manifest.content["self_test"]:
        raise RuntimeFault(f"{options.folder}: has no self-test of the graph full; export the folder again")
    test = session.manifest.content["self_test"]["full"]["inputs"]
    given = {entry["name"]: session.manifest.tensor(entry) for entry in test}
    facts = {name: value for name, value in given.items() if name != "frame"}
    if "pattern" in facts:
        facts["pattern"] = session.manifest.frame["patterns"][int(facts["pattern"])]
    times = [session(given["frame"], **facts).timings.graph for _ in range(options.repeat + 2)][2:]
    print(f"{median(times):.1f} ms (median of {len(times)}), {1e3 / median(times):.1f} frames a second; {session}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
