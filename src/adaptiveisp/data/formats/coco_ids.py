"""The ids of a COCO JSON: texts that become numbers, and the list of the categories that are labelled."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from adaptiveisp.data.values import MAX_ID, is_number_text, whole
from adaptiveisp.errors import DataError, shown
from adaptiveisp.types import Annotation

LABELLED = "labelled_category_ids"
"""Key of `info` that lists the categories whose objects are labelled."""


def labelled_categories(content: Mapping[str, Any], categories: Mapping[int, str], path: Path) -> set[int] | None:
    """The categories that `info.labelled_category_ids` lists; None if the file does not have this list.

    Such a file states that objects of other categories may be in its images without a label, so that neither a
    detection nor a label of those categories says anything about a policy.

    Args:
        content: the parsed JSON.
        categories: category id → name.
        path: the file, for errors.

    Raises:
        DataError: the value is not a list of ids, is empty, or has an id that is not in `categories`.
    """
    info = content.get("info")
    if not isinstance(info, dict) or info.get(LABELLED) is None:
        return None
    listed, where, remedy = info[LABELLED], f"{path}: info", "list ids of categories, or leave it out"
    if not isinstance(listed, list) or not listed:
        raise DataError(f"{where}: {LABELLED} {shown(listed)} must be a list of ids, at least one; {remedy}")
    found = {whole(key, where, LABELLED, -MAX_ID, MAX_ID) for key in listed}
    if unknown := sorted(found - set(categories)):
        raise DataError(f"{where}: {LABELLED} has the id {unknown[0]}, which is not in categories; {remedy}")
    return found


def unlabelled_note(annotations: Iterable[Sequence[Annotation]], categories: Mapping[int, str]) -> list[str]:
    """A note on annotations of categories that the file does not list as labelled; empty if there are none.

    Args:
        annotations: the annotations of each image.
        categories: the labelled categories, id → name.
    """
    count = sum(one.category_id not in categories for own in annotations for one in own)
    if not count:
        return []
    return [f"{count} annotations are of classes that info.{LABELLED} does not list, and are left out"]


def with_numbers(content: dict[str, Any]) -> dict[str, Any]:
    """The JSON with numbers instead of ids that are texts, as in RAW-NOD."""
    for key, reference in (("images", "image_id"), ("categories", "category_id")):
        entries, labels = content.get(key), content.get("annotations")
        number = _numbering(entries) if isinstance(entries, list) else {}
        if not number:
            continue
        content = {**content, key: [{**entry, "id": number[entry["id"]]} for entry in entries or ()]}
        if isinstance(labels, list):
            content["annotations"] = [
                {**entry, reference: number.get(name, name)}
                if isinstance(entry, dict) and isinstance(name := entry.get(reference), str)
                else entry
                for entry in labels
            ]
        info = content.get("info")
        if key == "categories" and isinstance(info, dict) and isinstance(info.get(LABELLED), list):
            listed = [number.get(one, one) if isinstance(one, str) else one for one in info[LABELLED]]
            content["info"] = {**info, LABELLED: listed}
    return content


def _numbering(entries: Collection[Any]) -> dict[str, int]:
    """Text id → number; empty if ids are repeated or not text, or if all of them are numbers written as text."""
    ids = [entry.get("id") if isinstance(entry, dict) else None for entry in entries]
    if not all(isinstance(key, str) for key in ids) or len(set(ids)) < len(ids) or all(map(is_number_text, ids)):
        return {}
    return {str(key): number for number, key in enumerate(ids, 1)}
