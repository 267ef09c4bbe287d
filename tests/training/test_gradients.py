"""Precision of the detector's network while training."""

from collections.abc import Iterator

import pytest
import torch

from adaptiveisp.training.gradients import has_fast_bfloat16


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    """No answer of an earlier test is kept."""
    has_fast_bfloat16.cache_clear()
    yield
    has_fast_bfloat16.cache_clear()


@pytest.mark.parametrize(
    ("known", "fast"),
    [
        ({"amx_bf16": True, "avx512_bf16": True}, True),
        ({"avx512_bf16": True}, False),  # in vector units alone it was slower than float32
        ({"avx2": True}, False),
        ({"bf16": True}, True),
        ({"amx_bf16": False, "bf16": False}, False),
    ],
    ids=str,
)
def test_bfloat16_is_for_processors_with_matrix_units(
    monkeypatch: pytest.MonkeyPatch, known: dict[str, bool], fast: bool
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    assert has_fast_bfloat16("cpu") is fast
