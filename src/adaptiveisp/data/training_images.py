"""Endless sequence of augmented training images: random square crops of labelled raws, or of raws made from photos.

Image number k depends only on (seed, k), so that a resumed run needs only a counter to continue its data order.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import UInt8, UInt16
from torch import Tensor

from adaptiveisp.data.annotation_checks import why_nothing
from adaptiveisp.data.formats.coco import load_coco
from adaptiveisp.data.formats.folder import load_photos
from adaptiveisp.data.frame_cache import FrameCache
from adaptiveisp.data.image_paths import find_file
from adaptiveisp.data.opening import Dataset, left_out, notes_of, raw_file
from adaptiveisp.data.photo_raws import raw_of_photo
from adaptiveisp.data.random_crop import SMALLEST_CROP, Picture, cut, draw_crop, reduced, resized, targets_of
from adaptiveisp.data.references import Reference, reference_of
from adaptiveisp.data.synthetic import SynthesisConfig, read_codes
from adaptiveisp.errors import DataError, DetectorError, logger, skip_reason
from adaptiveisp.raw.develop import develop
from adaptiveisp.raw.unprocess import seeded_generator
from adaptiveisp.types import Annotation, PseudoLabeler, RawImage, Targets

CACHED_BYTES = 2 * 10**9
"""Greatest total of bytes of decoded photos or developed raws that are kept in memory."""
FULL_SCALE = 65535
"""16-bit value of 1.0 in a developed raw in memory; its steps are far smaller than those of a 12-bit sensor."""


@dataclass(frozen=True)
class TrainingImage:
    """One training image.

    Attributes:
        number: its number, which determines the image together with the seed.
        image: (3, crop_size, crop_size) developed, linear RGB in [0, 1].
        targets: objects in pixels of `image`.
        light: brightness factor in (0, 1], None if unknown.
        reference: the clean photo of `image` in 64x64 cells, sRGB code values in [0, 1]; None if unknown.
    """

    number: int
    image: Picture
    targets: Targets
    light: float | None
    reference: Reference | None = None


@runtime_checkable
class TrainingImages(Protocol):
    """Training images by number."""

    def __getitem__(self, number: int) -> TrainingImage:
        """The image of a number, at least 0."""
        ...


class _Pictures:
    """The images of a data set, in a random order for each epoch, kept in memory after they are read.

    An image that cannot be used is left out and not read again; the next usable one in the order of the epoch replaces
    it.

    Args:
        name: name of the data set, for errors.
        titles: name of each image in reports.
        files: name of each image's file, for errors that do not name it.
        read: function that reads the image of an index.
        seed: seed of the orders.
        keeps: function that states whether the image of an index is to be kept in memory.

    Attributes:
        skipped: title of each image that was read and cannot be used → the reason, in one line.
    """

    def __init__(
        self,
        name: str,
        titles: Sequence[str],
        files: Sequence[str],
        read: Callable[[int], Tensor],
        seed: int,
        keeps: Callable[[int], bool] = lambda index: True,
    ):
        self.name, self.titles, self.files, self.read, self.seed, self.keeps = name, titles, files, read, seed, keeps
        self.skipped: dict[str, str] = {}
        self._unusable: set[int] = set()
        self._cache: dict[int, Tensor] = {}

    def __getitem__(self, number: int) -> tuple[int, Tensor]:
        """Index and pixels of the image for a training image's number.

        Raises:
            DataError: no image can be used.
        """
        for index in _epoch_order(len(self.titles), number, self.seed):
            picture = self._picture(index)
            if picture is not None:
                return index, picture
        first = next(iter(self.skipped.values()))
        raise DataError(f"{self.name}: no image could be used; the first: {first}")

    def _picture(self, index: int) -> Tensor | None:
        """The image of an index; None if it cannot be used."""
        if index in self._cache or index in self._unusable:
            return self._cache.get(index)
        try:
            picture = self.read(index)
        except DetectorError:  # not caused by the image, so that the next one would raise it too
            raise
        except Exception as error:  # no error in one file may stop a run of hours
            self.skipped[self.titles[index]] = skip_reason(self.files[index], error)
            self._unusable.add(index)
            return None
        # No eviction: in a shuffled epoch, LRU would evict images just before they are reused.
        full = sum(kept.nbytes for kept in self._cache.values()) + picture.nbytes > CACHED_BYTES
        if self.keeps(index) and not full:
            self._cache[index] = picture
        return picture


class PhotoTrainingImages:
    """Training images made from labelled photos with a random crop, flip, camera, light and noise.

    Decoded photos stay in memory as bytes, about 1 MB for a photo of COCO. A photo that cannot be used is left out, and
    `skipped` has the reason.

    Args:
        labels: COCO JSON of the photos. With a teacher its annotations are not read, and it may be a folder.
        images: folder of the photos.
        to_label: function from categories to category id → detector label; objects of other categories are left out.
        crop_size: side of the square images in pixels.
        synthesis: light and noise of the raws, and the seed of all random values; draws and format are not used.
        limit: number of photos to use from the start; 0 uses all.
        teacher: detector whose detections on each clean photo replace the annotations; None uses the annotations.
        smallest_crop: least side of a crop as a share of the image's shorter side, in (0, 1].
        prefix: begins the title of each photo, so that those of several sets differ.

    Raises:
        DataError: no photo has an object that the detector knows; on reading an image: no photo can be used.
    """

    def __init__(
        self,
        labels: Path,
        images: Path,
        to_label: Callable[[dict[int, str]], dict[int, int]],
        crop_size: int,
        synthesis: SynthesisConfig,
        limit: int = 0,
        teacher: PseudoLabeler | None = None,
        smallest_crop: float = SMALLEST_CROP,
        prefix: str = "",
    ):
        synthesis.require_one_light()
        checked = load_coco(labels) if teacher is None else load_photos(labels)
        _warn_of_notes(str(labels), checked.notes)
        self.to_label = to_label(checked.categories)
        self.photos = checked.images[: limit or None]
        self.folder, self.crop_size, self.synthesis = Path(images), crop_size, synthesis
        self.teacher, self.smallest_crop = teacher, smallest_crop
        names = [photo.file_name for photo in self.photos]
        self.pictures = _Pictures(str(labels), [prefix + name for name in names], names, self._read, synthesis.seed)
        if teacher is None:
            _check_labelled(str(labels), (photo.annotations for photo in self.photos), self.to_label)
        else:
            _check_pseudo_labels(self.pictures, teacher)

    @property
    def skipped(self) -> dict[str, str]:
        """Title of each photo that was read and cannot be used → the reason."""
        return self.pictures.skipped

    def __len__(self) -> int:
        """Number of photos, which is that of the training images in an epoch."""
        return len(self.photos)

    def __getitem__(self, number: int) -> TrainingImage:
        """The image of a number; each epoch has a random order of the photos."""
        index, pixels = self.pictures[number]
        generator = seeded_generator(self.synthesis.seed, number, 0, "training")
        crop = draw_crop(pixels.shape[1], pixels.shape[2], self.smallest_crop, generator)
        how = self.synthesis.random_unprocessing(generator)
        raw = raw_of_photo(pixels, crop, how, generator)
        photo = self.photos[index]
        annotations = self.teacher.answers[self.pictures.titles[index]] if self.teacher else photo.annotations
        targets = targets_of(annotations, self.to_label, crop, self.crop_size)
        image = resized(raw, self.crop_size, self.crop_size)
        return TrainingImage(number, image, targets, how.light, reference_of(pixels, crop))

    def _read(self, index: int) -> UInt8[Tensor, "3 height width"]:
        """sRGB code values of a photo, 0 to 255."""
        photo = self.photos[index]
        pixels = read_codes(find_file(self.folder, photo.file_name))
        _check_size(photo.file_name, pixels.shape[2], pixels.shape[1], photo.width, photo.height)
        if self.teacher is not None:
            self.teacher.label_photo(self.pictures.titles[index], pixels)
        return pixels


class RawTrainingImages:
    """Training images from labelled raws, which are developed, cropped and flipped but keep their own light and noise.

    Developed raws stay in memory at 6 bytes a pixel, downscaled to the shorter side that the smallest crop needs: about
    4 MB each for 512 pixels and a 3:2 sensor, 1.6 MB for 320. With a cache they stay on disk instead, where other runs
    find them. A raw that cannot be used is left out, and `skipped` has the reason.

    Args:
        dataset: labelled raws.
        to_label: function from categories to category id → detector label; objects of other categories are left out.
        crop_size: side of the square images in pixels.
        seed: seed of all random values.
        camera_white_balance: whether to apply the camera's own gains, see `develop`.
        teacher: detector whose detections on each raw replace the annotations; None uses the annotations.
        cache: cache of developed raws; None keeps them in memory.
        smallest_crop, prefix: as for `PhotoTrainingImages`.

    Raises:
        DataError: there is no sample, or none has an object that the detector knows; on reading an image: no raw can
            be used.
    """

    def __init__(
        self,
        dataset: Dataset,
        to_label: Callable[[dict[int, str]], dict[int, int]],
        crop_size: int,
        seed: int = 0,
        camera_white_balance: bool = False,
        teacher: PseudoLabeler | None = None,
        cache: FrameCache | None = None,
        smallest_crop: float = SMALLEST_CROP,
        prefix: str = "",
    ):
        self.dataset, self.samples = dataset, dataset.samples
        if not self.samples:
            raise DataError(f"{dataset.name}: has no images; give labelled raws")
        _warn_of_notes(dataset.name, notes_of(dataset) if teacher is None else ())
        self.to_label = to_label(dataset.categories)
        self.crop_size, self.seed, self.camera_white_balance = crop_size, seed, camera_white_balance
        self.teacher, self.cache, self.smallest_crop = teacher, cache, smallest_crop
        self._full_sizes: dict[int, tuple[int, int]] = {}
        self._keys: dict[int, str] = {}
        self._mapped: set[int] = set()
        self._known_remarks: set[str] = set()
        names = [sample.name for sample in self.samples]
        titles = [f"{prefix}{sample.name} (draw {sample.draw})" for sample in self.samples]
        self.pictures = _Pictures(dataset.name, titles, names, self._read, seed, lambda i: i not in self._mapped)
        if teacher is None:
            _check_labelled(dataset.name, (sample.annotations for sample in self.samples), self.to_label)
        else:
            _check_pseudo_labels(self.pictures, teacher)

    @property
    def skipped(self) -> dict[str, str]:
        """Each label that is left out, and each raw that was read and cannot be used → the reason."""
        return {**left_out(self.dataset), **self.pictures.skipped}

    def __len__(self) -> int:
        """Number of raws, which is that of the training images in an epoch."""
        return len(self.samples)

    def __getitem__(self, number: int) -> TrainingImage:
        """The image of a number; each epoch has a random order of the raws."""
        index, frame = self.pictures[number]
        sample = self.samples[index]
        height, width = frame.shape[1:]
        crop = draw_crop(height, width, self.smallest_crop, seeded_generator(self.seed, number, 0, "training"))
        image = resized(cut(frame, crop) / FULL_SCALE, self.crop_size, self.crop_size)
        # The sides of the frame are rounded to whole pixels, so each axis has its own exact scale.
        full_width, full_height = self._full_sizes[index]
        scale = (width / full_width, height / full_height)
        annotations = self.teacher.answers[self.pictures.titles[index]] if self.teacher else sample.annotations
        targets = targets_of(annotations, self.to_label, crop, self.crop_size, scale)
        return TrainingImage(number, image, targets, sample.light)

    def _read(self, index: int) -> UInt16[Tensor, "3 height width"]:
        """The developed frame of a sample, in steps of 1 / FULL_SCALE."""
        sample, title = self.samples[index], self.pictures.titles[index]
        # A teacher needs the full frame once, which the cache does not hold.
        usable = self.cache is not None and (self.teacher is None or title in self.teacher.answers)
        file = raw_file(self.dataset, sample) if usable else None
        if self.cache is None or file is None:
            frame, full_size = self._develop(index)
        else:
            if index not in self._keys:
                settings = f"train {self._shorter_side} white balance {self.camera_white_balance}"
                self._keys[index] = self.cache.key(*file, settings)
            frame, full_size, mapped = self.cache.get(self._keys[index], lambda: self._develop(index))
            (self._mapped.add if mapped else self._mapped.discard)(index)
        _check_size(sample.name, *full_size, sample.width, sample.height)
        self._full_sizes[index] = full_size
        return frame

    def _warn_of_remarks(self, raw: RawImage) -> None:
        """Warns of the first remark of each kind."""
        for remark in raw.remarks:
            if remark.kind not in self._known_remarks:
                logger.warning("%s", remark.text)
                self._known_remarks.add(remark.kind)

    @property
    def _shorter_side(self) -> int:
        """Shorter side in pixels at which frames are kept, so that the smallest crop is not upscaled."""
        return math.ceil(self.crop_size / self.smallest_crop)

    def _develop(self, index: int) -> tuple[UInt16[Tensor, "3 height width"], tuple[int, int]]:
        """Develops the frame of a sample; returns it in 16 bits, and (width, height) of the full frame."""
        raw = self.dataset.read(self.samples[index])
        self._warn_of_remarks(raw)
        full = develop(raw, self.camera_white_balance)
        height, width = full.shape[1:]
        sample = self.samples[index]
        _check_size(sample.name, width, height, sample.width, sample.height)  # before a teacher labels it
        if self.teacher is not None:
            gains = None if self.camera_white_balance else raw.camera_gains
            self.teacher.label_raw(self.pictures.titles[index], full, gains)
        frame = reduced(full, self._shorter_side)
        return (frame * FULL_SCALE).round().to(torch.uint16), (width, height)


def _check_size(name: str, width: int, height: int, labelled_width: int, labelled_height: int) -> None:
    """Refuses an image whose size is not that of its labels.

    Args:
        name: name of the image.
        width, height: its sides in pixels, upright.
        labelled_width, labelled_height: the sides in the labels; 0 if they do not state them.

    Raises:
        DataError: the sizes differ.
    """
    if labelled_width and (width, height) != (labelled_width, labelled_height):
        found, expected = f"{width}x{height} upright", f"{labelled_width}x{labelled_height}"
        raise DataError(f"{name}: is {found}, its labels say {expected}; correct them")


def _check_labelled(name: str, annotations: Iterable[Sequence[Annotation]], to_label: dict[int, int]) -> None:
    """Refuses images without an object to learn from.

    Args:
        name: name of the data set.
        annotations: annotations of each image.
        to_label: category id → detector label.

    Raises:
        DataError: no object is of a class that the detector knows.
    """
    if reason := why_nothing(annotations, to_label):
        remedy = "give labelled images, or `train --labels teacher`"
        raise DataError(f"{name}: has no labelled object that the detector knows ({reason}); {remedy}")


def _warn_of_notes(name: str, notes: Iterable[str]) -> None:
    """Warns of the notes on a data set."""
    for note in notes:
        logger.warning("%s: %s", name, note)


def _check_pseudo_labels(pictures: _Pictures, teacher: PseudoLabeler) -> None:
    """Refuses images in which a teacher finds no object; the check ends at the first image with one.

    Raises:
        DataError: the teacher finds no object in any image.
    """
    for number in range(len(pictures.titles)):
        index, _ = pictures[number]  # in the order of training, which needs these images first
        if teacher.answers[pictures.titles[index]]:
            return
    raise DataError(
        f"{pictures.name}: the detector finds no object with a score of teacher_confidence in any image; "
        "give brighter or labelled images, or lower teacher_confidence in a --config file"
    )


def _epoch_order(n: int, number: int, seed: int) -> Iterator[int]:
    """The indices of a data set of `n` images in the order of an epoch, starting at a training image's number.

    Every `n` numbers are an epoch with its own random order. The end of the order is followed by its beginning.
    """
    epoch, place = divmod(number, n)
    order = shuffled(n, epoch, seed)
    return (int(order[(place + step) % n]) for step in range(n))


@lru_cache(maxsize=2)
def shuffled(n: int, epoch: int, seed: int) -> Tensor:
    """The random order of the `n` images of an epoch, cached since each of its images needs it."""
    return torch.randperm(n, generator=seeded_generator(seed, epoch, 0, "order"))
