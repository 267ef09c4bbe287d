"""`run` with several policies, `--explain`, and the strip of `--save-steps`: files, pages and messages."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from adaptiveisp.isp.pipeline import Pipeline, Stage
from tests.cli.test_commands import RED, adaptiveisp, assert_one_line_error, dng
from tests.evaluation.test_report import Page

pytestmark = pytest.mark.usefixtures("quiet_place")
COMMON = ("--detector", RED, "--size", 64)


def files_of(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_several_policies_write_what_each_writes_alone_and_a_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, seed in (("in/a", 1), ("in/deep/b", 2)):
        dng(tmp_path / f"{name}.dng", seed)
    Pipeline((Stage("exposure", {"ev": -8.0}),)).save(tmp_path / "dark.json")
    policies = ("auto-exposure", "dark.json", "camera")
    assert adaptiveisp("run", "in", "--out", "out", *COMMON, "--policy", *policies) == 0
    text = capsys.readouterr().out
    assert "policy dark" in text and f"side by side: {Path('out/compare.html')}" in text
    for name, spec in (("auto-exposure", "auto-exposure"), ("dark", "dark.json")):
        assert adaptiveisp("run", "in", "--out", f"alone-{name}", *COMMON, "--policy", spec, "-q") == 0
        assert files_of(tmp_path / "out" / name) == files_of(tmp_path / f"alone-{name}"), "the layout is the same"
        for file in ("a.png", "deep/b.boxes.png", "overview.png"):
            assert (tmp_path / "out" / name / file).read_bytes() == (tmp_path / f"alone-{name}" / file).read_bytes()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        ".adaptiveisp", "auto-exposure", "camera", "compare.html", "dark", "summary.json"
    ]  # fmt: skip
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    rows = {row["name"]: row for row in summary["policies"]}
    boxes = {name: json.loads((tmp_path / f"out/{name}/a.boxes.json").read_text())["boxes"] for name in rows}
    assert [len(boxes[name]) for name in ("auto-exposure", "dark")] == [1, 0]
    assert (rows["auto-exposure"]["boxes"], rows["auto-exposure"]["gained"]) == (1.0, None)
    assert (rows["dark"]["gained"], rows["dark"]["lost"], rows["dark"]["modules"]) == (0, 2, 1.0)
    assert rows["auto-exposure"]["modules"] == 3 and rows["camera"]["modules"] == 0
    page = Page((tmp_path / "out" / "compare.html").read_text())
    assert page.open == [] and "script" not in page.tags
    assert page.tags.count("img") == 2 * 4, "two frames; raw and three policies"
    for words in ("1 lost", "a box of auto-exposure that is lost", "the camera's own development", "ev −8 stops"):
        assert words in page.text, words


def test_an_input_after_one_policy_is_an_input_as_before(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dng(tmp_path / "a.dng")
    assert adaptiveisp("run", "--policy", "none", "a.dng", "--out", "out", *COMMON, "-q") == 0
    assert (tmp_path / "out" / "a.png").is_file()
    assert adaptiveisp("run", "--out", "x", *COMMON) == 2
    assert_one_line_error(capsys.readouterr().err, "run: the following arguments are required: INPUT")
    assert adaptiveisp("run", "--policy", "none", "--out", "x", *COMMON) == 2
    assert_one_line_error(capsys.readouterr().err, "run: the following arguments are required: INPUT")
    Pipeline(()).save(tmp_path / "b" / "none.json")
    assert adaptiveisp("run", "a.dng", "--out", "x", *COMMON, "--policy", "none", "b/none.json") == 2
    assert_one_line_error(capsys.readouterr().err, "two policies have the same name (none); rename a file")


def test_bad_inputs_of_several_policies_are_listed_and_others_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dng(tmp_path / "a.dng")
    (tmp_path / "bad.dng").write_text("no raw")
    code = adaptiveisp("run", "a.dng", "bad.dng", "--out", "out", *COMMON, "-q", "--policy", "none", "auto-exposure")
    assert code == 3
    for name in ("none", "auto-exposure"):
        assert "bad.dng" in (tmp_path / "out" / name / "skipped.json").read_text()
    page = Page((tmp_path / "out" / "compare.html").read_text())
    assert page.tags.count("img") == 2, "none is the raw, which has one column"
    again = ("run", "a.dng", "--out", "out", *COMMON, "-q", "--policy", "auto-exposure", "none")
    assert adaptiveisp(*again) == 2
    assert_one_line_error(capsys.readouterr().err, "out: exists already", "--overwrite")
    assert adaptiveisp(*again, "--overwrite") == 0
    assert adaptiveisp("run", "a.dng", "--out", "out", *COMMON, "-q", "--policy", "none", "--overwrite") == 0
    assert not (tmp_path / "out" / "compare.html").exists(), "the page of the earlier run is outdated"


def test_explain_writes_a_file_for_each_frame_and_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    dng(tmp_path / "in" / "<i>a.dng", 1)
    dng(tmp_path / "in" / "b.dng", 2)
    assert adaptiveisp("run", "in", "--out", "out", *COMMON, "--policy", "auto-exposure", "--explain") == 0
    assert "what each module is worth: " in capsys.readouterr().out
    content = json.loads((tmp_path / "out" / "b.explain.json").read_text())
    assert [entry["module"] for entry in content["without"]] == ["white_balance", "exposure", "srgb"]
    assert (content["renders"], content["file"]) == (4, str(Path("in/b.dng"))) and "version" in content["provenance"]
    assert "b.explain.json" in json.loads((tmp_path / "out" / "summary.json").read_text())["files"]
    Pipeline(tuple(Stage(s["module"], s["params"]) for s in _stages(tmp_path / "out" / "b.pipeline.json")[1:])).save(
        tmp_path / "less.json"
    )
    assert adaptiveisp("run", "in/b.dng", "--out", "less", *COMMON, "--pipeline", "less.json", "-q") == 0
    (less,) = json.loads((tmp_path / "less" / "b.boxes.json").read_text())["boxes"]
    assert content["without"][0]["scores"] == [pytest.approx(less["score"], abs=2e-3)]
    html = (tmp_path / "out" / "explain.html").read_text()
    page = Page(html)
    assert page.open == [] and "script" not in page.tags and "i" not in page.open
    assert page.tags.count("img") == 2 * 4 and "<i>a.dng" in page.text and "mean worth to a box" in page.text
    assert adaptiveisp("run", "in", "--out", "cam", *COMMON, "--policy", "camera", "--explain", "-q") == 0
    assert "nothing to leave out" in (tmp_path / "cam" / "explain.html").read_text()


def _stages(path: Path) -> list[dict[str, object]]:
    return json.loads(path.read_text())["stages"]


def test_the_strip_of_steps_shows_each_step_and_the_boxes(tmp_path: Path) -> None:
    dng(tmp_path / "a.dng")
    run = ("run", "a.dng", "--out", "out", *COMMON, "-q", "--overwrite")
    assert adaptiveisp(*run, "--policy", "auto-exposure", "--save-steps") == 0
    with Image.open(tmp_path / "out" / "a.steps.png") as strip:
        pixels = np.asarray(strip)
    tile, gap = 200, 8
    assert pixels.shape[1] == gap + 5 * (tile + gap), "developed, three stages, boxes"
    last = pixels[gap : gap + 150, gap + 3 * (tile + gap) :][:, :tile]
    step = np.asarray(Image.open(tmp_path / "out" / "a.step03-srgb.png").resize((tile, 150), Image.Resampling.LANCZOS))
    assert (last == step).all()
    assert adaptiveisp(*run, "--policy", "auto-exposure") == 0
    assert not (tmp_path / "out" / "a.steps.png").exists(), "outdated"


def test_several_policies_go_with_rows_alone_and_with_resume(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The page is made of the rows, whatever pictures are kept; a run that was stopped goes on where it was."""
    for name in ("a", "b", "c"):
        dng(tmp_path / "in" / f"{name}.dng", ord(name))
    several = ("run", "in", "--out", "out", *COMMON, "--write", "json", "--policy", "none", "auto-exposure")
    assert adaptiveisp(*several, "-q") == 0
    assert files_of(tmp_path / "out" / "none") == [".adaptiveisp", "results.jsonl", "settings.json", "summary.json"]
    before = (tmp_path / "out" / "compare.html").read_text()
    assert Page(before).tags.count("img") == 3 * 2
    rows = tmp_path / "out" / "auto-exposure" / "results.jsonl"
    whole = rows.read_text()
    rows.write_text("".join(whole.splitlines(keepends=True)[:1]))
    (tmp_path / "out" / "compare.html").unlink()
    assert adaptiveisp(*several, "--resume", "-q") == 0
    assert [json.loads(line)["boxes"] for line in rows.read_text().splitlines()] == [
        json.loads(line)["boxes"] for line in whole.splitlines()
    ]
    assert (tmp_path / "out" / "compare.html").is_file()
    assert adaptiveisp(*several, "--explain", "--overwrite") == 2
    assert_one_line_error(capsys.readouterr().err, "--explain writes pictures, --write json does not")
    for more in (("--explain", "--policy", "none"), ("--policy", "none", "auto-exposure")):
        assert adaptiveisp("run", "in", "--out", "x", *COMMON, "--block", 2, *more) == 2
        assert_one_line_error(capsys.readouterr().err, "leave out --block and --engine")
