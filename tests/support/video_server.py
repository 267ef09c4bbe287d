"""A loopback server that sends MPEG-TS over HTTP without a length, or over RTSP, as network cameras do."""

import contextlib
import io
import re
import socket
import struct
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
        actions: take the connection; it is closed afterwards.
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
            with connection, contextlib.suppress(OSError):
                action(connection)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(timeout=10)


def sends(n: int, value: int = 128) -> Callable[[socket.socket], None]:
    """Sends frames over HTTP and ends the connection."""

    def send(connection: socket.socket) -> None:
        connection.recv(4096)
        connection.sendall(HEAD + transport_stream(n, value))

    return send


def sends_rtsp(n: int, value: int = 128) -> Callable[[socket.socket], None]:
    """Sends frames over RTSP (RFC 2326) as RTP packets between the answers (10.12); who asks for UDP is cut off."""

    def send(connection: socket.socket) -> None:
        sdp = b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=x\r\nt=0 0\r\nm=video 0 RTP/AVP 33\r\na=control:track\r\n"
        while request := connection.recv(4096).decode():
            method = request.partition(" ")[0]
            number = re.search(r"CSeq: *(\d+)", request)
            assert number is not None
            head, body = f"RTSP/1.0 200 OK\r\nCSeq: {number[1]}\r\nSession: 1\r\n", b""
            if method == "DESCRIBE":
                head, body = f"{head}Content-Type: application/sdp\r\nContent-Length: {len(sdp)}\r\n", sdp
            elif method == "SETUP" and "RTP/AVP/TCP" not in request:
                return
            elif method == "SETUP":
                head += "Transport: RTP/AVP/TCP;unicast;interleaved=0-1\r\n"
            connection.sendall(f"{head}\r\n".encode() + body)
            if method == "PLAY":
                connection.sendall(_rtp(transport_stream(n, value)))
                return

    return send


def _rtp(content: bytes, most: int = 7 * 188) -> bytes:
    """MPEG-TS in interleaved RTP packets (RFC 3550, section 5.1; RFC 2250, section 2)."""
    parts = [content[start : start + most] for start in range(0, len(content), most)]
    made = [struct.pack(">BBHII", 0x80, 33, i & 0xFFFF, 3600 * i, 1) + part for i, part in enumerate(parts)]
    return b"".join(struct.pack(">cBH", b"$", 0, len(packet)) + packet for packet in made)


def refuses(connection: socket.socket) -> None:
    """Answers that there is no stream at present."""
    connection.recv(4096)
    connection.sendall(b"HTTP/1.0 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")


def is_silent(connection: socket.socket) -> None:
    """Answers nothing until the client leaves."""
    connection.settimeout(10)
    while connection.recv(4096):
        pass
