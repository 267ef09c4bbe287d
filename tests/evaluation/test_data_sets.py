"""Several data sets in one evaluation: which folder belongs to which, names, refusals, and the same scores as alone."""

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
from adaptiveisp.evaluation.data_sets import Source, names_of, sources_of
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
            del score["ms_per_image"]
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


def test_a_folder_for_all_or_one_for_each_json(tmp_path: Path) -> None:
    (tmp_path / "raws").mkdir()
    assert sources_of("a.json", "x") == [Source("a.json", "x")]
    assert sources_of(["a.json", "b.json"], "x") == [Source("a.json", "x"), Source("b.json", "x")]
    assert sources_of(["a.json", "b.json"], ["x"]) == [Source("a.json", "x"), Source("b.json", "x")]
    mixed: list[Any] = ["a.json", "set.yaml:val", tmp_path / "raws", Path("b.json")]
    folders = [source.images for source in sources_of(mixed, ["x", Path("y")])]
    assert folders == ["x", None, None, Path("y")]
    assert [source.images for source in sources_of(mixed, "x")] == ["x", None, None, "x"]


@pytest.mark.parametrize(
    ("data", "images", "message"),
    [
        ([], None, "at least one data set"),
        (["a.json", "b.json"], ["x", "y", "z"], "3 folders for 2 COCO JSONs among 2 data sets"),
        (["a.json", "b.json", "c.json"], ["x", "y"], "2 folders for 3 COCO JSONs among 3 data sets"),
        (["a.json", "b.yaml"], ["x", "y"], "2 folders for 1 COCO JSONs among 2 data sets"),
        (["a.yaml", "b.yaml"], "x", "1 folders for 0 COCO JSONs"),
        ("a.json", ["x", "y"], "2 folders for 1 COCO JSONs among 1 data sets"),
        (["a.json", "./a.json"], "x", "a.json: this data set is given 2 times"),
        (["a.json", "b.json", "sub/../a.json"], ["x", "y", "./x"], "a.json: this data set is given 2 times"),
        (["a.yaml:val", "a.yaml:val"], None, "a.yaml:val: this data set is given 2 times"),
    ],
)
def test_data_that_do_not_fit(data: Any, images: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        EvalConfig(data, ("none",), images=images)
    assert "\n" not in str(caught.value)


def test_the_same_labels_with_other_images_are_another_set() -> None:
    assert len(sources_of(["a.json", "a.json"], ["dark", "bright"])) == 2
    assert len(sources_of(["a.yaml:val", "a.yaml:train"], None)) == 2


def test_names_tell_the_sets_apart(tmp_path: Path) -> None:
    def names(*data: Any, images: Any = None) -> list[str]:
        return names_of([Source(one, images[i] if images else None) for i, one in enumerate(data)])

    assert names("coco-mini/val.json", "voc/val.json") == ["coco-mini/val", "voc/val"]
    assert names("a/x/val.json", "b/x/val.json", "b/dev.json") == ["a/x/val", "b/x/val", "dev"]
    assert names("val.json", "raws/dark") == ["val", "dark"]
    assert names("s.yaml:val", "s.yaml:dev") == ["s:val", "s:dev"]
    assert names("a.json", "a.json", images=["r/dark", "r/light"]) == ["a (dark)", "a (light)"]
    assert names("a.json", "a.json", images=["r/dark", "q/dark"]) == ["a (dark) 1", "a (dark) 2"]
    labels = labelled_photos(tmp_path / "set")
    opened = open_dataset(labels, tmp_path / "set" / "images", "mixed")
    assert names(opened, "other.json") == ["labels", "other"]


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
