"""Checks of what every detector must hold, for tests of a user's own detector and for the start of a training run.

Loading alone refuses little (`answers.try_out`): a detector may serve evaluation only, or need another size.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn

from adaptiveisp.detectors.answers import MOST_DETECTIONS, TRIAL_SIZE, WANTED, checked, wrong_numbers
from adaptiveisp.detectors.checks import check_facts
from adaptiveisp.errors import DetectorError, logger
from adaptiveisp.types import Detections, Detector, Image, Targets
from adaptiveisp.utils.own_code import reason_of

SAME_SHAPE = 1e-3
"""Relative difference of two losses that is taken for rounding if the batches have the same shape."""
OTHER_SHAPE = 0.05
"""The same if the batches have different numbers of images, for which libraries choose different algorithms."""
SAME_SCORE = 0.01
"""Difference of the best scores of an image by itself and in a batch that is taken for rounding."""


class Trial(NamedTuple):
    """Two images of random pixels, RGB in [0, 1], with one and two labelled objects."""

    image: Image
    targets: list[Targets]


Check: TypeAlias = Callable[[Any, Trial], None]
"""Raises `DetectorError` if a detector breaks a promise on the trial images."""


def make_trial(detector: Detector, size: int | None = None, device: str | torch.device = "cpu") -> Trial:
    """The trial images of a detector.

    Args:
        detector: gives stride and number of classes.
        size: side of the images in pixels, rounded up to the detector's stride; None for 320 x 256 pixels.
        device: device of the detector.
    """
    sides = TRIAL_SIZE if size is None else (size, size)
    height, width = (-(-side // detector.stride) * detector.stride for side in sides)
    image = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0))
    image[1] *= 0.5
    x, y = width / 8, height / 8
    boxes = torch.tensor([[x, y, 5 * x, 5 * y], [4 * x, 3 * y, 7 * x, 6 * y]], device=device)
    labels = torch.tensor([0, len(detector.class_names) - 1], device=device)
    return Trial(image.to(device), [Targets(boxes[:1], labels[:1]), Targets(boxes, labels)])


def detections_are_valid(detector: Any, trial: Trial) -> None:
    """`detect` takes `confidence`, and gives a list of valid `Detections`, one for each image."""
    height, width = trial.image.shape[-2:]
    for found in _detected(detector, trial.image, confidence=0.001):
        if checked(detector, found, height, width).dropped:
            what = wrong_numbers(found.boxes, found.scores, height, width) or "gives invalid boxes"
            raise DetectorError(f"detector {detector.name}: {what}; {WANTED}")


def detections_follow_the_arguments(detector: Any, trial: Trial) -> None:
    """`detect` takes `confidence`, `nms_iou` and `max_detections`, and gives the best detections first."""
    everything = _detected(detector, trial.image, confidence=0.001, nms_iou=0.6, max_detections=MOST_DETECTIONS)
    least = 0.3
    few = _detected(detector, trial.image, confidence=least, nms_iou=0.6, max_detections=1)
    for found in everything:
        if bool((found.scores.diff() > 0).any()):
            raise DetectorError(f"detector {detector.name}: detect must give the highest score first")
    for found in few:
        if len(found.scores) > 1:
            raise DetectorError(f"detector {detector.name}: detect gives more than max_detections=1")
        if bool((found.scores < least).any()):
            raise DetectorError(f"detector {detector.name}: detect gives scores below confidence={least}")


def detections_of_each_image_alone(detector: Any, trial: Trial) -> None:
    """The detections of an image do not depend on the other images of the batch."""
    best = [_best(found) for found in _detected(detector, trial.image, confidence=0.001)]
    for number, in_batch in enumerate(best):
        (alone,) = _detected(detector, trial.image[number : number + 1], confidence=0.001)
        if abs(_best(alone) - in_batch) > SAME_SCORE:
            raise DetectorError(
                f"detector {detector.name}: the best score of an image is {_best(alone):.3f} by itself and "
                f"{in_batch:.3f} in a batch; call eval() on its network"
            )


def losses_are_finite(detector: Any, trial: Trial) -> None:
    """`loss` gives one finite float32 number for each image, also for images without objects."""
    for targets in (trial.targets, [_no_objects(trial)] * 2):
        losses = _losses(detector, trial.image, targets)
        if losses.dtype != torch.float32 or not bool(losses.isfinite().all()):
            raise DetectorError(f"detector {detector.name}: loss must give finite numbers of float32, not {losses}")


def loss_of_each_image_alone(detector: Any, trial: Trial) -> None:
    """The loss of an image does not depend on the other images of the batch, and is the same in each call."""
    image, targets = trial
    with torch.no_grad():
        together = _losses(detector, image, targets)
        other = torch.cat([image[:1], torch.zeros_like(image[1:])])
        beside_other = _losses(detector, other, [targets[0], _no_objects(trial)])
        alone = torch.cat([_losses(detector, image[i : i + 1], targets[i : i + 1]) for i in range(2)])
    scale = float(together.abs().max())
    pairs = ((together[0], beside_other[0], SAME_SHAPE), *zip(together, alone, (OTHER_SHAPE,) * 2, strict=True))
    for first, second, tolerance in pairs:
        if not abs(float(first - second)) <= tolerance * scale + 1e-6:
            raise DetectorError(
                f"detector {detector.name}: its loss of one image is {float(first):.4g} or {float(second):.4g}, "
                "depending on the other images of the batch; give each image its own loss, without a mean or a "
                "normalisation over the batch, and call eval() on the network"
            )


def gradient_of_each_image_alone(detector: Any, trial: Trial) -> None:
    """The gradient of an image's loss is finite, and reaches this image and no other."""
    if not getattr(detector, "differentiable", True):
        return
    image = trial.image.clone().requires_grad_()
    losses = _losses(detector, image, trial.targets)
    gradients: list[Tensor | None] = []
    for loss in losses if losses.requires_grad else ():
        gradients += torch.autograd.grad(loss, image, retain_graph=True, allow_unused=True)
    for number, gradient in enumerate(gradients or [None]):
        if gradient is None or not bool(gradient[number].any()):
            raise DetectorError(
                f"detector {detector.name}: its loss has no gradient for the image; if it can have none, give the "
                "detector differentiable = False and not_differentiable_because, a text"
            )
        if not bool(gradient.isfinite().all()):
            raise DetectorError(f"detector {detector.name}: the gradient of its loss is not finite")
        if bool(gradient[1 - number].any()):
            raise DetectorError(f"detector {detector.name}: the loss of one image has a gradient for another image")


