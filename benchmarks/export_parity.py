"""Compares exported graphs in onnxruntime and OpenVINO with the path that `run` uses, on raws made of labelled photos.

    python benchmarks/export_parity.py --data dev.json --images DIR --policy coco-adaptive coco-fast night [--limit 50]

For each policy it exports the graph for mosaics of any size, runs it and `AdaptiveISP` on the same raws, dark and
normal, and prints a Markdown table: the greatest difference of the rendered images; raws with other modules; the share
of detections above 0.05 that have a partner of the same class (IoU at least 0.99, score within 1e-3); AP50 by both in
points; and the median time of a frame. Each runtime has one thread, and OpenVINO computes in float32. It needs
`adaptiveisp[onnx,openvino,report]`.
"""

import os

for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(name, "1")

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adaptiveisp import AdaptiveISP, SynthesisConfig, open_dataset, synthesize
from adaptiveisp.deployment.api import export
from adaptiveisp.deployment.self_test import feeds_of, overlap
from adaptiveisp.detectors.class_names import map_classes
from adaptiveisp.detectors.loading import load_detector
from adaptiveisp.evaluation.coco_ap import ScoredImage, coco_average_precision

CONFIDENCE = 0.001
"""Least score of the detections that AP counts, as in `eval`."""
COMPARED = 0.05
"""Least score of the detections that are compared, the default of `run`."""
Run = Callable[[Mapping[str, Any]], dict[str, Any]]


def onnxruntime_run(file: Path) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return lambda feeds: dict(zip(names, session.run(names, dict(feeds)), strict=True))


def openvino_run(file: Path) -> Run:
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    model = core.compile_model(core.read_model(file), "CPU", settings)
    # An output may have several names, of which only one is that of the manifest.
    return lambda feeds: {name: value for output, value in model(dict(feeds)).items() for name in output.names}


RUNTIMES = {"onnxruntime": onnxruntime_run, "openvino": openvino_run}


@dataclass
class Row:
    """What was found for one runtime on one light."""

    apart: float = 0.0
    partners: int = 0
    compared: int = 0
    other_modules: int = 0
    ms: list[float] = field(default_factory=list)
    scored: list[ScoredImage] = field(default_factory=list)

    def compare(self, wanted: Mapping[str, Any], found: Mapping[str, Any]) -> None:
        self.apart = max(self.apart, float(np.abs(found["image"] - wanted["image"]).max()))
        self.other_modules += not np.array_equal(found["modules"][: len(wanted["modules"])], wanted["modules"])
        for these, others in ((wanted, found), (found, wanted)):
            for box, score, label in zip(these["boxes"], these["scores"], these["labels"], strict=True):
                if score < COMPARED:
                    continue
                alike = (others["labels"] == label) & (np.abs(others["scores"] - score) <= 1e-3)
                self.compared += 1
                self.partners += bool((overlap(others["boxes"][alike], box[None]) >= 0.99).any())


def scored_image(sample: Any, found: Mapping[str, Any], to_category: Mapping[int, int]) -> ScoredImage:
    ids = np.asarray([to_category.get(int(label), -1) for label in found["labels"]], dtype=int)
    known = ids >= 0
    boxes, scores = np.float64(found["boxes"])[known], np.float64(found["scores"])[known]
    return ScoredImage(sample.image_id, sample.draw, sample.light, sample.annotations, boxes, scores, ids[known])


def measure(policy: str, folder: Path, sets: Mapping[str, Any], detector: Any, precision: str) -> None:
    made = export(policy, folder, detector, confidence=CONFIDENCE, precision=precision)
    entry, table = made.manifest["graphs"]["full"], made.manifest["pipeline"]["modules"]
    ids = {module["name"]: module["id"] for module in table}
    inputs = [one["name"] for one in entry["inputs"]]
    isp = AdaptiveISP(policy, detector, confidence=CONFIDENCE)
    runs = {name: load(folder / entry["file"]) for name, load in RUNTIMES.items()}
    for light, dataset in sets.items():
        to_category = map_classes(isp.detector.class_names, dataset.categories).label_to_category
        rows, own = {name: Row() for name in runs}, Row()
        for sample in dataset.samples:
            raw = dataset.read(sample)
            start = time.perf_counter()
            result = isp(raw)
            own.ms.append(1e3 * (time.perf_counter() - start))
            wanted = {
                "image": result.image[None].numpy(),
                "modules": np.asarray([ids[stage.module] for stage in result.pipeline.stages]),
                **{key: getattr(result.detections, key).numpy() for key in ("boxes", "scores", "labels")},
            }
            own.scored.append(scored_image(sample, wanted, to_category))
            feeds = feeds_of(raw, inputs)
            for name, run in runs.items():
                start = time.perf_counter()
                found = run(feeds)
                rows[name].ms.append(1e3 * (time.perf_counter() - start))
                rows[name].compare(wanted, found)
                rows[name].scored.append(scored_image(sample, found, to_category))
        report(policy, light, own, rows, set(dataset.categories))


def report(policy: str, light: str, own: Row, rows: Mapping[str, Row], categories: set[int]) -> None:
    def ap50(row: Row) -> float:
        return 100 * (coco_average_precision(row.scored, categories).ap50 or 0.0)

    for name, row in rows.items():
        share = f"{100 * row.partners / row.compared:.2f} % of {row.compared}" if row.compared else "none found"
        print(
            f"| {Path(policy).stem} | {light} | {name} | {len(row.ms)} | {row.apart:.1e} | {row.other_modules} "
            f"| {share} | {ap50(own):.2f} | {ap50(row):.2f} "
            f"| {np.median(own.ms):.0f} | {np.median(row.ms):.0f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="COCO JSON of photos")
    parser.add_argument("--images", type=Path, required=True, help="their folder")
    parser.add_argument("--policy", nargs="+", default=["coco-adaptive", "coco-fast"])
    parser.add_argument("--detector", default="yolov3-tiny")
    parser.add_argument("--limit", type=int, default=50, help="photos; each becomes one raw of each light")
    parser.add_argument("--light", nargs="+", default=["dark", "normal"])
    parser.add_argument("--precision", default="float32", choices=("float32", "float16"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    detector = load_detector(options.detector)
    with tempfile.TemporaryDirectory() as temporary:
        config = SynthesisConfig(",".join(options.light), format="dng", seed=options.seed)
        synthesize(config, options.data, options.images, Path(temporary) / "raws", limit=options.limit)
        sets = {light: open_dataset(Path(temporary) / "raws" / light) for light in options.light}
        heads = ("policy", "light", "runtime", "raws", "image differs by", "other modules", "equal detections")
        print("|", " | ".join((*heads, "AP50", "AP50 there", "ms", "ms there")), "|")
        print("|---" * 3 + "|---:" * 8 + "|")
        for number, policy in enumerate(options.policy):
            measure(policy, Path(temporary) / f"export-{number}", sets, detector, options.precision)


if __name__ == "__main__":
    main()
