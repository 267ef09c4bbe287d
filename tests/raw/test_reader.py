"""Reading every kind of raw file, and the message for every kind of broken one."""

import errno
import json
import logging
import os
import struct
import sys
import tempfile
import threading
import warnings
import zlib
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from adaptiveisp.errors import AdaptiveISPError, OutputError, RawFileError, UsageError
from adaptiveisp.raw import dng
from adaptiveisp.raw.dng import write_dng
from adaptiveisp.raw.reader import (
    KNOWN_EXTENSIONS,
    BayerHeader,
    camera_render,
    find_raw_files,
    is_libraw_file,
    parse_size,
    read_raw,
    write_png16,
)
from adaptiveisp.types import RawImage, Unprocessing

rawpy = pytest.importorskip("rawpy")
imagecodecs = pytest.importorskip("imagecodecs")
tifffile = pytest.importorskip("tifffile")

CAMERA = (1.0234, -0.2969, -0.2266, -0.5625, 1.6328, -0.0469, -0.0703, 0.2188, 0.6406)
RECIPE = Unprocessing(0.1, 1.25, 2.1, 1.7, (0.7, 0.2, 0.1, 0.1, 0.8, 0.1, 0.0, 0.3, 0.7), 1e-3, 2e-7, "brooks", 12)
# The 6x6 pattern of Fujifilm's X-Trans, 0 red, 1 green, 2 blue.
X_TRANS = [1,2,1,1,0,1, 0,1,0,2,1,2, 1,2,1,1,0,1, 1,0,1,1,2,1, 2,1,2,0,1,0, 1,0,1,1,2,1]  # fmt: skip


def random_pixels(shape, high=4096, dtype=np.uint16, seed=0):
    return np.random.default_rng(seed).integers(0, high, shape).astype(dtype)


def mosaic_raw(size=(40, 44), pattern="GRBG", **changes):
    return RawImage(random_pixels(size), pattern, (64.0,) * 4, 4000.0, (2.0, 1.0, 1.5), CAMERA, **changes)


def write_dng_variant(path, raw, replacements, pixels=None):
    """A DNG of our writer with some tags exchanged, for kinds of files that it does not write itself."""
    pixels = raw.data.astype("<u2").tobytes() if pixels is None else pixels

    def entries(pixels_at):
        kept = [entry for entry in dng._main_entries(raw, None, pixels_at, None) if entry[0] not in replacements]
        return kept + [entry for entry in replacements.values() if entry is not None]

    at = 8 + len(dng._pack_ifd(entries(0), 8))
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 8) + dng._pack_ifd(entries(at), 8) + pixels)


# --- camera files through LibRaw ---------------------------------------------------------------------------------


def test_active_area_moves_pattern_and_pixels_together(tmp_path):
    raw = mosaic_raw((60, 64), "GRBG")
    write_dng_variant(tmp_path / "x.dng", raw, {50829: dng._longs(50829, 4, 6, 60, 64)})
    back = read_raw(tmp_path / "x.dng")
    np.testing.assert_array_equal(back.data, raw.data[4:, 6:])
    assert back.pattern == "GRBG"  # a DNG's pattern starts at the active area
    write_dng_variant(tmp_path / "y.dng", raw, {50829: dng._longs(50829, 1, 0, 60, 64)})
    odd = read_raw(tmp_path / "y.dng")
    first_row = 60 - odd.data.shape[0]
    np.testing.assert_array_equal(odd.data, raw.data[first_row:])
    # Row 1 of the sensor starts the active area with GR, so row 2 starts with BG.
    assert odd.pattern == {1: "GRBG", 2: "BGGR"}[first_row]


def test_a_mosaic_that_is_not_bayer_comes_as_linear_rgb(tmp_path):
    flat = RawImage(np.full((540, 546), 2064, np.uint16), "RGGB", (64.0,) * 4, 4064.0, (2.0, 1.0, 1.5), CAMERA)
    tags = {
        33421: dng._shorts(33421, 6, 6),
        33422: dng._bytes(33422, *X_TRANS),
        50713: dng._shorts(50713, 1, 1),
        50714: dng._rationals(50714, [64.0]),
    }
    write_dng_variant(tmp_path / "x.dng", flat, tags)
    back = read_raw(tmp_path / "x.dng")
    assert back.pattern is None and back.data.shape == (540, 546, 3)
    assert (back.black_level, back.white_level) == ((0.0,) * 4, 65535.0)
    assert back.camera_gains == pytest.approx((2.0, 1.0, 1.5))
    np.testing.assert_allclose(back.data / 65535, 0.5, atol=1e-3)  # (2064 - 64) / (4064 - 64), without white balance


