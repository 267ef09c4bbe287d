"""V4L2 devices by a pretended linuxpy, whose interface and errors are those of linuxpy 0.25."""

import collections
import errno
import io
import logging
import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adaptiveisp.errors import AdaptiveISPError, RawFileError, UsageError
from adaptiveisp.raw.arrays import ArrayFacts, raw_from_array
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.streaming import reconnecting
from adaptiveisp.streaming.cameras import stated_facts, v4l2
from adaptiveisp.streaming.sources import is_live, open_source
from adaptiveisp.types import RawImage

CODES = {"RG10": 0x30314752, "pRAA": 0x41415270, "GREY": 0x59455247, "YUYV": 0x56595559, "MJPG": 0x47504A4D}
CODES["NV12"] = 0x3231564E
NAMES = {code: name for name, code in CODES.items()}
Format = collections.namedtuple("Format", "width height pixel_format size bytes_per_line")


class PretendedDevice:
    """One video device: its present format, what it offers, and the frames or errors that it gives.

    Args:
        name: its present format.
        size: width and height.
        given: bytes of frames, and errors that reading raises; None where no frame came in time.
        offers: further formats.
        padding: bytes at the end of each row.
    """

    def __init__(self, name: str, size: tuple[int, int], given: list[Any], offers: str = "", padding: int = 0):
        self.format, self.size, self.given, self.offers = name, size, list(given), [name, *offers.split()]
        self.padding, self.calls, self.refused = padding, [], None
        self.open_error: BaseException | None = None

    def row(self) -> int:
        width = self.size[0]
        return {"pRAA": width * 5 // 4, "GREY": width, "MJPG": 0}.get(self.format, 2 * width)


def install(monkeypatch: pytest.MonkeyPatch, device: PretendedDevice) -> PretendedDevice:
    class V4L2Error(Exception):
        pass

    class Device:
        def __init__(self, name: str):
            device.calls.append(("Device", name))

        def __enter__(self) -> "Device":
            if device.open_error is not None:
                raise device.open_error
            return self

        def __exit__(self, *exc: object) -> None:
            device.calls.append("closed")

    class Reader:
        def read(self, timeout: float | None = None) -> Any:
            found = device.given.pop(0)
            if isinstance(found, BaseException):
                raise found
            when = 1000.5 + 0.04 * sum(call == "read" for call in device.calls)
            device.calls.append("read" if found is not None else "waited")
            return None if found is None else SimpleNamespace(data=found, timestamp=when)

    class VideoCapture:
        buffer = SimpleNamespace(frame_reader=Reader())

        def __init__(self, opened: Device):
            self.refused = V4L2Error("Device doesn't have VIDEO_CAPTURE capability") if device.refused else None

        def formats(self) -> list[Any]:
            return [SimpleNamespace(pixel_format=CODES[name]) for name in device.offers]

        def get_format(self) -> Format:
            padding = device.padding if device.format != "MJPG" else 0
            return Format(*device.size, CODES[device.format], 0, device.row() + padding if device.row() else 0)

        def set_format(self, width: int, height: int, pixel_format: int = 0) -> None:
            device.calls.append(("set_format", width, height, NAMES[pixel_format]))
            device.format, device.size = NAMES[pixel_format], (min(width, 64), min(height, 48))

        def __enter__(self) -> "VideoCapture":
            if self.refused is not None:
                raise self.refused
            device.calls.append("started")
            return self

        def __exit__(self, *exc: object) -> None:
            device.calls.append("stopped")

    module = ModuleType("linuxpy.video.device")
    vars(module).update(Device=Device, VideoCapture=VideoCapture, V4L2Error=V4L2Error)
    for name, made in (("linuxpy", ModuleType("linuxpy")), ("linuxpy.video", ModuleType("linuxpy.video"))):
        monkeypatch.setitem(sys.modules, name, made)
    monkeypatch.setitem(sys.modules, "linuxpy.video.device", module)
    return device


UNPLUGGED = OSError(errno.ENODEV, "No such device")


def frames_of(header: BayerHeader | None = None, reconnect: float = 0.0) -> list[Any]:
    """The frames until the device is unplugged."""
    found = []
    with pytest.raises(RawFileError, match=r"/dev/video0: was unplugged; check the cable"):
        for frame in open_source("/dev/video0", header, reconnect=reconnect):
            found.append(frame)
    return found


def raw_of(frame: Any) -> RawImage:
    return raw_from_array(frame.raw, frame.header, ArrayFacts("frame"))


def test_the_frames_of_a_raw_sensor_with_padded_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(0).integers(0, 1024, (2, 4, 8), dtype=np.uint16)
    given = [b"".join(row.tobytes() + b"\xff" * 6 for row in frame) for frame in values]
    device = install(monkeypatch, PretendedDevice("RG10", (8, 4), [given[0], None, given[1], UNPLUGGED], padding=6))
    found = frames_of(BayerHeader(black=64, white=1000))
    assert [frame.name for frame in found] == ["frame-000000", "frame-000001"]
    assert [frame.time_s for frame in found] == pytest.approx([0, 0.04])
    for frame, expected in zip(found, values, strict=True):
        raw = raw_of(frame)
        np.testing.assert_array_equal(raw.data, expected)
        assert (raw.pattern, raw.black_level, raw.white_level) == ("RGGB", (64.0,) * 4, 1000)
    assert device.calls == [("Device", "/dev/video0"), "started", "read", "waited", "read", "stopped", "closed"]
    assert is_live("/dev/video0") and not is_live("x.mp4")


def test_the_declared_format_is_asked_for_by_any_of_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = bytes([1, 2, 3, 4, 0b11100100] * 2 * 4)  # values 4, 9, 14, 19: high bytes, then two low bits of each
    device = install(monkeypatch, PretendedDevice("YUYV", (16, 8), [packed, UNPLUGGED], "MJPG RG10 pRAA"))
    (frame,) = frames_of(BayerHeader(8, 4, format="SRGGB10P"))
    assert ("set_format", 8, 4, "pRAA") in device.calls
    np.testing.assert_array_equal(raw_of(frame).data, [[4, 9, 14, 19] * 2] * 4)


def test_without_a_declaration_a_raw_format_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    device = install(monkeypatch, PretendedDevice("YUYV", (16, 8), [bytes(128), UNPLUGGED], "NV12 GREY"))
    (frame,) = frames_of()
    assert ("set_format", 16, 8, "GREY") in device.calls and frame.header.pattern == "MONO"


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (BayerHeader(8, 4, format="SRGGB12"), "does not give SRGGB12, only RG10, YUYV; correct --raw-format"),
        (BayerHeader(128, 48), "gives a width of 64, not the declared 128; correct --raw-size"),
        (BayerHeader(stride=17), "gives a stride of 22, not the declared 17; correct --raw-stride"),
        (BayerHeader(pattern="BGGR"), "/dev/video0: raw format RG10 has the pattern RGGB, not BGGR"),
    ],
)
def test_what_the_driver_contradicts_is_refused(
    monkeypatch: pytest.MonkeyPatch, header: BayerHeader, message: str
) -> None:
    install(monkeypatch, PretendedDevice("RG10", (8, 4), [], "YUYV", padding=6))
    with pytest.raises(UsageError, match=message):
        list(open_source("/dev/video0", header))


