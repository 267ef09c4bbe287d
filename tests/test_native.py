"""The compiled kernels give what the PyTorch code gives; where they are not compiled the tests say so."""

import pytest
import torch

from adaptiveisp import native
from adaptiveisp.isp.denoise import denoise
from adaptiveisp.native import _ranges, _spread


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(native.SWITCH, raising=False)
    if not native.available():
        pytest.skip("the kernels of csrc/ are not compiled here; install with a C compiler")


def random(*size: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(*size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("size", [(3, 40), (13, 17), (33, 129), (70, 300)], ids=str)
def test_denoise_equals_pytorch_in_value_and_gradient(
    kernels: None, size: tuple[int, int], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "LEAST_PIXELS", 1)  # so that small images are cut too
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    image, h = random(2, 3, *size).requires_grad_(), torch.tensor([[0.2], [0.7]], requires_grad=True)
    weight = random(2, 3, *size, seed=1)

    def all_of_it() -> list[torch.Tensor]:
        out = denoise(image, h)
        (alone,) = torch.autograd.grad((denoise(image.detach(), h) * weight).sum(), h)
        return [out.detach(), *torch.autograd.grad((out * weight).sum(), (image, h)), alone]

    ours = all_of_it()
    monkeypatch.setenv(native.SWITCH, "0")
    assert not native.available()
    expected = all_of_it()
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=2e-4, atol=1e-5)


def test_denoise_of_other_types_stays_in_pytorch(kernels: None) -> None:
    image = random(1, 3, 8, 8).double()
    assert not native.takes(image)
    assert denoise(image, torch.full((1, 1), 0.3, dtype=torch.float64)).dtype == torch.float64


def test_denoise_takes_views_that_are_not_contiguous(kernels: None) -> None:
    image, h = random(1, 3, 12, 20).transpose(2, 3), torch.tensor([[0.3]])
    torch.testing.assert_close(denoise(image, h), denoise(image.contiguous(), h), rtol=0, atol=0)


@pytest.mark.parametrize(("n", "unit", "least"), [(1, 32, 1), (100, 32, 1), (64, 32, 64), (1000, 1, 1), (7, 1, 100)])
def test_ranges_cover_everything_once(n: int, unit: int, least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    found = _ranges(n, unit, least)
    assert [i for a, b in found for i in range(a, b)] == list(range(n))
    assert len(found) <= 4 and all(a % unit == 0 for a, _ in found)


def test_work_is_spread_in_order_and_errors_come_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert _spread([lambda i=i: i * i for i in range(20)]) == [i * i for i in range(20)]
    with pytest.raises(ZeroDivisionError):
        _spread([lambda: 1, lambda: 1 // 0, lambda: 2])