def test_linear_dng_keeps_values_and_sensor_orientation(tmp_path):
    linear = np.minimum(random_pixels((40, 50, 3)), 3500)  # LibRaw would take 3500 for white if it was let
    matrix = [part for entry in CAMERA for part in (int(entry * 10000), 10000)]
    tags = [
        (50706, 1, 4, bytes([1, 4, 0, 0]), True),
        (50721, 10, 9, matrix, True),
        (50717, 4, 1, 4095, True),
        (274, 3, 1, 6, True),
    ]
    tifffile.imwrite(tmp_path / "x.dng", linear, photometric=34892, extratags=tags, metadata=None)
    back = read_raw(tmp_path / "x.dng")
    assert back.pattern is None and back.orientation == 6
    np.testing.assert_allclose(back.data / 65535, linear / 4095, atol=2e-5)


def test_camera_render_is_upright_8_bit_and_white_balanced(tmp_path):
    grey = np.zeros((30, 44), np.uint16)
    grey[0::2, 0::2], grey[0::2, 1::2], grey[1::2, 0::2], grey[1::2, 1::2] = 800, 1600, 1600, 1000
    raw = RawImage(grey, "RGGB", (0.0,) * 4, 4000.0, (2.0, 1.0, 1.6), CAMERA, orientation=6)
    write_dng(raw, tmp_path / "x.dng")
    picture = camera_render(read_raw(tmp_path / "x.dng"))
    assert picture.dtype == np.uint8 and picture.shape == (44, 30, 3)
    inside = picture[4:-4, 4:-4].astype(int)
    assert np.ptp(inside, axis=2).max() <= 2 and inside.mean() > 100  # neutral, and brighter than 0.4 linear


def test_camera_render_of_a_headerless_mosaic_and_of_rgb(tmp_path):
    (tmp_path / "x.raw").write_bytes(random_pixels((30, 40), 256, np.uint8).tobytes())
    header = BayerHeader(40, 30, 8, "GRBG", 12.5)
    assert camera_render(read_raw(tmp_path / "x.raw", header)).shape == (30, 40, 3)
    write_png16(random_pixels((20, 20, 3)), tmp_path / "x.png")
    with pytest.raises(RawFileError, match="RGB"):
        camera_render(read_raw(tmp_path / "x.png"))


@pytest.mark.parametrize(
    ("pixels", "header", "message"),
    [
        (random_pixels((18, 18)), None, "18x18 is too small"),
        (np.random.default_rng(0).random((30, 30), np.float32), None, "integers, not float32"),
        (random_pixels((30, 30)), BayerHeader(black=1.0, white=70000.0), "65535"),
    ],
)
def test_camera_render_names_the_raw_that_no_dng_can_hold(tmp_path, pixels, header, message):
    np.save(tmp_path / "x.npy", pixels)
    (tmp_path / "x.yaml").write_text("raw-pattern: RGGB\n")
    raw = read_raw(tmp_path / "x.npy", header)
    with pytest.raises(RawFileError, match=message) as caught:
        camera_render(raw)
    assert str(caught.value).startswith(f"{tmp_path / 'x.npy'}: ") and "mosaic.dng" not in str(caught.value)


def test_camera_render_names_the_raw_when_there_is_no_room_or_libraw_fails(monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    raw = mosaic_raw(path=Path("x.npy"))
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(RawFileError, match=r"^x\.npy: no temporary DNG .*No space left.*TMPDIR"):
            camera_render(raw)
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "mkdtemp", full)
        with pytest.raises(RawFileError, match=r"^x\.npy: no temporary DNG .*No space left.*TMPDIR"):
            camera_render(raw)

    def failing(name):
        raise rawpy.LibRawDataError(b"data error")

    monkeypatch.setattr(rawpy, "imread", failing)
    with pytest.raises(RawFileError, match=r"^x\.npy: is damaged"):
        camera_render(raw)


@pytest.mark.parametrize("size", [(4, 4), (2, 8)])
def test_filters_that_are_neither_bayer_nor_x_trans_are_an_error(tmp_path, size):
    cells = [0, 1, 1, 2] + [0] * 12
    tags = {33421: dng._shorts(33421, *size), 33422: dng._bytes(33422, *cells)}
    write_dng_variant(tmp_path / "x.dng", mosaic_raw(), tags)
    with pytest.raises(RawFileError, match=rf"x\.dng: its colour filters repeat every {size[1]}x{size[0]} pixels"):
        read_raw(tmp_path / "x.dng")


