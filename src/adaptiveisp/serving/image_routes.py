"""The requests of the image page."""

import re
import shlex
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool

from adaptiveisp.errors import UsageError
from adaptiveisp.isp.module import IspModule
from adaptiveisp.isp.pipeline import MOST_STAGES, Pipeline
from adaptiveisp.isp.raw_pipeline import RawPipeline
from adaptiveisp.isp.registry import BASELINES, HELPERS, MODULE_SETS, modules_of
from adaptiveisp.policies.explanation import NO_CHOICES, can_explain
from adaptiveisp.serving.catalogue_view import module_view
from adaptiveisp.serving.pictures import histogram, lift_of, lifted, plain, png, thumb
from adaptiveisp.serving.requests import Fields, Handler, answer, fields_of
from adaptiveisp.serving.stages import StageImage
from adaptiveisp.serving.studio import Studio
from adaptiveisp.tuning.cube import cube_text, interpolation_error, pointwise_part, table_of
from adaptiveisp.types import RawImage
from adaptiveisp.utils.color import to_uint8

REQUESTS = (
    *("open", "choose", "picture", "stages", "detect", "slopes", "why", "force", "worth", "export", "modules"),
    "check",
)
"""Names of the requests, which are those of the methods of `ImagePage`."""
GRID = 33
"""Points of a `.cube` along each axis, as in `export-tuning`."""


def working(studio: Studio, work: Callable[[Fields], Response]) -> Handler:
    """A handler that reads the fields of a request and computes the answer on another thread, one at a time."""

    async def handler(request: Request) -> Response:
        fields = await fields_of(request)

        def compute() -> Response:
            with studio.working():
                return work(fields)

        return await run_in_threadpool(compute)

    return handler


def image_routes(studio: Studio) -> dict[str, Handler]:
    """Path → handler of each POST request of the image page."""
    page = ImagePage(studio)
    return {f"/api/image/{name}": working(studio, getattr(page, name)) for name in REQUESTS}


