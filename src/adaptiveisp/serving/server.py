"""Listens on an address, and ends with its uploads removed."""

import socket
from collections.abc import Callable
from typing import Any

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


def serve(app: App, host: str, port: int, started: Callable[[str], Any]) -> None:
    """Serves an application until it is interrupted.

    Args:
        app: the application.
        host, port: where it listens; port 0 takes a free one.
        started: gets the address once connections are taken.

    Raises:
        OutputError: see `bound_socket`.
    """
    guard = Guard(app, host)
    with bound_socket(host, port) as listening:
        config = uvicorn.Config(
            guard,
            lifespan="off",
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            limit_concurrency=MOST_CONNECTIONS,
            h11_max_incomplete_event_size=LONGEST_HEAD,
            http="h11",
            timeout_keep_alive=15,
            timeout_graceful_shutdown=1,
        )
        started(address_of(listening, host, guard.token))
        uvicorn.Server(config).run([listening])
