"""Checks of the detector's loss before a run spends its budget on it."""

from typing import Any

import torch

from adaptiveisp.errors import UsageError, logger
from adaptiveisp.training.methods.registry import METHODS, find_method
from adaptiveisp.types import Detector, Targets


def check_gradients(method: str, settings: Any, detector: Detector) -> None:
    """Refuses a method that needs gradients if the detector declares that its loss has none.

    Raises:
        UsageError: names the methods that need none.
    """
    if needs_gradients(method, settings) and not getattr(detector, "differentiable", True):
        raise _no_gradient(method, detector, getattr(detector, "not_differentiable_because", "") or "it declares so")


def check_loss(method: str, settings: Any, detector: Detector, device: str) -> None:
    """Tries the detector's loss on two images of random numbers, before a run spends its budget on it.

    Args:
        method, settings: of the run.
        detector: may be the user's own code.
        device: device of the detector.

    Raises:
        UsageError: the loss fails, is not one finite number for each image, or lacks a gradient that the method needs.
    """
    size = settings.size
    image = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    quarter, whole = size / 4, torch.zeros(1, dtype=torch.long, device=device)
    boxes = torch.tensor([[quarter, quarter, 3 * quarter, 3 * quarter]], device=device)
    wanted = needs_gradients(method, settings)
    with torch.set_grad_enabled(wanted):
        image.requires_grad_(wanted)
        try:
            loss = detector.loss(image, [Targets(boxes, whole)] * 2)
        except Exception as error:  # whatever the user's own code raises
            logger.debug("detector %s: loss", detector.name, exc_info=error)
            reason = f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}".rstrip(": ")
            raise UsageError(
                f"detector {detector.name}: its loss fails on a trial batch of {size}x{size} pixels ({reason}); "
                "correct its loss; -v shows where"
            ) from error
        if not isinstance(loss, torch.Tensor) or loss.shape != (2,) or not bool(loss.isfinite().all()):
            what = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__
            raise UsageError(
                f"detector {detector.name}: its loss must be a tensor of one finite number for each image, of shape "
                f"(2,) for a trial batch of 2; it returned {what}"
            )
        if not wanted:
            return
        if not loss.requires_grad:
            raise _no_gradient(method, detector, "the value of its loss does not depend on the pixels of the image")
        (gradient,) = torch.autograd.grad(loss.sum(), image, allow_unused=True)
    if gradient is None:
        raise _no_gradient(method, detector, "the value of its loss does not depend on the pixels of the image")
    if not bool(gradient.any()):
        logger.warning(
            "detector %s: the gradient of its loss is 0 on a trial batch; a run may learn nothing", detector.name
        )


def needs_gradients(method: str, settings: Any) -> bool:
    """Whether the parameters of a run learn by the gradient of the detector's loss."""
    explores = getattr(settings, "exploration", 0) > 0 or not getattr(settings, "sets_parameters", True)
    return find_method(method).needs_gradients and not explores


def _no_gradient(method: str, detector: Detector, reason: str) -> UsageError:
    others = ", ".join(name for name in METHODS.names() if not find_method(name).needs_gradients)
    return UsageError(
        f"method {method}: needs the gradient of the detector's loss, and {detector.name} has none ({reason}); "
        f"choose a method that needs none ({others}, or sequence with preset sampled), or another detector"
    )
