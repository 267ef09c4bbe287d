"""Doubts about raws: on the console once for each kind, in summary.json, among the problems of doctor."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from adaptiveisp.cli.parser import main

RED = "tests.support.fake_detector:load"
COMMON = ("--policy", "none", "--detector", RED, "--size", "64")
FACTS = ("--raw-size", "64x48", "--raw-bits", "10", "--raw-pattern", "RGGB")

pytestmark = pytest.mark.usefixtures("quiet_place")


def write_frames(count: int) -> None:
    Path("night").mkdir()
    for number in range(count):
        values = np.clip(np.random.default_rng(number).normal(64, 2, (48, 64)), 0, 1023)
        values[10:30, 20:40] += 30 * (number + 1)
        values.round().astype("<u2").tofile(f"night/{number}.raw")


def test_run_says_each_kind_once_and_lists_it(capsys: pytest.CaptureFixture[str]) -> None:
    write_frames(12)
    assert main(["run", "night", *FACTS, *COMMON, "--raw-white", "100", "--out", "out", "-q"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line]
    first, counted, pedestal = lines
    # Frames are read by several threads: the line that comes at once names the one that was read first.
    assert re.search(r"night/\d+\.raw: ", first) and "above the white level 100" in first
    assert "values above the white level: 11 files, the first is night/1.raw: " in counted
    assert "night/0.raw among 12 files: smallest value" in pedestal and "is --raw-black " in pedestal
    remarks = json.loads(Path("out/summary.json").read_text())["remarks"]
    assert [(remark["kind"], remark["n_files"]) for remark in remarks] == [
        ("values above the white level", 11),
        ("black level", 12),
    ]
    assert all(remark["text"] in line for remark, line in zip(remarks, (counted, pedestal), strict=True))


def test_run_is_silent_about_dark_frames_with_the_right_facts(capsys: pytest.CaptureFixture[str]) -> None:
    write_frames(12)
    assert main(["run", "night", *FACTS, *COMMON, "--raw-black", "64", "--out", "out", "-q"]) == 0
    assert capsys.readouterr().err == ""
    assert json.loads(Path("out/summary.json").read_text())["remarks"] == []


def test_a_contradicted_file_is_skipped_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    write_frames(2)
    np.full((48, 64), 600 << 6, "<u2").tofile("night/left.raw")
    Path("night/packed.raw").write_bytes(bytes(48 * 64 * 5 // 4))
    assert main(["run", "night", *FACTS, *COMMON, "--raw-black", "64", "--out", "out", "-q"]) == 3
    skipped = {entry["input"]: entry["error"] for entry in json.loads(Path("out/skipped.json").read_text())["skipped"]}
    assert "left-aligned" in skipped["night/left.raw"] and "RAW10 (CSI-2" in skipped["night/packed.raw"]
    assert set(skipped) == {"night/left.raw", "night/packed.raw"} and Path("out/1.png").exists()


def test_doctor_lists_doubts_among_its_problems(capsys: pytest.CaptureFixture[str]) -> None:
    write_frames(3)
    Path("set.yaml").write_text(
        "layout: folder\nroot: night\nraw-size: 64x48\nraw-bits: 10\nraw-pattern: RGGB\nraw-white: 100\n"
    )
    assert main(["doctor", "set.yaml", "--out", "seen"]) == 3
    problems = json.loads(Path("seen/doctor.json").read_text())["problems"]
    assert [problem["kind"] for problem in problems] == ["values above the white level", "black level"]
    assert "2 files, the first is night/1.raw" in problems[0]["text"].replace("./", "")
    assert "is --raw-black " in capsys.readouterr().out
    Path("set.yaml").write_text(Path("set.yaml").read_text().replace("raw-white: 100", "raw-black: 64"))
    assert main(["doctor", "set.yaml"]) == 0
