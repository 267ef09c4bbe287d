"""The evaluation report: scores and paired differences as report.json, and as one self-contained HTML page."""

import base64
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np

from adaptiveisp.coco_map import ScoredImage, coco_average_precision
from adaptiveisp.drawing import Tile, comparison_figure, resize_to_width
from adaptiveisp.extras import import_extra
from adaptiveisp.files import atomic_path, write_json, write_text
from adaptiveisp.paired import MatchTable, aligned, bootstrap_weights, percentile_interval

SCHEMA_VERSION = 1
LIGHT_EDGES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
"""Edges of the bins of the brightness factor; half-open, the last one closed, the outer ones take what lies beyond."""

FEW_PHOTOS = 50
"""Below this many photos a bootstrap interval tends to be too narrow, and the report says so."""

SHOWN_CLASSES = 20
TILE_WIDTH = 480
JPEG_QUALITY = 84

POLICY_COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#999999")
"""Lines and bars, on white and on black. Source: Tol 2021, "Colour schemes", bright."""

POLICY_MARKERS = "osD^vPX"
# Stand-ins that the page replaces by colours of its own light or dark scheme.
TEXT_COLOUR, LINE_COLOUR = "#010203", "#040506"
MINUS, DASH = "\N{MINUS SIGN}", "\N{EN DASH}"


@dataclass(frozen=True)
class PolicyResult:
    """What one policy and one detector did on the evaluated images.

    Attributes:
        scored: labels and detections of each image and draw.
        ms: time of policy and modules, per image, in milliseconds.
        modules: modules that ran, per image.
        cost_ms: their cost by the cost table, per image, in milliseconds.
    """

    scored: Sequence[ScoredImage]
    ms: Sequence[float] = ()
    modules: Sequence[int] = ()
    cost_ms: Sequence[float] = ()

    def __post_init__(self) -> None:
        """Refuses lists that do not go with the images."""
        for name in ("ms", "modules", "cost_ms"):
            if len(getattr(self, name)) not in (0, len(self.scored)):
                raise ValueError(f"{name} has {len(getattr(self, name))} values for {len(self.scored)} images")


@dataclass(frozen=True)
class LightBin:
    """AP50 (0..1, None without labels) of the images whose brightness factor lies in [low, high)."""

    low: float
    high: float
    n_images: int
    ap50: float | None


