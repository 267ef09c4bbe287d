"""The registry says which kernel serves which tensors, and that there is none it says once."""

import logging

import pytest
import torch

from adaptiveisp.isp.module import IspModule, Param
from adaptiveisp.kernels import loading, registry
from adaptiveisp.kernels.registry import KernelCall, find


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(loading.SWITCH, raising=False)
    if not loading.available():
        pytest.skip("the kernels of csrc/ are not compiled here; install with a C compiler")


def test_a_kernel_serves_float32_on_the_cpu_without_a_gradient(kernels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.rand(1, 3, 8, 8)
    assert find("pool", image) is not None and find("pool") is not None
    assert find("pool", image.double()) is None
    assert find("pool", image.clone().requires_grad_()) is None
    assert find("pool", torch.empty(1, 3, 8, 8, device="meta")) is None
    monkeypatch.setenv(loading.SWITCH, "0")
    assert find("pool", image) is None
    with pytest.raises(KeyError):
        find("unknown", image)


def test_a_module_names_a_kernel_that_exists() -> None:
    with pytest.raises(ValueError, match="there is no kernel 'unknown'; choose one of scale, "):
        KernelCall("unknown")


def test_a_module_from_outside_may_use_a_kernel(kernels: None) -> None:
    """Halving light is the kernel `scale`, whose numbers are factors."""
    half = IspModule(
        "half",
        "H",
        (Param("stops", 0.0, 4.0, "stops", 0.0),),
        lambda image, params: image * (-params[:, 0]).exp2()[:, None, None, None],
        1.0,
        pointwise=True,
        kernel=KernelCall("scale", lambda p: [2.0 ** -p[0]] * 3, lambda p: (-p).exp2().expand(-1, 3)),
    )
    image, params = torch.rand(2, 3, 8, 8), torch.tensor([[1.0], [2.0]])
    torch.testing.assert_close(half(image, params), image * torch.tensor([0.5, 0.25])[:, None, None, None])
    from adaptiveisp.isp.execution import run_one

    torch.testing.assert_close(run_one(image[0], [(half, (1.0,))]), image[0] / 2)


def test_a_kernel_with_gradients_alone_is_not_written_with(kernels: None) -> None:
    call, image = KernelCall("non_local_means"), torch.rand(3, 8, 8)
    assert not call.writes
    with pytest.raises(ValueError, match="does not write"):
        registry.run(call, image, (0.1,), torch.empty_like(image))


def test_a_function_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_functions", lambda: None)
    with pytest.raises(RuntimeError, match="ask available"):
        loading.function("pool")


def test_without_kernels_the_log_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(loading.SWITCH, raising=False)
    monkeypatch.setattr(loading, "_functions", lambda: None)
    loading._say_once_that_none_are_compiled.cache_clear()
    caplog.set_level(logging.WARNING, logger="adaptiveisp")
    try:
        for _ in range(3):
            assert not loading.available()
        assert loading.description() == "none (not compiled)"
    finally:
        loading._say_once_that_none_are_compiled.cache_clear()
    assert [record.message for record in caplog.records if "compiled kernels: none" in record.message] == [
        "compiled kernels: none, PyTorch computes the modules, several times slower; "
        "install a C compiler and then the package again"
    ]
