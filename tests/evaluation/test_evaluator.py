from pathlib import Path
from typing import Any

import pytest
import torch

from adaptiveisp.data.opening import open_dataset
from adaptiveisp.detectors.loading import load_detector
from adaptiveisp.errors import DataError
from adaptiveisp.evaluation.config import ScoringOptions
from adaptiveisp.evaluation.evaluator import score_dataset
from adaptiveisp.evaluation.report import build_report
from adaptiveisp.evaluation.result import notes_on
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.policies.registry import load_policy
from adaptiveisp.types import Detections, Targets
from tests.support.darknet_cfg import write_mixed
from tests.support.fake_detector import RedDetector
from tests.support.photos import labelled_photos


def test_policies_and_detectors_see_the_same_samples(tmp_path: Path) -> None:
    labels = labelled_photos(tmp_path)
    dataset = open_dataset(labels, tmp_path / "images", light="normal", draws=2)
    policies = [load_policy(name) for name in ("none", "auto-exposure", "camera")]
    seen: list[str] = []
    found = score_dataset(dataset, policies, [RedDetector()], ScoringOptions(64), seen.append)
    assert len(seen) == 6 and found.skipped == []
    keys = {name: [s.key for s in result.scored] for (name, _), result in found.results.items()}
    assert keys["none"] == keys["camera"] == keys["auto-exposure"] and len(keys["none"]) == 6
    assert found.results["auto-exposure", "red"].modules == [3] * 6
    assert found.results["auto-exposure", "red"].cost_ms == pytest.approx([1.7 + 1.7 + 2.0] * 6)
    assert found.results["none", "red"].modules == [0] * 6
    assert found.results["camera", "red"].modules == []  # no modules of ours: unknown, not free
    assert found.categories == {1: "person", 47: "cup", 62: "chair"}
    report = build_report(found.results, found.categories, {}, notes_on(found, dataset), resamples=200)
    # The photos' red box is found wherever the light lets it be; crowds of persons are not missed.
    assert report.policies["camera"]["red"].per_class["cup"] > 0.5
    assert "person" not in report.policies["camera"]["red"].per_class
    assert any("exact" in note for note in report.notes)


def test_an_unreadable_sample_is_left_out_for_all(tmp_path: Path) -> None:
    labels = labelled_photos(tmp_path)
    (tmp_path / "images" / "photo2.png").write_bytes(b"no picture")
    dataset = open_dataset(labels, tmp_path / "images", light="normal")
    policies = [load_policy("none"), load_policy("auto-exposure")]
    found = score_dataset(dataset, policies, [RedDetector()], ScoringOptions(64))
    assert [name for name, _ in found.skipped] == ["photo2.png (draw 0)"]
    assert all(len(result.scored) == 2 for result in found.results.values())
    assert any("1 inputs were skipped" in note for note in notes_on(found, dataset))
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match="no image could be used"):
        score_dataset(dataset, policies, [RedDetector()], ScoringOptions(64))


def test_labels_of_another_size_are_refused(tmp_path: Path) -> None:
    import json

    labels = labelled_photos(tmp_path)
    content = json.loads(labels.read_text())
    content["images"][0]["width"] = 65
    labels.write_text(json.dumps(content))
    dataset = open_dataset(labels, tmp_path / "images", light="normal")
    found = score_dataset(dataset, [load_policy("none")], [RedDetector()], ScoringOptions(64))
    assert len(found.skipped) == 1 and "64x48" in found.skipped[0][1] and "65x48" in found.skipped[0][1]


def test_reading_ahead_in_processes_changes_nothing(tmp_path: Path) -> None:
    labels = labelled_photos(tmp_path, n=2)
    dataset = open_dataset(labels, tmp_path / "images", light="normal")
    alone, ahead = (
        score_dataset(dataset, [load_policy("none")], [RedDetector()], ScoringOptions(64, workers=workers))
        for workers in (0, 1)
    )
    for a, b in zip(alone.results["none", "red"].scored, ahead.results["none", "red"].scored, strict=True):
        assert a.key == b.key and (a.boxes == b.boxes).all()


def test_a_detector_that_knows_no_class_is_refused(tmp_path: Path) -> None:
    labels = labelled_photos(tmp_path, categories=[{"id": 1, "name": "unicorn"}], annotations=[])
    dataset = open_dataset(labels, tmp_path / "images", light="normal")
    with pytest.raises(DataError, match="unicorn"):
        score_dataset(dataset, [load_policy("none")], [RedDetector()], ScoringOptions(64))


class Growing:
    """An adaptive policy: a stop of exposure for dark images, twice for darker ones."""

    name = "growing"

    def plan(self, image: torch.Tensor) -> list[Pipeline]:
        count = 1 if image.mean() > 0.01 else 2
        return [Pipeline((Stage("exposure", {"ev": 1.0}),) * count)] * len(image)