@dataclass(frozen=True)
class PolicyScore:
    """Scores of one policy with one detector, as in report.json.

    Attributes:
        ap, ap50, ap75: COCO average precision in 0..1, None without labels.
        per_light: one entry a bin of `LIGHT_EDGES`; empty where the light of no image is known.
        per_class: name → AP50 in 0..1, for classes with a label.
        n_images: images scored, each draw counted; n_photos: distinct photos among them.
        ms_per_image: mean time of policy and modules, in milliseconds, None if not measured.
        modules_per_image: mean number of modules that ran.
        cost_ms: mean cost of these by the cost table, in milliseconds.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    per_light: tuple[LightBin, ...]
    per_class: dict[str, float]
    n_images: int
    n_photos: int
    ms_per_image: float | None
    modules_per_image: float | None
    cost_ms: float | None


@dataclass(frozen=True)
class Difference:
    """AP50 of policy `a` minus that of policy `b` in 0..1 units, with its paired bootstrap interval."""

    a: str
    b: str
    detector: str
    metric: str
    mean: float
    low: float
    high: float
    level: float
    resamples: int


@dataclass(frozen=True)
class Report:
    """All that report.json holds, and the number of labels per class name, which orders the page's figure.

    `settings` are those of the evaluation, such as size, light and draws.
    """

    policies: dict[str, dict[str, PolicyScore]]
    differences: tuple[Difference, ...]
    provenance: Mapping[str, Any]
    notes: tuple[str, ...]
    label_counts: dict[str, int] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def detectors(self) -> list[str]:
        """Names of the detectors, in the order of first use."""
        return list(dict.fromkeys(detector for scores in self.policies.values() for detector in scores))

    def to_json(self) -> dict[str, Any]:
        """The content of report.json."""
        return {
            "schema_version": SCHEMA_VERSION,
            "policies": {
                policy: {detector: asdict(score) for detector, score in scores.items()}
                for policy, scores in self.policies.items()
            },
            "differences": [asdict(difference) for difference in self.differences],
            "notes": list(self.notes),
            "settings": dict(self.settings),
            "provenance": dict(self.provenance),
        }


def light_bin(light: float) -> int:
    """Index of the bin of a brightness factor.

    >>> [light_bin(light) for light in (0.001, 0.003, 0.0099, 0.01, 0.3, 1.0, 1.2)]
    [0, 0, 0, 1, 4, 4, 4]
    """
    return int(np.searchsorted(LIGHT_EDGES[1:-1], light, side="right"))


def score_policy(result: PolicyResult, categories: Mapping[int, str], table: MatchTable | None = None) -> PolicyScore:
    """The scores of one policy with one detector.

    Args:
        result: its detections and costs.
        categories: id → name of the categories to average over.
        table: the `MatchTable` of `result.scored`, if there is one already.
    """
    overall = coco_average_precision(result.scored, categories)
    return PolicyScore(
        ap=overall.ap,
        ap50=overall.ap50,
        ap75=overall.ap75,
        per_light=_per_light(result.scored, table or MatchTable(result.scored, categories)),
        per_class={categories[category]: value for category, value in overall.per_class.items()},
        n_images=len(result.scored),
        n_photos=len({image.image_id for image in result.scored}),
        ms_per_image=_mean(result.ms),
        modules_per_image=_mean(result.modules),
        cost_ms=_mean(result.cost_ms),
    )


def _mean(values: Sequence[float]) -> float | None:
    """The mean, None of nothing."""
    return float(np.mean(values)) if len(values) else None


def _per_light(scored: Sequence[ScoredImage], table: MatchTable) -> tuple[LightBin, ...]:
    """AP50 in each bin of light, nothing where no light is known."""
    bins = np.array([-1 if image.light is None else light_bin(image.light) for image in scored], np.int64)
    if (bins < 0).all():
        return ()
    return tuple(
        LightBin(low, high, int((bins == i).sum()), table.ap((bins == i).astype(np.int64)))
        for i, (low, high) in enumerate(pairwise(LIGHT_EDGES))
    )


def build_report(
    results: Mapping[tuple[str, str], PolicyResult],
    categories: Mapping[int, str],
    provenance: Mapping[str, Any],
    notes: Sequence[str] = (),
    resamples: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    settings: Mapping[str, Any] | None = None,
) -> Report:
    """The report: every policy with every detector, and for each detector the difference of every two policies.

    A difference is "later minus earlier" in the order of `results`. Where two policies were not scored on the same
    images, the images that both have are compared, and a note says so.

    Args:
        results: (policy, detector) → what they did.
        categories: id → name of the categories to average over.
        provenance: goes into report.json as it is.
        notes: sentences for the reader, e.g. how many inputs were skipped.
        resamples, seed, level: of the paired bootstrap, see `paired_difference`.
        settings: of the evaluation; they go into report.json as they are.
    """
    scores: dict[str, dict[str, PolicyScore]] = {}
    differences: list[Difference] = []
    remarks = list(notes)
    for detector in dict.fromkeys(detector for _, detector in results):
        own = {policy: result for (policy, name), result in results.items() if name == detector}
        tables = {policy: MatchTable(result.scored, categories) for policy, result in own.items()}
        for policy, result in own.items():
            scores.setdefault(policy, {})[detector] = score_policy(result, categories, tables[policy])
        common = set.intersection(*(set(table.keys) for table in tables.values()))
        left_out = len(set.union(*(set(table.keys) for table in tables.values()))) - len(common)
        if left_out:
            remarks.append(
                f"{detector}: {left_out} images were not scored with every policy; differences leave them out, "
                "the other numbers do not."
            )
        shared = {p: [image for image in r.scored if image.key in common] for p, r in own.items()}
        differences += _differences(detector, shared, categories, (resamples, seed, level))
    photos = [score.n_photos for by_detector in scores.values() for score in by_detector.values()]
    if differences and min(photos) < FEW_PHOTOS:
        remarks.append(f"With {min(photos)} photos the intervals are rough; use at least {FEW_PHOTOS}.")
    first = next(iter(results.values()), PolicyResult(()))
    counts = Counter(
        categories[annotation.category_id]
        for image in first.scored
        for annotation in image.annotations
        if not annotation.iscrowd and annotation.category_id in categories
    )
    return Report(scores, tuple(differences), provenance, tuple(remarks), dict(counts), settings or {})


def _differences(
    detector: str,
    scored: Mapping[str, list[ScoredImage]],
    categories: Mapping[int, str],
    bootstrap: tuple[int, int, float],
) -> list[Difference]:
    """The paired differences of every two policies; each policy is resampled once, all in the same way."""
    resamples, seed, level = bootstrap
    reference = next(iter(scored.values()))
    if not reference or len(scored) < 2:
        return []
    tables = {p: MatchTable(aligned(reference, images), categories) for p, images in scored.items()}
    points = {policy: table.ap() for policy, table in tables.items()}
    if None in points.values():
        return []
    weights = bootstrap_weights(next(iter(tables.values())).keys, resamples, seed)
    samples = {policy: table.resampled_ap(weights) for policy, table in tables.items()}
    result = []
    for b, a in combinations(scored, 2):
        point = (points[a] or 0.0) - (points[b] or 0.0)
        interval = percentile_interval(point, samples[a] - samples[b], level)
        result.append(Difference(a, b, detector, "ap50", **asdict(interval)))
    return result


def write_report(
    report: Report, folder: Path, sheets: Mapping[str, Sequence[Tile]] | None = None, title: str = "Evaluation"
) -> None:
    """Writes report.json and report.html, a page without external resources, into `folder`.

    Args:
        report: what to write.
        folder: made if missing.
        sheets: policy → example pictures with their pipelines as caption.
        title: of the page.
    """
    html = render_html(report, sheets or {}, title)
    write_json(Path(folder) / "report.json", report.to_json())
    write_text(Path(folder) / "report.html", html)


def figure_png(
    path: Path, cells: Sequence[Sequence[Tile]], column_titles: Sequence[str], row_titles: Sequence[str] = ()
) -> None:
    """Writes one picture to compare policies: rows are images (or light), columns policies; see `comparison_figure`."""
    with atomic_path(path) as temporary:
        comparison_figure(cells, column_titles, row_titles).save(temporary, format="PNG", optimize=True)


def points(value: float | None, digits: int = 1, sign: bool = False) -> str:
    """A value in 0..1 as points for a reader, with a true minus sign.

    >>> points(0.2345), points(None) == DASH, points(0.012, sign=True)
    ('23.4', True, '+1.2')
    """
    return number(None if value is None else 100 * value, digits, sign)


def number(value: float | None, digits: int = 1, sign: bool = False) -> str:
    """A number for a reader; a dash for None.

    >>> number(12.345, 2), number(-0.001) == number(0.0)
    ('12.35', True)
    """
    if value is None:
        return DASH
    # Adding 0.0 turns a rounded -0.0 into 0.0.
    return f"{round(value, digits) + 0.0:{'+' if sign else ''}.{digits}f}".replace("-", MINUS)


def render_html(report: Report, sheets: Mapping[str, Sequence[Tile]], title: str) -> str:
    """The page as HTML text.

    Raises:
        AdaptiveISPError: matplotlib or jinja2 is not installed.
    """
    jinja2 = import_extra("jinja2", "report")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters.update(points=points, number=number)
    template = (resources.files("adaptiveisp") / "templates" / "report.html.j2").read_text(encoding="utf-8")
    colours = {policy: POLICY_COLOURS[i % len(POLICY_COLOURS)] for i, policy in enumerate(report.policies)}
    page: str = environment.from_string(template).render(
        title=title,
        report=report,
        colours=colours,
        detectors=[_detector_view(report, detector) for detector in report.detectors],
        sheets={policy: [_tile_view(tile) for tile in tiles] for policy, tiles in sheets.items() if tiles},
        provenance={key: _readable(value) for key, value in report.provenance.items()},
        most=SHOWN_CLASSES,
    )
    return page


def _readable(value: Any) -> str:
    """A provenance value as text."""
    return value if isinstance(value, str) else json.dumps(value, indent=1, ensure_ascii=False, default=str)


def _tile_view(tile: Tile) -> dict[str, Any]:
    """A tile with its picture as a data address."""
    buffer = io.BytesIO()
    picture = resize_to_width(tile.image, min(TILE_WIDTH, tile.image.shape[1]))
    picture.save(buffer, format="JPEG", quality=JPEG_QUALITY, optimize=True)
    return {
        "src": f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}",
        "title": tile.title,
        "lines": list(tile.lines),
        "width": picture.width,
        "height": picture.height,
    }


def _known(scores: Iterable[PolicyScore], metric: str) -> list[float]:
    """The values of a metric where it is defined."""
    return [value for score in scores if (value := getattr(score, metric)) is not None]


def _detector_view(report: Report, detector: str) -> dict[str, Any]:
    """What the template shows of one detector."""
    scores = {policy: by[detector] for policy, by in report.policies.items() if detector in by}
    best = {
        metric: points(max(values)) if (values := _known(scores.values(), metric)) else ""
        for metric in ("ap", "ap50", "ap75")
    }
    differences = [difference for difference in report.differences if difference.detector == detector]
    classes = sorted(
        {name for score in scores.values() for name in score.per_class},
        key=lambda name: (-report.label_counts.get(name, 0), name),
    )
    shown = classes[:SHOWN_CLASSES]
    filled = {i for score in scores.values() for i, part in enumerate(score.per_light) if part.ap50 is not None}
    return {
        "name": detector,
        "scores": scores,
        "best": best if len(scores) > 1 else {},
        "differences": differences,
        "headline": _headline(scores, differences),
        "light_bins": next((score.per_light for score in scores.values() if score.per_light), ()),
        "light_figure": _svg(_light_figure(scores), f"light-{detector}") if len(filled) > 1 else None,
        "forest_figure": _svg(_forest_figure(differences), f"forest-{detector}") if differences else None,
        "class_figure": _svg(_class_figure(scores, shown, report.label_counts), f"class-{detector}") if shown else None,
        "classes": classes,
    }


def _headline(scores: Mapping[str, PolicyScore], differences: Sequence[Difference]) -> dict[str, Any] | None:
    """The best policy by AP50, and how far it is ahead of the next one."""
    ranked = sorted((p for p in scores if scores[p].ap50 is not None), key=lambda p: -(scores[p].ap50 or 0.0))
    if not ranked:
        return None
    lead = None
    for d in differences:
        if ranked[1:] and {d.a, d.b} == {ranked[0], ranked[1]}:
            forward = d.a == ranked[0]
            mean, low, high = (d.mean, d.low, d.high) if forward else (-d.mean, -d.high, -d.low)
            lead = {"over": ranked[1], "mean": mean, "low": low, "high": high, "level": d.level, "sure": low > 0}
    return {"policy": ranked[0], "ap50": scores[ranked[0]].ap50, "lead": lead}


def _new_figure(width: float, height: float) -> tuple[Any, Any]:
    """A matplotlib figure (inches) with one bare pair of axes, without pyplot's global state."""
    figure = import_extra("matplotlib.figure", "report").Figure(figsize=(width, height), layout="constrained")
    axes = figure.add_subplot()
    axes.patch.set_visible(False)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color(LINE_COLOUR)
    axes.tick_params(length=0, colors=TEXT_COLOUR, labelsize=10)
    axes.xaxis.label.set_color(TEXT_COLOUR)
    axes.yaxis.label.set_color(TEXT_COLOUR)
    axes.set_axisbelow(True)
    return figure, axes


