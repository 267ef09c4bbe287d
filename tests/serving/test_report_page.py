"""The report page: its numbers against those of `eval`, and its links to the image page."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import markupsafe
import numpy as np
import pytest

from adaptiveisp.cli.parser import main
from adaptiveisp.evaluation.coco_ap import ScoredImage
from adaptiveisp.serving.opening import kind_of
from adaptiveisp.serving.reports import counts, curves, image_rows, parts_of
from adaptiveisp.types import Annotation
from tests.conftest import REPOSITORY
from tests.support.browser import opened_page, serious, settled, waited
from tests.support.photos import CATEGORIES
from tests.support.view_server import RED, Viewer, running_viewer, small_dng

SIZE = 96


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with raws of two lights, their labels, and the report of two policies on them."""
    home = tmp_path_factory.mktemp("evaluated")
    images, labels = [], []
    for number in range(1, 5):
        small_dng(home / "raws" / f"r{number}.dng", number)
        facts = {"id": number, "file_name": f"r{number}.dng", "width": 96, "height": 72}
        images.append({**facts, "photo_id": number, "draw": 0, "light": 0.02 if number % 2 else 0.5})
        box = [24, 16, 40, 24] if number < 4 else [0, 0, 10, 10]
        labels.append({"id": number, "image_id": number, "category_id": 47, "bbox": box, "area": 960.0, "iscrowd": 0})
    content = {"images": images, "annotations": labels, "categories": CATEGORIES}
    (home / "raws" / "labels.json").write_text(json.dumps(content))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        patch.syspath_prepend(str(REPOSITORY))
        from adaptiveisp.evaluation import html_report

        for name in ("light_figure", "forest_figure", "class_figure", "cost_figure"):
            patch.setattr(html_report, name, lambda *_: None)
        real = html_report.svg
        empty = markupsafe.Markup("<svg></svg>")
        patch.setattr(html_report, "svg", lambda figure, salt: empty if figure is None else real(figure, salt))
        words = ("eval", "--data", "raws", "--policy", "none", "night", "--detector", RED, "--size", str(SIZE))
        assert main([*words, "--out", "report", "--resamples", "200", "--quiet"]) == 0
    return home


@pytest.fixture(scope="module")
def viewer(evaluated: Path) -> Iterator[Viewer]:
    with running_viewer([evaluated / "report", evaluated / "raws"], size=SIZE) as running:
        yield running


def asked(viewer: Viewer, **more: object) -> dict[str, object]:
    return {"report": viewer.catalogue.reports.items()[0][0], "set": "", "detector": "red", **more}


def test_a_report_is_told_from_raws_and_data(evaluated: Path) -> None:
    assert kind_of(evaluated / "report") == kind_of(evaluated / "report" / "report.json") == "report"
    assert kind_of(evaluated / "raws") == "data" and kind_of(evaluated / "raws" / "r1.dng") == "raw"


def test_the_curve_has_the_reports_average_precision(viewer: Viewer, evaluated: Path) -> None:
    (part,) = parts_of(viewer.catalogue.reports.items()[0][1])
    stated = json.loads((evaluated / "report" / "report.json").read_text())["policies"]
    for found in curves(part, "red", ["none", "night"]):
        scores = stated[found["policy"]]["red"]
        assert np.mean(found["precision"]) == pytest.approx(scores["ap50"], abs=1e-9)
        known = {one["low"]: one["ap50"] for one in scores["per_light"] if one["ap50"] is not None}
        assert {one["edges"][0]: pytest.approx(one["ap50"]) for one in found["lights"]} == known
        assert all(one["low"] <= one["ap50"] + 1e-9 and one["ap50"] <= one["high"] + 1e-9 for one in found["lights"])


def test_found_and_false_boxes_by_hand() -> None:
    labels = (
        Annotation(1, (0, 0, 10, 10), 100.0),
        Annotation(2, (50, 50, 10, 10), 100.0),
        Annotation(1, (80, 0, 9, 9), 81.0, 1),
    )
    boxes = np.array([[0, 0, 10, 9], [0, 0, 10, 10], [50, 50, 60, 60], [80, 0, 89, 9], [50, 50, 60, 60]], float)
    scores, classes = np.array([0.9, 0.8, 0.7, 0.6, 0.1]), np.array([1, 1, 1, 1, 2])
    assert counts(ScoredImage(1, 0, None, labels, boxes, scores, classes)) == (1, 2)  # the crowd's box is neither


def test_rows_have_the_losses_of_the_report(viewer: Viewer, evaluated: Path) -> None:
    rows = viewer.post("/api/report/images", **asked(viewer, a="night", b="none")).json
    lines = [json.loads(line) for line in (evaluated / "report" / "pipelines.jsonl").read_text().splitlines()]
    losses = {(line["photo"], line["policy"]): line["loss"]["red"] for line in lines}
    assert rows["given"] and len(rows["rows"]) == 4
    for row in rows["rows"]:
        assert row["loss"] == [losses[row["photo"], "night"], losses[row["photo"], "none"]]
        assert row["worse_than_raw"] == [row["loss"][0] > row["loss"][1] * (1 + 1e-6), False]
        assert viewer.catalogue.images.find(row["image"]).name == f"r{row['photo']}.dng"
        assert row["found"][1][0] == (1 if row["photo"] < 4 else 0)


def test_the_pipeline_of_a_row_is_the_one_that_ran(viewer: Viewer) -> None:
    row = viewer.post("/api/report/images", **asked(viewer, a="night", b="none")).json["rows"][1]
    found = viewer.post(
        "/api/report/pipeline",
        **asked(viewer, policy="night", photo=row["photo"], draw=0, image=row["image"], detector=RED),
    ).json
    assert [stage["module"] for stage in found["pipeline"]["stages"]] == row["modules"][0]


