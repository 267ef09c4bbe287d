"""Frames of a sensor in video files: uncompressed or lossless video of Bayer or grey values, read without conversion.

Sources: FFmpeg, libavutil/pixfmt.h and libavcodec/raw.c; Microsoft, BITMAPINFOHEADER, for the rows of AVI files.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptiveisp.errors import AdaptiveISPError, RawFileError, UsageError, logger
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.streaming.frame import Frame
from adaptiveisp.utils.optional_imports import import_extra

VIDEO_EXTENSIONS = frozenset({".avi", ".mkv", ".mp4", ".mov", ".m4v", ".nut", ".webm", ".ts"})
RAW_CODEC = "rawvideo"
_LOSSLESS = frozenset({RAW_CODEC, "ffv1"})
_BAYER = re.compile(r"bayer_(rggb|bggr|grbg|gbrg)(8|16)(le|be)?")
_GREY = re.compile(r"gray(?:(8|9|10|12|14|16)(le|be)?)?")
_DOUBTFUL = frozenset({"pal8", "rgb555le", "rgb555be"})
"""Formats that FFmpeg assumes for uncompressed AVI and MOV files which state only the bits of a pixel."""
_ROW_ALIGNMENT = 4
"""Rows of AVI files may be padded to a multiple of so many bytes."""


def holds_raw_video(path: Path, header: BayerHeader | None) -> bool:
    """Whether a video holds the values of a sensor: Bayer or lossless grey, or uncompressed in a declared format.

    Args:
        path: the video.
        header: declared facts; with a format or bits, any uncompressed video counts.
    """
    try:
        with _opened(path) as (_, stream):
            codec, pixels = stream.codec_context.name, str(stream.codec_context.pix_fmt)
    except AdaptiveISPError:  # reported by the reader of video
        return False
    declared = header is not None and (header.format is not None or header.bits is not None)
    if (
        _BAYER.fullmatch(pixels)
        or (codec in _LOSSLESS and _GREY.fullmatch(pixels))
        or (codec == RAW_CODEC and declared)
    ):
        return True
    if codec == RAW_CODEC and pixels in _DOUBTFUL:
        found = f"is uncompressed and taken for {pixels}, since it does not say what its values are"
        logger.warning("%s: %s; if it comes from a sensor, give --raw-format and --raw-pattern", path, found)
    return False


def frames_of_raw_video(path: Path, header: BayerHeader | None) -> Iterator[Frame]:
    """Yields the frames of a video for which `holds_raw_video` is true, as they are stored.

    Args:
        path: the video.
        header: facts that it does not state, such as the pattern of grey values and the levels.

    Raises:
        UsageError: facts are missing or contradict the video.
        RawFileError: the video cannot be read.
        AdaptiveISPError: PyAV is not installed.
    """
    with _opened(path) as (container, stream):
        context = stream.codec_context
        facts = _facts(str(context.pix_fmt), header, path)
        facts = replace(facts, width=facts.width or context.width, height=facts.height or context.height)
        number = 0
        if context.name == RAW_CODEC:
            bottom_up = bytes(context.extradata or b"").startswith(b"BottomUp")
            for packet in container.demux(stream):
                if packet.size:
                    raw, stride = _rows(np.frombuffer(bytes(packet), np.uint8), facts, bottom_up, path)
                    when = None if packet.pts is None else float(packet.pts * packet.time_base)
                    yield Frame(raw, f"frame-{number:06d}", when, replace(facts, stride=stride))
                    number += 1
        else:
            for number, picture in enumerate(container.decode(stream)):
                plane = picture.planes[0]
                raw = np.frombuffer(bytes(plane), np.uint8)
                when = float(picture.time) if picture.time is not None else None
                yield Frame(raw, f"frame-{number:06d}", when, replace(facts, stride=plane.line_size))


def _facts(pixels: str, header: BayerHeader | None, path: Path) -> BayerHeader:
    """The declared facts, completed by what FFmpeg's name of the pixel format says.

    Raises:
        UsageError: facts are missing or contradict the format.
    """
    given = header if header is not None else BayerHeader()
    own = BayerHeader()
    if found := _BAYER.fullmatch(pixels):
        own = BayerHeader(pattern=found[1], format=f"u{found[2]}{found[3] or 'le'}{found[2]}")
    elif found := _GREY.fullmatch(pixels):
        bits = int(found[1] or 8)
        own = BayerHeader(format=f"u{bits}{found[2] or 'le'}{8 if bits == 8 else 16}")
    if given.format is not None:
        own = BayerHeader(pattern=own.pattern)
    if given.pattern is not None and own.pattern not in (None, given.pattern):
        found_text = f"{given.pattern} is used, though its pixel format is {pixels}"
        logger.warning("%s: --raw-pattern %s; check which is right", path, found_text)
    try:
        facts = given.filled_from(own)
    except UsageError as error:
        raise UsageError(f"{path}: its pixel format is {pixels}: {error}") from None
    if facts.pattern is None:
        remedy = "give --raw-pattern, for instance RGGB, or MONO for a sensor without colour filters"
        raise UsageError(f"{path}: does not say which colours its values have; {remedy}")
    return facts


def _rows(data: NDArray[np.uint8], facts: BayerHeader, bottom_up: bool, path: Path) -> tuple[NDArray[np.uint8], int]:
    """The bytes of an uncompressed frame with its first row first, and their stride.

    Raises:
        RawFileError: the frame has another number of bytes than its size and format need.
    """
    how, width, height = facts.pixel_format, facts.width, facts.height
    assert how is not None and width is not None and height is not None
    row = how.row_bytes(width)
    aligned = -(-row // _ROW_ALIGNMENT) * _ROW_ALIGNMENT
    strides = [facts.stride] if facts.stride is not None else [row, aligned]
    stride = next((stride for stride in strides if stride * height == data.size), None)
    if stride is None:
        found = f"{width}x{height} pixels of {how.name} take {row * height} bytes, but a frame has {data.size}"
        raise RawFileError(f"{path}: {found}; correct --raw-format, --raw-size or --raw-stride")
    if not bottom_up:
        return data, stride
    return np.ascontiguousarray(data.reshape(height, stride)[::-1]).reshape(-1), stride


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """The open container and its first video.

    Raises:
        RawFileError: it cannot be opened or read, or holds no video.
        AdaptiveISPError: PyAV is not installed.
    """
    av = import_extra("av", "stream")
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise RawFileError(f"{path}: holds no video; give another file")
            yield container, container.streams.video[0]
    except (av.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise RawFileError(f"{path}: cannot be read as a video ({reason}); copy it again, or check its codec") from None
