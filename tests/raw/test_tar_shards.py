"""Tar shards: a shard is read as a whole or refused, whatever is wrong with it."""

import io
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from adaptiveisp.errors import RawFileError
from adaptiveisp.inference.frames import find_frames
from adaptiveisp.raw.find_files import find_raw_files
from adaptiveisp.raw.tar_shards import members

NAMES = [f"night/{number}.dng" for number in range(5)]


def tar_of(path: Path, names: list[str], content: bytes = b"x" * 700, link: str = "") -> bytes:
    with tarfile.open(path, "w") as archive:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        if link:
            entry = tarfile.TarInfo(link)
            entry.type, entry.linkname = tarfile.LNKTYPE, names[0]
            archive.addfile(entry)
    return path.read_bytes()


def third_header(content: bytes) -> int:
    return content.index(b"night/2.dng")


def flipped(content: bytes) -> bytes:
    place = third_header(content) + 20
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flipped, "is damaged at byte 3072"),
        (lambda content: content[: third_header(content)], "is cut off after 3072 bytes"),
        (lambda content: content[: third_header(content) + 100], "is cut off after 3072 bytes"),
        (lambda content: content[: third_header(content) + 600], "unexpected end of data"),
        (lambda content: content + content.replace(b"night", b"dight"), "goes on after its end"),
    ],
    ids=["header", "between", "in header", "in content", "joined"],
)
def test_a_shard_that_would_lose_raws_is_refused(
    damage: Callable[[bytes], bytes], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "s.tar"
    path.write_bytes(damage(tar_of(path, NAMES)))
    with pytest.raises(RawFileError, match=message):
        members(str(path))


def test_names_are_taken_as_they_are_and_outputs_stay_inside(tmp_path: Path) -> None:
    path = tmp_path / "s.tar"
    tar_of(path, ["../a.dng", "/b/a.dng", "c/../a.dng", ".hidden/a.dng", "a.txt"])
    frames, missing = find_frames([str(path)])
    assert [frame.id.partition("::")[2] for frame in frames] == ["../a.dng", "/b/a.dng", "c/../a.dng"]
    assert [frame.stem for frame in frames] == ["s/a", "s/b/a", "s/c/a"] and not missing


def test_a_name_that_is_not_utf8_is_refused_and_a_link_is_told_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s.tar"
    tar_of(path, [b"\xff.dng".decode("utf-8", "surrogateescape")])
    with pytest.raises(RawFileError, match="is not UTF-8"):
        members(str(path))
    tar_of(path, NAMES[:1], link="night/9.dng")
    assert [one.name for one in members(str(path))] == NAMES[:1]
    assert "1 links to raws are not read" in caplog.text


def test_a_bad_shard_of_several_costs_no_other_one(tmp_path: Path) -> None:
    for name in "abc":
        tar_of(tmp_path / f"{name}.tar", NAMES)
    tar_of(tmp_path / "b.tar", [*NAMES, NAMES[0]])
    frames, missing = find_frames([str(tmp_path / "*.tar")])
    assert [frame.id for frame in frames] == [f"{tmp_path}/{shard}.tar::{name}" for shard in "ac" for name in NAMES]
    assert [name for name, _ in missing] == [str(tmp_path / "b.tar")] and "twice" in missing[0][1]


def test_a_folder_tells_of_shards_that_it_does_not_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.dng").touch()
    tar_of(tmp_path / "s.tar", NAMES)
    for text in (str(tmp_path), f"{tmp_path}/*"):
        caplog.clear()
        assert len(find_raw_files([text])[0]) == 1
        assert f"1 .tar files in it are not read; name them, for instance {tmp_path}/*.tar" in caplog.text
