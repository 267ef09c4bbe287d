"""Recipes are files that `train --config` takes, and say what they were made for."""

import re
import shlex
from pathlib import Path

import pytest

from adaptiveisp.cli.parser import build_parser
from adaptiveisp.errors import UsageError
from adaptiveisp.training.config import find_config, read_config, recipe_files, resolve
from tests.conftest import REPOSITORY

RECIPES = sorted(recipe_files().values())
each = pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)


def header(recipe: Path) -> str:
    lines = recipe.read_text().splitlines()
    return "\n".join(line[1:].strip() for line in lines[: [line[:1] for line in lines].index("t")])


def test_there_are_recipes() -> None:
    assert {"actor-critic", "fixed-9000", "fixed-12000", "lod-yolov3-512"} <= {path.stem for path in RECIPES}


def test_a_recipe_is_found_by_its_name_and_a_file_by_its_path(tmp_path: Path) -> None:
    assert find_config("sequence-tone") == recipe_files()["sequence-tone"]
    (tmp_path / "mine.yaml").touch()
    assert find_config(str(tmp_path / "mine.yaml")) == tmp_path / "mine.yaml"
    with pytest.raises(UsageError, match=r"recipe 'sequence-tune' does not exist; choose one of actor-critic, .*, or"):
        find_config("sequence-tune")


@each
def test_settings_and_options_exist_and_fit(recipe: Path) -> None:
    train, settings = read_config(recipe)
    options, resolved = resolve(train, settings, str(recipe))
    assert options.method == train["method"] and len(settings) >= 9  # spelled out, not left to a preset
    assert all(getattr(resolved, name) is not None or settings[name] is None for name in settings)
    assert not options.data and not options.dev  # those are given on the command line
    for changes in ({"unknown": 1}, {"batch": "many"}):
        with pytest.raises(UsageError, match=next(iter(changes))):
            resolve(train, settings | changes, str(recipe))
        with pytest.raises(UsageError, match="unknown"):
            resolve(train | {"unknown": 1}, settings, str(recipe))


@each
def test_the_header_says_what_the_file_says(recipe: Path) -> None:
    options, _ = resolve(*read_config(recipe), str(recipe))
    text = header(recipe)
    command = shlex.split(text[: text.index("\nseed:")].replace("\\\n", ""))
    parsed = build_parser().parse_args(command[1:])
    assert command[:2] == ["adaptiveisp", "train"] and parsed.config == recipe.stem
    assert parsed.data and parsed.dev and parsed.out
    assert parsed.images or all(".yaml:" in text for text in (*parsed.data, *parsed.dev))  # a YAML says where they are
    assert (parsed.method, parsed.preset) == (None, None)  # either would drop the file's settings
    assert f"\nseed: {options.seed}\n" in text and f"\nbudget: {options.budget} detector passes\n" in text
    assert re.search(r"^wall time: (\d+ minutes|not run|not written down)", text, flags=re.MULTILINE)


@each
def test_the_row_that_it_makes_is_in_the_documents(recipe: Path) -> None:
    row = " ".join(header(recipe).split("\nmakes: ")[1].split("\n")[:2])
    document = row.split(",")[0]
    text = (REPOSITORY / document).read_text()
    names = re.findall(r"\"([^\"]+)\"", row)
    assert names
    for name in names:
        assert name in text, f"{document} has nothing called {name}"
    points = re.search(r"AP50 (\d+\.\d)", row)
    if points:
        assert re.search(rf"^\| {re.escape(names[-1])}.*\b{points.group(1)}\b", text, flags=re.MULTILINE)
