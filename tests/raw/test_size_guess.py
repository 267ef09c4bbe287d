"""Headerless raws of an unexpected size: the message names what fits, and with its flags the file is read.

Packed bytes are made here bit by bit, as the MIPI specification lays them out.
"""

import re
from pathlib import Path

import numpy as np
import pytest

from adaptiveisp.errors import RawFileError
from adaptiveisp.raw.reader import BayerHeader, read_raw

WIDTH, HEIGHT = 40, 24


def pixels(bits: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    return np.random.default_rng(bits).integers(0, 2**bits, (height, width))


def packed(values: np.ndarray, bits: int) -> np.ndarray:
    """MIPI RAW10, 12 and 14: the high bytes of a group of values, then their low bits, first value lowest."""
    group = {10: 4, 12: 2, 14: 4}[bits]
    low = bits - 8
    rows = []
    for row in values:
        content = bytearray()
        for start in range(0, len(row), group):
            few = [int(value) for value in row[start : start + group]]
            content += bytes(value >> low for value in few)
            rest = sum((value & (2**low - 1)) << (low * place) for place, value in enumerate(few))
            content += rest.to_bytes(low * group // 8, "little")
        rows.append(np.frombuffer(bytes(content), np.uint8))
    return np.stack(rows)


def refusal(path: Path, header: BayerHeader) -> str:
    with pytest.raises(RawFileError) as caught:
        read_raw(path, header)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message
    assert re.search(r"needs \d+ bytes, found \d+; ", message)
    return message


def as_told(message: str, path: Path, size: tuple[int, int], pattern: str = "RGGB", **others: object) -> np.ndarray:
    """The pixels that are read with the flags of a message's first remedy, added to the declared facts."""
    line = re.search(r"; give (--raw-[^;]*?) \(docs/raws\.md\)", message)
    assert line is not None, message
    words = line[1].split()
    facts = {flag.removeprefix("--raw-"): value for flag, value in zip(words[::2], words[1::2], strict=True)}
    given = {name: value if name == "format" else int(value) for name, value in facts.items()}
    known = {} if "format" in given else others
    return read_raw(path, BayerHeader(*size, pattern=pattern, **{**known, **given})).data


@pytest.mark.parametrize("padding", [0, 18])
@pytest.mark.parametrize("bits", [10, 12, 14])
def test_packed_values(tmp_path: Path, bits: int, padding: int) -> None:
    values = pixels(bits)
    np.pad(packed(values, bits), ((0, 0), (0, padding))).tofile(tmp_path / "it's.raw")
    header = BayerHeader(WIDTH, HEIGHT, bits, "RGGB")
    message = refusal(tmp_path / "it's.raw", header)
    assert f"looks like RAW{bits} (CSI-2, {bits} bits, " in message
    assert (f"rows padded to {WIDTH * bits // 8 + 18} bytes" in message) == bool(padding)
    assert np.array_equal(as_told(message, tmp_path / "it's.raw", (WIDTH, HEIGHT)), values)


@pytest.mark.parametrize(("bits", "dtype"), [(8, "u1"), (12, "<u2")])
def test_padded_rows(tmp_path: Path, bits: int, dtype: str) -> None:
    values = pixels(bits)
    size = np.dtype(dtype).itemsize
    np.pad(values, ((0, 0), (0, 12))).astype(dtype).tofile(tmp_path / "x.raw")
    message = refusal(tmp_path / "x.raw", BayerHeader(WIDTH, HEIGHT, bits, "RGGB"))
    assert f"rows padded to {52 * size} bytes ({40 * size} of them pixels)" in message
    assert np.array_equal(as_told(message, tmp_path / "x.raw", (WIDTH, HEIGHT), bits=bits), values)


def test_constant_ends_of_rows_tell_padding_from_packing(tmp_path: Path) -> None:
    """1344 bytes a row may be 1280 of whole values or 960 of packed ones: what is constant tells."""
    values = pixels(12, 640, 16)
    np.pad(values, ((0, 0), (0, 32))).astype("<u2").tofile(tmp_path / "x.raw")
    message = refusal(tmp_path / "x.raw", BayerHeader(640, 16, 12, "RGGB"))
    assert "looks like rows padded to 1344 bytes (1280 of them pixels), or" in message
    np.pad(packed(values, 12), ((0, 0), (0, 384))).tofile(tmp_path / "x.raw")
    message = refusal(tmp_path / "x.raw", BayerHeader(640, 16, 12, "RGGB"))
    assert "looks like RAW12 (CSI-2, 12 bits, 2 pixels in 3 bytes), rows padded to 1344 bytes" in message


def test_several_frames(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 4096, (3, HEIGHT, WIDTH)).astype("<u2")
    frames.tofile(tmp_path / "x.raw")
    message = refusal(tmp_path / "x.raw", BayerHeader(WIDTH, HEIGHT, 12, "RGGB"))
    assert f"looks like 3 frames of {2 * WIDTH * HEIGHT} bytes, or " in message and "RGB of 16 bits" in message
    for number, frame in enumerate(frames):
        found = as_told(message, tmp_path / "x.raw", (WIDTH, HEIGHT), bits=12, frame=number)
        assert np.array_equal(found, frame)


@pytest.mark.parametrize(("bits", "n_bytes"), [(8, 1), (12, 2), (20, 3)])
def test_a_header(tmp_path: Path, bits: int, n_bytes: int) -> None:
    values = pixels(bits)
    content = b"".join(int(value).to_bytes(n_bytes, "little") for value in values.ravel())
    (tmp_path / "x.raw").write_bytes(bytes(range(1, 102)) + content)
    message = refusal(tmp_path / "x.raw", BayerHeader(WIDTH, HEIGHT, bits, "RGGB"))
    assert "looks like 101 bytes of header" in message
    assert np.array_equal(as_told(message, tmp_path / "x.raw", (WIDTH, HEIGHT), bits=bits), values)


@pytest.mark.parametrize(
    ("size", "bits", "message"),
    [
        (WIDTH * HEIGHT, 12, "looks like 1 byte a pixel; give --raw-bits 8 "),
        (
            2 * WIDTH * HEIGHT,
            8,
            "looks like 2 bytes a pixel, or 2 frames of 960 bytes (give --raw-frames 2), or 960 bytes",
        ),
        (2 * WIDTH * HEIGHT, 24, "looks like 2 bytes a pixel; give --raw-bits 9 to 16 "),
        (4 * WIDTH * HEIGHT, 16, "looks like 4 bytes a pixel, or float32 (save the pixels: "),
        (2 * WIDTH * (HEIGHT - 2), 16, "looks like 22 rows instead of 24; give --raw-size 40x22 "),
        (
            WIDTH * HEIGHT * 5 // 4,
            16,
            "looks like RAW10 (CSI-2, 10 bits, 4 pixels in 5 bytes) or a format with rows of the same size",
        ),
        (1001, 16, "cut short: copy it again"),
        (2 * WIDTH * HEIGHT + 100_003, 16, "; correct --raw-size or --raw-bits"),
    ],
)
def test_other_sizes(tmp_path: Path, size: int, bits: int, message: str) -> None:
    (tmp_path / "x.raw").write_bytes(np.random.default_rng(0).bytes(size))
    assert message in refusal(tmp_path / "x.raw", BayerHeader(WIDTH, HEIGHT, bits, "RGGB"))
