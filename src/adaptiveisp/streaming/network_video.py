"""Video from addresses (RTSP, HTTP, TCP, UDP) by PyAV, with limits on every wait, opened again after a loss."""

import errno
import math
import threading
import time
from collections.abc import Iterator
from typing import Any

from adaptiveisp.errors import RawFileError, logger
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.streaming.frame import Frame
from adaptiveisp.streaming.reconnecting import EndOfLive, Reconnecting
from adaptiveisp.utils.defaults import RECONNECT_S
from adaptiveisp.utils.optional_imports import import_extra

NETWORK = ("rtsp://", "rtsps://", "http://", "https://", "tcp://", "udp://")
"""Beginnings of addresses that PyAV opens."""
OPEN_SECONDS = 10.0
"""Longest wait for a connection and for the first data that tell what the stream holds."""
READ_SECONDS = 10.0
"""Longest wait for the next data; a stream without any is lost."""


def warn_of_unused_facts(address: str, header: BayerHeader | None) -> None:
    """Warns if facts about the values of a sensor are declared for video that is encoded for a display."""
    names = ("width", "pattern", "bits", "black", "white", "format", "stride", "offset", "knees", "matrix", "shading")
    unused = [name for name in names if header is not None and getattr(header, name) is not None]
    flags = ", ".join("--raw-" + ("size" if name == "width" else name) for name in unused)
    if unused:
        found = f"{flags} describe values of a sensor and are not used, since this video is encoded for a display"
        logger.warning("%s: %s; leave them out", address, found)


def frames_of_address(address: str, header: BayerHeader | None = None, reconnect: float = RECONNECT_S) -> Reconnecting:
    """The frames of a network stream as linear RGB; their curve is undone as in `sources.frames_of_video`.

    Args:
        address: such as rtsp://…; RTSP uses TCP unless the address ends in ?udp.
        header: `curve` is used.
        reconnect: seconds in which a lost stream is opened again; 0 for never.

    Raises:
        AdaptiveISPError: PyAV is not installed.
    """
    av = import_extra("av", "stream")
    curve = (header.curve if header is not None else None) or "bt709"
    facts = BayerHeader(bits=8, curve=curve)
    warn_of_unused_facts(address, header)
    return Reconnecting(address, lambda stopped: _frames(av, address, facts, stopped), reconnect)


def options_of(address: str) -> dict[str, str]:
    """FFmpeg's options for an address.

    >>> options_of("rtsp://camera/1"), options_of("rtsp://camera/1?udp"), options_of("http://camera/1")
    ({'rtsp_transport': 'tcp'}, {}, {})
    """
    named = any(address.endswith(f"?{way}") for way in ("udp", "tcp", "multicast"))  # FFmpeg reads these itself
    return {"rtsp_transport": "tcp"} if address.startswith("rtsp") and not named else {}


def time_of(picture: Any) -> float | None:
    """The time of a picture of PyAV in seconds; None if the stream does not state it, as for the last one of some."""
    return float(picture.time) if picture.time is not None and math.isfinite(picture.time) else None


def _frames(av: Any, address: str, facts: BayerHeader, stopped: threading.Event) -> Iterator[Frame]:
    """Opens an address and yields its frames.

    Raises:
        RawFileError: it cannot be opened or decoded, or does not answer in time.
        EndOfLive: its sender has stopped.
    """
    listens = "listen" in address.partition("?")[2]  # such as tcp://127.0.0.1:5000?listen=1: a sender may come late
    limit = math.inf if listens else OPEN_SECONDS
    since = time.monotonic()
    try:
        timeout = (None if listens else limit, READ_SECONDS)
        with av.open(address, options=options_of(address), timeout=timeout) as container:
            stream = next((s for s in container.streams if s.type == "video"), None)
            if stream is None:
                raise RawFileError(f"{address}: holds no video")
            live = container.duration is None
            for number, picture in enumerate(_pictures(av, container, stream, live)):
                if stopped.is_set():
                    return
                limit = READ_SECONDS
                yield Frame(picture.to_ndarray(format="rgb24"), f"frame-{number:06d}", time_of(picture), facts)
                since = time.monotonic()
    except (av.FFmpegError, OSError, ValueError) as error:
        if isinstance(error, av.error.ExitError) or time.monotonic() - since >= limit:  # RTSP then reports other errors
            raise RawFileError(f"{address}: gave no data for {limit:g} s; check address and network") from None
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise RawFileError(f"{address}: cannot be read as a video ({reason}); check address and codec") from None
    if live:
        raise EndOfLive(f"{address}: its sender has ended the stream")


def _pictures(av: Any, container: Any, stream: Any, live: bool) -> Iterator[Any]:
    """Yields the pictures of a video, with those that the decoder still holds when a live one ends.

    FFmpeg reports the end of HTTP without a length as an error of input and output.
    """
    try:
        yield from container.decode(stream)
    except av.FFmpegError as error:
        if not live or error.errno != errno.EIO:
            raise
        yield from stream.decode(None)
