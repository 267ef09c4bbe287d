"""`RawImage` checks itself, and a frame in memory is checked as a file is."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adaptiveisp import AdaptiveISP
from adaptiveisp.errors import RawFileError, UsageError
from adaptiveisp.inference.raw_input import as_raw
from adaptiveisp.raw.develop import develop
from adaptiveisp.raw.reader import BayerHeader, read_raw
from adaptiveisp.types import RawImage
from adaptiveisp.utils.raw_fields import checked_fields
from tests.support.fake_detector import RedDetector

MOSAIC = np.random.default_rng(0).integers(64, 1024, (48, 64)).astype(np.uint16)
FIELDS: dict[str, Any] = {
    "data": MOSAIC,
    "pattern": "RGGB",
    "black_level": 64.0,
    "white_level": 1023.0,
    "camera_gains": None,
    "xyz_to_camera": None,
    "orientation": 1,
    "iso": None,
    "exposure_s": None,
    "noise_profile": None,
    "path": None,
}


def test_a_raw_may_be_given_in_several_ways_and_is_kept_in_one() -> None:
    plain = RawImage(MOSAIC, "RGGB", (64.0, 64.0, 64.0, 64.0), 1023.0)
    short = RawImage(MOSAIC, "rggb", 64, 1023, camera_gains=[2, 1, 1.5], path="x.npy")
    assert (short.pattern, short.black_level, short.white_level) == ("RGGB", (64.0,) * 4, 1023.0)
    assert short.camera_gains == (2.0, 1.0, 1.5) and short.path == Path("x.npy")
    assert torch.equal(develop(short), develop(plain))
    numbers = checked_fields({**FIELDS, "black_level": np.array([1, 2, 3, 4]), "xyz_to_camera": np.eye(3)})
    assert numbers["black_level"] == (1.0, 2.0, 3.0, 4.0) and numbers["xyz_to_camera"][:4] == (1.0, 0.0, 0.0, 0.0)
    assert all(type(level) is float for level in numbers["black_level"])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pattern": "RGBG"}, "pattern 'RGBG' is unknown; choose one of RGGB"),
        ({"pattern": 3}, "pattern 3 is unknown"),
        ({"pattern": None}, "has shape 48x64, a mosaic; give its pattern"),
        ({"data": MOSAIC.tolist()}, r"of type list; give a numpy array, for instance numpy\.asarray"),
        ({"data": torch.zeros(48, 64)}, r"of type Tensor; .* tensor\.cpu\(\)\.numpy\(\)"),
        ({"data": MOSAIC > 5}, "holds bool values"),
        ({"data": MOSAIC.astype(complex)}, "holds complex128 values"),
        ({"data": np.zeros((3, 48, 64), np.uint16)}, r"colours come last: give data\.transpose\(1, 2, 0\)"),
        (
            {"data": np.zeros((48, 64, 4), np.uint16)},
            r"without alpha, data\[\.\.\., :3\]; if these are the planes",
        ),
        ({"data": np.zeros((4, 48, 64), np.uint16)}, r"give RGB without alpha, data\[:3\]\.transpose\(1, 2, 0\); if"),
        ({"data": np.zeros((48, 64, 1), np.uint16)}, r"give data\[\.\.\., 0\]"),
        ({"data": np.zeros((2, 48, 64, 3), np.uint16)}, r"give one frame at a time, data\[0\]"),
        ({"data": np.zeros(48, np.uint16)}, r"has shape 48; give \(height, width\)"),
        ({"data": np.zeros((0, 64), np.uint16)}, "no pixels"),
        ({"data": np.zeros((48, 64, 3), np.uint16)}, "RGB, which has no pattern RGGB; give None"),
        ({"data": np.full((48, 64), np.nan, np.float32)}, r"holds NaN or infinite values; .*nan_to_num"),
        ({"data": np.full((48, 64), -np.inf)}, "holds NaN or infinite values"),
        ({"black_level": (1.0, 2.0)}, r"black_level is \(1\.0, 2\.0\); give one finite number, or four"),
        ({"black_level": float("nan")}, "black_level is nan"),
        ({"black_level": "64"}, "black_level is '64'"),
        ({"black_level": True}, "black_level is True"),
        ({"white_level": float("inf")}, "white_level is inf; give a finite number"),
        ({"white_level": None}, "white_level is None"),
        ({"white_level": 64.0}, "white level 64 is not above black level 64; correct the levels"),
        ({"camera_gains": (0.0, 1.0, 1.0)}, "give 3 finite numbers above 0 or None"),
        ({"camera_gains": (2.0, 1.0)}, "give 3 finite numbers above 0 or None"),
        ({"camera_gains": (2.0, 1.0, float("nan"))}, "camera_gains is"),
        ({"xyz_to_camera": (1.0,) * 8}, "give 9 finite numbers or None"),
        ({"noise_profile": (1e-4, float("inf"))}, "give 2 finite numbers or None"),
        ({"orientation": 0}, "orientation is 0; give the EXIF orientation, 1 to 8"),
        ({"orientation": 1.5}, r"orientation is 1\.5"),
        ({"iso": -100.0}, r"iso is -100\.0; give a number above 0 or None"),
        ({"exposure_s": 0.0}, r"exposure_s is 0\.0; give seconds above 0 or None"),
    ],
)
def test_fields_that_make_no_sense_are_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(RawFileError, match=message) as caught:
        checked_fields({**FIELDS, **changes})
    assert str(caught.value).startswith("RawImage: ") and "\n" not in str(caught.value)
    with pytest.raises(RawFileError, match=r"^night/x\.npy: "):
        checked_fields({**FIELDS, **changes, "path": Path("night/x.npy")})


def test_rgb_has_one_black_level() -> None:
    rgb = np.full((20, 20, 3), 500, np.uint16)
    assert RawImage(rgb, None, (64, 64, 64, 64), 1023).black_level == (64.0,) * 4
    with pytest.raises(RawFileError, match="RGB has one black level"):
        RawImage(rgb, None, (64, 64, 60, 64), 1023)


def test_an_array_with_a_header_is_what_a_npy_file_of_it_is(tmp_path: Path) -> None:
    header = BayerHeader(bits=10, pattern="grbg", black=64)
    np.save(tmp_path / "x.npy", MOSAIC)
    from_file, from_memory = read_raw(tmp_path / "x.npy", header), as_raw(MOSAIC, header)
    assert torch.equal(develop(from_file), develop(from_memory))
    assert (from_memory.pattern, from_memory.white_level) == ("GRBG", 1023.0) and from_memory.path is None
    assert as_raw(str(tmp_path / "x.npy"), header).path == tmp_path / "x.npy"
    isp = AdaptiveISP("none", RedDetector(), size=32)
    assert torch.equal(isp(MOSAIC, header).image, isp(tmp_path / "x.npy", header).image)


@pytest.mark.parametrize(
    ("frame", "header", "kind", "message"),
    [
        (MOSAIC, None, UsageError, r"no pattern and no levels: give RawImage\(array, .*header=BayerHeader\("),
        (MOSAIC, "RGGB", UsageError, r"header is of type str; give BayerHeader"),
        (MOSAIC, BayerHeader(bits=10), RawFileError, r"^array: has one channel, so it needs header=BayerHeader"),
        (MOSAIC, BayerHeader(bits=9, pattern="RGGB"), RawFileError, "9 bits are declared, which end at 511"),
        (MOSAIC[:8], BayerHeader(bits=10, pattern="RGGB"), RawFileError, "64x8 is too small"),
        (MOSAIC * 0, BayerHeader(bits=10, pattern="RGGB"), RawFileError, "at or below the black level"),
        (torch.zeros(3, 20, 20), None, UsageError, "type Tensor is not a raw: give the name of a file, its content"),
        (None, None, UsageError, "type NoneType is not a raw"),
        (RawImage(MOSAIC, "RGGB", 64, 1023), BayerHeader(), UsageError, "a RawImage has pattern and levels of its own"),
        (RawImage(MOSAIC[:, :9], "RGGB", 64, 1023), None, RawFileError, "RawImage: 9x48 is too small"),
        (RawImage(MOSAIC, "RGGB", 2000, 4095), None, RawFileError, "RawImage: all pixels are at or below the black"),
    ],
)
def test_what_is_no_usable_frame_is_one_line(frame: Any, header: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message) as caught:
        as_raw(frame, header)
    assert "\n" not in str(caught.value)


def test_doubtful_levels_of_frames_in_memory_are_said_once(caplog: pytest.LogCaptureFixture) -> None:
    isp = AdaptiveISP("none", RedDetector(), size=32)
    with caplog.at_level(logging.WARNING, "adaptiveisp"):
        for _ in range(3):
            isp(RawImage(MOSAIC, "RGGB", 64, 500))
        isp(RawImage(MOSAIC, "RGGB", 64, 1023))
    (text,) = caplog.messages
    share = np.count_nonzero(MOSAIC > 500) / MOSAIC.size
    assert text.startswith(f"RawImage: {share:.2%} of its values are above the white level 500, up to {MOSAIC.max()}")
    assert "is white_level" in text
