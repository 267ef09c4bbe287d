"""The replay buffer of partly processed images that the step-wise method learns on.

Source: Hu et al. 2018 (Exposure), section 5; Wang et al. 2024 (AdaptiveISP), released code.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.data.training_images import TrainingImage
from adaptiveisp.isp.module import IspModule
from adaptiveisp.policies.environment import State
from adaptiveisp.types import Targets


@dataclass(frozen=True)
class ReplayItem:
    """A partly processed image.

    Attributes:
        number: of the training image.
        image: (3, size, size) after the modules so far.
        targets: its labels.
        used, step, stopped: its status, see `State`.
        loss: detector loss of `image`; None if it was not computed yet.
        history: (action id, parameters) of each module so far, from which the image can be computed again bit by bit.
    """

    number: int
    image: Float[Tensor, "3 height width"]
    targets: Targets
    used: Float[Tensor, " n_modules"]
    step: float
    stopped: float
    loss: float | None
    history: tuple[tuple[int, Float[Tensor, " _"]], ...] = ()


def stack(entries: Sequence[ReplayItem]) -> State:
    """The states of some entries as one batch."""
    image = torch.stack([entry.image for entry in entries])
    return State(
        image,
        torch.stack([entry.used for entry in entries]),
        image.new_tensor([entry.step for entry in entries]),
        image.new_tensor([entry.stopped for entry in entries]),
    )


def unstack(
    entries: Sequence[ReplayItem],
    state: State,
    losses: Float[Tensor, " batch"],
    histories: Sequence[Sequence[tuple[int, Float[Tensor, " _"]]]],
) -> list[ReplayItem]:
    """The entries after some steps.

    Args:
        entries: before the steps.
        state: after the steps.
        losses: detector loss of the new images.
        histories: (action id, parameters) of the steps of each image.
    """
    after = []
    for i, (entry, ran) in enumerate(zip(entries, histories, strict=True)):
        image, used = state.image[i].detach().clone(), state.used[i].detach().clone()
        numbers = (state.step[i].item(), state.stopped[i].item(), losses[i].item())
        after.append(ReplayItem(entry.number, image, entry.targets, used, *numbers, (*entry.history, *ran)))
    return after


def replayed(
    image: Float[Tensor, "3 height width"],
    history: Sequence[tuple[int, Float[Tensor, " _"]]],
    modules: Sequence[IspModule],
) -> Float[Tensor, "3 height width"]:
    """The image after the modules of a history, with the same bits as in any batch."""
    batch = image[None]
    for action, params in history:
        batch = modules[action](batch, params[None])
    return batch[0]


class ReplayBuffer:
    """A fixed number of entries. A batch is removed, advanced by some steps and put back.

    Args:
        size: number of entries.
    """

    def __init__(self, size: int):
        self.size = size
        self.entries: list[ReplayItem] = []

    def missing(self) -> int:
        """Number of new images that are needed to fill the buffer."""
        return self.size - len(self.entries)

    def take(self, n: int, generator: torch.Generator) -> list[ReplayItem]:
        """Removes and returns `n` random entries."""
        chosen = torch.randperm(len(self.entries), generator=generator)[:n].tolist()
        removed = [self.entries[i] for i in chosen]
        numbers = set(chosen)
        self.entries = [entry for i, entry in enumerate(self.entries) if i not in numbers]
        return removed

    def put(self, entries: Iterable[ReplayItem]) -> None:
        """Adds entries."""
        self.entries += entries

    def state_dict(self) -> list[dict[str, Any]]:
        """Numbers, status and histories; images and labels are read again from the training images."""
        return [
            {
                "number": entry.number,
                "used": entry.used,
                "numbers": [entry.step, entry.stopped, entry.loss],
                "actions": [action for action, _ in entry.history],
                "params": [params for _, params in entry.history],
            }
            for entry in self.entries
        ]

    def load_state_dict(
        self, content: Sequence[Mapping[str, Any]], fresh: Callable[[int], TrainingImage], modules: Sequence[IspModule]
    ) -> None:
        """Restores the result of `state_dict`.

        Args:
            content: from `state_dict`.
            fresh: gives the image of a number before its first step.
            modules: in the order of action ids.
        """
        self.entries = []
        for saved in content:
            source = fresh(saved["number"])
            params = [row.to(source.image.device) for row in saved["params"]]
            history = tuple(zip(saved["actions"], params, strict=True))
            image = replayed(source.image, history, modules)
            step, stopped, loss = saved["numbers"]
            used = saved["used"].to(image.device)
            entry = ReplayItem(saved["number"], image, source.targets, used, step, stopped, loss, history)
            self.entries.append(entry)
