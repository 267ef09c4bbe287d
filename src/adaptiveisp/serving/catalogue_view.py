"""What was given and what can be chosen, as the page lists it."""

from typing import Any

from adaptiveisp.isp.module import IspModule
from adaptiveisp.serving.entries import ImageEntry
from adaptiveisp.serving.limits import MOST_LISTED
from adaptiveisp.serving.slopes import STEP
from adaptiveisp.serving.studio import Studio
from adaptiveisp.utils.provenance import package_version


def catalogue_view(studio: Studio) -> dict[str, Any]:
    """Images, reports, runs and streams by id, and the menus."""
    catalogue = studio.catalogue
    images = catalogue.images.items()
    more = [f"{len(images) - MOST_LISTED} more images are not listed"] if len(images) > MOST_LISTED else []
    return {
        "version": package_version(),
        "first": catalogue.first or "image",
        "images": [image_view(name, entry) for name, entry in images[:MOST_LISTED]],
        "reports": [{"id": name, "name": entry.name} for name, entry in catalogue.reports.items()],
        "runs": [{"id": name, "name": entry.name} for name, entry in catalogue.runs.items()],
        "streams": [{"id": name, "name": entry.name} for name, entry in catalogue.streams.items()],
        "policies": list(studio.policies),
        "detectors": list(studio.detectors),
        "size": studio.config.size,
        "confidence": studio.config.confidence,
        "slider_step": STEP,
        "notes": [*catalogue.notes, *more],
    }


def image_view(name: str, entry: ImageEntry) -> dict[str, Any]:
    """An image in the list.

    Args:
        name: its id.
        entry: the image.
    """
    return {
        "id": name,
        "name": entry.name,
        "group": entry.group,
        "light": entry.light,
        "labels": None if entry.annotations is None else len(entry.annotations),
        "uploaded": entry.uploaded,
    }


def module_view(module: IspModule) -> dict[str, Any]:
    """A module's declaration, from which its card is made."""
    return {
        "name": module.name,
        "short": module.short,
        "effect": module.effect,
        "pointwise": module.pointwise,
        "cost_ms": module.cost_ms,
        "params": [
            {"name": p.name, "low": p.low, "high": p.high, "unit": p.unit, "neutral": p.neutral, "scale": p.scale}
            for p in module.params
        ],
    }
