"""An external ISP behind a pipe: a program that is started once and develops one raw after the other.

A request is a line of JSON, {"request": K, "dng_bytes": N, "params": {name: value, …}}, followed by the N bytes of a
DNG. The answer is a line of JSON, {"request": K, "shape": [height, width, 3], "dtype": "uint8" or "uint16"}, followed
by the pixels row by row in little-endian order; or {"request": K, "error": "reason"} alone. K counts the requests; an
answer repeats it, so that no picture is taken for that of another request. The program ends when its standard input is
closed.
"""

import contextlib
import json
import math
import os
import selectors
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptiveisp.errors import PipelineError, logger
from adaptiveisp.external.program import SECONDS, dng_of
from adaptiveisp.isp.module import Param
from adaptiveisp.types import RawImage
from adaptiveisp.utils.config import require

LONGEST_LINE = 1 << 16
"""Most bytes of an answer's first line."""
MOST_PIXELS = 1 << 28
"""Most pixels of an answer, above those of any camera."""
TYPES = {"uint8": "u1", "uint16": "<u2"}


TRIES = 2
"""Times that a program gets a raw, if it ends instead of answering."""


class _Ended(PipelineError):
    """The program ended."""


class _Refusal(Exception):
    """The program answered with an error, after which it can go on."""


