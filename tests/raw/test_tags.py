"""The reader of tags on damaged files, and the DNGs that LibRaw would get wrong."""

import math
import re
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adaptiveisp.errors import AdaptiveISPError, RawFileError
from adaptiveisp.raw.develop import develop
from adaptiveisp.raw.dng import write_dng
from adaptiveisp.raw.image_size import raw_size
from adaptiveisp.raw.reader import BayerHeader, camera_render, read_raw
from adaptiveisp.raw.tag_checks import missing_bytes, refuse_misread, refuse_too_small, tag_doubts, why_unknown
from adaptiveisp.raw.tags import dng_tags, read_dng_tags, read_tag_file
from adaptiveisp.types import RawImage
from tests.support.odd_dngs import BLACK, WHITE, mosaic, scene, write_odd_dng

rawpy = pytest.importorskip("rawpy")

QUAD = (0, 0, 1, 1, 0, 0, 1, 1, 1, 1, 2, 2, 1, 1, 2, 2)
PIXELS = mosaic(scene())
ROWS = [PIXELS[row : row + 16].astype("<u2").tobytes() for row in range(0, 48, 16)]
TILES = [
    PIXELS[row : row + 16, column : column + 16].astype("<u2").tobytes()
    for row in range(0, 48, 16)
    for column in range(0, 64, 16)
]
TILED: dict[str, Any] = {"tiled": True, "t278": None, "t322": (4, [16]), "t323": (4, [16])}
FLOATS: dict[str, Any] = {"t258": (3, [32]), "t339": (3, [3]), "t50714": (4, [0]), "t50717": (4, [1])}


def make_raw(size=(24, 26)):
    return RawImage(np.random.default_rng(7).integers(0, 4096, size, dtype=np.uint16), "RGGB", 64.0, 4000.0)


def test_tags_of_a_big_endian_file(tmp_path):
    # Orientation aside, a motorola-order directory with BlackLevel as SHORT, the way Nikon and Pentax write.
    entries = [(262, 3, 1, struct.pack(">HH", 32803, 0)), (34855, 3, 1, struct.pack(">HH", 1600, 0))]
    entries.append((50714, 3, 1, struct.pack(">HH", 512, 0)))
    directory = struct.pack(">H", 3) + b"".join(struct.pack(">HHI4s", *entry) for entry in entries) + bytes(4)
    (tmp_path / "x.nef").write_bytes(struct.pack(">2sHI", b"MM", 42, 8) + directory)
    tags = read_dng_tags(tmp_path / "x.nef")
    assert (tags.iso, tags.black_level) == (1600, (512,) * 4)


def test_damaged_directories_give_no_tags_and_no_crash(tmp_path):
    write_dng(make_raw(), tmp_path / "x.dng")
    content = (tmp_path / "x.dng").read_bytes()
    rng = np.random.default_rng(3)
    path = tmp_path / "y.dng"
    for _ in range(100):
        damaged = bytearray(content[: rng.integers(1, len(content))])
        for place in rng.integers(0, len(damaged), 8):
            damaged[place] = rng.integers(0, 256)
        path.write_bytes(damaged)
        read_dng_tags(path)
    assert read_dng_tags(tmp_path / "missing.dng") == read_dng_tags(tmp_path) == type(read_dng_tags(path))()


@pytest.mark.parametrize("tag", [330, 34665, 273, 279, 324, 325, 50714, 34855])
@pytest.mark.parametrize("value", [math.nan, math.inf, -5.0, 1e300])
def test_doubles_where_offsets_belong_are_passed_over(tmp_path, tag, value):
    entries = [(262, 3, 1, struct.pack("<HH", 32803, 0)), (50706, 1, 4, bytes([1, 4, 0, 0]))]
    entries.append((tag, 12, 1, struct.pack("<I", 100)))
    directory = struct.pack("<H", 3) + b"".join(struct.pack("<HHI4s", *entry) for entry in sorted(entries)) + bytes(4)
    content = (struct.pack("<2sHI", b"II", 42, 8) + directory).ljust(100, b"\0") + struct.pack("<d", value)
    (tmp_path / "x.dng").write_bytes(content)
    file = read_tag_file(tmp_path / "x.dng")
    assert missing_bytes(file.raw, file.n_bytes) == 0


