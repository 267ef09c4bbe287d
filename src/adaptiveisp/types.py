"""The types that several packages share. Shapes are in the annotations, units in the docstrings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor

from adaptiveisp.utils.raw_fields import BAYER_PATTERNS, MONO, PATTERNS, checked_fields

__all__ = [
    "BAYER_PATTERNS",
    "MONO",
    "PATTERNS",
    "Annotation",
    "CodeNoise",
    "Detections",
    "Detector",
    "DetectsWithLoss",
    "Image",
    "Letterbox",
    "LossTerms",
    "ParamTensor",
    "PseudoLabeler",
    "RawImage",
    "Remark",
    "Sample",
    "Targets",
    "Unprocessing",
]

Image = Float[Tensor, "batch 3 height width"]
"""RGB, linear light unless said otherwise, 0 = black level, 1 = white level, upright."""

ParamTensor = Float[Tensor, "batch n_params"]
"""One row of physical parameters (units as in the module's `Param`s) per image."""


class Remark(NamedTuple):
    """A doubt about a raw that can be used.

    Attributes:
        kind: a few words that are the same for all raws with this fault.
        text: one line that names the raw and the remedy.
    """

    kind: str
    text: str


@dataclass(frozen=True)
class CodeNoise:
    """Further parameters of noise that a camera's codes have, see `raw.noise`.

    Attributes:
        black, white: levels of the camera in codes; noise is rounded to whole codes.
        row: standard deviation of the offset that all values of a row share, as a share of white - black.
        tail: shape of the Tukey lambda distribution of the read noise, or None if it is Gaussian.
        iso: sensitivity for the metadata, or None if unknown.
    """

    black: int
    white: float
    row: float
    tail: float | None
    iso: float | None = None


@dataclass(frozen=True)
class Unprocessing:
    """The parameters by which a synthetic raw was made of an sRGB photo, and by which that can be undone.

    Attributes:
        light: brightness factor of the linear image, in (0, 1].
        rgb_gain, red_gain, blue_gain: white-balance gains that were inverted (Brooks et al. 2019); dimensionless.
        ccm: RGB → camera matrix, row-major, rows sum to 1.
        shot, read: noise variance = shot·x + read at x in [0, 1]; both 0 without noise.
        noise: name of the noise model, `sensor`, `brooks`, `canon-5d4`, `none` or a noise file.
        bits: depth of the quantisation after the noise, or 0 without one.
        codes: further parameters of a camera's noise, whose shot noise is Poisson and which is quantised to whole codes
            of that camera where `bits` is 0; None for Gaussian noise.
    """

    light: float
    rgb_gain: float
    red_gain: float
    blue_gain: float
    ccm: tuple[float, ...]
    shot: float
    read: float
    noise: str
    bits: int
    codes: CodeNoise | None = None


@dataclass(frozen=True, init=False)
class RawImage:
    """The unprocessed data of a camera, in the orientation of the sensor.

    Attributes:
        data: (height, width) mosaic, or (height, width, 3) RGB, already demosaiced; unsigned integers or float32.
        pattern: one of `BAYER_PATTERNS`, the colours of the top-left 2x2 block row by row; "MONO" for a sensor without
            colour filters; None where `data` is RGB. It may be given in lower case.
        black_level: value without light at each position of the 2x2 block, row by row (all four equal for RGB). One
            number may be given for all.
        white_level: value of saturation.
        camera_gains: the camera's white balance as factors of (R, G, B) with G = 1, or None if unknown.
        xyz_to_camera: 3x3 colour matrix as in DNG's ColorMatrix1, row-major, or None if unknown.
        orientation: EXIF orientation, 1 to 8; 1 is upright.
        iso, exposure_s: sensitivity and exposure time in seconds, or None if unknown.
        noise_profile: (shot, read): variance = shot·x + read for x in [0, 1], or None if unknown.
        unprocessing: how a synthetic raw was made, or None for a real one.
        path: the file from which it was read, or None.
        camera: make and model, or None if unknown.
        remarks: doubts of the reader, see `raw.level_checks`.

    Raises:
        RawFileError: a field makes no sense, such as an unknown pattern, another shape, NaN, a white level that is not
            above black, or gains that are not above 0. The message names `path`.
    """

    data: NDArray[Any]
    pattern: str | None
    black_level: tuple[float, float, float, float]
    white_level: float
    camera_gains: tuple[float, float, float] | None = None
    xyz_to_camera: tuple[float, ...] | None = None
    orientation: int = 1
    iso: float | None = None
    exposure_s: float | None = None
    noise_profile: tuple[float, float] | None = None
    unprocessing: Unprocessing | None = None
    path: Path | None = None
    camera: str | None = None
    remarks: tuple[Remark, ...] = ()

    def __init__(
        self,
        data: NDArray[Any],
        pattern: str | None,
        black_level: float | Sequence[float],
        white_level: float,
        camera_gains: Sequence[float] | None = None,
        xyz_to_camera: Sequence[float] | None = None,
        orientation: int = 1,
        iso: float | None = None,
        exposure_s: float | None = None,
        noise_profile: Sequence[float] | None = None,
        unprocessing: Unprocessing | None = None,
        path: Path | str | None = None,
        camera: str | None = None,
        remarks: tuple[Remark, ...] = (),
    ):
        # Written out, since some fields may be given in several forms and are kept in one.
        given = {
            "data": data,
            "pattern": pattern,
            "black_level": black_level,
            "white_level": white_level,
            "camera_gains": camera_gains,
            "xyz_to_camera": xyz_to_camera,
            "orientation": orientation,
            "iso": iso,
            "exposure_s": exposure_s,
            "noise_profile": noise_profile,
            "path": path,
        }
        others = {"unprocessing": unprocessing, "camera": camera, "remarks": remarks}
        for name, value in {**checked_fields(given), **others}.items():
            object.__setattr__(self, name, value)


class Letterbox(NamedTuple):
    """The place of a resized image inside a padded frame: x_frame = x_full · width / full_width + left, in pixels.

    y is computed in the same way from height and top. The scales of the two axes differ slightly, since the resized
    sides are whole pixels.

    Attributes:
        left, top: place of the resized image in the frame.
        width, height: sides of the resized image.
        full_width, full_height: sides of the full image.
    """

    left: int
    top: int
    width: int
    height: int
    full_width: int
    full_height: int


@dataclass(frozen=True)
class Targets:
    """Labelled objects of one image.

    Attributes:
        boxes: (n, 4) xyxy in pixels of the image that they belong to.
        labels: (n,) indices into the detector's `class_names`.
    """

    boxes: Float[Tensor, "n 4"]
    labels: Int[Tensor, " n"]


@dataclass(frozen=True)
class Detections:
    """Objects that a detector found in one image, highest score first.

    Attributes:
        boxes: (n, 4) xyxy in pixels of the image that they belong to.
        scores: (n,) in [0, 1].
        labels: (n,) indices into the detector's `class_names`.
        dropped: number of boxes that were left out because their values make no sense, see `detectors.answers`.
    """

    boxes: Float[Tensor, "n 4"]
    scores: Float[Tensor, " n"]
    labels: Int[Tensor, " n"]
    dropped: int = 0


@dataclass(frozen=True)
class Annotation:
    """One labelled object as in COCO.

    Attributes:
        category_id: id of its class in the data set.
        bbox: box xywh in pixels of the upright full frame.
        area: area in square pixels.
        iscrowd: 1 for a group of objects, which is ignored in scoring, otherwise 0.
    """

    category_id: int
    bbox: tuple[float, float, float, float]
    area: float
    iscrowd: int = 0


@dataclass(frozen=True)
class Sample:
    """One image of a data set with its annotations; its raw is read by the data set's `read`.

    Attributes:
        image_id: id in the data set's COCO JSON; unique together with `draw`.
        draw: number of the random draw of light and noise, 0 for real raws.
        name: file name for messages.
        width, height: pixels of the upright full frame; 0 where they are unknown until the raw is read.
        annotations: labelled objects.
        light: brightness factor in (0, 1], None if unknown.
        source: reference by which the data set finds the raw.
    """

    image_id: int
    draw: int
    name: str
    width: int
    height: int
    annotations: tuple[Annotation, ...]
    light: float | None
    source: Any = field(repr=False, compare=False, default=None)


@runtime_checkable
class PseudoLabeler(Protocol):
    """Finds the objects of pictures without annotations by their pixels, see `training.pseudo_labels`."""

    @property
    def answers(self) -> Mapping[str, Sequence[Annotation]]:
        """Title of each labelled picture → its objects, in pixels of the upright full frame."""
        ...

    def label_photo(self, title: str, photo: UInt8[Tensor, "3 height width"]) -> None:
        """Finds the objects in a clean photo of sRGB code values, 0 to 255, unless it did before."""
        ...

    def label_raw(
        self, title: str, full: Float[Tensor, "3 height width"], gains: tuple[float, float, float] | None
    ) -> None:
        """Finds the objects in a developed raw, unless it did before; the camera's `gains` are not applied yet."""
        ...


class LossTerms(NamedTuple):
    """The terms of a detector's loss for each image, each with its weight; `total` is their sum."""

    box: Float[Tensor, " batch"]
    objectness: Float[Tensor, " batch"]
    classification: Float[Tensor, " batch"]

    @property
    def total(self) -> Float[Tensor, " batch"]:
        """Sum of the three terms per image."""
        return self.box + self.objectness + self.classification


@runtime_checkable
class Detector(Protocol):
    """A frozen object detector, whose loss is differentiable with respect to the image.

    Attributes:
        name: short name for tables.
        class_names: names of its labels, index = label.
        stride: number of which height and width of the input must be multiples.
        weights_sha256: hash of the weights file, for provenance ("" where there is no file).

    A detector whose loss has no gradient has two more attributes: `differentiable`, False, and
    `not_differentiable_because`, text. It can be used for evaluation and by the methods that need no gradient.

    A detector whose `detect` may run in several threads at once says so by the attribute `thread_safe`, True. Others
    get one call at a time.
    """

    name: str
    class_names: tuple[str, ...]
    stride: int
    weights_sha256: str

    def loss(self, image: Image, targets: list[Targets]) -> Float[Tensor, " batch"]:
        """The training loss of each image by itself; `targets` are in pixels of `image`."""
        ...

    def detect(
        self, image: Image, confidence: float = 0.001, nms_iou: float = 0.6, max_detections: int = 300
    ) -> list[Detections]:
        """The objects in each image, in pixels of `image`, highest score first.

        Args:
            image: values as the detector's training images, usually sRGB in [0, 1].
            confidence: least score.
            nms_iou: IoU above which the lower of two boxes of a class is dropped.
            max_detections: most objects of an image.
        """
        ...


@runtime_checkable
class DetectsWithLoss(Detector, Protocol):
    """A detector that can compute detections and losses in one forward pass; detectors need not have this method."""

    def detect_with_loss(
        self,
        image: Image,
        targets: list[Targets],
        detect_in: int,
        confidence: float = 0.001,
        nms_iou: float = 0.6,
        max_detections: int = 300,
    ) -> tuple[list[Detections], Float[Tensor, " batch"]]:
        """The detections in the first `detect_in` images, and the losses of all images, without gradient.

        Args:
            image, targets: as for `loss`.
            detect_in: number of images with detections, from 0 to all.
            confidence, nms_iou, max_detections: as for `detect`.
        """
        ...
