"""`export`: writes a policy with a detector as ONNX graphs into a folder, with a manifest and a self-test."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adaptiveisp.deployment import self_test
from adaptiveisp.deployment.assembly import Design, graphs_of
from adaptiveisp.deployment.card import card_of
from adaptiveisp.deployment.detector import is_set
from adaptiveisp.deployment.frames import frame_of
from adaptiveisp.deployment.manifest import FILE, graph_entry, manifest_of
from adaptiveisp.deployment.ops import EXTRA, Array
from adaptiveisp.deployment.policies import plan_of
from adaptiveisp.deployment.suppression import Suppression
from adaptiveisp.errors import AdaptiveISPError, UsageError
from adaptiveisp.inference.predictor import AdaptiveISP
from adaptiveisp.policies.base import Planner
from adaptiveisp.raw.reader import BayerHeader
from adaptiveisp.types import Detector
from adaptiveisp.utils import defaults
from adaptiveisp.utils.files import json_text, sha256_of, write_bytes
from adaptiveisp.utils.optional_imports import import_extra, require_extra
from adaptiveisp.utils.output_folder import claim_folder, remove_inside
from adaptiveisp.utils.provenance import provenance

PRECISIONS = ("float32", "float16")
FORMATS = ("onnx",)


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
    format: str = "onnx",
    without_if: bool = False,
    overwrite: bool = False,
    seed: int = defaults.SEED,
) -> Export:
    """Writes a policy, its pipeline and a detector as ONNX graphs that run without PyTorch; see docs/export.md.

    The graphs are run once by onnxruntime, on a drawn scene. If they do not give what the package gives, nothing is
    written.

    Args:
        policy, detector: as for `AdaptiveISP`.
        out: the folder to write.
        input: "mosaic" for frames (height, width) of a Bayer sensor, "rgb" for (height, width, 3), linear.
        header: what is known of the frames: size, format or bits, pattern and levels. What it leaves open becomes an
            input of the graph: levels and pattern where it has no bits, sizes where it has none.
        orientation: EXIF orientation of the frames, 1 to 8.
        size: longer side in pixels at which policy, modules and detector work; None as for `AdaptiveISP`.
        confidence: least score of a detection.
        precision: "float32", or "float16" for the networks and for modules that change each pixel by itself.
        format: "onnx".
        without_if: whether to avoid `If` and `Loop`: a policy that chooses modules is written in parts (`develop`,
            `policy`, one graph a module, `detector`), which a program runs one after the other.
        overwrite: whether an earlier export in the folder is replaced.
        seed: recorded in the manifest; the export itself draws its scene from a seed of its own.

    Raises:
        UsageError: an argument makes no sense, or the policy cannot be exported.
        DetectorError: the detector cannot be exported.
        AdaptiveISPError: onnx or onnxruntime is not installed, or the graphs differ from the package.
    """
    require_extra(EXTRA, "onnx", "onnxruntime")
    for name, value, known in (("precision", precision, PRECISIONS), ("format", format, FORMATS)):
        if value not in known:
            raise UsageError(f"{name} {value!r} does not exist; choose one of {', '.join(known)}")
    isp = AdaptiveISP(policy, detector, size, confidence)
    plan = plan_of(isp.policy)
    design = Design(
        plan,
        isp.detector,
        frame_of(input, header, orientation),
        isp.size,
        Suppression(confidence, is_set=is_set(isp.detector)),
        np.dtype(precision),
    )
    with claim_folder(Path(out), "export", overwrite) as claim:
        files, manifest, difference = _built(isp, design, without_if, seed)
        _write(claim.folder, files, manifest)
    return Export(Path(out), manifest, difference)


def _built(
    isp: AdaptiveISP, design: Design, in_parts: bool, seed: int
) -> tuple[dict[str, bytes], dict[str, Any], float]:
    """The content of each file but the manifest, the manifest, and the greatest difference of an image in the test."""
    helper = import_extra("onnx.helper", EXTRA)
    files: dict[str, bytes] = {}
    entries, tests, modules = {}, {}, [module.name for module in design.plan.table]
    for name, build in graphs_of(design, in_parts).items():
        model = build(design)
        files[f"{name}.onnx"] = model.SerializeToString(deterministic=True)
        entries[name] = graph_entry(model, f"{name}.onnx", files[f"{name}.onnx"], helper, modules)
    limit = {**self_test.TOLERANCES[str(design.precision)], "confidence": design.suppression.confidence}
    samples, difference = self_test.samples_of(isp, design, entries), 0.0
    for name, (given, wanted) in samples.items():
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
    manifest = manifest_of(design, entries, _policy_facts(isp), tests, origin)
    files["README.md"] = card_of(manifest).encode()
    return files, manifest, difference


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
    from adaptiveisp.policies.registry import NAMED_POLICIES, policy_file

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


def _write(folder: Path, files: Mapping[str, bytes], manifest: Mapping[str, Any]) -> None:
    """Writes all files, the manifest last, and removes those of an earlier export that are not replaced."""
    former = folder / FILE
    if former.is_file():
        for name in _files_of(former):
            remove_inside(folder, folder / name)
        remove_inside(folder, former)
    for name, content in files.items():
        write_bytes(folder / name, content)
    write_bytes(former, json_text(manifest).encode())


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
