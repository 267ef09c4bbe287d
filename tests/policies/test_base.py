from pathlib import Path

import numpy as np
import pytest
import torch

from adaptiveisp.errors import PipelineError, PolicyError, RawFileError, UsageError
from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.policies.fixed import FixedPipeline, ForcedModules
from adaptiveisp.policies.heuristics import AutoExposure, CameraDevelopment, exposure_to_mean, grey_world_gains
from adaptiveisp.policies.preprocessing import preprocessing_stages
from adaptiveisp.policies.registry import load_policy
from adaptiveisp.raw.unprocess import draw_unprocessing, seeded_generator, synthesise_mosaic, synthesise_rgb
from adaptiveisp.types import RawImage
from tests.raw.test_unprocess import smooth_photo


def test_grey_world_makes_means_grey_and_keeps_luminance() -> None:
    for kind in (torch.float64, torch.float32):  # without kernels, and with them where they are compiled
        view = (torch.rand(3, 8, 8) * torch.tensor([0.2, 0.5, 0.3])[:, None, None]).to(kind)
        gains = torch.tensor(grey_world_gains(view), dtype=kind)
        means = view.mean(dim=(1, 2))
        torch.testing.assert_close(gains * means, (means * means.new_tensor([0.27, 0.67, 0.06])).sum().expand(3))


def test_clipped_pixels_do_not_count_as_illuminant() -> None:
    view = torch.full((3, 4, 4), 0.2)
    view[:, 0] = torch.tensor([1.0, 0.5, 0.1])[:, None]
    for kind in (torch.float64, torch.float32):
        assert grey_world_gains(view.to(kind)) == pytest.approx((1, 1, 1))
        assert grey_world_gains(torch.ones(3, 4, 4, dtype=kind)) == pytest.approx((1, 1, 1))


@pytest.mark.parametrize("light", [1.0, 0.1, 0.004])
def test_auto_exposure_reaches_its_mean_at_any_light(light: float) -> None:
    image = smooth_photo()[None] * light
    pipeline = AutoExposure(target_mean=0.18).plan(image)[0]
    assert [stage.module for stage in pipeline.stages] == ["white_balance", "exposure", "srgb"]
    exposed = list(pipeline.steps(image))[1]
    luminance = (exposed * torch.tensor([0.27, 0.67, 0.06])[:, None, None]).sum(dim=1)
    assert luminance.mean().item() == pytest.approx(0.18, rel=0.03)


def test_auto_gain_is_auto_exposure_in_one_module_without_its_curve() -> None:
    image = torch.stack([smooth_photo() * 0.1, smooth_photo() * 0.004])  # so dark that nothing clips on the way
    apart = preprocessing_stages(image, "auto-exposure")
    together = preprocessing_stages(image, "auto-gain")
    assert [[stage.module for stage in stages] for stages in together] == [["gain"], ["gain"]]
    for picture, two, one in zip(image, apart, together, strict=True):
        expected, made = Pipeline(two[:2], "wide").render(picture[None]), Pipeline(one, "wide").render(picture[None])
        torch.testing.assert_close(made, expected, rtol=1e-5, atol=1e-6)
        assert Pipeline(one, "wide").cost_ms == 1.7


def test_exposure_counts_what_it_clips() -> None:
    view = torch.zeros(3, 2, 2)
    view[:, 0, 0] = 0.5  # only a quarter of the frame is lit: a mean of 0.2 needs it at 0.8
    assert exposure_to_mean(view, 0.2, -8, 8) == pytest.approx(np.log2(1.6), abs=1e-3)
    assert exposure_to_mean(torch.zeros(3, 2, 2), 0.2, -8, 8) == pytest.approx(8, abs=1e-3)


def test_plans_are_per_image() -> None:
    image = torch.stack([smooth_photo(), smooth_photo() * 0.1])
    bright, dark = (p.stages[1].params["ev"] for p in AutoExposure().plan(image))
    assert dark == pytest.approx(bright + np.log2(10), abs=0.05)


