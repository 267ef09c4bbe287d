"""Links in the documents lead somewhere, and the README's Python runs."""

import re
from pathlib import Path

import pytest

from adaptiveisp.training.config import recipe_files
from tests.conftest import REPOSITORY

PAGES = sorted((REPOSITORY / "docs").rglob("*.md"))
DOCUMENTS = [*sorted(REPOSITORY.glob("*.md")), *PAGES]
RECIPES = {path.name for path in recipe_files().values()}


def name(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def anchors(text: str) -> set[str]:
    """Anchors of the headings of a page, as GitHub and the site make them."""
    headings = re.findall(
        r"^#+ (.*)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), flags=re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_local_links_exist(document: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#]*)(?:#([^)]*))?\)", document.read_text()):
        if not target.startswith("http"):
            path = document.parent / target if target else document
            assert path.exists(), f"{document.name} links to {target}"
            assert not anchor or anchor in anchors(path.read_text()), f"{document.name} links to {target}#{anchor}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=name)
def test_recipes_that_are_named_exist(document: Path) -> None:
    text = document.read_text()
    given = re.findall(r"--config ([\w.-]+)", text)
    named = [f"{recipe}.yaml" for recipe in given if not recipe.endswith(".yaml") and not recipe.isupper()]
    named += re.findall(r"`((?:sequence|fixed|actor|lod|runtime)-[\w-]+\.yaml)`", text)
    assert not set(named) - RECIPES, f"{document.name} names recipes that do not exist"


def test_every_page_has_a_place_in_the_navigation() -> None:
    navigation = (REPOSITORY / "mkdocs.yml").read_text().split("\nnav:")[1]
    places = re.findall(r": ([\w/-]+\.md)$", navigation, flags=re.MULTILINE)
    assert len(places) == len(set(places))
    for page in PAGES:
        assert page.relative_to(REPOSITORY / "docs").as_posix() in places, page


def test_the_page_of_results_names_a_recipe_for_each_trained_row() -> None:
    text = (REPOSITORY / "docs" / "results.md").read_text()
    lines = re.findall(r"^\| \**(?:fixed|CMA|random|actor-critic|sequence|`coco).*$", text, flags=re.MULTILINE)
    rows = [line.split("|") for line in lines if line.count("|") > 4]
    assert len(rows) >= 14
    assert all(row[2].strip(" `") in RECIPES for row in rows)


def test_the_commands_of_the_readme_exist() -> None:
    from adaptiveisp.cli.parser import build_parser

    text = (REPOSITORY / "README.md").read_text()
    commands = set(re.findall(r"^adaptiveisp ([a-z]+) ", text, flags=re.MULTILINE))
    assert commands >= {"run", "eval", "synth", "weights"}
    known = build_parser().format_help()
    for command in commands:
        assert re.search(rf"^    {command} ", known, flags=re.MULTILINE), command


def test_each_line_of_the_security_page_names_tests_that_exist() -> None:
    text = (REPOSITORY / "docs" / "security.md").read_text()
    files = {path.stem for path in (REPOSITORY / "tests").rglob("test_*.py")}
    functions = [
        name
        for path in (REPOSITORY / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text(), flags=re.MULTILINE)
    ]
    named = re.findall(r"\btest_\w+", text)
    assert len(named) > 20
    for name in named:
        assert name in files or any(function.startswith(name) for function in functions), name


def test_the_page_on_production_lists_every_extra() -> None:
    extras = re.search(
        r"\[project\.optional-dependencies\]\n(.*?)\n\n", (REPOSITORY / "pyproject.toml").read_text(), re.DOTALL
    )
    assert extras is not None
    names = set(re.findall(r"^(\w+) = \[", extras[1], flags=re.MULTILINE))
    text = (REPOSITORY / "docs" / "production.md").read_text()
    assert len(names) > 10
    assert set(re.findall(r"`'(?:adaptiveisp|\.)\[(\w+)\]'`", text)) == names


def test_the_page_on_commands_lists_every_policy() -> None:
    from adaptiveisp.policies.registry import NAMED_POLICIES, SHIPPED

    lines = (REPOSITORY / "docs" / "commands.md").read_text().split("## What `--policy` takes")[1].splitlines()
    named = {name for line in lines if line.startswith("| `") for name in re.findall(r"`([\w-]+)`", line.split("|")[1])}
    assert named >= {*SHIPPED, *NAMED_POLICIES}
