"""A viewer that runs on a thread of the test's own process."""

import contextlib
import http.client
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from adaptiveisp.raw.dng import write_dng
from adaptiveisp.serving.entries import Catalogue
from adaptiveisp.serving.opening import InputFacts, fill
from adaptiveisp.serving.pages import all_pages
from adaptiveisp.serving.server import ViewServer
from adaptiveisp.serving.studio import Studio, StudioConfig
from adaptiveisp.serving.uploads import Uploads
from adaptiveisp.types import RawImage

RED = "tests.support.fake_detector:load"
SIZE = 96


@dataclass(frozen=True)
class Answer:
    status: int
    body: bytes
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Viewer:
    server: ViewServer
    studio: Studio
    uploads: Uploads

    @property
    def catalogue(self) -> Catalogue:
        return self.studio.catalogue

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """A request with the token, unless the headers change that; a header of "" is left out."""
        sent = {"X-Adaptiveisp-Token": self.server.token, "Content-Type": "application/json", **(headers or {})}
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, {name: value for name, value in sent.items() if value})
            response = connection.getresponse()
            return Answer(response.status, response.read(), {k.lower(): v for k, v in response.getheaders()})

    def post(self, path: str, **content: Any) -> Answer:
        return self.ask("POST", path, json.dumps(content).encode())

    @property
    def first(self) -> str:
        """Id of the first image."""
        return self.catalogue.images.items()[0][0]


@contextlib.contextmanager
def running_viewer(
    inputs: Sequence[Path], facts: InputFacts | None = None, detectors: tuple[str, ...] = (RED,), size: int = SIZE
) -> Iterator[Viewer]:
    catalogue = Catalogue()
    fill(catalogue, [str(path) for path in inputs], facts or InputFacts())
    with Uploads(catalogue) as uploads:
        studio = Studio(catalogue, StudioConfig(detectors=detectors, size=size))
        with ViewServer(all_pages(studio, uploads)) as server:
            thread = threading.Thread(target=server.run, daemon=True)
            thread.start()
            try:
                yield Viewer(server, studio, uploads)
            finally:
                server.stop()
                thread.join(10)


def small_dng(path: Path, seed: int = 0, shape: tuple[int, int] = (72, 96)) -> Path:
    """A noisy DNG with a red box in it."""
    codes = np.random.default_rng(seed).integers(400, 1200, shape, dtype=np.uint16)
    codes[16:40, 24:64] = np.tile([[3600, 500], [500, 400]], (12, 20)).astype(np.uint16)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_dng(RawImage(codes, "RGGB", (256.0,) * 4, 4095.0, (2.0, 1.0, 1.6)), path)
    return path
