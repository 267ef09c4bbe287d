"""The greedy oracle: it lowers the loss by the labels it is shown, stops in time, and is used by evaluations only."""

import json
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor

from adaptiveisp.cli.parser import main
from adaptiveisp.data.opening import open_dataset
from adaptiveisp.errors import UsageError
from adaptiveisp.evaluation.config import ScoringOptions
from adaptiveisp.evaluation.evaluator import score_dataset
from adaptiveisp.evaluation.result import notes_on
from adaptiveisp.inference.predictor import AdaptiveISP
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.isp.registry import MODULE_SETS, find_module
from adaptiveisp.policies.heuristics import AutoExposure
from adaptiveisp.policies.oracle import GreedyOracle, frame_losses
from adaptiveisp.policies.registry import load_policy
from adaptiveisp.training.methods.registry import find_method
from adaptiveisp.types import Image, Targets
from tests.conftest import REPOSITORY
from tests.support.fake_detector import RedDetector
from tests.support.photos import labelled_photos
from tests.training.methods.test_actor_critic import GreyStream, WantsLight

RED = "tests.support.fake_detector:load"
IMAGE = GreyStream()[3].image[None]
"""(1, 3, 64, 64), its mean about 0.1; its frame has no border, so that losses can be worked out by hand."""


def labelled(*labels: int) -> Targets:
    return Targets(torch.zeros(len(labels), 4), torch.tensor(labels, dtype=torch.long))


def oracle(modules: Sequence[str], monkeypatch: pytest.MonkeyPatch, **settings: object) -> GreedyOracle:
    monkeypatch.setitem(MODULE_SETS, "few", tuple(find_module(name, "wide") for name in modules))
    return GreedyOracle(**{"preprocessing": "raw", "module_set": "few", **settings})  # type: ignore[arg-type]


class LabelSaysHowBright(WantsLight):
    """Label 0 wants a mean of 0.05, label 1 of 0.4."""

    def loss(self, image: Image, targets: list[Targets]) -> Tensor:
        wanted = torch.tensor([0.4 if bool(t.labels.sum()) else 0.05 for t in targets])
        return (image.mean(dim=(1, 2, 3)) - wanted).abs()


def test_the_labels_decide_what_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = oracle(["sharpen", "desaturation", "exposure"], monkeypatch, threshold=0.005)
    both = torch.cat([IMAGE, IMAGE])
    plans = subject.plan_with_labels(both, [labelled(0), labelled(1)], LabelSaysHowBright())
    for plan, wanted in zip(plans, (0.05, 0.4), strict=True):
        assert {stage.module for stage in plan.stages} == {"exposure"}
        assert plan.render(IMAGE).mean().item() == pytest.approx(wanted, abs=0.02)
    assert sum(s.params["ev"] for s in plans[0].stages) == pytest.approx(math.log2(0.05 / IMAGE.mean()), abs=0.3)


