"""`AdaptiveISP`, a policy in front of a frozen detector: read → develop → resize → policy → modules → pad → detect."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import torch

from adaptiveisp.detectors.backends.choice import with_backend
from adaptiveisp.detectors.loading import load_detector
from adaptiveisp.errors import AdaptiveISPError, DetectorError, UsageError, logger
from adaptiveisp.inference.detection import detect, working_size
from adaptiveisp.inference.prepared import Prepared, develop_at_size
from adaptiveisp.inference.raw_input import OnError, RawLike, as_raw, expanded, is_folder, require_known
from adaptiveisp.inference.result import Result, Results, Timings
from adaptiveisp.isp.external import RawFrame
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.isp.raw_pipeline import bound_to
from adaptiveisp.policies.base import (
    Picture,
    Planner,
    Rendered,
    as_policy,
    grey_pipeline,
    grey_remark,
    needs_labels_error,
)
from adaptiveisp.policies.latency import within_latency
from adaptiveisp.policies.registry import load_policy
from adaptiveisp.raw.develop import develop
from adaptiveisp.raw.reader import BayerHeader
from adaptiveisp.types import Detections, Detector, RawImage
from adaptiveisp.utils import defaults
from adaptiveisp.utils.clock import Stopwatch

if TYPE_CHECKING:
    from adaptiveisp.inference.mapping import Skipped


class AdaptiveISP:
    """A policy in front of a frozen detector.

    Args:
        policy: a name (`coco-adaptive`, `auto-exposure`, `camera` and others, see `load_policy`), a pipeline JSON, the
            folder of a training run, `my_pkg.my_file:name`, or a policy object.
        detector: a name, a weights file, `my_pkg.my_file:load`, or a detector object.
        size: longer side in pixels at which policy, modules and detector work; None takes the
            fixed size of the detector's input, as some ONNX files have, or 416 if there is none.
        confidence: least score of a box in a result.
        camera_white_balance: whether the camera's own gains are applied before the policy observes the image.
        device: device of modules and detector.
        backend, precision: how the detector's network is run, see `detectors.backends.choice.with_backend`.
        latency_ms: most milliseconds of policy and modules for an image, for which modules are dropped from pipelines,
            see `policies.latency`; None for no limit.

    Raises:
        UsageError: the policy does not exist, or needs labels; or the backend does not fit the detector.
    """

    def __init__(
        self,
        policy: str | Planner = defaults.POLICY,
        detector: str | Detector = defaults.DETECTOR,
        size: int | None = None,
        confidence: float = defaults.CONFIDENCE,
        camera_white_balance: bool = False,
        device: str = "cpu",
        backend: str = "auto",
        precision: str = "auto",
        latency_ms: float | None = None,
    ):
        self.policy_spec = policy if isinstance(policy, str) else ""
        self.policy = load_policy(policy, device) if isinstance(policy, str) else as_policy(policy)
        if self.policy.needs_labels:
            raise needs_labels_error(self.policy)
        self.detector_spec = detector if isinstance(detector, str) else ""
        loaded = load_detector(detector, device) if isinstance(detector, str) else detector
        self.size = working_size(size, [loaded])
        self.latency_ms = latency_ms
        if latency_ms is not None:
            self.policy = within_latency(self.policy, latency_ms, self.size, device)
        self.detector = with_backend(loaded, backend, precision, self.size)
        self.confidence = confidence
        self.camera_white_balance = camera_white_balance
        self.device = torch.device(device)
        self._warned: dict[str, object] = {}

    def __repr__(self) -> str:
        what = f"policy={self.policy.name!r}, detector={self.detector.name!r}, size={self.size}"
        latency = "" if self.latency_ms is None else f", latency_ms={self.latency_ms:g}"
        return f"{type(self).__name__}({what}, confidence={self.confidence:g}, device={str(self.device)!r}{latency})"

    @classmethod
    def from_pretrained(
        cls, name: str | Path = defaults.POLICY, detector: str | Detector | None = None, **settings: Any
    ) -> "AdaptiveISP":
        """A policy with its settings: a shipped one, one of a folder or a run, or one of the Hugging Face hub.

        Args:
            name: one of `policies.registry.SHIPPED` (`coco-adaptive`, or `coco-fast`, which takes less time), a folder
                that `save_pretrained` wrote, the folder of a training run, or `organisation/name` of the hub, with
                `@revision` if wanted.
            detector: as for the class; None takes what the folder or the run's config names, `yolov3-tiny` for the
                shipped policies, which were learned for it.
            settings: further arguments of the class, which replace those of the folder.

        Raises:
            UsageError: there is no such policy or folder.
            WeightsError: the folder's files are missing or wrong, or the repository cannot be downloaded.
        """
        from adaptiveisp.inference.pretrained import settings_of

        return cls(**{**settings_of(name, detector), **settings})

    def save_pretrained(self, folder: str | Path, overwrite: bool = False) -> Path:
        """Writes the policy and the settings into a folder that `from_pretrained` reads.

        The folder has the name of the detector, not its weights. It has no latency, of which a warning tells: that
        belongs to a machine, and `from_pretrained` takes `latency_ms`.

        Args:
            folder: the folder; it is made if it is missing.
            overwrite: whether files of an earlier call are replaced.

        Returns:
            The folder.

        Raises:
            UsageError: the policy was given as an object that no file describes, or the folder holds such files.
            OutputError: the folder cannot be written to.
        """
        from adaptiveisp.inference.pretrained import save_pretrained

        return save_pretrained(self, Path(folder), overwrite)

    def push_to_hub(self, repository: str, **options: Any) -> str:
        """Uploads the files of `save_pretrained` to a repository of the Hugging Face hub, and returns its address.

        Args:
            repository: `organisation/name`, made if it is missing.
            options: further arguments of `huggingface_hub.HfApi.upload_folder`, such as `commit_message`.

        Raises:
            AdaptiveISPError: huggingface_hub is not installed, or the upload fails.
        """
        from adaptiveisp.inference.pretrained import push_to_hub

        return push_to_hub(self, repository, options)

    @overload
    def __call__(self, raw: RawLike, header: BayerHeader | None = None, on_error: OnError = "raise") -> Result: ...

    @overload
    def __call__(
        self,
        raw: list[Any] | tuple[Any, ...] | Iterator[Any],
        header: BayerHeader | None = None,
        on_error: OnError = "raise",
    ) -> Results: ...

    def __call__(self, raw: Any, header: BayerHeader | None = None, on_error: OnError = "raise") -> Result | Results:
        """The result of one raw or of several: detections, pipeline and rendered image.

        Doubts about raws are logged, once for each kind of doubt.

        Args:
            raw: a file or its content, a `RawImage`, or the pixels of a frame, (height, width) or (height, width, 3);
                a folder, which is searched for raw files, or a list of any of these gives a list of results.
            header: size, depth and pattern of files that have no header of their own; pattern and levels of arrays.
            on_error: for several raws, "raise" raises the error of the first raw that fails, and the results before it
                are lost; "skip" leaves such raws out and lists them in `skipped`. A single raw raises always.

        Returns:
            A `Result`, or `Results`, a list of them in the order of the raws; `iterate` gives each result as soon as it
            is there.

        Raises:
            RawFileError: a raw cannot be read, or its values make no sense; or a folder holds no raw files.
            DetectorError: the detector's output is not valid; no raw is skipped for that.
            UsageError: an array has no header, a `RawImage` has one, or an object is of another kind.
        """
        if isinstance(raw, list | tuple | Iterator) or is_folder(raw):
            skipped: list[tuple[str, str]] = []
            return Results(self._several(raw, header, on_error, skipped), skipped)
        return self._one(raw, header)

    def iterate(
        self,
        raws: str | os.PathLike[str] | Iterable[RawLike],
        header: BayerHeader | None = None,
        on_error: OnError = "raise",
    ) -> Iterator[Result]:
        """Yields the results of several raws one by one, without images at full size, so that little memory is needed.

        Args:
            raws: a folder, which is searched with its subfolders, or files, folders, `RawImage`s and arrays.
            header: as for a single raw.
            on_error: "skip" logs a raw that fails as a warning and continues; "raise" raises its error.

        Raises:
            RawFileError, DetectorError, UsageError: as for `__call__`.
        """
        yield from self._several(raws, header, on_error, [])

    def map(
        self,
        frames: Any,
        batch_size: int = 1,
        *,
        workers: int | None = None,
        header: BayerHeader | None = None,
        keep_frames: bool = False,
        on_error: OnError = "skip",
    ) -> "Iterator[Result | Skipped]":
        """Yields the results of any number of frames in their order, in bounded memory, with work that overlaps.

        At any time at most `batch_size` · (`workers` + 2) frames are on their way, however slow the caller is. A
        detector or a policy from outside the package runs on one batch at a time, unless it says `thread_safe`.

        Args:
            frames: an iterable of paths, URLs that fsspec opens (`s3://…`, `https://…`, `memory://…`), contents
                (bytes), arrays and `RawImage`s, each of them also as a pair (id, frame); or one text, which names a
                folder, a pattern, a `.tar` shard or a file, or is the URL of one.
            batch_size: frames that go through the detector at once. Rounding may depend on it.
            workers: threads that read, develop, render and detect; 0 does all work in the caller's thread; None takes
                one for each CPU thread of PyTorch, at most 8.
            header: size, depth and pattern of frames that have no header of their own.
            keep_frames: whether a result holds its raw, as `render_full` needs.
            on_error: "skip" yields a `Skipped` with the reason for a frame that fails, and one for a folder, pattern
                or shard that cannot be used; "raise" raises the error.

        Raises:
            DetectorError: the detector's output is not valid; no frame is skipped for that.
            RawFileError: with "raise", a frame fails, or a folder, pattern or shard cannot be used.
            UsageError: an argument makes no sense.
        """
        from adaptiveisp.inference.mapping import map_frames

        require_known(on_error)
        return map_frames(self, frames, batch_size, workers, header, keep_frames, on_error == "raise")

    def _several(
        self, raws: Any, header: BayerHeader | None, on_error: OnError, skipped: list[tuple[str, str]]
    ) -> Iterator[Result]:
        """The results of `iterate`; raws that are left out are added to `skipped`, each with the reason."""
        require_known(on_error)
        for number, raw in enumerate(expanded(raws, skipped)):
            try:
                result = self._one(raw, header)
            except DetectorError:  # the next raw would fail too
                raise
            except AdaptiveISPError as error:
                if on_error == "raise":
                    raise
                logger.warning("skipped: %s", error)
                named = isinstance(raw, str | os.PathLike)
                skipped.append((os.fspath(raw) if named else f"raw {number}", str(error)))
            else:
                yield replace(result, developed=replace(result.developed, full=None))

    def _one(self, raw: RawLike, header: BayerHeader | None) -> Result:
        return self.detect(self.render(self.develop(raw, header)))

    def develop(self, raw: RawLike, header: BayerHeader | None = None) -> "Prepared":
        """Reads and develops a raw: the first of the three stages of a call, which a stream runs on threads.

        Args:
            raw, header: as for a call.

        Raises:
            RawFileError, UsageError: as for a call.
        """
        stopwatch = Stopwatch(self.device)
        with stopwatch.part("read"):
            image = as_raw(raw, header)
        self._warn_of(image)
        with stopwatch.part("develop"):
            developed = develop_at_size(image, self.size, self.camera_white_balance, self.device)
        times = stopwatch.milliseconds
        return Prepared(image, developed, times["read"], times["develop"])

    def render(self, prepared: "Prepared", pipeline: Pipeline | None = None) -> "Prepared":
        """Runs the policy and its modules on a developed raw: the second stage of a call.

        Args:
            prepared: from `develop`.
            pipeline: a pipeline to run instead of the policy's own.
        """
        if pipeline is None:
            return self._with_remark(replace(prepared, rendered=self.policy.render(prepared.developed)))
        left_out: tuple[str, ...] = ()
        pipeline = bound_to(pipeline, RawFrame(prepared.raw))
        if prepared.developed.is_monochrome:
            pipeline, left_out = grey_pipeline(pipeline)
        stopwatch = Stopwatch(self.device)
        with stopwatch.part("modules"), torch.inference_mode():
            image = pipeline.clipped(pipeline.render(prepared.developed.small))
        elapsed = stopwatch.milliseconds["modules"]
        return self._with_remark(replace(prepared, rendered=Rendered(image, pipeline, elapsed, elapsed, left_out)))

    def _with_remark(self, prepared: "Prepared") -> "Prepared":
        """The raw with a remark if modules were left out because it is monochrome, which is logged once."""
        rendered, raw = prepared.rendered, prepared.raw
        if rendered is None or not rendered.left_out:
            return prepared
        remark = grey_remark(raw.path or "RawImage", f"policy {self.policy.name}", rendered.left_out)
        raw = replace(raw, remarks=(*raw.remarks, remark))
        self._warn_of(raw)
        return replace(prepared, raw=raw)

    def detect(self, prepared: "Prepared") -> Result:
        """Runs the detector on a rendered raw: the last stage of a call.

        Args:
            prepared: from `render`.

        Raises:
            DetectorError: the detector's output is not valid.
            UsageError: the raw was not rendered.
        """
        return self.detect_all([prepared])[0]

    def detect_all(self, batch: Sequence["Prepared"]) -> list[Result]:
        """Runs the detector once on several rendered raws; its time is divided among them.

        Args:
            batch: from `render`, at least one.

        Raises:
            DetectorError, UsageError: as for `detect`.
        """
        images = [one.rendered.image for one in batch if one.rendered is not None]
        if len(images) < len(batch):
            raise UsageError("the raw was not rendered; call render first")
        sizes = [one.developed.full_size for one in batch]
        stopwatch = Stopwatch(self.device)
        with stopwatch.part("detector"):
            found = detect(self.detector, images, sizes, self.size, self.confidence)
        elapsed = stopwatch.milliseconds["detector"] / len(batch)
        return [self._result(one, answer, elapsed) for one, answer in zip(batch, found, strict=True)]

    def _result(self, prepared: "Prepared", found: Detections, detector_ms: float) -> Result:
        rendered, developed = prepared.rendered, prepared.developed
        assert rendered is not None
        return Result(
            image=rendered.image[0],
            detections=found,
            class_names=tuple(self.detector.class_names),
            pipeline=rendered.pipeline,
            full_size=developed.full_size,
            timings=Timings(
                read=prepared.read_ms,
                develop=prepared.develop_ms,
                policy=rendered.milliseconds - rendered.modules_ms,
                modules=rendered.modules_ms,
                detector=detector_ms,
            ),
            developed=developed,
            raw=prepared.raw,
            policy=self.policy.name,
            detector=self.detector.name,
            size=self.size,
            dropped_modules=rendered.dropped,
        )

    def stream(self, source: Any, header: BayerHeader | None = None, **settings: Any) -> Any:
        """An iterator of the results of a stream of frames; see `adaptiveisp.streaming`."""
        from importlib import import_module

        return import_module("adaptiveisp.streaming.stream").Stream(self, source, header, **settings)

    def _warn_of(self, image: RawImage) -> None:
        """Logs doubts about a raw, each kind of doubt once."""
        doubts = {remark.kind: remark.text for remark in image.remarks}
        if self.camera_white_balance and image.camera_gains is None:
            name = image.path or "RawImage"
            doubts["no gains"] = f"{name}: has no gains of the camera, so its white balance is not applied"
        own = object()  # of this call: `setdefault` is atomic, and several threads may read frames
        for kind, text in doubts.items():
            if self._warned.setdefault(kind, own) is own:
                logger.warning("%s", text, extra={"kind": kind})

    @torch.inference_mode()
    def render_full(self, result: Result) -> Picture:
        """The rendering of a result at full size, (3, height, width), by the same pipeline.

        Raises:
            UsageError: the result does not hold its raw, see `map`.
        """
        developed = result.developed
        if result.raw is None:
            raise UsageError(f"{result.name}: the result has no frame at full size; give keep_frames=True to map")
        if developed.full is None and result.pipeline is not None:
            full = develop(result.raw, camera_white_balance=self.camera_white_balance)
            developed = replace(developed, full=full)
        return self.policy.render_full(developed, result.pipeline)
