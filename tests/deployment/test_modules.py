"""Every module as nodes of a graph gives what its own function in PyTorch gives, at fixed and at free sizes."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from adaptiveisp.errors import AdaptiveISPError
from adaptiveisp.isp.module import IspModule, Param
from adaptiveisp.isp.registry import BASELINES, EXTENDED, HELPERS, MODULE_SETS, find_module
from tests.deployment.graphs import run_module

MODULES = list(
    {
        id(m): pytest.param(m, id=f"{name}-{m.name}")
        for name, modules in reversed({**MODULE_SETS, "helper": HELPERS, "baseline": BASELINES}.items())
        for m in modules
        if m.name != "clahe"  # OpenCV computes it
    }.values()
)
SIZE, ODD_SIZE = (48, 64), (37, 131)
FLOAT16 = {"exposure": 2e-3, "gamma": 4e-3, "tone": 4e-3, "ccm": 6e-3}
"""Greatest differences in float16; 2e-3 for all others. Steep curves enlarge the rounding of their input, 5e-4."""


def inputs(module: IspModule, size: tuple[int, int], most: float = 1.0) -> tuple[torch.Tensor, torch.Tensor]:
    """A picture with dark, bright, grey and black areas, and parameters away from the neutral ones."""
    generator = torch.Generator().manual_seed(3)
    image = torch.rand(1, 3, *size, generator=generator) * torch.linspace(0.01, most, size[1])
    image[:, :, :4] = image[:, :1, :4]
    image[:, :, 4:6], image[:, :, 6:8] = 0, most
    logits = torch.randn(1, len(module.params), generator=torch.Generator().manual_seed(4))
    return image, module.params_from_logits(logits)


@pytest.mark.parametrize("module", EXTENDED, ids=lambda module: module.name)
def test_graph_for_any_size_equals_the_reference(module: IspModule) -> None:
    compare(module, ODD_SIZE, True)


@pytest.mark.long
@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(("size", "free"), [(SIZE, False), (ODD_SIZE, True)])
def test_graph_equals_the_reference(module: IspModule, size: tuple[int, int], free: bool) -> None:
    compare(module, size, free)


def compare(module: IspModule, size: tuple[int, int], free: bool) -> None:
    image, params = inputs(module, size, 1.0 if module.clips else 1.5)
    reference = replace(module, kernel=None)
    found = run_module(module, image.numpy(), params[0].numpy(), free)
    np.testing.assert_allclose(found, reference(image, params).numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("loops", "free"), [(True, True), (True, False), (False, True)])
def test_non_local_means_in_strips(loops: bool, free: bool) -> None:
    """Three strips of 36 rows, one more than the image has; or no loop, in one piece."""
    module = find_module("denoise", "extended")
    image, params = inputs(module, (107, 40))
    found = run_module(module, image.numpy(), params[0].numpy(), free, loops=loops)
    reference = replace(module, kernel=None)
    np.testing.assert_allclose(found, reference(image, params).numpy(), rtol=1e-4, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("module", MODULES)
def test_graph_in_half_precision(module: IspModule) -> None:
    image, params = inputs(module, SIZE)
    image = image.half().float()  # the rounding of the input itself is no error of the module
    found = run_module(module, image.numpy(), params[0].numpy(), False, np.float16)
    apart = np.abs(found - replace(module, kernel=None)(image, params).numpy()).max()
    assert apart <= FLOAT16.get(module.name, 2e-3), apart


def log_curve(image: torch.Tensor, params: torch.Tensor) -> torch.Tensor:
    strength = params[:, :, None, None]
    return torch.log1p(strength * image) / torch.log1p(strength)


STRENGTH = (Param("strength", 0.001, 1000.0, "", 0.001, "log"),)


def test_module_from_outside_the_package_is_traced() -> None:
    module = IspModule("log_curve", "LC", STRENGTH, log_curve, 1.5, pointwise=True)
    image, params = inputs(module, ODD_SIZE)
    found = run_module(module, image.numpy(), params[0].numpy(), True)
    np.testing.assert_allclose(found, module(image, params).numpy(), atol=1e-4)


def test_module_with_a_hook_writes_its_own_nodes() -> None:
    module = IspModule(
        "half", "H", STRENGTH, lambda image, params: image * 0.5, 1.0, onnx=lambda ops, image, params: image * 0.5
    )
    image, params = inputs(module, SIZE)
    np.testing.assert_array_equal(run_module(module, image.numpy(), params[0].numpy(), True), image.numpy() * 0.5)


def test_operator_without_an_onnx_form_is_named_with_its_module() -> None:
    def odd(image: torch.Tensor, params: torch.Tensor) -> torch.Tensor:
        return torch.special.i1(image)

    module = IspModule("bessel", "B", STRENGTH, odd, 1.0)
    image, params = inputs(module, SIZE)
    with pytest.raises(AdaptiveISPError, match=r"module bessel: .*operator aten::special_i1.*extending"):
        run_module(module, image.numpy(), params[0].numpy(), True)


def test_module_whose_trace_keeps_a_size_is_refused() -> None:
    def cropped(image: torch.Tensor, params: torch.Tensor) -> torch.Tensor:
        return image - torch.full_like(image[:, :, : int(image.shape[2])], float(image.shape[3]) * 1e-3)

    module = IspModule("by_width", "BW", STRENGTH, cropped, 1.0)
    image, params = inputs(module, SIZE)
    with pytest.raises(AdaptiveISPError, match=r"by_width: .*another image size"):
        run_module(module, image.numpy(), params[0].numpy(), True)