# --- the reader --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("big", [False, True])
def test_tags_are_read_in_both_orders_and_in_bigtiff(tmp_path: Path, order: str, big: bool) -> None:
    file = read_tag_file(write_odd_dng(tmp_path / "x.dng", PIXELS, order=order, big=big, t50714=(5, [25, 2])))
    assert (file.is_dng, file.magic, file.n_bytes) == (True, 43 if big else 42, (tmp_path / "x.dng").stat().st_size)
    assert file.raw[33422] == (0, 1, 1, 2) and file.raw[256] == (64,)
    assert dng_tags(file).black_level == (12.5,) * 4


def directory(entries: list[tuple[int, int, int, int]], following: int) -> bytes:
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return struct.pack("<H", len(entries)) + table + struct.pack("<I", following)


def test_a_chain_of_directories_is_followed_and_its_loops_end(tmp_path: Path) -> None:
    second = 8 + len(directory([(256, 4, 1, 5)] * 2, 0))
    content = directory([(256, 4, 1, 5), (330, 4, 1, 8)], second) + directory(
        [(256, 4, 1, 7), (34665, 4, 1, second)], 8
    )
    (tmp_path / "x.dng").write_bytes(struct.pack("<2sHI", b"II", 42, 8) + content)
    assert [part[256] for part in read_tag_file(tmp_path / "x.dng").directories] == [(5,), (7,)]


def test_many_tags_that_share_a_huge_value_cost_little(tmp_path: Path) -> None:
    known = (254, 256, 257, 258, 273, 279, 324, 325, 33421, 33422, 50712, 50714, 50715, 50717, 51041)
    size, count = len(directory([(0, 0, 0, 0)] * len(known), 0)), 60
    parts = [
        directory([(tag, 12, 200_000, 8 + count * size) for tag in known], 8 + (k + 1) * size) for k in range(count)
    ]
    (tmp_path / "x.dng").write_bytes(struct.pack("<2sHI", b"II", 42, 8) + b"".join(parts) + bytes(1_600_000))
    file = read_tag_file(tmp_path / "x.dng")
    assert len(file.directories) == 32
    assert sum(len(values) for part in file.directories for values in part.values()) <= 1_000_000
    (tmp_path / "y.dng").write_bytes(
        struct.pack("<2sHI", b"II", 42, 8) + directory([(273, 4, 2**32 - 1, 8)], 2**32 - 1)
    )
    assert read_tag_file(tmp_path / "y.dng").directories == ({},)


def test_damage_never_gives_anything_but_our_errors(tmp_path: Path) -> None:
    path, rng = tmp_path / "x.dng", np.random.default_rng(5)
    makers = [
        {},
        TILED | {"segments": TILES},
        {"big": True},
        {"order": ">"},
        {"t33422": (1, list(QUAD)), "t33421": (3, [4, 4])},
    ]
    for changes in makers:
        content = write_odd_dng(path, PIXELS, **changes).read_bytes()
        for _ in range(60):
            damaged = bytearray(content)
            for place in rng.integers(len(content) - 700, len(content), 8):  # where the directory lies
                damaged[place] = rng.choice([0, 1, 5, 10, 11, 12, 255, rng.integers(256)])
            path.write_bytes(damaged)
            file = read_tag_file(path)
            dng_tags(file), tag_doubts(file, path), why_unknown(file, path)
            try:
                refuse_misread(file, path)
            except AdaptiveISPError as error:
                assert "\n" not in str(error)


@pytest.mark.parametrize("value", [math.nan, math.inf, -1.0, 1e300, 0.0])
@pytest.mark.parametrize("tag", [256, 257, 258, 259, 277, 278, 284, 317, 322, 33421, 33422, 50711, 50714, 50717, 50975])
def test_values_that_make_no_sense_do_no_harm(tmp_path: Path, tag: int, value: float) -> None:
    for layout in ({}, TILED | {"segments": TILES}):
        path = write_odd_dng(tmp_path / "x.dng", PIXELS, **(layout | {f"t{tag}": (12, [value] * 4)}))
        file = read_tag_file(path)
        tag_doubts(file, path), why_unknown(file, path)
        try:
            refuse_misread(file, path)
            refuse_too_small(file, path, 64, 48)
        except RawFileError as error:
            assert str(error).startswith(str(path))


