"""Evaluations that are split among processes: the merged report, and shards that do not fit."""

import json
from pathlib import Path
from typing import Any

import pytest

from adaptiveisp.cli.parser import main
from tests.support.photos import labelled_photos

pytestmark = pytest.mark.usefixtures("quiet_place", "without_figures")

RED = "tests.support.fake_detector:load"
COMMON = ("--policy", "none", "auto-exposure", "camera", "--detector", RED, "--size", "64", "--resamples", "200", "-q")
TIMED = ("ms_per_image", "clock_ms", "table_ms", "clock_table", "provenance", "within_latency")


def evaluate(*arguments: str, code: int = 0) -> None:
    data = ("--data", "labels.json", "--images", "images", "--light", "mixed", "--draws", "2")
    assert main(["eval", *data, *COMMON, *arguments]) == code


def report(folder: str) -> Any:
    return without_times(json.loads((Path(folder) / "report.json").read_text()))


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if key not in TIMED}
    return [without_times(inner) for inner in value] if isinstance(value, list) else value


def test_merged_shards_are_the_one_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled_photos(tmp_path, n=5)
    evaluate("--out", "whole")
    for number in (1, 2, 3):
        evaluate("--shard", f"{number}/3", "--out", f"part{number}")
        assert not (Path(f"part{number}") / "report.json").exists()
    evaluate("--merge", "part3", "part1", "part2", "--out", "merged")
    assert report("merged") == report("whole")
    for name in ("pipelines.jsonl", "skipped.json"):
        one, other = (Path(folder) / name for folder in ("whole", "merged"))
        assert one.exists() == other.exists() and (not one.exists() or one.read_bytes() == other.read_bytes())
    coco = [{p.name: p.read_bytes() for p in Path(f).rglob("coco/*.json")} for f in ("whole", "merged")]
    assert coco[0] == coco[1]
    capsys.readouterr()
    evaluate("--merge", "part1", "part2", "--out", "x", code=2)
    assert "has the shards 1/3, 2/3; give all shards" in capsys.readouterr().err
    evaluate("--merge", "part1", "part2", "part2", "--out", "x", code=2)
    assert "is shard 2/3, as" in capsys.readouterr().err
    evaluate("--merge", "part1", "part2", "part3", "--seed", "1", "--out", "x", code=2)
    assert "was made with other settings" in capsys.readouterr().err
    evaluate("--merge", "part1", "--shard", "1/3", "--out", "x", code=2)
    evaluate("--shard", "0/3", "--out", "x", code=2)
    evaluate("--merge", "part1", "part2", "gone", "--out", "x", code=1)
    text = Path("part2/shard.jsonl").read_text()
    Path("part2/shard.jsonl").write_text(text[: len(text) // 2])
    evaluate("--merge", "part1", "part2", "part3", "--out", "x", code=1)
    assert "part2/shard.jsonl" in capsys.readouterr().err and not Path("x/report.json").exists()


@pytest.mark.long
def test_an_evaluation_on_ray_is_the_one_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="ray is not installed")
    monkeypatch.setenv("RAY_worker_niceness", "0")
    labelled_photos(tmp_path, n=3)
    evaluate("--out", "whole")
    evaluate("--engine", "ray", "--shards", "2", "--out", "ray")
    assert report("ray") == report("whole")
    evaluate("--engine", "ray", "--shard", "1/2", "--out", "x", code=2)
    evaluate("--shards", "2", "--out", "x", code=2)


def test_samples_that_fail_and_several_sets(tmp_path: Path) -> None:
    labelled_photos(tmp_path, n=4)
    synth = ["synth", "--data", "labels.json", "--images", "images", "--out", "raws", "-q"]
    assert main([*synth, "--light", "dark,normal"]) == 0
    damaged = sorted(Path("raws/dark").rglob("*.png"))[1]
    damaged.write_bytes(damaged.read_bytes()[:200])
    data = ["eval", "--data", "raws/dark", "raws/normal", *COMMON]
    assert main([*data, "--out", "whole"]) == 3
    for number in (1, 2):
        assert main([*data, "--shard", f"{number}/2", "--out", f"part{number}"]) == 0
    assert main([*data, "--merge", "part1", "part2", "--out", "merged"]) == 3
    assert report("merged") == report("whole") and report("whole")["sets"].keys() == {"dark", "normal"}


def names(folder: str) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()}


def test_no_file_of_an_earlier_evaluation_stays_beside_a_shard_and_none_of_a_shard_beside_a_report(
    tmp_path: Path,
) -> None:
    labelled_photos(tmp_path, n=2)
    few = ("--policy", "none")
    evaluate(*few, "--out", "out")
    Path("out/skipped.json").write_text("{}")
    Path("out/mine.txt").write_text("keep me")
    assert "coco/none--red.json" in names("out") and {"report.json", "report.html", "pipelines.jsonl"} <= names("out")
    evaluate(*few, "--shard", "1/2", "--out", "out", "--overwrite")
    assert names("out") - {"eval.log"} == {".adaptiveisp", "mine.txt", "shard.jsonl"}
    evaluate(*few, "--shard", "2/2", "--out", "other")
    evaluate(*few, "--merge", "out", "other", "--out", "out", "--overwrite")  # one of the parts is the folder itself
    assert {"shard.jsonl", "report.json"} <= names("out")
    evaluate(*few, "--out", "out", "--overwrite")
    assert "report.json" in names("out") and "shard.jsonl" not in names("out")


def test_a_shard_that_was_not_measured_leaves_no_earlier_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--merge would take it: photos may have changed without a change of their size."""
    labelled_photos(tmp_path, n=2)
    evaluate("--shard", "1/2", "--out", "part1")

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("adaptiveisp.evaluation.api.write_shard", killed)
    evaluate("--shard", "1/2", "--out", "part1", "--overwrite", code=130)
    assert not Path("part1/shard.jsonl").exists()


def test_shards_of_other_photos_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    labelled_photos(tmp_path, n=2)
    evaluate("--shard", "1/2", "--out", "part1")
    photo = sorted(Path("images").iterdir())[0]
    with photo.open("ab") as stream:
        stream.write(b"more")
    evaluate("--shard", "2/2", "--out", "part2")
    evaluate("--merge", "part1", "part2", "--out", "x", code=2)
    assert "part1/shard.jsonl: was made with other settings: --data" in capsys.readouterr().err
