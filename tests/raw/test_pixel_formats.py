"""Every pixel format of the table: mosaics packed by an independent packer are read back equal."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from adaptiveisp.errors import RawFileError, UsageError
from adaptiveisp.kernels import loading
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.raw.in_memory import raw_in_memory
from adaptiveisp.raw.pixel_formats import Layout, PixelFormat, pixel_format, pixel_formats
from adaptiveisp.raw.reader import read_raw
from adaptiveisp.raw.unpacking import unpack

GENERIC = ["u8le8", "u12le16", "u12be16", "u12msble16", "u14msbbe16", "u20le24", "u20be24", "u20le32", "u24le24"]
GENERIC += ["u24be32", "u20msble24", "u24msble32", "u16be16", "u10le24"]
ONE_EACH = sorted({f.described().partition("(")[2]: name for name, f in pixel_formats().items()}.values()) + GENERIC


def bits_of(value: int, count: int) -> list[int]:
    """Bits of a number, the lowest first."""
    return [value >> i & 1 for i in range(count)]


def packed_row(values: list[int], how: PixelFormat) -> bytes:
    """A row of a format, bit by bit from the words of its specification; slow, and nothing of the product is used."""
    if how.layout is Layout.WHOLE:
        order = "big" if how.big_endian else "little"
        shift = how.container - how.bits if how.msb else 0
        return b"".join((value << shift).to_bytes(how.container // 8, order) for value in values)
    row: list[int] = []
    if how.layout is Layout.LSB:
        for value in values:
            row += bits_of(value, how.bits)
        row += [0] * (-len(row) % 8)
        return bytes(sum(bit << i for i, bit in enumerate(row[k : k + 8])) for k in range(0, len(row), 8))
    size = 4 if how.bits in (10, 14) and how.layout is Layout.CSI2 else 2
    low = how.bits - 8
    content = bytearray()
    for start in range(0, len(values), size):
        group = values[start : start + size] + [0] * (size - len(values[start : start + size]))
        if how.layout is Layout.GIGE:
            first, second = group
            content += bytes([first >> low, (second & (1 << low) - 1) << 4 | first & (1 << low) - 1, second >> low])
        else:
            content += bytes(value >> low for value in group)
            rest = sum((value & (1 << low) - 1) << (low * i) for i, value in enumerate(group))
            content += rest.to_bytes(size * low // 8, "little")
    return bytes(content)


def packed(frames: NDArray[np.uint32], how: PixelFormat, stride: int, offset: int) -> bytes:
    """Frames (n, height, width) in a file, padding and header filled with a byte that is no pixel."""
    rows = [packed_row(row.tolist(), how).ljust(stride, b"\xa5") for frame in frames for row in frame]
    return b"\x5a" * offset + b"".join(rows)


def mosaics(how: PixelFormat, n: int, height: int, width: int, seed: int) -> NDArray[np.uint32]:
    values = np.random.default_rng(seed).integers(0, 2**how.bits, (n, height, width), dtype=np.uint32)
    values[:, 0, :4] = [0, 2**how.bits - 1, 1, 2 ** (how.bits - 1)][: min(4, width)]
    return values


@pytest.mark.parametrize("kernels", ["1", "0"])
@pytest.mark.parametrize("name", ONE_EACH)
def test_what_was_packed_is_read_back(name: str, kernels: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(loading.SWITCH, kernels)
    how = pixel_format(name)
    for seed, (width, height, extra) in enumerate(
        ((16, 3, 0), (17, 2, 0), (19, 4, 7), (22, 3, 64), (5, 1, 1), (4, 2, 0))
    ):
        values = mosaics(how, 1, height, width, seed)
        stride = len(packed_row(values[0, 0].tolist(), how)) + extra
        assert how.row_bytes(width) == stride - extra
        content = np.frombuffer(packed(values, how, stride, 0), np.uint8)
        found = unpack(content[: len(content) - extra], how, width, height, stride)  # the last row without its padding
        np.testing.assert_array_equal(found, values[0])
        assert found.dtype == (np.uint8 if how.bits == 8 else np.uint16 if how.bits <= 16 else np.uint32)


@pytest.mark.parametrize("threads", [1, 3])
def test_rows_are_shared_among_threads(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr("adaptiveisp.kernels.unpacking.LEAST_PIXELS", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    how = pixel_format("RAW12")
    values = mosaics(how, 1, 90, 30, 0)
    content = np.frombuffer(packed(values, how, 45, 0), np.uint8)
    np.testing.assert_array_equal(unpack(content, how, 30, 90), values[0])


@pytest.mark.parametrize("name", ["SRGGB10P", "BayerGB12p", "Mono12Packed", "Y16_BE", "SBGGR14_CSI2P", "GRBG", "RAW14"])
def test_files_with_stride_offset_and_frames(name: str, tmp_path: Path) -> None:
    how = pixel_format(name)
    values = mosaics(how, 3, 18, 20, 1)
    stride = how.row_bytes(20) + 6
    path = tmp_path / "x.raw"
    path.write_bytes(packed(values, how, stride, 11))
    pattern = None if how.pattern else "RGGB"
    for frame in range(3):
        header = BayerHeader(20, 18, None, pattern, format=name, stride=stride, offset=11, frames=3, frame=frame)
        raw = read_raw(path, header)
        np.testing.assert_array_equal(raw.data, values[frame])
        assert raw.pattern == (how.pattern or "RGGB") and raw.white_level == 2**how.bits - 1
    (tmp_path / "x.raw.yaml").write_text(
        f"raw-size: 20x18\nraw-format: {name}\nraw-stride: {stride}\nraw-offset: 11\nraw-frames: 3\nraw-frame: 2\n"
        + ("raw-pattern: RGGB\n" if pattern else "")
    )
    np.testing.assert_array_equal(read_raw(path).data, values[2])


def test_every_pattern_of_a_name_is_that_of_the_format() -> None:
    for name, found in pixel_formats().items():
        assert pixel_format(name) is found
    expected = {"SGBRG10P": "GBRG", "pgAA": "GRBG", "pGAA": "GBRG", "BayerBG8": "BGGR", "BYR2": "BGGR", "Y10P": "MONO"}
    assert {name: pixel_format(name).pattern for name in expected} == expected
    assert pixel_format("bayerrg12PACKED").layout is Layout.GIGE
    assert pixel_format("V4L2_PIX_FMT_SRGGB12P").bits == 12


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("PGAA", "is unknown"),  # pgAA or pGAA
        ("RGB24", "is unknown"),
        ("RGGB_PISP_COMP1", "compressed by the Raspberry Pi 5; ask for an uncompressed one"),
        ("SBGGR10ALAW8", "A-law"),
        ("SRGGB10_IPU3", "IPU3"),
        ("u26le32", "26 bits in 32"),
        ("u12le8", "12 bits in 8"),
    ],
)
def test_formats_that_are_not_read_are_refused_by_name(name: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        BayerHeader(format=name)


def test_facts_that_contradict_the_format_are_refused() -> None:
    for facts, message in (
        ({"bits": 12}, "has 10 bits, not 12"),
        ({"pattern": "BGGR"}, "has the pattern RGGB, not BGGR"),
        ({"stride": 0}, "stride must be at least 1"),
        ({"frames": 2, "frame": 2}, "frame 2 does not exist"),
        ({"curve": "log"}, "curve log is unknown|curve 'log' is unknown"),
        ({"curve": "srgb", "knees": [[0, 0], [1, 1]]}, "not both"),
        ({"knees": [[0, 0], [0, 1]]}, "do not ascend"),
        ({"knees": [[0, 0], [1]]}, "not pairs"),
    ):
        with pytest.raises(UsageError, match=message):
            BayerHeader(format="SRGGB10P", **facts)
    assert BayerHeader(format="SRGGB16", bits=12).pixel_format.bits == 12  # the driver's name, the sensor's depth


def test_rows_longer_than_the_stride_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.raw"
    path.write_bytes(bytes(800))
    with pytest.raises(RawFileError, match="take 25 bytes, more than --raw-stride 24"):
        read_raw(path, BayerHeader(20, 18, format="SRGGB10P", stride=24))
    with pytest.raises(ValueError, match="need rows of 25 bytes"):
        unpack(np.zeros(800, np.uint8), pixel_format("RAW10"), 20, 18, 24)
    with pytest.raises(ValueError, match="need 450 bytes"):
        unpack(np.zeros(449, np.uint8), pixel_format("RAW10"), 20, 18)


@pytest.mark.parametrize("shape", ["rows of bytes", "bytes"])
def test_arrays_of_bytes_are_unpacked(shape: str) -> None:
    """`capture_array("raw")` of picamera2 gives rows of bytes with padding."""
    how = pixel_format("SGBRG10_CSI2P")
    values = mosaics(how, 1, 18, 20, 4)
    content = np.frombuffer(packed(values, how, 32, 0), np.uint8)
    array = content.reshape(18, 32) if shape == "rows of bytes" else content
    header = BayerHeader(20, 18, format="SGBRG10_CSI2P", stride=32)
    raw = raw_in_memory(array, header)
    np.testing.assert_array_equal(raw.data, values[0])
    assert raw.pattern == "GBRG" and raw.white_level == 1023
    with pytest.raises(RawFileError, match="give raw-size"):
        raw_in_memory(content, BayerHeader(format="SGBRG10_CSI2P"))
    with pytest.raises(RawFileError, match="array: 20x19 pixels of SGBRG10_CSI2P need 601 bytes; correct raw-size"):
        raw_in_memory(array, BayerHeader(20, 19, format="SGBRG10_CSI2P", stride=32))


def test_companding_is_undone(tmp_path: Path) -> None:
    codes = np.arange(20 * 18, dtype="<u2").reshape(18, 20) * 11
    path = tmp_path / "x.raw"
    codes.tofile(path)
    knees = [[0, 0], [2048, 2048], [4095, 67552]]
    raw = read_raw(path, BayerHeader(20, 18, 12, "RGGB", knees=knees))
    expected = np.where(codes <= 2048, codes, 2048 + (codes.astype(float) - 2048) * 32)
    np.testing.assert_allclose(raw.data, expected, rtol=1e-6)
    assert raw.white_level == 67552 and raw.data.dtype == np.float32
    np.save(tmp_path / "x.npy", codes)
    same = read_raw(tmp_path / "x.npy", BayerHeader(None, None, 12, "RGGB", knees=knees))
    np.testing.assert_array_equal(same.data, raw.data)
    squared = read_raw(path, BayerHeader(20, 18, 12, "RGGB", curve="sqrt"))
    np.testing.assert_allclose(squared.data, codes.astype(float) ** 2 / 4095, rtol=1e-6)
    for curve in ("srgb", "bt709", "a-law"):
        raw = read_raw(path, BayerHeader(20, 18, 12, "RGGB", curve=curve))
        assert (np.diff(raw.data.ravel()) > 0).all() and raw.data.ravel()[0] == 0 and raw.data.max() < 4095


def test_monochrome_values_are_equal_in_all_channels(tmp_path: Path) -> None:
    from adaptiveisp.raw.develop import develop

    path = tmp_path / "x.raw"
    values = mosaics(pixel_format("Y10"), 1, 18, 20, 2)[0].astype("<u2")
    values.tofile(path)
    rgb = develop(read_raw(path, BayerHeader(20, 18, format="Y10", black=64)))
    assert (rgb[0] == rgb[1]).all() and (rgb[0] == rgb[2]).all()
    np.testing.assert_allclose(rgb[0].numpy(), np.clip((values.astype(float) - 64) / 959, 0, 1), atol=1e-6)
