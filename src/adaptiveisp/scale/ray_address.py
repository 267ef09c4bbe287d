"""Checks the address of a Ray cluster, for which Ray itself would wait many minutes; it does not import Ray."""

import os
import socket

from adaptiveisp.errors import AdaptiveISPError

ANSWER_SECONDS = 10.0
"""Time within which a cluster has to take a connection, and then to answer."""
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0))
"""What a client of HTTP/2, on which gRPC rests, sends first: preface and an empty SETTINGS frame (RFC 9113, 3.4)."""
_SETTINGS = 4
"""Type of the frame that a server has to send first."""
_HEADER_BYTES = 9


def require_cluster(address: str) -> None:
    """Refuses an address at which no Ray cluster answers, before anything is computed or written.

    Args:
        address: HOST:PORT or ray://HOST:PORT; "auto", for which the environment variable RAY_ADDRESS is checked; any
            other text, such as "" for a new cluster on this machine, is not checked.

    Raises:
        AdaptiveISPError: names the address.
    """
    named = os.environ.get("RAY_ADDRESS", "") if address == "auto" else address
    host, _, port = named.rpartition("://")[2].rpartition(":")
    if not (host and port.isdecimal()):
        return
    shown = f"--address {address}" if named == address else f"--address auto, RAY_ADDRESS {named}"
    try:
        answers = _answers(host.strip("[]"), int(port))
    except (OSError, OverflowError) as error:
        raise AdaptiveISPError(f"{shown}: does not answer ({error}); start Ray there with ray start") from error
    if not answers:
        raise AdaptiveISPError(f"{shown}: another program than Ray answers; give the port that ray start names")


def _answers(host: str, port: int) -> bool:
    """Whether a server of HTTP/2 answers, as Ray does by gRPC; with TLS only whether there is one.

    Raises:
        OSError: nobody answers.
    """
    with socket.create_connection((host, port), timeout=ANSWER_SECONDS) as connection:
        if os.environ.get("RAY_USE_TLS", "0") not in ("", "0"):
            return True
        connection.sendall(_PREFACE)
        header = b""
        while len(header) < _HEADER_BYTES and (more := connection.recv(_HEADER_BYTES - len(header))):
            header += more
    return len(header) == _HEADER_BYTES and header[3] == _SETTINGS
