"""ISPs that are not made of modules: a camera's processor or a program, which develops a raw by its own parameters.

An external ISP declares its parameters and has `render(raw, params)`. It becomes a module, so that pipelines, policies
and searches name it like any other. Unlike other modules it starts from the raw itself: it can run only where the raw
is known, on a pipeline that was bound to one (see `isp.raw_pipeline`), and the stages before it have no effect. It has
no gradient.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from adaptiveisp.errors import PipelineError, UsageError, logger
from adaptiveisp.isp.module import IspModule, Param
from adaptiveisp.types import Image, ParamTensor, RawImage
from adaptiveisp.utils.own_code import reason_of

Picture = Float[Tensor, "3 height width"]

TRIAL_SIDE = 64
"""Side in pixels of the raw on which an external ISP is tried before a run."""
FLOAT_LIMIT = 2.0
"""Floats above this are taken for codes of another range, not for highlights that overshoot."""


@runtime_checkable
class ExternalISP(Protocol):
    """An ISP of the user's own that develops raws.

    Attributes:
        name: key in pipelines, tables and policies; letters, digits, "-" and "_".
        params: its parameters. `neutral` is the ISP's own default, from which searches start.

    It may also have `cost_ms`, the milliseconds of a call, for tables of costs; 0 where it has none.
    """

    name: str
    params: tuple[Param, ...]

    def render(self, raw: RawImage, params: Mapping[str, float]) -> NDArray[Any]:
        """The developed picture: (height, width, 3) or, grey, (height, width); upright, of the raw's full size.

        Args:
            raw: mosaic or RGB of any camera.
            params: every parameter by name, in its unit.

        Returns:
            Encoded RGB as a detector takes it: 8- or 16-bit unsigned integers of full scale, or floats in [0, 1].
        """
        ...


@dataclass(frozen=True)
class RawFrame:
    """A raw for external ISPs, and the part of the picture that is wanted.

    Attributes:
        raw: the raw.
        part: gives that part of the developed picture (3, height, width); None takes it whole.
    """

    raw: RawImage
    part: Callable[[Picture], Picture] | None = None


def is_external(value: object) -> bool:
    """Whether an object is an external ISP rather than a module."""
    return isinstance(value, ExternalISP) and not isinstance(value, IspModule | type)


_WRAPPED: dict[int, tuple[ExternalISP, IspModule]] = {}
"""The module of each external ISP, so that one that is registered twice is the same module."""


def module_of(isp: ExternalISP) -> IspModule:
    """The module of an external ISP.

    Raises:
        UsageError: its name or its parameters cannot be those of a module.
    """
    known = _WRAPPED.get(id(isp))
    if known is None:
        cost = getattr(isp, "cost_ms", 0.0)
        short = "".join(letter for letter in str(isp.name) if letter.isalnum())[:2].upper()
        function = partial(_without_raw, str(isp.name))
        effect = "Develops the raw itself, outside the package."
        module = IspModule(
            isp.name, short, tuple(isp.params), function, cost, effect=effect, bound=True, external=isp.render
        )
        known = _WRAPPED[id(isp)] = (isp, module)
    return known[1]


def _without_raw(name: str, image: Image, params: ParamTensor) -> NoReturn:
    """Refuses, because a developed image is not what an external ISP takes.

    Raises:
        PipelineError: always.
    """
    raise PipelineError(
        f"{name} develops the raw itself and cannot process an image; give the raw to a policy that names it "
        "(run, eval, AdaptiveISP), or bind the pipeline to it by isp.raw_pipeline.bound_to"
    )


def picture_of(module: IspModule, raw: RawImage, params: Sequence[float]) -> Picture:
    """The picture that an external ISP makes of a raw, RGB in [0, 1].

    Args:
        module: of an external ISP.
        raw: the raw.
        params: its parameters in their declared order.

    Raises:
        PipelineError: the ISP fails, or its picture has another shape or size, or values that are not finite.
    """
    assert module.external is not None
    named = {param.name: float(value) for param, value in zip(module.params, params, strict=True)}
    where = f"{module.name}: {raw.path or 'RawImage'}"
    try:
        made: object = module.external(raw, named)
    except PipelineError:
        raise
    except Exception as error:  # whatever the user's own code raises
        logger.debug("%s", where, exc_info=error)
        raise PipelineError(f"{where}: {reason_of(error)}; correct the ISP's render; -v shows where") from error
    if not isinstance(made, np.ndarray) or made.ndim not in (2, 3) or (made.ndim == 3 and made.shape[2] not in (1, 3)):
        what = f"an array of shape {made.shape}" if isinstance(made, np.ndarray) else type(made).__name__
        raise PipelineError(f"{where}: render returned {what}; return (height, width, 3)")
    height, width = raw.data.shape[:2] if raw.orientation < 5 else raw.data.shape[1::-1]
    if made.shape[:2] != (height, width):
        raise PipelineError(
            f"{where}: render returned {made.shape[1]}x{made.shape[0]} pixels for a raw of {width}x{height} upright, "
            "which would move all boxes; return the upright picture at the raw's size"
        )
    return _as_picture(made, where)


def _as_picture(made: NDArray[Any], where: str) -> Picture:
    """Pixels of any type as (3, height, width) in [0, 1].

    Raises:
        PipelineError: they are of another type, not finite, or far above 1.
    """
    if made.dtype in (np.uint8, np.uint16):
        values = torch.from_numpy(made.astype(np.float32)) / float(np.iinfo(made.dtype).max)
    elif np.issubdtype(made.dtype, np.floating):
        values = torch.from_numpy(made.astype(np.float32))
        if not bool(values.isfinite().all()):
            raise PipelineError(f"{where}: render returned values that are not finite; correct it or narrow the ranges")
        if values.numel() and float(values.max()) > FLOAT_LIMIT:
            what = f"floats up to {float(values.max()):g}, which would be clipped to white"
            raise PipelineError(f"{where}: render returned {what}; return floats in [0, 1], or uint8")
    else:
        raise PipelineError(f"{where}: render returned {made.dtype}; return uint8, uint16 or floats in [0, 1]")
    values = values.reshape(*made.shape[:2], -1).permute(2, 0, 1)
    return values.clamp(0, 1).expand(3, -1, -1).contiguous()


def rendered_frame(module: IspModule, frame: RawFrame, params: Sequence[float], height: int, width: int) -> Picture:
    """The wanted part of a frame as an external ISP develops it, at a size in pixels.

    Args:
        module: of an external ISP.
        frame: raw and part.
        params: parameters in their declared order.
        height, width: size of the result. Larger pictures are reduced by antialiased bilinear interpolation.

    Raises:
        PipelineError: see `picture_of`.
    """
    picture = picture_of(module, frame.raw, params)
    part = picture if frame.part is None else frame.part(picture)
    if part.shape[1:] == (height, width):
        return part
    return F.interpolate(part[None], (height, width), mode="bilinear", antialias=True, align_corners=False)[0].clamp(
        0, 1
    )


def rendered_frames(module: IspModule, frames: Sequence[RawFrame], params: ParamTensor, like: Image) -> Image:
    """Each frame as an external ISP develops it with its own row of parameters, of the size, type and device of `like`.

    Raises:
        PipelineError: see `picture_of`.
    """
    rows = params.detach().cpu().tolist()
    made = [rendered_frame(module, frame, row, *like.shape[2:]) for frame, row in zip(frames, rows, strict=True)]
    return torch.stack(made).to(like)


def names_external(modules: Sequence[IspModule]) -> bool:
    """Whether one of the modules is an external ISP, so that the raw is needed."""
    return any(module.external is not None for module in modules)


def check_external(module: IspModule, gradients: bool) -> None:
    """Tries an external ISP on a small mosaic with its default parameters, and with those near both ends.

    Args:
        module: of an external ISP.
        gradients: whether the method needs a gradient.

    Raises:
        UsageError: a gradient is needed, or the ISP fails.
    """
    if gradients:
        raise UsageError(
            f"{module.name}: is an ISP outside the package, which has no gradient; choose a method that needs none "
            "(cma_es, random_search, or sequence with preset sampled)"
        )
    codes = np.random.default_rng(0).integers(64, 4096, (TRIAL_SIDE, TRIAL_SIDE)).astype(np.uint16)
    raw = RawImage(codes, "RGGB", 64.0, 4095.0)
    tried = [[param.neutral for param in module.params]]
    tried += [[param.value(z) for param in module.params] for z in (-1.0, 1.0)]
    for params in tried:
        try:
            picture_of(module, raw, params)
        except PipelineError as error:
            raise UsageError(f"{error} (on a trial raw of {TRIAL_SIDE}x{TRIAL_SIDE} random values)") from error