def test_is_libraw_file():
    own = {extension for extension in KNOWN_EXTENSIONS if not is_libraw_file(Path(f"x{extension}"))}
    assert own == {".raw", ".bin", ".bayer", ".png", ".tif", ".tiff", ".npy", ".npz", ".pgm", ".ppm", ".pnm", ".exr"}
    assert is_libraw_file(Path("X.DNG")) and not is_libraw_file(Path("dng"))


def lossless_jpeg_dng(path):
    raw = mosaic_raw((200, 200))
    packed = imagecodecs.ljpeg_encode(raw.data, bitspersample=12)
    write_dng_variant(path, raw, {259: dng._shorts(259, 7), 279: dng._longs(279, len(packed))}, packed)
    return raw


def test_damage_that_libraw_only_prints_is_an_error_and_not_printed(tmp_path, capfd):
    path = tmp_path / "x.dng"
    raw = lossless_jpeg_dng(path)
    np.testing.assert_array_equal(read_raw(path).data, raw.data)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 500] = random_pixels(500, 256, np.uint8).tobytes()
    path.write_bytes(content)
    with pytest.raises(RawFileError, match=r"x\.dng: is damaged"):
        read_raw(path)
    assert capfd.readouterr().err == ""


def test_damage_that_is_printed_without_an_error_is_not_missed(tmp_path, capfd, monkeypatch):
    write_dng(mosaic_raw(), tmp_path / "x.dng")
    opened = rawpy.imread
    complaint = b"x.dng: Unexpected end of file\n"
    monkeypatch.setattr(rawpy, "imread", lambda name: (os.write(2, complaint), opened(name))[1])
    with pytest.raises(RawFileError, match="is damaged"):
        read_raw(tmp_path / "x.dng")
    assert capfd.readouterr().err == ""


def test_other_stderr_output_survives(tmp_path, capfd, monkeypatch):
    write_dng(mosaic_raw(), tmp_path / "x.dng")
    opened = rawpy.imread
    monkeypatch.setattr(rawpy, "imread", lambda name: (os.write(2, b"hello\n"), opened(name))[1])
    read_raw(tmp_path / "x.dng")
    assert capfd.readouterr().err == "hello\n"


# --- headerless Bayer --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "dtype"), [(8, "u1"), (9, "<u2"), (10, "<u2"), (16, "<u2")])
def test_headerless_depths(tmp_path, bits, dtype):
    pixels = random_pixels((20, 26), 2**bits, np.uint16)
    (tmp_path / "x.raw").write_bytes(pixels.astype(dtype).tobytes())
    raw = read_raw(tmp_path / "x.raw", BayerHeader(26, 20, bits, "GBRG", 12.5))
    np.testing.assert_array_equal(raw.data, pixels)
    assert raw.data.dtype == (np.uint8 if bits == 8 else np.uint16)
    assert (raw.pattern, raw.black_level, raw.white_level) == ("GBRG", (12.5,) * 4, 2**bits - 1)


@pytest.mark.parametrize("name", ["x.raw.yaml", "x.yaml", "raw.yaml"])
@pytest.mark.parametrize("joint", ["-", "_"])
def test_sidecars(tmp_path, name, joint):
    (tmp_path / "x.raw").write_bytes(random_pixels((20, 26), 1024).tobytes())
    lines = ["raw-size: 26x20", "raw-bits: 10", "raw-pattern: GRBG", "raw-black: [1, 2, 3, 4]", "raw-white: 1000"]
    (tmp_path / name).write_text("\n".join(lines).replace("raw-", f"raw{joint}"))
    raw = read_raw(tmp_path / "x.raw")
    assert (raw.data.shape, raw.pattern, raw.black_level, raw.white_level) == ((20, 26), "GRBG", (1, 2, 3, 4), 1000)
    flags = BayerHeader(pattern="RGGB", black=0.0)  # what the caller says wins, the rest comes from the sidecar
    assert (read_raw(tmp_path / "x.raw", flags).pattern, read_raw(tmp_path / "x.raw", flags).black_level[0]) == (
        "RGGB",
        0.0,
    )


