"""Bilateral grid: an affine transform of colours that varies with place and brightness, as a network predicts it.

The module states what a grid did: its mean gain and offset, and its size. The grid itself has thousands of numbers and
belongs to one image, so that it is kept beside the pipeline in memory, see `isp.grid_pipeline`, and in no file.
"""

from typing import NoReturn

from adaptiveisp.errors import PipelineError
from adaptiveisp.isp.module import IspModule, Param
from adaptiveisp.types import Image, ParamTensor

IN_NO_FILE = "what it does is in no file; run the policy that chose it (--policy) on the raw again"


def without_grid(image: Image, params: ParamTensor) -> NoReturn:
    """Refuses, because the parameters alone do not hold the grid.

    Raises:
        PipelineError: always.
    """
    raise PipelineError(f"bilateral_grid: {IN_NO_FILE}")


COST_MS = 4.5
"""No paper's table has it. `denoise`, which the table has with 10 ms, takes about 2.2 times as long: 15 ms where a grid
took 7 (416x416, one thread of a Xeon)."""

PAPER = IspModule(
    "bilateral_grid",
    "BG",
    (
        Param("gain", -1000.0, 1000.0, "", 1.0),
        Param("spread", 0.0, 1000.0, "", 0.0),
        Param("offset", -1000.0, 1000.0, "", 0.0),
        Param("rows", 1.0, 64.0, "", 1.0),
        Param("columns", 1.0, 64.0, "", 1.0),
        Param("depth", 1.0, 64.0, "", 1.0),
    ),
    without_grid,
    COST_MS,
    source="Chen et al. 2007; Gharbi et al. 2017",
    effect="States what a predicted bilateral grid of colour transforms did; the numbers alone do not reproduce it.",
    bound=True,
)