def test_each_step_lowers_the_loss_by_more_than_the_threshold(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = oracle(["exposure", "contrast", "gamma"], monkeypatch, threshold=0.01, refinements=2)
    (plan,) = subject.plan_with_labels(IMAGE, [labelled(1)], WantsLight())
    losses = [frame_losses(WantsLight(), image, labelled(1)).item() for image in (IMAGE, *plan.steps(IMAGE))]
    assert len(losses) >= 2
    assert all(after < before - 0.01 for before, after in pairwise(losses))


def test_it_takes_the_module_that_lowers_the_loss_most(monkeypatch: pytest.MonkeyPatch) -> None:
    detector, chosen = WantsLight(), {}
    for modules in (["exposure"], ["saturation"], ["saturation", "exposure"], ["exposure", "saturation"]):
        subject = oracle(modules, monkeypatch, horizon=1, threshold=0.0)
        (plan,) = subject.plan_with_labels(IMAGE, [labelled(1)], detector)
        chosen[tuple(modules)] = frame_losses(detector, plan.render(IMAGE), labelled(1)).item()
    assert chosen["exposure",] < chosen["saturation",] - 0.05
    assert chosen["saturation", "exposure"] == chosen["exposure", "saturation"] == chosen["exposure",]


def test_gradient_steps_find_more_than_the_starting_points(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = []
    for refinements in (0, 6):
        subject = oracle(["exposure"], monkeypatch, horizon=1, refinements=refinements)
        (plan,) = subject.plan_with_labels(IMAGE, [labelled(1)], WantsLight())
        losses.append(frame_losses(WantsLight(), plan.render(IMAGE), labelled(1)).item())
    assert losses[1] < 0.5 * losses[0]


def test_steps_that_go_too_far_are_taken_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate that jumps across the valley: the lowest point on the way is kept, never one above the start."""
    subject = oracle(["exposure"], monkeypatch, horizon=1, starts=1, rate=3.0, threshold=0.0)
    before = frame_losses(WantsLight(), IMAGE, labelled(1)).item()
    (plan,) = subject.plan_with_labels(IMAGE, [labelled(1)], WantsLight())
    assert frame_losses(WantsLight(), plan.render(IMAGE), labelled(1)).item() <= before


def test_nothing_is_done_where_nothing_helps() -> None:
    class Indifferent(WantsLight):
        def loss(self, image: Image, targets: list[Targets]) -> Tensor:
            return 0 * image.mean(dim=(1, 2, 3)) + 1

    (plan,) = GreedyOracle(refinements=1).plan_with_labels(IMAGE, [labelled(0)], Indifferent())
    assert plan.stages == AutoExposure().plan(IMAGE)[0].stages


def test_a_detector_without_gradient_or_with_broken_losses_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoGradient(WantsLight):
        def loss(self, image: Image, targets: list[Targets]) -> Tensor:
            loss = super().loss(image, targets).detach()
            return torch.where(loss > 0.5, torch.nan, loss)  # what is far too bright gives no loss

    subject = oracle(["exposure"], monkeypatch, horizon=3, starts=9, spread=0.15)
    with torch.inference_mode():  # as an evaluation has it around its renderings
        image = IMAGE.clone()
        (plan,) = subject.plan_with_labels(image, [labelled(1)], NoGradient())
    assert 1 <= len(plan.stages) <= 3
    assert plan.render(IMAGE).mean() > 1.2 * IMAGE.mean()


def test_under_inference_mode_gradients_are_still_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = oracle(["exposure"], monkeypatch, horizon=1)
    (expected,) = subject.plan_with_labels(IMAGE, [labelled(1)], WantsLight())
    with torch.inference_mode():
        assert subject.plan_with_labels(IMAGE.clone(), [labelled(1)], WantsLight()) == [expected]


class Watched(RedDetector):
    """Keeps the labels and frames that it was shown."""

    def __init__(self) -> None:
        self.seen: list[Targets] = []
        self.shapes: set[tuple[int, ...]] = set()

    def loss(self, image: Image, targets: list[Targets]) -> Tensor:
        self.seen += targets
        self.shapes.add(tuple(image.shape))
        return super().loss(image, targets)


def test_an_evaluation_shows_it_the_labels_in_the_padded_frame(tmp_path: Path) -> None:
    labels = labelled_photos(tmp_path)
    dataset = open_dataset(labels, tmp_path / "images", light="normal")
    detector, subject = Watched(), GreedyOracle(horizon=1, starts=1, refinements=1)
    found = score_dataset(dataset, [load_policy("none"), subject], [detector], ScoringOptions(128))
    assert found.skipped == [] and found.upper_bounds == ("greedy-oracle",)
    assert detector.shapes == {(1, 3, 128, 128)}
    # Photos of 64x48 become 128x96, with 16 rows above them; crowds are none of the labels.
    cup = [16 * 2, 12 * 2 + 16, 32 * 2, 24 * 2 + 16]
    for targets in detector.seen:
        assert targets.boxes.tolist() == [cup] and targets.labels.tolist() == [41]
    scored = {name: [s.key for s in result.scored] for (name, _), result in found.results.items()}
    assert scored["greedy-oracle"] == scored["none"]
    (note,) = [note for note in notes_on(found, dataset) if "greedy-oracle" in note]
    assert "upper bound, not a policy" in note and "labels" in note
    without = score_dataset(dataset, [load_policy("none")], [detector], ScoringOptions(64))
    assert without.upper_bounds == () and not any("upper bound" in note for note in notes_on(without, dataset))


@pytest.mark.usefixtures("without_figures")
def test_the_command_line_evaluates_it_and_refuses_it_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(REPOSITORY))
    monkeypatch.chdir(tmp_path)
    labelled_photos(tmp_path, n=1)
    data = ["--data", "labels.json", "--images", "images", "--light", "normal", "--detector", RED]
    small = ["--size", "64", "--threads", "1"]
    policies = ["--policy", "none", "greedy-oracle-raw", "--steps", "1", "--resamples", "200"]
    assert main(["eval", *data, *small, *policies, "--out", "report"]) == 0
    assert "greedy-oracle-raw: an upper bound that knows the labels" in capsys.readouterr().out
    report = json.loads((tmp_path / "report" / "report.json").read_text())
    assert any("upper bound" in note for note in report["notes"])
    assert report["policies"]["greedy-oracle-raw"]["red"]["modules_per_image"] <= 1
    assert "upper bound, not a policy" in (tmp_path / "report" / "report.html").read_text()
    raw = str(next((tmp_path / "images").iterdir()))
    assert main(["run", raw, "--policy", "greedy-oracle", "--detector", data[-1], *small, "--out", "seen"]) == 2
    error = capsys.readouterr().err
    assert "greedy-oracle needs labels" in error and "Traceback" not in error and not (tmp_path / "seen").exists()
    assert main(["train", *data, *small, "--method", "greedy_oracle", "--out", "run"]) == 2
    assert "is not a training method" in capsys.readouterr().err


def test_it_is_known_by_name_and_is_no_policy() -> None:
    subject = load_policy("greedy-oracle", steps=3)
    assert isinstance(subject, GreedyOracle) and subject.horizon == 3 and load_policy("greedy-oracle").horizon == 8  # type: ignore[union-attr]
    assert subject.needs_labels and not load_policy("none").needs_labels
    assert load_policy("greedy-oracle-raw").preprocessing == "raw"
    with pytest.raises(UsageError, match="needs labels"):
        AdaptiveISP(subject, RedDetector())
    with pytest.raises(UsageError, match="eval --policy greedy-oracle"):
        find_method("greedy_oracle")


def test_a_plan_is_an_ordinary_pipeline() -> None:
    (plan,) = GreedyOracle(horizon=1, starts=3, refinements=1).plan_with_labels(IMAGE, [labelled(1)], WantsLight())
    assert Pipeline.from_json(json.loads(json.dumps(plan.to_json()))) == plan