def test_losses_and_pipelines_are_kept_for_each_image(tmp_path: Path) -> None:
    labels = labelled_photos(tmp_path)
    dataset = open_dataset(labels, tmp_path / "images", light="mixed", draws=2)
    policies = [load_policy("none"), Growing(), load_policy("camera")]
    found = score_dataset(dataset, policies, [RedDetector()], ScoringOptions(64, losses=True))
    none, growing, camera = (found.results[name, "red"] for name in ("none", "growing", "camera"))
    assert none.losses == none.raw_losses == growing.raw_losses and len(none.losses) == 6
    assert none.auto_exposure_losses == camera.auto_exposure_losses != none.losses
    # The detector's loss is 1 less the mean red of the frame; none of these images is clipped by a stop or two.
    for index, (raw, loss, pipeline) in enumerate(zip(none.losses, growing.losses, growing.pipelines, strict=True)):
        assert pipeline == (("exposure", {"ev": 1.0}),) * growing.modules[index]
        padding = 0.25 * 0.5  # 64x48 in 64x64
        assert 1 - padding - loss == pytest.approx((1 - padding - raw) * 2 ** growing.modules[index], rel=0.02)
    assert set(growing.modules) == {1, 2} and none.pipelines == [()] * 6 and camera.pipelines == [None] * 6
    assert (none.static, growing.static, camera.static) == (True, False, True) and found.no_loss == {}
    report = build_report(found.results, found.categories, {}, resamples=200)
    score = report.policies["growing"]["red"]
    assert score.worse_than_raw == 0.0 and report.policies["none"]["red"].worse_than_auto_exposure == 1.0
    assert score.loss_mean == pytest.approx(sum(growing.losses) / 6) and score.loss_worst5 == max(growing.losses)
    best = report.best_static["red"]
    assert [d.a for d in best.differences] == ["growing"] and best.differences[0].b == best.name != "growing"
    unasked = score_dataset(dataset, policies, [RedDetector()], ScoringOptions(64)).results["none", "red"]
    assert unasked.losses == unasked.raw_losses == [] and len(unasked.pipelines) == 6


class AskedTwice:
    """A detector without its `detect_with_loss`."""

    def __init__(self, detector: Any) -> None:
        self.name, self.stride, self.weights_sha256 = "twice", detector.stride, ""
        self.class_names, self.detector = detector.class_names, detector

    def loss(self, image: torch.Tensor, targets: list[Targets]) -> torch.Tensor:
        return self.detector.loss(image, targets)

    def detect(self, image: torch.Tensor, confidence: float = 0.001, *rest: Any) -> list[Detections]:
        return self.detector.detect(image, confidence)


def test_one_pass_for_detections_and_losses_gives_the_same_report(tmp_path: Path) -> None:
    """Bit for bit, though the references are in one batch with the policies."""
    _, weights = write_mixed(tmp_path)
    weights.with_suffix(".names").write_text("person\ncup\n")
    once: Any = load_detector(weights)
    dataset = open_dataset(labelled_photos(tmp_path), tmp_path / "images", light="mixed")
    policies = [Growing(), load_policy("auto-exposure")]
    results = score_dataset(dataset, policies, [once, AskedTwice(once)], ScoringOptions(64, losses=True)).results
    for policy in ("growing", "auto-exposure"):
        one, two = results[policy, once.name], results[policy, "twice"]
        assert {**vars(one), "scored": 0} == {**vars(two), "scored": 0} and len(one.losses) == 3
        assert one.losses != one.raw_losses != one.auto_exposure_losses
        for a, b in zip(one.scored, two.scored, strict=True):
            assert len(a.scores) > 0 and (a.boxes == b.boxes).all() and (a.scores == b.scores).all()
            assert (a.category_ids == b.category_ids).all()


class FailsLater(RedDetector):
    """Gives no loss from its third call on."""

    name = "fails-later"

    def __init__(self) -> None:
        self.calls = 0

    def loss(self, image: torch.Tensor, targets: list[Targets]) -> torch.Tensor:
        self.calls += 1
        if self.calls > 2:
            raise NotImplementedError("no loss")
        return super().loss(image, targets)


def test_a_detector_without_a_loss_is_scored_all_the_same(tmp_path: Path) -> None:
    dataset = open_dataset(labelled_photos(tmp_path), tmp_path / "images", light="normal")
    policies = [load_policy("none"), load_policy("auto-exposure")]
    found = score_dataset(dataset, policies, [FailsLater(), RedDetector()], ScoringOptions(64, losses=True))
    assert found.skipped == [] and found.no_loss == {"fails-later": "NotImplementedError: no loss"}
    assert found.results["none", "fails-later"].losses == [] and len(found.results["none", "red"].losses) == 3
    notes = notes_on(found, dataset)
    assert any("fails-later gives no usable loss (NotImplementedError: no loss)" in note for note in notes)
    report = build_report(found.results, found.categories, {}, notes, resamples=200)
    score = report.policies["none"]["fails-later"]
    assert score.ap50 is not None and score.loss_mean is score.loss_worst5 is score.worse_than_raw is None
    assert report.runs[0].loss == {"fails-later": None, "red": pytest.approx(found.results["none", "red"].losses[0])}
