"""Sources that can be lost and come back: cameras and addresses, which are opened again after a loss."""

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

from adaptiveisp.errors import RawFileError, logger
from adaptiveisp.streaming.frame import Frame
from adaptiveisp.utils.defaults import RECONNECT_S

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0
"""Seconds before the first new attempt, and the most before a later one; each pause is twice the one before."""

Open = Callable[[threading.Event], Iterator[Frame]]
"""Opens a source and yields its frames until it ends, fails, or the event is set; closes it in any case."""


class EndOfLive(RawFileError):
    """A live source, which has no length, ended without an error: its sender has stopped."""


class Reconnecting:
    """An iterable of the frames of a source that is opened again after a loss.

    Frames are numbered through, whatever the source says. Times go on too: after a loss they continue from the last
    frame's time by the clock, so that the gap is seen in them. The first opening is tried once, since an error there is
    most likely a wrong name; later ones are tried again with growing pauses. Each loss and each return is logged.

    Args:
        name: name of the source for messages.
        open_frames: opens it.
        seconds: longest time from a loss to the next frame; 0 never opens it again.
    """

    def __init__(self, name: str, open_frames: Open, seconds: float = RECONNECT_S):
        self.name, self.seconds = name, seconds
        self._open = open_frames
        self._stopped = threading.Event()
        self._number = 0
        self._last_time: float | None = None
        self._lost_at: float | None = None

    def stop(self) -> None:
        """Ends the frames, at the latest when the source next gives a frame or its wait is over."""
        self._stopped.set()

    def __iter__(self) -> Iterator[Frame]:
        """Opens the source and yields its frames.

        Raises:
            RawFileError: the source cannot be opened, or was lost and did not come back in time.
            UsageError: the source contradicts what was declared.
        """
        pause = FIRST_PAUSE
        while not self._stopped.is_set():
            number = self._number
            try:
                yield from self._frames()
                return
            except RawFileError as error:
                if self._stopped.is_set() or (not self.seconds and isinstance(error, EndOfLive)):
                    return
                if not self.seconds or not self._number:
                    raise
                if self._number > number:
                    pause = FIRST_PAUSE
                self._check_patience(error, pause)
            self._stopped.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _frames(self) -> Iterator[Frame]:
        """Opens the source once, and yields its frames with numbers and times that go on."""
        shift = 0.0 if self._lost_at is None else None
        gap = 0.0
        for frame in self._open(self._stopped):
            if self._lost_at is not None:
                gap, self._lost_at = time.monotonic() - self._lost_at, None
                logger.warning("%s: is back after %.1f s, from frame %d on", self.name, gap, self._number)
            when = frame.time_s
            if when is not None:
                if shift is None:
                    shift = (self._last_time or 0.0) + gap - when
                when = self._last_time = when + shift
            name = f"frame-{self._number:06d}"
            self._number += 1
            yield replace(frame, name=name, time_s=when)

    def _check_patience(self, error: RawFileError, pause: float) -> None:
        """Logs a new loss.

        Raises:
            RawFileError: the next attempt would come too late.
        """
        now, reason = time.monotonic(), str(error).removeprefix(f"{self.name}: ")
        if self._lost_at is None:
            self._lost_at = now
            text = "%s: lost after frame %d, trying again for %g s (%s)"
            logger.warning(text, self.name, self._number - 1, self.seconds, reason)
        if now + pause > self._lost_at + self.seconds:
            since = f"was lost after frame {self._number - 1} and did not come back within {self.seconds:g} s"
            raise RawFileError(f"{self.name}: {since} ({reason})") from None
