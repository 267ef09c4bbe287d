"""All pages of the viewer as one application."""

from fastapi import FastAPI

from adaptiveisp.serving.app import build_app
from adaptiveisp.serving.report_routes import report_routes
from adaptiveisp.serving.stream_routes import stream_routes
from adaptiveisp.serving.studio import Studio
from adaptiveisp.serving.training_routes import training_routes
from adaptiveisp.serving.uploads import Uploads


def all_pages(studio: Studio, uploads: Uploads, mjpeg_port: int | None = None) -> FastAPI:
    """The application with the requests of every page.

    Args:
        studio: does the work of the image page, and has the catalogue.
        uploads: takes dropped raws.
        mjpeg_port: port on this machine at which a stream serves its frames; None shows none.
    """
    return build_app(
        studio, uploads, {**report_routes(studio), **training_routes(studio), **stream_routes(studio, mjpeg_port)}
    )
