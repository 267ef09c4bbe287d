"""Kernel of csrc/ that unpacks the rows of packed pixels, see `raw.pixel_formats`."""

from functools import partial

import torch
from jaxtyping import UInt8, UInt16
from torch import Tensor

from adaptiveisp.kernels.checks import require
from adaptiveisp.kernels.forward import rows_for_threads
from adaptiveisp.kernels.loading import function
from adaptiveisp.kernels.thread_pool import spread

LEAST_PIXELS = 1 << 18
"""Least pixels for a thread."""

LAYOUTS = {
    "csi2_10": (10, 4, 5),
    "csi2_12": (12, 2, 3),
    "csi2_14": (14, 4, 7),
    "lsb_10": (10, 0, 0),
    "lsb_12": (12, 0, 0),
    "lsb_14": (14, 0, 0),
    "gige_10": (10, 2, 3),
    "gige_12": (12, 2, 3),
}
"""Layout → bits, and values and bytes of a group (0 where values follow bit by bit), in the order of csrc/kernels.h."""

_CODES = {name: code for code, name in enumerate(LAYOUTS)}


def row_bytes(layout: str, width: int) -> int:
    """Bytes that a row of `width` packed pixels takes."""
    bits, values, n_bytes = LAYOUTS[layout]
    return -(-width // values) * n_bytes if values else -(-width * bits // 8)


def unpack(
    data: UInt8[Tensor, " n"], width: int, height: int, stride: int, layout: str
) -> UInt16[Tensor, "height width"]:
    """The values of packed rows as uint16.

    Args:
        data: contiguous bytes on the CPU.
        width, height: size in pixels.
        stride: bytes between the beginnings of rows.
        layout: of `LAYOUTS`.

    Raises:
        ValueError: an argument does not fit.
    """
    require(layout in LAYOUTS, f"the kernel has no layout {layout!r}; choose one of {', '.join(LAYOUTS)}")
    fits = data.dtype == torch.uint8 and data.device.type == "cpu" and data.ndim == 1 and data.is_contiguous()
    require(fits, "the kernel takes contiguous bytes on the CPU")
    require(min(width, height) >= 1, f"there must be pixels, not {width}x{height}")
    row = row_bytes(layout, width)
    require(stride >= row, f"{width} pixels take {row} bytes, more than the stride of {stride}")
    needed = stride * (height - 1) + row
    require(len(data) >= needed, f"{height} rows need {needed} bytes, not {len(data)}")
    target = torch.empty(height, width, dtype=torch.uint16)
    kernel, place = function("unpack"), (data.data_ptr(), target.data_ptr(), width, stride)
    parts = rows_for_threads(height, width, LEAST_PIXELS)
    spread([partial(kernel, *place, start, stop, _CODES[layout]) for start, stop in parts])
    return target
