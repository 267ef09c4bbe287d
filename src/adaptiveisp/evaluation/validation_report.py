"""The result of `doctor` as a summary for the terminal, and as one self-contained HTML page with images."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from adaptiveisp.data.validation_result import LIGHT_EDGES, Finding, ValidationResult, mean_level, sizes
from adaptiveisp.errors import first_few, one_line
from adaptiveisp.evaluation.figures.common import LINE_COLOUR, POLICY_COLOURS, new_figure, svg
from adaptiveisp.evaluation.html_page import readable, render_template, tile_view
from adaptiveisp.evaluation.tables import DASH, number, table
from adaptiveisp.utils.files import write_json, write_text

MOST_LINES = 5
"""Most problems of a kind on the terminal."""
MOST_ROWS = 50
"""Most problems of a kind on the page."""
MOST_SIZES = 8


def write_findings(
    found: ValidationResult, folder: Path, title: str, provenance: Mapping[str, Any], exit_code: int
) -> None:
    """Writes doctor.json and doctor.html into a folder.

    Raises:
        AdaptiveISPError: matplotlib or jinja2 is not installed.
    """
    html = render_page(found, title, provenance)
    write_json(folder / "doctor.json", {"exit_code": exit_code, **found.to_json(provenance)})
    write_text(folder / "doctor.html", html)


def render_page(found: ValidationResult, title: str, provenance: Mapping[str, Any]) -> str:
    """The page as HTML text."""
    content = found.to_json(provenance)
    return render_template(
        "doctor.html.j2",
        title=title,
        verdict=verdict(found),
        splits=content["splits"],
        sizes=list(content["sizes"].items())[:MOST_SIZES],
        sensors=list(content["sensors"].items()),
        light_figure=svg(_light_figure(found.light_histogram()), "doctor-light") if found.images else None,
        classes=found.classes,
        known_by=found.known_by,
        without_label=[*without_label(found), *(f"Note: {note}" for note in found.notes)],
        problems=by_kind(found.findings),
        most=MOST_ROWS,
        tiles=[tile_view(tile) for tile in found.tiles],
        provenance=readable(provenance),
    )


def by_kind(findings: Sequence[Finding]) -> dict[str, list[Finding]]:
    """Kind → problems of that kind."""
    kinds: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        kinds[finding.kind].append(finding)
    return dict(kinds)


def verdict(found: ValidationResult) -> str:
    """Whether training may start, in one sentence."""
    if found.verdict == "unusable":
        reason = found.fatal or next((finding.text for finding in found.findings), "no images")
        return f"Training cannot start: {one_line(reason)}."
    how = "" if found.labelled else " with --labels teacher, since there are no labels"
    if found.verdict == "ready":
        return f"Training may start{how}: {found.usable} images, no problem found."
    counted = ", ".join(f"{count} {kind}" for kind, count in found.counts().items())
    return f"Training may start{how} on {found.usable} images, but there are problems: {counted}."


def summary(found: ValidationResult) -> str:
    """The text for the terminal."""
    content = found.to_json({})
    rows = [
        (
            name or "all",
            *(str(row[key]) for key in ("listed", "readable", "with_objects", "objects", "objects_known")),
            number(row["mean_level"], 4),
        )
        for name, row in content["splits"].items()
    ]
    parts = [table(("split", "images", "readable", "with objects", "objects", "known", "mean level"), rows)]
    if found.images:
        shown = list(sizes(found.images).items())
        parts.append("sizes: " + first_few((f"{size} ({count})" for size, count in shown), MOST_SIZES))
        sensors = content["sensors"].items()
        parts.append("sensors: " + first_few((f"{name} ({count})" for name, count in sensors), MOST_SIZES))
        bins = zip(bin_names(), found.light_histogram(), strict=True)
        light = ", ".join(f"{name}: {count}" for name, count in bins if count)
        parts.append(f"light (mean level {number(mean_level(found.images), 4)}): {light}")
    if found.classes:
        classes = [
            (c.name, "left out" if c.target is None else c.target, str(c.count), "yes" if c.known else "no")
            for c in found.classes
            if c.count
        ]
        none = (
            f"\n{len(found.classes) - len(classes)} classes without objects"
            if len(classes) < len(found.classes)
            else ""
        )
        parts.append(table(("class", "taken for", "objects", f"known to {found.known_by}"), classes) + none)
    parts += without_label(found)
    parts += ["\n".join(f"note: {one_line(note)}" for note in found.notes)] if found.notes else []
    for kind, findings in by_kind(found.findings).items():
        lines = [f"{kind}: {len(findings)}", *(f"  {one_line(finding.text)}" for finding in findings[:MOST_LINES])]
        parts.append("\n".join([*lines, *_others(findings)]))
    return "\n\n".join([*parts, verdict(found)])


def _others(findings: Sequence[Finding]) -> list[str]:
    """A line with the number of problems of a kind that are not shown."""
    more = len(findings) - MOST_LINES
    return [f"  and {more} more; --out DIR lists all"] if more > 0 else []


def without_label(found: ValidationResult) -> list[str]:
    """A line with the number of images without a label file, if there are any; they may be meant to have none."""
    if not found.unlabelled:
        return []
    where = ", ".join(f"{count} in {split}" if split else str(count) for split, count in found.unlabelled.items())
    return [f"images without a label file, counted as images without objects: {where}"]


def bin_names() -> list[str]:
    """Names of the bins of the histogram of light."""
    inner = [f"{low:g} {DASH} {high:g}" for low, high in pairwise(LIGHT_EDGES)]
    return [f"below {LIGHT_EDGES[0]:g}", *inner, f"{LIGHT_EDGES[-1]:g} and more"]


def _light_figure(counts: Sequence[int]) -> Any:
    """A bar chart of the number of images in each bin of light."""
    figure, axes = new_figure(9, 2.6)
    axes.bar(range(len(counts)), counts, 0.86, color=POLICY_COLOURS[0])
    axes.set_xticks(range(len(counts)), bin_names())
    axes.grid(axis="y", color=LINE_COLOUR, linewidth=0.8)
    axes.set_ylabel("images")
    axes.set_xlabel("mean level")
    return figure