def test_images_of_other_data_are_not_linked(evaluated: Path, tmp_path: Path) -> None:
    """The same numbers of photos under another light are other raws."""
    content = json.loads((evaluated / "raws" / "labels.json").read_text())
    for image in content["images"]:
        image["light"] *= 0.5
        small_dng(tmp_path / "other" / image["file_name"], 7)
    (tmp_path / "other" / "labels.json").write_text(json.dumps(content))
    with running_viewer([evaluated / "report", tmp_path / "other"], size=SIZE) as viewer:
        found = viewer.post("/api/report/images", **asked(viewer, a="night", b="none")).json
    assert not found["given"] and not any(row["image"] for row in found["rows"])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("report.json", "{"),
        ("report.json", "[]"),
        ("report.json", '{"policies": {}}'),
        ("coco/ground-truth.json", "{}"),
        ("coco/none--red.json", '[{"image_id": "x"}]'),
        ("pipelines.jsonl", "\x00\n{}\n[1]\n"),
    ],
)
def test_damaged_reports_are_one_line(evaluated: Path, tmp_path: Path, name: str, content: str) -> None:
    shutil.copytree(evaluated / "report", tmp_path / "report")
    (tmp_path / "report" / name).write_text(content)
    with running_viewer([tmp_path / "report"], size=SIZE) as viewer:
        answers = [
            viewer.post("/api/report/open", **asked(viewer)),
            viewer.post("/api/report/images", **asked(viewer, a="night", b="none")),
        ]
    assert all(answer.status in (200, 400, 422) and b"Traceback" not in answer.body for answer in answers)
    assert name == "pipelines.jsonl" or any(answer.status == 422 for answer in answers)


def test_a_report_reads_no_link_out_of_its_folder(evaluated: Path, tmp_path: Path) -> None:
    shutil.copytree(evaluated / "report", tmp_path / "report")
    (tmp_path / "report" / "coco" / "none--red.json").unlink()
    (tmp_path / "report" / "coco" / "none--red.json").symlink_to(evaluated / "report" / "coco" / "night--red.json")
    with running_viewer([tmp_path / "report"], size=SIZE) as viewer:
        answer = viewer.post("/api/report/images", **asked(viewer, a="none", b="night"))
    assert answer.status == 404 and "link" in answer.json["error"]


@pytest.mark.long
def test_a_report_is_sorted_filtered_and_its_worst_image_opened(
    browser: Any,
    viewer: Viewer,
    axe: str,
) -> None:
    with opened_page(browser, viewer.server.address) as page:
        waited(page, "settled", 0)
        assert page.title().startswith("Report") and page.locator(".row").count() == 4
        page.locator("#report-a").select_option("night")
        page.locator("#report-b").select_option("none")
        waited(page, "settled", 2)
        page.locator("#report-sort").select_option("lossa")
        entry = viewer.catalogue.reports.items()[0][1]
        rows = image_rows(parts_of(entry)[0], "red", "night", "none")
        worst = max(rows, key=lambda row: row["loss"][0])
        assert page.locator(".row h3 a").first.inner_text() == f"r{worst['photo']}.dng"
        assert not serious(page, axe)
        page.locator("#report-light").select_option("1")
        assert page.locator(".row").count() == 2 and "light=1" in page.url and "sort=lossa" in page.url
        kept = page.url
        page.reload()
        waited(page, "settled", 0)
        assert page.locator(".row").count() == 2 and page.url == kept
        page.locator("#report-light").select_option("")
        page.locator(".row h3 a").first.click()
        settled(page)
        assert page.locator(".image-pick[aria-current]").inner_text().startswith(f"r{worst['photo']}.dng")
        names = [name.split(" ", 1)[1] for name in page.locator(".card[draggable] .card-name").all_inner_texts()]
        assert names == worst["modules"][0]


@pytest.mark.long
def test_a_report_without_losses_has_no_empty_columns(
    browser: Any, viewer: Viewer, evaluated: Path, tmp_path: Path
) -> None:
    shutil.copytree(evaluated / "report", tmp_path / "report")
    lines = [json.loads(line) for line in (tmp_path / "report" / "pipelines.jsonl").read_text().splitlines()]
    text = "".join(json.dumps({**line, "loss": {"red": None}}) + "\n" for line in lines)
    (tmp_path / "report" / "pipelines.jsonl").write_text(text)
    content = json.loads((tmp_path / "report" / "report.json").read_text())
    for scores in content["policies"].values():
        scores["red"]["worse_than_raw"] = None
    (tmp_path / "report" / "report.json").write_text(json.dumps(content))

    def heads(page: Any) -> tuple[list[str], list[str], int]:
        waited(page, "settled", 0)
        rows, side = (page.locator(name).first.locator("thead th") for name in (".row-table", ".report-side table"))
        assert page.locator(".row-table").first.locator("tbody tr").count() == 2
        cells = page.locator(".row-table").first.locator("tbody tr").first.locator("th, td").count()
        assert cells == page.locator(".row-table").first.locator("thead th, thead td").count()
        return rows.all_inner_texts(), side.all_inner_texts(), page.locator("#report-worse").count()

    with opened_page(browser, viewer.server.address) as page:
        assert heads(page) == (["policy", "found", "false", "loss"], ["policy", "AP50", "AP", "worse than raw"], 1)
    with running_viewer([tmp_path / "report"], size=SIZE) as bare, opened_page(browser, bare.server.address) as page:
        assert heads(page) == (["policy", "found", "false"], ["policy", "AP50", "AP"], 0)
