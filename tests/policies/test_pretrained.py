"""Policies inside the package."""

import json
from pathlib import Path

import pytest
import torch

from adaptiveisp import AdaptiveISP
from adaptiveisp.cli.parser import main
from adaptiveisp.errors import UsageError
from adaptiveisp.policies.registry import DEFAULT_POLICY, SHIPPED, load_policy, policy_file, shipped_file
from adaptiveisp.policies.sequence.policy import SequencePolicy
from adaptiveisp.types import Image
from tests.cli.test_commands import RED, dng
from tests.inference.test_predictor import red_box_raw
from tests.support.fake_detector import RedDetector

each = pytest.mark.parametrize("name", SHIPPED)


def shipped(name: str) -> SequencePolicy:
    policy = load_policy(name)
    assert isinstance(policy, SequencePolicy)
    return policy


def scene(light: float) -> Image:
    """A ramp with the noise of a sensor, at a brightness."""
    generator = torch.Generator().manual_seed(0)
    clean = light * torch.linspace(0.05, 1, 96).expand(1, 3, 64, 96)
    return (clean + (1e-4 * clean + 1e-6).sqrt() * torch.randn(clean.shape, generator=generator)).clamp(0, 1)


@each
def test_it_is_small_and_has_a_card(name: str) -> None:
    assert policy_file(name).stat().st_size <= 3_000_000
    card = shipped_file(name, ".md").read_text()
    for heading in ("Data", "Command", "Seed", "Metrics", "Limits"):
        assert f"\n## {heading}\n" in card, heading


@pytest.mark.parametrize(
    ("name", "start", "most"),
    [
        ("coco-fast", ["gain"], 3),
        *((name, ["white_balance", "exposure", "srgb"], 11) for name in SHIPPED if name != "coco-fast"),
    ],
)
def test_pipelines_are_whole_and_short(name: str, start: list[str], most: int) -> None:
    policy = shipped(name)
    assert policy.name == name
    for light in (1.0, 0.1, 0.01):
        (plan,), image = policy.process(scene(light))
        assert [stage.module for stage in plan.stages[: len(start)]] == start
        assert len(plan.stages) <= most and plan.cost_ms < 40
        assert image.isfinite().all() and image.min() >= 0 and image.max() <= 1


@each
def test_the_darker_the_scene_the_stronger_the_denoiser(name: str) -> None:
    """What it has learned, whichever file is shipped: noise is what light leaves behind."""
    index = shipped(name).header.modules.index("denoise")
    strengths = []
    for light in (1.0, 0.03, 0.005):
        ((plan,), _) = shipped(name).process(scene(light), [index])
        strengths.append(plan.stages[-1].params["h"])
    assert strengths[0] < strengths[1] < strengths[2] and strengths[2] > 2 * strengths[0]


def test_the_fast_one_costs_half() -> None:
    costs = {name: shipped(name).plan(scene(0.03))[0].cost_ms for name in SHIPPED}
    assert costs["coco-fast"] <= costs["coco-adaptive"] / 2


@pytest.mark.parametrize(("name", "share"), [("coco-selective", 0.95), ("coco-selective-fast", 1 / 3)])
def test_those_that_select_take_less_where_there_is_light(name: str, share: float) -> None:
    dark, bright = (shipped(name).plan(scene(light))[0] for light in (0.004, 1.0))
    assert bright.cost_ms <= dark.cost_ms * share
    denoisers = {"denoise", "fast_denoise"}
    assert denoisers & {stage.module for stage in dark.stages}
    assert not denoisers & {stage.module for stage in bright.stages}


def test_the_selective_one_has_the_parameters_of_the_default_one() -> None:
    """It chooses the denoiser; what the modules do is what `coco-adaptive` learned."""
    image = scene(0.05)
    chosen, default = (shipped(name).plan(image)[0].stages for name in ("coco-selective", "coco-adaptive"))
    names = {"fast_denoise": "denoise"}
    ours = {names.get(stage.module, stage.module): dict(stage.params) for stage in chosen[3:]}
    theirs = {stage.module: dict(stage.params) for stage in default[3:]}
    assert ours and all(ours[name] == pytest.approx(theirs[name], abs=1e-5) for name in ours)


def test_from_pretrained_takes_their_names_only() -> None:
    isp = AdaptiveISP.from_pretrained("coco-fast", RedDetector(), size=80)
    assert isp.policy.name == "coco-fast" and isp(red_box_raw()).pipeline is not None
    assert AdaptiveISP.from_pretrained(detector=RedDetector()).policy.name == DEFAULT_POLICY
    with pytest.raises(UsageError, match=r"no pretrained policy 'night'; choose one of coco-adaptive, coco-fast"):
        AdaptiveISP.from_pretrained("night", RedDetector())


def test_run_uses_the_default_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    dng(tmp_path / "a.dng", 1)
    assert main(["run", "a.dng", "--out", "out", "--detector", RED, "--size", "64", "--quiet"]) == 0
    assert json.loads((tmp_path / "out" / "a.boxes.json").read_text())["policy"] == DEFAULT_POLICY
