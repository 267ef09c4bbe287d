"""Recordings of ROS that the library's own writers made: each image is read as it was written."""

import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adaptiveisp.errors import AdaptiveISPError, RawFileError, UsageError
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.raw.in_memory import raw_in_memory
from adaptiveisp.streaming.bags import parse_image
from adaptiveisp.streaming.sources import Frame, open_source
from adaptiveisp.types import RawImage

rosbag1 = pytest.importorskip("rosbags.rosbag1", reason="rosbags is not installed; pip install 'adaptiveisp[ros]'")
rosbag2 = pytest.importorskip("rosbags.rosbag2")
typesys = pytest.importorskip("rosbags.typesys")

WIDTH, HEIGHT, FRAMES = 26, 20, 3
ROS1, ROS2 = (typesys.get_typestore(store) for store in (typesys.Stores.ROS1_NOETIC, typesys.Stores.ROS2_HUMBLE))
IMAGE, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
Messages = dict[str, list[Any]]


def values(bits: int = 16, *more: int) -> np.ndarray:
    return np.random.default_rng(bits).integers(1, 2**bits, (HEIGHT, WIDTH, *more)).astype("u1" if bits == 8 else "u2")


def image(pixels: np.ndarray, encoding: str, big_endian: bool = False, padding: int = 0, ros1: bool = False) -> Any:
    """A message; its name of coordinates has a length that shifts the fields behind it off their alignment."""
    types = (ROS1 if ros1 else ROS2).types
    stored = pixels.astype(pixels.dtype.newbyteorder(">" if big_endian else "<"))
    rows = np.frombuffer(stored.tobytes(), np.uint8).reshape(len(pixels), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=7)
    stamp = types["builtin_interfaces/msg/Time"](5, 6)
    sequence = {"seq": 9} if ros1 else {}
    header = types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera", **sequence)
    fields = {"height": pixels.shape[0], "width": pixels.shape[1], "encoding": encoding, "step": rows.shape[1]}
    return types[IMAGE](header=header, is_bigendian=int(big_endian), data=rows.ravel(), **fields)


def ros2(path: Path, messages: Messages, plugin: str = "SQLITE3") -> Path:
    with rosbag2.Writer(path, version=9, storage_plugin=rosbag2.StoragePlugin[plugin]) as writer:
        for topic, found in messages.items():
            kind = found[0].__msgtype__
            connection = writer.add_connection(topic, kind, typestore=ROS2)
            for number, message in enumerate(found):
                writer.write(connection, 10**9 + number * 40_000_000, ROS2.serialize_cdr(message, kind))
    return path


def folder(path: Path, messages: Messages) -> Path:
    return ros2(path / "bag", messages)


def db3(path: Path, messages: Messages) -> Path:
    return next(ros2(path / "bag", messages).glob("*.db3"))


def mcap(path: Path, messages: Messages) -> Path:
    return next(ros2(path / "bag", messages, "MCAP").glob("*.mcap"))


def bag(path: Path, messages: Messages) -> Path:
    with rosbag1.Writer(path / "x.bag") as writer:
        for topic, found in messages.items():
            connection = writer.add_connection(topic, IMAGE, typestore=ROS1)
            for number, message in enumerate(found):
                writer.write(connection, 10**9 + number * 40_000_000, ROS1.serialize_ros1(message, IMAGE))
    return path / "x.bag"


def raw_of(frame: Frame) -> RawImage:
    return raw_in_memory(frame.raw, frame.header)


def one(path: Path, pixels: np.ndarray, encoding: str, header: BayerHeader | None = None, **how: Any) -> RawImage:
    (frame,) = open_source(str(ros2(path, {"/image": [image(pixels, encoding, **how)]})), header)
    return raw_of(frame)


@pytest.mark.parametrize("write", [folder, db3, mcap, bag])
def test_images_in_their_order_with_their_times(tmp_path: Path, write: Callable[[Path, Messages], Path]) -> None:
    stack = [values() + number for number in range(FRAMES)]
    ros1 = write is bag
    messages = {"/camera/image_raw": [image(pixels, "bayer_gbrg16", padding=6, ros1=ros1) for pixels in stack]}
    path = write(tmp_path, messages)
    found = list(open_source(str(path)))
    assert [frame.name for frame in found] == [f"{path.stem}-{number:06d}" for number in range(FRAMES)]
    assert [frame.time_s for frame in found] == pytest.approx([0, 0.04, 0.08])
    for frame, pixels in zip(found, stack, strict=True):
        raw = raw_of(frame)
        np.testing.assert_array_equal(raw.data, pixels)
        assert (raw.pattern, raw.white_level) == ("GBRG", 65535)


