"""The note that a synthetic raw carries: how it was made from a photo, as one line of JSON inside the image file."""

import json
import math
from dataclasses import asdict, fields
from typing import Any

from adaptiveisp.errors import RawFileError
from adaptiveisp.types import Unprocessing

MARKER = "adaptiveisp"
"""Key of the version number in the note; any other text in the same place is not ours and is left alone."""

NOTE_VERSION = 1


def note_from_unprocessing(unprocessing: Unprocessing) -> str:
    """One line of ASCII JSON from which `unprocessing_from_note` gets the same values back, bit for bit.

    >>> plain = Unprocessing(0.5, 1.0, 2.0, 1.5, (1.0,) * 9, 0.0, 0.0, "none", 0)
    >>> unprocessing_from_note(note_from_unprocessing(plain)) == plain
    True
    """
    return json.dumps({MARKER: NOTE_VERSION, **asdict(unprocessing)}, allow_nan=False)


def unprocessing_from_note(text: str | None) -> Unprocessing | None:
    """The recipe in `text`, or None when the text is no note of ours.

    Raises:
        RawFileError: it carries our marker, but its fields are missing or make no sense.
    """
    if not text or f'"{MARKER}"' not in text:
        return None
    try:
        note: Any = json.loads(text)
    except ValueError:
        raise RawFileError("its note on how it was made is not valid JSON; make the file again") from None
    if not isinstance(note, dict) or MARKER not in note:
        return None
    if note[MARKER] != NOTE_VERSION:
        raise RawFileError(
            f"its note on how it was made has version {note[MARKER]!r}, expected {NOTE_VERSION}; make the file again"
        )
    try:
        values: dict[str, Any] = {field.name: note[field.name] for field in fields(Unprocessing)}
        values["ccm"] = tuple(float(entry) for entry in values["ccm"])
        for name in ("light", "rgb_gain", "red_gain", "blue_gain", "shot", "read"):
            values[name] = float(values[name])
        values["bits"] = int(values["bits"])
        values["noise"] = str(values["noise"])
    except (KeyError, TypeError, ValueError) as error:
        raise RawFileError(f"its note on how it was made is incomplete ({error}); make the file again") from None
    numbers = [value for value in values.values() if isinstance(value, float)] + list(values["ccm"])
    if len(values["ccm"]) != 9 or not all(math.isfinite(number) for number in numbers):
        raise RawFileError("its note on how it was made has values that make no sense; make the file again")
    return Unprocessing(**values)
