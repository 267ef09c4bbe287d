"""The frame of an export, from the facts that are known of a camera's frames."""

from adaptiveisp.deployment.development import Frame
from adaptiveisp.errors import UsageError
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.types import BAYER_PATTERNS

KINDS = ("mosaic", "rgb")
LEAST_SIDE = 32
"""Least side of a frame in pixels."""
MOST_PIXELS = 1 << 27
"""Most pixels of a frame: the self-test draws a whole one."""
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
    if (header.width or 0) * (header.height or 0) > MOST_PIXELS:
        raise UsageError(
            f"a frame of {header.width}x{header.height} is too large; give {MOST_PIXELS:,} pixels or fewer, or leave "
            "the size free"
        )
    _check_layout(kind, header)
    if header.bits is None:
        given = [name for name in ("pattern", "black", "white") if getattr(header, name) is not None]
        if given:
            raise UsageError(f"raw-{given[0]} needs raw-bits or raw-format; give one, or leave raw-{given[0]} out")
        return Frame(kind, 16, header.height, header.width, orientation=orientation)
    return _known(kind, header, orientation)


def _check_layout(kind: str, header: BayerHeader) -> None:
    """Checks stride and offset, which only the manifest's description of a mosaic's bytes takes.

    Raises:
        UsageError: no such description is written, or a row has more bytes than the stride.
    """
    given = [name for name in ("stride", "offset") if getattr(header, name) is not None]
    if given and kind == "rgb":
        raise UsageError(f"raw-{given[0]} describes the bytes of a mosaic, not of an rgb frame; leave it out")
    how = header.pixel_format
    if given and how is None:
        raise UsageError(f"raw-{given[0]} needs raw-bits or raw-format; give one, or leave raw-{given[0]} out")
    if how is None or header.stride is None or header.width is None:
        return
    row = how.row_bytes(header.width)
    if header.stride < row:
        raise UsageError(
            f"{header.width} pixels of {how.name} take {row} bytes, more than raw-stride {header.stride}; give the "
            "bytes from one row to the next"
        )


def _known(kind: str, header: BayerHeader, orientation: int) -> Frame:
    """The frame of a header with bits, whose levels and pattern are constants."""
    assert header.bits is not None
    if kind == "mosaic" and header.pattern not in BAYER_PATTERNS:
        choices = ", ".join(BAYER_PATTERNS)
        raise UsageError(f"raw pattern {header.pattern} cannot be exported; give raw-pattern, one of {choices}")
    if kind == "rgb" and header.format is not None and header.pattern is not None:
        raise UsageError(
            f"raw-format {header.format} is that of a mosaic, and the frame is rgb; give raw-bits {header.bits} "
            "instead, or leave out input rgb"
        )
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
        header.pixel_format if kind == "mosaic" else None,
        header.stride,
        header.offset or 0,
    )
