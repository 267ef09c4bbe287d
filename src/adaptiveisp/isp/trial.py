"""A trial of modules from outside the package on small random images, which finds mistakes before a run does."""

from collections.abc import Iterable

import torch
from torch import Tensor

from adaptiveisp.errors import UsageError, logger
from adaptiveisp.isp.external import check_external
from adaptiveisp.isp.module import IspModule
from adaptiveisp.isp.registry import BASELINES, HELPERS, MODULE_SETS
from adaptiveisp.types import Image, ParamTensor
from adaptiveisp.utils.own_code import reason_of

SIDE = 32
"""Side of the trial images in pixels, which is also the smallest `--size`."""
NEUTRAL_TOLERANCE = 0.01
"""Largest change of a pixel by neutral parameters: 2.5 of 255. A range of the scale "log" cannot hold a neutral 0."""
BATCH_TOLERANCE = 1e-3
"""Largest difference between an image in a batch and the same image alone, where sums differ in their order."""
PLACE = "correct it; on the command line -v shows where"
TRIED_LOGITS = (-3.0, 0.0, 3.0)
"""The outputs z of a network for which the result must be finite: both ends of each range nearly, and its middle."""


def of_ones_own(modules: Iterable[IspModule]) -> list[IspModule]:
    """Those of the modules that the package does not have itself."""
    known = {id(module) for modules in (*MODULE_SETS.values(), HELPERS, BASELINES) for module in modules}
    return [module for module in modules if id(module) not in known]


def check_module(module: IspModule, gradients: bool = True, device: str = "cpu") -> None:
    """Tries a module on random images with black and white pixels.

    Args:
        module: may be the user's own code; an external ISP is tried on a raw instead.
        gradients: whether a gradient for the image and for the parameters is needed, as most methods do.
        device: device of the images.

    Raises:
        UsageError: it fails, its result has another shape or is not finite, neutral parameters change an image, images
            of a batch depend on each other, or a gradient is missing or not finite.
    """
    if module.external is not None:
        check_external(module, gradients)
        return
    image = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    image[:, :, 0, 0], image[:, :, 0, 1] = 0, 1
    image = image.to(device)
    for z in TRIED_LOGITS:
        params = _params(module, image, z, z)
        if not _forbidden(module, params):
            _called(module, image, params)
    if module.params:
        neutral = torch.tensor([module.neutral] * 2, device=device)
        change = float((_called(module, image, neutral) - image).abs().max())
        if change > NEUTRAL_TOLERANCE:
            raise _fault(
                module, f"its neutral parameters change an image by up to {change:.2g}", "correct the neutral values"
            )
    params = _params(module, image, -0.5, 0.5)
    together = _called(module, image, params)
    alone = torch.cat([_called(module, image[i : i + 1], params[i : i + 1]) for i in range(2)])
    if not torch.allclose(together, alone, atol=BATCH_TOLERANCE):
        fault = "an image in a batch of two is not the same as alone"
        raise _fault(module, fault, "let each image depend on its own row of params only: params[:, :1, None, None]")
    if gradients:
        _check_gradients(module, image, params)


def _check_gradients(module: IspModule, image: Image, params: ParamTensor) -> None:
    """Refuses missing gradients, and warns where that of the image or of a parameter is 0.

    Raises:
        UsageError: a gradient is missing or not finite.
    """
    inputs: dict[str, Tensor] = {"image": image.detach().requires_grad_()}
    if module.params:
        inputs["parameters"] = params.detach().requires_grad_()
    result = _called(module, inputs["image"], inputs.get("parameters", params))
    remedy = "use differentiable operations of PyTorch, without detach, item or numpy"
    if not result.requires_grad:
        raise _fault(module, f"its result has no gradient for {' and '.join(inputs)}", remedy)
    try:
        found = torch.autograd.grad(result.sum(), list(inputs.values()), allow_unused=True)
    except Exception as error:  # operations of the user's own may have a wrong backward pass
        raise _fault(module, f"its gradient fails ({reason_of(error)})", PLACE) from error
    for name, gradient in zip(inputs, found, strict=True):
        if gradient is None:
            raise _fault(module, f"its result has no gradient for its {name}", remedy)
        if not bool(gradient.isfinite().all()):
            fault = f"the gradient for its {name} is not finite for an image with black and white pixels"
            raise _fault(module, fault, "keep away from powers, roots and logarithms of 0, for instance with clamp")
    if not bool(found[0].any()):
        logger.warning("module %s: the gradient of the image is 0, so modules before it cannot learn", module.name)
    for param, column in zip(module.params, found[-1].unbind(dim=1) if module.params else (), strict=True):
        if not bool(column.any()):
            logger.warning("module %s: the gradient of %s is 0 on a trial image", module.name, param.name)


def _params(module: IspModule, image: Image, first: float, second: float) -> ParamTensor:
    """The parameters of two images for which a network gives the same z for each parameter."""
    logits = torch.tensor([[first], [second]], device=image.device).expand(2, len(module.params)).contiguous()
    try:
        return module.params_from_logits(logits)
    except Exception as error:  # a head of the user's own
        logger.debug("module %s: head", module.name, exc_info=error)
        raise _fault(module, f"its head fails ({reason_of(error)})", PLACE) from error


def _forbidden(module: IspModule, params: ParamTensor) -> bool:
    """Whether the values of the first row, which are each in range, are invalid together."""
    values = dict(zip(module.neutral_params, params[0].tolist(), strict=True))
    return module.forbidden is not None and bool(module.forbidden(values))


def _called(module: IspModule, image: Image, params: ParamTensor) -> Image:
    """The result of the module, checked for shape and finiteness."""
    try:
        result: object = module.function(image, params)
    except Exception as error:  # whatever the user's own code raises
        logger.debug("module %s", module.name, exc_info=error)
        where = f"images of shape {tuple(image.shape)} and params of shape {tuple(params.shape)}"
        raise _fault(module, f"it fails on {where} ({reason_of(error)})", PLACE) from error
    if not isinstance(result, Tensor) or result.shape != image.shape:
        what = f"a tensor of shape {tuple(result.shape)}" if isinstance(result, Tensor) else type(result).__name__
        raise _fault(module, f"it returned {what}", f"return a tensor of the image's shape {tuple(image.shape)}")
    if not bool(result.isfinite().all()):
        rows = [round(value, 4) for value in params.detach()[0].tolist()]
        raise _fault(module, f"its result is not finite for the parameters {rows}", "correct it or narrow their ranges")
    return result.clamp(0, 1)


def _fault(module: IspModule, fault: str, remedy: str) -> UsageError:
    return UsageError(f"module {module.name}: {fault}; {remedy}")
