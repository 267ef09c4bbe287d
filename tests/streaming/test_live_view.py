"""The view in a browser and in a window: what a client sees, who is answered, and that nobody holds the stream."""

import http.client
import io
import socket
import sys
import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from adaptiveisp.errors import OutputError, UsageError
from adaptiveisp.streaming import live_view
from adaptiveisp.streaming.live_view import Mjpeg, Window
from tests.support.stream_results import result_of

RED, BLUE = (1.0, 0.0, 0.0), (0.0, 0.0, 1.0)


def connected(view: Mjpeg, path: str = "/stream.mjpg", **headers: str) -> http.client.HTTPResponse:
    port = int(view.address.rstrip("/").rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers=headers)
    return connection.getresponse()


def next_picture(answer: http.client.HTTPResponse) -> np.ndarray:
    assert answer.readline() == b"--frame\r\n" and answer.readline() == b"Content-Type: image/jpeg\r\n"
    size = int(answer.readline().removeprefix(b"Content-Length: "))
    assert answer.readline() == b"\r\n"
    picture = np.asarray(Image.open(io.BytesIO(answer.read(size))))
    assert answer.readline() == b"\r\n"
    return picture


def until(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def test_a_browser_sees_the_pictures() -> None:
    with Mjpeg(0) as view:
        view.write(result_of(0, RED))  # nobody watches: nothing is drawn
        page = connected(view, "/")
        assert page.status == 200 and b'src="stream.mjpg"' in page.read()
        answer = connected(view)
        assert answer.headers["Content-Type"] == "multipart/x-mixed-replace; boundary=frame"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        until(lambda: view._clients == 1)
        for colour in (RED, BLUE):
            view.write(result_of(1, colour))
            assert np.abs(next_picture(answer).astype(int) - np.array(colour) * 255).max() < 12
        assert connected(view, "/secret").status == 404
    assert answer.read() == b""


def test_a_slow_client_gets_the_latest_picture_and_holds_nobody() -> None:
    """The pictures are far more than the system's buffers of a connection hold: a server that waits would hang."""
    noise = result_of(0, side=512)
    noise.result.image.copy_(torch.rand(3, 512, 512, generator=torch.Generator().manual_seed(0)))
    with Mjpeg(0) as view:
        slow = connected(view)
        until(lambda: view._clients == 1)
        for _ in range(100):
            view.write(noise)
        view.write(result_of(100, BLUE))
        seen = 1
        while next_picture(slow).shape != (32, 32, 3):
            seen += 1
        assert seen < 100


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost:9000", 200),
        ("[::1]", 200),
        ("evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("evil.example@127.0.0.1", 403),
        ("127.0.0.1/x", 403),
        ("[", 403),
        ("", 403),
    ],
)
def test_only_names_of_this_machine_are_answered(host: str, status: int) -> None:
    """A page of another site could otherwise watch by giving its own name the address 127.0.0.1 (DNS rebinding)."""
    with Mjpeg(0) as view:
        assert connected(view, "/", Host=host).status == status


def test_the_server_listens_on_the_loopback_only_and_takes_a_bounded_number_of_clients(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(live_view, "MOST_CLIENTS", 2)
    with Mjpeg(0) as view:
        assert view._server.server_address[0] == "127.0.0.1"
        held = [connected(view) for _ in range(2)]
        until(lambda: view._clients == 2)
        with pytest.raises((http.client.RemoteDisconnected, ConnectionResetError)):
            connected(view)
        for answer in held:
            answer.close()
        until(lambda: view.write(result_of(0, side=256)) or not view._clients)  # the places are free again
        assert connected(view, "/").status == 200


def test_closing_ends_all_threads_and_frees_the_port() -> None:
    before = threading.active_count()
    with Mjpeg(0) as view:
        answer = connected(view)
        port = view._server.server_address[1]
        with pytest.raises(OutputError, match=rf"port {port} of 127.0.0.1 cannot be used \(Address already in use\)"):
            Mjpeg(port)
    answer.close()
    until(lambda: threading.active_count() <= before)
    with socket.socket() as free:
        free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        free.bind(("127.0.0.1", port))


class PretendedCv2(SimpleNamespace):
    class error(Exception):
        pass

    def __init__(self, build: str, keys: list[int]):
        super().__init__(__version__="4.0", WND_PROP_VISIBLE=4, shown=[], destroyed=0)
        self.build, self.keys = build, keys

    def getBuildInformation(self) -> str:
        return self.build

    def imshow(self, title: str, image: np.ndarray) -> None:
        self.shown.append(image[0, 0].tolist())

    def waitKey(self, milliseconds: int) -> int:
        return self.keys.pop(0)

    def getWindowProperty(self, title: str, name: int) -> float:
        return 1.0

    def destroyAllWindows(self) -> None:
        self.destroyed += 1


def test_a_window_shows_bgr_until_q(monkeypatch: pytest.MonkeyPatch) -> None:
    cv2 = PretendedCv2("  GUI:                           QT5", [-1, ord("q")])
    monkeypatch.setitem(sys.modules, "cv2", cv2)
    monkeypatch.setattr(live_view, "FASTEST_WINDOW", 1e9)
    with Window() as window:
        for number in range(4):
            assert window.closed == (number >= 2)
            window.write(result_of(number, RED))
    assert cv2.shown == [[0, 0, 255]] * 2 and (window.written, window.dropped, cv2.destroyed) == (2, 2, 1)


def test_a_window_that_cannot_be_shown_has_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cv2", PretendedCv2("  GUI:                           NONE", []))
    with pytest.raises(UsageError, match="has no windows; show the stream in a browser with --mjpeg 8000"):
        Window()
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(UsageError, match="not installed; show the stream in a browser with --mjpeg 8000"):
        Window()
