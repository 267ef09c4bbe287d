"""Work of many small kernels on a GPU: recorded as a CUDA graph when it comes up again, and replayed from then on.

A pipeline of five modules is a hundred kernels of a few microseconds each. PyTorch takes longer to start one than the
GPU to run it; a graph starts them all at once. The kernels, and so the numbers, are the same.

What is recorded must depend on its tensors and its name alone. Work that waits for the GPU (`.item()`, `.tolist()`, a
tensor made from Python numbers) cannot be recorded and is done as always. That is found out before: a recording that
fails leaves PyTorch's random numbers and memory in disorder.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from adaptiveisp.kernels.switches import is_off, switched_off

SWITCH = "ADAPTIVEISP_CUDA_GRAPHS"
"""Environment variable: 0 turns graphs off."""
LARGEST = 1 << 23
"""Values of all inputs together, above which starting the kernels takes less time than the kernels."""
KEPT = 64
"""Recordings that one `Recordings` holds; what was not used for longest goes first."""

WAITING = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
"""Of operations that cannot be done before the GPU has said something."""

Tensors = tuple[Tensor, ...]
Work = Callable[..., Tensors]

_lock = threading.RLock()
"""Between what goes into a recording and what comes out of it no other thread may come."""


@cache
def _pool() -> Any:
    """One memory pool for all recordings: each is done with it when its outputs have been copied."""
    return torch.cuda.graph_pool_handle()


@cache
def _aside(device: torch.device) -> torch.cuda.Stream:
    """The stream in which a device's work is recorded: what is freed in a pool is used again in its own stream only."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def turned_off() -> AbstractContextManager[None]:
    """Everything inside runs without graphs; for comparisons, in one thread only."""
    return switched_off(SWITCH)


class NotRecordableError(RuntimeError):
    """Work that waits for the GPU."""


class _Watched(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises where an operation would wait for the device, or takes or gives tensors of another one; in this thread.

    `lift_fresh` is what PyTorch calls last where it makes a tensor of Python numbers.
    """

    def __init__(self, device: torch.device):
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = device

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = function(*args, **(kwargs or {}))
        name = function.name()
        tensors = [leaf for leaf in tree_leaves((args, kwargs, found)) if isinstance(leaf, Tensor)]
        waits = name == "aten::lift_fresh" or any(tag in WAITING for tag in function.tags)
        masks = "index" in name and any(tensor.dtype == torch.bool for tensor in tensors)
        if waits or masks or any(tensor.device != self.device for tensor in tensors):
            raise NotRecordableError(f"{name} waits for the device")
        return found


@dataclass(frozen=True)
class _Recording:
    """A graph, the tensors it reads and those it writes."""

    graph: Any
    inputs: Tensors
    outputs: Tensors

    def replay(self, given: Tensors) -> Tensors:
        for ours, theirs in zip(self.inputs, given, strict=True):
            ours.copy_(theirs)
        self.graph.replay()
        return tuple(output.clone() for output in self.outputs)


def _record(work: Work, given: Tensors) -> _Recording:
    """The work on copies of the tensors, recorded.

    Raises:
        NotRecordableError: the work waits for the device.
        Exception: whatever else keeps it from being recorded.
    """
    device = given[0].device
    inputs = tuple(tensor.clone() for tensor in given)
    aside = _aside(device)
    aside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(aside), _Watched(device):
        work(*inputs)  # libraries set themselves up on their first call in a stream, which cannot be recorded
    torch.cuda.current_stream(device).wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=_pool(), stream=aside, capture_error_mode="thread_local"):
        outputs = work(*inputs)
    torch.cuda.current_stream(device).wait_stream(aside)
    return _Recording(graph, inputs, outputs)


class Recordings:
    """Recorded work by name, and by its tensors' shapes, types and device; it may be used by several threads."""

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, _Recording | None] = OrderedDict()
        self._refused: set[Hashable] = set()

    def run(self, name: Hashable, work: Work, *given: Tensor) -> Tensors:
        """What the work gives, as new tensors.

        The first time, on the CPU, where a gradient is wanted, or for large tensors it is simply done.

        Args:
            name: of the work: the same name, the same work.
            work: (the tensors) → tensors; no gradient passes.
            given: tensors on one device.
        """
        if not _worthwhile(given):
            return work(*given)
        key = name, tuple((tensor.shape, tensor.dtype, tensor.device) for tensor in given)
        with _lock, torch.inference_mode(mode=False), torch.no_grad():
            if key in self._refused:
                return work(*given)
            if key not in self._known:
                self._remember(key, None)
                return work(*given)
            recording = self._known[key] or self._try_to_record(key, work, given)
            if recording is None:
                return work(*given)
            self._remember(key, recording)
            return recording.replay(given)

    def _try_to_record(self, key: Hashable, work: Work, given: Tensors) -> _Recording | None:
        """None where it fails, for whatever reason: the work is then done as always, and no memory of this is kept."""
        try:
            return _record(work, given)
        except Exception:  # it waits for the device, there is no room for copies, a library of its own refuses
            self._refused.add(key)
            del self._known[key]
            return None

    def _remember(self, key: Hashable, recording: _Recording | None) -> None:
        self._known[key] = recording
        self._known.move_to_end(key)
        if len(self._known) > KEPT:
            self._known.popitem(last=False)


def _worthwhile(given: Tensors) -> bool:
    if not given or not given[0].is_cuda or not torch.cuda.is_available() or is_off(SWITCH):
        return False
    if torch.is_autocast_enabled(
        "cuda"
    ):  # it keeps weights in half precision until its end, which a recording would read
        return False
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given):
        return False
    if sum(tensor.numel() for tensor in given) > LARGEST or not all(tensor.is_cuda for tensor in given):
        return False
    device = given[0].device
    # On a stream of the caller's own, what it has under way there is not ordered with what others replay.
    same: bool = torch.cuda.current_stream(device) == torch.cuda.default_stream(device)
    return same and not torch.cuda.is_current_stream_capturing()


SHARED = Recordings()
"""Of work that depends on nothing but its tensors and its name."""
