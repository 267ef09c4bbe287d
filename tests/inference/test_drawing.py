"""Pictures: what is drawn where, that nothing is lost at the edges, and that captions fit."""

import numpy as np
import pytest
from PIL import Image

from adaptiveisp.inference import drawing
from adaptiveisp.inference.drawing import (
    PALETTE,
    PAPER,
    Tile,
    class_colour,
    comparison_figure,
    contact_sheet,
    draw_detections,
    fit_text,
    load_font,
    text_colour,
    wrap_text,
)

GREY = np.full((200, 300, 3), 128, np.uint8)


def has(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Where the picture has exactly this colour."""
    return (picture == np.array(colour, np.uint8)).all(axis=-1)


def test_a_box_is_outlined_in_its_colour_and_only_there() -> None:
    red = (255, 0, 0)
    picture = draw_detections(GREY, [[100, 80, 220, 180]], ["cat"], [0.87], [red], line_width=2, font_size=12)
    for row, column in ((130, 100), (130, 220), (180, 160), (80, 215)):
        assert has(picture, red)[row, column]
    assert has(picture, (128, 128, 128))[90:170, 110:210].all(), "the inside stays as it was"
    assert has(picture, (128, 128, 128))[:50].all()
    assert has(picture, red)[64:79, 102:130].any(), "the label lies above the box"
    assert (GREY == 128).all(), "the input is not changed"


def test_the_label_shows_text_and_score() -> None:
    plain, scored, other = (
        draw_detections(GREY, [[100, 80, 220, 180]], [label], scores)
        for label, scores in (("cat", None), ("cat", [0.87]), ("dog", None))
    )
    assert (plain != scored).any() and (plain != other).any()


def test_boxes_beyond_the_image_keep_a_visible_label() -> None:
    colour = (1, 200, 30)
    for box in ([-50, -50, 400, 300], [250, -20, 290, 10], [10, 190, 60, 230], [280, 100, 299, 120]):
        picture = draw_detections(GREY, [box], ["potted plant"], [0.5], [colour], font_size=12)
        assert picture.shape == GREY.shape
        # A label of 12 pixel text is wider than 60 and its background fills most of it.
        assert has(picture, colour).sum() > 500


def test_labels_of_nested_boxes_do_not_cover_each_other() -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    boxes = [[50, 60, 250, 190]] * 3
    together = draw_detections(GREY, boxes, ["one"] * 3, [0.9, 0.8, 0.7], colours, font_size=12)
    alone = draw_detections(GREY, boxes[:1], ["one"], [0.9], colours[:1], font_size=12)
    np.testing.assert_array_equal(together[:59], alone[:59], "the best score has its label above the box")
    assert has(together, colours[0])[150, 250], "and its outline on top"
    for colour in colours[1:]:
        assert has(together, colour).sum() > 200, "the others find another place"


def test_no_boxes_leave_the_image_as_it_is_and_default_colours_follow_the_label() -> None:
    np.testing.assert_array_equal(draw_detections(GREY, [], []), GREY)
    picture = draw_detections(GREY, [[20, 60, 90, 150], [120, 60, 190, 150], [210, 60, 280, 150]], ["b", "a", "b"])
    assert (
        has(picture, PALETTE[1])[100, 20] and has(picture, PALETTE[0])[100, 120] and has(picture, PALETTE[1])[100, 210]
    )


def test_wrong_input_is_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        draw_detections(GREY.astype(np.float32), [], [])
    with pytest.raises(ValueError, match="uint8"):
        draw_detections(GREY[..., 0], [], [])
    for labels, scores in ((["a", "b"], None), (["a"], [0.1, 0.2])):
        with pytest.raises(ValueError, match="same length"):
            draw_detections(GREY, [[0, 0, 9, 9]], labels, scores)


def contrast(a: tuple[int, int, int], b: tuple[int, int, int]) -> float:
    """Contrast ratio of two sRGB colours. Source: WCAG 2.1, relative luminance."""

    def luminance(colour: tuple[int, int, int]) -> float:
        linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in (c / 255 for c in colour)]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_text_can_be_read_on_every_colour_of_the_palette() -> None:
    for index in range(len(PALETTE)):
        colour = class_colour(index)
        assert contrast(text_colour(colour), colour) >= 3.0
    assert len(set(PALETTE)) == len(PALETTE)


def test_text_is_cut_and_wrapped_to_the_width() -> None:
    font = load_font(14)
    assert fit_text("short", font, 500) == "short"
    cut = fit_text("a very long name that does not fit", font, 90)
    assert cut.endswith("…") and font.getlength(cut) <= 90 < font.getlength(cut[:-1] + "xxxx")
    lines = wrap_text("tone 1.00 0.95 1.10 0.70 1.30 0.55 0.80 1.99", font, 100)
    assert len(lines) > 1 and all(font.getlength(line) <= 100 for line in lines)
    assert " ".join(lines) == "tone 1.00 0.95 1.10 0.70 1.30 0.55 0.80 1.99"
    assert wrap_text("", font, 100) == []


def test_without_matplotlib_there_is_still_a_font(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drawing.importlib.util, "find_spec", lambda name: None)
    load_font.cache_clear()
    try:
        assert load_font(13).getlength("width") > 10
        assert (draw_detections(GREY, [[50, 60, 250, 190]], ["cat"]) != GREY).any()
    finally:
        load_font.cache_clear()


def flat(value: int, height: int = 60, width: int = 90) -> np.ndarray:
    return np.full((height, width, 3), value, np.uint8)


def test_a_contact_sheet_holds_every_picture_in_its_place() -> None:
    tiles = [Tile(flat(40 * (i + 1)), f"image {i}", ["exposure ev 1.5"] * i) for i in range(5)]
    sheet = np.asarray(contact_sheet(tiles, columns=2, tile_width=90, gap=10))
    assert sheet.shape[1] == 10 + 2 * 100
    # Column 0 at 10, column 1 at 110; the first row starts at 10 and every picture keeps its size.
    for index in range(5):
        level = (index + 1) * 40
        found = np.argwhere(has(sheet, (level,) * 3))
        inside = found[(found[:, 1] >= 10 + 100 * (index % 2)) & (found[:, 1] < 100 + 100 * (index % 2))]
        assert len(inside) >= 58 * 88
    assert has(sheet, (40, 40, 40))[12:68, 12:98].all()
    assert has(sheet, PAPER)[:9].all()
    below_first, below_empty = sheet[72:95, 10:100], sheet[72:95, 0:9]
    assert (below_first < 100).any() and (below_empty == 255).all(), "captions are written below, inside the column"


def test_longer_captions_make_a_row_higher_and_few_tiles_a_sheet_narrower() -> None:
    short, long = (contact_sheet([Tile(flat(9), "a", ["line"] * n), Tile(flat(9), "b")], 4, 90) for n in (1, 6))
    assert long.height > short.height + 60 and long.width == short.width < 4 * 90
    assert (
        contact_sheet([Tile(flat(9, 120, 90), "a")], 1, 90).height - contact_sheet([Tile(flat(9), "a")], 1, 90).height
        == 60
    )
    with pytest.raises(ValueError, match="at least one tile"):
        contact_sheet([], 3)


def test_a_comparison_has_rows_of_images_and_columns_of_policies() -> None:
    cells = [[Tile(flat(50), ""), Tile(flat(100), "")], [Tile(flat(150), ""), Tile(flat(200), "", ["gamma 0.5"])]]
    figure = comparison_figure(cells, ["none", "learned"], ["light 0.01", "light 0.3"], cell_width=90)
    assert isinstance(figure, Image.Image)
    pixels = np.asarray(figure)
    corners = {level: np.argwhere(has(pixels, (level,) * 3)).min(axis=0) for level in (50, 100, 150, 200)}
    assert corners[50][0] == corners[100][0] < corners[150][0] == corners[200][0]
    assert corners[50][1] == corners[150][1] < corners[100][1] == corners[200][1]
    assert all(has(pixels, (level,) * 3).sum() >= 60 * 90 for level in corners)
    assert (pixels[:, : corners[50][1]] < 200).any(), "row titles"
    assert comparison_figure(cells, ["none", "learned"], cell_width=90, row_titles=[]).width < figure.width
    for titles, rows in ((["one"], []), (["one", "two"], ["only one"])):
        with pytest.raises(ValueError, match="title"):
            comparison_figure(cells, titles, rows)
