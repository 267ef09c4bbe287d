"""V4L2 devices of Linux (/dev/video0) by the library linuxpy: raw sensors, and webcams with 8-bit video.

linuxpy is under the GPL 3 and installed only on request. Never run on hardware: see `opening`.
"""

import errno
import io
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adaptiveisp.errors import RawFileError, UsageError, first_few, logger
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.raw.pixel_formats import pixel_format
from adaptiveisp.streaming.cameras.stated_facts import (
    POLL_SECONDS,
    STALLED_SECONDS,
    agreed,
    is_raw,
    no_frame,
    offered,
)
from adaptiveisp.streaming.frame import Frame
from adaptiveisp.utils.optional_imports import import_extra

_REMEDIES = {
    errno.ENOENT: "does not exist; v4l2-ctl --list-devices lists the cameras",
    errno.EACCES: "may not be opened; run sudo usermod -aG video $USER, and log in again",
    errno.EPERM: "may not be opened; run sudo usermod -aG video $USER, and log in again",
    errno.EBUSY: "is used by another program; end that program, which fuser -v names",
    errno.ENODEV: "was unplugged; check the cable",
    errno.ENXIO: "was unplugged; check the cable",
    errno.EIO: "does not answer; check the cable, or plug it in again",
    errno.ENOTTY: "is no video device; v4l2-ctl --list-devices lists the cameras",
    errno.EINVAL: "does not take this size or format; v4l2-ctl --list-formats-ext lists what it gives",
}
"""Errors of the operating system, and what to do."""
BIG_ENDIAN = 1 << 31
"""Bit of a V4L2 format by which the high byte comes first."""


def fourcc(code: int) -> str:
    """The name of a V4L2 format from its number.

    >>> fourcc(0x30314752), fourcc(0x20303159), fourcc(0xA0363159)
    ('RG10', 'Y10', 'Y16_BE')
    """
    name = (code & ~BIG_ENDIAN).to_bytes(4, "little").decode("latin-1").rstrip()
    return f"{name}_BE" if code & BIG_ENDIAN else name


def rgb_of_yuyv(data: bytes, width: int, height: int, stride: int) -> NDArray[np.uint8]:
    """(height, width, 3) RGB of a YUYV image of limited range.

    Args:
        data: rows of Y0 U Y1 V for two pixels each.
        width: even.
        height: rows.
        stride: bytes from one row to the next.

    Raises:
        ValueError: there are too few bytes.

    Source: ITU-R BT.601, with luma 16..235 and chroma 16..240, as the USB video class specifies by default.
    """
    rows = np.frombuffer(data, np.uint8, stride * height).reshape(height, stride)[:, : 2 * width]
    quads = rows.reshape(height, width // 2, 4).astype(np.float32)
    luma = (quads[..., 0::2].reshape(height, width) - 16) * (255 / 219)
    blue, red = (np.repeat((quads[..., i] - 128) * (255 / 224), 2, axis=1) for i in (1, 3))
    made = np.stack([luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue], axis=2)
    return np.rint(np.clip(made, 0, 255)).astype(np.uint8)


def _rgb_of_jpeg(data: bytes, width: int, height: int, stride: int) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data), formats=["JPEG"]) as picture:
        if picture.size != (width, height):
            raise ValueError(f"a JPEG of {picture.size[0]}x{picture.size[1]} pixels")
        return np.asarray(picture.convert("RGB"))


_DECODERS: dict[str, Callable[[bytes, int, int, int], NDArray[np.uint8]]] = {
    "YUYV": rgb_of_yuyv,
    "MJPG": _rgb_of_jpeg,
}
"""Formats of 8-bit video → function from bytes, width, height and stride to RGB."""


