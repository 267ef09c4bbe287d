"""The Raspberry Pi's cameras by a pretended picamera2, whose interface is that of picamera2 0.3.38."""

import logging
import sys
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from adaptiveisp import AdaptiveISP
from adaptiveisp.errors import AdaptiveISPError, RawFileError, UsageError
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.streaming.cameras.raspberry_pi import black_levels
from adaptiveisp.streaming.sources import is_live, open_source
from adaptiveisp.streaming.stream import Stream
from tests.support.fake_detector import RedDetector

METADATA = {
    "SensorBlackLevels": (4096, 4160, 4224, 4288),
    "ColourGains": (1.5, 2.25),
    "ExposureTime": 20000,
    "AnalogueGain": 4.0,
    "SensorTimestamp": 5_000_000_000,
    "Lux": 12.0,
}


class PretendedCamera:
    """The raw stream that the camera gives whatever is asked for, and its frames; errors are raised in their place."""

    def __init__(self, raw: dict[str, Any] | None, given: list[Any]):
        self.raw, self.given, self.calls = raw, list(given), []

    def __call__(self, number: int) -> "PretendedCamera":
        self.calls.append(("open", number))
        if self.given and isinstance(self.given[0], IndexError):
            raise self.given[0]
        return self

    def create_video_configuration(self, raw: dict[str, Any]) -> dict[str, Any]:
        return {"use_case": "video", "raw": raw}

    def configure(self, config: dict[str, Any]) -> None:
        self.calls.append(("configure", config["raw"]))

    def camera_configuration(self) -> dict[str, Any]:
        return {"raw": self.raw}

    def start(self) -> None:
        self.calls.append("start")

    def capture_request(self, wait: float) -> "PretendedCamera":
        if isinstance(self.given[0], BaseException):
            raise self.given.pop(0)
        self.calls.append("request")
        return self

    def make_array(self, name: str) -> np.ndarray:
        assert name == "raw"
        return self.given[0][0]

    def get_metadata(self) -> dict[str, Any]:
        return self.given[0][1]

    def release(self) -> None:
        self.calls.append("release")
        self.given.pop(0)

    def close(self) -> None:
        self.calls.append("close")


def install(monkeypatch: pytest.MonkeyPatch, raw: dict[str, Any] | None, given: list[Any]) -> PretendedCamera:
    camera, module = PretendedCamera(raw, given), ModuleType("picamera2")
    module.Picamera2 = camera  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "picamera2", module)
    return camera


VALUES = np.random.default_rng(0).integers(80, 1024, (48, 64), dtype=np.uint16)
PLAIN = {"format": "SGBRG10", "size": (64, 48), "stride": 160}
"""Rows of 128 bytes in 160."""


def padded(values: np.ndarray, stride: int = 160) -> np.ndarray:
    rows = np.full((len(values), stride), 255, np.uint8)
    rows[:, : values.shape[1] * 2] = values.astype("<u2").view(np.uint8)
    return rows


def test_frames_carry_the_levels_gains_and_exposure_of_their_metadata(monkeypatch: pytest.MonkeyPatch) -> None:
    later = {**METADATA, "SensorTimestamp": 5_033_000_000, "ColourGains": (2.0, 1.25)}
    given = [(padded(VALUES), METADATA), (padded(VALUES), later), TimeoutError()]
    camera = install(monkeypatch, PLAIN, given)
    found = []
    with pytest.raises(RawFileError, match="picamera2:1: gave no frame for 10 s"):
        for frame in open_source("picamera2:1", reconnect=0):
            found.append(frame)
    raw = found[0].raw
    np.testing.assert_array_equal(raw.data, VALUES)
    assert (raw.pattern, raw.white_level, raw.exposure_s, raw.iso) == ("GBRG", 1023, 0.02, 400)
    assert raw.black_level == (66, 67, 64, 65) and raw.camera_gains == (1.5, 1, 2.25)  # Gb B / R Gr, by 2^6 smaller
    assert found[1].time_s == pytest.approx(0.033) and found[1].raw.camera_gains == (2, 1, 1.25)
    requests = ["request", "release"] * 2
    assert camera.calls == [("open", 1), ("configure", {}), "start", *requests, "close"] and is_live("picamera2:1")


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("RGGB", (1, 2, 3, 4)),
        ("GRBG", (2, 1, 4, 3)),
        ("GBRG", (3, 4, 1, 2)),
        ("BGGR", (4, 3, 2, 1)),
        ("MONO", (1, 1, 1, 1)),
    ],
)
def test_black_levels_follow_the_pattern(pattern: str, expected: tuple[float, ...]) -> None:
    """libcamera: "The reported black levels are in the order R, Gr, Gb, B"; Gr is the green of the red rows."""
    assert black_levels((16, 32, 48, 64), pattern, 12) == expected


