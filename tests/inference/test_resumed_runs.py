"""`run --resume` where rows must not be kept: those of a run that was being replaced, and of changed inputs."""

import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest

from adaptiveisp.cli.parser import main
from adaptiveisp.inference.frames import Changes, find_frames, stamped
from adaptiveisp.inference.parquet import read_rows
from adaptiveisp.inference.predictor import AdaptiveISP
from adaptiveisp.raw.dng import write_dng
from adaptiveisp.utils.output_folder import claim_folder, is_outdated, reclaim_folder, set_outdated
from tests.inference.test_mapping import raw
from tests.inference.test_run_many import COMMON, content, night, rows, run, without_times

pytestmark = pytest.mark.usefixtures("quiet_place")
ROWS = ("--write", "json", "--workers", "0")


def killed_overwrite(*arguments: str) -> None:
    """Runs with --overwrite and ends before the first frame is read."""

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AdaptiveISP, "develop", killed)
        run(*arguments, "--overwrite", code=130)


def replace_raws(count: int) -> None:
    """New raws under the same names, of the same sizes, and with the times of the former ones."""
    for number in range(count):
        path = Path("night") / f"{number}.dng"
        before = path.stat()
        write_dng(raw(number + 40), path)
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert path.stat().st_size == before.st_size


def test_an_overwrite_that_was_killed_before_its_first_result_begins_again(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither size nor time tells that the raws are others."""
    night(4)
    shutil.copy("night/0.dng", "night/1.dng")
    out = run(*ROWS, code=0)
    replace_raws(4)
    killed_overwrite(*ROWS)
    capsys.readouterr()
    run(*ROWS, "--resume", code=0)
    assert "out: holds rows of a run that was being replaced" in capsys.readouterr().err
    assert content(out) == content(run(*ROWS, out="fresh", code=0))
    before = (out / "results.jsonl").read_bytes()  # with its times
    run(*ROWS, "--resume", code=0)
    assert (out / "results.jsonl").read_bytes() == before and "being replaced" not in capsys.readouterr().err


def test_of_several_policies_none_keeps_rows_of_the_run_that_is_replaced() -> None:
    night(3)
    shutil.copy("night/0.dng", "night/1.dng")
    several = ("--policy", "none", "auto-exposure", *ROWS)
    out = run(*several, code=0)
    replace_raws(3)
    killed_overwrite(*several)  # in the first policy
    run(*several, "--resume", code=0)
    fresh = run(*several, out="fresh", code=0)
    for name in ("none", "auto-exposure"):
        assert content(out / name) == content(fresh / name)


def test_an_overwrite_that_can_use_nothing_leaves_the_rows_but_they_do_not_count(tmp_path: Path) -> None:
    night(2)
    out = run("--write", "json")
    before = (out / "results.jsonl").read_bytes()
    Path("night/0.dng").write_text("damaged")
    run("--write", "json", "--overwrite", code=1)
    assert (out / "results.jsonl").read_bytes() == before and is_outdated(out)


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_inputs_that_have_changed_are_computed_again(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One with another result, one that is damaged now, and one that was damaged and is not any more."""
    if kind == "parquet":
        pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    night(6)
    arguments = ("--format", kind)
    out = run(*arguments)
    write_dng(raw(50), Path("night/3.dng"))
    Path("night/4.dng").write_text("damaged, too")
    write_dng(raw(51), Path("night/1.dng"))
    capsys.readouterr()
    run(*arguments, "--resume")
    told = "computed again, since the file has changed: night/1.dng, night/3.dng, night/4.dng\n"
    assert told in capsys.readouterr().err
    found, expected = content(out), content(run(*arguments, out="fresh"))
    if kind == "parquet":
        for folder, values in (("out", found), ("fresh", expected)):
            values["results.parquet"] = without_times(list(read_rows(Path(folder) / "results.parquet")))
    assert found == expected  # in the same order, without files of 4.dng
    run(*arguments, "--resume")
    assert "has changed" not in capsys.readouterr().err


def test_a_second_kill_while_changed_inputs_are_computed_again() -> None:
    night(5)
    out = run("--write", "json")
    for number in (0, 3):
        write_dng(raw(60 + number), Path("night") / f"{number}.dng")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AdaptiveISP, "develop", killed)
        run("--write", "json", "--resume", code=130)
    assert [row["number"] for row in rows(out)] == [1, 2, 4]
    run("--write", "json", "--resume")
    assert content(out) == content(run("--write", "json", out="fresh"))


def test_files_of_an_input_that_is_skipped_now_go(capsys: pytest.CaptureFixture[str]) -> None:
    night(4)
    out = run()
    for number in (0, 3):  # before and after the first result
        Path(f"night/{number}.dng").write_text("damaged, too")
    run("--overwrite")
    left = {path.name for path in out.iterdir() if path.name[0] in "0123"}
    assert left == {f"2{ending}" for ending in (".png", ".boxes.png", ".boxes.json", ".pipeline.json")}


def test_rows_of_earlier_commits_have_no_stamp_and_are_kept(capsys: pytest.CaptureFixture[str]) -> None:
    night(3)
    out = run("--write", "json")
    former = rows(out)
    for row in former:
        del row["stamp"]
    (out / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in former[:2]))
    write_dng(raw(50), Path("night/0.dng"))
    run("--write", "json", "--resume")
    found = rows(out)
    assert without_times(found[:2]) == without_times(former[:2]) and found[2]["stamp"] and len(found) == 3


def test_what_a_stamp_notices() -> None:
    night(3)
    with tarfile.open("s.tar", "w") as archive:
        archive.add("night/0.dng", "0.dng")
    inputs = ["night", "s.tar"]

    def told(change: Any) -> list[int]:
        """Numbers of the frames of which a change is noticed."""
        before = stamped(find_frames(inputs)[0])
        change()
        changes = Changes(stamped(find_frames(inputs)[0]))
        return [f.number for f in before if changes({"number": f.number, "frame": f.id, "stamp": f.stamp})]

    assert told(lambda: None) == []
    assert told(lambda: os.utime("night/1.dng", (5, 5))) == [1]
    assert told(lambda: Path("night/2.yaml").write_text("raw-black: 3")) == [2]
    assert told(lambda: Path("night/raw.yaml").write_text("raw-black: 3")) == [0, 1, 2]
    assert told(lambda: os.utime("s.tar", (5, 5))) == [3]
    assert {frame.stamp for frame in stamped(find_frames(["memory://nowhere/a.dng"])[0])} == {None}


def test_the_note_that_results_are_outdated_outlives_other_claims(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    with claim_folder(folder, "run", False) as claim:
        (folder / "results.jsonl").touch()
        set_outdated(claim.folder, True)
        set_outdated(claim.folder, True)
    for claimed in (lambda: claim_folder(folder, "run", True), lambda: reclaim_folder(folder, "run")):
        with claimed():
            assert is_outdated(folder)
    set_outdated(folder, False)
    assert not is_outdated(folder) and json.loads((folder / ".adaptiveisp").read_text())["kind"] == "run"
    set_outdated(tmp_path, True)  # not a folder of ours
    assert not (tmp_path / ".adaptiveisp").exists()


def test_a_run_as_parquet_without_any_result_tells_its_own_skips(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    night(2)
    run("--format", "parquet", "--write", "json")
    capsys.readouterr()
    Path("night/0.dng").write_text("damaged")
    assert main(["run", "night", "--out", "out", *COMMON, "--format", "parquet", "--write", "json", "--overwrite"]) == 1
    assert capsys.readouterr().err.count("skipped: night/") == 2
