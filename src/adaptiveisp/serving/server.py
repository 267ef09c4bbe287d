"""Listens on an address, and ends with its uploads removed."""

import socket
from types import TracebackType

import uvicorn

from adaptiveisp.errors import OutputError
from adaptiveisp.serving.guard import LOOPBACK, App, Guard
from adaptiveisp.serving.limits import MOST_CONNECTIONS

LONGEST_HEAD = 16384
"""Bytes of a request's headers."""


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket that listens.

    Raises:
        OutputError: the port is taken or not allowed, or the address is not of this machine.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        made = socket.create_server((host, port), family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputError(f"port {port} of {host} cannot be used ({reason}); choose another --port or --host") from None
    return made


def address_of(listening: socket.socket, host: str, token: str) -> str:
    """The address that a browser opens, which holds the token behind #, so that no server or log gets it."""
    shown = LOOPBACK if host in ("0.0.0.0", "") else host
    shown = f"[{shown}]" if ":" in shown else shown
    return f"http://{shown}:{listening.getsockname()[1]}/#token={token}"


class ViewServer:
    """Serves an application; a context manager, whose end closes the socket.

    Args:
        app: the application.
        host, port: where it listens; port 0 takes a free one.

    Attributes:
        address: what a browser opens.
        token: the secret in the address.

    Raises:
        OutputError: see `bound_socket`.
    """

    def __init__(self, app: App, host: str = LOOPBACK, port: int = 0):
        guard = Guard(app, host)
        self._socket = bound_socket(host, port)
        self.token = guard.token
        self.address = address_of(self._socket, host, guard.token)
        config = uvicorn.Config(
            guard,
            lifespan="off",
            ws="none",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MOST_CONNECTIONS,
            h11_max_incomplete_event_size=LONGEST_HEAD,
            http="h11",
            timeout_keep_alive=15,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return int(self._socket.getsockname()[1])

    def run(self) -> None:
        """Answers until it is interrupted, or `stop` is called on another thread."""
        self._server.run([self._socket])

    def stop(self) -> None:
        """Ends `run`."""
        self._server.should_exit = True

    def __enter__(self) -> "ViewServer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
