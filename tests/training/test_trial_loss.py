"""A detector's loss is tried before a run begins: one that fails, or that nothing could be learned from, is refused."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from adaptiveisp.errors import UsageError
from adaptiveisp.training.config import make_settings
from adaptiveisp.training.trial_loss import check_loss
from adaptiveisp.types import Targets
from tests.support.fake_detector import RedDetector
from tests.support.photos import labelled_photos
from tests.support.training_runs import adaptiveisp

LOSSES: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "one number": (
        lambda image: image.mean(),
        r"\(2,\) for a trial batch of 2; it returned a tensor of shape",
    ),
    "list": (lambda image: [0.1, 0.2], "it returned list"),
    "not finite": (lambda image: image.flatten(1).sum(1) * torch.nan, "one finite number for each image"),
    "fails": (lambda image: image.nothing, r"its loss fails on a trial batch of 64x64 pixels \(AttributeError"),
    "no gradient": (
        lambda image: image.detach().flatten(1).mean(1),
        "method fixed: needs the gradient .*; choose",
    ),
    "of something else": (
        lambda image: torch.ones(2, requires_grad=True),
        "does not depend on the pixels of the image",
    ),
}


def detector(loss: Callable[[Tensor], Any]) -> RedDetector:
    class Own(RedDetector):
        def loss(self, image: Tensor, targets: list[Targets]) -> Any:
            return loss(image)

    return Own()


@pytest.mark.parametrize("kind", LOSSES)
def test_a_loss_of_no_use_is_refused(kind: str) -> None:
    loss, message = LOSSES[kind]
    settings = make_settings("fixed", "", {"size": 64}, "test")
    with pytest.raises(UsageError, match=message) as caught:
        check_loss("fixed", settings, detector(loss), "cpu")
    assert "\n" not in str(caught.value)


def test_methods_without_gradients_need_none_and_a_gradient_of_nothing_is_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    check_loss("cma_es", make_settings("cma_es", "", {"size": 64}, "test"), detector(LOSSES["no gradient"][0]), "cpu")
    settings = make_settings("fixed", "", {"size": 64}, "test")
    check_loss("fixed", settings, RedDetector(), "cpu")
    assert not caplog.records
    check_loss("fixed", settings, detector(lambda image: (image * 0).flatten(1).sum(1)), "cpu")
    assert "the gradient of its loss is 0" in caplog.text


def test_the_command_refuses_before_there_is_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labelled_photos(tmp_path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "flat_detector.py").write_text(
        "from tests.support.fake_detector import RedDetector\n\n\nclass Flat(RedDetector):\n"
        "    def loss(self, image, targets):\n        return super().loss(image, targets).detach()\n"
    )
    photos = ("--data", "labels.json", "--images", "images", "--light", "mixed", "--size", 64)
    assert adaptiveisp("train", *photos, "--detector", "flat_detector:Flat", "--method", "fixed", "--out", "run") == 2
    assert "needs the gradient of the detector's loss, and red has none" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
