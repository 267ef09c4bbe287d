"""Images in recordings of ROS 1 and ROS 2: `.bag`, `.db3`, `.mcap`, and folders with a `metadata.yaml`.

Messages are decoded here, field by field, instead of by code that is generated from definitions in the recording.

Sources: ROS, sensor_msgs/Image.msg and sensor_msgs/image_encodings.h; OMG, DDS-XTypes 1.3, 7.4.1 (CDR).
"""

import io
import os
import struct
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from adaptiveisp.errors import AdaptiveISPError, RawFileError, UsageError, logger, shown
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.streaming.frame import Frame
from adaptiveisp.utils.optional_imports import import_extra

BAG_EXTENSIONS = frozenset({".bag", ".db3", ".mcap"})
IMAGE_TYPES = frozenset({"sensor_msgs/msg/Image", "sensor_msgs/Image"})
COMPRESSED_TYPES = frozenset({"sensor_msgs/msg/CompressedImage", "sensor_msgs/CompressedImage"})
METADATA = "metadata.yaml"
_METADATA_KEY = b"rosbag2_bagfile_information"

_BAYER = {
    f"bayer_{pattern}{bits}": (pattern.upper(), bits)
    for pattern in ("rggb", "bggr", "gbrg", "grbg")
    for bits in (8, 16)
}
"""Encoding → pattern and bits."""
_GREY = {"mono8": 8, "mono16": 16, "8UC1": 8, "16UC1": 16}
_RGB = {"rgb8": (8, False), "bgr8": (8, True), "rgb16": (16, False), "bgr16": (16, True)}
"""Encoding → bits, and whether blue comes first."""


class RosImage(NamedTuple):
    """The fields of a sensor_msgs/Image.

    Attributes:
        width, height: size in pixels.
        encoding: name of the pixel format.
        big_endian: whether the high byte of a value comes first.
        step: bytes from the beginning of one row to that of the next.
        data: the rows.
    """

    width: int
    height: int
    encoding: str
    big_endian: bool
    step: int
    data: NDArray[np.uint8]


class _BoundedFile(io.BufferedReader):
    """A file from which no more bytes are asked than it has: damaged lengths otherwise take all memory."""

    def read(self, size: int | None = -1, /) -> bytes:
        """The next bytes, at most as many as there are."""
        left = max(os.fstat(self.fileno()).st_size - self.tell(), 0)
        return super().read(left if size is None or size < 0 else min(size, left))


class _BoundedPath(type(Path())):  # type: ignore[misc]  # before Python 3.12 only the class for this system has subclasses
    """A path that opens files to read as `_BoundedFile`."""

    def open(self, mode: str = "r", *arguments: Any, **named: Any) -> Any:
        """The open file."""
        return _BoundedFile(io.FileIO(self)) if mode == "rb" else super().open(mode, *arguments, **named)


def is_bag(path: Path) -> bool:
    """Whether a path is a recording of ROS, by its extension or its metadata."""
    if not path.is_dir():
        return path.suffix.lower() in BAG_EXTENSIONS
    try:
        with (path / METADATA).open("rb") as stream:
            return _METADATA_KEY in stream.read(4096)
    except OSError:
        return False


