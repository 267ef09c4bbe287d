"""The frame of an export, from the facts that are known of a camera's frames."""

from adaptiveisp.deployment.development import Frame
from adaptiveisp.errors import UsageError
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.raw.pixel_formats import Layout, PixelFormat, pixel_format
from adaptiveisp.types import BAYER_PATTERNS

KINDS = ("mosaic", "rgb")
LEAST_SIDE = 32
"""Least side of a frame in pixels."""
NOT_EXPORTED = ("frames", "frame", "knees", "curve", "shading", "defects", "matrix")
"""Facts of a header that the graphs do not take."""


def frame_of(kind: str, header: BayerHeader | None, orientation: int = 1) -> Frame:
    """The frame of a graph.

    Args:
        kind: "mosaic" or "rgb".
        header: what is known; where it has no bits, levels and pattern become inputs.
        orientation: EXIF orientation.

    Raises:
        UsageError: there is no such kind, or the header states what the graphs do not take.
    """
    if kind not in KINDS:
        raise UsageError(f"input {kind!r} does not exist; choose one of {', '.join(KINDS)}")
    if orientation not in range(1, 9):
        raise UsageError(f"orientation {orientation} does not exist; give 1 to 8 (1 is upright)")
    header = header or BayerHeader()
    for name in NOT_EXPORTED:
        if getattr(header, name) is not None:
            raise UsageError(f"raw-{name} cannot be exported; undo it before the graph, and leave it out")
    if min(header.width or LEAST_SIDE, header.height or LEAST_SIDE) < LEAST_SIDE:
        raise UsageError(f"a frame of {header.width}x{header.height} is too small; give {LEAST_SIDE} pixels or more")
    if header.bits is None:
        given = [name for name in ("pattern", "black", "white") if getattr(header, name) is not None]
        if given:
            raise UsageError(f"raw-{given[0]} needs raw-bits or raw-format; give one, or leave raw-{given[0]} out")
        return Frame(kind, 16, header.height, header.width, orientation=orientation)
    return _known(kind, header, orientation)


def _known(kind: str, header: BayerHeader, orientation: int) -> Frame:
    """The frame of a header with bits, whose levels and pattern are constants."""
    assert header.bits is not None
    if kind == "mosaic" and header.pattern not in BAYER_PATTERNS:
        choices = ", ".join(BAYER_PATTERNS)
        raise UsageError(f"raw pattern {header.pattern} cannot be exported; give raw-pattern, one of {choices}")
    if kind == "rgb" and header.pattern is not None:
        raise UsageError(f"an rgb frame has no raw-pattern {header.pattern}; leave it out")
    if isinstance(header.white, str):
        raise UsageError(f"raw-white {header.white} changes from frame to frame; give a level")
    black = header.black_levels
    if kind == "rgb" and len(set(black)) > 1:
        raise UsageError("an rgb frame has one raw-black; give one number")
    return Frame(
        kind,
        header.bits,
        header.height,
        header.width,
        header.pattern,
        black if kind == "mosaic" else black[:1],
        float(2**header.bits - 1) if header.white is None else float(header.white),
        orientation,
        packing_of(header) if kind == "mosaic" else None,
        header.stride,
        header.offset or 0,
    )


def packing_of(header: BayerHeader) -> PixelFormat:
    """How the bytes of a header's frames hold the values: its format, or whole bytes, low byte first."""
    assert header.bits is not None
    if header.format is not None:
        return pixel_format(header.format)
    container = 8 if header.bits <= 8 else 16 if header.bits <= 16 else 24
    return PixelFormat(f"u{header.bits}le{container}", header.bits, Layout.WHOLE, container, pattern=header.pattern)
