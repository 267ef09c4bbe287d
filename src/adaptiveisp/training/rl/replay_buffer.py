"""The pool of part-processed images that the step-wise method learns on.

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
    """One image in the middle of its pipeline.

    Attributes:
        number: which image of the stream it was.
        image: (3, size, size) after the modules so far.
        targets: its labels.
        used, step, stopped: its status, see `State`.
        loss: detector loss of `image`, None while the detector has not looked at it.
        history: (action id, parameters) of each module so far, from which the image can be made again, bit by bit.
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
    """The states of several entries as one batch."""
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
        entries: before them.
        state: after them.
        losses: detector loss of the new images.
        histories: what ran on each.
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
    """The image after the modules of a history; the same bits whatever batch it was first made in."""
    batch = image[None]
    for action, params in history:
        batch = modules[action](batch, params[None])
    return batch[0]


class ReplayBuffer:
    """Entries in a fixed number of places; a batch is taken out, advanced by one step and put back.

    Args:
        size: number of entries.
    """

    def __init__(self, size: int):
        self.size = size
        self.entries: list[ReplayItem] = []

    def missing(self) -> int:
        """How many fresh images it takes to fill the pool."""
        return self.size - len(self.entries)

    def take(self, n: int, generator: torch.Generator) -> list[ReplayItem]:
        """Removes and returns `n` random entries."""
        chosen = torch.randperm(len(self.entries), generator=generator)[:n].tolist()
        taken = [self.entries[i] for i in chosen]
        kept = set(chosen)
        self.entries = [entry for i, entry in enumerate(self.entries) if i not in kept]
        return taken

    def put(self, entries: Iterable[ReplayItem]) -> None:
        """Puts entries back."""
        self.entries += entries

    def state_dict(self) -> list[dict[str, Any]]:
        """Numbers, status and histories; images and labels come again from the stream."""
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
        """Restores what `state_dict` gave.

        Args:
            content: from `state_dict`.
            fresh: the starting image of a number, as it first entered the pool.
            modules: the module set, in the order of action ids.
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
