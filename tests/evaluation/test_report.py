"""The report: its JSON contract, its numbers against hand-made cases, and a page that needs nothing from outside."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import adaptiveisp.evaluation.html_report
from adaptiveisp.evaluation.bootstrap import paired_difference
from adaptiveisp.evaluation.coco_ap import ScoredImage, coco_average_precision
from adaptiveisp.evaluation.figures.cost import CostPoint, cost_figure
from adaptiveisp.evaluation.html_report import figure_png, render_html, write_report
from adaptiveisp.evaluation.photo_grid import Mark, PhotoGrid, PhotoRow, Shot
from adaptiveisp.evaluation.policy_scores import LIGHT_EDGES, PolicyResult, light_bin, score_policy
from adaptiveisp.evaluation.report import Report, build_report
from adaptiveisp.evaluation.result import clock_note
from adaptiveisp.evaluation.tables import number, points, score_tables, scores_csv
from adaptiveisp.inference.drawing import Tile
from adaptiveisp.types import Annotation
from tests.evaluation.test_bootstrap import without
from tests.evaluation.test_coco_ap import CATEGORIES, random_images

NAMES = {1: "person", 3: "car", 7: "sofa <b>"}
NASTY = "run <script>alert(1)</script> $x_1^"


def result(images: list[ScoredImage]) -> PolicyResult:
    n = len(images)
    return PolicyResult(images, ms=[float(i) for i in range(n)], modules=[2] * n, cost_ms=[3.4] * n)


def blinded(images: list[ScoredImage]) -> list[ScoredImage]:
    """The same images without detections."""
    empty = np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64)
    return [replace(i, boxes=empty[0], scores=empty[1], category_ids=empty[2]) for i in images]


@pytest.fixture(scope="module")
def images() -> list[ScoredImage]:
    return random_images(0, n_images=40, skill=0.95)


@pytest.fixture(scope="module")
def report(images: list[ScoredImage]) -> Report:
    results = {
        ("none", "tiny"): result(blinded(images)),
        (NASTY, "tiny"): result(images),
        ("none", "big"): result(blinded(images)),
    }
    return build_report(
        results, NAMES, {"version": "1", "command": "eval <x>", "threads": 2}, ["one <note>"], resamples=200
    )


@pytest.mark.usefixtures("without_figures")
def test_json_has_the_agreed_shape_and_numbers(report: Report, images: list[ScoredImage], tmp_path: Path) -> None:
    write_report(report, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    first_keys = {"schema_version", "policies", "differences", "provenance", "notes", "settings"}
    assert set(written) == first_keys | {"groups", "best_static", "pipelines"}
    assert written["schema_version"] == 1
    assert written["provenance"]["command"] == "eval <x>"
    assert written["notes"][0] == "one <note>" and "20 photos" in written["notes"][1]
    assert {policy: list(scores) for policy, scores in written["policies"].items()} == {
        "none": ["tiny", "big"],
        NASTY: ["tiny"],
    }
    score, expected = written["policies"][NASTY]["tiny"], coco_average_precision(images, CATEGORIES)
    assert (score["ap"], score["ap50"], score["ap75"]) == (expected.ap, expected.ap50, expected.ap75)
    assert score["per_class"] == {NAMES[c]: value for c, value in expected.per_class.items()}
    assert (score["n_images"], score["n_photos"]) == (40, 20)
    assert (score["ms_per_image"], score["modules_per_image"]) == (19.5, 2.0)
    assert score["cost_ms"] == pytest.approx(3.4)
    assert score["per_size"] == expected.per_size and 0 < score["ap"] < score["ap50"] <= 1
    nothing = written["policies"]["none"]["tiny"]
    assert (nothing["ap"], nothing["ap50"], nothing["ap75"]) == (0.0, 0.0, 0.0)


@pytest.mark.usefixtures("without_figures")
def test_the_clock_is_a_median_and_stands_beside_the_cost(images: list[ScoredImage], tmp_path: Path) -> None:
    """One image took long, which a mean would show."""
    times = [2.0] * 20 + [3.0] * 19 + [400.0]
    results = {("one", "tiny"): replace(result(images), ms=times)}
    by_paper = build_report(results, NAMES, {"cost_table": "paper"}, resamples=200)
    score = by_paper.to_json()["policies"]["one"]["tiny"]
    assert (score["clock_ms"], score["ms_per_image"]) == (2.5, pytest.approx(12.425))
    heading, _, row = (re.split(r"\s{2,}", line) for line in by_paper.table().splitlines()[:3])
    assert heading[heading.index("clock ms") + 1] == "cost ms (paper)" and "ms" not in heading
    assert dict(zip(heading, row, strict=True))["clock ms"] == "2.5"
    assert "clock ms: median milliseconds of policy and modules per image, measured on this machine" in by_paper.table()
    write_report(by_paper, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "<th>clock ms</th><th>cost ms (paper)</th>" in page and "<td>2.5</td><td>3.4</td>" in page
    own_table = build_report(results, NAMES, {"cost_table": "mine.json"}, resamples=200)
    assert "(paper)" not in own_table.table() + scores_csv(by_paper)
    written = dict(zip(*(line.split(",") for line in scores_csv(by_paper).splitlines()), strict=True))
    assert (written["ms"], written["clock ms"], written["cost ms"]) == ("12.425", "2.5", str(score["cost_ms"]))


def test_the_note_on_the_clock_names_the_machine() -> None:
    note = clock_note({"cpu": "Some CPU", "threads": 1}, 416, "cpu")
    assert "clock ms is this machine's (Some CPU; 1 thread), for policy and modules at size 416" in note
    assert "(Some CPU; cuda, 2 threads)" in clock_note({"cpu": "Some CPU", "threads": 2}, 416, "cuda")


def test_light_bins_partition_the_images(report: Report, images: list[ScoredImage]) -> None:
    bins = report.policies[NASTY]["tiny"].per_light
    assert [(b.low, b.high) for b in bins] == list(pairwise(LIGHT_EDGES))
    # The lights of `random_images`: 0.002 (below the first edge), 0.02, 0.2 and 1.0 (the closed end).
    for part, light in zip(bins, (0.002, 0.02, None, 0.2, 1.0), strict=True):
        own = [image for image in images if image.light == light]
        assert part.n_images == len(own)
        if light is None:
            assert part.ap50 is None
        else:
            assert part.ap50 == pytest.approx(coco_average_precision(own, CATEGORIES).ap50, abs=1e-9)
    unknown = [replace(image, light=None) for image in images]
    assert score_policy(result(unknown), NAMES).per_light == ()
    assert [light_bin(light) for light in (0.03, 0.0999, 0.1, 0.2999, 0.3)] == [2, 2, 3, 3, 4]


def test_differences_are_later_minus_earlier_for_each_detector(report: Report, images: list[ScoredImage]) -> None:
    (difference,) = report.differences
    assert (difference.a, difference.b, difference.detector, difference.metric) == (NASTY, "none", "tiny", "ap50")
    expected = paired_difference(images, blinded(images), CATEGORIES, resamples=200)
    assert difference.interval == expected and (expected.level, expected.resamples) == (0.95, 200)
    assert expected.low > 0 and expected.excludes_zero and expected.reversed().high < 0
    written = report.to_json()["differences"]
    assert written == [
        {
            **{"a": NASTY, "b": "none", "detector": "tiny", "metric": "ap50", "level": 0.95, "resamples": 200},
            **{"mean": expected.mean, "low": expected.low, "high": expected.high},
        }
    ]


def test_policies_scored_on_different_images_are_compared_on_the_common_ones(images: list[ScoredImage]) -> None:
    results = {("a", "d"): result(blinded(images[:30])), ("b", "d"): result(images)}
    report = build_report(results, NAMES, {}, resamples=200)
    common = coco_average_precision(images[:30], CATEGORIES)
    assert report.differences[0].interval.mean == pytest.approx(common.ap50, abs=1e-9)
    assert any("10 images were not scored" in note for note in report.notes)
    assert report.policies["b"]["d"].n_images == 40


@pytest.mark.usefixtures("without_figures")
def test_nothing_to_score_is_null_not_nan(tmp_path: Path) -> None:
    crowd = (Annotation(1, (0.0, 0.0, 5.0, 5.0), 25.0, iscrowd=1),)
    image = ScoredImage(1, 0, 0.5, crowd, np.zeros((0, 4)), np.zeros(0), np.zeros(0))
    for scored in ([image], []):
        results = {("none", "d"): PolicyResult(scored), ("other", "d"): PolicyResult(scored)}
        report = build_report(results, NAMES, {}, resamples=200)
        write_report(report, tmp_path)
        score = json.loads((tmp_path / "report.json").read_text())["policies"]["none"]["d"]
        assert score["ap"] is score["ap50"] is score["ms_per_image"] is None
        assert score["n_images"] == len(scored) and report.differences == ()
    with pytest.raises(ValueError, match="ms has 2 values for 1 images"):
        PolicyResult([image], ms=[1.0, 2.0])


class Page(HTMLParser):
    """Collects the tags, the attributes that load something, and the text of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loads += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "srcset", "data")]
        if tag not in ("meta", "img", "br", "link"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.text += data


def test_the_page_is_whole_safe_and_needs_nothing_from_outside(report: Report) -> None:
    shot = Shot(np.full((40, 700, 3), 90, np.uint8), (Mark((0, 0, 1, 1), "a & b", "found", 0.5),))
    row = PhotoRow("photo <1>.dng", "typical", "light 1", (shot, shot))
    grid = PhotoGrid(("none", NASTY), (row,), "Chosen <so>.", "tiny", 0.25)
    html = render_html(replace(report, photos=grid), "Title & <more>")
    page = Page(html)
    assert page.open == [], "every tag is closed"
    assert "script" not in page.tags and "link" not in page.tags
    assert all(value.startswith(("data:image/jpeg;base64,", "#")) for value in page.loads)
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)", html)
    assert page.tags.count("img") == 2
    for text in ("Title & <more>", NASTY, "sofa <b>", "photo <1>.dng", "a & b", "one <note>", "eval <x>"):
        assert text in page.text
    assert "Detector tiny" in page.text and "Detector big" in page.text
    places = [html.index(text) for text in ("photo &lt;1&gt;.dng", "one &lt;note&gt;", "Detector tiny")]
    assert places == sorted(places), "pictures first"
    # tiny: forest, cost, light and class figures; big: light and classes, as one policy has nothing to compare with.
    assert page.tags.count("svg") == 6 + 3, "and the boxes of two pictures, and one kind in their legend"