class ImagePage:
    """The answers to the requests of the image page.

    Args:
        studio: does the work.
    """

    def __init__(self, studio: Studio):
        self.studio = studio

    def open(self, fields: Fields) -> Response:
        """Facts about an image and its labels."""
        image, detector = fields.text("image"), fields.text("detector")
        entry, prepared = self.studio.catalogue.images.find(image), self.studio.opened(image, detector)
        height, width = prepared.developed.full_size
        small = prepared.developed.small
        known = self.studio.labels(image, detector)
        names = dict(entry.categories)
        if known is not None:  # as the detector calls them, so that boxes and labels can be compared
            classes = self.studio.detector(detector).class_names
            names |= {category: classes[label] for category, label in known.to_label.items()}
        labels = [
            {"box": [x, y, x + w, y + h], "class": names.get(one.category_id, "?"), "crowd": bool(one.iscrowd)}
            for one in entry.annotations or ()
            for x, y, w, h in [one.bbox]
        ]
        return answer(
            {
                "name": entry.name,
                "full": [width, height],
                "small": [small.shape[3], small.shape[2]],
                "facts": raw_facts(prepared.raw),
                "remarks": [remark.text for remark in prepared.raw.remarks],
                "monochrome": prepared.developed.is_monochrome,
                "light": entry.light,
                "labels": labels if entry.annotations is not None else None,
                "has_loss": known is not None,
                "times": {"read": prepared.read_ms, "develop": prepared.develop_ms},
            }
        )

    def choose(self, fields: Fields) -> Response:
        """The pipeline that a policy chooses."""
        image, detector, name = fields.text("image"), fields.text("detector"), fields.text("policy")
        prepared, policy = self.studio.chosen(image, detector, name), self.studio.policy(name)
        rendered = prepared.rendered
        assert rendered is not None
        pipeline = rendered.pipeline
        editable = type(pipeline) in (Pipeline, RawPipeline)  # others hold more than a file can say
        return answer(
            {
                "policy": policy.name,
                "pipeline": pipeline.to_json() if pipeline is not None and editable else None,
                "described": [] if pipeline is None else pipeline.describe(),
                "editable": editable,
                "explains": can_explain(policy),
                "note": policy.note,
                "policy_ms": rendered.milliseconds - rendered.modules_ms,
                "left_out": list(rendered.left_out),
            }
        )

    def picture(self, fields: Fields) -> Response:
        """The image after a stage as a PNG, or as its bytes; stage 0 is the developed raw, -1 the detector's input."""
        image, detector = fields.text("image"), fields.text("detector")
        stage = fields.integer("stage", -1, MOST_STAGES)
        linear = False
        if "policy" in fields.content:
            rendered = self.studio.chosen(image, detector, fields.text("policy")).rendered
            assert rendered is not None
            shown = StageImage(rendered.image[0], rendered.modules_ms)
            linear = rendered.pipeline is not None and not rendered.pipeline.stages
        else:
            pipeline = fields.pipeline()
            images = self.studio.stage_images(image, detector, pipeline)
            if stage >= len(images):
                raise UsageError(f"stage {stage} does not exist; the pipeline has {len(images) - 1}")
            shown, linear = images[stage], stage % len(images) == 0
        picture = shown.image.clamp(0, 1)
        # Only what no stage has touched is brightened: a pipeline whose result is too dark must look it.
        lift = lift_of(picture) if linear and fields.flag("lift") else 1.0
        headers = {"X-Lift": f"{lift:.4g}", "X-Milliseconds": f"{shown.milliseconds:.3f}"}
        made = lifted(picture, lift)
        if not fields.flag("pixels"):
            return Response(png(made), media_type="image/png", headers=headers)
        rgb = to_uint8(made)  # without a PNG's compression, which would take most of the time on loopback
        headers |= {"X-Width": str(rgb.shape[1]), "X-Height": str(rgb.shape[0])}
        return Response(rgb.tobytes(), media_type="application/octet-stream", headers=headers)

    def stages(self, fields: Fields) -> Response:
        """Small picture, histogram and time after each stage, the developed raw first.

        With a policy, whose pipeline is not made of stages, its image comes last.
        """
        pipeline, image, detector = fields.pipeline(), fields.text("image"), fields.text("detector")
        images = self.studio.stage_images(image, detector, pipeline)
        prepared = self.studio.opened(image, detector)
        grey = prepared.developed.is_monochrome
        left_out = [False, *(grey and module.colour_only for module in pipeline.modules)]
        if "policy" in fields.content:
            rendered = self.studio.chosen(image, detector, fields.text("policy")).rendered
            assert rendered is not None
            images, left_out = [images[0], StageImage(rendered.image[0], rendered.modules_ms)], [False, False]
        views = [
            {
                "ms": one.milliseconds,
                "thumb": thumb(one.image, number == 0),
                "lift": lift_of(one.image.clamp(0, 1)) if number == 0 else 1.0,
                "histogram": histogram(one.image),
                "left_out": out,
            }
            for number, (one, out) in enumerate(zip(images, left_out, strict=True))
        ]
        return answer({"stages": views, "cost_ms": pipeline.cost_ms})

    def detect(self, fields: Fields) -> Response:
        """The detections of a pipeline, or of a policy, and the loss where labels are known."""
        image, detector = fields.text("image"), fields.text("detector")
        policy = fields.text("policy", "none")
        pipeline = None if "policy" in fields.content else fields.pipeline()
        result = self.studio.result(image, detector, pipeline, policy)
        loss, reason = self.studio.loss(image, detector, result)
        return answer({"boxes": result.boxes(), "loss": loss, "no_loss": reason, "ms": result.timings.detector})

    def slopes(self, fields: Fields) -> Response:
        """The loss, and its change with each parameter."""
        loss, slopes = self.studio.slopes(fields.text("image"), fields.text("detector"), fields.pipeline())
        return answer({"loss": loss, "slopes": [asdict(slope) for slope in slopes]})

    def worth(self, fields: Fields) -> Response:
        """What each stage is worth: loss and boxes of the pipeline, and of the pipeline without it."""
        image, detector, pipeline = fields.text("image"), fields.text("detector"), fields.pipeline()
        whole = range(len(pipeline.stages))
        kept = [pipeline, *(pipeline.with_stages([s for j, s in enumerate(pipeline.stages) if j != i]) for i in whole)]
        found = []
        for one in kept:
            result = self.studio.result(image, detector, one)
            loss, _ = self.studio.loss(image, detector, result)
            found.append({"loss": loss, "boxes": result.boxes()})
        return answer({"whole": found[0], "without": found[1:]})

    def why(self, fields: Fields) -> Response:
        """The choices of a policy and what it saw; `note` alone where it has no probabilities."""
        name = fields.text("policy")
        if not can_explain(self.studio.policy(name)):
            return answer({"choices": [], "note": NO_CHOICES, "n_preprocessing": 0})
        found = self.studio.explanation(fields.text("image"), fields.text("detector"), name)
        choices = [
            {
                "probabilities": choice.probabilities,
                "chosen": choice.chosen,
                "value": choice.value,
                "seen": None if choice.observation is None else plain(choice.observation),
            }
            for choice in found.choices
        ]
        return answer({"choices": choices, "note": found.note, "n_preprocessing": found.n_preprocessing})

    def force(self, fields: Fields) -> Response:
        """The pipeline of a policy after some choices that it did not make."""
        begin = fields.texts("begin", MOST_STAGES)
        image, detector = fields.text("image"), fields.text("detector")
        pipeline = self.studio.forced(image, detector, fields.text("policy"), begin)
        return answer({"pipeline": pipeline.to_json(), "described": pipeline.describe()})

    def check(self, fields: Fields) -> Response:
        """The pipeline of a file, if it is one."""
        return answer(fields.pipeline().to_json())

    def modules(self, fields: Fields) -> Response:
        """The modules of a set, from whose declarations the sliders are made."""
        name = fields.text("module_set")
        known: tuple[IspModule, ...] = (*modules_of(name), *HELPERS, *BASELINES)
        return answer({"modules": [module_view(one) for one in known], "sets": list(MODULE_SETS)})

    def export(self, fields: Fields) -> Response:
        """A file: pipeline JSON, PNG of the detector's input, look-up table, or the command that repeats it."""
        image, detector, kind = fields.text("image"), fields.text("detector"), fields.text("kind")
        pipeline = fields.pipeline()
        if kind == "json":
            return answer(pipeline.to_json())
        if kind == "png":
            rendered = self.studio.rendered(image, detector, pipeline).rendered
            assert rendered is not None
            return Response(png(rendered.image[0]), media_type="image/png")
        if kind == "cube":
            part, notes = pointwise_part(pipeline)
            table = table_of(part, GRID, "cube-root")
            error = interpolation_error(part, table, "cube-root")
            notes = ["looked up by cube-root RGB", *notes, f"colours between points are up to {error:.3f} off, of 1"]
            return Response(cube_text(table, "adaptiveisp view", notes), media_type="text/plain; charset=utf-8")
        if kind == "command":
            return answer(self._command(image, detector, pipeline))
        raise UsageError("kind must be json, png, cube or command")

    def _command(self, image: str, detector: str, pipeline: Pipeline) -> dict[str, Any]:
        """The command line that repeats the page's result."""
        entry, config = self.studio.catalogue.images.find(image), self.studio.config
        if entry.file is None:
            return {"command": "", "note": "this raw is made on the fly, so that there is no file to name"}
        file = f"{_stem(entry.name)}.pipeline.json"
        words = ["adaptiveisp", "run", entry.name if entry.uploaded else str(entry.file)]
        words += [
            "--pipeline",
            file,
            "--detector",
            self.studio.detectors[detector],
            "--size",
            str(self.studio.size(detector)),
        ]
        words += ["--confidence", f"{config.confidence:g}", *(["--camera-white-balance"] * config.camera_white_balance)]
        notes = [f"first save the pipeline by Pipeline JSON, as {file}"]
        if entry.uploaded:
            notes.append("give the path of the raw on your disk; the uploaded copy is removed when the viewer ends")
        if entry.header is not None:
            notes.append("add the --raw-… options of the viewer's command line")
        return {"command": shlex.join([*words, "--out", "seen"]), "note": "; ".join(notes)}


def _stem(name: str) -> str:
    """The name of a raw without folder and ending, as the page has it in the names of the files that it saves."""
    last = re.split(r"[\\/]", name)[-1] or "image"
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", re.sub(r"\.[^.]*$", "", last)) or "image"


def raw_facts(raw: RawImage) -> dict[str, Any]:
    """What is known about a raw, for the reader."""
    height, width = raw.data.shape[:2]
    return {
        "camera": raw.camera,
        "pattern": raw.pattern or "RGB",
        "sensor": f"{width}×{height}",
        "black": max(raw.black_level),
        "white": raw.white_level,
        "iso": raw.iso,
        "exposure_s": raw.exposure_s,
    }
