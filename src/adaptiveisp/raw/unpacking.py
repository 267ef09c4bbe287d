"""Unpacks the rows of a frame in any of the formats of `raw.pixel_formats`."""

import warnings
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from adaptiveisp.kernels.registry import find
from adaptiveisp.raw.pixel_formats import Layout, PixelFormat

Bytes = NDArray[np.uint8]

_KERNELS = {Layout.CSI2: "csi2", Layout.LSB: "lsb", Layout.GIGE: "gige"}
"""Layout → first part of its name for the kernel."""


def unpack(data: Bytes, how: PixelFormat, width: int, height: int, stride: int | None = None) -> NDArray[Any]:
    """The values of a frame as (height, width): uint8 up to 8 bits, uint16 up to 16 bits, else uint32.

    Args:
        data: contiguous bytes; row y begins at `y * stride`. Bytes after the last row's pixels are not read.
        how: the format of the rows.
        width, height: size in pixels.
        stride: bytes between the beginnings of rows; None if rows have no padding.

    Raises:
        ValueError: a row is longer than the stride, or the data are too short.
    """
    row = how.row_bytes(width)
    stride = row if stride is None else stride
    if stride < row or min(width, height) < 1:
        raise ValueError(f"{width}x{height} pixels of {how.name} need rows of {row} bytes, not {stride}")
    if data.size < stride * (height - 1) + row:
        raise ValueError(f"{width}x{height} pixels of {how.name} need {stride * (height - 1) + row} bytes")
    if how.layout is not Layout.WHOLE and (kernel := find("unpack")):
        with warnings.catch_warnings():  # PyTorch warns of arrays that are read-only; the kernel only reads
            warnings.simplefilter("ignore", UserWarning)
            packed = torch.from_numpy(data)
        values: NDArray[Any] = kernel(packed, width, height, stride, f"{_KERNELS[how.layout]}_{how.bits}").numpy()
        return values
    rows = np.lib.stride_tricks.as_strided(data, (height, row), (stride, 1), writeable=False)
    return _whole(rows, how, width) if how.layout is Layout.WHOLE else _packed(rows, how, width)


def _whole(rows: Bytes, how: PixelFormat, width: int) -> NDArray[Any]:
    """Values of 1 to 4 bytes each."""
    n_bytes, height = how.container // 8, len(rows)
    parts = rows.reshape(height, width, n_bytes)
    if n_bytes == 1:
        values: NDArray[Any] = parts[..., 0].copy()
    elif n_bytes == 3:
        order = (2, 1, 0) if how.big_endian else (0, 1, 2)
        low, middle, high = (parts[..., i].astype(np.uint32) for i in order)
        values = low | middle << 8 | high << 16
    else:
        order_of_bytes = ">" if how.big_endian else "<"
        values = np.ascontiguousarray(parts).view(f"{order_of_bytes}u{n_bytes}")[..., 0].astype(f"=u{n_bytes}")
    if how.msb:
        values >>= how.container - how.bits
    return values if how.bits > 16 or n_bytes < 3 else values.astype(np.uint16)


def _packed(rows: Bytes, how: PixelFormat, width: int) -> NDArray[np.uint16]:
    """Packed values, where the kernel is not compiled."""
    values, n_bytes = how.group
    groups = -(-width // values)
    padded = np.zeros((len(rows), groups * n_bytes), np.uint8)
    padded[:, : rows.shape[1]] = rows
    parts = padded.reshape(len(rows), groups, n_bytes).astype(np.uint64)
    if how.layout is Layout.GIGE:
        low = how.bits - 8
        mask = np.uint64((1 << low) - 1)
        first = parts[..., 0] << np.uint64(low) | parts[..., 1] & mask
        second = parts[..., 2] << np.uint64(low) | parts[..., 1] >> np.uint64(4) & mask
        found = np.stack([first, second], axis=2)
    else:
        number = np.zeros(parts.shape[:2], np.uint64)
        low_bits = how.bits - 8 if how.layout is Layout.CSI2 else how.bits
        low_bytes = parts[..., values:] if how.layout is Layout.CSI2 else parts
        for i in range(low_bytes.shape[2]):
            number |= low_bytes[..., i] << np.uint64(8 * i)
        shifts = np.arange(values, dtype=np.uint64) * np.uint64(low_bits)
        found = number[..., None] >> shifts & np.uint64((1 << low_bits) - 1)
        if how.layout is Layout.CSI2:
            found |= parts[..., :values] << np.uint64(low_bits)
    return found.reshape(len(rows), -1)[:, :width].astype(np.uint16)
