"""Developing: values by hand, Pillow's idea of orientation, LibRaw's linear output, and real sensor frames."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch

from adaptiveisp.errors import RawFileError
from adaptiveisp.raw.develop import develop, develop_small, upright, upright_size
from adaptiveisp.raw.dng import write_dng
from adaptiveisp.raw.reader import BayerHeader, read_raw
from adaptiveisp.types import BAYER_PATTERNS, RawImage


@pytest.mark.parametrize("orientation", range(1, 9))
def test_upright_equals_pillow(orientation):
    image_module, ops = pytest.importorskip("PIL.Image"), pytest.importorskip("PIL.ImageOps")
    pixels = np.arange(5 * 7 * 3, dtype=np.uint8).reshape(5, 7, 3)
    image = image_module.fromarray(pixels)
    image.getexif()[0x0112] = orientation
    expected = np.asarray(ops.exif_transpose(image))
    np.testing.assert_array_equal(upright(pixels, orientation), expected)
    planes = torch.from_numpy(pixels).permute(2, 0, 1)
    np.testing.assert_array_equal(upright(planes, orientation).permute(1, 2, 0).numpy(), expected)
    assert upright_size(7, 5, orientation) == (expected.shape[1], expected.shape[0])


def test_upright_refuses_other_orientations():
    with pytest.raises(ValueError, match="1 to 8"):
        upright(np.zeros((4, 4), np.uint8), 0)


def flat_mosaic(values, size=(20, 23), dtype=np.uint16):
    """A mosaic with one constant per position of the 2x2 block."""
    data = np.zeros(size, dtype)
    for index, value in enumerate(values):
        data[index // 2 :: 2, index % 2 :: 2] = value
    return data


@pytest.mark.parametrize("method", ["malvar", "bilinear"])
@pytest.mark.parametrize("pattern", BAYER_PATTERNS)
def test_levels_per_position_by_hand(pattern, method):
    black = (50.0, 100.5, 60.0, 70.0)
    white = 1100.0
    signal = {"R": 0.25, "G": 0.5, "B": 0.125}
    data = flat_mosaic([level + signal[colour] * (white - level) for level, colour in zip(black, pattern, strict=True)])
    rgb = develop(RawImage(data, pattern, black, white), demosaic=method)
    assert rgb.dtype == torch.float32 and rgb.shape == (3, 20, 23)
    for plane, colour in zip(rgb, "RGB", strict=True):
        # Half a count of rounding in 1000, and Malvar spreads it by at most twice.
        np.testing.assert_allclose(plane.numpy(), signal[colour], atol=1.5e-3)


def test_camera_white_balance_never_dims_and_clips():
    data = flat_mosaic([200, 400, 400, 300])
    raw = RawImage(data, "RGGB", (0.0,) * 4, 1000.0, camera_gains=(2.0, 1.0, 0.5))
    torch.testing.assert_close(develop(raw)[:, 5, 5], torch.tensor([0.2, 0.4, 0.3]))
    # Divided by the smallest gain: 4, 2, 1.
    torch.testing.assert_close(develop(raw, camera_white_balance=True)[:, 5, 5], torch.tensor([0.8, 0.8, 0.3]))
    bright = RawImage(data, "RGGB", (0.0,) * 4, 500.0, camera_gains=(2.0, 1.0, 0.5))
    torch.testing.assert_close(develop(bright, camera_white_balance=True)[:, 5, 5], torch.tensor([1.0, 1.0, 0.6]))
    unknown = RawImage(data, "RGGB", (0.0,) * 4, 1000.0)
    assert torch.equal(develop(unknown, camera_white_balance=True), develop(raw))


def test_values_outside_the_levels_are_clipped():
    data = flat_mosaic([10, 64, 2000, 1000])
    rgb = develop(RawImage(data, "RGGB", (64.0,) * 4, 1000.0))
    assert rgb.min() == 0.0 and rgb.max() == 1.0
    assert rgb[0, 0, 0] == 0.0 and rgb[2, 1, 1] == 1.0


def test_samples_are_clipped_before_they_spread_to_their_neighbours():
    beyond, at_white = flat_mosaic([300, 300, 300, 300]), flat_mosaic([300, 300, 300, 300])
    beyond[10, 10], at_white[10, 10] = 3000, 1000
    beyond[5, 5], at_white[5, 5] = 0, 64
    levels = ((64.0,) * 4, 1000.0)
    assert torch.equal(develop(RawImage(beyond, "RGGB", *levels)), develop(RawImage(at_white, "RGGB", *levels)))


def test_rgb_data_skip_the_demosaicing():
    data = np.random.default_rng(0).integers(0, 65536, (17, 20, 3), dtype=np.uint16)
    rgb = develop(RawImage(data, None, (1000.0,) * 4, 60000.0, camera_gains=(1.0, 2.0, 4.0)))
    expected = np.clip((data.astype(np.float64) - 1000) / 59000, 0, 1).transpose(2, 0, 1)
    np.testing.assert_allclose(rgb.numpy(), expected, atol=1e-6)
    balanced = develop(RawImage(data, None, (0.0,) * 4, 65535.0, camera_gains=(1.0, 2.0, 4.0)), True)
    np.testing.assert_allclose(balanced[2].numpy(), np.clip(data[..., 2] / 65535 * 4, 0, 1), atol=1e-6)
    before = data.copy()
    floats = data.astype(np.float32)
    develop(RawImage(floats, None, (1000.0,) * 4, 60000.0))
    np.testing.assert_array_equal(floats, before)  # the raw itself is left alone


def test_the_raw_mosaic_is_left_alone():
    data = flat_mosaic([100.0, 200.0, 300.0, 400.0], dtype=np.float32)
    before = data.copy()
    develop(RawImage(data, "RGGB", (64.0,) * 4, 1000.0))
    np.testing.assert_array_equal(data, before)


def test_read_only_values_are_developed_without_a_warning():
    data = flat_mosaic([100, 200, 300, 400])
    expected = develop(RawImage(data.copy(), "RGGB", 64, 1023))
    data.flags.writeable = False  # as arrays of a file's content are
    torch.set_warn_always(True)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert torch.equal(develop(RawImage(data, "RGGB", 64, 1023)), expected)
    finally:
        torch.set_warn_always(False)


def test_orientation_is_applied_last():
    data = np.random.default_rng(1).integers(0, 4096, (20, 26), dtype=np.uint16)
    plain = develop(RawImage(data, "GBRG", (0.0,) * 4, 4095.0))
    turned = develop(RawImage(data, "GBRG", (0.0,) * 4, 4095.0, orientation=6))
    assert turned.shape == (3, 26, 20) and turned.is_contiguous()
    assert torch.equal(turned, torch.rot90(plain, -1, (1, 2)))


def test_white_at_black_is_refused():
    with pytest.raises(RawFileError, match="not above black"):
        develop(RawImage(flat_mosaic([1, 2, 3, 4]), "RGGB", (64.0,) * 4, 64.0))


def smooth_mosaic(height, width, pattern):
    """A mosaic of soft coloured waves, so that demosaicing methods may differ only a little."""
    y, x = np.mgrid[:height, :width]
    waves = {"R": np.sin(x / 9), "G": np.sin(y / 11 + 1), "B": np.cos((x + y) / 13)}
    data = np.zeros((height, width))
    for index, colour in enumerate(pattern):
        place = (slice(index // 2, None, 2), slice(index % 2, None, 2))
        data[place] = (1500 + 900 * waves[colour])[place]
    return np.round(data).astype(np.uint16)


@pytest.mark.parametrize("pattern", BAYER_PATTERNS)
@pytest.mark.parametrize("orientation", [1, 2, 5, 8])
def test_develop_agrees_with_libraws_linear_output(tmp_path, pattern, orientation):
    rawpy = pytest.importorskip("rawpy")
    data = smooth_mosaic(48, 61, pattern)
    raw = RawImage(data, pattern, (60.0, 64.0, 62.0, 58.0), 4000.0, (2.0, 1.0, 1.5), orientation=orientation)
    write_dng(raw, tmp_path / "x.dng")
    with rawpy.imread(str(tmp_path / "x.dng")) as file:
        expected = file.postprocess(
            gamma=(1, 1),
            no_auto_bright=True,
            output_bps=16,
            user_wb=[1, 1, 1, 1],
            output_color=rawpy.ColorSpace.raw,
            adjust_maximum_thr=0.0,
            demosaic_algorithm=rawpy.DemosaicAlgorithm.LINEAR,
        )
    expected = expected[3:-3, 3:-3].transpose(2, 0, 1) / 65535
    ours = develop(read_raw(tmp_path / "x.dng"))[:, 3:-3, 3:-3].numpy()
    bilinear = develop(read_raw(tmp_path / "x.dng"), demosaic="bilinear")[:, 3:-3, 3:-3].numpy()
    # LibRaw divides every colour by white minus the largest black, we by its own: 6 counts of 3936.
    np.testing.assert_allclose(bilinear, expected, atol=2.5e-3)
    np.testing.assert_allclose(ours, expected, atol=2e-2)  # Malvar's correction on waves of period 57 pixels


SENSOR_FRAMES = [
    ("Indoor1_2592x1536_8bit_GRBG.raw", BayerHeader(2592, 1536, 8, "GRBG", 12.5)),
    ("fastopenisp_1920x1080_10bit.raw", BayerHeader(1920, 1080, 10, "RGGB", 0.0)),
]


@pytest.mark.parametrize(("name", "header"), SENSOR_FRAMES)
def test_real_sensor_frames_load_and_develop(shared, name, header):
    path = shared / "data" / "bayer" / name
    if not path.exists():
        pytest.skip(f"no {path}")
    raw = read_raw(path, header)
    rgb = develop(raw)
    assert rgb.shape == (3, header.height, header.width)
    assert torch.isfinite(rgb).all() and rgb.min() >= 0 and rgb.max() <= 1
    cv2 = pytest.importorskip("cv2")
    assert header.pattern is not None
    code = {"GRBG": cv2.COLOR_BayerGB2RGB, "RGGB": cv2.COLOR_BayerBG2RGB}[header.pattern]
    expected = (cv2.cvtColor(raw.data.astype(np.uint16), code) - header.black_levels[0]) / (
        raw.white_level - header.black_levels[0]
    )
    ours = develop(raw, demosaic="bilinear").permute(1, 2, 0).numpy()
    # OpenCV rounds to whole counts and clips nothing at black.
    tolerance = 1.0 / (raw.white_level - header.black_levels[0])
    inside = (slice(2, -2), slice(2, -2))
    bright = expected[inside] > 3 * tolerance
    share = np.mean(np.abs(ours[inside] - np.clip(expected[inside], 0, 1))[bright] < tolerance)
    assert share > 0.999


@pytest.mark.parametrize("method", ["malvar", "bilinear"])
@pytest.mark.parametrize("size", [(4, 4), (5, 4), (37, 70), (64, 33)], ids=str)
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32], ids=lambda kind: kind.__name__)
def test_compiled_development_equals_pytorch(monkeypatch, method, size, kind):
    from adaptiveisp.kernels import forward, loading

    if not loading.available():
        pytest.skip("the kernels of csrc/ are not compiled here; install with a C compiler")
    monkeypatch.setattr(forward, "LEAST_PIXELS", 1)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    generator = np.random.default_rng(0)
    for pattern in BAYER_PATTERNS:
        data = (generator.random(size) * 255).astype(kind)
        raw = RawImage(data, pattern, (10.0, 12.0, 14.0, 16.0), 250.0, camera_gains=(2.0, 1.0, 1.5))
        monkeypatch.delenv(loading.SWITCH, raising=False)
        ours = develop(raw, camera_white_balance=True, demosaic=method)
        monkeypatch.setenv(loading.SWITCH, "0")
        torch.testing.assert_close(ours, develop(raw, camera_white_balance=True, demosaic=method), rtol=0, atol=1e-6)


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    from adaptiveisp.kernels import loading

    monkeypatch.delenv(loading.SWITCH, raising=False)
    if not loading.available():
        pytest.skip("the kernels of csrc/ are not compiled here; install with a C compiler")


def weights_of_axis(before: int, after: int) -> np.ndarray:
    """(after, before) weights of an antialiased bilinear resize, from PyTorch's own resize of unit vectors."""
    unit = torch.eye(before)[:, None, None, :].expand(-1, 1, 1, -1)
    resized = torch.nn.functional.interpolate(unit, size=(1, after), mode="bilinear", antialias=True)
    return resized[:, 0, 0].T.double().numpy()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
