"""The result for one frame, with the names of `adaptiveisp.Result` and NumPy arrays in place of tensors."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptiveisp_runtime.errors import RuntimeFault

SHOWN_BOXES = 4
"""Number of boxes that `repr` names."""


@dataclass(frozen=True)
class Detections:
    """Objects in one frame, highest score first.

    Attributes:
        boxes: (n, 4) xyxy in pixels of the upright full frame.
        scores: (n,) in [0, 1].
        labels: (n,) indices into the class names.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Stage:
    """One module and its parameters by name, in physical units."""

    module: str
    params: Mapping[str, float]


@dataclass(frozen=True)
class Pipeline:
    """The modules of one frame in order.

    Attributes:
        stages: may be empty.
        module_set: named set of the parameters' ranges.
    """

    stages: tuple[Stage, ...]
    module_set: str

    def to_json(self) -> dict[str, Any]:
        """The contents of a pipeline file, which `adaptiveisp run --pipeline` reads."""
        stages = [{"module": stage.module, "params": dict(stage.params)} for stage in self.stages]
        return {"version": 1, "module_set": self.module_set, "stages": stages}

    def describe(self) -> list[str]:
        """One readable line a stage, for instance "exposure ev=2.5"."""
        return [
            " ".join([stage.module, *(f"{name}={value:.3g}" for name, value in stage.params.items())])
            for stage in self.stages
        ]


@dataclass(frozen=True)
class Timings:
    """Milliseconds of each part.

    Attributes:
        read: reading and unpacking the frame.
        graph: the whole graph: development, policy, modules and detector.
    """

    read: float = 0.0
    graph: float = 0.0

    @property
    def total(self) -> float:
        """The sum of both."""
        return self.read + self.graph

    def to_json(self) -> dict[str, float]:
        """The parts and their sum, rounded to microseconds."""
        return {name: round(value, 3) for name, value in {**asdict(self), "total": self.total}.items()}


@dataclass(frozen=True)
class Result:
    """The result for one frame.

    Attributes:
        image: (3, h, w) what the detector saw, before padding, in [0, 1].
        detections: boxes in pixels of the upright full frame.
        class_names: names of the detections' labels.
        pipeline: the modules that ran, with their parameters.
        full_size: (height, width) of the upright full frame.
        timings: milliseconds of each part.
        policy, detector: names of the policy and the detector.
        size: working size, the longer side in pixels.
        name: of the frame; "frame" for one in memory.
    """

    image: NDArray[np.float32]
    detections: Detections
    class_names: tuple[str, ...]
    pipeline: Pipeline
    full_size: tuple[int, int]
    timings: Timings
    policy: str
    detector: str
    size: int
    name: str = "frame"

    @property
    def milliseconds(self) -> float:
        """Time of the graph."""
        return self.timings.graph

    def boxes(self) -> list[dict[str, Any]]:
        """The detections as plain values: box xyxy in pixels of the full frame, class name, score; best first."""
        found = self.detections
        return [
            {"box": [round(value, 2) for value in box], "class": self.class_names[label], "score": round(score, 4)}
            for box, label, score in zip(
                found.boxes.tolist(), found.labels.tolist(), found.scores.tolist(), strict=True
            )
        ]

    def to_json(self) -> dict[str, Any]:
        """File, size, names, times, boxes and pipeline as values for JSON, as `adaptiveisp run` writes them."""
        height, width = self.full_size
        return {
            "file": "" if self.name == "frame" else self.name,
            "width": width,
            "height": height,
            "policy": self.policy,
            "detector": self.detector,
            "size": self.size,
            "milliseconds": round(self.milliseconds, 3),
            "timings": self.timings.to_json(),
            "boxes": self.boxes(),
            "pipeline": self.pipeline.to_json(),
        }

    def save(self, folder: str | Path, stem: str | None = None) -> list[Path]:
        """Writes STEM.boxes.json and STEM.pipeline.json into a folder, and returns their paths.

        Args:
            folder: made if it is missing.
            stem: beginning of the file names; None takes that of the frame. Files of that name are replaced.

        Raises:
            RuntimeFault: the files cannot be written.
        """
        place = Path(folder)
        stem = Path(self.name).stem if stem is None else stem
        content = {key: value for key, value in self.to_json().items() if key != "pipeline"}
        paths = [place / f"{stem}.boxes.json", place / f"{stem}.pipeline.json"]
        try:
            place.mkdir(parents=True, exist_ok=True)
            for path, value in zip(paths, (content, self.pipeline.to_json()), strict=True):
                path.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise RuntimeFault(f"{place}: cannot be written to ({error.strerror}); choose another folder") from error
        return paths

    def __repr__(self) -> str:
        count = len(self.detections.labels)
        best = ", ".join(f"{box['class']} {box['score']:.2f}" for box in self.boxes()[:SHOWN_BOXES])
        more = f", {count - SHOWN_BOXES} more" if count > SHOWN_BOXES else ""
        found = f"{count} {'box' if count == 1 else 'boxes'}" + (f": {best}{more}" if count else "")
        modules = " ".join(stage.module for stage in self.pipeline.stages)
        return f"<Result {self.name}: {found}; {modules or 'no module'}; {self.timings.total:.0f} ms>"