def _add_legend(figure: Any, axes: Any, n: int) -> None:
    """One row of names above the plot, wrapped after four."""
    if n > 1:
        figure.legend(
            *axes.get_legend_handles_labels(),
            loc="outside upper left",
            ncols=min(n, 4),
            frameon=False,
            fontsize=10,
            labelcolor=TEXT_COLOUR,
            handlelength=1.6,
        )


def _light_figure(scores: Mapping[str, PolicyScore]) -> Any:
    """AP50 of each policy over the bins of light."""
    figure, axes = _new_figure(9, 3.6)
    for i, (policy, score) in enumerate(scores.items()):
        known = [(x, 100 * part.ap50) for x, part in enumerate(score.per_light) if part.ap50 is not None]
        look = {"color": POLICY_COLOURS[i % len(POLICY_COLOURS)], "marker": POLICY_MARKERS[i % len(POLICY_MARKERS)]}
        if known:
            axes.plot(*zip(*known, strict=True), label=policy, linewidth=2, markersize=6, **look)
    bins = next(score.per_light for score in scores.values() if score.per_light)
    axes.set_xticks(range(len(bins)), [f"{b.low:g} {DASH} {b.high:g}\n{b.n_images} images" for b in bins])
    axes.set_xlim(-0.4, len(bins) - 0.6)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color=LINE_COLOUR, linewidth=0.8)
    axes.set_ylabel("AP50, points")
    axes.set_xlabel("brightness factor")
    _add_legend(figure, axes, len(scores))
    return figure


