"""GenICam cameras by a pretended harvesters, whose interface is that of harvesters 1.4.3."""

import os
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from adaptiveisp.errors import AdaptiveISPError, RawFileError, UsageError
from adaptiveisp.raw.arrays import ArrayFacts, raw_from_array
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.streaming.cameras import genicam
from adaptiveisp.streaming.sources import is_live, open_source


class GenericException(Exception):
    pass


class AccessDeniedException(GenericException):
    pass


class Buffer:
    """A buffer of the camera, which overwrites the bytes once it is queued again."""

    def __init__(self, camera: "PretendedCamera", content: bytes, time_ns: int | None):
        self.camera, self.time_ns, self.memory = camera, time_ns, bytearray(b"\xee" * camera.offset + content)
        self.module = SimpleNamespace(raw_buffer=memoryview(self.memory))
        component = SimpleNamespace(
            data_format=camera.nodes.PixelFormat.value,
            width=camera.nodes.Width.value,
            height=camera.nodes.Height.value,
            x_padding=camera.padding,
            data_offset=camera.offset,
        )
        self.payload = SimpleNamespace(components=[component])

    @property
    def timestamp_ns(self) -> int:
        if self.time_ns is None:
            raise GenericException("not available")
        return self.time_ns

    def __enter__(self) -> "Buffer":
        return self

    def __exit__(self, *exc: object) -> None:
        self.memory[:] = b"\xaa" * len(self.memory)
        self.camera.calls.append("queued")


class PretendedCamera:
    """One camera, of several that are found, and the contents or errors that it gives."""

    def __init__(self, name: str, size: tuple[int, int], given: list[Any], padding: int = 0, offset: int = 0):
        self.given, self.padding, self.offset, self.calls = list(given), padding, offset, []
        self.found, self.create_error = [SimpleNamespace(serial_number="A1")], None
        symbolics = ("Mono8", "RGB8", "BayerRG8", "BayerRG10", "BayerRG12p", "BayerRG12Packed")
        self.nodes = SimpleNamespace(
            PixelFormat=SimpleNamespace(value=name, symbolics=symbolics),
            Width=SimpleNamespace(value=size[0]),
            Height=SimpleNamespace(value=size[1]),
        )
        self.remote_device = SimpleNamespace(node_map=self.nodes)
        self.timed = True

    def start(self) -> None:
        self.calls.append("start")

    def try_fetch(self, *, timeout: float) -> Buffer | None:
        found = self.given.pop(0)
        if isinstance(found, BaseException):
            raise found
        number = self.calls.count("queued")
        return None if found is None else Buffer(self, found, 7 * 10**9 + 10**7 * number if self.timed else None)

    def destroy(self) -> None:
        self.calls.append("destroy")


def install(monkeypatch: pytest.MonkeyPatch, camera: PretendedCamera) -> PretendedCamera:
    class Harvester:
        def add_file(self, file: str) -> None:
            camera.calls.append(("add_file", Path(file).name))

        def update(self) -> None:
            self.device_info_list = camera.found

        def create(self, which: Any) -> PretendedCamera:
            camera.calls.append(("create", which))
            if camera.create_error is not None:
                raise camera.create_error
            return camera

        def reset(self) -> None:
            camera.calls.append("reset")

    made: dict[str, dict[str, Any]] = {
        "harvesters": {},
        "harvesters.core": {"Harvester": Harvester},
        "genicam": {},
        "genicam.gentl": {"GenericException": GenericException, "AccessDeniedException": AccessDeniedException},
        "genicam.genapi": {"GenericException": GenericException},
    }
    for name, content in made.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    return camera


@pytest.fixture
def producer(tmp_path: Path) -> str:
    (tmp_path / "vendor.cti").write_bytes(b"")
    return f"genicam:{tmp_path / 'vendor.cti'}"


GONE = GenericException("the device was removed")


def frames_of(source: str, header: BayerHeader | None = None) -> list[Any]:
    """The frames until the camera is removed."""
    found = []
    with pytest.raises(RawFileError, match=r"failed \(GenericException: the device was removed\); check its cable"):
        for frame in open_source(source, header, reconnect=0):
            found.append(frame)
    return found


def values_of(frame: Any) -> np.ndarray:
    return raw_from_array(frame.raw, frame.header, ArrayFacts("frame")).data


def test_packed_frames_are_copied_before_their_buffers_are_queued(
    monkeypatch: pytest.MonkeyPatch, producer: str
) -> None:
    """GigE Vision, two pixels in three bytes: high bits, low bits of both, high bits. Rows have two padding bytes."""
    group = bytes([0x12, 0x43, 0x56])  # 0x123 and 0x564
    content = (group * 4 + b"\xff\xff") * 4
    given = [content, None, content, GONE]
    camera = install(monkeypatch, PretendedCamera("BayerRG12Packed", (8, 4), given, padding=2, offset=16))
    found = frames_of(producer, BayerHeader(black=16))
    assert len(found) == 2 and found[1].time_s == pytest.approx(0.01) and is_live(producer)
    for frame in found:
        np.testing.assert_array_equal(values_of(frame), [[0x123, 0x564] * 4] * 4)
        assert (frame.header.pattern, frame.header.bits, frame.header.black) == ("RGGB", 12, 16)
    ends = ["start", "queued", "queued", "destroy", "reset"]
    assert camera.calls == [("add_file", "vendor.cti"), ("create", 0), *ends]