@pytest.mark.usefixtures("without_figures")
def test_the_page_shows_points_and_marks_the_best(report: Report) -> None:
    html = render_html(report, "T")
    ap50 = report.policies[NASTY]["tiny"].ap50
    assert ap50 is not None
    assert f'<td class="best">{100 * ap50:.1f}</td>' in html
    assert '<td class="best">0.0</td>' not in html
    lead = re.sub(r"<[^>]*>|\s+", " ", html)
    assert re.search(rf"has the highest AP50,\s+{100 * ap50:.1f}\s+points:\s+\+{100 * ap50:.1f} over none", lead)


@pytest.mark.long
def test_figures_take_the_colours_of_the_page(report: Report) -> None:
    html = render_html(report, "T")
    figures = re.findall(r"<svg.*?</svg>", html, flags=re.DOTALL)
    assert figures
    for figure in figures:
        assert "currentColor" in figure and "var(--line)" in figure and "var(--font)" in figure
        assert "#010203" not in figure and "#000000" not in figure and "<metadata>" not in figure
        assert not re.search(r"<svg[^>]* (width|height)=", figure)
    ids = [name for figure in figures for name in re.findall(r' id="([^"]*)"', figure)]
    assert len(set(ids)) == len(ids)
    assert render_html(report, "T") == html, "the same report gives the same page"