def test_a_format_that_is_not_read_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, PretendedDevice("NV12", (8, 4), []))
    with pytest.raises(UsageError, match="gives NV12, which is not read; it offers NV12"):
        list(open_source("/dev/video0"))


@pytest.mark.parametrize(
    ("number", "remedy"),
    [
        (errno.ENOENT, "does not exist; v4l2-ctl --list-devices"),
        (errno.EACCES, "may not be opened; run sudo usermod -aG video"),
        (errno.EBUSY, "is used by another program; end that program"),
        (errno.ENOTTY, "is no video device"),
        (errno.ENOMEM, r"failed \(words\); check the cable"),
    ],
)
def test_errors_of_the_system_have_a_remedy(monkeypatch: pytest.MonkeyPatch, number: int, remedy: str) -> None:
    device = install(monkeypatch, PretendedDevice("RG10", (8, 4), []))
    device.open_error = OSError(number, "words")
    with pytest.raises(RawFileError, match=f"/dev/video0: {remedy}"):
        list(open_source("/dev/video0"))
    device.open_error, device.refused = None, True
    with pytest.raises(RawFileError, match=r"gives no images .*picamera2:0"):
        list(open_source("/dev/video0"))


def test_a_device_that_stalls_is_lost_and_one_that_comes_back_is_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reconnecting, "FIRST_PAUSE", 0.001)
    given = [bytes(64), UNPLUGGED, OSError(errno.EIO, "words"), bytes(64), bytes(64)]
    device = install(monkeypatch, PretendedDevice("RG10", (8, 4), given))
    with caplog.at_level(logging.WARNING, "adaptiveisp"):
        found = []
        for frame in open_source("/dev/video0", reconnect=20):
            found.append(frame)
            if len(found) == 3:
                break
    assert [frame.name for frame in found] == ["frame-000000", "frame-000001", "frame-000002"]
    assert device.calls.count("started") == 3 and "was unplugged" in caplog.text and "is back" in caplog.text
    monkeypatch.setattr(v4l2, "STALLED_SECONDS", 0.0)
    install(monkeypatch, PretendedDevice("RG10", (8, 4), [None]))
    with pytest.raises(RawFileError, match=f"gave no frame for {stated_facts.STALLED_SECONDS:g} s"):
        list(open_source("/dev/video0"))


