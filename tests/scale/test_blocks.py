"""Results in blocks: rows, tar shards, resuming, and the operators of the Ray engine without a cluster."""

import json
import os
import pickle
import socket
import tarfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adaptiveisp import AdaptiveISP
from adaptiveisp.cli.parser import main
from adaptiveisp.errors import AdaptiveISPError
from adaptiveisp.inference.frames import find_frames, stamped
from adaptiveisp.inference.run_options import RunOptions
from adaptiveisp.raw.dng import write_dng
from adaptiveisp.scale.blocks import blocks_of, read_blocks, write_block, write_tar
from adaptiveisp.scale.ray_engine import RayConfig, _connect
from adaptiveisp.scale.ray_stages import DetectStage, Job, RenderStage, item_of, read, write
from tests.inference.test_mapping import raw
from tests.inference.test_run_many import COMMON, RED, content, night, rows, run, without_times
from tests.support.fake_detector import RedDetector

pytestmark = pytest.mark.usefixtures("quiet_place")


def block_rows(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(out.glob("part-*.jsonl")) for line in path.read_text().splitlines()]


def test_blocks_have_the_rows_and_files_of_single_inputs() -> None:
    night(7)
    single = run(out="single")
    out = run("--block", "3")
    names = {path.name for path in out.iterdir()}
    parts = {f"part-{n:06}.{kind}" for n in range(3) for kind in ("jsonl", "tar")}
    assert names == parts | {".adaptiveisp", "settings.json", "skipped.json", "summary.json"}
    found, expected = block_rows(out), rows(single)
    strip = {"files": 0}
    assert [without_times({**row, **strip}) for row in found] == [without_times({**row, **strip}) for row in expected]
    with tarfile.open(out / "part-000001.tar") as archive:
        members = archive.getnames()
        for row in found[3:6]:
            assert all(name in members for name in row["files"])
            kept = archive.extractfile(row["files"][1])
            assert kept is not None and kept.read() == (single / f"{row['stem']}.png").read_bytes()
    assert members[:2] == ["000000003.boxes.json", "000000003.png"]
    summary = json.loads((out / "summary.json").read_text())
    assert (summary["n_rows"], summary["n_skipped"], summary["blocks"]) == (7, 1, 3)


def test_blocks_are_made_once_and_the_missing_ones_again(capsys: pytest.CaptureFixture[str]) -> None:
    night(7)
    out = run("--block", "2", "--write", "json")
    whole = content(out)
    (out / "part-000001.jsonl").unlink()
    stamp = (out / "part-000000.jsonl").stat().st_mtime_ns
    again = content(run("--block", "2", "--write", "json", "--resume"))
    assert again == whole and (out / "part-000000.jsonl").stat().st_mtime_ns == stamp
    run("--block", "3", "--write", "json", "--resume", code=2)
    assert "--block 2, now 3" in capsys.readouterr().err
    run("--write", "json", "--resume", code=2)
    run("--block", "2", "--full", code=2, out="x")
    assert "--full writes files of single inputs" in capsys.readouterr().err
    run("--write", "json", "--overwrite")
    assert not list(out.glob("part-*")) and len(rows(out)) == 7
    run("--block", "4", "--overwrite", "--write", "json")
    assert not (out / "results.jsonl").exists() and len(block_rows(out)) == 7
    (out / "part-000000.jsonl").write_text((out / "part-000001.jsonl").read_text())
    run("--block", "4", "--write", "json", "--resume", code=1)
    assert "part-000000.jsonl: holds other frames" in capsys.readouterr().err


