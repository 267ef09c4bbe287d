"""`Session`: a folder of `adaptiveisp export`, loaded once and called for each frame."""

import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from adaptiveisp_runtime.engines import Engine, available_providers, load_engine
from adaptiveisp_runtime.errors import RuntimeFault, first_line
from adaptiveisp_runtime.frames import FrameFormat, unpack
from adaptiveisp_runtime.manifest import Manifest, load_manifest
from adaptiveisp_runtime.result import Detections, Pipeline, Result, Stage, Timings
from adaptiveisp_runtime.self_test import SelfTest, compare
from adaptiveisp_runtime.stream import StreamStats, stream

__all__ = ["Session", "available_providers"]

Frame: TypeAlias = NDArray[Any] | bytes | bytearray | memoryview | str | os.PathLike[str]
"""Code values of the camera, the bytes of a headerless frame, or the path of a file with such bytes."""


class Session:
    """The graph `full` of an export.

    Args:
        folder: the folder.
        providers: execution providers of onnxruntime by name, "CUDAExecutionProvider" or "cuda", in the order of
            preference; None takes all that are installed. With OpenVINO the name of its device.
        threads: most threads of an operator; 0 for the library's default.
        engine: "onnxruntime" or "openvino".

    Attributes:
        manifest: what the folder holds.
        providers: what runs the graph.

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
        self._engine: Engine = load_engine(self.manifest.graph("full"), *self._how)
        self.providers = self._engine.providers
        entry = self.manifest.frame["format"]
        self.format: FrameFormat | None = None if entry is None else FrameFormat.of(entry)
        self._inputs = [str(one["name"]) for one in self.manifest.graph("full").inputs]

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
            RuntimeFault: the frame does not fit the export, or a fact about it is missing or given twice.
        """
        start = time.perf_counter()
        values = self._values(frame, size)
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
            engine = self._engine if name == "full" else load_engine(self.manifest.graph(name), *self._how)
            given, wanted = (
                {str(one["name"]): self.manifest.tensor(one) for one in tests[name][side]}
                for side in ("inputs", "outputs")
            )
            start = time.perf_counter()
            found = _called(engine, given, str(self.manifest.graph(name).path))
            milliseconds[name] = 1e3 * (time.perf_counter() - start)
            faults[name] = tuple(compare(wanted, found, tests[name]["tolerances"], self.manifest.content["pipeline"]))
        return SelfTest(faults, milliseconds, self.providers)

    def _values(self, frame: Frame, size: tuple[int, int] | None) -> NDArray[Any]:
        """The code values of a frame, of the type that the graph takes.

        Raises:
            RuntimeFault: its size, shape, type or values do not fit.
        """
        if isinstance(frame, str | os.PathLike):
            path = Path(frame)
            try:
                frame = path.read_bytes()
            except OSError as error:
                raise RuntimeFault(f"{path}: cannot be read ({error.strerror}); check the path") from error
        if isinstance(frame, bytes | bytearray | memoryview):
            frame = self._unpacked(bytes(frame), size)
        entry = self.manifest.frame
        values = np.asarray(frame)
        wanted = (entry["height"], entry["width"])
        channels = () if entry["kind"] == "mosaic" else (3,)
        shape = f"({', '.join(str(side or 'any') for side in wanted)}{', 3' * len(channels)})"
        fits = values.ndim == 2 + len(channels) and values.shape[2:] == channels and min(values.shape) > 0
        if not fits or any(side not in (None, have) for side, have in zip(wanted, values.shape, strict=False)):
            raise RuntimeFault(
                f"the frame has the shape {values.shape}, this export takes {shape}; export it for yours"
            )
        kind = np.dtype(str(entry["dtype"]))
        if values.dtype == kind:
            return np.ascontiguousarray(values)
        if values.dtype.kind not in "ui":
            raise RuntimeFault(f"the frame has values of {values.dtype}; give the camera's code values as {kind}")
        if values.size and not 0 <= int(values.min()) <= int(values.max()) <= np.iinfo(kind).max:
            raise RuntimeFault(f"the frame has values up to {values.max()}, beyond {kind}; check its depth")
        return np.ascontiguousarray(values.astype(kind))

    def _unpacked(self, content: bytes, size: tuple[int, int] | None) -> NDArray[Any]:
        """The code values in the bytes of a headerless frame.

        Raises:
            RuntimeFault: format or size are not known, or there are too few bytes.
        """
        entry = self.manifest.frame
        if self.format is None:
            raise RuntimeFault("this export has no format of bytes; give an array, or export with --raw-format")
        height, width = entry["height"], entry["width"]
        if size is not None and (width, height) not in ((None, None), size):
            raise RuntimeFault(f"size {size[0]}x{size[1]}: this export takes {width}x{height}; leave size out")
        if height is None or width is None:
            if size is None:
                raise RuntimeFault("this export takes frames of any size; give size=(width, height) of the bytes")
            width, height = size
        return unpack(content, self.format, int(height), int(width))

    def _facts(
        self, pattern: str | None, black_level: float | Sequence[float] | None, white_level: float | None
    ) -> dict[str, NDArray[Any]]:
        """The further inputs of the graph.

        Raises:
            RuntimeFault: one is missing, unknown, or fixed in the export.
        """
        given = {"pattern": pattern, "black_level": black_level, "white_level": white_level}
        facts: dict[str, NDArray[Any]] = {}
        for name, value in given.items():
            if name not in self._inputs:
                if value is not None:
                    raise RuntimeFault(f"{name}: this export has fixed it ({self.manifest.frame[name]}); leave it out")
                continue
            if value is None:
                raise RuntimeFault(f"{name}: this export has not fixed it; give {name}=…")
            facts[name] = self._fact(name, value)
        return facts

    def _fact(self, name: str, value: Any) -> NDArray[Any]:
        if name == "pattern":
            known = list(self.manifest.frame["patterns"])
            if str(value).upper() not in known:
                raise RuntimeFault(f"pattern {value!r} does not exist; choose one of {', '.join(known)}")
            return np.asarray(known.index(str(value).upper()), np.int64)
        count = 4 if name == "black_level" and self.manifest.frame["kind"] == "mosaic" else 1
        levels = np.asarray(value, np.float32).reshape(-1)
        if levels.size not in (1, count) or not np.isfinite(levels).all():
            raise RuntimeFault(f"{name} = {value!r}: give one number{f' or {count}' if count > 1 else ''}")
        return np.ascontiguousarray(np.broadcast_to(levels, (count,)))

    def _run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        return _called(self._engine, feeds, str(self.manifest.graph("full").path))

    def _result(self, found: Mapping[str, NDArray[Any]], values: NDArray[Any], timings: Timings, name: str) -> Result:
        content = self.manifest.content
        height, width = values.shape[:2]
        upright = (height, width) if int(self.manifest.frame["orientation"]) < 5 else (width, height)
        return Result(
            image=found["image"][0],
            detections=Detections(found["boxes"], found["scores"], found["labels"]),
            class_names=self.manifest.class_names,
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
    """The stages that the outputs `modules` and `params` state."""
    known = {int(module["id"]): module for module in table["modules"]}
    stages = []
    for number, row in zip(modules.tolist(), params.tolist(), strict=True):
        if number == int(table["end"]):
            break
        names = [str(param["name"]) for param in known[number]["params"]]
        stages.append(Stage(str(known[number]["name"]), dict(zip(names, row, strict=False))))
    return Pipeline(tuple(stages), str(table["module_set"]))
