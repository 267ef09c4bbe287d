"""The cameras of a Raspberry Pi (`picamera2:0`) by picamera2: the raw stream, with levels and gains of each frame.

Never run on hardware: see `opening`.
"""

import importlib
from collections.abc import Iterator, Mapping
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import replace
from threading import Event
from typing import Any

from adaptiveisp.errors import AdaptiveISPError, RawFileError, UsageError, logger
from adaptiveisp.raw.arrays import ArrayFacts, raw_from_array
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.raw.pixel_formats import Layout, pixel_format
from adaptiveisp.streaming.cameras.stated_facts import STALLED_SECONDS, agreed, no_frame
from adaptiveisp.streaming.frame import Frame
from adaptiveisp.types import RawImage
from adaptiveisp.utils.raw_fields import MONO

REMEDY = (
    "run: sudo apt install python3-picamera2, and use the system's Python or an environment made by "
    "python3 -m venv --system-site-packages"
)
_PLACES = {"RGGB": (0, 1, 2, 3), "GRBG": (1, 0, 3, 2), "GBRG": (2, 3, 0, 1), "BGGR": (3, 2, 1, 0), MONO: (0, 0, 0, 0)}
"""Pattern → places of the 2x2 block, row by row, in libcamera's order R, Gr, Gb, B."""


def libcamera_name(header: BayerHeader) -> str:
    """The name by which libcamera takes a format.

    >>> libcamera_name(BayerHeader(format="pBAA")), libcamera_name(BayerHeader(format="RAW12", pattern="MONO"))
    ('SBGGR10_CSI2P', 'R12_CSI2P')

    Raises:
        UsageError: libcamera has no such format, or its pattern is unknown.
    """
    how = pixel_format(header.format or "")
    if header.pattern is None or how.layout not in (Layout.WHOLE, Layout.CSI2) or how.msb or how.big_endian:
        raise UsageError(f"a Raspberry Pi gives no {how.name}; give --raw-format SRGGB10P, SRGGB10 or similar")
    plain = f"R{how.bits}" if header.pattern == MONO else f"S{header.pattern}{how.bits}"
    return f"{plain}_CSI2P" if how.layout is Layout.CSI2 else plain


def black_levels(levels: Any, pattern: str, bits: int) -> tuple[float, float, float, float]:
    """Black levels in the order of the pattern and the scale of the format.

    Args:
        levels: `SensorBlackLevels` of libcamera: R, Gr, Gb, B on a scale of 16 bits.
        pattern: of `PATTERNS`.
        bits: of the format.

    >>> black_levels((4096, 4112, 4128, 4144), "BGGR", 12)
    (259.0, 258.0, 257.0, 256.0)
    """
    first, second, third, fourth = (float(levels[place]) / 2 ** (16 - bits) for place in _PLACES[pattern])
    return first, second, third, fourth