def frames_of_bag(path: Path, header: BayerHeader | None = None, topic: str | None = None) -> Iterator[Frame]:
    """Yields the images of one topic as they are stored, with the time since the first of them.

    Bayer images have the pattern of their encoding; grey ones (mono8, mono16) need a declared one. Colours of 16 bits
    are linear; those of 8 bits are encoded for a display, and their curve is undone as for video.

    Args:
        path: the recording.
        header: facts that it does not state: `bits` of values in 16, the pattern of grey images, levels; `curve`.
        topic: name of the topic; None takes the only topic of images.

    Raises:
        UsageError: there are several topics of images, there is no such topic, or facts are missing.
        RawFileError: the recording is damaged, or its images have an encoding that is not read.
        AdaptiveISPError: rosbags is not installed.
    """
    ros1 = path.suffix.lower() == ".bag" and not path.is_dir()
    module: Any = import_extra("rosbags.rosbag1" if ros1 else "rosbags.rosbag2", "ros")
    given, first, warned = header if header is not None else BayerHeader(), None, set[str]()
    try:
        with module.Reader(_BoundedPath(path)) as reader:
            chosen = _connections(reader.connections, topic, path)
            for number, (_, time_ns, content) in enumerate(reader.messages(connections=chosen)):
                first = time_ns if first is None else first
                image = parse_image(content, ros1)
                pixels, facts = _frame(image, given, f"{path}: {chosen[0].topic}", warned)
                yield Frame(pixels, f"{path.stem}-{number:06d}", (time_ns - first) / 1e9, facts)
    except AdaptiveISPError:
        raise
    # The library's readers raise errors of their own, of SQLite, of YAML and of their decompressors.
    except Exception as error:
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise RawFileError(f"{path}: cannot be read as a recording of ROS ({reason}); copy it again") from None


def _connections(connections: Any, topic: str | None, path: Path) -> list[Any]:
    """The connections of one topic of images.

    Raises:
        UsageError: the topic does not exist, or none is given and there are several.
        RawFileError: there are no images, or only compressed ones.
    """
    images = sorted({found.topic for found in connections if found.msgtype in IMAGE_TYPES})
    compressed = sorted({found.topic for found in connections if found.msgtype in COMPRESSED_TYPES})
    wanted = None if topic is None else f"/{topic.lstrip('/')}"
    if wanted is None and len(images) == 1:
        wanted = images[0]
    if wanted is None and len(images) > 1:
        raise UsageError(f"{path}: has {len(images)} topics of images; give --topic, one of {', '.join(images)}")
    if wanted in compressed or (wanted is None and compressed):
        remedy = "record raw images, or convert them: ros2 run image_transport republish compressed raw"
        raise RawFileError(f"{path}: the images of {wanted or compressed[0]} are compressed; {remedy}")
    found = [one for one in connections if one.msgtype in IMAGE_TYPES and f"/{one.topic.lstrip('/')}" == wanted]
    found = found or [one for one in connections if one.msgtype in IMAGE_TYPES and one.topic == wanted]
    if not found:
        known = f"topics of images are {', '.join(images)}" if images else "it has no topic of sensor_msgs/Image"
        kind = UsageError if images else RawFileError
        raise kind(f"{path}: {'has no images' if topic is None else f'has no images of topic {shown(topic)}'}; {known}")
    other = {getattr(one.ext, "serialization_format", "cdr") or "cdr" for one in found} - {"cdr"}
    if other:
        raise RawFileError(f"{path}: its images are serialized as {shown(other.pop())}, not cdr; convert the recording")
    return found


def parse_image(content: bytes | memoryview, ros1: bool = False) -> RosImage:
    """Decodes a message of the type sensor_msgs/Image.

    Args:
        content: the message: CDR with its four bytes of encapsulation, or the serialization of ROS 1.
        ros1: whether it is a message of ROS 1.

    Raises:
        ValueError: the message is damaged.
    """
    view = memoryview(content)
    order = "<" if ros1 or (len(view) > 1 and view[1] & 1) else ">"
    at = 0 if ros1 else 4
    start = at

    def number(kind: str = "I") -> int:
        nonlocal at
        size = struct.calcsize(f"{order}{kind}")
        at += 0 if ros1 else (start - at) % size  # CDR aligns a number to its size
        at += size
        value: int = struct.unpack_from(f"{order}{kind}", view, at - size)[0]
        return value

    def block() -> memoryview:
        nonlocal at
        size = number()
        if at + size > len(view):
            raise ValueError("a message is too short")
        at += size
        return view[at - size : at]

    try:
        for _ in range(3 if ros1 else 2):  # sequence number (ROS 1), seconds, nanoseconds
            number()
        block()  # name of the frame of coordinates
        height, width = number(), number()
        encoding = bytes(block()).rstrip(b"\0").decode("latin-1")
        big_endian, step = number("B"), number()
        data = np.frombuffer(block(), np.uint8)
    except struct.error:
        raise ValueError("a message is too short") from None
    return RosImage(width, height, encoding, bool(big_endian), step, data)


