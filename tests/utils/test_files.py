import hashlib
import json
import os
from pathlib import Path

import pytest

from adaptiveisp.errors import DataError, OutputError, OutputNameError
from adaptiveisp.utils.files import BLOCK, atomic_path, check_length, read_json, sha256_of, write_json


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": NaN}', "holds NaN, which is not a JSON number"),
        (b'{"a": -Infinity}', "holds -Infinity, which is not a JSON number"),
        (b"[" * 100_000, "is nested too deeply"),
        (b'{"a": "\xff"}', "is not UTF-8 text"),
        (b"{", "is not valid JSON"),
        (b'[{"b": 1, "a": 1, "a": 2}]', "the key 'a' occurs twice in one object"),
        (b"9" * 10_000, "is not valid JSON"),
    ],
)
def test_what_is_no_json_is_refused_in_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read_json(path, DataError, "write it again")
    text = str(caught.value)
    assert text.startswith(f"{path}: ") and text.endswith("; write it again") and "\n" not in text


def test_json_comes_back(tmp_path: Path) -> None:
    value = {"text": "γ", "numbers": [1, 0.1, 1e300, None, True]}
    write_json(tmp_path / "deep" / "a.json", value)
    assert read_json(tmp_path / "deep" / "a.json", DataError, "") == value
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "b.json", float("nan"))
    assert os.listdir(tmp_path) == ["deep"]


class OwnError(Exception):
    pass


@pytest.mark.parametrize("error", [OwnError("mine"), ValueError("no"), KeyboardInterrupt(), SystemExit(3)])
def test_a_failure_leaves_nothing_behind(error: BaseException, tmp_path: Path) -> None:
    (tmp_path / "old.json").write_text("old")
    for name in ("old.json", "new.json"):
        with pytest.raises(type(error)), atomic_path(tmp_path / name) as temporary:
            temporary.write_text("half")
            raise error
    assert os.listdir(tmp_path) == ["old.json"]
    assert (tmp_path / "old.json").read_text() == "old"


def test_a_full_disk_is_named_and_leaves_nothing_behind(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"a\.json: cannot be written \(No space left on device\)"),
        atomic_path(tmp_path / "a.json"),
    ):
        raise OSError(28, os.strerror(28))
    assert os.listdir(tmp_path) == []


def test_a_name_that_is_too_long_is_one_line(tmp_path: Path) -> None:
    for path in (tmp_path / ("x" * 300), tmp_path / ("y" * 300) / "a.json"):
        with pytest.raises(OutputError, match="File name too long") as caught, atomic_path(path):
            raise AssertionError("the block must not run")
        assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == []
    with pytest.raises(OutputNameError, match="shorten the name"):
        check_length(tmp_path / "not" / "yet" / ("x" * 256))
    write_json(tmp_path / ("x" * 255), 1)  # as long as may be
    assert os.listdir(tmp_path) == ["x" * 255]


def test_a_file_appears_only_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps([1]))
        assert not path.exists()
    assert path.read_text() == "[1]"
    assert os.listdir(tmp_path) == ["a.json"]


@pytest.mark.parametrize("size", [0, 3, BLOCK, BLOCK + 1])
def test_the_hash_of_a_file_is_that_of_its_content(size: int, tmp_path: Path) -> None:
    content = bytes(range(256)) * (size // 256 + 1)
    (tmp_path / "file").write_bytes(content[:size])
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content[:size]).hexdigest()
