"""Corrections of a mosaic that are declared for it: defective pixels, then lens shading."""

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from adaptiveisp.errors import RawFileError
from adaptiveisp.raw.defects import without_defects
from adaptiveisp.raw.headerless import BayerHeader
from adaptiveisp.raw.shading import NO_SHADING, gains_of_file, shaded
from adaptiveisp.types import MONO

_STEPS = {MONO: 1, "RGBIR4": 4}
"""Pattern → pixels from one to the next of the same colour; 2 for all others."""


def corrected(
    data: NDArray[Any], pattern: str | None, black: Sequence[float], white: float, header: BayerHeader, name: object
) -> NDArray[Any]:
    """The mosaic with the declared corrections, or the data itself where none are declared.

    Args:
        data: the mosaic.
        pattern: its pattern; None for RGB.
        black: black level at each position of the 2x2 block.
        white: white level.
        header: the declarations, `defects` and `shading`.
        name: the file, for errors.

    Raises:
        RawFileError: the raw is RGB, or the file of gains cannot be used.
    """
    has_shading = header.shading not in (None, NO_SHADING)
    if not header.defects and not has_shading:
        return data
    if pattern is None:
        named = "raw-shading" if has_shading else "raw-defects (--defects)"
        raise RawFileError(f"{name}: is RGB, and {named} is for mosaics; leave it out for this file")
    if header.defects:
        data = without_defects(data, _STEPS.get(pattern, 2), min(black), white)[0]
    if has_shading:
        data = shaded(data, gains_of_file(str(header.shading), *data.shape), black, white)
    return data
