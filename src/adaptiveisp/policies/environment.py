"""The episode: a part-processed image, the modules used so far, and what one more module makes of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from adaptiveisp.isp.module import IspModule
from adaptiveisp.isp.registry import modules_of
from adaptiveisp.types import Image, ParamTensor

HORIZON = 5
"""Steps of an episode in the paper."""


class _Stop(IspModule):
    """The kind of `STOP`: pickles and copies refer to the one object, since code compares with `is`."""

    def __reduce__(self) -> str:
        return "STOP"


def _unchanged(image: Image, params: ParamTensor) -> Image:
    return image


STOP = _Stop("stop", "stop", (), _unchanged, 0.0, source="Won et al. 2026 (POS-ISP)")
"""The action that ends an episode: it costs nothing and leaves the image as it is. Optional, always the last action."""

Flags = Float[Tensor, "batch n_modules"]
Scalars = Float[Tensor, " batch"]


@dataclass(frozen=True)
class State:
    """Images in the middle of their pipelines, before the next step.

    Attributes:
        image: what the modules so far have made of the developed image.
        used: 1 where a module ran before, in the order of action ids.
        step: number of modules that ran, a raw count.
        stopped: 1 where the episode is over.
    """

    image: Image
    used: Flags
    step: Scalars
    stopped: Scalars

    def rows(self, index: Int[Tensor, " n"]) -> "State":
        """The state of these images, in this order."""
        if _all_in_order(index, len(self.step)):
            return self  # no copies, and no gradients scattered back
        return State(self.image.index_select(0, index), self.used[index], self.step[index], self.stopped[index])

    def with_rows(self, index: Int[Tensor, " n"], other: "State") -> "State":
        """The batch with the state of these images replaced."""
        if len(index) == len(self.step):
            return other.rows(index.argsort())
        return State(
            self.image.index_copy(0, index, other.image),
            self.used.index_copy(0, index, other.used),
            self.step.index_copy(0, index, other.step),
            self.stopped.index_copy(0, index, other.stopped),
        )

    @property
    def status(self) -> Float[Tensor, "batch n_status"]:
        """The numbers a network sees beside the image: reward, stopped, step, used_0 … used_{n-1}.

        The original's first number, called reward, is set to 1 together with `stopped`.

        Source: Wang et al. 2024 (AdaptiveISP).
        """
        return torch.cat([self.stopped[:, None], self.stopped[:, None], self.step[:, None], self.used], dim=1)


def _all_in_order(index: Int[Tensor, " n"], n: int) -> bool:
    return len(index) == n and bool((index == torch.arange(n, device=index.device)).all())


def actions_of(module_set: str, stop: bool = False) -> tuple[IspModule, ...]:
    """The modules of a named set in the order of their action ids, and at the end `STOP` if it is wanted."""
    return (*modules_of(module_set), STOP) if stop else modules_of(module_set)


def start(image: Image, n_modules: int) -> State:
    """The state before the first step: nothing used.

    Args:
        image: developed images, linear RGB in [0, 1].
        n_modules: size of the module set.
    """
    zeros = image.new_zeros(image.shape[0])
    return State(image, image.new_zeros(image.shape[0], n_modules), zeros, zeros)


def advance(
    state: State,
    modules: Sequence[IspModule],
    action: Int[Tensor, " batch"],
    params: Mapping[str, Float[Tensor, "batch _"]],
    horizon: int = HORIZON,
) -> State:
    """The state after each image went through its chosen module; no other module runs.

    Args:
        state: the state before.
        modules: the module set, in the order of action ids.
        action: action id for each image.
        params: parameters of each module for every image, by module name; only the chosen rows are used.
        horizon: the episode stops after so many steps, or with the action `STOP`.
    """
    return counted(state, apply_chosen(state.image, modules, action, params), action, modules, horizon)


def counted(
    state: State, image: Image, action: Int[Tensor, " batch"], modules: Sequence[IspModule], horizon: int = HORIZON
) -> State:
    """The state after the actions, with the images that they made.

    Args:
        state: the state before.
        image: what the chosen modules made of its images.
        action, modules, horizon: as for `advance`.
    """
    used = state.used.scatter(1, action[:, None], 1.0)
    step = state.step + 1
    ends = (step >= horizon) | stops(action, modules)
    return State(image, used, step, torch.maximum(state.stopped, ends.to(step.dtype)))


def stops(action: Int[Tensor, " batch"], modules: Sequence[IspModule]) -> Bool[Tensor, " batch"]:
    """Where the action is `STOP`."""
    return action == (modules.index(STOP) if STOP in modules else -1)


def apply_chosen(
    image: Image,
    modules: Sequence[IspModule],
    action: Int[Tensor, " batch"],
    params: Mapping[str, Float[Tensor, "batch _"]],
) -> Image:
    """Each image through its own module, the images of one module together; differentiable in image and parameters.

    Images are taken apart and put together again, not indexed: the gradient of an index is scattered into zeros, which
    takes longer than most modules do.
    """
    chosen = sorted(set(action.tolist()))
    if len(chosen) == 1:
        module = modules[chosen[0]]
        only: Image = image if module is STOP else module(image, params[module.name])
        return only
    pictures = list(image.unbind())
    for index in chosen:
        module = modules[index]
        if module is STOP:
            continue
        rows = (action == index).nonzero(as_tuple=True)[0]
        group = rows.tolist()
        processed = module(torch.stack([pictures[row] for row in group]), params[module.name][rows])
        for row, picture in zip(group, processed.unbind(), strict=True):
            pictures[row] = picture
    return torch.stack(pictures)
