"""Modules by compiled kernels, forward and backward, against the PyTorch code in float64."""

import itertools

import pytest
import torch

from adaptiveisp.isp.registry import EXTENDED, HELPERS, PAPER, RELEASED, WIDE, IspModule, find_module
from adaptiveisp.kernels import loading
from adaptiveisp.kernels.registry import MODULE_KERNELS

MODULES = list(
    {
        id(m): pytest.param(m, id=f"{name}-{m.name}")
        for name, modules in (
            ("helper", HELPERS),
            ("extended", EXTENDED),
            ("wide", WIDE),
            ("released", RELEASED),
            ("paper", PAPER),
        )
        for m in modules
    }.values()
)
NEAR = 2e-6
"""Where rounding decides whether the clip lets a gradient pass nothing is asked; exact 0 comes of 0 alone."""
OF_IMAGE = {"denoise": 1e-5, "fast_denoise": 5e-5}
"""Tolerance of the image's gradient, 1e-6 for other modules: a sum over all shifts with approximated weights, which is
divided by their sum, and that of fewer shifts is smaller."""


@pytest.fixture(autouse=True)
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(loading.SWITCH, raising=False)
    if not loading.available():
        pytest.skip("the kernels of csrc/ are not compiled here; install with a C compiler")


def random(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed))


def has_kernel(module: IspModule) -> bool:
    """Whether a kernel with gradients computes the module."""
    return module.kernel is not None and MODULE_KERNELS[module.kernel.name].differentiable is not None


def random_params(module: IspModule, batch: int, seed: int) -> torch.Tensor:
    logits = torch.randn(batch, len(module.params), generator=torch.Generator().manual_seed(seed))
    return module.params_from_logits(logits)


def corners() -> torch.Tensor:
    """Every combination of black, white, grey and what lies between as a pixel: ties, corners of curves, clipped."""
    values = torch.tensor([0.0, 1.0, 0.5, 0.125, 0.9, 1e-4, 1e-12, 1e-21])
    return torch.cartesian_prod(values, values, values).T.reshape(1, 3, 16, 32)


def images() -> list[torch.Tensor]:
    smooth = torch.nn.functional.interpolate(random(2, 3, 5, 6, seed=5), size=(40, 31), mode="bicubic").clamp(0, 1)
    dark = random(1, 3, 30, 40, seed=2).pow(6)
    odd = [random(1, 3, *size) for size in ((1, 1), (1, 7), (5, 1), (2, 2), (3, 5), (70, 2), (21, 131))]
    return [random(3, 3, 37, 53), corners(), smooth, dark, *odd]


def both_ways(module: IspModule, image: torch.Tensor, params: torch.Tensor, weight: torch.Tensor) -> list[torch.Tensor]:
    """The image after the module, and the gradients of image and parameters."""
    leaves = [image.detach().requires_grad_(), params.detach().requires_grad_()]
    out = module(*leaves)
    found = torch.autograd.grad((out * weight).sum(), leaves, allow_unused=not module.params)
    return [out.detach(), *(gradient for gradient in found if gradient is not None and gradient.numel())]


def exact(
    module: IspModule, image: torch.Tensor, params: torch.Tensor, seed: int = 1
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """A gradient for the output, and what PyTorch makes of it in float64: the output, and the two gradients."""
    image, params = image.double(), params.double()
    before = module.function(image, params)
    near = ((before.abs() < NEAR) & (before != 0)) | ((before - 1).abs() < NEAR)
    weight = (random(*image.shape, seed=seed) - 0.3) * ~near
    return weight, both_ways(module, image, params, weight.double())


def assert_same(ours: list[torch.Tensor], expected: list[torch.Tensor], module: IspModule) -> None:
    torch.testing.assert_close(ours[0].double(), expected[0], rtol=0, atol=1e-5)
    pairs = list(zip(ours[1:], expected[1:], strict=True))
    for number, (a, b) in enumerate(pairs):
        assert a.shape == b.shape and a.isfinite().all()
        # Of a parameter: of the largest of its image, as each is a sum of terms of both signs.
        of_image = not module.params or number == 0
        scale = b.abs().flatten(1).amax(dim=1) if b[0].numel() else torch.zeros(len(b))
        for mine, theirs, most in zip(a.double(), b, scale.tolist(), strict=True):
            atol = OF_IMAGE.get(module.name, 1e-6) * max(most, 1.0) if of_image else 2e-5 * max(most, 0.1)
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=atol)


@pytest.mark.parametrize("module", MODULES)
def test_value_and_gradients_equal_pytorch_in_float64(module: IspModule) -> None:
    if not has_kernel(module):
        pytest.skip(f"no kernel with gradients computes {module.name} here")
    for image, seed in itertools.product(images(), range(3)):
        params = random_params(module, len(image), seed)
        weight, expected = exact(module, image, params)
        assert_same(both_ways(module, image, params, weight), expected, module)


