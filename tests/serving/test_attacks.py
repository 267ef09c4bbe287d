"""Requests that must not work: each is refused with a reason, and without a traceback."""

import contextlib
import gzip
import io
import json
import logging
import os
import socket
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from adaptiveisp.serving import limits
from tests.support.view_server import Answer, Viewer, running_viewer, small_dng

SECRET = "the-content-of-a-file-that-was-not-given"
EMPTY = {"version": 1, "module_set": "extended", "stages": []}


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Viewer]:
    home = tmp_path_factory.mktemp("attacked")
    (home / "secret.txt").write_text(SECRET)
    small_dng(home / "secret.dng", 9)
    small_dng(home / "given" / "a.dng", 1)
    small_dng(home / "given" / "<img src=x onerror=alert(1)>.dng", 2)
    os.symlink(home / "secret.dng", home / "given" / "link.dng")
    os.symlink(home, home / "given" / "up")
    with running_viewer([home / "given"]) as running:
        yield running


def raw_answer(viewer: Viewer, sent: bytes) -> Answer:
    """The answer to bytes that no client library would send."""
    with socket.create_connection(("127.0.0.1", viewer.server.port), timeout=20) as connection:
        received = b""
        with contextlib.suppress(ConnectionError):  # refused before all was sent
            connection.sendall(sent)
        while part := connection.recv(65536):
            received += part
            head, _, body = received.partition(b"\r\n\r\n")
            length = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
            if length and len(body) >= int(length[0].split(b":")[1]):
                break
        return Answer(int(received.split(b" ", 2)[1]), received.partition(b"\r\n\r\n")[2])


def assert_refused(answer: Answer, *statuses: int) -> None:
    assert answer.status in statuses, (answer.status, answer.body[:300])
    text = answer.body.decode("utf-8", "replace")
    assert text.strip(), "a refusal says why"
    assert "Traceback" not in text and 'File "' not in text and SECRET not in text and "/tmp/" not in text, text


PATHS = (
    "/../secret.txt",
    "/..%2fsecret.txt",
    "/%2e%2e/%2e%2e/secret.txt",
    "/static/../../secret.txt",
    "/....//....//etc/passwd",
    "//etc/passwd",
    "/app.js/../../secret.txt",
    "/app.js%00.html",
    "/%5c..%5csecret.txt",
    "/index.html/",
    "/docs",
    "/openapi.json",
    "/api/../secret.txt",
    "/api/uploads/..%2f..%2fsecret.txt",
)


@pytest.mark.parametrize("path", PATHS)
def test_paths_lead_nowhere(viewer: Viewer, path: str) -> None:
    assert_refused(viewer.ask("GET", path), 404, 405)


HOSTS = (
    "evil.example",
    "evil.example:80",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "a@127.0.0.1",
    "10.0.0.1",
)


@pytest.mark.parametrize("host", HOSTS)
def test_other_names_are_not_answered(viewer: Viewer, host: str) -> None:
    """A page of another site that gives its own name our address (DNS rebinding) has its own name in Host."""
    assert_refused(viewer.ask("GET", "/api/catalogue", headers={"Host": host}), 421)
    assert_refused(viewer.ask("GET", "/", headers={"Host": host}), 421)


def test_no_host_two_hosts_and_an_absolute_address(viewer: Viewer) -> None:
    token = f"X-Adaptiveisp-Token: {viewer.server.token}\r\n".encode()
    both = b"GET /api/catalogue HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil.example\r\n" + token + b"\r\n"
    assert_refused(raw_answer(viewer, both), 400, 421)
    assert_refused(raw_answer(viewer, b"GET /api/catalogue HTTP/1.0\r\n" + token + b"\r\n"), 400, 421)


ORIGINS = ("http://evil.example", "null", "https://127.0.0.1", "http://127.0.0.1", "http://localhost:1", "file://")


