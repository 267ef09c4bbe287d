"""Binary PGM and PPM: files written byte by byte and by other libraries are read with unchanged values."""

from pathlib import Path

import numpy as np
import pytest

from adaptiveisp.errors import RawFileError
from adaptiveisp.raw.image_size import raw_size
from adaptiveisp.raw.reader import BayerHeader, find_raw_files, read_frames, read_raw
from adaptiveisp.types import RawImage

WIDTH, HEIGHT = 30, 22


def mosaic(largest: int = 1023) -> np.ndarray:
    values = np.random.default_rng(0).integers(0, largest + 1, (HEIGHT, WIDTH))
    values[0, 0] = largest
    return values


def pnm(values: np.ndarray, maxval: int, header: str | None = None) -> bytes:
    kind = 5 if values.ndim == 2 else 6
    text = header or f"P{kind}\n{values.shape[1]} {values.shape[0]}\n{maxval}\n"
    return text.encode() + values.astype(">u2" if maxval > 255 else "u1").tobytes()


@pytest.mark.parametrize("maxval", [100, 255, 1000, 1023, 4095, 65535])
def test_maxval_is_the_white_level(tmp_path: Path, maxval: int) -> None:
    path = tmp_path / "x.pgm"
    path.write_bytes(pnm(mosaic(maxval), maxval))
    raw = read_raw(path, BayerHeader(pattern="GRBG"))
    np.testing.assert_array_equal(raw.data, mosaic(maxval))
    assert (raw.pattern, raw.white_level, raw.remarks) == ("GRBG", float(maxval), ())
    assert raw_size(path) == (WIDTH, HEIGHT)


def test_a_declared_depth_or_level_has_precedence(tmp_path: Path) -> None:
    """Silent where maxval is what programs always write, with a remark where it says something."""
    path = tmp_path / "x.pgm"
    path.write_bytes(pnm(mosaic(1023), 65535))
    for header in (BayerHeader(bits=10, pattern="RGGB"), BayerHeader(white=1023, pattern="RGGB")):
        raw = read_raw(path, header)
        assert (raw.white_level, raw.remarks) == (1023.0, ())
    path.write_bytes(pnm(mosaic(1023), 1023))
    for header in (BayerHeader(bits=12, pattern="RGGB"), BayerHeader(white=4095, pattern="RGGB")):
        raw = read_raw(path, header)
        assert raw.white_level == 4095
        assert "white level 4095 is used, though the file's maxval is 1023" in raw.remarks[0].text
    assert read_raw(path, BayerHeader(bits=10, pattern="RGGB")).remarks == ()
    with pytest.raises(RawFileError, match="--raw-bits"):
        read_raw(path, BayerHeader(bits=9, pattern="RGGB"))


def test_files_of_other_libraries(tmp_path: Path) -> None:
    """OpenCV writes 16 bits with the maxval 65535, and Pillow 8 bits."""
    cv2 = pytest.importorskip("cv2")
    image = pytest.importorskip("PIL.Image")
    cv2.imwrite(str(tmp_path / "a.pgm"), mosaic().astype(np.uint16))
    assert np.array_equal(read_raw(tmp_path / "a.pgm", BayerHeader(bits=10, pattern="RGGB")).data, mosaic())
    rgb = np.random.default_rng(1).integers(0, 65536, (HEIGHT, WIDTH, 3)).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "b.ppm"), rgb[..., ::-1])
    raw = read_raw(tmp_path / "b.ppm")
    assert np.array_equal(raw.data, rgb) and (raw.pattern, raw.white_level) == (None, 65535.0)
    image.fromarray((rgb >> 8).astype(np.uint8)).save(tmp_path / "c.pnm")
    assert np.array_equal(read_raw(tmp_path / "c.pnm").data, rgb >> 8)
    assert [path.name for path, _ in find_raw_files([str(tmp_path)])[0]] == ["a.pgm", "b.ppm", "c.pnm"]


@pytest.mark.parametrize(
    "header",
    [
        "P5 30 22 1023\n",
        "P5\n# a camera\n30 22\n# 10 bits\n1023\n",
        "P5#c\n30#x\n22 1023#depth\n",
        "P5\t30\r\n22\r1023 ",
    ],
)
def test_white_space_and_comments(tmp_path: Path, header: str) -> None:
    (tmp_path / "x.pgm").write_bytes(pnm(mosaic(), 1023, header))
    assert np.array_equal(read_raw(tmp_path / "x.pgm", BayerHeader(pattern="MONO")).data, mosaic())


def test_values_that_look_like_white_space_are_values(tmp_path: Path) -> None:
    """The first pixel follows the single white space after maxval, also if it is a line feed or a #."""
    for first in (10, 32, 35):
        values = mosaic(255)
        values[0, :2] = first
        (tmp_path / "x.pgm").write_bytes(pnm(values, 255))
        assert np.array_equal(read_raw(tmp_path / "x.pgm", BayerHeader(pattern="MONO")).data, values)


def test_images_one_behind_the_other(tmp_path: Path) -> None:
    path, stack = tmp_path / "x.pgm", [mosaic(1023), mosaic(4095)[::-1, 2:]]
    path.write_bytes(pnm(stack[0], 1023) + b"\n" + pnm(stack[1], 4095) + b"\n")
    with pytest.raises(RawFileError, match=r"x\.pgm: holds 2 images; give --raw-frame 0 to 1"):
        read_raw(path, BayerHeader(pattern="RGGB"))
    raw = read_raw(path, BayerHeader(pattern="RGGB", frame=1))
    assert np.array_equal(raw.data, stack[1]) and raw.white_level == 4095
    assert raw_size(path, BayerHeader(frame=1)) == (WIDTH - 2, HEIGHT)
    for found, expected in zip(read_frames(path, BayerHeader(pattern="RGGB")), stack, strict=True):
        assert isinstance(found, RawImage) and np.array_equal(found.data, expected)


WHOLE = pnm(mosaic(), 1023)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"P2\n2 2\n255\n1 2 3 4\n", "is an ASCII PGM file .P2.; save it as binary PGM"),
        (b"P3\n1 1\n255\n1 2 3\n", "is an ASCII PPM file .P3.; save it as binary"),
        (b"P7\nWIDTH 4\n", "is a PAM file .P7."),
        (b"\x89PNG\r\n", "is no PGM or PPM file; give it the extension"),
        (b"P5\n30 22\n0\n" + bytes(660), "its maxval is 0, not 1 to 65535"),
        (b"P5\n30 22\n70000\n" + bytes(2000), "its maxval is 70000, not 1"),
        (b"P5\n30 0\n255\n", "its header is incomplete"),
        (b"P5\n30 22", "its header is incomplete"),
        (b"P5\n99999 99999\n255\n" + bytes(100), "has 10000 MP; the most are 250"),
        (b"P5\n9999 9999\n255\n" + bytes(100), "is truncated: too short for 9999x9999 values"),
        (WHOLE[:-1], "is truncated"),
        (WHOLE + b"rest", "has 4 bytes behind its last image"),
        (WHOLE + WHOLE[:-1], "is truncated"),
        (pnm(mosaic(2000), 1023), "has values up to 2000, above its maxval 1023"),
        (b"P5 30 22 1023\n" + mosaic().astype("<u2").tobytes(), "its values look little-endian"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.pgm").write_bytes(content)
    with pytest.raises(RawFileError, match=rf"x\.pgm: .*{message}") as caught:
        read_raw(tmp_path / "x.pgm", BayerHeader(pattern="RGGB"))
    assert "\n" not in str(caught.value)
