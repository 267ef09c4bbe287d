"""The ranks of a training run: the processes that `torchrun` starts, which split the images of each iteration.

    torchrun --nproc-per-node 2 -m adaptiveisp train …

N ranks compute what one process computes. The scheme:

- Every rank has the whole state: networks, optimisers, replay buffer, counters and random generators. Each draws all
  random numbers of an iteration (modules, dropout, noise on parameters), in the order of the images, so that they
  belong to the images and not to the ranks, and one process draws what it always drew.
- The expensive work is split by images: reading and synthesis, rendering, the detector's forward and backward pass. Its
  results are gathered in the order of the images.
- The rest is computed by every rank for the whole batch: the policy's networks on observations of 64x64 pixels,
  returns, baselines, advantages, losses, and the statistics of batch norm, which are thus those of the whole batch.
- The gradients of the weights, and the sampled actions, are taken from the first rank. On equal machines they are equal
  anyway; where they are not, rounding could otherwise make the ranks choose different modules.
- The first rank writes.

`DistributedDataParallel` does not fit. It averages the gradients that `backward` accumulates in a module's parameters
after one forward pass of each rank's own images. Here the loss of an image depends on the others of the batch
(advantages, baselines of groups, batch norm), a rollout has many forward passes for one backward pass with a different
number of images in each, and the losses are differentiated by `torch.autograd.grad`, which runs none of its hooks.

Collectives of CPU tensors go through gloo, those of CUDA tensors through NCCL.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from adaptiveisp.errors import AdaptiveISPError, SilentError, UsageError
from adaptiveisp.utils.defaults import RANK_TIMEOUT
from adaptiveisp.utils.torchrun import place_of_process

Value = TypeVar("Value")


class LostRankError(AdaptiveISPError):
    """Another rank ended, or did not answer in time.

    Attributes:
        what: that in words, without a remedy.
    """

    def __init__(self, message: str, what: str):
        super().__init__(message)
        self.what = what


@dataclass(frozen=True)
class Ranks:
    """The ranks of this run, as one of them sees them.

    Attributes:
        rank: number of this process, from 0.
        size: number of processes.
        timeout: seconds for which it waits for the others.
    """

    rank: int = 0
    size: int = 1
    timeout: float = RANK_TIMEOUT

    @property
    def alone(self) -> bool:
        """Whether this is the only process, in which case every method returns its argument."""
        return self.size == 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes."""
        return self.rank == 0

    def counts(self, n: int, group: int = 1) -> list[int]:
        """Number of rows that each rank computes of a batch.

        Args:
            n: rows of the batch.
            group: rows of an image, which stay together.

        >>> Ranks(0, 3).counts(8), Ranks(0, 3).counts(8, group=2)
        ([2, 3, 3], [2, 2, 4])
        """
        edges = [group * (n // group * rank // self.size) for rank in range(self.size + 1)]
        return [high - low for low, high in pairwise(edges)]

    def own(self, counts: Sequence[int]) -> slice:
        """The rows of this rank where each rank has a number of them, in the order of the ranks.

        >>> Ranks(1, 3).own([2, 3, 3])
        slice(2, 5, None)
        """
        first = sum(counts[: self.rank])
        return slice(first, first + counts[self.rank])

    def counts_among(self, places: Tensor, counts: Sequence[int]) -> list[int]:
        """Number of rows of each rank among some rows of a batch.

        Args:
            places: of these rows in the batch, rising.
            counts: rows of each rank in the batch.

        >>> Ranks(0, 2).counts_among(torch.tensor([0, 1, 3]), [2, 2])
        [2, 1]
        """
        ends = torch.tensor(counts).cumsum(0)
        below = [int((places.cpu() < end).sum()) for end in ends]
        return [high - low for low, high in pairwise([0, *below])]

    def gather(self, own: Tensor, counts: Sequence[int]) -> Tensor:
        """The rows of all ranks, in the order of the ranks, without a gradient.

        Args:
            own: the rows of this rank.
            counts: rows of each rank.
        """
        if self.alone:
            return own
        most, kind = max(counts), own.dtype
        padded = own.new_zeros((most, *own.shape[1:]))
        padded[: len(own)] = own.detach()
        if kind == torch.bool:
            padded = padded.to(torch.uint8)
        parts = [torch.empty_like(padded) for _ in counts]
        if padded.numel():
            with self._answered():
                dist.all_gather(parts, padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)]).to(kind)

    def gather_objects(self, own: Value) -> list[Value]:
        """A value of each rank, in their order; values are pickled, and tensors among them are on the CPU."""
        if self.alone:
            return [own]
        found: list[Any] = [None] * self.size
        with self._answered():
            dist.all_gather_object(found, own)
        return found

    def same(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The values that the tensors have on the first rank; they have the same shapes and types on all."""
        if self.alone or not tensors:
            return tensors
        flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
        with self._answered():
            dist.broadcast(flat, 0)
        parts = torch.split(flat, [tensor.numel() for tensor in tensors])
        # In the memory format of the tensors: fused optimisers take that of a gradient for the weight's.
        pairs = zip(parts, tensors, strict=True)
        return tuple(torch.empty_like(tensor).copy_(part.view(tensor.shape)) for part, tensor in pairs)

    def same_state(self, generator: torch.Generator) -> None:
        """Sets a random generator to its state on the first rank."""
        if not self.alone:
            generator.set_state(*self.same(generator.get_state()))

    def together(self, work: Callable[[], Value]) -> Value:
        """The result of work that every rank does; if it fails on one, it fails on all.

        Raises:
            AdaptiveISPError: that of the work, on the first rank on which it failed.
            SilentError: it failed on another rank, which tells the reason.
        """
        if self.alone:
            return work()
        result, error = None, None
        try:
            result = work()
        except AdaptiveISPError as found:
            error = found
        failed = [rank for rank, bad in enumerate(self.gather_objects(error is not None)) if bad]
        if error is not None and failed[0] == self.rank:
            raise error
        if failed:
            raise SilentError(f"rank {failed[0]} failed; see its message")
        return result  # type: ignore[return-value]

    def on_first(self, work: Callable[[], Value]) -> Value:
        """The result of work that the first rank does alone, on every rank; the result is pickled.

        Raises:
            AdaptiveISPError: that of the work, on the first rank.
            SilentError: the same on the others.
        """
        if self.alone:
            return work()
        found: list[Value] = []
        self.together(lambda: found.append(work()) if self.first else None)
        with self._answered():
            carried: list[Any] = [found[0] if self.first else None]
            dist.broadcast_object_list(carried, 0)
        return carried[0]  # type: ignore[no-any-return]

    def leave(self) -> None:
        """Ends the connection to the other ranks."""
        if not self.alone and dist.is_initialized():
            dist.destroy_process_group()

    @contextmanager
    def _answered(self) -> Iterator[None]:
        """Turns the errors of a collective, which PyTorch raises as RuntimeError, into one line.

        Raises:
            LostRankError: another rank ended, or did not answer in time.
        """
        try:
            yield
        except RuntimeError as error:
            slow = "timed out" in str(error).lower() or "timeout" in str(error).lower()
            what = f"did not answer within {self.timeout:g} s" if slow else "has ended"
            found = f"rank {self.rank} of {self.size}: another rank {what}"
            raise LostRankError(f"{found}; see its message, then start all ranks again", found) from error


ALONE = Ranks()
"""The only process of a run."""


def join(device: str = "cpu", timeout: float = RANK_TIMEOUT) -> Ranks:
    """The ranks of the run that `torchrun` started, to which this process connects; `ALONE` without torchrun.

    A process group that exists already, made by the user's own script, is used as it is.

    Args:
        device: "cpu", or "cuda" for one GPU of this host for each of its ranks.
        timeout: seconds for which a rank waits for the others.

    Raises:
        UsageError: torch was built without torch.distributed, there are fewer GPUs than ranks, or `timeout` is 0.
        LostRankError: the others cannot be reached.
    """
    place = place_of_process()
    if place is None:
        return ALONE
    if not dist.is_available():
        raise UsageError("torchrun: this build of torch has no torch.distributed; start without torchrun")
    if timeout <= 0:
        raise UsageError("--rank-timeout: must be above 0 s")
    ranks = Ranks(place.rank, place.size, timeout)
    if device == "cuda":
        n = torch.cuda.device_count()
        if place.local_rank >= n:
            raise UsageError(f"torchrun: more ranks than the {n} GPUs of this host; start {n}, or give --device cpu")
        torch.cuda.set_device(place.local_rank)
    if not dist.is_initialized():
        with ranks._answered():
            backend = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
            dist.init_process_group(backend, timeout=timedelta(seconds=timeout), rank=place.rank, world_size=place.size)
    return ranks