def test_the_declared_stream_is_asked_for_and_declared_levels_are_used(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    packed = {"format": "SGBRG10_CSI2P", "size": (64, 48), "stride": 96}
    given = [(np.full((48, 96), 170, np.uint8), METADATA)] * 2 + [RuntimeError("camera gone")]
    camera = install(monkeypatch, packed, given)
    header = BayerHeader(64, 48, format="RAW10", pattern="GBRG", black=60)
    found = []
    with (
        caplog.at_level(logging.WARNING, "adaptiveisp"),
        pytest.raises(RawFileError, match=r"failed \(camera gone\)"),
    ):
        for frame in open_source("picamera2:", header, reconnect=0):
            found.append(frame)
    assert camera.calls[:2] == [("open", 0), ("configure", {"format": "SGBRG10_CSI2P", "size": (64, 48)})]
    assert found[0].raw.data[0, 0] == 170 << 2 | 170 & 3 and found[0].raw.black_level == (60,) * 4
    assert caplog.text.count("states black levels (66.0, 67.0, 64.0, 65.0), but (60.0") == 1


@pytest.mark.parametrize(
    ("raw", "header", "message"),
    [
        ({**PLAIN, "format": "BGGR16_PISP_COMP1"}, None, "compressed by the Raspberry Pi 5.*--raw-format SRGGB16 with"),
        (None, None, "gives no raw stream, as USB cameras; give /dev/video0"),
        (PLAIN, BayerHeader(128, 96), "gives a width of 64, not the declared 128"),
        (PLAIN, BayerHeader(format="SRGGB10"), "gives SGBRG10 .*, not SRGGB10; correct --raw-format"),
        (PLAIN, BayerHeader(format="BayerRG12p"), "a Raspberry Pi gives no BayerRG12p"),
    ],
)
def test_streams_that_are_not_read_or_contradict_are_refused(
    monkeypatch: pytest.MonkeyPatch, raw: dict[str, Any] | None, header: BayerHeader | None, message: str
) -> None:
    camera = install(monkeypatch, raw, [])
    with pytest.raises(UsageError, match=message):
        list(open_source("picamera2:0", header))
    assert camera.calls[-1] == "close"


def test_a_camera_that_cannot_be_opened_has_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, PLAIN, [IndexError("no camera 0")])
    with pytest.raises(RawFileError, match=r"cannot be opened .*rpicam-hello --list-cameras"):
        list(open_source("picamera2:0"))
    monkeypatch.setitem(sys.modules, "picamera2", None)
    with pytest.raises(AdaptiveISPError, match=r"sudo apt install python3-picamera2.*--system-site-packages"):
        open_source("picamera2:0")


def test_a_stream_of_the_camera_uses_its_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, PLAIN, [(padded(VALUES), METADATA), TimeoutError()])
    isp = AdaptiveISP("camera", RedDetector(), size=64)
    (result,) = Stream(isp, open_source("picamera2:0", reconnect=0))
    assert result.result.raw.camera_gains == (1.5, 1, 2.25) and result.result.full_size == (48, 64)
