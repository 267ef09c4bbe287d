"""Loading of frozen detectors by registered name, by file, or by a function of the user's own."""

import inspect
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from adaptiveisp.detectors.answers import try_out
from adaptiveisp.detectors.checks import check_facts
from adaptiveisp.detectors.class_names import COCO_80, read_names
from adaptiveisp.detectors.weights import ENTRY_POINTS, require_files, require_weights
from adaptiveisp.detectors.yolo.exports import export_remedy, newer_yolo_remedy
from adaptiveisp.errors import AdaptiveISPError, DetectorError, UsageError, logger, one_line, shown
from adaptiveisp.types import Detector
from adaptiveisp.utils.files import require_regular, sha256_of
from adaptiveisp.utils.own_code import current_folder_importable, import_object, module_remedy, reason_of
from adaptiveisp.utils.registry import Registry


def _yolov3_tiny() -> Detector:
    from adaptiveisp.detectors.darknet.loading import CFG_FOLDER, load_darknet

    name = "yolov3-tiny"
    return load_darknet(CFG_FOLDER / f"{name}.cfg", require_weights(name), COCO_80, name)


def _nanodet_g() -> Detector:
    from adaptiveisp.detectors.nanodet.detector import load_nanodet

    name = "nanodet-g"
    graph, weights = require_files(name)
    return load_nanodet(graph, weights, name, sha256_of(graph, weights))


def _mb3_centernet() -> Detector:
    from adaptiveisp.detectors.centernet.detector import load_centernet

    name = "mb3-centernet"
    graph, weights = require_files(name)
    return load_centernet(graph, weights, name, sha256_of(graph, weights))


LONGEST_NAME = 200
"""Most characters of an unknown detector's name in a message. A whole message that is too long loses its middle."""

DETECTORS: dict[str, Callable[[], Detector]] = {
    "yolov3-tiny": _yolov3_tiny,
    "nanodet-g": _nanodet_g,
    "mb3-centernet": _mb3_centernet,
}
"""Name → loader. The names are the same as in `weights.WEIGHTS`, which can be listed without importing torch."""

REMEDY = (
    "or give a Darknet .weights file, a YOLOv3 or YOLOv5 .pt, an .onnx file, a Hugging Face model folder (with "
    "config.json), or my_pkg.my_file:load; YOLOv8 and later: " + export_remedy()
)

DetectorFactory = Callable[..., Detector]
"""A function that returns a detector. It is called with `device=` if it has such a parameter."""


def _checked(origin: str, value: object) -> DetectorFactory:
    if callable(value):
        return value
    raise UsageError(f"{origin}: is not a function; give one that returns a detector")


_REGISTERED: Registry[DetectorFactory] = Registry("detector", ENTRY_POINTS, "--detector", _checked)


def _remedy() -> str:
    """All names and kinds of detectors, for an error."""
    return f"known: {', '.join((*DETECTORS, *_REGISTERED.names()))}; {REMEDY}"


def register_detector(name: str, factory: DetectorFactory, replace: bool = False) -> None:
    """Registers a detector under a name, for `load_detector` and the command line's `--detector`.

    An installed package needs no call: it declares an entry point of the group `adaptiveisp.detectors`.

    Args:
        name: letters, digits, "-" and "_".
        factory: function that returns the detector; it may have a parameter `device`.
        replace: whether to replace a detector that is registered under this name.

    Raises:
        UsageError: the name is taken, or `factory` is not a function.
    """
    if name in DETECTORS:
        raise UsageError(f"detector {name!r} is part of the package; choose another name")
    _REGISTERED.register(name, factory, replace)


OWN_REMEDY = "it must return a detector (docs/detectors.md, help(adaptiveisp.Detector)); -v shows where it fails"

CHECKPOINTS = (".pt", ".pth", ".safetensors")
FILE_ENDINGS = (".weights", ".onnx", *CHECKPOINTS)
"""Endings of the names of detectors that are single files."""

HUB_NAME = re.compile(r"\w[\w.-]*/\w[\w.-]*(@[\w./-]+)?")
"""Name of a model on the Hugging Face hub, `organisation/model`; `@revision` may follow."""


def load_detector(spec: str | Path, device: str | torch.device = "cpu", trusted: bool = True) -> Detector:
    """The frozen detector that a name, a file or a function stands for.

    Args:
        spec: one of

            - a name: of `DETECTORS`, given to `register_detector`, or declared by an installed package;
            - a Darknet `.weights` file. The `.cfg` of the same stem beside it describes the network, or else the
              shipped one of that stem; class names come from the `.names` of that stem (one a line), or are COCO's 80;
            - a `.pt` of YOLOv3 or YOLOv5, or the `.safetensors` that `adaptiveisp import` made of it;
            - an `.onnx` file, see `onnx.file.load_onnx`;
            - a folder of Hugging Face's transformers, or `organisation/model` of its hub;
            - `my_pkg.my_file:load`, a function that returns a `Detector`, called with `device=` if it has such a
              parameter. Modules in the current folder can be named too.
        device: device on which it runs.
        trusted: whether `spec` comes from the command line or from Python code. A spec from a file, such as a recipe or
            a run folder, may name neither code to run nor a model to download.

    Raises:
        UsageError: there is no such name, file or function, or an untrusted spec names code.
        DetectorError: the detector cannot be built, or lacks a part of the protocol `Detector`.
        WeightsError: the weights are missing or do not fit the network.
    """
    text, name = str(spec), one_line(str(spec), LONGEST_NAME)
    require_regular(Path(text), DetectorError, "give a file")
    if text.endswith(FILE_ENDINGS) and os.path.isdir(text):
        raise DetectorError(f"{text}: is a folder; give the {os.path.splitext(text)[1]} file itself")
    if text in DETECTORS:
        detector = DETECTORS[text]()
    elif text in _REGISTERED and not os.path.exists(text):
        detector = _made_by(_REGISTERED.find(text), text, device)
    elif text.endswith(".weights"):
        detector = _from_weights_file(Path(text))
    elif text.endswith(".onnx") and os.path.isfile(text):
        from adaptiveisp.detectors.onnx.file import load_onnx

        detector = load_onnx(Path(text), device)
    elif text.endswith(CHECKPOINTS):
        detector = _from_checkpoint(Path(text))
    # `os.path` returns False for an impossible path, such as one that is too long, where pathlib raises.
    elif ":" in text and not os.path.exists(text):
        if not trusted:
            raise UsageError(f"{text}: a file names code to run as the detector; if you trust it, {_ask(text)}")
        detector = _from_callable(text, device)
    elif os.path.isfile(os.path.join(text, "config.json")):
        detector = _from_transformers(Path(text))
    elif os.path.exists(text):
        raise DetectorError(f"{name}: is not a detector; {_remedy()}")
    elif HUB_NAME.fullmatch(text) and not _has_extension(text):
        detector = _from_hub(text, trusted)
    elif _looks_like_a_file(text):
        raise DetectorError(f"{name}: no such file; {newer_yolo_remedy(text) or _remedy()}")
    else:
        raise UsageError(f"{name or shown(text)}: no such detector; {newer_yolo_remedy(text) or _remedy()}")
    check_facts(detector, text)
    if isinstance(detector, torch.nn.Module):
        detector.to(device)
    try_out(detector, text, device)
    return detector