class WorkerISP:
    """A program that is started for the first raw and then kept running.

    Every process and every copy starts its own; a program that ends or takes too long is started again for the next
    raw.

    Args:
        name: key in pipelines and policies.
        params: its parameters, whose `neutral` values are the program's own defaults.
        command: the program and its arguments.
        seconds: longest time for a raw.
        cost_ms: milliseconds of a call, for tables of costs.

    Raises:
        UsageError: the command is empty.
    """

    def __init__(
        self,
        name: str,
        params: tuple[Param, ...],
        command: Sequence[str],
        seconds: float = SECONDS,
        cost_ms: float = 0.0,
    ):
        require(len(command) > 0, f"{name}: command must name a program")
        self.name, self.params, self.command = name, params, tuple(command)
        self.seconds, self.cost_ms = seconds, cost_ms
        self._process: subprocess.Popen[bytes] | None = None
        self._owner, self._requests = 0, 0
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        """The settings, without the running program."""
        return {name: value for name, value in vars(self).items() if not name.startswith("_")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def render(self, raw: RawImage, params: Mapping[str, float]) -> NDArray[Any]:
        """The picture that the program makes of a raw, (height, width, 3) or (height, width).

        A program that ends is started again, `TRIES` times in all, so that a rare crash does not end a long search.

        Args:
            raw: a Bayer mosaic or a monochrome raw, which is sent as DNG.
            params: every parameter by name.

        Raises:
            PipelineError: the raw is no mosaic, or the program is missing, says that it failed, ends, takes too long,
                or answers otherwise.
        """
        content = dng_of(raw, self.name)
        with self._lock:
            for left in reversed(range(TRIES)):
                self._requests += 1
                head = {"request": self._requests, "dng_bytes": len(content), "params": dict(params)}
                try:
                    return self._answer(self._started(), json.dumps(head).encode() + b"\n" + content)
                except _Refusal as error:
                    raise PipelineError(f"{self.name}: {error}") from None
                except BaseException as error:
                    self.close()
                    if isinstance(error, OSError | ValueError | KeyError | TypeError):
                        what = f"{self.command[0]} broke the protocol of external.worker ({error})"
                        raise PipelineError(f"{self.name}: {what}") from error
                    if not (left and isinstance(error, _Ended)):
                        raise
                    logger.warning("%s; it is started again", error)
            raise AssertionError("unreachable")

    def close(self) -> None:
        """Ends the program; the next raw starts it again."""
        process, self._process = self._process, None
        if process is None or self._owner != os.getpid():
            return
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        try:
            process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _started(self) -> "subprocess.Popen[bytes]":
        """The running program of this process.

        Raises:
            PipelineError: it cannot be started.
        """
        forked = self._owner != os.getpid()  # the pipes belong to the parent
        if self._process is None or forked or self._process.poll() is not None:
            try:
                self._process = subprocess.Popen(self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
            except OSError as error:
                reason = f"{self.command[0]} cannot be started ({error.strerror}); install it"
                raise PipelineError(f"{self.name}: {reason}") from error
            self._owner = os.getpid()
            for pipe in (self._process.stdin, self._process.stdout):
                assert pipe is not None
                os.set_blocking(pipe.fileno(), False)
        return self._process

    def _answer(self, process: "subprocess.Popen[bytes]", request: bytes) -> NDArray[Any]:
        """Sends a request and reads the picture.

        Raises:
            _Refusal: the program says that it failed.
            PipelineError: it ends or takes too long.
            OSError, ValueError, KeyError, TypeError: it does not follow the protocol.
        """
        assert process.stdin is not None and process.stdout is not None
        talk = _Talk(self.name, process.stdin.fileno(), process.stdout.fileno(), time.monotonic() + self.seconds)
        talk.send(request)
        answer = json.loads(talk.line())
        if answer["request"] != self._requests:
            raise ValueError(f"an answer to request {answer['request']!r} instead of {self._requests}")
        if "error" in answer:
            raise _Refusal(" ".join(str(answer["error"]).split())[:200])
        shape = tuple(int(side) for side in answer["shape"])
        if not 2 <= len(shape) <= 3 or min(shape) < 1 or math.prod(shape) > 3 * MOST_PIXELS:
            raise ValueError(f"a picture of shape {shape}")
        kind = np.dtype(TYPES[answer["dtype"]])
        pixels = talk.take(math.prod(shape) * kind.itemsize)
        if talk.buffer:
            raise ValueError("more bytes than its picture has")
        return np.frombuffer(pixels, kind).reshape(shape)


class _Talk:
    """Writes to and reads from a program without waiting longer than until a deadline.

    Args:
        name: of the ISP, for errors.
        to, back: file descriptors of its input and output, which do not block.
        deadline: in seconds of `time.monotonic`.
    """

    def __init__(self, name: str, to: int, back: int, deadline: float):
        self.name, self.to, self.back, self.deadline = name, to, back, deadline
        self.buffer = bytearray()

    def send(self, content: bytes) -> None:
        """Writes all of it; an answer that begins before the end is read meanwhile."""
        rest = memoryview(content)
        with selectors.DefaultSelector() as ready:
            ready.register(self.to, selectors.EVENT_WRITE)
            ready.register(self.back, selectors.EVENT_READ)
            while rest:
                for key, _ in self._ready(ready):
                    if key.fd == self.back:
                        self._fill()
                    else:
                        try:
                            rest = rest[os.write(self.to, rest[: 1 << 16]) :]
                        except BrokenPipeError:
                            raise _Ended(f"{self.name}: the program ended; try it by hand") from None

    def line(self) -> bytes:
        """The answer's first line."""
        while b"\n" not in self.buffer:
            if len(self.buffer) > LONGEST_LINE:
                raise ValueError("its answer does not begin with a line of JSON")
            self._wait()
        end = self.buffer.index(b"\n")
        found = bytes(self.buffer[:end])
        del self.buffer[: end + 1]
        return found

    def take(self, count: int) -> bytes:
        """The next bytes of the answer."""
        while len(self.buffer) < count:
            self._wait()
        found = bytes(self.buffer[:count])
        del self.buffer[:count]
        return found

    def _wait(self) -> None:
        with selectors.DefaultSelector() as ready:
            ready.register(self.back, selectors.EVENT_READ)
            self._ready(ready)
        self._fill()

    def _ready(self, ready: selectors.BaseSelector) -> list[tuple[selectors.SelectorKey, int]]:
        """The descriptors that can be used now.

        Raises:
            PipelineError: the deadline has passed.
        """
        found = ready.select(max(0.0, self.deadline - time.monotonic()))
        if not found:
            raise PipelineError(f"{self.name}: the program did not answer in time; raise seconds, or try it by hand")
        return found

    def _fill(self) -> None:
        part = os.read(self.back, 1 << 20)
        if not part:
            raise _Ended(f"{self.name}: the program ended; try it by hand")
        self.buffer += part
