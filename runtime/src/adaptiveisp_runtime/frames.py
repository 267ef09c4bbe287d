"""The bytes of headerless frames as arrays of code values, as `frame.format` of a manifest describes them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from adaptiveisp_runtime.errors import RuntimeFault

LAYOUTS = ("whole", "csi2", "lsb", "gige")


@dataclass(frozen=True)
class FrameFormat:
    """How the bytes of a frame hold its values; the names and meanings are those of the manifest.

    Attributes:
        name: of the format.
        layout: one of `LAYOUTS`.
        bits: depth of a value.
        container_bits, high_bits, big_endian: of the layout "whole".
        group_values, group_bytes: values that are packed together, and their bytes.
        row_bytes: from one row to the next; None if rows follow each other without a gap.
        offset: bytes before the first row.

    Raises:
        RuntimeFault: it is not a format that can be read, such as one whose groups do not hold their values.
    """

    name: str
    layout: str
    bits: int
    container_bits: int = 16
    high_bits: bool = False
    big_endian: bool = False
    group_values: int = 1
    group_bytes: int = 2
    row_bytes: int | None = None
    offset: int = 0

    def __post_init__(self) -> None:
        """Reading past a row or before the frame would give foreign memory, so that every number is checked."""
        if self.layout not in LAYOUTS:
            raise RuntimeFault(f"frame format {self.name}: layout {self.layout!r} is unknown; update this package")
        numbers = {
            **{"bits": (self.bits, 8), "group_values": (self.group_values, 1), "group_bytes": (self.group_bytes, 1)},
            **{"offset": (self.offset, 0), "container_bits": (self.container_bits, 0)},
            "row_bytes": (1 if self.row_bytes is None else self.row_bytes, 1),
        }
        for key, (value, least) in numbers.items():
            if type(value) is not int or value < least:
                raise self._fault(f"{key} = {value!r} is not a whole number of at least {least}")
        if not (isinstance(self.high_bits, bool) and isinstance(self.big_endian, bool)):
            raise self._fault("high_bits or big_endian is neither true nor false")
        values, size, spare = self.group_values, self.group_bytes, self.group_bytes - self.group_values
        if self.layout == "whole":
            fits = self.container_bits in (8, 16, 24, 32) and (values, 8 * size) == (1, self.container_bits)
            fits = fits and self.bits <= self.container_bits
        elif self.layout == "csi2":
            fits = 8 < self.bits <= 16 and 0 < spare <= 4 and (self.bits - 8) * values <= 8 * spare
        elif self.layout == "gige":
            fits = self.bits <= 12 and (values, size) == (2, 3)
        else:
            fits = self.bits <= 32
        if not fits:
            raise self._fault(
                f"layout {self.layout} has no {self.bits} bits with container_bits = {self.container_bits}, "
                f"group_values = {values} and group_bytes = {size}"
            )

    def _fault(self, text: str) -> RuntimeFault:
        return RuntimeFault(f"frame format {self.name}: {text}; export the folder again")

    @classmethod
    def of(cls, entry: Mapping[str, Any]) -> "FrameFormat":
        """The format of a manifest's entry, whose unknown keys are passed over.

        Raises:
            RuntimeFault: it lacks a key, names an unknown layout, or is not a format that can be read.
        """
        known = {key: value for key, value in entry.items() if key in cls.__dataclass_fields__}
        try:
            return cls(**known)
        except TypeError as error:
            raise RuntimeFault(
                f"manifest.json: frame.format is not valid ({error}); export the folder again"
            ) from error

    def used_bytes(self, width: int) -> int:
        """Bytes of a row's values, without the gap after it."""
        if self.layout == "lsb":
            return -(-width * self.bits // 8)
        return -(-width // self.group_values) * self.group_bytes

    def step(self, width: int) -> int:
        """Bytes from one row to the next.

        Raises:
            RuntimeFault: `row_bytes` is less than what the values of a row take.
        """
        used = self.used_bytes(width)
        if self.row_bytes is not None and self.row_bytes < used:
            raise self._fault(f"row_bytes = {self.row_bytes}, but {width} pixels take {used} bytes")
        return used if self.row_bytes is None else self.row_bytes

    def frame_bytes(self, height: int, width: int) -> int:
        """Bytes of a frame from its first row on."""
        return (height - 1) * self.step(width) + self.used_bytes(width)


def unpack(content: bytes, form: FrameFormat, height: int, width: int) -> NDArray[Any]:
    """The code values of a frame, (height, width), uint8, uint16 or uint32 by their depth.

    Args:
        content: the bytes. After the last row and its gap less than one row of padding may follow.
        form: how they hold the values.
        height, width: of the frame in pixels.

    Raises:
        RuntimeFault: there are too few or too many bytes, or the width does not fit the format.
    """
    used, step = form.used_bytes(width), form.step(width)
    needed = form.offset + form.frame_bytes(height, width)
    if len(content) < needed or len(content) >= form.offset + height * step + used:
        size = f"{width}x{height} in {form.name}"
        raise RuntimeFault(f"the frame has {len(content)} bytes, {size} needs {needed}; check size and format")
    body = np.frombuffer(content, np.uint8, needed - form.offset, form.offset)
    rows = np.lib.stride_tricks.as_strided(body, (height, used), (step, 1))
    values = {"whole": _whole, "csi2": _csi2, "lsb": _lsb, "gige": _gige}[form.layout](rows, form)[:, :width]
    kind = np.uint8 if form.bits <= 8 else np.uint16 if form.bits <= 16 else np.uint32
    return np.ascontiguousarray(values.astype(kind))


def _whole(rows: NDArray[np.uint8], form: FrameFormat) -> NDArray[Any]:
    """Each value in bytes of its own."""
    count = form.container_bits // 8
    parts = rows.reshape(len(rows), -1, count).astype(np.uint32)
    order = range(count - 1, -1, -1) if form.big_endian else range(count)
    values = np.zeros(parts.shape[:2], np.uint32)
    for place, byte in enumerate(order):
        values |= parts[:, :, byte] << np.uint32(8 * place)
    shifted: NDArray[Any] = values >> np.uint32(form.container_bits - form.bits if form.high_bits else 0)
    return shifted


def _csi2(rows: NDArray[np.uint8], form: FrameFormat) -> NDArray[Any]:
    """The high 8 bits of each value of a group, then the low bits of all of them."""
    groups = rows.reshape(len(rows), -1, form.group_bytes).astype(np.uint32)
    low = form.bits - 8
    tail = np.zeros(groups.shape[:2], np.uint32)
    for place in range(form.group_values, form.group_bytes):
        tail |= groups[:, :, place] << np.uint32(8 * (place - form.group_values))
    values = [
        groups[:, :, place] << np.uint32(low) | tail >> np.uint32(low * place) & np.uint32((1 << low) - 1)
        for place in range(form.group_values)
    ]
    return np.stack(values, axis=2).reshape(len(rows), -1)


def _lsb(rows: NDArray[np.uint8], form: FrameFormat) -> NDArray[Any]:
    """One stream of bits, lowest bit first."""
    bits = np.unpackbits(rows, axis=1, bitorder="little")
    count = bits.shape[1] // form.bits
    grouped = bits[:, : count * form.bits].reshape(len(rows), count, form.bits).astype(np.uint32)
    values: NDArray[Any] = (grouped << np.arange(form.bits, dtype=np.uint32)).sum(axis=2, dtype=np.uint32)
    return values


def _gige(rows: NDArray[np.uint8], form: FrameFormat) -> NDArray[Any]:
    """Two values in three bytes, the middle one with the low bits of both."""
    groups = rows.reshape(len(rows), -1, 3).astype(np.uint32)
    low = form.bits - 8
    mask = np.uint32((1 << low) - 1)
    first = groups[:, :, 0] << np.uint32(low) | groups[:, :, 1] & mask
    second = groups[:, :, 2] << np.uint32(low) | groups[:, :, 1] >> np.uint32(4) & mask
    return np.stack([first, second], axis=2).reshape(len(rows), -1)


def read_frames(path: str | Path | BinaryIO, form: FrameFormat, height: int, width: int) -> Iterator[NDArray[Any]]:
    """The frames of a file or pipe, one behind the other; an incomplete one at the end is left out.

    Args:
        path: a file, or an object with `read`. The bytes before the first row come before each frame.
        form, height, width: as for `unpack`.

    Raises:
        RuntimeFault: the file cannot be read, or does not hold one frame.
    """
    count = form.offset + height * form.step(width)
    if not isinstance(path, str | Path):
        yield from _frames_of(path, form, height, width, count, "the stream")
        return
    try:
        with open(path, "rb") as stream:
            yield from _frames_of(stream, form, height, width, count, str(path))
    except OSError as error:
        raise RuntimeFault(f"{path}: cannot be read ({error.strerror}); check the path") from error


def _frames_of(
    stream: BinaryIO, form: FrameFormat, height: int, width: int, count: int, name: str
) -> Iterator[NDArray[Any]]:
    found, needed = 0, form.offset + form.frame_bytes(height, width)
    while len(content := _read(stream, count)) >= needed:
        yield unpack(content, form, height, width)
        found += 1
    if not found:
        size = f"{width}x{height} in {form.name}"
        raise RuntimeFault(f"{name}: has {len(content)} bytes, {size} needs {needed}; check size and format")


def _read(stream: BinaryIO, count: int) -> bytes:
    """The next bytes; fewer only at the end of the stream."""
    parts: list[bytes] = []
    while count > 0 and (part := stream.read(count)):
        parts.append(part)
        count -= len(part)
    return b"".join(parts)