@pytest.mark.parametrize("origin", ORIGINS)
def test_pages_of_other_sites_cannot_ask(viewer: Viewer, origin: str) -> None:
    """Not even with the token, and not from another server on this machine."""
    content = json.dumps({"image": viewer.first, "detector": next(iter(viewer.studio.detectors))}).encode()
    assert_refused(viewer.ask("POST", "/api/image/open", content, {"Origin": origin}), 403)


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_the_browser_says_that_another_site_asks(viewer: Viewer, site: str) -> None:
    assert_refused(viewer.ask("GET", "/api/catalogue", headers={"Sec-Fetch-Site": site}), 403)
    assert_refused(viewer.ask("GET", "/app.js", headers={"Sec-Fetch-Site": site}), 403)
    assert viewer.ask("GET", "/", headers={"Sec-Fetch-Site": site}).status == 200  # a link to the page, without data


@pytest.mark.parametrize("token", ["", "x", "é", "x" * 5000, "TOKEN"])
def test_no_data_without_the_token(viewer: Viewer, token: str) -> None:
    wrong = viewer.server.token.swapcase() if token == "TOKEN" else token
    answer = viewer.ask("GET", "/api/catalogue", headers={"X-Adaptiveisp-Token": wrong.encode().decode("latin-1")})
    assert_refused(answer, 401)
    assert_refused(
        viewer.ask("GET", f"/api/catalogue?token={viewer.server.token}", headers={"X-Adaptiveisp-Token": ""}), 401
    )
    cookie = {"X-Adaptiveisp-Token": "", "Cookie": f"token={viewer.server.token}"}
    assert_refused(viewer.ask("GET", "/api/catalogue", headers=cookie), 401)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "TRACE", "CONNECT"])
def test_other_methods_are_refused(viewer: Viewer, method: str) -> None:
    assert_refused(viewer.ask(method, "/api/catalogue"), 400, 404, 405, 421)


def test_forms_of_other_sites_are_of_another_type(viewer: Viewer) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        assert_refused(viewer.ask("POST", "/api/image/open", b"{}", {"Content-Type": kind}), 400)


BODIES = (
    b"",
    b"{",
    b"[]",
    b"null",
    b"\xff\xfe{",
    b'{"image": NaN}',
    b'{"image": "a", "image": "b"}',
    b'{"image": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"image": {"$ref": "file:///etc/passwd"}}',
    json.dumps({"image": "../secret.dng", "detector": "x"}).encode(),
)


@pytest.mark.parametrize("number", range(len(BODIES)))
def test_bodies_that_make_no_sense(viewer: Viewer, number: int) -> None:
    assert_refused(viewer.ask("POST", "/api/image/open", BODIES[number]), 400, 404)


def test_a_body_that_is_too_long(viewer: Viewer) -> None:
    assert_refused(viewer.ask("POST", "/api/image/open", b" " * (limits.MOST_BODY + 1)), 413)
    lying = f"POST /api/image/open HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Adaptiveisp-Token: {viewer.server.token}\r\n"
    lying += "Content-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n{"
    assert_refused(raw_answer(viewer, lying.encode()), 413)
    chunks = f"POST /api/image/open HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Adaptiveisp-Token: {viewer.server.token}\r\n"
    chunks += "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    part = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    assert_refused(raw_answer(viewer, chunks.encode() + part * 17), 413)


def test_headers_without_end_are_cut_off(viewer: Viewer) -> None:
    """The connection is closed, with or without an answer, depending on how much of it was read."""
    head = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"x" * 200_000 + b"\r\n\r\n"
    with contextlib.suppress(ConnectionError, IndexError):
        assert_refused(raw_answer(viewer, head), 400, 431)
    assert viewer.ask("GET", "/").status == 200


PIPELINES = (
    {**EMPTY, "stages": [{"module": "os.system", "params": {}}]},
    {**EMPTY, "stages": [{"module": "tests.support.fake_detector:load", "params": {}}]},
    {**EMPTY, "module_set": "../../etc"},
    {**EMPTY, "stages": [{"module": "exposure", "params": {"ev": 1e9}}]},
    {**EMPTY, "stages": [{"module": "exposure", "params": {"ev": "__import__('os')"}}]},
    {**EMPTY, "stages": [{"module": "exposure", "params": {"ev": 0.0, "__class__": 1}}]},
    {**EMPTY, "stages": [{"module": "denoise", "params": {"h": 0.1}}] * 65},
    {**EMPTY, "version": True},
    {"stages": "x" * 1000},
    "../secret.json",
)


