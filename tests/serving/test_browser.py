"""The image page in a browser: what a user does, compared with what the library gives."""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adaptiveisp.cli.parser import main
from adaptiveisp.inference.predictor import AdaptiveISP
from adaptiveisp.isp.pipeline import Pipeline, Stage
from tests.support.browser import chromium_path, opened_page, serious, settled, waited
from tests.support.fake_detector import RedDetector
from tests.support.view_server import RED, SIZE, Viewer, running_viewer, small_dng

ODD_NAME = "<b>bold & 'quoted'.dng"


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    chromium_path()
    home = tmp_path_factory.mktemp("shown")
    small_dng(home / "a.dng", 1)
    small_dng(home / ODD_NAME, 2)
    with running_viewer([home / "a.dng", home / ODD_NAME]) as running:
        yield running


def card_names(page: Any) -> list[str]:
    return [name.split(" ", 1)[1] for name in page.locator(".card[draggable] .card-name").all_inner_texts()]


def shown_picture(page: Any) -> np.ndarray:
    """The pixels of the large picture without its margins."""
    shot = np.asarray(Image.open(io.BytesIO(page.locator(".pane-canvas").screenshot())).convert("RGB")).astype(float)
    height, width = shot.shape[:2]
    rows, columns = height // 4, width // 3
    return shot[rows : height - rows, columns : width - columns]


def test_it_opens_an_image_and_shows_its_pipeline(browser: Any, viewer: Viewer) -> None:
    with opened_page(browser, viewer.server.address) as page:
        waited(page, "settled", 0)
        assert page.locator(".image-name").all_inner_texts() == ["a.dng", ODD_NAME]
        assert len(card_names(page)) >= 5 and page.title().startswith("Images")
        assert shown_picture(page).std() > 5
        assert "token" not in page.url


def set_slider(page: Any, name: str, value: float) -> None:
    page.locator(f"#panel-stage input[data-param={name}]").locator("xpath=preceding-sibling::input").fill(str(value))
    page.keyboard.press("Enter")


@pytest.mark.long
def test_a_slider_changes_the_picture_as_the_library_says(browser: Any, viewer: Viewer) -> None:
    path = viewer.catalogue.images.items()[0][1].file
    isp = AdaptiveISP("none", RedDetector(), SIZE)
    with opened_page(browser, viewer.server.address) as page:
        page.locator("#choose-policy").select_option("night")
        settled(page)
        while card_names(page):
            page.locator(".card[draggable] .card-pick").first.click()
            page.get_by_role("button", name="Remove").click()
        page.get_by_label("Add a stage").select_option("exposure")
        page.locator("#boxes-on").click()
        page.locator("#lift").click()
        page.locator(".pane-canvas").focus()  # on a button the space bar presses that
        page.keyboard.press(" ")  # before
        page.keyboard.press(" ")  # after alone
        for ev in (0.0, 1.5, -1.0):
            page.locator(".card[draggable] .card-pick").first.click()
            settled(page)
            set_slider(page, "ev", ev)
            settled(page)
            rendered = isp.render(isp.develop(path), Pipeline((Stage("exposure", {"ev": ev}),))).rendered
            assert rendered is not None
            expected = (rendered.image[0].permute(1, 2, 0) * 255).numpy()
            shown = shown_picture(page)
            # The pane shows the middle of the picture: its share is known from the pane's size.
            pane = page.locator(".pane").bounding_box()
            fit = min((pane["width"] - 16) / 96, (pane["height"] - 16) / 72)
            half = [round(size / fit / 2) for size in shown.shape[:2]]
            middle = expected[36 - half[0] : 36 + half[0], 48 - half[1] : 48 + half[1]]
            assert np.abs(shown.mean(axis=(0, 1)) - middle.mean(axis=(0, 1))).max() < 4, ev


@pytest.mark.long
def test_dragging_a_range_moves_the_picture(browser: Any, viewer: Viewer) -> None:
    with opened_page(browser, viewer.server.address) as page:
        settled(page)
        page.keyboard.press("1")
        before = page.locator("#panel-stage input[type=number]").first.input_value()
        seen = int(page.locator("main").get_attribute("data-after"))
        page.locator("#panel-stage input[type=range]").first.press("ArrowRight")
        waited(page, "after", seen)
        assert page.locator("#panel-stage input[type=number]").first.input_value() != before


