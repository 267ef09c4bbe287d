"""Links in the documents lead somewhere, and the README's Python runs."""

import re
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

DOCUMENTS = [REPOSITORY / "README.md", REPOSITORY / "CHANGELOG.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_local_links_exist(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", document.read_text()):
        if not target.startswith("http"):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


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
