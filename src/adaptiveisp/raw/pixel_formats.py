"""The pixel formats that cameras deliver, by their public names: depth, layout of the bits, and pattern.

Names come from V4L2 (`SRGGB10P`, FourCC `pRAA`), MIPI CSI-2 (`RAW10`), GenICam's Pixel Format Naming Convention
(`BayerRG12p`, `Mono12Packed`) and libcamera (`SRGGB10_CSI2P`). Formats that none of these names are written as
`u12le16`: 12 bits, low byte first, in 16 bits; `be` for the high byte first, `msb` where the value fills the high bits
(`u12msble16`).

Sources: Linux kernel, "Bayer RGB formats" and "Raw Bayer packed formats" of the V4L2 API; MIPI Alliance, CSI-2, section
"RAW Image Data"; EMVA, GenICam PFNC 2.4, sections 5 and 6; libcamera, formats.yaml.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache

from adaptiveisp.errors import UsageError, shown
from adaptiveisp.utils.raw_fields import MONO


class Layout(Enum):
    """Where the bits of the values lie."""

    WHOLE = "whole bytes"
    """Each value in 1 to 4 bytes of its own."""
    CSI2 = "CSI-2"
    """High bytes of a group of values, then their low bits, the first value's lowest."""
    LSB = "bits in order"
    """Consecutive bits, the lowest first, as GenICam's `p` formats."""
    GIGE = "GigE Vision packed"
    """Two values in three bytes: high bits, low bits of both, high bits; GenICam's older `Packed` formats."""


