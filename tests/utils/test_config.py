"""Settings from YAML and the command line: every name and type is checked, and they come back as they went."""

from collections.abc import Mapping
from dataclasses import dataclass, field, make_dataclass
from typing import Literal

import pytest
import yaml

from adaptiveisp.errors import UsageError
from adaptiveisp.training.methods.registry import METHODS
from adaptiveisp.utils.config import as_yaml, changed, parse_changes, record, renamed


@dataclass(frozen=True)
class Some:
    count: int = 1
    rate: float = 0.5
    limit: float | None = None
    on: bool = False
    mode: Literal["td", "greedy"] = "td"
    names: tuple[str, ...] = ("a",)
    nested: Mapping[str, Mapping[str, float]] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("count", 3, 3),
        ("rate", 1, 1.0),
        ("rate", "1e-4", 1e-4),
        ("limit", None, None),
        ("limit", 2, 2.0),
        ("on", True, True),
        ("mode", "greedy", "greedy"),
        ("names", ["b", "c"], ("b", "c")),
    ],
)
def test_values_that_fit(name: str, value: object, expected: object) -> None:
    found = getattr(changed(Some(), {name: value}, "here"), name)
    assert found == expected and type(found) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("count", 1.5, "a whole number"),
        ("count", True, "a whole number"),
        ("rate", "fast", "a number"),
        ("rate", True, "a number"),
        ("rate", None, "a number"),
        ("limit", "no", "a number or null"),
        ("on", 1, "true or false"),
        ("mode", "TD", "td or greedy"),
        ("names", "b", "a list"),
        ("names", [1], "a list"),
        ("nested", {"a": 3}, "a mapping"),
        ("nested", {"a": {"b": "x"}}, "a mapping"),
        ("speed", 1, "'speed' does not exist; there are count, limit, mode"),
    ],
)
def test_values_that_do_not_fit(name: str, value: object, message: str) -> None:
    with pytest.raises(UsageError, match=f"file.yaml: .*{message}"):
        changed(Some(), {name: value}, "file.yaml")


@pytest.mark.parametrize("method", METHODS.names())
def test_every_preset_survives_yaml(method: str) -> None:
    for preset in METHODS.find(method).presets.values():
        text = yaml.safe_dump(as_yaml(preset))
        assert changed(METHODS.find(method).settings(), yaml.safe_load(text), "text") == preset


@pytest.mark.parametrize("pair", ["pool", "=3", "pool=[1"])
def test_pairs_that_cannot_be_read(pair: str) -> None:
    with pytest.raises(UsageError, match="--set"):
        parse_changes([pair])


def test_former_names_are_read_and_new_ones_written() -> None:
    @dataclass(frozen=True)
    class Settings:
        group_size: int = renamed("group", "peers", default=2)

    assert changed(Settings(), {"group": 5}, "x.yaml") == Settings(5) == changed(Settings(), {"peers": 5}, "x.yaml")
    assert as_yaml(Settings(3)) == {"group_size": 3}
    needed = make_dataclass("Needed", [("group_size", int, renamed("group"))], frozen=True)
    assert record(needed, {"group": 4}, "x", UsageError, "") == needed(4)
    with pytest.raises(UsageError, match="x: lacks group_size"):
        record(needed, {}, "x", UsageError, "give it")
    with pytest.raises(UsageError, match=r"x.yaml: 'group' and group_size are names of one setting"):
        changed(Settings(), {"group_size": 1, "group": 5}, "x.yaml")