def _frame(image: RosImage, given: BayerHeader, name: str, warned: set[str]) -> tuple[NDArray[Any], BayerHeader]:
    """The pixels or bytes of an image, and the facts about them; each warning is given once.

    Raises:
        UsageError: a grey image has no pattern, or facts contradict the encoding.
        RawFileError: the encoding is not read, or the message is too short.
    """
    if image.encoding in _RGB:
        return _colours(image, given, name)
    if image.encoding in _BAYER:
        pattern, bits = _BAYER[image.encoding]
    elif image.encoding in _GREY:
        pattern, bits = given.pattern or "", _GREY[image.encoding]
    else:
        known = ", ".join((*_BAYER, *_GREY, *_RGB))
        raise RawFileError(f"{name} has images of encoding {shown(image.encoding)}; known are {known}")
    if not pattern:
        remedy = "give --raw-pattern, for instance RGGB, or MONO for a sensor without colour filters"
        raise UsageError(f"{name} has the encoding {image.encoding}, which does not say a pattern; {remedy}")
    if given.pattern not in (None, pattern):
        _warn(warned, f"{name}: --raw-pattern {given.pattern} is used, though the encoding is {image.encoding}")
    order = "be" if image.big_endian else "le"
    if given.format is not None and given.pixel_format is not None and bits > 8:
        if given.pixel_format.big_endian != image.big_endian and given.pixel_format.container > 8:
            _warn(warned, f"{name}: --raw-format {given.format} is used, though is_bigendian is {image.big_endian}")
        own = BayerHeader(pattern=pattern)
    else:
        own = BayerHeader(pattern=pattern, format=None if given.format else f"u{bits}{order}{bits}")
    try:
        facts = given.filled_from(own)
    except UsageError as error:
        raise UsageError(f"{name} has the encoding {image.encoding}: {error}") from None
    if (given.width, given.height) not in ((None, None), (image.width, image.height)):
        _warn(warned, f"{name}: is {image.width}x{image.height}, though --raw-size says {given.width}x{given.height}")
    stride = image.step or None
    return image.data, replace(facts, width=image.width, height=image.height, stride=stride, offset=None)


def _colours(image: RosImage, given: BayerHeader, name: str) -> tuple[NDArray[Any], BayerHeader]:
    """The pixels of an RGB image as (height, width, 3), and the facts about them."""
    bits, blue_first = _RGB[image.encoding]
    row = image.width * 3 * bits // 8
    step = image.step or row
    if step < row or image.data.size < step * (image.height - 1) + row or not image.height:
        raise RawFileError(f"{name} has an image that is too short for {image.width}x{image.height} pixels")
    rows = np.lib.stride_tricks.as_strided(image.data, (image.height, row), (step, 1), writeable=False)
    dtype = np.dtype("u1" if bits == 8 else ">u2" if image.big_endian else "<u2")
    pixels = np.ascontiguousarray(rows).view(dtype).reshape(image.height, image.width, 3)
    colours: NDArray[Any] = pixels[..., ::-1] if blue_first else pixels
    if bits == 8:
        return np.ascontiguousarray(colours), BayerHeader(bits=8, curve=given.curve or "bt709")
    facts = BayerHeader(bits=given.bits, black=given.black, white=given.white, curve=given.curve)
    return np.ascontiguousarray(colours, dtype.newbyteorder("=")), facts


def _warn(warned: set[str], text: str) -> None:
    if text not in warned:
        warned.add(text)
        logger.warning("%s; check which is right", text)
