"""Lens shading by a DNG's GainMap and by a file, and defective pixels: against gains and defects by hand."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adaptiveisp.cli.options import add_raw_facts, raw_facts
from adaptiveisp.cli.parser import _Parser
from adaptiveisp.data.frame_cache import FrameCache
from adaptiveisp.errors import RawFileError
from adaptiveisp.inference.predictor import develop_at_size
from adaptiveisp.raw.defects import without_defects
from adaptiveisp.raw.develop import develop, develop_small
from adaptiveisp.raw.in_memory import raw_in_memory
from adaptiveisp.raw.reader import BayerHeader, camera_render, read_raw
from adaptiveisp.raw.shading import gains_of_file, gains_of_maps, parse_gain_maps
from adaptiveisp.raw.sidecars import header_from_values
from adaptiveisp.types import RawImage
from tests.support.odd_dngs import BLACK, WHITE, mosaic, scene, write_odd_dng

Array = np.ndarray[Any, Any]
PIXELS = mosaic(scene())
HEIGHT, WIDTH = PIXELS.shape


def opcode(points: Array, top: int = 0, left: int = 0, pitch: int = 1, code: int = 9, cut: int = 0) -> bytes:
    """One opcode with a gain map whose points span the frame from edge to edge."""
    rows, columns = points.shape
    spacing = (1 / max(rows - 1, 1), 1 / max(columns - 1, 1))
    head = struct.pack(">10I", top, left, HEIGHT, WIDTH, 0, 1, pitch, pitch, rows, columns)
    body = head + struct.pack(">4dI", *spacing, 0.0, 0.0, 1) + points.astype(">f4").tobytes()
    body = body[: len(body) - cut]
    return struct.pack(">4I", code, 0x01030000, 0, len(body)) + body


def opcodes(*parts: bytes) -> tuple[int, list[int]]:
    return 7, list(struct.pack(">I", len(parts)) + b"".join(parts))


def by_loop(points: Array, y: int, x: int) -> float:
    """Bilinear interpolation at the centre of a pixel, by the formula of the specification."""
    rows, columns = points.shape
    v, h = (y + 0.5) / HEIGHT * (rows - 1), (x + 0.5) / WIDTH * (columns - 1)
    i, j = min(int(v), rows - 2), min(int(h), columns - 2)
    a, b = v - i, h - j
    top = points[i, j] * (1 - b) + points[i, j + 1] * b
    return float(top * (1 - a) + (points[i + 1, j] * (1 - b) + points[i + 1, j + 1] * b) * a)


POINTS = np.array([[2.0, 1.2, 1.8], [1.5, 1.0, 1.3]])


def test_a_gain_map_of_a_dng_is_applied_above_black(tmp_path: Path) -> None:
    raw = read_raw(write_odd_dng(tmp_path / "x.dng", PIXELS, t51009=opcodes(opcode(POINTS))))
    for y, x in ((0, 0), (10, 33), (47, 63), (25, 32)):
        expected = min(BLACK + by_loop(POINTS, y, x) * (float(PIXELS[y, x]) - BLACK), WHITE)
        assert raw.data[y, x] == pytest.approx(expected, rel=1e-5)
    assert raw.remarks == () and raw.black_level == (BLACK,) * 4
    plain = read_raw(write_odd_dng(tmp_path / "y.dng", PIXELS))
    off = read_raw(tmp_path / "x.dng", BayerHeader(shading="none"))
    np.testing.assert_array_equal(off.data, plain.data)
    # The policy camera sees the correction too: its picture is brighter, most in the corner.
    ratio = camera_render(raw).astype(float).mean() / camera_render(off).astype(float).mean()
    assert camera_render(raw).shape == (HEIGHT, WIDTH, 3) and ratio != 1


def test_gain_maps_of_single_places_and_other_opcodes(tmp_path: Path) -> None:
    maps = [np.full((1, 1), gain) for gain in (1.5, 1.0, 1.0, 2.0)]
    parts = [opcode(one, place // 2, place % 2, 2) for place, one in enumerate(maps)]
    other = struct.pack(">4I", 4, 0, 0, 8) + bytes(8)  # FixBadPixelsConstant
    raw = read_raw(write_odd_dng(tmp_path / "x.dng", PIXELS, t51009=opcodes(other, *parts)))
    for place, gain in enumerate((1.5, 1.0, 1.0, 2.0)):
        found = raw.data[place // 2 :: 2, place % 2 :: 2]
        plain = PIXELS[place // 2 :: 2, place % 2 :: 2].astype(np.float32)
        np.testing.assert_allclose(found, np.minimum(BLACK + gain * (plain - BLACK), WHITE), rtol=1e-6)


@pytest.mark.parametrize(
    "content",
    [
        opcodes(opcode(POINTS, cut=4)),
        (7, list(struct.pack(">I", 3) + opcode(POINTS))),
        opcodes(opcode(POINTS * np.nan)),
        opcodes(opcode(POINTS * 1000)),
        opcodes(opcode(-POINTS)),
        opcodes(opcode(np.ones((1025, 1)))),
    ],
)
def test_a_damaged_gain_map_is_not_used_which_is_said(tmp_path: Path, content: Any) -> None:
    raw = read_raw(write_odd_dng(tmp_path / "x.dng", PIXELS, t51009=content))
    np.testing.assert_array_equal(raw.data, PIXELS)
    assert [remark.kind for remark in raw.remarks] == ["lens shading that cannot be read"]


def test_a_gain_map_of_rgb_is_said_not_to_be_applied(tmp_path: Path) -> None:
    linear = np.round(BLACK + scene() * (WHITE - BLACK)).astype(np.uint16)
    raw = read_raw(write_odd_dng(tmp_path / "x.dng", linear, t51009=opcodes(opcode(POINTS))))
    assert [remark.kind for remark in raw.remarks] == ["lens shading of RGB"]


def test_maps_beyond_the_frame_change_nothing() -> None:
    (one,) = parse_gain_maps(bytes(opcodes(opcode(POINTS))[1]))
    assert (gains_of_maps([one._replace(area=(900, 0, 999, 10))], 48, 64) == 1).all()
    assert gains_of_maps([one], 48, 64).shape == (48, 64) and parse_gain_maps(bytes(4)) == []


def write_gains(path: Path, gains: Array) -> Path:
    np.save(path, gains)
    return path


def test_a_file_of_gains_is_undone_vignetting(tmp_path: Path) -> None:
    """In the full development and in the small one, from a coarse grid, by header, sidecar and flag."""
    height, width = 240, 320
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    falloff = 1 / (1 + 0.5 * (x**2 + y**2))
    codes = np.round(100 + 0.5 * falloff * 3000).astype(np.uint16)
    gy, gx = np.meshgrid((np.arange(30) + 0.5) / 15 - 1, (np.arange(40) + 0.5) / 20 - 1, indexing="ij")
    path = write_gains(tmp_path / "lens.npy", 1 + 0.5 * (gx**2 + gy**2))
    header = BayerHeader(bits=12, pattern="RGGB", black=100.0, white=3100.0, shading=str(path))
    raw = raw_in_memory(codes, header)
    flat = develop(raw)[:, 8:-8, 8:-8]
    torch.testing.assert_close(flat, torch.full_like(flat, 0.5), rtol=0, atol=0.004)
    small = develop_at_size(raw, 64).small[0]
    assert develop_small(raw, 48, 64) is not None
    torch.testing.assert_close(small[:, 2:-2, 2:-2], torch.full((3, 44, 60), 0.5), rtol=0, atol=0.004)
    np.save(tmp_path / "x.npy", codes)
    facts = "raw-bits: 12\nraw-pattern: RGGB\nraw-black: 100\nraw-white: 3100\nraw-shading: lens.npy\n"
    (tmp_path / "x.npy.yaml").write_text(facts)  # the name is relative to the sidecar
    np.testing.assert_array_equal(read_raw(tmp_path / "x.npy").data, raw.data)
    without = read_raw(tmp_path / "x.npy", BayerHeader(shading="none"))
    np.testing.assert_array_equal(without.data, codes)


def test_a_flat_frame_in_place_of_gains_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    flat = np.linspace(0.5, 1.0, 64).reshape(8, 8)
    gains_of_file(str(write_gains(tmp_path / "gains.npy", 1 / flat)), 8, 8)
    gains_of_file(str(write_gains(tmp_path / "ones.npy", np.ones((8, 8)))), 8, 8)
    assert not caplog.text
    gains_of_file(str(write_gains(tmp_path / "flat.npy", flat)), 8, 8)
    assert "flat.npy: no gain is above 1" in caplog.text and "flat.max() / flat" in caplog.text


def test_gains_of_places_and_of_camera_files(tmp_path: Path) -> None:
    gains = np.ones((3, 5, 4)) * [1.0, 1.25, 1.5, 2.0]
    file = write_odd_dng(tmp_path / "x.dng", PIXELS, t51009=opcodes(opcode(POINTS)))
    raw = read_raw(file, BayerHeader(shading=str(write_gains(tmp_path / "g.npy", gains))))
    for place, gain in enumerate((1.0, 1.25, 1.5, 2.0)):  # in place of the file's own map
        plain = PIXELS[place // 2 :: 2, place % 2 :: 2].astype(np.float32)
        np.testing.assert_allclose(
            raw.data[place // 2 :: 2, place % 2 :: 2], np.minimum(BLACK + gain * (plain - BLACK), WHITE), rtol=1e-6
        )


def test_saturated_pixels_stay_white_and_no_doubt_arises(tmp_path: Path) -> None:
    codes = PIXELS.copy()
    codes[10:20, 10:20] = WHITE
    header = BayerHeader(
        bits=14, pattern="RGGB", black=512.0, shading=str(write_gains(tmp_path / "g.npy", np.full((2, 2), 3.0)))
    )
    raw = raw_in_memory(codes, header)
    assert raw.data.max() == WHITE and raw.remarks == () and (develop(raw)[:, 12:18, 12:18] == 1).all()


@pytest.mark.parametrize(
    ("gains", "message"),
    [
        (np.ones((4, 4, 3)), "has shape 4x4x3; give"),
        (np.ones(5), "has shape 5; give"),
        (np.zeros((4, 4)), "not above 0"),
        (np.full((4, 4), np.nan), "not finite"),
        (np.full((4, 4), 100.0), "above 64"),
        (np.array([["a"]]), "holds no gains"),
        (None, "no such file"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path: Path, gains: Any, message: str) -> None:
    path = tmp_path / "g.npy"
    if gains is not None:
        np.save(path, gains)
    with pytest.raises(RawFileError, match=message) as caught:
        gains_of_file(str(path), 48, 64)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_corrections_of_rgb_are_refused() -> None:
    rgb = np.full((48, 64, 3), 500, np.uint16)
    for header in (BayerHeader(defects=True), BayerHeader(shading="g.npy")):
        with pytest.raises(RawFileError, match=r"is RGB, and raw-(defects|shading).* is for mosaics"):
            raw_in_memory(rgb, header)
    with pytest.raises(RawFileError, match=r"x\.yaml: raw-defects takes true or false"):
        header_from_values({"raw-defects": "on please"}, Path("x.yaml"))


def test_the_flags_and_the_cache_know_them(tmp_path: Path) -> None:
    parser = _Parser()
    add_raw_facts(parser)
    found = raw_facts(parser.parse_args(["--raw-shading", "g.npy", "--defects"]))
    assert found == BayerHeader(shading="g.npy", defects=True) and raw_facts(parser.parse_args([])) is None
    np.save(tmp_path / "x.npy", PIXELS)
    cache, gains = FrameCache(tmp_path / "cache"), tmp_path / "g.npy"
    keys = set()
    for value in (1.0, 2.0):
        header = BayerHeader(pattern="RGGB", shading=str(write_gains(gains, np.full((2, 2), value))))
        keys.add(cache.key(tmp_path / "x.npy", header, ""))
    assert len(keys) == 2  # a file of other content under the same name


def smooth(height: int = 60, width: int = 80) -> Array:
    return mosaic(scene(height, width))


@pytest.mark.parametrize("pattern", ["RGGB", "MONO"])
def test_hot_and_dead_pixels_become_the_median_of_their_colour(pattern: str) -> None:
    """Also in corners, on borders, and beside each other."""
    clean = (
        smooth() if pattern == "RGGB" else np.round(BLACK + scene(60, 80).mean(2) * (WHITE - BLACK)).astype(np.uint16)
    )
    bad = clean.copy()
    places = [(0, 0), (0, 40), (59, 79), (30, 30), (30, 31), (45, 10)]
    for number, place in enumerate(places):
        bad[place] = WHITE if number % 2 == 0 else BLACK
    raw = raw_in_memory(bad, BayerHeader(bits=14, pattern=pattern, black=512.0, defects=True))
    assert raw.data.dtype == np.uint16
    for place in places:
        assert abs(float(raw.data[place]) - float(clean[place])) < 0.03 * (WHITE - BLACK)
    others = np.ones(clean.shape, bool)
    others[tuple(zip(*places, strict=True))] = False
    np.testing.assert_array_equal(raw.data[others], clean[others])


def test_edges_lines_and_noise_are_left_alone() -> None:
    rng = np.random.default_rng(0)
    picture = np.full((60, 80), 2000.0)
    picture[:, 40:] = 9000  # an edge
    picture[20:22] = 12000  # a line of each colour
    noisy = np.clip(picture + 150 * rng.standard_normal(picture.shape), 0, 16383).astype(np.uint16)
    found, count = without_defects(noisy, 2, 512.0, 16383.0)
    assert count == 0 and (found == noisy).all()


def test_the_median_is_that_of_five(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    codes = rng.integers(0, 60000, (20, 24)).astype(np.uint16)
    found, count = without_defects(codes, 2, 0.0, 1000.0)
    padded = np.pad(codes.astype(float), 2, mode="reflect")
    changed = np.argwhere(found != codes)
    assert 0 < len(changed) <= count
    for y, x in changed:
        five = [padded[y + 2 + dy, x + 2 + dx] for dy, dx in ((0, 0), (-2, 0), (2, 0), (0, -2), (0, 2))]
        assert found[y, x] == np.median(five)


def test_read_raw_does_not_replace_defects_unless_asked(tmp_path: Path) -> None:
    bad = PIXELS.copy()
    bad[20, 20] = WHITE
    path = write_odd_dng(tmp_path / "x.dng", bad)
    assert read_raw(path).data[20, 20] == WHITE
    (tmp_path / "x.dng.yaml").write_text("raw-defects: true\n")
    assert read_raw(path).data[20, 20] < WHITE / 2
    assert isinstance(read_raw(path), RawImage)
