"""Who may ask the viewer: the token, the names of this machine, and pages of the viewer itself.

A page of another site can make a browser send requests to this machine, and can give its own name our address (DNS
rebinding). The Host and Origin headers tell such requests apart, and none of them knows the token. The token travels in
a header that only our own page sets, not in a cookie, which every server on this machine would get.
"""

import hmac
import ipaddress
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from adaptiveisp.errors import UsageError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LOOPBACK = "127.0.0.1"
LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
TOKEN_HEADER = b"x-adaptiveisp-token"
API = "/api/"
"""Beginning of the paths that need the token; the others are the page itself, which holds no data."""
METHODS = frozenset({"GET", "HEAD", "POST", "DELETE"})
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of every answer."""


def check_host(host: str, allow_remote: bool) -> None:
    """Refuses an address that other machines reach, unless that was asked for.

    Raises:
        UsageError: the host is not this machine's loopback, and `allow_remote` is not set.
    """
    if host not in LOOPBACK_NAMES and not allow_remote:
        raise UsageError(
            f"--host {host}: lets other machines in, to which the connection is not encrypted; add --allow-remote, or "
            "forward the port by ssh"
        )


@dataclass(frozen=True)
class Guard:
    """Lets requests through to an application, or answers them with the reason why not.

    Attributes:
        app: the application.
        host: the address that is listened on.
        token: the secret that requests for data must carry.
    """

    app: App
    host: str = LOOPBACK
    token: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        if scope["type"] != "http":
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008})
            return
        refusal = self.refusal(scope)

        async def with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                own = [(name.lower().encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *own]}
            await send(message)

        if refusal is None:
            await self.app(scope, receive, with_headers)
            return
        status, reason = refusal
        body = reason.encode()
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"content-length", str(len(body)).encode())]
        await with_headers({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and reason where a request is refused."""
        found: dict[bytes, list[bytes]] = {}
        for name, value in scope["headers"]:
            found.setdefault(name.lower(), []).append(value)
        hosts, origins = found.get(b"host", []), found.get(b"origin", [])
        if scope["method"] not in METHODS:
            return 405, "this method is not used here"
        if len(hosts) != 1 or not self.knows(hosts[0]):
            return 421, "this name is not of this machine; open the address that the command printed"
        if len(origins) > 1 or any(not self._is_own(origin, hosts[0]) for origin in origins):
            return 403, "a page of another site has sent this request"
        sites = found.get(b"sec-fetch-site", [])
        # The page itself, which holds no data, may be reached by a link of another page or of a file.
        if scope["path"] != "/" and any(site not in (b"same-origin", b"none") for site in sites):
            return 403, "a page of another site has sent this request"
        if not scope["path"].startswith(API):
            return None
        tokens = found.get(TOKEN_HEADER, [])
        if len(tokens) != 1 or not hmac.compare_digest(tokens[0], self.token.encode()):
            return 401, "the token is missing or wrong; open the address that the command printed"
        return None

    def knows(self, host: bytes) -> bool:
        """Whether a Host header names this machine: on loopback its names, with any port, which ssh may forward.

        Where other machines may connect, any address of numbers is taken, since a name of another site is none.
        """
        try:
            parts = urlsplit("//" + host.decode("ascii").strip())
            name, _ = parts.hostname, parts.port
        except (ValueError, UnicodeDecodeError):
            return False
        if name is None or parts.username is not None or parts.path or parts.query or parts.fragment:
            return False
        if name in LOOPBACK_NAMES or name == self.host:
            return True
        return self.host not in LOOPBACK_NAMES and _is_address(name)

    def _is_own(self, origin: bytes, host: bytes) -> bool:
        return origin.lower() == b"http://" + host.strip().lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
