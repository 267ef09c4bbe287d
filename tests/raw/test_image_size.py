"""Raws of more than 16 bits, the white level of each image, the size without the pixels, the camera's name."""

import struct
from pathlib import Path

import numpy as np
import pytest

from adaptiveisp.errors import RawFileError
from adaptiveisp.raw.develop import develop
from adaptiveisp.raw.dng import write_dng
from adaptiveisp.raw.image_size import raw_size
from adaptiveisp.raw.reader import BayerHeader, read_raw, write_png16
from adaptiveisp.raw.tags import read_dng_tags
from adaptiveisp.types import RawImage


def random_pixels(shape: tuple[int, ...], high: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, high, shape).astype(np.uint16)


@pytest.mark.parametrize("bits", [17, 20, 24])
def test_three_bytes_a_sample(bits: int, tmp_path: Path) -> None:
    """ROD's kind: low byte first; as the publisher's own loader composes it."""
    values = np.random.default_rng(bits).integers(0, 2**bits, (20, 26))
    values[0, :2] = 2**bits - 1, 2**bits - 2  # float32 tells them apart
    content = b"".join(int(value).to_bytes(3, "little") for value in values.ravel())
    (tmp_path / "x.raw").write_bytes(content)
    raw = read_raw(tmp_path / "x.raw", BayerHeader(26, 20, bits, "RGGB"))
    assert raw.data.dtype == np.float32 and np.array_equal(raw.data.astype(np.int64), values)
    assert raw.white_level == 2**bits - 1
    developed = develop(raw)
    assert developed[0, 0, 0] == 1 and developed.shape == (3, 20, 26)
    (tmp_path / "x.raw").write_bytes(content[:-1])
    with pytest.raises(RawFileError, match=f"26x20 with {bits} bits needs 1560 bytes, found 1559"):
        read_raw(tmp_path / "x.raw", BayerHeader(26, 20, bits, "RGGB"))


def test_white_at_the_percentile_of_each_image(tmp_path: Path) -> None:
    values = np.arange(20 * 30, dtype="<u2").reshape(20, 30)
    values.tofile(tmp_path / "x.raw")
    (tmp_path / "x.yaml").write_text("raw-size: 30x20\nraw-bits: 16\nraw-pattern: RGGB\nraw-white: p99\n")
    expected = np.sort(values.ravel())[-1] * 0.99  # of whole numbers from 0 it lies at 99 % of the last
    assert read_raw(tmp_path / "x.raw").white_level == pytest.approx(expected)
    np.save(tmp_path / "y.npy", values)
    assert read_raw(tmp_path / "y.npy", BayerHeader(pattern="RGGB", white="p99")).white_level == pytest.approx(expected)
    np.save(tmp_path / "z.npy", values / 1000)  # at most 1, which would be taken as it is
    assert read_raw(tmp_path / "z.npy", BayerHeader(pattern="RGGB", white="p99")).white_level == pytest.approx(
        expected / 1000
    )


def test_the_size_without_the_pixels_is_that_of_the_picture(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    raws: dict[str, tuple[int, int]] = {}
    pixels = random_pixels((24, 30, 3), 60000)
    write_png16(pixels, tmp_path / "a.png")
    np.save(tmp_path / "b.npy", pixels)
    np.save(tmp_path / "c.npy", pixels.transpose(2, 0, 1).copy())
    np.save(tmp_path / "d.npy", pixels[..., 0])
    tifffile.imwrite(tmp_path / "e.tif", pixels)
    pixels[..., 0].tofile(tmp_path / "f.raw")
    for orientation in (1, 3, 6, 8):
        raw = RawImage(pixels[..., 0] // 16 + 1, "RGGB", (0.0,) * 4, 4095.0, orientation=orientation)
        write_dng(raw, tmp_path / f"{orientation}.dng")
    header = BayerHeader(30, 24, 16, "RGGB")
    for path in sorted(tmp_path.iterdir()):
        height, width = develop(read_raw(path, header)).shape[1:]
        raws[path.name] = raw_size(path, header)
        assert raws[path.name] == (width, height), path
    assert raws["1.dng"] == (30, 24) and raws["6.dng"] == (24, 30)
    with pytest.raises(
        RawFileError, match=r"f\.raw: has no header; give --raw-size or .*; in Python header=BayerHeader\("
    ):
        raw_size(tmp_path / "f.raw")
    for name in ("a.png", "b.npy", "e.tif", "1.dng"):
        (tmp_path / name).write_bytes(b"\x89PNG")
        with pytest.raises(RawFileError, match=name):
            raw_size(tmp_path / name)
    with pytest.raises(RawFileError, match="gone"):
        raw_size(tmp_path / "gone.png")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no array", b"\x93NUMPY\x01\x00\x10\x00{'shape': ((((3,"])
def test_a_damaged_array_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(RawFileError, match=r"a\.npy: "):
        raw_size(tmp_path / "a.npy")


@pytest.mark.parametrize(
    ("make", "model", "expected"),
    [
        ("Canon", "Canon EOS 5D Mark IV", "Canon EOS 5D Mark IV"),
        ("NIKON CORPORATION", "NIKON D750", "NIKON D750"),
        ("SONY", "DSC-RX100M7", "SONY DSC-RX100M7"),
        ("", "", None),
    ],
)
def test_the_camera_is_named_once(make: str, model: str, expected: str | None, tmp_path: Path) -> None:
    path = tmp_path / "x.dng"
    write_dng(RawImage(random_pixels((24, 30), 4000), "RGGB", (0.0,) * 4, 4095.0), path)
    assert read_dng_tags(path).camera == "adaptiveisp mosaic" == read_raw(path).camera
    content = path.read_bytes()
    # The writer's own name, make and unique model, is longer than most: it is replaced in the place that it has.
    count = struct.unpack_from("<H", content, 8)[0]
    patched = bytearray(content)
    texts = {271: make, 272: model}
    for start in range(10, 10 + 12 * count, 12):
        tag, kind, _, _ = struct.unpack_from("<HHII", content, start)
        if tag in texts:
            text = texts[tag].encode() + b"\0"
            struct.pack_into("<HHII", patched, start, tag, kind, max(len(text), 5), len(patched))
            patched += text.ljust(5, b"\0")
    path.write_bytes(bytes(patched))
    assert read_dng_tags(path).camera == expected
