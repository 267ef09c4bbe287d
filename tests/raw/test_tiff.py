"""TIFFs whose tags say more than the pixels; the files are made tag by tag, independent of the reader's library."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adaptiveisp.errors import RawFileError
from adaptiveisp.raw.develop import develop
from adaptiveisp.raw.image_size import raw_size
from adaptiveisp.raw.reader import BayerHeader, read_frames, read_raw
from adaptiveisp.types import RawImage

tifffile = pytest.importorskip("tifffile")
pytest.importorskip("imagecodecs")

WIDTH, HEIGHT = 32, 20
SHORT, LONG, BYTE, RATIONAL = 3, 4, 1, 5
Tags = dict[int, tuple[int, list[int]] | None]


def pixels(high: int = 4096) -> np.ndarray:
    return np.random.default_rng(0).integers(high // 8, high, (HEIGHT, WIDTH)).astype(np.uint16)


def tiff(*pages: tuple[bytes, Tags]) -> bytes:
    """A little-endian TIFF of one strip a page; `tags` replace those of a 16-bit grey image, None leaves one out."""
    content = bytearray(struct.pack("<2sHI", b"II", 42, 0))
    link = 4
    for strip, tags in pages:
        at = len(content)
        content += strip + bytes(len(strip) % 2)
        plain: Tags = {
            **{256: (LONG, [WIDTH]), 257: (LONG, [HEIGHT]), 258: (SHORT, [16]), 259: (SHORT, [1]), 262: (SHORT, [1])},
            **{273: (LONG, [at]), 277: (SHORT, [1]), 278: (LONG, [HEIGHT]), 279: (LONG, [len(strip)])},
        }
        entries = sorted((tag, entry) for tag, entry in {**plain, **tags}.items() if entry is not None)
        struct.pack_into("<I", content, link, len(content))
        directory = len(content)
        content += struct.pack("<H", len(entries)) + bytes(12 * len(entries) + 4)
        link = directory + 2 + 12 * len(entries)
        for number, (tag, (kind, values)) in enumerate(entries):
            letter = {SHORT: "H", LONG: "I", BYTE: "B", RATIONAL: "I"}[kind]
            packed = struct.pack(f"<{len(values)}{letter}", *values)
            if len(packed) > 4:
                packed, place = struct.pack("<I", len(content)), packed
                content += place + bytes(len(place) % 2)
            count = len(values) // (2 if kind == RATIONAL else 1)
            entry = struct.pack("<HHI", tag, kind, count) + packed.ljust(4, b"\0")
            content[directory + 2 + 12 * number : directory + 14 + 12 * number] = entry
    return bytes(content)


def packed12(values: np.ndarray) -> bytes:
    """Values of 12 bits one behind the other, the highest bit first, as TIFF 6.0 lays them out."""
    bits = "".join(f"{int(value):012b}" for value in values.ravel())
    return int(bits, 2).to_bytes(len(bits) // 8, "big")


def grey(tags: Tags | None = None, values: np.ndarray | None = None) -> bytes:
    values = pixels() if values is None else values
    return tiff((values.astype("<u2").tobytes(), tags or {}))


def test_the_depth_of_packed_values_gives_the_white_level(tmp_path: Path) -> None:
    path = tmp_path / "x.tif"
    path.write_bytes(tiff((packed12(pixels()), {258: (SHORT, [12])})))
    raw = read_raw(path, BayerHeader(pattern="RGGB"))
    assert np.array_equal(raw.data, pixels()) and raw.white_level == 4095
    path.write_bytes(tiff((packed12(pixels(1024)), {258: (SHORT, [12])})))
    assert read_raw(path, BayerHeader(pattern="RGGB", bits=10)).white_level == 1023  # fewer bits than the container's
    with pytest.raises(RawFileError, match=r"x\.tif: BitsPerSample is 12, but 14 bits are declared; leave out"):
        read_raw(path, BayerHeader(pattern="RGGB", bits=14))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_honoured(tmp_path: Path, orientation: int) -> None:
    path = tmp_path / "x.tif"
    rgb = np.stack([pixels(), pixels() // 2, pixels() // 3], 2)
    tags: Tags = {258: (SHORT, [16] * 3), 262: (SHORT, [2]), 277: (SHORT, [3]), 274: (SHORT, [orientation])}
    path.write_bytes(tiff((rgb.astype("<u2").tobytes(), tags)))
    # Row 0 and column 0 of the stored picture lie at these sides of the upright one (TIFF 6.0, tag Orientation).
    turned = {
        1: rgb, 2: rgb[:, ::-1], 3: rgb[::-1, ::-1], 4: rgb[::-1], 5: rgb.swapaxes(0, 1),
        6: np.rot90(rgb, -1), 7: rgb[::-1, ::-1].swapaxes(0, 1), 8: np.rot90(rgb),
    }[orientation]  # fmt: skip
    developed = develop(read_raw(path))
    np.testing.assert_allclose(developed.permute(1, 2, 0).numpy(), turned / 65535, atol=1e-6)
    assert raw_size(path) == (turned.shape[1], turned.shape[0])


def test_pattern_and_levels_of_the_tags(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "x.tif"
    tags: Tags = {
        262: (SHORT, [32803]),
        33421: (SHORT, [2, 2]),
        33422: (BYTE, [1, 2, 0, 1]),
        50713: (SHORT, [2, 2]),
        50714: (RATIONAL, [100, 1, 201, 2, 100, 1, 99, 1]),
        50717: (LONG, [4000]),
    }
    path.write_bytes(grey(tags, np.minimum(pixels(), 4000)))
    raw = read_raw(path)
    assert (raw.pattern, raw.black_level, raw.white_level) == ("GBRG", (100.0, 100.5, 100.0, 99.0), 4000.0)
    assert raw.remarks == ()
    stated = read_raw(path, BayerHeader(pattern="RGGB", white=4095))
    assert (stated.pattern, stated.white_level) == ("RGGB", 4095.0)
    assert [remark.text for remark in stated.remarks] == [
        f"{path}: raw-pattern RGGB is used, though the file's tag CFAPattern says GBRG; check which is right",
        f"{path}: raw-white 4095 is used, though the file's tag WhiteLevel says 4000.0; check which is right",
    ]
    (tmp_path / "x.yaml").write_text("raw-black: 64\n")
    (remark,) = read_raw(path).remarks
    assert "raw-black 64.0 is used" in remark.text and "BlackLevel" in remark.text


@pytest.mark.parametrize(
    ("tags", "message"),
    [
        ({262: (SHORT, [0])}, "PhotometricInterpretation is WhiteIsZero .*: save it with BlackIsZero"),
        ({262: (SHORT, [3])}, "PhotometricInterpretation is a palette"),
        ({274: (SHORT, [9])}, "tag Orientation is 9, not 1 to 8"),
        ({33421: (SHORT, [6, 6]), 33422: (BYTE, [1] * 36)}, "colour filters are no Bayer pattern"),
        ({33421: (SHORT, [2, 2]), 33422: (BYTE, [0, 1, 1, 3])}, "colour filters are no Bayer pattern"),
        ({33421: (SHORT, [2, 2]), 33422: (BYTE, [0, 1, 2, 1])}, "its tags make no sense .*RGBG"),
        ({50714: (LONG, [1, 2])}, "tag BlackLevel holds 2 levels"),
        ({50714: (LONG, [3000]), 50717: (LONG, [2000])}, "white level 2000 is not above black level 3000"),
        ({50706: (BYTE, [1, 4, 0, 0])}, "is a DNG; give it the extension .dng"),
        ({254: (LONG, [1])}, "its pages are previews"),
    ],
)
def test_tags_that_cannot_be_honoured_are_refused_by_name(tmp_path: Path, tags: Tags, message: str) -> None:
    (tmp_path / "x.tif").write_bytes(grey(tags))
    with pytest.raises(RawFileError, match=rf"x\.tif: .*{message}") as caught:
        read_raw(tmp_path / "x.tif", BayerHeader(pattern=None if 33422 in tags else "RGGB"))
    assert "\n" not in str(caught.value)


def test_one_of_several_images_is_chosen_and_a_preview_is_passed_over(tmp_path: Path) -> None:
    path, strip = tmp_path / "x.tif", pixels().astype("<u2").tobytes()
    header, second = BayerHeader(pattern="RGGB", bits=12), BayerHeader(pattern="RGGB", bits=12, frame=1)
    turned: Tags = {256: (LONG, [HEIGHT]), 257: (LONG, [WIDTH]), 278: (LONG, [WIDTH]), 274: (SHORT, [6])}
    path.write_bytes(tiff((strip, {}), (strip, turned)))
    for read in (read_raw, raw_size):
        with pytest.raises(
            RawFileError, match=r"x\.tif: holds 2 images; give --raw-frame 0 to 1 .* or give all .*stream"
        ):
            read(path, header)
    raw = read_raw(path, second)
    assert np.array_equal(raw.data, pixels().reshape(WIDTH, HEIGHT)) and raw.orientation == 6
    assert raw_size(path, second) == (WIDTH, HEIGHT)
    with pytest.raises(
        RawFileError, match="holds 2 images, so there is no frame 2, counted from 0; give --raw-frame 0"
    ):
        read_raw(path, BayerHeader(pattern="RGGB", bits=12, frame=2))
    small: Tags = {254: (LONG, [1]), 256: (LONG, [8]), 257: (LONG, [5]), 278: (LONG, [5])}
    preview: tuple[bytes, Any] = (np.zeros((5, 8), "<u2").tobytes(), small)
    for pages in (((strip, {}), preview), (preview, (strip, {}))):
        path.write_bytes(tiff(*pages))
        assert np.array_equal(read_raw(path, header).data, pixels()) and raw_size(path) == (WIDTH, HEIGHT)
        with pytest.raises(
            RawFileError, match=r"holds a single image, so there is no frame 1, .*leave out --raw-frame"
        ):
            read_raw(path, second)


@pytest.mark.parametrize("how", [{}, {"imagej": True}, {"photometric": "minisblack", "compression": "zlib"}])
@pytest.mark.parametrize("order", "<>")
def test_all_images_of_a_stack(tmp_path: Path, how: dict[str, Any], order: str) -> None:
    """A stack has a directory for each image, or in ImageJ's and tifffile's own files one for all."""
    path, header = tmp_path / "x.tif", BayerHeader(pattern="RGGB", bits=12)
    stack = np.random.default_rng(0).integers(64, 4096, (5, HEIGHT, WIDTH)).astype(np.uint16)
    for extra in ({}, {"truncate": True}) if "compression" not in how else ({},):
        if extra and how.get("imagej"):
            continue
        tifffile.imwrite(path, stack, byteorder=order, **how, **extra)
        found = list(read_frames(path, header))
        assert len(found) == 5
        for number, (raw, expected) in enumerate(zip(found, stack, strict=True)):
            assert isinstance(raw, RawImage)
            assert np.array_equal(raw.data, expected) and (raw.pattern, raw.white_level) == ("RGGB", 4095)
            one = read_raw(path, BayerHeader(pattern="RGGB", bits=12, frame=number))
            assert np.array_equal(one.data, expected)


def test_a_damaged_image_of_several_leaves_the_others(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(64, 4096, (3, HEIGHT, WIDTH)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "x.tif", stack, compression="zlib", photometric="minisblack")
    with tifffile.TiffFile(tmp_path / "x.tif") as file:
        place = file.pages[1].dataoffsets[0]
    content = bytearray((tmp_path / "x.tif").read_bytes())
    content[place : place + 40] = bytes(40)
    (tmp_path / "x.tif").write_bytes(content)
    first, second, third = read_frames(tmp_path / "x.tif", BayerHeader(pattern="RGGB"))
    assert isinstance(second, RawFileError) and "x.tif: is damaged" in str(second)
    assert isinstance(first, RawImage) and isinstance(third, RawImage) and np.array_equal(third.data, stack[2])


def test_a_png_that_is_not_upright_or_has_several_frames_is_refused(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    exif = image.Exif()
    path = tmp_path / "x.png"
    for orientation, refused in ((1, False), (6, True)):
        exif[274] = orientation
        image.fromarray((pixels() // 16).astype(np.uint8)).save(path, exif=exif)
        if refused:
            with pytest.raises(RawFileError, match=r"x\.png: its Exif data say orientation 6; save it upright"):
                read_raw(path, BayerHeader(pattern="RGGB"))
        else:
            assert read_raw(path, BayerHeader(pattern="RGGB")).data.shape == (HEIGHT, WIDTH)
    frames = [image.fromarray((pixels() // (16 * count)).astype(np.uint8)) for count in (1, 2)]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with pytest.raises(RawFileError, match=r"x\.png: holds several frames"):
        read_raw(path, BayerHeader(pattern="RGGB"))
