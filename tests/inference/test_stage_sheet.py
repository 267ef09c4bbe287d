"""The sheet of trajectories: which picture stands where, that it is the right one, and what stands below."""

from typing import Any

import numpy as np
import pytest
import torch

from adaptiveisp.inference import stage_sheet as trajectories
from adaptiveisp.inference.drawing import INK, MUTED, PAPER, load_font
from adaptiveisp.inference.stage_sheet import GAP, TEXT_LINES, TEXT_SIZE, trajectory_sheet
from adaptiveisp.isp.pipeline import Pipeline, Stage

TILE = 100
BRIGHTER = Stage("exposure", {"ev": 1.0})
CCM = Stage("ccm", {"rr": 1.1234, "rg": -0.1234, "rb": -0.1234, "gr": -0.1234, "gg": 1.1234, "gb": -0.1234,
                    "br": -0.1234, "bg": -0.1234, "bb": 1.1234})  # fmt: skip


class ByBrightness:
    """One stop more for each tenth of the image's value."""

    name = "by-brightness"

    def plan(self, image: torch.Tensor) -> list[Pipeline]:
        return [Pipeline((BRIGHTER,) * round(10 * float(view.max()))) for view in image]


def grey(value: float, height: int = 40, width: int = 80) -> torch.Tensor:
    return torch.full((1, 3, height, width), value)


def grey_at(sheet: np.ndarray, row_top: int, column: int) -> int:
    """The value in the middle of a picture that is 100 pixels wide and 50 high."""
    pixel = sheet[GAP + row_top + 25, GAP + column * (TILE + GAP) + TILE // 2]
    assert len(set(pixel.tolist())) == 1
    return int(pixel[0])


def captions(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[str, ...]]]:
    """Title and lines of each cell, as they are drawn from now on."""
    seen: list[tuple[str, tuple[str, ...]]] = []
    draw = trajectories._draw

    def spy(sheet: Any, cell: Any, left: int, top: int) -> None:
        seen.append((cell.title, tuple(cell.lines)))
        draw(sheet, cell, left, top)

    monkeypatch.setattr(trajectories, "_draw", spy)
    return seen


