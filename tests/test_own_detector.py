"""The example of an own detector, as a user would try it."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from adaptiveisp.cli import main
from adaptiveisp.detectors import load_detector
from adaptiveisp.types import Targets
from tests.conftest import REPOSITORY
from tests.data import labelled_photos

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


def test_the_example_on_the_command_line(tmp_path: Path) -> None:
    labelled_photos(tmp_path)
    photos = ["--data", "labels.json", "--images", "images", "--light", "normal", "--detector", "own_detector:load"]
    arguments = [*photos, "--size", "64", "--policy", "auto-exposure", "--resamples", "200", "--out", "report", "-q"]
    assert main(["eval", *arguments]) == 0
    scores = json.loads((tmp_path / "report" / "report.json").read_text())["policies"]["auto-exposure"]["red-cells"]
    assert scores["n_images"] == 3 and scores["ap50"] > 0.5 and scores["loss_mean"] > 0
