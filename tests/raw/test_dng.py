"""The DNG writer, read back by LibRaw and ExifRead."""

import struct

import numpy as np
import pytest

from adaptiveisp.errors import OutputError
from adaptiveisp.raw.dng import XYZ_TO_SRGB, write_dng
from adaptiveisp.raw.reader import read_raw
from adaptiveisp.types import BAYER_PATTERNS, RawImage, Unprocessing

rawpy = pytest.importorskip("rawpy")

CAMERA = (1.0234, -0.2969, -0.2266, -0.5625, 1.6328, -0.0469, -0.0703, 0.2188, 0.6406)
# EXIF orientation → dcraw's flip, in which 1 mirrors columns, 2 mirrors rows and 4 swaps the axes.
FLIP_OF_ORIENTATION = {1: 0, 2: 1, 3: 3, 4: 2, 5: 4, 6: 6, 7: 7, 8: 5}
RGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


def make_raw(size=(24, 26), pattern="RGGB", **changes):
    data = np.random.default_rng(7).integers(0, 4096, size, dtype=np.uint16)
    values = {
        "black_level": (60.0, 64.0, 62.0, 58.0),
        "white_level": 4000.0,
        "camera_gains": (2.0, 1.0, 1.6),
        "xyz_to_camera": CAMERA,
        "iso": 800.0,
        "exposure_s": 1 / 125,
        "noise_profile": (1e-3, 2e-6),
    }
    return RawImage(data, pattern, **{**values, **changes})


@pytest.mark.parametrize("pattern", BAYER_PATTERNS)
@pytest.mark.parametrize("size", [(24, 26), (23, 25), (22, 31), (47, 22)])
def test_libraw_reads_every_pixel_and_the_pattern(tmp_path, pattern, size):
    raw = make_raw(size, pattern)
    write_dng(raw, tmp_path / "x.dng")
    with rawpy.imread(str(tmp_path / "x.dng")) as file:
        np.testing.assert_array_equal(file.raw_image_visible, raw.data)
        indices = file.raw_colors_visible[:2, :2].ravel()
        assert "".join(chr(file.color_desc[index]) for index in indices) == pattern
        assert [file.black_level_per_channel[index] for index in indices] == [60, 64, 62, 58]
        assert file.white_level == 4000
        np.testing.assert_allclose(file.camera_whitebalance[:3], [2.0, 1.0, 1.6], rtol=1e-6)
        assert file.other.iso_speed == 800
        assert file.other.shutter_speed == pytest.approx(1 / 125)


def test_libraw_uses_the_colour_matrix(tmp_path):
    write_dng(make_raw(), tmp_path / "x.dng")
    camera_from_rgb = np.array(CAMERA).reshape(3, 3) @ RGB_TO_XYZ
    camera_from_rgb /= camera_from_rgb.sum(axis=1, keepdims=True)
    with rawpy.imread(str(tmp_path / "x.dng")) as file:
        np.testing.assert_allclose(file.color_matrix[:, :3], np.linalg.inv(camera_from_rgb), atol=1e-3)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_libraw_knows_all_eight_orientations(tmp_path, orientation):
    raw = make_raw(orientation=orientation)
    write_dng(raw, tmp_path / "x.dng")
    with rawpy.imread(str(tmp_path / "x.dng")) as file:
        assert file.sizes.flip == FLIP_OF_ORIENTATION[orientation]
        np.testing.assert_array_equal(file.raw_image_visible, raw.data)  # stored as the sensor saw it
    assert read_raw(tmp_path / "x.dng").orientation == orientation


@pytest.mark.parametrize("black_level", [(12.5, 12.5, 12.5, 12.5), (12.5, 64.25, 60.0, 58.0)])
@pytest.mark.parametrize("pattern", BAYER_PATTERNS)
def test_round_trip_through_read_raw(tmp_path, black_level, pattern):
    raw = make_raw(pattern=pattern, black_level=black_level, orientation=8)
    write_dng(raw, tmp_path / "x.dng")
    back = read_raw(tmp_path / "x.dng")
    np.testing.assert_array_equal(back.data, raw.data)
    assert (back.pattern, back.black_level, back.white_level) == (pattern, black_level, 4000.0)
    assert back.camera_gains == pytest.approx(raw.camera_gains, rel=1e-6)
    assert back.xyz_to_camera == pytest.approx(CAMERA, abs=1e-9)
    assert (back.iso, back.noise_profile) == (800, (1e-3, 2e-6))
    assert back.exposure_s == pytest.approx(1 / 125, rel=1e-9)
    assert back.path == tmp_path / "x.dng" and back.unprocessing is None


