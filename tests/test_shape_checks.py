"""The tests' own checker of shapes finds what jaxtyping's finds: in arguments, in results, and between the two."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from beartype import beartype
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from adaptiveisp.isp.registry import find_module
from tests.support import shape_checks

Decorator = Callable[[Any], Any]

BOTH = [functools.partial(decorator, typechecker=beartype) for decorator in (shape_checks.slow, shape_checks.checked)]


@pytest.mark.parametrize("decorate", BOTH, ids=["jaxtyping", "ours"])
def test_shapes_of_arguments_and_result_belong_together(decorate: Decorator) -> None:
    @decorate
    def rows(matrix: Float[Tensor, "n m"], column: Float[Tensor, " n"], keep: int) -> Float[Tensor, "kept m"]:
        return (matrix * column[:, None])[:keep] if keep >= 0 else matrix[:, :1]

    assert rows(torch.ones(4, 3), torch.ones(4), 2).shape == (2, 3)
    assert rows(torch.ones(5, 2), torch.ones(5), 1).shape == (1, 2)  # each call has its own n and m
    for wrong in (
        (torch.ones(4, 3), torch.ones(3), 2),  # n is 4 and 3
        (torch.ones(4), torch.ones(4), 2),  # one axis too few
        (torch.ones(4, 3).int(), torch.ones(4), 2),  # no float
        (torch.ones(4, 3), torch.ones(4), 2.5),
        (torch.ones(4, 3), torch.ones(4), -1),  # the result's m is 1
    ):
        with pytest.raises(TypeCheckError):
            rows(*wrong)


@pytest.mark.parametrize("decorate", BOTH, ids=["jaxtyping", "ours"])
def test_fields_of_a_dataclass_are_checked(decorate: Decorator) -> None:
    @decorate
    @dataclass
    class Pair:
        a: Float[Tensor, " n"]
        b: Float[Tensor, " n"]

    Pair(torch.ones(2), torch.ones(2))
    with pytest.raises(TypeCheckError):
        Pair(torch.ones(2), torch.ones(3))


def test_the_package_is_checked() -> None:
    module = find_module("exposure", "wide")
    with pytest.raises(TypeCheckError):
        module(torch.ones(3, 4, 4), torch.ones(1, 1))
