"""`run` for many frames: rows, formats, what is written, resuming, shards, addresses and tar files."""

import http.server
import json
import shutil
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from adaptiveisp import Pipeline
from adaptiveisp.cli.parser import main
from adaptiveisp.detectors.onnx.sidecar import Sidecar
from adaptiveisp.inference import parquet
from adaptiveisp.inference.fingerprint import detector_fingerprint, fingerprint
from adaptiveisp.inference.frames import find_frames, in_shard, shard_of
from adaptiveisp.inference.records import COLUMNS
from adaptiveisp.policies.fixed import FixedPipeline
from adaptiveisp.policies.registry import load_policy
from adaptiveisp.raw.dng import write_dng
from adaptiveisp.raw.remote import find_remote
from adaptiveisp.utils.provenance import provenance
from tests.inference.test_mapping import raw
from tests.support.fake_detector import RedDetector

RED = "tests.support.fake_detector:load"
COMMON = ("--policy", "auto-exposure", "--detector", RED, "--size", "64", "-q")

pytestmark = pytest.mark.usefixtures("quiet_place")


def night(count: int = 5) -> None:
    Path("night").mkdir()
    for number in range(count):
        write_dng(raw(number), Path("night") / f"{number}.dng")
    (Path("night") / "1.dng").write_text("damaged")


def run(*arguments: str, out: str = "out", code: int = 3, inputs: str = "night") -> Path:
    assert main(["run", inputs, "--out", out, *COMMON, *arguments]) == code
    return Path(out)


def rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        timed = ("times", "timings", "milliseconds", "provenance")
        return {key: without_times(inner) for key, inner in value.items() if key not in timed}
    return [without_times(inner) for inner in value] if isinstance(value, list) else value


def content(out: Path) -> dict[str, Any]:
    """File → what it holds, without times."""
    found: dict[str, Any] = {}
    for path in sorted(out.rglob("*")):
        if path.suffix == ".json":
            found[str(path.relative_to(out))] = without_times(json.loads(path.read_text()))
        elif path.suffix == ".jsonl":
            found[path.name] = [without_times(json.loads(line)) for line in path.read_text().splitlines()]
        elif path.is_file() and path.name != ".adaptiveisp":
            found[str(path.relative_to(out))] = path.read_bytes()
    return found


def test_a_row_says_what_the_files_of_its_frame_say() -> None:
    night()
    out = run()
    found = rows(out)
    assert [row["frame"] for row in found] == [f"night/{n}.dng" for n in range(5)]
    assert all(tuple(row) == COLUMNS for row in found) and [row["number"] for row in found] == list(range(5))
    for row in found:
        if row["number"] == 1:
            assert "night/1.dng: is damaged" in row["skipped"] and row["boxes"] is None and row["times"] is None
            continue
        boxes = json.loads((out / f"{row['stem']}.boxes.json").read_text())
        listed = zip(row["boxes"], row["labels"], row["scores"], strict=True)
        assert [{"box": box, "class": name, "score": score} for box, name, score in listed] == boxes["boxes"]
        assert (row["width"], row["height"], row["times"]) == (boxes["width"], boxes["height"], boxes["timings"])
        stages = Pipeline.load(out / f"{row['stem']}.pipeline.json").stages
        assert [(s["module"], s["params"]) for s in row["pipeline"]] == [(s.module, dict(s.params)) for s in stages]
        assert row["files"] == [row["stem"] + e for e in (".boxes.json", ".png", ".boxes.png", ".pipeline.json")]


def test_what_is_written() -> None:
    night()
    about_all = {".adaptiveisp", "results.jsonl", "settings.json", "skipped.json", "summary.json"}
    names = {path.name for path in run("--write", "json", out="a").iterdir()}
    assert names == about_all
    names = {path.name for path in run("--write", "boxes", "--pictures", "jpeg", out="b").iterdir()}
    assert names == about_all | {"overview.png"} | {f"{n}.boxes.jpg" for n in (0, 2, 3, 4)}
    out = run(out="c")
    assert without_times(rows(out)) != without_times(rows(Path("a")))  # the names of the files
    for row, other in zip(rows(out), rows(Path("a")), strict=True):
        assert without_times({**row, "files": 0}) == without_times({**other, "files": 0})
    with Image.open("b/0.boxes.jpg") as lossy, Image.open("c/0.boxes.png") as exact:
        difference = np.asarray(lossy).astype(float) - np.asarray(exact)
        assert lossy.size == exact.size and 0 < np.abs(difference).mean() < 12
    assert main(["run", "night", "--out", "d", *COMMON, "--write", "json", "--full"]) == 2
    run("--write", "json", "--overwrite", out="c")  # what an earlier run wrote for these frames goes
    assert {path.name for path in out.iterdir()} == about_all


