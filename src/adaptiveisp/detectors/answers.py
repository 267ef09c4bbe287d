"""Validity checks of detections, the same for every kind of detector.

A score must be a probability, and a box must have its corners in order and lie near the image. A detector that breaks
this rule on a trial image is refused when it is loaded. Later, an invalid box is left out and counted
(`Detections.dropped`), so that it neither stops a batch nor counts as a detection.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from adaptiveisp.errors import DetectorError, one_line
from adaptiveisp.types import Detections, Detector

SCORE_SLACK = 1e-3
"""Tolerance by which scores may leave 0..1: the rounding error of half precision."""

MARGIN = 0.5
"""Share of the image's sides by which the centre of a box may lie outside the image. Only the centre is checked: the
box of an object that fills the image can be far larger than the image."""

MOST_DETECTIONS = 300
"""Most boxes that are kept of one image, the default of `Detector.detect`; COCO's protocol uses 100 a class."""

TRIAL_SIZE = (256, 320)
"""(height, width) of the trial image in pixels, before rounding up to the detector's stride."""

WANTED = "scores must be in 0..1, and boxes x0 y0 x1 y1 with x0 <= x1 and y0 <= y1, in pixels of the image it is given"


class Chosen(NamedTuple):
    """The pairs of box and class that remain as candidates.

    Attributes:
        place: index of each candidate's box.
        label: class of each candidate.
        score: score of each candidate, in [0, 1].
        dropped: number of boxes that were left out as invalid.
    """

    place: Int[Tensor, " m"]
    label: Int[Tensor, " m"]
    score: Float[Tensor, " m"]
    dropped: int


def choose(
    boxes: Float[Tensor, "n 4"], scores: Float[Tensor, "n classes"], confidence: float, height: int, width: int
) -> Chosen:
    """The pairs of box and class with a score above `confidence`, without invalid boxes.

    Args:
        boxes: xyxy in pixels.
        scores: score of each box for each class.
        confidence: pairs with a score at or below this are left out.
        height, width: size of the image in pixels.
    """
    dropped = 0
    if not bool(_sound_scores(torch.stack(torch.aminmax(scores))).all() if scores.numel() else True):
        wrong = ~_sound_scores(scores).all(dim=1)
        dropped = int(wrong.sum())
        scores = scores.masked_fill(wrong[:, None], -1.0)
    place, label = (scores > confidence).nonzero(as_tuple=True)
    good = sound_boxes(boxes, height, width)[place]  # a box can be a candidate for many classes
    if not bool(good.all()):
        dropped += len(set(place[~good].tolist()))  # one invalid box can be a candidate for several classes
        place, label = place[good], label[good]
    return Chosen(place, label, scores[place, label].clamp(max=1), dropped)


def checked(detector: Detector, found: Any, height: int, width: int, confidence: float = 0.0) -> Detections:
    """A detector's detections of one image, by falling score: at most `MOST_DETECTIONS`, none below `confidence`.

    Invalid boxes are left out and counted. A user's own detector may ignore its arguments, and the code that uses its
    detections relies on this order and these limits.

    Args:
        detector: the detector that gave the detections.
        found: the value that its `detect` returned for this image.
        height, width: size of the image in pixels.
        confidence: least score of a detection.

    Raises:
        DetectorError: `found` is no `Detections`, its shapes do not fit each other, or a label is unknown.
    """
    if not isinstance(found, Detections):
        raise DetectorError(f"detector {detector.name}: detect returned a {type(found).__name__}, not Detections")
    boxes, scores, labels = found.boxes, found.scores, found.labels
    count = len(labels) if isinstance(labels, Tensor) and labels.ndim == 1 else -1
    shapes = [tuple(getattr(part, "shape", ())) for part in (boxes, scores)]
    if shapes != [(count, 4), (count,)] or labels.is_floating_point():
        raise DetectorError(
            f"detector {detector.name}: detect must return boxes (n, 4), scores (n,) and whole labels (n,)"
        )
    if not bool(((labels >= 0) & (labels < len(detector.class_names))).all()):
        raise DetectorError(
            f"detector {detector.name} gave an unknown label; labels must be from 0 to {len(detector.class_names) - 1}"
        )
    good = sound_boxes(boxes, height, width) & _sound_scores(scores)
    dropped = found.dropped + int((~good).sum())
    wanted = good & (scores >= confidence)
    in_order = bool((scores[1:] <= scores[:-1]).all())
    if bool(wanted.all()) and in_order and count <= MOST_DETECTIONS:
        return found
    kept = wanted.nonzero().flatten()
    kept = kept[scores[kept].sort(descending=True, stable=True).indices][:MOST_DETECTIONS]
    return Detections(boxes[kept], scores[kept], labels[kept], dropped)


