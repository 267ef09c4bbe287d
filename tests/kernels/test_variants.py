"""The kernels compiled for AVX-512 give the bits of those for AVX2, so that processors agree."""

import ctypes
import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from adaptiveisp.evaluation.benchmark import some_parameters
from adaptiveisp.isp.execution import run_one
from adaptiveisp.isp.registry import EXTENDED
from adaptiveisp.kernels import loading
from adaptiveisp.raw.develop import develop
from adaptiveisp.types import RawImage


def functions(variants: list[str]) -> dict[str, Any]:
    spec = importlib.util.find_spec("adaptiveisp.kernels._kernels")
    assert spec is not None and spec.origin is not None
    library = ctypes.CDLL(spec.origin)
    return {name: loading.best_variant(library, name, variants) for name in loading._SIGNATURES}


@pytest.fixture
def in_both(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], tuple[Any, Any]]:
    """Runs a function with the kernels of AVX2 and with those of AVX-512."""
    monkeypatch.delenv(loading.SWITCH, raising=False)
    if loading.description() != "avx512":
        pytest.skip("this processor, or the build, has no kernels for AVX-512")

    def run(work: Callable[[], Any]) -> tuple[Any, Any]:
        results = []
        for variants in (["avx2"], ["avx512", "avx2"]):
            found = functions(variants)
            monkeypatch.setattr(loading, "_functions", lambda found=found: found)
            results.append(work())
        return results[0], results[1]

    return run


def picture(height: int, width: int) -> torch.Tensor:
    image = torch.rand(3, height, width, generator=torch.Generator().manual_seed(height))
    image[:, 2:4, 1:3] = torch.tensor([0.0, 1.0])
    image[1, 5, 5] = torch.nan
    return image


@pytest.mark.parametrize("size", [(7, 9), (33, 129), (70, 301)], ids=str)
@pytest.mark.parametrize("module", EXTENDED, ids=lambda module: module.name)
def test_modules(module: Any, size: tuple[int, int], in_both: Any) -> None:
    image = picture(*size)
    call = [(module, some_parameters(module))]
    narrow, wide = in_both(lambda: run_one(image, call))
    torch.testing.assert_close(wide, narrow, rtol=0, atol=0, equal_nan=True)


def test_demosaicing(in_both: Any) -> None:
    codes = np.random.default_rng(0).integers(0, 4096, (31, 77), dtype=np.uint16)
    narrow, wide = in_both(lambda: develop(RawImage(codes, "GRBG", (250.0, 256.0, 260.0, 256.0), 4095.0)))
    assert torch.equal(narrow, wide)


def test_only_the_kernels_that_gain_have_a_variant_of_their_own(in_both: Any) -> None:
    wide = {name for name, one in functions(["avx512", "avx2"]).items() if one.__name__.endswith("_avx512")}
    assert {"chain", "sharpen", "demosaic", "nlm_forward"} <= wide
    # Their sums depend on the width of vectors.
    assert not wide & {"laplacian", "scan", "moments", "pointwise_backward", "guided"}


def test_a_variant_that_is_missing_falls_back(in_both: Any) -> None:
    assert functions(["avx512", "avx2"])["scan"].__name__ == "adaptiveisp_scan_avx2"
    assert functions([])["scan"].__name__ == "adaptiveisp_scan_base"
