"""`export`: writes a policy with a detector as ONNX graphs into a folder, with a manifest and a self-test."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adaptiveisp.deployment import self_test
from adaptiveisp.deployment.assembly import Design, graphs_of
from adaptiveisp.deployment.calibration import CalibrationRaw, calibration_raws
from adaptiveisp.deployment.card import card_of, full_card, without_folders
from adaptiveisp.deployment.detector import is_set
from adaptiveisp.deployment.development import Frame
from adaptiveisp.deployment.frames import frame_of
from adaptiveisp.deployment.manifest import FILE, graph_entry, manifest_of
from adaptiveisp.deployment.ops import EXTRA, Array
from adaptiveisp.deployment.policies import plan_of
from adaptiveisp.deployment.quantisation import METHODS, PARTS, quantised
from adaptiveisp.deployment.suppression import Suppression
from adaptiveisp.errors import AdaptiveISPError, UsageError
from adaptiveisp.inference.predictor import AdaptiveISP
from adaptiveisp.inference.pretrained import SETTINGS_FILE
from adaptiveisp.policies.base import Planner
from adaptiveisp.policies.registry import NAMED_POLICIES, SAVED_POLICIES, policy_file
from adaptiveisp.raw.reader import BayerHeader
from adaptiveisp.types import Detector
from adaptiveisp.utils import defaults
from adaptiveisp.utils.files import json_text, sha256_of, write_bytes
from adaptiveisp.utils.optional_imports import import_extra, require_extra
from adaptiveisp.utils.output_folder import claim_folder, remove_inside
from adaptiveisp.utils.provenance import provenance

PRECISIONS = ("float32", "float16", *METHODS)
FORMATS = ("onnx",)
CARD = "README.md"


@dataclass(frozen=True)
class Export:
    """What `export` wrote.

    Attributes:
        folder: the folder.
        manifest: content of its manifest.json.
        difference: greatest absolute difference of the rendered image in the self-test.
    """

    folder: Path
    manifest: Mapping[str, Any]
    difference: float


def export(
    policy: str | Planner,
    out: str | Path,
    detector: str | Detector = defaults.DETECTOR,
    *,
    input: str = "mosaic",
    header: BayerHeader | None = None,
    orientation: int = 1,
    size: int | None = None,
    confidence: float = defaults.CONFIDENCE,
    precision: str = "float32",
    calibrate: Sequence[str | os.PathLike[str]] = (),
    quantise: Sequence[str] = PARTS,
    format: str = "onnx",
    without_if: bool = False,
    with_policy: bool = False,
    overwrite: bool = False,
    seed: int = defaults.SEED,
) -> Export:
    """Writes a policy, its pipeline and a detector as ONNX graphs that run without PyTorch; see docs/export.md.

    Nothing is written if the graphs do not give what the package gives, on a drawn scene.

    Args:
        policy, detector: as for `AdaptiveISP`.
        out: the folder to write.
        input: "mosaic" for frames (height, width) of a Bayer sensor, "rgb" for (height, width, 3), linear.
        header: what is known of the frames; levels, pattern and sizes that it leaves open become inputs of the graph.
        orientation: EXIF orientation of the frames, 1 to 8.
        size: longer side in pixels at which policy, modules and detector work; None as for `AdaptiveISP`.
        confidence: least score of a detection.
        precision: "float32"; "float16" for networks and pointwise modules; "int8-dynamic" or "int8-static" for
            networks of whole numbers of 8 bits, see `deployment.quantisation`.
        calibrate: raws, files or folders, by which "int8-static" learns the ranges of its activations.
        quantise: which networks compute in whole numbers, "policy", "detector" or both.
        format: "onnx".
        without_if: whether to avoid `If` and `Loop`: a policy that chooses modules is written in parts.
        with_policy: whether its file, settings and card are written, too, so that `from_pretrained` takes the folder.
        overwrite: whether an earlier export in the folder is replaced.
        seed: recorded in the manifest; the export itself draws its scene from a seed of its own.

    Raises:
        UsageError: an argument makes no sense, or the policy cannot be exported.
        DetectorError: the detector cannot be exported.
        AdaptiveISPError: onnx or onnxruntime is not installed, or the graphs differ from the package.
    """
    require_extra(EXTRA, "onnx", "onnxruntime")
    _check_choices(precision, format)
    _check_quantisation(precision, calibrate, quantise)
    if with_policy:
        _check_has_file(policy)
    isp = AdaptiveISP(policy, detector, size, confidence)
    design = _design(isp, frame_of(input, header, orientation), precision, quantise, not without_if)
    raws = calibration_raws(calibrate, header, design.frame) if calibrate else []
    with claim_folder(Path(out), "export", overwrite) as claim:
        files, manifest, difference = _built(isp, design, without_if, seed, raws)
        _write(claim.folder, files, manifest, isp if with_policy else None)
    return Export(Path(out), manifest, difference)


def _check_choices(precision: str, format: str) -> None:
    for name, value, known in (("precision", precision, PRECISIONS), ("format", format, FORMATS)):
        if value not in known:
            raise UsageError(f"{name} {value!r} does not exist; choose one of {', '.join(known)}")


def _design(isp: AdaptiveISP, frame: Frame, precision: str, quantise: Sequence[str], loops: bool) -> Design:
    method = precision if precision in METHODS else ""
    return Design(
        plan_of(isp.policy),
        isp.detector,
        frame,
        isp.size,
        Suppression(isp.confidence, is_set=is_set(isp.detector)),
        np.dtype("float32" if method else precision),
        method,
        tuple(quantise),
        loops,
    )


def _check_has_file(policy: str | Planner) -> None:
    """Refuses to write the file of a policy that has none.

    Raises:
        UsageError: it has none.
    """
    if not isinstance(policy, str):
        raise UsageError(
            "with_policy: the policy was given as an object, which no file describes; give its name or file"
        )
    if policy not in NAMED_POLICIES:
        policy_file(policy)


def _check_quantisation(precision: str, calibrate: Sequence[Any], quantise: Sequence[str]) -> None:
    """Checks the arguments of a graph of whole numbers.

    Raises:
        UsageError: they make no sense together.
    """
    if isinstance(calibrate, str | os.PathLike) or isinstance(quantise, str):
        raise UsageError("calibrate and quantise are lists; put the value into one, as in [value]")
    if precision == "int8-static" and not calibrate:
        raise UsageError(
            "precision int8-static needs raws by which its ranges are learned; give calibrate (--calibrate)"
        )
    if precision != "int8-static" and calibrate:
        raise UsageError(f"calibrate is for precision int8-static, not for {precision}; leave it out (--calibrate)")
    if precision in METHODS and (not quantise or set(quantise) - set(PARTS)):
        raise UsageError(f"quantise {', '.join(quantise) or 'nothing'}: give {' or '.join(PARTS)}, or both")
    if precision not in METHODS and tuple(quantise) != PARTS:
        raise UsageError(f"quantise is for precision {' and '.join(METHODS)}, not for {precision}; leave it out")


def _built(
    isp: AdaptiveISP, design: Design, in_parts: bool, seed: int, raws: Sequence[CalibrationRaw]
) -> tuple[dict[str, bytes], dict[str, Any], float]:
    """The content of each file but the manifest, the manifest, and the greatest difference of an image in the test."""
    helper = import_extra("onnx.helper", EXTRA)
    models = {name: build(design) for name, build in graphs_of(design, in_parts).items()}
    quantisation = None
    if design.whole_numbers:
        models, quantisation = _quantised(isp, design, models, raws)
    files = {f"{name}.onnx": model.SerializeToString(deterministic=True) for name, model in models.items()}
    modules = [module.name for module in design.plan.table]
    entries = {
        name: graph_entry(model, f"{name}.onnx", files[f"{name}.onnx"], helper, modules)
        for name, model in models.items()
    }
    limit = {**self_test.TOLERANCES[design.described_precision], "confidence": design.suppression.confidence}
    tests, difference = {}, 0.0
    for name, (given, wanted) in self_test.samples_of(isp, design, entries).items():
        found = self_test.run_graph(files[f"{name}.onnx"], given)
        if said := self_test.faults(design.plan, wanted, found, limit):
            raise AdaptiveISPError(
                f"{name}.onnx of policy {isp.policy.name} differs from the package on a drawn scene: "
                f"{'; '.join(said)}; nothing was written"
            )
        apart = [float(abs(found[image] - wanted[image]).max()) for image in self_test.IMAGES if image in wanted]
        difference = max(difference, *apart, 0.0)
        tests[name] = {
            "inputs": _stored(files, name, "input", given),
            "outputs": _stored(files, name, "output", wanted),
            "tolerances": limit,
        }
    origin = provenance(seed, {isp.detector.name: isp.detector.weights_sha256})
    origin["command"] = without_folders(origin["command"])
    manifest = manifest_of(design, entries, _policy_facts(isp), tests, origin, quantisation)
    files[CARD] = card_of(manifest).encode()
    return files, manifest, difference


def _quantised(
    isp: AdaptiveISP, design: Design, models: Mapping[str, Any], raws: Sequence[CalibrationRaw]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The graphs with networks of whole numbers, and the manifest's entry about them.

    Raises:
        AdaptiveISPError: no graph has a network that can be quantised.
    """
    results = [(one.raw, isp(one.raw)) for one in raws]

    def feeds(name: str, inputs: list[str]) -> Iterator[Mapping[str, Array]]:
        for raw, result in results:
            given, _ = self_test.sample_of(name, inputs, design, raw, result)
            if "frame" in given:
                given["frame"] = given["frame"].astype(design.frame.dtype)
            yield given

    made = {
        name: quantised(
            model, design.whole_numbers, design.quantise, feeds(name, [one.name for one in model.graph.input])
        )
        for name, model in models.items()
    }
    if not any(one.layers for one in made.values()):
        parts = " and ".join(design.quantise)
        raise AdaptiveISPError(f"{parts}: has no layers that can be quantised; export it in float32")
    entry = {
        "method": design.whole_numbers,
        "parts": list(design.quantise),
        "calibration": [one.facts for one in raws],
        "graphs": {
            name: {"layers": list(one.layers), "float32": list(one.kept)} for name, one in made.items() if one.layers
        },
    }
    return {name: one.model for name, one in made.items()}, entry


