"""Every command end to end, in process, on small data; files, exit codes and messages."""

import errno
import importlib.util
import json
import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from adaptiveisp.cli.parser import build_parser, main
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.isp.registry import PAPER
from adaptiveisp.policies.checkpoint import PolicyHeader, save_policy
from adaptiveisp.policies.stepwise.networks import Actor
from adaptiveisp.raw.dng import write_dng
from adaptiveisp.raw.reader import read_raw
from adaptiveisp.types import RawImage
from tests.support.photos import labelled_photos

pytestmark = pytest.mark.usefixtures("quiet_place", "without_figures")

RED = "tests.support.fake_detector:load"


def adaptiveisp(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def dng(path: Path, seed: int = 0, shape: tuple[int, int] = (48, 64)) -> Path:
    codes = np.random.default_rng(seed).integers(300, 3000, shape, dtype=np.uint16)
    codes[12:24, 16:32] = np.tile([[3900, 400], [400, 300]], (6, 8)).astype(np.uint16)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_dng(RawImage(codes, "RGGB", (256.0,) * 4, 4095.0, (2.0, 1.0, 1.6)), path)
    return path


def assert_one_line_error(text: str, *fragments: str) -> None:
    lines = [line for line in text.splitlines() if line.startswith("adaptiveisp: ")]
    assert lines and "Traceback" not in text, text
    for fragment in fragments:
        assert any(fragment in line for line in lines), (fragment, lines)


# run


def test_run_writes_image_boxes_and_pipeline_for_each_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dng(tmp_path / "in" / "a.dng", 1)
    dng(tmp_path / "in" / "deep" / "b.dng", 2)
    assert (
        adaptiveisp(
            *("run", "in", "--out", "out", "--policy", "auto-exposure", "--detector", RED, "--size", 64),
            *("--save-steps", "--save-params", "--full"),
        )
        == 0
    )
    out = tmp_path / "out"
    names = sorted(str(p.relative_to(out)) for p in out.rglob("*") if p.is_file())
    each = [".boxes.json", ".boxes.png", ".full.png", ".pipeline.json", ".png", ".step00-developed.png"]
    each += [".step01-white_balance.png", ".step02-exposure.png", ".step03-srgb.png", ".steps.png"]
    assert names == sorted(
        [
            *("a" + e for e in each),
            *("deep/b" + e for e in each),
            *(".adaptiveisp", "overview.png", "params.csv", "results.jsonl", "settings.json", "summary.json"),
        ]
    )
    boxes = json.loads((out / "a.boxes.json").read_text())
    assert (boxes["width"], boxes["height"], boxes["policy"]) == (64, 48, "auto-exposure")
    assert boxes["boxes"][0]["class"] == "cup" and len(boxes["boxes"][0]["box"]) == 4
    assert {"version", "commit", "cpu", "threads", "seed", "weights_sha256", "cost_table", "command"} <= set(
        boxes["provenance"]
    )
    assert Pipeline.load(out / "a.pipeline.json").stages[2].module == "srgb"
    with Image.open(out / "a.png") as picture, Image.open(out / "a.full.png") as full:
        assert picture.size == (64, 48) and full.size == (64, 48) and picture.mode == "RGB"
    assert (out / "params.csv").read_text().count("exposure,ev,") == 2
    text = capsys.readouterr().out
    assert "white_balance exposure srgb" in text and "cup" in text and "2 images" in text


def test_run_of_a_headerless_raw_with_flags_or_a_sidecar(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(20, 200, (48, 64), dtype=np.uint8)
    (tmp_path / "x.raw").write_bytes(pixels.tobytes())
    flags = ("--raw-size", "64x48", "--raw-bits", 8, "--raw-pattern", "GRBG", "--raw-black", 12.5)
    assert adaptiveisp("run", "x.raw", *flags, "--out", "flags", "--detector", RED, "--size", 64, "-q") == 0
    (tmp_path / "x.yaml").write_text("raw-size: 64x48\nraw-bits: 8\nraw-pattern: GRBG\nraw-black: 12.5\n")
    assert adaptiveisp("run", "x.raw", "--out", "sidecar", "--detector", RED, "--size", 64, "-q") == 0
    assert (tmp_path / "flags" / "x.png").read_bytes() == (tmp_path / "sidecar" / "x.png").read_bytes()


def test_run_with_a_pipeline_alone_or_with_a_policys_parameters(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dng(tmp_path / "a.dng")
    Pipeline((Stage("exposure", {"ev": 1.5}),)).save(tmp_path / "p.json")
    common = ("--detector", RED, "--size", 64, "-q")
    assert adaptiveisp("run", "a.dng", "--pipeline", "p.json", "--out", "one", *common) == 0
    assert Pipeline.load(tmp_path / "one" / "a.pipeline.json").stages == (Stage("exposure", {"ev": 1.5}),)
    assert (
        adaptiveisp("run", "a.dng", "--pipeline", "p.json", "--policy", "auto-exposure", "--out", "two", *common) == 0
    )
    (stage,) = Pipeline.load(tmp_path / "two" / "a.pipeline.json").stages
    assert stage.module == "exposure" and stage.params["ev"] != 1.5
    assert capsys.readouterr().out == ""
    content = {"version": 1, "start": "auto-exposure", "stages": [{"module": "exposure", "params": {"ev": 0.5}}]}
    (tmp_path / "begun.json").write_text(json.dumps(content))
    policy = ("--policy", "begun.json", "--out", "three")
    assert adaptiveisp("run", "a.dng", "--pipeline", "p.json", *policy, *common[:-1]) == 0
    stages = Pipeline.load(tmp_path / "three" / "a.pipeline.json").stages
    assert [stage.module for stage in stages] == ["white_balance", "exposure", "srgb", "exposure"]
    assert stages[-1].params == {"ev": 0.5}
    assert "begun starts with auto-exposure: its stages come first, then the file's" in capsys.readouterr().out


def test_run_goes_on_after_bad_inputs_and_exits_with_3(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dng(tmp_path / "good.dng")
    (tmp_path / "text.dng").write_text("this is no raw file\n")
    (tmp_path / "empty.dng").touch()
    long = dng(tmp_path / f"{'n' * 245}.dng").name  # its .boxes.png can be written, its .boxes.json cannot
    inputs = ("good.dng", "text.dng", "empty.dng", "gone.dng", long)
    assert adaptiveisp("run", *inputs, "--out", "out", "--detector", RED, "--size", 64) == 3
    skipped = json.loads((tmp_path / "out" / "skipped.json").read_text())["skipped"]
    assert sorted(Path(entry["input"]).name for entry in skipped) == ["empty.dng", "gone.dng", long, "text.dng"]
    assert (tmp_path / "out" / "good.png").is_file() and not list((tmp_path / "out").glob("nnn*"))
    lines = (
        "text.dng",
        "empty.dng",
        "gone.dng",
        "n.boxes.json: cannot be written (File name too long); shorten the name",
    )
    assert_one_line_error(capsys.readouterr().err, *lines)


def bad_inputs(folder: Path) -> dict[str, tuple[list[object], str]]:
    """Name → arguments of `run`, and what its message must say."""
    good = dng(folder / "good.dng").read_bytes()
    (folder / "truncated.dng").write_bytes(good[: len(good) // 2])
    (folder / "empty.dng").touch()
    (folder / "text.dng").write_text("not a raw\n" * 100)
    (folder / "zeros.dng").write_bytes(bytes(4000))
    (folder / "wrong.raw").write_bytes(bytes(range(256)) * 12 + b"x")
    (folder / "headerless.raw").write_bytes(bytes(range(256)) * 12)
    np.save(folder / "nan.npy", np.full((32, 32, 3), np.nan))
    np.save(folder / "object.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    np.save(folder / "pixel.npy", np.ones((1, 1, 3), np.float32))
    np.save(folder / "black.npy", np.zeros((32, 32, 3), np.uint16))
    (folder / "notes.txt").write_text("hello")
    (folder / "photos").mkdir()
    Image.new("RGB", (32, 32)).save(folder / "photos" / "photo.jpg")
    Image.new("L", (32, 32), 9).save(folder / "grey.png")
    header = ["--raw-size", "64x48", "--raw-bits", 8, "--raw-pattern", "GRBG"]
    return {
        "missing": (["gone.dng"], "gone.dng: no such file"),
        "empty": (["empty.dng"], "empty.dng: is empty"),
        "truncated": (["truncated.dng"], "truncated.dng"),
        "text": (["text.dng"], "text.dng"),
        "zeros": (["zeros.dng"], "zeros.dng"),
        "wrong-size": (["wrong.raw", *header], "wrong.raw"),
        "no-header": (["headerless.raw"], "--raw-size"),
        "nan": (["nan.npy"], "nan.npy"),
        "object": (["object.npy"], "object.npy"),
        "one-pixel": (["pixel.npy"], "pixel.npy"),
        "black": (["black.npy"], "black.npy"),
        "unknown-kind": (["notes.txt"], "notes.txt"),
        "photo": (["photos/photo.jpg"], "photo.jpg: is a photo; photos are no raws: give them to eval or train with"),
        "photos": (["photos"], "no raw files in photos; photos are no raws: give them to eval or train with --light"),
        "grey-photo": (["grey.png"], "photos are no raws"),
    }


BAD_INPUTS = [
    "missing",
    "empty",
    "truncated",
    "text",
    "zeros",
    "wrong-size",
    "no-header",
    "nan",
    "object",
    "one-pixel",
    "black",
    "unknown-kind",
    "photo",
    "photos",
    "grey-photo",
]


@pytest.mark.parametrize("kind", BAD_INPUTS)
def test_each_bad_input_fails_with_one_line(kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments, message = bad_inputs(tmp_path)[kind]
    assert adaptiveisp("run", *arguments, "--out", "out", "--detector", RED, "--size", 64) == 1
    assert_one_line_error(capsys.readouterr().err, message)


def test_wrong_use_exits_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dng(tmp_path / "a.dng")
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "precious.txt").write_text("keep me")
    common = ("--detector", RED, "--size", 64)
    assert adaptiveisp("run", "a.dng", "--out", "taken", *common) == 2
    assert_one_line_error(capsys.readouterr().err, "taken: exists already", "--overwrite")
    assert adaptiveisp("run", "a.dng", "--out", "taken", "--overwrite", *common) == 2
    assert_one_line_error(capsys.readouterr().err, "taken: holds files, and no .adaptiveisp says")
    (tmp_path / "taken" / ".adaptiveisp").touch()  # the remedy that the message names
    assert adaptiveisp("run", "a.dng", "--out", "taken", "--overwrite", *common) == 0
    assert (tmp_path / "taken" / "precious.txt").read_text() == "keep me"
    assert adaptiveisp("doctor", "taken", "--out", "taken", "--overwrite") == 2
    assert_one_line_error(capsys.readouterr().err, "taken: holds what `run` made")
    assert adaptiveisp("run", "a.dng", "--out", "a.dng", *common) == 2
    capsys.readouterr()
    assert adaptiveisp("run", "a.dng", "--out", "x", "--policy", "automatic", *common) == 2
    error = capsys.readouterr().err
    assert "coco-fast" in error and "oracle" not in error  # those need labels, which run does not have
    assert adaptiveisp("run", "a.dng", "--out", "x", "--raw-size", "64by48", *common) == 2
    assert adaptiveisp("run", "a.dng", "--out", "x", "--raw-pattern", "RGBG", *common) == 2
    assert adaptiveisp("run", "a.dng", "--out", "x", "--size", "3") == 2
    assert adaptiveisp("run", "a.dng") == 2
    assert adaptiveisp("run", "a.dng", "--out", "x", "--siz", "64", "--detector", RED) == 2  # no abbreviations
    assert adaptiveisp("run", "a.dng", "--out", "x", "--seed", "-1", *common) == 2
    if not torch.cuda.is_available():
        assert adaptiveisp("run", "a.dng", "--out", "x", "--device", "cuda", *common) == 2
    assert adaptiveisp("nonsense") == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "a.dng"), "run: the following arguments are required: --out; see `adaptiveisp run --help`"),
        (
            ("run", "a.dng", "--out", "x", "--size", "3"),
            "run: argument --size: 3 is not in 32 to 8192; see `adaptiveisp run --help`",
        ),
        (("bench", "--siz", "9"), "bench: unrecognized arguments: --siz 9; see `adaptiveisp bench --help`"),
        (
            ("weights", "get"),
            "weights get: the following arguments are required: NAME; see `adaptiveisp weights get --help`",
        ),
        ((), "the following arguments are required: COMMAND; see `adaptiveisp --help`"),
    ],
)
def test_wrong_options_are_one_line(
    arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert adaptiveisp(*arguments) == 2 and capsys.readouterr().err == f"adaptiveisp: {message}\n"


@pytest.mark.parametrize("out", ["file/out", "/proc/adaptiveisp"])
def test_an_output_folder_that_cannot_be_made(out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dng(tmp_path / "a.dng")
    (tmp_path / "file").touch()
    assert adaptiveisp("run", "a.dng", "--out", out, "--detector", RED, "--size", 64) == 1
    assert_one_line_error(capsys.readouterr().err, out, "choose another --out")


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"module": "sharpness", "params": {}}, "sharpness"),
        ({"module": "exposure", "params": {"ev": 99}}, "out of range"),
    ],
)
def test_bad_pipelines(stage: object, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dng(tmp_path / "a.dng")
    (tmp_path / "p.json").write_text(json.dumps({"version": 1, "stages": [stage]}))
    assert adaptiveisp("run", "a.dng", "--pipeline", "p.json", "--out", "out", "--detector", RED) == 1
    assert_one_line_error(capsys.readouterr().err, "p.json", message)
    assert not (tmp_path / "out").exists()


def test_run_never_replaces_an_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = dng(tmp_path / "raws" / "a.dng").read_bytes()
    common = ("--detector", RED, "--size", 64, "-q")
    assert adaptiveisp("run", "raws/a.dng", "--out", "raws", "--overwrite", *common) == 2
    assert_one_line_error(capsys.readouterr().err, "lies in the output folder")
    for _ in range(2):  # the second run does not take the first one's pictures for raws
        assert adaptiveisp("run", "raws", "--out", "raws/out", "--overwrite", *common) == 0
        summary = json.loads((tmp_path / "raws" / "out" / "summary.json").read_text())
        assert len(summary["images"]) == 1
    assert (tmp_path / "raws" / "a.dng").read_bytes() == before


def test_overwrite_replaces_what_it_made_of_the_same_inputs_and_nothing_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a", "b", "deep/c"):
        dng(tmp_path / "in" / f"{name}.dng")
    common = ("--out", "out", "--overwrite", "--detector", RED, "--size", 64, "-q")
    assert adaptiveisp("run", "in", "--save-steps", "--save-params", "--full", *common) == 0
    out = tmp_path / "out"
    (tmp_path / "outside").mkdir()
    for name in ("out/mine.txt", "out/a.txt", "out/a.step.png", "outside/a.png", "outside/c.png"):
        (tmp_path / name).write_text("keep me")
    (out / "link").symlink_to(tmp_path / "outside")
    # What a file in the folder lists is not believed.
    (out / "summary.json").write_text(json.dumps({"files": ["mine.txt", "link/a.png", "../outside/c.png"]}))
    assert adaptiveisp("run", "in/a.dng", "--policy", "camera", *common) == 0
    names = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file() and path.name[0] == "a")
    assert names == ["a.boxes.json", "a.boxes.png", "a.png", "a.step.png", "a.txt"]
    listed = json.loads((out / "summary.json").read_text())["files"]
    assert listed == ["a.boxes.json", "a.png", "a.boxes.png", "overview.png", "results.jsonl", "settings.json"]
    assert (
        (out / "b.step03-srgb.png").is_file()
        and (out / "deep" / "c.full.png").is_file()
        and not (out / "params.csv").exists()
    )
    assert {(out / "mine.txt").read_text(), *(p.read_text() for p in (tmp_path / "outside").iterdir())} == {"keep me"}
    assert_one_line_error(capsys.readouterr().err, "out: 19 files of other inputs stay there, from an earlier run")


def test_a_link_out_of_the_output_folder_is_not_written_through(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dng(tmp_path / "in" / "deep" / "a.dng")
    dng(tmp_path / "in" / "b.dng")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "a.png").write_text("keep me")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".adaptiveisp").touch()
    (tmp_path / "out" / "deep").symlink_to(tmp_path / "outside")
    common = ("--out", "out", "--overwrite", "--detector", RED, "--size", 64, "-q")
    assert adaptiveisp("run", "in", *common) == 3
    assert_one_line_error(capsys.readouterr().err, "a.boxes.json: a link leads out of out; remove the link")
    assert [path.name for path in (tmp_path / "outside").iterdir()] == ["a.png"]
    assert (tmp_path / "out" / "b.png").is_file()


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_batch_that_is_stopped_leaves_whole_sets_and_a_summary(
    failure: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The disk is full, or somebody interrupts, after the boxes of the second input and before its pipeline."""
    dng(tmp_path / "a.dng")
    dng(tmp_path / "b.dng")
    from adaptiveisp.inference import result_files as run_outputs

    real = run_outputs.save_content

    def full(path: Path, content: bytes) -> None:
        if "b.boxes.png" in path.name:
            raise failure
        real(path, content)

    monkeypatch.setattr(run_outputs, "save_content", full)
    code = adaptiveisp("run", "a.dng", "b.dng", "gone.dng", "--out", "out", "--detector", RED, "--size", 64, "-q")
    assert code == (130 if isinstance(failure, KeyboardInterrupt) else 1)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    sets = ["a.boxes.json", "a.boxes.png", "a.pipeline.json", "a.png"]
    assert names == [".adaptiveisp", *sets, "results.jsonl", "settings.json", "summary.json"]
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [row["file"] for row in summary["images"]] == ["a.dng"] and summary["stopped"]
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    again = ("--out", "out", "--overwrite", "--detector", RED, "--size", 64, "-q")
    assert adaptiveisp("run", "a.dng", "b.dng", *again) == 0
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["stopped"] == ""


def test_the_boxes_of_an_input_appear_last(tmp_path: Path) -> None:
    """A kill between two renames leaves no boxes without what belongs to them."""
    from adaptiveisp.inference.result_files import ResultFiles

    seen = []
    real = os.replace

    def replace(source: Path, target: Path) -> None:
        seen.append(Path(target).name)
        real(source, target)

    with pytest.MonkeyPatch.context() as patch, ResultFiles(tmp_path) as files:
        patch.setattr(os, "replace", replace)
        files.json("a.boxes.json", {})
        files.json("a.pipeline.json", {})
        files.picture("a.png", np.zeros((4, 4, 3), np.uint8))
        assert not [path for path in tmp_path.iterdir() if not path.name.startswith(".")]
        files._files.close()
    assert seen == ["a.png", "a.pipeline.json", "a.boxes.json"]


def test_a_run_that_can_use_nothing_leaves_what_was_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dng(tmp_path / "a.dng")
    common = ("--out", "out", "--overwrite", "--detector", RED, "--size", 64, "-q")
    assert adaptiveisp("run", "a.dng", *common) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.name != ".adaptiveisp"}
    (tmp_path / "a.dng").write_text("damaged")
    assert adaptiveisp("run", "a.dng", *common) == 1
    assert_one_line_error(capsys.readouterr().err, "skipped: a.dng", "no input could be used")
    assert before == {p.name: p.read_bytes() for p in (tmp_path / "out").iterdir() if p.name != ".adaptiveisp"}


def test_results_of_earlier_runs_are_not_taken_for_raws(tmp_path: Path) -> None:
    dng(tmp_path / "in" / "a.dng")
    common = ("--detector", RED, "--size", 64, "-q")
    assert adaptiveisp("run", "in", "--out", "in/first", *common) == 0
    assert adaptiveisp("run", "in", "--out", "in/second", *common) == 0
    summary = json.loads((tmp_path / "in" / "second" / "summary.json").read_text())
    assert [row["file"] for row in summary["images"]] == ["in/a.dng"] and summary["n_skipped"] == 0


def test_a_detector_that_ends_the_process_is_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dng(tmp_path / "a.dng")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.support.fake_detector.RedDetector._one", lambda *_: sys.exit(0))
        assert adaptiveisp("run", "a.dng", "--out", "out", "--detector", RED, "--size", 64, "-q") == 1
    assert_one_line_error(capsys.readouterr().err, "SystemExit")


def test_a_name_that_is_not_utf8_is_skipped_and_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dng(tmp_path / "in" / "good.dng")
    try:
        os.rename(dng(tmp_path / "in" / "x.dng"), os.fsencode(tmp_path) + b"/in/caf\xe9.dng")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert adaptiveisp("run", "in", "--out", "out", "--detector", RED, "--size", 64, "-q") == 3
    assert_one_line_error(capsys.readouterr().err, r"in/caf\xe9.dng: its name is not UTF-8", "rename it")
    (entry,) = json.loads((tmp_path / "out" / "skipped.json").read_text())["skipped"]
    assert entry["input"].endswith("caf\udce9.dng") and (tmp_path / "out" / "good.png").is_file()


def test_options_that_do_nothing_say_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled_photos(tmp_path)
    synth = ("synth", "--data", "labels.json", "--images", "images", "--light", "dark", "--limit", 1, "--out", "raws")
    assert adaptiveisp(*synth, "--workers", 2, "-q") == 0
    assert_one_line_error(capsys.readouterr().err, "--workers has no effect in this command")
    data = ("--data", "labels.json", "--images", "images", "--policy", "none", "--detector", RED, "--size", 64, "-q")
    assert adaptiveisp("eval", *data, "--light", "dark", "--cache", "c", "--limit", 1, "--out", "report") == 0
    assert_one_line_error(capsys.readouterr().err, "--cache has no effect: raws that --light makes are made again")
    assert adaptiveisp("eval", *data, "--draws", 3, "--noise", "none", "--out", "other") == 0
    assert_one_line_error(capsys.readouterr().err, "--draws has no effect", "--noise has no effect")


def test_full_size_says_when_memory_is_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dng(tmp_path / "a.dng", shape=(96, 128))
    (tmp_path / "meminfo").write_text("MemTotal: 100 kB\nMemAvailable: 300 kB\n")
    monkeypatch.setattr("adaptiveisp.utils.allocator.MEMORY_FACTS", tmp_path / "meminfo")
    assert adaptiveisp("run", "a.dng", "--full", "--out", "out", "--detector", RED, "--size", 64, "-q") == 0
    assert_one_line_error(capsys.readouterr().err, "a.dng: --full of 0 MP needs about 0.0 GB of memory")
    monkeypatch.setattr("adaptiveisp.utils.allocator.MEMORY_FACTS", tmp_path / "gone")
    assert adaptiveisp("run", "a.dng", "--full", "--out", "out2", "--detector", RED, "--size", 64, "-q") == 0
    assert capsys.readouterr().err == ""


def test_a_surprise_in_one_file_does_not_stop_the_batch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    dng(tmp_path / "a.dng")
    dng(tmp_path / "b.dng")
    from adaptiveisp.inference import raw_input

    def surprise(path: Path, header: object) -> RawImage:
        if path.name == "a.dng":
            raise ZeroDivisionError("what\nnow")
        return read_raw(path)

    monkeypatch.setattr(raw_input, "read_raw", surprise)
    assert adaptiveisp("run", "a.dng", "b.dng", "--out", "out", "--detector", RED, "--size", 64, "-q") == 3
    assert_one_line_error(capsys.readouterr().err, "a.dng: unexpected ZeroDivisionError: what; replace")


# synth and eval


def test_synth_then_eval(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled_photos(tmp_path)
    made = adaptiveisp(
        "synth", "--data", "labels.json", "--images", "images", "--light", "dark,normal", "--draws", 2, "--out", "raws"
    )
    assert made == 0
    entry = json.loads((tmp_path / "raws" / "dark" / "labels.json").read_text())["images"][0]
    assert 0.003 <= entry["light"] <= 0.05 and entry["unprocessing"]["noise"] == "sensor"
    code = adaptiveisp("eval", "--data", "raws", "--policy", "none", "auto-exposure", "camera", "--detector", RED,
                       "--size", 64, "--resamples", 200, "--out", "report")  # fmt: skip
    assert code == 0
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert report["settings"]["size"] == 64 and report["settings"]["resamples"] == 200
    assert report["schema_version"] == 1 and set(report["policies"]) == {"none", "auto-exposure", "camera"}
    score = report["policies"]["auto-exposure"]["red"]
    assert {"ap", "ap50", "ap75", "per_light", "n_images", "ms_per_image", "clock_ms", "cost_ms"} <= set(score)
    assert score["n_images"] == 12 and score["modules_per_image"] == 3
    assert [(d["a"], d["b"]) for d in report["differences"]] == [
        ("auto-exposure", "none"), ("camera", "none"), ("camera", "auto-exposure")
    ]  # fmt: skip
    page = (tmp_path / "report" / "report.html").read_text()
    assert "auto-exposure" in page and not re.search(r"(src|href)=\"https?:", page)
    text = capsys.readouterr().out
    assert (
        "AP50" in text
        and "clock ms" in text
        and "cost ms (paper)" in text
        and text.count("With 3 photos the intervals are rough; use at") == 1
    )


def test_eval_on_the_fly_equals_eval_on_disk(tmp_path: Path) -> None:
    labelled_photos(tmp_path)
    data = ("--data", "labels.json", "--images", "images", "--light", "mixed", "--draws", 2, "--seed", 3)
    assert adaptiveisp("synth", *data, "--out", "raws", "-q") == 0
    common = ("--policy", "none", "camera", "--detector", RED, "--size", 64, "--resamples", 200, "-q")
    assert adaptiveisp("eval", *data, *common, "--out", "live") == 0
    assert adaptiveisp("eval", "--data", "raws/mixed", *common, "--out", "disk") == 0
    live, disk = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("live", "disk"))
    for policy in ("none", "camera"):
        for key in ("ap", "ap50", "ap75", "per_light"):
            assert live["policies"][policy]["red"][key] == disk["policies"][policy]["red"][key]


def test_eval_reports_skips(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled_photos(tmp_path)
    (tmp_path / "images" / "photo2.png").write_bytes(b"")
    code = adaptiveisp("eval", "--data", "labels.json", "--images", "images", "--light", "dark", "--policy", "none",
                       "--detector", RED, "--size", 64, "--resamples", 200, "--out", "out")  # fmt: skip
    assert code == 3
    assert "photo2.png" in json.loads((tmp_path / "out" / "skipped.json").read_text())["skipped"][0]["input"]
    assert_one_line_error(capsys.readouterr().err, "photo2.png")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"categories": [{"id": 1, "name": "unicorn"}, {"id": 47, "name": "griffin"}]}, "unicorn"),
        ({"categories": []}, "unknown class id"),
        ({"annotations": [{"image_id": 10, "category_id": 47, "bbox": [50, 5, 100, 5]}]}, "does not lie inside"),
        ({"images": []}, "labels.json"),
    ],
)
def test_eval_of_bad_labels(
    changes: dict[str, object], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled_photos(tmp_path, **changes)
    data = ("--data", "labels.json", "--images", "images", "--light", "dark")
    assert adaptiveisp("eval", *data, "--policy", "none", "--detector", RED, "--out", "out", "--size", 64) == 1
    assert_one_line_error(capsys.readouterr().err, message)


def test_wrong_data_arguments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled_photos(tmp_path)
    common = ("--policy", "none", "--detector", RED, "--out", "out", "--size", 64)
    assert adaptiveisp("eval", "--data", "labels.json", *common) == 2
    assert adaptiveisp("eval", "--data", "labels.json", "--images", "images", "--light", "dusk", *common) == 2
    assert adaptiveisp("eval", "--data", "gone", *common) == 1
    assert adaptiveisp("synth", "--data", "labels.json", "--images", "images", "--light", "dusk", "--out", "out") == 2
    assert adaptiveisp("synth", "--data", "labels.json", "--images", "images", "--light", ",", "--out", "out") == 2
    assert adaptiveisp("synth", "--data", "labels.json", "--images", "gone", "--light", "dark", "--out", "out") == 1
    assert "Traceback" not in capsys.readouterr().err
    name = "n" * 250  # a raw's name also has the number of its draw
    (tmp_path / "images" / "photo1.png").rename(tmp_path / "images" / f"{name}.png")
    (tmp_path / "labels.json").write_text((tmp_path / "labels.json").read_text().replace("photo1", name))
    data = ("--data", "labels.json", "--images", "images", "--light", "dark")
    assert adaptiveisp("synth", *data, "--limit", 1, "--out", "long") == 1 and not (tmp_path / "long").exists()
    assert_one_line_error(capsys.readouterr().err, f"{name}_0.png: cannot be written (File name too long); shorten")


def test_two_pipelines_of_one_name_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled_photos(tmp_path)
    for folder in ("a", "b"):
        Pipeline(()).save(tmp_path / folder / "p.json")
    data = ("--data", "labels.json", "--images", "images", "--light", "dark", "--detector", RED, "--out", "out")
    assert adaptiveisp("eval", *data, "--policy", "a/p.json", "b/p.json") == 2
    assert_one_line_error(capsys.readouterr().err, "same name")


def test_eval_of_seeds_and_their_harm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An adaptive policy file, two seeds of a fixed one, and a path that looks like a group."""
    labelled_photos(tmp_path)
    for folder, stops in (("seed-0", 1.0), ("seed-1", 2.0), ("lr=0.1", -1.0)):
        Pipeline((Stage("exposure", {"ev": stops}),)).save(tmp_path / folder / "best.json")
    torch.manual_seed(0)
    header = PolicyHeader("actor_critic", "paper", tuple(module.name for module in PAPER), horizon=2)
    save_policy(tmp_path / "learned.safetensors", header, {"actor": Actor(PAPER).eval()})
    data = ("--data", "labels.json", "--images", "images", "--light", "mixed", "--draws", 2)
    code = adaptiveisp("eval", *data, "--policy", "learned.safetensors", "fixed=seed-0,seed-1", "lr=0.1", "camera",
                       "--detector", RED, "--size", 64, "--resamples", 200, "--out", "out")  # fmt: skip
    assert code == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert list(report["policies"]) == ["learned", "fixed/1", "fixed/2", "lr=0.1", "camera"]
    scores = {policy: by["red"] for policy, by in report["policies"].items()}
    assert [score["static"] for score in scores.values()] == [False, True, True, True, True]
    # The detector's loss falls with the red that it sees: one stop up never harms, one down always does.
    assert [scores[p]["worse_than_raw"] for p in ("fixed/1", "fixed/2", "lr=0.1")] == [0.0, 0.0, 1.0]
    assert scores["fixed/2"]["loss_mean"] < scores["fixed/1"]["loss_mean"] < scores["lr=0.1"]["loss_mean"] < 1
    group = report["groups"]["fixed"]["red"]
    ap50 = [scores[f"fixed/{i}"]["ap50"] for i in (1, 2)]
    assert group["members"] == ["fixed/1", "fixed/2"] and group["ap50_mean"] == pytest.approx(sum(ap50) / 2)
    assert group["ap50_sd"] == pytest.approx(abs(ap50[0] - ap50[1]) / 2**0.5) and group["static"] is True
    pairs = {(d["a"], d["b"]) for d in report["differences"]}
    assert pairs >= {("fixed", "learned"), ("camera", "fixed")} and not any("fixed/1" in pair for pair in pairs)
    assert [d["a"] for d in report["best_static"]["red"]["differences"]] == ["learned"]
    assert sum(found["count"] for found in report["pipelines"]["learned"]) == 6
    assert report["pipelines"]["camera"] == [] and report["pipelines"]["fixed/1"][0]["modules"] == ["exposure"]
    lines = [json.loads(line) for line in (tmp_path / "out" / "pipelines.jsonl").read_text().splitlines()]
    assert len(lines) == 5 * 6 and {line["policy"] for line in lines} == set(report["policies"])
    mean = sum(line["loss"]["red"] for line in lines if line["policy"] == "camera") / 6
    assert mean == pytest.approx(scores["camera"]["loss_mean"])
    page = (tmp_path / "out" / "report.html").read_text()
    assert "Modules by position" in page and "Parameters by light: learned" in page
    assert "fixed/2" in capsys.readouterr().out


@pytest.mark.parametrize("spec", ["x=", "=none", "x=none,", "x=none,none", "x=none,gone", "a/b=none"])
def test_malformed_groups(spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled_photos(tmp_path)
    data = ("--data", "labels.json", "--images", "images", "--light", "dark", "--detector", RED, "--out", "out")
    assert adaptiveisp("eval", *data, "--policy", spec) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("adaptiveisp: ") and not (tmp_path / "out").exists()


# weights, demo, version


def test_missing_and_wrong_weights(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ADAPTIVEISP_CACHE", str(tmp_path / "cache"))
    dng(tmp_path / "a.dng")
    assert adaptiveisp("run", "a.dng", "--out", "out") == 1
    assert_one_line_error(capsys.readouterr().err, "adaptiveisp weights get yolov3-tiny")
    (tmp_path / "w.weights").write_bytes(b"wrong")
    assert adaptiveisp("weights", "get", "yolov3-tiny", "--from", "w.weights") == 1
    assert_one_line_error(capsys.readouterr().err, "w.weights")
    assert adaptiveisp("weights", "get", "yolov9") != 0
    assert adaptiveisp("weights", "list") == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert {row[0]: row[1] for row in rows[2:5]} == dict.fromkeys(("yolov3-tiny", "nanodet-g", "mb3-centernet"), "no")
    (tmp_path / "lamps-1.0.dist-info").mkdir()
    (tmp_path / "lamps-1.0.dist-info" / "entry_points.txt").write_text(
        "[adaptiveisp.detectors]\nlamps = nothing:load\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    assert adaptiveisp("weights", "list") == 0
    assert capsys.readouterr().out.rstrip().endswith("which need no weights from here: lamps")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert adaptiveisp("--version") == 0
    assert re.fullmatch(r"adaptiveisp \S+\n", capsys.readouterr().out)


def test_the_demo_asks_for_its_libraries_before_anything_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "skimage" else real(name, *more)
    )
    assert adaptiveisp("demo", "--out", "demo", "--detector", "no-such-detector") == 1
    assert_one_line_error(capsys.readouterr().err, "skimage is not installed; run: pip install 'adaptiveisp[demo]'")
    assert not (tmp_path / "demo").exists()


def test_demo(tmp_path: Path, tiny_weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("skimage")
    assert adaptiveisp("demo", "--out", "demo") == 0
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert {"none", "auto-exposure", "camera"} <= set(report["policies"])
    ap = {name: score["yolov3-tiny"]["ap50"] for name, score in report["policies"].items()}
    assert ap["auto-exposure"] > ap["none"]
    assert len(list((tmp_path / "demo" / "raws").glob("*.dng"))) == 12
    with Image.open(tmp_path / "demo" / "figure.png") as figure:
        assert min(figure.size) > 500
    text = capsys.readouterr().out
    assert "Four photos are an example" in text
    last = text.splitlines()[-1]
    known = build_parser().format_help()
    if re.search(r"^    view ", known, flags=re.MULTILINE):
        assert last == "to look at the results: adaptiveisp view demo"
    else:
        address = (tmp_path / "demo" / "report.html").resolve().as_uri()
        assert last == f"to look at the results: open {address} in a browser"
    page = (tmp_path / "demo" / "report.html").read_text()
    assert page.count("<img ") == 9 * 5, "nine raws; clean photo, raw and three policies"
    assert "clean photo" in page and len(page) < 5_000_000


def test_eval_takes_detectors_in_one_option_or_in_several() -> None:
    parse = build_parser().parse_args
    common = ["eval", "--data", "d", "--policy", "none", "--out", "o"]
    assert parse([*common, "--detector", "a", "b"]).detectors == ["a", "b"]
    assert parse([*common, "--detector", "a", "--detector", "b"]).detectors == ["a", "b"]
    assert parse(common).detectors is None
