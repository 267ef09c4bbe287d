"""Compares what a camera states about its frames with what was declared."""

from dataclasses import replace

from adaptiveisp.errors import UsageError
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.raw.pixel_formats import PixelFormat, pixel_format

STALLED_SECONDS = 10.0
"""A camera that gives no frame for so long counts as lost."""
POLL_SECONDS = 0.5
"""Longest wait for a frame after which a source looks whether it was stopped."""


def same_layout(one: PixelFormat, other: PixelFormat) -> bool:
    """Whether two names stand for the same bits; a pattern that one of them does not state does not count.

    >>> same_layout(pixel_format("RG10"), pixel_format("SRGGB10"))
    True
    >>> same_layout(pixel_format("RAW12"), pixel_format("Y12"))
    False
    """
    patterns = {one.pattern, other.pattern} - {None}
    return len(patterns) < 2 and replace(one, name="", pattern=None) == replace(other, name="", pattern=None)


def offered(declared: PixelFormat, names: list[str]) -> str | None:
    """The first of a camera's names of formats that stands for the declared one; None if there is none."""
    for name in names:
        try:
            if same_layout(pixel_format(name), declared):
                return name
        except UsageError:  # a format that is not raw
            continue
    return None


def is_raw(name: str) -> bool:
    """Whether a format's name stands for a mosaic or a monochrome image that can be read."""
    try:
        return pixel_format(name) is not None
    except UsageError:
        return False


def agreed(source: str, declared: BayerHeader | None, stated: BayerHeader) -> BayerHeader:
    """The facts of a camera's frames: what it states, completed by what was declared.

    Args:
        source: the camera, for messages.
        declared: facts of the user; None for none.
        stated: size, format and stride that the camera states.

    Raises:
        UsageError: the camera states something else than was declared.
    """
    if declared is None:
        return stated
    for name, flag in (("width", "raw-size"), ("height", "raw-size"), ("stride", "raw-stride")):
        wanted, given = getattr(declared, name), getattr(stated, name)
        if None not in (wanted, given) and wanted != given:
            raise UsageError(f"{source}: gives a {name} of {given}, not the declared {wanted}; correct --{flag}")
    how = pixel_format(stated.format) if stated.format is not None else None
    if declared.format is not None and how is not None and not same_layout(pixel_format(declared.format), how):
        raise UsageError(f"{source}: gives {how.described()}, not {declared.format}; correct --raw-format")
    try:
        plain = replace(declared, format=stated.format, offset=None, frames=None, frame=None)
        return plain.filled_from(stated)
    except UsageError as error:
        raise UsageError(f"{source}: {error}") from None


def no_frame(source: str) -> str:
    """The message about a camera that gives no frames."""
    return f"{source}: gave no frame for {STALLED_SECONDS:g} s; check its cable, its power and its trigger"