@pytest.mark.long
def test_stages_are_reordered_switched_off_and_undone(browser: Any, viewer: Viewer) -> None:
    with opened_page(browser, viewer.server.address) as page:
        settled(page)
        names = card_names(page)
        page.locator(".card[draggable]").nth(0).drag_to(page.locator(".card[draggable]").nth(2))
        assert card_names(page) == [names[1], names[2], names[0], *names[3:]]
        page.keyboard.press("z")
        assert card_names(page) == names
        page.keyboard.press("2")
        page.keyboard.press("Shift+ArrowLeft")
        assert card_names(page) == [names[1], names[0], *names[2:]]
        page.keyboard.press("o")
        settled(page)
        assert page.locator(".card.off").count() == 1
        page.keyboard.press("Delete")
        assert card_names(page) == [names[0], *names[2:]]
        page.get_by_role("button", name="Reset to the policy").click()
        settled(page)
        assert card_names(page) == names


@pytest.mark.long
def test_the_exported_pipeline_renders_the_same_image(
    browser: Any, viewer: Viewer, tmp_path: Path, quiet_place: None
) -> None:
    path = viewer.catalogue.images.items()[0][1].file
    with opened_page(browser, viewer.server.address) as page:
        settled(page)
        page.keyboard.press("2")
        page.locator("#panel-stage input[type=range]").first.press("PageUp")
        page.locator(".card[draggable]").nth(3).locator("input").click()
        settled(page)
        page.locator("#tab-export").click()
        for name, file in (("Pipeline JSON", "p.json"), ("PNG", "p.png"), ("Look-up table .cube", "p.cube")):
            with page.expect_download() as download:
                page.get_by_role("button", name=name, exact=True).click()
            download.value.save_as(tmp_path / file)
        page.get_by_role("button", name="Command line").click()
        page.locator("textarea.command").wait_for()
        assert page.locator("textarea.command").input_value().startswith("adaptiveisp run ")
        kept = len(card_names(page)) - 1
    assert len(json.loads((tmp_path / "p.json").read_text())["stages"]) == kept
    words = ("run", str(path), "--pipeline", "p.json", "--detector", RED, "--size", str(SIZE), "--out", "seen", "-q")
    assert main([*words]) == 0
    with Image.open(tmp_path / "seen" / "a.png") as ours, Image.open(tmp_path / "p.png") as theirs:
        assert np.array_equal(np.asarray(ours), np.asarray(theirs))


DROP = """([bytes, name]) => {
  const content = Uint8Array.from(atob(bytes), (letter) => letter.charCodeAt(0));
  const dropped = new DataTransfer();
  dropped.items.add(new File([content], name));
  window.dispatchEvent(new DragEvent("drop", { dataTransfer: dropped, bubbles: true, cancelable: true }));
}"""


@pytest.mark.long
def test_a_raw_is_dropped_and_removed(browser: Any, viewer: Viewer, tmp_path: Path) -> None:
    import base64

    content = base64.b64encode(small_dng(tmp_path / "d.dng", 5).read_bytes()).decode()
    with opened_page(browser, viewer.server.address) as page:
        settled(page)
        page.evaluate(DROP, [content, "<i>dropped.dng"])
        page.locator(".image-name", has_text="dropped").wait_for()
        settled(page)
        assert page.locator(".image-pick[aria-current]").inner_text().startswith("<i>dropped.dng")
        assert page.locator("i").count() == 0
        page.get_by_role("button", name="Remove <i>dropped.dng").click()
        settled(page)
        assert page.locator(".image-name").all_inner_texts() == ["a.dng", ODD_NAME]
    assert not list(viewer.uploads.folder.iterdir())


@pytest.mark.long
def test_why_forces_a_choice(browser: Any, viewer: Viewer) -> None:
    with opened_page(browser, viewer.server.address) as page:
        settled(page)
        before = card_names(page)
        page.locator("#tab-why").click()
        page.locator(".why-step").first.wait_for()
        page.locator(".why-step").first.locator(".bar-row:not([disabled])").first.click()
        settled(page)
        assert card_names(page) != before


@pytest.mark.long
def test_without_a_token_there_is_a_reason(browser: Any, viewer: Viewer) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(viewer.server.address.partition("#")[0])
    page.get_by_text("the token is missing or wrong").first.wait_for()
    context.close()


