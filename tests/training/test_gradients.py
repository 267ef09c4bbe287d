"""Precision of the detector's network while training."""

from collections.abc import Iterator

import pytest
import torch

from adaptiveisp.training import gradients
from adaptiveisp.training.gradients import BFLOAT16_GAIN, bfloat16_pays


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    """No answer of an earlier test is kept."""
    bfloat16_pays.cache_clear()
    yield
    bfloat16_pays.cache_clear()


def _machine(monkeypatch: pytest.MonkeyPatch, half: float, full: float, **known: bool) -> None:
    """A processor with these capabilities, on which a convolution takes these seconds."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    monkeypatch.setattr(gradients, "_convolution_seconds", lambda *, half: times[half])
    times = {True: half, False: full}


def test_matrix_units_are_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    _machine(monkeypatch, 9.0, 1.0, amx_bf16=True, avx512_bf16=True)
    assert bfloat16_pays("cpu")


def test_emulation_is_not_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    _machine(monkeypatch, 1.0, 9.0, avx2=True)
    assert not bfloat16_pays("cpu")


@pytest.mark.parametrize("name", ["avx512_bf16", "bf16"])
def test_vector_units_are_measured(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    for half, pays in ((1.5, False), (1.0, False), (0.99 / BFLOAT16_GAIN, True)):
        bfloat16_pays.cache_clear()
        _machine(monkeypatch, half, 1.0, **{name: True})
        assert bfloat16_pays("cpu") is pays


def test_a_convolution_is_timed_in_both_precisions() -> None:
    assert gradients._convolution_seconds(half=False) > 0
    assert gradients._convolution_seconds(half=True) > 0