def test_the_nearer_sidecar_wins_and_foreign_yaml_is_left_alone(tmp_path):
    (tmp_path / "x.raw").write_bytes(random_pixels((20, 26), 256, np.uint8).tobytes())
    (tmp_path / "raw.yaml").write_text("raw-size: 26x20\nraw-bits: 8\nraw-pattern: BGGR\n")
    (tmp_path / "x.yaml").write_text("title: something else\n")
    assert read_raw(tmp_path / "x.raw").pattern == "BGGR"
    (tmp_path / "x.raw.yaml").write_text("raw-size: 20x26\nraw-bits: 8\nraw-pattern: RGGB\n")
    assert read_raw(tmp_path / "x.raw").data.shape == (26, 20)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("raw-size: huge", "WIDTHxHEIGHT"),
        ("raw-bits: 25", "8 to 24"),
        ("raw-bits: ten", "wrong type"),
        ("raw-bits: .inf", "too large"),
        ("raw-bits: .nan", "wrong type"),
        ("raw-white: " + 400 * "9", "too large"),
        ("raw-black: " + 400 * "9", "too large"),
        ("raw-white: .inf", "finite"),
        ("raw-pattern: RGBG", "RGGB"),
        ("raw-depth: 8", "unknown key raw-depth"),
        ("raw-black: [1, 2]", "four"),
        ("raw-black: -1", "negative"),
        ("a: [", "YAML"),
        (5000 * "[", "YAML"),
        ("raw-bits: !!int ''", "YAML"),
        ("raw-bits: !!bool maybe", "YAML"),
        ("raw-bits: !!timestamp soon", "YAML"),
        ("raw-bits: " + 5000 * "9", "YAML"),
    ],
)
def test_bad_sidecars(tmp_path, text, message):
    (tmp_path / "x.raw").write_bytes(bytes(100))
    (tmp_path / "x.raw.yaml").write_text(text)
    with pytest.raises(RawFileError, match=message) as caught:
        read_raw(tmp_path / "x.raw")
    assert "x.raw.yaml" in str(caught.value) and "\n" not in str(caught.value)


def test_a_pattern_may_be_written_in_lower_case(tmp_path):
    (tmp_path / "x.raw").write_bytes(random_pixels((20, 26), 256, np.uint8).tobytes())
    assert read_raw(tmp_path / "x.raw", BayerHeader(26, 20, 8, "grbg")).pattern == "GRBG"
    (tmp_path / "x.yaml").write_text("raw-size: 26x20\nraw-bits: 8\nraw-pattern: Bggr\n")
    assert read_raw(tmp_path / "x.raw").pattern == "BGGR"
    assert BayerHeader(pattern="rggb") == BayerHeader(pattern="RGGB")
    with pytest.raises(UsageError, match="choose one of RGGB"):
        BayerHeader(pattern="rgbg")


def test_a_name_that_leaves_no_room_for_a_sidecar(tmp_path):
    path = tmp_path / ("x" * 247 + ".npy")
    np.save(path, random_pixels((20, 20, 3)))
    assert read_raw(path).data.shape == (20, 20, 3)


def test_missing_header_and_wrong_size_say_what_to_do(tmp_path):
    (tmp_path / "x.bin").write_bytes(bytes(1000))
    with pytest.raises(
        RawFileError,
        match=r"--raw-size, --raw-bits or --raw-format, --raw-pattern or a sidecar x\.bin\.yaml .* header=Bayer",
    ):
        read_raw(tmp_path / "x.bin")
    with pytest.raises(RawFileError, match="give --raw-pattern or"):
        read_raw(tmp_path / "x.bin", BayerHeader(20, 25, 16))
    with pytest.raises(RawFileError, match=r"needs 1440 bytes, found 1000; correct --raw-size .*cut short"):
        read_raw(tmp_path / "x.bin", BayerHeader(24, 30, 10, "RGGB"))


def test_parse_size():
    assert parse_size(" 640X480 ") == (640, 480)
    for text in ("640", "0x480", "640x", "-1x3", "axb", "640x480x3", "000x2"):
        with pytest.raises(UsageError, match="2592x1536"):
            parse_size(text)


# --- PNG, TIFF, npy ----------------------------------------------------------------------------------------------


def test_png16_round_trip_with_and_without_recipe(tmp_path):
    pixels = random_pixels((20, 31, 3), 65536)
    write_png16(pixels, tmp_path / "a.png", RECIPE)
    write_png16(pixels, tmp_path / "b.png")
    for name, recipe in (("a.png", RECIPE), ("b.png", None)):
        raw = read_raw(tmp_path / name)
        np.testing.assert_array_equal(raw.data, pixels)
        assert (raw.pattern, raw.black_level, raw.white_level) == (None, (0.0,) * 4, 65535.0)
        assert raw.unprocessing == recipe
    cv2 = pytest.importorskip("cv2")
    seen = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)
    np.testing.assert_array_equal(seen[..., ::-1], pixels)
    image = pytest.importorskip("PIL.Image").open(tmp_path / "a.png")
    assert json.loads(image.text["adaptiveisp"])["light"] == RECIPE.light


