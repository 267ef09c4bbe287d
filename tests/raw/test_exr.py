"""OpenEXR files that the library itself wrote: half and float, RGB and mosaics."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adaptiveisp.errors import AdaptiveISPError, RawFileError
from adaptiveisp.raw.image_size import raw_size
from adaptiveisp.raw.reader import BayerHeader, read_raw

exr = pytest.importorskip("OpenEXR", reason="OpenEXR is not installed; pip install 'adaptiveisp[exr]'")

WIDTH, HEIGHT = 30, 22


def rgb(dtype: Any = np.float32, most: float = 1.0) -> np.ndarray:
    values = np.random.default_rng(0).uniform(0, most, (HEIGHT, WIDTH, 3)).astype(dtype)
    values[0, 0] = most
    return values


def write(path: Path, channels: dict[str, np.ndarray], how: str = "ZIP", **header: Any) -> Path:
    plain = {"compression": getattr(exr, f"{how}_COMPRESSION"), "type": exr.scanlineimage}
    exr.File({**plain, **header}, channels).write(str(path))
    return path


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
@pytest.mark.parametrize("how", ["NO", "ZIP", "PIZ", "RLE"])
def test_linear_rgb(tmp_path: Path, dtype: Any, how: str) -> None:
    path = write(tmp_path / "x.exr", {"RGB": rgb(dtype)}, how)
    raw = read_raw(path)
    np.testing.assert_array_equal(raw.data, rgb(dtype).astype(np.float32))
    assert (raw.pattern, raw.white_level, raw.remarks) == (None, 1.0, ())
    assert raw_size(path) == (WIDTH, HEIGHT)
    np.testing.assert_array_equal(read_raw(path.read_bytes()).data, raw.data)


def test_values_above_one_are_hdr_as_those_of_arrays(tmp_path: Path) -> None:
    path = write(tmp_path / "x.exr", {"RGB": rgb(most=40.0)})
    np.save(tmp_path / "x.npy", rgb(most=40.0))
    assert read_raw(path).white_level == read_raw(tmp_path / "x.npy").white_level != 1
    assert read_raw(path, BayerHeader(white=30.0)).white_level == 30


@pytest.mark.parametrize("name", ["Y", "mosaic"])
def test_one_channel_is_a_mosaic(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / "x.exr", {name: rgb()[..., 0].copy()})
    raw = read_raw(path, BayerHeader(pattern="GBRG"))
    np.testing.assert_array_equal(raw.data, rgb()[..., 0])
    assert (raw.pattern, raw.white_level) == ("GBRG", 1.0)
    with pytest.raises(RawFileError, match=r"x\.exr: has one channel, so it needs --raw-pattern"):
        read_raw(path)
    whole = np.random.default_rng(0).integers(0, 4096, (HEIGHT, WIDTH)).astype(np.uint32)
    raw = read_raw(write(tmp_path / "y.exr", {name: whole}), BayerHeader(pattern="GBRG", bits=12))
    np.testing.assert_array_equal(raw.data, whole)
    assert raw.white_level == 4095


def test_alpha_and_the_data_window(tmp_path: Path) -> None:
    opaque = np.ones((HEIGHT, WIDTH), np.float32)
    np.testing.assert_array_equal(read_raw(write(tmp_path / "x.exr", {"RGB": rgb(), "A": opaque})).data, rgb())
    with pytest.raises(RawFileError, match=r"has transparent pixels .*save it without alpha"):
        read_raw(write(tmp_path / "x.exr", {"RGB": rgb(), "A": opaque / 2}))
    corner, other = np.array([2, 3], np.int32), np.array([WIDTH + 1, HEIGHT + 2], np.int32)
    window = (np.array([0, 0], np.int32), np.array([99, 89], np.int32))
    path = write(tmp_path / "x.exr", {"RGB": rgb()}, dataWindow=(corner, other), displayWindow=window)
    (remark,) = read_raw(path).remarks
    assert raw_size(path) == (WIDTH, HEIGHT) and "though the display window is [[0, 0], [99, 89]]" in remark.text


def test_what_cannot_be_read_is_refused_by_name(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path, plane = tmp_path / "x.exr", rgb()[..., 0].copy()
    exr.File([exr.Part({"name": name}, {"Z": plane}) for name in "ab"]).write(str(path))
    refused(path, "holds 2 parts")
    refused(write(path, {"Y": plane, "Z": plane}), "has the channels 'Y', 'Z'; save R, G and B, or a single channel")
    refused(write(path, {"RGB": np.full((HEIGHT, WIDTH, 3), np.nan, np.float32)}), "NaN")
    path.write_bytes(b"P5 30 22 255\n")
    refused(path, "is no OpenEXR file")
    ramp = np.add.outer(np.arange(200), np.arange(300)).astype(np.float32)  # compresses, so that damage is noticed
    whole = write(path, {"RGB": np.stack([ramp, ramp, ramp], -1)}).read_bytes()
    for end in (10, 300, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:end])
        refused(path, "is damaged")
    path.write_bytes(whole[:-60] + bytes(20) + whole[-40:])
    refused(path, "is damaged")
    key = b"dataWindow\0box2i\0\x10\0\0\0"
    place = whole.index(key) + len(key) + 8  # the second corner
    for side, message in ((99_999, "has 10000 MP; the most are 250"), (9_999, "too short for 100000000 pixels")):
        path.write_bytes(whole[:place] + np.array([side, side], "<i4").tobytes() + whole[place + 8 :])
        refused(path, message)
    assert capfd.readouterr() == ("", "")


def refused(path: Path, message: str) -> None:
    with pytest.raises(RawFileError, match=rf"x\.exr: .*{message}") as caught:
        read_raw(path)
    assert "\n" not in str(caught.value)


def test_a_missing_library_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "x.exr", {"RGB": rgb()})
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    with pytest.raises(AdaptiveISPError, match=r"OpenEXR is not installed; run: pip install 'adaptiveisp\[exr\]'"):
        read_raw(path)