@pytest.mark.parametrize("damage", ["nothing done", "in a line", "between lines", "after the last", "at the end"])
def test_a_resumed_run_equals_one_that_was_not_stopped(damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    night()
    whole = run("--save-params", "--full", "--save-steps", out="whole")
    shutil.copytree(whole, "out")
    lines = Path("out/results.jsonl").read_bytes().splitlines(keepends=True)
    kept = {
        "nothing done": b"",
        "in a line": b"".join(lines[:3])[:-20],
        "between lines": b"".join(lines[:3]),
        "after the last": b"".join(lines),
        "at the end": b"".join(lines),
    }[damage]
    Path("out/results.jsonl").write_bytes(kept)
    done = [json.loads(line)["stem"] for line in kept.splitlines(keepends=True) if line.endswith(b"\n")]
    if damage != "at the end":
        for path in [*Path("out").glob("*.png"), *Path("out").glob("*.json"), Path("out/params.csv")]:
            if path.name.split(".")[0] not in done and path.name != "settings.json":
                path.unlink()
    stamps = {path: path.stat().st_mtime_ns for path in Path("out").glob("*.boxes.json")}
    run("--save-params", "--full", "--save-steps", "--resume")
    first, second = content(whole), content(Path("out"))
    assert first.keys() == second.keys()
    assert [name for name in first if first[name] != second[name]] == []
    assert all(path.stat().st_mtime_ns == stamp for path, stamp in stamps.items())  # nothing is done twice
    assert run("--save-params", "--full", "--save-steps", "--resume") == Path("out")
    assert rows(Path("out")) and content(Path("out")) == second


def test_resuming_is_refused_where_settings_differ(capsys: pytest.CaptureFixture[str]) -> None:
    night()
    run("--resume")  # nothing is there yet, so it begins
    for change, told in (
        (("--size", "96"), "--size 64, now 96"),
        (("--policy", "none"), "--policy"),
        (("--write", "json"), "--write 'all', now 'json'"),
        (("--confidence", "0.3"), "--confidence 0.05, now 0.3"),
        (("--shard", "1/2"), "--shard None, now '1/2'"),
        (("--camera-white-balance",), "--camera-white-balance False, now True"),
    ):
        capsys.readouterr()
        run(*change, "--resume", code=2)
        assert told in capsys.readouterr().err
    before, row = content(Path("out")), rows(Path("out"))[0]
    write_dng(raw(9), Path("night/9.dng"))
    run("--resume", code=2)
    assert "inputs '5 frames" in capsys.readouterr().err and content(Path("out")) == before
    run("--resume", "--overwrite", code=2)
    Path("night/9.dng").unlink()
    Path("out/results.jsonl").write_text("{}\n")
    run("--resume", code=1)
    assert "results.jsonl: line 1 is no row of a run; add --overwrite" in capsys.readouterr().err
    for wrong in ({"files": [3]}, {"times": {}}, {"scores": ["1"]}, {"raw": None}, {"number": "0"}):
        Path("out/results.jsonl").write_text(json.dumps({**row, **wrong}) + "\n")
        run("--resume", code=1)
        assert "line 1 is no row of a run" in capsys.readouterr().err
    Path("out/settings.json").unlink()
    run("--resume", code=2)
    assert "--overwrite instead of --resume" in capsys.readouterr().err


def test_shards_concatenate_to_the_whole() -> None:
    night(7)
    whole = rows(run(out="whole"))
    parts = [rows(run("--shard", f"{i}/3", out=f"part{i}", code=3 if i == 2 else 0)) for i in (1, 2, 3)]
    assert [row["number"] for row in parts[0]] == [0, 3, 6]
    joined = sorted((row for part in parts for row in part), key=lambda row: row["number"])
    assert without_times(joined) == without_times(whole)
    assert {p.name for i in (1, 2, 3) for p in Path(f"part{i}").glob("[0-9]*")} == {
        p.name for p in Path("whole").glob("[0-9]*")
    }
    run("--shard", "8/8", out="none", code=2)
    for wrong in ("0/3", "4/3", "1", "a/b", "1/-2"):
        run("--shard", wrong, out="none", code=2)
    frames, _ = find_frames(["night"])
    shares = [in_shard(frames, shard_of(f"{i}/4")) for i in (1, 2, 3, 4)]
    assert sorted(frame.number for share in shares for frame in share) == list(range(7))


def test_batches_and_workers_change_nothing_here() -> None:
    """The stand-in detector looks at each image alone."""
    night(7)
    whole = content(run(out="whole"))
    for arguments in (("--workers", "0"), ("--workers", "3"), ("--batch", "3", "--workers", "2")):
        found = content(run(*arguments, "--overwrite"))
        assert {name for name in whole if whole[name] != found[name]} <= {"settings.json"}
    lines = Path("out/results.jsonl").read_bytes().splitlines(keepends=True)
    Path("out/results.jsonl").write_bytes(b"".join(lines[:4]))  # in the middle of the second batch
    assert content(run("--batch", "3", "--resume")) == found


def test_parquet_has_the_same_rows_for_pandas_and_duckdb() -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    night()
    expected = without_times(rows(run(out="lines")))
    out = run("--format", "parquet")
    assert not (out / "results.jsonl").exists()
    assert without_times(list(parquet.read_rows(out / "results.parquet"))) == expected
    before = (out / "results.parquet").read_bytes()
    assert run("--format", "parquet", "--resume") == out and (out / "results.parquet").read_bytes() == before
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.read_parquet(out / "results.parquet")
    assert tuple(frame.columns) == COLUMNS and len(frame) == 5
    assert frame.frame.tolist() == [row["frame"] for row in expected]
    assert [list(map(list, one)) for one in frame.boxes[frame.skipped.isna()]] == [
        row["boxes"] for row in expected if row["skipped"] is None
    ]
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    file = str(out / "results.parquet")
    found = duckdb.sql(f"select frame, pipeline[2].params['ev'], len(boxes) from '{file}' where skipped is null")
    assert found.fetchall() == [
        (row["frame"], row["pipeline"][1]["params"]["ev"], len(row["boxes"])) for row in expected if row["boxes"]
    ]
    (kind,) = [line[1] for line in duckdb.sql(f"describe select boxes from '{file}'").fetchall()]
    assert kind == "DOUBLE[][]"


def test_parquet_without_its_library_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    night()
    monkeypatch.setattr("adaptiveisp.utils.optional_imports.importlib.util.find_spec", lambda name: None)
    run("--format", "parquet", code=1)
    assert "pyarrow is not installed; run: pip install 'adaptiveisp[parquet]'" in capsys.readouterr().err
    assert not Path("out").exists()


def test_addresses_and_tar_shards_beside_files() -> None:
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    from tests.inference.test_mapping import shard_of as tar

    night(3)
    contents = {f"{n}.dng": (Path("night") / f"{n}.dng").read_bytes() for n in (0, 2)}
    tar(Path("s.tar"), contents)
    for name, data in contents.items():
        fsspec.filesystem("memory").pipe(f"/run-test/deep/{name}", data)
    code = main(["run", "night", "memory://run-test/", "s.tar", "gone.tar", "--out", "out", *COMMON])
    assert code == 3
    found = rows(Path("out"))
    assert [row["frame"].replace("memory:///", "memory://") for row in found] == [
        *(f"night/{n}.dng" for n in range(3)),
        *(f"memory://run-test/deep/{n}.dng" for n in (0, 2)),
        *(f"s.tar::{n}.dng" for n in (0, 2)),
    ]
    assert [row["stem"] for row in found] == ["0", "1", "2", "deep/0", "deep/2", "s/0", "s/2"]
    for n in ("0", "2"):
        pictures = {(Path("out") / f"{place}{n}.png").read_bytes() for place in ("", "deep/", "s/")}
        assert len(pictures) == 1
    assert "gone.tar" in (Path("out") / "skipped.json").read_text()


def test_a_fingerprint_tells_contents_apart() -> None:
    first, again = load_policy("coco-fast"), load_policy("coco-fast")
    assert fingerprint(first) == fingerprint(again) != fingerprint(load_policy("coco-colours"))
    first.plan(torch.rand(1, 3, 64, 64))  # what is made on first use does not count
    assert fingerprint(first) == fingerprint(again)
    with torch.no_grad():
        next(again.network.parameters()).view(-1)[0] += 1e-3  # type: ignore[attr-defined]
    assert fingerprint(first) != fingerprint(again)
    one, other = (
        FixedPipeline(Pipeline.from_json({"version": 1, "stages": [{"module": "exposure", "params": {"ev": ev}}]}))
        for ev in (1.0, 1.5)
    )
    assert fingerprint(one) != fingerprint(other)


def test_an_empty_shard_is_not_the_whole(capsys: pytest.CaptureFixture[str]) -> None:
    night(2)
    run("--shard", "", code=2)
    assert "--shard : give its number" in capsys.readouterr().err and not Path("out").exists()
    assert main(["eval", "--data", "night", "--policy", "none", "--out", "out", "--shard", ""]) == 2
    assert "--shard : give its number" in capsys.readouterr().err


@pytest.mark.parametrize("second", ["R2", "auto-exposure", "p.json"])
def test_a_policy_is_not_taken_for_an_input(second: str, capsys: pytest.CaptureFixture[str]) -> None:
    night(2)
    Path("p.json").touch()
    Image.new("RGB", (64, 48)).save(Path("R2.png"))
    Path("R2").mkdir()
    Path("R2.png").rename("R2/trajectories.png")
    Path("R2/.adaptiveisp").write_text('{"kind": "train"}')
    assert main(["run", "--out", "out", "--detector", RED, "--size", "64", "--policy", "none", second, "night"]) == 2
    assert f"{second}: is a policy, taken for an INPUT" in capsys.readouterr().err and not Path("out").exists()


def test_a_run_with_a_latency_can_be_resumed() -> None:
    night()
    limit = ("--latency-ms", "1000")  # the times that it is kept by are measured by each process
    whole = content(run(*limit, out="whole"))
    out = run(*limit)
    lines = (out / "results.jsonl").read_text().splitlines(keepends=True)
    (out / "results.jsonl").write_text("".join(lines[:3]))
    assert [without_times(row) for row in rows(run(*limit, "--resume"))] == whole["results.jsonl"]


def test_a_detector_counts_with_its_classes_and_its_sidecar() -> None:
    first, other = RedDetector(), RedDetector()
    assert detector_fingerprint(first) == detector_fingerprint(other)
    other.class_names = ("dog", *first.class_names[1:])
    assert detector_fingerprint(first) != detector_fingerprint(other)
    one, two = RedDetector(), RedDetector()
    for detector, size in ((one, 320), (two, 416)):
        detector.facts = SimpleNamespace(sidecar=Sidecar(size=size))  # type: ignore[attr-defined]
    assert detector_fingerprint(one) != detector_fingerprint(two)


class ByAddress(http.server.SimpleHTTPRequestHandler):
    """Files of the working folder, whatever the query."""

    def log_message(self, *_: object) -> None:
        """Says nothing."""


def test_secrets_in_addresses_are_in_no_output(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("aiohttp", reason="aiohttp is not installed")
    night(1)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), ByAddress)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host = f"127.0.0.1:{server.server_address[1]}"
    query = "id=7&X-Amz-Signature=HIDDEN&sig=HIDDEN"
    inputs = [f"http://me:HIDDEN@{host}/night/0.dng?{query}", f"http://{host}/gone.dng?access_token=HIDDEN"]
    try:
        assert main(["run", *inputs, "--out", "out", *COMMON]) == 3
    finally:
        server.shutdown()
    assert [row["frame"] for row in rows(Path("out"))] == [
        f"http://…@{host}/night/0.dng?id=7&X-Amz-Signature=…&sig=…",
        f"http://{host}/gone.dng?access_token=…",
    ]
    captured = capsys.readouterr()
    assert "HIDDEN" not in captured.out + captured.err
    for path in Path("out").rglob("*"):
        assert path.is_dir() or b"HIDDEN" not in path.read_bytes(), path


