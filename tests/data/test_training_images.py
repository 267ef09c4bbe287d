import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from adaptiveisp.data.opening import open_dataset
from adaptiveisp.data.random_crop import LEAST_SIDE, LEAST_VISIBLE, draw_crop
from adaptiveisp.data.synthesize import synthesize_set
from adaptiveisp.data.synthetic import SynthesisConfig, read_codes
from adaptiveisp.data.training_images import PhotoTrainingImages, RawTrainingImages, TrainingImage, TrainingImages
from adaptiveisp.errors import DataError, RawFileError
from adaptiveisp.types import Annotation, RawImage, Sample, Unprocessing
from tests.support.photos import labelled_photos


def identity(categories: dict[int, str]) -> dict[int, int]:
    return {key: key for key in categories}


def stream(folder: Path, seed: int = 1) -> PhotoTrainingImages:
    labels = labelled_photos(folder, n=3, width=96, height=64)
    synthesis = SynthesisConfig("normal", noise="none", seed=seed)
    return PhotoTrainingImages(labels, folder / "images", identity, 64, synthesis)


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
        PhotoTrainingImages(labels, tmp_path / "images", lambda categories: {}, 64, SynthesisConfig("mixed"))


def test_photos_become_linear_light_of_their_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without gains and matrix, brightening, the code curve and the tone curve lead back to the photo's own grey."""
    labels = labelled_photos(tmp_path, n=1)
    Image.fromarray(np.full((48, 64, 3), 51, np.uint8)).save(tmp_path / "images" / "photo1.png")
    plain = Unprocessing(0.5, 1.0, 1.0, 1.0, (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0), 0.0, 0.0, "none", 0)
    monkeypatch.setattr(SynthesisConfig, "random_unprocessing", lambda *given: plain)
    item = PhotoTrainingImages(labels, tmp_path / "images", identity, 32, SynthesisConfig("normal"))[0]
    tone = (item.image / 0.5) ** (1 / 2.2)
    assert torch.allclose((3 * tone**2 - 2 * tone**3) / 0.9, torch.full((3, 32, 32), 0.2), atol=1e-5)
    assert item.light == 0.5


def test_each_photo_is_decoded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []

    def counted(path: Path) -> Tensor:
        decoded.append(path.name)
        return read_codes(path)

    monkeypatch.setattr("adaptiveisp.data.training_images.read_codes", counted)
    photos = stream(tmp_path)
    for number in range(9):
        photos[number]
    assert sorted(decoded) == ["photo1.png", "photo2.png", "photo3.png"]


@dataclass
class RawsInMemory:
    """A data set without files that counts how often each sample is read; those in `broken` cannot be."""

    samples: Sequence[Sample]
    raws: Sequence[RawImage]
    broken: tuple[int, ...] = ()
    error: type[Exception] = RawFileError
    reads: list[int] = field(default_factory=list)
    name: str = "raws in memory"
    categories: dict[int, str] = field(default_factory=lambda: {1: "person", 47: "cup", 62: "chair"})

    def read(self, sample: Sample) -> RawImage:
        place = self.samples.index(sample)
        self.reads.append(place)
        if place in self.broken:
            raise self.error(f"{sample.name} is damaged")
        return self.raws[place]


def labelled(category: int, *box: float, iscrowd: int = 0) -> Annotation:
    x, y, width, height = box
    return Annotation(category, (x, y, width, height), width * height, iscrowd)


def raw_of(picture: Float[Tensor, "3 height width"]) -> RawImage:
    """A raw that develops into the picture."""
    data = picture.permute(1, 2, 0).numpy().astype(np.float32)
    return RawImage(data, None, (0.0, 0.0, 0.0, 0.0), 1.0)


def in_memory(pictures: Sequence[Tensor], *annotations: Annotation, broken: tuple[int, ...] = ()) -> RawsInMemory:
    """Pictures with the same objects; the light of each is its place."""
    samples = [
        Sample(10 + i, 0, f"raw{i}.png", picture.shape[2], picture.shape[1], annotations, light=(i + 1) / 100)
        for i, picture in enumerate(pictures)
    ]
    return RawsInMemory(samples, [raw_of(picture) for picture in pictures], broken)


def noise(n: int, height: int = 24, width: int = 30) -> list[Tensor]:
    return list(torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(n)))


CUP = labelled(47, 5, 4, 20, 16)


def place_in(item: TrainingImage) -> int:
    """Which picture of `in_memory` it shows."""
    assert item.light is not None
    return round(item.light * 100) - 1


