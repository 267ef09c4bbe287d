"""Reads the folder that `eval` wrote, so that its images can be walked through one by one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from adaptiveisp.detectors.class_names import shown_name
from adaptiveisp.errors import DataError, UsageError
from adaptiveisp.evaluation.bootstrap import (
    HIT,
    MISS,
    MatchTable,
    bootstrap_weights,
    box_iou,
    match,
    percentile_interval,
)
from adaptiveisp.evaluation.coco_ap import SIZES, ScoredImage, precision_curve, xywh
from adaptiveisp.evaluation.coco_results import FOLDER, TRUTH_FILE, file_names, set_folders
from adaptiveisp.evaluation.detector_loss import TOLERANCE
from adaptiveisp.evaluation.policy_scores import LIGHT_EDGES, light_bin
from adaptiveisp.serving.entries import FolderEntry, TooLargeError
from adaptiveisp.serving.limits import MOST_LINE_BYTES, MOST_LINES
from adaptiveisp.serving.opening import REPORT_FILE, json_lines
from adaptiveisp.types import Annotation
from adaptiveisp.utils.files import read_json

REMEDY = "give the folder that eval wrote"
SCORE = 0.25
"""Least score of a box that counts as found or false in the list of images, as of those that reports draw."""
RESAMPLES = 200
"""Resamples of the intervals on the page."""
MOST_INTERVAL_IMAGES = 3000
"""With more images the page shows no intervals, which would take long."""

Key = tuple[int, int]
Results = dict[str, list[ScoredImage]]


@dataclass(frozen=True)
class ReportPart:
    """A report on one data set, or one of the sets of a report on several.

    Attributes:
        entry: its folder.
        name: name of the set, "" where there is only one.
        place: name of the folder of its COCO results; "" where there is only one set.
        content: its part of report.json.
    """

    entry: FolderEntry
    name: str
    place: str
    content: Mapping[str, Any] = field(repr=False)

    @property
    def policies(self) -> list[str]:
        """Names of the policies, groups as their members."""
        return list(self.content["policies"])

    @property
    def detectors(self) -> list[str]:
        """Names of the detectors."""
        return list(dict.fromkeys(name for scores in self.content["policies"].values() for name in scores))

    @cached_property
    def runs(self) -> dict[Key, dict[str, Any]]:
        """(photo, draw) → light, and by policy modules, parameters and losses."""
        path = self.entry.file("pipelines.jsonl")
        if not path.is_file():
            return {}
        found: dict[Key, dict[str, Any]] = {}
        for line in json_lines(path, MOST_LINES, MOST_LINE_BYTES):
            if line.get("set", "") != self.name or not isinstance(line.get("policy"), str):
                continue
            key = line.get("photo"), line.get("draw")
            if isinstance(key[0], int) and isinstance(key[1], int):
                row = found.setdefault((key[0], key[1]), {"light": line.get("light"), "policies": {}})
                row["policies"][line["policy"]] = line
        return found

    @cached_property
    def truth(self) -> dict[str, Any]:
        """The labels, as `eval` wrote them.

        Raises:
            DataError: the report has none.
        """
        content = self._json(TRUTH_FILE)
        if not isinstance(content, dict) or not all(
            isinstance(content.get(name), list) for name in ("images", "annotations", "categories")
        ):
            raise DataError(f"{self.entry.name}/{FOLDER}/{TRUTH_FILE}: is no COCO JSON; {REMEDY}")
        return content

    @property
    def categories(self) -> dict[int, str]:
        """Category id → name."""
        return {int(one["id"]): shown_name(str(one["name"])) for one in self.truth["categories"]}

    def _json(self, name: str) -> Any:
        parts = (FOLDER, self.place, name) if self.place else (FOLDER, name)
        path = self.entry.file(*parts)
        if not path.is_file():
            raise DataError(f"{self.entry.name}/{'/'.join(parts)}: is not there; {REMEDY}")
        if path.stat().st_size > MOST_LINE_BYTES:
            raise TooLargeError(f"{path.name}: is larger than {MOST_LINE_BYTES >> 20} MiB, and not shown")
        return read_json(path, DataError, REMEDY)

    def scored(self, policy: str, detector: str) -> list[ScoredImage]:
        """Labels and detections of a policy.

        Raises:
            DataError: they are missing or damaged.
            UsageError: the report has no such policy or detector.
        """
        if policy not in self.policies or detector not in self.detectors:
            raise UsageError("the report has no such policy or detector")
        names = file_names([(one, other) for one in self.policies for other in self.detectors])
        content = self._json(names[policy, detector])
        try:
            return _scored_images(self.truth, content)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                f"{self.entry.name}: its COCO results are damaged ({type(error).__name__}); {REMEDY}"
            ) from None


def _scored_images(truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> list[ScoredImage]:
    labels: dict[int, list[Annotation]] = {}
    for one in truth["annotations"]:
        x, y, width, height = (float(value) for value in one["bbox"])
        annotation = Annotation(int(one["category_id"]), (x, y, width, height), float(one["area"]), int(one["iscrowd"]))
        labels.setdefault(int(one["image_id"]), []).append(annotation)
    found: dict[int, list[Mapping[str, Any]]] = {}
    for result in results:
        found.setdefault(int(result["image_id"]), []).append(result)
    images = []
    for image in truth["images"]:
        own = found.get(int(image["id"]), [])
        boxes = np.array([result["bbox"] for result in own], np.float64).reshape(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        images.append(
            ScoredImage(
                int(image["photo_id"]),
                int(image["draw"]),
                image["light"],
                tuple(labels.get(int(image["id"]), [])),
                boxes,
                np.array([float(result["score"]) for result in own]),
                np.array([int(result["category_id"]) for result in own], np.int64),
            )
        )
    return images


def parts_of(entry: FolderEntry) -> list[ReportPart]:
    """The parts of a report: one for each data set.

    Raises:
        DataError: report.json is missing or damaged.
    """
    path = entry.file(REPORT_FILE)
    content = read_json(path, DataError, REMEDY)
    if not isinstance(content, dict) or not isinstance(content.get("policies"), dict) or not content["policies"]:
        raise DataError(f"{entry.name}/{REPORT_FILE}: holds no policies; {REMEDY}")
    sets = content.get("sets")
    if not isinstance(sets, dict) or not sets:
        return [ReportPart(entry, "", "", content)]
    places = set_folders(list(sets))
    return [ReportPart(entry, name, place, part) for (name, part), place in zip(sets.items(), places, strict=True)]


def counts(image: ScoredImage, score: float = SCORE) -> tuple[int, int]:
    """Number of labelled objects that are found, and of boxes that find none, at an overlap of 0.5.

    Args:
        image: labels and detections.
        score: least score of the boxes that count.
    """
    hits = misses = 0
    strong = np.asarray(image.scores) >= score
    for category in np.unique(np.asarray(image.category_ids)[strong]).tolist():
        chosen = np.flatnonzero(strong & (np.asarray(image.category_ids) == category))
        chosen = chosen[np.argsort(-np.asarray(image.scores)[chosen], kind="stable")]
        labels = [one for one in image.annotations if one.category_id == category]
        crowd = np.array([bool(one.iscrowd) for one in labels], np.bool_)
        boxes = np.array([one.bbox for one in labels], np.float64).reshape(-1, 4)
        outcome = match(box_iou(xywh(image.boxes)[chosen], boxes, crowd), crowd, crowd)[0]
        hits += int((outcome == HIT).sum())
        misses += int((outcome == MISS).sum())
    return hits, misses


def image_rows(part: ReportPart, detector: str, a: str, b: str) -> list[dict[str, Any]]:
    """What the list of images shows of two policies.

    Args:
        part: of a report.
        detector: name of the detector.
        a, b: names of the policies.

    Raises:
        DataError, UsageError: as for `ReportPart.scored`.
    """
    first = {image.key: image for image in part.scored(a, detector)}
    second = {image.key: image for image in part.scored(b, detector)}
    names, rows = part.categories, []
    for key in sorted(first):
        image, other = first[key], second.get(key)
        runs = part.runs.get(key, {}).get("policies", {})
        loss = {name: runs.get(name, {}).get("loss", {}).get(detector) for name in (a, b, "none")}
        objects = [one for one in image.annotations if not one.iscrowd]
        areas = [one.area for one in objects]
        rows.append(
            {
                "photo": key[0],
                "draw": key[1],
                "light": image.light,
                "objects": len(objects),
                "classes": sorted({names.get(one.category_id, "?") for one in objects}),
                "sizes": [n for n, (low, high) in SIZES.items() if n != "all" and any(low <= s < high for s in areas)],
                "found": [counts(image), counts(other) if other is not None else (0, 0)],
                "loss": [loss[a], loss[b]],
                "worse_than_raw": [_worse(loss[name], loss["none"]) for name in (a, b)],
                "modules": [runs.get(name, {}).get("modules") for name in (a, b)],
            }
        )
    return rows


def _worse(loss: float | None, raw: float | None) -> bool | None:
    """Whether a loss is above that of the raw, as in a report; None where one is not known."""
    return None if loss is None or raw is None else loss - raw > TOLERANCE * abs(raw)


def curves(part: ReportPart, detector: str, policies: Sequence[str], seed: int = 0) -> list[dict[str, Any]]:
    """For each policy precision over recall, and AP50 by light with bootstrap intervals.

    Args:
        part: of a report.
        detector: name of the detector.
        policies: names of policies.
        seed: of the bootstrap.
    """
    return [_curves_of(part.scored(policy, detector), policy, sorted(part.categories), seed) for policy in policies]


def _curves_of(images: Sequence[ScoredImage], policy: str, categories: Sequence[int], seed: int) -> dict[str, Any]:
    table = MatchTable(images, categories)
    bins = np.array([-1 if image.light is None else light_bin(image.light) for image in images], np.int64)
    weights = bootstrap_weights(table.keys, RESAMPLES, seed) if len(images) <= MOST_INTERVAL_IMAGES else None
    lights = []
    for number in range(len(LIGHT_EDGES) - 1):
        inside = (bins == number).astype(np.int64)
        point = table.ap(inside) if inside.any() else None
        if point is None:
            continue
        low = high = None
        if weights is not None:
            samples = table.resampled_ap(weights * inside)
            if not np.isnan(samples).all():
                interval = percentile_interval(point, samples)
                low, high = interval.low, interval.high
        edges = LIGHT_EDGES[number : number + 2]
        lights.append({"edges": edges, "n": int(inside.sum()), "ap50": point, "low": low, "high": high})
    return {"policy": policy, "precision": precision_curve(images, categories), "lights": lights}