def test_webcam_video_is_made_linear_and_said_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """BT.601: white is Y 235, black Y 16, red Y 81, Cb 90, Cr 240; BT.709's code 128 is linear 0.2615."""
    colours = {(235, 128, 128): (255, 255, 255), (16, 128, 128): (0, 0, 0), (81, 90, 240): (255, 0, 0)}
    given = [bytes([y, u, y, v] * 8 * 2) for y, u, v in colours] + [bytes([126, 128, 126, 128] * 8 * 2)]
    install(monkeypatch, PretendedDevice("YUYV", (8, 4), [*given, UNPLUGGED]))
    with caplog.at_level(logging.WARNING, "adaptiveisp"):
        found = frames_of()
    for frame, expected in zip(found, colours.values(), strict=False):
        assert np.abs(frame.raw.astype(int) - expected).max() <= 1
    assert raw_of(found[3]).data.mean() / raw_of(found[3]).white_level == pytest.approx(0.2615, abs=0.01)
    assert caplog.text.count("gives 8-bit video (YUYV), not raw") == 1


def test_motion_jpeg(monkeypatch: pytest.MonkeyPatch) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 4), (10, 200, 30)).save(buffer, "JPEG", quality=95)
    device = PretendedDevice("MJPG", (8, 4), [buffer.getvalue(), UNPLUGGED])
    install(monkeypatch, device)
    (frame,) = frames_of()
    assert np.abs(frame.raw.astype(int) - (10, 200, 30)).max() < 6 and frame.raw.shape == (4, 8, 3)
    install(monkeypatch, PretendedDevice("MJPG", (8, 4), [buffer.getvalue()[:40]]))
    with pytest.raises(RawFileError, match="gave a damaged frame"):
        list(open_source("/dev/video0"))


def test_without_linuxpy_the_remedy_is_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "linuxpy.video.device", None)
    with pytest.raises(AdaptiveISPError, match=r"pip install 'adaptiveisp\[v4l2\]'"):
        open_source("/dev/video0")
