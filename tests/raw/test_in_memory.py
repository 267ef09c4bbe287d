"""`read_raw` on contents and open files: the same raws, remarks and errors as for files, under the given name."""

import errno
import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adaptiveisp.errors import RawFileError, UsageError
from adaptiveisp.raw.dng import write_dng
from adaptiveisp.raw.in_memory import content_as_file
from adaptiveisp.raw.reader import BayerHeader, raw_in_memory, read_raw, write_png16
from adaptiveisp.types import RawImage, Unprocessing

pytest.importorskip("rawpy")
imagecodecs = pytest.importorskip("imagecodecs")
tifffile = pytest.importorskip("tifffile")

MOSAIC = np.random.default_rng(0).integers(64, 1024, (40, 44)).astype(np.uint16)
RGB = np.random.default_rng(1).integers(0, 65536, (20, 24, 3)).astype(np.uint16)
HEADER = BayerHeader(44, 40, 10, "GRBG", 64)
NOTE = Unprocessing(0.1, 1.25, 2.1, 1.7, (1.0, 0, 0, 0, 1.0, 0, 0, 0, 1.0), 1e-3, 2e-7, "brooks", 12)


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for temporary files, empty."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def write_all(folder: Path) -> dict[str, np.ndarray]:
    """A file of each kind → its pixels."""
    write_dng(RawImage(MOSAIC, "GRBG", 64, 1023, (2.0, 1.0, 1.5)), folder / "a.dng")
    write_png16(RGB, folder / "b.png", NOTE)
    tifffile.imwrite(folder / "c.tif", RGB, photometric="rgb")
    np.save(folder / "d.npy", MOSAIC)
    MOSAIC.tofile(folder / "e.raw")
    return {"a.dng": MOSAIC, "b.png": RGB, "c.tif": RGB, "d.npy": MOSAIC, "e.raw": MOSAIC}


def test_contents_and_open_files_are_what_their_files_are(tmp_path: Path, temporary: Path) -> None:
    for name, pixels in write_all(tmp_path).items():
        header = HEADER if name in ("d.npy", "e.raw") else None
        content = (tmp_path / name).read_bytes()
        wanted = read_raw(tmp_path / name, header)
        with (tmp_path / name).open("rb") as stream:
            found = [
                *(read_raw(source, header) for source in (content, bytearray(content), memoryview(content))),
                read_raw(io.BytesIO(content), header, name=f"night/{name.upper()}"),
                read_raw(stream, header),
            ]
        for raw in found:
            np.testing.assert_array_equal(raw.data, pixels)
            assert raw.path is None and wanted.path == tmp_path / name
            for field in ("pattern", "black_level", "white_level", "camera_gains", "orientation", "unprocessing"):
                assert getattr(raw, field) == getattr(wanted, field), (name, field)
        assert raw_in_memory(found[0], None).remarks == found[0].remarks == ()
    assert read_raw((tmp_path / "b.png").read_bytes()).unprocessing == NOTE
    assert list(temporary.iterdir()) == []


def test_an_open_file_is_read_from_its_position() -> None:
    stream = io.BytesIO(b"header of another program" + MOSAIC.tobytes())
    stream.seek(len(b"header of another program"))
    np.testing.assert_array_equal(read_raw(stream, HEADER).data, MOSAIC)