@pytest.mark.parametrize("number", range(len(PIPELINES)))
def test_pipelines_are_read_as_files_are(viewer: Viewer, number: int) -> None:
    asked = {"image": viewer.first, "detector": next(iter(viewer.studio.detectors)), "stage": 0}
    assert_refused(viewer.post("/api/image/picture", **asked, pipeline=PIPELINES[number]), 422)


@pytest.mark.parametrize("name", ["tests.support.fake_detector:load", "os:system", "../a.onnx", "hustvl/yolos-tiny", 7])
def test_a_client_names_no_code_and_no_file(viewer: Viewer, name: object) -> None:
    """A detector that the command line named is in the menu; every other name is refused, whatever it says."""
    other = "tests.support.fake_detector:RedDetector" if name == next(iter(viewer.studio.detectors)) else name
    assert_refused(viewer.post("/api/image/open", image=viewer.first, detector=other), 400, 404)
    asked = {"image": viewer.first, "detector": next(iter(viewer.studio.detectors))}
    assert_refused(viewer.post("/api/image/choose", **asked, policy=name), 400, 404)


def upload(viewer: Viewer, name: str, content: bytes) -> Answer:
    return viewer.ask("POST", f"/api/uploads?name={name}", content, {"Content-Type": "application/octet-stream"})


