"""Finding the raw files that inputs name, and the names of their outputs."""

from pathlib import Path

import pytest

from adaptiveisp.errors import RawFileError, UsageError
from adaptiveisp.raw.find_files import find_raw_files
from adaptiveisp.raw.reader import read_raw


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def stems(result):
    found, missing = result
    assert missing == []
    return [relative.as_posix() for _, relative in found]


def test_folders_files_and_globs(tmp_path):
    touch(tmp_path, "in/b.DNG", "in/a.png", "in/sub/c.nef", "in/notes.txt", "in/.hid.dng", "in/.cache/d.dng", "e.raw")
    found = find_raw_files([str(tmp_path / "in"), str(tmp_path / "e.raw")])
    assert stems(found) == ["a", "b", "sub/c", "e"]
    assert [path.name for path, _ in found[0]] == ["a.png", "b.DNG", "c.nef", "e.raw"]
    assert stems(find_raw_files([str(tmp_path / "in" / "*")])) == ["a", "b"]
    assert stems(find_raw_files([str(tmp_path / "in" / "**" / "*.nef")])) == ["sub/c"]
    assert stems(find_raw_files([str(tmp_path / "*" / "*.png")])) == ["in/a"]


def test_colliding_outputs_are_told_apart(tmp_path):
    touch(tmp_path, "in/x.dng", "in/x.png", "in/y.dng", "other/x.dng", "other/X.PNG")
    assert stems(find_raw_files([str(tmp_path / "in")])) == ["x_dng", "x_png", "y"]
    both = stems(find_raw_files([str(tmp_path / "in"), str(tmp_path / "other")]))
    assert both == ["x_dng", "x_png", "y", "X_png_2", "x_dng_2"]
    assert len({stem.lower() for stem in both}) == 5


def test_a_file_named_twice_is_taken_once_and_a_bracketed_name_is_a_file(tmp_path):
    touch(tmp_path, "x[1].dng")
    name = str(tmp_path / "x[1].dng")
    assert stems(find_raw_files([name, str(tmp_path), name])) == ["x[1]"]


def test_a_missing_input_among_others_is_reported_and_the_rest_found(tmp_path):
    touch(tmp_path, "x.dng")
    found, missing = find_raw_files([str(tmp_path / "gone.dng"), str(tmp_path / "x.dng")])
    assert [path.name for path, _ in found] == ["x.dng"]
    assert [name for name, _ in missing] == [str(tmp_path / "gone.dng")] and "no such file" in missing[0][1]


def test_an_empty_input_is_not_the_current_folder(tmp_path, monkeypatch):
    touch(tmp_path, "x.dng")
    monkeypatch.chdir(tmp_path)
    for inputs in ([""], ["x.dng", ""]):
        with pytest.raises(UsageError, match="an input is empty; check the shell variable"):
            find_raw_files(inputs)


def test_what_lies_in_the_output_folder_is_no_input(tmp_path, monkeypatch):
    touch(tmp_path, "a.dng", "out/a.png", "out/sub/b.png", "output.png", "outer/c.png")
    monkeypatch.chdir(tmp_path)
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "out")
    for out in (Path("out"), tmp_path / "out", link, Path("outer/../out")):
        assert stems(find_raw_files(["."], out)) == ["a", "output", "outer/c"]
        assert stems(find_raw_files([str(tmp_path)], out)) == ["a", "output", "outer/c"]
        assert stems(find_raw_files(["*.dng", "**/*.png"], out)) == ["a", "outer/c", "output"]
        assert stems(find_raw_files(["*/*.png"], out)) == ["outer/c"]
        assert stems(find_raw_files(["a.dng", "out/sub/b.png"], out)) == ["a", "b"]  # named by itself
        with pytest.raises(RawFileError, match="all 2 raw files lie in the output folder"):
            find_raw_files(["out"], out)
    assert stems(find_raw_files(["."], tmp_path / "not-yet-there")) == stems(find_raw_files(["."]))


def test_names_of_a_runs_own_files_are_not_given_away(tmp_path):
    touch(tmp_path, "Overview.png", "summary.dng", "skipped.nef", "params.npy", "sub/overview.png", "overviews.png")
    expected = ["Overview_png", "overviews", "params_npy", "skipped_nef", "summary_dng", "sub/overview"]
    assert stems(find_raw_files([str(tmp_path)])) == expected
    touch(tmp_path, "overview_png.dng")
    assert "Overview_png_2" in stems(find_raw_files([str(tmp_path)]))


def outputs_of(stem):
    endings = ("", ".boxes", ".full", ".step00-developed", ".step01-exposure", ".STEP12-white_balance")
    return {f"{stem}{end}.png".lower() for end in endings} | {
        f"{stem}{e}.json".lower() for e in (".boxes", ".pipeline")
    }


def test_outputs_of_one_input_are_never_those_of_another(tmp_path):
    names = ["x.png", "x.boxes.png", "x.full.tif", "x.pipeline.npy", "x.step00-developed.png", "X.Step01-Exposure.dng"]
    names += ["x.boxes.boxes.png", "x.step1-a.boxes.png", "x_boxes.png", "x.v2.png", "x.step1.png", "boxes.png"]
    touch(tmp_path, *names)
    found = stems(find_raw_files([str(tmp_path)]))
    assert len(found) == len(names)
    claimed = [output for stem in found for output in outputs_of(stem)]
    assert len(claimed) == len(set(claimed))
    assert {"x", "x.v2", "x.step1", "boxes", "x_full", "x_pipeline", "x_step00-developed"} <= set(found)


def test_links_that_lead_nowhere_are_found_and_fail_alone(tmp_path):
    touch(tmp_path, "a.dng")
    (tmp_path / "loop.dng").symlink_to(tmp_path / "loop.dng")
    (tmp_path / "gone.dng").symlink_to(tmp_path / "nothing.dng")
    found, _ = find_raw_files([str(tmp_path)])
    assert [path.name for path, _ in found] == ["a.dng", "gone.dng", "loop.dng"]
    for name in ("gone.dng", "loop.dng"):
        with pytest.raises(RawFileError, match=name):
            read_raw(tmp_path / name)


def test_nothing_found(tmp_path):
    touch(tmp_path, "in/notes.txt")
    for inputs, message in (
        ([str(tmp_path / "missing")], "no such file or folder"),
        ([str(tmp_path / "in")], "no raw files in"),
        ([str(tmp_path / "in" / "*.dng")], "nothing matches"),
        ([str(tmp_path / "in" / "*")], "no raw files in"),
        ([], "no raw files"),
    ):
        with pytest.raises(RawFileError, match=message):
            find_raw_files(inputs)