def nothing_changes(detector: Any, trial: Trial) -> None:
    """The network is frozen: its tensors need no gradient, and neither `loss` nor `detect` changes them."""
    before = {name: tensor.clone() for name, tensor in tensors_of(detector).items()}
    if _has_loss(detector, trial):
        _losses(detector, trial.image, trial.targets)
    _detected(detector, trial.image, confidence=0.001)
    for name, tensor in tensors_of(detector).items():
        if tensor.requires_grad:
            remedy = "call requires_grad_(False) on the network"
            raise DetectorError(f"detector {detector.name}: its tensor {name} is not frozen; {remedy}")
        if name not in before or not torch.equal(tensor, before[name]):
            raise DetectorError(f"detector {detector.name}: its tensor {name} changes; call eval() on the network")


DETECTION_CHECKS: tuple[Check, ...] = (
    detections_are_valid,
    detections_follow_the_arguments,
    detections_of_each_image_alone,
    nothing_changes,
)
"""Checks that every detector must pass."""

LOSS_CHECKS: tuple[Check, ...] = (losses_are_finite, loss_of_each_image_alone, gradient_of_each_image_alone)
"""Checks of a detector that has a loss."""

TRAINING_CHECKS: tuple[Check, ...] = (detections_are_valid, loss_of_each_image_alone)
"""Checks at the start of a training run, after those of `training.trial_loss`. Order and number of detections are not
among them, since the package itself sorts and cuts what `detect` gives."""


