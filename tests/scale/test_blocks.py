"""Results in blocks: rows, tar shards, resuming, and the operators of the Ray engine without a cluster."""

import json
import os
import pickle
import socket
import tarfile
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from adaptiveisp import AdaptiveISP, BayerHeader
from adaptiveisp.cli.parser import main
from adaptiveisp.errors import AdaptiveISPError
from adaptiveisp.inference.frames import find_frames, stamped
from adaptiveisp.inference.result_files import FormerFiles
from adaptiveisp.inference.run_options import RunOptions
from adaptiveisp.raw.dng import write_dng
from adaptiveisp.scale.blocks import blocks_of, read_blocks, write_block, write_tar
from adaptiveisp.scale.ray_address import require_cluster
from adaptiveisp.scale.ray_engine import RayConfig, _connect
from adaptiveisp.scale.ray_stages import DetectStage, Job, RenderStage, item_of, read, write
from adaptiveisp.scale.worker_warnings import TellOnce
from tests.inference.test_mapping import raw
from tests.inference.test_remarks import write_frames
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


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_blocks_whose_inputs_have_changed_are_made_again(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    night(7)
    arguments = ("--block", "2", "--format", kind)
    out = run(*arguments)
    stamps = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*")}
    write_dng(raw(50), Path("night/2.dng"))
    capsys.readouterr()
    run(*arguments, "--resume")
    assert "computed again, since the file has changed: night/2.dng\n" in capsys.readouterr().err
    again = {path.name for path in out.glob("part-*") if path.stat().st_mtime_ns != stamps[path.name]}
    assert again == {f"part-000001.{kind}", "part-000001.tar"}
    fresh = run(*arguments, out="fresh")
    frames = find_frames(["night"])[0]
    found, expected = (
        without_times(list(read_blocks(place, blocks_of(frames, 2), RunOptions(rows=kind)))) for place in (out, fresh)
    )
    assert found == expected


def test_a_killed_overwrite_leaves_no_block_to_resume(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Killed while the earlier files are removed: some of them are still there, also the settings."""
    night(5)
    arguments = ("--block", "2", "--write", "json")
    out = run(*arguments)
    before = content(out)

    def killed(*_: Any, **__: Any) -> None:
        (out / "part-000001.jsonl").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(FormerFiles, "remove_batch_files", killed)
        run(*arguments, "--overwrite", code=130)
    for path in out.glob("part-*"):  # rows that nobody could have computed: whoever keeps them is found out
        path.write_text(path.read_text().replace("night/", "other/"))
    capsys.readouterr()
    run(*arguments, "--resume")
    assert "out: holds rows of a run that was being replaced" in capsys.readouterr().err and content(out) == before
    capsys.readouterr()
    run(*arguments, "--resume")
    assert "being replaced" not in capsys.readouterr().err


def test_a_block_with_more_rows_than_frames_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    night(4)
    out = run("--block", "2", "--write", "json")
    with (out / "part-000001.jsonl").open("a") as stream:
        stream.write((out / "part-000000.jsonl").read_text())
    run("--block", "2", "--write", "json", "--resume", code=1)
    assert "part-000001.jsonl: holds other frames" in capsys.readouterr().err


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


DOUBTFUL = ("--raw-size", "64x48", "--raw-bits", "10", "--raw-pattern", "RGGB", "--raw-white", "100")


def test_doubts_about_raws_are_told_with_blocks_as_without(capsys: pytest.CaptureFixture[str]) -> None:
    write_frames(6)
    told = []
    for out, *more in (("single",), ("blocks", "--block", "2")):
        run(*DOUBTFUL, "--write", "json", "--workers", "0", *more, out=out, code=0)
        summary = json.loads((Path(out) / "summary.json").read_text())
        told.append((capsys.readouterr().err, summary["remarks"], summary["dropped_boxes"]))
    assert told[0] == told[1] and "values above the white level: 5 files" in told[0][0]


def test_warnings_of_the_operators_of_ray_reach_the_driver_once(caplog: pytest.LogCaptureFixture) -> None:
    write_frames(6)
    Path("out").mkdir()
    header, cwd = BayerHeader(64, 48, 10, "RGGB", white=100.0), os.getcwd()
    options = RunOptions(write="json", header=header)
    blocks = blocks_of(find_frames(["night"])[0], 2)
    told = []
    for block in blocks:  # each by processes of its own, which know nothing of one another
        packed = pickle.dumps(Job(AdaptiveISP("none", RedDetector(), size=64), Path("out").resolve(), options, {}, cwd))
        render, detect = RenderStage(packed, cwd, ()), DetectStage(packed, cwd, ())
        told.append(write(detect(render(read(item_of(block), options, cwd))), Path("out"), options))
    warnings = [json.loads(one["warnings"]) for one in told]
    assert [list(one) for one in warnings] == [["values above the white level"]] * 3
    assert "night/1.raw: " in warnings[0]["values above the white level"]  # the first frame with a doubt
    caplog.clear()
    tell = TellOnce()
    for one in warnings:
        tell(one)
    assert [record.getMessage() for record in caplog.records] == list(warnings[0].values())
    found = read_blocks(Path("out"), blocks, options)
    assert [len(row["remarks"]) for row in found] == [0, 1, 1, 1, 1, 1]


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


def closed_address() -> str:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{closed.getsockname()[1]}"


def test_a_cluster_that_does_not_answer_is_one_line_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    address = closed_address()
    for given in (address, f"ray://{address}"):
        with pytest.raises(AdaptiveISPError, match=f"--address {given}: does not answer"):
            _connect(SimpleNamespace(is_initialized=lambda: False), RayConfig(given))
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(AdaptiveISPError, match=f"--address auto, RAY_ADDRESS {address}: does not answer"):
        require_cluster("auto")
    require_cluster("")


@pytest.mark.parametrize("answer", [b"HTTP/1.0 400 Bad Request\r\n\r\n", b"\0\0\0\4\0\0\0\0\0", b""])
def test_an_address_where_another_program_answers_is_refused(answer: bytes) -> None:
    """A server of gRPC, as Ray has, begins with a SETTINGS frame of HTTP/2, which is type 4."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(100)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        if answer[:4] == b"\0\0\0\4":
            require_cluster(address)
        else:
            with pytest.raises(AdaptiveISPError, match=f"{address}: another program than Ray answers"):
                require_cluster(address)
        thread.join()


def test_a_wrong_address_costs_nothing_of_an_earlier_run(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("ray", reason="ray is not installed")
    night(2)
    out = run("--block", "2", "--write", "json")
    before = content(out)
    run("--engine", "ray", "--address", address := closed_address(), "--overwrite", code=1)
    assert f"--address {address}: does not answer" in capsys.readouterr().err and content(out) == before
