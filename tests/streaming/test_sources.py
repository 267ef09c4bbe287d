"""Sources of frames: what was written is read, in order, and what is wrong is said."""

import io
import os
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from adaptiveisp.errors import AdaptiveISPError, RawFileError, UsageError
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.raw.in_memory import raw_in_memory
from adaptiveisp.raw.reader import read_raw
from adaptiveisp.streaming import sources
from adaptiveisp.streaming.sources import Frame, frames_of, frames_of_folder, frames_of_stream, open_source

WIDTH, HEIGHT = 24, 18


def frames(n: int) -> np.ndarray:
    return np.random.default_rng(0).integers(64, 1023, (n, HEIGHT, WIDTH), dtype=np.uint16)


HEADER = BayerHeader(WIDTH, HEIGHT, 10, "RGGB", 64)


def test_the_frames_of_a_headerless_file(tmp_path: Path) -> None:
    values = frames(5)
    path = tmp_path / "night.raw"
    path.write_bytes(b"\0" * 7 + values.tobytes())
    found = list(open_source(str(path), BayerHeader(WIDTH, HEIGHT, 10, "RGGB", 64, offset=7)))
    assert [frame.name for frame in found] == [f"night-{number:06d}" for number in range(5)]
    for frame, expected in zip(found, values, strict=True):
        np.testing.assert_array_equal(raw_in_memory(frame.raw, frame.header).data, expected)
    path.write_bytes(values.tobytes()[:-3])
    (tmp_path / "night.raw.yaml").write_text("raw-size: 24x18\nraw-bits: 10\nraw-pattern: RGGB\n")
    with pytest.raises(RawFileError, match=r"holds 4 frames of 864 bytes and 861 bytes more; copy it again"):
        list(open_source(str(path)))


def test_one_frame_of_a_headerless_file_and_their_declared_number(tmp_path: Path) -> None:
    values, path = frames(3), tmp_path / "night.raw"
    path.write_bytes(values.tobytes())
    (found,) = open_source(str(path), replace(HEADER, frame=2))
    np.testing.assert_array_equal(read_raw(path, replace(HEADER, frame=2)).data, values[2])
    assert found.raw == path and found.header is None  # read by the declared facts
    assert len(list(open_source(str(path), replace(HEADER, frames=3)))) == 3
    with pytest.raises(RawFileError, match=r"night\.raw: holds 3 frames of 864 bytes, not the 4 of --raw-frames"):
        list(open_source(str(path), replace(HEADER, frames=4)))


@pytest.mark.parametrize("source", ["-", "/dev/video0", "rtsp://127.0.0.1/x", "x.mp4", "x.mcap"])
def test_flags_that_a_source_cannot_follow_are_refused(source: str) -> None:
    for flag, facts in (("--raw-frame ", {"frame": 1}), ("--raw-frames ", {"frames": 2})):
        with pytest.raises(UsageError, match=flag):
            open_source(source, replace(HEADER, **facts))
    with pytest.raises(UsageError, match="no folder, so --follow"):
        open_source(source, HEADER, follow=True)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_the_frames_of_a_named_pipe(tmp_path: Path) -> None:
    values, path = frames(3), tmp_path / "camera.raw"
    os.mkfifo(path)
    with pytest.raises(UsageError, match=r"camera\.raw: its frames have no header; give --raw-size"):
        list(open_source(str(path)))
    writer = threading.Thread(target=path.write_bytes, args=(values.tobytes(),), daemon=True)
    writer.start()
    found = list(open_source(str(path), HEADER))
    writer.join(timeout=10)
    assert [frame.name for frame in found] == ["frame-000000", "frame-000001", "frame-000002"]
    for frame, expected in zip(found, values, strict=True):
        np.testing.assert_array_equal(raw_in_memory(frame.raw, frame.header).data, expected)


