"""The stream page follows the JSON lines and the pictures of a stream."""

import io
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from adaptiveisp.isp.pipeline import Pipeline, Stage
from adaptiveisp.serving.entries import FolderEntry
from adaptiveisp.serving.opening import kind_of
from adaptiveisp.serving.pages import all_pages
from adaptiveisp.serving.server import ViewServer
from adaptiveisp.serving.stream_routes import Frames, StreamReader
from adaptiveisp.serving.tail import Tail
from adaptiveisp.streaming.live_view import Mjpeg
from adaptiveisp.streaming.sinks import JsonLines
from tests.support.browser import opened_page, serious, waited
from tests.support.stream_results import result_of
from tests.support.view_server import Viewer, running_viewer


def with_pipeline(number: int, ev: float) -> Any:
    made = result_of(number)
    pipeline = Pipeline((Stage("exposure", {"ev": ev}), Stage("gamma", {"gamma": 0.5})))
    return replace(made, result=replace(made.result, pipeline=pipeline), latency_ms=10.0 + number)


def test_numbers_of_a_stream(tmp_path: Path) -> None:
    path = tmp_path / "boxes.jsonl"
    with JsonLines(path) as sink:
        for number in (0, 1, 2, 5, 6):  # 3 and 4 were dropped
            sink.write(with_pipeline(number, number / 10))
    assert kind_of(path) == "stream"
    found = StreamReader(FolderEntry("boxes.jsonl", path)).read()
    assert found["missing"] == 2 and found["frames"] == 5 and found["rate"] is None
    assert found["latency"][-1] == (6, 16.0) and found["boxes"][0] == (0, 0)
    assert found["parameters"]["1 exposure · ev"] == [(0, 0.0), (1, 0.1), (2, 0.2), (5, 0.5), (6, 0.6)]
    assert set(found["parameters"]) == {"1 exposure · ev", "2 gamma · gamma"}


def test_a_long_stream_is_read_from_its_end(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    path.write_text("".join(f'{{"number": {i}}}\n' for i in range(1000)))
    tail = Tail(2000, keep=10)
    tail.update(path)
    assert [line["number"] for line in tail.lines] == list(range(990, 1000))
    with path.open("a") as file:
        file.write('{"number": 1000}\n')
    tail.update(path)
    assert tail.lines[-1] == {"number": 1000} and len(tail.lines) == 10


def test_the_frames_of_a_stream_are_passed_on() -> None:
    with Mjpeg(0) as view:
        port = int(view.address.rsplit(":", 1)[1].strip("/"))
        frames, ended = Frames(port), threading.Event()

        def feed() -> None:
            number = 0
            while not ended.is_set():
                view.write(result_of(number, (0.8, 0.1, 0.1)))
                number += 1
                time.sleep(0.02)

        feeder = threading.Thread(target=feed, daemon=True)
        feeder.start()
        try:
            found = frames.after(0)
            assert found is not None
            first, picture = found
            later = frames.after(first)
        finally:
            ended.set()
            feeder.join(5)
    assert later is not None and later[0] > first
    pixels = np.asarray(Image.open(io.BytesIO(picture)).convert("RGB"))
    assert np.abs(pixels.reshape(-1, 3).mean(axis=0) - (204, 26, 26)).max() < 6


def test_without_a_stream_on_the_port_there_is_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    from adaptiveisp.serving import stream_routes

    monkeypatch.setattr(stream_routes, "FRAME_SECONDS", 0.2)
    assert Frames(1).after(0) is None


def test_without_a_port_frames_are_refused(tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text('{"number": "x"}\n{"number": 1, "pipeline": [1, {"params": [2]}]}\n[]\n')
    with running_viewer([tmp_path / "s.jsonl"]) as viewer:
        assert viewer.post("/api/stream/frame", seen=0).status == 422
        key = viewer.catalogue.streams.items()[0][0]
        assert viewer.post("/api/stream/read", stream=key).json["shown"] == 1
        assert viewer.post("/api/stream/read", stream="x").status == 404


@pytest.mark.long
def test_a_stream_is_watched(browser: Any, axe: str, tmp_path: Path) -> None:
    path = tmp_path / "boxes.jsonl"
    with JsonLines(path) as sink, Mjpeg(0) as view, running_viewer([path]) as viewer:
        port = int(view.address.rsplit(":", 1)[1].strip("/"))
        app = all_pages(viewer.studio, viewer.uploads, port)
        with ViewServer(app) as server:
            thread = threading.Thread(target=server.run, daemon=True)
            thread.start()
            watched = Viewer(server, viewer.studio, viewer.uploads)
            sink.write(with_pipeline(0, 0.0))
            with opened_page(browser, watched.server.address) as page:
                waited(page, "settled", 0)
                assert page.title().startswith("Stream")
                for number in range(1, 40):
                    sink.write(with_pipeline(number, number / 40))
                    view.write(with_pipeline(number, number / 40))
                    page.wait_for_timeout(60)
                waited(page, "frames", 1)
                waited(page, "settled", int(page.locator("main").get_attribute("data-settled") or 0) + 1)
                assert "40" in page.locator(".block td").first.inner_text()
                assert not serious(page, axe)
            server.stop()
            thread.join(10)