class RaspberryPiCamera:
    """Opens a camera of a Raspberry Pi, as often as it is called.

    Args:
        source: `picamera2:N`, the N-th camera of rpicam-hello --list-cameras; without N the first.
        declared: facts of the user; None for none. Without a size, picamera2 chooses the sensor's mode.

    Raises:
        AdaptiveISPError: picamera2 is not installed.
    """

    def __init__(self, source: str, declared: BayerHeader | None):
        self.source, self.declared = source, declared
        self._number = int(source.partition(":")[2] or 0)
        try:
            self._library = importlib.import_module("picamera2")
        except ImportError as error:
            raise AdaptiveISPError(f"picamera2 is not installed ({error}); {REMEDY}") from None
        self._told = False

    def __call__(self, stopped: Event) -> Iterator[Frame]:
        """Yields the raw frames of the camera until it is lost, or the event is set.

        Raises:
            RawFileError: the camera cannot be opened or gives no frames.
            UsageError: it gives another size or format than was declared, or one that is not read.
        """
        try:
            camera = self._library.Picamera2(self._number)
        except (RuntimeError, IndexError) as error:
            remedy = "end other programs that use it, check its cable and rpicam-hello --list-cameras"
            raise RawFileError(f"{self.source}: cannot be opened ({error.__cause__ or error}); {remedy}") from None
        try:
            facts = self._configure(camera)
            camera.start()
            first: int | None = None
            number = 0
            while not stopped.is_set():
                raw, when = self._capture(camera, facts)
                first = when if first is None else first
                yield Frame(raw, f"frame-{number:06d}", None if when is None or first is None else (when - first) / 1e9)
                number += 1
        except RuntimeError as error:
            raise RawFileError(f"{self.source}: failed ({error}); check its cable and --raw-size") from None
        finally:
            camera.close()

    def _configure(self, camera: Any) -> BayerHeader:
        """Asks for a raw stream of the declared size and format, and returns the facts of the one that is given."""
        wanted: dict[str, Any] = {}
        declared = self.declared or BayerHeader()
        if declared.format is not None:
            wanted["format"] = libcamera_name(declared)
        if declared.width is not None and declared.height is not None:
            wanted["size"] = (declared.width, declared.height)
        camera.configure(camera.create_video_configuration(raw=wanted))
        given = camera.camera_configuration()["raw"]
        if given is None:
            raise UsageError(f"{self.source}: gives no raw stream, as USB cameras; give /dev/video0 instead")
        width, height = given["size"]
        try:
            stated = BayerHeader(width, height, format=given["format"], stride=given["stride"])
        except UsageError as error:
            remedy = "give --raw-format SRGGB16 with the sensor's pattern, such as SBGGR16"
            raise UsageError(f"{self.source}: {error}; {remedy}") from None
        return agreed(self.source, self.declared, stated)

    def _capture(self, camera: Any, facts: BayerHeader) -> tuple[RawImage, int | None]:
        """The next frame, and its time in nanoseconds.

        Raises:
            RawFileError: the camera gives no frame.
        """
        try:
            request = camera.capture_request(wait=STALLED_SECONDS)
        except (TimeoutError, FutureTimeoutError):
            raise RawFileError(no_frame(self.source)) from None
        try:
            content, metadata = request.make_array("raw"), request.get_metadata()
        finally:
            request.release()
        facts = self._with_black(facts, metadata)
        raw = raw_from_array(content.reshape(-1), facts, ArrayFacts(self.source))
        return replace(raw, **_exposure(metadata)), metadata.get("SensorTimestamp")

    def _with_black(self, facts: BayerHeader, metadata: Mapping[str, Any]) -> BayerHeader:
        """The facts with the black levels of the frame's metadata, unless others were declared."""
        levels = metadata.get("SensorBlackLevels")
        if levels is None or facts.pattern is None or facts.bits is None:
            return facts
        stated = black_levels(levels, facts.pattern, facts.bits)
        if facts.black is None:
            return replace(facts, black=stated)
        if not self._told and max(abs(a - b) for a, b in zip(stated, facts.black_levels, strict=True)) > 1:
            self._told = True
            text = "%s: states black levels %s, but %s are declared and used; correct --raw-black, or leave it out"
            logger.warning(text, self.source, stated, facts.black_levels)
        return facts


def _exposure(metadata: Mapping[str, Any]) -> dict[str, Any]:
    """White balance, exposure time and sensitivity of a frame, as fields of `RawImage`, where they are stated."""
    found: dict[str, Any] = {}
    gains = metadata.get("ColourGains")
    if gains is not None and min(gains) > 0:
        found["camera_gains"] = (float(gains[0]), 1.0, float(gains[1]))
    if metadata.get("ExposureTime", 0) > 0:
        found["exposure_s"] = metadata["ExposureTime"] / 1e6
    if metadata.get("AnalogueGain", 0) > 0:
        found["iso"] = 100.0 * metadata["AnalogueGain"]
    return found