def _stored(files: dict[str, bytes], graph: str, side: str, values: Mapping[str, Array]) -> list[dict[str, Any]]:
    """Adds the values as files, and returns their entries in the manifest."""
    entries = []
    for name, value in values.items():
        file = f"{self_test.FOLDER}/{graph}_{side}_{name}.bin"
        files[file] = np.ascontiguousarray(value, value.dtype.newbyteorder("<")).tobytes()
        entries.append({"name": name, "file": file, "dtype": str(value.dtype), "shape": list(value.shape)})
    return entries


def _policy_facts(isp: AdaptiveISP) -> dict[str, Any]:
    """Name, kind and hash of the policy."""
    file = None
    if isp.policy_spec and isp.policy_spec not in NAMED_POLICIES and ":" not in isp.policy_spec:
        file = policy_file(isp.policy_spec)
    header = getattr(isp.policy, "header", None)
    return {
        "name": isp.policy.name,
        "kind": header.kind if header is not None else type(isp.policy).__name__,
        "origin": header.origin if header is not None else "",
        "sha256": sha256_of(file) if file is not None else "",
    }


def _write(
    folder: Path, files: Mapping[str, bytes], manifest: Mapping[str, Any], isp: AdaptiveISP | None = None
) -> None:
    """Writes all files, the manifest last, and removes those of an earlier export that are not replaced.

    With `isp`, its policy and settings follow, which hold the manifest's hash.
    """
    former = folder / FILE
    if former.is_file():
        for name in (SETTINGS_FILE, *SAVED_POLICIES, *_files_of(former)):
            remove_inside(folder, folder / name)
        for path in (
            *folder.glob("prepared/*.ort"),
            *folder.glob("prepared/*.json"),
        ):  # by `adaptiveisp-runtime prepare`
            remove_inside(folder, path)
        remove_inside(folder, former)
    for name, content in files.items():
        if isp is not None and name == CARD:
            content = full_card(isp.policy_spec, content.decode()).encode()
        write_bytes(folder / name, content)
    write_bytes(former, json_text(manifest).encode())
    if isp is not None:
        isp.save_pretrained(folder)


def _files_of(manifest: Path) -> list[str]:
    """The files that a manifest names."""
    try:
        content = json.loads(manifest.read_text())
        names = [entry["file"] for entry in content["graphs"].values()]
        for test in content["self_test"].values():
            names += [entry["file"] for side in ("inputs", "outputs") for entry in test[side]]
        return [str(name) for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
