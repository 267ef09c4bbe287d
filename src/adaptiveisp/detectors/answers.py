"""What a detector's numbers must be, whatever kind of detector gives them, and what happens to those that are not.

A score is a probability. A box has its corners in order and lies near the image. On a trial image a detector that
breaks this is refused; in use such a box is left out and counted (`Detections.dropped`), so that it neither stops a
batch nor passes for an answer.
"""

from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from adaptiveisp.errors import DetectorError, one_line
from adaptiveisp.types import Detections, Detector

SCORE_SLACK = 1e-3
"""Scores may leave 0..1 by so much: the rounding of half precision."""

MARGIN = 0.5
"""The centre of a box lies within the image and this share of its sides around it, so within twice the image. It is
the centre that counts: a network may give an object that fills the image a box far larger than that."""

MOST_DETECTIONS = 300
"""Boxes of one image that are kept, as `Detector.detect` has it by default; COCO's protocol looks at 100 a class."""

TRIAL_SIZE = (256, 320)
"""(height, width) in pixels of the trial image, rounded up to the detector's stride."""

WANTED = "scores must be in 0..1, and boxes x0 y0 x1 y1 with x0 <= x1 and y0 <= y1, in pixels of the image it is given"


class Chosen(NamedTuple):
    """The candidates among a detector's boxes.

    Attributes:
        place: index of each candidate's box.
        label, score: of each candidate.
        dropped: boxes that were left out because their numbers make no sense.
    """

    place: Int[Tensor, " m"]
    label: Int[Tensor, " m"]
    score: Float[Tensor, " m"]
    dropped: int


def choose(
    boxes: Float[Tensor, "n 4"], scores: Float[Tensor, "n classes"], confidence: float, height: int, width: int
) -> Chosen:
    """The pairs of box and class with a score above `confidence`, without boxes whose numbers make no sense.

    Args:
        boxes: xyxy in pixels.
        scores: of each box for each class.
        confidence: scores at or below this are no candidates.
        height, width: of the image in pixels.
    """
    dropped = 0
    if not bool(_sound_scores(torch.stack(torch.aminmax(scores))).all() if scores.numel() else True):
        wrong = ~_sound_scores(scores).all(dim=1)
        dropped = int(wrong.sum())
        scores = scores.masked_fill(wrong[:, None], -1.0)
    place, label = (scores > confidence).nonzero(as_tuple=True)
    good = sound_boxes(boxes[place], height, width)
    if not bool(good.all()):
        dropped += len(set(place[~good].tolist()))  # a box may be bad for several classes
        place, label = place[good], label[good]
    return Chosen(place, label, scores[place, label].clamp(max=1), dropped)


def checked(detector: Detector, found: Any, height: int, width: int, confidence: float = 0.0) -> Detections:
    """A detector's answer for one image: highest score first, at most `MOST_DETECTIONS`, none below `confidence`.

    Boxes whose numbers make no sense are left out and counted. A detector of one's own may not look at what it was
    asked for, and what comes after it must be able to rely on it.

    Args:
        detector: whose answer it is.
        found: what it returned for the image.
        height, width: of the image in pixels.
        confidence: least score.

    Raises:
        DetectorError: the answer is no `Detections`, its shapes do not fit each other, or a label is unknown.
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
    # A comparison with NaN is false; the sum of two infinities of one sign is one, so it is outside.
    within = (centre >= -MARGIN * size) & (centre <= (1 + MARGIN) * size) & (high >= low)
    return within.all(dim=1) & boxes.isfinite().all(dim=1)


def _sound_scores(scores: Tensor) -> Tensor:
    """Whether each score is in 0..1, to rounding; NaN is not."""
    return (scores >= -SCORE_SLACK) & (scores <= 1 + SCORE_SLACK)


def wrong_numbers(boxes: Float[Tensor, "n 4"], scores: Float[Tensor, " n"], height: int, width: int) -> str:
    """What is wrong with the numbers of some boxes, for a message; "" if nothing is.

    Args:
        boxes: xyxy in pixels.
        scores: one a box, such as its best.
        height, width: of the image in pixels.
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
    """Refuses a detector whose answer to a trial image, of random numbers, makes no sense.

    One that fails on it is not refused: it may serve training only, or other sizes; in use the failure is told.

    Args:
        detector: of any kind.
        text: how the user named it, for errors.
        device: where it is.

    Raises:
        DetectorError: says what is wrong with its numbers.
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
        what = what or f"gives {answer.dropped} boxes whose numbers make no sense"
        raise DetectorError(f"{text}: on a trial image it {what}; {WANTED}")


def dropped_note(name: str, dropped: int) -> str:
    """The line that tells a user of boxes that were left out; "" if there were none."""
    if not dropped:
        return ""
    boxes = "box was" if dropped == 1 else "boxes were"
    return one_line(f"{name}: {dropped} {boxes} left out, since their numbers make no sense; {WANTED}.")