@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_encodings(tmp_path: Path, pattern: str, big_endian: bool) -> None:
    raw = one(tmp_path / "16", values(), f"bayer_{pattern}16", big_endian=big_endian)
    np.testing.assert_array_equal(raw.data, values())
    assert raw.pattern == pattern.upper()
    raw = one(tmp_path / "8", values(8), f"bayer_{pattern}8", BayerHeader(black=3), big_endian=big_endian)
    np.testing.assert_array_equal(raw.data, values(8))
    assert (raw.pattern, raw.white_level, raw.black_level[0]) == (pattern.upper(), 255, 3)


@pytest.mark.parametrize("mode", ["MESSAGE", "FILE"])
def test_compressed_recordings_and_facts_in_a_sidecar(tmp_path: Path, mode: str) -> None:
    kind, path = IMAGE, tmp_path / "night"
    writer = rosbag2.Writer(path, version=9)
    writer.set_compression(rosbag2.CompressionMode[mode], rosbag2.CompressionFormat.ZSTD)
    with writer:
        connection = writer.add_connection("/image", kind, typestore=ROS2)
        writer.write(connection, 10**9, ROS2.serialize_cdr(image(values(12), "bayer_grbg16"), kind))
    (tmp_path / "night.yaml").write_text("raw-bits: 12\nraw-black: 64\n")
    (raw,) = map(raw_of, open_source(str(path)))
    np.testing.assert_array_equal(raw.data, values(12))
    assert (raw.pattern, raw.white_level, raw.black_level[0]) == ("GRBG", 4095, 64)


def test_twelve_bits_in_sixteen(tmp_path: Path) -> None:
    """In the low bits by raw-bits, and in the high bits by a format."""
    low = values(12)
    for big_endian in (False, True):
        place = tmp_path / str(big_endian)
        raw = one(place, low, "bayer_rggb16", BayerHeader(bits=12, black=64), big_endian=big_endian)
        np.testing.assert_array_equal(raw.data, low)
        assert (raw.white_level, raw.black_level[0]) == (4095, 64)
    raw = one(tmp_path / "msb", low << 4, "bayer_rggb16", BayerHeader(format="u12msble16"))
    np.testing.assert_array_equal(raw.data, low)
    with pytest.raises(UsageError, match=r"encoding bayer_rggb8: raw format u8le8 has 8 bits, not 12"):
        one(tmp_path / "8", values(8), "bayer_rggb8", BayerHeader(bits=12))


@pytest.mark.parametrize(("encoding", "bits"), [("mono8", 8), ("mono16", 16), ("8UC1", 8), ("16UC1", 16)])
def test_grey_images_need_a_pattern(tmp_path: Path, encoding: str, bits: int) -> None:
    raw = one(tmp_path / "a", values(bits), encoding, BayerHeader(pattern="MONO"))
    np.testing.assert_array_equal(raw.data, values(bits))
    assert raw.pattern == "MONO"
    with pytest.raises(UsageError, match=rf"image has the encoding {encoding}, .* give --raw-pattern"):
        one(tmp_path / "b", values(bits), encoding)


def test_colours(tmp_path: Path) -> None:
    """16 bits are linear; 8 bits are encoded for a display: code 128 of BT.709 is 0.2615 of the range."""
    rgb = values(16, 3)
    np.testing.assert_array_equal(one(tmp_path / "a", rgb, "rgb16", padding=4).data, rgb)
    np.testing.assert_array_equal(one(tmp_path / "b", rgb, "bgr16", big_endian=True).data, rgb[..., ::-1])
    raw = one(tmp_path / "c", np.full((HEIGHT, WIDTH, 3), (128, 0, 255), np.uint8), "bgr8")
    linear = raw.data / raw.white_level
    np.testing.assert_allclose(linear[0, 0], [1, 0, 0.2615], atol=1e-3)
    srgb = one(tmp_path / "d", np.full((HEIGHT, WIDTH, 3), 128, np.uint8), "rgb8", BayerHeader(curve="srgb"))
    np.testing.assert_allclose(srgb.data / srgb.white_level, 0.2159, atol=1e-3)  # IEC 61966-2-1


