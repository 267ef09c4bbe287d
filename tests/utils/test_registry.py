"""Registries: names of the package, of a program, of installed packages, and of the user's own code."""

import sys
from pathlib import Path

import pytest

from adaptiveisp.errors import UsageError
from adaptiveisp.utils.registry import Registry


def whole(origin: str, value: object) -> int:
    if not isinstance(value, int):
        raise UsageError(f"{origin}: is no whole number")
    return value


@pytest.fixture
def numbers() -> Registry[int]:
    found = Registry("number", "adaptiveisp.test_numbers", "--number", whole)
    found.register("one", 1)
    return found


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package that is installed in a folder: two entry points, of which one fails."""
    (tmp_path / "many_numbers.py").write_text("two = 2\ntext = 'three'\n")
    info = tmp_path / "many_numbers-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: many-numbers\nVersion: 1.0\n")
    points = "two = many_numbers:two\nthree = many_numbers:text\nfour = many_numbers:nothing\n"
    (info / "entry_points.txt").write_text(f"[adaptiveisp.test_numbers]\n{points}")
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_names_and_what_is_refused(numbers: Registry[int]) -> None:
    assert numbers.find("one") == 1 and "one" in numbers and "two" not in numbers
    assert numbers.register("one", 1) == 1  # the same object again, as when a module is imported twice
    with pytest.raises(UsageError, match="'one' is registered already"):
        numbers.register("one", 7)
    assert numbers.register("one", 7, replace=True) == numbers.find("one") == 7
    for name in ("", "a b", "a:b", "../a", "1a", "x" * 65):
        with pytest.raises(UsageError, match="give a name of at most 64 letters"):
            numbers.register(name, 1)
    with pytest.raises(UsageError, match="is no whole number"):
        numbers.register("half", 0.5)  # type: ignore[arg-type]
    remedy = "'two' is not registered; choose one of one, or give --number my_pkg.my_file:name, or install the package"
    with pytest.raises(UsageError, match=remedy):
        numbers.find("two")
    empty: Registry[int] = Registry("number", "adaptiveisp.test_no_numbers", "--number", whole)
    with pytest.raises(UsageError, match=r"'one' is not registered; give --number my_pkg.my_file:name, or install"):
        empty.find("one")


def test_an_installed_package_declares_more(numbers: Registry[int], package: Path) -> None:
    assert "many_numbers" not in sys.modules
    assert numbers.names() == ["one", "two", "three", "four"] and "two" in numbers
    assert "many_numbers" not in sys.modules  # names alone load nothing
    assert numbers.find("two") == 2
    with pytest.raises(UsageError, match="number 'three' of the package many-numbers: is no whole number"):
        numbers.find("three")
    with pytest.raises(UsageError, match=r"'four' of the package many-numbers: AttributeError: .* correct or remove"):
        numbers.find("four")
    sys.modules.pop("many_numbers", None)


def test_an_entry_point_has_the_name_of_its_object(package: Path) -> None:
    named: Registry[int] = Registry("number", "adaptiveisp.test_numbers", "", whole, own_name=lambda value: f"n{value}")
    with pytest.raises(UsageError, match="the entry point 'two' gives 'n2'; rename it to 'n2'"):
        named.find("two")
    sys.modules.pop("many_numbers", None)


def test_a_path_is_answered_with_the_name_of_the_module(numbers: Registry[int]) -> None:
    texts = {
        "retina/curve.py:FIVE": r"--number retina/curve.py:FIVE: write the module with dots instead of a path, retina",
        "curve.py:FIVE": "path, curve:FIVE$",
        "../retina/curve.py:FIVE": "give a module instead of a path, curve:FIVE; run from its folder",
        "retina/curve.py": "not registered; choose one of one, or give --number my_pkg.my_file:name",
    }
    for text, message in texts.items():
        with pytest.raises(UsageError, match=message):
            numbers.from_flag(text, str)


def test_own_code_from_a_flag(numbers: Registry[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_numbers.py").write_text("five = 5\nname = 'x'\n")
    assert numbers.from_flag("own_numbers:five", lambda value: f"n{value}") == 5
    assert numbers.find("n5") == 5 and numbers.from_flag("n5", str) == 5
    wrong = {"own_numbers:name": "is no whole number", "own_numbers:six": "AttributeError", "nowhere:x": "run from the"}
    for text, message in wrong.items():
        with pytest.raises(UsageError, match=message):
            numbers.from_flag(text, str)
    assert str(tmp_path) not in sys.path
    sys.modules.pop("own_numbers", None)
