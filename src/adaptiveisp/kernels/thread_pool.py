"""Runs the parts of a computation on torch's number of threads, each of which keeps its own working memory."""

import itertools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import torch

_local = threading.local()
_pools: dict[str, Any] = {"lock": threading.Lock()}
"""The pool of helper threads and its size, from the first use on, and the lock that guards them."""


def scratch(n_bytes: int) -> int:
    """Address of this thread's working memory, at least `n_bytes` long."""
    if getattr(_local, "size", 0) < n_bytes:
        _local.memory, _local.size = torch.zeros(n_bytes, dtype=torch.uint8), n_bytes
    address: int = _local.memory.data_ptr()
    return address


def row_scratch(rows: int, width: int) -> int:
    """Address of working memory for `rows` rows of float32, each 16 values longer than `width`."""
    return scratch(4 * rows * (width + 16))


def _submit(work: Callable[[], None], helpers: int) -> list[Future[None]]:
    """Starts the work on `helpers` threads; a larger pool replaces one that is too small."""
    with _pools["lock"]:  # several threads may render, and none may submit to a pool that another shut down
        if _pools.get("size", 0) < helpers:
            if "pool" in _pools:
                _pools["pool"].shutdown(wait=False)
            _pools.update(pool=ThreadPoolExecutor(helpers, thread_name_prefix="adaptiveisp"), size=helpers)
        started: list[Future[None]] = []
        try:
            started += (_pools["pool"].submit(work) for _ in range(helpers))
        except BaseException:
            _wait_for_all(started)
            raise
        return started


def start_anew() -> None:
    """Forgets the pool in a child process, which inherits it without its threads."""
    _pools.clear()
    _pools["lock"] = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=start_anew)


def spread(parts: Sequence[Callable[[], Any]]) -> list[Any]:
    """The results of all parts, computed on torch's number of threads, including the calling one.

    After an error no further part starts, and the error is raised when the running parts have ended.

    Args:
        parts: calls that release the interpreter lock, as ctypes does while a kernel runs.
    """
    helpers = min(torch.get_num_threads(), len(parts)) - 1
    if helpers < 1:
        return [part() for part in parts]
    stopped = threading.Event()
    results: list[Any] = [None] * len(parts)
    numbers = itertools.count()

    def work() -> None:
        while not stopped.is_set() and (number := next(numbers)) < len(parts):
            try:
                results[number] = parts[number]()
            except BaseException:
                stopped.set()
                raise

    waiting = _submit(work, helpers)
    try:
        work()
    finally:
        stopped.set()
        _wait_for_all(waiting)
    for future in waiting:
        future.result()
    return results


def _wait_for_all(running: Sequence[Future[None]]) -> None:
    """Waits also through interrupts, since the memory that helpers write to is freed afterwards."""
    interrupted: KeyboardInterrupt | None = None
    while True:
        try:
            wait(running)
            break
        except KeyboardInterrupt as error:
            interrupted = error
    if interrupted is not None:
        raise interrupted


def ranges(n: int, unit: int, least: int) -> list[tuple[int, int]]:
    """Ranges (start, stop) of 0..n for torch's threads, cut at multiples of `unit`, none much shorter than `least`.

    >>> ranges(100, 32, 1000)
    [(0, 100)]
    """
    if n < 1:
        return []
    threads = max(1, min(torch.get_num_threads(), n // max(least, 1)))
    step = -(-n // (threads * unit)) * unit
    return [(start, min(start + step, n)) for start in range(0, n, step)]
