"""Frames on their way through several workers: taken in order, passed in order where that matters, handed out in order.

Each frame that a worker takes gets a ticket, counted from 0. Work that depends on the frames before, such as smoothing,
is done in a `turn`, which comes to the tickets one after the other; all other work overlaps. The number of frames on
their way is limited, so that a slow caller holds the source back instead of filling the memory.
"""

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

Item = TypeVar("Item")
Made = TypeVar("Made")

POLL_SECONDS = 0.1
"""Interval at which a waiting thread looks again, so that an interrupt reaches the main thread on every system."""


class Stopped(Exception):  # an end, and no error
    """The flow was stopped while a thread waited."""


class OrderedFlow(Generic[Item, Made]):
    """The queue of waiting items, the tickets, and the results that are not yet handed out.

    Args:
        waiting: most items that wait for a worker.
        ahead: most items that are taken and not yet handed out.

    Attributes:
        dropped: number of items that were dropped to make room.
    """

    def __init__(self, waiting: int, ahead: int):
        self.dropped = 0
        self._limit, self._ahead = waiting, ahead
        self._changed = threading.Condition()
        self._waiting: deque[Item] = deque()
        self._taken = self._passed = self._given = 0
        self._done: dict[int, Made | None] = {}
        self._has_ended = self._is_stopped = False

    def put(self, item: Item, drop_oldest: bool = False) -> None:
        """Adds an item; waits for room, or drops the item that waits longest.

        Raises:
            Stopped: the flow was stopped.
        """
        with self._changed:
            while len(self._waiting) >= self._limit:
                if drop_oldest:
                    self._waiting.popleft()
                    self.dropped += 1
                else:
                    self._wait()
            if self._is_stopped:
                raise Stopped
            self._waiting.append(item)
            self._changed.notify_all()

    def end(self) -> None:
        """Says that no further item comes."""
        with self._changed:
            self._has_ended = True
            self._changed.notify_all()

    def stop(self) -> None:
        """Ends all waiting; items that wait are lost."""
        with self._changed:
            self._is_stopped = True
            self._changed.notify_all()

    def take(self) -> tuple[int, Item] | None:
        """The next item with its ticket; None after the last.

        Raises:
            Stopped: the flow was stopped.
        """
        with self._changed:
            while not self._waiting or self._taken - self._given >= self._ahead:
                if self._has_ended and not self._waiting:
                    return None
                self._wait()
            item, ticket = self._waiting.popleft(), self._taken
            self._taken += 1
            self._changed.notify_all()
            return ticket, item

    @contextmanager
    def turn(self, ticket: int) -> Iterator[None]:
        """Waits for the turn of a ticket; each ticket must take its turn once, also if its work failed.

        Raises:
            Stopped: the flow was stopped.
        """
        with self._changed:
            while self._passed != ticket:
                self._wait()
        try:
            yield
        finally:
            with self._changed:
                self._passed += 1
                self._changed.notify_all()

    def finish(self, ticket: int, made: Made | None) -> None:
        """Gives the result of a ticket; None if there is none."""
        with self._changed:
            self._done[ticket] = made
            self._changed.notify_all()

    def results(self) -> Iterator[Made]:
        """Yields the results in the order of the tickets until the last, or until the flow is stopped."""
        while True:
            with self._changed:
                while self._given not in self._done:
                    if self._is_stopped or (self._has_ended and not self._waiting and self._given == self._taken):
                        return
                    self._changed.wait(POLL_SECONDS)
                made = self._done.pop(self._given)
                self._given += 1
                self._changed.notify_all()
            if made is not None:
                yield made

    def _wait(self) -> None:
        """Waits for a change while holding the lock.

        Raises:
            Stopped: the flow was stopped.
        """
        if self._is_stopped:
            raise Stopped
        self._changed.wait(POLL_SECONDS)