@pytest.mark.long
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_no_serious_violation(browser: Any, viewer: Viewer, axe: str, theme: str) -> None:
    with opened_page(browser, viewer.server.address, theme) as page:
        settled(page)
        for tab in ("stage", "boxes", "why", "export"):
            page.locator(f"#tab-{tab}").click()
            settled(page)
            assert not serious(page, axe), tab
        page.keyboard.press("2")
        assert not serious(page, axe)
        page.locator("#keys").click()
        assert not serious(page, axe)


@pytest.mark.long
@pytest.mark.parametrize(("width", "height"), [(1280, 720), (1024, 768), (820, 1180)])
def test_nothing_is_cut_off(browser: Any, viewer: Viewer, width: int, height: int) -> None:
    with opened_page(browser, viewer.server.address, width=width, height=height) as page:
        settled(page)
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
        for name in (".pane", ".cards", ".side-panel", ".toolbar", "#reset", "#worth"):
            box = page.locator(name).bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= width + 1 and box["height"] > 24, name
        assert page.locator(".pane").bounding_box()["height"] >= 200


@pytest.mark.long
def test_a_pipeline_is_opened_and_kept_for_other_images(browser: Any, viewer: Viewer, tmp_path: Path) -> None:
    pipeline = Pipeline((Stage("exposure", {"ev": 1.25}), Stage("gamma", {"gamma": 0.6})))
    pipeline.save(tmp_path / "mine.json")
    (tmp_path / "bad.json").write_text(json.dumps({**pipeline.to_json(), "module_set": "none such"}))
    with opened_page(browser, viewer.server.address) as page:
        settled(page)
        page.locator("#tab-export").click()
        page.get_by_label("Pipeline JSON to open").set_input_files(tmp_path / "mine.json")
        page.locator("#status", has_text="mine.json is open").wait_for()
        page.locator("#keep").click()
        settled(page)
        page.locator(".image-pick").nth(1).click()
        settled(page)
        assert page.locator(".image-pick[aria-current]").inner_text().startswith(ODD_NAME)
        assert card_names(page) == ["exposure", "gamma"]
        page.get_by_role("button", name="Reset to the policy").click()
        settled(page)
        assert card_names(page) != ["exposure", "gamma"]
    answer = viewer.post("/api/image/check", pipeline=json.loads((tmp_path / "bad.json").read_text()))
    assert answer.status == 422 and "none such" in answer.json["error"]


@pytest.mark.long
def test_what_stages_are_worth_is_not_shown_after_a_change(browser: Any, viewer: Viewer) -> None:
    def ask() -> None:
        page.locator("#worth").click()
        page.locator(".worth").first.wait_for()

    with opened_page(browser, viewer.server.address) as page:
        settled(page)
        ask()
        assert page.locator(".worth").count() == len(card_names(page)) and page.inner_text("#status")
        page.locator(".card[draggable] .card-pick").first.click()
        settled(page)
        assert page.locator(".worth").count() == len(card_names(page))  # another stage is looked at: nothing changed
        page.locator("#panel-stage input[type=range]").first.press("ArrowRight")
        page.locator(".worth").first.wait_for(state="detached")
        settled(page)
        assert page.locator(".worth").count() == 0 and page.inner_text("#status") == ""
        ask()
        page.get_by_label("Least score").fill("60")
        settled(page)
        assert page.locator(".worth").count() == 0
        ask()
        page.locator(".image-pick").nth(1).click()
        settled(page)
        assert page.locator(".worth").count() == 0


WORTH_TEXT = """async () => {
  const { worthOf, worthText } = await import("/cards.js");
  const boxes = (...scores) => ({ loss: null, boxes: scores.map((score) => ({ score })) });
  const stage = (whole, one, i) => ({ name: `${i + 1} m`, worth: worthOf(whole, one, 0.25) });
  const text = (whole, ...without) => worthText(without.map((one, i) => stage(whole, one, i)), 0.25);
  return [
    text(boxes(0.5), boxes(0.9), boxes(0.2), boxes(0.5, 0.7)),
    text(boxes(0.1), boxes(), boxes(0.2)),
    text(boxes(0.5), boxes(0.5), boxes()),
  ];
}"""


@pytest.mark.long
def test_the_worth_of_stages_in_words(browser: Any, viewer: Viewer) -> None:
    with opened_page(browser, viewer.server.address) as page:
        settled(page)
        hurt, nothing, fine = page.evaluate(WORTH_TEXT)
    assert hurt == "3 m hurts most, then 1 m, on this image; change it or switch it off"
    assert nothing.startswith("no box of 25 % with or without any stage")
    assert fine == "no stage hurts on this image"
