"""The evaluation report: scores and paired differences as report.json, and as one self-contained HTML page."""

import base64
import io
import json
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
from adaptiveisp.figures import (
    CostPoint,
    DifferenceBar,
    class_figure,
    cost_figure,
    forest_figure,
    light_figure,
    policy_colour,
    scale_floor,
    svg,
)
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
    colours = {policy: policy_colour(place) for place, policy in enumerate(report.policies)}
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
    return {
        "name": detector,
        "scores": scores,
        "best": best if len(scores) > 1 else {},
        "differences": differences,
        "headline": _headline(scores, differences),
        "light_bins": next((score.per_light for score in scores.values() if score.per_light), ()),
        "light_figure": _draw_light(scores, f"light-{detector}"),
        "forest_figure": _draw_forest(differences, f"forest-{detector}"),
        "class_figure": _draw_classes(scores, classes, report.label_counts, f"class-{detector}"),
        "cost": _cost_view(scores, f"cost-{detector}"),
        "classes": classes,
    }


def _draw_light(scores: Mapping[str, PolicyScore], salt: str) -> Any:
    """AP50 over the bins of light as SVG; None where fewer than two bins hold a score."""
    filled = {i for score in scores.values() for i, part in enumerate(score.per_light) if part.ap50 is not None}
    if len(filled) < 2:
        return None
    bins = next(score.per_light for score in scores.values() if score.per_light)
    names = [f"{b.low:g} {DASH} {b.high:g}\n{b.n_images} images" for b in bins]
    return svg(light_figure(names, {p: [part.ap50 for part in s.per_light] for p, s in scores.items()}), salt)


def _draw_forest(differences: Sequence[Difference], salt: str) -> Any:
    """The differences with their intervals as SVG; None of nothing."""
    bars = [DifferenceBar(f"{d.a} {MINUS} {d.b}", d.mean, d.low, d.high) for d in differences]
    return svg(forest_figure(bars), salt) if bars else None


def _draw_classes(
    scores: Mapping[str, PolicyScore], classes: Sequence[str], counts: Mapping[str, int], salt: str
) -> Any:
    """AP50 of the first `SHOWN_CLASSES` classes as SVG; None of nothing."""
    shown = classes[:SHOWN_CLASSES]
    names = [f"{name} ({counts.get(name, 0)})" for name in shown]
    bars = {policy: [score.per_class.get(name, 0.0) for name in shown] for policy, score in scores.items()}
    return svg(class_figure(names, bars), salt) if shown else None


def _cost_view(scores: Mapping[str, PolicyScore], salt: str) -> dict[str, Any] | None:
    """The figure of AP50 over cost with what its caption tells; None where fewer than two policies have a cost.

    It has no intervals: those of single policies say little of their difference, which is paired and has its own.
    """
    points = [
        CostPoint(policy, place, score.ap50, score.cost_ms, score.modules_per_image)
        for place, (policy, score) in enumerate(scores.items())
        if score.ap50 is not None and score.cost_ms is not None
    ]
    if len(points) < 2:
        return None
    figure = svg(cost_figure(points), salt)
    floor = scale_floor([point.ap50 for point in points])
    return {
        "figure": figure,
        "with_modules": all(point.modules is not None for point in points),
        "below": any(point.ap50 < floor for point in points),
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
            forward = d.a == ranked[0]
            mean, low, high = (d.mean, d.low, d.high) if forward else (-d.mean, -d.high, -d.low)
            lead = {"over": ranked[1], "mean": mean, "low": low, "high": high, "level": d.level, "sure": low > 0}
    return {"policy": ranked[0], "ap50": scores[ranked[0]].ap50, "lead": lead}
