"""The photos of a report: labels that are found and missed against COCO's rule, columns, and which photos."""

from pathlib import Path

import numpy as np
import pytest
import torch

from adaptiveisp.data.opening import open_dataset
from adaptiveisp.data.synthesize import synthesize
from adaptiveisp.data.synthetic import SynthesisConfig, read_photo
from adaptiveisp.evaluation.api import evaluate
from adaptiveisp.evaluation.bootstrap import HIT, MISS, box_iou, match
from adaptiveisp.evaluation.coco_ap import ScoredImage, xywh
from adaptiveisp.evaluation.config import EvalConfig, ScoringOptions
from adaptiveisp.evaluation.evaluator import score_dataset
from adaptiveisp.evaluation.label_marks import label_marks
from adaptiveisp.evaluation.photo_grid import PhotoGrid
from adaptiveisp.evaluation.photo_sheet import compared_photos
from adaptiveisp.evaluation.report import build_report
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.policies.fixed import FixedPipeline
from adaptiveisp.policies.registry import load_policy
from adaptiveisp.types import Annotation
from adaptiveisp.utils.color import to_uint8
from tests.evaluation.test_coco_ap import CATEGORIES, random_images
from tests.evaluation.test_evaluator import Growing
from tests.evaluation.test_report import NAMES
from tests.support.fake_detector import RedDetector
from tests.support.photos import labelled_photos

SIZE = (480, 640)


def test_found_missed_and_false_are_those_of_cocos_rule() -> None:
    """Against the matching that average precision uses, which counts outcomes of boxes."""
    counts = {"found": 0, "false": 0, "missed": 0}
    for image in random_images(3, n_images=40, skill=0.6):
        kinds = [mark.kind for mark in label_marks(image, NAMES, SIZE, confidence=0.3)]
        expected = {"found": 0, "false": 0, "missed": 0}
        for category in CATEGORIES:
            kept = (image.category_ids == category) & (image.scores >= 0.3)
            order = np.argsort(-image.scores[kept], kind="stable")
            labels = [a for a in image.annotations if a.category_id == category]
            crowd = np.array([bool(a.iscrowd) for a in labels], bool)
            boxes = np.array([a.bbox for a in labels], float).reshape(-1, 4)
            outcome = match(box_iou(xywh(image.boxes[kept][order]), boxes, crowd), crowd, crowd)[0]
            expected["found"] += int((outcome == HIT).sum())
            expected["false"] += int((outcome == MISS).sum())
            expected["missed"] += int((~crowd).sum() - (outcome == HIT).sum())
        assert {kind: kinds.count(kind) for kind in expected} == expected
        counts = {kind: counts[kind] + expected[kind] for kind in counts}
    assert min(counts.values()) > 10


def test_where_marks_lie_and_what_they_say() -> None:
    labels = (Annotation(1, (64.0, 48.0, 64.0, 48.0), 1.0), Annotation(3, (0.0, 0.0, 64.0, 48.0), 1.0))
    boxes = np.array([[64.0, 48, 128, 96], [320, 240, 640, 480], [0, 0, 64, 48]])
    image = ScoredImage(1, 0, None, labels, boxes, np.array([0.9, 0.3, 0.2]), np.array([1, 1, 3]))
    found, missed, false = label_marks(image, {1: "person", 3: "car"}, SIZE)
    assert (found.kind, found.text, found.box) == ("found", "person 90", (0.1, 0.1, 0.2, 0.2))
    assert (missed.kind, missed.text, missed.box) == ("missed", "car", (0.0, 0.0, 0.1, 0.1))
    assert (false.kind, false.text, false.box) == ("false", "person 30", (0.5, 0.5, 1.0, 1.0))


def grid_of(folder: Path, *policies: object, losses: bool = True, each: int = 1, light: str = "mixed") -> PhotoGrid:
    dataset = open_dataset(folder / "labels.json", folder / "images", light=light, draws=2)
    options = ScoringOptions(64, losses=losses)
    found = score_dataset(dataset, policies, [RedDetector()], options)  # type: ignore[arg-type]
    report = build_report(found.results, found.categories, {}, resamples=200)
    grid = compared_photos(dataset, policies, [RedDetector()], options, found, report, each)  # type: ignore[arg-type]
    assert grid is not None
    return grid