def edges_of(item: TrainingImage) -> tuple[float, float, float, float]:
    """Where the sides x = 0, x = size, y = 0, y = size of an image lie in the frame that `coordinates` drew."""
    size = item.image.shape[1]
    centres = np.arange(2, size - 2) + 0.5  # the border is blurred on one side only
    found: list[float] = []
    for values in (item.image[0].mean(dim=0), item.image[1].mean(dim=1)):
        slope, start = np.polyfit(centres, values[2 : size - 2].double().numpy(), 1)
        found += [start, start + slope * size]
    return found[0], found[1], found[2], found[3]


def coordinates(height: int, width: int) -> Tensor:
    """A frame whose red is x / width and whose green is y / height."""
    x, y = (torch.arange(width) + 0.5) / width, (torch.arange(height) + 0.5) / height
    return torch.stack([x.expand(height, width), y[:, None].expand(height, width), torch.zeros(height, width)])


@pytest.mark.parametrize(("height", "width"), [(170, 420), (420, 170), (70, 80)])
def test_boxes_of_raws_lie_on_what_they_label(height: int, width: int) -> None:
    """In a frame that shows its own coordinates, each object is where its box is, and hidden objects have none."""
    size = 64
    corners = [*product((0.0, 0.27, 0.53, 0.8), (0.1, 0.35, 0.7))]
    objects = [labelled(i, x * width, y * height, 0.2 * width, 0.3 * height) for i, (x, y) in enumerate(corners)]
    shortest = 1.8 * min(height, width) / size  # 1.8 pixels of the image from the largest crop, 2.4 from the smallest
    objects += [labelled(12, width / 2, height / 2, shortest, 20), labelled(13, width / 2, height / 2, 20, shortest)]
    raws = in_memory([coordinates(height, width)], *objects)
    raws.categories = {i: str(i) for i in range(len(objects))}
    photos = RawTrainingImages(raws, identity, size, seed=4)
    shown = hidden = mirrored = too_small = 0
    for number in range(60):
        item = photos[number]
        left, right, top, bottom = edges_of(item)
        mirrored += left > right
        boxes = dict(zip(item.targets.labels.tolist(), item.targets.boxes.tolist(), strict=True))
        for category, annotation in enumerate(objects):
            # The object in pixels of the image, by what the image shows.
            x, y, box_width, box_height = annotation.bbox
            xs = sorted(size * (edge / width - left) / (right - left) for edge in (x, x + box_width))
            ys = [size * (edge / height - top) / (bottom - top) for edge in (y, y + box_height)]
            clipped = [min(max(value, 0.0), size) for value in (xs[0], ys[0], xs[1], ys[1])]
            sides = (clipped[2] - clipped[0], clipped[3] - clipped[1])
            visible = sides[0] * sides[1] / (xs[1] - xs[0]) / (ys[1] - ys[0])
            if category in boxes:
                shown += 1
                assert boxes[category] == pytest.approx(clipped, abs=0.1)
                assert visible > LEAST_VISIBLE - 0.01 and min(sides) > LEAST_SIDE - 0.05
            else:
                hidden += visible < LEAST_VISIBLE
                too_small += visible > 0.99
                assert visible < LEAST_VISIBLE + 0.01 or min(sides) < LEAST_SIDE + 0.05
    assert shown > 100 and hidden > 20 and 15 < mirrored < 45 and too_small > 0


def test_a_folder_of_synth_is_a_stream_of_its_raws(tmp_path: Path) -> None:
    labels = labelled_photos(tmp_path, n=3, width=96, height=64)
    options = SynthesisConfig("dark,normal", draws=1, noise="none")
    synthesize_set(labels, tmp_path / "images", tmp_path / "out", options, {})
    raws = open_dataset(tmp_path / "out")
    photos = RawTrainingImages(raws, identity, 48)
    assert isinstance(photos, TrainingImages)
    items = [photos[number] for number in range(6)]
    assert {item.light for item in items} == {sample.light for sample in raws.samples}
    for item in items:
        assert item.light is not None and item.image.shape == (3, 48, 48)
        assert 0.02 * item.light < item.image.mean() < 0.5 * item.light
        for x0, y0, x1, y1 in item.targets.boxes.round().int().tolist():
            redness = item.image[0] / item.image.amax(dim=0) - item.image[1] / item.image.amax(dim=0)
            inside = torch.zeros(48, 48, dtype=torch.bool)
            inside[y0:y1, x0:x1] = True
            assert redness[inside].mean() > redness[~inside].mean() + 0.2
    assert sum(len(item.targets.labels) for item in items) >= 4 and photos.skipped == {}


