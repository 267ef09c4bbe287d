"""Stacks of frames and planes of mosaics in .npy and .npz files, and in memory."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adaptiveisp.errors import RawFileError
from adaptiveisp.raw.image_size import raw_size
from adaptiveisp.raw.in_memory import raw_in_memory
from adaptiveisp.raw.reader import BayerHeader, read_frames, read_raw
from adaptiveisp.types import RawImage

WIDTH, HEIGHT = 26, 20
Save = Callable[[Path, np.ndarray], Path]


def random_values(*shape: int) -> np.ndarray:
    return np.random.default_rng(len(shape)).integers(64, 1024, shape).astype(np.uint16)


def npy(folder: Path, values: np.ndarray) -> Path:
    np.save(folder / "x.npy", values)
    return folder / "x.npy"


def npz(folder: Path, values: np.ndarray) -> Path:
    np.savez(folder / "x.npz", anything=values)
    return folder / "x.npz"


def compressed(folder: Path, values: np.ndarray) -> Path:
    np.savez_compressed(folder / "x.npz", raw=values)
    return folder / "x.npz"


def by_columns(folder: Path, values: np.ndarray) -> Path:
    np.savez(folder / "x.npz", frames=np.asfortranarray(values))
    return folder / "x.npz"


every_file = pytest.mark.parametrize("save", [npy, npz, compressed, by_columns])


@every_file
@pytest.mark.parametrize("shape", [(5, HEIGHT, WIDTH), (3, HEIGHT, WIDTH), (4, HEIGHT, WIDTH), (1, HEIGHT, WIDTH)])
def test_one_frame_and_all_frames_of_a_stack(tmp_path: Path, save: Save, shape: tuple[int, ...]) -> None:
    stack = random_values(*shape)
    path = save(tmp_path, stack)
    for number in (shape[0] - 1, 0):
        header = BayerHeader(bits=10, pattern="GBRG", frame=number)
        raw = read_raw(path, header)
        assert np.array_equal(raw.data, stack[number]) and (raw.pattern, raw.white_level) == ("GBRG", 1023)
        assert np.array_equal(raw_in_memory(stack, header).data, stack[number])
        assert raw_size(path, header) == (WIDTH, HEIGHT)
    found = list(read_frames(path, BayerHeader(bits=10, pattern="GBRG", frames=shape[0])))
    assert np.array_equal([raw.data for raw in found if isinstance(raw, RawImage)], stack)
    with pytest.raises(RawFileError, match=rf"so there is no frame {shape[0]}, counted from 0"):
        read_raw(path, BayerHeader(pattern="GBRG", frame=shape[0]))


@every_file
@pytest.mark.parametrize("shape", [(6, HEIGHT, WIDTH, 3), (2, 3, HEIGHT, WIDTH)])
def test_a_stack_of_rgb(tmp_path: Path, save: Save, shape: tuple[int, ...]) -> None:
    stack = random_values(*shape)
    raw = read_raw(save(tmp_path, stack), BayerHeader(bits=10, frame=1))
    assert np.array_equal(raw.data, stack[1] if shape[-1] == 3 else stack[1].transpose(1, 2, 0)) and raw.pattern is None


@every_file
@pytest.mark.parametrize("pattern", ["RGGB", "GRBG", "GBRG", "BGGR"])
def test_planes_become_the_mosaic_that_they_were_taken_from(tmp_path: Path, save: Save, pattern: str) -> None:
    full = random_values(2, 2 * HEIGHT, 2 * WIDTH)
    planes = np.stack([full[:, row::2, column::2] for row in (0, 1) for column in (0, 1)], axis=-1)
    header, second = BayerHeader(bits=10, pattern=pattern), BayerHeader(bits=10, pattern=pattern, frame=1)
    path = save(tmp_path, planes[0])
    for raw in (read_raw(path, header), raw_in_memory(planes[0], header)):
        assert np.array_equal(raw.data, full[0]) and (raw.pattern, raw.white_level) == (pattern, 1023)
    assert raw_size(path, header) == (2 * WIDTH, 2 * HEIGHT)
    path = save(tmp_path, planes)
    assert np.array_equal(read_raw(path, second).data, full[1]) and raw_size(path, second) == (2 * WIDTH, 2 * HEIGHT)
    assert len(list(read_frames(path, header))) == 2
    with pytest.raises(
        RawFileError, match=r"has shape 20x26x4, four channels; give --raw-pattern if they are the planes"
    ):
        read_raw(save(tmp_path, planes[0]), BayerHeader(bits=10, pattern="MONO" if pattern == "RGGB" else None))


def test_another_order_of_the_planes_is_noticed() -> None:
    """Red, green, blue, green, as some programs pack a mosaic, when the pattern says red, green, green, blue."""
    ramp = np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)) + 64.0
    noise = np.random.default_rng(0).normal(0, 2, (HEIGHT, WIDTH, 4))
    wrong, right = np.array([3, 6, 2, 6]), np.array([3, 6, 6, 2])
    header = BayerHeader(bits=10, pattern="RGGB")
    (remark,) = raw_in_memory((ramp[..., None] * wrong + noise).astype(np.uint16), header).remarks
    assert "planes 1 and 3 are more similar than 1 and 2, the green ones of RGGB; put the planes into" in remark.text
    for gains in (right, np.ones(4)):
        assert raw_in_memory((ramp[..., None] * gains + noise).astype(np.uint16), header).remarks == ()


def test_shapes_that_may_be_two_things(tmp_path: Path) -> None:
    rgb = random_values(3, HEIGHT, WIDTH)
    raw = read_raw(npy(tmp_path, rgb), BayerHeader(bits=10))
    assert np.array_equal(raw.data, rgb.transpose(1, 2, 0))
    (remark,) = read_raw(npy(tmp_path, rgb), BayerHeader(bits=10, pattern="RGGB")).remarks
    assert "is RGB, so the pattern RGGB has no effect" in remark.text and "give --raw-frames 3" in remark.text
    with pytest.raises(RawFileError, match=r"shape 4x20x26; a stack needs --raw-frame or --raw-frames 4, and planes"):
        read_raw(npy(tmp_path, random_values(4, HEIGHT, WIDTH)), BayerHeader(bits=10, pattern="RGGB"))
    first = read_raw(npy(tmp_path, random_values(4, HEIGHT, WIDTH)), BayerHeader(bits=10, pattern="RGGB", frames=4))
    assert np.array_equal(first.data, random_values(4, HEIGHT, WIDTH)[0])
    for shape in ((HEIGHT, WIDTH, 2), (HEIGHT, WIDTH, 1), (HEIGHT, WIDTH, 5)):
        with pytest.raises(RawFileError, match="save it with one channel"):
            read_raw(npy(tmp_path, random_values(*shape)), BayerHeader(pattern="RGGB"))


def test_a_frame_of_a_stack_must_be_declared(tmp_path: Path) -> None:
    path = npy(tmp_path, random_values(5, HEIGHT, WIDTH))
    for read in (read_raw, raw_size):
        with pytest.raises(
            RawFileError, match=r"x\.npy: holds 5 frames; give --raw-frame 0 to 4 .* all of them to stream"
        ):
            read(path, BayerHeader(pattern="RGGB"))
    with pytest.raises(RawFileError, match="holds 5 frames, but --raw-frames says 6; correct it"):
        read_raw(path, BayerHeader(pattern="RGGB", frames=6))
    with pytest.raises(RawFileError, match="holds a single image, so there is no frame 2"):
        read_raw(npy(tmp_path, random_values(HEIGHT, WIDTH)), BayerHeader(pattern="RGGB", frame=2))


def test_facts_of_an_npz(tmp_path: Path) -> None:
    path, values = tmp_path / "x.npz", random_values(HEIGHT, WIDTH)
    np.savez(path, mosaic=values, pattern="BGGR", black=[60, 61, 61, 62], white=np.float32(1000))
    raw = read_raw(path)
    assert (raw.pattern, raw.black_level, raw.white_level) == ("BGGR", (60, 61, 61, 62), 1000)
    assert raw_size(path) == (WIDTH, HEIGHT)
    raw = read_raw(path, BayerHeader(pattern="RGGB", white=1023, black=60))
    assert (raw.pattern, raw.white_level) == ("RGGB", 1023)
    texts = [remark.text for remark in raw.remarks]
    assert any("raw-pattern RGGB is used, though the file's key pattern says BGGR" in text for text in texts)
    assert any("raw-white 1023 is used, though the file's key white says 1000" in text for text in texts)
    assert any("raw-black 60 is used, though the file's key black says" in text for text in texts)
    np.savez(path, raw=values, pattern=np.bytes_(b"rggb"), iso=800)
    (remark,) = read_raw(path).remarks
    assert "its keys iso are not used; known are raw, pattern, black, white" in remark.text


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"one": 1, "two": 2}, r"holds the arrays 'one', 'two'; save the frames under the key raw"),
        ({"raw": 1, "frames": 2}, r"holds the arrays 'raw', 'frames'; save"),
        ({"black": 1}, "holds no array of frames"),
        ({"raw": random_values(HEIGHT, WIDTH), "pattern": "RGGX"}, "its keys make no sense .*RGGX"),
        ({"raw": random_values(HEIGHT, WIDTH), "pattern": 3}, "its key pattern is 3; save a name"),
        ({"raw": random_values(HEIGHT, WIDTH), "black": np.zeros(9)}, "its key black is .*; save one number or four"),
        ({"raw": random_values(HEIGHT, WIDTH), "white": np.zeros(9999)}, "its key white holds too much"),
        ({"raw": np.array([{}, {}])}, "holds object values"),
        ({"raw": np.zeros((HEIGHT, WIDTH), "c8")}, "holds complex64 values"),
    ],
)
def test_what_an_npz_must_not_hold(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(RawFileError, match=rf"x\.npz: .*{message}") as caught:
        read_raw(tmp_path / "x.npz", BayerHeader(bits=10))
    assert "\n" not in str(caught.value)


def test_an_npz_that_states_more_than_it_holds_takes_no_memory(tmp_path: Path) -> None:
    def header(shape: tuple[int, ...]) -> bytes:
        stream = io.BytesIO()
        np.lib.format.write_array_header_1_0(stream, {"descr": "<u2", "fortran_order": False, "shape": shape})
        return stream.getvalue()

    path, facts = tmp_path / "x.npz", BayerHeader(pattern="RGGB", frame=0)
    for shape, content, message in (
        ((20_000, 20_000), bytes(800), "damaged or truncated"),
        ((40_000, 40_000), None, "has 1600 MP; the most are 250|damaged or truncated"),
        ((1_000_000, 4000, 4000), bytes(800), "damaged or truncated"),
        ((HEIGHT, WIDTH), bytes(2 * HEIGHT * WIDTH + 1), "damaged or truncated"),
    ):
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("raw.npy", header(shape) + (content or bytes(10**6)))
        with pytest.raises(RawFileError, match=rf"x\.npz: .*{message}"):
            read_raw(path, facts)


def test_a_damaged_npz_is_an_error(tmp_path: Path) -> None:
    path = compressed(tmp_path, random_values(5, HEIGHT, WIDTH))
    whole = path.read_bytes()
    for at in (len(whole) // 3, len(whole) // 2):
        path.write_bytes(whole[:at] + bytes(60) + whole[at + 60 :])
        with pytest.raises(RawFileError, match=r"x\.npz: is damaged"):
            read_raw(path, BayerHeader(pattern="RGGB", bits=10, frame=4))
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RawFileError, match=r"x\.npz: is damaged"):
        read_raw(path, BayerHeader(pattern="RGGB", frame=4))


def test_an_npz_in_memory_is_known_by_its_first_bytes() -> None:
    stream, values = io.BytesIO(), random_values(HEIGHT, WIDTH)
    np.savez(stream, raw=values, pattern="RGGB")
    assert np.array_equal(read_raw(stream.getvalue(), BayerHeader(bits=10)).data, values)


def test_a_frame_of_a_headerless_file_with_as_many_frames_as_fit(tmp_path: Path) -> None:
    path, stack = tmp_path / "x.raw", random_values(3, HEIGHT, WIDTH)
    path.write_bytes(bytes(5) + stack.tobytes())
    for number in range(3):
        raw = read_raw(path, BayerHeader(WIDTH, HEIGHT, 10, "RGGB", offset=5, frame=number))
        np.testing.assert_array_equal(raw.data, stack[number])
    with pytest.raises(RawFileError, match=r"holds 3 frames, so there is no frame 3, counted from 0"):
        read_raw(path, BayerHeader(WIDTH, HEIGHT, 10, "RGGB", offset=5, frame=3))
    with pytest.raises(RawFileError, match=r"needs 3120 bytes, found 3125"):
        read_raw(path, BayerHeader(WIDTH, HEIGHT, 10, "RGGB", frame=1))
    with pytest.raises(RawFileError, match=r"needs 1040 bytes, found 3120"):
        path.write_bytes(stack.tobytes())
        read_raw(path, BayerHeader(WIDTH, HEIGHT, 10, "RGGB"))
