"""Filters other than Bayer's: mosaics are made by loops over their letters, and colours must come back."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adaptiveisp.errors import RawFileError, UsageError
from adaptiveisp.raw.colour_filters import DECLARED_PATTERNS
from adaptiveisp.raw.develop import develop
from adaptiveisp.raw.image_size import raw_size
from adaptiveisp.raw.in_memory import raw_in_memory
from adaptiveisp.raw.reader import BayerHeader, read_raw
from adaptiveisp.raw.unprocess import mosaic
from adaptiveisp.types import RawImage

Array = np.ndarray[Any, Any]
BLACK, WHITE = 64.0, 4095.0
GRIDS = {
    "QUAD_RGGB": ("RRGG", "RRGG", "GGBB", "GGBB"),
    "QUAD_GBRG": ("GGBB", "GGBB", "RRGG", "RRGG"),
    "RCCB": ("RC", "CB"),
    "BCCR": ("BC", "CR"),
    "CRBC": ("CR", "BC"),
    "CBRC": ("CB", "RC"),
    "RYYCY": ("RY", "Yc"),
    "RGBIR": ("RG", "IB"),
    "RGBIR4": ("BGRG", "GIGI", "RGBG", "GIGI"),
}


def scene(height: int = 48, width: int = 64) -> Array:
    """Smooth linear RGB whose sum stays below 1, as that of a clear filter must, and infrared as a fourth channel."""
    rows, columns = np.mgrid[:height, :width]
    red = 0.12 + 0.1 * np.sin(rows / 15)
    blue = 0.15 + 0.08 * np.cos(columns / 17)
    green = 0.3 + 0.1 * np.sin((rows + columns) / 20)
    return np.stack([red, green, blue, 0.05 + 0.02 * np.cos(rows / 16)], -1)


def shot(picture: Array, pattern: str) -> Array:
    """The codes of a sensor with these filters: clear, yellow and cyan record sums, and I records infrared alone."""
    red, green, blue, infrared = np.moveaxis(picture, -1, 0)
    leak = infrared if pattern.startswith("RGBIR") else 0.0
    seen = {"R": red + leak, "G": green + leak, "B": blue + leak, "I": infrared}
    seen |= {"C": red + green + blue, "Y": red + green, "c": green + blue}
    grid = GRIDS[pattern]
    values = np.zeros(red.shape)
    for y in range(red.shape[0]):
        for x in range(red.shape[1]):
            letter = grid[y % len(grid)][x % len(grid[0])]
            values[y, x] = seen[letter][y, x]
    return np.round(BLACK + values * (WHITE - BLACK)).astype(np.uint16)


def header(pattern: str, **facts: Any) -> BayerHeader:
    return BayerHeader(bits=12, pattern=pattern, black=BLACK, **facts)


def test_every_pattern_that_can_be_declared_is_tested() -> None:
    assert {pattern for pattern in DECLARED_PATTERNS if pattern not in ("RGGB", "BGGR", "GRBG", "GBRG", "MONO")} == {
        *GRIDS,
        "QUAD_BGGR",
        "QUAD_GRBG",
    }


@pytest.mark.parametrize("pattern", [pattern for pattern in GRIDS if not pattern.startswith("QUAD")])
def test_colours_come_back(pattern: str) -> None:
    raw = raw_in_memory(shot(scene(), pattern), header(pattern))
    assert raw.pattern is None and raw.data.shape == (48, 64, 3)
    found = develop(raw).permute(1, 2, 0).numpy()[4:-4, 4:-4]
    np.testing.assert_allclose(found, scene()[4:-4, 4:-4, :3], atol=0.012)
    assert [remark.kind for remark in raw.remarks] == ["uncalibrated colours"]
    assert pattern in raw.remarks[0].text and "raw-matrix" in raw.remarks[0].text


@pytest.mark.parametrize("pattern", ["QUAD_RGGB", "QUAD_GBRG"])
def test_quad_bayer_is_binned(pattern: str) -> None:
    codes = shot(scene(50, 66), pattern)[:, :65]  # an odd column is left out
    raw = raw_in_memory(codes, header(pattern))
    assert raw.pattern == pattern.removeprefix("QUAD_") and raw.data.shape == (25, 32) and not raw.remarks
    for y, x in ((0, 0), (3, 4), (24, 31)):
        assert raw.data[y, x] == codes[2 * y : 2 * y + 2, 2 * x : 2 * x + 2].mean()
    half = torch.from_numpy(scene(50, 66)[:, :64, :3]).unflatten(0, (25, 2)).unflatten(2, (32, 2)).mean(dim=(1, 3))
    # A cell's mean lies at the middle of its four pixels, as the mean of the picture there.
    torch.testing.assert_close(develop(raw).permute(1, 2, 0)[2:-2, 2:-2].double(), half[2:-2, 2:-2], rtol=0, atol=0.012)


def test_a_black_level_of_each_place_is_that_of_the_place() -> None:
    offsets = np.tile([[0, 10], [20, 30]], (24, 32)).astype(np.uint16)
    levels = (BLACK, BLACK + 10, BLACK + 20, BLACK + 30)
    raw = raw_in_memory(shot(scene(), "RCCB") + offsets, BayerHeader(bits=12, pattern="RCCB", black=levels))
    np.testing.assert_allclose(develop(raw).permute(1, 2, 0)[4:-4, 4:-4], scene()[4:-4, 4:-4, :3], atol=0.02)


def test_saturated_clear_pixels_are_not_magenta() -> None:
    bright = np.clip(2.5 * scene(), 0, None)
    codes = np.minimum(shot(bright, "RCCB"), int(WHITE))
    red, green, blue = develop(raw_in_memory(codes, header("RCCB")))[:, 4:-4, 4:-4]
    assert (green >= torch.minimum(red, blue)).all() and green.mean() > 0.2


def test_a_matrix_is_applied_after_demosaicing() -> None:
    matrix = np.array([[1.5, -0.3, -0.2], [-0.1, 1.2, -0.1], [0.0, -0.4, 1.4]])
    codes = shot(scene(), "RCCB")
    plain = raw_in_memory(codes, header("RCCB")).data
    raw = raw_in_memory(codes, header("RCCB", matrix=matrix.tolist()))
    np.testing.assert_allclose(raw.data, plain @ matrix.T, atol=1e-5)
    assert not raw.remarks
    picture = torch.from_numpy(scene()[..., :3]).permute(2, 0, 1).float()
    bayer = np.round(BLACK + mosaic(picture, "GRBG").numpy() * (WHITE - BLACK)).astype(np.uint16)
    colours = raw_in_memory(bayer, header("GRBG", matrix=tuple(matrix.ravel().tolist())))
    expected = develop(RawImage(bayer, "GRBG", BLACK, WHITE)).permute(1, 2, 0).numpy() @ matrix.T
    np.testing.assert_allclose(colours.data, expected, atol=1e-5)
    rgb = np.round(BLACK + scene()[..., :3] * (WHITE - BLACK)).astype(np.uint16)
    linear = raw_in_memory(rgb, BayerHeader(bits=12, black=BLACK, matrix=matrix.tolist())).data
    np.testing.assert_allclose(linear, scene()[..., :3] @ matrix.T, atol=1e-3)


def test_files_and_sidecars_take_the_patterns(tmp_path: Path) -> None:
    path = tmp_path / "x.raw"
    shot(scene(), "QUAD_RGGB").tofile(path)
    facts = "raw-size: 64x48\nraw-bits: 12\nraw-pattern: quad_rggb\nraw-black: 64\n"
    (tmp_path / "x.raw.yaml").write_text(facts)
    assert read_raw(path).pattern == "RGGB" and raw_size(path) == (32, 24)
    (tmp_path / "x.raw.yaml").write_text(
        facts.replace("quad_rggb", "RGGB") + "raw-matrix: [[1, 0, 0], [0, 1, 0], [0, 0, 2]]\n"
    )
    assert read_raw(path).pattern is None and raw_size(path) == (64, 48)
    (tmp_path / "x.raw.yaml").write_text(facts + "raw-matrix: [1, 0]\n")
    with pytest.raises(RawFileError, match=r"x\.raw\.yaml: raw-matrix \[1, 0\] is no 3x3 matrix; give"):
        read_raw(path)


def test_an_unknown_pattern_is_named_with_the_known_ones() -> None:
    with pytest.raises(
        UsageError, match=r"raw pattern 'RGBW' is unknown; choose one of RGGB, .*QUAD_RGGB, .*RCCB, .*RGBIR4"
    ):
        BayerHeader(pattern="RGBW")
