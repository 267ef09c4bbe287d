"""Evaluations of parts of a data set, joined, are that of the whole."""

from pathlib import Path

import pytest

from adaptiveisp.data.opening import open_dataset
from adaptiveisp.data.synthetic import SynthesisConfig
from adaptiveisp.errors import DataError
from adaptiveisp.evaluation.config import ScoringOptions
from adaptiveisp.evaluation.evaluator import checked_evaluation, score_dataset
from adaptiveisp.evaluation.merging import merged
from adaptiveisp.policies.registry import load_policy
from tests.support.fake_detector import RedDetector
from tests.support.photos import labelled_photos


@pytest.mark.parametrize("n", [2, 3, 9])
def test_joined_parts_are_the_whole(n: int, tmp_path: Path) -> None:
    """Also where a photo cannot be read, and with more parts than samples."""
    labels = labelled_photos(tmp_path, n=4)
    (tmp_path / "images" / "photo2.png").write_bytes(b"no photo")
    dataset = open_dataset(labels, tmp_path / "images", SynthesisConfig("mixed", 2))
    policies = [load_policy("none"), load_policy("auto-exposure")]
    whole = score_dataset(dataset, policies, [RedDetector()], ScoringOptions(64, losses=True))
    parts = [
        score_dataset(dataset, policies, [RedDetector()], ScoringOptions(64, losses=True, part=(i, n)))
        for i in range(n)
    ]
    joined = checked_evaluation(merged(parts), dataset)
    assert joined.skipped == whole.skipped and len(whole.skipped) == 2
    assert joined.categories == whole.categories and joined.no_loss == whole.no_loss
    for key, expected in whole.results.items():
        found = joined.results[key]
        assert [image.key for image in found.scored] == [image.key for image in expected.scored]
        assert found.losses == expected.losses and len(found.losses) == 6
        assert found.cost_ms == expected.cost_ms and found.pipelines == expected.pipelines
        assert found.module_set == expected.module_set
    tiles = [{name: len(sheet) for name, sheet in one.sheets.items()} for one in (joined, whole)]
    assert tiles[0] == tiles[1]


def test_a_set_without_a_usable_image_is_refused_when_its_parts_are_joined(tmp_path: Path) -> None:
    labels = labelled_photos(tmp_path, n=2)
    for photo in (tmp_path / "images").iterdir():
        photo.write_bytes(b"no photo")
    dataset = open_dataset(labels, tmp_path / "images", SynthesisConfig("mixed", 1))
    parts = [
        score_dataset(dataset, [load_policy("none")], [RedDetector()], ScoringOptions(64, part=(i, 2)))
        for i in range(2)
    ]
    with pytest.raises(DataError, match="no image could be used"):
        checked_evaluation(merged(parts), dataset)
