"""Photos on a page: which are chosen, what is drawn over them, and that the page stays small and safe."""

import re

import numpy as np
import pytest
import torch

from adaptiveisp.evaluation.html_page import render_template
from adaptiveisp.evaluation.photo_choice import GAINED, LOST, TYPICAL, choose
from adaptiveisp.evaluation.photo_grid import Mark, PhotoGrid, PhotoRow, Shot, counts_text, grid_view, marks_view
from adaptiveisp.inference.pictures import eye_gain, half_brightened, page_image
from adaptiveisp.isp.pipeline import Pipeline, Stage
from tests.evaluation.test_report import Page

NASTY = "<script>alert(1)</script>"


def page_of(grid: PhotoGrid) -> str:
    view = {**grid_view(grid), "salt": "t", "colours": {}}
    return render_template("compare.html.j2", title="T", lead="", view=view, table=[], provenance={})


def test_photos_that_gain_and_lose_most_and_those_at_the_median_in_turn() -> None:
    gains = [0.0, 5.0, -2.0, 1.0, 0.5, -3.0, 4.0, 0.4, 0.6]  # median 0.5
    chosen = choose(gains, list(range(9)), 2)
    assert [one.index for one in chosen] == [1, 5, 4, 6, 2, 7]
    assert [one.why for one in chosen] == [GAINED, LOST, TYPICAL] * 2
    assert len({one.index for one in choose(gains, list(range(9)), 3)}) == 9
    assert choose([], []) == []


def test_other_photos_come_before_other_draws_of_one() -> None:
    chosen = choose([9.0, 8.0, 7.0, 5.0, -1.0, -2.0, -3.0], "aabdccc", 2)
    gained = [one.index for one in chosen if one.why == GAINED]
    assert gained == [0, 2], "the second best is a draw of the same photo"


def test_where_nothing_is_lost_typical_photos_take_the_places() -> None:
    chosen = choose([0.0, 1.0, 2.0, 3.0], "abcd", 1)
    assert [(one.index, one.why) for one in chosen] == [(3, GAINED), (1, TYPICAL), (2, TYPICAL)]
    assert [one.why for one in choose([0.0, 0.0], "ab", 1)] == [TYPICAL] * 2


def test_boxes_are_drawn_where_they_are_and_texts_do_not_cover_each_other() -> None:
    marks = [Mark((0.25, 0.5, 0.75, 1.0), "cup", "found", 0.5), Mark((0.25, 0.5, 0.7, 0.9), "cup", "missed")]
    view = marks_view(marks, 440, 200, letters=22)
    second, first = view["marks"]  # the first one is drawn last
    assert (first["x"], first["y"], first["width"], first["height"]) == (110, 100, 220, 100)
    assert (first["text"], second["text"]) == ("cup 50", "cup")
    assert view["text_size"] == 20 and first["text_y"] == pytest.approx(100 - 5)
    assert abs(first["text_y"] - second["text_y"]) >= 20
    far = marks_view([Mark((0.99, -0.5, 1.5, 0.1), "x" * 9, "box", 0.123)], 440, 200, 22)["marks"][0]
    assert far["y"] == 0 and far["width"] == pytest.approx(4.4) and far["text_x"] < 440 - 9 * 10


def test_a_page_of_photos_is_bounded_and_text_stays_text() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 480, 3), dtype=np.uint8)
    pipeline = Pipeline((Stage("exposure", {"ev": -1.5}), Stage("gamma", {"gamma": 0.5})))
    shot = Shot(noise, (Mark((0, 0, 1, 1), NASTY, "false", 0.3),), pipeline, note=NASTY)
    rows = tuple(PhotoRow(f"{NASTY}{i}", "typical", NASTY, (shot, shot, None)) for i in range(3))
    grid = PhotoGrid((NASTY, "b", "c"), rows, f"Choice {NASTY}.", "d", 0.25, left_out=(NASTY,))
    view = grid_view(grid, most_bytes=60_000)
    urls = [cell["src"] for row in view["rows"] for cell in row["shots"] if cell]
    assert len(urls) == 6 and sum(map(len, urls)) < 60_000 * 4 / 3 + 1000
    html = page_of(grid)
    page = Page(html)
    assert page.open == [] and "script" not in page.tags and page.tags.count("img") == 6
    assert page.text.count(NASTY) > 6
    assert re.search(r"<summary title=\"exposure → gamma\">exposure → gamma</summary>", html)
    assert "<dt>exposure</dt><dd>ev −1.5 stops</dd>" in html
    assert all(value.startswith(("data:image/jpeg;base64,", "#")) for value in page.loads)


def test_a_picture_fits_into_its_bytes_or_is_as_small_as_can_be() -> None:
    smooth = np.tile(np.linspace(0, 255, 600).astype(np.uint8)[None, :, None], (400, 1, 3))
    made = page_image(smooth)
    assert (made.width, made.height) == (480, 320)
    noise = np.random.default_rng(0).integers(0, 256, (400, 600, 3), dtype=np.uint8)
    small = page_image(noise, most_bytes=20_000)
    assert len(small.src) < 20_000 * 4 / 3 + 100 and small.width < 480
    assert small.width / small.height == pytest.approx(1.5, 0.02)
    assert page_image(noise, most_bytes=10).width == 120, "the last step"


def test_a_dark_raw_is_brightened_in_part_and_a_bright_one_stays() -> None:
    dark = torch.full((3, 40, 100), 0.01)
    shown, gain = half_brightened(dark)
    assert gain == pytest.approx(80) == eye_gain(dark)
    assert shown[20, 10].tolist() == [3, 3, 3] and shown[20, 90].tolist() == [231, 231, 231]  # sRGB code of 0.8
    bright = torch.full((3, 4, 4), 0.5)
    shown, gain = half_brightened(bright)
    assert gain == 1 and (shown == 128).all()


def test_boxes_are_counted_by_kind() -> None:
    marks = [Mark((0, 0, 1, 1), "a", kind) for kind in ("missed", "found", "found", "false")]
    assert counts_text(marks) == "2 found, 1 missed, 1 false"