def has(picture: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (picture == np.array(colour, np.uint8)).all(axis=-1)


def test_rows_are_images_and_columns_stages() -> None:
    """0.1 and one stop is 0.2; 0.2 and two stops is 0.4, then 0.8: linear, shown as 255 times the value."""
    sheet = trajectory_sheet(ByBrightness(), [grey(0.1), grey(0.2)], ["a", "b"], [0.5, None], tile=TILE)
    assert sheet.dtype == np.uint8 and sheet.shape[1:] == (GAP + 3 * (TILE + GAP), 3)
    second = sheet.shape[0] // 2 - GAP // 2  # rows are equally high, with equal captions
    assert [grey_at(sheet, 0, column) for column in range(3)] == [26, 51, 255]
    assert [grey_at(sheet, second, column) for column in range(3)] == [51, 102, 204]
    end = GAP + 2 * (TILE + GAP)
    assert has(sheet[:second, end - 1 :], PAPER).all(), "a shorter row ends in white"


def test_captions_name_image_light_module_and_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = captions(monkeypatch)
    images = [grey(0.1), grey(0.0), grey(0.1)]
    sheet = trajectory_sheet(ByBrightness(), images, ["a.png", "b.png", "c.png"], [0.03125, 1.0, None])
    assert seen == [
        ("a.png", ("light 0.0312, developed",)),
        ("exposure", ("ev=1",)),
        ("b.png", ("light 1, developed, no module",)),
        ("c.png", ("developed",)),
        ("exposure", ("ev=1",)),
    ]
    assert has(sheet, INK).any() and has(sheet, MUTED).any()


def test_a_long_caption_stays_within_its_column_and_three_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    class Long:
        name = "long"

        def plan(self, image: torch.Tensor) -> list[Pipeline]:
            return [Pipeline((CCM, BRIGHTER))]

    seen = captions(monkeypatch)
    sheet = trajectory_sheet(Long(), [grey(0.2)], ["a_very_long_name_of_a_photograph.jpg"], tile=TILE)
    (title, _), (_, lines), _ = seen
    assert title.startswith("a_very") and title.endswith("…")
    assert len(lines) == TEXT_LINES and lines[-1].endswith("…") and lines[0].startswith("rr=1.12")
    assert max(load_font(TEXT_SIZE).getlength(line) for line in lines) <= TILE
    for column in range(3):
        left = GAP + column * (TILE + GAP) + TILE
        assert has(sheet[GAP + 60 :, left + 1 : left + GAP - 1], PAPER).all(), "nothing is written between columns"
    seen.clear()
    trajectory_sheet(Long(), [grey(0.2)], ["a"])
    assert " ".join(seen[1][1]) == Pipeline((CCM,)).describe()[0].removeprefix("ccm "), "200 pixels hold all nine"


def test_a_row_begins_below_the_longest_caption_of_the_row_before() -> None:
    class Twice:
        name = "twice"

        def plan(self, image: torch.Tensor) -> list[Pipeline]:
            return [Pipeline((BRIGHTER, CCM))]

    sheet = trajectory_sheet(Twice(), [grey(1 / 3)] * 2, ["a"] * 2, tile=TILE)
    tops = np.flatnonzero(np.diff(has(sheet, (85, 85, 85)).any(axis=1).astype(int)) == 1) + 1
    written = np.flatnonzero((has(sheet, INK) | has(sheet, MUTED)).any(axis=1))
    first = written[written < tops[1]]
    assert tops[0] == GAP and len(np.unique(first)) > 3 * TEXT_SIZE, "title and three lines"
    assert tops[1] - first.max() > GAP and sheet.shape[0] - written.max() > GAP


def test_pictures_keep_their_proportions_and_the_longer_side_is_the_tile() -> None:
    class Same:
        name = "same"

        def plan(self, image: torch.Tensor) -> list[Pipeline]:
            return [Pipeline(())]

    for height, width, shown in ((40, 80, (50, 100)), (80, 40, (100, 50)), (300, 300, (100, 100))):
        sheet = trajectory_sheet(Same(), [grey(1 / 3, height, width)], ["a"], tile=TILE)
        rows, columns = np.nonzero(has(sheet, (85, 85, 85)))
        assert (rows.min(), columns.min()) == (GAP, GAP)
        assert (rows.max() + 1 - GAP, columns.max() + 1 - GAP) == shown


def test_images_of_different_sizes_share_a_sheet() -> None:
    images = [grey(0.1, 40, 80), grey(0.1, 80, 40), grey(0.2, 64, 64)]
    sheet = trajectory_sheet(ByBrightness(), images, ["a", "b", "c"], tile=TILE)
    assert sheet.shape[0] > 50 + 100 + 100 and sheet.shape[1] == GAP + 3 * (TILE + GAP)


def test_each_image_is_planned_alone_and_stays_as_it_was() -> None:
    batches = []

    class Spy(ByBrightness):
        def plan(self, image: torch.Tensor) -> list[Pipeline]:
            batches.append((image.shape[0], image.requires_grad))
            return super().plan(image)

    images = [grey(0.1), grey(0.2)]
    trajectory_sheet(Spy(), images, ["a", "b"])
    assert batches == [(1, False), (1, False)]
    assert torch.equal(images[1], grey(0.2))


def test_lists_must_fit() -> None:
    with pytest.raises(ValueError, match="at least one image"):
        trajectory_sheet(ByBrightness(), [], [])
    with pytest.raises(ValueError, match="a name and a light for each"):
        trajectory_sheet(ByBrightness(), [grey(0.1)], ["a", "b"])
    with pytest.raises(ValueError, match="a name and a light for each"):
        trajectory_sheet(ByBrightness(), [grey(0.1)], ["a"], [0.1, 0.2])
