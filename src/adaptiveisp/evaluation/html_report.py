"""The report as one self-contained HTML page: photos with their boxes, then tables and figures as SVG."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from adaptiveisp.evaluation.coco_ap import SIZES
from adaptiveisp.evaluation.coco_results import write_coco
from adaptiveisp.evaluation.figures.common import (
    class_figure,
    forest_figure,
    light_figure,
    policy_colour,
    svg,
)
from adaptiveisp.evaluation.figures.cost import CostPoint, cost_figure, pareto_front, scale_floor
from adaptiveisp.evaluation.figures.pipelines import parameter_figure, place_figure
from adaptiveisp.evaluation.html_page import readable, render_template
from adaptiveisp.evaluation.photo_grid import GRID_BYTES, grid_view
from adaptiveisp.evaluation.pipeline_stats import parameters_by_light, place_shares
from adaptiveisp.evaluation.policy_scores import LIGHT_EDGES, PolicyScore
from adaptiveisp.evaluation.report import BEST_STATIC_CHOICE, REPORT_FILES, Report
from adaptiveisp.evaluation.run_comparison import RAW_COLUMN
from adaptiveisp.evaluation.seed_groups import Difference
from adaptiveisp.evaluation.tables import DASH, cost_title, points
from adaptiveisp.inference.drawing import Tile, comparison_figure
from adaptiveisp.utils.files import atomic_path, write_text
from adaptiveisp.utils.output_folder import remove_inside

SHOWN_CLASSES = 20
FEW_DIFFERENCES = 3
"""Up to so many differences the table of all of them is open."""
SHOWN_PIPELINES = 5
"""Most sequences of modules in the table, for each policy."""
SHOWN_PLACES = 15
"""Most policies whose modules by position are drawn."""


def write_report(report: Report, folder: Path, title: str = "Evaluation") -> None:
    """Writes report.json, pipelines.jsonl, the COCO results and report.html, a page without external resources.

    Args:
        report: the evaluation.
        folder: output folder, made if missing.
        title: title of the page.
    """
    html = render_html(report, title)
    for name in REPORT_FILES:  # a kill in what follows leaves no file of an earlier report beside those of this one
        remove_inside(Path(folder), Path(folder) / name)
    write_coco(report, folder)
    report.write_data(folder)
    write_text(Path(folder) / "report.html", html)


def figure_png(
    path: Path, cells: Sequence[Sequence[Tile]], column_titles: Sequence[str], row_titles: Sequence[str] = ()
) -> None:
    """Writes a figure that compares policies, with a row for each image and a column for each policy.

    The arguments are those of `comparison_figure`.
    """
    with atomic_path(path) as temporary:
        comparison_figure(cells, column_titles, row_titles).save(temporary, format="PNG", optimize=True)


def render_html(report: Report, title: str) -> str:
    """The page as HTML text.

    Raises:
        AdaptiveISPError: matplotlib or jinja2 is not installed.
    """
    # With several data sets the means come first, then each set as on a page of its own, but for title and provenance.
    parts = [_part_view(report), *(_part_view(one, name) for name, one in report.sets.items())]
    return render_template(
        "report.html.j2",
        title=title,
        report=report,
        colours=_colours(report),
        photos=_photo_views(report),
        detectors=parts[0]["detectors"],
        parts=parts,
        provenance=readable(report.provenance),
        most=SHOWN_CLASSES,
        few=FEW_DIFFERENCES,
        best_static_choice=BEST_STATIC_CHOICE,
        cost_title=cost_title(report),
    )


def _part_view(report: Report, name: str = "") -> dict[str, Any]:
    """The values of the template for a report, or for one of its data sets.

    Args:
        report: the report on the data set, or that on all of them.
        name: name of the data set; "" for the report itself.
    """
    return {
        "report": report,
        "name": name,
        "detectors": [_detector_view(report, detector, name) for detector in report.detectors],
        "pipelines": None if report.sets else _pipeline_view(report, name),
    }


def _photo_views(report: Report) -> list[dict[str, Any]]:
    """The photos of the report, or of each of its data sets, as values for the template."""
    grids = {name: one.photos for name, one in (report.sets or {"": report}).items() if one.photos is not None}
    colours = _colours(report)
    colours[RAW_COLUMN] = colours.get("none", "")
    return [
        {**grid_view(grid, GRID_BYTES // len(grids)), "name": name, "salt": f"photos-{number}", "colours": colours}
        for number, (name, grid) in enumerate(grids.items())
    ]


def _colours(report: Report) -> dict[str, str]:
    """Policy or group → colour by its position in the report; members have the colour of their group."""
    names = dict.fromkeys(name for detector in report.detectors for name in report.units(detector))
    colours = {name: policy_colour(position) for position, name in enumerate(names)}
    for name, by_detector in report.groups.items():
        for group in by_detector.values():
            colours |= dict.fromkeys(group.members, colours[name])
    return colours


def _known(scores: Iterable[PolicyScore], metric: str) -> list[float]:
    """The values of a metric where it is defined."""
    return [value for score in scores if (value := getattr(score, metric)) is not None]


def _detector_view(report: Report, detector: str, part: str = "") -> dict[str, Any]:
    """The values of the template for one detector; `part` is the name of one of several data sets, or ""."""
    salt = f"{part}-{detector}" if part else detector
    scores = report.units(detector)
    best = {
        metric: points(max(values)) if (values := _known(scores.values(), metric)) else ""
        for metric in ("ap", "ap50", "ap75")
    }
    differences = [difference for difference in report.differences if difference.detector == detector]
    headline = _headline(scores, differences)
    leads = _leads(headline["policy"] if headline else "", differences)
    best_static = report.best_static.get(detector)
    classes = sorted(
        {name for score in scores.values() for name in score.per_class},
        key=lambda name: (-report.label_counts.get(name, 0), name),
    )
    return {
        "name": detector,
        "scores": scores,
        "rows": _score_rows(report, detector),
        "best": best if len(scores) > 1 else {},
        "differences": differences,
        "of_sets": {d.name: report.intervals_of_sets(d) for d in differences} if report.sets else {},
        "best_static": best_static if best_static and best_static.differences else None,
        "has_losses": bool(_known(scores.values(), "loss_mean")),
        "headline": headline,
        "light_bins": next((score.per_light for score in scores.values() if score.per_light), ()),
        "light_figure": _draw_light(scores, f"light-{salt}"),
        "forest_figure": _draw_forest(leads, f"forest-{salt}"),
        "class_figure": _draw_classes(scores, classes, report.label_counts, f"class-{salt}"),
        "cost": _cost_view(report, detector, salt),
        "classes": classes,
        "sizes": [name for name in SIZES if any(name in score.per_size for score in scores.values())],
    }


def _score_rows(report: Report, detector: str) -> list[dict[str, Any]]:
    """The rows of the tables of scores: each policy, or a group with its members below it."""
    rows: list[dict[str, Any]] = []
    for name, score in report.units(detector).items():
        group = report.groups.get(name, {}).get(detector)
        members = group.members if group else ()
        rows.append({"name": name, "score": score, "sd": group.ap50_sd if group else None, "seeds": len(members)})
        rows += [{"name": m, "score": report.policies[m][detector], "sd": None, "member": True} for m in members]
    for row in rows:
        row["of_sets"] = report.ap50_of_sets(row["name"], detector)
    return rows


def _pipeline_view(report: Report, part: str = "") -> dict[str, Any] | None:
    """The values of the template for the pipelines of adaptive policies; None if no pipeline is known.

    Args:
        report: the report.
        part: name of its data set if there are several, "" otherwise.
    """
    adaptive = [policy for policy, by in report.policies.items() if not next(iter(by.values())).static]
    pipelines = report.pipelines()
    found = {policy: pipelines[policy] for policy in adaptive if pipelines[policy]}
    runs = {policy: [run for run in report.runs if run.policy == policy] for policy in found}
    shares = {policy: places for policy in found if (places := place_shares(runs[policy]))}
    if not found:
        return None
    detector = report.detectors[0]
    best = max(found, key=lambda policy: report.policies[policy][detector].ap50 or 0.0)
    series = parameters_by_light(runs[best])
    salt = f"-{part}" if part else ""
    drawn = dict(list(shares.items())[:SHOWN_PLACES])
    return {
        "found": found,
        "most": SHOWN_PIPELINES,
        "places": svg(place_figure(drawn), f"places{salt}") if drawn else None,
        "not_drawn": [policy for policy in shares if policy not in drawn],
        "best": best,
        "detector": detector,
        "parameters": svg(parameter_figure(series, LIGHT_EDGES), f"parameters{salt}") if series else None,
    }


def _draw_light(scores: Mapping[str, PolicyScore], salt: str) -> Any:
    """AP50 over the bins of light as SVG; None where fewer than two bins hold a score."""
    filled = {i for score in scores.values() for i, part in enumerate(score.per_light) if part.ap50 is not None}
    if len(filled) < 2:
        return None
    bins = next(score.per_light for score in scores.values() if score.per_light)
    names = [f"{b.low:g} {DASH} {b.high:g}\n{b.n_images} images" for b in bins]
    return svg(light_figure(names, {p: [part.ap50 for part in s.per_light] for p, s in scores.items()}), salt)


def _leads(best: str, differences: Sequence[Difference]) -> list[Difference]:
    """The differences of the best policy to each other one."""
    own = [d for d in differences if best in (d.a, d.b)]
    return [d if d.a == best else replace(d, a=d.b, b=d.a, interval=d.interval.reversed()) for d in own]


def _draw_forest(differences: Sequence[Difference], salt: str) -> Any:
    """Draws the differences with their intervals as SVG; returns None where there are none."""
    if not differences:
        return None
    return svg(forest_figure([d.name for d in differences], [d.interval for d in differences]), salt)


def _draw_classes(
    scores: Mapping[str, PolicyScore], classes: Sequence[str], counts: Mapping[str, int], salt: str
) -> Any:
    """AP50 of the first `SHOWN_CLASSES` classes as SVG; None without classes."""
    shown = classes[:SHOWN_CLASSES]
    names = [f"{name} ({counts.get(name, 0)})" for name in shown]
    bars = {policy: [score.per_class.get(name, 0.0) for name in shown] for policy, score in scores.items()}
    return svg(class_figure(names, bars), salt) if shown else None


def _cost_view(report: Report, detector: str, salt: str) -> dict[str, Any] | None:
    """The figure of AP50 over cost and the values of its caption; None where fewer than two policies have a cost.

    The figure has no intervals: differences are paired, so their intervals do not follow from those of single policies.
    """
    scores = report.units(detector)
    points = []
    for place, (name, score) in enumerate(scores.items()):
        group = report.groups.get(name, {}).get(detector)
        if score.ap50 is not None and score.cost_ms is not None:
            sd = group.ap50_sd if group else None
            points.append(CostPoint(name, place, score.ap50, score.cost_ms, score.modules_per_image, sd))
    if len(points) < 2:
        return None
    floor = scale_floor([point.ap50 for point in points])
    front = pareto_front([point.cost_ms for point in points], [point.ap50 for point in points])
    return {
        "figure": svg(cost_figure(points), f"cost-{salt}"),
        "with_modules": all(point.modules is not None for point in points),
        "below": any(point.ap50 < floor for point in points),
        "spread": any(point.sd is not None for point in points),
        "front": [points[i].policy for i in front],
        "left_out": [policy for policy, score in scores.items() if score.cost_ms is None],
    }


def _headline(scores: Mapping[str, PolicyScore], differences: Sequence[Difference]) -> dict[str, Any] | None:
    """The best policy by AP50, and how far it is ahead of the next one."""
    ranked = sorted((p for p in scores if scores[p].ap50 is not None), key=lambda p: -(scores[p].ap50 or 0.0))
    if not ranked:
        return None
    lead = None
    for d in differences:
        if ranked[1:] and {d.a, d.b} == {ranked[0], ranked[1]}:
            lead = {"over": ranked[1], "interval": d.interval if d.a == ranked[0] else d.interval.reversed()}
    return {"policy": ranked[0], "ap50": scores[ranked[0]].ap50, "lead": lead}