def test_the_command_in_the_provenance_has_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["adaptiveisp", "run", "s3://me:HIDDEN@host/a.dng?Signature=HIDDEN&id=7"])
    assert provenance(0)["command"] == "adaptiveisp run 's3://…@host/a.dng?Signature=…&id=7'"


def test_an_address_of_version_6_is_no_pattern() -> None:
    assert find_remote("http://[::1]:80/a/0.dng") == [("http://[::1]:80/a/0.dng", Path("0.dng"))]
    assert find_remote("http://host/0.dng?of=[1]*") == [("http://host/0.dng?of=[1]*", Path("0.dng"))]
    fsspec = pytest.importorskip("fsspec", reason="fsspec is not installed")
    for name in ("a1.dng", "a2.dng", "b1.dng"):
        fsspec.filesystem("memory").pipe(f"/six/{name}", b"x")
    assert [path.name for _, path in find_remote("memory://six/[a]*.dng")] == ["a1.dng", "a2.dng"]


@pytest.mark.parametrize("before", [(), ("--block", "2")])
def test_several_policies_leave_no_files_of_one_before(before: tuple[str, ...]) -> None:
    pytest.importorskip("jinja2", reason="jinja2 is not installed")
    night(3)
    run(*before)
    (Path("out") / "mine.txt").touch()
    run("--policy", "none", "auto-exposure", "--overwrite")
    files = sorted(path.name for path in Path("out").iterdir() if path.is_file())
    assert files == [".adaptiveisp", "compare.html", "mine.txt", "summary.json"]
