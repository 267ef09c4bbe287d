"""What `torchrun` tells the processes that it starts, by environment variables; reading them needs no PyTorch.

Source: the documentation of torch.distributed.run ("Environment Variables").
"""

import os
from typing import NamedTuple

from adaptiveisp.errors import SilentError, UsageError, shown


class Place(NamedTuple):
    """The place of a process among those that `torchrun` started.

    Attributes:
        rank: its number, from 0.
        size: number of processes.
        local_rank: its number among those of this host.
    """

    rank: int
    size: int
    local_rank: int


def place_of_process() -> Place | None:
    """The place of this process; None where it runs alone, which a `torchrun` of one process does too.

    Raises:
        UsageError: the variables contradict each other.
    """
    size, rank, local = (os.environ.get(name) for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"))
    if size is None or rank is None or "MASTER_ADDR" not in os.environ:
        return None  # some job schedulers set one of them
    try:
        place = Place(int(rank), int(size), int(local or 0))
    except ValueError:
        place = Place(-1, 0, 0)
    if not 0 <= place.rank < place.size:
        raise UsageError(
            f"WORLD_SIZE = {shown(size)} and RANK = {shown(rank)} are no place among processes; unset them, or start "
            "with torchrun, which sets them"
        )
    return place if place.size > 1 else None


def refuse_ranks(command: str) -> None:
    """Refuses a command that cannot share its work, before several processes do the same and write the same files.

    Args:
        command: its name.

    Raises:
        UsageError: `torchrun` started several processes; the message is that of the first one.
        SilentError: the same on the other ranks.
    """
    place = place_of_process()
    if place is None:
        return
    if place.rank:
        raise SilentError(f"{command} cannot share its work")
    remedy = {
        "run": "start it without torchrun; --shard I/N does one of N parts of the inputs",
        "eval": "start it without torchrun; --shard I/N does one of N parts of the samples",
        "sweep": "start it without torchrun; --jobs N runs several trainings at once",
    }.get(command, "start it without torchrun")
    raise UsageError(f"torchrun: {command} does not split its work among {place.size} processes; {remedy}")