def sound_boxes(boxes: Float[Tensor, "n 4"], height: int, width: int) -> Bool[Tensor, " n"]:
    """Whether each xyxy box is finite, has its corners in order, and its centre within twice the image.

    >>> sound_boxes(torch.tensor([[1.0, 2, 3, 4], [3, 2, 1, 4], [90, 2, 99, 4]]), 32, 32).tolist()
    [True, False, False]
    """
    size = boxes.new_tensor((width, height))
    low, high = boxes[:, :2], boxes[:, 2:]
    centre = (low + high) / 2
    # Comparisons with NaN are false. The mean of two infinities of one sign is infinite, and so outside.
    within = (centre >= -MARGIN * size) & (centre <= (1 + MARGIN) * size) & (high >= low)
    return within.all(dim=1) & boxes.isfinite().all(dim=1)


def _sound_scores(scores: Tensor) -> Tensor:
    """Whether each score is in 0..1 up to `SCORE_SLACK`; false for NaN."""
    return (scores >= -SCORE_SLACK) & (scores <= 1 + SCORE_SLACK)


def wrong_numbers(boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], height: int, width: int) -> str:
    """The first error found in some boxes and scores, as part of a message; "" if all are valid.

    Args:
        boxes: xyxy in pixels.
        scores: one score for each box, such as its best one.
        height, width: size of the image in pixels.
    """
    if not bool(boxes.isfinite().all() and scores.isfinite().all()):
        return "gives boxes or scores that are not finite"
    if not bool(_sound_scores(scores).all()):
        return f"gives scores from {float(scores.min()):.3g} to {float(scores.max()):.3g}, which are no probabilities"
    bad = boxes[~sound_boxes(boxes, height, width)]
    if len(bad) == 0:
        return ""
    first = ", ".join(f"{value:.4g}" for value in bad[0].tolist())
    what = "outside twice the image" if bool((bad[:, 2:] >= bad[:, :2]).all()) else "with x1 < x0 or y1 < y0"
    return f"gives {len(bad)} boxes {what}, such as [{first}] in {width}x{height} pixels"


@torch.no_grad()
def try_out(detector: Detector, text: str, device: str | torch.device = "cpu") -> None:
    """Refuses a detector that gives invalid boxes or scores for a trial image of random pixels.

    A detector that raises an error on this image is not refused: it may need another size. If it fails in use, that
    error is reported then; training tries its own size before it begins (`contract.TRAINING_CHECKS`).

    Args:
        detector: a detector of any kind.
        text: the user's name for it, for errors.
        device: device of the detector.

    Raises:
        DetectorError: the boxes or scores are invalid; the message says in which way.
    """
    height, width = (-(-side // detector.stride) * detector.stride for side in TRIAL_SIZE)
    image = torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(0)).to(device)
    try:
        (found,) = detector.detect(image)
        answer = checked(detector, found, height, width)
    except Exception:
        return
    if answer.dropped:
        what = wrong_numbers(found.boxes, found.scores, height, width)
        what = what or f"gives {answer.dropped} invalid boxes"
        raise DetectorError(f"{text}: on a trial image it {what}; {WANTED}")


def dropped_note(name: str, dropped: int) -> str:
    """The message that invalid boxes were left out; "" if there were none.

    Args:
        name: name of the detector.
        dropped: number of boxes that were left out.
    """
    if not dropped:
        return ""
    boxes = "box was" if dropped == 1 else "boxes were"
    return one_line(f"{name}: {dropped} {boxes} left out as invalid; {WANTED}.")
