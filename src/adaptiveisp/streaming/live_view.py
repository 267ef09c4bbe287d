"""Shows a stream while it runs: in a browser on the same machine (MJPEG over HTTP), or in a window of OpenCV."""

import importlib
import io
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, ClassVar
from urllib.parse import urlsplit

import numpy as np
from PIL import Image

from adaptiveisp.errors import OutputError, UsageError
from adaptiveisp.streaming.stream import StreamResult

LOOPBACK = "127.0.0.1"
LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
"""Names in the Host header that are answered; any other means that a page of another site was made to ask us."""
MOST_CLIENTS = 8
"""Most connections at a time; further ones are closed."""
CLIENT_SECONDS = 10.0
"""Longest time in which a client must send its request or take a part of a picture."""
QUALITY = 80
"""JPEG quality of the pictures."""
_BOUNDARY = "frame"
_PAGE = b"""<!doctype html>
<html lang="en"><meta charset="utf-8"><title>adaptiveisp stream</title>
<style>body{margin:0;background:#1c2026}img{display:block;margin:auto;max-width:100vw;height:100vh;object-fit:contain}
</style><img src="stream.mjpg" alt="The latest frame with its boxes">
</html>
"""


class Mjpeg:
    """Serves the detector's images with their boxes to browsers on this machine, as MJPEG over HTTP.

    Every client gets the latest picture whenever it is ready for one, so that a slow client misses pictures and holds
    nobody back. Pictures are drawn and encoded only while there are clients.

    Args:
        port: port on 127.0.0.1; 0 takes a free one, which `address` states.

    Attributes:
        address: of the page.

    Raises:
        OutputError: the port is taken or not allowed.
    """

    def __init__(self, port: int):
        self._condition = threading.Condition()
        self._latest: tuple[int, bytes] = (0, b"")
        self._closed = False
        self._clients = 0
        try:
            self._server = _Server((LOOPBACK, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise OutputError(f"port {port} of {LOOPBACK} cannot be used ({reason}); choose another --mjpeg") from None
        self._server.view = self
        self.address = f"http://{LOOPBACK}:{self._server.server_address[1]}/"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    def write(self, result: StreamResult) -> None:
        """Makes a frame the latest picture."""
        if not self._clients:
            return
        buffer = io.BytesIO()
        Image.fromarray(result.result.drawn()).save(buffer, "JPEG", quality=QUALITY)
        with self._condition:
            self._latest = (self._latest[0] + 1, buffer.getvalue())
            self._condition.notify_all()

    def next_picture(self, seen: int) -> tuple[int, bytes] | None:
        """Waits for a picture other than number `seen`, and returns its number and JPEG; None at the end."""
        with self._condition:
            self._condition.wait_for(lambda: self._closed or self._latest[0] != seen)
            return None if self._closed else self._latest

    def change_clients(self, by: int) -> None:
        """Counts the clients that watch."""
        with self._condition:
            self._clients += by

    def __enter__(self) -> "Mjpeg":
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._condition:
            self._closed = True
            self._condition.notify_all()
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    """An HTTP server with a bounded number of connections."""

    daemon_threads = True
    view: Mjpeg

    def __init__(self, *arguments: Any):
        self._slots = threading.BoundedSemaphore(MOST_CLIENTS)
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answers on a thread of its own, or closes the connection if there are too many."""
        if not self._slots.acquire(blocking=False):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answers, and frees the place of the connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave or are too slow are no errors of the stream."""


class _Handler(BaseHTTPRequestHandler):
    """Answers GET of the page and of the pictures."""

    server: _Server
    timeout = CLIENT_SECONDS
    server_version = "adaptiveisp"
    sys_version = ""
    headers_of_all: ClassVar[dict[str, str]] = {
        "Cache-Control": "no-store",
        "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'",
        "Cross-Origin-Resource-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }

    def do_GET(self) -> None:
        """Sends the page or the pictures."""
        if not _is_loopback(self.headers.get_all("Host") or []):
            self.send_error(403, "Only names of this machine are answered")
        elif self.path == "/":
            self._begin("text/html; charset=utf-8")
            self.wfile.write(_PAGE)
        elif self.path == "/stream.mjpg":
            self._begin(f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
            self._send_pictures()
        else:
            self.send_error(404)

    def _begin(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Connection", "close")
        for name, value in self.headers_of_all.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True

    def _send_pictures(self) -> None:
        view, seen = self.server.view, 0
        view.change_clients(+1)
        try:
            while (found := view.next_picture(seen)) is not None:
                seen, picture = found
                head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                self.wfile.write(head.encode() + picture + b"\r\n")
        finally:
            view.change_clients(-1)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Requests are not logged."""


def _is_loopback(hosts: list[str]) -> bool:
    """Whether the Host header names this machine's loopback, with any port: it may be forwarded by ssh."""
    if len(hosts) != 1:
        return False
    try:
        parts = urlsplit(f"//{hosts[0].strip()}")
        return parts.hostname in LOOPBACK_NAMES and parts.username is None and not parts.path and not parts.query
    except ValueError:
        return False


FASTEST_WINDOW = 60
"""Most pictures a second of a window; further ones are left out."""


class Window:
    """Shows the detector's images with their boxes in a window of OpenCV; q, Esc or the window's button closes it.

    Libraries for windows want one thread, on macOS the main one, so this sink is not for `SinkThread`.

    Args:
        title: of the window.

    Attributes:
        closed: whether the user has closed it.
        written, dropped: pictures that were shown, and left out because they came too fast.

    Raises:
        UsageError: OpenCV is not installed, or can show no windows.
    """

    name = "Window"

    def __init__(self, title: str = "adaptiveisp stream"):
        remedy = "show the stream in a browser with --mjpeg 8000, or run: pip install opencv-python"
        try:
            cv2 = importlib.import_module("cv2")
        except ImportError:
            raise UsageError(f"--window needs OpenCV, which is not installed; {remedy}") from None
        if not _shows_windows(cv2.getBuildInformation()):
            raise UsageError(f"--window: this OpenCV ({cv2.__version__}) has no windows; {remedy}")
        self._cv2, self._title = cv2, title
        self.closed, self.written, self.dropped = False, 0, 0
        self._last = -1.0

    def write(self, result: StreamResult) -> None:
        """Shows a frame.

        Raises:
            OutputError: there is no screen.
        """
        now = time.monotonic()
        if self.closed or (self.written and now - self._last < 1 / FASTEST_WINDOW):
            self.dropped += 1
            return
        self._last = now
        try:
            self._cv2.imshow(self._title, np.ascontiguousarray(result.result.drawn()[..., ::-1]))
            key = self._cv2.waitKey(1) & 0xFF
            gone = self._cv2.getWindowProperty(self._title, self._cv2.WND_PROP_VISIBLE) < 1
        except self._cv2.error as error:
            reason = f"no window can be shown ({error}); show the stream in a browser with --mjpeg 8000"
            raise OutputError(f"--window: {reason}") from None
        self.written += 1
        self.closed = gone or key in (ord("q"), 27)

    def __enter__(self) -> "Window":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.written:
            self._cv2.destroyAllWindows()


def _shows_windows(build: str) -> bool:
    """Whether OpenCV's build information names a library for windows; opencv-python-headless has none.

    >>> _shows_windows("  GUI:                           NONE"), _shows_windows("  GUI:  QT5")
    (False, True)
    """
    lines = (line.partition(":") for line in build.splitlines())
    return all(value.strip() != "NONE" for name, _, value in lines if name.strip() == "GUI")
