"""What requests hold, read within bounds, and answers to those that fail: one line each, never a traceback."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect

from adaptiveisp.errors import AdaptiveISPError, UsageError, logger, one_line, shown
from adaptiveisp.isp.pipeline import Pipeline
from adaptiveisp.serving.entries import BusyError, NotGivenError, TooLargeError
from adaptiveisp.serving.limits import BODY_SECONDS, MOST_BODY
from adaptiveisp.utils.files import parse_json

Handler = Callable[[Request], Awaitable[Response]]
STATUS: tuple[tuple[type[AdaptiveISPError], int], ...] = (
    (NotGivenError, 404),
    (BusyError, 503),
    (TooLargeError, 413),
    (UsageError, 400),
)
"""Status of an answer to a request that fails; 422 for all other errors of the package."""


class Fields:
    """The fields of a JSON body, each checked when it is asked for.

    Args:
        content: the parsed body.

    Raises:
        UsageError: it is no object.
    """

    def __init__(self, content: Any):
        if not isinstance(content, dict):
            raise UsageError("the request must hold a JSON object")
        self.content = content

    def text(self, name: str, default: str | None = None) -> str:
        """A text.

        Raises:
            UsageError: it is missing or no text.
        """
        value = self.content.get(name, default)
        if not isinstance(value, str):
            raise UsageError(f"the request must hold the text {name!r}, not {shown(value)}")
        return value

    def integer(self, name: str, low: int, high: int) -> int:
        """A whole number from `low` to `high`.

        Raises:
            UsageError: it is missing, no whole number, or outside.
        """
        value = self.content.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise UsageError(f"the request must hold the number {name!r} from {low} to {high}, not {shown(value)}")
        return value

    def flag(self, name: str) -> bool:
        """A truth value; False where it is missing.

        Raises:
            UsageError: it is something else.
        """
        value = self.content.get(name, False)
        if not isinstance(value, bool):
            raise UsageError(f"{name!r} must be true or false, not {shown(value)}")
        return value

    def texts(self, name: str, most: int) -> list[str]:
        """A list of texts.

        Raises:
            UsageError: it is something else, or longer than `most`.
        """
        value = self.content.get(name)
        if not isinstance(value, list) or len(value) > most or not all(isinstance(one, str) for one in value):
            raise UsageError(f"the request must hold a list of at most {most} texts as {name!r}")
        return value

    def pipeline(self) -> Pipeline:
        """The pipeline, read as a pipeline file is.

        Raises:
            PipelineError: it is none.
        """
        return Pipeline.from_json(self.content.get("pipeline"), "pipeline")


async def body_of(request: Request, most: int = MOST_BODY) -> bytes:
    """The body of a request.

    Raises:
        TooLargeError: it is longer than `most` bytes.
        UsageError: it does not arrive in time, or not whole.
    """
    parts = bytearray()

    async def collect() -> None:
        async for part in request.stream():
            parts.extend(part)
            if len(parts) > most:
                raise TooLargeError(f"the request is longer than {most} bytes")

    await in_time(request, most, collect)
    return bytes(parts)


async def body_into(request: Request, path: Path, most: int) -> int:
    """Writes the body of a request into a file, and returns its length in bytes.

    Raises:
        TooLargeError, UsageError: as for `body_of`.
    """
    written = 0

    async def collect() -> None:
        nonlocal written
        with open(path, "xb") as file:
            async for part in request.stream():
                written += len(part)
                if written > most:
                    raise TooLargeError(f"the file is longer than {most >> 20} MiB, which is all that is left for it")
                await run_in_threadpool(file.write, part)

    await in_time(request, most, collect)
    return written


async def in_time(request: Request, most: int, collect: Callable[[], Awaitable[None]]) -> None:
    """Reads a body, unless it states a length beyond `most`, or takes too long.

    Raises:
        TooLargeError, UsageError: as for `body_of`.
    """
    stated = request.headers.get("content-length", "")
    if stated and (not stated.isdigit() or len(stated) > 15 or int(stated) > most):
        raise TooLargeError(f"the request states a length of {one_line(stated, 40)} bytes; at most {most} are taken")
    try:
        await asyncio.wait_for(collect(), BODY_SECONDS)
    except (asyncio.TimeoutError, TimeoutError):
        raise UsageError(f"the request did not arrive within {BODY_SECONDS:g} s") from None
    except ClientDisconnect:
        raise UsageError("the request did not arrive whole") from None


async def fields_of(request: Request) -> Fields:
    """The fields of a request's JSON body.

    Raises:
        UsageError: it is not JSON.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "application/json":
        raise UsageError("the request must be of the type application/json")
    content = await body_of(request)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise UsageError("the request is not UTF-8") from None
    return Fields(parse_json(text, "request", UsageError, "send the page's own requests"))


def answer(content: Any) -> Response:
    """A JSON answer; NaN and infinity become null."""
    return Response(json.dumps(_finite(content), allow_nan=False, separators=(",", ":")), media_type="application/json")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and (value != value or value in (float("inf"), -float("inf"))) else value


def failed(error: Exception) -> Response:
    """The answer to a request that fails."""
    if isinstance(error, AdaptiveISPError):
        status = next((code for kind, code in STATUS if isinstance(error, kind)), 422)
        return JSONResponse({"error": str(error)}, status)
    if isinstance(error, OSError):
        return JSONResponse({"error": one_line(f"a file cannot be read ({error.strerror or 'unknown reason'})")}, 422)
    logger.debug("unexpected error of a request", exc_info=error)
    text = f"unexpected {type(error).__name__}; start the viewer with -v, which shows where, and report it"
    return JSONResponse({"error": text}, 500)


def guarded(handler: Handler) -> Handler:
    """A handler whose errors become answers."""

    async def wrapped(request: Request) -> Response:
        try:
            return await handler(request)
        except Exception as error:
            return failed(error)

    return wrapped


def missing(request: Request, error: Exception) -> Response:
    """The answer to an address that does not exist."""
    return PlainTextResponse("there is no such page", 404)