def test_shards_of_blocks_as_parquet_and_for_webdataset() -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    night(5)
    out = run("--block", "2", "--format", "parquet", "--shard", "2/2")
    duckdb = pytest.importorskip("duckdb", reason="duckdb is not installed")
    assert duckdb.sql(f"select number from '{out}/part-*.parquet' order by number").fetchall() == [(1,), (3,)]
    webdataset = pytest.importorskip("webdataset", reason="webdataset is not installed")
    samples = list(webdataset.WebDataset(str(out / "part-000000.tar"), shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == ["000000003"]
    assert samples[0]["png"].startswith(b"\x89PNG") and json.loads(samples[0]["boxes.json"])["file"] == "night/3.dng"


def test_a_tar_file_depends_on_its_files_alone(tmp_path: Path) -> None:
    for name in ("one.tar", "two.tar"):
        write_tar(tmp_path / name, [("a.png", b"1" * 1000), ("a.boxes.json", b"{}")])
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()


def test_the_operators_of_ray_make_what_the_local_engine_makes() -> None:
    """One after the other in this process, each on what the one before handed on as bytes."""
    night(7)
    local = run("--block", "3", out="local")
    out, cwd = Path("out"), os.getcwd()
    out.mkdir()
    frames = stamped(find_frames(["night"])[0])
    options = RunOptions(batch=2)
    isp = AdaptiveISP("auto-exposure", RedDetector(), size=64)
    packed = pickle.dumps(Job(isp, out.resolve(), options, {}, cwd))
    render, detect = RenderStage(packed, cwd, ()), DetectStage(packed, cwd, ())
    blocks = blocks_of(frames, 3)
    told = [write(detect(render(read(item_of(block), options, cwd))), out, options) for block in blocks]
    assert [(one["block"], one["n_results"], one["n_skipped"]) for one in told] == [(0, 2, 1), (1, 3, 0), (2, 1, 0)]
    assert without_times(list(read_blocks(out, blocks, options))) == without_times(block_rows(local))
    write(detect(render(read(item_of(blocks[0]), options, cwd))), out, options)  # as after a lost worker
    assert without_times(list(read_blocks(out, blocks, options))) == without_times(block_rows(local))
    with tarfile.open(out / "part-000001.tar") as one, tarfile.open(local / "part-000001.tar") as other:
        assert one.getnames() == other.getnames()
        for name in (name for name in one.getnames() if name.endswith(".png")):
            first, second = one.extractfile(name), other.extractfile(name)
            assert first is not None and second is not None and first.read() == second.read()


def test_a_failing_detector_and_a_folder_that_is_not_there_end_the_run() -> None:
    class Broken(RedDetector):
        def detect(self, image: Any, **options: Any) -> Any:
            return []  # for one image

    night(2)
    frames, _ = find_frames(["night"])
    (block,) = blocks_of(frames, 2)
    cwd, options = os.getcwd(), RunOptions()
    render, detect = object.__new__(RenderStage), object.__new__(DetectStage)
    render.job = detect.job = Job(AdaptiveISP("none", Broken(), size=64), Path("out").resolve(), options, {}, cwd)
    found = write(detect(render(read(item_of(block), options, cwd))), Path("out"), options)
    assert "detect must return a list" in found["error"]
    told = write({"content": pickle.dumps((block, [], {}))}, Path("gone"), options)
    assert "gone: is not on this machine; give an --out that all nodes" in told["error"]
    Path("out").mkdir()
    with pytest.raises(ValueError, match="shorter"):
        write_block(Path("out"), block, [], options)


def test_ray_is_optional(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    write_dng(raw(0), Path("a.dng"))
    assert main(["run", "a.dng", "--out", "out", "--actors", "2", "--detector", RED]) == 2
    assert "--actors is for --engine ray" in capsys.readouterr().err
    monkeypatch.setattr("adaptiveisp.utils.optional_imports.importlib.util.find_spec", lambda name: None)
    assert main(["run", "a.dng", "--out", "out", "--engine", "ray", *COMMON]) == 1
    assert "ray is not installed; run: pip install 'adaptiveisp[ray]'" in capsys.readouterr().err


def test_a_cluster_that_does_not_answer_is_one_line_at_once() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{closed.getsockname()[1]}"
        with pytest.raises(AdaptiveISPError, match=f"--address {address}: does not answer"):
            _connect(SimpleNamespace(is_initialized=lambda: False), RayConfig(address))
