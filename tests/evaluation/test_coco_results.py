"""COCO results: read back from the files, pycocotools gives the report's average precision."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from adaptiveisp.evaluation.coco_ap import ScoredImage
from adaptiveisp.evaluation.coco_results import image_ids, write_coco
from adaptiveisp.evaluation.policy_scores import PolicyResult
from adaptiveisp.evaluation.report import build_report
from tests.evaluation.test_coco_ap import CATEGORIES, random_images

NAMES = {category: f"class {category}" for category in CATEGORIES}


def read_back(folder: Path, name: str) -> list[float]:
    """AP, AP50 and AP75 by the library's own summary of the two files."""
    truth = COCO(str(folder / "coco" / "ground-truth.json"))
    evaluation = COCOeval(truth, truth.loadRes(str(folder / "coco" / name)), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return [float(value) for value in evaluation.stats[:3]]


def test_results_read_back_give_the_reports_scores(tmp_path: Path) -> None:
    images = random_images(3)
    half = [replace(i, boxes=i.boxes[::2], scores=i.scores[::2], category_ids=i.category_ids[::2]) for i in images]
    report = build_report({("ours/1", "d"): PolicyResult(images), ("b", "d"): PolicyResult(half)}, NAMES, {})
    write_coco(report, tmp_path)
    assert sorted(p.name for p in (tmp_path / "coco").iterdir()) == ["b--d.json", "ground-truth.json", "ours_1--d.json"]
    for policy, name in (("ours/1", "ours_1--d.json"), ("b", "b--d.json")):
        score = report.policies[policy]["d"]
        assert read_back(tmp_path, name) == pytest.approx([score.ap, score.ap50, score.ap75], abs=1e-6)
    entry = json.loads((tmp_path / "coco" / "b--d.json").read_text())[0]
    assert set(entry) == {"image_id", "category_id", "bbox", "score"} and len(entry["bbox"]) == 4


def test_results_of_an_earlier_evaluation_go_and_other_files_stay(tmp_path: Path) -> None:
    images = random_images(3)
    write_coco(build_report({("old", "d"): PolicyResult(images)}, NAMES, {}), tmp_path)
    (tmp_path / "coco" / "mine.json").write_text("keep me")
    write_coco(build_report({("new", "d"): PolicyResult(images)}, NAMES, {}), tmp_path)
    names = sorted(path.name for path in (tmp_path / "coco").iterdir())
    assert names == ["ground-truth.json", "mine.json", "new--d.json"]


def image(image_id: int, draw: int) -> ScoredImage:
    return ScoredImage(image_id, draw, None, (), np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))


def test_images_keep_their_ids_where_each_occurs_once() -> None:
    assert image_ids([image(7, 0), image(3, 1)]) == {(7, 0): 7, (3, 1): 3}
    assert image_ids([image(7, 1), image(7, 0), image(3, 0)]) == {(3, 0): 1, (7, 0): 2, (7, 1): 3}
    assert image_ids([image(0, 0), image(3, 0)]) == {(0, 0): 1, (3, 0): 2}
