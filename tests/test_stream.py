from pathlib import Path

import pytest
import torch

from adaptiveisp.errors import DataError
from adaptiveisp.stream import PhotoStream
from tests.data import labelled_photos


def identity(categories: dict[int, str]) -> dict[int, int]:
    return {key: key for key in categories}


def stream(folder: Path, **changes: object) -> PhotoStream:
    labels = labelled_photos(folder, n=3, width=96, height=64)
    settings = {"size": 64, "light": "normal", "noise": "none", "seed": 1, **changes}
    return PhotoStream(labels, folder / "images", identity, **settings)  # type: ignore[arg-type]


def test_boxes_follow_crop_flip_and_resize(tmp_path: Path) -> None:
    """The photos' red box is where the labels say, in every crop and mirror image that shows it."""
    shown = 0
    for number in range(30):
        item = stream(tmp_path / str(number), seed=number)[number]
        redness = item.image[0] / item.image.amax(dim=0).clamp(min=1e-6) - item.image[1] / item.image.amax(dim=0)
        for x0, y0, x1, y1 in item.targets.boxes.round().int().tolist():
            shown += 1
            inside = torch.zeros(64, 64, dtype=torch.bool)
            inside[y0:y1, x0:x1] = True
            assert redness[inside].mean() > redness[~inside].mean() + 0.2
    assert shown > 15


def test_images_depend_on_seed_and_number_only(tmp_path: Path) -> None:
    first, again, other = stream(tmp_path / "a"), stream(tmp_path / "b"), stream(tmp_path / "c", seed=2)
    again[5]  # the order of asking does not matter
    assert torch.equal(first[7].image, again[7].image) and torch.equal(first[7].targets.boxes, again[7].targets.boxes)
    assert not torch.equal(first[7].image, other[7].image)
    assert not torch.equal(first[7].image, first[7 + 3].image)


def test_an_epoch_shows_every_photo_once(tmp_path: Path) -> None:
    photos = stream(tmp_path)
    lights = {photos[number].light for number in range(6)}
    assert len(lights) == 6  # each with its own light
    means = sorted(round(float(photos[number].image.mean() / photos[number].light), 1) for number in range(3))
    assert len(means) == 3


def test_crowds_and_hardly_visible_boxes_are_no_targets(tmp_path: Path) -> None:
    photos = stream(tmp_path)
    for number in range(20):
        targets = photos[number].targets
        assert 1 not in targets.labels.tolist()  # the crowd of persons
        assert (targets.boxes[:, 2:] - targets.boxes[:, :2] >= 2).all()
        assert (targets.boxes >= 0).all() and (targets.boxes <= 64).all()


def test_photos_without_any_known_object_are_refused(tmp_path: Path) -> None:
    labels = labelled_photos(tmp_path)
    with pytest.raises(DataError, match="no labelled object"):
        PhotoStream(labels, tmp_path / "images", lambda categories: {}, 64, "mixed")
