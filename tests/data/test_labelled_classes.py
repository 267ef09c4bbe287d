"""`info.labelled_category_ids`: classes that a COCO JSON declares as labelled; all others are left out everywhere."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from adaptiveisp.data.dataset import is_partly_labelled, notes_of
from adaptiveisp.data.formats.coco import load_coco
from adaptiveisp.data.layouts import open_set
from adaptiveisp.data.opening import open_dataset
from adaptiveisp.data.splits import open_parts
from adaptiveisp.data.synthesize import synthesize
from adaptiveisp.data.synthetic import SynthesisConfig
from adaptiveisp.data.training_images import PhotoTrainingImages
from adaptiveisp.detectors.class_names import COCO_80, map_classes
from adaptiveisp.errors import DataError
from adaptiveisp.evaluation.config import ScoringOptions
from adaptiveisp.evaluation.evaluator import score_dataset
from adaptiveisp.evaluation.report import build_report
from adaptiveisp.evaluation.result import notes_on
from adaptiveisp.policies.registry import load_policy
from adaptiveisp.types import Detections
from tests.support.fake_detector import RedDetector
from tests.support.photos import CATEGORIES, labelled_photos

CHAIR = 62


def partly(folder: Path, listed: Any = (CHAIR,), **changes: Any) -> Path:
    """Photos with a chair each, of which the first is labelled as a cup too, which is not listed as labelled."""
    labels = labelled_photos(folder, **changes)
    content = json.loads(labels.read_text())
    cups = [one for one in content["annotations"] if one["category_id"] == 47]
    chairs = [{**one, "id": 100 + one["id"], "category_id": CHAIR} for one in cups]
    content["annotations"] = [*chairs, cups[0]]
    if listed is not None:
        content["info"] = {"labelled_category_ids": list(listed) if isinstance(listed, tuple) else listed}
    labels.write_text(json.dumps(content))
    return labels


class RedIsBoth(RedDetector):
    """Finds a chair and, with a higher score, a cup where the image is reddest."""

    def _one(self, image: Tensor, confidence: float) -> Detections:
        found = super()._one(image, confidence)
        both = found.labels.repeat(2)
        both[len(found.labels) :] = COCO_80.index("chair")
        return Detections(found.boxes.repeat(2, 1), found.scores.repeat(2) * found.scores.new_tensor([1, 0.5]), both)


def test_a_detection_of_an_unlabelled_class_is_no_false_positive(tmp_path: Path) -> None:
    reports = {}
    for name, listed in (("all", None), ("listed", (CHAIR,))):
        labels = partly(tmp_path / name, listed)
        dataset = open_dataset(labels, tmp_path / name / "images", light="normal")
        found = score_dataset(dataset, [load_policy("camera")], [RedIsBoth()], ScoringOptions(64))
        reports[name] = build_report(found.results, found.categories, {}, notes_on(found, dataset), resamples=200)
    every, listed_only = (reports[name].policies["camera"]["red"] for name in ("all", "listed"))
    # Of three cups found, one is labelled; where that is the first or the last of them, AP is 1 or 1/3.
    assert set(every.per_class) == {"cup", "chair"} and every.per_class["cup"] < 1.0
    assert listed_only.per_class == {"chair": every.per_class["chair"]}
    assert listed_only.ap50 == every.per_class["chair"] > (every.ap50 or 0)
    scored = [note for note in reports["listed"].notes if note.startswith("Scored classes: chair.")]
    assert len(scored) == 1 and "labelled_category_ids" in scored[0]
    assert not any("Scored classes" in note for note in reports["all"].notes)
    assert any("1 annotations are of classes that info.labelled" in note for note in reports["listed"].notes)


def test_targets_of_training_are_of_labelled_classes(tmp_path: Path) -> None:
    def to_label(categories: dict[int, str]) -> dict[int, int]:
        return map_classes(COCO_80, categories).category_to_label

    for name, listed, classes in (("all", None, {"cup", "chair"}), ("listed", (CHAIR,), {"chair"})):
        labels = partly(tmp_path / name, listed)
        how = SynthesisConfig("normal")
        images = PhotoTrainingImages(labels, tmp_path / name / "images", to_label, 64, how, smallest_crop=1.0)
        found = {COCO_80[label] for number in range(3) for label in images[number].targets.labels.tolist()}
        assert found == classes


def test_every_way_to_open_the_file_leaves_out_the_same(tmp_path: Path) -> None:
    labels, images = partly(tmp_path), tmp_path / "images"
    (tmp_path / "set.yaml").write_text("layout: coco\nlabels: labels.json\n")
    for dataset in (
        open_dataset(labels, images),
        open_dataset(labels, images, "normal"),
        open_set(tmp_path / "set.yaml"),
        open_parts(labels, images)[0][1],
    ):
        assert list(dataset.categories.values()) == ["chair"] and is_partly_labelled(dataset)
        assert [len(sample.annotations) for sample in dataset.samples] == [1, 1, 1]
        assert sum("left out" in note for note in notes_of(dataset)) == 1
    assert not is_partly_labelled(open_dataset(partly(tmp_path / "all", None), tmp_path / "all" / "images"))


def test_synth_keeps_the_list(tmp_path: Path) -> None:
    labels = partly(tmp_path, (1, CHAIR))
    synthesize(SynthesisConfig("dark,normal"), labels, tmp_path / "images", tmp_path / "out")
    written = json.loads((tmp_path / "out" / "dark" / "labels.json").read_text())
    assert written["info"]["labelled_category_ids"] == [1, CHAIR]
    joined = open_dataset(tmp_path / "out")
    assert joined.categories == {1: "person", CHAIR: "chair"} and is_partly_labelled(joined)


def test_ids_that_are_texts(tmp_path: Path) -> None:
    """RAW-NOD has such ids; the list may use them too."""
    labels = partly(tmp_path, ("seat",), categories=[{"id": "mug", "name": "cup"}, {"id": "seat", "name": "chair"}])
    content = json.loads(labels.read_text())
    for one in content["annotations"]:
        one["category_id"] = "seat" if one["category_id"] == CHAIR else "mug"
    labels.write_text(json.dumps(content))
    assert list(load_coco(labels).categories.values()) == ["chair"]


@pytest.mark.parametrize(
    ("listed", "message"),
    [
        ([], "must be a list of ids, at least one"),
        ("chair", "must be a list of ids"),
        ([CHAIR, 5], "has the id 5, which is not in categories"),
        ([True], "must be a whole number"),
        ([[CHAIR]], "must be a whole number"),
    ],
)
def test_a_list_that_makes_no_sense(listed: Any, message: str, tmp_path: Path) -> None:
    labels = partly(tmp_path, listed)
    with pytest.raises(DataError, match=message) as caught:
        load_coco(labels)
    assert str(caught.value).startswith(str(labels)) and "\n" not in str(caught.value)


def test_all_classes_listed_changes_nothing(tmp_path: Path) -> None:
    listed = tuple(one["id"] for one in CATEGORIES)
    both = [load_coco(partly(tmp_path / name, ids)) for name, ids in (("a", listed), ("b", None))]
    assert replace(both[0], path=both[1].path, partly_labelled=False) == both[1]