def test_modules_that_declare_kernels_use_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the test above compares two things; what declares none says so here."""
    assert {module.name for module in EXTENDED if not has_kernel(module)} == {"gray_world"}
    image = random(1, 3, 20, 20)
    for module in (m for m in EXTENDED if has_kernel(m) and m.name not in ("denoise", "fast_denoise")):
        leaf = random_params(module, 1, 0).requires_grad_()
        assert "Clamp" not in type(module(image, leaf).grad_fn).__name__, module.name
        with loading.turned_off():
            assert "Clamp" in type(module(image, leaf).grad_fn).__name__, module.name


@pytest.mark.parametrize("module", MODULES)
def test_turned_off_it_is_the_same(module: IspModule, monkeypatch: pytest.MonkeyPatch) -> None:
    image, params = random(2, 3, 21, 34), random_params(module, 2, 4)
    weight, _ = exact(module, image, params)
    ours = both_ways(module, image, params, weight)
    monkeypatch.setenv(loading.SWITCH, "0")
    expected = [tensor.double() for tensor in both_ways(module, image, params, weight)]
    assert_same(ours, expected, module)


@pytest.mark.parametrize("module", MODULES)
def test_only_the_gradients_that_are_wanted(module: IspModule) -> None:
    image, params, weight = random(2, 3, 20, 30), random_params(module, 2, 5), random(2, 3, 20, 30, seed=3)
    _, *both = both_ways(module, image, params, weight)
    leaf = image.clone().requires_grad_()
    (of_image,) = torch.autograd.grad((module(leaf, params) * weight).sum(), leaf)
    torch.testing.assert_close(of_image, both[0], rtol=1e-6, atol=1e-6)
    if module.params:
        leaf = params.clone().requires_grad_()
        (of_params,) = torch.autograd.grad((module(image, leaf) * weight).sum(), leaf)
        torch.testing.assert_close(of_params, both[1], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("module", MODULES)
def test_views_and_expanded_gradients_are_taken(module: IspModule) -> None:
    image, params = random(2, 3, 12, 20).transpose(2, 3), random_params(module, 2, 6)
    for weight in (random(1, 1, 1, 12).expand(2, 3, 20, 12), random(2, 3, 12, 20, seed=1).transpose(2, 3)):
        ours = both_ways(module, image, params, weight)
        packed = both_ways(module, image.contiguous(), params, weight.contiguous())
        for a, b in zip(ours, packed, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("module", MODULES)
def test_with_and_without_a_gradient_alone_or_in_a_batch_the_bits_are_the_same(module: IspModule) -> None:
    """Images of a replay pool are made again from their histories, one by one."""
    if not has_kernel(module):
        pytest.skip(f"no kernel with gradients computes {module.name} here")
    image, params = random(3, 3, 19, 23), random_params(module, 3, 7)
    learning = module(image.clone().requires_grad_(), params.clone().requires_grad_())
    for i in range(3):
        with torch.no_grad():
            assert torch.equal(module(image[i : i + 1], params[i : i + 1])[0], learning[i])


@pytest.mark.parametrize("threads", [2, 5])
@pytest.mark.parametrize("module", MODULES)
def test_cut_into_parts_gradients_are_the_same(
    module: IspModule, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, params = random(3, 3, 75, 67), random_params(module, 3, 8)
    weight = random(*image.shape, seed=9)
    whole = both_ways(module, image, params, weight)
    for name in ("forward.LEAST_PIXELS", "forward.LEAST_CHEAP", "backward.LEAST_POINTWISE"):
        monkeypatch.setattr(f"adaptiveisp.kernels.{name}", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    for a, b in zip(both_ways(module, image, params, weight), whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def test_the_clip_passes_the_gradient_on_the_closed_interval() -> None:
    image = torch.tensor([0.0, 1.0, 0.5]).reshape(1, 3, 1, 1).requires_grad_()
    for name, param in (("exposure", 0.0), ("gamma", 1.0), ("sharpen", 3.0), ("black_level", 0.0)):
        out = find_module(name, "extended")(image, torch.full((1, 1), param))
        expected = [0.0 if name == "gamma" else 1.0, 1.0, 1.0]  # gamma: below its floor nothing depends on the image
        assert torch.autograd.grad(out.sum(), image)[0].flatten().tolist() == pytest.approx(expected, abs=1e-6), name
    bright = find_module("exposure", "extended")(image, torch.full((1, 1), 1.0))
    assert torch.autograd.grad(bright.sum(), image)[0].flatten().tolist() == [2.0, 0.0, 2.0]


def test_the_logarithm_behind_gamma_is_good_to_a_millionth() -> None:
    """d/dγ of x^γ at γ = 1 is x·ln x: one pixel an image, so that nothing is summed."""
    x = torch.cat([torch.logspace(-4.99, 0, 3000), 1 - torch.logspace(-6, -1, 1000)])
    image, params = x.reshape(-1, 1, 1, 1).expand(-1, 3, 1, 1), torch.ones(len(x), 1, requires_grad=True)
    (found,) = torch.autograd.grad(find_module("gamma", "wide")(image, params).sum(), params)
    expected = 3 * x.double() * x.double().log()
    torch.testing.assert_close(found[:, 0].double(), expected, rtol=1.5e-6, atol=0)