@pytest.mark.usefixtures("without_figures")
def test_the_figures_get_the_numbers_of_the_report(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def keep(name: str, draw: Callable[..., Any], *data: Any) -> Any:
        given.setdefault(name, data)  # of the first detector, "tiny", which has both policies
        return draw(*data)

    for name in ("light_figure", "forest_figure", "class_figure", "cost_figure"):
        monkeypatch.setattr(
            adaptiveisp.evaluation.html_report,
            name,
            partial(keep, name, getattr(adaptiveisp.evaluation.html_report, name)),
        )
    render_html(report, "T")
    scores = {policy: report.policies[policy]["tiny"] for policy in ("none", NASTY)}
    bins, curves = given["light_figure"]
    n_darkest = scores["none"].per_light[0].n_images
    assert bins[0] == f"0.003 \N{EN DASH} 0.01\n{n_darkest} images" and len(bins) == len(LIGHT_EDGES) - 1
    assert curves == {policy: [part.ap50 for part in score.per_light] for policy, score in scores.items()}
    (difference,) = report.differences
    assert given["forest_figure"] == (
        [f"{NASTY} \N{MINUS SIGN} none"],
        [difference.interval],
    )
    classes, bars = given["class_figure"]
    by_labels = sorted(scores[NASTY].per_class, key=lambda name: (-report.label_counts[name], name))
    assert classes == [f"{name} ({report.label_counts[name]})" for name in by_labels]
    assert bars == {policy: [score.per_class[name] for name in by_labels] for policy, score in scores.items()}
    assert given["cost_figure"] == (
        [CostPoint(p, i, s.ap50, s.cost_ms, s.modules_per_image) for i, (p, s) in enumerate(scores.items())],
    )


@pytest.fixture
def only_the_figure_of_costs(without_figures: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptiveisp.evaluation.html_report, "cost_figure", cost_figure)


@pytest.mark.long
@pytest.mark.usefixtures("only_the_figure_of_costs")
def test_policies_without_a_cost_are_named_below_the_figure_of_costs(images: list[ScoredImage]) -> None:
    def sections(*priced: str) -> list[str]:
        free = PolicyResult(images)
        results = {(name, "d"): result(images) if name in priced else free for name in ("a", "b", "<camera>", "c")}
        html = render_html(build_report(results, NAMES, {}, resamples=200), "T")
        return re.findall(r"<h3>AP50 by cost</h3>.*?</p>", html, flags=re.DOTALL)

    assert sections() == sections("a") == []
    (both,) = sections("a", "b")
    assert both.count("<svg") == 1 and "Not shown, since they have no cost: &lt;camera&gt;, c." in both
    assert ">a</text>" in both and ">b</text>" in both and ">c</text>" not in both
    assert "right panel" in both and "below the scale" not in both
    (every,) = sections("a", "b", "<camera>", "c")
    assert "Not shown" not in every and ">c</text>" in every


@pytest.mark.usefixtures("only_the_figure_of_costs")
def test_the_caption_of_the_costs_tells_what_the_figure_does(images: list[ScoredImage]) -> None:
    blind = replace(result(blinded(images)), modules=[])
    results = {("none", "d"): blind, ("a", "d"): result(images), ("b", "d"): result(images)}
    text = Page(render_html(build_report(results, NAMES, {}, resamples=200), "T")).text
    assert "Hollow markers at the foot: scores below the scale" in text and "0.0 \N{DOWNWARDS ARROW}" in text
    assert "modules per image\n" not in text and "right panel" not in text


def planned(
    result: PolicyResult, *sequences: tuple[str, ...], static: bool = False, shift: float = 0.0
) -> PolicyResult:
    """The result with these sequences of modules in turn, and losses that rise from image to image."""
    params = {"exposure": {"ev": 1.5}, "gamma": {"gamma": 0.5}}
    n = len(result.scored)
    losses = [0.2 + 0.01 * i + (shift if i % 4 == 0 else 0.0) for i in range(n)]
    reference = [0.2 + 0.01 * i for i in range(n)]
    pipelines = [tuple((m, params[m]) for m in sequences[i % len(sequences)]) for i in range(n)] if sequences else []
    return replace(result, losses=losses, raw_losses=reference, auto_exposure_losses=[1.0] * n, pipelines=pipelines,
                   static=static)  # fmt: skip


@pytest.fixture(scope="module")
def seeded(images: list[ScoredImage]) -> Report:
    """A static policy and two seeds of an adaptive one, of which the first sees nothing."""
    one, two = ("exposure", "gamma"), ("exposure",)
    results = {
        ("plain", "d"): planned(result(without(images, 0.5, 1)), (), static=True),
        ("ours/1", "d"): planned(result(blinded(images)), one, one, one, two, shift=0.1),
        ("ours/2", "d"): planned(result(images), one, one, one, two),
    }
    return build_report(results, NAMES, {}, resamples=200, groups={"ours": ("ours/1", "ours/2")})


@pytest.mark.usefixtures("without_figures")
def test_groups_and_pipelines_go_into_the_files(seeded: Report, images: list[ScoredImage], tmp_path: Path) -> None:
    write_report(seeded, tmp_path)
    written = json.loads((tmp_path / "report.json").read_text())
    assert list(written["policies"]) == ["plain", "ours/1", "ours/2"]
    first, second = (written["policies"][f"ours/{i}"]["d"] for i in (1, 2))
    assert first["loss_mean"] == pytest.approx(0.395 + 0.025) and second["loss_mean"] == pytest.approx(0.395)
    # The two worst of 40 images: 0.59 and 0.58; with the shift of every fourth, 0.66 and 0.62.
    assert (first["loss_worst5"], second["loss_worst5"]) == (pytest.approx(0.64), pytest.approx(0.585))
    assert (first["worse_than_raw"], first["worse_than_auto_exposure"], first["static"]) == (0.25, 0.0, False)
    assert second["worse_than_raw"] == 0.0 and written["policies"]["plain"]["d"]["static"] is True
    group = written["groups"]["ours"]["d"]
    ap50 = coco_average_precision(images, CATEGORIES).ap50
    assert ap50 is not None and group["members"] == ["ours/1", "ours/2"]
    assert (group["ap50_mean"], group["ap50_sd"]) == (pytest.approx(ap50 / 2), pytest.approx(ap50 / 2**0.5))
    assert group["worse_than_raw"] == 0.125
    (difference,) = written["differences"]
    assert (difference["a"], difference["b"]) == ("ours", "plain")
    best = written["best_static"]["d"]
    assert best["name"] == "plain" and best["differences"] == [difference] and "favours the static" in best["chosen_by"]
    often, rare = (pytest.approx(light_of(images, fourth)) for fourth in (False, True))
    assert written["pipelines"]["ours/1"] == [
        {"modules": ["exposure", "gamma"], "count": 30, "share": 0.75, "light_mean": often},
        {"modules": ["exposure"], "count": 10, "share": 0.25, "light_mean": rare},
    ]
    lines = [json.loads(line) for line in (tmp_path / "pipelines.jsonl").read_text().splitlines()]
    assert len(lines) == 3 * 40 and [line["policy"] for line in lines[39:41]] == ["plain", "ours/1"]
    assert lines[43] == {
        "policy": "ours/1", "photo": 101, "draw": 1, "light": images[3].light, "modules": ["exposure"],
        "params": [{"ev": 1.5}], "loss": {"d": pytest.approx(0.23)},
    }  # fmt: skip
    names = ["coco", "pipelines.jsonl", "report.html", "report.json"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names


def light_of(images: list[ScoredImage], fourth: bool) -> float:
    """Geometric mean of the lights of every fourth image, or of the others."""
    lights = [image.light for i, image in enumerate(images) if (i % 4 == 3) == fourth]
    return float(np.exp(np.mean(np.log(np.array(lights, float)))))


def test_the_page_shows_seeds_harm_and_pipelines(seeded: Report, images: list[ScoredImage]) -> None:
    html = render_html(seeded, "T")
    page = Page(html)
    assert page.open == [] and page.tags.count("img") == 0
    text = re.sub(r"(\s|<[^>]*>)+", " ", html)
    ap50 = coco_average_precision(images, CATEGORIES).ap50 or 0.0
    assert "ours (mean of 2)" in text and f"{50 * ap50:.1f} ± {100 * ap50 / 2**0.5:.1f}" in text
    assert "ours/1 adaptive 0.4200 0.6400 25.0 % 0.0 %" in text
    assert "chosen by the highest AP50 on this same data, which favours the static side" in text
    assert "exposure → gamma" in text and "75.0 %" in text
    small = coco_average_precision(images, CATEGORIES).per_size["small"]
    assert re.search(rf"AP50 by size of the object .* small .*{50 * small:.1f}", text)
    assert "Modules by position" in text and "Parameters by light: ours/2" in text
    # forest, cost, light, classes; places and parameters
    assert page.tags.count("svg") == 6


@pytest.mark.usefixtures("without_figures")
def test_the_figure_of_costs_shows_a_group_with_its_spread(seeded: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[CostPoint] = []
    draw = adaptiveisp.evaluation.html_report.cost_figure
    monkeypatch.setattr(
        adaptiveisp.evaluation.html_report, "cost_figure", lambda points: given.extend(points) or draw(points)
    )
    render_html(seeded, "T")
    group = seeded.groups["ours"]["d"]
    assert [(point.policy, point.place, point.sd) for point in given] == [
        ("plain", 0, None),
        ("ours", 1, group.ap50_sd),
    ]
    assert given[1].ap50 == group.mean.ap50


def test_the_printed_table_has_every_seed_and_the_deviation(seeded: Report) -> None:
    lines = score_tables(seeded).splitlines()
    first = [line.split()[0] for line in lines[2:6]]
    assert first == ["plain", "ours", "ours/1", "ours/2"]
    sd = seeded.groups["ours"]["d"].ap50_sd
    assert sd is not None and f"±{100 * sd:.1f}" in lines[3] and "±" not in lines[2] + lines[4]
    assert lines[4].endswith("0.4200  0.6400     25.0 %          0.0 %") and "adaptive" in lines[4]
    assert sum(line.startswith("ours - plain") for line in lines) == 2
    assert any("Best static policy with d: plain" in line and "favours the static side" in line for line in lines)


def test_numbers_for_readers() -> None:
    assert (points(0.12345), points(0.12345, 2), points(None)) == ("12.3", "12.35", "\N{EN DASH}")
    assert points(-0.004, sign=True) == "\N{MINUS SIGN}0.4"
    assert points(-0.0001, sign=True) == "+0.0"
    assert number(31.25, 0) == "31"


def test_the_comparison_picture_is_a_png(tmp_path: Path) -> None:
    tile = Tile(np.full((40, 60, 3), 90, np.uint8), "")
    figure_png(tmp_path / "figure.png", [[tile, tile]], ["none", "learned"], ["dark"])
    with Image.open(tmp_path / "figure.png") as picture:
        assert picture.format == "PNG" and picture.width > 2 * 360
    assert [path.name for path in tmp_path.iterdir()] == ["figure.png"]


@pytest.mark.usefixtures("without_figures")
def test_the_figure_of_differences_has_the_best_policy_against_each_other_one(
    images: list[ScoredImage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With four policies the table has all six differences, folded, and the figure three."""
    half, most = without(images, 0.5, 1), without(images, 0.1, 2)
    shares = {"blind": blinded(images), "half": half, "best": images, "most": most}
    report = build_report({(name, "d"): result(own) for name, own in shares.items()}, NAMES, {}, resamples=200)
    given: list[Any] = []
    monkeypatch.setattr(adaptiveisp.evaluation.html_report, "forest_figure", lambda *data: given.extend(data))
    html = render_html(report, "T")
    names, intervals = given
    assert names == [f"best \N{MINUS SIGN} {other}" for other in ("blind", "half", "most")]
    wanted = {d.a: d.interval.reversed() for d in report.differences if d.b == "best"}
    wanted |= {d.b: d.interval for d in report.differences if d.a == "best"}
    assert intervals == [wanted[other] for other in ("blind", "half", "most")] and all(i.mean > 0 for i in intervals)
    folded = re.findall(r"<details><summary>All 6 differences</summary>.*?</details>", html, flags=re.DOTALL)
    assert len(folded) == 1 and folded[0].count("<tr><td>") == 6
    two = build_report({(n, "d"): result(shares[n]) for n in ("blind", "best")}, NAMES, {}, resamples=200)
    assert "<details open><summary>Numbers</summary>" in render_html(two, "T")