def test_the_recipe_is_found_in_an_itxt_chunk_too(tmp_path):
    write_png16(random_pixels((20, 20, 3)), tmp_path / "a.png", RECIPE)
    content = (tmp_path / "a.png").read_bytes()
    length = struct.unpack_from(">I", content, 33)[0]
    text = content[41 : 41 + length].split(b"\0", 1)[1]
    for flag, body in ((0, text), (1, zlib.compress(text))):
        chunk = b"iTXt" + b"adaptiveisp\0" + bytes([flag, 0]) + b"\0\0" + body
        framed = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        (tmp_path / "b.png").write_bytes(content[:33] + framed + content[33 + 12 + length :])
        assert read_raw(tmp_path / "b.png").unprocessing == RECIPE


def write_png_with_note(path, note):
    write_png16(random_pixels((20, 20, 3)), path)
    content = path.read_bytes()
    chunk = b"tEXtadaptiveisp\0" + note.encode()
    framed = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(content[:33] + framed + content[33:])


def assert_note_refused(path, name=""):
    with pytest.raises(RawFileError, match=rf"{path.name}: its note .*{name}.*; make it again with adaptiveisp synth$"):
        read_raw(path)


@pytest.mark.parametrize(
    "note",
    [
        '{"adaptiveisp": 1}',
        '{"adaptiveisp": 1',
        '{"adaptiveisp": 9, "light": 1}',
        '{"adaptiveisp": ' + 5000 * "[",
        '{"adaptiveisp": 1, "light": ' + 5000 * "9" + "}",
    ],
)
def test_a_damaged_recipe_is_an_error(tmp_path, note):
    write_png_with_note(tmp_path / "a.png", note)
    assert_note_refused(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("light", (0, -0.1, 1.01, float("nan"), float("inf"), "0.5", None, True)),
        ("rgb_gain", (0, -1.0, float("inf"), 10**400)),
        ("red_gain", (0, -1.0, float("nan"))),
        ("blue_gain", (0, -1.0, [1.0])),
        (
            "ccm",
            ([1.0] * 9, [0.0] * 9, [1.0] * 8, list(range(9)), [1, 0, 0, 0, float("inf"), 0, 0, 0, 1], "100010001", 3),
        ),
        ("shot", (-1e-9, float("inf"), "0")),
        ("read", (-1e-9, float("nan"), {})),
        ("noise", (None, 3, ["sensor"])),
        ("bits", (-1, 17, float("inf"), 12.0, "12", True)),
    ],
)
def test_a_recipe_that_makes_no_sense_is_an_error(tmp_path, name, values):
    for value in values:
        write_png_with_note(tmp_path / "a.png", json.dumps({"adaptiveisp": 1, **asdict(RECIPE), name: value}))
        assert_note_refused(tmp_path / "a.png", name)


def test_a_recipe_at_its_limits_is_taken(tmp_path):
    entries = {**asdict(RECIPE), "light": 1, "shot": 0, "read": 0, "bits": 16}
    write_png_with_note(tmp_path / "a.png", json.dumps({"adaptiveisp": 1, **entries}))
    found = read_raw(tmp_path / "a.png").unprocessing
    assert found == Unprocessing(**entries) and type(found.light) is float and type(found.bits) is int


def test_a_dng_with_a_bad_recipe_is_an_error(tmp_path):
    note = json.dumps({"adaptiveisp": 1, **asdict(RECIPE), "bits": float("inf")})
    write_dng_variant(tmp_path / "x.dng", mosaic_raw(), {270: dng._text(270, note)})
    assert_note_refused(tmp_path / "x.dng", "bits")


