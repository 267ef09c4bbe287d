"""Sinks for the results of a stream: JSON lines, a video with boxes, and functions of the user's own."""

import json
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, runtime_checkable

from adaptiveisp.errors import OutputError, UsageError
from adaptiveisp.streaming.stream import StreamResult
from adaptiveisp.utils.optional_imports import import_extra

STDOUT = "-"
FASTEST = 1000
"""Most frames a second of a video."""


@runtime_checkable
class Sink(Protocol):
    """Takes the results of a stream in order; a context manager that finishes its output at the end."""

    def write(self, result: StreamResult) -> None:
        """Takes the result of the next frame.

        Raises:
            OutputError: it cannot be written.
        """
        ...

    def __enter__(self) -> "Sink": ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class JsonLines:
    """Writes one line of JSON for each frame, as `StreamResult.to_json` gives it.

    Args:
        path: the file, which must not exist; "-" for standard output.
        overwrite: whether a file of this name is replaced. It keeps its content until the first result is there.

    Raises:
        UsageError: the file exists.
        OutputError: it cannot be opened.
    """

    def __init__(self, path: str | Path, overwrite: bool = False):
        self.path = str(path)
        self._file: IO[str] | None = None
        self._replaces = False
        self._empty = False  # whether this is a new file without a line
        if self.path == STDOUT:
            self._file = sys.stdout
            return
        try:
            self._replaces = overwrite and Path(path).is_file()
            mode = "r+" if self._replaces else "w" if overwrite else "x"
            self._file = open(self.path, mode, encoding="utf-8")  # noqa: SIM115
            self._empty = mode == "x"
        except FileExistsError:
            raise UsageError(f"{path}: exists already; choose another name, or give --overwrite") from None
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another name") from None

    def write(self, result: StreamResult) -> None:
        """Writes the line, so that a reader sees it at once.

        Raises:
            OutputError: the disk is full.
        """
        assert self._file is not None
        try:
            if self._replaces:
                self._file.truncate(0)
                self._replaces = False
            self._file.write(json.dumps(result.to_json(), allow_nan=False) + "\n")
            self._file.flush()
            self._empty = False
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._unwritable(error) from None

    def __enter__(self) -> "JsonLines":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is None or self._file is sys.stdout:
            return
        try:
            self._file.close()  # writes again what a full disk did not take
        except OSError as failure:
            if error is None:
                raise self._unwritable(failure) from None
        finally:
            if self._empty:  # a source that gave no frame leaves nothing that a second try would have to replace
                Path(self.path).unlink(missing_ok=True)

    def _unwritable(self, failure: OSError) -> OutputError:
        return OutputError(f"{self.path}: cannot be written ({failure.strerror}); free space on the disk")


class VideoFile:
    """Writes a video of the detector's images with the boxes drawn in.

    Args:
        path: the file; its extension names the container, for instance .mp4 or .mkv.
        rate: frames a second of the video.
        overwrite: whether a file of this name is replaced.

    Raises:
        UsageError: the file exists.
        OutputError: it cannot be opened, or its container is unknown.
        AdaptiveISPError: PyAV is not installed.
    """

    def __init__(self, path: str | Path, rate: float = 30.0, overwrite: bool = False):
        self._av = import_extra("av", "stream")
        self.path = str(path)
        if not 0 < rate <= FASTEST:
            raise UsageError(f"{path}: {rate:g} frames a second are impossible; give a rate above 0, at most {FASTEST}")
        if Path(path).exists() and not overwrite:
            raise UsageError(f"{path}: exists already; choose another name, or give --overwrite")
        try:
            self._container = self._av.open(self.path, "w")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            raise OutputError(f"{path}: cannot be written ({reason}); give a name such as out.mp4") from None
        self._rate = Fraction(rate).limit_denominator(1000)
        self._stream: Any = None

    def write(self, result: StreamResult) -> None:
        """Adds a frame; all have the size of the first, rounded down to even numbers."""
        drawn = result.result.drawn()
        try:
            if self._stream is None:
                self._stream = self._container.add_stream("mpeg4", rate=self._rate)
                self._stream.height, self._stream.width = (side - side % 2 for side in drawn.shape[:2])
                self._stream.pix_fmt, self._stream.bit_rate = "yuv420p", 4_000_000
            cut = drawn[: self._stream.height, : self._stream.width]
            frame = self._av.VideoFrame.from_ndarray(cut.copy(), format="rgb24")
            self._container.mux(self._stream.encode(frame))
        except (OSError, ValueError) as error:
            raise OutputError(f"{self.path}: cannot be written ({error})") from None

    def __enter__(self) -> "VideoFile":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Writes what the encoder still holds, and the index without which most players refuse the file."""
        try:
            if self._stream is not None:
                self._container.mux(self._stream.encode())
            self._container.close()
        except (OSError, ValueError) as failure:
            raise OutputError(f"{self.path}: cannot be finished ({failure}); free space on the disk") from None


class Callback:
    """Calls a function with each result.

    Args:
        function: takes a `StreamResult`. An error that it raises ends the stream.
    """

    def __init__(self, function: Callable[[StreamResult], object]):
        self._function = function

    def write(self, result: StreamResult) -> None:
        """Calls the function."""
        self._function(result)

    def __enter__(self) -> "Callback":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
