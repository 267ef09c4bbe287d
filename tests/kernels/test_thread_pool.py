"""Work in parts on several threads: each part once, results in order, and no part outlives an error."""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor, wait
from functools import partial
from typing import Any

import pytest
import torch

from adaptiveisp.kernels import thread_pool as threads
from adaptiveisp.kernels.thread_pool import ranges, spread, start_anew


@pytest.mark.parametrize(("n", "unit", "least"), [(1, 32, 1), (100, 32, 1), (64, 32, 64), (1000, 1, 1), (7, 1, 100)])
def test_ranges_cover_everything_once(n: int, unit: int, least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    found = ranges(n, unit, least)
    assert [i for a, b in found for i in range(a, b)] == list(range(n))
    assert len(found) <= 4 and all(a % unit == 0 for a, _ in found)


def test_several_threads_may_work_at_once_while_the_pool_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    start_anew()
    threads = itertools.cycle([2, 3, 4, 5, 6, 7])
    monkeypatch.setattr(torch, "get_num_threads", lambda: next(threads))

    def one(n: int) -> list[int]:
        return spread([partial(pow, i, 2) for i in range(n)])

    with ThreadPoolExecutor(4) as outer:
        found = list(outer.map(one, [8] * 200))
    assert found == [[i * i for i in range(8)]] * 200


def test_an_error_waits_for_the_other_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """They write to memory that is given up afterwards."""
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    running: list[int] = []

    def slow() -> None:
        running.append(1)
        time.sleep(0.2)
        running.pop()

    def fails() -> None:
        time.sleep(0.05)
        raise KeyboardInterrupt

    for parts in ([slow, slow, fails], [fails, slow, slow], [slow, fails, slow]):
        with pytest.raises(KeyboardInterrupt):
            spread(parts)
        assert not running

    def interrupted(futures: Any) -> Any:
        monkeypatch.setattr(threads, "wait", wait)
        raise KeyboardInterrupt

    monkeypatch.setattr(threads, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        spread([lambda: None, slow, slow])
    assert not running, "waiting itself was interrupted"


def test_work_is_spread_in_order_and_errors_come_through(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert spread([lambda i=i: i * i for i in range(20)]) == [i * i for i in range(20)]
    with pytest.raises(ZeroDivisionError):
        spread([lambda: 1, lambda: 1 // 0, lambda: 2])