class V4l2Camera:
    """Opens a V4L2 device, as often as it is called.

    Args:
        source: such as /dev/video0.
        declared: facts of the user; None for none.

    Raises:
        AdaptiveISPError: linuxpy is not installed.
    """

    def __init__(self, source: str, declared: BayerHeader | None):
        self.source, self.declared = source, declared
        self._video = import_extra("linuxpy.video.device", "v4l2")
        self._told = False

    def __call__(self, stopped: Event) -> Iterator[Frame]:
        """Yields the frames of the device until it is lost, or the event is set.

        Raises:
            RawFileError: the device cannot be opened, gives no frames, or was unplugged.
            UsageError: it gives another size or format than was declared, or one that is not read.
        """
        with self._errors(), self._video.Device(self.source) as device:
            capture = self._video.VideoCapture(device)
            facts, name = self._negotiate(capture)
            with capture:
                first: float | None = None
                for number, found in enumerate(self._buffers(capture.buffer.frame_reader, stopped)):
                    first = found.timestamp if first is None else first
                    raw, header = self._content(found.data, facts, name)
                    yield Frame(raw, f"frame-{number:06d}", found.timestamp - first, header)

    def _buffers(self, reader: Any, stopped: Event) -> Iterator[Any]:
        """Yields the frames of linuxpy, copies that stay when the driver uses its buffers again."""
        last = time.monotonic()
        while not stopped.is_set():
            found = reader.read(timeout=POLL_SECONDS)
            if found is not None:
                last = time.monotonic()
                yield found
            elif time.monotonic() - last >= STALLED_SECONDS:
                raise RawFileError(no_frame(self.source))

    def _negotiate(self, capture: Any) -> tuple[BayerHeader, str]:
        """Asks the driver for the declared size and format, or for a raw one; returns what it then states.

        Raises:
            UsageError: it gives another one, or none that is read.
        """
        wanted = self.declared or BayerHeader()
        names = [fourcc(int(found.pixel_format)) for found in capture.formats()]
        width, height, name, _ = self._stated(capture)
        chosen = self._choose(wanted, names, name)
        asked = (wanted.width or width, wanted.height or height, chosen)
        if asked != (width, height, name):
            codes = {fourcc(int(found.pixel_format)): int(found.pixel_format) for found in capture.formats()}
            capture.set_format(asked[0], asked[1], codes.get(chosen, chosen))
        width, height, name, stride = self._stated(capture)
        if name in _DECODERS:
            stated = BayerHeader(width, height, stride=stride or 2 * width)
            plain = BayerHeader(wanted.width, wanted.height, stride=wanted.stride, curve=wanted.curve)
            return agreed(self.source, plain, stated), name
        if not is_raw(name):
            raise UsageError(f"{self.source}: gives {name}, which is not read; it offers {first_few(names)}")
        stated = BayerHeader(width, height, format=name, stride=stride or pixel_format(name).row_bytes(width))
        return agreed(self.source, self.declared, stated), name

    def _choose(self, wanted: BayerHeader, names: list[str], now: str) -> str:
        """The format to ask for: the declared one, else a raw one, else 8-bit video; the present one where possible."""
        if wanted.format is not None:
            found = offered(pixel_format(wanted.format), [now, *names])
            if found is None:
                offers = first_few(dict.fromkeys([now, *names]), 12)
                raise UsageError(f"{self.source}: does not give {wanted.format}, only {offers}; correct --raw-format")
            return found
        raw = [name for name in (now, *names) if is_raw(name)]
        video = [name for name in (now, *names) if name in _DECODERS]
        return (raw or video or [now])[0]

    def _stated(self, capture: Any) -> tuple[int, int, str, int]:
        """Width, height, format and stride of the driver at present."""
        try:
            found = capture.get_format()
        except ValueError as error:  # the number is not in linuxpy's list of formats
            raise UsageError(
                f"{self.source}: has a format that linuxpy does not know ({error}); choose another one, for instance "
                "by v4l2-ctl --set-fmt-video=pixelformat=RG10"
            ) from None
        return found.width, found.height, fourcc(int(found.pixel_format)), found.bytes_per_line

    def _content(self, data: bytes, facts: BayerHeader, name: str) -> tuple[NDArray[Any], BayerHeader]:
        """A frame's bytes or, of 8-bit video, its pixels; and their header."""
        if name not in _DECODERS:
            return np.frombuffer(data, np.uint8), facts
        curve = facts.curve or "bt709"
        if not self._told:
            self._told = True
            text = "%s: gives 8-bit video (%s), not raw: its curve (%s) is undone, what its processing clipped is lost"
            logger.warning(text, self.source, name, curve)
        assert facts.width is not None and facts.height is not None and facts.stride is not None
        try:
            pixels = _DECODERS[name](data, facts.width, facts.height, facts.stride)
        except (OSError, ValueError) as error:
            raise RawFileError(f"{self.source}: gave a damaged frame ({error}); check the cable") from None
        return pixels, BayerHeader(bits=8, curve=curve)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turns errors of the operating system and of linuxpy into one line with a remedy."""
        try:
            yield
        except self._video.V4L2Error as error:
            remedy = "choose another of v4l2-ctl --list-devices; a Raspberry Pi's camera is picamera2:0"
            raise RawFileError(f"{self.source}: gives no images ({error}); {remedy}") from None
        except OSError as error:
            cause = _REMEDIES.get(error.errno or 0)
            cause = cause or f"failed ({error.strerror or error}); check the cable and v4l2-ctl --list-devices"
            raise RawFileError(f"{self.source}: {cause}") from None
