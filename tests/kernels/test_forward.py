"""The compiled kernels give what the PyTorch code gives; where they are not compiled the tests say so."""

import pytest
import torch

from adaptiveisp.isp.execution import run_one
from adaptiveisp.isp.modules.denoise import PAPER as DENOISE
from adaptiveisp.isp.modules.denoise import nlm_backward, nlm_forward
from adaptiveisp.isp.modules.fast_denoise import PAPER as FAST_DENOISE
from adaptiveisp.isp.registry import EXTENDED, HELPERS, IspModule
from adaptiveisp.kernels import forward, loading, non_local_means, observation, synthesis


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(loading.SWITCH, raising=False)
    if not loading.available():
        pytest.skip("the kernels of csrc/ are not compiled here; install with a C compiler")


def random(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("module", [DENOISE, FAST_DENOISE], ids=lambda module: module.name)
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("size", [(3, 40), (13, 17), (33, 129), (70, 300), (35, 419)], ids=str)
def test_denoise_equals_pytorch_in_value_and_gradient(
    kernels: None, size: tuple[int, int], threads: int, module: IspModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "LEAST_PIXELS", 1)  # so that small images are cut too
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    image, h = random(2, 3, *size).requires_grad_(), torch.tensor([[0.2], [0.7]], requires_grad=True)
    weight = random(2, 3, *size, seed=1)

    def all_of_it() -> list[torch.Tensor]:
        out = module(image, h)
        (alone,) = torch.autograd.grad((module(image.detach(), h) * weight).sum(), h)
        return [out.detach(), *torch.autograd.grad((out * weight).sum(), (image, h)), alone]

    ours = all_of_it()
    monkeypatch.setenv(loading.SWITCH, "0")
    assert not loading.available()
    expected = all_of_it()
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-4, atol=1e-5)


