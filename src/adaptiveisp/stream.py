"""Endless augmented training images: random square crops of labelled photos as raws under random light and noise.

Image number k depends only on (seed, k), so a run resumes its data order from one counter.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from adaptiveisp.datasets.coco import CocoImage, load_coco
from adaptiveisp.datasets.synthetic import read_photo
from adaptiveisp.errors import DataError
from adaptiveisp.types import Targets
from adaptiveisp.unprocess import NoiseName, add_noise, draw_unprocessing, light_range, seeded_generator, unprocess

SMALLEST_CROP = 0.75
"""Side of a crop relative to the photo's shorter side, at least."""
LEAST_VISIBLE = 0.3
"""A box keeps its label while this share of its area is inside the crop."""
LEAST_SIDE = 2.0
"""Pixels of the resized crop below which a box is nothing a detector could find."""
CACHED_PHOTOS = 1000
"""Decoded photos kept in memory as bytes, about 1 MB each."""

Picture = Float[Tensor, "3 height width"]


@dataclass(frozen=True)
class TrainingImage:
    """One image of the stream.

    Attributes:
        number: its place in the stream; with the stream's seed it says all.
        image: (3, size, size) developed, linear RGB in [0, 1].
        targets: labels in pixels of `image`.
        light: brightness factor.
    """

    number: int
    image: Picture
    targets: Targets
    light: float


@runtime_checkable
class Stream(Protocol):
    """Training images by number."""

    def __getitem__(self, number: int) -> TrainingImage:
        """The image of that number; any number ≥ 0."""
        ...


class PhotoStream:
    """Raws made on the fly from labelled photos: crop, flip, camera, light, noise.

    Args:
        labels: COCO JSON of the photos.
        images: folder of the photos.
        to_label: category id → detector label; annotations of other categories are left out.
        size: side of the square images in pixels.
        light, noise: names, see `unprocess`.
        seed: fixes everything.

    Raises:
        DataError: no photo has an object that the detector knows.
    """

    def __init__(
        self,
        labels: Path,
        images: Path,
        to_label: Callable[[dict[int, str]], dict[int, int]],
        size: int,
        light: str,
        noise: NoiseName = "sensor",
        seed: int = 0,
    ):
        light_range(light)
        checked = load_coco(labels)
        self.to_label = to_label(checked.categories)
        self.photos = checked.images
        if not any(a.category_id in self.to_label for photo in self.photos for a in photo.annotations if not a.iscrowd):
            raise DataError(f"{labels}: has no labelled object that the detector knows; give labelled photos")
        self.folder, self.size, self.light, self.noise, self.seed = Path(images), size, light, noise, seed
        self._cache: dict[int, Tensor] = {}

    def __getitem__(self, number: int) -> TrainingImage:
        """The image of that number: photos come in a new random order in each epoch."""
        epoch, place = divmod(number, len(self.photos))
        order = torch.randperm(len(self.photos), generator=seeded_generator(self.seed, epoch, 0, "order"))
        photo = self.photos[int(order[place])]
        generator = seeded_generator(self.seed, number, 0, "training")
        pixels = self._pixels(photo)
        top, left, side = _square_crop(pixels.shape[1], pixels.shape[2], generator)
        crop = pixels[:, top : top + side, left : left + side].float() / 255
        flipped = bool(torch.rand(1, generator=generator) < 0.5)
        how = draw_unprocessing(generator, self.light, self.noise)
        raw = add_noise(unprocess(crop.flip(2) if flipped else crop, how), how, generator)
        image = torch.nn.functional.interpolate(
            raw[None], size=(self.size, self.size), mode="bilinear", antialias=True, align_corners=False
        )[0].clamp(0, 1)
        return TrainingImage(number, image, self._targets(photo, top, left, side, flipped), how.light)

    def _pixels(self, photo: CocoImage) -> Tensor:
        if photo.id not in self._cache:
            if len(self._cache) >= CACHED_PHOTOS:
                self._cache.pop(next(iter(self._cache)))
            self._cache[photo.id] = (read_photo(self.folder / photo.file_name) * 255).round().to(torch.uint8)
        return self._cache[photo.id]

    def _targets(self, photo: CocoImage, top: int, left: int, side: int, flipped: bool) -> Targets:
        """Labels of the crop in pixels of the resized square."""
        boxes: list[list[float]] = []
        labels: list[int] = []
        for annotation in photo.annotations:
            if annotation.iscrowd or annotation.category_id not in self.to_label:
                continue
            x, y, width, height = annotation.bbox
            x0, x1 = max(x - left, 0.0), min(x + width - left, float(side))
            y0, y1 = max(y - top, 0.0), min(y + height - top, float(side))
            if x1 <= x0 or y1 <= y0 or (x1 - x0) * (y1 - y0) < LEAST_VISIBLE * width * height:
                continue
            if flipped:
                x0, x1 = side - x1, side - x0
            box = [value * self.size / side for value in (x0, y0, x1, y1)]
            if min(box[2] - box[0], box[3] - box[1]) >= LEAST_SIDE:
                boxes.append(box)
                labels.append(self.to_label[annotation.category_id])
        return Targets(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4), torch.tensor(labels, dtype=torch.long))


def _square_crop(height: int, width: int, generator: torch.Generator) -> tuple[int, int, int]:
    """(top, left, side) of a random square inside a photo."""
    u, v, w = torch.rand(3, generator=generator).tolist()
    side = max(1, round(min(height, width) * (SMALLEST_CROP + (1 - SMALLEST_CROP) * u)))
    return int(v * (height - side + 1)), int(w * (width - side + 1)), side
