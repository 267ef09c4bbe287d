"""The note in the file of a synthetic raw on its synthesis from a photo: one line of JSON."""

import json
import math
from dataclasses import asdict
from typing import Any

import numpy as np

from adaptiveisp.errors import RawFileError
from adaptiveisp.types import CodeNoise, Unprocessing

MARKER = "adaptiveisp"
"""Key of the version number in the note; text without it belongs to other software and is ignored."""

NOTE_VERSION = 1
MOST_BITS = 16
_REMEDY = "make it again with adaptiveisp synth"


def note_from_unprocessing(unprocessing: Unprocessing) -> str:
    """The note, one line of ASCII JSON, from which `unprocessing_from_note` restores the same values bit for bit.

    >>> plain = Unprocessing(0.5, 1.0, 2.0, 1.5, (1.0, 0, 0, 0, 1, 0, 0, 0, 1), 0.0, 0.0, "none", 0)
    >>> unprocessing_from_note(note_from_unprocessing(plain)) == plain
    True
    """
    return json.dumps({MARKER: NOTE_VERSION, **note_entries(unprocessing)}, allow_nan=False)


def note_entries(unprocessing: Unprocessing) -> dict[str, Any]:
    """The parameters as JSON values; those of a camera's noise are left out where there are none."""
    entries = asdict(unprocessing)
    if entries["codes"] is None:
        del entries["codes"]
    return entries


def unprocessing_from_note(text: str | None) -> Unprocessing | None:
    """The parameters in a note; None for text that is not a note of this package.

    Raises:
        RawFileError: the text has the note's marker, but fields are missing or invalid.
    """
    if not text or f'"{MARKER}"' not in text:
        return None
    try:
        note: Any = json.loads(text)
    except (ValueError, RecursionError):
        raise RawFileError(f"its note on how it was made is not valid JSON; {_REMEDY}") from None
    if not isinstance(note, dict) or MARKER not in note:
        return None
    if note[MARKER] != NOTE_VERSION:
        raise RawFileError(
            f"its note on how it was made has version {note[MARKER]!r:.20}, expected {NOTE_VERSION}; {_REMEDY}"
        )
    return Unprocessing(
        light=_number(note, "light", above=0.0, most=1.0),
        rgb_gain=_number(note, "rgb_gain", above=0.0),
        red_gain=_number(note, "red_gain", above=0.0),
        blue_gain=_number(note, "blue_gain", above=0.0),
        ccm=_ccm(note),
        shot=_number(note, "shot"),
        read=_number(note, "read"),
        noise=_noise(note),
        bits=_bits(note),
        codes=_codes(note),
    )


def _entry(note: dict[str, Any], name: str) -> Any:
    if name not in note:
        raise RawFileError(f"its note on how it was made is incomplete ({name} is missing); {_REMEDY}")
    return note[name]


def _bad(name: str, wanted: str) -> RawFileError:
    return RawFileError(f"its note on how it was made makes no sense ({name} must be {wanted}); {_REMEDY}")


def _is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number that a float can hold; true and false are not."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def _number(note: dict[str, Any], name: str, above: float | None = None, most: float = math.inf) -> float:
    """The entry as a float that is at most `most` and above `above`, or not negative if `above` is None."""
    value = _entry(note, name)
    if not _is_number(value) or value > most or (value < 0 if above is None else value <= above):
        low = "at least 0" if above is None else f"above {above:g}"
        raise _bad(name, f"a finite number {low}" + (f" and at most {most:g}" if math.isfinite(most) else ""))
    return float(value)


def _ccm(note: dict[str, Any]) -> tuple[float, ...]:
    entries = _entry(note, "ccm")
    if not isinstance(entries, list) or len(entries) != 9 or not all(_is_number(entry) for entry in entries):
        raise _bad("ccm", "nine finite numbers")
    ccm = tuple(float(entry) for entry in entries)
    if np.linalg.matrix_rank(np.reshape(ccm, (3, 3))) < 3:
        raise _bad("ccm", "an invertible matrix")
    return ccm


def _noise(note: dict[str, Any]) -> str:
    noise = _entry(note, "noise")
    if not isinstance(noise, str):
        raise _bad("noise", "the name of a noise model")
    return noise


def _bits(note: dict[str, Any]) -> int:
    bits = _entry(note, "bits")
    if isinstance(bits, bool) or not isinstance(bits, int) or not 0 <= bits <= MOST_BITS:
        raise _bad("bits", f"a whole number from 0 to {MOST_BITS}")
    return bits


def _codes(note: dict[str, Any]) -> CodeNoise | None:
    codes = note.get("codes")
    if codes is None:
        return None
    if not isinstance(codes, dict):
        raise _bad("codes", "a mapping of names to numbers")
    black, white = _number(codes, "black"), _number(codes, "white", above=0.0, most=65535.0)
    if black != int(black) or black >= white:
        raise _bad("codes", "a whole black level below the white level")
    tail, iso = (None if codes.get(key) is None else _number(codes, key, above=0.0) for key in ("tail", "iso"))
    return CodeNoise(int(black), white, _number(codes, "row"), tail, iso)
