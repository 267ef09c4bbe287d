"""Every module of every set keeps one contract; the ten of the paper also match the original's values."""

import inspect
import itertools
import math
import random
import sys
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from adaptiveisp.errors import PipelineError
from adaptiveisp.isp.execution import run, run_one
from adaptiveisp.isp.guided_filter import coefficients, moments
from adaptiveisp.isp.modules.denoise import denoise, half_offsets
from adaptiveisp.isp.modules.fast_denoise import fast_denoise
from adaptiveisp.isp.modules.sharpen import smooth
from adaptiveisp.isp.registry import (
    BASELINES,
    EXTENDED,
    HELPERS,
    MODULE_SETS,
    PAPER,
    WIDE,
    IspModule,
    find_module,
    make,
    modules_of,
)
from tests.golden import GoldenValues

# Sets share modules; each is tested once, under the first set that has it.
ALL = list(
    {
        id(m): pytest.param(m, id=f"{name}-{m.name}")
        for name, modules in reversed({**MODULE_SETS, "helper": HELPERS, "baseline": BASELINES}.items())
        for m in modules
    }.values()
)
NEUTRAL_TOLERANCE = {"contrast": 2e-6, "gamma": 3e-7, "white_balance": 1e-6, "ccm": 1e-6, "tone": 1e-6}
NEUTRAL_TOLERANCE |= {"log_tone": 2e-5}  # its range of a cannot hold the neutral 0
DIFFERENTIABLE = [module for module in ALL if module.id != "baseline-clahe"]
MEANS = ("denoise", "fast_denoise")
"""Modules that are non-local means."""