def test_denoise_of_other_types_stays_in_pytorch(kernels: None) -> None:
    image = random(1, 3, 8, 8).double()
    assert not loading.takes(image)
    assert DENOISE(image, torch.full((1, 1), 0.3, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize(("reach", "step"), [(1, 1), (2, 1), (4, 1), (2, 2), (4, 2)])
def test_other_search_windows_equal_pytorch(kernels: None, reach: int, step: int) -> None:
    image, h = random(2, 3, 40, 150), torch.full((2, 1, 1), 0.3)
    output, total = non_local_means.nlm_forward(image, h, 0.0, reach, step)
    torch.testing.assert_close((output, total), nlm_forward(image, h, reach, step), rtol=2e-4, atol=1e-5)
    grad = random(2, 3, 40, 150) - 0.5
    ours = non_local_means.nlm_backward(image, h, output, total, grad, True, reach, step)
    expected = nlm_backward(image, h, output, total, grad, reach, step)
    torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-4)
    (none, of_h) = non_local_means.nlm_backward(image, h, output, total, grad, False, reach, step)
    assert none is None
    torch.testing.assert_close(of_h, expected[1], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("reach", "step", "reason"), [(6, 1, "1 to 5"), (3, 2, "a multiple"), (1, 2, "2 to 5"), (3, 3, "one of")]
)
def test_search_windows_that_the_kernels_lack_are_refused(kernels: None, reach: int, step: int, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        non_local_means.nlm_forward(random(1, 3, 9, 9), torch.full((1, 1, 1), 0.3), 0.0, reach, step)


def test_denoise_takes_views_that_are_not_contiguous(kernels: None) -> None:
    image, h = random(1, 3, 12, 20).transpose(2, 3), torch.tensor([[0.3]])
    torch.testing.assert_close(DENOISE(image, h), DENOISE(image.contiguous(), h), rtol=0, atol=0)


def test_other_versions_of_the_kernels_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "INTERFACE", -1)
    loading._functions.cache_clear()
    try:
        assert not loading.available()
    finally:
        monkeypatch.undo()
        loading._functions.cache_clear()


@pytest.mark.parametrize("size", [(64, 64), (70, 100), (200, 90), (20, 30), (130, 3), (50, 640)], ids=str)
def test_what_a_policy_sees_equals_pytorch(
    kernels: None, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch.nn.functional as F

    monkeypatch.setattr(forward, "LEAST_CHEAP", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)

    image = random(2, 3, *size)
    torch.testing.assert_close(forward.pool(image, 64), F.adaptive_avg_pool2d(image, 64), rtol=0, atol=1e-6)
    kernel = torch.tensor([[1.0, -2.0, 1.0], [-2.0, 4.0, -2.0], [1.0, -2.0, 1.0]])[None, None]
    luminance = (image * torch.tensor([0.27, 0.67, 0.06])[:, None, None]).sum(dim=1, keepdim=True)
    expected = F.conv2d(luminance, kernel).abs().mean(dim=(1, 2, 3))
    torch.testing.assert_close(forward.laplacian(image), expected, rtol=1e-5, atol=1e-7)
    for threads in (1, 2):  # in one piece, and cut
        monkeypatch.setattr(forward, "LEAST_CHEAP", 10 ** (9 * (2 - threads)))
        cells, response = observation.scan(image, 64)
        torch.testing.assert_close(cells, F.adaptive_avg_pool2d(image, 64), rtol=0, atol=1e-6)
        torch.testing.assert_close(response, expected, rtol=1e-5, atol=1e-7)


def test_an_image_too_small_for_noise_has_none(kernels: None) -> None:
    cells, response = observation.scan(random(1, 3, 2, 2), 64)
    assert cells.shape == (1, 3, 64, 64) and response.tolist() == [0.0]


@pytest.mark.parametrize("dark", [False, True])
def test_numbers_of_the_pooled_image_equal_pytorch(kernels: None, dark: bool) -> None:
    from adaptiveisp.policies.sequence.networks import _light

    cells, begun = random(2, 3, 64, 64) ** (12 if dark else 1), random(2, 3, 64, 64, seed=1)
    cells[1, :, 5:20] = 0.0 if dark else 1.0
    cells[0, 0, 3, 4] = float("nan")
    view, numbers = observation.light(cells, begun, 0.98)
    expected_view, expected = _light(cells, begun)
    torch.testing.assert_close(view, expected_view, rtol=0, atol=1e-6, equal_nan=True)
    moved = (numbers - expected)[:, :16].abs().sum(dim=1)  # a value on the border of two bins may fall in either
    assert moved.max() < 3 / 64**2 and numbers[:, :16].sum(dim=1).tolist() == pytest.approx([1.0, 1.0])
    torch.testing.assert_close(numbers[:, 16:], expected[:, 16:], rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("side", [32, 64])
def test_the_encoder_equals_pytorch(kernels: None, side: int) -> None:
    from torch import nn

    torch.manual_seed(0)
    layers = [nn.Conv2d(a, b, 4, stride=2, padding=1) for a, b in ((5, 16), (16, 48), (48, 32))]
    view = 2 * random(1, 5, side, side) - 1
    ours = observation.Encoder([tuple(p.detach().numpy() for p in (c.weight, c.bias)) for c in layers], 0.2)
    with torch.no_grad():
        features = nn.Sequential(*(part for c in layers for part in (c, nn.LeakyReLU(0.2))))(view)
        expected = torch.cat([features.mean(dim=(2, 3)), features.amax(dim=(2, 3))], dim=1)[0]
    torch.testing.assert_close(torch.from_numpy(ours(view[0])), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("cell", [1, 3, 4, 50])
def test_moments_equal_pytorch(kernels: None, cell: int) -> None:
    from adaptiveisp.isp.guided_filter import moments

    image = random(1, 3, 37, 51)
    rounding = max(1e-6, 1e-8 * cell**2)  # of a sum of so many
    torch.testing.assert_close(forward.moments(image[0], cell)[None], moments(image, cell), rtol=0, atol=rounding)


def test_elementary_functions_are_good_to_a_millionth(kernels: None) -> None:
    """Through the operations that use them, against float64, over their whole range."""
    x = torch.cat([torch.logspace(-5, 0, 3000), torch.linspace(0, 1, 3072)]).reshape(1, 1, -1).expand(3, 1, -1)
    x = x.contiguous()
    target = torch.empty_like(x)
    for exponent in (1 / 3, 0.45, 1.0, 2.2, 3.0):
        forward.chain(x, [("power", (exponent, 1e-5))], target)
        exact = x.double().clamp(min=1e-5).pow(exponent)
        assert ((target - exact).abs() / exact).max() < 1e-5 and (target - exact).abs().max() < 1e-6
    forward.chain(x, [("contrast", (1.0,))], target)
    exact = x.double() * (0.5 - 0.5 * (torch.pi * x.double()).cos()) / (x.double() + 1e-6)
    assert (target - exact).abs().max() < 1e-6


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    ("before", "after"), [((40, 50), (29, 36)), ((13, 7), (64, 32)), ((33, 33), (33, 33)), ((90, 2), (9, 2))], ids=str
)
def test_resizing_equals_pytorch(
    kernels: None, before: tuple[int, int], after: tuple[int, int], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "LEAST_PIXELS", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    picture = random(3, *before) * 1.4 - 0.2  # some values are clipped
    expected = torch.nn.functional.interpolate(picture[None], size=after, mode="bilinear", antialias=True)[0]
    found = synthesis.resize(picture, *after)
    torch.testing.assert_close(found, expected.clamp(0, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(3, 1, 1), (3, 700, 31), (3, 31, 700), (3, 288, 288)], ids=str)
def test_resizing_keeps_a_plain_colour(kernels: None, size: tuple[int, ...]) -> None:
    """Also at the borders, and where a value depends on many pixels."""
    torch.testing.assert_close(synthesis.resize(torch.full(size, 0.7), 20, 25), torch.full((3, 20, 25), 0.7))


@pytest.mark.parametrize("module", [*EXTENDED, *HELPERS], ids=lambda module: module.name)
def test_cut_into_parts_the_image_is_the_same(
    kernels: None, module: IspModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = random(3, 150, 140)
    params = module.params_from_logits(torch.full((1, len(module.params)), 0.3))[0].tolist()
    whole = run_one(image, [(module, params)])
    monkeypatch.setattr(forward, "LEAST_PIXELS", 1)
    monkeypatch.setattr(forward, "LEAST_CHEAP", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    torch.testing.assert_close(run_one(image, [(module, params)]), whole, rtol=0, atol=1e-6)
