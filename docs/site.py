"""A hook of mkdocs: adds pages that lie outside docs/, writes the API reference, and mends links that leave docs/.

The README is the site's first page, so that neither is written twice. Links to files of the repository that are not
pages (source code, recipes, examples) lead to the repository where `repo_url` is set, and are plain text otherwise.
"""

import ast
import os
import re
from pathlib import Path, PurePosixPath
from typing import Any

from mkdocs.structure.files import File, Files

REPOSITORY = Path(__file__).resolve().parent.parent

OUTSIDE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changelog.md",
    "SECURITY.md": "security-policy.md",
    "CONTRIBUTING.md": "contributing.md",
    "CODE_OF_CONDUCT.md": "code-of-conduct.md",
}
"""Pages that lie outside docs/, and the names that they have on the site."""

API_TITLES = {
    "errors": "Errors",
    "types": "Types",
    "isp": "Modules and pipelines",
    "raw": "Raw files",
    "data": "Data sets",
}
"""Headings of the pages of the API reference; a package that is not listed has its own name, capitalised."""


def public_names() -> dict[str, str]:
    """Name → module below `adaptiveisp` that defines it, from the package's own table, which is read and not run."""
    tree = ast.parse((REPOSITORY / "src" / "adaptiveisp" / "__init__.py").read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_HOMES":
            homes: dict[str, str] = ast.literal_eval(node.value)
            return homes
    raise ValueError("src/adaptiveisp/__init__.py has no table _HOMES of its public names")


def api_pages() -> dict[str, tuple[str, str]]:
    """Path on the site → title and text of one page for each package that holds public names."""
    groups: dict[str, list[str]] = {}
    for name, home in public_names().items():
        groups.setdefault(home.split(".")[0], []).append(name)
    pages = {}
    for group, names in groups.items():
        title = API_TITLES.get(group, group.capitalize())
        blocks = "\n\n".join(f"::: adaptiveisp.{public_names()[name]}.{name}" for name in sorted(names))
        pages[f"api/{group}.md"] = (title, f"# {title}\n\nEach name is imported from `adaptiveisp`.\n\n{blocks}\n")
    return pages


def on_config(config: Any) -> Any:
    """Gives the pages of the API reference a place in the navigation."""
    config.nav.append({"API": [{title: path} for path, (title, _) in api_pages().items()]})
    return config


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that lie outside docs/ and those of the API reference."""
    for source, target in OUTSIDE.items():
        files.append(File.generated(config, target, content=(REPOSITORY / source).read_text()))
    for path, (_, text) in api_pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Mends the links of one page; links to pages of docs/ stay as they are."""
    uri = page.file.src_uri
    sources = {target: source for source, target in OUTSIDE.items()}
    source = PurePosixPath(sources.get(uri, f"docs/{uri}"))

    def mend(match: re.Match[str]) -> str:
        text, target, anchor = match["text"], match["target"], match["anchor"] or ""
        if not target or re.match(r"[a-z]+:", target):
            return match[0]
        path = os.path.normpath(source.parent / target)
        on_site = OUTSIDE.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
        if on_site:  # a page that does not exist stays a link, about which mkdocs complains
            return f"[{text}]({os.path.relpath(on_site, os.path.dirname(uri) or '.')}{anchor})"
        if config.repo_url:
            return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{path}{anchor})"
        return text

    return re.sub(r"\[(?P<text>[^][]*)\]\((?P<target>[^)#\s]*)(?P<anchor>#[^)\s]*)?\)", mend, markdown)