def test_one_of_several_topics(tmp_path: Path) -> None:
    left, right = values(), values()[::-1]
    path = ros2(tmp_path / "x", {f"/{name}/image": [image(pixels, "bayer_rggb16")] for name, pixels in
                                 (("left", left), ("right", right))})  # fmt: skip
    for topic, pixels in (("/left/image", left), ("right/image", right)):
        (frame,) = open_source(str(path), topic=topic)
        np.testing.assert_array_equal(raw_of(frame).data, pixels)
    with pytest.raises(UsageError, match=r"has 2 topics of images; give --topic, one of /left/image, /right/image"):
        list(open_source(str(path)))
    with pytest.raises(UsageError, match=r"no images of topic '/up'; topics of images are /left/image, /right/image"):
        list(open_source(str(path), topic="/up"))


def test_what_cannot_be_used_is_refused_by_name(tmp_path: Path) -> None:
    types = ROS2.types
    header = types["std_msgs/msg/Header"](types["builtin_interfaces/msg/Time"](0, 0), "")
    jpeg = types[COMPRESSED](header, "jpeg", np.zeros(9, np.uint8))
    with pytest.raises(RawFileError, match=r"a: the images of /image/compressed are compressed; record raw images"):
        list(open_source(str(ros2(tmp_path / "a", {"/image/compressed": [jpeg]}))))
    with pytest.raises(RawFileError, match=r"b: has no images; it has no topic of sensor_msgs/Image"):
        list(open_source(str(ros2(tmp_path / "b", {"/text": [types["std_msgs/msg/String"]("x")]}))))
    with pytest.raises(RawFileError, match=r"/image has images of encoding 'rgba8'; known are bayer_rggb8, "):
        one(tmp_path / "c", values(8, 4), "rgba8")
    (tmp_path / "d.mcap").write_bytes(b"\x89MCAP0\r\n" + bytes(100))
    with pytest.raises(RawFileError, match=r"d\.mcap: cannot be read as a recording of ROS"):
        list(open_source(str(tmp_path / "d.mcap")))
    np.save(tmp_path / "e.npy", values())
    with pytest.raises(UsageError, match=r"e\.npy: --topic is for recordings of ROS"):
        open_source(str(tmp_path / "e.npy"), topic="/image")


def test_declared_facts_that_contradict_an_image_are_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    messages = {"/image": [image(values(), "bayer_rggb16")] * 3}
    found = list(open_source(str(ros2(tmp_path / "x", messages)), BayerHeader(100, 90, pattern="BGGR")))
    assert [raw_of(frame).pattern for frame in found] == ["BGGR"] * 3 and raw_of(found[0]).data.shape == (HEIGHT, WIDTH)
    texts = [record.getMessage() for record in caplog.records]
    assert len(texts) == 2
    assert "--raw-pattern BGGR is used, though the encoding is bayer_rggb16" in texts[0]
    assert f"is {WIDTH}x{HEIGHT}, though --raw-size says 100x90" in texts[1]


def test_a_frame_that_is_too_short_is_an_error_of_its_own(tmp_path: Path) -> None:
    short = image(values(), "bayer_rggb16")
    short.data = short.data[:-1]
    path = ros2(tmp_path / "x", {"/image": [short, image(values(), "bayer_rggb16")]})
    first, second = open_source(str(path))
    with pytest.raises(RawFileError, match=r"26x20 pixels of u16le16 need 1040 bytes"):
        raw_of(first)
    np.testing.assert_array_equal(raw_of(second).data, values())


def test_messages_of_either_byte_order_and_damaged_ones() -> None:
    """CDR is written by hand here, in the high byte first; cut messages are errors wherever they are cut."""
    name, encoding = b"cam\0", b"mono8\0"
    big = b"\0\0\0\0" + struct.pack(">iII4s", 1, 2, 4, name) + struct.pack(">III6s", 2, 3, 6, encoding)
    big += struct.pack(">B", 1) + bytes(1) + struct.pack(">II", 3, 6) + bytes(range(6))
    found = parse_image(big)
    assert (found.width, found.height, found.encoding, found.big_endian, found.step) == (3, 2, "mono8", True, 3)
    assert found.data.tolist() == [0, 1, 2, 3, 4, 5]
    for end in range(len(big)):
        with pytest.raises(ValueError, match="too short"):
            parse_image(big[:end])


def test_a_missing_library_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder(tmp_path, {"/image": [image(values(), "bayer_rggb16")]})
    monkeypatch.setitem(sys.modules, "rosbags.rosbag2", None)
    with pytest.raises(AdaptiveISPError, match=r"not installed; run: pip install 'adaptiveisp\[ros\]'"):
        list(open_source(str(path)))
