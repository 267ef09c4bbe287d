"""Raws made on the fly from labelled sRGB photos: the same values that `synth` writes to disk."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image as PilImage
from PIL import ImageOps
from torch import Tensor

from adaptiveisp.data.formats.coco import CocoImage, limit_photos, load_coco
from adaptiveisp.data.image_paths import find_file, inside
from adaptiveisp.errors import DataError
from adaptiveisp.raw.unprocess import (
    NoiseName,
    draw_unprocessing,
    light_range,
    seeded_generator,
    synthesise_mosaic,
    synthesise_rgb,
)
from adaptiveisp.types import RawImage, Sample, Unprocessing


def read_codes(path: Path) -> UInt8[Tensor, "3 height width"]:
    """sRGB code values of a photo, 0 to 255, upright.

    Raises:
        DataError: the file is missing or no picture.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise OSError("is no file")  # a pipe would be waited for without end
        with PilImage.open(path) as picture:
            pixels = np.array(ImageOps.exif_transpose(picture).convert("RGB"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such photo; give the folder of the photos with --images") from None
    except Exception as error:  # a damaged file makes Pillow's readers raise many kinds
        reason = str(error) or type(error).__name__
        raise DataError(f"{path}: cannot be read as a photo ({reason}); replace or remove it") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def read_photo(path: Path) -> Float[Tensor, "3 height width"]:
    """sRGB code values in [0, 1] of a photo, upright.

    Raises:
        DataError: the file is missing or no picture.
    """
    return read_codes(path).float() / 255


class SyntheticRaws:
    """Labelled photos seen as raws under random light and noise; nothing is written.

    Args:
        labels: COCO JSON of the photos.
        images: folder that `file_name` is relative to.
        light: name of a range of brightness, see `unprocess.LIGHTS`.
        draws: how many random cameras, lights and noises a photo gets.
        noise: name of the noise model.
        seed: with the image id and the draw it fixes all randomness.
        limit: keep the first so many photos; 0 keeps all.
        as_mosaic: make Bayer mosaics (as in a DNG) instead of demosaiced RGB (as in a 16-bit PNG).
    """

    def __init__(
        self,
        labels: Path,
        images: Path,
        light: str,
        draws: int = 1,
        noise: NoiseName = "sensor",
        seed: int = 0,
        limit: int = 0,
        as_mosaic: bool = False,
    ):
        light_range(light)
        checked = load_coco(labels)
        self.name = f"{labels} ({light}, {draws} draws, noise {noise}, seed {seed})"
        self.categories = checked.categories
        self.notes: Sequence[str] = checked.notes
        self.file_names = {image.id: inside(image.file_name) for image in checked.images}
        """Image id → file name of every photo, also of those beyond `limit`, without what leads out of a folder."""
        self.light, self.noise, self.seed, self.as_mosaic = light, noise, seed, as_mosaic
        samples = [self._sample(image, draw, Path(images)) for image in checked.images for draw in range(draws)]
        self.samples: Sequence[Sample] = limit_photos(samples, limit)

    def _sample(self, image: CocoImage, draw: int, folder: Path) -> Sample:
        return Sample(
            image_id=image.id,
            draw=draw,
            name=image.file_name,
            width=image.width,
            height=image.height,
            annotations=image.annotations,
            light=self.unprocessing(image.id, draw).light,
            source=find_file(folder, image.file_name),
        )

    def unprocessing(self, image_id: int, draw: int) -> Unprocessing:
        """The camera, light and noise level of a draw."""
        return draw_unprocessing(seeded_generator(self.seed, image_id, draw, "parameters"), self.light, self.noise)

    def read(self, sample: Sample) -> RawImage:
        """The synthetic raw of a sample."""
        photo = read_photo(sample.source)
        how = self.unprocessing(sample.image_id, sample.draw)
        generator = seeded_generator(self.seed, sample.image_id, sample.draw, "noise")
        make = synthesise_mosaic if self.as_mosaic else synthesise_rgb
        return make(photo, how, generator)
