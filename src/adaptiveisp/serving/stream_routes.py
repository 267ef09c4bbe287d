"""Follows a stream by the JSON lines that it writes, and shows the frames that it serves with `--mjpeg`."""

import http.client
import re
import threading
import time
from collections import deque
from contextlib import closing
from typing import Any

from fastapi import Request, Response
from starlette.concurrency import run_in_threadpool

from adaptiveisp.errors import DataError
from adaptiveisp.serving.entries import FolderEntry, Place
from adaptiveisp.serving.image_routes import working
from adaptiveisp.serving.requests import Fields, Handler, answer, fields_of
from adaptiveisp.serving.studio import Studio
from adaptiveisp.serving.tail import Tail

KEPT = 900
"""Frames whose numbers the page shows."""
MOST_READ = 8 << 20
"""Bytes of the lines that are read at a time."""
RATE_SECONDS = 6.0
"""Seconds over which frames a second are counted."""
MOST_FRAME = 8 << 20
"""Bytes of a picture of the stream."""
FRAME_SECONDS = 2.0
"""Longest wait for the next picture."""
UNUSED_SECONDS = 10.0
"""Seconds without a reader after which the stream's pictures are no longer fetched."""
LENGTH = re.compile(rb"Content-Length: *(\d{1,9})", re.IGNORECASE)


def stream_routes(studio: Studio, mjpeg_port: int | None = None) -> dict[str, Handler]:
    """Path → handler of each POST request of the stream page.

    Args:
        studio: has the catalogue.
        mjpeg_port: PORT of `stream --mjpeg PORT` on this machine; None shows no frames.
    """
    page, frames = StreamPage(studio, mjpeg_port is not None), None if mjpeg_port is None else Frames(mjpeg_port)

    async def frame(request: Request) -> Response:
        seen = (await fields_of(request)).integer("seen", 0, 1 << 60)
        if frames is None:
            raise DataError("start the viewer with --mjpeg PORT, the port of stream --mjpeg PORT")
        found = await run_in_threadpool(frames.after, seen)
        if found is None:
            return Response(status_code=204)
        number, picture = found
        return Response(picture, media_type="image/jpeg", headers={"X-Number": str(number)})

    return {"/api/stream/read": working(studio, page.read), "/api/stream/frame": frame}


class StreamPage:
    """The answers to the requests of the stream page.

    Args:
        studio: has the catalogue.
        has_frames: whether pictures of the stream are shown too.
    """

    def __init__(self, studio: Studio, has_frames: bool):
        self.studio, self.has_frames = studio, has_frames
        self._readers: dict[str, StreamReader] = {}

    def read(self, fields: Fields) -> Response:
        """Numbers of the last frames."""
        key = fields.text("stream")
        entry = self.studio.catalogue.streams.find(key)
        reader = self._readers.setdefault(key, StreamReader(entry))
        return answer({**reader.read(), "has_frames": self.has_frames})


class StreamReader:
    """The output of one stream, of which each reading takes only the new lines.

    Args:
        entry: the file of JSON lines.
    """

    def __init__(self, entry: FolderEntry):
        self.place, self.name = Place.of(entry.path), entry.name
        self.tail = Tail(MOST_READ, KEPT)
        self._arrivals: deque[tuple[float, int]] = deque()

    def read(self) -> dict[str, Any]:
        """The last frames: latency, boxes, parameters of each stage, and frames that are missing."""
        first = self.tail.count == 0
        self.tail.update(self.place.checked().path)
        now = time.monotonic()
        if not first or not self._arrivals:
            self._arrivals.append((now, self.tail.count))
        while len(self._arrivals) > 2 and now - self._arrivals[1][0] > RATE_SECONDS:
            self._arrivals.popleft()
        (began, before), rate = self._arrivals[0], None
        if now - began > 0.5:
            rate = max(0, self.tail.count - before) / (now - began)
        lines = [line for line in self.tail.lines if isinstance(line.get("number"), int)]
        numbers = [line["number"] for line in lines]
        missing = max(numbers) - min(numbers) + 1 - len(set(numbers)) if numbers else 0
        last = lines[-1] if lines else {}
        return {
            "name": self.name,
            "frames": self.tail.count,
            "shown": len(lines),
            "rate": rate,
            "missing": missing,
            "latency": [(line["number"], line.get("latency_ms")) for line in lines],
            "boxes": [(line["number"], len(line.get("boxes") or ())) for line in lines],
            "parameters": _parameters(lines),
            "milliseconds": last.get("milliseconds"),
            "last": {"number": last.get("number"), "name": str(last.get("name", "")), "boxes": last.get("boxes")},
        }


def _parameters(lines: list[dict[str, Any]]) -> dict[str, list[tuple[int, float]]]:
    """ "2 exposure · ev" → (number of the frame, value), for each stage and parameter."""
    found: dict[str, list[tuple[int, float]]] = {}
    for line in lines:
        stages = line.get("pipeline")
        for place, stage in enumerate(stages if isinstance(stages, list) else (), 1):
            params = stage.get("params") if isinstance(stage, dict) else None
            for name, value in params.items() if isinstance(params, dict) else ():
                if isinstance(value, int | float):
                    found.setdefault(f"{place} {stage.get('module')} · {name}", []).append((line["number"], value))
    return found


class Frames:
    """The latest picture of a stream that serves MJPEG on this machine; it is fetched while somebody asks.

    Args:
        port: its port on 127.0.0.1.
    """

    def __init__(self, port: int):
        self.port = port
        self._condition = threading.Condition()
        self._latest: tuple[int, bytes] = (0, b"")
        self._asked, self._thread = 0.0, threading.Thread()

    def after(self, seen: int) -> tuple[int, bytes] | None:
        """The first picture after number `seen`, which is waited for; None if none comes."""
        with self._condition:
            self._asked = time.monotonic()
            if not self._thread.is_alive():
                self._thread = threading.Thread(target=self._fetch, daemon=True)
                self._thread.start()
            self._condition.wait_for(lambda: self._latest[0] > seen, FRAME_SECONDS)
            return self._latest if self._latest[0] > seen else None

    def _fetch(self) -> None:
        """Takes pictures until nobody asks any more, or the stream ends."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=UNUSED_SECONDS)
        with closing(connection):
            try:
                connection.request("GET", "/stream.mjpg")
                response = connection.getresponse()
                while time.monotonic() - self._asked < UNUSED_SECONDS:
                    picture = _next_picture(response)
                    if picture is None:
                        return
                    with self._condition:
                        self._latest = (self._latest[0] + 1, picture)
                        self._condition.notify_all()
            except (OSError, http.client.HTTPException):
                return


def _next_picture(response: Any) -> bytes | None:
    """The next part of a multipart answer; None at its end, or where it is none."""
    length = None
    for _ in range(16):
        line = response.readline(1024)
        if not line:
            return None
        found = LENGTH.match(line)
        if found:
            length = int(found[1])
        elif line in (b"\r\n", b"\n") and length is not None:
            if length > MOST_FRAME:
                return None
            content: bytes = response.read(length)
            return content if len(content) == length else None
    return None
