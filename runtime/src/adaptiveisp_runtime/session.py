"""`Session`: a folder of `adaptiveisp export`, loaded once and called for each frame."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from adaptiveisp_runtime.engines import Engine, available_providers, load_engine, module
from adaptiveisp_runtime.errors import RuntimeFault, first_line
from adaptiveisp_runtime.frames import FrameFormat, unpack
from adaptiveisp_runtime.manifest import Manifest, load_manifest
from adaptiveisp_runtime.prepared import prepare
from adaptiveisp_runtime.result import Detections, Pipeline, Result, Stage, Timings
from adaptiveisp_runtime.self_test import SelfTest, compare
from adaptiveisp_runtime.stream import StreamStats, stream

__all__ = ["Session", "available_providers"]

OUTPUTS = ("boxes", "scores", "labels", "modules", "params", "image")
"""What the graph `full` gives."""

OPTIONS = {"pattern": "--raw-pattern", "black_level": "--raw-black", "white_level": "--raw-white"}
"""Fact of a frame → the option of the command that gives it."""

Frame: TypeAlias = NDArray[Any] | bytes | bytearray | memoryview | str | os.PathLike[str]
"""Code values of the camera, the bytes of a headerless frame, or the path of a file with such bytes."""


class Session:
    """The graph `full` of an export.

    Args:
        folder: the folder. One whose graphs are parts (`adaptiveisp export --without-if`) has no `full`: its self-test
            can be run, and calls are refused.
        providers: execution providers of onnxruntime by name, "CUDAExecutionProvider" or "cuda", in the order of
            preference; None takes all that are installed. With OpenVINO the name of its device.
        threads: most threads of an operator; 0 for the library's default.
        engine: "onnxruntime" or "openvino".

    Attributes:
        manifest: what the folder holds.
        providers: what runs the graph.
        is_prepared: whether the graph comes from the file that `prepare` wrote.

    Raises:
        RuntimeFault: the folder is not a complete export, or the graph cannot be loaded.
    """

    def __init__(
        self,
        folder: str | Path,
        providers: Sequence[str] | None = None,
        threads: int = 0,
        engine: str = "onnxruntime",
    ):
        self.manifest: Manifest = load_manifest(folder)
        self._how = (engine, providers, threads)
        entry = self.manifest.frame["format"]
        self.format: FrameFormat | None = None if entry is None else FrameFormat.of(entry)
        self._loaded = "full" if "full" in self.manifest.graphs else next(iter(self.manifest.graphs))
        self._engine: Engine = load_engine(self.manifest.graph(self._loaded), *self._how)
        self.providers = self._engine.providers
        self.is_prepared = self._engine.is_prepared
        self._inputs = [str(one["name"]) for one in self.manifest.graph(self._loaded).inputs]

    def __repr__(self) -> str:
        policy, detector = (self.manifest.content[key]["name"] for key in ("policy", "detector"))
        return f"Session({str(self.manifest.folder)!r}: {policy}, {detector}; {', '.join(self.providers)})"

    def __call__(
        self,
        frame: Frame,
        *,
        size: tuple[int, int] | None = None,
        pattern: str | None = None,
        black_level: float | Sequence[float] | None = None,
        white_level: float | None = None,
        name: str = "",
    ) -> Result:
        """The result for one frame.

        Args:
            frame: code values, (height, width) of a mosaic or (height, width, 3) of RGB; or the bytes of a headerless
                frame in the format of the export, or a file of them.
            size: (width, height) in pixels of such bytes, where the export takes frames of any size.
            pattern, black_level, white_level: of the camera, where the export has not fixed them.
            name: of the frame, for the result; "" takes that of the file.

        Raises:
            RuntimeFault: the frame does not fit the export, a fact about it is missing, impossible or given twice, or
                the export has parts alone.
        """
        self.manifest.refuse_parts()
        start = time.perf_counter()
        where = name or (os.fspath(frame) if isinstance(frame, str | os.PathLike) else "")
        try:
            values = self._values(frame, size)
        except RuntimeFault as error:
            if not where or str(error).startswith(where):
                raise
            raise RuntimeFault(f"{where}: {error}") from error
        feeds = {"frame": values, **self._facts(pattern, black_level, white_level)}
        middle = time.perf_counter()
        found = self._run(feeds)
        end = time.perf_counter()
        title = name or (Path(frame).name if isinstance(frame, str | os.PathLike) else "frame")
        timings = Timings(1e3 * (middle - start), 1e3 * (end - middle))
        return self._result(found, values, timings, title)

    def stream(self, frames: Iterable[Frame], stats: StreamStats | None = None, **facts: Any) -> Iterator[Result]:
        """The results of frames as they come; a thread fetches the next frame meanwhile. See `stream.stream`."""
        return stream(self, frames, stats, **facts)

    def self_test(self, graphs: Sequence[str] | None = None) -> SelfTest:
        """Replays the self-test of the export: whether this machine gives the numbers of the package.

        Args:
            graphs: names; None takes all graphs of the folder.

        Raises:
            RuntimeFault: a file of the test is missing, or a graph cannot be run at all.
        """
        tests: Mapping[str, Any] = self.manifest.content["self_test"]
        faults: dict[str, tuple[str, ...]] = {}
        milliseconds: dict[str, float] = {}
        for name in tests if graphs is None else graphs:
            if name not in tests:
                raise RuntimeFault(f"{self.manifest.folder}: has no self-test of {name!r}; it has {', '.join(tests)}")
            engine = self._engine if name == self._loaded else load_engine(self.manifest.graph(name), *self._how)
            given, wanted = (
                {str(one["name"]): self.manifest.tensor(one) for one in tests[name][side]}
                for side in ("inputs", "outputs")
            )
            start = time.perf_counter()
            found = _called(engine, given, str(self.manifest.graph(name).path))
            milliseconds[name] = 1e3 * (time.perf_counter() - start)
            faults[name] = tuple(compare(wanted, found, tests[name]["tolerances"], self.manifest.content["pipeline"]))
        return SelfTest(faults, milliseconds, self.providers)

    def prepare(self) -> Path:
        """Writes the graph as onnxruntime has optimised it for this processor, beside the export; see `prepared`.

        Sessions of the folder on the processor alone use it from then on, as long as graph, version of onnxruntime and
        processor are the same.

        Raises:
            RuntimeFault: the folder cannot be written, or has parts alone.
        """
        self.manifest.refuse_parts()
        return prepare(self.manifest.graph(self._loaded), module("onnxruntime"))

    def _values(self, frame: Frame, size: tuple[int, int] | None) -> NDArray[Any]:
        """The code values of a frame, of the type that the graph takes.

        Raises:
            RuntimeFault: its size, shape, type or values do not fit.
        """
        given: bytes | None = None
        if isinstance(frame, str | os.PathLike):
            path = Path(frame)
            try:
                frame = path.read_bytes()
            except OSError as error:
                raise RuntimeFault(f"{path}: cannot be read ({error.strerror}); check the path") from error
        if isinstance(frame, bytes | bytearray | memoryview):
            given = bytes(frame)
            frame = self._unpacked(given, size)
        entry = self.manifest.frame
        values = np.asarray(frame)
        deepest = np.iinfo(np.uint32).max if isinstance(given, bytes) else 2 ** int(entry["bits"]) - 1
        wanted = (entry["height"], entry["width"])
        channels = () if entry["kind"] == "mosaic" else (3,)
        shape = f"({', '.join(str(side or 'any') for side in wanted)}{', 3' * len(channels)})"
        fits = values.ndim == 2 + len(channels) and values.shape[2:] == channels and min(values.shape) > 0
        if not fits or any(side not in (None, have) for side, have in zip(wanted, values.shape, strict=False)):
            raise RuntimeFault(
                f"the frame has the shape {values.shape}, this export takes {shape}; export it for yours"
            )
        kind = np.dtype(str(entry["dtype"]))
        if values.dtype.kind not in "ui":
            raise RuntimeFault(f"the frame has values of {values.dtype}; give the camera's code values as {kind}")
        if values.size and not 0 <= int(values.min()) <= int(values.max()) <= np.iinfo(kind).max:
            raise RuntimeFault(f"the frame has values up to {values.max()}, beyond {kind}; check its depth")
        if int(values.max()) > deepest:
            raise RuntimeFault(
                f"the frame has values up to {values.max()}, beyond {entry['bits']} bits; check its depth"
            )
        return np.ascontiguousarray(values.astype(kind))

    def _unpacked(self, content: bytes, size: tuple[int, int] | None) -> NDArray[Any]:
        """The code values in the bytes of a headerless frame.

        Raises:
            RuntimeFault: format or size are not known, or there are too few or too many bytes.
        """
        entry = self.manifest.frame
        if self.format is None:
            raise RuntimeFault("this export has no format of bytes; give an array, or export with --raw-format")
        height, width = entry["height"], entry["width"]
        if size is not None and (width, height) not in ((None, None), size):
            raise RuntimeFault(
                f"size {size[0]}x{size[1]}: this export takes {width}x{height}; leave size out (--raw-size)"
            )
        if height is None or width is None:
            if size is None:
                raise RuntimeFault(
                    "this export takes frames of any size; give size=(width, height) of the bytes, or --raw-size WxH"
                )
            width, height = size
        return unpack(content, self.format, int(height), int(width))

    def _facts(
        self, pattern: str | None, black_level: float | Sequence[float] | None, white_level: float | None
    ) -> dict[str, NDArray[Any]]:
        """The further inputs of the graph.

        Raises:
            RuntimeFault: one is missing, unknown, impossible, or fixed in the export.
        """
        given = {"pattern": pattern, "black_level": black_level, "white_level": white_level}
        facts: dict[str, NDArray[Any]] = {}
        for name, value in given.items():
            if name not in self._inputs:
                if value is not None:
                    fixed = self.manifest.frame[name]
                    raise RuntimeFault(f"{name}: this export has fixed it ({fixed}); leave it out ({OPTIONS[name]})")
                continue
            if value is None:
                raise RuntimeFault(f"{name}: this export has not fixed it; give {name}=… or {OPTIONS[name]}")
            facts[name] = self._fact(name, value)
        levels = [facts.get(key, self.manifest.frame[key]) for key in ("black_level", "white_level")]
        if all(level is not None for level in levels):
            (low, most, white) = float(np.min(levels[0])), float(np.max(levels[0])), float(np.min(levels[1]))
            if not 0 <= low <= most < white:
                text = f"black_level = {low if low < 0 else most:g}, white_level = {white:g}"
                raise RuntimeFault(f"{text}: 0 <= black < white must hold; see --raw-black and --raw-white")
        return facts

    def _fact(self, name: str, value: Any) -> NDArray[Any]:
        if name == "pattern":
            known = list(self.manifest.frame["patterns"])
            if str(value).upper() not in known:
                raise RuntimeFault(f"pattern {value!r} does not exist; choose one of {', '.join(known)}")
            return np.asarray(known.index(str(value).upper()), np.int64)
        count = 4 if name == "black_level" and self.manifest.frame["kind"] == "mosaic" else 1
        try:
            levels = np.asarray(value, np.float32).reshape(-1)
        except (TypeError, ValueError) as error:
            raise RuntimeFault(f"{name} = {value!r}: is not a number; give the camera's level") from error
        if levels.size not in (1, count) or not np.isfinite(levels).all():
            raise RuntimeFault(f"{name} = {value!r}: give one number{f' or {count}' if count > 1 else ''}")
        return np.ascontiguousarray(np.broadcast_to(levels, (count,)))

    def _run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return _called(self._engine, feeds, str(self.manifest.graph("full").path))

    def _result(self, found: Mapping[str, NDArray[Any]], values: NDArray[Any], timings: Timings, name: str) -> Result:
        content = self.manifest.content
        if lacking := [one for one in OUTPUTS if one not in found]:
            path = self.manifest.graph("full").path
            raise RuntimeFault(f"{path}: has no output {lacking[0]}; export the folder again")
        height, width = values.shape[:2]
        classes = self.manifest.class_names
        if found["labels"].size and not 0 <= int(found["labels"].min()) <= int(found["labels"].max()) < len(classes):
            raise RuntimeFault(
                f"{self.manifest.folder}: the manifest has {len(classes)} classes, the graph more; export it again"
            )
        upright = (height, width) if int(self.manifest.frame["orientation"]) < 5 else (width, height)
        return Result(
            image=found["image"][0],
            detections=Detections(found["boxes"], found["scores"], found["labels"]),
            class_names=classes,
            pipeline=_pipeline(content["pipeline"], found["modules"], found["params"]),
            full_size=upright,
            timings=timings,
            policy=content["policy"]["name"],
            detector=content["detector"]["name"],
            size=int(content["geometry"]["size"]),
            name=name,
        )


def _called(engine: Engine, feeds: Mapping[str, NDArray[Any]], where: str) -> dict[str, NDArray[Any]]:
    """The outputs of a graph.

    Raises:
        RuntimeFault: the library fails.
    """
    try:
        return engine(feeds)
    except Exception as error:  # the libraries' exceptions have no common base
        raise RuntimeFault(
            f"{where}: cannot be run ({first_line(error)}); try self_test, or export it again"
        ) from error


def _pipeline(table: Mapping[str, Any], modules: NDArray[Any], params: NDArray[Any]) -> Pipeline:
    """The stages that the outputs `modules` and `params` state.

    Raises:
        RuntimeFault: the manifest does not describe a module.
    """
    known = {int(module["id"]): module for module in table["modules"]}
    stages = []
    for number, row in zip(modules.tolist(), params.tolist(), strict=True):
        if number == int(table["end"]):
            break
        if number not in known:
            raise RuntimeFault(f"manifest.json: pipeline.modules has no module {number}, which ran; export it again")
        names = [str(param["name"]) for param in known[number]["params"]]
        stages.append(Stage(str(known[number]["name"]), dict(zip(names, row, strict=False))))
    return Pipeline(tuple(stages), str(table["module_set"]))