def check_detector(detector: Any, size: int | None = None, device: str | torch.device = "cpu") -> None:
    """Checks on trial images that a detector holds what the package relies on, for a test of one's own detector.

    The checks of the loss are left out where `loss` raises `NotImplementedError`, as a detector for evaluation may.

    Args:
        detector: an object with the attributes and methods of `adaptiveisp.Detector`.
        size: side of the trial images in pixels, rounded up to the detector's stride; None for 320 x 256 pixels.
        device: device of the detector.

    Raises:
        DetectorError: names the promise that is broken, with the remedy.
    """
    wanted = ("name", "class_names", "stride", "weights_sha256", "loss", "detect")
    if missing := ", ".join(attribute for attribute in wanted if not hasattr(detector, attribute)):
        raise DetectorError(f"a {type(detector).__name__} is no detector, since it lacks {missing}")
    check_facts(detector, f"detector {detector.name}")
    trial = make_trial(detector, size, device)
    run_checks(detector, trial, DETECTION_CHECKS)
    if _has_loss(detector, trial):
        run_checks(detector, trial, LOSS_CHECKS)


def run_checks(detector: Detector, trial: Trial, checks: Sequence[Check]) -> None:
    """Runs checks in their order.

    Raises:
        DetectorError: by the first one that fails.
    """
    for check in checks:
        check(detector, trial)


def tensors_of(detector: Any) -> dict[str, Tensor]:
    """Every parameter and buffer, also those that are not saved, and tensors that are plain attributes."""
    parts = detector if isinstance(detector, nn.Module) else nn.Module()
    for key, value in getattr(detector, "__dict__", {}).items() if parts is not detector else ():
        if isinstance(value, nn.Module):
            parts.add_module(key, value)
        elif isinstance(value, Tensor):
            parts.register_buffer(key, value)
    return {**dict(parts.named_parameters()), **dict(parts.named_buffers())}


def _best(found: Detections) -> float:
    return float(found.scores.max()) if len(found.scores) else 0.0


def _no_objects(trial: Trial) -> Targets:
    device = trial.image.device
    return Targets(torch.zeros(0, 4, device=device), torch.zeros(0, dtype=torch.long, device=device))


def _detected(detector: Any, image: Image, **arguments: float) -> list[Any]:
    """What `detect` gives.

    Raises:
        DetectorError: it fails, or does not give a list with one entry for each image.
    """
    try:
        with torch.no_grad():
            found = detector.detect(image, **arguments)
    except Exception as error:  # the user's own code
        given = ", ".join(f"{name}={value:g}" for name, value in arguments.items())
        raise _failure(detector, f"detect(image, {given})", image, error) from error
    if not isinstance(found, list) or len(found) != len(image):
        raise DetectorError(f"detector {detector.name}: detect must return a list with one Detections for each image")
    return found


def _losses(detector: Any, image: Image, targets: list[Targets]) -> Float[Tensor, " batch"]:
    """What `loss` gives.

    Raises:
        DetectorError: it fails, or does not give one number for each image.
    """
    try:
        losses = detector.loss(image, targets)
    except Exception as error:  # the user's own code
        raise _failure(detector, "loss(image, targets)", image, error) from error
    if not isinstance(losses, Tensor) or losses.shape != (len(image),):
        what = f"a tensor of shape {tuple(losses.shape)}" if isinstance(losses, Tensor) else type(losses).__name__
        raise DetectorError(
            f"detector {detector.name}: loss must return one number for each image, a tensor of shape (batch,), "
            f"not {what}"
        )
    return losses


def _failure(detector: Any, call: str, image: Image, error: Exception) -> DetectorError:
    logger.debug("detector %s: %s", detector.name, call, exc_info=error)
    size = f"{len(image)} images of {image.shape[-1]}x{image.shape[-2]} pixels"
    return DetectorError(
        f"detector {detector.name}: {call} fails on {size} ({reason_of(error)}); correct it, or choose another size"
    )


def _has_loss(detector: Any, trial: Trial) -> bool:
    try:
        detector.loss(trial.image[:1], trial.targets[:1])
    except NotImplementedError:
        return False
    except Exception:  # a check says more about it
        return True
    return True
