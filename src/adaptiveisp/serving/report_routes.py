"""The requests of the report page."""

import threading
from collections import OrderedDict
from typing import Any

from fastapi import Response

from adaptiveisp.errors import AdaptiveISPError, DataError, PipelineError, UsageError
from adaptiveisp.evaluation.figures.cost import pareto_front
from adaptiveisp.isp.pipeline import DEFAULT_SET, Pipeline
from adaptiveisp.serving.image_routes import working
from adaptiveisp.serving.pictures import thumb
from adaptiveisp.serving.reports import RESAMPLES, SCORE, ReportPart, curves, image_rows, parts_of
from adaptiveisp.serving.requests import Fields, Handler, answer
from adaptiveisp.serving.studio import Studio

TRIED_SETS = (DEFAULT_SET, "pos-isp", "released")
"""Module sets in which the pipelines of a report are tried, since reports do not name them and modules differ."""
SAME_LOSS = 0.02
"""Relative difference up to which a rendering's loss is taken for that of the report."""
MOST_THUMBS = 400
"""Small pictures that are kept."""
COSTS = ("table_ms", "cost_ms", "clock_ms")
"""Times of a policy in report.json, the first that all have is the figure's."""


def report_routes(studio: Studio) -> dict[str, Handler]:
    """Path → handler of each POST request of the report page."""
    page = ReportPage(studio)
    names = ("open", "images", "curves", "pipeline", "thumb")
    return {f"/api/report/{name}": working(studio, getattr(page, name)) for name in names}


class ReportPage:
    """The answers to the requests of the report page.

    Args:
        studio: does the work, and has the catalogue.
    """

    def __init__(self, studio: Studio):
        self.studio = studio
        self._parts: dict[str, list[ReportPart]] = {}
        self._thumbs: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def _part(self, fields: Fields) -> ReportPart:
        """The part of a report that a request names; report.json is read once."""
        key, name = fields.text("report"), fields.text("set", "")
        entry = self.studio.catalogue.reports.find(key)
        if key not in self._parts:
            self._parts[key] = parts_of(entry)
        for part in self._parts[key]:
            if part.name == name or not name:
                return part
        raise UsageError("the report has no such data set")

    def open(self, fields: Fields) -> Response:
        """Policies, detectors, data sets, scores and differences."""
        part = self._part(fields)
        content = part.content
        return answer(
            {
                "sets": [one.name for one in self._parts[fields.text("report")]],
                "set": part.name,
                "policies": part.policies,
                "detectors": part.detectors,
                "scores": content["policies"],
                "differences": content.get("differences", []),
                "front": {name: _front(content["policies"], name) for name in part.detectors},
                "notes": content.get("notes", []),
                "settings": content.get("settings", {}),
                "score": SCORE,
            }
        )

    def images(self, fields: Fields) -> Response:
        """The rows of the list of images, with the ids of those that the viewer was given."""
        part = self._part(fields)
        rows = image_rows(part, fields.text("detector"), fields.text("a"), fields.text("b"))
        given = self._given(part)
        for row in rows:
            row["image"], row["name"] = given.get((row["photo"], row["draw"], _light(row["light"])), ("", ""))
        return answer({"rows": rows, "given": bool(given)})

    def curves(self, fields: Fields) -> Response:
        """Precision over recall, and AP50 by light with intervals."""
        part = self._part(fields)
        found = curves(part, fields.text("detector"), fields.texts("policies", 8))
        return answer({"curves": found, "resamples": RESAMPLES})

    def pipeline(self, fields: Fields) -> Response:
        """The pipeline of a policy on an image, in the module set that gives the report's loss."""
        part, policy = self._part(fields), fields.text("policy")
        key = fields.integer("photo", -(1 << 53), 1 << 53), fields.integer("draw", 0, 1 << 31)
        line = part.runs.get(key, {}).get("policies", {}).get(policy)
        if not isinstance(line, dict) or line.get("modules") is None:
            raise DataError("the report has no pipeline of this policy for this image")
        image, detector = fields.text("image"), fields.text("detector")
        made = [pipeline for name in TRIED_SETS if (pipeline := _pipeline(line, name)) is not None]
        if not made:
            raise DataError("the report's pipeline has modules that are not known here; give --module, as for eval")
        stated = line.get("loss", {}).get(detector)
        if stated is None or detector not in self.studio.detectors:
            note = "the report states no loss for it, so that it is not known whether it is the same rendering"
            return answer({"pipeline": made[0].to_json(), "note": note})
        for pipeline in made:
            result = self.studio.result(image, detector, pipeline)
            loss, _ = self.studio.loss(image, detector, result)
            if loss is not None and abs(loss - stated) <= SAME_LOSS * abs(stated) + 1e-6:
                return answer({"pipeline": pipeline.to_json(), "note": ""})
        note = "its loss here differs from that in the report; check --size and the versions"
        return answer({"pipeline": made[0].to_json(), "note": note})

    def thumb(self, fields: Fields) -> Response:
        """A small picture of an image, brightened for viewing."""
        image, detector = fields.text("image"), fields.text("detector")
        with self._lock:
            known = self._thumbs.get(image)
        if known is None:
            known = thumb(self.studio.opened(image, detector).developed.small[0])
            with self._lock:
                self._thumbs[image] = known
                while len(self._thumbs) > MOST_THUMBS:
                    self._thumbs.popitem(last=False)
        return answer({"thumb": known})

    def _given(self, part: ReportPart) -> dict[tuple[int, int, float | None], tuple[str, str]]:
        """(photo, draw, light) → id and name of an image of the catalogue, if all of the report's are of one set."""
        found: dict[str, dict[tuple[int, int, float | None], tuple[str, str]]] = {}
        for name, entry in self.studio.catalogue.images.items():
            if entry.key is not None:
                photo, draw = entry.key
                found.setdefault(entry.group, {})[photo, draw, _light(entry.light)] = name, entry.name
        try:
            wanted = {(int(one["photo_id"]), int(one["draw"]), _light(one["light"])) for one in part.truth["images"]}
        except (AdaptiveISPError, KeyError, TypeError, ValueError):
            return {}
        return next((own for own in found.values() if wanted <= own.keys()), {})


def _light(light: float | None) -> float | None:
    return None if light is None else float(f"{light:.9g}")


def _pipeline(line: dict[str, Any], module_set: str) -> Pipeline | None:
    """The pipeline of a line of pipelines.jsonl; None where the set does not have it."""
    try:
        stages = [
            {"module": name, "params": params} for name, params in zip(line["modules"], line["params"], strict=True)
        ]
        return Pipeline.from_json({"version": 1, "module_set": module_set, "stages": stages})
    except (PipelineError, KeyError, TypeError, ValueError):
        return None


def _front(policies: dict[str, dict[str, dict[str, Any]]], detector: str) -> dict[str, Any]:
    """Time and AP50 of each policy, and which of them no other one beats in both."""
    scores = {name: by[detector] for name, by in policies.items() if by.get(detector, {}).get("ap50") is not None}
    for cost in COSTS:
        points = [
            (name, float(one[cost]), float(one["ap50"])) for name, one in scores.items() if one.get(cost) is not None
        ]
        if points and len(points) == len(scores):
            best = pareto_front([point[1] for point in points], [point[2] for point in points])
            return {"cost": cost, "points": points, "front": [points[i][0] for i in best]}
    return {"cost": "", "points": [], "front": []}