def test_round_trip_of_unknown_facts_and_8_bits(tmp_path):
    data = np.random.default_rng(0).integers(0, 256, (30, 33), dtype=np.uint8)
    write_dng(RawImage(data, "GRBG", (12.5,) * 4, 255.0), tmp_path / "x.dng")
    back = read_raw(tmp_path / "x.dng")
    np.testing.assert_array_equal(back.data, data)
    assert (back.black_level, back.white_level) == ((12.5,) * 4, 255.0)
    assert (back.camera_gains, back.iso, back.exposure_s, back.noise_profile) == (None, None, None, None)
    assert back.xyz_to_camera == pytest.approx(XYZ_TO_SRGB, abs=1e-6)
    np.testing.assert_allclose(np.array(XYZ_TO_SRGB).reshape(3, 3) @ RGB_TO_XYZ, np.eye(3), atol=1e-6)


def test_a_synthetic_dng_describes_itself(tmp_path):
    recipe = Unprocessing(0.012345678901234567, 1.25, 2.1, 1.7, tuple(np.eye(3).ravel()), 1e-3, 2e-7, "sensor", 14)
    write_dng(make_raw(unprocessing=recipe), tmp_path / "x.dng")
    assert read_raw(tmp_path / "x.dng").unprocessing == recipe
    with rawpy.imread(str(tmp_path / "x.dng")) as file:
        np.testing.assert_array_equal(file.raw_image_visible, make_raw().data)


@pytest.mark.parametrize("exposure_s", [1 / 8000, 1 / 3, 0.5, 30.0, 3600.5, 1e-6])
@pytest.mark.parametrize("iso", [50.0, 65535.0, 65536.0, 409600.0])
def test_exposure_and_iso_at_extremes(tmp_path, iso, exposure_s):
    write_dng(make_raw(iso=iso, exposure_s=exposure_s), tmp_path / "x.dng")
    back = read_raw(tmp_path / "x.dng")
    assert back.iso == iso
    assert back.exposure_s == pytest.approx(exposure_s, rel=1e-6)
    with rawpy.imread(str(tmp_path / "x.dng")) as file:
        assert file.other.iso_speed == min(iso, 65535)


def test_tags_are_ascending_unique_and_readable_by_exifread(tmp_path):
    exifread = pytest.importorskip("exifread")
    write_dng(make_raw(orientation=6), tmp_path / "x.dng")
    content = (tmp_path / "x.dng").read_bytes()
    count = struct.unpack_from("<H", content, 8)[0]
    tags = [struct.unpack_from("<H", content, 10 + 12 * index)[0] for index in range(count)]
    assert tags == sorted(set(tags))
    with (tmp_path / "x.dng").open("rb") as stream:
        said = exifread.process_file(stream, details=False)
    assert said["EXIF ExposureTime"].values[0] == pytest.approx(1 / 125)
    assert said["EXIF ISOSpeedRatings"].values == [800]
    assert said["Image Orientation"].values == [6]
    assert said["Image ImageWidth"].values == [26]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": np.zeros((24, 24, 3), np.uint16), "pattern": None, "black_level": 0.0}, "mosaic"),
        ({"data": np.zeros((24, 24), np.float32)}, "float32"),
        ({"data": np.zeros((21, 24), np.uint16)}, "too small"),
        ({"white_level": 70000.0}, "65535"),
    ],
)
def test_what_a_dng_cannot_hold_is_refused_and_leaves_nothing(tmp_path, changes, message):
    base = make_raw()
    raw = RawImage(**{**vars(base), **changes})
    with pytest.raises(OutputError, match=message):
        write_dng(raw, tmp_path / "x.dng")
    assert list(tmp_path.iterdir()) == []
