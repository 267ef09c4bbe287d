"""Makes raws on the fly from labelled sRGB photos, with the same values that `synth` writes to disk."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image as PilImage
from PIL import ImageOps
from torch import Tensor

from adaptiveisp.data.formats.coco import CocoImage, limit_photos, load_coco
from adaptiveisp.data.image_paths import find_file, inside
from adaptiveisp.errors import DataError, shown
from adaptiveisp.raw.camera_matrices import CAMERA_MATRICES, CameraName, Matrices, find_camera_matrices
from adaptiveisp.raw.illuminants import Illuminants, check_illuminants
from adaptiveisp.raw.noise import CameraNoise
from adaptiveisp.raw.unprocess import (
    LIGHTS,
    NoiseModel,
    NoiseName,
    check_bits,
    draw_unprocessing,
    find_noise,
    light_range,
    seeded_generator,
    synthesise_mosaic,
    synthesise_rgb,
)
from adaptiveisp.types import RawImage, Sample, Unprocessing
from adaptiveisp.utils import defaults
from adaptiveisp.utils.config import require

RawFormat = Literal["png16", "dng"]
FORMATS: tuple[str, ...] = get_args(RawFormat)


def read_codes(path: Path) -> UInt8[Tensor, "3 height width"]:
    """Reads the sRGB code values of a photo, 0 to 255, upright.

    Raises:
        DataError: the file is missing or is not an image.
    """
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            raise OSError("is no file")  # reading a pipe could block
        with PilImage.open(path) as picture:
            pixels = np.array(ImageOps.exif_transpose(picture).convert("RGB"))
    except FileNotFoundError:
        raise DataError(f"{path}: no such photo; give the folder of the photos with --images") from None
    except Exception as error:  # a damaged file can make Pillow raise many kinds of errors
        reason = str(error) or type(error).__name__
        raise DataError(f"{path}: cannot be read as a photo ({reason}); replace or remove it") from error
    return torch.from_numpy(pixels).permute(2, 0, 1)


def read_photo(path: Path) -> Float[Tensor, "3 height width"]:
    """Reads the sRGB code values of a photo, in [0, 1], upright.

    Raises:
        DataError: the file is missing or is not an image.
    """
    return read_codes(path).float() / 255


@dataclass(frozen=True)
class SynthesisConfig:
    """Settings for making raws of sRGB photos.

    Attributes:
        light: name of a range of brightness, a key of `unprocess.LIGHTS`; `synthesize` takes several, joined by commas.
        draws: random cameras, lights and noises per photo; training draws anew for each image and does not use it.
        noise: one of `unprocess.NOISES`, or a noise file made by `adaptiveisp calibrate`.
        seed: seed that determines, with image id and draw, all random values.
        format: "png16" makes demosaiced linear RGB, "dng" a Bayer mosaic.
        bits: depth of the raw's codes, 4 to 14; 0 for that of the noise model (`sensor` 12, `canon-5d4` 14, the
            others none).
        camera_matrix: the sensor's colours: a key of `camera_matrices.CAMERA_MATRICES`, or a YAML file with matrices.
        illuminants: the light sources: "daylight", or "planckian" for lamps to shade; see `raw.illuminants`.

    Raises:
        UsageError: a name does not exist, or a number is out of range.
    """

    light: str
    draws: int = defaults.DRAWS
    noise: NoiseName = defaults.NOISE
    seed: int = defaults.SEED
    format: RawFormat = defaults.RAW_FORMAT
    bits: int = 0
    camera_matrix: CameraName = defaults.CAMERA_MATRIX
    illuminants: Illuminants = defaults.ILLUMINANTS

    def __post_init__(self) -> None:
        require(bool(self.lights), f"light {shown(self.light)} names no light; choose from {', '.join(LIGHTS)}")
        for light in self.lights:
            light_range(light)
        self.noise_model, self.cameras  # noqa: B018 - refuses unknown ones here
        check_bits(self.bits)
        check_illuminants(self.illuminants)
        object.__setattr__(self, "light", ",".join(self.lights))
        require(self.format in FORMATS, f"format {shown(self.format)} does not exist; choose from {', '.join(FORMATS)}")
        require(self.draws >= 1, "draws must be at least 1")
        require(self.seed >= 0, "seed must not be negative")

    @property
    def lights(self) -> tuple[str, ...]:
        """The names in `light`, without repetition."""
        return tuple(dict.fromkeys(light.strip() for light in self.light.split(",") if light.strip()))

    def require_one_light(self) -> None:
        """Refuses several lights, for uses in which each photo has only one.

        Raises:
            UsageError: `light` names several lights.
        """
        require(self.light in LIGHTS, f"light {self.light!r} names {len(self.lights)} lights; give one")

    def unprocessing(self, image_id: int, draw: int) -> Unprocessing:
        """The random camera, light and noise level of a draw of a photo."""
        return self.random_unprocessing(seeded_generator(self.seed, image_id, draw, "parameters"))

    def random_unprocessing(self, generator: torch.Generator) -> Unprocessing:
        """A random camera, light and noise level."""
        how = (self.light, self.noise, self.noise_model, self.bits, self.cameras, self.illuminants)
        return draw_unprocessing(generator, *how)

    @cached_property
    def noise_model(self) -> NoiseModel | CameraNoise | None:
        """The model of `noise`, which was read once if it is a file."""
        return find_noise(self.noise)

    @cached_property
    def cameras(self) -> Matrices:
        """The matrices of `camera_matrix`, which were read once if it is a file."""
        return find_camera_matrices(self.camera_matrix)

    def recorded_sensor(self) -> dict[str, Any]:
        """Depth, cameras and illuminants for the provenance of files; also the matrices of a file."""
        names = ("bits", "camera_matrix", "illuminants")
        recorded: dict[str, Any] = {name: getattr(self, name) for name in names}
        return recorded if self.camera_matrix in CAMERA_MATRICES else recorded | {"xyz_to_camera": self.cameras}

    @property
    def sensor(self) -> str:
        """Depth, cameras, illuminants that are not the default ones, for a name: ", 8 bits, camera matrix …"; or ""."""
        bits = f", {self.bits} bits" if self.bits else ""
        usual = self.camera_matrix == defaults.CAMERA_MATRIX
        camera = "" if usual else f", camera matrix {self.camera_matrix}"
        lamps = "" if self.illuminants == defaults.ILLUMINANTS else f", illuminants {self.illuminants}"
        return bits + camera + lamps


class SyntheticRaws:
    """Raws made on the fly from labelled photos, under random light and noise; nothing is written.

    Args:
        labels: COCO JSON of the photos.
        images: folder that `file_name` is relative to.
        synthesis: how the raws are made, under one light.
        limit: number of photos to keep from the start; 0 keeps all.

    Raises:
        DataError: the JSON is missing or malformed.
        UsageError: `synthesis` names several lights.
    """

    def __init__(self, labels: Path, images: Path, synthesis: SynthesisConfig, limit: int = 0):
        synthesis.require_one_light()
        checked = load_coco(labels)
        draws, noise, seed = synthesis.draws, synthesis.noise, synthesis.seed
        self.name = f"{labels} ({synthesis.light}, {draws} draws, noise {noise}{synthesis.sensor}, seed {seed})"
        self.categories, self.partly_labelled = checked.categories, checked.partly_labelled
        self.notes: Sequence[str] = checked.notes
        self.file_names = {image.id: inside(image.file_name) for image in checked.images}
        """Image id → file name of every photo, also beyond `limit`, without parts that lead out of a folder."""
        self.synthesis = synthesis
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
        return self.synthesis.unprocessing(image_id, draw)

    def photo(self, sample: Sample) -> Float[Tensor, "3 height width"]:
        """The clean photo of a sample, sRGB code values in [0, 1]."""
        return read_photo(sample.source)

    def read(self, sample: Sample) -> RawImage:
        """The synthetic raw of a sample."""
        photo = read_photo(sample.source)
        how = self.unprocessing(sample.image_id, sample.draw)
        generator = seeded_generator(self.synthesis.seed, sample.image_id, sample.draw, "noise")
        make = synthesise_mosaic if self.synthesis.format == "dng" else synthesise_rgb
        return make(photo, how, generator)