def test_columns_are_the_clean_photo_the_raw_and_the_policies(tmp_path: Path) -> None:
    labelled_photos(tmp_path)
    grid = grid_of(tmp_path, Growing(), load_policy("camera"))
    assert grid.columns == ("clean photo", "raw", "growing", "camera") and len(grid.rows) == 3
    assert "the loss of red, growing against" in grid.choice and "3 of 6 images" in grid.choice
    for row in grid.rows:
        clean, raw, growing, camera = row.shots
        assert clean is not None and raw is not None and growing is not None and camera is not None
        assert (clean.image == to_uint8(read_photo(tmp_path / "images" / row.title))).all()
        assert [mark.text[:3] for mark in clean.marks] == ["cup"] and clean.marks[0].kind == "found"
        assert raw.note.startswith("right ×") or raw.image.mean() > 20
        assert growing.pipeline is not None and {s.module for s in growing.pipeline.stages} == {"exposure"}
        assert camera.caption == "the camera's own development"
        assert row.facts.startswith("light 0.") and "loss" in row.facts


def test_the_policy_none_is_the_raw_and_no_second_column(tmp_path: Path) -> None:
    labelled_photos(tmp_path)
    grid = grid_of(tmp_path, load_policy("auto-exposure"), load_policy("none"))
    assert grid.columns == ("clean photo", "raw", "auto-exposure") and grid.left_out == ()


def test_the_photo_that_loses_most_is_shown_as_such(tmp_path: Path) -> None:
    """The detector's loss falls with red, so that a policy for the darker images gains in those."""
    labelled_photos(tmp_path, n=4)

    class Flipping:
        name = "flipping"

        def plan(self, image: torch.Tensor) -> list[Pipeline]:
            up = 1.0 if image.mean() < 0.05 else -3.0
            return [Pipeline((Stage("exposure", {"ev": up}),))] * len(image)

    dataset = open_dataset(tmp_path / "labels.json", tmp_path / "images", light="mixed", draws=2)
    options = ScoringOptions(64, losses=True)
    policies = [load_policy("none"), Flipping()]
    found = score_dataset(dataset, policies, [RedDetector()], options)
    report = build_report(found.results, found.categories, {}, resamples=200)
    grid = compared_photos(dataset, policies, [RedDetector()], options, found, report, 1)
    assert grid is not None
    none, flipping = (found.results[name, "red"] for name in ("none", "flipping"))
    gains = np.array(none.losses) - np.array(flipping.losses)
    for place, row in ((int(gains.argmax()), grid.rows[0]), (int(gains.argmin()), grid.rows[1])):
        loss = f"loss {none.losses[place]:.3f}, with flipping {flipping.losses[place]:.3f}"
        assert row.facts == f"light {none.scored[place].light:.3g}; {loss}"
    assert [row.why for row in grid.rows[:2]] == ["gains most", "loses most"]


def test_without_losses_labels_count_and_without_photos_there_is_no_column(tmp_path: Path) -> None:
    labelled_photos(tmp_path)
    grid = grid_of(tmp_path, Growing(), load_policy("none"), losses=False)
    assert "labels found less false boxes" in grid.choice
    synthesize(SynthesisConfig("normal"), tmp_path / "labels.json", tmp_path / "images", tmp_path / "raws")
    config = EvalConfig(tmp_path / "raws" / "normal", ["auto-exposure"], [RedDetector()], size=64, resamples=200)
    report = evaluate(config)
    assert report.photos is not None and report.photos.columns == ("raw", "auto-exposure")
    assert "auto-exposure against raw" in report.photos.choice


def test_many_policies_are_named_and_photos_that_are_gone_are_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labelled_photos(tmp_path)
    policies = [FixedPipeline(Pipeline((Stage("exposure", {"ev": i / 10}),))).renamed(f"p{i}") for i in range(9)]
    grid = grid_of(tmp_path, *policies, light="dark")
    assert len(grid.columns) == 2 + 7 and len(grid.left_out) == 2
    dataset = open_dataset(tmp_path / "labels.json", tmp_path / "images", light="dark")
    options = ScoringOptions(64)
    found = score_dataset(dataset, policies[:1], [RedDetector()], options)
    report = build_report(found.results, found.categories, {}, resamples=200)
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    assert compared_photos(dataset, policies[:1], [RedDetector()], options, found, report) is None
    assert "the page leaves out a photo" in caplog.text
