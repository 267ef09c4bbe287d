"""Declared facts against the values: contradictions are refused with the likely cause, doubts become remarks."""

from pathlib import Path

import numpy as np
import pytest
import torch

from adaptiveisp.errors import RawFileError
from adaptiveisp.raw.image_size import raw_size
from adaptiveisp.raw.level_checks import ABOVE_WHITE, BELOW_BLACK, PEDESTAL, RemarkWatch
from adaptiveisp.raw.reader import BayerHeader, find_raw_files, read_raw, write_png16
from adaptiveisp.raw.unprocess import draw_unprocessing, seeded_generator, synthesise_mosaic, synthesise_rgb
from adaptiveisp.types import RawImage
from tests.raw.test_size_guess import packed

HEIGHT, WIDTH = 96, 128
RESPONSE = np.tile(np.array([[0.5, 1.0], [1.0, 0.6]]), (HEIGHT // 2, WIDTH // 2))
"""What red, green and blue sites see of grey light in daylight."""


def scene(least: float = 0.0) -> np.ndarray:
    rows, columns = np.mgrid[0:HEIGHT, 0:WIDTH]
    waves = (0.5 + 0.5 * np.sin(columns / 9.0) * np.cos(rows / 7.0)) ** 2
    return (least + (1 - least) * waves) * RESPONSE


def frame(
    black: float, bits: int, light: float, sigma: float, banding: float = 0.0, least: float = 0.0, seed: int = 0
) -> np.ndarray:
    """A sensor's values with Poisson and read noise, and the noise of rows."""
    random = np.random.default_rng(seed)
    most = 2**bits - 1
    photons = random.poisson(2 * light * (most - black) * scene(least)) / 2
    values = black + photons + random.normal(0, sigma, RESPONSE.shape) + random.normal(0, banding, (HEIGHT, 1))
    return np.clip(np.round(values), 0, most).astype("<u2")


def kinds(paths: list[Path], header: BayerHeader) -> list[str]:
    watch = RemarkWatch()
    for path in paths:
        watch.add(read_raw(path, header))
    return [remark.kind for remark, _ in watch.remarks()]


@pytest.mark.parametrize(("black", "bits"), [(0, 12), (5, 10), (64, 10), (256, 12), (2048, 14)])
@pytest.mark.parametrize("sigma", [0.1, 2.0, 30.0])
@pytest.mark.parametrize("banding", [0.0, 1.0])
@pytest.mark.parametrize("light", [1e-4, 0.01, 1.0])
def test_the_right_facts_have_no_remark_however_dark_and_noisy(
    tmp_path: Path, black: float, bits: int, sigma: float, banding: float, light: float
) -> None:
    for number, least in enumerate((0.0, 0.3)):  # 0.3: a foggy scene, nothing in it is black
        frame(black, bits, light, sigma, banding * sigma, least).tofile(tmp_path / f"{number}.raw")
    facts = BayerHeader(WIDTH, HEIGHT, bits, "RGGB", black)
    assert kinds([tmp_path / "0.raw"], facts) == kinds([tmp_path / "1.raw"], facts) == []
    assert kinds([tmp_path / "0.raw", tmp_path / "1.raw"], facts) == []


@pytest.mark.parametrize(("black", "bits"), [(64, 10), (256, 12), (2048, 14)])
@pytest.mark.parametrize("light", [1e-4, 0.01, 0.2])
def test_wrong_levels_have_one(tmp_path: Path, black: float, bits: int, light: float) -> None:
    paths = [tmp_path / f"{number}.raw" for number in range(3)]
    for number, path in enumerate(paths):
        frame(black, bits, light, 2.0, seed=number).tofile(path)
    assert kinds(paths, BayerHeader(WIDTH, HEIGHT, bits, "RGGB")) == [PEDESTAL]
    if light < 0.2:
        doubled = BayerHeader(WIDTH, HEIGHT, bits, "RGGB", 2 * black)
        frame(black, bits, 0.5, 2.0).tofile(paths[0])  # not all of it at or below black
        assert kinds(paths[:1], doubled) == [BELOW_BLACK]
    frame(black, bits, 0.8, 2.0).tofile(paths[0])
    assert kinds(paths[:1], BayerHeader(WIDTH, HEIGHT, bits, "RGGB", black, 2.0 ** (bits - 1))) == [ABOVE_WHITE]
    assert kinds(paths[:1], BayerHeader(WIDTH, HEIGHT, bits, "RGGB", black, "p99")) == []


def test_the_texts_name_the_first_file_and_ask(tmp_path: Path) -> None:
    values = frame(64, 10, 0.02, 1.0)
    values[0, 0] = 0  # a dead site
    paths = [tmp_path / f"{number}.raw" for number in range(3)]
    for path in paths:
        values.tofile(path)
    watch = RemarkWatch()
    for path in paths:
        watch.add(read_raw(path, BayerHeader(WIDTH, HEIGHT, 10, "RGGB", white=80.0)))
    (above, n_above), (pedestal, n_files) = watch.remarks()
    assert (n_above, n_files) == (3, 3)
    share = np.count_nonzero(values > 80) / values.size
    assert above.text == (
        f"{ABOVE_WHITE}: 3 files, the first is {paths[0]}: {share:.2%} of its values are above the white level 80, "
        f"up to {values.max()}; is --raw-white or --raw-bits larger?"
    )
    low = int(pedestal.text.split("smallest value ")[1].split(",")[0])
    assert 58 <= low <= 63 and pedestal.text == (
        f"{paths[0]} among 3 files: smallest value {low}, far above the black level 0: is --raw-black {low}?"
    )
    assert watch.news() == watch.remarks()
    single = RemarkWatch()
    single.add(read_raw(paths[0], BayerHeader(WIDTH, HEIGHT, 10, "RGGB", white=80.0)))
    assert [remark.kind for remark, _ in single.news()] == [PEDESTAL]  # the other was said when the file was read


def test_one_frame_with_a_black_place_tells_that_the_others_are_bright(tmp_path: Path) -> None:
    bright, dark = np.full((HEIGHT, WIDTH), 500, "<u2"), np.full((HEIGHT, WIDTH), 500, "<u2")
    dark[:8] = 0
    bright.tofile(tmp_path / "a.raw")
    dark.tofile(tmp_path / "b.raw")
    facts = BayerHeader(WIDTH, HEIGHT, 10, "RGGB")
    assert kinds([tmp_path / "a.raw"], facts) == [PEDESTAL]
    assert kinds([tmp_path / "a.raw", tmp_path / "b.raw"], facts) == []


def test_dark_synthetic_raws_have_no_remark(tmp_path: Path) -> None:
    """Those of `synth --light dark`, and the same values as headerless raws and arrays with the facts declared."""
    random = np.random.default_rng(0)
    watch = RemarkWatch()
    for number in range(6):
        how = draw_unprocessing(seeded_generator(0, number, 0, "light"), "dark", "sensor")
        least = 0.2 * number / 5
        photo = torch.from_numpy(random.uniform(least, 1.0, (3, 12, 16)).astype(np.float32))
        photo = torch.nn.functional.interpolate(photo[None], (HEIGHT, WIDTH), mode="bilinear")[0]
        rgb = synthesise_rgb(photo, how, seeded_generator(0, number, 0, "noise"))
        write_png16(rgb.data, tmp_path / f"{number}.png", how)
        mosaic = synthesise_mosaic(photo, how, seeded_generator(0, number, 0, "noise"))
        mosaic.data.astype("<u2").tofile(tmp_path / f"{number}.raw")
        np.save(tmp_path / f"{number}.npy", mosaic.data)
        black, white = mosaic.black_level[0], mosaic.white_level
        for path in (tmp_path / f"{number}.{kind}" for kind in ("png", "raw", "npy")):
            facts = BayerHeader(WIDTH, HEIGHT, 16, "RGGB", black, white)
            raw = read_raw(path, facts if path.suffix != ".png" else None)
            assert raw.remarks == (), path
            watch.add(raw)
    assert watch.remarks() == []


def test_real_frames_have_no_remark_when_rightly_declared(shared: Path) -> None:
    folder = shared / "data" / "bayer"
    for pattern, facts in (
        ("*GRBG.raw", BayerHeader(2592, 1536, 8, "GRBG", 12.5)),
        ("*10bit.raw", BayerHeader(1920, 1080, 10, "RGGB")),
    ):
        paths = sorted(folder.glob(pattern))
        assert paths and kinds(paths, facts) == []
    undeclared = BayerHeader(2592, 1536, 8, "GRBG")
    assert kinds(sorted(folder.glob("*GRBG.raw")), undeclared) == [PEDESTAL]


# --- contradictions ----------------------------------------------------------------------------------------------


def refusal(path: Path, header: BayerHeader) -> str:
    with pytest.raises(RawFileError) as caught:
        read_raw(path, header)
    assert str(caught.value).startswith(f"{path}: ") and "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("extension", [".raw", ".npy"])
@pytest.mark.parametrize(
    ("stored", "cause"),
    [
        (
            lambda values: values << 4,
            "look left-aligned, 12 bits at the top of 16: give --raw-format u12msble16 for a headerless file, else",
        ),
        (lambda values: values.byteswap(), "look big-endian: give --raw-format u12be16"),
        (lambda values: values * 3 + 1, "is it --raw-bits 14?"),
    ],
)
def test_values_beyond_the_declared_bits(tmp_path: Path, extension: str, stored: object, cause: str) -> None:
    values = stored(frame(256, 12, 0.9, 2.0))  # type: ignore[operator]
    path = tmp_path / f"x{extension}"
    values.tofile(path) if extension == ".raw" else np.save(path, values)
    facts = BayerHeader(WIDTH, HEIGHT, 12, "RGGB", 256)
    message = refusal(path, facts)
    assert f"the largest value is {values.max()}, but 12 bits are declared, which end at 4095" in message
    assert cause in message
    if "left" in cause:  # the flags that the message names
        raw = read_raw(path, BayerHeader(WIDTH, HEIGHT, 16, "RGGB", 256 * 16, 65520.0))
        assert raw.remarks == () and raw.data.max() <= 65520


@pytest.mark.parametrize("dtype", [np.int16, np.int32, np.uint32, np.float32])
def test_declared_bits_give_the_white_level_of_other_types_too(tmp_path: Path, dtype: type) -> None:
    np.save(tmp_path / "x.npy", frame(64, 10, 0.5, 1.0).astype(dtype))
    assert read_raw(tmp_path / "x.npy", BayerHeader(bits=10, pattern="RGGB", black=64)).white_level == 1023
    assert "8 bits are declared, which end at 255" in refusal(
        tmp_path / "x.npy", BayerHeader(bits=8, pattern="RGGB", black=64)
    )


def test_bytes_in_the_place_of_deeper_values(tmp_path: Path) -> None:
    """picamera2 hands out raw frames as arrays of bytes, packed or not."""
    values = frame(64, 10, 0.5, 1.0)
    facts = BayerHeader(bits=10, pattern="RGGB", black=64)
    np.save(tmp_path / "x.npy", values.view(np.uint8))
    assert (
        f"look like the two bytes of each value: save array.view(numpy.uint16), which is {WIDTH}x{HEIGHT}"
        in refusal(tmp_path / "x.npy", facts)
    )
    np.save(tmp_path / "x.npy", packed(values, 10))
    assert f"look like packed 10-bit values (CSI2P, MIPI RAW10), an image of {WIDTH}x{HEIGHT}" in refusal(
        tmp_path / "x.npy", facts
    )
    np.save(tmp_path / "x.npy", (values >> 2).astype(np.uint8)[:, :-1])
    assert "give --raw-bits 8, or" in refusal(tmp_path / "x.npy", facts)


def test_an_array_of_another_size_than_stated_is_said(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", frame(64, 10, 0.5, 1.0))
    (remark,) = read_raw(tmp_path / "x.npy", BayerHeader(640, 480, 10, "RGGB", 64)).remarks
    assert f"is {WIDTH}x{HEIGHT}, though --raw-size says 640x480" in remark.text
    assert read_raw(tmp_path / "x.npy", BayerHeader(WIDTH, HEIGHT, 10, "RGGB", 64)).remarks == ()
    assert raw_size(tmp_path / "x.npy", BayerHeader(640, 480)) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("name", ["x.FIT", "x.fits", "x.mat"])
def test_files_of_other_kinds_name_a_converter(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"anything")
    message = refusal(path, BayerHeader())
    assert "is not read; convert it: " in message and "numpy.save('x.npy', " in message and f"'{name}'" in message
    for inputs in ([str(tmp_path)], [str(tmp_path / "*")]):
        with pytest.raises(RawFileError, match="no raw files in"):
            find_raw_files(inputs)
    with pytest.raises(RawFileError, match=rf"convert {name}: .*numpy\.save"):
        find_raw_files([str(tmp_path)])


def test_frames_of_a_camera_file_are_left_to_its_reader(tmp_path: Path) -> None:
    watch = RemarkWatch()
    watch.add(RawImage(np.full((20, 20), 500, np.uint16), "RGGB", 16, 1023, path=tmp_path / "x.dng"))
    watch.add(RawImage(np.full((20, 20), 500, np.uint16), "RGGB", 0, 1023))
    assert watch.remarks() == []