@pytest.mark.parametrize("pattern", ["RGGB", "GRBG", "GBRG", "BGGR"])
def test_at_a_small_size_each_value_is_a_mean_of_its_colour(kernels: None, pattern: str, dtype: type) -> None:
    """Against a plain sum over all sites, in float64."""
    rng = np.random.default_rng(3)
    data = rng.integers(0, 256, (61, 74)).astype(dtype)
    raw = RawImage(data, pattern, (10, 12, 14, 16), 250, camera_gains=(2.0, 1.0, 1.5))
    ours = develop_small(raw, 17, 20, camera_white_balance=True)
    rows, columns = weights_of_axis(61, 17), weights_of_axis(74, 20)
    expected = np.zeros((3, 17, 20))
    for colour, gain in zip("RGB", (2.0, 1.0, 1.5), strict=True):
        estimates = []
        for place in (i for i, letter in enumerate(pattern) if letter == colour):
            y, x = divmod(place, 2)
            linear = np.clip((data[y::2, x::2] - raw.black_level[place]) * gain / (250 - raw.black_level[place]), 0, 1)
            of_rows, of_columns = rows[:, y::2], columns[:, x::2]
            total = of_rows.sum(axis=1)[:, None] * of_columns.sum(axis=1)[None]
            estimates.append(of_rows @ linear @ of_columns.T / total)
        expected["RGB".index(colour)] = np.mean(estimates, axis=0)
    np.testing.assert_allclose(ours.numpy(), expected, atol=2e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_at_a_small_size_the_picture_is_upright(kernels: None, orientation: int) -> None:
    data = np.random.default_rng(4).integers(0, 1024, (60, 80)).astype(np.uint16)
    raw = RawImage(data, "RGGB", 64, 1023)
    height, width = (20, 15) if orientation >= 5 else (15, 20)
    turned = develop_small(dataclasses.replace(raw, orientation=orientation), height, width)
    torch.testing.assert_close(turned, upright(develop_small(raw, 15, 20), orientation))


def test_a_plain_colour_is_the_same_at_any_size(kernels: None) -> None:
    data = np.tile(np.array([[700, 400], [400, 250]], np.uint16), (60, 70))
    raw = RawImage(data, "RGGB", 64, 1023)
    for size in ((20, 23), (33, 17), (1, 1), (40, 46)):
        small, whole = develop_small(raw, *size), develop(raw)[:, 30, 40]
        assert small is not None
        torch.testing.assert_close(small, whole[:, None, None].expand_as(small), rtol=0, atol=1e-6)


def test_a_smooth_scene_is_closer_than_after_demosaicing(kernels: None) -> None:
    """The truth is the scene itself, resized; at the border both lack values on one side."""
    y, x = np.mgrid[:240, :320]
    data = np.stack([0.5 + 0.4 * np.sin(2 * np.pi * (x / 61 + y / 83 + shift)) for shift in (0.0, 0.2, 0.5)], axis=2)
    mosaic = np.empty((240, 320), np.float32)
    for row, column, colour in ((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 2)):
        mosaic[row::2, column::2] = data[row::2, column::2, colour]
    raw = RawImage(mosaic, "RGGB", 0, 1)

    def resized(image: torch.Tensor) -> torch.Tensor:
        size = (60, 80)
        return torch.nn.functional.interpolate(image[None], size=size, mode="bilinear", antialias=True)[0]

    truth = resized(torch.from_numpy(data).float().permute(2, 0, 1))
    small, demosaiced = develop_small(raw, 60, 80), resized(develop(raw))
    inside = (slice(None), slice(2, -2), slice(2, -2))
    error = (small - truth)[inside].abs().max()
    assert error < 1e-4 and error < (demosaiced - truth)[inside].abs().max()
    assert (small - truth).abs().max() < 0.015


def test_what_is_not_developed_at_a_small_size(kernels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    from adaptiveisp.kernels import loading

    data = np.full((60, 80), 500, np.uint16)
    raw = RawImage(data, "RGGB", 64, 1023)
    assert develop_small(raw, 20, 26) is not None
    assert develop_small(raw, 21, 26) is None and develop_small(raw, 20, 27) is None  # too little smaller
    assert develop_small(RawImage(data, "MONO", 64, 1023), 20, 26) is None
    assert develop_small(RawImage(np.stack([data] * 3, axis=2), None, 64, 1023), 20, 26) is None
    monkeypatch.setenv(loading.SWITCH, "0")
    assert develop_small(raw, 20, 26) is None
