from pathlib import Path

import pytest

from adaptiveisp.datasets import open_dataset
from adaptiveisp.errors import DataError
from adaptiveisp.evaluate import EvaluationOptions, evaluate, notes_on
from adaptiveisp.report import build_report
from adaptiveisp.zoo import load_policy
from tests.data import labelled_photos
from tests.fake_detector import RedDetector


def test_policies_and_detectors_see_the_same_samples(tmp_path: Path) -> None:
    labels = labelled_photos(tmp_path)
    dataset = open_dataset(labels, tmp_path / "images", light="normal", draws=2)
    policies = [load_policy(name) for name in ("none", "auto-exposure", "camera")]
    seen: list[str] = []
    found = evaluate(dataset, policies, [RedDetector()], EvaluationOptions(64), seen.append)
    assert len(seen) == 6 and found.skipped == []
    keys = {name: [s.key for s in result.scored] for (name, _), result in found.results.items()}
    assert keys["none"] == keys["camera"] == keys["auto-exposure"] and len(keys["none"]) == 6
    assert found.results["auto-exposure", "red"].modules == [3] * 6
    assert found.results["auto-exposure", "red"].cost_ms == pytest.approx([1.7 + 1.7 + 2.0] * 6)
    assert found.results["none", "red"].modules == [0] * 6
    assert found.results["camera", "red"].modules == []  # no modules of ours: unknown, not free
    assert found.categories == {1: "person", 47: "cup", 62: "chair"} and len(found.sheets["none"]) == 6
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
    found = evaluate(dataset, policies, [RedDetector()], EvaluationOptions(64))
    assert [name for name, _ in found.skipped] == ["photo2.png (draw 0)"]
    assert all(len(result.scored) == 2 for result in found.results.values())
    assert any("1 inputs were skipped" in note for note in notes_on(found, dataset))
    for path in (tmp_path / "images").iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match="no image could be used"):
        evaluate(dataset, policies, [RedDetector()], EvaluationOptions(64))


def test_labels_of_another_size_are_refused(tmp_path: Path) -> None:
    import json

    labels = labelled_photos(tmp_path)
    content = json.loads(labels.read_text())
    content["images"][0]["width"] = 65
    labels.write_text(json.dumps(content))
    dataset = open_dataset(labels, tmp_path / "images", light="normal")
    found = evaluate(dataset, [load_policy("none")], [RedDetector()], EvaluationOptions(64))
    assert len(found.skipped) == 1 and "64x48" in found.skipped[0][1] and "65x48" in found.skipped[0][1]


def test_reading_ahead_in_processes_changes_nothing(tmp_path: Path) -> None:
    labels = labelled_photos(tmp_path, n=2)
    dataset = open_dataset(labels, tmp_path / "images", light="normal")
    alone, ahead = (
        evaluate(dataset, [load_policy("none")], [RedDetector()], EvaluationOptions(64, workers=workers))
        for workers in (0, 1)
    )
    for a, b in zip(alone.results["none", "red"].scored, ahead.results["none", "red"].scored, strict=True):
        assert a.key == b.key and (a.boxes == b.boxes).all()


def test_a_detector_that_knows_no_class_is_refused(tmp_path: Path) -> None:
    labels = labelled_photos(tmp_path, categories=[{"id": 1, "name": "unicorn"}], annotations=[])
    dataset = open_dataset(labels, tmp_path / "images", light="normal")
    with pytest.raises(DataError, match="unicorn"):
        evaluate(dataset, [load_policy("none")], [RedDetector()], EvaluationOptions(64))
