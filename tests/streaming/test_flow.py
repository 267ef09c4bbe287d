"""The flow of frames: order of taking, of turns and of results, limits, and ends."""

import random
import threading
import time

import pytest

from adaptiveisp.streaming.flow import OrderedFlow, Stopped


def run(flow: OrderedFlow[int, int], workers: int, n: int, turns: list[int]) -> list[int]:
    """The results of `n` items through workers of random speed, of which every fifth gives none."""
    speed = random.Random(0)
    delays = [speed.random() * 0.004 for _ in range(2 * n)]

    def work() -> None:
        while (taken := flow.take()) is not None:
            ticket, item = taken
            time.sleep(delays[2 * item])
            with flow.turn(ticket):
                turns.append(item)
            time.sleep(delays[2 * item + 1])
            flow.finish(ticket, None if item % 5 == 4 else item)

    def read() -> None:
        for item in range(n):
            flow.put(item)
        flow.end()

    threads = [threading.Thread(target=work) for _ in range(workers)] + [threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    found = list(flow.results())
    for thread in threads:
        thread.join(timeout=5)
        assert not thread.is_alive()
    return found


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_turns_and_results_keep_the_order(workers: int) -> None:
    turns: list[int] = []
    found = run(OrderedFlow(2, workers + 2), workers, 60, turns)
    assert turns == list(range(60)) and found == [item for item in range(60) if item % 5 != 4]


def test_no_more_is_taken_than_may_be_ahead_of_the_caller() -> None:
    flow: OrderedFlow[int, int] = OrderedFlow(10, 3)
    for item in range(5):
        flow.put(item)
    for _ in range(3):
        taken = flow.take()
        assert taken is not None
        flow.finish(*taken)
    threading.Timer(0.05, flow.stop).start()
    with pytest.raises(Stopped):
        flow.take()


def test_the_oldest_waiting_item_is_dropped() -> None:
    flow: OrderedFlow[str, str] = OrderedFlow(2, 2)
    for item in "abcd":
        flow.put(item, drop_oldest=True)
    assert flow.take() == (0, "c") and flow.take is not None and flow.dropped == 2


def test_a_turn_is_passed_on_after_an_error_and_a_stop_ends_all_waiting() -> None:
    flow: OrderedFlow[int, int] = OrderedFlow(2, 2)
    with pytest.raises(ValueError, match="wrong"), flow.turn(0):
        raise ValueError("wrong")
    with flow.turn(1):
        pass
    threading.Timer(0.05, flow.stop).start()
    with pytest.raises(Stopped), flow.turn(5):
        pass
    with pytest.raises(Stopped):
        flow.put(1)
        flow.put(2)
        flow.put(3)
    assert list(flow.results()) == []
