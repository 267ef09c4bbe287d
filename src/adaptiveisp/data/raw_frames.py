"""Training images with their raws, for external ISPs, which develop the raw at its full size in each pass.

The image is the same random crop as for other methods; `RawTrainingImage.frame` has the raw and cuts the same crop out
of the picture that an external ISP makes of it.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from jaxtyping import Float
from torch import Tensor

from adaptiveisp.data.annotation_checks import why_nothing
from adaptiveisp.data.opening import Dataset
from adaptiveisp.data.random_crop import SMALLEST_CROP, Crop, Picture, draw_crop, resized, targets_of
from adaptiveisp.data.synthetic import SyntheticRaws
from adaptiveisp.data.training_images import TrainingImage, shuffled
from adaptiveisp.errors import AdaptiveISPError, DataError, logger, skip_reason
from adaptiveisp.isp.external import RawFrame
from adaptiveisp.raw.develop import develop
from adaptiveisp.raw.unprocess import seeded_generator
from adaptiveisp.types import RawImage, Sample

CACHED_BYTES = 10**9
"""Greatest total of bytes of raws that are kept in memory."""


@dataclass(frozen=True)
class RawTrainingImage(TrainingImage):
    """A training image with its raw.

    Attributes:
        frame: the raw, and the crop that `image` shows; always given.
    """

    frame: RawFrame | None = None


def frames_of(images: Sequence[TrainingImage], repeats: int = 1) -> list[RawFrame] | None:
    """The raws of training images, each several times in a row; None if they have none."""
    frames = [image.frame for image in images if isinstance(image, RawTrainingImage) and image.frame is not None]
    return [frame for frame in frames for _ in range(repeats)] if len(frames) == len(images) else None


class RawFrameTrainingImages:
    """Training images from labelled raws, or from photos of which a new raw is made in each epoch.

    A raw that cannot be used is left out; the next one in the order of the epoch replaces it, and `skipped` has the
    reason.

    Args:
        dataset: labelled raws, or raws made of photos as mosaics.
        to_label: function from categories to category id → detector label; objects of other categories are left out.
        crop_size: side of the square images in pixels.
        seed: seed of all random values.
        smallest_crop: least side of a crop as a share of the image's shorter side, in (0, 1].
        prefix: begins the title of each raw, so that those of several sets differ.

    Raises:
        DataError: there is no sample with an object that the detector knows; on reading an image: no raw can be used.
    """

    def __init__(
        self,
        dataset: Dataset,
        to_label: Callable[[dict[int, str]], dict[int, int]],
        crop_size: int,
        seed: int = 0,
        smallest_crop: float = SMALLEST_CROP,
        prefix: str = "",
    ):
        self.dataset, self.samples, self.to_label = dataset, dataset.samples, to_label(dataset.categories)
        self.crop_size, self.seed, self.smallest_crop, self.prefix = crop_size, seed, smallest_crop, prefix
        self.skipped: dict[str, str] = {}
        self._kept: OrderedDict[tuple[int, int], RawImage] = OrderedDict()
        self._remarks: set[str] = set()
        if not self.samples:
            raise DataError(f"{dataset.name}: has no images; give labelled raws")
        if reason := why_nothing((sample.annotations for sample in self.samples), self.to_label):
            raise DataError(f"{dataset.name}: has no labelled object that the detector knows ({reason}); label it")

    def __len__(self) -> int:
        """Number of raws or photos, which is that of the training images in an epoch."""
        return len(self.samples)

    def __getitem__(self, number: int) -> RawTrainingImage:
        """The image of a number; each epoch has a random order of the raws."""
        epoch, place = divmod(number, len(self.samples))
        order = shuffled(len(self.samples), epoch, self.seed)
        for step in range(len(self.samples)):
            sample = self.samples[int(order[(place + step) % len(order)])]
            title = f"{self.prefix}{sample.name} (draw {sample.draw})"
            if title in self.skipped:
                continue
            try:
                return self._image(number, epoch, sample)
            except AdaptiveISPError as error:
                self.skipped[title] = skip_reason(sample.name, error)
        first = next(iter(self.skipped.values()))
        raise DataError(f"{self.dataset.name}: no image could be used; the first: {first}")

    def _image(self, number: int, epoch: int, sample: Sample) -> RawTrainingImage:
        if isinstance(self.dataset, SyntheticRaws):  # another light and noise in each epoch
            sample = replace(sample, draw=epoch, light=self.dataset.unprocessing(sample.image_id, epoch).light)
        raw = self._read(sample)
        full = develop(raw)
        height, width = full.shape[1:]
        if sample.width and (width, height) != (sample.width, sample.height):
            found, expected = f"{width}x{height} upright", f"{sample.width}x{sample.height}"
            raise DataError(f"{sample.name}: is {found}, its labels say {expected}; correct them")
        crop = draw_crop(height, width, self.smallest_crop, seeded_generator(self.seed, number, 0, "training"))
        part = partial(cropped, crop=crop, size=self.crop_size)
        targets = targets_of(sample.annotations, self.to_label, crop, self.crop_size)
        return RawTrainingImage(number, part(full), targets, sample.light, frame=RawFrame(raw, part))

    def _read(self, sample: Sample) -> RawImage:
        """The raw of a sample; the latest ones are kept in memory."""
        key = (sample.image_id, sample.draw)
        if key not in self._kept:
            raw = self.dataset.read(sample)
            for remark in raw.remarks:
                if remark.kind not in self._remarks:
                    logger.warning("%s", remark.text)
                    self._remarks.add(remark.kind)
            self._kept[key] = raw
            while len(self._kept) > 1 and sum(kept.data.nbytes for kept in self._kept.values()) > CACHED_BYTES:
                self._kept.popitem(last=False)
        return self._kept[key]


def cropped(picture: Picture, crop: Crop, size: int) -> Float[Tensor, "3 _ _"]:
    """The crop of a picture in [0, 1], resized to a square of `size` pixels."""
    part = picture[:, crop.top : crop.top + crop.side, crop.left : crop.left + crop.side]
    return resized((part.flip(2) if crop.flipped else part).contiguous(), size, size)
