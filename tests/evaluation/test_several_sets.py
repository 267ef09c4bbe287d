"""Several data sets in one evaluation: the same scores as alone, refusals, and the command."""

import json
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest

from adaptiveisp import EvalConfig, SynthesisConfig, evaluate, open_dataset
from adaptiveisp.cli.exit_codes import FAILED, WRONG_USE
from adaptiveisp.cli.parser import main
from adaptiveisp.errors import AdaptiveISPError, DataError, UsageError
from tests.support.photos import labelled_photos

pytestmark = pytest.mark.usefixtures("quiet_place", "without_figures")

RED = "tests.support.fake_detector:load"


def two_sets(folder: Path, **changes: Any) -> tuple[list[Path], list[Path]]:
    """Two sets of photos of different sizes; `changes` are those of the second."""
    labels = [labelled_photos(folder / "one", n=3), labelled_photos(folder / "two", n=4, width=96, **changes)]
    return labels, [path.parent / "images" for path in labels]


def config(folder: Path) -> EvalConfig:
    labels, images = two_sets(folder)
    how = SynthesisConfig("mixed", draws=2, seed=3)
    return EvalConfig(labels, ("none", "auto-exposure"), (RED,), images, how, size=64, resamples=200, seed=3)


def without_times(report: Any) -> dict[str, Any]:
    """The JSON of a report without measured times, provenance and the paths in notes."""
    content: dict[str, Any] = json.loads(json.dumps(report if isinstance(report, dict) else report.to_json()))
    content["sets"] = {name: without_times(one) for name, one in content.get("sets", {}).items()}
    for by in content["policies"].values():
        for score in by.values():
            del score["ms_per_image"], score["clock_ms"], score["table_ms"]
    return {key: value for key, value in content.items() if key not in ("provenance", "notes")}


def test_each_set_has_the_scores_that_it_has_alone(tmp_path: Path) -> None:
    asked = config(tmp_path)
    names: list[str] = []
    report = evaluate(asked, names.append)
    assert list(report.sets) == ["one/labels", "two/labels"] and len(names) == 14
    for name, labels, images in zip(report.sets, asked.data, asked.images, strict=True):
        alone = evaluate(replace(asked, data=labels, images=images))
        assert without_times(report.sets[name]) == without_times(alone)
        assert report.sets[name].notes == alone.notes
    for policy in ("none", "auto-exposure"):
        own = [one.policies[policy]["red"].ap50 or 0.0 for one in report.sets.values()]
        assert report.policies[policy]["red"].ap50 == pytest.approx(fmean(own))
        assert report.ap50_of_sets(policy, "red") == own
    assert report.title == "Evaluation on 2 data sets: one/labels, two/labels"
    listed = evaluate(replace(asked, data=[asked.data[0]], images=[asked.images[0]]))
    assert not listed.sets, "a list of one set is that set"


def test_the_command_writes_what_evaluate_returns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = evaluate(config(tmp_path))
    data = ("--data", "one/labels.json", "two/labels.json", "--images", "one/images", "two/images")
    how = ("--light", "mixed", "--draws", "2", "--seed", "3", "--size", "64", "--resamples", "200")
    policies = ("--policy", "none", "auto-exposure", "--detector", RED)
    (tmp_path / "two" / "images" / "photo4.png").write_bytes(b"no picture")
    assert main(["eval", *data, *how, *policies, "--out", "out"]) == 3
    out, errors = capsys.readouterr()
    assert "AP50 one/labels  AP50 two/labels  mean of sets" in out and "photo4.png" in errors
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert without_times(written["sets"]["one/labels"]) == without_times(report.sets["one/labels"])
    skipped = json.loads((tmp_path / "out" / "skipped.json").read_text())["skipped"]
    assert [entry["input"] for entry in skipped] == [f"two/labels: photo4.png (draw {n})" for n in (0, 1)]


def test_each_set_may_have_its_own_number_of_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = config(tmp_path)
    how = [SynthesisConfig("mixed", draws=draws, seed=3) for draws in (3, 1)]
    report = evaluate(replace(asked, synthesis=how))
    assert [one.policies["none"]["red"].n_images for one in report.sets.values()] == [9, 4]
    assert [one.settings["draws"] for one in report.sets.values()] == report.settings["draws"] == [3, 1]
    assert report.settings["light"] == "mixed"
    options = ("eval", "--data", "one/labels.json", "two/labels.json", "--images", "one/images", "two/images")
    options += ("--light", "mixed", "--seed", "3", "--size", "64", "--resamples", "200", "--detector", RED)
    options += ("--policy", "none", "auto-exposure", "--out", "out", "-q")
    assert main([*options, "--draws", "3", "1"]) == 0
    assert without_times(json.loads((tmp_path / "out" / "report.json").read_text())) == without_times(report)
    assert main([*options, "--overwrite", "--draws", "3", "1", "2"]) == WRONG_USE
    assert "--draws: 3 numbers for 2 data sets" in capsys.readouterr().err
    with pytest.raises(UsageError, match="synthesis: 3 settings for 2 data sets"):
        replace(asked, synthesis=["dark"] * 3)


def test_sets_without_a_common_class_are_refused_before_any_image_is_read(tmp_path: Path) -> None:
    only_chairs = [{"id": 62, "name": "chair"}]
    label = {"id": 1, "image_id": 10, "category_id": 62, "bbox": [0, 0, 9, 9], "area": 81.0, "iscrowd": 0}
    labels, images = two_sets(tmp_path, categories=only_chairs, annotations=[label])
    content = json.loads(labels[0].read_text())
    content["info"] = {"labelled_category_ids": [1, 47]}
    labels[0].write_text(json.dumps(content))
    asked = EvalConfig(labels, ("none",), (RED,), images, "normal", size=64)
    seen: list[str] = []
    with pytest.raises(DataError, match="no class that red know is scored on all of them") as caught:
        evaluate(asked, seen.append)
    assert "one/labels has cup, person; two/labels has chair" in str(caught.value) and not seen


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("one/labels.json", "one/labels.json"), WRONG_USE, "given 2 times"),
        (("one/labels.json", "missing.json"), FAILED, "missing.json: no such file"),
    ],
)
def test_the_command_refuses_in_one_line(
    arguments: tuple[str, ...], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    two_sets(tmp_path)
    options = ("--images", "one/images", "--light", "normal", "--policy", "none", "--detector", RED, "--out", "out")
    assert main(["eval", "--data", *arguments, *options]) == code
    errors = capsys.readouterr().err.strip().splitlines()
    assert len(errors) == 1 and message in errors[0] and not (tmp_path / "out").exists()


def test_images_in_both_sets_cause_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labels, images = two_sets(tmp_path)
    copy = labels[0].with_name("copy.json")
    copy.write_text(labels[0].read_text())
    report = evaluate(EvalConfig([labels[0], copy], ("none",), (RED,), images[0], "normal", size=64, resamples=200))
    assert list(report.sets) == ["labels", "copy"]
    assert "labels and copy share 3 images" in caplog.text


def test_opened_sets_and_paths_go_together(tmp_path: Path) -> None:
    asked = config(tmp_path)
    opened = open_dataset(asked.data[0], asked.images[0], asked.synthesis)
    report = evaluate(replace(asked, data=[opened, asked.data[1]], images=[asked.images[1]]))
    assert without_times(report) == without_times(evaluate(asked))
    with pytest.raises(AdaptiveISPError, match="given 2 times"):
        evaluate(replace(asked, data=[opened, opened], images=None))
