"""Exposure hints: their signs, their limits, and that a sensor which follows them settles."""

import itertools

import pytest
import torch

from adaptiveisp import AdaptiveISP, RawImage
from adaptiveisp.policies.registry import load_policy
from adaptiveisp.streaming.exposure_hint import exposure_hint
from adaptiveisp.streaming.stream import Stream, StreamConfig
from tests.support.fake_detector import RedDetector


def scene(contrast: float) -> torch.Tensor:
    """Smooth light whose values span 2^contrast below 1."""
    y, x = torch.meshgrid(torch.linspace(0, 6, 96), torch.linspace(0, 8, 128), indexing="ij")
    waves = (torch.sin(x) * torch.cos(y) + 1) / 2
    return (2 ** (contrast * (waves - 1))).expand(1, 3, -1, -1)


def sensed(light: torch.Tensor, ev: float, seed: int) -> torch.Tensor:
    noise = torch.randn(light.shape, generator=torch.Generator().manual_seed(seed))
    exposed = light * 2**ev
    return (exposed + noise * (1e-3 * exposed + 1e-6).sqrt()).clamp(0, 1)


def rendered(image: torch.Tensor) -> torch.Tensor:
    return load_policy("auto-exposure").plan(image)[0].render(image)


@pytest.mark.parametrize("start", [-8.0, -4.0, 0.0, 3.0])
@pytest.mark.parametrize("contrast", [3.0, 8.0])
def test_a_sensor_that_follows_the_hints_settles(start: float, contrast: float) -> None:
    light, ev, hints = scene(contrast), start, []
    for number in range(20):
        image = sensed(light, ev, number)
        hints.append(exposure_hint(image, rendered(image)))
        ev += hints[-1].ev
    assert all(hint.ev == 0 for hint in hints[-3:]) and hints[-1].clipped <= 0.02
    assert abs(start - ev) < 1.0 or hints[0].ev * (ev - start) > 0
    signs = [hint.ev > 0 for hint in hints if hint.ev]
    assert sum(one != other for one, other in itertools.pairwise(signs)) <= 1


def test_clipped_light_asks_for_less_and_buried_light_for_more() -> None:
    light = scene(3.0)
    bright, dark = sensed(light, 2.0, 0), sensed(light, -9.0, 0)
    less, more = exposure_hint(bright, rendered(bright)), exposure_hint(dark, rendered(dark))
    assert less.ev < -0.5 and less.clipped > 0.1 and less.buried == 0
    assert more.ev == 2.0 and more.buried > 0.5 and more.clipped == 0 and more.policy_ev > 2


def test_the_highlights_limit_what_is_asked_for() -> None:
    """A dark frame with a lamp over 3 % of it, at half of the sensor's range."""
    image = torch.full((1, 3, 100, 100), 0.01)
    image[:, :, :3] = 0.5
    assert exposure_hint(image, rendered(image)).ev == pytest.approx(0.848, abs=1e-3)  # log2(0.9 / 0.5)


def test_a_stream_gives_hints_in_json_and_to_a_callback() -> None:
    isp = AdaptiveISP("auto-exposure", RedDetector(), size=64)
    codes = (scene(3.0)[0, 0, :48, :64] * 2**-5 * 959 + 64).round().numpy().astype("uint16")
    raws = [RawImage(codes, "RGGB", 64, 1023)] * 5
    told: list[tuple[int, float]] = []
    config = StreamConfig(on_exposure_hint=lambda number, hint: told.append((number, hint.ev)), workers=2)
    results = list(Stream(isp, raws, config=config))
    numbers = [number for number, _ in told]
    assert numbers == sorted(set(numbers)) and numbers[-1] == 4 and told[-1][1] == results[-1].exposure_hint.ev > 1
    line = results[0].to_json()["exposure_hint"]
    assert set(line) == {"ev", "clipped", "buried", "policy_ev"} and line["ev"] == 2.0
    assert "exposure_hint" not in next(iter(Stream(isp, raws[:1]))).to_json()
