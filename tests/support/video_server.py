"""A loopback server that sends MPEG-TS without an end or a length, as a network camera does."""

import io
import socket
import threading
from collections.abc import Callable
from functools import cache

import numpy as np

HEAD = b"HTTP/1.0 200 OK\r\nContent-Type: video/MP2T\r\nConnection: close\r\n\r\n"


@cache
def transport_stream(n: int, value: int = 128) -> bytes:
    """MPEG-TS of grey frames, 25 a second."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.max_b_frames = 64, 48, "yuv420p", 0
        for _ in range(n):
            picture = av.VideoFrame.from_ndarray(np.full((48, 64, 3), value, np.uint8), format="rgb24")
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    return buffer.getvalue()


class VideoServer:
    """Answers each connection on 127.0.0.1 by the next of the given actions, on a thread; the last one repeats.

    Args:
        actions: take the connection, after its request was read; it is closed afterwards.
    """

    def __init__(self, *actions: Callable[[socket.socket], None]):
        self.requests = 0
        self._actions = actions
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}/live"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            action = self._actions[min(self.requests, len(self._actions) - 1)]
            self.requests += 1
            with connection:
                try:
                    connection.recv(4096)
                    action(connection)
                except OSError:
                    pass

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(timeout=10)


def sends(n: int, value: int = 128) -> Callable[[socket.socket], None]:
    """Sends frames and ends the connection."""
    return lambda connection: connection.sendall(HEAD + transport_stream(n, value))


def refuses(connection: socket.socket) -> None:
    """Answers that there is no stream at present."""
    connection.sendall(b"HTTP/1.0 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")


def is_silent(connection: socket.socket) -> None:
    """Answers nothing until the client leaves."""
    connection.settimeout(10)
    while connection.recv(4096):
        pass