@pytest.mark.parametrize(
    ("start", "extension"),
    [
        (b"FUJIFILMCCD-RAW 0201", ".raf"),
        (b"\0\0\0\x18ftypcrx \0", ".cr3"),
        (b"II*\0\x10\0\0\0CR\x02\0", ".cr2"),
        (b"IIRO\x08\0\0\0", ".orf"),
        (b"IIU\0\x18\0\0\0", ".rw2"),
        (b"\0MRM\0\0\0\0", ".mrw"),
        (b"FOVb\0\0\0\0", ".x3f"),
        (b"II\x1a\0\0\0HEAPCCDR", ".crw"),
    ],
)
def test_camera_files_are_known_by_their_first_bytes(
    start: bytes, extension: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = []

    def fake(path: Path, header: BayerHeader | None) -> RawImage:
        found.append(path.suffix)
        return RawImage(MOSAIC, "RGGB", 64, 1023, path=path)

    monkeypatch.setattr("adaptiveisp.raw.reader.read_camera", fake)
    assert read_raw(start + bytes(100)).path is None and found == [extension]


def test_a_camera_file_built_as_a_tiff_is_told_from_a_tiff(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A NEF keeps its mosaic behind a preview; here it is written as TIFF with the mosaic in a sub-image."""
    with tifffile.TiffWriter(tmp_path / "x.nef") as file:
        file.write(RGB[..., :3].astype(np.uint8), photometric="rgb", subifds=1)
        file.write(MOSAIC, photometric=32803, subfiletype=0)
    extensions: list[str] = []

    def fake(path: Path, header: BayerHeader | None) -> RawImage:
        extensions.append(path.suffix)
        return RawImage(MOSAIC, "RGGB", 64, 1023)

    monkeypatch.setattr("adaptiveisp.raw.reader.read_camera", fake)
    read_raw((tmp_path / "x.nef").read_bytes())
    assert extensions == [".nef"]


def damaged(folder: Path) -> dict[str, tuple[bytes, BayerHeader | None]]:
    """Name of a file → a content that its reader refuses, and facts about it."""
    write_all(folder)
    contents = {name: (folder / name).read_bytes() for name in ("a.dng", "b.png", "c.tif", "d.npy", "e.raw")}
    return {
        **{f"cut.{name.split('.')[1]}": (content[: len(content) // 2], HEADER) for name, content in contents.items()},
        "facts.raw": (contents["e.raw"], BayerHeader(bits=10)),
        "facts.npy": (contents["d.npy"], None),
        "black.raw": (bytes(44 * 40 * 2), HEADER),
        "small.raw": (bytes(8 * 8 * 2), BayerHeader(8, 8, 10, "RGGB")),
        "photo.jpg": (b"\xff\xd8\xff\xe0 JFIF", None),
        "x.exr": (b"v/1\x01", None),
        "wrong.png": (contents["a.dng"], None),
        "deep.raw": (contents["e.raw"], BayerHeader(44, 40, 9, "RGGB")),
    }


def test_errors_are_those_of_files_under_the_given_name(tmp_path: Path, temporary: Path) -> None:
    for name, (content, header) in damaged(tmp_path).items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RawFileError) as of_file:
            read_raw(tmp_path / name, header)
        with pytest.raises(RawFileError) as of_content:
            read_raw(content, header, name=f"camera 1/{name}")
        assert str(of_content.value) == str(of_file.value).replace(str(tmp_path / name), f"camera 1/{name}")
        assert str(of_content.value).startswith(f"camera 1/{name}: ")
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(
    ("source", "header", "name", "kind", "message"),
    [
        (b"", None, None, RawFileError, "^bytes: is empty; give the content of a raw file"),
        (b"", None, "x.dng", RawFileError, r"^x\.dng: is empty"),
        (b"some text", None, None, RawFileError, r'^bytes: its first bytes mark no known kind .* name="x\.dng", or'),
        (b"some text", BayerHeader(bits=10), "frame.7", RawFileError, r"^frame\.7: its first bytes mark no known kind"),
        (MOSAIC.tobytes()[:-2], HEADER, None, RawFileError, "^bytes: 44x40 with 10 bits needs 3520 bytes, found 3518"),
        (b"\xff\xd8\xff\xe0 JFIF", None, None, RawFileError, "^bytes: is a photo; photos are no raws"),
        (io.StringIO("text"), None, None, UsageError, "^bytes: is open in text mode; open it in binary mode"),
        ("x.dng", None, "y.dng", UsageError, r"^x\.dng: name is for bytes and open files; leave it out"),
    ],
)
def test_what_is_no_content_of_a_raw_is_one_line(
    source: Any, header: Any, name: Any, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        read_raw(source, header, name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("source", [None, 3, MOSAIC])
def test_another_object_is_no_raw_file(source: Any) -> None:
    kinds = f"an object of type {type(source).__name__} is no raw file: give a path, bytes or an open binary file"
    with pytest.raises(UsageError, match=kinds), content_as_file(source, None, HEADER):
        pass


def test_a_closed_file_and_a_full_disk_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.raw").write_bytes(MOSAIC.tobytes())
    with (tmp_path / "x.raw").open("rb") as stream:
        pass
    with pytest.raises(RawFileError, match=r"x\.raw: cannot be read .*closed file.*binary mode"):
        read_raw(stream, HEADER)

    def full(self: Path, content: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RawFileError, match=r"^bytes: no temporary file .*No space left.*TMPDIR"):
        read_raw(MOSAIC.tobytes(), HEADER)


def test_remarks_and_warnings_name_the_content(caplog: pytest.LogCaptureFixture) -> None:
    header = BayerHeader(44, 40, 10, "RGGB", 64, 500)
    (remark,) = read_raw(MOSAIC.tobytes(), header, name="night/7.raw").remarks
    assert remark.text.startswith("night/7.raw: ") and "above the white level 500" in remark.text
    again = raw_in_memory(read_raw(MOSAIC.tobytes(), header), None)
    assert [kept.kind for kept in again.remarks] == [remark.kind]
    photo = bytes(imagecodecs.png_encode(RGB.astype(np.uint8)))
    for _ in range(2):
        read_raw(photo, name="pictures of 8 bits.png")
    (message,) = caplog.messages
    assert message.startswith("pictures of 8 bits.png: its pictures of 8 bits a channel are taken for linear light")