def random_image(*size: int, dtype: torch.dtype = torch.float32, low: float = 0.001, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(*size, generator=generator, dtype=dtype) * (1 - low) + low


def random_params(module: IspModule, batch: int, dtype: torch.dtype = torch.float32, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return module.params_from_logits(torch.randn(batch, len(module.params), generator=generator, dtype=dtype))


@pytest.mark.parametrize("module", ALL)
def test_neutral_parameters_leave_the_image_unchanged(module: IspModule) -> None:
    if not module.params:
        pytest.skip(f"{module.name} has no parameters, so nothing makes it neutral")
    image = random_image(2, 3, 17, 19)
    params = torch.tensor([module.neutral] * 2)
    torch.testing.assert_close(module(image, params), image, rtol=0, atol=NEUTRAL_TOLERANCE.get(module.name, 1e-7))


@pytest.mark.parametrize("module", ALL)
def test_gradients_match_finite_differences(module: IspModule) -> None:
    # Kept off 0, off the corners of piecewise curves and off grey, where one-sided slopes differ. Denoise takes one
    # pass for each of 121 shifts and looks around the borders, so that fewer pixels try as much of it.
    size = (2, 3) if module.name in MEANS else (6, 7)
    image = random_image(1, 3, *size, dtype=torch.float64, low=0.1).requires_grad_()
    params = random_params(module, 1, torch.float64).requires_grad_(bool(module.params))
    # POS-ISP's denoise takes each offset twice in its backward pass: one random direction tries it.
    fast = module is find_module("denoise", "pos-isp")
    assert torch.autograd.gradcheck(module.function, (image, params), eps=1e-7, atol=1e-5, fast_mode=fast)


@pytest.mark.parametrize("module", DIFFERENTIABLE)
@pytest.mark.parametrize("value", [0.0, 0.5, 1.0], ids=["black", "grey", "white"])
def test_extreme_images_and_parameters_stay_finite_and_in_range(module: IspModule, value: float) -> None:
    for image, z in itertools.product((torch.full((1, 3, 8, 9), value), random_image(1, 3, 8, 9, low=0)), (-6.0, 6.0)):
        image = image.clone().requires_grad_()
        logits = torch.full((1, len(module.params)), z, requires_grad=True)
        out = module(image, module.params_from_logits(logits))
        assert out.isfinite().all() and out.min() >= 0 and (out.max() <= 1 or not module.clips)
        out.sum().backward()
        assert image.grad is not None and image.grad.isfinite().all()
        if module.params:
            assert logits.grad is not None and logits.grad.isfinite().all()


@pytest.mark.parametrize("least", [1.4e-45, 1e-42, 1e-38, 1e-30, 1e-21, 1e-12], ids=str)
@pytest.mark.parametrize("module", DIFFERENTIABLE)
def test_numbers_too_small_to_divide_by_keep_gradients_finite(module: IspModule, least: float) -> None:
    """Modules before leave such numbers where a pixel is all but black, coloured or grey."""
    factors = torch.tensor([[1.0, 1.0, 1.0], [1.0, 2.0, 3.0], [3.0, 1.0, 2.0], [0.0, 1.0, 0.0]])
    image = (least * factors.T[None, :, :, None]).expand(1, 3, 4, 4).contiguous().requires_grad_()
    logits = torch.zeros(1, len(module.params)).add_(0.3).requires_grad_()
    out = module(image, module.params_from_logits(logits))
    gradients = torch.autograd.grad(out.sum(), [image, logits] if module.params else [image])
    assert out.isfinite().all() and all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize("module", ALL)
def test_a_batch_of_two_is_two_batches_of_one(module: IspModule) -> None:
    image, params = random_image(2, 3, 12, 13), random_params(module, 2)
    together = module(image, params)
    for i in range(2):
        torch.testing.assert_close(together[i : i + 1], module(image[i : i + 1], params[i : i + 1]), rtol=0, atol=1e-6)


@pytest.mark.parametrize("module", ALL)
def test_dtype_is_kept_and_the_input_is_not_changed(module: IspModule) -> None:
    image = random_image(1, 3, 8, 8, dtype=torch.float64)
    before = image.clone()
    assert module(image, random_params(module, 1, torch.float64)).dtype == torch.float64
    assert torch.equal(image, before)


@pytest.mark.parametrize("module", ALL)
@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8), (1, 4, 8, 8)])
def test_wrong_shapes_raise(module: IspModule, shape: tuple[int, ...]) -> None:
    unchecked = inspect.unwrap(IspModule.__call__)  # without the tests' own shape checker, as users run it
    with pytest.raises(ValueError, match="image must be"):
        unchecked(module, torch.rand(shape), torch.zeros(1, len(module.params)))
    with pytest.raises(ValueError, match="params must be"):
        unchecked(module, torch.rand(1, 3, 8, 8), torch.zeros(1, len(module.params) + 1))