@dataclass(frozen=True)
class PixelFormat:
    """One way in which a camera delivers a row of pixels.

    Attributes:
        name: as it was given.
        bits: significant bits of a value, 8 to 32.
        layout: where they lie.
        container: bits between the beginnings of two values of `Layout.WHOLE`; 0 for packed layouts.
        msb: whether a value fills the high bits of its container.
        big_endian: whether the high byte of a container comes first.
        pattern: of `BAYER_PATTERNS`, "MONO", or None where the name does not say.
    """

    name: str
    bits: int
    layout: Layout = Layout.WHOLE
    container: int = 0
    msb: bool = False
    big_endian: bool = False
    pattern: str | None = None

    @property
    def group(self) -> tuple[int, int]:
        """Values that are packed together, and the bytes that they take."""
        return _GROUPS[self.layout, self.bits] if self.layout is not Layout.WHOLE else (1, self.container // 8)

    def row_bytes(self, width: int) -> int:
        """Bytes of a row of `width` pixels without padding; a row begins at a byte.

        >>> pixel_format("RAW10").row_bytes(640), pixel_format("RAW10").row_bytes(641)
        (800, 805)
        """
        values, n_bytes = self.group
        if self.layout is Layout.LSB:
            return -(-width * self.bits // 8)
        return -(-width // values) * n_bytes

    def described(self) -> str:
        """The format in words, for instance "RAW10 (CSI-2, 10 bits, 4 pixels in 5 bytes)"."""
        values, n_bytes = self.group
        if self.layout is Layout.WHOLE:
            order = "" if n_bytes == 1 else ", high byte first" if self.big_endian else ", low byte first"
            align = ", in the high bits" if self.msb and self.bits < self.container else ""
            many = f"{n_bytes} bytes a pixel" if n_bytes > 1 else "1 byte a pixel"
            return f"{self.name} ({self.bits} bits{align}, {many}{order})"
        many = f"{values} pixels in {n_bytes} bytes"
        return f"{self.name} ({self.layout.value}, {self.bits} bits, {many})"


_GROUPS: dict[tuple[Layout, int], tuple[int, int]] = {
    (Layout.CSI2, 10): (4, 5),
    (Layout.CSI2, 12): (2, 3),
    (Layout.CSI2, 14): (4, 7),
    (Layout.LSB, 10): (4, 5),
    (Layout.LSB, 12): (2, 3),
    (Layout.LSB, 14): (4, 7),
    (Layout.GIGE, 10): (2, 3),
    (Layout.GIGE, 12): (2, 3),
}
"""Layout and bits → values of a group and its bytes."""

_ORDERS = ("RGGB", "GRBG", "GBRG", "BGGR")
_GENICAM = {"RGGB": "BayerRG", "GRBG": "BayerGR", "GBRG": "BayerGB", "BGGR": "BayerBG", MONO: "Mono"}
_FOURCC_8 = {"RGGB": "RGGB", "GRBG": "GRBG", "GBRG": "GBRG", "BGGR": "BA81", MONO: "GREY"}
_FOURCC_WHOLE = {
    10: {"RGGB": "RG10", "GRBG": "BA10", "GBRG": "GB10", "BGGR": "BG10", MONO: "Y10"},
    12: {"RGGB": "RG12", "GRBG": "BA12", "GBRG": "GB12", "BGGR": "BG12", MONO: "Y12"},
    14: {"RGGB": "RG14", "GRBG": "GR14", "GBRG": "GB14", "BGGR": "BG14", MONO: "Y14"},
    16: {"RGGB": "RG16", "GRBG": "GR16", "GBRG": "GB16", "BGGR": "BYR2", MONO: "Y16"},
}
_FOURCC_PACKED = {
    10: {"RGGB": "pRAA", "GRBG": "pgAA", "GBRG": "pGAA", "BGGR": "pBAA", MONO: "Y10P"},
    12: {"RGGB": "pRCC", "GRBG": "pgCC", "GBRG": "pGCC", "BGGR": "pBCC", MONO: "Y12P"},
    14: {"RGGB": "pREE", "GRBG": "pgEE", "GBRG": "pGEE", "BGGR": "pBEE", MONO: "Y14P"},
}
_GENERIC = re.compile(r"u(\d{1,2})(msb)?(le|be)?(8|16|24|32)")
"""Names such as u12le16; see the docstring of this file."""

_REFUSED = (
    (
        re.compile(r"PISP|PC1|PC2"),
        "is compressed by the Raspberry Pi 5; ask for an uncompressed one such as SRGGB16",
    ),
    (re.compile(r"ALAW8"), "is companded by the A-law; ask the driver for the linear format of 10 bits"),
    (re.compile(r"DPCM8"), "is compressed (DPCM); ask the driver for the linear format of 10 bits"),
    (re.compile(r"IPU3|IP3"), "is packed by Intel's IPU3; convert it to 16 bits a pixel first"),
    (re.compile(r"RAW6|RAW7"), "has fewer than 8 bits; ask the driver for a format of 8 bits or more"),
)
"""Names of known formats that are not read, and the remedy."""


def _named() -> Iterator[PixelFormat]:
    """All formats that have a public name, once for each name."""
    for pattern in (*_ORDERS, MONO):
        v4l2 = f"S{pattern}" if pattern != MONO else "Y"
        libcamera = f"S{pattern}" if pattern != MONO else "R"
        for bits in (8, 10, 12, 14, 16):
            plain = PixelFormat("", bits, Layout.WHOLE, 8 if bits == 8 else 16, pattern=pattern)
            fourcc = _FOURCC_8[pattern] if bits == 8 else _FOURCC_WHOLE[bits][pattern]
            for name in dict.fromkeys((f"{v4l2}{bits}", f"{libcamera}{bits}", f"{_GENICAM[pattern]}{bits}", fourcc)):
                yield replace(plain, name=name)
            if bits in _FOURCC_PACKED:
                packed = replace(plain, layout=Layout.CSI2, container=0)
                for name in (f"{v4l2}{bits}P", f"{libcamera}{bits}_CSI2P", _FOURCC_PACKED[bits][pattern]):
                    yield replace(packed, name=name)
                yield replace(packed, name=f"{_GENICAM[pattern]}{bits}p", layout=Layout.LSB)
            if bits in (10, 12):
                gige = replace(plain, name=f"{_GENICAM[pattern]}{bits}Packed", layout=Layout.GIGE, container=0)
                yield gige
    yield PixelFormat("Y16_BE", 16, Layout.WHOLE, 16, big_endian=True, pattern=MONO)
    yield PixelFormat("RAW8", 8, Layout.WHOLE, 8)
    yield PixelFormat("RAW16", 16, Layout.WHOLE, 16)
    for bits in (10, 12, 14):
        yield PixelFormat(f"RAW{bits}", bits, Layout.CSI2)


@cache
def pixel_formats() -> dict[str, PixelFormat]:
    """The formats by public name, in the table's order."""
    return {found.name: found for found in _named()}


@cache
def _by_case_folded_name() -> dict[str, PixelFormat | None]:
    """Names without regard to case; None where two formats differ in it alone, such as pgAA and pGAA."""
    folded: dict[str, PixelFormat | None] = {}
    for name, found in pixel_formats().items():
        known = folded.setdefault(name.casefold(), found)
        if known is not None and replace(known, name="") != replace(found, name=""):
            folded[name.casefold()] = None
    return folded


def pixel_format(name: str) -> PixelFormat:
    """The format of a public name, in any case where that is unambiguous.

    Args:
        name: of V4L2 (also with V4L2_PIX_FMT_), MIPI CSI-2, GenICam or libcamera, a FourCC, or like u12le16.

    Raises:
        UsageError: the name is unknown or the format is not read; the message has a remedy.

    >>> pixel_format("SRGGB10P").described()
    'SRGGB10P (CSI-2, 10 bits, 4 pixels in 5 bytes)'
    >>> pixel_format("u12be16").big_endian
    True
    """
    plain = name.strip().removeprefix("V4L2_PIX_FMT_").removeprefix("MEDIA_BUS_FMT_")
    found = pixel_formats().get(plain) or _by_case_folded_name().get(plain.casefold()) or _generic(plain)
    if found is not None:
        return found
    for pattern, remedy in _REFUSED:
        if pattern.search(plain.upper()):
            raise UsageError(f"raw format {shown(name)} {remedy}")
    raise UsageError(
        f"raw format {shown(name)} is unknown; give a name of V4L2, GenICam or libcamera such as SRGGB10P, BayerRG12p "
        "or RAW12, or one like u12le16 (docs/raws.md lists them)"
    )


def _generic(name: str) -> PixelFormat | None:
    """The format that a name such as u12msbbe16 describes; None if it is no such name.

    Raises:
        UsageError: the bits do not fit the container.
    """
    match = _GENERIC.fullmatch(name.lower())
    if match is None:
        return None
    bits, container = int(match[1]), int(match[4])
    if not 8 <= bits <= container or bits > 24:
        raise UsageError(f"raw format {shown(name)} has {bits} bits in {container}; give 8 to 24 bits that fit")
    return PixelFormat(name, bits, Layout.WHOLE, container, match[2] is not None, match[3] == "be")