def test_the_declared_format_and_size_are_set(monkeypatch: pytest.MonkeyPatch, producer: str) -> None:
    content = np.arange(32, dtype="<u2").tobytes()
    camera = install(monkeypatch, PretendedCamera("BayerRG8", (64, 48), [content, GONE]))
    camera.timed = False
    (frame,) = frames_of(producer, BayerHeader(8, 4, format="RG10"))
    assert camera.nodes.PixelFormat.value == "BayerRG10" and camera.nodes.Width.value == 8 and frame.time_s is None
    np.testing.assert_array_equal(values_of(frame), np.arange(32).reshape(4, 8))


@pytest.mark.parametrize(
    ("name", "width", "header", "message"),
    [
        ("BayerRG8", 8, BayerHeader(format="SRGGB14"), "does not give SRGGB14, only Mono8, RGB8, BayerRG8.*correct"),
        ("BayerRG8", 8, BayerHeader(pattern="BGGR"), "has the pattern RGGB, not BGGR"),
        ("RGB8", 8, None, "raw format 'RGB8' is unknown.*choose BayerRG12p or similar"),
        ("BayerRG12p", 7, None, "its width of 7 is no multiple of 2, as BayerRG12p needs; set another width"),
    ],
)
def test_what_is_not_read_or_contradicts_is_refused(
    monkeypatch: pytest.MonkeyPatch, producer: str, name: str, width: int, header: BayerHeader | None, message: str
) -> None:
    camera = install(monkeypatch, PretendedCamera(name, (width, 4), [bytes(256)]))
    with pytest.raises(UsageError, match=message):
        list(open_source(producer, header))
    assert camera.calls[-2:] == ["destroy", "reset"]


def test_one_of_several_cameras_is_chosen(monkeypatch: pytest.MonkeyPatch, producer: str) -> None:
    camera = install(monkeypatch, PretendedCamera("BayerRG8", (8, 4), []))
    camera.found = [SimpleNamespace(serial_number=name) for name in ("A1", "B2")]
    with pytest.raises(UsageError, match=r"there are 2 cameras: #0 .*A1.*, #1 .*B2.*; add #0 or # and a serial"):
        list(open_source(producer))
    for which, expected in (("#1", 1), ("#B2", {"serial_number": "B2"}), ("#77", {"serial_number": "77"})):
        camera.given = [bytes(32), GONE]
        assert len(frames_of(producer + which)) == 1 and camera.calls[-5] == ("create", expected)
    camera.found = []
    with pytest.raises(RawFileError, match=r"no camera was found by .*vendor\.cti; check its cable"):
        list(open_source(producer))


def test_a_camera_that_is_busy_or_silent_is_said(monkeypatch: pytest.MonkeyPatch, producer: str) -> None:
    camera = install(monkeypatch, PretendedCamera("BayerRG8", (8, 4), [None]))
    monkeypatch.setattr(genicam, "STALLED_SECONDS", 0.0)
    with pytest.raises(RawFileError, match="gave no frame for 10 s; check its cable, its power and its trigger"):
        list(open_source(producer))
    camera.given = [ValueError("cannot reshape array of size 56 into shape (18,3)")]
    with pytest.raises(RawFileError, match=r"cannot unpack its frames .*choose a width without padding"):
        list(open_source(producer))
    camera.create_error = AccessDeniedException("opened")
    with pytest.raises(RawFileError, match="is used by another program"):
        list(open_source(producer))
    assert camera.calls[-1] == "reset"


def test_producers_are_found_by_the_variable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    camera = install(monkeypatch, PretendedCamera("BayerRG8", (8, 4), [bytes(32), GONE]))
    monkeypatch.delenv(genicam.PRODUCERS, raising=False)
    with pytest.raises(UsageError, match="no producer in GENICAM_GENTL64_PATH, which is not set"):
        open_source("genicam:")
    for name in ("b/two.cti", "a/one.cti", "a/readme.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    monkeypatch.setenv(genicam.PRODUCERS, os.pathsep.join([str(tmp_path / "a"), str(tmp_path / "b"), ""]))
    assert len(frames_of("genicam:")) == 1
    assert camera.calls[:2] == [("add_file", "one.cti"), ("add_file", "two.cti")]
    with pytest.raises(UsageError, match=r"there is no producer none\.cti"):
        open_source("genicam:none.cti")
    monkeypatch.setitem(sys.modules, "harvesters.core", None)
    with pytest.raises(AdaptiveISPError, match=r"pip install 'adaptiveisp\[genicam\]'"):
        open_source("genicam:")
