"""Pages as one self-contained HTML file: templates of the package, and values for them."""

import json
from collections.abc import Mapping
from importlib import resources
from typing import Any

from adaptiveisp.evaluation.tables import interval_text, number, percent, points
from adaptiveisp.inference.drawing import Tile
from adaptiveisp.inference.pictures import page_image
from adaptiveisp.utils.optional_imports import import_extra

TEMPLATES = resources.files("adaptiveisp") / "evaluation" / "templates"


def render_template(name: str, **values: Any) -> str:
    """A page as HTML text, in the style that all pages share.

    Args:
        name: name of the template.
        values: values for the template; text is escaped.

    Raises:
        AdaptiveISPError: jinja2 is not installed.
    """
    jinja2 = import_extra("jinja2", "report")
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, loader=jinja2.FunctionLoader(_template_text)
    )
    environment.filters.update(points=points, number=number, percent=percent, interval=interval_text)
    style = import_extra("markupsafe", "report").Markup(_template_text("style.css.j2").rstrip())
    page: str = environment.get_template(name).render(style=style, **values)
    return page


def _template_text(name: str) -> str:
    """The text of a template of the package."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def readable(provenance: Mapping[str, Any]) -> dict[str, str]:
    """Provenance with its values as text."""
    return {
        key: value if isinstance(value, str) else json.dumps(value, indent=1, ensure_ascii=False, default=str)
        for key, value in provenance.items()
    }


def tile_view(tile: Tile) -> dict[str, Any]:
    """A tile as values for a template, with its image as a data URL."""
    return {"title": tile.title, "lines": list(tile.lines), **page_image(tile.image)._asdict()}