@pytest.mark.parametrize("module", ALL)
def test_the_head_stays_within_the_declared_range(module: IspModule) -> None:
    for z in (-50.0, 0.0, 50.0):
        row = module.params_from_logits(torch.full((1, len(module.params)), z))[0].tolist()
        checked = [p.check(module.name, value) for p, value in zip(module.params, row, strict=True)]
        assert checked == pytest.approx(row, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("module", PAPER, ids=lambda m: m.name)
def test_golden_outputs_and_gradients(module: IspModule, golden: GoldenValues) -> None:
    name = f"modules/{module.name}"
    image = golden["modules/input"].clone().requires_grad_()
    logits = golden[f"{name}/logits"].clone().requires_grad_()
    params = module.params_from_logits(logits)
    output = module.function(image, params)
    golden.check(f"{name}/params", params, atol=1e-5)
    golden.check(f"{name}/output", output, atol=1e-5)
    (output * torch.linspace(0, 1, 3 * 48 * 64).reshape(3, 48, 64)).mean().backward()
    assert logits.grad is not None and image.grad is not None
    golden.check(f"{name}/grad_logits", logits.grad, atol=1e-4, relative=True)
    golden.check(f"{name}/grad_input", image.grad, atol=1e-4, relative=True)


def test_golden_order_of_action_ids_and_costs(golden: GoldenValues) -> None:
    assert [m.name for m in PAPER] == golden.texts("modules/order")
    assert [m.cost_ms for m in PAPER] == pytest.approx(golden["modules/runtime_ms"].tolist())


def test_golden_saturation_edges(golden: GoldenValues) -> None:
    image = golden["edge/saturation_input"]
    full = torch.ones(1, 1)
    golden.check("edge/saturation_output", find_module("saturation", "released")(image, full), atol=1e-6)
    ours = find_module("saturation", "paper")(image, full)
    grey = image.amax(1, keepdim=True) == image.amin(1, keepdim=True)
    assert grey.sum() == 4
    expected = torch.where(grey, image, golden["edge/saturation_output"])
    torch.testing.assert_close(expected, ours, rtol=0, atol=1e-6)


# Values by hand.


def apply(name: str, pixel: tuple[float, float, float], *params: float, module_set: str = "paper") -> list[float]:
    image = torch.tensor(pixel).reshape(1, 3, 1, 1)
    return (
        find_module(name, module_set)(image, torch.tensor(params, dtype=torch.float32).reshape(1, -1))
        .flatten()
        .tolist()
    )


def test_exposure_by_hand() -> None:
    assert apply("exposure", (0.1, 0.2, 0.6), 1.0) == pytest.approx([0.2, 0.4, 1.0])


def test_gamma_by_hand_and_its_floor() -> None:
    assert apply("gamma", (0.25, 0.04, 0.0), 0.5) == pytest.approx([0.5, 0.2, 0.001**0.5])
    assert apply("gamma", (0.25, 0.04, 0.0), 0.5, module_set="wide") == pytest.approx([0.5, 0.2, 0.00001**0.5])


def test_ccm_by_hand() -> None:
    swapped = (0.0, 2.0, 0.0, 0.5, 0.0, 0.0, 1.0, 0.0, 1.0)
    assert apply("ccm", (0.2, 0.4, 0.8), *swapped) == pytest.approx([0.4, 0.2, 0.5])


def test_tone_by_hand() -> None:
    # Slopes 2 in the first eighth, 1 elsewhere: 9 in sum, so that 1/8 goes to 2/9 and 1 stays 1.
    assert apply("tone", (0.125, 0.0625, 1.0), 2.0, *[1.0] * 7) == pytest.approx([2 / 9, 1 / 9, 1.0])


def test_contrast_by_hand() -> None:
    assert apply("contrast", (0.5, 0.5, 0.5), 1.0) == pytest.approx([0.5] * 3, abs=1e-5)
    assert apply("contrast", (0.25, 0.25, 0.25), 1.0) == pytest.approx([0.146447] * 3, abs=1e-5)


def test_saturation_keeps_hue_and_value_by_colorsys() -> None:
    import colorsys

    pixel = (0.7, 0.4, 0.3)
    hue, s, v = colorsys.rgb_to_hsv(*pixel)
    raised = s + (1 - s) * (0.5 - abs(0.5 - v)) * 0.8
    assert apply("saturation", pixel, 1.0) == pytest.approx(colorsys.hsv_to_rgb(hue, raised, v), abs=1e-6)


def test_desaturation_by_hand() -> None:
    assert apply("desaturation", (1.0, 0.0, 0.0), 1.0) == pytest.approx([0.27] * 3)


def test_white_balance_head_by_hand() -> None:
    module = find_module("white_balance", "paper")
    red, green, blue = module.params_from_logits(torch.tensor([[9.0, 0.0, 50.0]]))[0].tolist()
    norm = 1e-5 + 0.27 + 0.67 + 0.06 * 2.718281828**0.5
    assert (red, green, blue) == pytest.approx((1 / norm, 1 / norm, 2.718281828**0.5 / norm), rel=1e-5)


def test_srgb_by_hand() -> None:
    assert apply("srgb", (0.0, 0.002, 1.0)) == pytest.approx([0.0, 12.92 * 0.002, 1.0], abs=1e-6)


def test_smooth_by_loop() -> None:
    image = random_image(1, 3, 6, 5)
    kernel = torch.ones(3, 3)
    kernel[1, 1] = 5
    expected = image.clone()
    for y, x in itertools.product(range(1, 5), range(1, 4)):
        expected[0, :, y, x] = (image[0, :, y - 1 : y + 2, x - 1 : x + 2] * kernel).sum(dim=(1, 2)) / 13
    torch.testing.assert_close(smooth(image), expected)


@pytest.mark.parametrize("module", ALL)
def test_logits_give_the_parameters_they_were_made_of(module: IspModule) -> None:
    """Inside the range; the squashings have no inverse at its ends."""
    logits = [0.3 - 0.15 * i for i in range(len(module.params))]
    if module.name == "white_balance":
        logits[0] = 0.0  # ignored by its head
    values = module.params_from_logits(torch.tensor([logits]))[0].tolist()
    again = module.logits_from_params(dict(zip((p.name for p in module.params), values, strict=True)))
    assert again == pytest.approx(logits, abs=1e-5)


@pytest.mark.parametrize("module", ALL)
def test_one_number_is_squashed_as_in_a_tensor(module: IspModule) -> None:
    for param, z in itertools.product(module.params, (-900.0, -4.0, -0.3, 0.0, 1.0, 7.0, 900.0)):
        expected = float(param.squash(torch.tensor(z, dtype=torch.float64)))
        assert param.value(z) == pytest.approx(expected, rel=1e-12, abs=1e-12 * (param.high - param.low))


# The fast path.


def images_to_compare() -> list[torch.Tensor]:
    corner = torch.tensor([0.0, 1.0, 0.5, 1e-6, 1e-21, 1e-38, 0.125, 0.9999])
    edges = torch.cartesian_prod(corner, corner, corner).T.reshape(1, 3, 16, 32)
    return [random_image(1, 3, 37, 53, low=0), edges, random_image(1, 3, 3, 5), random_image(1, 3, 70, 2)]


def in_pytorch(module: IspModule, image: torch.Tensor, params: torch.Tensor) -> torch.Tensor:
    """The module without kernels of its own."""
    made = module.function(image, params)
    return made.clamp(0, 1) if module.clips else made


@pytest.mark.parametrize("module", ALL)
def test_the_fast_path_gives_the_numbers_of_the_function(module: IspModule) -> None:
    for image, seed in itertools.product(images_to_compare(), range(3)):
        params = random_params(module, 1, seed=seed)
        expected = in_pytorch(module, image, params)
        ours = run_one(image[0], [(module, params[0].tolist())])
        torch.testing.assert_close(ours, expected[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("module", ALL)
def test_the_fast_path_is_neutral_where_the_module_is(module: IspModule) -> None:
    if not module.params:
        pytest.skip(f"{module.name} has no parameters, so nothing makes it neutral")
    image = random_image(3, 17, 19)
    ours = run_one(image, [(module, module.neutral)])
    torch.testing.assert_close(ours, image, rtol=0, atol=max(2e-6, NEUTRAL_TOLERANCE.get(module.name, 0)))


def test_a_chain_equals_its_modules_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = random.Random(0)
    for n in range(12):
        image = random_image(2, 3, 21 + n, 34, seed=n, low=0)
        calls = []
        for module in generator.choices([*EXTENDED, *HELPERS], k=6):
            calls.append((module, random_params(module, 1, seed=generator.randrange(99))[0].tolist()))
        before = image.clone()
        ours = run(image, calls)
        assert torch.equal(image, before), "the input was changed"
        monkeypatch.setenv("ADAPTIVEISP_NATIVE", "0")
        monkeypatch.setattr("adaptiveisp.isp.execution.STRIP_VALUES", 3 * 34 * 4)
        expected = image
        for module, row in calls:
            expected = module(expected, torch.tensor([row]).reshape(1, -1).expand(2, -1))
        torch.testing.assert_close(run(image, calls), expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)  # a steep module enlarges what came before
        monkeypatch.undo()


@pytest.mark.parametrize("module", [m for m in EXTENDED if m.pointwise], ids=lambda m: m.name)
def test_pointwise_modules_may_be_cut_anywhere(module: IspModule) -> None:
    image, params = random_image(1, 3, 12, 9), random_params(module, 1)
    whole = module(image, params)
    cut = torch.cat([module(image[:, :, :5], params), module(image[:, :, 5:], params)], dim=2)
    torch.testing.assert_close(cut, whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("nan", [math.nan, -math.nan], ids=["positive", "negative"])
@pytest.mark.parametrize("module", [m for m in (*EXTENDED, *HELPERS) if m.name not in MEANS], ids=lambda m: m.name)
def test_nan_goes_where_it_goes_in_pytorch(module: IspModule, nan: float) -> None:
    """Non-local means, whose weights of NaN vanish, keep it in its own pixel: that is enough to find the image out."""
    image = random_image(3, 64, 70)
    image[1, 20, 30] = nan
    params = random_params(module, 1)
    expected = in_pytorch(module, image[None], params)[0].isnan()
    assert expected.any()
    assert torch.equal(module(image[None], params)[0].isnan(), expected)
    assert torch.equal(run_one(image, [(module, params[0].tolist())]).isnan(), expected)


def test_denoise_does_not_hide_nan() -> None:
    image = random_image(3, 40, 50)
    image[1, 20, 30] = math.nan
    assert run_one(image, [(find_module("denoise", "paper"), [0.3])])[1, 20, 30].isnan()


@pytest.mark.parametrize("module", ALL)
@pytest.mark.parametrize("channels", [1, 4])
def test_the_fast_path_refuses_other_shapes(module: IspModule, channels: int) -> None:
    call = [(module, random_params(module, 1)[0].tolist())]
    for function in (run, run_one):
        unchecked = inspect.unwrap(function)  # without the tests' own shape checker, as users run it
        size = (1, channels, 9, 8) if function is run else (channels, 9, 8)
        with pytest.raises(ValueError, match="image must be"):
            unchecked(torch.rand(size), call)
    if module.params:
        with pytest.raises(ValueError, match="takes"):
            inspect.unwrap(run_one)(torch.rand(3, 9, 8), [(module, [])])


@pytest.mark.parametrize("size", [(0, 3, 8, 8), (1, 3, 0, 8), (2, 3, 8, 0)], ids=str)
def test_nothing_comes_of_nothing(size: tuple[int, ...]) -> None:
    calls = [(module, random_params(module, 1)[0].tolist()) for module in EXTENDED]
    assert run(torch.zeros(size), calls).shape == size


def test_guided_modules_keep_their_precision_where_bright_is_flat() -> None:
    """Where a flat bright area meets a dark one, differences of squares would lose what the ridge is small against."""
    image = torch.cat([0.95 + 0.0005 * random_image(3, 64, 32), 0.02 * random_image(3, 64, 32)], dim=2)
    module = find_module("guided_denoise", "extended")
    exact = module(image[None].double(), torch.tensor([[0.002, 1.0]], dtype=torch.float64))[0].float()
    torch.testing.assert_close(module(image[None], torch.tensor([[0.002, 1.0]]))[0], exact, rtol=0, atol=1e-5)
    torch.testing.assert_close(run_one(image, [(module, [0.002, 1.0])]), exact, rtol=0, atol=1e-5)
    dark = torch.zeros(3, 300, 400)
    dark[2, 100, 100] = 0.1
    module = find_module("local_tone", "extended")
    expected = in_pytorch(module, dark[None], torch.tensor([[3.0, 0.0]]))[0]
    torch.testing.assert_close(run_one(dark, [(module, [3.0, 0.0])]), expected, rtol=0, atol=1e-5)


def test_what_may_not_be_written_over_is_not() -> None:
    image = random_image(3, 6, 7)
    before = image.clone()
    exposed = run_one(image, [(find_module("exposure", "wide"), [1.0])])
    assert torch.equal(image, before)
    again = run_one(image, [(find_module("exposure", "wide"), [1.0])], owned=True)
    assert torch.equal(exposed, again)


# Modules of the set `extended`, by hand.


def test_black_level_by_hand() -> None:
    assert apply("black_level", (0.2, 0.1, 1.0), 0.2, module_set="extended") == pytest.approx([0.0, 0.0, 1.0])
    assert apply("black_level", (0.6, 0.4, 0.2), 0.2, module_set="extended") == pytest.approx([0.5, 0.25, 0.0])


def test_gray_world_makes_the_mean_grey_and_keeps_its_luminance() -> None:
    colours = torch.tensor([0.2, 0.1, 0.05])[None, :, None, None]
    image = colours * random_image(1, 3, 64, 64).mean(dim=1, keepdim=True)
    out = find_module("gray_world", "extended")(image, torch.ones(1, 1))
    means = out.mean(dim=(0, 2, 3))
    luminance = (torch.tensor([0.27, 0.67, 0.06])[:, None, None] * image[0]).sum(dim=0).mean()
    torch.testing.assert_close(means, luminance.expand(3), rtol=1e-5, atol=0)
    halfway = find_module("gray_world", "extended")(image, torch.full((1, 1), 0.5)).mean(dim=(0, 2, 3))
    torch.testing.assert_close(halfway, (means * image.mean(dim=(0, 2, 3))).sqrt(), rtol=1e-5, atol=0)


def test_gray_world_leaves_clipped_cells_out() -> None:
    image = torch.tensor([0.2, 0.1, 0.05])[None, :, None, None].repeat(1, 1, 64, 64)
    image[:, :, :32] = torch.tensor([1.0, 0.5, 1.0])[None, :, None, None]
    out = find_module("gray_world", "extended")(image, torch.ones(1, 1))
    assert out[0, :, 40, 40].std() < 1e-6


def test_guided_denoise_flattens_noise_and_keeps_edges() -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.full((1, 3, 64, 64), 0.3)
    clean[..., 32:] = 0.8
    noisy = (clean + 0.03 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)
    out = find_module("guided_denoise", "extended")(noisy, torch.tensor([[0.06, 1.0]]))
    assert (out - clean).std() < 0.5 * (noisy - clean).std()
    assert (out[..., 36:].mean() - out[..., :28].mean()).item() == pytest.approx(0.5, abs=0.01)
    assert out[..., 33].mean() - out[..., 30].mean() > 0.4


def test_guided_coefficients_equal_the_filter_written_as_a_loop() -> None:
    """Cells of one pixel are the guided filter of He et al. with a 3x3 window, its border repeated."""
    image, ridge = random_image(1, 3, 6, 5, dtype=torch.float64), 0.01
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")[0].numpy()
    luminance = np.einsum("c,chw->hw", [0.27, 0.67, 0.06], padded)
    slope, offset = np.zeros((3, 6, 5)), np.zeros((3, 6, 5))
    for y, x in itertools.product(range(6), range(5)):
        guide, window = luminance[y : y + 3, x : x + 3], padded[:, y : y + 3, x : x + 3]
        for c in range(3):
            covariance = (guide * window[c]).mean() - guide.mean() * window[c].mean()
            slope[c, y, x] = covariance / (guide.var() + ridge)
            offset[c, y, x] = window[c].mean() - slope[c, y, x] * guide.mean()
    planes = np.pad(np.concatenate([slope, offset]), ((0, 0), (1, 1), (1, 1)), mode="edge")
    expected = sum(planes[:, y : y + 6, x : x + 5] for y in range(3) for x in range(3)) / 9
    ours = coefficients(moments(image, 1), torch.full((1, 1, 1, 1), ridge, dtype=torch.float64))[0]
    torch.testing.assert_close(ours, torch.from_numpy(expected))


def test_local_tone_lifts_shadows_and_lowers_highlights() -> None:
    image = torch.full((1, 3, 64, 64), 0.04)
    image[..., 32:] = 0.81
    lifted = find_module("local_tone", "extended")(image, torch.tensor([[1.0, 0.0]]))
    lowered = find_module("local_tone", "extended")(image, torch.tensor([[0.0, -1.0]]))
    # Flat and far from the edge the base is the luminance: t = 0.2 and 0.9.
    assert lifted[0, 0, 32, 4].item() == pytest.approx(0.04 * 2**0.64, rel=1e-3)
    assert lifted[0, 0, 32, 60].item() == pytest.approx(0.81 * 2**0.01, rel=1e-3)
    assert lowered[0, 0, 32, 60].item() == pytest.approx(0.81 * 2**-0.81, rel=1e-3)


def test_local_tone_is_about_the_same_at_another_size() -> None:
    scene = F.interpolate(random_image(1, 3, 8, 8), size=(128, 128), mode="bilinear")
    params = torch.tensor([[2.0, -1.0]])
    large = find_module("local_tone", "extended")(F.interpolate(scene, size=(512, 512), mode="bilinear"), params)
    small = find_module("local_tone", "extended")(scene, params)
    assert (F.adaptive_avg_pool2d(large, 128) - small).abs().max() < 0.02


# Non-local means.


def plain_nlm(image: torch.Tensor, h: torch.Tensor, reach: int = 5, step: int = 1) -> torch.Tensor:
    """All shifts by rolling, 121 with a reach of 5, differentiated by autograd."""
    luma = (image * torch.tensor([0.299, 0.587, 0.114], dtype=image.dtype)[:, None, None]).sum(1, keepdim=True)
    numerator, denominator = torch.zeros_like(image), torch.zeros_like(luma)
    for dy, dx in itertools.product(range(-reach, reach + 1, step), repeat=2):
        squared = (luma - luma.roll((dy, dx), (2, 3))).square()
        distance2 = sum(squared.roll((a, b), (2, 3)) for a, b in itertools.product(range(-2, 3), repeat=2))
        zero = distance2 == 0
        distance = torch.where(zero, 0, torch.where(zero, 1, distance2).sqrt())
        weight = torch.exp(-distance / (h[:, :, None, None] + 1e-8))
        numerator = numerator + weight * image.roll((dy, dx), (2, 3))
        denominator = denominator + weight
    return numerator / denominator


@pytest.mark.parametrize(
    ("denoise", "reach", "step", "factor"),
    [(denoise, 5, 1, 1.0), (fast_denoise, 4, 2, 1.4)],
    ids=["denoise", "fast_denoise"],
)
@pytest.mark.parametrize("size", [(13, 17), (24, 9), (3, 40)], ids=str)
def test_denoise_equals_all_rolls_in_value_and_gradient(
    size: tuple[int, int],
    denoise: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    reach: int,
    step: int,
    factor: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("adaptiveisp.isp.modules.denoise.STRIP_VALUES", 64)  # several strips even on a small image
    image = random_image(2, 3, *size, dtype=torch.float64).requires_grad_()
    h = torch.tensor([[0.2], [0.7]], dtype=torch.float64, requires_grad=True)
    out, expected = denoise(image, h), plain_nlm(image, factor * h, reach, step)
    torch.testing.assert_close(out, expected)
    upstream = random_image(*out.shape, dtype=torch.float64, seed=3)
    ours = torch.autograd.grad((out * upstream).sum(), (image, h))
    plain = torch.autograd.grad((expected * upstream).sum(), (image, h))
    for a, b in zip(ours, plain, strict=True):
        torch.testing.assert_close(a, b)
    (of_h_alone,) = torch.autograd.grad((denoise(image.detach(), h) * upstream).sum(), h)
    torch.testing.assert_close(of_h_alone, plain[1])


def test_denoise_strips_agree_with_one_strip(monkeypatch: pytest.MonkeyPatch) -> None:
    image, h = random_image(1, 3, 61, 20), torch.tensor([[0.3]])
    whole = denoise(image, h)
    monkeypatch.setattr("adaptiveisp.isp.modules.denoise.STRIP_VALUES", 1)
    torch.testing.assert_close(denoise(image, h), whole, rtol=0, atol=1e-6)


def test_denoise_removes_noise_from_a_flat_image() -> None:
    noisy = (0.5 + 0.05 * torch.randn(1, 3, 40, 40, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    assert denoise(noisy, torch.tensor([[0.5]])).std() < 0.4 * noisy.std()


def test_denoise_keeps_no_graph_of_shifts() -> None:
    """Only the input, h, the output and the sum of weights are kept for the backward pass."""
    kept: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor.numel())
        return tensor

    image = random_image(1, 3, 32, 32).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        denoise(image, torch.tensor([[0.3]], requires_grad=True))
    pixels = 32 * 32
    assert sum(kept) <= 8 * pixels


def test_half_offsets_cover_the_window_once() -> None:
    both = [o for dy, dx in half_offsets() for o in ((dy, dx), (-dy, -dx))]
    assert sorted([*both, (0, 0)]) == sorted(itertools.product(range(-5, 6), repeat=2))


# Sets.


def test_wide_reaches_what_dark_raws_need() -> None:
    ev = find_module("exposure", "wide").params[0]
    assert ev.low <= -8 and ev.high >= 8
    assert [m.name for m in WIDE][: len(PAPER)] == [m.name for m in PAPER]


def test_unknown_names_say_what_there_is() -> None:
    with pytest.raises(PipelineError, match="exposure, gamma"):
        find_module("sharpness", "paper")
    with pytest.raises(PipelineError, match="paper, released, wide, extended"):
        modules_of("narrow")


def test_a_matrix_that_cannot_be_divided_is_refused() -> None:
    entries = dict.fromkeys(("rr", "rg", "rb", "gr", "gg", "gb", "br", "bg", "bb"), 0.5)
    find_module("ccm", "paper").check(entries)
    with pytest.raises(PipelineError, match="rr, rg, rb sums to 0"):
        find_module("ccm", "paper").check(entries | {"rr": -1.0})


def test_names_are_unique_in_each_set() -> None:
    for modules in MODULE_SETS.values():
        names = [m.name for m in (*modules, *HELPERS, *BASELINES)]
        assert len(set(names)) == len(names)


def test_clip_passes_the_gradient_on_the_closed_interval() -> None:
    image = torch.tensor([0.0, 1.0, 0.5]).reshape(1, 3, 1, 1).requires_grad_()
    find_module("exposure", "paper")(image, torch.zeros(1, 1)).sum().backward()
    assert image.grad is not None and image.grad.flatten().tolist() == [1.0, 1.0, 1.0]


def test_sharpen_extrapolates_away_from_its_blur() -> None:
    image = random_image(1, 3, 7, 7)
    expected = F.relu(2 * image - smooth(image)).clamp(max=1)
    torch.testing.assert_close(find_module("sharpen", "paper")(image, torch.tensor([[2.0]])), expected)


def test_the_documented_table_is_up_to_date() -> None:
    from adaptiveisp.isp.docs import module_table
    from tests.conftest import REPOSITORY

    assert (REPOSITORY / "docs" / "modules.md").read_text() == module_table(), "run python -m adaptiveisp.isp.docs"


def test_a_wrong_entry_in_the_list_of_files_is_told_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PipelineError, match=r"isp/modules/chroma\.py: does not exist; correct the names"):
        make(("exposure", "chroma"), "PAPER")
    monkeypatch.setitem(sys.modules, "adaptiveisp.isp.modules.empty", ModuleType("empty"))
    with pytest.raises(PipelineError, match=r"isp/modules/empty\.py: declares no module; write EXTENDED = IspModule"):
        make(("empty",), "EXTENDED", "WIDE")
