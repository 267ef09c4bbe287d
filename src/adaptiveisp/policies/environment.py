"""The episode: its state, which is a partly processed image and the modules used so far, and one step by a module."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from adaptiveisp.isp.external import RawFrame, rendered_frames
from adaptiveisp.isp.module import IspModule
from adaptiveisp.isp.registry import modules_of
from adaptiveisp.types import Image, ParamTensor

HORIZON = 5
"""Steps of an episode in the paper."""


class _Stop(IspModule):
    """The class of `STOP`. Pickles and copies give the same object, because code compares with `is`."""

    def __reduce__(self) -> str:
        return "STOP"


def _unchanged(image: Image, params: ParamTensor) -> Image:
    return image


STOP = _Stop("stop", "stop", (), _unchanged, 0.0, source="Won et al. 2026 (POS-ISP)")
"""The action that ends an episode, without change or cost. It is optional, and always the last action."""

Flags = Float[Tensor, "batch n_modules"]
Scalars = Float[Tensor, " batch"]


@dataclass(frozen=True)
class State:
    """Images after part of their pipelines, before the next step.

    Attributes:
        image: the developed image after the modules so far.
        used: 1 where a module ran before, in the order of action ids.
        step: number of modules that ran, not scaled.
        stopped: 1 where the episode is over.
    """

    image: Image
    used: Flags
    step: Scalars
    stopped: Scalars

    def rows(self, index: Int[Tensor, " n"]) -> "State":
        """The state of the images with these indices, in this order."""
        if _all_in_order(index, len(self.step)):
            return self  # without a copy, whose gradient would be scattered back
        return State(self.image.index_select(0, index), self.used[index], self.step[index], self.stopped[index])

    def with_rows(self, index: Int[Tensor, " n"], other: "State") -> "State":
        """The batch with the state of the images with these indices replaced."""
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
        """The numbers in an observation beside the image: reward, stopped, step, used_0 … used_{n-1}.

        The first number is called reward in the original, and is 1 where `stopped` is 1.

        Source: Wang et al. 2024 (AdaptiveISP).
        """
        return torch.cat([self.stopped[:, None], self.stopped[:, None], self.step[:, None], self.used], dim=1)


def _all_in_order(index: Int[Tensor, " n"], n: int) -> bool:
    return len(index) == n and bool((index == torch.arange(n, device=index.device)).all())


def actions_of(module_set: str, stop: bool = False) -> tuple[IspModule, ...]:
    """The modules of a named set in the order of their action ids, followed by `STOP` if `stop` is set."""
    return (*modules_of(module_set), STOP) if stop else modules_of(module_set)


def start(image: Image, n_modules: int) -> State:
    """The state before the first step, in which no module was used.

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
    """The state after each image was processed by its chosen module; no other module runs.

    Args:
        state: the state before.
        modules: the module set, in the order of action ids.
        action: action id for each image.
        params: parameters of each module for every image, by module name; only the chosen rows are used.
        horizon: number of steps after which the episode stops, if the action `STOP` does not end it before.
    """
    return counted(state, apply_chosen(state.image, modules, action, params), action, modules, horizon)


def counted(
    state: State, image: Image, action: Int[Tensor, " batch"], modules: Sequence[IspModule], horizon: int = HORIZON
) -> State:
    """The state after the actions, for images that were processed already.

    Args:
        state: the state before.
        image: the images after the chosen modules.
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
    frames: Sequence[RawFrame] | None = None,
) -> Image:
    """Each image after its own module; differentiable with respect to image and parameters.

    The images of one module run as one batch. The batch is unbound and stacked instead of indexed, because the gradient
    of indexing is scattered into zeros, which takes longer than most modules.

    Args:
        image, modules, action, params: as for `advance`.
        frames: the raw of each image, which external ISPs among the modules develop.
    """
    chosen = sorted(set(action.tolist()))
    if len(chosen) == 1:
        module = modules[chosen[0]]
        return image if module is STOP else _apply(module, image, params[module.name], frames)
    pictures = list(image.unbind())
    for index in chosen:
        module = modules[index]
        if module is STOP:
            continue
        rows = (action == index).nonzero(as_tuple=True)[0]
        group = rows.tolist()
        raws = None if frames is None else [frames[row] for row in group]
        processed = _apply(module, torch.stack([pictures[row] for row in group]), params[module.name][rows], raws)
        for row, picture in zip(group, processed.unbind(), strict=True):
            pictures[row] = picture
    return torch.stack(pictures)


def _apply(
    module: IspModule, image: Image, params: Float[Tensor, "batch _"], frames: Sequence[RawFrame] | None
) -> Image:
    """The images after a module; an external ISP develops their raws instead."""
    if module.external is None or frames is None:
        return module(image, params)
    return rendered_frames(module, frames, params, image)
