"""Files of several frames as streams: stacks of arrays, and video that holds the values of a sensor."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from adaptiveisp.errors import RawFileError, UsageError
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.raw.in_memory import raw_in_memory
from adaptiveisp.raw.reader import read_raw
from adaptiveisp.streaming.sources import Frame, open_source
from adaptiveisp.types import RawImage

av = pytest.importorskip("av", reason="PyAV is not installed; pip install 'adaptiveisp[stream]'")

WIDTH, HEIGHT, FRAMES = 50, 36, 3  # rows of 50 bytes are not a multiple of four


def stack(bits: int) -> np.ndarray:
    dtype = np.uint8 if bits == 8 else np.uint16
    return np.random.default_rng(bits).integers(1, 2**bits, (FRAMES, HEIGHT, WIDTH)).astype(dtype)


def video(path: Path, frames: np.ndarray, pixels: str, codec: str = "rawvideo") -> str:
    """Writes rows of values into a video through PyAV."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixels
        for number, values in enumerate(frames):
            picture = av.VideoFrame(WIDTH, HEIGHT, pixels)
            plane = picture.planes[0]
            rows = np.zeros((HEIGHT, plane.line_size), np.uint8)
            order = ">" if pixels.endswith("be") else "<"
            stored = np.frombuffer(values.astype(values.dtype.newbyteorder(order)).tobytes(), np.uint8)
            rows[:, : stored.size // HEIGHT] = stored.reshape(HEIGHT, -1)
            plane.update(rows.tobytes().ljust(plane.buffer_size, b"\0")[: plane.buffer_size])
            picture.pts = number
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return str(path)


def raws(path: str, header: BayerHeader | None = None) -> list[RawImage]:
    return [raw_in_memory(frame.raw, frame.header) for frame in open_source(path, header)]


@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
@pytest.mark.parametrize("depth", ["8", "16le", "16be"])
def test_bayer_video_gives_its_values_and_its_pattern(tmp_path: Path, pattern: str, depth: str) -> None:
    frames = stack(8 if depth == "8" else 16)
    path = video(tmp_path / "x.nut", frames, f"bayer_{pattern}{depth}")
    found = raws(path)
    np.testing.assert_array_equal([raw.data for raw in found], frames)
    assert all(raw.pattern == pattern.upper() for raw in found)
    assert [frame.time_s for frame in open_source(path)] == pytest.approx([0, 0.04, 0.08])
    low = stack(12)
    if depth != "8":
        (raw, *_) = raws(video(tmp_path / "y.nut", low, f"bayer_{pattern}{depth}"), BayerHeader(bits=12, black=64))
        np.testing.assert_array_equal(raw.data, low[0])
        assert (raw.white_level, raw.black_level[0]) == (4095, 64)


@pytest.mark.parametrize(("name", "codec"), [("x.nut", "rawvideo"), ("x.mkv", "ffv1"), ("x.avi", "ffv1")])
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_grey_video_without_loss_needs_a_pattern(tmp_path: Path, name: str, codec: str, bits: int) -> None:
    frames = stack(bits)
    path = video(tmp_path / name, frames, "gray" if bits == 8 else f"gray{bits}le", codec)
    for pattern in ("MONO", "GRBG"):
        found = raws(path, BayerHeader(pattern=pattern))
        np.testing.assert_array_equal([raw.data for raw in found], frames)
        assert {(raw.pattern, raw.white_level) for raw in found} == {(pattern, 2**bits - 1)}
    with pytest.raises(UsageError, match="does not say which colours its values have; give --raw-pattern"):
        raws(path)
    (tmp_path / f"{name}.yaml").write_text("raw-pattern: BGGR\n")
    assert raws(path)[0].pattern == "BGGR"


@pytest.mark.parametrize("name", ["x.avi", "x.mov"])
@pytest.mark.parametrize("bits", [8, 16])
def test_uncompressed_video_that_lost_its_format(
    tmp_path: Path, name: str, bits: int, caplog: pytest.LogCaptureFixture
) -> None:
    """AVI and MOV keep only the bits of a pixel of Bayer video, and rows may be padded."""
    frames = stack(bits)
    path = video(tmp_path / name, frames, "bayer_grbg8" if bits == 8 else "bayer_grbg16le")
    found = raws(path, BayerHeader(format=f"SGRBG{bits}"))
    np.testing.assert_array_equal([raw.data for raw in found], frames)
    assert not caplog.records
    open_source(path)
    assert "if it comes from a sensor, give --raw-format and --raw-pattern" in caplog.text
    with pytest.raises(RawFileError, match=r"x\.\w+: 50x36 pixels of SGRBG10P take .* but a frame has"):
        raws(path, BayerHeader(format="SGRBG10P"))


def test_rows_from_the_bottom_up(tmp_path: Path) -> None:
    """An AVI without a name for its format and with a positive height stores the last row first (BITMAPINFOHEADER)."""
    frames = stack(8)
    path = Path(video(tmp_path / "x.avi", frames, "bayer_rggb8"))
    content = bytearray(path.read_bytes())
    place = content.index(b"strf") + 16  # name and size of the chunk, size of the structure, width
    assert int.from_bytes(content[place : place + 4], "little", signed=True) == -HEIGHT
    content[place : place + 4] = HEIGHT.to_bytes(4, "little")
    path.write_bytes(content)
    found = raws(str(path), BayerHeader(format="SRGGB8"))
    np.testing.assert_array_equal([raw.data for raw in found], frames[:, ::-1])


def test_a_declared_pattern_against_that_of_the_video_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = video(tmp_path / "x.nut", stack(8), "bayer_rggb8")
    assert raws(path, BayerHeader(pattern="BGGR"))[0].pattern == "BGGR"
    assert "--raw-pattern BGGR is used, though its pixel format is bayer_rggb8" in caplog.text
    with pytest.raises(UsageError, match="its pixel format is bayer_rggb8: raw format u8le8 has 8 bits, not 12"):
        raws(path, BayerHeader(bits=12))


def test_all_frames_of_stacks(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile")
    frames, header = stack(10), BayerHeader(bits=10, pattern="RGGB", black=64)
    np.save(tmp_path / "a.npy", frames)
    np.savez_compressed(tmp_path / "b.npz", frames=frames, pattern="RGGB")
    tifffile.imwrite(tmp_path / "c.tif", frames, photometric="minisblack")
    pgm = [f"P5 {WIDTH} {HEIGHT} 1023\n".encode() + values.astype(">u2").tobytes() for values in frames]
    (tmp_path / "d.pgm").write_bytes(b"".join(pgm))
    for name in ("a.npy", "b.npz", "c.tif", "d.pgm"):
        facts = replace(header, frames=FRAMES)  # (3, height, width) could also be RGB
        found = list(open_source(str(tmp_path / name), facts))
        assert [frame.name for frame in found] == [f"{name[0]}-{number:06d}" for number in range(FRAMES)]
        for frame, values in zip(found, frames, strict=True):
            assert isinstance(frame.raw, RawImage)
            np.testing.assert_array_equal(raw_in_memory(frame.raw, None).data, values)
            assert (frame.raw.white_level, frame.raw.black_level[0]) == (1023, 64)
        one = BayerHeader(bits=10, pattern="RGGB", frame=1)
        (frame,) = open_source(str(tmp_path / name), one)
        assert frame == Frame(tmp_path / name, name)
        np.testing.assert_array_equal(read_raw(frame.raw, one).data, frames[1])
    (tmp_path / "e.pgm").write_bytes(pgm[0])
    (frame,) = open_source(str(tmp_path / "e.pgm"), header)
    assert frame.name == "e.pgm"


def test_a_frame_of_a_stack_that_is_unusable_leaves_the_others(tmp_path: Path) -> None:
    frames = np.concatenate([stack(10), stack(10)])
    frames[1] = 0
    np.save(tmp_path / "x.npy", frames)
    header = BayerHeader(bits=10, pattern="RGGB")
    found = list(open_source(str(tmp_path / "x.npy"), header))
    assert len(found) == 6 and found[1].name == "x-000001"
    with pytest.raises(RawFileError, match="black"):
        read_raw(found[1].raw, found[1].header)
    assert isinstance(found[2].raw, RawImage)


def test_stacks_in_a_folder_are_taken_apart(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    frames = np.concatenate([stack(10), stack(10)])
    np.save(tmp_path / "a" / "b.npy", frames)
    np.save(tmp_path / "c.npy", frames[0])
    (tmp_path / "d.pgm").write_bytes(b"P5")
    found = list(open_source(str(tmp_path), BayerHeader(bits=10, pattern="RGGB")))
    assert [frame.name for frame in found] == ["c.npy", "d.pgm", *(f"a/b-{number:06d}" for number in range(6))]
    np.testing.assert_array_equal(found[7].raw.data, frames[5])
    one = list(open_source(str(tmp_path), BayerHeader(bits=10, pattern="RGGB", frame=0)))
    assert [frame.name for frame in one] == ["c.npy", "d.pgm", "a/b.npy"]