def png_bomb() -> bytes:
    """A PNG of 30000x30000 pixels of 16 bits in a few kilobytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")

    head = (30000).to_bytes(4, "big") * 2 + bytes([16, 0, 0, 0, 0])
    data = zlib.compress(bytes(1 << 20), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def npz_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        head = io.BytesIO()
        np.lib.format.write_array_header_1_0(head, {"descr": "<u2", "fortran_order": False, "shape": (30000, 30000)})
        archive.writestr("a.npy", head.getvalue() + bytes(1 << 22))
    return buffer.getvalue()


def pickled() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return buffer.getvalue()


UPLOADS = {
    "..%2F..%2Fevil.py": (b"import os", (422,)),
    "a.sh": (b"#!/bin/sh", (422,)),
    "": (b"x", (400,)),
    "...": (b"x", (400,)),
    "x" * 300 + ".dng": (b"x", (400,)),
    "photo.jpg": (b"\xff\xd8\xff", (422,)),
    "broken.dng": (b"II*\x00" + bytes(100), (422,)),
    "empty.dng": (b"", (422,)),
    "bomb.png": (png_bomb(), (413, 422)),
    "bomb.npz": (npz_bomb(), (413, 422)),
    "bomb.gz.dng": (gzip.compress(bytes(1 << 20)), (422,)),
    "pickle.npy": (pickled(), (422,)),
    "noheader.raw": (b"x" * 100, (422,)),
    "sidecar.yaml": (b"raw-size: 1x1", (422,)),
}


@pytest.mark.parametrize("name", UPLOADS)
def test_uploads_that_are_no_raws(viewer: Viewer, name: str) -> None:
    content, statuses = UPLOADS[name]
    before = len(viewer.catalogue.images)
    assert_refused(upload(viewer, name, content), *statuses)
    assert not list(viewer.uploads.folder.iterdir()) and len(viewer.catalogue.images) == before


def test_uploads_are_bounded_in_size_and_number(
    viewer: Viewer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adaptiveisp.serving import uploads

    content = small_dng(tmp_path / "u.dng").read_bytes()
    monkeypatch.setattr(uploads, "MOST_UPLOAD", 1000)
    assert_refused(upload(viewer, "u.dng", content), 413)
    monkeypatch.setattr(uploads, "MOST_UPLOAD", len(content))
    monkeypatch.setattr(uploads, "MOST_UPLOADS", 2)
    made = [upload(viewer, "u.dng", content).json["id"] for _ in range(2)]
    assert_refused(upload(viewer, "u.dng", content), 413)
    monkeypatch.setattr(uploads, "MOST_UPLOADS", 9)
    monkeypatch.setattr(uploads, "MOST_UPLOADED", 2 * len(content) + 10)
    assert_refused(upload(viewer, "u.dng", content), 413)
    for key in made:
        assert viewer.ask("DELETE", f"/api/uploads/{key}").status == 200
    assert not list(viewer.uploads.folder.iterdir())


def test_a_given_image_cannot_be_removed(viewer: Viewer) -> None:
    viewer.ask("DELETE", f"/api/uploads/{viewer.first}")
    assert viewer.catalogue.images.find(viewer.first).file is not None
    assert viewer.catalogue.images.find(viewer.first).file.is_file()  # type: ignore[union-attr]


def test_links_out_of_the_folder_are_left_out(viewer: Viewer) -> None:
    names = {entry.name for _, entry in viewer.catalogue.images.items()}
    assert names == {"a.dng", "<img src=x onerror=alert(1)>.dng"}
    assert any("links out of the folder" in note for note in viewer.catalogue.notes)


def test_a_file_that_becomes_a_link_is_refused(tmp_path: Path) -> None:
    small_dng(tmp_path / "outside.dng")
    inside = small_dng(tmp_path / "in" / "a.dng")
    with running_viewer([tmp_path / "in"]) as viewer:
        inside.unlink()
        inside.symlink_to(tmp_path / "outside.dng")
        answer = viewer.post("/api/image/open", image=viewer.first, detector=next(iter(viewer.studio.detectors)))
    assert_refused(answer, 404)
    assert "link" in answer.json["error"]


def test_an_image_that_is_gone_is_one_line(tmp_path: Path) -> None:
    path = small_dng(tmp_path / "a.dng")
    with running_viewer([path]) as viewer:
        path.unlink()
        answer = viewer.post("/api/image/open", image=viewer.first, detector=next(iter(viewer.studio.detectors)))
    assert answer.status == 422 and "a.dng" in answer.json["error"]


def test_too_many_computations_are_refused(viewer: Viewer, monkeypatch: pytest.MonkeyPatch) -> None:
    from adaptiveisp.serving import studio

    monkeypatch.setattr(studio, "WORK_SECONDS", 0.05)
    asked = {"image": viewer.first, "detector": next(iter(viewer.studio.detectors))}
    with viewer.studio.working():
        assert_refused(viewer.post("/api/image/open", **asked), 503)
    assert viewer.post("/api/image/open", **asked).status == 200


def test_an_unexpected_error_is_one_line(
    viewer: Viewer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("secret detail /tmp/x")

    monkeypatch.setattr(viewer.studio, "opened", fails)
    with caplog.at_level(logging.INFO):
        answer = viewer.post("/api/image/open", image=viewer.first, detector=next(iter(viewer.studio.detectors)))
    assert_refused(answer, 500)
    assert "RuntimeError" in answer.body.decode() and "secret detail" not in answer.body.decode()
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_every_answer_has_the_headers_that_keep_other_pages_out(viewer: Viewer) -> None:
    for answer in (viewer.ask("GET", "/"), viewer.ask("GET", "/api/catalogue"), viewer.ask("GET", "/nothing")):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'self'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
        assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["cache-control"] == "no-store"
        assert "access-control-allow-origin" not in answer.headers and "server" not in answer.headers


def test_the_page_itself_holds_no_data_and_no_inline_code(viewer: Viewer) -> None:
    page = viewer.ask("GET", "/", headers={"X-Adaptiveisp-Token": ""})
    assert page.status == 200 and viewer.server.token.encode() not in page.body
    for word in (b"onclick", b"onload", b"style=", b"javascript:", b"http://", b"https://"):
        assert word not in page.body


def test_ids_say_nothing_about_paths(viewer: Viewer) -> None:
    catalogue = viewer.ask("GET", "/api/catalogue").body.decode()
    assert "/tmp" not in catalogue and str(viewer.uploads.folder) not in catalogue
    assert all(len(key) == 12 and key.isalnum() for key, _ in viewer.catalogue.images.items())


def test_the_uploads_go_with_the_viewer(tmp_path: Path) -> None:
    with running_viewer([small_dng(tmp_path / "a.dng")]) as viewer:
        folder = viewer.uploads.folder
        assert upload(viewer, "b.dng", small_dng(tmp_path / "b.dng").read_bytes()).status == 200
        assert list(folder.iterdir())
    assert not folder.exists()