def test_packed_frames_of_a_pipe() -> None:
    """With a stride, and read in pieces, as pipes give them."""

    class Pieces(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 11, 11))

    values = frames(3) & 0x3FF
    rows = [
        b"".join(
            bytes([*(int(v) >> 2 for v in row[i : i + 4]), sum((int(row[i + k]) & 3) << 2 * k for k in range(4))])
            for i in range(0, WIDTH, 4)
        ).ljust(32, b"\xff")
        for frame in values
        for row in frame
    ]
    header = BayerHeader(WIDTH, HEIGHT, format="SRGGB10P", stride=32, black=64)
    found = list(frames_of_stream(Pieces(b"".join(rows)), header, "stdin"))
    for frame, expected in zip(found, values, strict=True):
        np.testing.assert_array_equal(raw_in_memory(frame.raw, frame.header).data, expected)
    with pytest.raises(RawFileError, match="stdin: ends after 575 of 576 bytes of frame 2"):
        list(frames_of_stream(io.BytesIO(b"".join(rows)[:-1]), header, "stdin"))
    with pytest.raises(UsageError, match="give --raw-format or --raw-bits, --raw-pattern"):
        list(frames_of_stream(io.BytesIO(b""), BayerHeader(WIDTH), "stdin"))


def test_the_files_of_a_folder_in_order(tmp_path: Path) -> None:
    for name, values in zip(("b.npy", "a.npy", "c/d.npy"), frames(3), strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        np.save(tmp_path / name, values)
    assert [frame.name for frame in open_source(str(tmp_path))] == ["a.npy", "b.npy", "c/d.npy"]
    with pytest.raises(AdaptiveISPError):
        list(frames_of_folder(tmp_path / "none"))


def test_a_folder_that_fills_is_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file counts once it is complete, however slowly it is written."""
    monkeypatch.setattr(sources, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(sources, "SETTLED_SECONDS", 0.05)

    def write() -> None:
        for number, values in enumerate(frames(3)):
            buffer = io.BytesIO()
            np.save(buffer, values)
            with (tmp_path / f"{number}.npy").open("wb") as file:
                for start in range(0, len(buffer.getvalue()), 300):
                    file.write(buffer.getvalue()[start : start + 300])
                    file.flush()
                    time.sleep(0.005)

    writer = threading.Thread(target=write)
    writer.start()
    found = frames_of_folder(tmp_path, follow=True)
    for number, expected in enumerate(frames(3)):
        frame = next(found)
        assert frame.name == f"{number}.npy"
        np.testing.assert_array_equal(np.load(frame.raw), expected)
    writer.join()


def test_iterables_functions_and_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    raws = list(frames(2))
    assert [frame.name for frame in frames_of(raws)] == ["frame-000000", "frame-000001"]
    assert [frame.name for frame in frames_of(lambda: iter([Frame(raws[0], "left", 0.5)]))] == ["left"]
    monkeypatch.chdir(tmp_path)
    Path("own_camera.py").write_text("def frames():\n    yield 'one.dng'\n")
    assert [frame.raw for frame in open_source("own_camera:frames")] == ["one.dng"]


@pytest.mark.parametrize(
    ("name", "message"), [("none.raw", "no such file or folder"), ("x.txt", "unknown extension '.txt'")]
)
def test_sources_that_do_not_exist_are_refused(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "x.txt").write_text("text")
    with pytest.raises(UsageError, match=message):
        open_source(str(tmp_path / name))


def test_a_single_raw_is_a_stream_of_one(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", frames(1)[0])
    assert [frame.name for frame in open_source(str(tmp_path / "x.npy"))] == ["x.npy"]


def test_videos_are_made_linear(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """BT.709 code 128 is linear ((0.502 + 0.099) / 1.099)^(1 / 0.45) = 0.2615 (ITU-R BT.709, item 1.2)."""
    av = pytest.importorskip("av", reason="PyAV is not installed; pip install 'adaptiveisp[stream]'")
    path = tmp_path / "x.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        for _ in range(3):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 128, np.uint8), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    found = list(open_source(str(path)))
    assert not caplog.text
    again = list(open_source(str(path), BayerHeader(pattern="GBRG", black=16)))  # facts of a sensor
    assert "x.mkv: --raw-pattern, --raw-black describe values of a sensor and are not used" in caplog.text
    np.testing.assert_array_equal(again[0].raw, found[0].raw)
    path.with_name("x.mkv.yaml").write_text("raw-curve: srgb\n")
    assert next(iter(open_source(str(path)))).header == BayerHeader(bits=8, curve="srgb")
    assert len(found) == 3 and found[1].time_s == pytest.approx(0.04, abs=0.011)
    raw = raw_in_memory(found[0].raw, found[0].header)
    assert raw.data.mean() / raw.white_level == pytest.approx(0.2615, abs=0.01)
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    with pytest.raises(RawFileError, match="cannot be read as a video"):
        list(open_source(str(tmp_path / "broken.mp4")))
