"""Network streams: opened again after a loss, with limits on every wait. The server is a loopback one of this test."""

import logging
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from adaptiveisp.errors import RawFileError
from adaptiveisp.streaming import network_video, reconnecting
from adaptiveisp.streaming.network_video import frames_of_address
from adaptiveisp.streaming.sources import open_source
from tests.support.video_server import VideoServer, is_silent, refuses, sends, sends_rtsp

pytest.importorskip("av", reason="PyAV is not installed; pip install 'adaptiveisp[stream]'")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnecting, "FIRST_PAUSE", 0.05)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.WARNING, "adaptiveisp"):
        yield caplog


def test_a_lost_stream_is_opened_again_and_frame_numbers_and_times_go_on(log: pytest.LogCaptureFixture) -> None:
    server = VideoServer(sends(10, 60), refuses, refuses, sends(10, 180))
    try:
        found = []
        start = time.monotonic()
        for frame in open_source(server.address, reconnect=20):
            found.append((frame, time.monotonic() - start))
            if len(found) == 14:
                break
    finally:
        server.close()
    assert [frame.name for frame, _ in found] == [f"frame-{number:06d}" for number in range(14)]
    assert [bool(np.mean(frame.raw) > 120) for frame, _ in found] == [False] * 10 + [True] * 4
    times = [frame.time_s for frame, _ in found]
    assert times[9] is None  # the server's stream does not state the time of its last picture
    steps = np.diff([when for when in times if when is not None])
    np.testing.assert_allclose(np.delete(steps, 8), 0.04, atol=0.002)
    waited = found[10][1] - found[9][1]
    assert 0.05 + 0.1 + 0.2 <= steps[8] <= waited + 0.01  # three pauses, each twice as long as the one before
    assert server.requests == 4
    texts = [record.getMessage() for record in log.records]
    assert len(texts) == 2 and "lost after frame 9, trying again for 20 s (" in texts[0]
    assert "is back after" in texts[1] and "from frame 10 on" in texts[1]


def test_rtsp_uses_tcp_and_is_opened_again(log: pytest.LogCaptureFixture) -> None:
    """The server cuts off who asks for UDP, as FFmpeg does by itself."""
    server = VideoServer(sends_rtsp(60, 60), sends_rtsp(60, 180))
    found = []
    for frame in open_source(f"rtsp://127.0.0.1:{server.port}/live", reconnect=20):
        found.append(frame)
        if frame.raw.mean() > 120:
            break
    server.close()
    assert 50 <= len(found) <= 61 and server.requests == 2 and "is back after" in log.text


def test_a_stream_that_stays_lost_is_given_up(log: pytest.LogCaptureFixture) -> None:
    server = VideoServer(sends(10), refuses)
    found = []
    with pytest.raises(RawFileError, match=r"lost after frame 9 and did not come back within 0\.5 s \(.*5XX"):
        for frame in frames_of_address(server.address, reconnect=0.5):
            found.append(frame)
    server.close()
    assert len(found) == 10 and server.requests >= 3 and len(log.records) == 1


def test_without_reconnecting_the_end_is_the_end(log: pytest.LogCaptureFixture) -> None:
    server = VideoServer(sends(10))
    assert len(list(frames_of_address(server.address, reconnect=0))) == 10
    server.close()
    assert server.requests == 1 and not log.records


def test_a_first_connection_that_fails_is_not_tried_again() -> None:
    """Most likely the address is wrong."""
    server = VideoServer(refuses)
    with pytest.raises(RawFileError, match="cannot be read as a video"):
        list(frames_of_address(server.address))
    server.close()
    assert server.requests == 1
    with pytest.raises(RawFileError, match="refused"):
        list(frames_of_address(server.address))


def test_a_host_that_does_not_answer_does_not_hang(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_video, "OPEN_SECONDS", 0.3)
    server = VideoServer(is_silent)
    start = time.monotonic()
    for scheme in ("http", "rtsp", "tcp"):
        with pytest.raises(RawFileError, match=r"gave no data for 0\.3 s"):
            list(frames_of_address(f"{scheme}://127.0.0.1:{server.port}/live"))
    server.close()
    assert time.monotonic() - start < 8


def test_a_stream_that_falls_silent_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network_video, "READ_SECONDS", 0.3)

    def stalls(connection: object) -> None:
        sends(200)(connection)  # type: ignore[arg-type]  # more than FFmpeg wants to see when it opens
        is_silent(connection)  # type: ignore[arg-type]

    server = VideoServer(stalls)
    with pytest.raises(RawFileError, match=r"gave no data for 0\.3 s"):
        list(frames_of_address(server.address, reconnect=0))
    server.close()


def test_stopping_ends_the_pause_between_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconnecting, "FIRST_PAUSE", 30.0)
    server = VideoServer(sends(10), refuses)
    source = frames_of_address(server.address)
    start = time.monotonic()
    threading.Timer(0.5, source.stop).start()
    assert len(list(source)) == 10 and time.monotonic() - start < 20
    server.close()
