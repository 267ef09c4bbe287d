"""YAML from files: plain values of limited size, whatever a few hundred bytes stand for."""

import os
import time
from pathlib import Path

import pytest

from adaptiveisp.errors import DataError
from adaptiveisp.utils.files import read_json
from adaptiveisp.utils.yaml_files import DEEPEST, LARGEST_FILE, MOST_ALIASES, YamlError, parse_yaml, read_yaml


def bomb(levels: int) -> str:
    lines = [f"a{i}: &a{i} [{'x, x' if i == 0 else f'*a{i - 1}, *a{i - 1}'}]" for i in range(levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (bomb(30), "aliases .* stand for more than 1,000,000 values"),
        ("a: &x [*x]", "refers to a value that contains it"),
        ("[" * (DEEPEST + 1), "nested more than 50 levels"),
        ("\n".join(f"a{i}: &a{i} [{'1' if i == 0 else f'*a{i - 1}'}]" for i in range(DEEPEST + 5)), "nested more than"),
        ("- &a 1\n" + "- *a\n" * (MOST_ALIASES + 1), "more than 1000 aliases"),
        ("a: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("a: 9" + "9" * 5000, "4300 digits"),
        ("x: 1\ny: [", "line 2"),
        ("raw-bits: 10\nraw-bits: 12", "the key 'raw-bits' occurs twice"),
        ("\x00", "unacceptable character"),
        ("2020-13-45", "month must be"),
    ],
)
def test_what_is_no_plain_value_of_reasonable_size_is_refused(text: str, message: str) -> None:
    began = time.monotonic()
    with pytest.raises(YamlError, match=message) as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - began < 10, "a bomb is measured, not expanded"


def test_aliases_and_merges_of_ordinary_files_are_read() -> None:
    assert parse_yaml("{a: &x {q: 1}, b: {<<: *x, c: 2}, d: *x}") == {
        "a": {"q": 1},
        "b": {"q": 1, "c": 2},
        "d": {"q": 1},
    }
    assert parse_yaml(bomb(10))["a9"][0] is not None
    assert parse_yaml("") is None


def test_a_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    path = tmp_path / "set.yaml"
    with pytest.raises(DataError, match=r"set\.yaml: no such file; give another"):
        read_yaml(path, DataError, "give another")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"not UTF-8 text \(byte 0\); give another"):
        read_yaml(path, DataError, "give another")
    path.write_bytes(b"\xef\xbb\xbfa: 1")
    assert read_yaml(path, DataError, "") == {"a": 1}
    with path.open("wb") as stream:
        stream.truncate(LARGEST_FILE + 1)
    with pytest.raises(DataError, match="larger than 16 MB"):
        read_yaml(path, DataError, "")
    with pytest.raises(DataError, match="cannot be read"):
        read_yaml(tmp_path, DataError, "")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="is a pipe or a device, not a file; give another"):
        read_yaml(tmp_path / "pipe", DataError, "give another")
    with pytest.raises(DataError, match="is a pipe or a device, not a file; give another"):
        read_json(tmp_path / "pipe", DataError, "give another")
