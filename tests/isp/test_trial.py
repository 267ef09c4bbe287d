"""Modules are checked where they are declared, and tried before a run: each kind of mistake is told in a line."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from jaxtyping import config
from torch import Tensor

from adaptiveisp import IspModule, Param
from adaptiveisp.errors import UsageError
from adaptiveisp.isp.registry import BASELINES, HELPERS, MODULE_SETS
from adaptiveisp.isp.trial import of_ones_own
from adaptiveisp.testing import check_module


@pytest.fixture
def without_type_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """As users run the package."""
    monkeypatch.setattr(config, "jaxtyping_disable", True)


BY = Param("by", -0.5, 0.5, "", 0.0)


def lifted(image: Tensor, params: Tensor) -> Tensor:
    return image + params[:, :, None, None]


LIFT = IspModule("lift", "L", (BY,), lifted, 1.0)
EVERY = [module for modules in (*MODULE_SETS.values(), HELPERS, BASELINES) for module in modules]


@pytest.mark.parametrize("module", EVERY, ids=lambda module: module.name)
def test_the_package_s_modules_pass_the_trial(module: IspModule, caplog: pytest.LogCaptureFixture) -> None:
    check_module(module, gradients=module.name != "clahe")  # its histograms have none
    assert not caplog.records


def test_modules_of_ones_own_are_told_from_those_of_the_package() -> None:
    check_module(LIFT)
    assert of_ones_own([*EVERY, LIFT]) == [LIFT]
    assert of_ones_own([replace(EVERY[0], cost_ms=3.0)])


FAULTS: dict[str, tuple[Callable[[Tensor, Tensor], Any], str]] = {
    "fails": (lambda image, params: image @ params, r"it fails on images of shape \(2, 3, 32, 32\) .*RuntimeError"),
    "shape": (lambda image, params: image.mean(dim=1), r"it returned a tensor of shape \(2, 32, 32\); return a tensor"),
    "kind": (lambda image, params: [image], "it returned list"),
    "not finite": (lambda image, params: image / (image * 0), "its result is not finite for the parameters"),
    "not neutral": (lambda image, params: lifted(image, params) / 2, "its neutral parameters change an image by up to"),
    "no gradient": (lambda image, params: lifted(image, params).detach(), "no gradient for image and parameters"),
    "of the image": (lambda image, params: lifted(image.detach(), params), "no gradient for its image"),
    "of the parameters": (lambda image, params: lifted(image, params.detach()), "no gradient for its parameters"),
    "infinite gradient": (
        lambda image, params: image ** (1 + params[:, :, None, None] ** 2 - 0.5 * params[:, :, None, None].abs()),
        "the gradient for its image is not finite for an image with black and white pixels",
    ),
    "first row": (lambda image, params: image + params[0, 0], "an image in a batch of two is not the same as alone"),
    "mean of the batch": (lambda image, params: image + params.mean() * image.mean(), "in a batch of two"),
}


@pytest.mark.parametrize("kind", FAULTS)
def test_each_fault_is_named_with_the_module(kind: str, without_type_checks: None) -> None:
    function, message = FAULTS[kind]
    with pytest.raises(UsageError, match=f"^module lift: .*{message}") as caught:
        check_module(replace(LIFT, function=function))
    assert "\n" not in str(caught.value)
    if "gradient" in message:
        check_module(replace(LIFT, function=function), gradients=False)


def test_a_parameter_that_learns_nothing_is_told(caplog: pytest.LogCaptureFixture) -> None:
    check_module(replace(LIFT, function=lambda image, params: lifted(image, params.round())))
    assert "module lift: the gradient of by is 0" in caplog.text


def test_a_module_through_which_nothing_learns_is_told(caplog: pytest.LogCaptureFixture) -> None:
    check_module(replace(LIFT, function=lambda image, params: lifted(image.detach() + 0 * image, params)))
    assert "module lift: the gradient of the image is 0, so modules before it cannot learn" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"low": 0.5}, "parameter 'by': low = 0.5 must be below high = 0.5"),
        ({"neutral": 1.0}, r"parameter 'by': neutral = 1 must be in its range \[-0.5, 0.5\]"),
        ({"scale": "cubic"}, "scale = 'cubic' does not exist; give one of linear, log, sigmoid"),
        ({"scale": "log"}, "low = -0.5 must be above 0 for the scale log"),
        ({"high": float("inf")}, "high = inf is not a finite number"),
        ({"low": "0"}, "low = '0' is not a finite number"),
        ({"name": "by how much"}, "parameter 'by how much': give a name"),
        ({"name": 3}, "parameter 3: give a name"),
    ],
)
def test_a_parameter_checks_itself(changes: dict[str, Any], message: str, without_type_checks: None) -> None:
    with pytest.raises(UsageError, match=message):
        replace(BY, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "1 lift"}, "module '1 lift': give a name"),
        ({"params": BY}, r"params must be a tuple of Param; write \(Param\(…\),\) for a single one"),
        ({"params": [BY]}, "params must be a tuple of Param"),
        ({"params": ("by",)}, "params must be a tuple of Param"),
        ({"params": (BY, BY)}, "two parameters have the same name"),
        ({"function": 3}, "function must be callable, not int"),
        ({"cost_ms": -1}, "cost_ms = -1 must be a finite number of milliseconds"),
        ({"cost_ms": float("nan")}, "cost_ms = nan must be"),
        ({"head": torch.tanh}, "a head needs its inverse"),
    ],
)
def test_a_module_checks_itself(changes: dict[str, Any], message: str, without_type_checks: None) -> None:
    with pytest.raises(UsageError, match=message):
        replace(LIFT, **changes)
