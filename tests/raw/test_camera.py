"""What is declared about camera files: applied, or said to be unused, or refused, and never silent."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adaptiveisp.cli.parser import main
from adaptiveisp.errors import RawFileError
from adaptiveisp.raw.develop import develop
from adaptiveisp.raw.dng import write_dng
from adaptiveisp.raw.headerless import SetHeader
from adaptiveisp.raw.level_checks import RemarkWatch
from adaptiveisp.raw.reader import BayerHeader, camera_render, read_raw
from adaptiveisp.types import RawImage
from tests.support.odd_dngs import BLACK, WHITE, mosaic, scene, write_odd_dng

rawpy = pytest.importorskip("rawpy")

PIXELS = mosaic(scene())
SIZED = BayerHeader(64, 48, 14, "BGGR", 100.0, 200.0)


def no_black(path: Path) -> Path:
    """A file without a black level, as some software writes them; the true one is BLACK."""
    return write_odd_dng(path, PIXELS, t50714=None)


def levels(raw: RawImage) -> tuple[Any, ...]:
    return raw.pattern, raw.black_level, raw.white_level


def kinds(raw: RawImage) -> list[str]:
    return [remark.kind for remark in raw.remarks]


def test_declared_levels_take_the_place_of_the_files_own_and_are_said(tmp_path: Path) -> None:
    path = no_black(tmp_path / "x.dng")
    raw = read_raw(path, BayerHeader(black=512.0))
    assert levels(raw) == ("RGGB", (512.0,) * 4, 16383.0)
    assert [remark.text for remark in raw.remarks] == [
        f"{path}: raw-black 512 is used in place of the file's own 0; leave it out if that is not meant"
    ]
    right = read_raw(write_odd_dng(tmp_path / "right.dng", PIXELS))
    np.testing.assert_array_equal(develop(raw), develop(right))
    # LibRaw, which the policy `camera` develops with, learns of them too.
    np.testing.assert_array_equal(camera_render(raw), camera_render(right))
    assert np.abs(camera_render(read_raw(path)).astype(int) - camera_render(right)).max() > 5
    four = read_raw(path, BayerHeader(black=(500.0, 512.0, 512.0, 520.5), white=16000.0))
    assert levels(four) == ("RGGB", (500.0, 512.0, 512.0, 520.5), 16000.0)
    assert "raw-black 500, 512, 512, 520.5 is used" in four.remarks[0].text and len(four.remarks) == 2


def test_a_declared_pattern_is_used_and_said(tmp_path: Path) -> None:
    path = write_odd_dng(tmp_path / "x.dng", PIXELS)
    raw = read_raw(path, BayerHeader(pattern="BGGR"))
    assert raw.pattern == "BGGR" and "raw-pattern BGGR is used in place of the file's own RGGB" in raw.remarks[0].text
    write_dng(RawImage(PIXELS, "BGGR", BLACK, WHITE, xyz_to_camera=raw.xyz_to_camera), tmp_path / "y.dng")
    np.testing.assert_array_equal(develop(raw), develop(read_raw(tmp_path / "y.dng")))


def test_what_the_file_says_already_is_no_remark(tmp_path: Path) -> None:
    path = write_odd_dng(tmp_path / "x.dng", PIXELS)
    raw = read_raw(path, BayerHeader(pattern="rggb", black=512, white=16383))
    assert levels(raw) == levels(read_raw(path)) and raw.remarks == ()


def test_a_black_level_that_the_values_contradict_is_remarked(tmp_path: Path) -> None:
    raw = read_raw(write_odd_dng(tmp_path / "x.dng", PIXELS), BayerHeader(black=6000.0))
    assert "values below the black level" in kinds(raw)
    with pytest.raises(RawFileError, match=r"x\.dng: white level 16383 is not above black level 20000"):
        read_raw(tmp_path / "x.dng", BayerHeader(black=20000.0))


def test_an_impossible_black_level_of_the_file_can_be_replaced(tmp_path: Path) -> None:
    path = write_odd_dng(tmp_path / "x.dng", PIXELS, t50714=(10, [-5, 1]))
    raw = read_raw(path, BayerHeader(black=512.0))
    right = read_raw(write_odd_dng(tmp_path / "right.dng", PIXELS))
    np.testing.assert_array_equal(develop(raw), develop(right))
    np.testing.assert_array_equal(camera_render(raw), camera_render(right))


def test_a_percentile_as_white_level(tmp_path: Path) -> None:
    raw = read_raw(write_odd_dng(tmp_path / "x.dng", PIXELS), BayerHeader(white="p99"))
    assert raw.white_level == pytest.approx(np.percentile(PIXELS, 99))
    assert "raw-white p99" in raw.remarks[0].text


def test_facts_with_a_size_speak_of_other_files(tmp_path: Path) -> None:
    path = write_odd_dng(tmp_path / "x.dng", PIXELS)
    own = levels(read_raw(path))
    for header in (SIZED, BayerHeader(bits=10, black=64.0), SetHeader.of(SIZED, BayerHeader())):
        raw = read_raw(path, header)
        assert levels(raw) == own and kinds(raw) == ["facts of files without a header"]
        assert "are not used for this one" in raw.remarks[0].text
    (tmp_path / "x.yaml").write_text("raw-size: 64x48\nraw-bits: 14\nraw-pattern: BGGR\nraw-black: 100\n")
    raw = read_raw(path)
    assert levels(raw) == own and "facts of x.yaml with raw-size" in raw.remarks[0].text


def test_a_layout_says_nothing_of_camera_files(tmp_path: Path) -> None:
    path = write_odd_dng(tmp_path / "x.dng", PIXELS)
    assert read_raw(path, SetHeader.of(BayerHeader(), SIZED)).remarks == ()


def test_the_nearest_fact_wins(tmp_path: Path) -> None:
    path = no_black(tmp_path / "x.dng")
    (tmp_path / "x.yaml").write_text("raw-black: 3\n")
    assert read_raw(path).black_level == (3.0,) * 4
    (tmp_path / "x.dng.yaml").write_text("raw-black: 2\nraw-white: 16000\n")
    assert levels(read_raw(path)) == ("RGGB", (2.0,) * 4, 16000.0)
    assert levels(read_raw(path, BayerHeader(black=1))) == ("RGGB", (1.0,) * 4, 16000.0)
    stated = SetHeader.of(BayerHeader(black=4, pattern="GRBG"), BayerHeader())
    assert levels(read_raw(path, stated)) == ("GRBG", (2.0,) * 4, 16000.0)


def test_the_sidecar_of_a_folder_leaves_camera_files_alone(tmp_path: Path) -> None:
    path = write_odd_dng(tmp_path / "x.dng", PIXELS)
    own = levels(read_raw(path))
    for content in ("raw-size: 64x48\nraw-bits: 14\nraw-pattern: BGGR\n", "raw-black: 100\n"):
        (tmp_path / "raw.yaml").write_text(content)
        raw = read_raw(path)
        assert levels(raw) == own and kinds(raw) == ["raw.yaml beside camera files"]
        assert "write x.dng.yaml" in raw.remarks[0].text
    for content in ("raw-bits: many\n", "colour: red\n"):
        (tmp_path / "raw.yaml").write_text(content)
        assert read_raw(path).remarks == ()


def test_a_sidecar_of_others_is_passed_over_and_the_own_one_must_be_right(tmp_path: Path) -> None:
    path = write_odd_dng(tmp_path / "x.dng", PIXELS)
    (tmp_path / "x.yaml").write_text("raw-path: /photos/x.dng\n")
    raw = read_raw(path)
    assert levels(raw)[1] == (512.0,) * 4 and "its sidecar is not used" in raw.remarks[0].text
    (tmp_path / "x.dng.yaml").write_text("raw-blak: 3\n")
    with pytest.raises(RawFileError, match=r"x\.dng\.yaml: unknown key raw-blak"):
        read_raw(path)


@pytest.mark.parametrize("header", [BayerHeader(black=512), BayerHeader(white=60000), BayerHeader(pattern="RGGB")])
def test_levels_cannot_be_declared_for_linear_files(tmp_path: Path, header: BayerHeader) -> None:
    path = write_odd_dng(tmp_path / "x.dng", np.stack([PIXELS] * 3, -1))
    assert read_raw(path).remarks == ()
    with pytest.raises(RawFileError, match=r"x\.dng: is no Bayer mosaic.*cannot be used; leave it out"):
        read_raw(path, header)


def test_a_camera_file_without_a_black_level_is_doubted_in_a_batch(tmp_path: Path) -> None:
    dark = np.random.default_rng(0).integers(BLACK, BLACK + 200, (48, 64)).astype(np.uint16)
    watch = RemarkWatch()
    watch.add(read_raw(write_odd_dng(tmp_path / "x.dng", dark, t50714=None)))
    (remark, _) = watch.remarks()[0]
    assert f"{tmp_path / 'x.dng'}: smallest value 512, far above the black level 0" in remark.text
    for changes in ({}, {"t50714": (4, [16])}):  # right, and wrong but known to the file
        known = RemarkWatch()
        known.add(read_raw(write_odd_dng(tmp_path / "y.dng", dark, **changes)))
        assert known.remarks() == []


@pytest.mark.usefixtures("quiet_place")
def test_the_command_line_says_what_it_did_with_the_flags(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    no_black(tmp_path / "in" / "a.dng")
    write_odd_dng(tmp_path / "in" / "b.dng", np.stack([PIXELS] * 3, -1))
    options = ["--detector", "tests.support.fake_detector:load", "--policy", "none", "--size", "64"]
    assert main(["run", "in", "--raw-black", "512", "--out", "out", *options]) == 3
    said = capsys.readouterr().err
    assert "in/a.dng: raw-black 512 is used in place of the file's own 0" in said
    assert "skipped: in/b.dng: is no Bayer mosaic" in said
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [remark["kind"] for remark in summary["remarks"]] == ["raw-black in place of a camera file's own"]
    assert main(["run", "in/a.dng", "--raw-size", "64x48", "--raw-bits", "14", "--out", "out2", *options]) == 0
    assert "not used for this one" in capsys.readouterr().err
