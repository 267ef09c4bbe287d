"""Training images of several data sets: each once an epoch, the same for the same number, with values of their own."""

from collections import Counter
from pathlib import Path
from typing import ClassVar

import torch

from adaptiveisp.data.joined_images import JoinedTrainingImages, seed_of
from adaptiveisp.data.opening import open_dataset
from adaptiveisp.data.synthetic import SynthesisConfig
from adaptiveisp.data.training_images import PhotoTrainingImages, RawTrainingImages, TrainingImage
from adaptiveisp.detectors.class_names import COCO_80, map_classes
from tests.support.photos import labelled_photos


def to_label(categories: dict[int, str]) -> dict[int, int]:
    return map_classes(COCO_80, categories).category_to_label


def photos(
    folder: Path, n: int, index: int, kind: type[PhotoTrainingImages] = PhotoTrainingImages, seed: int = 3
) -> PhotoTrainingImages:
    labels = labelled_photos(folder, n)
    how = SynthesisConfig("mixed", seed=seed_of(seed, index))
    return kind(labels, folder / "images", to_label, 32, how, prefix=f"{folder.name}: ")


class Recorder(PhotoTrainingImages):
    """Training images that record the title of the photo of each number."""

    found: ClassVar[list[str]] = []

    def __getitem__(self, number: int) -> TrainingImage:
        index, _ = self.pictures[number]
        self.found.append(self.pictures.titles[index])
        return super().__getitem__(number)


def test_an_epoch_has_each_image_of_each_set_once(tmp_path: Path) -> None:
    parts = [photos(tmp_path / "a", 2, 0, Recorder), photos(tmp_path / "b", 5, 1, Recorder)]
    joined = JoinedTrainingImages(parts, seed=3)
    assert len(joined) == 7
    expected = [f"a: photo{i}.png" for i in (1, 2)] + [f"b: photo{i}.png" for i in range(1, 6)]
    orders = set()
    for epoch in range(3):
        Recorder.found.clear()
        numbers = list(range(7 * epoch, 7 * (epoch + 1)))
        assert [joined[number].number for number in numbers] == numbers
        assert sorted(Recorder.found) == expected
        orders.add(tuple(title[0] for title in Recorder.found))
    assert len(orders) > 1, "the sets take turns in another order in each epoch"


def test_an_image_depends_on_its_number_alone(tmp_path: Path) -> None:
    parts = [photos(tmp_path / "a", 2, 0), photos(tmp_path / "b", 3, 1)]
    forward = JoinedTrainingImages(parts, seed=3)
    images = [forward[number] for number in range(10)]
    again = JoinedTrainingImages(parts, seed=3)
    for number in (9, 2, 7):
        one = again[number]
        assert torch.equal(one.image, images[number].image) and one.light == images[number].light
    assert len({one.light for one in images}) == 10


def test_sets_draw_their_own_light(tmp_path: Path) -> None:
    """The photos of two sets with the same place in their epochs would otherwise be equally dark."""
    first, second = photos(tmp_path / "a", 3, 0), photos(tmp_path / "b", 3, 1)
    lights = [Counter(part[number].light for number in range(6)) for part in (first, second)]
    assert not lights[0] & lights[1]


def test_what_cannot_be_used_is_named_with_its_set(tmp_path: Path) -> None:
    parts: list[PhotoTrainingImages | RawTrainingImages] = [photos(tmp_path / "a", 2, 0)]
    labels = labelled_photos(tmp_path / "b", 2)
    raws = open_dataset(labels, tmp_path / "b" / "images")
    parts.append(RawTrainingImages(raws, to_label, 32, seed_of(3, 1), prefix="b: "))
    for name in ("a", "b"):
        (tmp_path / name / "images" / "photo1.png").write_bytes(b"no picture")
    joined = JoinedTrainingImages(parts, seed=3)
    assert all(joined[number].image.shape == (3, 32, 32) for number in range(4))
    assert list(joined.skipped) == ["a: photo1.png", "b: photo1.png (draw 0)"]
