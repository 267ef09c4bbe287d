"""Caches CUDA graphs: a repeated call with the same key and shapes is captured once and replayed from then on.

A pipeline of five modules launches about a hundred kernels of a few microseconds each, and PyTorch takes longer to
launch one than the GPU to run it; a graph launches all of them at once. The kernels, and so the results, are the same.

Captured work must depend on its tensors and its key alone. Work that waits for the GPU (`.item()`, `.tolist()`, a
tensor made from Python numbers) cannot be captured and runs without a graph. A trial run finds that out first, since a
capture that fails leaves PyTorch's random state and memory pool invalid.
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
"""Most values of all inputs together: with larger ones, launching the kernels takes less time than running them."""
KEPT = 64
"""Most graphs of one `Recordings`; the least recently used one is dropped first."""

WAITING = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
"""Tags of operations that wait for a result from the GPU."""

Tensors = tuple[Tensor, ...]
Work = Callable[..., Tensors]

_lock = threading.RLock()
"""Held from the copy of the inputs to the copy of the outputs, since all replays share their memory."""


@cache
def _pool() -> Any:
    """One memory pool for all graphs: a graph no longer needs it once its outputs are copied."""
    return torch.cuda.graph_pool_handle()


@cache
def _aside(device: torch.device) -> torch.cuda.Stream:
    """The stream in which a device's work is captured: memory freed in a pool is reused only in its own stream."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def turned_off() -> AbstractContextManager[None]:
    """Within the context everything runs without graphs; for comparisons, in one thread only."""
    return switched_off(SWITCH)


class NotRecordableError(RuntimeError):
    """The work waits for the GPU, so that it cannot be captured."""


class _Watched(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises where an operation of this thread waits for the device, or uses tensors of another device.

    `lift_fresh` is the operation with which PyTorch makes a tensor from Python numbers.
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
    """A graph, the tensors that it reads and those that it writes."""

    graph: Any
    inputs: Tensors
    outputs: Tensors

    def replay(self, given: Tensors) -> Tensors:
        for ours, theirs in zip(self.inputs, given, strict=True):
            ours.copy_(theirs)
        self.graph.replay()
        return tuple(output.clone() for output in self.outputs)


def _record(work: Work, given: Tensors) -> _Recording:
    """The graph of the work on copies of the tensors.

    Raises:
        NotRecordableError: the work waits for the device.
        Exception: it cannot be captured for another reason.
    """
    device = given[0].device
    inputs = tuple(tensor.clone() for tensor in given)
    aside = _aside(device)
    aside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(aside), _Watched(device):
        work(*inputs)  # a library's first call in a stream initialises it, which cannot be captured
    torch.cuda.current_stream(device).wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, pool=_pool(), stream=aside, capture_error_mode="thread_local"):
        outputs = work(*inputs)
    torch.cuda.current_stream(device).wait_stream(aside)
    return _Recording(graph, inputs, outputs)


class Recordings:
    """Graphs by name and by shapes, types and device of the tensors; several threads may use it."""

    def __init__(self) -> None:
        self._known: OrderedDict[Hashable, _Recording | None] = OrderedDict()
        self._refused: set[Hashable] = set()

    def run(self, name: Hashable, work: Work, *given: Tensor) -> Tensors:
        """The results of the work, as new tensors.

        The work runs without a graph the first time, on the CPU, where a gradient is wanted, and for large tensors.

        Args:
            name: key of the work; calls with the same name must do the same work.
            work: (the tensors) → tensors, without a gradient.
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
        """The graph, or None where the capture fails; the work then runs without a graph from now on."""
        try:
            return _record(work, given)
        except Exception:  # it waits for the device, memory is short, or a library cannot be captured
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
    if torch.is_autocast_enabled("cuda"):  # its half-precision copies of weights are freed, but a graph would read them
        return False
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given):
        return False
    if sum(tensor.numel() for tensor in given) > LARGEST or not all(tensor.is_cuda for tensor in given):
        return False
    device = given[0].device
    # Work on a stream of the caller's own is not ordered with the replays of others.
    same: bool = torch.cuda.current_stream(device) == torch.cuda.default_stream(device)
    return same and not torch.cuda.is_current_stream_capturing()


SHARED = Recordings()
"""Graphs of work that depends on its tensors and its name alone."""