def test_a_wrong_checksum_is_damage_and_prints_nothing(tmp_path, capfd):
    write_png16(random_pixels((20, 20, 3)), tmp_path / "a.png", RECIPE)
    content = bytearray((tmp_path / "a.png").read_bytes())
    content[60] ^= 1  # inside the text
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(RawFileError, match="wrong checksum"):
        read_raw(tmp_path / "a.png")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("module", "read"),
    [
        ("imagecodecs", lambda folder: write_png16(random_pixels((20, 20, 3)), folder / "x.png")),
        ("imagecodecs", lambda folder: read_raw(folder / "a.png")),
        ("tifffile", lambda folder: read_raw(folder / "a.tif")),
        ("rawpy", lambda folder: read_raw(folder / "a.dng")),
        ("rawpy", lambda folder: camera_render(mosaic_raw())),
    ],
)
def test_a_missing_library_says_what_to_install(tmp_path, monkeypatch, module, read):
    for name in ("a.png", "a.tif", "a.dng"):
        (tmp_path / name).write_bytes(b"anything")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(AdaptiveISPError, match=rf"{module} is not installed; run: pip install 'adaptiveisp\[raw\]'"):
        read(tmp_path)


def test_write_png16_refuses_other_arrays(tmp_path):
    for pixels in (random_pixels((20, 20, 3), 256, np.uint8), random_pixels((20, 20))):
        with pytest.raises((OutputError, TypeError), match=r"uint16|check"):
            write_png16(pixels, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def save(path, pixels):
    if path.suffix == ".png":
        path.write_bytes(imagecodecs.png_encode(pixels))
    elif path.suffix == ".tif":
        tifffile.imwrite(path, pixels)
    else:
        np.save(path, pixels)


@pytest.mark.parametrize("extension", ["png", "tif", "npy"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_arrays_rgb_and_mosaic(tmp_path, extension, dtype):
    full = np.iinfo(dtype).max
    path = tmp_path / f"x.{extension}"
    pixels = random_pixels((20, 26, 3), full + 1, dtype)
    save(path, pixels)
    raw = read_raw(path)
    np.testing.assert_array_equal(raw.data, pixels)
    assert (raw.pattern, raw.white_level, raw.data.dtype) == (None, full, dtype)
    bits = 8 if dtype == np.uint8 else 12
    pixels >>= 0 if dtype == np.uint8 else 4
    save(path, pixels)
    narrow = read_raw(path, BayerHeader(bits=bits, black=3.0, pattern="RGGB"))  # a pattern does not concern RGB
    assert (narrow.pattern, narrow.white_level, narrow.black_level) == (None, 2.0**bits - 1, (3.0,) * 4)
    save(path, pixels[..., 0].copy())
    with pytest.raises(RawFileError, match="--raw-pattern"):
        read_raw(path)
    (tmp_path / "raw.yaml").write_text(f"raw-pattern: BGGR\nraw-bits: {bits}\n")
    mosaic = read_raw(path)
    np.testing.assert_array_equal(mosaic.data, pixels[..., 0])
    assert (mosaic.pattern, mosaic.white_level) == ("BGGR", 2.0**bits - 1)


@pytest.mark.parametrize("extension", ["png", "npy"])
@pytest.mark.parametrize("channels", [2, 4])
def test_other_channel_counts_are_refused(tmp_path, extension, channels):
    save(tmp_path / f"x.{extension}", random_pixels((20, 26, channels)))
    with pytest.raises(
        RawFileError, match=r"one channel|x\.npy: has shape 20x26x4, four channels; give --raw-pattern if"
    ):
        read_raw(tmp_path / f"x.{extension}")


def test_a_white_level_that_no_value_can_reach_is_refused(tmp_path):
    """Such as the three byte planes of 24-bit values, taken for three colours: they would be black."""
    np.save(tmp_path / "planes.npy", np.full((32, 32, 3), 200, np.uint8))
    with pytest.raises(RawFileError, match=r"planes\.npy: holds uint8, up to 255, but its white level is 1.67772e\+07"):
        read_raw(tmp_path / "planes.npy", BayerHeader(white=2.0**24 - 1))
    np.save(tmp_path / "mosaic.npy", np.full((32, 32), 200, np.uint16))
    assert read_raw(tmp_path / "mosaic.npy", BayerHeader(pattern="GRBG", white=65535)).white_level == 65535


def test_npy_planes_first_and_foreign_byte_order(tmp_path):
    pixels = random_pixels((20, 26, 3), 65536)
    np.save(tmp_path / "x.npy", pixels.transpose(2, 0, 1).astype(">u2"))
    raw = read_raw(tmp_path / "x.npy")
    np.testing.assert_array_equal(raw.data, pixels)
    assert raw.data.dtype == np.dtype("=u2")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_npy_floats_up_to_one_are_kept_and_negatives_clipped(tmp_path, dtype):
    pixels = np.random.default_rng(0).uniform(-0.2, 1.0, (20, 26, 3)).astype(dtype)
    np.save(tmp_path / "x.npy", pixels)
    raw = read_raw(tmp_path / "x.npy")
    assert raw.white_level == 1.0 and raw.data.dtype == np.float32
    np.testing.assert_allclose(raw.data, np.clip(pixels, 0, None), rtol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.uint32])
def test_npy_hdr_is_scaled_by_its_99th_percentile(tmp_path, dtype):
    pixels = np.arange(3 * 20 * 20).reshape(20, 20, 3).astype(dtype) * 1000
    np.save(tmp_path / "x.npy", pixels)
    raw = read_raw(tmp_path / "x.npy")
    # 1200 equally spaced values: the 99th percentile lies at 0.99 of the way from first to last.
    assert raw.white_level == pytest.approx(0.99 * 1199 * 1000, rel=1e-6)
    assert read_raw(tmp_path / "x.npy", BayerHeader(white=2.0**24)).white_level == 2.0**24


def test_npy_hdr_with_few_lit_pixels_uses_its_maximum(tmp_path):
    pixels = np.zeros((20, 20, 3), np.float32)
    pixels[3, 3] = 500.0
    np.save(tmp_path / "x.npy", pixels)
    assert read_raw(tmp_path / "x.npy").white_level == 500.0


@pytest.mark.parametrize(
    ("pixels", "message"),
    [
        (np.full((20, 20, 3), np.nan), "NaN"),
        (np.full((20, 20, 3), np.inf, np.float32), "infinite"),
        (np.full((20, 20, 3), 1e300), "too large"),
        (np.array([{"a": 1}], dtype=object), "holds no numbers"),
        (np.ones((20, 20, 3), bool), "bool"),
        (np.ones((20, 20, 3), complex), "complex"),
        (np.ones(50), "shape 50"),
        (np.zeros((0, 20, 3), np.int32), "no pixels"),
        (np.zeros((20, 0), np.float32), "no pixels"),
        (np.float64(3), "single number"),
    ],
)
def test_bad_npy(tmp_path, pixels, message):
    np.save(tmp_path / "x.npy", pixels)
    with warnings.catch_warnings(), pytest.raises(RawFileError, match=message):
        warnings.simplefilter("error")
        read_raw(tmp_path / "x.npy")


@pytest.mark.parametrize(
    "header",
    [
        "((((",
        "{'descr': '<u2', 'fortran_order': False, 'shape': (1" + 40 * "0" + ", 2, 3)}",
        "{'descr': '<u2', 'fortran_order': False, 'shape': (-1, 2, 3)}",
        "{'descr': 'nothing', 'fortran_order': False, 'shape': (1, 2, 3)}",
        "{'descr': " + 2000 * "[" + "}",
        "",
    ],
    ids=["tokens", "huge", "negative", "type", "deep", "empty"],
)
def test_npy_with_a_damaged_header(tmp_path, header):
    text = header.encode() + b"\n"
    path = tmp_path / "x.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(100))
    with pytest.raises(RawFileError, match=r"x\.npy: is damaged or holds no numbers") as caught:
        read_raw(path)
    assert "\n" not in str(caught.value)


# --- broken and odd files ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """The bytes of one small good file of each kind."""
    folder = tmp_path_factory.mktemp("good")
    write_dng(mosaic_raw(), folder / "x.dng")
    write_png16(random_pixels((20, 20, 3)), folder / "x.png")
    np.save(folder / "x.npy", random_pixels((20, 20, 3)))
    tifffile.imwrite(folder / "x.tif", random_pixels((20, 20, 3)))
    return {path.suffix: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("extension", [".dng", ".png", ".npy", ".tif"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[:-1] if content[:4] != b"\x89PNG" else content[:-20],
        lambda content: content[: len(content) // 2],
        lambda content: content[:20],
        lambda content: b"",
        lambda content: b"just a text, renamed\n" * 50,
        lambda content: bytes(len(content)),
    ],
    ids=["last byte", "half", "head only", "empty", "text", "zeros"],
)
def test_damaged_files_are_one_line_errors_that_name_the_file(tmp_path, capfd, good, extension, damage):
    path = tmp_path / f"x{extension}"
    path.write_bytes(damage(good[extension]))
    with pytest.raises(RawFileError) as caught:
        read_raw(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ") and "\n" not in message and (";" in message or "?" in message)
    assert capfd.readouterr().err == ""


def test_damaged_tiffs_leave_no_log_lines_and_other_threads_keep_theirs(tmp_path, caplog, good, monkeypatch):
    path = tmp_path / "x.tif"
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 8) + bytes(20))
    with pytest.raises(RawFileError):
        read_raw(path)
    content = bytearray(good[".tif"])
    struct.pack_into("<I", content, 4, 2**31)  # the first directory lies beyond the end
    path.write_bytes(content)
    with pytest.raises(RawFileError, match="is damaged or no TIFF"):
        read_raw(path)
    assert caplog.records == []

    logger = logging.getLogger("tifffile")
    opened = tifffile.TiffFile

    def opening(name):
        other = threading.Thread(target=logger.error, args=("of another thread",))
        other.start()
        other.join()
        logger.error("of this thread")
        return opened(name)

    path.write_bytes(good[".tif"])
    monkeypatch.setattr(tifffile, "TiffFile", opening)
    read_raw(path)
    logger.error("afterwards")
    assert caplog.messages == ["of another thread", "afterwards"]


@pytest.mark.parametrize("name", ["x" * 300 + ".dng", "x" * 300, "a\0b.dng"])
def test_impossible_file_names_are_one_line_errors(tmp_path, name):
    with pytest.raises(RawFileError, match=r": (cannot be read|no such file)") as caught:
        read_raw(tmp_path / name)
    assert str(tmp_path / name).replace("\0", r"\x00") in str(caught.value)
    (tmp_path / "good.dng").touch()
    found, missing = find_raw_files([str(tmp_path / name), str(tmp_path / "good.dng")])
    assert [path.name for path, _ in found] == ["good.dng"] and [text for text, _ in missing] == [str(tmp_path / name)]
    with pytest.raises(RawFileError):
        find_raw_files([str(tmp_path / name)])


def test_pictures_of_8_bits_are_warned_of_once_a_folder(tmp_path, caplog):
    for name, pixels in (("a.png", np.uint8), ("b.png", np.uint8), ("c/16.png", np.uint16)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save(tmp_path / name, random_pixels((20, 20, 3), 256, pixels))
        read_raw(tmp_path / name)
    save(tmp_path / "c" / "known.png", random_pixels((20, 20, 3), 256, np.uint8))
    read_raw(tmp_path / "c" / "known.png", BayerHeader(bits=8))
    (text,) = caplog.messages
    assert text.startswith(f"{tmp_path}: its pictures of 8 bits") and "train with --light" in text


def test_missing_folder_and_unknown_extension(tmp_path):
    (tmp_path / "x.txt").write_text("hello")
    for path, message in (("y.dng", "no such file"), (".", "is a folder"), ("x.txt", r"unknown extension '\.txt'")):
        with pytest.raises(RawFileError, match=message):
            read_raw(tmp_path / path)


@pytest.mark.parametrize("shape", [(1, 1, 3), (15, 40, 3), (40, 15, 3)])
def test_tiny_images_are_refused(tmp_path, shape):
    save(tmp_path / "x.png", np.full(shape, 500, np.uint16))
    with pytest.raises(RawFileError, match="too small"):
        read_raw(tmp_path / "x.png")


def test_black_frames_are_refused_and_almost_black_ones_are_not(tmp_path):
    pixels = np.full((24, 24), 64, np.uint16)
    black = RawImage(pixels, "RGGB", (64.0, 70.0, 64.0, 64.0), 4000.0)
    write_dng(black, tmp_path / "x.dng")
    with pytest.raises(RawFileError, match="all pixels are at or below the black level"):
        read_raw(tmp_path / "x.dng")
    pixels[2, 2] = 65  # above the level of its own position, though below that of another
    write_dng(black, tmp_path / "x.dng")
    assert read_raw(tmp_path / "x.dng").data[2, 2] == 65
    save(tmp_path / "x.png", np.zeros((20, 20, 3), np.uint16))
    with pytest.raises(RawFileError, match="black level"):
        read_raw(tmp_path / "x.png")


def test_white_below_black_is_refused(tmp_path):
    save(tmp_path / "x.png", random_pixels((20, 20, 3)))
    for black, white in ((100.0, 90.0), (5000.0, 5000.0), (5000.0, 100.0)):  # the last two leave no pixel above black
        with pytest.raises(RawFileError, match="not above black level"):
            read_raw(tmp_path / "x.png", BayerHeader(black=black, white=white))


def test_a_black_hdr_frame_is_dark_and_has_no_wrong_levels(tmp_path):
    save(tmp_path / "x.npy", np.zeros((20, 20, 3), np.int32))
    for header in (None, BayerHeader(black=64.0)):
        with pytest.raises(RawFileError, match="lens cap"):
            read_raw(tmp_path / "x.npy", header)
