"""Policies as nodes of a graph: which modules run on an image, with which parameters.

A `Plan` is made once for a policy. Its table numbers the modules that the policy may run; a pipeline is a vector of
these numbers, -1 after the last module, and a matrix with the parameters of each module in a row, filled up with zeros.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from adaptiveisp.deployment.control_flow import choose, repeat
from adaptiveisp.deployment.ops import Ops, Value
from adaptiveisp.deployment.writers import apply_module
from adaptiveisp.isp.module import IspModule

END = -1
"""Number after the last module of a pipeline."""


class Planned(NamedTuple):
    """What a policy did to an image.

    Attributes:
        modules: (length,) int64, numbers of the table, -1 after the last one.
        params: (length, width) float32, the parameters of each module in a row.
        image: (1, 3, height, width) the image after the modules, not yet clipped where the last module does not clip.
    """

    modules: Value
    params: Value
    image: Value


@dataclass(frozen=True)
class Plan(ABC):
    """A policy for graphs.

    Attributes:
        table: the modules that it may run.
        length: most modules of a pipeline, at least 1, since some runtimes have no empty tensors.
        n_first: number of modules of the preprocessing, at the beginning of each pipeline.
        module_set: the named set of the modules.
    """

    table: tuple[IspModule, ...]
    length: int
    n_first: int
    module_set: str

    @property
    def width(self) -> int:
        """Most parameters of a module, at least 1."""
        return max((len(module.params) for module in self.table), default=1) or 1

    @property
    def fixed(self) -> tuple[int, ...] | None:
        """Numbers of the modules if they are the same for all images, else None."""
        return None

    @property
    def looks_again(self) -> bool:
        """Whether the policy observes the image after its own modules, so that its own graph contains them."""
        return False

    @abstractmethod
    def run(self, ops: Ops, image: Value) -> Planned:
        """The pipeline of a developed image and the image after it.

        Args:
            ops: the graph; its `sides` are those of the image.
            image: (1, 3, height, width), linear RGB in [0, 1].
        """

    @property
    def clips(self) -> bool:
        """Whether every image after it is in [0, 1] without a further clip."""
        return all(module.clips for module in self.table)

    def number(self, module: IspModule) -> int:
        """The module's number in the table."""
        return next(place for place, one in enumerate(self.table) if one.name == module.name)

    def row(self, ops: Ops, params: Value, count: int) -> Value:
        """The parameters of a module as a row of the matrix, (1, width)."""
        if count == self.width:
            return ops.reshape(params, 1, self.width)
        filled = ops("Pad", params, np.asarray([0, self.width - count]), np.asarray(0, np.float32))
        return ops.reshape(filled, 1, self.width)


def table_with(own: tuple[IspModule, ...], first: tuple[IspModule, ...]) -> tuple[IspModule, ...]:
    """The policy's own modules, then those of its preprocessing that are not among them."""
    names = {module.name for module in own}
    return (*own, *(module for module in first if module.name not in names))


def planned(ops: Ops, plan: Plan, numbers: Sequence[Value], rows: Sequence[Value], image: Value) -> Planned:
    """The pipeline from the numbers and rows of its parts, with the image after it."""
    if not numbers:
        return Planned(
            ops.constant(np.full(1, END, np.int64)), ops.constant(np.zeros((1, plan.width), np.float32)), image
        )
    return Planned(ops.concat(numbers, 0), ops.concat(rows, 0), image)


def run_chain(
    ops: Ops, plan: Plan, image: Value, stages: Sequence[tuple[int, Value]]
) -> tuple[Value, list[Value], list[Value]]:
    """The image after stages that run for every image, and the number and the row of parameters of each.

    Args:
        ops: the graph.
        plan: gives the table.
        image: (1, 3, height, width).
        stages: number of the module and its parameters.
    """
    numbers, rows = [], []
    for number, params in stages:
        module = plan.table[number]
        image = apply_module(ops, module, image, params)
        numbers.append(ops.constant(np.asarray([number], np.int64)))
        rows.append(plan.row(ops, params, len(module.params)))
    return image, numbers, rows


def run_chosen(ops: Ops, plan: Plan, image: Value, modules: Value, params: Value) -> Value:
    """The image after the modules of a pipeline that is known when the graph runs: a loop over a tree of `If`s.

    Args:
        ops: the graph.
        plan: gives the table.
        image: (1, 3, height, width).
        modules: (n,) numbers of the table, -1 after the last one.
        params: (n, width).
    """
    following = ops.concat([modules, ops.constant(np.asarray([END], np.int64))], 0)

    def body(inner: Ops, number: Value, carried: Sequence[Value]) -> tuple[list[Value], Value, list[Value]]:
        module = inner("Gather", modules, number, axis=0)
        made = choose_module(inner, plan, carried[0], module, inner("Gather", params, number, axis=0))
        after = inner("Gather", following, number + 1, axis=0)
        return [made], inner("GreaterOrEqual", after, 0), []

    with ops.scope("pipeline"):
        some = ops("GreaterOrEqual", ops.item(modules, 0), 0)
        (made,), _ = repeat(ops, plan.length, [image], some, [image_shape(ops)], body)
    return made


def image_shape(ops: Ops) -> list[int | None]:
    """Shape of the images of a graph, None for free sizes."""
    assert ops.root.sides is not None
    return [1, 3, *(None if side.data is None else int(side.number) for side in ops.root.sides)]


def choose_module(ops: Ops, plan: Plan, image: Value, number: Value, row: Value) -> Value:
    """The image after the module of the table with this number; the others are not computed."""

    def branch_of(module: IspModule) -> Callable[[Ops], list[Value]]:
        def branch(inner: Ops) -> list[Value]:
            return [apply_module(inner, module, image, inner.slice(row, 0, 0, len(module.params)))]

        return branch

    branches = [branch_of(module) for module in plan.table]
    return choose(ops, number, branches)[0]