def test_raws_depend_on_seed_and_number_only() -> None:
    raws = in_memory(noise(5), CUP)
    forward, backward, other = (RawTrainingImages(raws, identity, 16, seed) for seed in (1, 1, 2))
    numbers = range(12)
    first = [forward[number] for number in numbers]
    again = [backward[number] for number in reversed(numbers)][::-1]
    for a, b in zip(first, again, strict=True):
        assert a.number == b.number and torch.equal(a.image, b.image) and torch.equal(a.targets.boxes, b.targets.boxes)
    assert not any(torch.equal(a.image, other[a.number].image) for a in first)


def test_an_epoch_shows_every_raw_once_in_a_new_order() -> None:
    photos = RawTrainingImages(in_memory(noise(6), CUP), identity, 16)
    epochs = [[place_in(photos[6 * epoch + place]) for place in range(6)] for epoch in range(4)]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4
    other = RawTrainingImages(in_memory(noise(6), CUP), identity, 16, seed=1)
    assert [place_in(other[place]) for place in range(6)] != epochs[0]
    repeated = [number for number in range(6, 12) if torch.equal(photos[number].image, photos[number - 6].image)]
    assert not repeated  # another crop each time


@pytest.mark.parametrize("usable", list(product((True, False), repeat=4))[:-1])
def test_the_next_of_the_epoch_stands_in_for_a_broken_raw(usable: tuple[bool, ...]) -> None:
    broken = tuple(place for place in range(4) if not usable[place])
    whole = RawTrainingImages(in_memory(noise(4), CUP), identity, 16, seed=3)
    raws = in_memory(noise(4), CUP, broken=broken)
    photos = RawTrainingImages(raws, identity, 16, seed=3)
    for number in reversed(range(12)):
        epoch = [place_in(whole[number // 4 * 4 + place]) for place in range(4)]
        place = number % 4
        expected = next(index for index in epoch[place:] + epoch[:place] if index not in broken)
        assert place_in(photos[number]) == expected
        if epoch[place] == expected:
            assert torch.equal(photos[number].image, whole[number].image)
    assert photos.skipped == {f"raw{place}.png (draw 0)": f"raw{place}.png is damaged" for place in broken}
    assert sorted(raws.reads) == list(range(4))  # neither usable nor broken raws are read twice


def test_broken_files_are_named_with_the_reason(tmp_path: Path) -> None:
    labels = labelled_photos(tmp_path, n=3)
    synthesize_set(labels, tmp_path / "images", tmp_path / "out", SynthesisConfig("dark,normal"), {})
    first, second = (tmp_path / "out" / light / "images" / "photo2_0.png" for light in ("dark", "normal"))
    first.write_bytes(b"no picture")
    second.unlink()
    photos = RawTrainingImages(open_dataset(tmp_path / "out"), identity, 32)
    lights = [photos[number].light for number in range(6)]
    assert len(set(lights)) == 4
    # Both files have the same name below their light's folder.
    assert set(photos.skipped) == {"images/photo2_0.png (draw 0)", "images/photo2_0.png (draw 1)"}
    assert all(len(reason.splitlines()) == 1 for reason in photos.skipped.values())
    assert str(first) in photos.skipped["images/photo2_0.png (draw 0)"]
    assert str(second) in photos.skipped["images/photo2_0.png (draw 1)"]


def test_a_surprise_in_one_raw_is_a_reason_too() -> None:
    raws = in_memory(noise(2), CUP, broken=(1,))
    raws.error = ZeroDivisionError
    photos = RawTrainingImages(raws, identity, 16)
    assert [place_in(photos[number]) for number in range(2)] == [0, 0]
    assert "unexpected ZeroDivisionError: raw1.png is damaged;" in photos.skipped["raw1.png (draw 0)"]


def test_when_every_raw_is_broken_the_first_reason_is_told() -> None:
    whole = RawTrainingImages(in_memory(noise(3), CUP), identity, 16)
    photos = RawTrainingImages(in_memory(noise(3), CUP, broken=(0, 1, 2)), identity, 16)
    reason = f"raws in memory: no image could be used; the first: raw{place_in(whole[1])}.png is damaged"
    for number in (1, 0, 5):  # the first that was asked for, also when another is asked for later
        with pytest.raises(DataError, match=reason):
            photos[number]


def test_a_size_that_does_not_fit_the_labels_is_a_reason() -> None:
    raws = in_memory(noise(4, height=24, width=30), CUP)
    changes: list[dict[str, int]] = [{}, {"width": 24, "height": 30}, {"width": 31}, {"height": 23}]
    raws.samples = [replace(sample, **change) for sample, change in zip(raws.samples, changes, strict=True)]
    photos = RawTrainingImages(raws, identity, 16)
    assert {place_in(photos[number]) for number in range(4)} == {0}
    assert photos.skipped == {
        "raw1.png (draw 0)": "raw1.png: is 30x24 upright, its labels say 24x30; correct them",
        "raw2.png (draw 0)": "raw2.png: is 30x24 upright, its labels say 31x24; correct them",
        "raw3.png (draw 0)": "raw3.png: is 30x24 upright, its labels say 30x23; correct them",
    }


def whole_frame(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Crops become the top left square of the frame; returns the (height, width) of the frames cropped."""
    sizes: list[tuple[int, int]] = []

    def crop(height: int, width: int, smallest: float, generator: torch.Generator) -> tuple[int, int, int]:
        sizes.append((height, width))
        return 0, 0, min(height, width)

    monkeypatch.setattr("adaptiveisp.data.random_crop._square_crop", crop)
    return sizes


def test_raws_are_developed_upright_with_the_gains_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A mosaic that lies on its side: the labels are of the upright frame, red above."""
    whole_frame(monkeypatch)
    red_left = np.full((24, 26), 100, np.uint16)
    red_left[::2, :12:2] = 1100  # the red sites of the left half, which orientation 6 turns up
    raw = RawImage(red_left, "RGGB", (100.0,) * 4, 4100.0, camera_gains=(2.0, 1.0, 1.0), orientation=6)
    sample = Sample(1, 0, "side.dng", 24, 26, (labelled(47, 0, 0, 24, 12),), light=None)
    raws = RawsInMemory([sample], [raw])
    plain, balanced = (RawTrainingImages(raws, identity, 18, camera_white_balance=gains)[0] for gains in (False, True))
    assert plain.light is None
    assert plain.targets.boxes.tolist() == [[0, 0, 18, 9]]
    for item, red in ((plain, 1 / 4), (balanced, 1 / 2)):
        assert float(item.image[0, :7].mean()) == pytest.approx(red, rel=0.05)
        assert item.image[0, 11:].max() < 0.01 and item.image[1:].mean() < 0.05


def either_way(picture: Tensor, item: TrainingImage) -> Tensor:
    """The picture, mirrored if the image is."""
    return min((picture, picture.flip(2)), key=lambda one: float((one - item.image).abs().max()))


def test_frames_are_kept_no_larger_than_the_smallest_crop_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = whole_frame(monkeypatch)
    pictures = [torch.full((3, *size), 0.5) for size in ((90, 60), (60, 300), (24, 40), (22, 22), (20, 90))]
    photos = RawTrainingImages(in_memory(pictures, CUP), identity, 16)
    order = [place_in(photos[number]) for number in range(5)]
    expected = [(33, 22), (22, 110), (22, 37), (22, 22), (20, 90)]  # 22 = ceil(16 / 0.75)
    assert sizes == [expected[place] for place in order]


def test_reduced_frames_show_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Values of a smooth frame equal those resized at once, and averages of pixels, both bright and dark."""
    whole_frame(monkeypatch)
    phase = torch.arange(176) * (2 * torch.pi / 176)
    smooth = 0.5 + 0.25 * (phase.sin()[:, None] + phase.cos()).expand(3, -1, -1)
    for light in (1.0, 0.003):
        item = RawTrainingImages(in_memory([smooth * light], CUP), identity, 16)[0]
        blocks = torch.nn.functional.avg_pool2d(smooth * light, 11)
        expected = either_way(blocks, item)
        assert torch.allclose(item.image, expected, rtol=0.0, atol=0.03 * light)
        assert float(item.image.mean()) == pytest.approx(float(expected.mean()), rel=1e-3)


def test_fine_stripes_become_their_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels are averaged, so that what is too fine to show does not turn into a pattern."""
    whole_frame(monkeypatch)
    item = RawTrainingImages(in_memory([(torch.arange(180) % 2 * 0.8).expand(3, 180, 180)], CUP), identity, 16)[0]
    assert torch.allclose(item.image[:, 2:-2, 2:-2], torch.tensor(0.4), atol=0.01)


def test_white_stays_white(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding in the resizing does not leave [0, 1]."""
    whole_frame(monkeypatch)
    for side in range(17, 23):
        item = RawTrainingImages(in_memory([torch.ones(3, side, side)], labelled(47, 2, 2, 12, 12)), identity, 17)[0]
        assert item.image.max() <= 1 and item.image.min() > 0.99999


def test_small_frames_keep_their_pixels_to_16_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    whole_frame(monkeypatch)
    (picture,) = noise(1, 16, 16)
    for light in (1.0, 0.003):
        item = RawTrainingImages(in_memory([picture * light], CUP), identity, 16)[0]
        expected = either_way(picture * light, item)
        difference = item.image - expected
        assert difference.abs().max() < 0.51 / 65535
        assert difference.mean().abs() < 0.05 / 65535  # rounded, not cut off: 768 values leave a mean of 0.01


def test_a_full_cache_changes_nothing_but_the_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    raws, few = in_memory(noise(4), CUP), in_memory(noise(4), CUP)
    photos = stream(tmp_path)
    numbers = range(12)
    expected = [RawTrainingImages(raws, identity, 16)[number].image for number in numbers]
    expected_photos = [photos[number].image for number in numbers]
    raws.reads.clear()
    kept = RawTrainingImages(raws, identity, 16)
    for number in numbers:
        assert torch.equal(kept[number].image, expected[number])
    assert len(raws.reads) == 4
    small, small_photos = RawTrainingImages(few, identity, 16), stream(tmp_path / "again")
    frame = small._read(0)
    few.reads.clear()
    monkeypatch.setattr("adaptiveisp.data.training_images.CACHED_BYTES", int(1.5 * frame.nbytes))
    for number in numbers:
        assert torch.equal(small[number].image, expected[number])
        assert torch.equal(small_photos[number].image, expected_photos[number])
    assert len(few.reads) == 1 + 3 * 3  # one is kept, the others are read in each epoch


def test_raws_without_labels_have_no_targets() -> None:
    raws = in_memory(noise(2), CUP)
    raws.samples = [replace(raws.samples[0], annotations=()), raws.samples[1]]
    photos = RawTrainingImages(raws, identity, 16)
    targets = {place_in(photos[number]): photos[number].targets for number in range(2)}
    assert targets[0].boxes.shape == (0, 4) and targets[0].labels.shape == (0,)
    assert targets[1].labels.tolist() == [47]


def test_labels_are_those_of_the_detector() -> None:
    raws = in_memory(noise(1), CUP, labelled(1, 0, 0, 30, 24), labelled(62, 2, 2, 24, 20), labelled(47, *CUP.bbox))
    item = RawTrainingImages(raws, lambda categories: {47: 5, 62: 0}, 16)[0]
    assert item.targets.labels.tolist() == [5, 0, 5]


@pytest.mark.parametrize(
    "annotations", [(), (labelled(1, 5, 4, 20, 16, iscrowd=1),), (labelled(62, 5, 4, 20, 16),)], ids=str
)
def test_raws_without_any_known_object_are_refused(annotations: tuple[Annotation, ...]) -> None:
    raws = in_memory(noise(2), *annotations)
    with pytest.raises(DataError, match="raws in memory: has no labelled object"):
        RawTrainingImages(raws, lambda categories: {1: 0, 47: 1}, 16)


def test_a_data_set_of_nothing_is_refused() -> None:
    with pytest.raises(DataError, match="raws in memory: has no images"):
        RawTrainingImages(RawsInMemory([], []), identity, 16)


def test_a_photo_that_cannot_be_used_is_left_out_and_named(tmp_path: Path) -> None:
    labels = labelled_photos(tmp_path, n=4)
    content = json.loads(labels.read_text())
    (tmp_path / "images" / content["images"][1]["file_name"]).write_bytes(b"no picture")
    content["images"][2]["width"] += 1
    labels.write_text(json.dumps(content))
    photos = PhotoTrainingImages(labels, tmp_path / "images", identity, 32, SynthesisConfig("dark"))
    assert all(photos[number].image.shape == (3, 32, 32) for number in range(8))
    broken, other = (content["images"][place]["file_name"] for place in (1, 2))
    assert set(photos.skipped) == {broken, other}
    assert "cannot be read as a photo" in photos.skipped[broken] and "its labels say" in photos.skipped[other]


def test_a_limit_takes_the_first_photos(tmp_path: Path) -> None:
    labels = labelled_photos(tmp_path, n=4)
    first = PhotoTrainingImages(labels, tmp_path / "images", identity, 32, SynthesisConfig("dark"), limit=1)
    assert (
        len(first.photos) == 1 and first.photos[0].file_name == json.loads(labels.read_text())["images"][0]["file_name"]
    )
    assert first[0].image.shape == first[3].image.shape


@pytest.mark.parametrize("smallest", (0.25, 0.9, 1.0))
def test_crops_are_as_small_as_asked_and_no_smaller(smallest: float) -> None:
    generator = torch.Generator().manual_seed(0)
    sides = [draw_crop(60, 100, smallest, generator).side for _ in range(200)]
    assert round(smallest * 60) <= min(sides) <= round(smallest * 60) + 2 and max(sides) >= 59