# --- what LibRaw reads rightly stays as it is ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"order": ">"},
        {"segments": ROWS, "t278": (4, [16])},
        {"t278": None},
        {"t278": (4, [2**32 - 1])},
        {"segments": TILES, **TILED},
        {"t33421": (3, [4, 2]), "t33422": (1, [0, 1, 1, 2, 0, 1, 1, 2])},
        {"t279": (4, [1000])},
        {"t50718": (5, [2, 1, 1, 1])},
    ],
)
def test_what_libraw_reads_rightly_is_read(tmp_path: Path, changes: dict[str, Any]) -> None:
    raw = read_raw(write_odd_dng(tmp_path / "x.dng", PIXELS, **changes))
    np.testing.assert_array_equal(raw.data, PIXELS)
    assert (raw.pattern, raw.black_level, raw.white_level) == ("RGGB", (512,) * 4, 16383)


def test_lossless_jpeg_tiles_are_read(tmp_path: Path) -> None:
    codecs = pytest.importorskip("imagecodecs")
    tiles = [codecs.ljpeg_encode(np.frombuffer(tile, "<u2").reshape(16, 16), bitspersample=14) for tile in TILES]
    jpeg = TILED | {"t259": (3, [7])}
    np.testing.assert_array_equal(read_raw(write_odd_dng(tmp_path / "x.dng", PIXELS, tiles, **jpeg)).data, PIXELS)
    for lost, message in (
        ([*tiles[:5], b"", *tiles[6:]], "1 of its 12 tiles are empty"),
        (tiles[:1], "1 of its 12 tiles,"),
    ):
        with pytest.raises(RawFileError, match=rf"x\.dng: .*{message}.*copy it again"):
            read_raw(write_odd_dng(tmp_path / "x.dng", PIXELS, lost, **jpeg))
    strips = [codecs.ljpeg_encode(PIXELS[row : row + 16].copy(), bitspersample=14) for row in range(0, 48, 16)]
    with pytest.raises(RawFileError, match=r"x\.dng: holds JPEG data in 3 strips"):
        read_raw(write_odd_dng(tmp_path / "x.dng", PIXELS, strips, t259=(3, [7]), t278=(4, [16])))


# --- what LibRaw would get wrong -----------------------------------------------------------------------------------

LINEAR = np.round(BLACK + scene() * (WHITE - BLACK)).astype(np.uint16)


@pytest.mark.parametrize(
    ("pixels", "changes", "message"),
    [
        (PIXELS, {"t33421": (3, [2, 4]), "t33422": (1, [0, 1, 0, 1, 1, 2, 1, 2])}, "repeat every 4x2 pixels.*Linear"),
        (PIXELS, {"t33421": (3, [6, 6]), "t33422": (1, [0, 1] * 18)}, "repeat every 6x6 pixels.*Linear"),
        (PIXELS, {"t33421": (3, [3, 3])}, "CFARepeatPatternDim and CFAPattern contradict"),
        (PIXELS, {"t33421": None, "t33422": None}, "CFAPattern is missing"),
        (PIXELS, {"t33422": (1, [0, 1, 2, 6]), "t50710": (1, [0, 1, 2, 6])}, "are red, green, blue, white, not"),
        (PIXELS, {"t50711": (3, [2])}, r"staggered \(CFALayout 2\).*Linear"),
        (PIXELS, {"t50975": (4, [2])}, "RowInterleaveFactor 2"),
        (LINEAR, {"t284": (3, [2])}, "PlanarConfiguration 2"),
        (PIXELS, {"t50714": (10, [-5, 1])}, "BlackLevel is -5.*--raw-black"),
        (
            PIXELS,
            {"segments": [rows + bytes(8) for rows in ROWS], "t278": (4, [16])},
            "strips are not contiguous",
        ),
        (PIXELS, {"segments": ROWS[:2], "t278": (4, [16])}, r"truncated \(\d+ bytes are missing\)"),
        (PIXELS, {"segments": TILES[:1], **TILED}, "lists 1 of its 12 tiles"),
        (PIXELS, {"t279": (4, [10**6])}, r"truncated \(\d+ bytes are missing\)"),
    ],
)
def test_what_libraw_would_get_wrong_is_refused(
    tmp_path: Path, pixels: np.ndarray, changes: dict[str, Any], message: str
) -> None:
    path = write_odd_dng(tmp_path / "x.dng", pixels, **changes)
    with pytest.raises(RawFileError, match=rf"x\.dng: .*{message}"):
        read_raw(path)
    if "BlackLevel" not in message:
        with pytest.raises(RawFileError, match=message):
            raw_size(path)


