"""The application behind the page: its files, and the requests of its pages."""

from collections.abc import Mapping
from importlib import resources
from typing import Any

from fastapi import FastAPI, Request, Response
from starlette.concurrency import run_in_threadpool

from adaptiveisp.serving.catalogue_view import catalogue_view
from adaptiveisp.serving.image_routes import image_routes
from adaptiveisp.serving.requests import Handler, answer, guarded, missing
from adaptiveisp.serving.studio import Studio
from adaptiveisp.serving.uploads import Uploads

KINDS = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
"""Types of the page's own files by their endings."""


def page_files() -> dict[str, tuple[bytes, str]]:
    """Path in an address → content and type of each of the page's own files."""
    found: dict[str, tuple[bytes, str]] = {}
    for file in (resources.files("adaptiveisp") / "serving" / "static").iterdir():
        ending = "." + file.name.rpartition(".")[2]
        if ending in KINDS:
            found[f"/{file.name}"] = file.read_bytes(), KINDS[ending]
    found["/"] = found["/index.html"]
    return found


def build_app(studio: Studio, uploads: Uploads, more: Mapping[str, Handler] | None = None) -> FastAPI:
    """The application.

    Args:
        studio: does the work of the image page.
        uploads: takes dropped raws.
        more: path → handler of the POST requests of the other pages.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    files = page_files()

    async def page(request: Request) -> Response:
        content, kind = files[request.url.path]
        return Response(content, media_type=kind)

    async def catalogue(request: Request) -> Response:
        return answer(await run_in_threadpool(catalogue_view, studio))

    async def forget(request: Request) -> Response:
        key = str(request.path_params["key"])
        uploads.drop(key)
        studio.forget(key)
        return answer({})

    for path in files:
        app.add_api_route(path, page, methods=["GET", "HEAD"], response_model=None)
    app.add_api_route("/api/catalogue", guarded(catalogue), methods=["GET"], response_model=None)
    app.add_api_route("/api/uploads", guarded(uploads.take), methods=["POST"], response_model=None)
    app.add_api_route("/api/uploads/{key}", guarded(forget), methods=["DELETE"], response_model=None)
    posts: dict[str, Any] = {**image_routes(studio), **(more or {})}
    for path, handler in posts.items():
        app.add_api_route(path, guarded(handler), methods=["POST"], response_model=None)
    app.add_exception_handler(404, missing)
    return app
