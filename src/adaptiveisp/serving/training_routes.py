"""Follows training runs by the files that they write; it never writes any."""

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from fastapi import Response

from adaptiveisp.errors import AdaptiveISPError, DataError, UsageError
from adaptiveisp.serving.entries import FolderEntry
from adaptiveisp.serving.image_routes import working
from adaptiveisp.serving.limits import MOST_LINE_BYTES
from adaptiveisp.serving.requests import Fields, Handler, answer
from adaptiveisp.serving.studio import Studio
from adaptiveisp.serving.tail import Tail
from adaptiveisp.training.config import CONFIG
from adaptiveisp.training.curves import WINDOW, flat_numbers, without_iteration
from adaptiveisp.training.run_files import CURVE, SUMMARY, TRAJECTORIES
from adaptiveisp.training.run_logger import DEV, METRICS, TIMING
from adaptiveisp.utils.yaml_files import read_yaml

MOST_POINTS = 400
"""Points of a curve that the page gets; longer ones are means over ranges of iterations."""
MOST_CURVES = 60
"""Curves of a run that the page gets; a run of `fixed` logs each of its parameters."""
STILL = 90.0
"""Seconds without a new line after which a run that is not at its end counts as stopped."""
ENDING = 1800.0
"""The same after its last pass, when the last scores on dev and the pictures take their time without a line."""
PICTURES = (TRAJECTORIES, CURVE)


def training_routes(studio: Studio) -> dict[str, Handler]:
    """Path → handler of each POST request of the training page."""
    page = TrainingPage(studio)
    return {f"/api/training/{name}": working(studio, getattr(page, name)) for name in ("read", "picture")}


class RunReader:
    """The logs of one run, of which each reading takes only the new lines.

    Args:
        entry: the run folder.
    """

    def __init__(self, entry: FolderEntry):
        self.entry = entry
        self.tails = {name: Tail(MOST_LINE_BYTES) for name in (METRICS, DEV, TIMING)}
        self._config: dict[str, Any] | None = None

    def read(self) -> dict[str, Any]:
        """Curves, shares of modules, scores on dev, and the state of the run."""
        fresh = [tail.update(self.entry.file(name)) for name, tail in self.tails.items()]
        metrics, dev, timing = (self.tails[name].lines for name in (METRICS, DEV, TIMING))
        config = self.config
        return {
            "name": self.entry.name,
            "version": sum(tail.version for tail in self.tails.values()),
            "fresh": any(fresh),
            "state": self._state(metrics, config),
            "config": config,
            "curves": _curves(metrics),
            "modules": _module_curves(metrics),
            "dev": [without_modules(line) for line in dev],
            "seconds": sum(_seconds(line) for line in timing),
            "pictures": [name for name in PICTURES if self._has(name)],
        }

    @property
    def config(self) -> dict[str, Any]:
        """Method, budget and the like of config.yaml; read once."""
        if self._config is None:
            content: Any = {}
            with suppress(AdaptiveISPError):
                content = read_yaml(self.entry.file(CONFIG), DataError, "give the folder of a run")
            train = content.get("train") if isinstance(content, dict) else None
            wanted = ("method", "preset", "budget", "seed", "light", "detector", "labels")
            train = train if isinstance(train, dict) else {}
            self._config = {name: train[name] for name in wanted if isinstance(train.get(name), str | int | float)}
        return self._config

    def _has(self, name: str) -> bool:
        try:
            return self.entry.file(name).is_file()
        except AdaptiveISPError:
            return False

    def _state(self, metrics: list[dict[str, Any]], config: Mapping[str, Any]) -> dict[str, Any]:
        """Passes done and to do, and whether the run is finished, running or stopped."""
        last = metrics[-1] if metrics else {}
        passes, budget = last.get("passes"), config.get("budget")
        age = None
        with suppress(OSError):
            age = time.time() - os.stat(self.entry.file(METRICS)).st_mtime
        at_end = isinstance(passes, int) and isinstance(budget, int) and passes >= budget
        running = age is not None and age < (ENDING if at_end else STILL)
        state = "finished" if at_end and self._has(SUMMARY) else "running" if running else "stopped"
        return {"state": state, "passes": passes, "budget": budget, "iteration": last.get("iteration")}


