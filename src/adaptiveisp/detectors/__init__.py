"""Detectors: the names that exist, and how a name, a file or an own function becomes a frozen detector."""

import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from adaptiveisp.classes import COCO_80
from adaptiveisp.errors import DetectorError
from adaptiveisp.types import Detector
from adaptiveisp.weights import require_weights


def _yolov3_tiny() -> Detector:
    from adaptiveisp.detectors.darknet import CFG_FOLDER, load_darknet

    name = "yolov3-tiny"
    return load_darknet(CFG_FOLDER / f"{name}.cfg", require_weights(name), COCO_80, name)


DETECTORS: dict[str, Callable[[], Detector]] = {"yolov3-tiny": _yolov3_tiny}
"""Name → loader. The names are those of `weights.WEIGHTS`, which can be listed without importing torch."""


def load_detector(spec: str | Path, device: str | torch.device = "cpu") -> Detector:
    """The frozen detector that `spec` stands for.

    Args:
        spec: one of `DETECTORS`; or a Darknet `.weights` file, described by the `.cfg` of the same stem beside it or
            else by the shipped one of that stem, with class names from the `.names` of that stem (one a line) or else
            COCO's 80; or `my_pkg.my_file:load`, a callable found from the current folder that returns a `Detector`
            (it gets `device=` if it takes such an argument).
        device: where it runs.

    Raises:
        DetectorError: unknown, or it cannot be built.
        WeightsError: its weights are missing or do not fit.
    """
    text = str(spec)
    if text in DETECTORS:
        detector = DETECTORS[text]()
    elif text.endswith(".weights"):
        detector = _from_weights_file(Path(text))
    elif ":" in text and not Path(text).exists():
        detector = _from_callable(text, device)
    else:
        raise DetectorError(
            f"{text}: no such detector; known: {', '.join(DETECTORS)}; or give a Darknet .weights file "
            "or my_pkg.my_file:load"
        )
    if isinstance(detector, torch.nn.Module):
        detector.to(device)
    return detector


def _from_weights_file(weights: Path) -> Detector:
    from adaptiveisp.detectors.darknet import CFG_FOLDER, load_darknet

    if not weights.is_file():
        raise DetectorError(f"{weights}: no such file; known names: {', '.join(DETECTORS)}")
    candidates = [weights.with_suffix(".cfg"), CFG_FOLDER / f"{weights.stem}.cfg"]
    cfg = next((path for path in candidates if path.is_file()), None)
    if cfg is None:
        shipped = ", ".join(sorted(path.stem for path in CFG_FOLDER.glob("*.cfg")))
        raise DetectorError(
            f"{weights}: no {candidates[0].name} beside it; put the network's .cfg there, "
            f"or name the weights like one that is shipped ({shipped})"
        )
    return load_darknet(cfg, weights, _class_names(weights.with_suffix(".names")), weights.stem)


def _class_names(path: Path) -> tuple[str, ...]:
    """The lines of a `.names` file, or COCO's 80 without one."""
    if not path.is_file():
        return COCO_80
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DetectorError(f"{path}: cannot be read; it must be a text file with one class name a line") from error
    return tuple(line.strip() for line in lines if line.strip())


def _from_callable(text: str, device: str | torch.device) -> Detector:
    """The detector that the callable `module:attribute` returns."""
    module_name, _, attribute = text.partition(":")
    with _current_folder_importable():
        try:
            function: Any = importlib.import_module(module_name)
            for part in attribute.split("."):
                function = getattr(function, part)
            takes_device = "device" in inspect.signature(function).parameters
            detector = function(device=device) if takes_device else function()
        # The code is the user's own, so anything may come; all of it means that the detector cannot be built.
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else "no message"
            raise DetectorError(f"{text}: {type(error).__name__}: {reason}") from error
    if not isinstance(detector, Detector):
        wanted = ("name", "class_names", "stride", "weights_sha256", "loss", "detect")
        missing = ", ".join(attribute for attribute in wanted if not hasattr(detector, attribute))
        raise DetectorError(f"{text}: returned a {type(detector).__name__}, which lacks {missing}")
    return detector


@contextmanager
def _current_folder_importable() -> Iterator[None]:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