def _forest_figure(differences: Sequence[Difference]) -> Any:
    """Each difference with its interval; those whose interval spans zero are hollow."""
    figure, axes = _new_figure(9, 0.9 + 0.42 * len(differences))
    axes.axvline(0, color=TEXT_COLOUR, linewidth=1)
    for row, d in enumerate(differences):
        clear = d.low > 0 or d.high < 0
        colour = POLICY_COLOURS[0] if clear else POLICY_COLOURS[-1]
        axes.plot([100 * d.low, 100 * d.high], [row, row], color=colour, linewidth=2.5, solid_capstyle="round")
        axes.plot(
            100 * d.mean, row, "o", markersize=8, markeredgewidth=2, color=colour, fillstyle="full" if clear else "none"
        )
    axes.set_yticks(range(len(differences)), [f"{d.a} {MINUS} {d.b}" for d in differences])
    axes.set_ylim(len(differences) - 0.5, -0.5)
    axes.grid(axis="x", color=LINE_COLOUR, linewidth=0.8)
    axes.set_xlabel("difference of AP50, points")
    return figure


def _class_figure(scores: Mapping[str, PolicyScore], classes: Sequence[str], counts: Mapping[str, int]) -> Any:
    """AP50 of each policy as bars, one group a class."""
    bar = 0.8 / len(scores)
    figure, axes = _new_figure(9, 1.0 + len(classes) * (0.13 + 0.075 * len(scores)))
    rows = np.arange(len(classes))
    for i, (policy, score) in enumerate(scores.items()):
        values = [100 * score.per_class.get(name, 0.0) for name in classes]
        offset = (i - (len(scores) - 1) / 2) * bar
        axes.barh(rows + offset, values, bar * 0.86, label=policy, color=POLICY_COLOURS[i % len(POLICY_COLOURS)])
    axes.set_yticks(rows, [f"{name} ({counts.get(name, 0)})" for name in classes])
    axes.set_ylim(len(classes) - 0.5, -0.5)
    axes.grid(axis="x", color=LINE_COLOUR, linewidth=0.8)
    axes.set_xlabel("AP50, points")
    _add_legend(figure, axes, len(scores))
    return figure


def _svg(figure: Any, salt: str) -> Any:
    """The figure as inline SVG whose text and lines take the page's font and colours."""
    matplotlib = import_extra("matplotlib", "report")
    buffer = io.StringIO()
    for text in figure.findobj(import_extra("matplotlib.text", "report").Text):
        # Names may hold a dollar sign, which is not mathematics here.
        text.set_parse_math(False)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": salt}):
        none = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=none)
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r'\1 role="img"', svg, count=1)
    # Versions of matplotlib differ in how they write a font.
    svg = re.sub(r"font: ([^;\"]*?px) [^;\"]*", r"font: \1 var(--font)", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: var(--font)", svg)
    # Ids must be unique on the page; only those that the figure itself refers to are needed.
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if f"#{found[1]}" in svg else "", svg)
    svg = svg.replace(TEXT_COLOUR, "currentColor").replace(LINE_COLOUR, "var(--line)")
    return import_extra("markupsafe", "report").Markup(svg)