def test_camera_of_a_synthetic_png_is_the_photo() -> None:
    photo = smooth_photo()
    how = draw_unprocessing(seeded_generator(0, 1, 0, "parameters"), "mixed", "none")
    raw = synthesise_rgb(photo, how, torch.Generator())
    torch.testing.assert_close(CameraDevelopment().develop(raw), photo, rtol=0, atol=0.02)


def test_camera_of_a_mosaic_is_libraws_upright_picture() -> None:
    how = draw_unprocessing(seeded_generator(0, 1, 0, "parameters"), "normal", "none")
    raw = synthesise_mosaic(smooth_photo(), how, torch.Generator())
    picture = CameraDevelopment().develop(raw)
    assert picture.shape == (3, 40, 56)
    correlation = np.corrcoef(picture.flatten().numpy(), smooth_photo().flatten().numpy())[0, 1]
    assert correlation > 0.9


def test_camera_refuses_what_has_no_camera() -> None:
    rgb = RawImage(np.ones((32, 32, 3), np.uint16), None, (0.0,) * 4, 65535.0, path=Path("x.png"))
    with pytest.raises(RawFileError, match=r"x\.png.*use another policy"):
        CameraDevelopment().develop(rgb)


def test_forced_modules_take_the_policys_parameters() -> None:
    image = smooth_photo()[None] * 0.1
    wanted = Pipeline((Stage("exposure", {"ev": 0.0}),))
    forced = ForcedModules(AutoExposure(), wanted).plan(image)[0]
    assert [s.module for s in forced.stages] == ["exposure"]
    assert forced.stages[0] == AutoExposure().plan(image)[0].stages[1]
    with pytest.raises(PolicyError, match="no parameters for the module gamma"):
        ForcedModules(AutoExposure(), Pipeline((Stage("gamma", {"gamma": 1.0}),))).plan(image)


def test_names_and_files(tmp_path: Path) -> None:
    Pipeline((Stage("exposure", {"ev": 1.0}),)).save(tmp_path / "mine.json")
    assert load_policy("none") == FixedPipeline(Pipeline(()))
    assert load_policy(str(tmp_path / "mine.json")).name == "mine"
    with pytest.raises(UsageError, match="none, auto-exposure, camera"):
        load_policy("automatic")
    with pytest.raises(PipelineError, match="no such file"):
        load_policy(str(tmp_path / "other.json"))


def bisected(view: torch.Tensor, target: float, low: float, high: float) -> float:
    """The same by halving the range of stops."""
    weights = view.new_tensor([0.27, 0.67, 0.06])[:, None, None]
    for _ in range(50):
        middle = (low + high) / 2
        mean = ((view * 2.0**middle).clamp(max=1) * weights).sum(dim=0).mean()
        low, high = (middle, high) if mean < target else (low, middle)
    return (low + high) / 2


@pytest.mark.parametrize("target", [0.18, 0.9, 0.999])
def test_exposure_to_a_mean_equals_bisection(target: float) -> None:
    """Also where much is black or white, or so small that no gain in the range brings it to 1."""
    generator = torch.Generator().manual_seed(0)
    views = [torch.full((3, 4, 4), value) for value in (0.0, 1e-30, 1e-4, 0.5, 1.0)]
    for n in range(60):
        view = torch.rand(3, 12, 12, generator=generator) ** (1 + n % 7)
        view *= 10.0 ** torch.randint(-30 * (n % 2), 1, (1, 12, 12), generator=generator)
        view[:, : n % 12] = float(n % 3 == 0)
        views.append(view)
    for view in views:
        gains = (0.9, 1.0, 1.3)
        balanced = view.double() * view.new_tensor(gains).double()[:, None, None]
        expected = bisected(balanced, target, -10, 10)
        for same in (view, view.double()):  # with the kernels, where they are compiled, and without
            assert exposure_to_mean(same, target, -10, 10, gains) == pytest.approx(expected, abs=1e-6)
