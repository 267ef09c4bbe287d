"""A small ISP outside the package, whose result can be computed by hand: half-resolution colours times a gain.

On the command line it is `tests.support.external_isp:SIMPLE`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from adaptiveisp import Param, RawImage


class SimpleISP:
    name = "simple"
    params = (Param("gain", 0.125, 8.0, "", 1.0, "log"), Param("red", 0.5, 2.0, "", 1.0, "log"))

    def __init__(self) -> None:
        self.calls: list[tuple[RawImage, dict[str, float]]] = []

    def render(self, raw: RawImage, params: Mapping[str, float]) -> NDArray[Any]:
        """Each 2x2 cell of an RGGB mosaic as four equal pixels, linear, times the gain."""
        self.calls.append((raw, dict(params)))
        codes = (raw.data.astype(np.float32) - raw.black_level[0]) / (raw.white_level - raw.black_level[0])
        red, blue = codes[::2, ::2], codes[1::2, 1::2]
        green = (codes[::2, 1::2] + codes[1::2, ::2]) / 2
        small = np.stack([red * params["red"], green, blue], axis=2) * params["gain"]
        return small.repeat(2, axis=0).repeat(2, axis=1).clip(0, 1)


SIMPLE = SimpleISP()