def _ask(text: str) -> str:
    return f"give it yourself: --detector {text}, in Python detector={text!r}"


def _from_weights_file(weights: Path) -> Detector:
    from adaptiveisp.detectors.darknet.loading import CFG_FOLDER, load_darknet

    if not os.path.isfile(weights):
        raise DetectorError(f"{weights}: no such file; known names: {', '.join(DETECTORS)}")
    candidates = [weights.with_suffix(".cfg"), CFG_FOLDER / f"{weights.stem}.cfg"]
    cfg = next((path for path in candidates if os.path.isfile(path)), None)
    if cfg is None:
        shipped = ", ".join(sorted(path.stem for path in CFG_FOLDER.glob("*.cfg")))
        raise DetectorError(
            f"{weights}: no {candidates[0].name} beside it; put the network's .cfg there, "
            f"or name the weights like one that is shipped ({shipped})"
        )
    return load_darknet(cfg, weights, _class_names(weights.with_suffix(".names")), weights.stem)


def _from_transformers(folder: Path, name: str | None = None) -> Detector:
    from adaptiveisp.detectors.huggingface.loading import load_transformers

    return load_transformers(folder, name)


def _from_hub(name: str, trusted: bool) -> Detector:
    from adaptiveisp.detectors.huggingface.folder import fetch_transformers

    try:
        folder = fetch_transformers(name, download=trusted)
    except AdaptiveISPError as error:
        raise DetectorError(
            f"{name}: no such file; {_remedy()}. As a model of the Hugging Face hub: {error}"
        ) from error
    return _from_transformers(folder, name)


def _from_checkpoint(path: Path) -> Detector:
    from adaptiveisp.detectors.detector_file import load_detector_file
    from adaptiveisp.detectors.yolo.checkpoint import load_ultralytics

    if not os.path.isfile(path):
        raise DetectorError(f"{path}: no such file; {newer_yolo_remedy(path.name) or _remedy()}")
    return load_detector_file(path) if path.suffix == ".safetensors" else load_ultralytics(path)


def _class_names(path: Path) -> tuple[str, ...]:
    """The lines of a `.names` file, or COCO's 80 without one."""
    return read_names(path) if os.path.isfile(path) else COCO_80


def _from_callable(text: str, device: str | torch.device) -> Detector:
    """The detector that the callable `module:attribute` returns.

    Raises:
        DetectorError: the callable cannot be imported, fails, or returns no detector.
    """
    try:
        function = import_object(text)
    except UsageError as error:
        raise DetectorError(str(error)) from error.__cause__
    return _made_by(function, text, device)


def _made_by(function: Any, text: str, device: str | torch.device) -> Detector:
    """The detector that the user's function returns.

    Raises:
        DetectorError: the function fails, or returns no detector.
    """
    # The function may import other files of its folder. User code can raise any exception, or exit; each of them means
    # that the detector cannot be built. Only the user's interrupt (Ctrl-C) passes.
    with current_folder_importable():
        try:
            takes_device = "device" in inspect.signature(function).parameters
            detector = function(device=device) if takes_device else function()
        except (Exception, SystemExit) as error:
            logger.debug("%s", text, exc_info=error)
            remedy = OWN_REMEDY
            if isinstance(error, ModuleNotFoundError):
                remedy = module_remedy(error.name or "", text.partition(":")[0])
            raise DetectorError(f"{text}: {reason_of(error)}; {remedy}") from error
    if isinstance(detector, Detector):
        return detector
    wanted = ("name", "class_names", "stride", "weights_sha256", "loss", "detect")
    missing = ", ".join(attribute for attribute in wanted if not hasattr(detector, attribute))
    remedy = "see docs/detectors.md, or help(adaptiveisp.Detector)"
    raise DetectorError(f"{text}: returned a {type(detector).__name__}, which lacks {missing}; {remedy}")


def _looks_like_a_file(text: str) -> bool:
    """Whether a text looks like a path: it has a folder separator, or an ending such as `.onnx`."""
    return os.sep in text or "/" in text or _has_extension(text)


def _has_extension(text: str) -> bool:
    return re.search(r"\.[A-Za-z]\w*$", text) is not None
