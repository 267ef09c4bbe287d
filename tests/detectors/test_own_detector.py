"""The example of an own detector, as a user would try it."""

import copy
import json
import shutil
from pathlib import Path

import pytest
import torch

from adaptiveisp.cli.parser import main
from adaptiveisp.data.opening import open_dataset
from adaptiveisp.detectors.loading import load_detector
from adaptiveisp.errors import DataError
from adaptiveisp.evaluation.config import ScoringOptions
from adaptiveisp.evaluation.evaluator import score_dataset
from adaptiveisp.policies.heuristics import AutoExposure
from adaptiveisp.types import Targets
from tests.conftest import REPOSITORY
from tests.support.photos import labelled_photos

EXAMPLE = REPOSITORY / "examples" / "own_detector.py"


@pytest.fixture(autouse=True)
def copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(EXAMPLE, tmp_path)
    monkeypatch.chdir(tmp_path)


def test_the_example_finds_red_cells_and_scores_them() -> None:
    detector = load_detector("own_detector:load")
    image = torch.full((2, 3, 64, 96), 0.2)
    image[0, 0, 16:40, 24:72] = 0.9
    found, none = detector.detect(image)
    assert found.boxes.tolist() == [[24, 16, 72, 40]] and len(none.boxes) == 0
    assert found.scores.item() == pytest.approx(torch.sigmoid(torch.tensor(20 * 0.7 - 2)).item())
    right = Targets(torch.tensor([[24.0, 16.0, 72.0, 40.0]]), torch.tensor([0]))
    nothing = Targets(torch.zeros(0, 4), torch.zeros(0, dtype=torch.long))
    cell = {value: torch.nn.functional.softplus(torch.tensor(value)).item() for value in (-12.0, 12.0, -2.0)}
    red, all_cells = 3 * 6, 8 * 12  # by hand: softplus of the wrong side's logit in each cell
    quiet = (all_cells - red) * cell[-2.0]
    assert detector.loss(image[:1], [right]).item() == pytest.approx((red * cell[-12.0] + quiet) / all_cells, rel=1e-4)
    assert detector.loss(image[:1], [nothing]).item() == pytest.approx((red * cell[12.0] + quiet) / all_cells, rel=1e-4)


def test_two_detectors_and_what_is_not_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--detector` given twice; only classes that both know count, and the terminal says which are left out by whom."""
    labelled_photos(tmp_path)
    shutil.copy(EXAMPLE, tmp_path / "other_detector.py")
    text = (tmp_path / "other_detector.py").read_text()
    text = text.replace('("cup",)', '("cup", "chair")').replace('"red-cells"', '"other"')
    (tmp_path / "other_detector.py").write_text(text)
    photos = ["eval", "--data", "labels.json", "--images", "images", "--light", "normal", "--size", "64"]
    detectors = ["--detector", "own_detector:load", "--detector", "other_detector:load"]
    options = ["--policy", "auto-exposure", "--resamples", "200", "-q", "--out"]
    assert main([*photos, *detectors, *options, "report"]) == 0
    scores = json.loads((tmp_path / "report" / "report.json").read_text())["policies"]["auto-exposure"]
    assert set(scores) == {"red-cells", "other"} and scores["other"]["ap50"] == scores["red-cells"]["ap50"] > 0.5
    told = capsys.readouterr().err
    assert "red-cells does not know these classes, so they are not scored: person, chair" in told
    assert "other does not know these classes, so they are not scored: person." in told

    content = json.loads((tmp_path / "labels.json").read_text())
    cup = next(entry["id"] for entry in content["categories"] if entry["name"] == "cup")
    content["annotations"] = [entry for entry in content["annotations"] if entry["category_id"] != cup]
    (tmp_path / "labels.json").write_text(json.dumps(content))
    assert main([*photos, "--detector", "own_detector:load", *options, "nothing"]) == 1
    assert "no object that could be scored; what red-cells knows of its classes: cup" in capsys.readouterr().err


def test_why_there_is_no_class_in_common_is_told(tmp_path: Path) -> None:
    """Two detectors of different classes; and labels that name no class, whatever the detectors know."""
    dataset = open_dataset(labelled_photos(tmp_path), tmp_path / "images", light="normal")
    cups, persons = load_detector("own_detector:load"), load_detector("own_detector:load")
    persons.name, persons.class_names = "persons", ("person",)
    with pytest.raises(
        DataError, match=r"no class of it is known to all detectors \(red-cells knows cup; persons knows pe"
    ):
        score_dataset(dataset, [AutoExposure()], [cups, persons], ScoringOptions(64))
    nameless = copy.copy(dataset)
    nameless.categories = {}
    with pytest.raises(
        DataError, match="its labels name no class, so there is no object that could be scored; check its"
    ):
        score_dataset(nameless, [AutoExposure()], [cups], ScoringOptions(64))


def test_the_example_on_the_command_line(tmp_path: Path) -> None:
    labelled_photos(tmp_path)
    photos = ["--data", "labels.json", "--images", "images", "--light", "normal", "--detector", "own_detector:load"]
    arguments = [*photos, "--size", "64", "--policy", "auto-exposure", "--resamples", "200", "--out", "report", "-q"]
    assert main(["eval", *arguments]) == 0
    scores = json.loads((tmp_path / "report" / "report.json").read_text())["policies"]["auto-exposure"]["red-cells"]
    assert scores["n_images"] == 3 and scores["ap50"] > 0.5 and scores["loss_mean"] > 0