class TrainingPage:
    """The answers to the requests of the training page.

    Args:
        studio: has the catalogue.
    """

    def __init__(self, studio: Studio):
        self.studio = studio
        self._readers: dict[str, RunReader] = {}
        self._lock = threading.Lock()

    def read(self, fields: Fields) -> Response:
        """The content of a run, or that nothing changed since a version."""
        with self._lock:
            found = self._reader(fields).read()
        if fields.content.get("version") == found["version"] and not found["fresh"]:
            return answer({"unchanged": True, "state": found["state"], "version": found["version"]})
        return answer(found)

    def picture(self, fields: Fields) -> Response:
        """A picture of the run folder."""
        name = fields.text("name")
        if name not in PICTURES:
            raise UsageError(f"name must be one of {', '.join(PICTURES)}")
        path: Path = self._reader(fields).entry.file(name)
        if path.stat().st_size > MOST_LINE_BYTES:
            raise UsageError(f"{name}: is too large to be shown")
        return Response(path.read_bytes(), media_type="image/png")

    def _reader(self, fields: Fields) -> RunReader:
        key = fields.text("run")
        entry = self.studio.catalogue.runs.find(key)
        return self._readers.setdefault(key, RunReader(entry))


def without_modules(line: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a line by their paths, with its iteration."""
    return dict(flat_numbers(line))


def _seconds(line: Mapping[str, Any]) -> float:
    return sum(value for value in without_iteration(line).values() if isinstance(value, int | float))


def _curves(metrics: list[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Name → (iteration, value), thinned."""
    found: dict[str, list[tuple[float, float]]] = {}
    for line in metrics:
        iteration = line.get("iteration")
        if not isinstance(iteration, int):
            continue
        for name, value in flat_numbers({k: v for k, v in line.items() if k not in ("modules", "iteration")}):
            if name in found or len(found) < MOST_CURVES:
                found.setdefault(name, []).append((float(iteration), float(value)))
    return {name: thinned(points) for name, points in found.items()}


def _module_curves(metrics: list[dict[str, Any]]) -> dict[str, list[tuple[float, float]]]:
    """Module → (iteration, share of the choices of the last `WINDOW` iterations), thinned; as TensorBoard has them."""
    window: deque[Mapping[str, int]] = deque(maxlen=WINDOW)
    total: Counter[str] = Counter()
    found: dict[str, list[tuple[float, float]]] = {}
    step = max(1, len(metrics) // MOST_POINTS)
    for number, line in enumerate(metrics):
        chosen = line.get("modules")
        chosen = chosen if isinstance(chosen, dict) else {}
        chosen = {name: count for name, count in chosen.items() if isinstance(count, int)}
        if len(window) == WINDOW:
            total.subtract(window[0])
        window.append(chosen)
        total.update(chosen)
        iteration = line.get("iteration")
        if total.total() and isinstance(iteration, int) and (number % step == 0 or number == len(metrics) - 1):
            for name in total:
                found.setdefault(name, []).append((float(iteration), total[name] / total.total()))
    return found


def thinned(points: list[tuple[float, float]], most: int = MOST_POINTS) -> list[tuple[float, float]]:
    """At most this number of points, each the mean of a range of them.

    >>> thinned([(0, 1), (1, 3), (2, 5), (3, 7)], 2)
    [(0.5, 2.0), (2.5, 6.0)]
    """
    if len(points) <= most:
        return points
    size = -(-len(points) // most)
    parts = [points[i : i + size] for i in range(0, len(points), size)]
    return [(sum(p[0] for p in part) / len(part), sum(p[1] for p in part) / len(part)) for part in parts]
