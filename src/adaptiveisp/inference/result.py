"""The result for one raw image: the detector's input and detections, the times, and conversions to other formats."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image as PilImage

from adaptiveisp.detectors.boxes import xyxy_to_xywh
from adaptiveisp.detectors.class_names import shown_name
from adaptiveisp.errors import UsageError
from adaptiveisp.inference.drawing import Tile, contact_sheet, draw_found
from adaptiveisp.inference.result_files import FileSet, ResultFiles
from adaptiveisp.inference.stage_sheet import TILE, stage_strip
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.policies.base import Developed, Picture
from adaptiveisp.types import Detections, RawImage
from adaptiveisp.utils.color import to_uint8
from adaptiveisp.utils.optional_imports import import_extra

if TYPE_CHECKING:
    from supervision import Detections as SupervisionDetections

SHOWN_BOXES = 4
"""Number of boxes that `repr` names."""
FILE_ENDINGS = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".json")
"""Endings by which `Result.save` tells that it was given the name of a file instead of a folder."""


@dataclass(frozen=True)
class Timings:
    """Milliseconds of each part of the processing, from a raw file to its boxes.

    Attributes:
        read: reading and decoding the file; about 0 for a frame in memory.
        develop: developing to linear RGB at the working size, for small frames by way of the full size.
        policy: choosing the pipeline; for `camera` its whole development.
        modules: running the chosen modules at the working size.
        detector: padding, the detector, and conversion of its boxes to the full frame.
    """

    read: float = 0.0
    develop: float = 0.0
    policy: float = 0.0
    modules: float = 0.0
    detector: float = 0.0

    @property
    def total(self) -> float:
        """The sum of all parts."""
        return self.read + self.develop + self.policy + self.modules + self.detector

    def to_json(self) -> dict[str, float]:
        """The parts and their sum, rounded to microseconds."""
        return {name: round(value, 3) for name, value in {**asdict(self), "total": self.total}.items()}

    def __repr__(self) -> str:
        return f"Timings({', '.join(f'{name}={value:.1f}' for name, value in asdict(self).items())})"


@dataclass(frozen=True)
class Result:
    """The result for one raw.

    Attributes:
        image: (3, h, w) input of the detector before padding, in [0, 1].
        detections: boxes in pixels of the upright full frame.
        class_names: names of the detections' labels.
        pipeline: the pipeline that the policy chose; None for `camera`.
        full_size: (height, width) of the upright full frame.
        timings: milliseconds of each part.
        developed: the developed raw at the working size, and at full size where it was kept.
        raw: the raw itself; None where it was not kept, as in results of `AdaptiveISP.map`.
        policy, detector: names of the policy and the detector.
        size: working size, the longer side in pixels.
        dropped_modules: modules that the policy chose and that were dropped to keep a latency.
        frame: id of the frame among those of `AdaptiveISP.map`; "" for a single call.
    """

    image: Picture
    detections: Detections
    class_names: tuple[str, ...]
    pipeline: Pipeline | None
    full_size: tuple[int, int]
    timings: Timings
    developed: Developed
    raw: RawImage | None
    policy: str
    detector: str
    size: int
    dropped_modules: tuple[str, ...] = ()
    frame: str = ""

    @property
    def milliseconds(self) -> float:
        """Time of policy and modules; `timings` has all parts."""
        return self.timings.policy + self.timings.modules

    @property
    def name(self) -> str:
        """Name of the raw file, "frame" for a frame in memory."""
        return Path(self.file).name or "frame"

    @property
    def file(self) -> str:
        """Its id among the frames of a run or of `AdaptiveISP.map`, or its path; "" for a frame in memory."""
        path = None if self.raw is None else self.raw.path
        return self.frame or ("" if path is None else str(path))

    def without_frame(self) -> "Result":
        """The result without raw and image at full size, which take most of its memory."""
        return replace(self, raw=None, developed=replace(self.developed, full=None, raw=None))

    def boxes(self) -> list[dict[str, Any]]:
        """The detections as plain values: box xyxy in pixels of the full frame, class name, score; best first."""
        found = self.detections
        return [
            {"box": [round(value, 2) for value in box], "class": self._class(label), "score": round(score, 4)}
            for box, label, score in zip(
                found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True
            )
        ]

    def drawn(self, picture: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """The detector's input image with its boxes, (h, w, 3) 8-bit RGB.

        Args:
            picture: the image in 8 bits, if it is there already.
        """
        plain = to_uint8(self.image) if picture is None else picture
        return draw_found(plain, self.detections, self.class_names, self.full_size[1])

    def plot(self, width: int = 480) -> PilImage.Image:
        """A picture of the developed raw beside the rendered image with boxes, the pipeline written below.

        Args:
            width: of each of the two images in pixels.
        """
        steps = self._steps()
        before = Tile(to_uint8(self.developed.small[0].clamp(0, 1)), f"{self.name}, developed")
        return contact_sheet([before, Tile(self.drawn(), self.policy, steps)], columns=2, tile_width=width)

    def strip(self, tile: int = TILE) -> PilImage.Image:
        """A picture of the developed raw, the image after each module, and the image with boxes, side by side.

        Args:
            tile: longer side of each image in pixels.
        """
        pipeline = Pipeline(()) if self.pipeline is None else self.pipeline
        developed = self.developed.small
        with torch.inference_mode():
            images = [developed, *pipeline.steps(developed)]
        return PilImage.fromarray(stage_strip(pipeline, images, self.name, self.drawn(), tile))

    def save(self, folder: str | Path, stem: str | None = None, overwrite: bool = False) -> list[Path]:
        """Writes STEM.png, STEM.boxes.png, STEM.boxes.json and, where there is a pipeline, STEM.pipeline.json.

        Either all files are written or none.

        Args:
            folder: the folder; it is made if it is missing. A name of a file, such as "one.png", is refused.
            stem: beginning of the file names; None takes that of the raw file.
            overwrite: whether files of these names are replaced.

        Returns:
            The files.

        Raises:
            UsageError: a file exists already, the stem contains a folder, or `folder` is the name of a file.
            OutputError: the folder cannot be written to.
        """
        place = Path(folder)
        if place.suffix.lower() in FILE_ENDINGS and not place.is_dir():
            remedy = f"give save({str(place.parent)!r}, {place.stem!r})"
            raise UsageError(
                f"{folder}: save writes several files into a folder; {remedy}, or plot().save({str(folder)!r})"
            )
        stem = Path(self.name).stem if stem is None else stem
        if not stem or stem != Path(stem).name:
            raise UsageError(f"stem {stem!r}: give a name without a folder")
        with ResultFiles(Path(folder)) as files:
            self.place(files, stem)
            paths = [Path(folder) / name for name in files.names]
            if not overwrite and (taken := [path for path in paths if path.exists()]):
                raise UsageError(f"{taken[0]}: exists already; choose another stem, or give overwrite=True")
        return paths

    def place(self, files: FileSet, stem: str, provenance: Mapping[str, Any] | None = None) -> None:
        """Places the files of `save` in a set of files that are written together.

        Args:
            files: the set.
            stem: beginning of their names, relative to the folder.
            provenance: stored in each JSON file.
        """
        origin = {} if provenance is None else {"provenance": dict(provenance)}
        content = {key: value for key, value in self.to_json().items() if key != "pipeline"}
        files.json(f"{stem}.boxes.json", {**content, **origin})  # the first file placed is the last one to appear
        picture = to_uint8(self.image)
        files.picture(f"{stem}.png", picture)
        files.picture(f"{stem}.boxes.png", self.drawn(picture))
        if self.pipeline is not None:
            files.json(f"{stem}.pipeline.json", {**self.pipeline.to_json(), **origin})

    def to_json(self) -> dict[str, Any]:
        """File, size, names, times, boxes and pipeline as values for JSON."""
        height, width = self.full_size
        return {
            "file": self.file,
            "width": width,
            "height": height,
            "policy": self.policy,
            "detector": self.detector,
            "size": self.size,
            "milliseconds": round(self.milliseconds, 3),
            "timings": self.timings.to_json(),
            "boxes": self.boxes(),
            "pipeline": self.pipeline.to_json() if self.pipeline is not None else None,
            **({"dropped_modules": list(self.dropped_modules)} if self.dropped_modules else {}),
        }

    def to_coco(
        self, image_id: int | None = None, category_ids: Mapping[str, int] | None = None
    ) -> list[dict[str, Any]]:
        """The detections as COCO results: image_id, category_id, bbox xywh in pixels of the full frame, score.

        Args:
            image_id: id of the image in the annotations that the results are compared with. None takes the number
                that the file is named by, as in COCO (139 of `000000000139.dng`), and 0 for any other name.
            category_ids: class name → category id in these annotations; detections of other classes are left out.
                None takes the detector's labels, which begin at 0.
        """
        found = self.detections
        if image_id is None:
            stem = Path(self.name).stem
            image_id = int(stem) if stem.isascii() and stem.isdigit() else 0
        results = []
        boxes = xyxy_to_xywh(found.boxes).tolist()
        for box, label, score in zip(boxes, found.labels.tolist(), found.scores.tolist(), strict=True):
            category = label if category_ids is None else category_ids.get(self.class_names[label])
            if category is not None:
                results.append({"image_id": image_id, "category_id": category, "bbox": box, "score": score})
        return results

    def to_supervision(self) -> "SupervisionDetections":
        """The detections as `supervision.Detections`, boxes in pixels of the full frame.

        Raises:
            AdaptiveISPError: the library supervision is not installed.
        """
        supervision: Any = import_extra("supervision", "supervision")
        labels = self.detections.labels.cpu().numpy()
        made: SupervisionDetections = supervision.Detections(
            xyxy=self.detections.boxes.cpu().numpy().reshape(-1, 4),
            confidence=self.detections.scores.cpu().numpy(),
            class_id=labels,
            data={"class_name": np.array([self.class_names[label] for label in labels], dtype=object)},
        )
        return made

    def __repr__(self) -> str:
        count = len(self.detections.labels)
        best = ", ".join(f"{box['class']} {box['score']:.2f}" for box in self.boxes()[:SHOWN_BOXES])
        more = f", {count - SHOWN_BOXES} more" if count > SHOWN_BOXES else ""
        found = f"{count} {'box' if count == 1 else 'boxes'}" + (f": {best}{more}" if count else "")
        modules = " ".join(module.name for module in self.pipeline.modules) if self.pipeline is not None else "camera"
        return f"<Result {self.name}: {found}; {modules or 'no module'}; {self.timings.total:.0f} ms>"

    def _repr_html_(self) -> str:
        """The raw and the image with boxes, the pipeline in physical units, and the boxes, which notebooks show."""
        from adaptiveisp.inference.result_html import result_html

        return result_html(self)

    def _class(self, label: int) -> str:
        return shown_name(self.class_names[label])

    def _steps(self) -> list[str]:
        if self.pipeline is None:
            return ["the camera's own development"]
        return self.pipeline.describe() or ["no module"]


class Results(list[Result]):
    """The results of several raws, in their order, and the raws that were left out.

    Args:
        results: the results.
        skipped: (raw, reason) of each raw that failed; a raw is named by its path, or "raw N" with its place among the
            raws, counted from 0. It is empty unless `on_error="skip"` was given.
    """

    def __init__(self, results: Iterable[Result] = (), skipped: list[tuple[str, str]] | None = None):
        super().__init__(results)
        self.skipped = skipped if skipped is not None else []