def as_told(error: RawFileError, folder: Path, monkeypatch: pytest.MonkeyPatch) -> RawImage:
    """Does what a message says: runs its line of Python, and reads the array with its flags."""
    code, flags = str(error).split("in Python ")[1].replace(", and give ", ", then give ").split(", then give ")
    words = flags.split()
    given = dict(zip(words[::2], words[1::2], strict=True))
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"numpy": np, "rawpy": rawpy}
    if "tifffile" in code:
        names["tifffile"] = pytest.importorskip("tifffile")
        pytest.importorskip("imagecodecs")
    exec(code, names)
    levels = {"black": float(given["--raw-black"]), "white": float(given["--raw-white"])}
    return read_raw(folder / "x.npy", BayerHeader(pattern=given.get("--raw-pattern"), **levels))


def refusal(path: Path) -> RawFileError:
    with pytest.raises(RawFileError, match=r"x\.dng: ") as caught:
        read_raw(path)
    return caught.value


def test_a_quad_bayer_dng_is_binned_to_half_its_size(tmp_path: Path) -> None:
    """The cells of a smooth picture have the values of the picture's mean in each; the camera policy bins it too."""
    pixels = mosaic(scene(), QUAD, 4)
    path = write_odd_dng(tmp_path / "x.dng", pixels, t33421=(3, [4, 4]), t33422=(1, list(QUAD)))
    raw = read_raw(path)
    assert (raw.pattern, raw.black_level, raw.white_level) == ("RGGB", (512,) * 4, 16383)
    expected = [[pixels[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean() for x in range(32)] for y in range(24)]
    np.testing.assert_array_equal(raw.data, np.array(expected, np.float32))
    assert raw_size(path) == (32, 24)
    half = scene()[0::2, 0::2].mean(axis=(0, 1))
    np.testing.assert_allclose(develop(raw).mean(dim=(1, 2)), half, rtol=0.03)
    assert camera_render(raw).shape == (24, 32, 3)
    levels = {"t50713": (3, [2, 2]), "t50714": (4, [500, 510, 512, 514])}
    uneven = write_odd_dng(tmp_path / "y.dng", pixels, t33421=(3, [4, 4]), t33422=(1, list(QUAD)), **levels)
    assert read_raw(uneven).black_level == (509.0,) * 4
    declared = read_raw(path, BayerHeader(pattern="QUAD_BGGR", black=500.0))
    assert (declared.pattern, declared.black_level) == ("BGGR", (500.0,) * 4)
    assert "QUAD_BGGR is used in place of the file's own QUAD_RGGB" in declared.remarks[0].text


def test_a_matrix_is_refused_for_camera_files(tmp_path: Path) -> None:
    path = write_odd_dng(tmp_path / "x.dng", PIXELS)
    with pytest.raises(RawFileError, match="raw-matrix is for raws without a header"):
        read_raw(path, BayerHeader(matrix=np.eye(3).tolist()))


LINEAR_MONO = {"t262": (3, [34892]), "t33421": None, "t33422": None}


@pytest.mark.parametrize(
    "changes",
    [
        LINEAR_MONO,
        {**LINEAR_MONO, "t50721": None, "t50778": None, "t50728": None, "t50710": None, "t50711": None},
        {"t33422": (1, [0, 0, 0, 0])},
        {"t33422": (1, [1, 1, 1, 1])},
        {"t33421": (3, [6, 6]), "t33422": (1, [0] * 36)},
    ],
)
def test_a_monochrome_dng_is_read_as_it_is(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = write_odd_dng(tmp_path / "x.dng", PIXELS, t274=(3, [6]), **changes)
    raw = read_raw(path)
    np.testing.assert_array_equal(raw.data, PIXELS)
    assert (raw.pattern, raw.black_level, raw.white_level, raw.orientation) == ("MONO", (512,) * 4, 16383, 6)
    assert raw_size(path) == PIXELS.shape and raw.remarks == ()
    developed = develop(raw)
    expected = np.rot90((PIXELS.astype(float) - 512) / (16383 - 512), -1)
    np.testing.assert_allclose(developed, np.stack([expected] * 3), atol=1e-6)


def test_levels_of_a_monochrome_dng_can_be_declared(tmp_path: Path) -> None:
    path = write_odd_dng(tmp_path / "x.dng", PIXELS, t50714=(5, [1025, 2]), **LINEAR_MONO)
    assert read_raw(path).black_level == (512.5,) * 4
    raw = read_raw(path, BayerHeader(black=500.0, pattern="RGGB"))
    assert (raw.pattern, raw.black_level) == ("RGGB", (500.0,) * 4)
    texts = [remark.text for remark in raw.remarks]
    assert "raw-pattern RGGB is used in place of the file's own MONO" in texts[0] and "raw-black 500" in texts[1]
    bayer = read_raw(write_odd_dng(tmp_path / "y.dng", PIXELS), BayerHeader(pattern="MONO"))
    assert bayer.pattern == "MONO" and "MONO is used in place of the file's own RGGB" in bayer.remarks[0].text


def test_the_camera_policy_renders_monochrome_files(tmp_path: Path) -> None:
    path = write_odd_dng(tmp_path / "x.dng", PIXELS, t50728=None, **LINEAR_MONO)
    rendered = camera_render(read_raw(path))
    assert rendered.shape == (*PIXELS.shape, 3) and (rendered == rendered[..., :1]).all() and rendered.std() > 10
    again = camera_render(RawImage(PIXELS, "MONO", 512.0, 16383.0))
    np.testing.assert_array_equal(again, rendered)


@pytest.mark.parametrize("predictor", [None, (3, [2])])
def test_floats_with_another_predictor_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, predictor: Any
) -> None:
    values = np.float32(PIXELS / WHITE)
    changes = FLOATS | {"t259": (3, [8]), "t317": predictor}
    error = refusal(
        write_odd_dng(tmp_path / "x.dng", PIXELS, [zlib.compress(values.astype("<f4").tobytes())], **changes)
    )
    assert "Deflate with Predictor" in str(error)
    if predictor is None:
        np.testing.assert_array_equal(as_told(error, tmp_path, monkeypatch).data, values)


@pytest.mark.parametrize("kind", ["LZW", "Deflate of whole numbers", "BigTIFF"])
def test_unknown_compression_is_named_with_a_line_that_decodes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    content, number = PIXELS.astype("<u2").tobytes(), {"LZW": 5, "Deflate of whole numbers": 8}.get(kind, 1)
    if kind == "LZW":
        content = pytest.importorskip("imagecodecs").lzw_encode(content)
    elif number == 8:
        content = zlib.compress(content)
    path = write_odd_dng(tmp_path / "x.dng", PIXELS, [content], t259=(3, [number]), big=kind == "BigTIFF")
    error = refusal(path)
    assert kind in str(error) and "which LibRaw does not read" in str(error)
    raw = as_told(error, tmp_path, monkeypatch)
    np.testing.assert_array_equal(raw.data, PIXELS)
    assert (raw.pattern, raw.black_level, raw.white_level) == ("RGGB", (512,) * 4, 16383)


@pytest.mark.parametrize(("number", "name"), [(9, "VC-5.*gpr_tools"), (52546, "JPEG XL.*Adobe DNG"), (777, "777")])
def test_compressions_without_a_decoder_here_are_named(tmp_path: Path, number: int, name: str) -> None:
    path = write_odd_dng(tmp_path / "x.dng", PIXELS, [bytes(1000)], t259=(3, [number]))
    with pytest.raises(RawFileError, match=rf"x\.dng: .*{name}"):
        read_raw(path)


def test_a_dng_without_a_raw_and_a_small_xtrans_are_named(tmp_path: Path) -> None:
    path = write_odd_dng(tmp_path / "x.dng", LINEAR, t262=(3, [2]))
    with pytest.raises(RawFileError, match="RGB pictures and no raw one"):
        read_raw(path)
    cells = ["GBGGRG", "RGRBGB", "GBGGRG", "GRGGBG", "BGBRGR", "GRGGBG"]
    codes = ["RGB".index(letter) for row in cells for letter in row]
    path = write_odd_dng(tmp_path / "x.dng", PIXELS, t33421=(3, [6, 6]), t33422=(1, codes))
    with pytest.raises(RawFileError, match=r"X-Trans.*512x512"):
        read_raw(path)


# --- cut files -----------------------------------------------------------------------------------------------------


def rw2(path: Path, size: int, width: int = 3000, height: int = 2000) -> Path:
    """The head of a Panasonic file that promises 6 million pixels."""
    entries = [(2, 4, 1, width), (3, 4, 1, height), (45, 3, 1, 4), (280, 4, 1, 512)]
    path.write_bytes((struct.pack("<2sHI", b"II", 0x55, 8) + directory(entries, 0)).ljust(size, b"\0"))
    return path


def test_a_cut_panasonic_file_is_refused(tmp_path: Path) -> None:
    path = rw2(tmp_path / "x.rw2", 5_000_000)
    with pytest.raises(RawFileError, match=r"x\.rw2: is truncated \(at least 1000512 bytes"):
        refuse_misread(read_tag_file(path), path)
    refuse_misread(read_tag_file(rw2(path, 512 + 3000 * 2000)), path)


def test_a_file_far_too_small_for_its_pixels_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "x.nef"
    path.write_bytes(bytes(49_999))
    with pytest.raises(RawFileError, match=r"x\.nef: is cut off \(49999 bytes for 1000x1000 pixels\)"):
        refuse_too_small(read_tag_file(path), path, 1000, 1000)
    path.write_bytes(bytes(50_000))
    refuse_too_small(read_tag_file(path), path, 1000, 1000)
    black = zlib.compress(bytes(4 * PIXELS.size))  # floats that compress to next to nothing
    path = write_odd_dng(tmp_path / "x.dng", PIXELS, [black], **FLOATS, t259=(3, [8]), t317=(3, [3]))
    refuse_too_small(read_tag_file(path), path, 1000, 1000)


# --- doubts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"t33422": (1, [0, 6, 6, 2]), "t50710": (1, [0, 6, 2])}, "white is taken for green"),
        ({"t50715": (10, [value for column in range(64) for value in (column, 1)])}, "differs by 63 between columns"),
        ({"t258": (3, [16]), "t50717": (4, [10**5])}, "WhiteLevel is 100000, but its 16 bits end at 65535.*too dark"),
    ],
)
def test_doubtful_tags_are_remarked(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write_odd_dng(tmp_path / "x.dng", PIXELS, **changes)
    (remark,) = tag_doubts(read_tag_file(path), path)
    assert re.match(rf"{re.escape(str(path))}: .*{message}", remark.text)
    path = write_odd_dng(tmp_path / "x.dng", PIXELS)
    assert tag_doubts(read_tag_file(path), path) == read_raw(path).remarks == ()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("scale", [[2, 1, 1, 1], [1, 1, 3, 2], [7, 3, 1, 1], [1, 1, 3, 1], [5, 4, 1, 1]])
def test_pictures_of_pixels_that_are_not_square_have_the_frames_size(
    tmp_path: Path, scale: list[int], orientation: int
) -> None:
    turned = {"t274": (3, [orientation])}
    pixels = np.random.default_rng(2).integers(BLACK, WHITE, (48, 64)).astype(np.uint16)
    square = read_raw(write_odd_dng(tmp_path / "x.dng", pixels, **turned))
    oblong = read_raw(write_odd_dng(tmp_path / "y.dng", pixels, **turned, t50718=(5, scale)))
    assert [remark.kind for remark in oblong.remarks] == ["pixels that are not square"]
    wanted, found = (camera_render(raw).astype(int) for raw in (square, oblong))
    # LibRaw's automatic brightness counts the pixels that it added.
    assert found.shape == wanted.shape and np.abs(found - wanted).max() <= 4 < wanted.std() / 5
    linear = [
        write_odd_dng(tmp_path / "z.dng", LINEAR, **turned, t50718=(5, kind)) and read_raw(tmp_path / "z.dng")
        for kind in ([1, 1, 1, 1], scale)
    ]
    np.testing.assert_array_equal(linear[0].data, linear[1].data)
