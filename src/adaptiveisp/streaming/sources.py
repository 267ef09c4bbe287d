"""Sources of frames: files, folders that fill, standard input, video, and iterators of the user's own.

A source is an iterable of `Frame`s, or of anything that `AdaptiveISP` takes as a raw. `open_source` makes one of the
SOURCE of the command line.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptiveisp.errors import AdaptiveISPError, RawFileError, UsageError
from adaptiveisp.raw.extensions import HEADERLESS_EXTENSIONS, KNOWN_EXTENSIONS
from adaptiveisp.raw.find_files import find_raw_files
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.raw.in_memory import BinaryFile
from adaptiveisp.raw.sidecars import find_header
from adaptiveisp.streaming.bags import is_bag
from adaptiveisp.streaming.cameras.opening import frames_of_camera, names_camera
from adaptiveisp.streaming.containers import open_container, unstacked
from adaptiveisp.streaming.frame import Frame as Frame
from adaptiveisp.streaming.network_video import NETWORK, frames_of_address, time_of, warn_of_unused_facts
from adaptiveisp.streaming.raw_video import VIDEO_EXTENSIONS
from adaptiveisp.utils.defaults import RECONNECT_S
from adaptiveisp.utils.optional_imports import import_extra
from adaptiveisp.utils.own_code import import_object, names_code

STDIN = "-"
POLL_SECONDS = 0.1
"""Interval at which a folder is searched for new files."""
SETTLED_SECONDS = 0.2
"""Age from which a file in a folder counts as complete: its size has not changed for so long."""


def is_live(source: str) -> bool:
    """Whether SOURCE is a camera or an address, whose frames do not wait for us."""
    return names_camera(source) or source.startswith(NETWORK)


def open_source(
    source: str,
    header: BayerHeader | None = None,
    follow: bool = False,
    topic: str | None = None,
    reconnect: float = RECONNECT_S,
) -> Iterable[Frame]:
    """The source that SOURCE of the command line names.

    Args:
        source: a folder of raw files; a headerless file of frames, or a named pipe; "-" for such frames on standard
            input; a video file or the address of a stream, which PyAV opens; a recording of ROS; a raw file of one or
            several frames; a camera, see `cameras`; or `my_pkg.my_file:source`, an iterable of frames or a function
            that returns one.
        header: size, pixel format and levels of headerless frames.
        follow: whether to wait for further files of a folder.
        topic: topic of the images in a recording of ROS; None takes the only one.
        reconnect: seconds in which a lost camera or address is opened again; 0 for never.

    Raises:
        UsageError: there is no such source, or facts about its frames are missing.
        AdaptiveISPError: PyAV, or the library of a kind of camera, is not installed.
    """
    if topic is not None and (source == STDIN or is_live(source)):
        raise UsageError(f"{source}: --topic is for recordings of ROS (.mcap, .db3, .bag); leave it out")
    path = Path(source)
    if follow and not path.is_dir():
        raise UsageError(f"{source}: is no folder, so --follow has nothing to wait for; leave it out")
    if source == STDIN or is_live(source) or path.is_fifo() or path.suffix.lower() in VIDEO_EXTENSIONS or is_bag(path):
        _refuse_one_frame(source, header)
    if source == STDIN:
        return frames_of_stream(_standard_input(), header, "stdin")
    if path.is_fifo():
        return _frames_of_pipe(path, header)
    if names_camera(source):
        return frames_of_camera(source, header, reconnect)
    if source.startswith(NETWORK):
        return frames_of_address(source, header, reconnect)
    if names_code(source) and not path.exists():
        return frames_of(import_object(source))
    if path.exists() and (frames := open_container(path, header, topic)) is not None:
        return frames
    if path.is_dir():
        return unstacked(frames_of_folder(path, follow), header)
    if not path.exists():
        raise UsageError(f"{source}: no such file or folder; give a raw file, a folder, a video, an address or -")
    extension = path.suffix.lower()
    if extension in VIDEO_EXTENSIONS:
        return frames_of_video(str(path), find_header(path, header))
    if extension in HEADERLESS_EXTENSIONS and (header is None or header.frame is None):
        return frames_of_file(path, header)
    if extension in KNOWN_EXTENSIONS:
        return [Frame(path, path.name)]
    raise UsageError(f"{source}: unknown extension {extension!r}; give a raw file, a folder, a video, an address or -")


def _refuse_one_frame(source: str, header: BayerHeader | None) -> None:
    """Raises a `UsageError` if a frame of a source is chosen, or their number declared, where only all can be read."""
    if header is not None and (header.frame is not None or header.frames is not None):
        flag = "--raw-frame" if header.frame is not None else "--raw-frames"
        raise UsageError(f"{source}: all its frames are read, so {flag} does not apply; leave it out")


def _standard_input() -> BinaryFile:
    """Standard input without Python's buffer.

    The buffer has a lock, and Python crashes at its end if a thread still waits for data and holds that lock.
    """
    try:
        return open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)
    except (OSError, ValueError, AttributeError):  # it was replaced by an object, such as in a notebook
        return sys.stdin.buffer


def frames_of_folder(folder: Path, follow: bool = False) -> Iterator[Frame]:
    """Yields the raw files of a folder and its subfolders in the order of their names, then new ones as they arrive.

    A file counts as complete when its size has not changed for `SETTLED_SECONDS`.

    Args:
        folder: the folder.
        follow: whether to wait for new files without end; otherwise the files that are there now are all.

    Raises:
        RawFileError: there are no raw files and `follow` is False.
    """
    seen: set[Path] = set()
    sizes: dict[Path, tuple[int, float]] = {}
    while True:
        try:
            found = [path for path, _ in find_raw_files([str(folder)])[0]]
        except AdaptiveISPError:  # no raw file yet
            if not follow:
                raise
            found = []
        fresh = [path for path in found if path not in seen]
        for path in fresh:
            if not follow or _has_settled(path, sizes):
                seen.add(path)
                sizes.pop(path, None)
                yield Frame(path, os.fspath(path.relative_to(folder)))
        if not follow:
            return
        if not fresh:
            time.sleep(POLL_SECONDS)


def _has_settled(path: Path, sizes: dict[Path, tuple[int, float]]) -> bool:
    """Whether the size of a file has not changed for a while; keeps the last size with its time in `sizes`."""
    try:
        size = path.stat().st_size
    except OSError:
        return False
    known = sizes.get(path)
    now = time.monotonic()
    if known is None or known[0] != size:
        sizes[path] = (size, now)
        return False
    return size > 0 and now - known[1] >= SETTLED_SECONDS


def _layout(header: BayerHeader | None, name: str) -> tuple[BayerHeader, int, int]:
    """The header of frames without one, the bytes of a frame, and the bytes before the first frame.

    Raises:
        UsageError: size or format is missing.
    """
    facts = header if header is not None else BayerHeader()
    how = facts.pixel_format
    if facts.width is None or facts.height is None or how is None or facts.pattern is None:
        known = {"--raw-size": facts.width, "--raw-format or --raw-bits": how, "--raw-pattern": facts.pattern}
        missing = ", ".join(flag for flag, value in known.items() if value is None)
        raise UsageError(f"{name}: its frames have no header; give {missing}")
    stride = facts.stride or how.row_bytes(facts.width)
    if stride < how.row_bytes(facts.width):
        raise UsageError(f"{name}: rows take {how.row_bytes(facts.width)} bytes, more than --raw-stride {stride}")
    plain = replace(facts, format=how.name, stride=stride, offset=None, frames=None, frame=None)
    return plain, stride * facts.height, facts.offset or 0


def frames_of_stream(stream: BinaryFile, header: BayerHeader | None, name: str) -> Iterator[Frame]:
    """Yields the frames of an open binary file, such as a pipe, until its end.

    Args:
        stream: frames in the header's pixel format, one directly after the other.
        header: size, pixel format, pattern and levels.
        name: name for messages.

    Raises:
        UsageError: facts are missing.
        RawFileError: the stream ends within a frame.
    """
    facts, frame_bytes, offset = _layout(header, name)
    _read_exactly(stream, offset)
    number = 0
    while True:
        content = _read_exactly(stream, frame_bytes)
        if not content:
            return
        if len(content) < frame_bytes:
            raise RawFileError(f"{name}: ends after {len(content)} of {frame_bytes} bytes of frame {number}")
        yield Frame(np.frombuffer(content, np.uint8), f"frame-{number:06d}", header=facts)
        number += 1


def _frames_of_pipe(path: Path, header: BayerHeader | None) -> Iterator[Frame]:
    """Yields the frames of a named pipe, whose opening waits for its writer."""
    declared = find_header(path, header)
    _layout(declared, str(path))  # refuses missing facts before it waits
    with path.open("rb", buffering=0) as stream:
        yield from frames_of_stream(stream, declared, str(path))


def _read_exactly(stream: BinaryFile, size: int) -> bytes:
    """The next `size` bytes, fewer at the end of the stream."""
    parts: list[bytes] = []
    while size > 0 and (part := stream.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def frames_of_file(path: Path, header: BayerHeader | None) -> Iterator[Frame]:
    """Yields the frames of a headerless file, which may hold many.

    Args:
        path: the file; facts that the header lacks come from its sidecars.
        header: size, pixel format, pattern and levels.

    Raises:
        UsageError: facts are missing.
        RawFileError: the file is no whole number of frames.
    """
    declared = find_header(path, header)
    facts, frame_bytes, offset = _layout(declared, str(path))
    size = path.stat().st_size - offset
    if size <= 0 or size % frame_bytes:
        rest = f"{size // frame_bytes} frames of {frame_bytes} bytes and {size % frame_bytes} bytes more"
        cause = "copy it again if it was cut short, or correct --raw-size, --raw-format, --raw-stride or --raw-offset"
        raise RawFileError(f"{path}: holds {rest if size > 0 else 'no frame'}; {cause}")
    if declared is not None and declared.frames not in (None, size // frame_bytes):
        found = f"holds {size // frame_bytes} frames of {frame_bytes} bytes, not the {declared.frames} of --raw-frames"
        raise RawFileError(f"{path}: {found}; correct --raw-frames, or copy it again")
    with path.open("rb") as stream:
        stream.seek(offset)
        for number in range(size // frame_bytes):
            content = stream.read(frame_bytes)
            yield Frame(np.frombuffer(content, np.uint8), f"{path.stem}-{number:06d}", header=facts)


def frames_of_video(address: str, header: BayerHeader | None = None) -> Iterator[Frame]:
    """Yields the frames of a video file or network stream as linear RGB.

    Videos of 8 or 10 bits are encoded for a display. Their curve (`raw-curve` of the header, else BT.709) is undone, so
    that policies, which are learned on linear light, can be used; what the camera's own processing clipped or denoised
    stays lost.

    Args:
        address: a file, or an address such as rtsp://….
        header: `curve` is used; a warning names other facts about the values of a sensor.

    Raises:
        AdaptiveISPError: PyAV is not installed.
        RawFileError: the video cannot be opened or decoded.
    """
    av = import_extra("av", "stream")
    curve = (header.curve if header is not None else None) or "bt709"
    facts = BayerHeader(bits=8, curve=curve)
    warn_of_unused_facts(address, header)
    try:
        with av.open(address) as container:
            stream = next((s for s in container.streams if s.type == "video"), None)
            if stream is None:
                raise RawFileError(f"{address}: holds no video")
            for number, picture in enumerate(container.decode(stream)):
                pixels: NDArray[Any] = picture.to_ndarray(format="rgb24")
                yield Frame(pixels, f"frame-{number:06d}", time_of(picture), facts)
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise RawFileError(f"{address}: cannot be read as a video ({reason}); check address and codec") from None


def frames_of(source: Iterable[Any] | Callable[[], Iterable[Any]]) -> Iterator[Frame]:
    """Yields frames from an iterable of `Frame`s or raws, or from a function that returns one."""
    items = source() if callable(source) and not isinstance(source, Iterable) else source
    for number, item in enumerate(items):
        yield item if isinstance(item, Frame) else Frame(item, f"frame-{number:06d}")
