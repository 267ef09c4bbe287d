"""The torch-free runtime on a small export whose outputs are computed by hand."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adaptiveisp_runtime import RuntimeFault, Session, StreamStats, available_providers, load_manifest, read_frames
from adaptiveisp_runtime.command_line import main

from adaptiveisp import Pipeline
from tests.conftest import REPOSITORY
from tests.support.small_export import outputs_by_hand, write_export

FACTS: dict[str, Any] = {"pattern": "GBRG", "black_level": 64, "white_level": 4095}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_export(tmp_path / "export")


@pytest.fixture
def session(folder: Path) -> Session:
    return Session(folder, threads=1)


def frame(height: int = 6, width: int = 8, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(64, 4096, (height, width)).astype(np.uint16)


def packed(values: np.ndarray) -> bytes:
    """CSI-2 12 bits: two high bytes, then a byte with both low halves."""
    first, second = values[:, ::2].astype(int), values[:, 1::2].astype(int)
    rows = np.stack([first >> 4, second >> 4, (first & 15) | (second & 15) << 4], axis=2)
    return rows.astype(np.uint8).tobytes()


def test_an_array_gives_the_result_by_hand(session: Session) -> None:
    values = frame()
    result = session(values, **FACTS)
    expected = outputs_by_hand(values, "GBRG", 64, 4095)
    np.testing.assert_allclose(result.image, expected["image"][0], atol=1e-6)
    assert result.boxes() == [{"box": [0, 0, 4, 3], "class": "car", "score": round(float(expected["scores"][0]), 4)}]
    assert result.full_size == (6, 8) and result.size == 416 and result.policy == "small" and result.detector == "tiny"
    assert result.pipeline.to_json()["stages"] == [{"module": "gamma", "params": {"gamma": 3.0}}]
    assert result.pipeline.describe() == ["gamma gamma=3"]
    assert result.milliseconds == result.timings.graph > 0
    assert "1 box: car" in repr(result) and "CPUExecutionProvider" in repr(session)


def test_bytes_and_files_give_what_the_array_gives(session: Session, tmp_path: Path) -> None:
    values = frame()
    (tmp_path / "a.raw").write_bytes(packed(values))
    expected = session(values, **FACTS)
    for given in (packed(values), bytearray(packed(values)), tmp_path / "a.raw", str(tmp_path / "a.raw")):
        found = session(given, size=(8, 6), **FACTS)
        np.testing.assert_array_equal(found.image, expected.image)
    assert session(tmp_path / "a.raw", size=(8, 6), **FACTS).name == "a.raw"


def test_the_files_of_a_result_are_those_of_run(session: Session, tmp_path: Path) -> None:
    result = session(frame(), **FACTS, name="x.raw")
    paths = result.save(tmp_path / "out")
    assert [path.name for path in paths] == ["x.boxes.json", "x.pipeline.json"]
    found = json.loads(paths[0].read_text())
    wanted = {"file", "width", "height", "policy", "detector", "size", "milliseconds", "timings", "boxes"}
    assert set(found) == wanted and found["boxes"] == result.boxes()
    assert Pipeline.load(paths[1]).stages[0].params == {"gamma": 3.0}


@pytest.mark.parametrize(
    ("changes", "given", "facts", "message"),
    [
        ({}, np.zeros((6, 8, 3), np.uint16), FACTS, r"shape \(6, 8, 3\), this export takes \(any, any\)"),
        ({"height": 6, "width": 10}, frame(), FACTS, r"this export takes \(6, 10\)"),
        ({}, frame().astype(np.float32), FACTS, "values of float32; give the camera's code values as uint16"),
        ({}, frame().astype(np.int64) + 70000, FACTS, "beyond uint16; check its depth"),
        ({}, np.full((6, 8), 4096, np.uint16), FACTS, "values up to 4096, beyond 12 bits; check its depth"),
        (
            {},
            frame(),
            {**FACTS, "black_level": 4095, "white_level": 64},
            "black_level = 4095, white_level = 64: 0 <= b",
        ),
        ({}, frame(), {**FACTS, "black_level": 100, "white_level": 100}, "0 <= black < white must hold"),
        ({}, frame(), {**FACTS, "black_level": [64, -5, 64, 64]}, "black_level = -5, .*0 <= black < white must hold"),
        ({}, frame(), {**FACTS, "black_level": "dark"}, "black_level = 'dark': is not a number"),
        ({}, bytes(200), {**FACTS, "size": (8, 6), "name": "dir/a.raw"}, "dir/a.raw: the frame has 200 bytes, 8x6"),
        ({}, b"12", {**FACTS, "name": "a.raw"}, r"a.raw: .* or --raw-size WxH"),
        ({}, frame(), {**FACTS, "white_level": None}, "or --raw-white"),
        ({}, frame(), {**FACTS, "white_level": None}, "white_level: this export has not fixed it; give white_level"),
        ({}, frame(), {**FACTS, "pattern": "RGBG"}, "pattern 'RGBG' does not exist; choose one of RGGB"),
        ({}, frame(), {**FACTS, "black_level": [1, 2]}, "give one number or 4"),
        ({}, b"12", FACTS, r"any size; give size=\(width, height\)"),
        ({}, b"12", {**FACTS, "size": (8, 6)}, "2 bytes, 8x6 in SRGGB12P needs 72"),
        ({"format": None}, b"12", FACTS, "no format of bytes; give an array, or export with --raw-format"),
        ({"height": 6, "width": 8}, b"12", {**FACTS, "size": (8, 7)}, "takes 8x6; leave size out"),
        ({}, "missing.raw", {**FACTS, "size": (8, 6)}, "missing.raw: cannot be read"),
    ],
)
def test_a_frame_that_does_not_fit_is_refused(
    tmp_path: Path, changes: dict[str, Any], given: Any, facts: dict[str, Any], message: str
) -> None:
    session = Session(write_export(tmp_path / "export", changes), threads=1)
    with pytest.raises(RuntimeFault, match=message) as caught:
        session(given, **facts)
    assert "\n" not in str(caught.value)


def test_facts_that_the_export_has_fixed_are_refused(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = manifest["graphs"]["full"]
    entry["inputs"] = [one for one in entry["inputs"] if one["name"] != "pattern"]
    manifest["frame"]["pattern"] = "RGGB"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RuntimeFault, match=r"pattern: this export has fixed it \(RGGB\); leave it out"):
        Session(folder, threads=1)(frame(), **FACTS)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("format", "other", "is not the manifest of an export"),
        ("format_version", 2, "has the version 2, this package reads version 1; update one of them"),
        ("detector", None, "has no 'detector'; export the folder again"),
        ("graphs", {"full": {}}, "its graphs are not valid"),
        ("graphs", {"full": {"file": "../x.onnx", "sha256": "", "inputs": [], "outputs": []}}, "outside the folder"),
    ],
)
def test_a_manifest_that_is_not_valid_is_refused(folder: Path, key: str, value: Any, message: str) -> None:
    content = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**content, key: value}))
    with pytest.raises(RuntimeFault, match=message):
        load_manifest(folder)


def test_a_changed_or_missing_graph_is_refused(folder: Path) -> None:
    (folder / "full.onnx").write_bytes((folder / "full.onnx").read_bytes() + b"\0")
    with pytest.raises(RuntimeFault, match="was changed since the export, by its hash"):
        Session(folder)
    (folder / "full.onnx").unlink()
    with pytest.raises(RuntimeFault, match="cannot be read"):
        Session(folder)
    with pytest.raises(RuntimeFault, match="give a folder that `adaptiveisp export` wrote"):
        Session(folder / "nowhere")


def test_the_self_test_passes_and_names_what_differs(folder: Path) -> None:
    outcome = Session(folder, threads=1).self_test()
    assert outcome.ok and outcome and str(outcome).startswith("full: agrees")
    for name, change, message in (
        ("image", lambda v: v + 0.01, "image differs by 0.01, more than 0.001"),
        ("params", lambda v: v + 0.1, "params differs by"),
        ("modules", lambda v: v + 1, r"modules are \[1, -1\] instead of \[2, 0\]"),
        ("boxes", lambda v: v + 1, "a box of class 2 with the score"),
    ):
        path = folder / "self_test" / f"full_outputs_{name}.bin"
        kept = path.read_bytes()
        kind = np.int64 if name == "modules" else np.float32
        path.write_bytes(change(np.frombuffer(kept, kind)).astype(kind).tobytes())
        changed = Session(folder, threads=1).self_test()
        assert not changed.ok
        with pytest.raises(AssertionError, match=message):
            raise AssertionError(str(changed))
        path.write_bytes(kept)
    (folder / "self_test" / "full_outputs_image.bin").write_bytes(b"1234")
    with pytest.raises(RuntimeFault, match="does not fit its manifest"):
        Session(folder, threads=1).self_test()


def test_providers_by_name(folder: Path) -> None:
    assert "CPUExecutionProvider" in available_providers()
    for name in ("cpu", "CPUExecutionProvider"):
        assert Session(folder, [name]).providers == ("CPUExecutionProvider",)
    with pytest.raises(RuntimeFault, match=r"provider nothing: this onnxruntime has only .*; install the build"):
        Session(folder, ["nothing"])
    with pytest.raises(RuntimeFault, match="engine 'x' does not exist"):
        Session(folder, engine="x")


def test_openvino_gives_the_same(folder: Path) -> None:
    pytest.importorskip("openvino")
    session = Session(folder, engine="openvino", threads=1)
    assert session.self_test().ok and session.providers == ("CPU",)
    values = frame()
    np.testing.assert_allclose(session(values, **FACTS).image, Session(folder)(values, **FACTS).image, atol=1e-6)
    with pytest.raises(RuntimeFault, match="OpenVINO sees only"):
        Session(folder, ["npu9"], engine="openvino")


def test_a_stream_gives_the_results_in_order(session: Session, tmp_path: Path) -> None:
    frames = [frame(seed=seed) for seed in range(5)]
    path = tmp_path / "all.raw"
    path.write_bytes(b"".join(packed(one) for one in frames) + b"rest")
    assert session.format is not None
    stats = StreamStats()
    found = list(session.stream(read_frames(path, session.format, 6, 8), stats, **FACTS))
    for one, values in zip(found, frames, strict=True):
        np.testing.assert_array_equal(one.image, session(values, **FACTS).image)
    assert stats.frames == 5 == len(stats.milliseconds) and stats.frames_per_second > 0 and not stats.dropped


def test_a_stream_of_a_camera_drops_frames_while_the_graph_is_busy(session: Session) -> None:
    stats, busy, all_sent = StreamStats(), threading.Event(), threading.Event()

    def camera() -> Any:
        yield frame(seed=0)
        busy.wait(10)
        for seed in range(1, 50):
            yield frame(seed=seed)
        all_sent.set()

    results = session.stream(camera(), stats, drop=True, **FACTS)
    next(results)
    busy.set()
    assert all_sent.wait(10)
    (last,) = results
    np.testing.assert_array_equal(last.image, session(frame(seed=49), **FACTS).image)
    assert stats.dropped == 48 and stats.frames == 2


def test_an_error_of_the_source_arrives(session: Session) -> None:
    def broken() -> Any:
        yield frame()
        raise OSError("camera gone")

    results = session.stream(broken(), **FACTS)
    assert next(results).full_size == (6, 8)
    with pytest.raises(OSError, match="camera gone"):
        next(results)


def test_the_command(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = frame()
    (tmp_path / "a.raw").write_bytes(packed(values))
    np.save(tmp_path / "b.npy", values)
    facts = ("--raw-pattern", "rggb", "--raw-black", "64", "--raw-white", "4095")
    inputs = (str(tmp_path / "a.raw"), str(tmp_path / "b.npy"))
    assert main(["run", str(folder), *inputs, "--raw-size", "8x6", "--out", str(tmp_path / "seen"), *facts]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["boxes"] == second["boxes"] and first["width"] == 8
    assert (tmp_path / "seen" / "a.pipeline.json").is_file()
    assert main(["self-test", str(folder)]) == 0
    assert main(["bench", str(folder), "--repeat", "2"]) == 0
    assert "frames a second" in capsys.readouterr().out
    assert main(["check", str(folder), "--target", "tensorrt"]) == 1
    assert "full: input frame: TensorRT 10.15 takes no uint16" in capsys.readouterr().out
    assert main(["run", str(folder), inputs[0], "--raw-size", "8", *facts]) == 1
    assert "give WIDTHxHEIGHT" in capsys.readouterr().err
    assert main(["run", str(folder), "a\x1b[31m.raw", "--raw-size", "8x6", *facts]) == 1
    assert "a\\x1b[31m.raw: cannot be read" in capsys.readouterr().err


def test_the_command_overwrites_no_result(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = ("--raw-size", "8x6", "--raw-pattern", "RGGB", "--raw-black", "64", "--raw-white", "4095")
    paths = [tmp_path / "a" / "f.raw", tmp_path / "b" / "f.raw"]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(packed(frame()))
    out = tmp_path / "ro"
    command = ["run", str(folder), *facts, "--out", str(out)]
    assert main([*command, *map(str, paths)]) == 1 and not out.exists()
    assert f"{paths[0]} and {paths[1]}: both would be written to f.boxes.json" in capsys.readouterr().err
    assert main([*command, str(paths[0])]) == 0
    before = (out / "f.boxes.json").read_bytes()
    assert main([*command, str(paths[1])]) == 1
    assert "f.boxes.json: exists; remove it, or give another --out folder" in capsys.readouterr().err
    assert (out / "f.boxes.json").read_bytes() == before


def test_wrong_use_of_the_command_gives_one_line(
    folder: Path, session: Session, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for count in ("0", "-1", "x"):
        with pytest.raises(SystemExit) as caught:
            main(["bench", str(folder), "--repeat", count])
        assert caught.value.code == 2 and "is not a whole number of at least 1" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    (tmp_path / "a.raw").write_bytes(packed(frame()))
    assert main(["run", str(folder), str(tmp_path / "a.raw"), "--out", str(tmp_path / "file")]) == 1
    assert "file: is a file; give --out a folder" in capsys.readouterr().err
    with pytest.raises(RuntimeFault, match="cannot be written to"):
        session(frame(), **FACTS).save(tmp_path / "file")


def test_it_imports_and_runs_with_torch_blocked(folder: Path) -> None:
    """Neither `adaptiveisp_runtime` nor `adaptiveisp.runtime` needs torch, and the names are the same."""
    code = (
        "import sys\n"
        "class Block:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('torch', 'jaxtyping', 'PIL', 'yaml', 'safetensors'):\n"
        "            raise ImportError(name + ' is blocked')\n"
        "sys.meta_path.insert(0, Block())\n"
        "import adaptiveisp.runtime as ours, adaptiveisp_runtime as theirs, numpy as np\n"
        "assert ours.Session is theirs.Session and set(ours.__all__) == set(theirs.__all__)\n"
        "session = ours.Session(sys.argv[1], threads=1)\n"
        "assert session.self_test().ok\n"
        "result = session(np.full((6, 8), 999, np.uint16), pattern='RGGB', black_level=64, white_level=4095)\n"
        "assert len(result.boxes()) == 1\n"
        "assert 'torch' not in sys.modules and 'onnx' not in sys.modules\n"
    )
    paths = [str(REPOSITORY / "src"), str(REPOSITORY / "runtime" / "src")]
    where = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, env=where)
    assert done.returncode == 0, done.stderr


def test_a_prepared_graph_is_used_only_where_it_belongs(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Session(folder, threads=1)
    assert main(["prepare", str(folder)]) == 0
    file = folder / "prepared" / "full.ort"
    assert capsys.readouterr().out.strip() == str(file) and file.read_bytes()[4:8] == b"ORTM"
    after = Session(folder, threads=1)
    assert after.is_prepared and not before.is_prepared and after.self_test().ok
    values = frame()
    np.testing.assert_array_equal(after(values, **FACTS).image, before(values, **FACTS).image)
    assert {path.name for path in file.parent.iterdir()} == {"full.ort", "full.json"}

    facts = json.loads((file.parent / "full.json").read_text())
    for key in ("machine", "onnxruntime", "graph_sha256"):
        (file.parent / "full.json").write_text(json.dumps({**facts, key: "another"}))
        assert not Session(folder, threads=1).is_prepared
    (file.parent / "full.json").write_text(json.dumps(facts))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(RuntimeFault, match=r"full\.ort: was changed since it was prepared"):
        Session(folder, threads=1)
    file.unlink()
    assert not Session(folder, threads=1).is_prepared
    (folder / "full.onnx").write_bytes(b"another")
    with pytest.raises(RuntimeFault, match=r"full\.onnx: was changed since the export"):
        before.prepare()
