"""What each module is worth to each box: against a detector whose scores follow from the picture by hand."""

import json
from dataclasses import replace

import pytest
import torch

from adaptiveisp import AdaptiveISP, Detections, Pipeline, Stage
from adaptiveisp.inference.explanation import Explanations, explain, is_lost, match_boxes
from adaptiveisp.policies.fixed import FixedPipeline
from tests.inference.test_predictor import red_box_raw
from tests.support.fake_detector import RedDetector

UP, DOWN = Stage("exposure", {"ev": 1.0}), Stage("exposure", {"ev": -2.0})


def found(*boxes: tuple[float, float, float, float, int, float]) -> Detections:
    values = torch.tensor(boxes).reshape(-1, 6)
    return Detections(values[:, :4], values[:, 5], values[:, 4].long())


def explained(*stages: Stage, size: int = 80):
    isp = AdaptiveISP(FixedPipeline(Pipeline(stages)), RedDetector(), size=size, confidence=0.01)
    result = isp(red_box_raw())
    return isp, result, explain(isp, result)


def test_scores_without_each_module_are_those_of_the_shorter_pipeline() -> None:
    """The detector's score is the redness, which exposure multiplies: with all modules r/2, without them 2r and r/4."""
    _, result, explanation = explained(UP, DOWN)
    (box,) = explanation.boxes
    redness = 2 * result.detections.scores.item()
    without_up, without_down = explanation.modules
    assert (without_up.stage, without_up.module, without_down.stage) == (1, "exposure", 2)
    assert without_up.params == {"ev": 1.0} and box.name == "cup"
    assert without_up.scores == (pytest.approx(redness / 4, rel=0.02),)
    assert without_down.scores == (pytest.approx(min(1.0, 2 * redness), rel=0.02),)
    assert explanation.worth(without_up)[0] > 0 > explanation.worth(without_down)[0], "one helps, one harms"
    for module, less in zip(explanation.modules, ((DOWN,), (UP,)), strict=True):
        (again,) = explained(*less)[1].detections.scores.tolist()
        assert module.scores == (pytest.approx(again, abs=1e-6),), "the same as running the shorter pipeline"


def test_the_file_says_what_was_lost_what_appeared_and_what_it_cost() -> None:
    _, _, explanation = explained(UP, DOWN)
    content = json.loads(json.dumps(explanation.to_json()))
    assert (content["renders"], content["detections"]) == (3, 3)
    assert [entry["module"] for entry in content["without"]] == ["exposure", "exposure"]
    (box,) = content["boxes"]
    for entry in content["without"]:
        assert entry["worth"] == [pytest.approx(box["score"] - entry["scores"][0], abs=2e-4)]
    assert is_lost(0.25, 0.2499) and not is_lost(0.2499, 0.0) and not is_lost(0.5, 0.25)


def test_boxes_that_are_there_without_a_module_only() -> None:
    """Black by eight stops down: no box of the whole pipeline is left, and one appears without the second module."""
    _, result, explanation = explained(UP, Stage("exposure", {"ev": -8.0}))
    assert len(result.detections.scores) == 0 and explanation.boxes == ()
    first, second = explanation.modules
    assert first.appeared == () and [box.name for box in second.appeared] == ["cup"]
    assert explanation.weight == pytest.approx(second.appeared[0].score) and explanation.weight > 0.25


def test_matching_takes_class_overlap_and_score_order() -> None:
    boxes = found((0, 0, 10, 10, 1, 0.9), (0, 0, 10, 8, 1, 0.8), (50, 50, 60, 60, 2, 0.7))
    others = found((0, 0, 10, 10, 1, 0.6), (0, 0, 10, 9.5, 1, 0.5), (50, 50, 60, 60, 3, 0.4), (50, 54, 60, 64, 2, 0.3))
    # The second overlaps the first box most, but that one is taken; the third is of another class; the last has an
    # overlap of 6/14.
    assert match_boxes(boxes, others) == [0, 1, None, None]
    assert match_boxes(boxes, found((50, 53, 60, 63, 2, 0.3))) == [2]  # 7/13
    assert match_boxes(found(), others) == [None] * 4 and match_boxes(boxes, found()) == []


def test_camera_has_no_module_to_leave_out() -> None:
    isp, result, _ = explained(UP)
    explanation = explain(isp, replace(result, pipeline=None))
    assert explanation.modules == () and not explanation.has_pipeline and explanation.weight == 0
    assert explanation.to_json()["without"] == [] and explanation.to_json()["renders"] == 1


def test_a_batch_keeps_sums_of_all_and_the_images_in_which_most_depends_on_modules() -> None:
    _, _, strong = explained(UP, DOWN)
    weak = replace(strong, boxes=(), modules=tuple(replace(m, scores=(), appeared=()) for m in strong.modules))
    batch = Explanations(most=1)
    for one in (weak, strong, weak):
        batch.add(one)
    assert batch.count == 3 and batch.kept == [strong]
    total = batch.totals["exposure"]
    worth = sum(strong.worth(module)[0] for module in strong.modules)
    assert (total.images, total.boxes) == (3, len(strong.drawn)) and total.worth == pytest.approx(worth)


def test_html_for_notebooks_shows_each_module_and_keeps_names_as_text() -> None:
    _, _, explanation = explained(UP, DOWN)
    evil = replace(explanation, boxes=tuple(box._replace(name="<script>" * 9) for box in explanation.boxes))
    html = evil._repr_html_()
    assert "<script>" not in html and html.count("<tr>") == 3 and html.count('"data:image/jpeg;base64,') == 1
    (worth,) = explanation.worth(explanation.modules[1])
    assert f">−{-100 * worth:.0f}<" in html and "rgba(213, 94, 0" in html
    nothing = replace(explanation, modules=())._repr_html_()
    assert "no module that could be left out" in nothing and "<table>" not in nothing
